"""What is to come in a trial of slates: a table per task, by backward induction over the average burden consumed.

V_t(m) is what a user is worth from step t on who is there with average burden m, W_t(m) one who is away:

    V_t(m) = V_{t+1}(m) + E_pool max_page [sum_j P_j (r_j e^(-sigma m) + V_{t+1}(m_j') - V_{t+1}(m)) + P_none r_none],
    r_none = -leaving (V_{t+1}(m) - W_{t+1}(m)),  m_j' = memory m + (1 - memory) burden_j,
    W_t(m) = V_{t+1}(m) / away + (1 - 1 / away) W_{t+1}(m).

The page is that of `best_page`, whose items are worth what they bring and what they leave. Satiation is not in the
table: it counts at the page that is shown, where it makes whoever knows it rotate by himself.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from recgym.arrays import to_numpy, tree_map
from recgym.rng import NumpyRng
from recgym.scenario import State
from recgym.scenarios.slate.choice import best_page
from recgym.scenarios.slate.inventory import draw_pool
from recgym.scenarios.slate.worth import mean_worth

__all__ = ["Foresight", "Pools", "draw_pools", "foresighted_page", "interpolated", "nodes_of", "plan_of"]

NODES, POOLS = 5, 6  # average burdens, and pools per task and step
CHUNK = 128  # tasks at a time
SEED = 20_261_127


class Foresight(NamedTuple):
    """Tables for tasks, NumPy."""

    task: Any  # the tasks that they are for
    here: np.ndarray  # [B, T + 1, G] V_t at G average burdens from 0 to 1
    away: np.ndarray  # [B, T + 1, G] W_t


class Pools(NamedTuple):
    """Candidates that users may meet, M pools for each of B tasks."""

    logit: np.ndarray  # [B, M, C] without satiation
    worth: np.ndarray  # [B, M, C] of a click, while trust is full
    burden: np.ndarray  # [B, M, C]
    topic: np.ndarray  # [B, M, C] int64


def draw_pools(scenario: Any, task: Any, rng: NumpyRng, pools: int) -> Pools:
    """`pools` for each task, drawn as the scenario draws them."""
    inventory = scenario.inventory
    batch = len(task.outside)
    item = draw_pool(rng, inventory.shuffled, (batch * pools, scenario.candidates)).reshape(batch, pools, -1)
    match = np.einsum("bmcd,bd->bmc", inventory.features[item], task.taste)
    logit = scenario.beta * match + inventory.appeal[item] - task.outside[:, None, None]
    burden = inventory.burden[item]
    sensitivity = task.price_sensitivity[:, None, None]
    worth = mean_worth(scenario.reward, match, burden, inventory.price[item], sensitivity)
    return Pools(logit, worth, burden, inventory.topic[item])


def interpolated(table: np.ndarray, burden: np.ndarray) -> np.ndarray:
    """[B, ...] values of tables [B, G] at burdens [B, ...] in [0, 1]; V is convex, so that they are not below it."""
    most = table.shape[1] - 1
    low = np.minimum((np.sqrt(burden) * most).astype(np.int64), most - 1)
    part = (burden * most**2 - low**2) / (2 * low + 1)
    rows = np.arange(len(table)).reshape((-1,) + (1,) * (burden.ndim - 1))
    return table[rows, low] * (1.0 - part) + table[rows, low + 1] * part


def nodes_of(count: int) -> np.ndarray:
    """[G] average burdens, squares: V bends most where there is little."""
    return np.linspace(0.0, 1.0, count, dtype=np.float32) ** 2


def plan_of(scenario: Any, task: Any, known: Foresight | None = None) -> Foresight:
    """Tables of tasks [B, ...]; rows that are as in `known` are taken from there."""
    batch = len(task.outside)
    shape = (batch, scenario.horizon + 1, NODES)
    here, away = np.zeros((2, *shape), dtype=np.float32)
    new = np.ones(batch, dtype=bool)
    if known is not None and known.here.shape == shape:
        new = np.any([_rows_differ(*leaves) for leaves in zip(task, known.task, strict=True)], axis=0)
        here, away = np.where(new[:, None, None], 0.0, known.here), np.where(new[:, None, None], 0.0, known.away)
    rows = np.flatnonzero(new)
    for start in range(0, len(rows), CHUNK):
        part = rows[start : start + CHUNK]
        here[part], away[part] = _tables(scenario, tree_map(lambda leaf, part=part: leaf[part], task))
    return Foresight(task, here, away)


def _rows_differ(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return (one != other).reshape(len(one), -1).any(axis=1)


def _tables(scenario: Any, task: Any) -> tuple[np.ndarray, np.ndarray]:
    """V and W [B, T + 1, G] of a chunk of tasks."""
    rng = NumpyRng(SEED)
    batch = len(task.outside)
    node = nodes_of(NODES)
    trust = np.exp(-task.sensitivity[:, None] * node)[:, None, :, None]
    memory = task.memory[:, None, None, None]
    attention = np.repeat(task.attention, POOLS * NODES)
    here, away = np.zeros((2, batch, scenario.horizon + 1, NODES), dtype=np.float32)
    for t in range(scenario.horizon - 1, -1, -1):
        rng.rekey(0, t)
        pools = draw_pools(scenario, task, rng, POOLS)
        after, gone = here[:, t + 1], away[:, t + 1]
        later = interpolated(after, memory * node[:, None] + (1.0 - memory) * pools.burden[:, :, None])
        worth = pools.worth[:, :, None] * trust + later - after[:, None, :, None]
        outside = np.broadcast_to((-task.leaving[:, None] * (after - gone))[:, None], worth.shape[:3]).reshape(-1)
        logit = np.broadcast_to(pools.logit[:, :, None], worth.shape).reshape(-1, scenario.candidates)
        _, value = best_page(scenario.choice, logit, worth.reshape(logit.shape), outside, attention, scenario.places)
        here[:, t] = after + value.reshape(worth.shape[:3]).mean(axis=1)
        away[:, t] = after / scenario.away + (1.0 - 1.0 / scenario.away) * gone
    return here, away


def foresighted_page(scenario: Any, state: State) -> np.ndarray:
    """[B, k] the page that is best with what is to come."""
    plan = scenario.plan(state.task)
    task, hidden, seen = tree_map(to_numpy, state)
    rows = np.arange(len(seen.time))
    step = np.minimum(seen.time.astype(np.int64) + 1, scenario.horizon)
    after, gone = plan.here[rows, step], plan.away[rows, step]
    burden = scenario.inventory.burden[seen.offer.item]
    memory = task.memory[:, None]
    stays = interpolated(after, hidden.burden[:, None])
    later = interpolated(after, memory * hidden.burden[:, None] + (1.0 - memory) * burden)
    worth = hidden.worth * np.exp(-task.sensitivity * hidden.burden)[:, None] + later - stays
    outside = -task.leaving * (stays - interpolated(gone, hidden.burden[:, None]))[:, 0]
    return best_page(scenario.choice, hidden.logit, worth, outside, task.attention, scenario.places)[0]
