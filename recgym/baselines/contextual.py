"""Bandit policies for candidates that are new at every decision: what they learn is about features.

Index policies: they ignore `deterministic`. `chosen` refers to the rows of the previous observation, whose features the
memory therefore keeps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from recgym.baselines import Baseline, Family
from recgym.baselines.bandit import EXPERT
from recgym.baselines.policy import Floats, IndexPolicy, Reading
from recgym.baselines.regression import draw, laplace

__all__ = ["FAMILY"]

MAX_FEATURES = 250  # two gigabytes for a chunk of trials


class Ridge(NamedTuple):
    offered: Floats  # [B, K, d] features of the previous observation
    inverse: Floats  # [B, d, d] of I + sum x x^T
    moment: Floats  # [B, d] sum reward x


def _with_one(reading: Reading) -> Floats:
    """Features [B, K, d + 1], the last of them 1: the intercept."""
    assert reading.features is not None
    return np.concatenate([reading.features, np.ones((*reading.features.shape[:2], 1))], axis=2)


def _width(x: Floats, covariance: Floats) -> Floats:
    """sqrt(x^T C x) [B, K] of rows x [B, K, d]."""
    return np.sqrt(np.maximum(((x @ covariance) * x).sum(axis=2), 0.0))


def _scores(x: Floats, weights: Floats) -> Floats:
    """x . w [B, K]."""
    return (x @ weights[..., None])[..., 0]


def _shown(offered: Floats, reading: Reading) -> Floats:
    """Features [B, d] of what was shown; zero, from which nothing is learned, at the start of a trial."""
    return (reading.chosen[:, None, :] @ offered)[:, 0]


def _sigmoid(logit: Floats) -> Floats:
    return 1.0 / (1.0 + np.exp(-logit))


def ridge(scenario: Any, index: Callable[[Ridge, Reading], Floats]) -> IndexPolicy:
    """Ridge regression of the reward on the features and an intercept; the inverse as Sherman & Morrison (1950)."""
    width = scenario.width + 1

    def start(rows: int) -> Ridge:
        inverse = np.broadcast_to(np.eye(width), (rows, width, width)).copy()
        return Ridge(np.zeros((rows, scenario.arms, width)), inverse, np.zeros((rows, width)))

    def learn(memory: Ridge, reading: Reading) -> Ridge:
        x = _shown(memory.offered, reading)
        moved = (memory.inverse @ x[..., None])[..., 0]
        shrink = moved / (1.0 + (x * moved).sum(axis=1, keepdims=True))
        inverse = memory.inverse - moved[:, :, None] * shrink[:, None, :]
        return Ridge(_with_one(reading), inverse, memory.moment + reading.reward[:, None] * x)

    return IndexPolicy(scenario, start, learn, index)


def linucb(scenario: Any, alpha: float = 0.5) -> IndexPolicy:
    """w . x + alpha sqrt(x^T A^-1 x), w = A^-1 b (Li et al. 2010, algorithm 1, with one model for all candidates)."""

    def index(memory: Ridge, reading: Reading) -> Floats:
        x = memory.offered
        weights = (memory.inverse @ memory.moment[..., None])[..., 0]
        return _scores(x, weights) + alpha * _width(x, memory.inverse)

    return ridge(scenario, index)


def lints(scenario: Any, v: float = 0.3) -> IndexPolicy:
    """w . x with w ~ N(A^-1 b, v^2 A^-1) (Agrawal & Goyal 2013, algorithm 1)."""

    def index(memory: Ridge, reading: Reading) -> Floats:
        mean = (memory.inverse @ memory.moment[..., None])[..., 0]
        return _scores(memory.offered, draw(mean, v**2 * memory.inverse, reading.rng) if v > 0 else mean)

    return ridge(scenario, index)


class Gaussian(NamedTuple):
    offered: Floats  # [B, K, d]
    mean: Floats  # [B, d]
    covariance: Floats  # [B, d, d]


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
        return _scores(memory.offered, theta)

    return logistic(scenario, index)


def bayes_ucb_logistic(scenario: Any, bonus: float = 0.5) -> IndexPolicy:
    """m . x + bonus sqrt(x^T S x): a fixed posterior quantile of the logit, Bayes-UCB (Kaufmann et al. 2012)."""

    def index(memory: Gaussian, reading: Reading) -> Floats:
        return _scores(memory.offered, memory.mean) + bonus * _width(memory.offered, memory.covariance)

    return logistic(scenario, index)


def too_wide(scenario: Any) -> str:
    """Why a matrix per trial cannot be kept."""
    if scenario.width <= MAX_FEATURES:
        return ""
    return f"it keeps a matrix of {scenario.width} x {scenario.width} per trial; the widest is {MAX_FEATURES}"


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
