"""Learners learn: a trivial environment quickly, RecBandit-v0 beyond UCB1, and the agents that we ship."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO

import recgym
from recgym.agents import MetaPPO, load_pretrained
from recgym.agents.algorithms import build
from recgym.agents.tuned import tuned_values
from recgym.baselines import make_baseline
from recgym.evaluation import TEST_SEED, VALIDATION_SEED, evaluate, rollout
from recgym.evaluation.statistics import interval
from recgym.sb3 import make_vec_env


def summary(agent: Any, scenario: Any, trials: int, seed: int) -> Any:
    """The agent's figures, compared with UCB1's on the same trials."""
    return evaluate(scenario, {"ucb1": None, "agent": agent}, trials=trials, seed=seed)[1]


SMALL = {"width": 8, "heads": 2, "layers": 1}


@pytest.mark.parametrize(
    "algorithm, policy, timesteps, arguments",
    [
        (PPO, "MlpPolicy", 12_800, {"learning_rate": 1e-2}),
        (MetaPPO, "TransformerPolicy", 9_600, {"learning_rate": 2e-2, "policy_kwargs": SMALL}),
    ],
)
def test_ppo_solves_a_trivial_environment(algorithm: Any, policy: str, timesteps: int, arguments: Any) -> None:
    """Two items that are clicked always or never: keep the one that is clicked, leave the other.

    Of the informed policy's clicks learners reach 0.95 to 0.96 (seeds 0 to 3) with a standard error of 0.002, and
    random choices 0.66 with one of 0.01: the bound in between is more than twenty of them from either.
    """
    trivial = {"arms": 2, "horizon": 10, "prior": (0.01, 0.01)}
    env = make_vec_env("RecBandit-v0", 64, 0, **trivial)
    values = {"n_steps": 10, "batch_size": 320, "n_epochs": 5, "gamma": 0.9, "gae_lambda": 0.5, **arguments}
    model = algorithm(policy, env, seed=0, device="cpu", **values)
    model.learn(timesteps)
    figures = summary(model, recgym.make_scenario("RecBandit-v0", **trivial), 1000, VALIDATION_SEED)
    assert figures["agent"].versus["random"].low > 0
    assert figures["agent"].returns.mean > 0.9 * figures["informed"].returns.mean


@pytest.mark.parametrize(
    "env_id, baselines, trials, measure",
    [
        ("RecBandit-v0", ("ucb1", "thompson", "greedy"), 250, "expected"),
        ("RecBanditDrift-v0", ("discounted_thompson", "sliding_window_thompson", "ucb1_tuned"), 600, "expected"),
        ("RecBanditContextual-v0", ("lints",), 700, "expected"),
        ("DynamicPricing-v0", ("glm_ts", "ts_update"), 350, "returns"),
    ],
)
def test_the_shipped_agents_are_above_what_they_learn_to_beat(
    env_id: str, baselines: tuple[str, ...], trials: int, measure: str
) -> None:
    """On the same trials, with as many of them as put the smallest lead at more than five standard errors.

    The lower end of the 95 % interval, at 1.96 of them, is then above zero with a probability of 99.9 % for agents as
    good as these, and of 2.5 % for one that is only as good as the baseline. Bandits are compared by the expected
    rewards of what was chosen, which have less noise than the clicks.
    """
    scenario = recgym.make_scenario(env_id)
    policies = {name: make_baseline(name, scenario) for name in baselines} | {"agent": load_pretrained(env_id)}
    totals = {}
    for name, policy in policies.items():
        values = getattr(rollout(policy, scenario, trials=trials, seed=TEST_SEED), measure)
        totals[name] = values.reshape(trials, -1).sum(axis=1, dtype=np.float64)
    for name in baselines:
        lead = totals["agent"] - totals[name]
        errors = lead.mean() / (lead.std(ddof=1) / math.sqrt(trials))
        assert interval(lead).low > 0, name
        assert errors > 5.0, f"{name}: {errors:.1f} standard errors"


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
    figures = summary(model, recgym.make_scenario("RecBandit-v0"), 2000, VALIDATION_SEED)
    assert figures["agent"].versus["ucb1"].low > 0
