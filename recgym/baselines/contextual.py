"""Bandit policies for candidates that are new at every decision: what they learn is about features.

Index policies: they ignore `deterministic`. `chosen` refers to the rows of the previous observation, whose features the
memory therefore keeps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from recgym.baselines import Baseline
from recgym.baselines.bandit import EXPERT, Floats, IndexPolicy, Seen

__all__ = ["BASELINES"]


class Ridge(NamedTuple):
    offered: Floats  # [B, K, d] features of the previous observation
    inverse: Floats  # [B, d, d] of I + sum x x^T
    moment: Floats  # [B, d] sum reward x


def _with_one(seen: Seen) -> Floats:
    """Features [B, K, d + 1], the last of them 1: the intercept."""
    assert seen.features is not None
    return np.concatenate([seen.features, np.ones((*seen.features.shape[:2], 1))], axis=2)


def _width(x: Floats, covariance: Floats) -> Floats:
    """sqrt(x^T C x) [B, K] of rows x [B, K, d]."""
    return np.sqrt(np.maximum(((x @ covariance) * x).sum(axis=2), 0.0))


def _draw(mean: Floats, covariance: Floats, rng: np.random.Generator) -> Floats:
    """One draw [B, d] from each N(mean, covariance)."""
    root = np.linalg.cholesky(covariance)
    return mean + (root @ rng.standard_normal((*mean.shape, 1)))[..., 0]


def _scores(x: Floats, weights: Floats) -> Floats:
    """x . w [B, K]."""
    return (x @ weights[..., None])[..., 0]


def _shown(offered: Floats, seen: Seen) -> Floats:
    """Features [B, d] of what was shown; zero, from which nothing is learned, at the start of a trial."""
    return (seen.chosen[:, None, :] @ offered)[:, 0]


def ridge(scenario: Any, index: Callable[[Ridge, Seen], Floats]) -> IndexPolicy:
    """Ridge regression of the reward on the features and an intercept; the inverse as Sherman & Morrison (1950)."""
    width = scenario.width + 1

    def start(rows: int) -> Ridge:
        inverse = np.broadcast_to(np.eye(width), (rows, width, width)).copy()
        return Ridge(np.zeros((rows, scenario.arms, width)), inverse, np.zeros((rows, width)))

    def learn(memory: Ridge, seen: Seen) -> Ridge:
        x = _shown(memory.offered, seen)
        moved = (memory.inverse @ x[..., None])[..., 0]
        shrink = moved / (1.0 + (x * moved).sum(axis=1, keepdims=True))
        inverse = memory.inverse - moved[:, :, None] * shrink[:, None, :]
        return Ridge(_with_one(seen), inverse, memory.moment + seen.reward[:, None] * x)

    return IndexPolicy(scenario, start, learn, index)


def linucb(scenario: Any, alpha: float = 0.5) -> IndexPolicy:
    """w . x + alpha sqrt(x^T A^-1 x), w = A^-1 b (Li et al. 2010, algorithm 1, with one model for all candidates)."""

    def index(memory: Ridge, seen: Seen) -> Floats:
        x = memory.offered
        weights = (memory.inverse @ memory.moment[..., None])[..., 0]
        return _scores(x, weights) + alpha * _width(x, memory.inverse)

    return ridge(scenario, index)


def lints(scenario: Any, v: float = 0.3) -> IndexPolicy:
    """w . x with w ~ N(A^-1 b, v^2 A^-1) (Agrawal & Goyal 2013, algorithm 1)."""

    def index(memory: Ridge, seen: Seen) -> Floats:
        mean = (memory.inverse @ memory.moment[..., None])[..., 0]
        return _scores(memory.offered, _draw(mean, v**2 * memory.inverse, seen.rng) if v > 0 else mean)

    return ridge(scenario, index)


class Gaussian(NamedTuple):
    offered: Floats  # [B, K, d]
    mean: Floats  # [B, d]
    covariance: Floats  # [B, d, d]


def bayes_logistic(scenario: Any, scale: float = 1.0) -> IndexPolicy:
    """Thompson sampling with a Gaussian posterior N(m, S) of theta, which begins at its prior N(0, taste^2 I).

    One step of the extended Kalman filter per click: with p = sigmoid(bias + m . x), s = p (1 - p) and the gain
    k = S x / (1 + s x^T S x): m += k (click - p), S -= s k (S x)^T (Spiegelhalter & Lauritzen 1990, section 5).
    """
    width = scenario.width

    def start(rows: int) -> Gaussian:
        covariance = np.broadcast_to(scenario.taste**2 * np.eye(width), (rows, width, width)).copy()
        return Gaussian(np.zeros((rows, scenario.arms, width)), np.zeros((rows, width)), covariance)

    def learn(memory: Gaussian, seen: Seen) -> Gaussian:
        x = _shown(memory.offered, seen)
        moved = (memory.covariance @ x[..., None])[..., 0]  # S x; zero where x is
        p = 1.0 / (1.0 + np.exp(-scenario.bias - (memory.mean * x).sum(axis=1, keepdims=True)))
        s = p * (1.0 - p)
        gain = moved / (1.0 + s * (x * moved).sum(axis=1, keepdims=True))
        covariance = memory.covariance - (s * gain)[:, :, None] * moved[:, None, :]
        assert seen.features is not None
        return Gaussian(seen.features, memory.mean + gain * (seen.reward[:, None] - p), covariance)

    def index(memory: Gaussian, seen: Seen) -> Floats:
        wide = scale * scenario.taste > 0
        theta = _draw(memory.mean, scale**2 * memory.covariance, seen.rng) if wide else memory.mean
        return _scores(memory.offered, theta)

    return IndexPolicy(scenario, start, learn, index)


BASELINES: dict[str, dict[str, Baseline]] = {
    "ContextualBandit": {
        "expert": EXPERT,
        "linucb": Baseline(
            linucb,
            "prior-free",
            "ridge regression with a confidence bonus (LinUCB), alpha tuned",
            {"alpha": (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)},
        ),
        "lints": Baseline(
            lints,
            "prior-free",
            "Thompson sampling with ridge regression (LinTS), v tuned",
            {"v": (0.0, 0.03, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5)},
        ),
        "bayes_logistic": Baseline(
            bayes_logistic, "prior-aware", "Thompson sampling with logistic regression, true prior and base rate"
        ),
    }
}
