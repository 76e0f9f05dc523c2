"""Pricing that knows the task distribution: products drawn from it, weighted by what the trial says.

Index policies, as those of `recgym.baselines.pricing`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from recgym.arrays import tree_map
from recgym.baselines.planning import indicators
from recgym.baselines.policy import Floats, IndexPolicy, Reading
from recgym.baselines.pricing.units import embedding_of, units_of
from recgym.rng import NumpyRng
from recgym.scenarios.pricing.demand import AR1, Ladder, shares
from recgym.scenarios.pricing.foresight import embedding_fit, forecast_fit, traits
from recgym.scenarios.pricing.market import MIN_CUSTOMERS, RIVAL_MEMORY

__all__ = ["Particles", "particle_mean", "particle_ts"]

PARTICLES = 1000
PARTICLE_SEED = 999_983  # of training tasks


class Weights(NamedTuple):
    weight: Floats  # [B, N] log-likelihood of each product of `Particles`
    reference: Floats  # [B] reference price at the last decision
    after: Floats  # [B] whether a promotion came before it
    sine: Floats  # [B] of the season at it


class Particles:
    """Products drawn from the task distribution, and how likely the observations of a trial make each of them.

    Args:
        scenario: gives the distribution.
        count: number of products N.
    """

    def __init__(self, scenario: Any, count: int) -> None:
        self.scenario, rng = scenario, NumpyRng(PARTICLE_SEED)
        rng.rekey(0, 0)
        self.task = scenario.sample_task(rng, count)
        self.pull = scenario.base(self.task)
        start = np.zeros(count, dtype=np.float32)
        held = scenario.held(self.task, self.pull, start + 1.0, start, start)
        self._log_sales = scenario.log_sales(held)  # [N, K]
        best = held[np.arange(count), (scenario.margin(self.task) * held).argmax(axis=1)]
        sold = best * scenario.customers_left(self.task, start)
        self._unconstrained = 1e-6 + sold  # [N] units that the best candidate sells, if there is no limit

    def start(self, rows: int) -> Weights:
        return Weights(np.zeros((rows, len(self.pull))), *np.zeros((3, rows)))

    def learn(self, memory: Weights, reading: Reading) -> Weights:
        """What was sold, and at the start what is told of the product."""
        played: Any = reading.chosen.any(axis=1)
        weight = memory.weight
        if not played.all():
            weight = np.where(played[:, None], weight, self._at_start(reading))
        if played.any():
            weight = weight + self._of_sales(memory, reading).T
        after = reading.chosen @ self.scenario.ladder.promoted
        return Weights(weight, reading.field("reference"), after, reading.field("season_sin"))

    def _of_sales(self, memory: Weights, reading: Reading) -> Floats:
        """[N, B] log-likelihood of the last decision's sales; 0 where they were not demand."""
        scenario, now, action = self.scenario, units_of(self.scenario, reading), reading.chosen.argmax(axis=1)
        shown = Ladder(*(column[action] for column in scenario.ladder))
        columns = (memory.reference, reading.field("rival"), memory.after)
        reference, rival, after = (column[None].astype(np.float32) for column in columns)
        share = shares(self.task, self.pull[:, action], shown, reference, rival, after)
        come = scenario.customers * (1.0 + self.task.season[:, None] * memory.sine.astype(np.float32))
        share, sold = np.clip(share, 1e-7, 1.0 - 1e-6), now.sold.astype(np.float32)
        if scenario.poisson:
            fit = sold * np.log(share * come) - share * come
        else:
            fit = sold * np.log(share) + np.maximum(come - sold, 0.0) * np.log1p(-share)
        return np.where(now.open, fit, 0.0)

    def _at_start(self, reading: Reading) -> Floats:
        """[B, N] log-likelihood of embedding, forecast and stock."""
        scenario = self.scenario
        fit = np.zeros((len(reading.chosen), len(self.pull)))
        if scenario.embedding:
            fit += embedding_fit(embedding_of(scenario, reading), traits(self.task, scenario.embedding))
        if scenario.forecast is not None:
            log_paid = np.log(scenario.ladder.paid.astype(np.float64))
            fit += forecast_fit(reading.field("forecast"), self._log_sales, log_paid, scenario.forecast)
        if isinstance(scenario.stock, tuple):  # uniform share of what is sold without limit
            share = units_of(scenario, reading).stock[:, None] / self._unconstrained
            inside = (share > 0.98 * scenario.stock[0]) & (share < 1.02 * scenario.stock[1])
            fit += np.where(inside, -np.log(self._unconstrained), -50.0)
        return fit

    def draw(self, memory: Weights, reading: Reading, count: int) -> Any:
        """`count` products [B] drawn from the posterior, their index [B] each."""
        chance = np.exp(memory.weight - memory.weight.max(axis=1, keepdims=True))
        total = np.cumsum(chance, axis=1, dtype=np.float64)
        for _ in range(count):
            yield (total < (1.0 - reading.rng.random((len(total), 1))) * total[:, -1:]).sum(axis=1)

    def product(self, index: np.ndarray, reading: Reading) -> tuple[Floats, Floats]:
        """Of products `index` [B]: share [B, K] that buys each candidate, if held, and customers [B] to come."""
        scenario, time = self.scenario, self.scenario.horizon - reading.remaining
        task = tree_map(lambda leaf: leaf[index], self.task)
        turn = np.arctan2(reading.field("season_sin"), reading.field("season_cos")) / (2.0 * np.pi)
        phase = (turn - time / scenario.period) % 1.0
        task = task._replace(phase=phase)
        drift = RIVAL_MEMORY * np.log(np.maximum(reading.field("rival"), 1e-3) / task.rival_price)
        started = np.where(reading.chosen.any(axis=1) & (task.rival == AR1), drift, 0.0)
        held = scenario.held(task, self.pull[index], reading.field("reference"), started, time)
        return held, np.maximum(scenario.customers_left(task, time), MIN_CUSTOMERS)


def particle_policy(scenario: Any, particles: int, draws: int) -> IndexPolicy:
    """The fluid program of the mean demand of `draws` products drawn from the posterior."""
    belief = Particles(scenario, particles)

    def index(memory: Weights, reading: Reading) -> Floats:
        now = units_of(scenario, reading)
        products = [belief.product(each, reading) for each in belief.draw(memory, reading, draws)]
        demand = np.mean([held * left[:, None] for held, left in products], axis=0)
        left = np.mean([left for _, left in products], axis=0)
        return indicators(
            scenario.fluid_action(now.margin, demand / left[:, None], now.stock / left), scenario.layout.candidates
        )

    return IndexPolicy(scenario, belief.start, belief.learn, index)


def particle_ts(scenario: Any, particles: int = PARTICLES) -> IndexPolicy:
    """Thompson sampling on the true task distribution: what the informed policy would do for a product drawn."""
    return particle_policy(scenario, int(particles), 1)


def particle_mean(scenario: Any, particles: int = PARTICLES, draws: int = 16) -> IndexPolicy:
    """Certainty equivalence on the true task distribution: for the posterior's mean demand."""
    return particle_policy(scenario, int(particles), int(draws))
