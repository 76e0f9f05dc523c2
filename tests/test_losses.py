"""Losses and gradients against known answers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from recgym.agents import losses
from recgym.agents.distribution import PlackettLuce
from recgym.agents.imitation import imitation_loss, label_entropy
from tests.small_agents import (
    bandit,
    contextual,
    meta,
    shaken,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("baseline", [0.0, 0.7])
def test_the_gradient_is_that_of_the_expected_reward(baseline: float) -> None:
    """Each action in its exact share: -E[A grad log p] = -sum_i r_i grad p_i, whatever the baseline."""
    env = contextual(1, horizon=1)
    model = meta(env, {"init_policy": "expert", "expert_prior": (0.5, 0.25, 0.25)})
    observation, starts = torch.tensor(env.reset())[:, None], torch.ones(1, 1, dtype=torch.bool)
    rewards, actions = torch.tensor([1.0, 0.2, -0.5]), torch.tensor([[0], [0], [1], [2]])
    distribution, _ = model.policy.evaluate_trials(observation.expand(4, -1, -1), starts.expand(4, -1))
    log_probs = distribution.log_prob(actions)
    weight = model.policy.network.score.weight
    loss, _ = losses.policy_loss(log_probs, log_probs.detach(), rewards[actions] - baseline, 0.2)
    (gradient,) = torch.autograd.grad(loss, weight)
    distribution, _ = model.policy.evaluate_trials(observation, starts)
    (expected,) = torch.autograd.grad(-(distribution.log_probabilities().exp() @ rewards).sum(), weight)
    assert expected.abs().max() > 0.01
    torch.testing.assert_close(gradient, expected, rtol=0.0, atol=1e-6)


def test_the_ratio_is_clipped_on_the_side_that_gains() -> None:
    ratios, advantages = torch.tensor([[1.5, 0.5, 1.5, 0.5, 1.1]]), torch.tensor([[1.0, 1.0, -2.0, -2.0, 3.0]])
    loss, log_ratio = losses.policy_loss(ratios.log(), torch.zeros(1, 5), advantages, 0.2)
    assert float(loss) == pytest.approx(-(1.2 + 0.5 - 3.0 - 1.6 + 3.3) / 5)
    torch.testing.assert_close(log_ratio, ratios.log())
    scaled = losses.normalise(advantages, None)
    torch.testing.assert_close(scaled, (advantages - advantages.mean()) / advantages.std())
    expected = torch.where(scaled > 0, ratios.clamp(max=1.2), ratios.clamp(min=0.8)) * scaled
    loss, _ = losses.policy_loss(ratios.log(), torch.zeros(1, 5), scaled, 0.2)
    assert float(loss) == pytest.approx(-float(expected.mean()), rel=1e-5)


@pytest.mark.parametrize("normalised", [True, False])
def test_advantages_are_normalised_where_it_is_asked_for(normalised: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    policy_loss = losses.policy_loss

    def spy(*arguments: Any) -> tuple[Tensor, Tensor]:
        seen.append(arguments[2])
        return policy_loss(*arguments)

    monkeypatch.setattr(losses, "policy_loss", spy)
    meta(bandit(), normalize_advantage=normalised, batch_size=20).learn(1)
    assert len(seen) == 1 and (abs(float(seen[0].std()) - 1.0) < 1e-4) == normalised


def test_the_gradient_of_a_rollout_is_that_of_the_expected_reward_on_average(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One-step trials of one fixed task, 4,000 of them: every component within 4 standard errors."""
    n = 4000
    env = bandit(n, horizon=1, expert=1.0, tasks={"rates": [0.9, 0.4, 0.1]})
    arguments = {"n_epochs": 1, "batch_size": n, "normalize_advantage": False, "ent_coef": 0.0}
    model = shaken(meta(env, learning_rate=0.0, **arguments), 0.2)
    hidden: list[Tensor] = []
    model.policy.network.norm.register_forward_hook(lambda _module, _inputs, output: hidden.append(output.detach()))
    gradients: list[Tensor] = []
    policy_loss = losses.policy_loss

    def spy(*arguments: Any) -> tuple[Tensor, Tensor]:
        loss, log_ratio = policy_loss(*arguments)
        (gradient,) = torch.autograd.grad(loss, model.policy.network.score.weight, retain_graph=True)
        gradients.append(gradient[0])
        return loss, log_ratio

    monkeypatch.setattr(losses, "policy_loss", spy)
    monkeypatch.setattr(torch, "randperm", lambda n, **_: torch.arange(n))  # the batch is the buffer, in its order
    model.learn(n)
    batch, tokens = model.rollout_buffer.trials(1), hidden[-1][:, 0]  # [n, K, d] of the pass that learned
    with torch.no_grad():
        p = model.policy.evaluate_trials(batch.observations, batch.starts)[0].log_probabilities().exp()[:, 0]
    rates, onehot = torch.tensor([0.9, 0.4, 0.1]), torch.nn.functional.one_hot(batch.actions[:, 0], 3)
    sampled = -(batch.advantages * (onehot - p))[..., None] * tokens
    exact = -(p * (rates - p @ rates[:, None]))[..., None] * tokens
    torch.testing.assert_close(gradients[0], sampled.sum(dim=1).mean(dim=0), rtol=1e-4, atol=1e-6)
    difference = (sampled - exact).sum(dim=1)
    assert (difference.mean(dim=0).abs() < 4 * difference.std(dim=0) / math.sqrt(n)).all()
    assert (exact.sum(dim=1).mean(dim=0).abs() > 4 * difference.std(dim=0) / math.sqrt(n)).any()


