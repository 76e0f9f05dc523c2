"""The networks: acting is learning, fresh policies, permutations, the end of the context."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from stable_baselines3.common.utils import ConstantSchedule
from stable_baselines3.common.vec_env import DummyVecEnv

from recgym.agents.distribution import PlackettLuce
from recgym.agents.meta_ppo import MetaPPO
from recgym.agents.policy import TransformerPolicy
from recgym.agents.transformer import SequenceNetwork
from tests.small_agents import (
    NETWORKS,
    Answer,
    Log,
    bandit,
    cart_pole,
    contextual,
    log_ratios,
    meta,
    permuted,
    played,
    shaken,
    stepped,
)

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_cached_step_is_the_full_pass(actor: MetaPPO) -> None:
    policy, steps = actor.policy, 16 if actor.policy.layout is None else 8
    if policy.layout is None:
        actor.env.close()
        env = DummyVecEnv([lambda length=n: Answer(length) for n in (3, 4, 7)])
        actor = shaken(meta(env, {"layers": 2}))
        policy = actor.policy
    observations, starts = played(actor.env, steps)
    logits, values = stepped(policy, observations, starts)
    with torch.no_grad():
        distribution, full = policy.evaluate_trials(observations, starts)
        at = torch.tensor([0, 3, steps - 1])
        part, some = policy.evaluate_trials(observations, starts, at)
    assert logits.std() > 0.05 and values.std() > 0.05
    assert (distribution.logits - distribution.logits[:, :1]).abs().max() > 0.01
    torch.testing.assert_close(logits, distribution.logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(values, full, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(part.logits, distribution.logits[:, at], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(some, full[:, at], rtol=1e-5, atol=1e-5)


def test_the_ratio_is_one_before_the_first_step(actor: MetaPPO, monkeypatch: pytest.MonkeyPatch) -> None:
    actor.lr_schedule = ConstantSchedule(0.0)
    found, log = log_ratios(monkeypatch), Log()
    actor.learn(4 * actor.n_steps * actor.n_envs, log)
    ratio = torch.cat([log_ratio.flatten() for log_ratio in found]).exp()
    assert len(ratio) == actor.n_epochs * 4 * actor.n_steps * actor.n_envs
    assert (ratio - 1.0).abs().max() < 1e-4
    if actor.policy.layout is None:
        assert any(starts[1:].any() for starts in log.starts)  # episodes end inside,
        assert not all(starts[0].all() for starts in log.starts)  # and rollouts begin inside


def test_a_part_of_the_decisions_is_looked_at(actor: MetaPPO, monkeypatch: pytest.MonkeyPatch) -> None:
    actor.lr_schedule = ConstantSchedule(0.0)
    actor.batch_decisions, actor.batch_size = 3, actor.n_steps
    found = log_ratios(monkeypatch)
    actor.learn(1)
    assert [tuple(log_ratio.shape) for log_ratio in found] == [(1, 3)] * 3 * actor.n_epochs
    assert torch.cat(found).abs().max() < 1e-4


def test_the_ratio_moves_with_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    model = shaken(meta(bandit(), learning_rate=0.01, n_epochs=2))
    found = log_ratios(monkeypatch)
    model.learn(20)
    assert found[0].abs().max() < 1e-4 < found[-1].abs().max()


def test_a_fresh_policy_is_uniform() -> None:
    for arms in (3, 7):
        model = meta(bandit(arms=arms), {"history_layers": 1})
        logits, _ = stepped(model.policy, *played(bandit(arms=arms), 5))
        assert torch.equal(logits, torch.zeros_like(logits))
        np.testing.assert_allclose(PlackettLuce(logits, None).log_probabilities().exp(), 1.0 / arms, rtol=1e-6)


def test_a_fresh_policy_is_the_given_prior() -> None:
    prior = torch.tensor([0.5, 0.375, 0.125])
    model = meta(bandit(), {"init_policy": "expert", "expert_prior": prior.tolist()})
    logits, _ = stepped(model.policy, *played(bandit(), 5))
    torch.testing.assert_close(PlackettLuce(logits, None).log_probabilities().exp(), prior.expand_as(logits))


def test_a_fresh_policy_is_the_expert_of_the_environment() -> None:
    env = bandit(expert=1.0)
    model = meta(env, {"init_policy": "expert"})
    observations, starts = played(env, 5)
    expected = torch.stack([env.layout.get(observations[:, t], "expert") for t in range(5)], dim=1)
    logits, _ = stepped(model.policy, observations, starts)
    assert expected.std() > 0.1
    torch.testing.assert_close(PlackettLuce(logits, None).log_probabilities(), expected)


def test_a_fresh_policy_is_a_softmax_of_the_running_estimate() -> None:
    env, temperature = bandit(8, horizon=12), 0.25
    softmax = {"init_policy": "softmax", "temperature": temperature, "memory_scales": (0.9, 1.0)}
    observations, starts = played(env, 12)
    logits, _ = stepped(meta(env, softmax).policy, observations, starts)
    shown, clicks = torch.zeros(8, 3), torch.zeros(8, 3)
    for t in range(12):
        chosen = env.layout.get(observations[:, t], "chosen")
        shown += chosen
        clicks += chosen * env.layout.get(observations[:, t], "last_reward")[:, None]
        mean = clicks.sum(dim=1, keepdim=True) / (shown.sum(dim=1, keepdim=True) + 1.0)
        expected = ((clicks + mean) / (shown + 1.0) / temperature).softmax(dim=-1)
        torch.testing.assert_close(logits[:, t].softmax(dim=-1), expected)
    assert expected.std() > 0.1


@pytest.mark.parametrize("init_policy", ["uniform", "expert", "softmax"])
@pytest.mark.parametrize("network", ["memory", "both"])
def test_permuting_candidates_permutes_probabilities(network: str, init_policy: str) -> None:
    env, order = bandit(arms=4, horizon=8, expert=1.0), [2, 0, 3, 1]
    model = shaken(meta(env, {**NETWORKS[network], "init_policy": init_policy}))
    observations, starts = played(env, 8)
    with torch.no_grad():
        ours, value = model.policy.evaluate_trials(observations, starts)
        theirs, same_value = model.policy.evaluate_trials(permuted(env.layout, observations, order), starts)
    torch.testing.assert_close(theirs.log_probabilities(), ours.log_probabilities()[..., order], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(same_value, value, rtol=1e-4, atol=1e-5)
    assert ours.log_probabilities().std(dim=-1).mean() > 0.1


def test_permuting_fresh_candidates_with_features() -> None:
    env, order = contextual(arms=4, horizon=8), [2, 0, 3, 1]
    model = shaken(meta(env, {"history_layers": 1, "feature_memory": True}))
    observations, starts = played(env, 8)
    with torch.no_grad():
        ours, value = model.policy.evaluate_trials(observations, starts)
        theirs, same_value = model.policy.evaluate_trials(permuted(env.layout, observations, order), starts)
    torch.testing.assert_close(theirs.log_probabilities(), ours.log_probabilities()[..., order], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(same_value, value, rtol=1e-4, atol=1e-5)


def test_a_trial_longer_than_the_context_is_refused() -> None:
    history = {"history_layers": 1, "context_length": 7}
    with pytest.raises(ValueError, match=r"a trial of 9 decisions is longer than the policy's context_length 7"):
        meta(bandit(horizon=9), history)
    with pytest.raises(ValueError, match=r"12 decisions .* context_length 7"):
        meta(bandit(), history, variants=[{}, {"horizon": 12}])
    with pytest.raises(ValueError, match=r"16 decisions .* context_length 7"):
        meta(cart_pole(), {"context_length": 7}, n_steps=16)
    assert meta(bandit(horizon=9), {"context_length": 7}).n_steps == 9  # without a history there is no limit


@pytest.mark.parametrize("network", ["history", "no layout"])
def test_beyond_the_context_the_oldest_is_forgotten(network: str) -> None:
    """With one layer, whose keys and values know nothing of the past, that is the pass over the window alone."""
    env = bandit(3, horizon=30) if network == "history" else DummyVecEnv([lambda: Answer(40)])
    short = {"context_length": 4, "candidate_memory": False, "history_layers": int(network == "history")}
    whole = shaken(meta(env, {**short, "context_length": 30}, n_steps=None if network == "history" else 16))
    policy = TransformerPolicy(**{**whole.policy._get_constructor_parameters(), "context_length": 4})
    policy.load_state_dict(whole.policy.state_dict())
    observations, starts = played(env, 20)
    logits, values = stepped(policy, observations, starts)
    full, _ = stepped(whole.policy, observations, starts)
    assert torch.isfinite(logits).all() and torch.isfinite(values).all()
    torch.testing.assert_close(logits[:, :4], full[:, :4])
    assert (logits[:, 10:] - full[:, 10:]).abs().max() > 1e-4
    memory = None
    for t in range(20):
        _, memory = policy.predict(observations[:, t].numpy(), state=memory)
    assert memory.cache.shape[1] == 4 and set(memory.length) == {4}
    if isinstance(policy.network, SequenceNetwork):
        with torch.no_grad():
            window, value = policy.evaluate_trials(observations[:, 13:17], torch.zeros_like(starts[:, :4]))
        torch.testing.assert_close(logits[:, 16], window.logits[:, -1], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(values[:, 16], value[:, -1], rtol=1e-5, atol=1e-5)
