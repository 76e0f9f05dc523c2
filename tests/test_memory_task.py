"""Memory in an environment without a Layout: a cue at the beginning decides what is right fifty steps later."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.utils import LinearSchedule

from recgym.agents.meta_ppo import MetaPPO

DELAY = 50
N_ENVS = 64
BUDGET = 160_000


class Cue(gymnasium.Env):
    """The first observation shows +1 or -1, all later ones 0; the last action earns 1 where it names the sign."""

    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)  # cue, share of the trial that is over
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.right, self.time = int(self.np_random.integers(2)), 0
        return np.array([2.0 * self.right - 1.0, 0.0], dtype=np.float32), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        ended, reward = self.time == DELAY, float(self.time == DELAY and action == self.right)
        self.time += 1
        return np.array([0.0, min(self.time / DELAY, 1.0)], dtype=np.float32), reward, ended, False, {}


def score(model: Any) -> float:
    """Share of the rewards that 400 trials of the trained model earn; half of them are there by chance."""
    return evaluate_policy(model, make_vec_env(Cue, 40, seed=1), n_eval_episodes=400, deterministic=True)[0]


def trained(algorithm: Any, policy: str, **arguments: Any) -> float:
    size = {"n_steps": DELAY + 1, "batch_size": (DELAY + 1) * N_ENVS // 4, "n_epochs": 4}
    common = {
        **size,
        "learning_rate": LinearSchedule(3e-3, 0.0, 1.0),
        "gamma": 1.0,
        "gae_lambda": 0.95,
        "device": "cpu",
    }
    model = algorithm(policy, make_vec_env(Cue, N_ENVS, seed=0), seed=0, **common, **arguments)
    return score(model.learn(BUDGET))


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
def test_a_cue_is_remembered_for_fifty_steps() -> None:
    found = trained(MetaPPO, "TransformerPolicy", clip_range=0.2, policy_kwargs={"width": 16, "heads": 2, "layers": 1})
    without = trained(PPO, "MlpPolicy")
    recurrent = trained(RecurrentPPO, "MlpLstmPolicy", policy_kwargs={"lstm_hidden_size": 32})
    print(f"after {BUDGET:,} steps: MetaPPO {found:.3f}, PPO {without:.3f}, RecurrentPPO {recurrent:.3f}")
    assert found > 0.9
    assert without < 0.6
