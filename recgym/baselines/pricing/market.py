"""What a pricing policy sees, in units, and how it acts on a demand that it believes in."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from recgym import fluid
from recgym.baselines.policy import Floats, Seen

__all__ = ["Market", "known_of", "market", "mixed", "one_hot"]


class Market(NamedTuple):
    """An observation in units."""

    margin: Floats  # [B, K] reward per unit sold, in base prices
    sold: Floats  # [B] units in the last decision
    stock: Floats  # [B] units left
    supply: Floats  # [B] units left per decision left
    open: Any  # [B] bool, whether the last sales were demand: there was a decision, and stock is left


def market(scenario: Any, seen: Seen) -> Market:
    paid = scenario.ladder.paid.astype(np.float64)
    margin = seen.field("w_rev")[:, None] * (paid - seen.field("cost")) + seen.field("w_vol")[:, None]
    supply = np.expm1(seen.field("pace")) * scenario.sales_unit
    stock = supply * np.maximum(seen.remaining, 1.0)
    demanded = seen.chosen.any(axis=1) & (stock > 0.5)
    return Market(margin, seen.field("last_sales") * scenario.sales_unit, stock, supply, demanded)


def mixed(margin: Floats, demand: Floats, supply: Floats, seen: Seen) -> Floats:
    """Scores [B, K] of an action drawn from the fluid program's mix."""
    mix = fluid.solve(margin * demand, demand, supply)
    second = seen.rng.random(len(margin)) < mix.weight
    return one_hot(fluid.action_of(mix, second, margin * demand), margin.shape[1])


def one_hot(action: np.ndarray, count: int) -> Floats:
    scores = np.zeros((len(action), count))
    scores[np.arange(len(action)), action] = 1.0
    return scores


def known_of(scenario: Any, seen: Seen) -> Floats:
    """[B, E] the embedding, where there is one."""
    return seen.field("embedding").reshape(len(seen.chosen), -1) if scenario.embedding else seen.chosen[:, :0]
