"""Campaign policies that count clicks of each creative in each slot, around what was predicted of it."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np

from recgym.baselines.ads.desk import (
    Desk,
    conversion_rates,
    desk_of,
    gamma_factor,
    packet_values,
    planned,
    pooled_rate,
)
from recgym.baselines.policy import Floats, IndexPolicy, Reading, memoryless

__all__ = ["adaptive_pacing", "greedy_lp", "pd_bwk", "pid_pacing", "round_robin", "ts_lp"]

STRENGTH, TEMPER = 10.0, 0.7  # what a prediction is worth, in clicks, and how much of it is believed
CONVERSION_SHAPE = 2.0  # conversions that a pooled rate is worth
FIRST_PRICE = 0.5  # of money, of the best value per mean cost
MAX_ERROR = 3.0  # of a decision's spending, in shares of what it should be


def round_robin(scenario: Any) -> IndexPolicy:
    """The candidates chosen least, in random order."""

    def index(reading: Reading) -> Floats:
        now = desk_of(scenario, reading)
        return (np.where(now.available > 0.0, 0.0, -1e9) - now.bought / now.volume).reshape(len(now.left), -1)

    return memoryless(scenario, index)


def greedy_lp(scenario: Any, temper: float = 1.0) -> IndexPolicy:
    """The fluid program of predicted click rates, `temper` times their logits, without learning."""

    def index(reading: Reading) -> Floats:
        now = desk_of(scenario, reading)
        usual = np.full(now.mature.shape, scenario.conversion_rate)
        return planned(packet_values(scenario, now, temper * now.predicted, usual), now, reading)

    return memoryless(scenario, index)


def drawn_values(
    scenario: Any, now: Desk, rng: np.random.Generator, strength: float, temper: float, scale: float
) -> Floats:
    """[B, K, S] packets' values by Thompson sampling: Gamma click rates around tempered predictions.

    Args:
        scenario: a Placement.
        now: what is known.
        rng: of the draws.
        strength: clicks that a prediction is worth.
        temper: share of a predicted logit that is believed.
        scale: of the draws, 1 for Thompson sampling itself.
    """
    prior = strength / np.exp(temper * now.predicted)
    count = strength + now.clicks
    rate = count / (prior + now.bought * scenario.packet) * gamma_factor(count, rng, scale)
    conversion = conversion_rates(scenario, now, CONVERSION_SHAPE, pooled_rate(scenario, now), rng, scale)
    return packet_values(scenario, now, np.log(rate), conversion)


def ts_lp(scenario: Any, strength: float = STRENGTH, temper: float = TEMPER, scale: float = 0.5) -> IndexPolicy:
    """Thompson sampling and the fluid program of the draw; see `drawn_values`."""

    def index(reading: Reading) -> Floats:
        now = desk_of(scenario, reading)
        return planned(drawn_values(scenario, now, reading.rng, strength, temper, scale), now, reading)

    return memoryless(scenario, index)


class Price(NamedTuple):
    """Of money, as pacing moves it."""

    log_price: Floats  # [B] of the money left per decision at the start
    first: Floats  # [B] the same at the start
    total: Floats  # [B] errors added up
    left: Floats  # [B] share of the budget


def pacing(scenario: Any, values: Any, move: Any) -> IndexPolicy:
    """Buy where value less the price of money times cost is highest; after each decision the price is moved.

    Args:
        scenario: a Placement.
        values: (desk, rng) -> values of packets [B, K, S].
        move: (price, error [B]) -> log price [B]; errors are spending over an even pace, less 1.
    """

    def start(rows: int) -> Price:
        return Price(np.full(rows, np.nan), np.full(rows, np.nan), np.zeros(rows), np.ones(rows))

    def learn(memory: Price, reading: Reading) -> Price:
        left = reading.field("budget")
        begun = ~np.isnan(memory.log_price)
        error = np.clip((memory.left - left) * scenario.horizon - 1.0, -1.0, MAX_ERROR)
        total = np.where(begun, memory.total + error, 0.0)
        moved = move(memory._replace(total=total), error)
        now = desk_of(scenario, reading)
        first = np.log(FIRST_PRICE * values(now, reading.rng).max(axis=(1, 2)) / cost_at_start(scenario, now, reading))
        first = np.where(begun, memory.first, first)
        return Price(np.where(begun, moved, first), first, total, left)

    def index(memory: Price, reading: Reading) -> Floats:
        now = desk_of(scenario, reading)
        cost = now.cost * pace_share(scenario, now, reading)[:, None, None]
        score = values(now, reading.rng) - np.exp(memory.log_price)[:, None, None] * cost
        return np.where(now.available > 0.0, score, -np.inf).reshape(len(score), -1)

    return IndexPolicy(scenario, start, learn, index)


def pace_share(scenario: Any, now: Desk, reading: Reading) -> Floats:
    """[B] money left per decision left, in the budget per decision at the start."""
    return now.left * scenario.horizon / np.maximum(reading.remaining, 1.0)


def cost_at_start(scenario: Any, now: Desk, reading: Reading) -> Floats:
    """[B] mean cost of a packet, in the budget per decision at the start."""
    return now.cost[:, 0].mean(axis=1) * np.maximum(pace_share(scenario, now, reading), 1e-9)


def adaptive_pacing(
    scenario: Any, step: float = 0.15, strength: float = STRENGTH, temper: float = TEMPER, scale: float = 0.5
) -> IndexPolicy:
    """Balseiro & Gur 2019, adaptive pacing, on the logarithm of the price; values by Thompson sampling."""

    def move(memory: Price, error: Floats) -> Floats:
        return memory.log_price + step * error

    values = partial(_values, scenario, strength, temper, scale)
    return pacing(scenario, values, move)


def pid_pacing(
    scenario: Any,
    proportional: float = 0.1,
    integral: float = 0.3,
    strength: float = STRENGTH,
    temper: float = TEMPER,
    scale: float = 0.5,
) -> IndexPolicy:
    """A proportional-integral controller of the logarithm of the price; values by Thompson sampling."""

    def move(memory: Price, error: Floats) -> Floats:
        return memory.first + proportional * error + integral * memory.total

    values = partial(_values, scenario, strength, temper, scale)
    return pacing(scenario, values, move)


def _values(scenario: Any, strength: float, temper: float, scale: float, now: Desk, rng: np.random.Generator) -> Floats:
    return drawn_values(scenario, now, rng, strength, temper, scale)


class Dual(NamedTuple):
    price: Floats  # [B] of money, where that of time is 1
    rewards: Floats  # [B, C] sums
    count: Floats  # [B, C] decisions
    left: Floats  # [B] share of the budget


def pd_bwk(scenario: Any, bonus: float = 0.3) -> IndexPolicy:
    """Badanidiyuru, Kleinberg & Slivkins 2013, PrimalDualBwK, with costs that are quoted: optimistic reward per price.

    The price of money grows by the factor 1 + epsilon per budget share spent, epsilon = sqrt(ln 2 / T); the width of
    the intervals is tuned, as its constant is made for the proof.
    """
    epsilon = np.sqrt(np.log(2.0) / scenario.horizon)
    count = scenario.layout.candidates

    def start(rows: int) -> Dual:
        return Dual(np.ones(rows), np.zeros((rows, count)), np.zeros((rows, count)), np.ones(rows))

    def learn(memory: Dual, reading: Reading) -> Dual:
        left = reading.field("budget")
        used = np.clip((memory.left - left) * scenario.horizon - 1.0, -1.0, 20.0)
        played = reading.chosen.any(axis=1)
        price = np.where(played, memory.price * (1.0 + epsilon) ** used, memory.price)
        return Dual(
            price, memory.rewards + reading.chosen * reading.reward[:, None], memory.count + reading.chosen, left
        )

    def index(memory: Dual, reading: Reading) -> Floats:
        now = desk_of(scenario, reading)
        shown = np.maximum(memory.count, 1.0)
        mean = memory.rewards / shown
        level = bonus * np.log(1.0 + memory.count.sum(axis=1, keepdims=True)) / shown
        high = np.where(memory.count > 0.0, mean + level + np.sqrt(level * mean), 1e3)
        cost = (now.cost * pace_share(scenario, now, reading)[:, None, None]).reshape(high.shape)
        scores = high / (1.0 + memory.price[:, None] * cost)
        return np.where(now.available.reshape(high.shape) > 0.0, scores, -1.0)

    return IndexPolicy(scenario, start, learn, index)
