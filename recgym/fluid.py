"""One scarce resource: the fluid linear program, and exact dynamic programming where demand has no memory.

Sources: Gallego & van Ryzin 1994 (the fluid program bounds every policy), Ferreira, Simchi-Levi & Wang 2018 (discrete
prices), Talluri & van Ryzin 2004, chapter 5 (dynamic programming).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from recgym.arrays import Array, namespace

__all__ = ["Mix", "Plan", "action_of", "exact_plan", "solve"]

AT_ONCE = 500_000  # pairs of actions that are looked at together


class Mix(NamedTuple):
    """An optimal solution: at most two actions; with a weight of 1 it is `second` alone, and `first` means nothing."""

    value: Array  # [B] reward per unit of time
    first: Array  # [B] int64 index of an action; K stands for doing nothing
    second: Array  # [B] int64
    weight: Array  # [B] share of the time that `second` has; `first` has the rest


def solve(reward: Array, demand: Array, supply: Array) -> Mix:
    """max sum_i x_i reward_i subject to sum_i x_i demand_i <= supply, sum_i x_i <= 1, x >= 0: exact, batched.

    A basic solution mixes at most two of the actions, doing nothing among them: all pairs are tried.

    Args:
        reward: [B, K] per unit of time.
        demand: [B, K] of the resource per unit of time, at least 0.
        supply: [B] of the resource per unit of time, at least 0.
    """
    xp, rows = namespace(reward), max(1, AT_ONCE // (reward.shape[1] + 1) ** 2)
    if reward.shape[0] > rows:  # what fits in a cache, and many candidates in memory
        slices = [slice(start, start + rows) for start in range(0, reward.shape[0], rows)]
        return Mix(*map(xp.concat, zip(*(solve(reward[s], demand[s], supply[s]) for s in slices), strict=True)))
    nothing = xp.zeros_like(reward[:, :1])
    reward, demand = xp.concat([reward, nothing], axis=1), xp.concat([demand, nothing], axis=1)
    count, supply = reward.shape[1], supply[:, None, None]
    low, high = demand[:, :, None], demand[:, None, :]  # of `first` i and `second` j: [B, K + 1, K + 1]
    mixed = (low <= supply) & (high > supply)  # else `second` alone, if it is affordable
    weight = xp.where(mixed, (supply - low) / xp.where(mixed, high - low, xp.ones_like(high)), xp.ones_like(high))
    value = reward[:, :, None] + weight * (reward[:, None, :] - reward[:, :, None])
    value = xp.where(low <= supply, value, xp.full_like(value, -xp.inf))
    flat = xp.reshape(value, (value.shape[0], count * count))
    best = xp.argmax(flat, axis=1)
    rows = xp.arange(value.shape[0], device=getattr(reward, "device", "cpu"))
    return Mix(flat[rows, best], best // count, best % count, xp.reshape(weight, flat.shape)[rows, best])


def action_of(mix: Mix, second: Array, reward: Array) -> Array:
    """[B] int64 the second action of a mix where `second` [B] says so, else the first; for doing nothing the other one.

    Where nothing is all that the mix has, the action with the highest `reward` [B, K]: the least loss.
    """
    xp, nothing = namespace(reward), reward.shape[1]
    action, other = xp.where(second, mix.second, mix.first), xp.where(second, mix.first, mix.second)
    mixed = (mix.weight > 0) & (mix.weight < 1)
    action = xp.where((action == nothing) & mixed, other, action)
    return xp.where(action == nothing, xp.argmax(reward, axis=1), action)


class Plan(NamedTuple):
    """Values and best actions by decisions left n = 0..T and units left s = 0..S."""

    values: np.ndarray  # [T + 1, S + 1] float64 expected reward from there on
    actions: np.ndarray  # [T + 1, S + 1] int64; row 0 means nothing


def exact_plan(margin: np.ndarray, demand: np.ndarray, stock: int, horizon: int) -> Plan:
    """Backward induction for demand that depends on the action of the moment alone: V_n(s) = max_i Q_n(s, i), where
    Q_n(s, i) = sum_d P_i(d) (margin_i min(d, s) + V_{n-1}(s - min(d, s))).

    Args:
        margin: [K] reward per unit sold.
        demand: [K, D] P_i(d) of d = 0..D-1 units in one decision.
        stock: units S at the start.
        horizon: decisions T.
    """
    margin, demand = np.asarray(margin, dtype=np.float64), np.asarray(demand, dtype=np.float64)
    units, wanted = np.arange(stock + 1)[:, None], np.arange(demand.shape[1])
    sold = np.minimum(wanted, units)  # [S + 1, D]
    now = margin * (sold @ demand.T)  # [S + 1, K]
    values, actions = np.zeros((horizon + 1, stock + 1)), np.zeros((horizon + 1, stock + 1), dtype=np.int64)
    for n in range(1, horizon + 1):
        worth: Any = now + values[n - 1][units - sold] @ demand.T
        actions[n] = worth.argmax(axis=1)
        values[n] = worth.max(axis=1)
    return Plan(values, actions)
