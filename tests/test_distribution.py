"""Ordered slates and single choices: probabilities, frequencies and entropies against known answers."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from recgym.agents.distribution import PlackettLuce

pytestmark = pytest.mark.usefixtures("one_thread")


LOGITS = torch.tensor([0.5, -1.0, 0.0, 1.5])


def every_slate(k: int) -> Tensor:
    return torch.tensor(list(itertools.permutations(range(len(LOGITS)), k)))


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_slates_have_the_probabilities_of_choosing_place_by_place(k: int) -> None:
    slates = every_slate(k)
    found = PlackettLuce(LOGITS.expand(len(slates), -1), k).log_prob(slates).exp()
    assert float(found.sum()) == pytest.approx(1.0, abs=1e-6)
    strength = LOGITS.exp().tolist()
    for slate, probability in zip(slates.tolist(), found.tolist(), strict=True):
        left, expected = sum(strength), 1.0
        for item in slate:
            expected *= strength[item] / left
            left -= strength[item]
        assert probability == pytest.approx(expected, rel=1e-5)


def test_sampled_slates_have_their_frequencies() -> None:
    torch.manual_seed(0)
    n, k = 60_000, 2
    drawn = PlackettLuce(LOGITS.expand(n, -1), k).sample()
    slates = every_slate(k)
    expected = PlackettLuce(LOGITS.expand(len(slates), -1), k).log_prob(slates).exp()
    share = (drawn[:, None] == slates).all(dim=-1).float().mean(dim=0)
    assert float(share.sum()) == pytest.approx(1.0)
    assert ((share - expected).abs() < 4 * (expected * (1 - expected) / n).sqrt()).all()


@pytest.mark.parametrize("k", [1, 2, 4])
def test_the_mean_entropy_of_places_is_that_of_slates(k: int) -> None:
    slates = every_slate(k)
    distribution = PlackettLuce(LOGITS.expand(len(slates), -1), k)
    logs = distribution.log_prob(slates)
    expected = float(-(logs.exp() * logs).sum())
    assert float((logs.exp() * distribution.entropy(slates)).sum()) == pytest.approx(expected, abs=1e-5)
    torch.manual_seed(0)
    many = PlackettLuce(LOGITS.expand(20_000, -1), k)
    entropies = many.entropy(many.sample())
    assert abs(float(entropies.mean()) - expected) < 4 * float(entropies.std()) / math.sqrt(20_000) + 1e-5


def test_a_single_choice_is_categorical() -> None:
    logits = torch.randn(5, 7, 4, generator=torch.Generator().manual_seed(0))
    ours, theirs = PlackettLuce(logits, None), torch.distributions.Categorical(logits=logits)
    torch.manual_seed(0)
    action = ours.sample()
    assert action.shape == (5, 7) and action.dtype == torch.int64
    torch.testing.assert_close(ours.log_prob(action), theirs.log_prob(action))
    torch.testing.assert_close(ours.entropy(action), theirs.entropy())
    assert torch.equal(ours.mode(), logits.argmax(dim=-1))
    one = PlackettLuce(logits, 1)
    torch.testing.assert_close(one.log_prob(action[..., None]), theirs.log_prob(action))
    assert one.sample().shape == (5, 7, 1)


def test_the_gradient_of_a_full_slate_is_finite() -> None:
    logits = LOGITS.clone().requires_grad_()
    slate = torch.tensor([3, 0, 1, 2])
    distribution = PlackettLuce(logits, 4)
    (distribution.log_prob(slate) + distribution.entropy(slate)).backward()
    assert torch.isfinite(logits.grad).all() and logits.grad.abs().max() > 0.1
    assert PlackettLuce(LOGITS, 4).mode().tolist() == LOGITS.argsort(descending=True).tolist()
