"""Bandit policies for candidates that are new at every decision: what they learn is about features.

Index policies: they ignore `deterministic`. `chosen` refers to the rows of the previous observation, whose features the
memory therefore keeps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from recgym.baselines import Baseline, Family
from recgym.baselines.bandit import EXPERT
from recgym.baselines.policy import Floats, IndexPolicy, Reading
from recgym.baselines.regression import (
    Gaussian,
    Ridge,
    draw,
    laplace,
    linear_scores,
    ridge_start,
    ridge_step,
    ridge_weights,
    spread,
    unwieldy,
)

__all__ = ["FAMILY"]


def _with_one(reading: Reading) -> Floats:
    """Features [B, K, d + 1], the last of them 1: the intercept."""
    assert reading.features is not None
    return np.concatenate([reading.features, np.ones((*reading.features.shape[:2], 1))], axis=2)


def _shown(offered: Floats, reading: Reading) -> Floats:
    """Features [B, d] of what was shown; zero, from which nothing is learned, at the start of a trial."""
    return (reading.chosen[:, None, :] @ offered)[:, 0]


def _sigmoid(logit: Floats) -> Floats:
    return 1.0 / (1.0 + np.exp(-logit))


def ridge(scenario: Any, index: Callable[[Ridge, Reading], Floats]) -> IndexPolicy:
    """Ridge regression of the reward on the features and an intercept."""

    def start(rows: int) -> Ridge:
        return ridge_start(rows, scenario.arms, scenario.width + 1)

    def learn(memory: Ridge, reading: Reading) -> Ridge:
        x = _shown(memory.offered, reading)[:, None]
        return ridge_step(memory, x, reading.reward[:, None], _with_one(reading))

    return IndexPolicy(scenario, start, learn, index)


def linucb(scenario: Any, alpha: float = 0.5) -> IndexPolicy:
    """w . x + alpha sqrt(x^T A^-1 x), w = A^-1 b (Li et al. 2010, algorithm 1, with one model for all candidates)."""

    def index(memory: Ridge, reading: Reading) -> Floats:
        return linear_scores(memory.offered, ridge_weights(memory)) + alpha * spread(memory.offered, memory.inverse)

    return ridge(scenario, index)


def lints(scenario: Any, v: float = 0.3) -> IndexPolicy:
    """w . x with w ~ N(A^-1 b, v^2 A^-1) (Agrawal & Goyal 2013, algorithm 1)."""

    def index(memory: Ridge, reading: Reading) -> Floats:
        mean = ridge_weights(memory)
        return linear_scores(memory.offered, draw(mean, v**2 * memory.inverse, reading.rng) if v > 0 else mean)

    return ridge(scenario, index)


def logistic(scenario: Any, index: Callable[[Gaussian, Reading], Floats]) -> IndexPolicy:
    """Gaussian posterior N(m, S) of theta, which begins at its prior N(0, taste^2 I), under the true base rate.

    One step of `laplace` per click (Chapelle & Li 2011, algorithm 3, with the full covariance).
    """
    width = scenario.width

    def start(rows: int) -> Gaussian:
        covariance = np.broadcast_to(scenario.taste**2 * np.eye(width), (rows, width, width)).copy()
        return Gaussian(np.zeros((rows, scenario.arms, width)), np.zeros((rows, width)), covariance)

    def response(predictor: Floats) -> Floats:
        return _sigmoid(scenario.bias + predictor)

    def learn(memory: Gaussian, reading: Reading) -> Gaussian:
        x = _shown(memory.offered, reading)
        click = reading.reward[:, None]
        after = laplace(memory.mean, memory.covariance, x, click, response, lambda p: p * (1.0 - p), 20)
        assert reading.features is not None
        return Gaussian(reading.features, *after)

    return IndexPolicy(scenario, start, learn, index)


def bayes_logistic(scenario: Any) -> IndexPolicy:
    """Logistic Thompson sampling (Chapelle & Li 2011, section 4)."""

    def index(memory: Gaussian, reading: Reading) -> Floats:
        theta = draw(memory.mean, memory.covariance, reading.rng) if scenario.taste > 0 else memory.mean
        return linear_scores(memory.offered, theta)

    return logistic(scenario, index)


def bayes_ucb_logistic(scenario: Any, bonus: float = 0.5) -> IndexPolicy:
    """m . x + bonus sqrt(x^T S x): a fixed posterior quantile of the logit, Bayes-UCB (Kaufmann et al. 2012)."""

    def index(memory: Gaussian, reading: Reading) -> Floats:
        return linear_scores(memory.offered, memory.mean) + bonus * spread(memory.offered, memory.covariance)

    return logistic(scenario, index)


def too_wide(scenario: Any) -> str:
    """Why a matrix per trial cannot be kept."""
    return unwieldy(scenario.width)


_TABLE = {
    "linucb": Baseline(
        linucb,
        "prior-free",
        "ridge regression with a confidence bonus (LinUCB), alpha tuned",
        {"alpha": (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)},
        {"RecBanditContextual-v0": {"alpha": 0.3}},
    ),
    "lints": Baseline(
        lints,
        "prior-free",
        "Thompson sampling with ridge regression (LinTS), v tuned",
        {"v": (0.01, 0.03, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5)},
        {"RecBanditContextual-v0": {"v": 0.03}},
    ),
    "bayes_logistic": Baseline(
        bayes_logistic, "prior-aware", "Thompson sampling with logistic regression, true prior and base rate"
    ),
    "bayes_ucb_logistic": Baseline(
        bayes_ucb_logistic,
        "prior-aware",
        "logistic regression with a confidence bonus, true prior and base rate, bonus tuned",
        {"bonus": (0.1, 0.2, 0.35, 0.5, 0.7, 1.0)},
        {"RecBanditContextual-v0": {"bonus": 0.35}},
    ),
}

FAMILY = Family(
    page="Recommendation by features",
    baselines={
        "expert": EXPERT,
        **{name: baseline._replace(unfit=too_wide) for name, baseline in _TABLE.items()},
    },
    shown=("linucb",),
    expert="bayes_ucb_logistic",
)
