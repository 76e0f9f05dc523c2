"""Campaign policies that count clicks of each creative in each slot, around what was predicted of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from recgym.baselines.ads.desk import Counted, Desk, desk_of
from recgym.baselines.policy import Floats, IndexPolicy, Reading

__all__ = [
    "adaptive_pacing",
    "conversion_rates",
    "greedy_lp",
    "pd_bwk",
    "pid_pacing",
    "pooled_rate",
    "round_robin",
    "ts_lp",
]

STRENGTH, TEMPER = 10.0, 0.7  # what a prediction is worth, in clicks, and how much of it is believed
CONVERSION_SHAPE = 2.0  # conversions that a pooled rate is worth
MAX_ERROR = 3.0  # of a decision's spending, in shares of what it should be

Rates = tuple[Floats, Floats]  # logarithms of click rates over the base [B, K, S], and conversions per click [B, K]


# --- beliefs ---------------------------------------------------------------------------------------------------------
def gamma_factor(count: Floats, rng: np.random.Generator, scale: float) -> Floats:
    """A Gamma(count) draw over its mean, to the power of `scale`."""
    if scale == 0.0:
        return np.ones_like(count)
    return np.maximum(rng.standard_gamma(count) / count, 1e-12) ** scale


def conversion_rates(
    counts: Counted, shape: float, mean: Floats | float, rng: np.random.Generator, scale: float
) -> Floats:
    """[B, K] Gamma beliefs about conversions per click: their mean, or a draw whose logarithm is moved by `scale`.

    Args:
        counts: what was counted.
        shape: conversions that the prior is worth.
        mean: of the prior, [B] or one.
        rng: of the draw.
        scale: 0 is the mean, 1 a draw.
    """
    prior = shape / np.broadcast_to(np.asarray(mean, dtype=np.float64), len(counts.mature))[:, None]
    count, exposure = shape + counts.revealed, prior + counts.mature
    return count / exposure * gamma_factor(count, rng, scale)


def pooled_rate(scenario: Any, counts: Counted) -> Floats:
    """[B] conversions per click of all creatives, shrunk to the campaign's usual rate by one conversion."""
    return (counts.revealed.sum(axis=1) + 1.0) / (counts.mature.sum(axis=1) + 1.0 / scenario.conversion_rate)


def drawn_rates(desk: Desk, kept: Any, reading: Reading, *, strength: float, temper: float, scale: float) -> Rates:
    """Thompson sampling: Gamma click rates around tempered predictions.

    Args:
        desk: reads.
        kept: by it.
        reading: of the moment.
        strength: clicks that a prediction is worth.
        temper: share of a predicted logit that is believed.
        scale: of the draws, 1 for Thompson sampling itself.
    """
    counts = desk.counts(kept, reading)
    prior = strength / np.exp(temper * desk.predicted(reading))
    count = strength + counts.clicks
    rate = count / (prior + counts.bought * desk.scenario.packet) * gamma_factor(count, reading.rng, scale)
    mean = pooled_rate(desk.scenario, counts)
    return np.log(rate), conversion_rates(counts, CONVERSION_SHAPE, mean, reading.rng, scale)


def planning(scenario: Any, rates: Callable[[Desk, Any, Reading], Rates]) -> IndexPolicy:
    """The fluid program of what is believed."""
    desk = desk_of(scenario)

    def index(kept: Any, reading: Reading) -> Floats:
        return desk.plan(kept, reading, *rates(desk, kept, reading))

    return IndexPolicy(scenario, desk.start, desk.learn, index)


# --- policies --------------------------------------------------------------------------------------------------------
class Turns(NamedTuple):
    shown: Floats  # [B, C] decisions


def round_robin(scenario: Any) -> IndexPolicy:
    """The candidates chosen least, in random order."""
    count = scenario.layout.candidates

    def learn(memory: Turns, reading: Reading) -> Turns:
        return Turns(memory.shown + reading.chosen)

    def index(memory: Turns, reading: Reading) -> Floats:
        return -memory.shown

    return IndexPolicy(scenario, lambda rows: Turns(np.zeros((rows, count))), learn, index)


def greedy_lp(scenario: Any, temper: float = 1.0) -> IndexPolicy:
    """The fluid program of predicted click rates, `temper` times their logits, without learning."""

    def rates(desk: Desk, kept: Any, reading: Reading) -> Rates:
        predicted = desk.predicted(reading)
        return temper * predicted, np.full(predicted.shape[:2], scenario.conversion_rate)

    return planning(scenario, rates)


def ts_lp(scenario: Any, strength: float = STRENGTH, temper: float = TEMPER, scale: float = 0.5) -> IndexPolicy:
    """Thompson sampling and the fluid program of the draw; see `drawn_rates`."""
    return planning(scenario, partial(drawn_rates, strength=strength, temper=temper, scale=scale))


