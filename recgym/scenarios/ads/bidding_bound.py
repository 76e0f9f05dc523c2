"""What any policy can earn at most in a day of bidding: money gets a price, and every auction is bought for itself.

Source: Balseiro & Gur 2019 (the Lagrangian of a budget in repeated auctions).

Why it is a bound. Whoever plays the relaxed problem knows the path of prices, of which one is drawn for each trial, so
that the bound holds on average. For every price of money l >= 0,

    E[return] <= l budget + sum_t E[auctions_t] max(v_t W_t(b) - l C_t(b)),

the maximum over creatives and all bids b from 0 to the highest level, W the chance to win and C the mean payment.
At the second price the best bid is v / l, whatever the market, so that it is in closed form; at the first price levels
are tried one by one, and so they are at the second where rivals do not react. Rivals who react only make prices higher:
a higher price wins less often and pays more, which is worth no more than a lower bid would be, and that is among those
tried where bids are continuous. At the first price it is not, and the market is the one that never reacts, in which
each level wins more for the same payment per win.
What the money does not cover is cut, and the noise of its payment adds what `placement_bound` says.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from recgym.arrays import to_numpy, tree_map
from recgym.scenarios.ads.auctions import auction, per_win
from recgym.scenarios.ads.campaign import TINY
from recgym.scenarios.ads.pacing import multiplier_range

__all__ = ["bound_of_bidding"]

CHUNK = 1024  # trials at a time
GOLDEN = (5.0**0.5 - 1.0) / 2.0
STEPS = 40  # of the search
SEED = 20_261_201
TAIL = 2.0  # decisions that the money may not cover
ROUNDING = 1e-5  # share that float32 may lose in sums over a trial


def bound_of_bidding(scenario: Any, state: Any) -> np.ndarray:
    """[B] float64 bound on the expected value of any policy from the first decision of a trial on, NumPy.

    Args:
        scenario: a Bidding.
        state: at the start of a trial.
    """
    state, rng = tree_map(to_numpy, state), np.random.default_rng(SEED)
    parts = []
    for start in range(0, len(state.task.base), CHUNK):
        part = tree_map(lambda leaf, start=start: leaf[start : start + CHUNK], state)
        parts.append(_chunk(scenario, part, rng))
    return np.concatenate(parts)


def _chunk(scenario: Any, state: Any, rng: np.random.Generator) -> np.ndarray:
    task, hidden, _ = state
    rows, horizon = len(task.base), scenario.horizon
    steps = scenario.price_walk * rng.standard_normal((rows, horizon))
    steps[:, 0] = hidden.walk
    wave = np.stack([scenario.wave(task.phase, np.full(rows, t, dtype=np.float32)) for t in range(horizon)], axis=1)
    log_price = task.level_price[:, None] + wave + np.cumsum(steps, axis=1)
    value, auctions = scenario.values_of_the_day(task)
    value, budget = value.max(axis=1).astype(np.float64), task.budget.astype(np.float64)
    sigma = task.sigma[:, None]
    reacts = bool(task.reaction.max() > 0.0)
    by_level = auction(scenario.auction, scenario.log_levels, log_price[:, :, None], sigma[:, :, None])
    top = scenario.log_levels[-1]

    def earned(multiplier: np.ndarray) -> np.ndarray:  # [B, n] per auction
        if scenario.auction == "second" and reacts:
            bid = np.minimum(np.log(np.maximum(value / multiplier[:, None], 1e-30)), top)
            found = auction("second", bid, log_price, sigma)
            return np.maximum(value * found.win - multiplier[:, None] * found.cost, 0.0)
        gain = (value[:, :, None] * by_level.win - multiplier[:, None, None] * by_level.cost) * scenario.bids
        return np.maximum(gain.max(axis=2), 0.0)

    def bound(multiplier: np.ndarray) -> np.ndarray:
        return multiplier * budget + (auctions * earned(multiplier)).sum(axis=1)

    low, high = multiplier_range(value)
    for _ in range(STEPS):
        left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        lower = bound(np.exp(left)) < bound(np.exp(right))
        low, high = np.where(lower, low, left), np.where(lower, right, high)
    multiplier = np.exp(0.5 * (low + high))
    best = np.minimum(bound(multiplier), bound(np.exp(multiplier_range(value)[0])))
    wins = auctions * by_level.win[:, :, -1]
    price, variance = per_win(auction(scenario.auction, top, log_price, sigma))
    noise = np.sqrt(variance * np.maximum(wins, TINY)) / np.maximum(price * wins, TINY)
    most = (value * wins).max(axis=1) + multiplier * (price * wins).max(axis=1)
    return (best + TAIL * np.minimum(noise.max(axis=1), 1.0) * most) * (1.0 + ROUNDING)