# --- decisions at which nothing is decided ---------------------------------------------------------------------------
PRESENT = torch.tensor([[True, False, True], [False, True, False]])


def test_losses_are_those_of_what_is_present() -> None:
    """By hand: as if the rest were not there."""
    generator = torch.Generator().manual_seed(0)
    new, old, advantages, values, returns = torch.randn(5, 2, 3, generator=generator)
    left = torch.tensor([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
    scaled = losses.normalise(advantages, PRESENT)
    torch.testing.assert_close(scaled[PRESENT], losses.normalise(advantages[PRESENT], None))
    loss, log_ratio = losses.policy_loss(new, old, advantages, 0.2, PRESENT)
    expected, _ = losses.policy_loss(new[PRESENT], old[PRESENT], advantages[PRESENT], 0.2)
    torch.testing.assert_close(loss, expected)
    assert log_ratio.shape == (2, 3)
    loss = losses.value_loss(values, returns, left, PRESENT)
    torch.testing.assert_close(loss, losses.value_loss(values[PRESENT], returns[PRESENT], left[PRESENT]))
    for ours, theirs in zip(
        losses.measure_change(log_ratio, 0.2, PRESENT), losses.measure_change(log_ratio[PRESENT], 0.2), strict=True
    ):
        torch.testing.assert_close(ours, theirs)
    nothing = torch.zeros(2, 3, dtype=torch.bool)
    assert losses.mean_present(values, nothing) == 0.0 and losses.normalise(advantages, nothing).isfinite().all()


@pytest.mark.parametrize("k", [None, 2])
def test_imitation_is_of_what_is_present(k: int | None) -> None:
    generator = torch.Generator().manual_seed(0)
    distribution = PlackettLuce(torch.randn(2, 3, 4, generator=generator), k)
    labels: Tensor = torch.rand(2, 3, 4, generator=generator).softmax(dim=-1)
    labels = labels if k is None else labels.topk(2).indices
    part = PlackettLuce(distribution.logits[PRESENT], k)
    for ours, theirs in zip(
        (*imitation_loss(distribution, labels, PRESENT), label_entropy(labels, PRESENT)),
        (*imitation_loss(part, labels[PRESENT]), label_entropy(labels[PRESENT])),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)
    whole, _ = imitation_loss(distribution, labels)
    assert not torch.allclose(whole, imitation_loss(distribution, labels, PRESENT)[0])
