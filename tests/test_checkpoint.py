"""Checkpoints: round trip, bit-identical resuming, and what is refused."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import safetensors.torch
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule, LinearSchedule
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecMonitor, VecNormalize

import recgym
from recgym.agents.algorithms import ALGORITHMS, build
from recgym.agents.archive import HEADER, LATER, LONGEST_HEADER, MOST_ENVS, _digest
from recgym.agents.arguments import plain_schedule
from recgym.agents.checkpoint import export, load, read, save
from recgym.agents.environments import identify
from recgym.agents.pretrained import agent_ids, load_pretrained
from recgym.evaluation import rollout
from recgym.layout import Layout
from recgym.sb3 import RecVecEnv, make_vec_env
from recgym.scenarios.bandit import Bandit
from recgym.scenarios.contextual import ContextualBandit

SMALL: dict[str, dict[str, Any]] = {
    "ppo": {"policy": "MlpPolicy", "n_steps": 10, "batch_size": 40, "n_epochs": 2, "learning_rate": "lin_1e-3"},
    "a2c": {"policy": "MlpPolicy", "n_steps": 5, "policy_kwargs": {"net_arch": [16], "activation_fn": "ReLU"}},
    "dqn": {
        "policy": "MlpPolicy",
        "buffer_size": 400,
        "learning_starts": 40,
        "train_freq": 2,
        "target_update_interval": 50,
        "batch_size": 16,
    },
    "recurrent_ppo": {
        "policy": "MlpLstmPolicy",
        "n_steps": 10,
        "batch_size": 40,
        "n_epochs": 2,
        "policy_kwargs": {"lstm_hidden_size": 8, "net_arch": [8]},
    },
    "meta_ppo": {
        "policy": "TransformerPolicy",
        "n_epochs": 2,
        "learning_rate": "lin_1e-3",
        "policy_kwargs": {"width": 8, "layers": 1},
    },
}
PARAMETERS = {"arms": 4, "horizon": 15}  # rollouts of 10 steps end within trials
TOTAL = 640


def make(algo: str, *, seed: int | None = 0) -> Any:
    return build(algo, make_vec_env("RecBandit-v0", 4, 0, **PARAMETERS), SMALL[algo], device="cpu", seed=seed)


def write(path: Path, model: Any, algo: str = "ppo", *, training: bool = False) -> Path:
    described = {"algo": algo, "arguments": SMALL[algo], "env_id": "RecBandit-v0", "parameters": PARAMETERS}
    return save(path, model, training=training, counters={"saved": 1}, **described)


class SaveAt(BaseCallback):
    """Saves at the first rollout boundary from `timesteps` on."""

    def __init__(self, path: Path, algo: str, timesteps: int) -> None:
        super().__init__()
        self.path, self.algo, self.timesteps, self.saved = path, algo, timesteps, False

    def _on_rollout_start(self) -> None:
        if not self.saved and self.model.num_timesteps >= self.timesteps:
            write(self.path, self.model, self.algo, training=True)
            self.saved = True

    def _on_step(self) -> bool:
        return True


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small PPO checkpoint."""
    return write(tmp_path_factory.mktemp("checkpoint") / "small", make("ppo"))


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_round_trip_predicts_alike(algo: str, tmp_path: Path) -> None:
    model = make(algo)
    model.learn(80)
    if algo == "dqn":
        model.exploration_rate = 0.3
    loaded = load(write(tmp_path / "agent", model, algo))
    assert getattr(loaded, "exploration_rate", 0.3) == 0.3
    observation = make_vec_env("RecBandit-v0", 4, 5, **PARAMETERS).reset()
    for name, tensor in model.policy.state_dict().items():
        assert torch.equal(tensor, loaded.policy.state_dict()[name]), name
    ours, theirs = (m.predict(observation, deterministic=True)[0] for m in (model, loaded))
    assert np.array_equal(ours, theirs)
    assert loaded.num_timesteps == model.num_timesteps


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_evaluating_is_repeatable_and_leaves_no_trace(algo: str) -> None:
    model = make(algo)
    model.learn(200)
    if algo == "dqn":
        model.exploration_rate = 0.5
    scenario = model.env.scenario
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    before = torch.get_rng_state(), np.random.get_state()[1], model.action_space.np_random.bit_generator.state  # noqa: NPY002
    first = rollout(model, scenario, trials=20, seed=1)
    after = torch.get_rng_state(), np.random.get_state()[1], model.action_space.np_random.bit_generator.state  # noqa: NPY002
    assert torch.equal(before[0], after[0]) and np.array_equal(before[1], after[1]) and before[2] == after[2]
    torch.manual_seed(4)
    np.random.seed(4)  # noqa: NPY002
    model.action_space.seed(4)
    assert np.array_equal(rollout(model, scenario, trials=20, seed=1).regret, first.regret)
    assert not np.array_equal(rollout(model, scenario, trials=20, seed=2).regret, first.regret)


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_resumed_run_ends_bit_identical(algo: str, tmp_path: Path) -> None:
    whole = make(algo)
    whole.learn(TOTAL, SaveAt(tmp_path / "middle", algo, TOTAL // 2))
    final = read(write(tmp_path / "whole", whole, algo, training=True))

    torch.manual_seed(99)  # whatever happened in between must not matter
    np.random.seed(99)  # noqa: NPY002
    env = make_vec_env("RecBandit-v0", 4, 77, **PARAMETERS)
    resumed = load(tmp_path / "middle.safetensors", env=env, device="cpu", resume=True)
    assert TOTAL // 2 <= resumed.num_timesteps < TOTAL
    kept = write(tmp_path / "kept", resumed, algo, training=True)
    assert kept.read_bytes() == (tmp_path / "middle.safetensors").read_bytes()
    resumed.learn(TOTAL - resumed.num_timesteps, reset_num_timesteps=False)
    again = read(write(tmp_path / "again", resumed, algo, training=True))

    assert set(final[1]) == set(again[1])
    for name, tensor in final[1].items():
        assert torch.equal(tensor, again[1][name]), name
    for header in (final[0], again[0]):
        for info in header["training"]["episode_infos"]:
            info.pop("t")  # wall-clock time
    assert final[0] == again[0]


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_export_keeps_the_policy_and_drops_the_rest(algo: str, tmp_path: Path) -> None:
    model = make(algo)
    model.learn(80)
    whole = write(tmp_path / "whole", model, algo, training=True)
    small = export(whole, tmp_path / "small")
    assert small.stat().st_size < whole.stat().st_size
    header, tensors = read(small)
    assert read(whole)[0]["counters"] == {"saved": 1}
    assert all(name.startswith("policy.") for name in tensors)
    assert (header["training"], header["counters"]) == (None, {})
    for name, tensor in load(small).policy.state_dict().items():
        assert torch.equal(tensor, model.policy.state_dict()[name])
    with pytest.raises(ValueError, match="weights only"):
        load(small, env=make_vec_env("RecBandit-v0", 4, **PARAMETERS), resume=True)


@pytest.mark.parametrize("env_id", agent_ids())
def test_shipped_agents_load(env_id: str) -> None:
    action, _ = load_pretrained(env_id).predict(make_vec_env(env_id, 3, 0).reset())
    assert len(action) == 3


def test_an_agent_that_does_not_ship_is_named_with_those_that_do(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recgym.agents.pretrained.CHECKOUT", tmp_path)
    for there in ("none", "RecBandit-v0"):
        with pytest.raises(ValueError, match=f"no trained agent ships for 'RecBanditDrift-v0'; there are: {there}"):
            load_pretrained("RecBanditDrift-v0")
        (tmp_path / "RecBandit-v0").mkdir(exist_ok=True)
        (tmp_path / "RecBandit-v0" / "agent.safetensors").write_bytes(written.read_bytes())
    assert load_pretrained("RecBandit-v0").num_timesteps == 0


def test_the_first_files_say_nothing_of_spaces(written: Path, tmp_path: Path) -> None:
    path = tmp_path / "agent.safetensors"
    path.write_bytes(without("spaces")(written.read_bytes()))
    assert b"spaces" not in path.read_bytes()
    assert load(path).num_timesteps == 0
    assert read(path)[0]["spaces"] is None


def test_weights_alone_do_not_resume(written: Path) -> None:
    with pytest.raises(ValueError, match="weights only"):
        load(written, env=make_vec_env("RecBandit-v0", 4, **PARAMETERS), resume=True)


def test_horizon_may_differ_but_arms_may_not_for_an_mlp(written: Path) -> None:
    longer = make_vec_env("RecBandit-v0", 4, 0, arms=4, horizon=50)
    action, _ = load(written, env=longer).predict(longer.reset())
    assert action.shape == (4,)
    with pytest.raises(ValueError, match=r"candidates \(4 there, 5 here\)"):
        load(written, env=make_vec_env("RecBandit-v0", 4, arms=5))
    with pytest.raises(ValueError, match=r"average \(1 there, 0 here\)"):
        load(written, env=make_vec_env("RecBandit-v0", 4, arms=4, statistics=False))
    with pytest.raises(ValueError, match=r"time, remaining, .* there, no named fields here"):
        load(written, env=VecFrameStack(make_vec_env("RecBandit-v0", 4, arms=4), 2))


def test_saving_is_all_or_nothing(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "agent.safetensors"
    path.write_bytes(written.read_bytes())

    def fail(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("recgym.files.os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write(path, make("ppo"))
    assert path.read_bytes() == written.read_bytes()
    assert list(tmp_path.iterdir()) == [path]


# --- what is refused -------------------------------------------------------------------------------------------------
def edited(content: bytes, edit: Callable[[dict[str, Any], dict[str, torch.Tensor]], None]) -> bytes:
    """A checkpoint with another header or tensors, and a digest that fits them."""
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["recgym"])
    tensors = safetensors.torch.load(content)
    header.pop("digest")
    edit(header, tensors)
    header["digest"] = _digest(tensors, header)
    return safetensors.torch.save(tensors, metadata={"recgym": json.dumps(header)})


BIAS = "policy.action_net.bias"


def nan(header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    tensors[BIAS] = tensors[BIAS] * float("nan")


def missing(header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    del tensors[BIAS]


def renamed(header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    tensors["policy.other"] = tensors.pop(BIAS)


def reshaped(header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    tensors[BIAS] = torch.zeros(7)


def retyped(header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    tensors[BIAS] = tensors[BIAS].double()


def future(header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    header["format"] = 999


def other_class(header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    header["algo"] = "os:system"


def bit_flip(content: bytes) -> bytes:
    return content[:-5] + bytes([content[-5] ^ 4]) + content[-4:]


def without(key: str) -> Callable[[bytes], bytes]:
    return lambda content: edited(content, lambda header, tensors: header.pop(key))


def with_value(key: str, value: Any) -> Callable[[bytes], bytes]:
    return lambda content: edited(content, lambda header, tensors: header.update({key: value}))


def within(key: str, **values: Any) -> Callable[[bytes], bytes]:
    return lambda content: edited(content, lambda header, tensors: header[key].update(values))


def eight_bits(header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    tensors[BIAS] = tensors[BIAS].to(torch.float8_e4m3fn)


def nested(content: bytes) -> bytes:
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"]["recgym"] = '{"format":1,"a":' + "[" * 100_000 + "]" * 100_000 + "}"
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def nameless(**values: Any) -> Callable[[bytes], bytes]:
    """A file of an environment that is not registered."""

    def edit(header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        header["env"]["id"] = None
        header["spaces"] = {"observation": [19], "action": [4]}
        header.update(values)

    return lambda content: edited(content, edit)


FIELD = ["time", 0.0, 1.0, "share", 1]
ARGUMENTS = SMALL["ppo"]


REFUSED: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda c: b"", "too short"),
    "truncated header": (lambda c: c[:40], "truncated"),
    "truncated tensors": (lambda c: c[:-100], "truncated"),
    "bit flip": (bit_flip, "does not match its digest"),
    "oversized header": (lambda c: struct.pack("<Q", LONGEST_HEADER + 1) + c[8:], "its header would take"),
    "zip": (lambda c: b"PK\x03\x04" + c, "zip or pickle"),
    "pickle": (lambda c: b"\x80\x04\x95" + c, "zip or pickle"),
    "text": (lambda c: b"hello, this is not a checkpoint at all", "not a checkpoint"),
    "foreign safetensors": (lambda c: safetensors.torch.save({"a": torch.zeros(2)}), "without recgym's header"),
    "NaN": (lambda c: edited(c, nan), "holds NaN"),
    "missing": (lambda c: edited(c, missing), r"missing \['action_net.bias'\]"),
    "renamed": (lambda c: edited(c, renamed), r"unexpected \['other'\]"),
    "shape": (lambda c: edited(c, reshaped), r"'action_net.bias' should be torch.float32 \(4,\), found .* \(7,\)"),
    "dtype": (lambda c: edited(c, retyped), "found torch.float64"),
    "future": (lambda c: edited(c, future), "upgrade recgym"),
    **{f"no {key}": (without(key), f"header's '{key}' is missing") for key in HEADER if key not in LATER},
    "format 0": (with_value("format", 0), "no format version"),
    "steps as text": (with_value("num_timesteps", "80"), "header's 'num_timesteps' is missing or no int"),
    "algo as list": (with_value("algo", ["ppo"]), "header's 'algo' is missing or no str"),
    "half an env": (with_value("env", {"id": "RecBandit-v0"}), "must have id, parameters and n_envs"),
    "eight bits": (lambda c: edited(c, eight_bits), "'policy.action_net.bias' is of torch.float8_e4m3fn"),
    "nested": (nested, "not a checkpoint"),
    "format True": (with_value("format", True), "no format version"),
    **{
        f"{key} {value!r}": (with_value(key, value), f"header's '{key}' {message}")
        for key, value, message in (
            ("num_timesteps", -1, "must be at least 0, is -1"),
            ("num_timesteps", True, "is missing or no int"),
            ("threads", 0, "must be at least 1, is 0"),
            ("threads", True, "is missing or no int"),
            ("exploration_rate", True, "is missing or no float"),
            ("exploration_rate", 1.5, r"must be in \[0, 1\], is 1.5"),
            ("exploration_rate", float("nan"), r"must be in \[0, 1\], is nan"),
            ("counters", [], "is missing or no dict"),
            ("training", [], "is missing or no dict"),
            ("spaces", [], "is missing or no dict"),
        )
    },
    **{
        f"n_envs {value!r}": (within("env", n_envs=value), r"n_envs in the header must be a whole number in \[1, ")
        for value in (0, -3, True, "4", 1.0, None, MOST_ENVS + 1, 10**30)
    },
    "env id as number": (within("env", id=3), "must have a text as id and a mapping as parameters"),
    "env parameters as list": (within("env", parameters=[]), "must have a text as id and a mapping as parameters"),
    "another env": (within("env", id="RecBandit-v9"), "cannot be made: no environment 'RecBandit-v9'; did you mean"),
    "unknown parameter": (within("env", parameters={"seed": 1}), "cannot be made: Bandit has no parameter 'seed'"),
    "parameter out of range": (within("env", parameters={"arms": -1}), "cannot be made: Bandit: arms must be a whole"),
    "parameter as text": (within("env", parameters={"arms": "4"}), "cannot be made: Bandit: arms must be a whole"),
    **{
        f"layout {i}": (with_value("layout", layout), "header's 'layout' must have context and candidate")
        for i, layout in enumerate(
            (
                {},
                {"context": [FIELD], "candidate": [FIELD]},
                {"context": [FIELD], "candidate": [FIELD], "candidates": 4, "more": 1},
                {"context": {}, "candidate": [FIELD], "candidates": 4},
                {"context": None, "candidate": [FIELD], "candidates": 4},
                *({"context": [FIELD], "candidate": [FIELD], "candidates": k} for k in (0, True, "4", 4.0)),
                *(
                    {"context": [FIELD], "candidate": [field], "candidates": 4}
                    for field in (
                        "time",
                        3,
                        FIELD[:4],
                        [*FIELD, 1],
                        [1, *FIELD[1:]],
                        ["time", "0", 1.0, "share", 1],
                        ["time", 0.0, None, "share", 1],
                        ["time", 0.0, 1.0, None, 1],
                        [*FIELD[:4], 0],
                        [*FIELD[:4], "1"],
                        [*FIELD[:4], True],
                    )
                ),
            )
        )
    },
    "layout None": (with_value("layout", None), "must have a layout and no spaces for an environment with an id"),
    "spaces beside an id": (with_value("spaces", {"observation": [19], "action": [4]}), "must have a layout and no"),
    "no id": (within("env", id=None), "must have a layout and no spaces for an environment with an id, else spaces"),
    "no id and no env": (nameless(), r"not registered, so pass one: load\(..., env=\)"),
    **{
        f"spaces {i}": (nameless(spaces=spaces), "header's 'spaces' must have observation and action, lists of sizes")
        for i, spaces in enumerate(
            (
                {},
                {"observation": [19]},
                {"observation": [19], "action": 4},
                {"observation": [19], "action": ["4"]},
                {"observation": [-1], "action": [4]},
                {"observation": [19], "action": [4], "more": []},
            )
        )
    },
    **{
        f"argument {i}": (with_value("arguments", arguments), f"ppo cannot be built from the header's .*{message}")
        for i, (arguments, message) in enumerate(
            (
                ({"policy": "MlpPolicy", "evil": 1}, "'evil'"),
                ({"policy": "MlpPolicy", "device": "cpu"}, "'device'"),
                ({}, "the arguments name no policy"),
                ({"policy": "Evil"}, "Policy Evil unknown"),
                ({"policy": ["MlpPolicy"]}, ""),
                ({"policy": None}, ""),
                ({**ARGUMENTS, "learning_rate": "lin_x"}, "learning_rate = 'lin_x': there must be a number after lin_"),
                ({**ARGUMENTS, "learning_rate": "lin_nan"}, "learning_rate = 'lin_nan': there must be a number"),
                ({**ARGUMENTS, "learning_rate": -1.0}, "Invalid learning rate"),
                ({**ARGUMENTS, "clip_range": "lin_"}, "clip_range = 'lin_': there must be a number after lin_"),
                ({**ARGUMENTS, "n_steps": "10"}, ""),
                ({**ARGUMENTS, "policy_kwargs": 5}, ""),
                ({**ARGUMENTS, "policy_kwargs": {"net_arch": "abc"}}, ""),
                ({**ARGUMENTS, "policy_kwargs": {"net_arch": [-3]}}, ""),
                ({**ARGUMENTS, "policy_kwargs": {"activation_fn": "Evil"}}, "activation_fn 'Evil'"),
                ({**ARGUMENTS, "policy_kwargs": {"features_extractor_class": "os.system"}}, ""),
                ({**ARGUMENTS, "_init_setup_model": False}, ""),
            )
        )
    },
    "class": (lambda c: edited(c, other_class), "is not allowed"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_one_clear_error(case: str, written: Path, tmp_path: Path) -> None:
    damage, message = REFUSED[case]
    path = tmp_path / "agent.safetensors"
    path.write_bytes(damage(written.read_bytes()))
    with pytest.raises(ValueError, match=message) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("first", [b"\x80", b"PK"])
def test_a_header_whose_length_looks_like_a_pickle_is_read(first: bytes, written: Path, tmp_path: Path) -> None:
    content = written.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    aim = int.from_bytes(first, "little") + (1 << 8 * len(first)) * (-(-length // (1 << 8 * len(first))))
    padded = struct.pack("<Q", aim) + content[8 : 8 + length] + b" " * (aim - length) + content[8 + length :]
    path = tmp_path / "agent.safetensors"
    path.write_bytes(padded)
    assert padded.startswith(first)
    assert read(path)[0]["algo"] == "ppo"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A checkpoint of each algorithm to resume from."""
    folder = tmp_path_factory.mktemp("trained")

    @cache
    def train(algo: str) -> Path:
        model = make(algo)
        model.learn(120)
        return write(folder / algo, model, algo, training=True)

    return train


def globals_() -> tuple[Any, ...]:
    return np.random.get_state()[1].tolist(), np.random.get_state()[2], random.getstate()  # noqa: NPY002


STEP = torch.tensor(3)
TENSORS: list[tuple[str, str, torch.Tensor | None]] = [
    ("ppo", "optimizer.0.exp_avg", torch.zeros(3)),
    ("ppo", "optimizer.0.exp_avg", torch.tensor(0.0)),
    ("ppo", "optimizer.0.exp_avg", torch.zeros(64, 19, dtype=torch.int64)),
    ("ppo", "optimizer.0.exp_avg", None),
    ("ppo", "optimizer.0.step", STEP),
    ("ppo", "optimizer.0.step", None),
    ("ppo", "optimizer.0.more", torch.zeros(64, 19)),
    ("ppo", "optimizer.99.exp_avg", torch.zeros(3)),
    ("ppo", "optimizer.x.exp_avg", torch.zeros(3)),
    ("a2c", "optimizer.0.square_avg", torch.tensor(1.0)),
    ("a2c", "optimizer.0.step", STEP),
    ("meta_ppo", "optimizer.0.exp_avg_sq", None),
    ("ppo", "last.observation", torch.zeros(2, 2)),
    ("ppo", "last.observation", torch.zeros(4, 15, dtype=torch.float64)),
    ("ppo", "last.observation", None),
    ("ppo", "last.episode_starts", None),
    ("ppo", "last.episode_starts", torch.zeros(4)),
    ("ppo", "last.episode_starts", torch.zeros(3, dtype=torch.bool)),
    ("ppo", "last.lstm.pi.0", torch.zeros(1, 4, 8)),
    ("recurrent_ppo", "last.lstm.pi.0", None),
    ("recurrent_ppo", "last.lstm.vf.1", torch.zeros(1, 3, 8)),
    ("dqn", "replay.actions", torch.zeros(3, 4, 1, dtype=torch.int64)),
    ("dqn", "replay.rewards", None),
    ("dqn", "replay.observations", torch.zeros(30, 4, 15, dtype=torch.float64)),
    ("ppo", "random.torch", torch.zeros(5, dtype=torch.uint8)),
    ("ppo", "random.torch", None),
    ("ppo", "random.numpy", torch.zeros(623, dtype=torch.int64)),
    ("ppo", "random.numpy", torch.full((624,), 1 << 32)),
    ("ppo", "random.python", torch.full((625,), 10_000)),
    ("ppo", "env.state.time", torch.zeros(9)),
    ("ppo", "env.counters", None),
    ("ppo", "env.returns", None),
    ("ppo", "env.returns", torch.zeros(4)),
    ("ppo", "env.more", torch.zeros(4)),
    ("ppo", "more", torch.zeros(4)),
]
PLAIN: list[tuple[str, str, Any]] = [
    *(("ppo", key, value) for key in ("n_updates", "n_calls", "episodes") for value in (-1, True, "1", 1.0, ...)),
    *(("ppo", "progress", value) for value in ("1", True, float("nan"), None, ...)),
    *(("ppo", "episode_infos", value) for value in ({}, [3], [{"r": 1.0}], [{"r": "1", "l": 2.0}], ...)),
    *(("ppo", "replay", value) for value in ([3, False], ...)),
    *(("dqn", "replay", value) for value in (None, [31], [-1, False], [99, True], [100, True], [True, False], [31, 0])),
    *(("ppo", "random", value) for value in ([], None, ["PCG64", 3.0, 0.0, 0.0, 3, None], ...)),
    *(("ppo", "random", ["MT19937", p, 0.0, 0.0, 3, None]) for p in (700.0, -1.0, "3", [3.0])),
    *(("ppo", "random", ["MT19937", 3.0, *rest]) for rest in ((7.0, 0.0, 3, None), (0.0, None, 3, None))),
    ("ppo", "random", ["MT19937", 3.0, 0.0, 0.0, 9, None]),
    *(("ppo", "action_space", value) for value in ({}, None, {"bit_generator": "PCG64"}, ...)),
    *(("ppo", "param_groups", value) for value in ([], {}, [3], [{}], ...)),
    *(("ppo", "optimizer", value) for value in ([], [0], [99], "0", None, {"0": 1})),
]
OWN = (
    [],
    {},
    *({"rollouts": r, "pretrained": 0, "seed": s} for r, s in (("x", 0), (-1, 0), (True, 0), (1, 0.5))),
)


def refuse_to_resume(path: Path) -> str:
    """The message; model, environment and generators have stayed as they were, as far as can be seen from outside."""
    env = make_vec_env("RecBandit-v0", 4, 0, **PARAMETERS)
    env.reset()
    before, state = globals_(), env.snapshot()
    with pytest.raises(ValueError, match=r"training state does not fit: .*; load it without resume$") as caught:
        load(path, env=env, device="cpu", resume=True)
    assert str(caught.value).startswith(f"{path}: ")
    assert globals_() == before
    if "returns" not in str(caught.value) and "'more'" not in str(caught.value):
        assert all(np.array_equal(value, state[name]) for name, value in env.snapshot().items())
    return str(caught.value)


@pytest.mark.parametrize("algo, name, value", TENSORS)
def test_tensors_of_a_training_state_that_do_not_fit_are_refused(
    algo: str, name: str, value: torch.Tensor | None, trained: Callable[[str], Path], tmp_path: Path
) -> None:
    def change(header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        if value is None:
            del tensors[name]
        else:
            old = tensors.get(name, torch.zeros(0))
            assert (old.shape, old.dtype) != (value.shape, value.dtype) or not torch.equal(old, value)
            tensors[name] = value

    path = tmp_path / "whole.safetensors"
    path.write_bytes(edited(trained(algo).read_bytes(), change))
    message = refuse_to_resume(path)
    assert name.split(".", 1)[-1] in message or name.startswith(("random", "optimizer"))
    assert load(path, env=make_vec_env("RecBandit-v0", 4, 0, **PARAMETERS), device="cpu").num_timesteps > 0


@pytest.mark.parametrize("algo, key, value", PLAIN)
def test_values_of_a_training_state_that_do_not_fit_are_refused(
    algo: str, key: str, value: Any, trained: Callable[[str], Path], tmp_path: Path
) -> None:
    def change(header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        if value is ...:
            del header["training"][key]
        else:
            assert header["training"][key] != value or type(header["training"][key]) is not type(value)
            header["training"][key] = value

    path = tmp_path / "whole.safetensors"
    path.write_bytes(edited(trained(algo).read_bytes(), change))
    message = refuse_to_resume(path)
    if value is ...:
        assert f"missing ['{key}']" in message
    elif algo == "dqn":
        outside = value != [99, True]  # a place in the buffer, but the file holds less
        assert ("replay must be [position below 100, full]" if outside else "'replay.observations' should") in message
    else:
        known = {"replay": "it has a replay buffer, the model has none", "random": "", "action_space": ""}
        assert known.get(key, key) in message


def test_an_agent_of_an_earlier_version_acts_and_does_not_imitate_again(
    trained: Callable[[str], Path], tmp_path: Path
) -> None:
    path = tmp_path / "whole.safetensors"
    path.write_bytes(edited(trained("meta_ppo").read_bytes(), lambda header, _: header.pop("own")))
    model = load(path, device="cpu")
    assert model.training_counters() == {"rollouts": 0, "pretrained": model.num_timesteps, "seed": None}
    with pytest.raises(ValueError, match="own counters must be whole numbers"):
        load(path, device="cpu", resume=True)


@pytest.mark.parametrize("value", OWN)
@pytest.mark.parametrize("resume", [True, False])
def test_counters_of_an_algorithm_s_own_that_do_not_fit_are_refused(
    value: Any, resume: bool, trained: Callable[[str], Path], tmp_path: Path
) -> None:
    path = tmp_path / "whole.safetensors"
    path.write_bytes(edited(trained("meta_ppo").read_bytes(), lambda header, _: header.update(own=value)))
    with pytest.raises(ValueError, match="own"):
        load(path, device="cpu", resume=resume)


@pytest.mark.parametrize(
    "key, value",
    [("lr", "1"), ("lr", float("nan")), ("betas", [0.9]), ("amsgrad", 3), ("params", [*range(12)][::-1]), ("evil", 1)],
)
def test_settings_of_the_optimizer_that_do_not_fit_are_refused(
    key: str, value: Any, trained: Callable[[str], Path], tmp_path: Path
) -> None:
    path = tmp_path / "whole.safetensors"
    content = trained("ppo").read_bytes()
    path.write_bytes(edited(content, lambda header, _: header["training"]["param_groups"][0].update({key: value})))
    message = refuse_to_resume(path)
    assert "param_groups do not fit the optimizer: " in message and key in message


def test_a_training_state_of_an_earlier_version_is_taken_up(trained: Callable[[str], Path], tmp_path: Path) -> None:
    def earlier(header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        del header["spaces"], header["own"], header["training"]["optimizer"]
        del header["training"]["param_groups"][0]["eps"]  # an older torch may not have had it

    path = tmp_path / "whole.safetensors"
    path.write_bytes(edited(trained("ppo").read_bytes(), earlier))
    resumed = [
        load(file, env=make_vec_env("RecBandit-v0", 4, 0, **PARAMETERS), device="cpu", resume=True)
        for file in (path, trained("ppo"))
    ]
    ours, theirs = (model.policy.optimizer.state_dict() for model in resumed)
    assert ours["param_groups"] == theirs["param_groups"]
    assert torch.equal(ours["state"][0]["exp_avg"], theirs["state"][0]["exp_avg"])


def test_resuming_before_the_first_update(tmp_path: Path) -> None:
    """The optimizer has no moments yet."""
    model = make("ppo")
    model.learn(40, SaveAt(tmp_path / "start", "ppo", 0))
    resumed = load(tmp_path / "start", env=make_vec_env("RecBandit-v0", 4, 9, **PARAMETERS), device="cpu", resume=True)
    resumed.learn(40, reset_num_timesteps=False)
    for name, tensor in model.policy.state_dict().items():
        assert torch.equal(tensor, resumed.policy.state_dict()[name]), name


def test_a_training_state_of_other_environments_is_refused(trained: Callable[[str], Path]) -> None:
    with pytest.raises(ValueError, match=r"'last.observation' should be torch.float32 \(8, 15\), found .* \(4, 15\)"):
        load(trained("ppo"), env=make_vec_env("RecBandit-v0", 8, **PARAMETERS), device="cpu", resume=True)


# --- what is not written ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_not_saved(value: float, written: Path, tmp_path: Path) -> None:
    path = tmp_path / "agent.safetensors"
    path.write_bytes(written.read_bytes())
    model = make("ppo")
    with torch.no_grad():
        model.policy.action_net.bias[2] = value
    with pytest.raises(ValueError, match=r"nothing was written: tensor 'policy.action_net.bias' holds NaN") as caught:
        write(path, model)
    assert str(caught.value).startswith(f"{path}: ")
    assert path.read_bytes() == written.read_bytes()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_there_is_no_training_to_keep_before_the_first(algo: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no training to go on with: learn in the environment first"):
        write(tmp_path / "agent", make(algo), algo, training=True)
    assert not list(tmp_path.iterdir())


def test_what_json_cannot_carry_is_not_saved(tmp_path: Path) -> None:
    model = make("ppo")
    for wrong, message in (
        ({"arguments": {**ARGUMENTS, "policy_kwargs": {"activation_fn": torch.nn.ReLU}}}, "argument 'policy_kwargs'"),
        ({"arguments": {**ARGUMENTS, "policy": type(model.policy)}}, "argument 'policy' cannot be kept"),
        ({"arguments": {**ARGUMENTS, "clip_range": lambda left: left}}, "clip_range = .* give a number, or 'lin_X'"),
        ({"arguments": ARGUMENTS, "counters": {"seen": {1, 2}}}, "nothing was written: .* set"),
        ({"arguments": ARGUMENTS, "counters": {"seen": "x" * LONGEST_HEADER}}, "nothing was written: a header of"),
    ):
        with pytest.raises(ValueError, match=message):
            save(tmp_path / "wrong", model, **wrong)
    assert not list(tmp_path.iterdir())


def test_what_is_described_wrongly_is_not_saved(tmp_path: Path) -> None:
    model = make("ppo")
    described = {"arguments": SMALL["ppo"], "env_id": "RecBandit-v0", "parameters": PARAMETERS}
    for wrong, message in (
        ({"algo": "a2c"}, "the model is a PPO, not a2c"),
        ({"env_id": "RecBanditDrift-v0"}, "environment is not"),
        ({"parameters": {"arms": 5}}, "environment is not"),
    ):
        with pytest.raises(ValueError, match=message):
            save(tmp_path / "wrong", model, **{**described, **wrong})
    with pytest.raises(ValueError, match="without the id"):
        save(tmp_path / "nameless", model, arguments=SMALL["ppo"], parameters=PARAMETERS)
    model.set_env(VecMonitor(make_vec_env("RecBandit-v0", 4, 0, **PARAMETERS)))
    assert read(save(tmp_path / "monitored", model, **described))[0]["algo"] == "ppo"
    model.set_env(VecNormalize(make_vec_env("RecBandit-v0", 4, 0, **PARAMETERS)))
    with pytest.raises(ValueError, match="VecNormalize"):
        save(tmp_path / "normalised", model, **described)
    model.set_env(VecNormalize(make_vec_env("RecBandit-v0", 4, 0, **PARAMETERS), norm_obs=False))
    assert read(save(tmp_path / "rewards", model, **described))[0]["algo"] == "ppo"
    model.learn(40)
    with pytest.raises(ValueError, match="VecNormalize"):
        save(tmp_path / "normalised", model, training=True, **described)
    stacked = build("ppo", VecFrameStack(make_vec_env("RecBandit-v0", 4, **PARAMETERS), 2), SMALL["ppo"])
    with pytest.raises(ValueError, match="environment is not"):
        save(tmp_path / "stacked", stacked, **described)
    model.env = None
    with pytest.raises(ValueError, match="no environment"):
        save(tmp_path / "without", model, **described)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["monitored.safetensors", "rewards.safetensors"]


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        load(tmp_path / "nothing.safetensors")


def test_unknown_algorithm_and_activation_are_refused() -> None:
    env = make_vec_env("RecBandit-v0", 2)
    with pytest.raises(ValueError, match="no algorithm 'sac'"):
        build("sac", env, {"policy": "MlpPolicy"})
    with pytest.raises(ValueError, match="activation_fn 'Evil'"):
        build("ppo", env, {"policy": "MlpPolicy", "policy_kwargs": {"activation_fn": "Evil"}})


# --- names of files --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["agent", "agent.zip", "agent.safetensors"])
def test_a_file_is_found_under_the_name_it_was_saved_by(name: str, tmp_path: Path) -> None:
    assert write(tmp_path / name, make("ppo")) == tmp_path / "agent.safetensors"
    assert load(tmp_path / name).num_timesteps == read(str(tmp_path / name))[0]["num_timesteps"] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["agent.safetensors"]


def test_a_name_may_have_dots(tmp_path: Path) -> None:
    path = write(tmp_path / "lr_0.5", make("ppo"))
    assert path.name == "lr_0.5.safetensors"
    assert read(tmp_path / "lr_0.5")[0]["algo"] == "ppo"


def test_a_zip_that_is_there_is_refused_and_not_passed_over(tmp_path: Path) -> None:
    write(tmp_path / "agent", make("ppo"))
    (tmp_path / "agent.zip").write_bytes(b"PK\x03\x04 and more than nine bytes")
    with pytest.raises(ValueError, match="zip or pickle"):
        load(tmp_path / "agent.zip")


# --- schedules -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "value, plain",
    [
        (0.5, 0.5),
        (3, 3),
        (None, None),
        ("lin_1e-3", "lin_1e-3"),
        (np.float32(0.5), 0.5),
        (ConstantSchedule(0.25), 0.25),
        (FloatSchedule(0.25), 0.25),
        (LinearSchedule(1e-3, 0.0, 1.0), "lin_0.001"),
        (LinearSchedule(1, 0, 1), "lin_1.0"),
        (FloatSchedule(LinearSchedule(np.float64(2e-5), 0.0, 1.0)), "lin_2e-05"),
    ],
)
def test_schedules_are_written_plainly(value: Any, plain: Any) -> None:
    assert plain_schedule(value) == plain
    assert json.loads(json.dumps(plain_schedule(value))) == plain


@pytest.mark.parametrize(
    "value",
    [
        lambda left: left,
        LinearSchedule(1.0, 0.5, 1.0),
        LinearSchedule(1.0, 0.0, 0.5),
        FloatSchedule(lambda left: left),
        True,
        "auto",
        "lin_x",
        [1.0],
    ],
)
def test_other_schedules_are_refused_by_name(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^clip_range = "):
        plain_schedule(value, name="clip_range")


def test_a_linear_schedule_comes_back(tmp_path: Path) -> None:
    model = make("ppo")
    assert plain_schedule(model.learning_rate) == "lin_0.001"
    assert [model.lr_schedule(left) for left in (1.0, 0.25, 0.0)] == pytest.approx([1e-3, 2.5e-4, 0.0], abs=1e-15)
    given = {**ARGUMENTS, "learning_rate": model.learning_rate, "clip_range": model.clip_range}
    path = save(tmp_path / "agent", model, arguments=given)
    assert read(path)[0]["arguments"] == {**ARGUMENTS, "learning_rate": "lin_0.001", "clip_range": 0.2}
    assert isinstance(load(path).learning_rate, LinearSchedule)


# --- describing an environment ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("env_id", recgym.SCENARIOS)
def test_every_registered_environment_is_described(env_id: str) -> None:
    assert identify(recgym.make_scenario(env_id)) == (env_id, {})
    assert identify(recgym.make_scenario(env_id, horizon=7)) == (env_id, {"horizon": 7})
    shifted = recgym.make_scenario(env_id, **recgym.SCENARIOS[env_id].shifted)
    found, parameters = identify(shifted)
    assert recgym.make_scenario(found, **json.loads(json.dumps(parameters))) == shifted


@dataclass(frozen=True)
class Unregistered(Bandit):
    """Of a user."""


def test_the_nearest_preset_describes_a_scenario(monkeypatch: pytest.MonkeyPatch) -> None:
    preset = recgym.Preset("recgym.scenarios.bandit:Bandit", {"arms": 50, "horizon": 500}, {})
    monkeypatch.setitem(recgym.SCENARIOS, "RecBanditLarge-v0", preset)
    assert identify(Bandit(arms=50, horizon=500)) == ("RecBanditLarge-v0", {})
    assert identify(Bandit(arms=50, horizon=500, alpha=0.5)) == ("RecBanditLarge-v0", {"alpha": 0.5})
    assert identify(Bandit(arms=50)) == ("RecBandit-v0", {"arms": 50})
    assert identify(Bandit()) == ("RecBandit-v0", {})


def test_values_of_numpy_are_described_plainly() -> None:
    found = identify(Bandit(arms=np.int64(4), alpha=np.float32(0.5)))  # type: ignore[arg-type]
    assert found == ("RecBandit-v0", {"arms": 4, "alpha": 0.5})
    table = ((0.5, 1.0), (2.0, -1.0), (0.0, 0.0))
    assert identify(ContextualBandit(arms=3, features=table))[1]["features"] == [list(row) for row in table]


def test_what_is_not_registered_is_not_described() -> None:
    assert identify(Unregistered()) == (None, {})
    assert identify(object()) == (None, {})


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_the_environment_of_the_model_is_described(algo: str, tmp_path: Path) -> None:
    model = make(algo)
    header = read(save(tmp_path / "agent", model, arguments=SMALL[algo]))[0]
    assert header["algo"] == algo
    assert header["env"] == {"id": "RecBandit-v0", "parameters": PARAMETERS, "n_envs": 4}
    assert header["spaces"] is None
    assert load(tmp_path / "agent").env.scenario == model.env.scenario


@pytest.mark.parametrize("algo", [algo for algo in ALGORITHMS if algo != "meta_ppo"])
def test_an_unregistered_environment_is_for_any_candidates_alone(algo: str, tmp_path: Path) -> None:
    model = build(algo, RecVecEnv(Unregistered(arms=4, horizon=15), 4), SMALL[algo], device="cpu")
    with pytest.raises(ValueError, match="environment is not one of RecBandit-v0, "):
        save(tmp_path / "agent", model, arguments=SMALL[algo])
    assert not list(tmp_path.iterdir())


# --- candidates and environments of a Transformer --------------------------------------------------------------------
def cart_pole(n_envs: int = 2) -> DummyVecEnv:
    return DummyVecEnv([lambda: gymnasium.make("CartPole-v1")] * n_envs)


def meta(env: Any, *, seed: int = 0, **arguments: Any) -> Any:
    return build("meta_ppo", env, {**SMALL["meta_ppo"], **arguments}, device="cpu", seed=seed)


@pytest.mark.parametrize("arms", [2, 9])
def test_any_number_of_candidates_may_be_played(arms: int, tmp_path: Path) -> None:
    path = write(tmp_path / "agent", make("meta_ppo"), "meta_ppo")
    env = make_vec_env("RecBandit-v0", 3, 0, arms=arms, horizon=20)
    action, _ = load(path, env=env).predict(env.reset())
    assert action.shape == (3,) and action.max() < arms
    with pytest.raises(ValueError, match=r"average \(1 there, 0 here\), exposure \(1 there, 0 here\)") as caught:
        load(path, env=make_vec_env("RecBandit-v0", 3, arms=arms, statistics=False))
    assert str(caught.value).startswith(f"{path}: ")
    with pytest.raises(ValueError, match=r"time, remaining, .* there, no named fields here"):
        load(path, env=cart_pole())


@pytest.mark.parametrize("algo", ["ppo", "meta_ppo"])
def test_fields_in_another_order_are_refused(algo: str, tmp_path: Path) -> None:
    path = write(tmp_path / "agent", make(algo), algo)
    env = make_vec_env("RecBandit-v0", 4, **PARAMETERS)
    env.layout = Layout(env.layout.context[::-1], env.layout.candidate, env.layout.candidates)
    with pytest.raises(ValueError, match=r"the order time, remaining, .* there, last_reward, remaining, time, .* here"):
        load(path, env=env)


def test_an_environment_of_others_is_kept_by_its_spaces(tmp_path: Path) -> None:
    model = meta(cart_pole(), n_steps=16)
    model.learn(32)
    header = read(save(tmp_path / "agent", model, arguments=model.arguments()))[0]
    assert header["env"] == {"id": None, "parameters": {}, "n_envs": 2}
    assert header["spaces"] == {"observation": [4], "action": [2]}
    assert header["layout"] is None
    path = tmp_path / "agent.safetensors"
    with pytest.raises(ValueError, match="not registered, so pass one") as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")
    for env in (cart_pole(3), gymnasium.make("CartPole-v1")):
        loaded = load(path, env=env, device="cpu")
        observation = np.zeros((3, 4), dtype=np.float32)
        ours, theirs = (m.predict(observation, deterministic=True)[0] for m in (model, loaded))
        assert np.array_equal(ours, theirs)
    acrobot = DummyVecEnv([lambda: gymnasium.make("Acrobot-v1")])
    with pytest.raises(ValueError, match=r"observation \(\[4\] there, \[6\] here\), action \(\[2\] there, .* here\)"):
        load(path, env=acrobot)
    with pytest.raises(ValueError, match=r"no named fields there, time, remaining, .* here"):
        load(path, env=make_vec_env("RecBandit-v0"))
    assert read(export(path, tmp_path / "small"))[0]["spaces"] == header["spaces"]


def test_single_environments_are_kept_with_their_layout(tmp_path: Path) -> None:
    model = meta(DummyVecEnv([lambda: gymnasium.make("RecBandit-v0", **PARAMETERS)] * 2))
    header = read(save(tmp_path / "agent", model, arguments=model.arguments()))[0]
    assert header["env"]["id"] is None
    assert header["spaces"] == {"observation": [15], "action": [4]}
    assert Layout.from_json(header["layout"]) == make_vec_env("RecBandit-v0", **PARAMETERS).layout
    env = make_vec_env("RecBandit-v0", 3, 0, arms=7)
    assert load(tmp_path / "agent", env=env).predict(env.reset())[0].shape == (3,)


@pytest.mark.parametrize("env", [cart_pole, lambda: DummyVecEnv([lambda: gymnasium.make("RecBandit-v0")])])
def test_training_is_not_kept_where_the_environment_cannot_be(env: Callable[[], Any], tmp_path: Path) -> None:
    model = meta(env(), n_steps=100)
    model.learn(100)
    with pytest.raises(ValueError, match=r"a DummyVecEnv, whose state it cannot hold .*: save without training"):
        save(tmp_path / "agent", model, arguments=model.arguments(), training=True)
    assert not list(tmp_path.iterdir())


@pytest.fixture(params=["unregistered", "monitored", "variants", "expert", "another seed"])
def unlike(request: pytest.FixtureRequest) -> Callable[[], Any]:
    """Makes models whose training state has something of its own."""
    registered = make_vec_env("RecBandit-v0", 4, 0, **PARAMETERS)
    return {
        "unregistered": lambda: meta(RecVecEnv(Unregistered(arms=4, horizon=15), 4)),
        "monitored": lambda: meta(VecMonitor(make_vec_env("RecBandit-v0", 4, 0, **PARAMETERS))),
        "variants": lambda: meta(registered, variants=[{"arms": 3}, {"arms": 6}, {}]),
        "expert": lambda: meta(registered, expert="ucb1", expert_coef=0.1, pretrain_steps=200),
        "another seed": lambda: meta(registered, expert="thompson", pretrain_steps=480, seed=5),
    }[request.param]


def test_a_transformer_resumes_bit_identical(unlike: Callable[[], Any], tmp_path: Path) -> None:
    class Save(BaseCallback):
        def _on_rollout_start(self) -> None:
            if self.model.num_timesteps == 240:
                save(tmp_path / "middle", self.model, arguments=self.model.arguments(), training=True)

        def _on_step(self) -> bool:
            return True

    whole = unlike()
    whole.env.seed(3)
    whole.learn(480, Save())
    own = read(tmp_path / "middle")[0]["own"]
    assert own["rollouts"] == 4
    torch.manual_seed(99)  # whatever happened in between must not matter
    resumed = load(tmp_path / "middle", env=unlike().env, device="cpu", resume=True)
    assert resumed.training_counters() == own
    resumed.learn(240, reset_num_timesteps=False)
    ours, theirs = (
        read(save(tmp_path / name, model, arguments=model.arguments(), training=True))
        for name, model in (("whole", whole), ("resumed", resumed))
    )
    assert set(ours[1]) == set(theirs[1])
    for name, tensor in ours[1].items():
        assert torch.equal(tensor, theirs[1][name]), name
    for header in (ours[0], theirs[0]):
        for info in header["training"]["episode_infos"]:
            info.pop("t")  # wall-clock time
    assert ours[0] == theirs[0]
