"""The published table of bandits: its numbers against closed forms."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from recgym.evaluation.rl2 import BASELINES, RL2, PublishedCell

SHORT = tuple(cell for cell in RL2 if cell.pulls == 10)


def label(cell: PublishedCell) -> str:
    return cell.name.replace(" ", "-")


def test_the_nine_cells() -> None:
    assert [(cell.pulls, cell.arms) for cell in RL2] == [(n, k) for n in (10, 100, 500) for k in (5, 10, 50)]
    assert set(BASELINES) <= set(RL2[0].published) and all(
        cell.published.keys() == RL2[0].published.keys() for cell in RL2
    )


def optimum(pulls: int, arms: int) -> float:
    """Bellman's equation over the (successes, failures) of the arms that were pulled, in any order."""

    @cache
    def value(counts: tuple[tuple[int, int], ...], remaining: int) -> float:
        if remaining == 0:
            return 0.0
        choices = [(counts[:i] + counts[i + 1 :], arm) for i, arm in enumerate(counts)]
        choices += [(counts, (0, 0))] if len(counts) < arms else []
        values = []
        for others, (s, f) in choices:
            p = (s + 1) / (s + f + 2)
            click, miss = (tuple(sorted((*others, arm))) for arm in ((s + 1, f), (s, f + 1)))
            values.append(p * (1 + value(click, remaining - 1)) + (1 - p) * value(miss, remaining - 1))
        return max(values)

    return value((), pulls)


@pytest.mark.parametrize("cell", SHORT, ids=label)
def test_exact_values(cell: PublishedCell) -> None:
    assert cell.exact and cell.bound == pytest.approx(optimum(cell.pulls, cell.arms), abs=6e-6)


def one_price_bound(pulls: int, arms: int) -> float:
    """The least of n price + k V(price): V is what one arm is worth at one price for all moments (weak duality)."""
    price = np.linspace(0.5, 1.0, 501)
    value = np.zeros((pulls + 1, len(price)))  # [successes, price]
    for count in range(pulls - 1, -1, -1):
        p = ((1 + np.arange(count + 1)) / (2 + count))[:, None]
        value = np.maximum(0.0, p - price + p * value[1:] + (1 - p) * value[:-1])
    return float((pulls * price + arms * value[0]).min())


@pytest.mark.parametrize("cell", [cell for cell in RL2 if cell.pulls < 500], ids=label)
def test_bounds_and_published_numbers_agree(cell: PublishedCell) -> None:
    """One price for all moments bounds less tightly than the table's; nothing published is clearly above the bound."""
    error = {10: 0.06, 100: 0.4}[cell.pulls]  # standard error of 1,000 instances
    assert abs(cell.published["random"] - cell.pulls / 2) < 3 * error
    highest = cell.informed
    if cell.bound is not None:
        assert 0.98 * one_price_bound(cell.pulls, cell.arms) < cell.bound or cell.exact
        assert cell.bound < one_price_bound(cell.pulls, cell.arms)
        highest = min(highest, cell.bound)
    assert max(cell.published.values()) < highest + 3 * error
