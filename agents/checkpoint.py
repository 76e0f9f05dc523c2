"""Checkpoints without pickle: one `.safetensors` file with a JSON header, checked before anything is built from it.

A file holds the policy's weights and, where `training` is asked for, all that decides how training goes on: optimizer,
counters, random states, environment, replay buffer. It is written at once or not at all.
"""

from __future__ import annotations

import hashlib
import json
import random
import struct
import warnings
from collections import deque
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from stable_baselines3.common.vec_env import VecEnv

import recgym
from recgym.core import Layout, write_atomically
from recgym.sb3 import RecVecEnv, make_vec_env

__all__ = ["ALGORITHMS", "build", "export", "load", "load_pretrained", "read", "save", "versions"]

FORMAT = 1  # a newer number is refused
LONGEST_HEADER = 4 << 20  # bytes
ALGORITHMS = {  # the classes that a file may name
    "ppo": "stable_baselines3:PPO",
    "a2c": "stable_baselines3:A2C",
    "dqn": "stable_baselines3:DQN",
    "recurrent_ppo": "sb3_contrib:RecurrentPPO",
}
PRETRAINED = Path(__file__).with_name("pretrained")
ACTIVATIONS = ("ReLU", "Tanh", "GELU", "SiLU")
HEADER: dict[str, tuple[type, ...]] = {  # what a header must have
    "algo": (str,),
    "arguments": (dict,),
    "env": (dict,),
    "layout": (dict,),
    "versions": (dict,),
    "threads": (int,),
    "num_timesteps": (int,),
    "exploration_rate": (float, int, type(None)),
    "counters": (dict,),
    "training": (dict, type(None)),
}
LIBRARIES = ("gymnasium", "numpy", "stable_baselines3", "sb3_contrib", "torch", "safetensors")


# --- building --------------------------------------------------------------------------------------------------------
def _schedule(value: Any) -> Any:
    """ "lin_X" is RL Zoo's way to write a value that falls linearly from X to 0."""
    if not (isinstance(value, str) and value.startswith("lin_")):
        return value
    start = float(value.removeprefix("lin_"))
    return lambda progress_remaining: start * progress_remaining


def build(
    algo: str, env: VecEnv, arguments: Mapping[str, Any], *, device: str = "auto", seed: int | None = None
) -> Any:
    """An algorithm from plain values.

    Args:
        algo: a key of `ALGORITHMS`.
        env: what it learns in.
        arguments: of its constructor, as JSON or TOML can carry them: "lin_X" stands for a schedule that falls linearly
            from X to 0; `policy_kwargs.activation_fn` is a name.
        device: "auto", "cpu" or "cuda".
        seed: of the algorithm; None leaves the global generators as they are.

    Raises:
        ValueError: unknown algorithm or activation.
    """
    if algo not in ALGORITHMS:
        raise ValueError(f"no algorithm {algo!r}; there are {', '.join(ALGORITHMS)}")
    module, _, name = ALGORITHMS[algo].partition(":")
    values = {key: _schedule(value) for key, value in arguments.items()}
    policy_kwargs = dict(values.pop("policy_kwargs", {}))
    if "activation_fn" in policy_kwargs:
        activation = policy_kwargs["activation_fn"]
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation_fn {activation!r} is not one of {', '.join(ACTIVATIONS)}")
        policy_kwargs["activation_fn"] = getattr(torch.nn, activation)
    return getattr(import_module(module), name)(
        values.pop("policy"), env, policy_kwargs=policy_kwargs, device=device, seed=seed, **values
    )


def versions() -> dict[str, str]:
    """Of what decides a training run."""
    return {"recgym": recgym.__version__, **{name: version(name) for name in LIBRARIES}}


