"""What any policy can earn at most in a pricing trial: stock gets a price, the rest is dynamic programming.

Sources: Gallego & van Ryzin 1994 (the fluid bound), Adelman & Mersereau 2008 (Lagrangian relaxation of what couples
decisions), Brown, Smith & Sun 2010 (bounds from giving the policy information).

Why it is a bound. Where demand has no memory it is the value of the fluid program, which is concave in the demand.
Otherwise the stock is relaxed: for every price l >= 0 of a unit,

    E[return] <= l stock + max over sequences of actions of sum_t max(margin - l, 0) demand_t,

because sales are at most the stock, and at most the demand (once the stock is gone there are none: a margin below l
costs nothing then). The maximum is over deterministic sequences: reference price, promotion and the reactions of
rivals follow from the actions alone. It is found backwards in time over a grid of reference prices r, and what lies
between two nodes is bounded from above, cell by cell, by the straight line between two numbers of that cell:

* Demand q(r). On a cell [a, b] of width h write q as a convex function, less s r^2 / 2, less J (r - c)+, where s bounds
  -q'' and J a fall of the slope at c. Then q is at most s h^2 / 8 + J h / 4 above its chord; and, as demand never falls
  with r, at most q(b) - q(a) above it. Both ends of the chord are lifted by the smaller of the two (see `_lifts`).
  Where the line would pass 1 by more than the constant 1 does, it is the constant.
* What comes later, V(m r + (1 - m) x), where V is such a line in every cell. It is above its chord by no more than at
  the nodes that the cell is mapped onto: there it is looked at, and both ends are lifted by the most that is found.
* The best of several actions. Each is bounded by a line over the cell, and the largest of several lines is convex, so
  that it is below the line between its values at both ends.

A node belongs to two cells, and its value is the larger of both. Every price that can be paid is a node: there demand
has the kink of loss aversion, and there a price that is held stays.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from recgym import fluid
from recgym.arrays import to_numpy, tree_map
from recgym.scenarios.pricing.demand import (
    AR1,
    FOLLOWER,
    LOGIT,
    MAX_EXPONENT,
    UNDERCUT,
    UNDERCUTTER,
    rival_price,
    uncut_shares,
)
from recgym.scenarios.pricing.market import MIN_CUSTOMERS

__all__ = ["upper_bound"]

GRID = 31  # reference prices, at least
CHUNK = 256  # trials at a time
# Of the fluid program's dual price: each gives a bound, the least is taken.
FACTORS = (0.0, 0.6, 0.8, 0.9, 1.0, 1.1, 1.3, 1.7)
PATH_SEED = 20_161_124
ROUNDING = 1e-5  # share that float32 may lose in sums over a trial
BEND = 0.0963  # the most that q (1 - q) (2 q - 1) can be
NARROW = 1e-3  # width of the one cell where there is a single price


def upper_bound(scenario: Any, state: Any) -> np.ndarray:
    """[B] float64 bound on the expected return of any policy from the first decision of a trial on, NumPy.

    It holds in every trial, but for those with an AR(1) rival: whoever plays the relaxed problem knows his path in
    advance, one that is sampled, so that for these it holds on average over trials.

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
        return mix.value.astype(np.float64) * customers / scenario.sales_unit * (1.0 + ROUNDING)
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
    if len(nodes) == 1:
        return np.append(nodes, nodes + np.float32(NARROW))
    between = np.linspace(nodes[0], nodes[-1], GRID, dtype=np.float32)
    far = np.abs(between[:, None] - nodes).min(axis=1) > 0.5 * (between[1] - between[0])
    return np.sort(np.append(nodes, between[far]))


class Lines(NamedTuple):
    """For each cell a straight line over reference prices, by its values at both ends."""

    left: np.ndarray  # [B, C, 2, K] by whether a promotion came before
    right: np.ndarray


