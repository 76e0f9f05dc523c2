"""What any policy can earn at most in a trial of ad placement: money and days get prices, the rest is per creative.

Sources: Adelman & Mersereau 2008 (Lagrangian relaxation of what couples decisions), Brown, Smith & Sun 2010 (bounds
from giving the policy information).

Why it is a bound. Whoever plays the relaxed problem knows the path of prices, drift and traffic in advance; one is
drawn for each trial, so that the bound holds on average over trials. For every price of money l >= 0 and of a day
m_t >= 0,

    E[return] <= l budget + sum_t m_t + sum_k V_k(0),

where V_k is the most that creative k alone earns, less what its packets cost at those prices: backwards in time
V_t(x) = max(V_{t+1}(rho x), max_s [click rate(l_kst - phi x) w_st v_kt - l cost_st - m_t + V_{t+1}(rho x + n_st)]), of
recent packets x. Creatives are coupled by money and by the one packet a day alone: wear is each one's own.

* A click rate 1 / (1 + exp(-(l - phi x))) is convex in x where it is below a half, so that V is convex: a straight line
  between two nodes of the grid is not below it, and no share of a packet, which wears in proportion, is worth more than
  the whole packet or none.
* Rivals who react win more of a packet and make what is left of it dearer: a share of it, at a higher price.
* Wear follows expected impressions, so that it is no luck. A packet that the money does not cover is cut: its
  impressions are at most its share of the mean, but for what the noise of the payment may give. A payment is at least
  half of its mean: money that does not cover a mean payment is gone after at most `TAIL` packets, whose worth times
  that noise is added, as the deviation of the money is.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from recgym import fluid
from recgym.arrays import logistic, to_numpy, tree_map

__all__ = ["bound_of_placement"]

CHUNK = 256  # trials at a time
NODES = 16  # of recent packets
ROUNDS = 6  # of the search for the prices that give the least bound
STEP = 0.4  # its first step, of the logarithm of a price
GROWS, SHRINKS = 1.1, 0.45  # after a step that was one down, or none
SEED = 20_261_130
TAIL = 2.0  # packets that the money may not cover
ROUNDING = 1e-5  # share that float32 may lose in sums over a trial


class Path(NamedTuple):
    """A trial's exogenous path."""

    logit: np.ndarray  # [T, B, K, S] of a click, before wear
    wins: np.ndarray  # [T, B, S] mean impressions of a packet
    cost: np.ndarray  # [T, B, S] its mean cost
    noise: np.ndarray  # [B] the largest standard deviation of the payment of a packet, as a share of it
    worth: np.ndarray  # [T, B, K] of a click


def bound_of_placement(scenario: Any, state: Any) -> np.ndarray:
    """[B] float64 bound on the expected value of any policy from the first decision of a trial on, NumPy.

    Args:
        scenario: a Placement.
        state: at the start of a trial.
    """
    task, rng = tree_map(to_numpy, state.task), np.random.default_rng(SEED)
    parts = []
    for start in range(0, len(task.base), CHUNK):
        part = tree_map(lambda leaf, start=start: leaf[start : start + CHUNK], task)
        parts.append(_chunk(scenario, part, path_of(scenario, part, rng)))
    return np.concatenate(parts)


def path_of(scenario: Any, task: Any, rng: np.random.Generator) -> Path:
    """Draw one path for each trial."""
    rows, creatives, slots = task.logit.shape
    horizon = scenario.horizon

    def walk(step: float, count: int) -> np.ndarray:  # [T, B, count], from 0
        steps = rng.standard_normal((horizon, rows, count), dtype=np.float32) * np.float32(step)
        steps[0] = 0.0
        return np.cumsum(steps, axis=0, dtype=np.float32)

    drift, prices = walk(scenario.drift, creatives), walk(scenario.price_walk, slots)
    day = scenario.day_traffic(rng.standard_normal((horizon, rows), dtype=np.float32))
    times = [np.full(rows, t, dtype=np.float32) for t in range(horizon)]
    logit = np.stack([scenario.logits_at(task, time, drift[t]) for t, time in enumerate(times)])
    log_price = task.log_price + prices
    wins, price, variance = scenario.market(task.base, log_price, task.sigma, task.bid)
    noise = np.sqrt(variance * wins) / np.maximum(price * wins, 1e-12)
    wins = wins * day[:, :, None]
    worth = np.stack([scenario.value_of_clicks(task.rate, time) for time in times])
    return Path(logit, wins, wins * price, noise.max(axis=(0, 2)), worth)


class Grid(NamedTuple):
    """Recent packets, and where they go."""

    nodes: np.ndarray  # [G]
    worn: np.ndarray  # [B, K, G] factor of the odds of a click
    low: np.ndarray  # [G] node at or below what is kept
    weight: np.ndarray  # [G] of the node above it


def grid_of(scenario: Any, task: Any, path: Path) -> Grid:
    base_wins = scenario.base_wins(task.base)
    most = float((path.wins.max(axis=(0, 2)) / base_wins).max()) * scenario.dose / (1.0 - scenario.fatigue_memory)
    count = NODES if task.fatigue.max() > 0.0 and most > 0.0 else 2
    nodes = (np.linspace(0.0, 1.0, count) ** 1.5 * max(most, 1e-3)).astype(np.float32)
    worn = np.exp(-task.fatigue[:, :, None] * nodes).astype(np.float32)
    return Grid(nodes, worn, *between_nodes(nodes, scenario.fatigue_memory * nodes))


