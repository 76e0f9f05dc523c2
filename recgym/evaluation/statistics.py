"""Means and ratios with bootstrap intervals."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np

__all__ = ["Z95", "Interval", "interval", "percentiles", "ratio", "resampled_means", "shown"]

Z95 = 1.959963984540054  # of a normal distribution: 95 % lie within so many standard errors
RESAMPLES = 1000  # of the bootstrap
BLOCK = 50  # of them at a time
BOOTSTRAP_SEED = 20_240_131
MAX_CACHED = 8192  # trials whose counts are kept: 16 MB, in which uint16 holds every count


class Interval(NamedTuple):
    """A mean with its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


def _draw_counts(trials: int) -> Iterator[np.ndarray]:
    """Draw how often each resample takes each of N rows: blocks [50, N] of all `RESAMPLES`, always the same for N."""
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    for _ in range(0, RESAMPLES, BLOCK):  # bounds memory
        yield rng.multinomial(trials, np.full(trials, 1.0 / trials), size=BLOCK)


@lru_cache(maxsize=2)
def _cached_counts(trials: int) -> list[np.ndarray]:
    return [counts.astype(np.uint16) for counts in _draw_counts(trials)]


def resampled_means(columns: np.ndarray) -> np.ndarray:
    """Means [RESAMPLES, P] of bootstrap resamples of the rows of `columns` [N, P]; a resample takes whole rows.

    To draw the counts takes a hundred times as long as to use them, and a report asks for dozens of intervals over N.
    """
    trials = len(columns)
    blocks = _cached_counts(trials) if trials <= MAX_CACHED else _draw_counts(trials)
    return np.concatenate([counts.astype(np.float64) @ columns / trials for counts in blocks])


def percentiles(mean: float, resampled: np.ndarray) -> Interval:
    """A mean with the interval that 95 % of its resamples lie in."""
    low, high = np.percentile(resampled, (2.5, 97.5))
    return Interval(float(mean), float(low), float(high))


def interval(values: np.ndarray) -> Interval:
    """Mean of `values` [N] with its 95 % bootstrap interval (percentiles, fixed seed)."""
    return percentiles(values.mean(), resampled_means(values[:, None])[:, 0])


def ratio(part: np.ndarray, whole: np.ndarray) -> Interval:
    """Mean of `part` [N] over the mean of `whole` [N], of the same trials; the interval resamples them together.

    NaN where the latter, resampled, is not above 0 throughout: there may be nothing to have a share of.
    """
    both = np.column_stack([part, whole])
    means, resampled = both.mean(axis=0), resampled_means(both)
    if not resampled[:, 1].min() > 0:
        return Interval(np.nan, np.nan, np.nan)
    return percentiles(means[0] / means[1], resampled[:, 0] / resampled[:, 1])


def shown(figure: Mapping[str, float], digits: int) -> str:
    """A figure as text: mean ± the larger half of its interval; "-" where it is no number.

    Where that would take in 0, which a skewed interval does not: mean (low to high).

    Args:
        figure: an `Interval` by field.
        digits: after the point.
    """
    mean, low, high = (figure[part] for part in Interval._fields)
    half = max(high - mean, mean - low)
    if not math.isfinite(half):
        return "-"
    if low * high > 0.0 and half >= abs(mean):
        return f"{mean:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
    return f"{mean:.{digits}f} ± {half:.{digits}f}"
