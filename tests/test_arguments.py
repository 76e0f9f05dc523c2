"""Arguments as a file can carry them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule, LinearSchedule

from recgym.agents import MetaPPO
from recgym.agents.algorithms import build
from recgym.agents.arguments import plain_schedule
from recgym.agents.checkpoint import load, read, save
from recgym.sb3 import make_vec_env
from tests.small_checkpoints import SMALL, make


def test_unknown_algorithm_and_activation_are_refused() -> None:
    env = make_vec_env("RecBandit-v0", 2)
    with pytest.raises(ValueError, match="no algorithm 'sac'"):
        build("sac", env, {"policy": "MlpPolicy"})
    with pytest.raises(ValueError, match="activation_fn 'Evil'"):
        build("ppo", env, {"policy": "MlpPolicy", "policy_kwargs": {"activation_fn": "Evil"}})


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
    given = {**SMALL["ppo"], "learning_rate": model.learning_rate, "clip_range": model.clip_range}
    path = save(tmp_path / "agent", model, arguments=given)
    assert read(path)[0]["arguments"] == {**SMALL["ppo"], "learning_rate": "lin_0.001", "clip_range": 0.2}
    assert isinstance(load(path).learning_rate, LinearSchedule)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("algo", SMALL)
def test_a_gpu_that_is_not_here_is_refused_as_by_environments(algo: str) -> None:
    """Stable-Baselines3 takes the CPU instead and says nothing."""
    env = make_vec_env("RecBandit-v0", 2)
    for device in ("cuda", "cuda:3"):
        with pytest.raises(ValueError, match="finds no GPU here; use device='cpu'") as theirs:
            make_vec_env("RecBandit-v0", 2, device=device)
        with pytest.raises(ValueError, match=re.escape(str(theirs.value))):
            build(algo, env, SMALL[algo], device=device)
        with pytest.raises(ValueError, match=re.escape(str(theirs.value))):
            MetaPPO("TransformerPolicy", env, device=device)
    with pytest.raises(ValueError, match="device 'gpu' is not known"):
        build(algo, env, SMALL[algo], device="gpu")