class Pacing(NamedTuple):
    """The price of money, as pacing moves it."""

    kept: Any  # by the desk
    log_multiplier: Floats  # [B] its logarithm
    total: Floats  # [B] errors added up
    left: Floats  # [B] share of the budget
    due: Floats  # [B] share of it that the last decision should have spent


def pacing(scenario: Any, first: float, scale: float, move: Callable[[Pacing, Floats], Floats]) -> IndexPolicy:
    """Buy at a price of money, which is moved after each decision; values by Thompson sampling.

    Args:
        scenario: a Campaign.
        first: logarithm of the price at the start, in the reward of a base packet per mean base packet's cost.
        scale: of the draws.
        move: (pacing, error [B]) -> log multiplier [B]; errors are spending over an even pace, less 1.
    """
    desk = desk_of(scenario)

    def start(rows: int) -> Pacing:
        none = np.zeros(rows)
        return Pacing(desk.start(rows), none + first, none, none + 1.0, none)

    def learn(memory: Pacing, reading: Reading) -> Pacing:
        left = reading.field("budget")
        begun = memory.due > 0.0
        spent = (memory.left - left) / np.where(begun, memory.due, 1.0)
        error = np.where(begun, np.clip(spent - 1.0, -1.0, MAX_ERROR), 0.0)
        memory = memory._replace(total=memory.total + error)
        moved = np.where(begun, move(memory, error), memory.log_multiplier)
        return Pacing(desk.learn(memory.kept, reading), moved, memory.total, left, desk.due(reading))

    def index(memory: Pacing, reading: Reading) -> Floats:
        rates = drawn_rates(desk, memory.kept, reading, strength=STRENGTH, temper=TEMPER, scale=scale)
        return desk.buy(memory.kept, reading, *rates, memory.log_multiplier)

    return IndexPolicy(scenario, start, learn, index)


def adaptive_pacing(scenario: Any, step: float = 0.1, first: float = 0.0, scale: float = 0.5) -> IndexPolicy:
    """Balseiro & Gur 2019, adaptive pacing, on the logarithm of the price."""
    return pacing(scenario, first, scale, lambda memory, error: memory.log_multiplier + step * error)


def pid_pacing(
    scenario: Any, proportional: float = 0.3, integral: float = 0.1, first: float = 0.0, scale: float = 0.5
) -> IndexPolicy:
    """A proportional-integral controller of the logarithm of the price."""

    def move(memory: Pacing, error: Floats) -> Floats:
        return first + proportional * error + integral * memory.total

    return pacing(scenario, first, scale, move)


class Dual(NamedTuple):
    multiplier: Floats  # [B] price of money, where that of time is 1
    rewards: Floats  # [B, C] sums
    spent: Floats  # [B, C] budgets per decision
    shown: Floats  # [B, C] decisions
    left: Floats  # [B] share of the budget


def pd_bwk(scenario: Any, bonus: float = 0.001) -> IndexPolicy:
    """Badanidiyuru, Kleinberg & Slivkins 2013, PrimalDualBwK: optimistic reward per pessimistic price of what is spent.

    The price of money grows by the factor 1 + epsilon per decision's share of the budget, epsilon = sqrt(ln 2 / T); the
    width of the intervals is tuned, as its constant is made for the proof.
    """
    epsilon = np.sqrt(np.log(2.0) / scenario.horizon)
    count = scenario.layout.candidates

    def start(rows: int) -> Dual:
        none = np.zeros((rows, count))
        return Dual(np.ones(rows), none, none, none, np.ones(rows))

    def learn(memory: Dual, reading: Reading) -> Dual:
        left = reading.field("budget")
        used = (memory.left - left) * scenario.horizon
        grown = memory.multiplier * (1.0 + epsilon) ** np.clip(used - 1.0, -1.0, 20.0)
        played = reading.chosen.any(axis=1)
        return Dual(
            np.where(played, grown, memory.multiplier),
            memory.rewards + reading.chosen * reading.reward[:, None],
            memory.spent + reading.chosen * used[:, None],
            memory.shown + reading.chosen,
            left,
        )

    def index(memory: Dual, reading: Reading) -> Floats:
        shown = np.maximum(memory.shown, 1.0)
        level = bonus * np.log(1.0 + memory.shown.sum(axis=1, keepdims=True)) / shown
        mean, cost = memory.rewards / shown, memory.spent / shown
        high = np.where(memory.shown > 0.0, mean + level + np.sqrt(level * np.maximum(mean, 0.0)), 1e3)
        low = np.maximum(cost - level - np.sqrt(level * np.maximum(cost, 0.0)), 0.0)
        return high / (1.0 + memory.multiplier[:, None] * low)

    return IndexPolicy(scenario, start, learn, index)