# --- writing ---------------------------------------------------------------------------------------------------------
def _digest(tensors: Mapping[str, torch.Tensor], header: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()


def save(
    path: str | Path,
    model: Any,
    *,
    algo: str | None = None,
    arguments: Mapping[str, Any],
    env_id: str,
    parameters: Mapping[str, Any] | None = None,
    training: bool = False,
    counters: Mapping[str, Any] | None = None,
) -> Path:
    """Write a checkpoint: to a temporary file beside it, flushed to disk, then renamed.

    Args:
        path: of the file; ".safetensors" is added where it is missing.
        model: the algorithm.
        algo: its key in `ALGORITHMS`; None finds it.
        arguments: those it was built with (see `build`).
        env_id: a key of `recgym.SCENARIOS`.
        parameters: of the environment.
        training: whether the file can be resumed from.
        counters: JSON values of the caller, handed back by `read`.

    Returns:
        The file's path.

    Raises:
        ValueError: the model is not of `algo`, or its environment is not the one described.
        OSError: the folder cannot be written to.
    """
    algo = _described(model, algo, recgym.make_scenario(env_id, **(parameters or {})))
    tensors = {f"policy.{name}": value for name, value in model.policy.state_dict().items()}
    header: dict[str, Any] = {
        "format": FORMAT,
        "algo": algo,
        "arguments": dict(arguments),
        "env": {"id": env_id, "parameters": dict(parameters or {}), "n_envs": model.n_envs},
        "layout": model.env.get_attr("layout")[0].to_json(),
        "versions": versions(),
        "threads": torch.get_num_threads(),
        "num_timesteps": model.num_timesteps,
        "exploration_rate": getattr(model, "exploration_rate", None),  # with which DQN samples
        "counters": dict(counters or {}),
        "training": None,
    }
    if training:
        arrays, header["training"] = _training_state(model)
        tensors |= arrays
    return _write(path, header, tensors)


def _described(model: Any, algo: str | None, scenario: Any) -> str:
    """The algorithm's key, once model and environment are known to be what the file will say."""
    names = {kind.partition(":")[2]: key for key, kind in ALGORITHMS.items()}
    found = names.get(type(model).__name__)
    if found is None or algo not in (None, found):
        raise ValueError(f"the model is a {type(model).__name__}, not {algo or 'one of ' + ', '.join(ALGORITHMS)}")
    if model.get_vec_normalize_env() is not None:
        raise ValueError("the model's VecNormalize keeps statistics that a checkpoint does not hold: train without it")
    if not isinstance(model.env.unwrapped, RecVecEnv) or model.env.unwrapped.scenario != scenario:
        raise ValueError(
            f"the model's environment is not {scenario}: see recgym.sb3.make_vec_env, or name its parameters"
        )
    return found


def _write(path: str | Path, header: dict[str, Any], tensors: Mapping[str, torch.Tensor]) -> Path:
    """Adds the suffix and the digest; all or nothing."""
    path = Path(path)
    path = path if path.suffix == ".safetensors" else path.with_name(path.name + ".safetensors")
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    header["digest"] = _digest(tensors, header)
    write_atomically(path, safetensors.torch.save(tensors, metadata={"recgym": json.dumps(header)}))
    return path


def export(source: str | Path, target: str | Path) -> Path:
    """Copy a checkpoint without what only training needs; errors as in `read` and `save`."""
    header, tensors = read(source)
    weights = {name: tensor for name, tensor in tensors.items() if name.startswith("policy.")}
    return _write(target, {**header, "training": None, "counters": {}}, weights)


# --- reading ---------------------------------------------------------------------------------------------------------
def read(path: str | Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Header and tensors of a checkpoint, checked; nothing is built or run.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no checkpoint, is damaged, or was written by a newer version (says which).
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint; a run keeps its own in its folder under logs/")
    content = path.read_bytes()
    if len(content) < 9:
        raise ValueError(f"{path}: {len(content)} bytes are too short for a checkpoint")
    (length,) = struct.unpack("<Q", content[:8])
    if content[8:9] != b"{" and (content[:2] == b"PK" or content[:1] == b"\x80"):  # a length may begin so too
        raise ValueError(f"{path}: this is a zip or pickle file, which can run code when loaded; it was not opened")
    if length > LONGEST_HEADER:
        raise ValueError(f"{path}: not a checkpoint, or damaged: its header would take {length} bytes")
    try:
        metadata = json.loads(content[8 : 8 + length]).get("__metadata__", {})
        header = json.loads(metadata["recgym"])
        tensors = safetensors.torch.load(content)
    except KeyError:
        raise ValueError(f"{path}: a safetensors file without recgym's header: not one of its checkpoints") from None
    except (ValueError, AttributeError, TypeError, RecursionError, safetensors.SafetensorError) as error:
        raise ValueError(f"{path}: not a checkpoint, or truncated: {error}") from None
    if not isinstance(header, dict) or not isinstance(header.get("format"), int) or header["format"] < 1:
        raise ValueError(f"{path}: the header has no format version")
    if header["format"] > FORMAT:
        raise ValueError(f"{path}: format {header['format']} is newer than the {FORMAT} read here; upgrade recgym")
    digest = header.pop("digest", None)
    if digest != _digest(tensors, header):
        raise ValueError(f"{path}: damaged: the content does not match its digest")
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ValueError(f"{path}: tensor {name!r} holds NaN or infinite numbers")
    for key, kinds in HEADER.items():
        if not isinstance(header.get(key, ...), kinds):
            raise ValueError(f"{path}: the header's {key!r} is missing or no {'/'.join(k.__name__ for k in kinds)}")
    if header["algo"] not in ALGORITHMS:
        raise ValueError(f"{path}: algorithm {header['algo']!r} is not allowed; there are {', '.join(ALGORITHMS)}")
    if set(header["env"]) != {"id", "parameters", "n_envs"}:
        raise ValueError(f"{path}: the header's 'env' must have id, parameters and n_envs, has {sorted(header['env'])}")
    return header, tensors


def load(path: str | Path, *, env: VecEnv | None = None, device: str = "auto", resume: bool = False) -> Any:
    """The algorithm of a checkpoint, ready to `predict` or, with `resume`, to go on learning where it stopped.

    Args:
        path: of the file.
        env: what to act in; None makes the environment that the file names.
        device: "auto", "cpu" or "cuda".
        resume: also take up optimizer, counters, random states and environment.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: see `read`; or weights, layout or environment do not fit (says what differs).
    """
    header, tensors = read(path)
    if env is None:
        made = header["env"]
        env = make_vec_env(made["id"], made["n_envs"], **made["parameters"])
    theirs, ours = _shape(Layout.from_json(header["layout"])), _shape(env.get_attr("layout")[0])
    if theirs != ours:
        names = sorted({name for name, _ in theirs.items() ^ ours.items()})
        differ = [f"{name} ({theirs.get(name, 0)} there, {ours.get(name, 0)} here)" for name in names]
        raise ValueError(f"{path}: trained on other observations than this environment's: {', '.join(differ)}")
    with warnings.catch_warnings():
        if not resume:  # batch sizes that do not fit this number of environments matter to learning alone
            warnings.filterwarnings("ignore", message="You have specified a mini-batch size", category=UserWarning)
        try:
            model = build(header["algo"], env, header["arguments"], device=device)
        except (TypeError, AssertionError, KeyError) as error:
            raise ValueError(f"{path}: {header['algo']} cannot be built from the header's arguments: {error}") from None
    weights = {n.removeprefix("policy."): t for n, t in tensors.items() if n.startswith("policy.")}
    _fits(path, model.policy.state_dict(), weights)
    model.policy.load_state_dict(weights)
    model.num_timesteps = header["num_timesteps"]
    if header["exploration_rate"] is not None:
        model.exploration_rate = header["exploration_rate"]
    if resume:
        if header["training"] is None:
            raise ValueError(f"{path}: holds weights only; resume from a checkpoint that training wrote")
        _restore_training(path, model, header["training"], tensors)
    return model


def load_pretrained(env_id: str, *, env: VecEnv | None = None, device: str = "auto") -> Any:
    """The trained agent that ships for an environment; see `load`.

    Raises:
        ValueError: none ships for it (names those that do).
    """
    path = PRETRAINED / f"{env_id}.safetensors"
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in PRETRAINED.glob("*.safetensors"))) or "none"
        raise ValueError(f"no trained agent ships for {env_id!r}; there are: {there}")
    return load(path, env=env, device=device)


