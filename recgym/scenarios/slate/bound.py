"""What any policy can earn at most in a trial of slates: satiation gets a price, the rest is dynamic programming.

Sources: Lagrangian relaxation of what couples decisions (Adelman & Mersereau 2008), information relaxation (Brown,
Smith & Sun 2010).

Why it is a bound. Trust, leaving and returning are solved exactly, by the recursion of `foresight`: whoever chooses
pages can do no better in a world without satiation. With it an item's odds are y0 f, f = exp(-phi x_z) <= 1. Let c_t
be the clicks on topic z and F their sum. x adds up rho^(t - s - 1) c_s, and the matrix rho^|t - s| is positive
definite, so that

    sum_t c_t x_t = (c' K c - F) / (2 rho) >= (F^2 / kappa - F) / (2 rho),  kappa = (T (1 - rho) + 2 rho) / (1 + rho),

which is above its tangent at any F0. Take f as free to choose, and charge alpha for what a choice leaves unpaid of
-log f: for every alpha >= 0

    E[return] <= max E[sum rewards + sum_t c_t (-alpha log f_t - c_z)] + sum_z const_z,
    c_z = alpha phi / (2 rho) (2 F0 / kappa - 1),  const_z = alpha phi F0^2 / (2 rho kappa),

and the maximum is again the recursion, where at each page the best f of an item is known in closed form. V is convex in
the average burden m, as a return is a sum of exponentials of what is affine in m, so that a straight line between two
nodes is not below it. Pools are drawn anew at every step: a maximum of means is not above the mean of maxima, so that
the estimate's mean is not below the bound; `ERRORS` of its standard errors are added.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from recgym.arrays import MAX_LOGIT, to_numpy, tree_map
from recgym.rng import STEP, NumpyRng
from recgym.scenarios.slate.choice import attention_by_place
from recgym.scenarios.slate.foresight import draw_pools, interpolated, nodes_of

__all__ = ["upper_bound"]

CHUNK = 64  # tasks at a time
NODES, POOLS = 7, 12  # average burdens, and pools per task and step
ERRORS = 1.0  # standard errors of the pools that are added
ROUNDS = 4  # of Dinkelbach's iteration; what it leaves is added
PRICE = 0.2  # alpha, in rewards per click of the informed policy
GUESSES = 4  # trials of the informed policy that F0 is the mean of
MIN_RETENTION = 0.05  # below it satiation has no memory to be charged for
SEED = 20_261_128


def upper_bound(scenario: Any, state: Any) -> np.ndarray:
    """[B] float64 bound on the expected value of any policy from the first decision of a trial on, NumPy.

    Args:
        scenario: a Slate with the choice `mnl`, fresh candidates and a taste that stays.
        state: at the start of a trial.
    """
    task = tree_map(to_numpy, state.task)
    clicks, worth = _informed_clicks(scenario, task)
    parts = []
    for start in range(0, len(worth), CHUNK):
        part = slice(start, start + CHUNK)
        rows = tree_map(lambda leaf, part=part: leaf[part], task)
        parts.append(_chunk(scenario, rows, clicks[part], PRICE * worth[part]))
    return np.concatenate(parts)


def _informed_clicks(scenario: Any, task: Any) -> tuple[np.ndarray, np.ndarray]:
    """Mean clicks [B, Z] on each topic in a trial of the informed policy, and mean reward [B] per click."""
    inventory = scenario.inventory
    rows = np.arange(len(task.outside))
    clicks = np.zeros((len(rows), len(inventory.centroids)), dtype=np.float32)
    value = np.zeros(len(rows), dtype=np.float32)
    for guess in range(GUESSES):
        rng = NumpyRng([SEED, guess])
        rng.rekey(STEP, 0)
        state = scenario.reset(task, rng)
        for t in range(scenario.horizon):
            action = scenario.informed_action(state)
            topic = inventory.topic[state.seen.offer.item[rows[:, None], action]]
            rng.rekey(STEP, t + 1)
            hidden, response = scenario.respond(state, action, rng)
            np.add.at(clicks, (rows[:, None], topic), response.feedback.click)
            value += response.feedback.value.sum(axis=1)
            seen, _ = scenario.learn(state.seen, action, response.feedback, response.offer)
            state = type(state)(task, hidden, seen)
    return clicks / GUESSES, value / np.maximum(clicks.sum(axis=1), 1.0)


def _chunk(scenario: Any, task: Any, guess: np.ndarray, price: np.ndarray) -> np.ndarray:
    """The bound [B] of a chunk of tasks, at tangents `guess` [B, Z] and prices of satiation [B]."""
    retention = np.maximum(task.retention, MIN_RETENTION)
    kappa = ((scenario.horizon * (1.0 - retention) + 2.0 * retention) / (1.0 + retention))[:, None]
    used = (guess > kappa) & (task.retention >= MIN_RETENTION)[:, None] & (task.satiation > 0.0)[:, None]
    alpha = np.where(used, price[:, None], 0.0)
    scale = alpha * (task.satiation / (2.0 * retention))[:, None]
    charge, constant = scale * (2.0 * guess / kappa - 1.0), (scale * guess**2 / kappa).sum(axis=1)
    rows = np.arange(len(guess))[:, None, None]
    node = nodes_of(NODES)
    trust = np.exp(-task.sensitivity[:, None] * node)[:, None, :, None]
    memory = task.memory[:, None, None, None]
    weight = attention_by_place(task.attention, scenario.places)[:, None, None]
    here, away = np.zeros((2, len(guess), NODES))
    variance = np.zeros(len(guess))
    rng = NumpyRng(SEED)
    for t in range(scenario.horizon):
        rng.rekey(0, t)
        pools = draw_pools(scenario, task, rng, POOLS)
        odds = np.exp(np.clip(pools.logit, -MAX_LOGIT, MAX_LOGIT))[:, :, None]
        topic = rows, pools.topic
        later = interpolated(here, memory * node[:, None] + (1.0 - memory) * pools.burden[:, :, None])
        worth = pools.worth[:, :, None] * trust + later - here[:, None, :, None] - charge[topic][:, :, None]
        outside = (-task.leaving[:, None] * (here - away))[:, None]
        value = _highest_value(odds, worth, alpha[topic][:, :, None], outside, weight)
        variance += value.var(axis=1).max(axis=1) / (POOLS - 1)
        here, away = here + value.mean(axis=1), here / scenario.away + (1.0 - 1.0 / scenario.away) * away
    return here[:, 0] + constant + ERRORS * np.sqrt(variance)


def _highest_value(odds: Any, worth: Any, alpha: Any, outside: Any, weight: Any) -> np.ndarray:
    """[B, M, G] sup over pages and f <= 1 of (outside + sum w y f (worth - alpha log f)) / (1 + sum w y f).

    At a value v of the page the best f of an item is exp(min((worth - v) / alpha - 1, 0)), and 1 where alpha is 0.
    """
    places = weight.shape[-1]
    value = np.broadcast_to(outside, worth.shape[:-1]).astype(np.float64)
    free = alpha > 0.0
    for left in range(ROUNDS, -1, -1):
        gain = worth - value[..., None]
        log_f = np.where(free, np.clip(gain / np.where(free, alpha, 1.0) - 1.0, -MAX_LOGIT, 0.0), 0.0)
        share = odds * np.exp(log_f)
        score = share * (gain - alpha * log_f)
        top = np.argpartition(-score, places - 1, axis=-1)[..., :places]
        top = np.take_along_axis(top, np.argsort(-np.take_along_axis(score, top, -1), axis=-1), -1)
        best = np.take_along_axis(score, top, -1)
        kept = weight * (best > 0.0)
        residual = outside - value + (kept * best).sum(axis=-1)
        if left:
            value = value + residual / (1.0 + (kept * np.take_along_axis(share, top, -1)).sum(axis=-1))
    return value + np.maximum(residual, 0.0)
