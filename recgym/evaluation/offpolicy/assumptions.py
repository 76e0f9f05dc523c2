"""What estimators assume of a log, looked up in the log: a finding says whether it agrees, and on what ground."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from recgym.data.bandit import OpenBanditLog

__all__ = ["MIN_CLICKS", "Finding", "enough_clicks", "overlap", "propensities", "uniform"]

# A rate measured by n clicks has relative standard error 1/sqrt(n) (Poisson), the difference of two such rates
# sqrt(2/n): at 100 clicks 10 % and 14 %, so that a 95 % interval resolves differences from 28 % up. The two policies
# of the Open Bandit Dataset differ by about 50 %; what is worth a comparison is seldom larger.
MIN_CLICKS = 100
LEVEL = 1e-3  # chance that a log which agrees is said not to
MOST_NAMED = 5  # items that a finding lists


class Finding(NamedTuple):
    """Whether a log agrees with an assumption, and what was seen."""

    holds: bool
    says: str


def enough_clicks(clicks: float) -> Finding:
    """Whether a value that rests on so many clicks may be compared with another; what is undefined rests on none."""
    enough = math.isfinite(clicks) and clicks >= MIN_CLICKS
    return Finding(enough, f"{'enough' if enough else 'too few'} clicks to compare")


def uniform(log: OpenBanditLog) -> Finding:
    """Whether items were shown uniformly at random at each position: a chi-square test (Pearson 1900)."""
    from scipy.stats import chi2

    statistic, freedom = 0.0, 0
    for position in np.unique(log.position):
        counts = np.bincount(log.action[log.position == position], minlength=log.arms)
        expected = counts.sum() / log.arms
        statistic += float(((counts - expected) ** 2).sum() / expected)
        freedom += log.arms - 1
    chance = float(chi2.sf(statistic, freedom)) if freedom else 1.0
    if chance >= LEVEL:
        return Finding(True, "items were shown equally often")
    shares = np.bincount(log.action, minlength=log.arms) / len(log.action)
    return Finding(False, f"items were not shown equally often ({shares.min():.2%} to {shares.max():.2%} of the rows)")


def propensities(log: OpenBanditLog, propensity: np.ndarray | None = None) -> Finding:
    """Whether the propensities fit how often items were shown.

    Of each item, the sum of 1 / propensity over its rows is the number of all rows on average, because a row of
    propensity p stands for 1 / p; its variance is the sum of (1 - p) / p^2, as each row is a coin with that chance. An
    item that is off by more than chance allows, with `LEVEL` shared over the items, is named.

    Args:
        log: N rows, K items, each of which could be shown at every row.
        propensity: [N] in place of the log's own.
    """
    from scipy.stats import norm

    p = log.propensity if propensity is None else propensity
    rows = len(p)
    ratio = np.bincount(log.action, 1.0 / p, minlength=log.arms) / rows
    error = np.sqrt(np.maximum(np.bincount(log.action, (1.0 - p) / p**2, minlength=log.arms), 1.0)) / rows
    limit = float(norm.isf(LEVEL / (2 * log.arms)))
    # What is off by a hundredth or less is rounding of the file, whatever a long log can tell.
    wrong = np.flatnonzero((np.abs(ratio - 1.0) > limit * error) & (np.abs(ratio - 1.0) > 0.01))
    if not len(wrong):
        return Finding(True, "propensities fit how often items were shown")
    worst = wrong[np.argsort(-np.abs(np.log(ratio[wrong])))][:MOST_NAMED]
    named = ", ".join(f"{log.items[i]} ({ratio[i]:.3g} times as often as its propensity says)" for i in worst)
    more = f" and {len(wrong) - len(worst)} more" if len(wrong) > len(worst) else ""
    return Finding(False, f"propensities contradict the log: item {named}{more}")


def overlap(log: OpenBanditLog, policy: np.ndarray) -> Finding:
    """Whether everything that a policy may choose was shown at the position where it chooses it.

    Args:
        log: N rows, K items.
        policy: [K] or [N, K] probabilities.
    """
    _, place = np.unique(log.position, return_inverse=True)
    seen = np.zeros((place.max() + 1, log.arms), dtype=bool)
    seen[place, log.action] = True
    missing = np.where(seen[place], 0.0, policy).sum() / len(place)
    if missing <= 1e-3:
        return Finding(True, "what the policy chooses was shown")
    return Finding(False, f"{missing:.1%} of what the policy chooses was never shown there")
