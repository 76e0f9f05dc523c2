"""What is observed in pricing: the layout of the numbers, and the numbers."""

from __future__ import annotations

import math
from typing import Any

from recgym.arrays import Array, clip, namespace
from recgym.layout import CHOSEN, Field, Layout, clock, clock_fields, log_bound
from recgym.scenario import Seen
from recgym.scenarios.pricing.foresight import MAX_TRAIT
from recgym.scenarios.pricing.products import MAX_NUMBER

__all__ = ["pricing_layout", "pricing_observation"]

MAX_PACE = 1e4  # sales units per decision: more stock than can be sold
ROOM = 1.001  # for rounding


def pricing_layout(scenario: Any) -> Layout:
    """The layout of a `DynamicPricing`."""
    ladder = scenario.ladder
    dearest = max(1.0, float(ladder.paid.max()))
    cheapest = min(1.0, float(ladder.paid.min()))
    pace = ROOM * math.log1p(MAX_PACE)
    context = [
        *clock_fields(scenario.horizon, reward=(-MAX_NUMBER, MAX_NUMBER)),
        Field("last_sales", 0.0, MAX_NUMBER, "units sold in the last decision, in sales units", role="outcome"),
        Field("stock", 0.0, 1.0, "share of the stock that is left", role="market"),
        Field("pace", 0.0, pace, "log(1 + sales units left over decisions left)", role="market"),
        Field(
            "reference", 0.999 * cheapest, ROOM * dearest, "price that customers remember, in base prices", 1, "market"
        ),
        Field("rival", 0.0, MAX_NUMBER, "the rival's last price, in base prices", role="market"),
        Field("season_sin", -1.0, 1.0, "sine of the season's phase", role="market"),
        Field("season_cos", -1.0, 1.0, "cosine of the season's phase", role="market"),
        Field("w_rev", 0.0, MAX_NUMBER, "weight of the profit in the reward", role="preference"),
        Field("w_vol", 0.0, MAX_NUMBER, "weight of the units sold in the reward, in base prices", role="preference"),
    ]
    if scenario.embedding:
        meaning = "what is known of the product before the trial"
        context.append(Field("embedding", -MAX_TRAIT, MAX_TRAIT, meaning, scenario.embedding))
    candidate = [
        Field("price", 0.0, ROOM * float(ladder.price.max()), "list price, in base prices"),
        Field("depth", 0.0, 1.0, "share that the promotion takes off it"),
        Field("display", 0.0, 1.0, "how strongly the promotion is announced"),
        Field("paid", 0.0, ROOM * float(ladder.paid.max()), "price that is left, in base prices"),
        Field("cost", 0.0, MAX_NUMBER, "cost of a unit, in base prices"),
        CHOSEN,
    ]
    if scenario.forecast is not None:
        least, most = (value * ROOM for value in scenario.forecast_range)
        candidate.append(Field("forecast", least, most, "log of the sales units per decision that are predicted"))
    if scenario.statistics:
        average = "moving average of its sales, in sales units; starts at 1"
        exposure = "log(1 + times chosen) / log(1001)"
        candidate += [
            Field("average", 0.0, ROOM * MAX_NUMBER, average, role="statistic"),
            Field("exposure", 0.0, log_bound(scenario.horizon), exposure, role="statistic"),
        ]
    return Layout(tuple(context), tuple(candidate), len(ladder.paid))


def pricing_observation(scenario: Any, seen: Seen) -> Array:
    """The state vector [B, D] of a `DynamicPricing`."""
    xp = namespace(seen.reward)
    offer = seen.offer
    kept = seen.kept
    ladder = scenario.ladder_like(seen.reward)
    context = clock(seen, scenario.horizon)
    context["last_reward"] = clip(seen.reward, -MAX_NUMBER, MAX_NUMBER)
    stock = xp.astype(kept.stock, xp.float32)
    pace = stock / (clip(scenario.horizon - seen.time, 1.0, None) * scenario.sales_unit)
    angle = scenario.angle(offer.phase, seen.time)
    context |= {
        "last_sales": clip(kept.sales / scenario.sales_unit, 0.0, MAX_NUMBER),
        "stock": stock / xp.astype(offer.supply, xp.float32),
        "pace": xp.log(1.0 + clip(pace, 0.0, MAX_PACE)),
        "reference": offer.reference,
        "rival": clip(offer.rival_seen, 0.0, MAX_NUMBER),
        "season_sin": xp.sin(angle),
        "season_cos": xp.cos(angle),
        "w_rev": offer.w_rev,
        "w_vol": offer.w_vol,
        "embedding": offer.embedding,
    }
    candidate = {name: getattr(ladder, name)[None] for name in ("price", "depth", "display", "paid")}
    candidate |= {"cost": offer.cost[:, None], "chosen": kept.chosen, "forecast": offer.forecast}
    candidate |= {"average": kept.average, "exposure": kept.exposure}
    return scenario.layout.join(context, candidate)
