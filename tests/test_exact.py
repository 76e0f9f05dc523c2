"""The exact optimum of small bandits: published values, and what other policies lose to it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from recgym.baselines.exact import MAX_PULLS, Optimum


@pytest.mark.parametrize(
    ("pulls", "arms", "value"),
    [(1, 2, 0.5), (2, 2, 13 / 12), (5, 2, 2.88889), (10, 2, 6.02179), (5, 5, 3.052083), (5, 9, 3.052083)],
)
def test_values_known_exactly(pulls: int, arms: int, value: float) -> None:
    assert Optimum(pulls, arms).value == pytest.approx(value, abs=6e-6)


def test_value_of_one_arm_is_the_prior_mean_of_every_pull() -> None:
    assert Optimum(7, 1, (1.0, 3.0)).value == pytest.approx(7 / 4)


def test_losses_of_a_fixed_policy_are_all_it_lacks() -> None:
    """Always the first of two arms: over all outcomes, weighted by their probabilities, value - loss is n / 2."""
    best, pulls = Optimum(4, 2), 4
    clicks = np.array(list(itertools.product((0, 1), repeat=pulls)))
    lost = best.losses(np.zeros_like(clicks), clicks)
    hits = np.cumsum(clicks, axis=1) - clicks
    rate = (1 + hits) / (2 + np.arange(pulls))
    weight = np.where(clicks == 1, rate, 1 - rate).prod(axis=1)
    assert weight.sum() == pytest.approx(1.0)
    assert best.value - weight @ lost == pytest.approx(pulls / 2)


def test_losses_are_zero_along_the_best_policy_and_positive_off_it() -> None:
    best = Optimum(2, 2)
    clicked, missed, any_last = [1, 0], [0, 0], [[1, 0], [1, 1]]
    assert best.losses(np.array([[0, 0], [0, 1]]), np.array([clicked, missed])) == pytest.approx([0.0, 0.0])
    # after a click the arm's mean is 2/3, the other's 1/2; after a miss 1/3
    assert best.losses(np.array([[0, 1], [0, 0]]), np.array([clicked, missed])) == pytest.approx([1 / 6, 1 / 6])
    assert np.ptp(best.losses(np.array([[1, 0]] * 2), np.array(any_last))) == 0.0


def test_too_many_pulls() -> None:
    with pytest.raises(ValueError, match=f"at most {MAX_PULLS} pulls, got {MAX_PULLS + 1}"):
        Optimum(MAX_PULLS + 1, 2)
