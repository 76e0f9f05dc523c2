"""Training states that do not fit: refused, and nothing has changed."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recgym.agents.algorithms import ALGORITHMS
from recgym.agents.checkpoint import load
from recgym.sb3 import make_vec_env
from tests.small_checkpoints import PARAMETERS, SaveAt, as_first_format, edited, make, write


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
    ("ppo", "env.state.seen.time", torch.zeros(9)),
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


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_there_is_no_training_to_keep_before_the_first(algo: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no training to go on with: learn in the environment first"):
        write(tmp_path / "agent", make(algo), algo, training=True)
    assert not list(tmp_path.iterdir())


def test_a_training_state_of_the_first_format(trained: Callable[[str], Path], tmp_path: Path) -> None:
    """It is taken up where the environment's state has the same parts, and else the error says why it is not."""
    path = tmp_path / "whole.safetensors"
    path.write_bytes(edited(trained("meta_ppo").read_bytes(), as_first_format))
    env = make_vec_env("RecBandit-v0", 4, 0, **PARAMETERS)
    assert load(path, env=env, device="cpu", resume=True).num_timesteps == 120

    def rename_state(header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        as_first_format(header, tensors)
        name = next(name for name in tensors if name.startswith("env.state."))
        tensors[f"{name}_of_old"] = tensors.pop(name)

    path.write_bytes(edited(trained("meta_ppo").read_bytes(), rename_state))
    message = refuse_to_resume(path)
    assert "(the file is of format 1, when environments kept their state otherwise)" in message
    assert load(path, device="cpu").num_timesteps == 120
