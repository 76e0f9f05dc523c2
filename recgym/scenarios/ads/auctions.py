"""Auctions for impressions: how often a bid wins, and what it pays, where the highest rival bid is lognormal.

Sources: Vickrey 1961 (second price); the closed forms are partial moments of the lognormal distribution.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from recgym.arrays import Array, clip, namespace

__all__ = ["AUCTIONS", "MIN_CHANCE", "Auction", "auction", "normal_cdf", "per_win"]

AUCTIONS = ("second", "first")
MIN_CHANCE = 1e-12  # of winning: what is divided by
MAX_EXPONENT = 87.0  # float32 holds e^88; beyond, the chance that it is times has long been 0
SURE = 1e-5  # of the square of a mean: a variance below it is rounding


class Auction(NamedTuple):
    """Of one opportunity; shapes are those of bids and prices together."""

    win: Array  # probability to win
    cost: Array  # mean payment; 0 where it is lost
    square: Array  # mean of its square


def normal_cdf(x: Array) -> Array:
    """Phi(x), elementwise."""
    from scipy import special

    if isinstance(x, np.ndarray):
        return special.ndtr(x)
    return 0.5 * namespace(x).erfc(x * -math.sqrt(0.5))  # torch's own ends at -5.5 in float32


def auction(kind: str, log_bid: Array, mean: Array, spread: Array) -> Auction:
    """What a bid wins and pays where the logarithm of the highest rival bid is N(mean, spread^2).

    With q = (log bid - mean) / spread it wins with probability Phi(q). At the second price it pays the rival's bid:
    E[cost] = exp(mean + spread^2 / 2) Phi(q - spread), E[cost^2] = exp(2 mean + 2 spread^2) Phi(q - 2 spread). At the
    first price it pays itself.

    Args:
        kind: one of `AUCTIONS`; whatever is not "first" is at the second price.
        log_bid: logarithm of the bid, in the money of the rival's.
        mean: of the logarithm of the highest rival bid.
        spread: its standard deviation.

    Returns:
        Of one opportunity, in the shape that the three arrays have together.
    """
    xp = namespace(mean)
    q = (log_bid - mean) / spread
    win = normal_cdf(q)
    if kind == "first":
        bid = xp.exp(log_bid)
        return Auction(win, bid * win, bid * bid * win)
    first = clip(mean + 0.5 * spread * spread, None, MAX_EXPONENT)
    second = clip(2.0 * (mean + spread * spread), None, MAX_EXPONENT)
    cost = xp.exp(first) * normal_cdf(q - spread)
    return Auction(win, cost, xp.exp(second) * normal_cdf(q - 2.0 * spread))


def per_win(found: Auction) -> tuple[Array, Array]:
    """Mean and variance of what a win pays."""
    chance = clip(found.win, MIN_CHANCE, None)
    mean = found.cost / chance
    variance = found.square / chance - mean * mean
    return mean, namespace(mean).where(variance > SURE * mean * mean, variance, 0.0 * variance)
