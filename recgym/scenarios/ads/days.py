"""Days of bidding: what a task is, within what limits, and how tasks are drawn."""

from __future__ import annotations

from typing import Any, NamedTuple

import gymnasium
import numpy as np

from recgym.arrays import Array, Rng, clip
from recgym.scenarios.ads.campaign import between
from recgym.scenarios.ads.campaigns import CAMPAIGNS
from recgym.scenarios.ads.creatives import MIN_CLICK_LOGIT, draw_embedding, draw_logits, draw_rates

__all__ = ["BLOCK", "BiddingTask", "day_space", "sample_days", "usual_traffic"]

BLOCK = 4  # decisions of one factor of the traffic
# Logarithm of a day's traffic by hour, a stand-in for AuctionNet's shape, twelve times as much at its peak as at night.
DAILY, TWICE = (1.05, 20.5), (0.35, 12.0)  # amplitude and hour of the two waves
MAX_TRAFFIC = 1e6
LIMITS = {
    "sigma": (1e-3, 10.0),
    "level_price": (-10.0, 10.0),
    "phase": (0.0, 1.0),
    "reaction": (0.0, 10.0),
}


class BiddingTask(NamedTuple):
    """A campaign's day."""

    base: Array  # [B] base logit
    embedding: Array  # [B, K, d]
    logit: Array  # [B, K, S] of a click
    rate: Array  # [B, K] conversions per click
    sigma: Array  # [B] standard deviation of the logarithm of the highest rival bid
    level_price: Array  # [B] its mean over the day, in reference prices
    phase: Array  # [B] of the wave of prices over the day
    traffic: Array  # [B, T / 4] factors of the opportunities
    reaction: Array  # [B] by which rivals raise their bids where they lose
    budget: Array  # [B] reference prices
    goal: Array  # [B] reference prices per conversion that are wanted
    preference: Array  # [B, P] weights that are drawn


def usual_traffic(horizon: int) -> np.ndarray:
    """[T + 1] float32 traffic of each of `horizon` decisions of a day, 1 on average; 0 after the last."""
    hour = (np.arange(horizon) + 0.5) / horizon * 24.0
    waves = ((DAILY, 1), (TWICE, 2))
    shape = np.exp(sum(a * np.cos(n * 2.0 * np.pi * (hour - at) / 24.0) for (a, at), n in waves))
    return np.append(shape / shape.mean(), 0.0).astype(np.float32)


def sample_days(scenario: Any, rng: Rng, batch: int) -> BiddingTask:
    """Draw days [batch, ...] as the parameters of a `Bidding` say; the order of the draws is part of it."""
    xp = rng.xp
    base = scenario.draw_base(rng, batch)
    luck = rng.uniform((batch, 6))
    embedding = draw_embedding(scenario, rng, batch)
    logits = draw_logits(scenario, base, embedding, rng)
    rate = draw_rates(scenario, rng, batch)
    spread = (CAMPAIGNS[scenario.campaign].spread,) * 2 if scenario.campaign is not None else scenario.price_spread
    blocks = -(-scenario.horizon // BLOCK)
    traffic = xp.exp(scenario.traffic * rng.normal((batch, blocks)) - 0.5 * scenario.traffic**2)
    level = scenario.price_level * rng.normal((batch,))
    reacts = xp.astype(luck[:, 4] < 0.5, xp.float32)
    return BiddingTask(
        base=base,
        embedding=embedding,
        logit=logits.now,
        rate=rate,
        sigma=between(spread, luck[:, 0]),
        level_price=clip(level, *LIMITS["level_price"]),
        phase=luck[:, 1],
        traffic=clip(traffic, None, MAX_TRAFFIC),
        reaction=between(scenario.reaction, luck[:, 5]) * reacts,
        budget=between(scenario.budget, luck[:, 2]) * scenario.base_wins(base) * scenario.horizon,
        goal=between(scenario.goal, luck[:, 3]) * xp.exp(-base) / scenario.conversion_rate,
        preference=scenario.draw_preference(rng, batch),
    )


def day_space(scenario: Any) -> gymnasium.spaces.Dict:
    """What a task of a `Bidding` may be."""
    boxes = dict(scenario.public_boxes)
    boxes |= {name: scenario.box(*limits) for name, limits in LIMITS.items()}
    boxes["logit"] = scenario.box(MIN_CLICK_LOGIT, 0.0, scenario.creatives, scenario.slots)
    boxes["rate"] = scenario.box(0.0, 1.0, scenario.creatives)
    boxes["traffic"] = scenario.box(0.0, MAX_TRAFFIC, -(-scenario.horizon // BLOCK))
    return gymnasium.spaces.Dict(boxes)
