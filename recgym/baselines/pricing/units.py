"""What a pricing policy sees, in units."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from recgym.baselines.policy import Floats, Reading

__all__ = ["Units", "embedding_of", "units_of"]


class Units(NamedTuple):
    """An observation in units."""

    margin: Floats  # [B, K] reward per unit sold, in base prices
    sold: Floats  # [B] units in the last decision
    stock: Floats  # [B] units left
    supply: Floats  # [B] units left per decision left
    open: Any  # [B] bool, whether the last sales were demand: there was a decision, and stock is left


def units_of(scenario: Any, reading: Reading) -> Units:
    paid = scenario.ladder.paid.astype(np.float64)
    margin = reading.field("w_rev")[:, None] * (paid - reading.field("cost")) + reading.field("w_vol")[:, None]
    supply = np.expm1(reading.field("pace")) * scenario.sales_unit
    stock = supply * np.maximum(reading.remaining, 1.0)
    demanded = reading.chosen.any(axis=1) & (stock > 0.5)
    return Units(margin, reading.field("last_sales") * scenario.sales_unit, stock, supply, demanded)


def embedding_of(scenario: Any, reading: Reading) -> Floats:
    """[B, E] the embedding, where there is one."""
    return reading.field("embedding").reshape(len(reading.chosen), -1) if scenario.embedding else reading.chosen[:, :0]