def _shape(layout: Layout) -> dict[str, int]:
    """Names and widths: what must agree between training and use. Bounds may differ, with the horizon."""
    return {field.name: field.width for field in layout} | {"candidates": layout.candidates}


def _fits(path: str | Path, expected: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor]) -> None:
    missing, surplus = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    if missing or surplus:
        raise ValueError(f"{path}: tensors do not fit the policy: missing {missing[:4]}, unexpected {surplus[:4]}")
    for name, tensor in expected.items():
        if tensor.shape != found[name].shape or tensor.dtype != found[name].dtype:
            want, got = (f"{t.dtype} {tuple(t.shape)}" for t in (tensor, found[name]))
            raise ValueError(f"{path}: tensor {name!r} should be {want}, found {got}")


# --- training state --------------------------------------------------------------------------------------------------
REPLAY = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


def _training_state(model: Any) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """What `_restore_training` takes up; call it between an update and the next rollout."""
    numpy_state: Any = np.random.get_state(legacy=True)  # noqa: NPY002 - SB3 draws its minibatches from it
    python_version, python_words, python_gauss = random.getstate()
    arrays: dict[str, torch.Tensor] = {
        "random.torch": torch.get_rng_state(),
        "random.numpy": torch.from_numpy(np.array(numpy_state[1], dtype=np.int64)),
        "random.python": torch.tensor(python_words, dtype=torch.int64),
    }
    if model.device.type == "cuda":
        arrays["random.cuda"] = torch.cuda.get_rng_state(model.device)
    state = model.policy.optimizer.state_dict()
    for index, values in state["state"].items():
        for key, value in values.items():
            arrays[f"optimizer.{index}.{key}"] = torch.as_tensor(value)
    arrays |= {f"env.{name}": torch.from_numpy(np.array(v)) for name, v in model.env.env_method("snapshot")[0].items()}
    arrays["last.observation"] = torch.from_numpy(np.array(model._last_obs))
    starts = model._last_episode_starts
    if starts is not None:
        arrays["last.episode_starts"] = torch.from_numpy(np.array(starts))
    memory = getattr(model, "_last_lstm_states", None)
    if memory is not None:
        for name, pair in memory._asdict().items():
            arrays |= {f"last.lstm.{name}.{i}": tensor for i, tensor in enumerate(pair)}
    buffer = getattr(model, "replay_buffer", None)
    if buffer is not None:
        stop = buffer.buffer_size if buffer.full else buffer.pos
        for name in REPLAY:
            arrays[f"replay.{name}"] = torch.from_numpy(np.array(getattr(buffer, name)[:stop]))
    plain = {
        "param_groups": state["param_groups"],
        "random": [numpy_state[0], *(float(v) for v in numpy_state[2:]), python_version, python_gauss],
        "action_space": model.action_space.np_random.bit_generator.state,  # DQN explores with it
        "n_updates": model._n_updates,
        "n_calls": getattr(model, "_n_calls", 0),
        "episodes": model._episode_num,
        "progress": model._current_progress_remaining,
        "replay": None if buffer is None else [buffer.pos, buffer.full],
        "episode_infos": [{key: float(value) for key, value in info.items()} for info in model.ep_info_buffer or ()],
    }
    return arrays, plain