def _demand(scenario: Any, state: Any, drift: np.ndarray) -> tuple[np.ndarray, Lines]:
    """Shares [B, 2, K] that buy at reference price 1, and lines above them in every cell; `drift` is [B, 1]."""
    grid, rows = _grid(scenario), len(drift)
    found = np.empty((rows, len(grid), 2, state.hidden.pull.shape[1]), dtype=np.float32)
    for g, node in enumerate(grid):
        reference = np.full((rows, 1), node)
        rival = rival_price(state.task, reference, drift)
        for after in range(2):
            promoted = np.full((rows, 1), float(after), dtype=np.float32)
            found[:, g, after] = uncut_shares(
                state.task, state.hidden.pull, scenario.ladder, reference, rival, promoted
            )
    left, right = found[:, :-1], found[:, 1:]
    lift = np.clip(right - left, 0.0, _lifts(scenario, state.task, grid, right))
    one = np.clip(found[:, np.searchsorted(grid, np.float32(1.0))], None, 1.0)
    left, right = left + lift, right + lift
    constant = left + right > 2.0  # all customers buy, and no more
    return one, Lines(np.where(constant, np.float32(1.0), left), np.where(constant, np.float32(1.0), right))


def _lifts(scenario: Any, task: Any, grid: np.ndarray, right: np.ndarray) -> np.ndarray:
    """[B, C, 2, K] by how much demand is above its chord at most, in each cell; infinite where nothing is known.

    With a the effect of the reference price there, a curve other than the logit is q = exp(a r + c log y(r)) times a
    constant, and -q'' <= q (c - c^2) / r^2 while the rival's price y is proportional to r: a follower's, or an
    undercutter's below his usual price, at which c falls to 0. A logit is q = 1 / (1 + exp(-w)) with w' <= a + d and
    -w'' <= d^2 / 4, where d = elasticity / (1 - purchase) times y', so that -q'' <= q (1 - q) ((2 q - 1) w'^2 +
    d^2 / 4).

    Args:
        scenario: DynamicPricing.
        task: [B, ...].
        grid: [G] reference prices.
        right: [B, C, 2, K] demand at the upper end of each cell.
    """
    low, width = grid[:-1, None], np.diff(grid)[:, None]  # [C, 1]
    paid = scenario.ladder.paid

    def each(values: np.ndarray) -> np.ndarray:  # [B] -> [B, 1, 1]
        return values[:, None, None]

    slope = np.where(low >= paid, each(task.gain), each(task.loss))  # [B, C, K]
    kink = each(task.rival_price) / UNDERCUT  # [B, 1, 1] reference price up to which an undercutter follows it
    undercuts, has_rival = each(task.rival == UNDERCUTTER), each(task.cross > 0)
    follows = each(task.rival == FOLLOWER) | (undercuts & (low < kink))  # [B, C, 1]
    bends = undercuts & (low < kink) & (kink < low + width)
    cross = np.where(follows, each(task.cross), 0.0)
    share = np.clip(right, 0.0, 1.0)
    curved = right * (np.clip(cross - cross**2, 0.0, None) / low**2)[:, :, None]
    falls = right * (np.where(bends, each(task.cross), 0.0) / low)[:, :, None]
    steep = each(task.elasticity / (1.0 - task.purchase)) * np.where(undercuts, UNDERCUT, each(task.rival_price))
    steep = np.where(follows & has_rival, steep, 0.0)
    spread = np.minimum(share, 0.25)  # of q (1 - q)
    bent = np.where(share > 0.5, np.float32(BEND), 0.0) * (slope + steep)[:, :, None] ** 2
    curved_logit = bent + spread * (0.25 * steep**2)[:, :, None]
    falls_logit = spread * np.where(bends, steep, 0.0)[:, :, None]
    logit = (each(task.family == LOGIT))[..., None]
    curved, falls = np.where(logit, curved_logit, curved), np.where(logit, falls_logit, falls)
    lift = curved * (width**2 / 8.0)[:, :, None] + falls * (width / 4.0)[:, :, None]
    # Exponents are cut where float32 ends; up to there nothing is, whatever the candidate and its past.
    reach = each(np.maximum(task.gain, task.loss)) * (grid[-1] - grid[0] + 1.0) + each(task.cross + task.dip) + steep
    return np.where((reach < MAX_EXPONENT - 10.0)[:, :, None], lift, np.inf).astype(np.float32)


class Passage(NamedTuple):
    """Where reference prices go to from the nodes, by candidate, and which nodes lie between those of a cell."""

    below: np.ndarray  # [B, G K] node at or below the next reference price, in values [B, 2 G]
    above: np.ndarray
    weight: np.ndarray  # [B, G K] of the one above
    inside: tuple[
        tuple[np.ndarray, np.ndarray, np.ndarray], ...
    ]  # index [B, C K] in values, place in the cell, whether


