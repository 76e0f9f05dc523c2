"""Bayesian regression in closed form, as several families of baselines use it: ridge, a draw, and Laplace's step."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from recgym.baselines.policy import Floats

__all__ = [
    "Gaussian",
    "Ridge",
    "draw",
    "laplace",
    "linear_scores",
    "ridge_start",
    "ridge_step",
    "ridge_weights",
    "spread",
    "unwieldy",
]

MAX_WIDTH = 250  # two gigabytes for a chunk of trials


class Ridge(NamedTuple):
    """Ridge regression, one per trial."""

    offered: Floats  # [B, K, F] features of the previous observation
    inverse: Floats  # [B, F, F] of I + sum x x^T
    moment: Floats  # [B, F] sum outcome x


class Gaussian(NamedTuple):
    """Belief about the weights of a regression, one per trial."""

    offered: Floats  # [B, K, F] features of the previous observation
    mean: Floats  # [B, F]
    covariance: Floats  # [B, F, F]


def ridge_start(rows: int, candidates: int, width: int) -> Ridge:
    """Of `rows` trials in which nothing was shown yet."""
    inverse = np.broadcast_to(np.eye(width), (rows, width, width)).copy()
    return Ridge(np.zeros((rows, candidates, width)), inverse, np.zeros((rows, width)))


def ridge_step(memory: Ridge, x: Floats, outcome: Floats, offered: Floats) -> Ridge:
    """After outcomes [B, k] of rows x [B, k, F], by Woodbury (1950); where x is 0 nothing changes.

    Args:
        memory: before.
        x: what was shown.
        outcome: of it.
        offered: [B, K, F] features on offer now.
    """
    moved = x @ memory.inverse
    inner = np.eye(x.shape[1]) + moved @ x.transpose(0, 2, 1)
    inverse = memory.inverse - moved.transpose(0, 2, 1) @ np.linalg.solve(inner, moved)
    return Ridge(offered, inverse, memory.moment + (outcome[:, None, :] @ x)[:, 0])


def ridge_weights(memory: Ridge) -> Floats:
    """[B, F] of the regression."""
    return (memory.inverse @ memory.moment[..., None])[..., 0]


def linear_scores(x: Floats, weights: Floats) -> Floats:
    """x . w [B, K] of rows x [B, K, F] and weights [B, F]."""
    return (x @ weights[..., None])[..., 0]


def spread(x: Floats, covariance: Floats) -> Floats:
    """sqrt(x^T C x) [B, K] of rows x [B, K, F] and covariances [B, F, F]."""
    return np.sqrt(np.maximum(((x @ covariance) * x).sum(axis=2), 0.0))


def draw(mean: Floats, covariance: Floats, rng: np.random.Generator) -> Floats:
    """One draw [B, d] from each N(mean, covariance)."""
    root = np.linalg.cholesky(covariance)
    return mean + (root @ rng.standard_normal((*mean.shape, 1)))[..., 0]


def laplace(
    mean: Floats,
    covariance: Floats,
    x: Floats,
    outcome: Floats,
    response: Callable[[Floats], Floats],
    slope: Callable[[Floats], Floats],
    halvings: int,
) -> tuple[Floats, Floats]:
    """Posterior N(m, S) after one outcome of a generalised linear model with canonical link, by Laplace's method.

    The mode lies on the line m + g S x, where g = outcome - response(m . x + g x^T S x); the curvature there, s, gives
    S -= s / (1 + s x^T S x) S x (S x)^T. Where x is 0 nothing changes.

    Args:
        mean: m [B, F].
        covariance: S [B, F, F].
        x: [B, F].
        outcome: [B, 1].
        response: mean outcome of a linear predictor [B, 1]; it rises and is not below 0.
        slope: s of a mean outcome [B, 1].
        halvings: of the interval that holds g, from 0 to outcome - response(m . x).
    """
    moved = (covariance @ x[..., None])[..., 0]  # S x
    before, variance = (mean * x).sum(axis=1, keepdims=True), (x * moved).sum(axis=1, keepdims=True)
    most = outcome - response(before)
    low, high = np.minimum(most, 0.0), np.maximum(most, 0.0)
    for _ in range(halvings):
        middle = 0.5 * (low + high)
        above = middle + response(before + variance * middle) > outcome
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    s = slope(response(before + variance * middle))
    shrunk = covariance - (s / (1.0 + s * variance) * moved)[:, :, None] * moved[:, None, :]
    return mean + middle * moved, shrunk


def unwieldy(width: int) -> str:
    """Why a matrix of `width` x `width` per trial cannot be kept; "" where it can."""
    if width <= MAX_WIDTH:
        return ""
    return f"it keeps a matrix of {width} x {width} per trial; the widest is {MAX_WIDTH}"