def _restore_training(
    path: str | Path, model: Any, plain: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]
) -> None:
    try:
        state: dict[int, dict[str, torch.Tensor]] = {}
        weights: list[Any] = [weight for group in model.policy.optimizer.param_groups for weight in group["params"]]
        for name, tensor in tensors.items():
            if name.startswith("optimizer."):
                _, index, key = name.split(".")
                state.setdefault(int(index), {})[key] = tensor
        model.policy.optimizer.load_state_dict({"state": state, "param_groups": plain["param_groups"]})
        model.env.env_method(
            "restore", {n.removeprefix("env."): t.numpy() for n, t in tensors.items() if n.startswith("env.")}
        )
        _fits(
            path,
            {"observation": torch.from_numpy(model.env.env_method("observation")[0])},
            {"observation": tensors["last.observation"]},
        )
        for number, values in state.items():
            for key, value in values.items():
                if value.ndim and value.shape != weights[number].shape:
                    raise ValueError(f"optimizer tensor {number}.{key} has shape {tuple(value.shape)}")
        model._last_obs = tensors["last.observation"].numpy().copy()
        if "last.episode_starts" in tensors:
            model._last_episode_starts = tensors["last.episode_starts"].numpy().copy()
        if "last.lstm.pi.0" in tensors:
            memory = model._last_lstm_states
            model._last_lstm_states = type(memory)(
                *(
                    tuple(tensors[f"last.lstm.{name}.{i}"].to(model.device) for i in range(2))
                    for name in type(memory)._fields
                )
            )
        if plain["replay"] is not None:
            buffer = model.replay_buffer
            for name in REPLAY:
                kept = tensors[f"replay.{name}"].numpy()
                getattr(buffer, name)[: len(kept)] = kept
            buffer.pos, buffer.full = plain["replay"]
            model._n_calls = plain["n_calls"]
        model._n_updates, model._episode_num = plain["n_updates"], plain["episodes"]
        model._current_progress_remaining = plain["progress"]
        model.ep_info_buffer = deque(plain["episode_infos"], maxlen=model._stats_window_size)
        model.ep_success_buffer = deque(maxlen=model._stats_window_size)
        kind, position, has_gauss, gauss, python_version, python_gauss = plain["random"]
        model.action_space.np_random.bit_generator.state = plain["action_space"]
        torch.set_rng_state(tensors["random.torch"])
        if "random.cuda" in tensors and model.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["random.cuda"], model.device)
        words = tensors["random.numpy"].numpy().astype(np.uint32)
        np.random.set_state(  # noqa: NPY002
            (kind, words, int(position), int(has_gauss), gauss)
        )
        random.setstate((python_version, tuple(tensors["random.python"].tolist()), python_gauss))
    except (KeyError, TypeError, IndexError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path}: the training state does not fit: {error}; load it without resume") from None
