"""What estimators assume of a log, looked up in the log: a finding says whether it agrees, and on what ground."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from recgym.data.bandit import MIN_PROPENSITY, OpenBanditLog

__all__ = ["MIN_CLICKS", "Finding", "enough_clicks", "inverse", "overlap", "propensities", "steady", "uniform"]

# A rate measured by n clicks has relative standard error 1/sqrt(n) (Poisson), the difference of two such rates
# sqrt(2/n): at 100 clicks 10 % and 14 %, so that a 95 % interval resolves differences from 28 % up. The two policies
# of the Open Bandit Dataset differ by about 50 %; what is worth a comparison is seldom larger.
MIN_CLICKS = 100
LEVEL = 1e-3  # chance that a log which agrees is said not to
ROUNDING = 0.01  # relative; what is off by less is rounding of the file, whatever a long log can tell
MOST_NAMED = 5  # items that a finding lists


class Finding(NamedTuple):
    """Whether a log agrees with an assumption, and what was seen."""

    holds: bool
    says: str


def enough_clicks(clicks: float) -> Finding:
    """Whether a value that rests on so many clicks may be compared with another; what is undefined rests on none."""
    enough = math.isfinite(clicks) and clicks >= MIN_CLICKS
    return Finding(enough, f"{'enough' if enough else 'too few'} clicks to compare")


def inverse(propensity: np.ndarray) -> np.ndarray:
    """Give 1 / propensity [N], none above 1 / `MIN_PROPENSITY`, so that sums and squares stay finite."""
    return np.asarray(1.0 / np.maximum(propensity, MIN_PROPENSITY))


def uniform(log: OpenBanditLog) -> Finding:
    """Whether items were shown uniformly at random at each position: a chi-square test (Pearson 1900).

    Equal counts may hide a policy that favours one item now and another then; propensities that fit the log and are
    not all alike give it away.
    """
    from scipy.stats import chi2

    statistic, freedom = 0.0, 0
    for position in np.unique(log.position):
        counts = np.bincount(log.action[log.position == position], minlength=log.arms)
        expected = counts.sum() / log.arms
        statistic += float(((counts - expected) ** 2).sum() / expected)
        freedom += log.arms - 1
    if freedom and chi2.sf(statistic, freedom) < LEVEL:
        shares = np.bincount(log.action, minlength=log.arms) / len(log.action)
        seen = f"{shares.min():.2%} to {shares.max():.2%} of the rows"
        return Finding(False, f"items were not shown equally often ({seen})")
    least, most = log.propensity.min(), log.propensity.max()
    if most > least * (1.0 + ROUNDING) and propensities(log).holds:
        return Finding(False, f"items were not equally probable (propensities {least:.3g} to {most:.3g})")
    return Finding(True, "items were shown equally often")


def propensities(log: OpenBanditLog) -> Finding:
    """Whether the propensities fit how often items were shown.

    A row of propensity p stands for 1 / p rows, so that of each item the sum T of 1 / p over its rows is N on average,
    N all rows. With s = sum(1 / p^2) / T, the binomial of N draws with chance 1 / s, times s, has mean N and the
    variance of T, and is T itself where p is constant. An item whose T lies outside of it is named, with `LEVEL` shared
    over all that is tested, and so is an item at one position.

    Too large a T contradicts the propensities. Too small a one does so where they are constant, for the rows of a
    position from the first to the last that showed the item; where they vary, or before and after, the item may have
    had next to no chance, which is for `overlap` to say. Rows of a propensity of at most p are at most N K p on average
    (Markov), so that tiny propensities contradict the log by being there.
    """
    p, rows = log.propensity, len(log.action)
    if not ((p > 0) & (p <= 1)).all():
        return Finding(False, "propensities lie outside of (0, 1]")
    if rows * log.arms * p.min() < LEVEL:
        return Finding(False, f"propensities contradict the log, where one of {p.min():.3g} is not to be met")
    groups = list(_groups(log))
    limit = LEVEL / sum(len(np.unique(log.action[at])) for _, at in groups)
    wrong: dict[int, tuple[float, str]] = {}
    for place, at in groups:
        order = np.argsort(log.action[at], kind="stable")
        items, starts = np.unique(log.action[at][order], return_index=True)
        for item, shown in zip(items.tolist(), np.split(order, starts[1:]), strict=True):
            found = _misfit(p[at][shown], shown, len(at), limit, one_place=bool(place) or len(groups) == 1)
            if found is not None:
                wrong.setdefault(item, (found, place))
    if not wrong:
        return Finding(True, "propensities fit how often items were shown")
    worst = sorted(wrong, key=lambda item: -abs(math.log(wrong[item][0])))[:MOST_NAMED]
    first, *others = (f"item {log.items[i]}{wrong[i][1]} {wrong[i][0]:.2g} times" for i in worst)
    named = ", ".join([f"{first} as often as they say", *others])
    more = f" and {len(wrong) - len(worst)} more" if len(wrong) > len(worst) else ""
    return Finding(False, f"propensities contradict the log, which shows {named}{more}")


def _misfit(p: np.ndarray, shown: np.ndarray, size: int, limit: float, *, one_place: bool) -> float | None:
    """How many times as often as its propensities `p` say an item was shown, if chance does not do it.

    Args:
        p: of the rows that showed it.
        shown: their indices among the `size` rows that could have, in the order of time.
        size: see there.
        limit: chance of a false alarm.
        one_place: whether all rows are of one position.
    """
    from scipy.stats import binom

    weight = inverse(p)
    total = float(weight.sum())
    chance = min(total / float((weight**2).sum()), 1.0)
    draws = total * chance  # in units of the binomial
    if abs(total / size - 1.0) > ROUNDING and binom.sf(math.floor(draws + 1e-6) - 1, size, chance) < limit / 2:
        return total / size
    constant = one_place and p.max() <= p.min() * (1.0 + ROUNDING)
    span = int(shown[-1] - shown[0]) + 1
    if constant and total < span * (1.0 - ROUNDING) and binom.cdf(math.ceil(draws - 1e-6), span, chance) < limit / 2:
        return total / span
    return None


def overlap(log: OpenBanditLog, policy: np.ndarray, weight: np.ndarray) -> Finding:
    """Whether everything that a policy may choose was shown at the position where it chooses it, and at all times.

    Weights are 1 on average where it was. That they are less is tested against the binomial of N draws with chance
    1 / (largest weight), times that weight: of all laws with mean 1 and no larger values it varies most.

    Args:
        log: N rows, K items.
        policy: [K] or [N, K] probabilities.
        weight: [N] probability over propensity of what was shown.
    """
    from scipy.stats import binom

    _, place = np.unique(log.position, return_inverse=True)
    seen = np.zeros((place.max() + 1, log.arms))
    seen[place, log.action] = 1.0
    shown = (seen @ policy)[place] if policy.ndim == 1 else (seen[place] * policy).sum(axis=1)
    missing = 1.0 - float(shown.mean())
    if missing > 1e-3:
        return Finding(False, f"{missing:.1%} of what the policy chooses was never shown there")
    mean, largest = float(weight.mean()), max(float(weight.max()), 1.0)
    lack = binom.cdf(math.ceil(weight.sum() / largest - 1e-6), len(weight), 1.0 / largest)
    if mean < 1.0 - ROUNDING and lack < LEVEL / log.arms:  # a policy may be drawn to the rarest item
        return Finding(False, f"what the policy chooses had next to no chance in {1.0 - mean:.1%} of the rows")
    return Finding(True, "what the policy chooses was shown")


def steady(log: OpenBanditLog) -> Finding:
    """Whether clicks on an item at a position go neither with time nor with its propensity (Mantel 1963).

    If they do, something besides item and position matters: rates drift, or the logging policy knew more of the users.
    """
    from scipy.stats import norm, rankdata

    cell = np.unique(log.position, return_inverse=True)[1] * log.arms + log.action
    size = np.bincount(cell)
    many = size > 1
    clicked = np.bincount(cell, log.click)
    spread = np.where(many, clicked * (size - clicked) / np.maximum(size * np.maximum(size - 1, 1), 1), 0.0)
    limit = norm.isf(LEVEL / 4)  # two tests of two sides
    for name, value in (("time", np.arange(len(cell))), ("the propensity", log.propensity)):
        rank = rankdata(value)
        centred = rank - (np.bincount(cell, rank) / np.maximum(size, 1))[cell]
        variance = float((np.bincount(cell, centred**2) * spread).sum())
        if variance > 0 and abs(float(centred @ log.click)) > limit * math.sqrt(variance):
            return Finding(False, f"clicks on one item at one position go with {name}")
    return Finding(True, "clicks on an item go neither with time nor with its propensity")


def _groups(log: OpenBanditLog) -> Iterator[tuple[str, np.ndarray]]:
    """All rows, and those of each position where there are several: what to say of them, and their indices."""
    yield "", np.arange(len(log.action))
    positions = np.unique(log.position)
    if len(positions) > 1:
        for position in positions:
            yield f" at position {position}", np.flatnonzero(log.position == position)
