"""Estimators of a policy's click rate from a log of single decisions, each with a 95 % interval."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from recgym.data.bandit import OpenBanditLog
from recgym.evaluation.offpolicy.assumptions import Finding, enough_clicks, inverse

__all__ = ["ESTIMATORS", "Estimate", "counted_propensity", "importance_weights", "off_policy"]

ESTIMATORS = {  # what each assumes
    "ips": "propensities are right; overlap",
    "snips": "propensities are right; overlap",
    "clipped": "propensities are right; overlap",
    "direct": "rates depend on item and position alone; overlap",
    "doubly robust": "propensities or rates are right; overlap",
}
FOLDS = 5  # of the rows, for rates that a row itself has no part in
Z95 = 1.959964


class Estimate(NamedTuple):
    """Clicks per impression that a policy would have got, with a 95 % interval."""

    value: float
    low: float
    high: float
    effective_sample_size: float  # rows; (sum w)^2 / sum w^2
    clicks: int  # with positive weight

    @property
    def enough(self) -> Finding:
        """By the clicks seen or, if fewer, those that as many on-policy rows as the effective sample would hold."""
        return enough_clicks(float(np.min([self.clicks, self.effective_sample_size * self.value])))


def counted_propensity(log: OpenBanditLog) -> np.ndarray:
    """[N] share of the rows at its position that showed the item: propensities of a log whose own are wrong or missing.

    They are right where the logging policy looked at nothing but the position.
    """
    _, place = np.unique(log.position, return_inverse=True)
    counts = np.zeros((place.max() + 1, log.arms))
    np.add.at(counts, (place, log.action), 1.0)
    return np.asarray((counts / counts.sum(axis=1, keepdims=True))[place, log.action])


def importance_weights(log: OpenBanditLog, probabilities: Any, propensity: np.ndarray | None = None) -> np.ndarray:
    """[N] probability of what was shown, by a policy and over that by which it was shown.

    Args:
        log: N rows, K items.
        probabilities: [K] or [N, K] pi(item) in the order of `log.items`; each row sums to 1.
        propensity: [N] in place of the log's own; below `MIN_PROPENSITY` it counts as that.

    Raises:
        ValueError: wrong shape, no distribution, or propensities outside of (0, 1].
    """
    policy, rows = np.asarray(probabilities, np.float64), len(log.action)
    if policy.shape not in ((log.arms,), (rows, log.arms)):
        raise ValueError(f"probabilities have shape {policy.shape}, not ({log.arms},) or ({rows}, {log.arms})")
    if not ((policy >= 0).all() and np.allclose(policy.sum(-1), 1.0, rtol=0, atol=1e-4)):  # 1e-4: a float32 softmax
        raise ValueError("probabilities must be non-negative and sum to 1 over the items")
    given = log.propensity if propensity is None else np.asarray(propensity, np.float64)
    if given.shape != (rows,) or not ((given > 0) & (given <= 1)).all():
        raise ValueError(f"propensities of {log.path} must be {rows} numbers in (0, 1]; see counted_propensity")
    chosen = policy[log.action] if policy.ndim == 1 else policy[np.arange(rows), log.action]
    return np.asarray(chosen * inverse(given))


def off_policy(
    log: OpenBanditLog,
    probabilities: Any,
    *,
    propensity: np.ndarray | None = None,
    clip: float | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Value of a policy on a log of another one, by the names of `ESTIMATORS`.

    With w = pi(a | x) / propensity and q the click rate of an item at a position,

    * ips is mean(w r): unbiased wherever the logging policy gives every choice of pi a positive probability
      (Horvitz & Thompson 1952; Saito et al. 2021, sec. 4);
    * snips is sum(w r) / sum(w): biased by O(1/N), but steadier, and indifferent to the scale of the propensities
      (Swaminathan & Joachims 2015);
    * clipped is mean(min(w, clip) r), too low by at most mean(w) - mean(min(w, clip)), by which its interval is longer
      above (Ionides 2008, whose clip is sqrt(N));
    * direct is the mean of sum_a pi(a | x) q(a), without weights (Beygelzimer & Langford 2009);
    * doubly robust is direct plus mean(w (r - q)), with q of the other rows, in `FOLDS` parts (Dudik et al. 2014;
      Chernozhukov et al. 2018).

    Intervals are percentiles over resampled rows for the first two, which too few clicks make too narrow, and normal
    ones for the others.

    Args:
        log: the log, N rows and K items.
        probabilities: [K] or [N, K] pi(item) in the order of `log.items`; each row sums to 1.
        propensity: [N] in place of the log's own, as of `counted_propensity`; see `importance_weights`.
        clip: the largest weight of "clipped".
        resamples: bootstrap samples.
        seed: of bootstrap and folds.

    Raises:
        ValueError: wrong shape, no distribution, propensities outside of (0, 1], or a policy that never chooses what
            was logged.
    """
    weight = importance_weights(log, probabilities, propensity)  # [N]
    policy, rows, click = np.asarray(probabilities, np.float64), len(log.action), log.click.astype(np.float64)
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}, not at least 1")
    if not weight.any():
        raise ValueError(f"the policy never chooses an item logged in {log.path}: its value cannot be estimated")
    effective = float(weight.sum() ** 2 / (weight**2).sum())
    clicks = int((weight * click > 0).sum())
    report = {}
    for name, (value, low, high) in {
        **_weighted(weight, click, resamples, seed),
        "clipped": _clipped(weight, click, math.sqrt(rows) if clip is None else clip),
    }.items():
        report[name] = Estimate(value, low, high, effective, clicks)
    direct, robust = _modelled(log, policy, weight, click, seed)
    report["direct"] = Estimate(*direct, float(rows), int(click.sum()))
    report["doubly robust"] = Estimate(*robust, effective, clicks)
    return report


