"""Checkpoints: round trip, bit-identical resuming, and what is refused."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecMonitor, VecNormalize

from agents.checkpoint import (
    ALGORITHMS,
    HEADER,
    LONGEST_HEADER,
    _digest,
    build,
    export,
    load,
    load_pretrained,
    read,
    save,
)
from recgym.evaluation import rollout
from recgym.sb3 import make_vec_env

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
}
PARAMETERS = {"arms": 4, "horizon": 15}  # rollouts of 10 steps end within trials
TOTAL = 640


def make(algo: str, *, seed: int | None = 0) -> Any:
    return build(algo, make_vec_env("RecBandit-v0", 4, 0, **PARAMETERS), SMALL[algo], device="cpu", seed=seed)


def write(path: Path, model: Any, algo: str = "ppo", *, training: bool = False) -> Path:
    described = {"algo": algo, "arguments": SMALL[algo], "env_id": "RecBandit-v0", "parameters": PARAMETERS}
    return save(path, model, training=training, **described)


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
    resumed.learn(TOTAL - resumed.num_timesteps, reset_num_timesteps=False)
    again = read(write(tmp_path / "again", resumed, algo, training=True))

    assert set(final[1]) == set(again[1])
    for name, tensor in final[1].items():
        assert torch.equal(tensor, again[1][name]), name
    for header in (final[0], again[0]):
        for info in header["training"]["episode_infos"]:
            info.pop("t")  # wall-clock time
    assert final[0] == again[0]


def test_export_keeps_the_policy_and_drops_the_rest(tmp_path: Path) -> None:
    model = make("ppo")
    model.learn(80)
    whole = write(tmp_path / "whole", model, training=True)
    small = export(whole, tmp_path / "small")
    assert small.stat().st_size < whole.stat().st_size / 2
    for name, tensor in load(small).policy.state_dict().items():
        assert torch.equal(tensor, model.policy.state_dict()[name])
    with pytest.raises(ValueError, match="weights only"):
        load(small, env=make_vec_env("RecBandit-v0", 4, **PARAMETERS), resume=True)


def test_shipped_agents_load_and_the_missing_ones_are_named() -> None:
    agent = load_pretrained("RecBandit-v0")
    action, memory = agent.predict(make_vec_env("RecBandit-v0", 3, 0).reset())
    assert action.shape == (3,) and memory is None
    with pytest.raises(ValueError, match="no trained agent ships for 'RecBanditDrift-v0'; there are: RecBandit-v0"):
        load_pretrained("RecBanditDrift-v0")


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


def test_saving_is_all_or_nothing(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "agent.safetensors"
    path.write_bytes(written.read_bytes())

    def fail(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("recgym.core.os.replace", fail)
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
    **{f"no {key}": (without(key), f"header's '{key}' is missing") for key in HEADER},
    "format 0": (with_value("format", 0), "no format version"),
    "steps as text": (with_value("num_timesteps", "80"), "header's 'num_timesteps' is missing or no int"),
    "algo as list": (with_value("algo", ["ppo"]), "header's 'algo' is missing or no str"),
    "half an env": (with_value("env", {"id": "RecBandit-v0"}), "must have id, parameters and n_envs"),
    "unknown argument": (with_value("arguments", {"policy": "MlpPolicy", "evil": 1}), "cannot be built"),
    "class": (lambda c: edited(c, other_class), "is not allowed"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_one_clear_error(case: str, written: Path, tmp_path: Path) -> None:
    damage, message = REFUSED[case]
    path = tmp_path / "agent.safetensors"
    path.write_bytes(damage(written.read_bytes()))
    with pytest.raises(ValueError, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value)


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


@pytest.mark.parametrize(
    "name, value",
    [
        ("optimizer.0.exp_avg", torch.zeros(3)),
        ("last.observation", torch.zeros(2, 2)),
        ("random.torch", torch.zeros(5, dtype=torch.uint8)),
        ("env.state.time", torch.zeros(9)),
        ("env.counters", None),
    ],
)
def test_a_training_state_that_does_not_fit_is_refused(name: str, value: torch.Tensor | None, tmp_path: Path) -> None:
    model = make("ppo")
    model.learn(80)
    path = write(tmp_path / "whole", model, training=True)

    def change(header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        assert name in tensors
        tensors.pop(name) if value is None else tensors.update({name: value})

    path.write_bytes(edited(path.read_bytes(), change))
    env = make_vec_env("RecBandit-v0", 4, 0, **PARAMETERS)
    with pytest.raises(ValueError, match="training state does not fit") as caught:
        load(path, env=env, device="cpu", resume=True)
    assert str(path) in str(caught.value)


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
    model.set_env(VecMonitor(make_vec_env("RecBandit-v0", 4, 0, **PARAMETERS)))
    assert read(save(tmp_path / "monitored", model, **described))[0]["algo"] == "ppo"
    model.set_env(VecNormalize(make_vec_env("RecBandit-v0", 4, 0, **PARAMETERS)))
    with pytest.raises(ValueError, match="VecNormalize"):
        save(tmp_path / "normalised", model, **described)
    assert [path.name for path in tmp_path.iterdir()] == ["monitored.safetensors"]


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        load(tmp_path / "nothing.safetensors")


def test_unknown_algorithm_and_activation_are_refused() -> None:
    env = make_vec_env("RecBandit-v0", 2)
    with pytest.raises(ValueError, match="no algorithm 'sac'"):
        build("sac", env, {"policy": "MlpPolicy"})
    with pytest.raises(ValueError, match="activation_fn 'Evil'"):
        build("ppo", env, {"policy": "MlpPolicy", "policy_kwargs": {"activation_fn": "Evil"}})
