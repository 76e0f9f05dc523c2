"""Means and ratios with bootstrap intervals."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["Interval", "interval", "ratio"]

RESAMPLES = 1000  # of the bootstrap


BOOTSTRAP_SEED = 20_240_131


class Interval(NamedTuple):
    """A mean with its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


def _resampled_means(columns: np.ndarray) -> np.ndarray:
    """Means [RESAMPLES, P] of bootstrap resamples of the rows of `columns` [N, P]; a resample takes whole rows."""
    rng, trials = np.random.default_rng(BOOTSTRAP_SEED), len(columns)
    blocks = []
    for _ in range(0, RESAMPLES, 50):  # bounds memory: 50 x N counts at a time
        counts = rng.multinomial(trials, np.full(trials, 1.0 / trials), size=50)
        blocks.append(counts.astype(np.float64) @ columns / trials)
    return np.concatenate(blocks)


def _percentiles(mean: float, resampled: np.ndarray) -> Interval:
    low, high = np.percentile(resampled, (2.5, 97.5))
    return Interval(float(mean), float(low), float(high))


def interval(values: np.ndarray) -> Interval:
    """Mean of `values` [N] with its 95 % bootstrap interval (percentiles, fixed seed)."""
    return _percentiles(values.mean(), _resampled_means(values[:, None])[:, 0])


def ratio(part: np.ndarray, whole: np.ndarray) -> Interval:
    """Mean of `part` [N] over the mean of `whole` [N], of the same trials; the interval resamples them together.

    NaN where the latter, resampled, is not above 0 throughout: there may be nothing to have a share of.
    """
    both = np.column_stack([part, whole])
    means, resampled = both.mean(axis=0), _resampled_means(both)
    if not resampled[:, 1].min() > 0:
        return Interval(np.nan, np.nan, np.nan)
    return _percentiles(means[0] / means[1], resampled[:, 0] / resampled[:, 1])