def _weighted(weight: np.ndarray, click: np.ndarray, resamples: int, seed: int) -> dict[str, tuple[float, ...]]:
    """IPS and SNIPS. Equal rows are exchangeable: resampling the counts of distinct (w, r) is the same, and cheaper."""
    rows = len(weight)
    groups, counts = np.unique(weight + 1j * click, return_counts=True)
    terms = np.stack([groups.real * groups.imag, groups.real], axis=1)  # [G, 2] w r, w
    rng = np.random.default_rng(seed)
    sums = np.stack([rng.multinomial(rows, counts / rows) @ terms for _ in range(resamples)])  # [resamples, 2]
    sums = np.concatenate([[counts @ terms], sums])  # the sample itself, then the resamples
    weights = np.maximum(sums[:, 1], np.finfo(float).tiny)  # a resample without weight has no clicks either: value 0
    report: dict[str, tuple[float, ...]] = {}
    for key, (value, *samples) in {"ips": sums[:, 0] / rows, "snips": sums[:, 0] / weights}.items():
        low, high = np.quantile(samples, (0.025, 0.975))
        report[key] = (float(value), float(low), float(high))
    return report


def _normal(terms: np.ndarray) -> tuple[float, float, float]:
    """Mean and interval of independent terms [N]; one row has no spread, and tells nothing."""
    rows = len(terms)
    return _within_rates(float(terms.mean()), Z95 * float(terms.std(ddof=1)) / math.sqrt(rows) if rows > 1 else 1.0)


def _within_rates(value: float, half: float) -> tuple[float, float, float]:
    """A value and its interval, which ends where rates do, at 0 and 1, unless the value itself lies beyond."""
    return value, max(value - half, min(value, 0.0)), min(value + half, max(value, 1.0))


def _clipped(weight: np.ndarray, click: np.ndarray, clip: float) -> tuple[float, float, float]:
    kept = np.minimum(weight, clip)
    value, low, high = _normal(kept * click)
    return value, low, min(high + float((weight - kept).mean()), max(high, 1.0))


def _modelled(
    log: OpenBanditLog, policy: np.ndarray, weight: np.ndarray, click: np.ndarray, seed: int
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """The direct method, and the doubly robust one, from click rates by position and item."""
    rows = len(click)
    _, place = np.unique(log.position, return_inverse=True)
    shape = place.max() + 1, log.arms
    mean = click.mean()

    def counts(at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        shown, clicked = np.zeros(shape), np.zeros(shape)
        np.add.at(shown, (place[at], log.action[at]), 1.0)
        np.add.at(clicked, (place[at], log.action[at]), click[at])
        return shown, clicked

    def rates(shown: np.ndarray, clicked: np.ndarray) -> np.ndarray:  # as if each had been shown once more, at the mean
        return np.asarray((clicked + mean) / (shown + 1.0))

    def expected(q: np.ndarray, at: np.ndarray) -> np.ndarray:
        if policy.ndim == 1:
            return np.asarray((q @ policy)[place[at]])
        return np.asarray((q[place[at]] * policy[at]).sum(axis=1))

    if policy.ndim == 1:
        mass = np.bincount(place)[:, None] * policy / rows  # of the policy, by position and item
    else:
        mass = np.stack([policy[place == each].sum(axis=0) / rows for each in range(shape[0])])
    shown, clicked = counts(np.arange(rows))
    q = rates(shown, clicked)
    value = float((mass * q).sum())
    half = Z95 * float(np.sqrt((mass**2 * q * (1.0 - q) / np.maximum(shown, 1.0)).sum()))
    fold = np.random.default_rng(seed).permutation(rows) % FOLDS
    terms = np.empty(rows)
    for part in range(FOLDS):
        at, others = np.flatnonzero(fold == part), np.flatnonzero(fold != part)
        q = rates(*counts(others))
        terms[at] = expected(q, at) + weight[at] * (click[at] - q[place[at], log.action[at]])
    return _within_rates(value, half), _normal(terms)
