"""What a layout's roles give the policy: masks, attention by group, auxiliary heads; and labels that average draws."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.vec_env import DummyVecEnv

import recgym
from recgym.agents import MetaPPO
from recgym.agents.auxiliary import hidden_labels, true_rewards
from recgym.agents.imitation import Expert
from recgym.agents.policy import TransformerPolicy
from recgym.sb3 import make_vec_env

PLACEMENT: dict[str, Any] = {"creatives": 3, "profile": (1.0, 0.5), "horizon": 6}
PLAIN = {"candidate_memory": False, "feature_memory": False, "memory_scales": [1.0], "width": 12, "layers": 1}


def learner(env_id: str = "AdPlacement-v0", heads: int = 3, parameters: Any = PLACEMENT, **arguments: Any) -> MetaPPO:
    kwargs = {**PLAIN, "heads": heads, **arguments.pop("policy_kwargs", {})}
    env = make_vec_env(env_id, n_envs=16, seed=0, device="torch", **parameters)
    return MetaPPO("TransformerPolicy", env, seed=0, device="cpu", policy_kwargs=kwargs, **arguments)


def shaken(model: MetaPPO) -> TransformerPolicy:
    """The policy with weights that are not those of a fresh one, whose scores are all 0."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.policy.parameters():
            weight += 0.3 * torch.randn(weight.shape, generator=generator)
    return model.policy


def probabilities(policy: TransformerPolicy, observation: Any) -> np.ndarray:
    seen = torch.as_tensor(observation)
    with torch.no_grad():
        distribution, _, _ = policy.step(seen, None, torch.ones(len(seen), dtype=torch.bool))
    return distribution.log_probabilities().exp().numpy()


def test_what_cannot_be_had_is_not_chosen() -> None:
    model = learner(parameters={**PLACEMENT, "launch": 1.0})
    observation = model.env.reset()
    layout = model.policy.layout
    assert layout is not None
    available = layout.get(observation, "available") > 0
    assert not available.all()
    chances = probabilities(shaken(model), observation)
    assert chances[~available].max() == 0.0
    np.testing.assert_allclose((chances * available).sum(axis=1), 1.0, rtol=1e-5)


def test_heads_look_at_all_and_at_each_kind_of_group() -> None:
    network: Any = learner().policy.network
    observation = torch.as_tensor(learner().env.reset())
    candidates = network.reading.split(observation)[1][:, None]
    mask = network._group_mask(candidates)[0]
    creative, slot = np.arange(6) // 2, np.arange(6) % 2
    assert mask[0].all()
    np.testing.assert_array_equal(mask[1].numpy(), creative[:, None] == creative)
    np.testing.assert_array_equal(mask[2].numpy(), slot[:, None] == slot)


@pytest.mark.parametrize("group_attention", [None, False])
def test_creatives_in_another_order_have_the_same_probabilities(group_attention: bool | None) -> None:
    model = learner(policy_kwargs={"group_attention": group_attention})
    observation, layout = model.env.reset(), model.policy.layout
    assert layout is not None
    order = np.array([4, 5, 0, 1, 2, 3])  # whole creatives, with their group numbers
    context, rows = layout.split(observation)
    moved = np.concatenate([context, rows[:, order].reshape(len(rows), -1)], axis=1)
    policy = shaken(model)
    before, after = probabilities(policy, observation), probabilities(policy, moved)
    np.testing.assert_allclose(after, before[:, order], atol=1e-6)
    assert before.std() > 0.01


def test_groups_matter_to_the_policy() -> None:
    """Another candidate's numbers are seen by other heads where it is of another group."""
    with_groups, without = (shaken(learner(policy_kwargs={"group_attention": wanted})) for wanted in (None, False))
    observation = learner().env.reset()
    assert np.abs(probabilities(with_groups, observation) - probabilities(without, observation)).max() > 1e-3


def test_groups_need_a_head_each() -> None:
    with pytest.raises(ValueError, match="group_attention needs 3 heads here, there are 2"):
        learner(heads=2, policy_kwargs={"group_attention": True})
    network: Any = learner(heads=2).policy.network
    assert network._group_mask(torch.zeros(1, 1, 6, 30)) is None  # left to itself it does without


# --- auxiliary heads -------------------------------------------------------------------------------------------------
def test_labels_are_the_targets_of_the_simulator() -> None:
    env = make_vec_env("AdBidding-v0", n_envs=5, seed=0, creatives=2)
    env.reset()
    labels = hidden_labels(env, "cpu")
    targets = env.runner.scenario.targets(env.runner.state)
    assert labels.shape == (5, 16, 2)
    for place, name in enumerate(("logit", "win")):
        np.testing.assert_array_equal(labels[..., place].numpy(), targets[name])


def test_the_head_learns_what_is_hidden_and_acting_ignores_it() -> None:
    model = learner(
        expert="greedy_lp", pretrain_steps=100_000, batch_size=96, policy_kwargs={"auxiliary": 1}, auxiliary_coef=1.0
    )
    first = auxiliary_error(model)
    model.learn(16 * 6 * 60)
    assert auxiliary_error(model) < 0.7 * first
    observation = model.env.reset()
    before = probabilities(model.policy, observation)
    with torch.no_grad():
        model.policy.network.auxiliary.weight += 1.0
    np.testing.assert_array_equal(probabilities(model.policy, observation), before)


def auxiliary_error(model: MetaPPO) -> float:
    env = make_vec_env("AdPlacement-v0", n_envs=200, seed=9, device="torch", **PLACEMENT)
    observation = torch.as_tensor(env.reset())[:, None]
    with torch.no_grad():
        told = model.policy.tell_trials(observation, torch.ones(200, 1, dtype=torch.bool))[2]
    assert told is not None
    return float((told[:, 0] - hidden_labels(env, "cpu")).square().mean())


