"""Bids through the rest of a day: the fluid program over time, whose one price of money makes them spend the budget.

That price is the multiplier of the budget: reward per reference price.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from recgym.scenarios.ads.auctions import auction
from recgym.scenarios.ads.campaign import TINY

__all__ = ["Paced", "multiplier_range", "paced"]

SPAN = 14.0  # of the logarithm of the multiplier, around that of what an impression brings per reference price
HALVINGS = 30


class Paced(NamedTuple):
    """What to bid now: a level on either side of the price of money, and how often the dearer one."""

    cheap: np.ndarray  # [B] int64
    dear: np.ndarray  # [B] int64
    weight: np.ndarray  # [B] of the dear one


def multiplier_range(value: Any) -> tuple[np.ndarray, np.ndarray]:
    """Logarithms [B] of the least and the highest multiplier, where impressions bring `value` [B, n]."""
    middle = np.log(np.maximum(value.max(axis=1), 1e-30)).astype(np.float64)
    return middle - SPAN, middle + SPAN


def paced(scenario: Any, value: Any, log_price: Any, sigma: Any, money: Any, auctions: Any, now: Any) -> Paced:
    """Levels that earn the most per auction at the price of money at which the day's bids cost what is left.

    Args:
        scenario: a Bidding.
        value: [B, T] reward of an impression in each decision of the day.
        log_price: [B] mean logarithm of the highest rival bid, as it is thought to stay.
        sigma: [B] its standard deviation.
        money: [B] left.
        auctions: [B, T] in each decision of the day; what has passed does not count.
        now: [B] int64 the coming decision.
    """
    found = auction(scenario.auction, scenario.log_levels, log_price[:, None], sigma[:, None])
    win, cost = (found.win * scenario.bids)[:, None], found.cost * scenario.bids  # [B, 1, L], [B, L]
    earned, rows = value[:, :, None] * win, np.arange(len(money))
    auctions = np.where(np.arange(auctions.shape[1]) >= now[:, None], auctions, 0.0)
    low, high = multiplier_range(value)

    def chosen(log_multiplier: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Levels [B] of the next decision, and what all cost [B]."""
        level = (earned - np.exp(log_multiplier)[:, None, None] * cost[:, None]).argmax(axis=2)
        spent = (np.take_along_axis(cost, level, axis=1) * auctions).sum(axis=1)
        return level[rows, now], spent

    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        over = chosen(middle)[1] > money
        low, high = np.where(over, middle, low), np.where(over, high, middle)
    (dear, most), (cheap, least) = chosen(low), chosen(high)
    weight = np.where(most > least, np.clip((money - least) / np.maximum(most - least, TINY), 0.0, 1.0), 0.0)
    return Paced(cheap, dear, weight)
