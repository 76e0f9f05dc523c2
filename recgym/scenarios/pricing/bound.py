"""What any policy can earn at most in a pricing trial: stock gets a price, the rest is dynamic programming.

Sources: Gallego & van Ryzin 1994 (the fluid bound), Adelman & Mersereau 2008 (Lagrangian relaxation of what couples
decisions), Brown, Smith & Sun 2010 (bounds from giving the policy information).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from recgym import fluid
from recgym.arrays import to_numpy, tree_map
from recgym.scenarios.pricing.demand import AR1, rival_price, shares
from recgym.scenarios.pricing.market import MIN_CUSTOMERS

__all__ = ["upper_bound"]

GRID = 21  # reference prices, at least; twice as many hardly move the mean bound (tests/test_pricing_bound.py)
CHUNK = 256  # trials at a time
# Of the fluid program's dual price: each gives a bound, the least is taken.
FACTORS = (0.0, 0.6, 0.8, 0.9, 1.0, 1.1, 1.3, 1.7)
PATH_SEED = 20_161_124


def upper_bound(scenario: Any, state: Any) -> np.ndarray:
    """[B] float64 bound on the expected return of any policy from the first decision of a trial on, NumPy.

    Where demand has no memory it is the fluid program's value, which is concave in the demand. Otherwise the stock is
    relaxed: for every price l >= 0 of a unit,

        E[return] <= l stock + max over sequences of actions of sum_t max(margin - l, 0) demand_t,

    because sales are at most the stock, and at most the demand (once the stock is gone there are none: a margin below l
    costs nothing then). The maximum is over deterministic sequences: reference price, promotion and the reactions of
    rivals follow from the actions alone. The rival with an AR(1) is known in advance to whoever plays the relaxed
    problem: one sampled path per trial, so that for these the bound holds on average over trials. Reference prices are
    a grid, linear in between, with a node at every price that can be paid: there demand has its kink, and there a price
    that is held stays. Elsewhere interpolation is off by a thousandth of single trials at most; where the price of an
    undercutter has its kink, which is at another reference price in each task, by five (tests/test_pricing_bound.py).

    Args:
        scenario: DynamicPricing.
        state: at the start of a trial.
    """
    state, rng = tree_map(to_numpy, state), np.random.default_rng(PATH_SEED)
    parts = []
    for start in range(0, len(state.seen.time), CHUNK):
        part = tree_map(lambda leaf, start=start: leaf[start : start + CHUNK], state)
        drifts = np.zeros((scenario.horizon, len(part.seen.time), 1), dtype=np.float32)
        for time in range(1, scenario.horizon):
            noise = rng.standard_normal(drifts.shape[1:], dtype=np.float32)
            drifts[time] = scenario.next_drift(drifts[time - 1], noise)
        parts.append(_chunk(scenario, part, drifts))
    return np.concatenate(parts)


def _chunk(scenario: Any, state: Any, drifts: np.ndarray) -> np.ndarray:
    """The bound [B] where an AR(1) rival's price is off by `drifts` [T, B, 1]."""
    task, hidden, seen = state
    margin = hidden.margin
    held = scenario.held(task, hidden.pull, hidden.reference, hidden.drift, seen.time)
    customers = np.maximum(scenario.customers_left(task, seen.time).astype(np.float64), MIN_CUSTOMERS)
    mix = fluid.solve(margin * held, held, task.stock / customers)
    if not (task.gain.any() or task.loss.any() or task.dip.any() or task.cross.any()):
        return mix.value.astype(np.float64) * customers / scenario.sales_unit
    rewards, uses = (np.concatenate([a, 0.0 * a[:, :1]], axis=1) for a in (margin * held, held))
    rows = np.arange(len(held))
    gained = rewards[rows, mix.second] - rewards[rows, mix.first]
    used = uses[rows, mix.second] - uses[rows, mix.first]
    price = np.where((mix.weight < 1.0) & (used > 0), gained / np.where(used > 0, used, 1.0), 0.0)
    least = [np.maximum(factor * price, 0.0).astype(np.float32) for factor in FACTORS]
    margins = [np.maximum(margin - each[:, None], 0.0) for each in least]
    relaxed = _relaxed(scenario, state, drifts, margins)
    stock = task.stock.astype(np.float64)
    return (
        np.min([most + each * stock for most, each in zip(relaxed, least, strict=True)], axis=0) / scenario.sales_unit
    )


def _grid(scenario: Any) -> np.ndarray:
    """[G] reference prices that can occur, ascending: those a price paid may be held at, and what lies between."""
    nodes = np.unique(np.append(scenario.ladder.paid, np.float32(1.0)))
    between = np.linspace(nodes[0], nodes[-1], GRID, dtype=np.float32)
    far = np.abs(between[:, None] - nodes).min(axis=1) > 0.5 * (between[1] - between[0])
    return np.sort(np.append(nodes, between[far]))


def _table(scenario: Any, state: Any, drift: np.ndarray) -> np.ndarray:
    """Shares [B, G, 2, K] that buy, by reference price and whether a promotion came before; `drift` [B, 1]."""
    grid, rows = _grid(scenario), len(drift)
    found = np.empty((rows, len(grid), 2, state.hidden.pull.shape[1]), dtype=np.float32)
    for g, node in enumerate(grid):
        reference = np.full((rows, 1), node)
        rival = rival_price(state.task, reference, drift)
        for after in range(2):
            promoted = np.full((rows, 1), float(after), dtype=np.float32)
            found[:, g, after] = shares(state.task, state.hidden.pull, scenario.ladder, reference, rival, promoted)
    return found


def _relaxed(scenario: Any, state: Any, drifts: np.ndarray, margins: list[np.ndarray]) -> list[np.ndarray]:
    """For each of the margins [B, K]: [B] highest sum of it times expected demand over sequences of actions."""
    task, grid, paid = state.task, _grid(scenario), scenario.ladder.paid
    rows, nodes, count = len(task.memory), len(grid), len(paid)
    memory = task.memory[:, None, None]
    following = memory * grid[:, None] + (1.0 - memory) * paid  # [B, G, K]
    low = np.clip(np.searchsorted(grid, following, side="right") - 1, 0, max(nodes - 2, 0))
    high = np.minimum(low + 1, nodes - 1)  # the same where there is only one price
    weight = (following - grid[low]) / np.maximum(grid[high] - grid[low], 1e-6)
    weight = np.clip(weight, 0.0, 1.0).reshape(rows, -1)
    below, above = ((scenario.ladder.promoted * nodes + g).reshape(rows, -1) for g in (low, high))  # in values [B, 2 G]
    moving = np.flatnonzero((task.rival == AR1) & (task.cross > 0))
    table, part = _table(scenario, state, drifts[0]), tree_map(lambda leaf: leaf[moving], state)
    values = [np.zeros((rows, 2 * nodes), dtype=np.float32) for _ in margins]  # by promotion before, reference price
    for time in reversed(range(scenario.horizon)):
        come = scenario.arriving(task, np.full(rows, time, dtype=np.float32))
        if len(moving):
            table[moving] = _table(scenario, part, drifts[time, moving])
        for f, margin in enumerate(margins):
            left = np.take_along_axis(values[f], below, axis=1)
            later = left + weight * (np.take_along_axis(values[f], above, axis=1) - left)
            total = (come[:, None] * margin)[:, None, None, :] * table + later.reshape(rows, nodes, 1, count)
            values[f] = total.max(axis=3).transpose(0, 2, 1).reshape(rows, -1)
    first = int(np.searchsorted(grid, np.float32(1.0)))
    return [v[:, first].astype(np.float64) for v in values]