def between_nodes(nodes: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Node at or below each x, and the weight of the one above."""
    low = np.clip(np.searchsorted(nodes, x, side="right") - 1, 0, len(nodes) - 2)
    weight = np.clip((x - nodes[low]) / (nodes[low + 1] - nodes[low]), 0.0, 1.0)
    return low, weight.astype(np.float32)


def _chunk(scenario: Any, task: Any, path: Path) -> np.ndarray:
    """The least bound [B] found over prices of money and of days; days are dearer where conversions still come."""
    grid = grid_of(scenario, task, path)
    shape = path.worth.mean(axis=2) / path.worth.mean(axis=(0, 2))  # [T, B]
    budget = task.budget.astype(np.float64)
    passage = [_passage(scenario, task, path, grid, t) for t in range(scenario.horizon)]

    def value(multiplier: np.ndarray, day: np.ndarray) -> np.ndarray:
        earned = _earned(path, grid, passage, multiplier, day * shape)
        return multiplier * budget + day * shape.sum(axis=0) + earned + TAIL * multiplier * path.noise * most_cost

    most_cost = path.cost.max(axis=(0, 2))
    multiplier, day = _first_prices(scenario, task, path)
    prices = [np.maximum(multiplier, 1e-6 * day * scenario.horizon / budget), day]
    best, steps = value(*prices), np.full((2, len(budget)), STEP)
    for _ in range(ROUNDS):
        for which in range(2):
            moved = np.zeros(len(budget), dtype=bool)
            for sign in (1.0, -1.0):
                tried = list(prices)
                tried[which] = np.where(moved, prices[which], prices[which] * np.exp(sign * steps[which]))
                found = value(*tried)
                better = found < best
                prices = [np.where(better, new, old) for new, old in zip(tried, prices, strict=True)]
                best, moved = np.minimum(found, best), moved | better
            steps[which] *= np.where(moved, GROWS, SHRINKS)
    best = np.minimum(best, value(0.0 * multiplier, prices[1]))  # money enough
    # What the noise of a payment may add to the impressions of a packet that is cut, at its value.
    return (best + TAIL * path.noise * _most_value(path)) * (1.0 + ROUNDING)


def _most_value(path: Path) -> np.ndarray:
    """[B] the most that a packet may bring."""
    rate = logistic(path.logit)
    return (rate * path.wins[:, :, None] * path.worth[..., None]).max(axis=(0, 2, 3))


def _first_prices(scenario: Any, task: Any, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The multiplier, which prices money, and a day's price [B], of a mean decision with the wear of a few packets."""
    worn = path.logit.mean(axis=0) - 2.0 * task.fatigue[:, :, None]
    rate = logistic(worn)
    value = (rate * path.worth.mean(axis=0)[:, :, None] * path.wins.mean(axis=0)[:, None]).max(axis=1)
    cost = path.cost.mean(axis=0)
    rho = task.budget / scenario.horizon
    mix = fluid.solve(value, cost, rho)
    rows = np.arange(len(rho))
    values, costs = (np.concatenate([part, 0.0 * part[:, :1]], axis=1) for part in (value, cost))
    gained = values[rows, mix.second] - values[rows, mix.first]
    paid = costs[rows, mix.second] - costs[rows, mix.first]
    multiplier = np.where((mix.weight < 1.0) & (paid > 0.0), gained / np.where(paid > 0.0, paid, 1.0), 0.0)
    return multiplier.astype(np.float64), np.maximum(mix.value - multiplier * rho, 1e-3).astype(np.float64)


class PacketStep(NamedTuple):
    """One decision of all slots: what a packet brings, and where it leads."""

    reward: np.ndarray  # [B, S, K, G]
    cost: np.ndarray  # [B, S]
    there: np.ndarray  # [B, K] whether the creative can be had
    low: np.ndarray  # [B, S, G] node at or below
    weight: np.ndarray  # [B, S, G] of the one above


def _passage(scenario: Any, task: Any, path: Path, grid: Grid, t: int) -> PacketStep:
    odds = np.exp(path.logit[t]).transpose(0, 2, 1)[..., None] * grid.worn[:, None]
    reward = odds / (1.0 + odds) * path.wins[t][:, :, None, None] * path.worth[t][:, None, :, None]
    news = scenario.dose * path.wins[t] / scenario.base_wins(task.base)[:, None]
    after = scenario.fatigue_memory * grid.nodes + news[:, :, None]
    return PacketStep(
        reward.astype(np.float32), path.cost[t], task.launch <= t, *between_nodes(grid.nodes, after.astype(np.float32))
    )


def _earned(path: Path, grid: Grid, passage: list[PacketStep], multiplier: np.ndarray, day: np.ndarray) -> np.ndarray:
    """[B] sum over creatives of V_k(0) at prices of money, the multipliers [B], and of days [T, B]."""
    creatives, count = grid.worn.shape[1:]
    later = np.zeros((len(multiplier), creatives, count), dtype=np.float32)
    for t in range(len(passage) - 1, -1, -1):
        now = passage[t]
        best = later[..., grid.low] * (1.0 - grid.weight) + later[..., grid.low + 1] * grid.weight
        charge = (multiplier[:, None] * now.cost + day[t][:, None]).astype(np.float32)
        for s in range(now.cost.shape[1]):
            low = np.broadcast_to(now.low[:, s, None], later.shape)
            left = np.take_along_axis(later, low, axis=2)
            right = np.take_along_axis(later, low + 1, axis=2)
            bought = now.reward[:, s] - charge[:, s, None, None] + left + now.weight[:, s, None] * (right - left)
            np.maximum(best, np.where(now.there[:, :, None], bought, -np.inf), out=best)
        later = best
    return later[:, :, 0].sum(axis=1, dtype=np.float64)
