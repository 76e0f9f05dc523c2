"""What is said of a product before its trial, as a large model might: an embedding and a forecast, both noisy.

How they are drawn and how likely they are of a product stand side by side.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from recgym.arrays import Array, Rng, clip, namespace
from recgym.scenarios.pricing.demand import PricingTask

__all__ = [
    "ELASTICITY_SPREAD",
    "MAX_TRAIT",
    "MEDIAN_ELASTICITY",
    "MIN_SALES",
    "embed",
    "embedding_fit",
    "forecast",
    "forecast_fit",
    "traits",
]

EMBEDDING_SEED = 20_161_124  # of the map from traits to numbers
EMBEDDING_NOISE = 0.5  # standard deviations of what the embedding tells
MAX_TRAIT = 10.0  # of a number of the embedding
# Mean and spread of log elasticity, purchase, lift and gain to an embedding, whatever a scenario draws: one product has
# one embedding. The median is the mean of 1,851 estimates in Bijmolt et al. 2005, p. 141.
MEDIAN_ELASTICITY = 2.62
ELASTICITY_SPREAD = 0.4
TRAITS = ((0.06, 0.023), (0.225, 0.1), (0.6, 0.23))
MIN_SALES = 0.01  # sales units in one decision: no forecast is lower
TILT = 2.0  # of a forecast: error of the elasticity, in units of that of the level
SPECK = 0.5  # and of each candidate
MIN_NOISE = 0.02  # of a forecast that is judged: no other product is exactly the one forecast


def traits(task: PricingTask, width: int) -> Array:
    """[B, E] embedding of E = `width` numbers without its noise: a fixed linear map of what is special in a product."""
    xp = namespace(task.cost)
    special = [xp.log(task.elasticity / MEDIAN_ELASTICITY) / ELASTICITY_SPREAD]
    for value, (mean, spread) in zip((task.purchase, task.lift, task.gain), TRAITS, strict=True):
        special.append((value - mean) / spread)
    maps = np.random.default_rng(EMBEDDING_SEED).standard_normal((len(special), width)) / 2.0
    device = getattr(task.cost, "device", None)
    return xp.stack(special, axis=1) @ xp.asarray(maps.astype(np.float32), device=device)


def embed(task: PricingTask, width: int, rng: Rng) -> Array:
    """[B, E] embedding of each product."""
    told = traits(task, width)
    return clip(told + EMBEDDING_NOISE * rng.normal(tuple(told.shape)), -MAX_TRAIT, MAX_TRAIT)


def embedding_fit(given: Any, told: Any) -> Any:
    """[B, N] log-likelihood of embeddings [B, E] where those without noise are `told` [N, E], up to a constant."""
    return -0.5 * _squares(given, told, np.eye(given.shape[1]) / EMBEDDING_NOISE**2)


def forecast(log_sales: Array, log_paid: Array, noise: float, rng: Rng) -> Array:
    """[B, K] forecast of log sales: wrong in level, in elasticity and at each candidate.

    log_sales + noise (a + TILT b log_paid + SPECK c), with a and b [B, 1] and c [B, K] standard normal.

    Args:
        log_sales: [B, K] the truth.
        log_paid: [K] log of the price paid.
        noise: standard deviation of the level's error.
        rng: of the errors.
    """
    rows = log_sales.shape[0]
    error = rng.normal((rows, 1)) + TILT * rng.normal((rows, 1)) * log_paid + SPECK * rng.normal(tuple(log_sales.shape))
    return log_sales + noise * error


def forecast_fit(given: Any, log_sales: Any, log_paid: Any, noise: float) -> Any:
    """[B, N] log-likelihood of forecasts [B, K] where log sales are `log_sales` [N, K], up to a constant."""
    error = 1.0 + TILT**2 * np.outer(log_paid, log_paid) + SPECK**2 * np.eye(len(log_paid))
    return -0.5 * _squares(given, log_sales, np.linalg.inv(max(noise, MIN_NOISE) ** 2 * error))


def _squares(one: Any, other: Any, precision: Any) -> Any:
    """(x - y)^T P (x - y) [B, N] of rows x [B, F] and y [N, F]."""
    own = [((rows @ precision) * rows).sum(axis=1) for rows in (one, other)]
    return own[0][:, None] - 2.0 * (one @ precision) @ other.T + own[1]
