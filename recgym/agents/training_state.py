"""What a checkpoint holds beyond the policy, so that training goes on bit for bit where it stopped.

Optimizer, counters, random states, environment, what the model acts on next, replay buffer. Everything is checked
before anything is taken up.
"""

from __future__ import annotations

import copy
import math
import random
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

__all__ = ["capture", "check_counters", "check_tensors", "is_whole", "restore"]

REPLAY = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")
COUNTERS = {"n_updates": "_n_updates", "n_calls": "_n_calls", "episodes": "_episode_num"}  # attributes of the model
KEYS = {*COUNTERS, "param_groups", "random", "action_space", "progress", "replay", "episode_infos"}
WORDS = 624  # of the Mersenne twister, which NumPy's and Python's global generators are


# --- checks ----------------------------------------------------------------------------------------------------------
def is_whole(value: Any, least: int = 0) -> bool:
    """Whether `value` is a whole number of at least `least`; True is none."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def check_counters(counters: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Refuse counters of an algorithm's own that are not the ones it has; of these, `seed` may be None.

    Raises:
        ValueError: says what they must be.
    """
    whole = [value for name, value in counters.items() if value is not None or name != "seed"]
    if set(counters) != set(own) or not all(map(is_whole, whole)):
        names = ", ".join(own)
        raise ValueError(f"own counters must be whole numbers {names}, found {dict(counters)}")


def check_tensors(expected: Mapping[str, torch.Tensor], tensors: Mapping[str, torch.Tensor]) -> None:
    """Refuse other names, shapes or dtypes than expected.

    Raises:
        ValueError: says what differs.
    """
    missing, surplus = sorted(set(expected) - set(tensors)), sorted(set(tensors) - set(expected))
    if missing or surplus:
        raise ValueError(f"missing {missing[:4]}, unexpected {surplus[:4]}")
    for name, tensor in expected.items():
        if tensor.shape != tensors[name].shape or tensor.dtype != tensors[name].dtype:
            want, got = (f"{t.dtype} {tuple(t.shape)}" for t in (tensor, tensors[name]))
            raise ValueError(f"tensor {name!r} should be {want}, found {got}")


def _check_settings(model: Any, settings: Mapping[str, Any]) -> None:
    if missing := KEYS - set(settings):
        raise ValueError(f"missing {sorted(missing)}")
    for name in COUNTERS:
        if not is_whole(settings[name]):
            raise ValueError(f"{name} must be a whole number from 0, found {settings[name]!r}")
    if not _is_number(settings["progress"]):
        raise ValueError(f"progress must be a number, found {settings['progress']!r}")
    infos = settings["episode_infos"]
    if not isinstance(infos, list) or not all(
        isinstance(info, dict) and {"r", "l"} <= set(info) and all(map(_is_number, info.values())) for info in infos
    ):
        raise ValueError("episode_infos must be a list of mappings to numbers, with r and l")
    buffer, replay = getattr(model, "replay_buffer", None), settings["replay"]
    if buffer is None and replay is not None:
        raise ValueError("it has a replay buffer, the model has none")
    if buffer is not None:
        right = isinstance(replay, list) and len(replay) == 2 and is_whole(replay[0]) and isinstance(replay[1], bool)
        if not right or replay[0] >= buffer.buffer_size:
            raise ValueError(f"replay must be [position below {buffer.buffer_size}, full], found {replay}")


def _alike(ours: Any, theirs: Any) -> bool:
    """Whether `theirs` can stand for `ours` among the optimizer's settings."""
    if isinstance(ours, list | tuple):
        return isinstance(theirs, list) and len(ours) == len(theirs) and all(map(_alike, ours, theirs))
    return _is_number(theirs) if _is_number(ours) else isinstance(theirs, bool | None)


def _param_groups(ours: list[dict[str, Any]], theirs: Any) -> list[dict[str, Any]]:
    """The file's settings of the optimizer; those that it does not name, as an older torch had fewer, stay."""
    if not isinstance(theirs, list) or len(theirs) != len(ours) or not all(isinstance(g, dict) for g in theirs):
        raise ValueError(f"param_groups must be a list of {len(ours)} mappings")
    for mine, other in zip(ours, theirs, strict=True):
        wrong = sorted(key for key in other if key not in mine or not _alike(mine[key], other[key]))
        if other.get("params") != mine["params"] or wrong:
            raise ValueError(f"param_groups do not fit the optimizer: {wrong or 'params'}")
    return [{**mine, **other} for mine, other in zip(ours, theirs, strict=True)]