def _passage(scenario: Any, task: Any, grid: np.ndarray) -> Passage:
    rows, nodes, promoted = len(task.memory), len(grid), scenario.ladder.promoted
    memory = task.memory[:, None, None]
    following = (memory * grid[:, None] + (1.0 - memory) * scenario.ladder.paid).astype(np.float32)  # [B, G, K]
    low = np.clip(np.searchsorted(grid, following, side="right") - 1, 0, nodes - 2)
    weight = np.clip((following - grid[low]) / (grid[low + 1] - grid[low]), 0.0, 1.0)
    first, end = low[:, :-1] + 1, np.searchsorted(grid, following[:, 1:], side="left")  # strictly between the two
    start, span = following[:, :-1], np.maximum(following[:, 1:] - following[:, :-1], np.float32(1e-9))
    inside = []
    for step in range(int((end - first).max(initial=0))):
        node = np.minimum(first + step, nodes - 1)
        place = np.clip((grid[node] - start) / span, 0.0, 1.0)
        flat = (array.reshape(rows, -1) for array in (promoted * nodes + node, place, first + step < end))
        inside.append(tuple(flat))
    below, above = ((promoted * nodes + g).reshape(rows, -1) for g in (low, low + 1))
    return Passage(below, above, weight.reshape(rows, -1), tuple(inside))


def _later(values: np.ndarray, passage: Passage, shape: tuple[int, int, int]) -> tuple[np.ndarray, Lines]:
    """What follows from each node [B, G, 1, K], and lines above it in every cell.

    Args:
        values: [B, 2 G] of the next decision, by promotion before and node.
        passage: see there.
        shape: B, G, K.
    """
    rows, nodes, count = shape
    left = np.take_along_axis(values, passage.below, axis=1)
    at = left + passage.weight * (np.take_along_axis(values, passage.above, axis=1) - left)
    at = at.reshape(rows, nodes, 1, count)
    low, high = (part.reshape(rows, -1) for part in (at[:, :-1], at[:, 1:]))
    lift = np.zeros_like(low)
    for index, place, there in passage.inside:
        over = np.take_along_axis(values, index, axis=1) - (low + place * (high - low))
        np.maximum(lift, np.where(there, over, 0.0), out=lift)
    lifted = (part.reshape(rows, nodes - 1, 1, count) for part in (low + lift, high + lift))
    return at, Lines(*lifted)


def _relaxed(scenario: Any, state: Any, drifts: np.ndarray, margins: list[np.ndarray]) -> list[np.ndarray]:
    """For each of the margins [B, K]: [B] a bound on the sum of it times expected demand over sequences of actions."""
    task, grid = state.task, _grid(scenario)
    shape = rows, nodes, _ = len(task.memory), len(grid), len(scenario.ladder.paid)
    passage, first = _passage(scenario, task, grid), int(np.searchsorted(grid, np.float32(1.0)))
    moving = np.flatnonzero((task.rival == AR1) & (task.cross > 0))
    part = tree_map(lambda leaf: leaf[moving], state)
    one, demand = _demand(scenario, state, drifts[0])
    values = [np.zeros((rows, 2 * nodes), dtype=np.float32) for _ in margins]  # by promotion before, reference price
    for time in reversed(range(scenario.horizon)):
        come = scenario.arriving(task, np.full(rows, time, dtype=np.float32))
        if len(moving):
            one[moving], lines = _demand(scenario, part, drifts[time, moving])
            demand.left[moving], demand.right[moving] = lines
        for f, margin in enumerate(margins):
            worth = come[:, None] * margin
            at, later = _later(values[f], passage, shape)
            if time == 0:  # the first reference price is known
                values[f] = (worth[:, None] * one[:, :1] + at[:, first]).max(axis=(1, 2))
                continue
            spread = worth[:, None, None, :]
            ends = [(spread * q + v).max(axis=3) for q, v in zip(demand, later, strict=True)]  # [B, C, 2] each
            best = np.full((rows, nodes, 2), -np.inf, dtype=np.float32)
            best[:, :-1] = ends[0]
            np.maximum(best[:, 1:], ends[1], out=best[:, 1:])
            values[f] = best.transpose(0, 2, 1).reshape(rows, -1)
    return [v.astype(np.float64) * (1.0 + ROUNDING) for v in values]
