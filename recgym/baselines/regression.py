"""Bayesian regression in closed form, as several families of baselines use it: a draw, and Laplace's step."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from recgym.baselines.policy import Floats

__all__ = ["draw", "laplace"]


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