def _expected(model: Any, settings: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors with the names, shapes and dtypes that the file must have, apart from policy and environment."""
    words = torch.zeros(WORDS, dtype=torch.int64)
    space = model.observation_space
    expected = {
        "random.torch": torch.get_rng_state(),
        "random.numpy": words,
        "random.python": torch.zeros(WORDS + 1, dtype=torch.int64),
        "last.observation": torch.from_numpy(np.zeros((model.n_envs, *space.shape), dtype=space.dtype)),
        "last.episode_starts": torch.zeros(model.n_envs, dtype=torch.bool),
        **_lstm_states(model),
        **_replay(model, settings["replay"]),
    }
    if "random.cuda" in tensors and model.device.type == "cuda":
        expected["random.cuda"] = torch.cuda.get_rng_state(model.device)
    indices = {int(name.split(".")[1]) for name in tensors if name.startswith("optimizer.")}
    weights = settings.get("optimizer", sorted(indices))
    if weights:
        # every optimizer has tensors of its own: a copy that makes a step shows which
        trial = copy.deepcopy(model.policy.optimizer)
        for group in trial.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.zeros_like(parameter)
        trial.step()
        state = trial.state_dict()["state"]
        if not isinstance(weights, list) or not all(is_whole(index) and index in state for index in weights):
            raise ValueError(f"the optimizer has {len(state)} weights, the file keeps {weights}")
        for index in weights:
            expected |= {f"optimizer.{index}.{key}": torch.as_tensor(value) for key, value in state[index].items()}
    return expected


def _lstm_states(model: Any) -> dict[str, torch.Tensor]:
    memory = getattr(model, "_last_lstm_states", None)
    pairs = {} if memory is None else memory._asdict()
    return {f"last.lstm.{name}.{i}": tensor for name, pair in pairs.items() for i, tensor in enumerate(pair)}


def _replay(model: Any, replay: list[Any] | None) -> dict[str, torch.Tensor]:
    """Views of the part of the buffer that `replay`, [position, full], says is filled."""
    if replay is None:
        return {}
    buffer, (position, full) = model.replay_buffer, replay
    stop = buffer.buffer_size if full else position
    return {f"replay.{name}": torch.from_numpy(getattr(buffer, name)[:stop]) for name in REPLAY}


# --- random states ---------------------------------------------------------------------------------------------------
def _random_states(model: Any) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    numpy_state: Any = np.random.get_state(legacy=True)  # noqa: NPY002 - SB3 draws its minibatches from it
    python_version, python_words, python_gauss = random.getstate()
    arrays = {
        "random.torch": torch.get_rng_state(),
        "random.numpy": torch.from_numpy(np.array(numpy_state[1], dtype=np.int64)),
        "random.python": torch.tensor(python_words, dtype=torch.int64),
    }
    if model.device.type == "cuda":
        arrays["random.cuda"] = torch.cuda.get_rng_state(model.device)
    return arrays, {
        "random": [numpy_state[0], *(float(v) for v in numpy_state[2:]), python_version, python_gauss],
        "action_space": model.action_space.np_random.bit_generator.state,  # DQN explores with it
    }


def _set_random_states(model: Any, tensors: Mapping[str, torch.Tensor], settings: Mapping[str, Any]) -> None:
    kind, position, has_gauss, gauss, python_version, python_gauss = settings["random"]
    words = tensors["random.numpy"]
    # NumPy does not check these, and reads beyond the words where the position is wrong
    if position not in range(WORDS + 1) or has_gauss not in (0, 1) or ((words < 0) | (words >= 1 << 32)).any():
        raise ValueError("the state of NumPy's generator is none")
    model.action_space.np_random.bit_generator.state = settings["action_space"]
    torch.set_rng_state(tensors["random.torch"])
    if "random.cuda" in tensors and model.device.type == "cuda":
        torch.cuda.set_rng_state(tensors["random.cuda"], model.device)
    np.random.set_state(  # noqa: NPY002
        (kind, words.numpy().astype(np.uint32), int(position), int(has_gauss), float(gauss))
    )
    random.setstate((python_version, tuple(tensors["random.python"].tolist()), python_gauss))


# --- the whole -------------------------------------------------------------------------------------------------------
def capture(model: Any) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors by name, and the rest as JSON can carry it: what `restore` takes up.

    Call it between an update and the next rollout.

    Raises:
        ValueError: the model has not learned yet, or its environment cannot be held: that takes a `VecEnv` with
            methods `snapshot`, which gives NumPy arrays by name, and `restore`, which takes them.
    """
    env = model.env.unwrapped
    if not (hasattr(env, "snapshot") and hasattr(env, "restore")):
        raise ValueError(
            f"training cannot go on from a file in a {type(env).__name__}, whose state it cannot hold (no snapshot "
            "and restore): save without training"
        )
    if model._last_obs is None:
        raise ValueError("there is no training to go on with: learn in the environment first, or save without it")
    arrays, settings = _random_states(model)
    state = model.policy.optimizer.state_dict()
    for index, moments in state["state"].items():
        arrays |= {f"optimizer.{index}.{key}": torch.as_tensor(value) for key, value in moments.items()}
    buffer = getattr(model, "replay_buffer", None)
    replay = None if buffer is None else [buffer.pos, buffer.full]
    arrays |= {f"env.{name}": torch.from_numpy(np.array(value)) for name, value in env.snapshot().items()}
    observation, space = np.array(model._last_obs), model.observation_space
    if observation.shape[1:] != space.shape:
        # of another number of candidates (MetaPPO's variants): the next rollout begins with a reset
        observation = np.zeros((model.n_envs, *space.shape), dtype=space.dtype)
    arrays["last.observation"] = torch.from_numpy(observation)
    arrays["last.episode_starts"] = torch.from_numpy(np.array(model._last_episode_starts))
    return arrays | _lstm_states(model) | _replay(model, replay), {
        **settings,
        **{key: getattr(model, attribute, 0) for key, attribute in COUNTERS.items()},
        "param_groups": state["param_groups"],
        "optimizer": sorted(state["state"]),
        "progress": model._current_progress_remaining,
        "replay": replay,
        "episode_infos": [
            {key: float(value) for key, value in info.items() if key in ("r", "l", "t")}
            for info in model.ep_info_buffer or ()
        ],
    }


def restore(model: Any, settings: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
    """Take up what `capture` gave.

    Args:
        model: with the weights of the same file.
        settings: the JSON part.
        tensors: all of the file's, those of the policy included.

    Raises:
        ValueError: something is missing or does not fit (says what). Model and global generators are then as before,
            and so is the environment, unless it is what refuses after it took up a part.
    """
    groups: dict[str, dict[str, torch.Tensor]] = {"env": {}, "policy": {}, "": {}}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        groups[part if part in groups else ""][rest if part in groups else name] = tensor
    own = groups[""]
    if model.device.type != "cuda":
        own.pop("random.cuda", None)  # trained there, and goes on here
    _check_settings(model, settings)
    optimizer: Any = model.policy.optimizer
    param_groups = _param_groups(optimizer.state_dict()["param_groups"], settings["param_groups"])
    check_tensors(_expected(model, settings, own), own)
    if not all(map(model.observation_space.contains, own["last.observation"].numpy())):
        raise ValueError("last.observation lies outside of the environment's observations")
    before = _random_states(model)
    try:
        _set_random_states(model, own, settings)
        env = model.env.unwrapped
        env.restore({name: tensor.numpy() for name, tensor in groups["env"].items()})
        check_tensors({name: torch.from_numpy(np.array(v)) for name, v in env.snapshot().items()}, groups["env"])
    except BaseException:
        _set_random_states(model, *before)
        raise
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in own.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".")
            state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": param_groups})
    model._last_obs = own["last.observation"].numpy().copy()
    model._last_episode_starts = own["last.episode_starts"].numpy().copy()
    memory = getattr(model, "_last_lstm_states", None)
    if memory is not None:
        pairs = [
            tuple(own[f"last.lstm.{name}.{i}"].to(model.device) for i in range(len(pair)))
            for name, pair in memory._asdict().items()
        ]
        model._last_lstm_states = type(memory)(*pairs)
    for name, rows in _replay(model, settings["replay"]).items():
        rows.copy_(own[name])
    if settings["replay"] is not None:
        model.replay_buffer.pos, model.replay_buffer.full = settings["replay"]
    for key, attribute in COUNTERS.items():
        if hasattr(model, attribute):
            setattr(model, attribute, settings[key])
    model._current_progress_remaining = settings["progress"]
    model.ep_info_buffer = deque(settings["episode_infos"], maxlen=model._stats_window_size)
    model.ep_success_buffer = deque(maxlen=model._stats_window_size)
