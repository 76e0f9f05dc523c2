"""Learners learn: a trivial environment quickly, RecBandit-v0 beyond UCB1, and the agents that we ship."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from stable_baselines3 import PPO

import recgym
from recgym.agents import MetaPPO, load_pretrained
from recgym.agents.algorithms import build
from recgym.agents.tuned import tuned_values
from recgym.evaluation import TEST_SEED, VALIDATION_SEED, evaluate
from recgym.sb3 import make_vec_env


def summary(agent: Any, scenario: Any, trials: int, seed: int) -> Any:
    """The agent's figures, compared with UCB1's on the same trials."""
    return evaluate(scenario, {"ucb1": None, "agent": agent}, trials=trials, seed=seed)[1]


@pytest.mark.parametrize("algorithm, policy", [(PPO, "MlpPolicy"), (MetaPPO, "TransformerPolicy")])
def test_ppo_solves_a_trivial_environment(algorithm: Any, policy: str) -> None:
    """Two items that are clicked always or never: keep the one that is clicked, leave the other."""
    trivial = {"arms": 2, "horizon": 10, "prior": (0.01, 0.01)}
    env = make_vec_env("RecBandit-v0", 64, 0, **trivial)
    values = {"n_steps": 10, "batch_size": 320, "n_epochs": 5, "learning_rate": 2e-3, "gamma": 0.9, "gae_lambda": 0.5}
    model = algorithm(policy, env, seed=0, device="cpu", **values)
    model.learn(38_400)
    found = summary(model, recgym.make_scenario("RecBandit-v0", **trivial), 1000, VALIDATION_SEED)
    assert found["agent"].versus["random"].low > 0
    assert found["agent"].returns.mean > 0.9 * found["informed"].returns.mean


@pytest.mark.parametrize(
    "env_id, beaten, trials",
    [
        ("RecBandit-v0", ("ucb1", "thompson", "greedy"), 1000),
        ("RecBanditDrift-v0", ("discounted_thompson", "sliding_window_thompson", "ucb1_tuned"), 1000),
        ("RecBanditContextual-v0", ("lints",), 1000),
        ("DynamicPricing-v0", ("glm_ts", "ts_update"), 500),
    ],
)
def test_the_shipped_agents_are_above_what_they_learn_to_beat(
    env_id: str, beaten: tuple[str, ...], trials: int
) -> None:
    """As many trials as make the differences more than three standard errors."""
    policies = {**dict.fromkeys(beaten), "agent": load_pretrained(env_id)}
    found = evaluate(recgym.make_scenario(env_id), policies, trials=trials, seed=TEST_SEED)[1]["agent"]
    assert all(found.versus[name].low > 0 for name in beaten)


@pytest.mark.slow
def test_ppo_with_the_tuned_values_ends_above_ucb1() -> None:
    values = tuned_values("ppo", "RecBandit-v0")
    del values["n_timesteps"]
    env = make_vec_env("RecBandit-v0", values.pop("n_envs"), 0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model = build("ppo", env, values, device="cpu", seed=0)
        model.learn(1_000_000)
    finally:
        torch.set_num_threads(threads)
    found = summary(model, recgym.make_scenario("RecBandit-v0"), 2000, VALIDATION_SEED)
    assert found["agent"].versus["ucb1"].low > 0
