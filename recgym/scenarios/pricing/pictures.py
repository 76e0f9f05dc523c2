"""What pictures show of a trial of pricing."""

from __future__ import annotations

from typing import Any

from recgym.arrays import Array, namespace
from recgym.panels import Panel, Series
from recgym.scenario import State

__all__ = ["names_of", "panels_of", "trace"]


def panels_of(scenario: Any) -> tuple[Panel, ...]:
    """What `trace` says, less what the parameters leave without a meaning."""
    prices = [Series("paid", "price paid", "step")]
    if scenario.ladder.promoted.any():
        prices.append(Series("list", "list price", "step"))
        prices.append(Series("display", "promotion (darker: louder)", "band"))
    if scenario.gain[1] > 0:
        prices.append(Series("reference", "reference price", "line"))
    if scenario.rivals:
        prices.append(Series("rival", "rival's price", "step"))
    missed = Series("demand", "demand (seen where it exceeds them)", "bars")
    units = Panel("sales (units)", (Series("sales", "sales", "bars"), missed))
    stock = Panel("stock (units)", (Series("stock", "stock", "area"),))
    return (Panel("price (money)", tuple(prices)), units, *(() if scenario.stock is None else (stock,)))


def names_of(scenario: Any) -> tuple[str, ...]:
    """List price and promotion of each candidate."""
    depths = [depth for depth, _ in scenario.promotions]
    names = []
    for depth, display in scenario.promotions:
        alone = depths.count(depth) == 1
        names.append((f" -{100 * depth:.10g}%" if depth else "") + ("" if alone else f" display {display:g}"))
    return tuple(f"{price:.10g}{name}" for price in scenario.prices for name in names)


def trace(scenario: Any, state: State) -> dict[str, Array]:
    """[B] prices in money; demand, sales and stock in units."""
    seen = state.seen
    xp = namespace(seen.reward)
    ladder = scenario.ladder_like(seen.reward)
    money = scenario.base_price
    chosen = seen.kept.chosen
    return {
        "list": money * xp.sum(chosen * ladder.price, axis=1),
        "paid": money * xp.sum(chosen * ladder.paid, axis=1),
        "display": xp.sum(chosen * ladder.display, axis=1),
        "reference": money * seen.offer.reference,
        "rival": money * seen.offer.rival_seen,
        "demand": state.hidden.wanted,
        "sales": seen.kept.sales,
        "stock": seen.kept.stock,
    }
