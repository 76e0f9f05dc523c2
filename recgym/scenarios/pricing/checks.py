"""Checks of pricing's parameters that relate several of them, or are of lists; the others stand with the parameters."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from recgym.parameters import numbers, refuse
from recgym.scenarios.pricing.demand import FAMILIES, RIVALS
from recgym.scenarios.pricing.products import TASK_LIMITS, UNLIMITED

__all__ = ["check_elasticity", "check_kinds", "check_ladder", "check_stock", "warn_of_losses"]

MAX_CANDIDATES = 10_000
MAX_DEPTH = 0.999  # of a promotion
MIN_SHARE = 1e-6  # of the unconstrained optimum's sales, as stock
MAX_SHARE = 1e6
MAX_SPREAD = 10.0  # sd of the log of the elasticity


def check_ladder(scenario: Any) -> None:
    """Refuse prices and promotions that make no ladder."""
    prices = numbers(scenario.prices)
    promotions = numbers(scenario.promotions)
    usual = prices / scenario.base_price
    if prices.ndim != 1 or prices.size == 0 or not np.all((usual >= 1e-3) & (usual <= 1e3)):
        refuse(scenario, "prices", "a list of prices from .001 to 1,000 base prices")
    wanted = "a list of [depth, display] with a depth from 0 to below 1 and a display from 0 to 1"
    shaped = promotions.ndim == 2 and promotions.shape[1:] == (2,) and promotions.size > 0
    if not shaped or not np.all((promotions >= 0) & (promotions <= (MAX_DEPTH, 1.0))):
        refuse(scenario, "promotions", wanted)
    if scenario.choke and len(prices) < 2:
        raise ValueError(f"DynamicPricing: choke needs another price to sell at, got prices {scenario.prices!r}")
    if len(prices) * len(promotions) > MAX_CANDIDATES:
        counts = f"{len(prices)} x {len(promotions)}"
        what = f"prices and promotions must make at most {MAX_CANDIDATES:,} candidates, got {counts}"
        raise ValueError(f"DynamicPricing: {what}")
    object.__setattr__(scenario, "prices", tuple(prices.tolist()))
    object.__setattr__(scenario, "promotions", tuple(map(tuple, promotions.tolist())))


def check_kinds(scenario: Any) -> None:
    """Refuse families and rivals that do not exist, and a table that does not go with them."""
    for name, known in (("families", FAMILIES), ("rivals", RIVALS)):
        value = getattr(scenario, name)
        kinds = tuple(value) if isinstance(value, list | tuple) else (value,)
        wrong = [kind for kind in kinds if kind not in known]
        if wrong or len(set(kinds)) < len(kinds) or (name == "families" and not kinds):
            refuse(scenario, name, f"some of {', '.join(known)}")
        object.__setattr__(scenario, name, kinds)
    if "table" in scenario.families and len(scenario.families) > 1:
        refuse(scenario, "families", "'table' alone or without it")
    if scenario.table is not None:
        table = numbers(scenario.table)
        candidates = len(scenario.prices) * len(scenario.promotions)
        if scenario.families != ("table",) or table.shape != (candidates,):
            refuse(scenario, "table", f"{candidates} probabilities, with families ['table']")
        if not np.all((table >= 0) & (table <= 1)):
            raise ValueError(f"DynamicPricing: table must hold probabilities, got {scenario.table!r}")
        object.__setattr__(scenario, "table", tuple(table.tolist()))


def check_elasticity(scenario: Any) -> None:
    """Refuse an elasticity that is no [median, sd of the logarithm, least, most]."""
    values = numbers(scenario.elasticity)
    low, high = TASK_LIMITS["elasticity"]
    ordered = values.shape == (4,) and low <= values[2] <= values[0] <= values[3] <= high
    if not ordered or not 0 <= values[1] <= MAX_SPREAD:
        wanted = f"[median, sd of the logarithm, least, most] with {low:g} <= least <= median <= most <= {high:g}"
        refuse(scenario, "elasticity", wanted)
    object.__setattr__(scenario, "elasticity", tuple(values.tolist()))


def check_stock(scenario: Any) -> None:
    """Refuse a stock that is no number of units, no [least, most] share and not None."""
    stock = scenario.stock
    if isinstance(stock, int | np.integer) and not isinstance(stock, bool):
        if not 1 <= stock <= UNLIMITED:
            refuse(scenario, "stock", f"a whole number in [1, {UNLIMITED}]")
        object.__setattr__(scenario, "stock", int(stock))
    elif isinstance(stock, list | tuple):
        pair = numbers(stock)
        if pair.shape != (2,) or not MIN_SHARE <= pair[0] <= pair[1] <= MAX_SHARE:
            refuse(scenario, "stock", f"two numbers [least, most] in [{MIN_SHARE}, {MAX_SHARE:g}]")
        object.__setattr__(scenario, "stock", tuple(pair.tolist()))
    elif stock is not None:
        refuse(scenario, "stock", "a whole number of units, [least, most] shares, or None")


def warn_of_losses(scenario: Any) -> None:
    """Warn of a base price in other money, and of products that lose on every sale."""
    if not 0.5 * min(scenario.prices) <= scenario.base_price <= 2.0 * max(scenario.prices):
        span = f"{min(scenario.prices):g} to {max(scenario.prices):g}"
        what = f"base_price {scenario.base_price:g} is far from the prices {span}"
        advice = "demand, cost and stock refer to it: give the usual price in the same money"
        warnings.warn(f"DynamicPricing: {what}: {advice}", UserWarning, stacklevel=4)
    dearest = float(scenario.ladder.paid[scenario.sells].max())
    if scenario.cost[1] >= dearest:
        what = f"cost reaches {scenario.cost[1]:g} base prices, and the highest price paid is {dearest:g}"
        warnings.warn(f"DynamicPricing: {what}: such a product loses on every sale", UserWarning, stacklevel=4)
