"""What runs beside training: when it evaluates and saves, and what it logs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("stable_baselines3")
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.vec_env import VecNormalize

from recgym.agents.callbacks import CheckpointCallback, EvaluationCallback
from recgym.agents.checkpoint import read
from recgym.evaluation import VALIDATION_SEED, rollout
from recgym.sb3 import make_vec_env

ARGUMENTS: dict[str, Any] = {"policy": "MlpPolicy", "n_steps": 5, "batch_size": 20}


def learner() -> PPO:
    env = make_vec_env("RecBandit-v0", 4, 0, arms=2, horizon=5)
    return PPO(env=env, seed=0, device="cpu", **ARGUMENTS)


class Names(KVWriter):
    """Keeps the names of what is logged."""

    def __init__(self, names: set[str]) -> None:
        self.names = names

    def write(self, key_values: dict[str, Any], *_: Any) -> None:
        self.names.update(key_values)


class Diary(EvaluationCallback):
    """Keeps the timesteps of evaluations, and what they found."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.days: list[int] = []
        self.found: list[Any] = []

    def evaluate(self) -> Any:
        self.days.append(self.num_timesteps)
        self.found.append(super().evaluate())
        return self.found[-1]


@pytest.mark.parametrize("every, days", [(40, [0, 40, 80, 100]), (0, [0, 100])])
def test_evaluates_at_the_start_in_between_and_at_the_end(every: int, days: list[int]) -> None:
    """A rollout is 20 timesteps. Each time the policy of then, on validation tasks."""
    model = learner()
    diary = Diary(model.get_env().scenario, every=every, trials=20)
    model.learn(100, diary)
    assert diary.days == days and diary.last_evaluation == 100
    again = rollout(model, diary.scenario, trials=20, seed=VALIDATION_SEED)
    assert (diary.found[-1].returns == again.returns).all()


def test_normalised_observations_are_refused() -> None:
    env = VecNormalize(make_vec_env("RecBandit-v0", 4, 0, arms=2, horizon=5))
    model = PPO(env=env, device="cpu", **ARGUMENTS)
    callback = EvaluationCallback(env.unwrapped.scenario, every=0, trials=2)
    with pytest.raises(ValueError, match="VecNormalize"):
        model.learn(20, callback)


class Ask(BaseCallback):
    """Asks for a stop in the middle of a rollout."""

    def __init__(self, checkpoints: CheckpointCallback, moment: int) -> None:
        super().__init__()
        self.checkpoints = checkpoints
        self.moment = moment

    def _on_step(self) -> bool:
        if self.num_timesteps >= self.moment:
            self.checkpoints.stop = True
        return True


def checkpoints(model: PPO, path: Path, every: int) -> tuple[EvaluationCallback, CheckpointCallback, list[int]]:
    """Callbacks, and the timesteps at which the second saves."""
    evaluation = EvaluationCallback(model.get_env().scenario, every=0, trials=2)
    parameters = {"arms": 2, "horizon": 5}
    about = {"algo": "ppo", "arguments": ARGUMENTS, "env_id": "RecBandit-v0", "parameters": parameters}
    callback = CheckpointCallback(path, every=every, evaluation=evaluation, options={"trials": 3}, **about)
    saves: list[int] = []
    save = callback.save

    def noting() -> None:
        save()
        saves.append(model.num_timesteps)

    callback.save = noting  # type: ignore[method-assign]  # a spy
    return evaluation, callback, saves


@pytest.mark.parametrize("every, moments", [(40, [40, 80, 100]), (30, [40, 80, 100]), (0, [100])])
def test_saves_between_updates_and_at_the_end(every: int, moments: list[int], tmp_path: Path) -> None:
    model = learner()
    evaluation, callback, saves = checkpoints(model, tmp_path / "x.safetensors", every)
    model.learn(100, CallbackList([evaluation, callback]))
    assert saves == moments and callback.last_save == 100 and not callback.early
    header, _ = read(tmp_path / "x.safetensors")
    assert header["counters"] == {"last_evaluation": 100, "options": {"trials": 3}}


def test_a_stop_saves_after_the_update_and_ends_training(tmp_path: Path) -> None:
    model = learner()
    evaluation, callback, saves = checkpoints(model, tmp_path / "x.safetensors", 0)
    model.learn(100, CallbackList([evaluation, callback, Ask(callback, 48)]))
    assert saves == [60] and callback.early
    assert read(tmp_path / "x.safetensors")[0]["num_timesteps"] == 60


def test_expected_rewards_that_nobody_knows_are_not_logged() -> None:
    for weights in (None, {"value": 1.0, "over_cap": 0.5}):
        env = make_vec_env("AdPlacement-v0", 4, 0, creatives=2, horizon=5, profile=(1.0,), weights=weights)
        model = PPO(env=env, seed=0, device="cpu", **ARGUMENTS)
        logged: set[str] = set()
        diary = Diary(env.scenario, every=0, trials=2)
        model.set_logger(Logger(None, [Names(logged)]))
        model.learn(1, diary)
        assert ("eval/expected_reward" in logged) == (weights is None)
        assert np.isfinite(diary.found[0].expected).all() == (weights is None)