def test_labels_have_to_be_there() -> None:
    with pytest.raises(
        ValueError, match=r"auxiliary=3, but Placement\.targets gives 1 numbers of each candidate: use 1"
    ):
        learner(policy_kwargs={"auxiliary": 3})
    with pytest.raises(ValueError, match=r"auxiliary=1, but Bandit\.targets gives 0"):
        learner("RecBandit-v0", parameters={"horizon": 5}, policy_kwargs={"auxiliary": 1})


# --- a critic that is told the truth ----------------------------------------------------------------------------------
def test_the_critic_is_told_the_mean_rewards_of_the_simulator() -> None:
    env = make_vec_env("RecBandit-v0", n_envs=5, seed=0, horizon=4)
    env.reset()
    np.testing.assert_array_equal(true_rewards(env, "cpu")[..., 0].numpy(), env.runner.state.task.rates)


def test_the_value_sees_the_truth_and_the_scores_do_not() -> None:
    model = learner("RecBandit-v0", 2, {"horizon": 4, "arms": 3}, policy_kwargs={"asymmetric_critic": True})
    policy = shaken(model)
    observation = torch.as_tensor(model.env.reset())
    starts = torch.ones(len(observation), dtype=torch.bool)
    outcomes = []
    for truth in (None, torch.ones(len(observation), 3, 1)):
        with torch.no_grad():
            distribution, value, memory = policy.step(observation, None, starts, truth)
            again, whole, _ = policy.tell_trials(
                observation[:, None], starts[:, None], truth=None if truth is None else truth[:, None]
            )
        np.testing.assert_allclose(whole[:, 0].numpy(), value.numpy(), atol=1e-6)
        outcomes.append((distribution.logits.numpy(), again.logits[:, 0].numpy(), value.numpy(), memory))
    np.testing.assert_array_equal(outcomes[0][0], outcomes[1][0])
    np.testing.assert_array_equal(outcomes[0][1], outcomes[1][1])
    assert np.abs(outcomes[0][2] - outcomes[1][2]).min() > 1e-3
    for one, other in zip(outcomes[0][3], outcomes[1][3], strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


@pytest.mark.parametrize("device", ["cpu", "torch"])
def test_the_first_value_knows_the_trial_where_the_critic_is_told(device: str) -> None:
    correlation = {}
    for told in (False, True):
        env = make_vec_env("RecBandit-v0", n_envs=256, seed=0, device=device, horizon=10, arms=2)
        kwargs = {**PLAIN, "heads": 2, "asymmetric_critic": told}
        model = MetaPPO(
            "TransformerPolicy", env, seed=0, device="cpu", learning_rate=1e-2, gae_lambda=1.0, policy_kwargs=kwargs
        )
        model.learn(256 * 10 * 8)
        first, earned = model.rollout_buffer.values[0].numpy(), model.rollout_buffer.rewards.sum(dim=0).numpy()
        correlation[told] = float(np.corrcoef(first + 1e-9 * np.arange(256), earned)[0, 1])
    assert correlation[True] > 0.6  # of sums of ten clicks with their mean it is at most about .8
    assert abs(correlation[False]) < 0.25  # four standard errors


def test_the_truth_needs_a_simulator() -> None:
    env = DummyVecEnv([lambda: gym.make("RecBandit-v0", horizon=5)])
    with pytest.raises(ValueError, match="asymmetric_critic needs the simulator's truth, which only a RecVecEnv gives"):
        MetaPPO("TransformerPolicy", env, policy_kwargs={"asymmetric_critic": True})
    with pytest.raises(ValueError, match="knows no mean rewards with these weights"):
        learner(parameters={**PLACEMENT, "weights": {"over_cap": 1.0}}, policy_kwargs={"asymmetric_critic": True})


# --- labels that average draws ---------------------------------------------------------------------------------------
def test_labels_average_the_draws_of_an_expert() -> None:
    env = make_vec_env("AdPlacement-v0", n_envs=64, seed=0)
    observation, starts = torch.as_tensor(env.reset()), torch.ones(64, dtype=torch.bool)
    one, many = (Expert("belief_lp", env, draws).label(observation, starts).numpy() for draws in (1, 8))
    np.testing.assert_allclose(many.sum(axis=1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(8.0 * many, np.round(8.0 * many), atol=1e-5)
    assert (one.max(axis=1) == 1.0).all()
    assert many.max(axis=1).mean() < 0.8  # Thompson sampling is of several minds


def test_an_expert_that_tells_its_distribution_is_asked_once() -> None:
    env = make_vec_env("RecBandit-v0", n_envs=2, seed=0, expert=1.0)
    with pytest.raises(ValueError, match="tells its distribution at once; use 1"):
        Expert("expert", env, 4)


def test_days_that_began_at_different_times_are_planned_each_for_itself() -> None:
    """Rows of one batch at other decisions: the informed policy and the expert act as in a batch of their own."""
    scenario = recgym.make_scenario("AdBidding-v0")
    env = make_vec_env(scenario, n_envs=6, seed=0)
    env.reset()
    for _ in range(20):
        env.step(np.full(6, 3))
    state = env.runner.state
    mixed = state._replace(seen=state.seen._replace(time=np.array([0, 5, 20, 30, 40, 47], dtype=np.float32)))
    together = scenario.informed_action(mixed)
    for row in range(6):
        alone = recgym.arrays.tree_map(lambda leaf, row=row: leaf[row : row + 1], mixed)
        assert scenario.informed_action(alone)[0] == together[row]
