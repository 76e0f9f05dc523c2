"""What any policy can earn at most in a pricing trial: stock gets a price, the rest is dynamic programming.

Sources: Gallego & van Ryzin 1994 (the fluid bound), Adelman & Mersereau 2008 (Lagrangian relaxation of what couples
decisions), Brown, Smith & Sun 2010 (bounds from giving the policy information).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from recgym import fluid
from recgym.core import tree_map
from recgym.scenarios.demand import AR1, rival_price, shares

__all__ = ["upper_bound"]

GRID = 21  # reference prices; twice as many move the mean bound by less than a thousandth (tests/test_pricing_bound.py)
CHUNK = 256  # trials at a time
FACTORS = (
    0.0,
    0.6,
    0.8,
    0.9,
    1.0,
    1.1,
    1.3,
    1.7,
)  # of the fluid program's dual price: each gives a bound, the least is taken
PATH_SEED = 20_161_124


def upper_bound(scenario: Any, state: Any) -> np.ndarray:
    """[B] float64 bound on the expected return of any policy from the first decision of a trial on, NumPy.

    Where demand has no memory it is the fluid program's value, which is concave in the demand. Otherwise the stock is
    relaxed: for every price l >= 0 of a unit,

        E[return] <= l stock + max over sequences of actions of sum_t max(margin - l, 0) demand_t,

    because sales are at most the stock, and at most the demand (once the stock is gone there are none: a margin below l
    costs nothing then). The maximum is over deterministic sequences: reference price, promotion and the
    reactions of rivals follow from the actions alone. The rival with an AR(1) is known in advance to whoever plays the
    relaxed problem: one sampled path per trial, so that for these the bound holds on average over trials. The reference
    price is a grid with linear interpolation.

    Args:
        scenario: DynamicPricing.
        state: at the start of a trial.
    """
    state = tree_map(np.asarray, state)
    parts = range(0, len(state.time), CHUNK)
    return np.concatenate([_chunk(scenario, tree_map(lambda a, s=s: a[s : s + CHUNK], state)) for s in parts])


def _chunk(scenario: Any, state: Any) -> np.ndarray:
    task = state.task
    margin = scenario.margin(task)
    held = scenario.held(task, state.pull, state.reference, state.drift, state.time)
    customers = np.maximum(scenario.customers_left(task, state.time).astype(np.float64), 1e-6)
    mix = fluid.solve(margin * held, held, task.stock / customers)
    if not (task.gain.any() or task.loss.any() or task.dip.any() or task.cross.any()):
        return mix.value.astype(np.float64) * customers / scenario.sales_unit
    rewards, uses = (np.concatenate([a, 0.0 * a[:, :1]], axis=1) for a in (margin * held, held))
    rows = np.arange(len(held))
    gained = rewards[rows, mix.second] - rewards[rows, mix.first]
    used = uses[rows, mix.second] - uses[rows, mix.first]
    price = np.where((mix.weight < 1.0) & (used > 0), gained / np.where(used > 0, used, 1.0), 0.0)
    tables = list(_tables(scenario, state))
    best = np.full(len(held), np.inf)
    for factor in FACTORS:
        least = np.maximum(factor * price, 0.0).astype(np.float32)
        relaxed = _relaxed(scenario, task, tables, np.maximum(margin - least[:, None], 0.0))
        best = np.minimum(best, (relaxed + least * task.stock.astype(np.float64)) / scenario.sales_unit)
    return best


def _grid(scenario: Any) -> np.ndarray:
    """[G] reference prices that can occur."""
    paid = scenario.ladder.paid
    return np.linspace(min(1.0, paid.min()), max(1.0, paid.max()), GRID, dtype=np.float32)


def _tables(scenario: Any, state: Any) -> Any:
    """For each decision the shares [B, G, 2, K] that buy, by reference price and whether a promotion came before."""
    grid, rng = _grid(scenario), np.random.default_rng(PATH_SEED)
    drift = np.zeros((len(state.time), 1), dtype=np.float32)

    def table(rows: Any) -> np.ndarray:
        task, pull = tree_map(lambda a: a[rows], state.task), state.pull[rows]
        found = np.empty((len(pull), GRID, 2, pull.shape[1]), dtype=np.float32)
        for g in range(GRID):
            reference = np.full((len(pull), 1), grid[g])
            rival = rival_price(task, reference, drift[rows])
            for after in range(2):
                promoted = np.full((len(pull), 1), float(after), dtype=np.float32)
                found[:, g, after] = shares(task, pull, scenario.ladder, reference, rival, promoted)
        return found

    moving = np.flatnonzero((state.task.rival == AR1) & (state.task.cross > 0))
    now = table(np.arange(len(drift)))
    yield now
    for _ in range(1, scenario.horizon):
        drift = scenario.next_drift(drift, rng.standard_normal(drift.shape, dtype=np.float32))
        if len(moving):
            now = now.copy()
            now[moving] = table(moving)
        yield now


def _relaxed(scenario: Any, task: Any, tables: list[np.ndarray], margin: np.ndarray) -> np.ndarray:
    """[B] highest sum of margin [B, K] times expected demand over sequences of actions."""
    grid, paid = _grid(scenario), scenario.ladder.paid
    rows, count = len(margin), len(paid)
    memory = task.memory[:, None, None]
    spacing = max(grid[1] - grid[0], 1e-6)  # 0 where there is only one price
    place = (memory * grid[:, None] + (1.0 - memory) * paid - grid[0]) / spacing  # [B, G, K] of the next
    low = np.clip(place.astype(np.int64), 0, GRID - 2)
    weight = np.clip(place - low, 0.0, 1.0).reshape(rows, -1)
    at = (scenario.ladder.promoted * GRID + low).reshape(rows, -1)  # in values [B, 2 G]
    values = np.zeros((rows, 2 * GRID), dtype=np.float32)  # by promotion before, then reference price
    for time in reversed(range(scenario.horizon)):
        come = scenario.arriving(task, np.full(rows, time, dtype=np.float32))
        left = np.take_along_axis(values, at, axis=1)
        later = left + weight * (np.take_along_axis(values, at + 1, axis=1) - left)
        total = (come[:, None] * margin)[:, None, None, :] * tables[time] + later.reshape(rows, GRID, 1, count)
        values = total.max(axis=3).transpose(0, 2, 1).reshape(rows, -1)
    start = (1.0 - grid[0]) / spacing
    first = int(min(start, GRID - 2))
    return values[:, first] + (start - first) * (values[:, first + 1] - values[:, first]).astype(np.float64)
