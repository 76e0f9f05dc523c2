"""The market of a product: who comes, who buys at which price, and what that is worth, without luck or memory."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np

from recgym import fluid
from recgym.arrays import Array, clip, namespace
from recgym.scenario import Scenario
from recgym.scenarios.pricing.demand import Ladder, PricingTask, pull, rival_price, shares
from recgym.scenarios.pricing.foresight import MIN_SALES

__all__ = ["MIN_CUSTOMERS", "RIVAL_MEMORY", "RIVAL_NOISE", "Market"]

RIVAL_MEMORY = 0.8  # of the AR(1) of the log of a rival's price
RIVAL_NOISE = 0.05  # its standard deviation
MIN_CUSTOMERS = 1e-6  # to come: at the bottom of a season, or after the last decision, there are none


class Market(Scenario):
    """What follows from the parameters of pricing and a task alone."""

    prices: tuple[float, ...]
    promotions: tuple[tuple[float, float], ...]
    base_price: float
    choke: bool
    families: tuple[str, ...]
    purchase: tuple[float, float]
    customers: float
    period: int

    # --- the candidates ---
    @cached_property
    def ladder(self) -> Ladder:
        """The candidates' prices and promotions, NumPy."""
        return Ladder.build(np.asarray(self.prices) / self.base_price, self.promotions)

    @cached_property
    def sells(self) -> np.ndarray:
        """[K] bool: whether a candidate is one at which anybody buys."""
        count = len(self.ladder.price)
        return np.arange(count) < count - (len(self.promotions) if self.choke else 0)

    def ladder_like(self, like: Array) -> Ladder:
        """The ladder in the array library and on the device of `like`."""
        if isinstance(like, np.ndarray):
            return self.ladder
        device = str(like.device)
        if device not in self._ladders:
            columns = (namespace(like).asarray(column, device=like.device) for column in self.ladder)
            self._ladders[device] = Ladder(*columns)
        return self._ladders[device]

    @cached_property
    def _ladders(self) -> dict[str, Ladder]:
        """By device, of torch: copied there once."""
        return {}

    # --- customers ---
    def angle(self, phase: Array, time: Array) -> Array:
        """[B] where in the season a decision is, of products whose `phase` had passed at the start."""
        return 2.0 * math.pi * (time * (1.0 / self.period) + phase)

    def arriving(self, task: PricingTask, time: Array) -> Array:
        """[B] mean number that come in a decision."""
        return self.customers * (1.0 + task.season * namespace(time).sin(self.angle(task.phase, time)))

    def customers_left(self, task: PricingTask, time: Array) -> Array:
        """[B] mean number from `time` to the end; sum of sines in closed form."""
        xp = namespace(time)
        step = math.pi / self.period
        left = self.horizon - time
        middle = self.angle(task.phase, time) + step * (left - 1.0)
        if self.period == 1:  # every decision is at the same point of the season
            return left * self.arriving(task, time)
        return self.customers * (left + task.season * xp.sin(middle) * xp.sin(step * left) / math.sin(step))

    # --- demand ---
    def base(self, task: PricingTask) -> Array:
        """[B, K] demand without memory, as `recgym.scenarios.pricing.demand.pull` gives it; none at the choke price."""
        demand = pull(task, self.ladder_like(task.cost))
        if self.choke:
            demand[:, -len(self.promotions) :] = 0.0
        return demand

    def next_drift(self, drift: Array, noise: Array) -> Array:
        """Log deviation of an AR(1) rival's price after one more decision; `noise` is standard normal."""
        return RIVAL_MEMORY * drift + RIVAL_NOISE * noise

    def margin(self, task: PricingTask) -> Array:
        """[B, K] reward per unit sold, in base prices."""
        return task.w_rev[:, None] * (self.ladder_like(task.cost).paid - task.cost[:, None]) + task.w_vol[:, None]

    def held(self, task: PricingTask, base: Array, reference: Array, drift: Array, time: Array) -> Array:
        """[B, K] share of the customers that would buy, if the candidate were held from `time` to the end.

        At the mean over that time of the reference price and of the rival's deviation, which is what they come to where
        demand is linear in them.
        """
        xp = namespace(base)
        ladder = self.ladder_like(base)
        left = clip(self.horizon - time, 1.0, None)

        def mean(memory: Array) -> Array:  # of memory^t over the time left
            return ((1.0 - memory**left) / (left * (1.0 - memory)))[:, None]

        reference = ladder.paid + (reference[:, None] - ladder.paid) * mean(task.memory)
        rival = rival_price(task, reference, drift[:, None] * mean(xp.full_like(left, RIVAL_MEMORY)))
        return shares(task, base, ladder, reference, rival, ladder.promoted)

    # --- units ---
    @property
    def sales_unit(self) -> float:
        """Units that a product sells at base price in one decision, on average over products; of a table: customers."""
        return self.customers * (1.0 if self.families == ("table",) else 0.5 * (self.purchase[0] + self.purchase[1]))

    def log_sales(self, share: Array) -> Array:
        """Log of the sales, in sales units, of a share of the customers; not below `MIN_SALES`."""
        all_buy = self.customers / self.sales_unit
        return namespace(share).log(clip(share * all_buy, MIN_SALES, all_buy))

    @property
    def forecast_range(self) -> tuple[float, float]:
        """The least and the largest forecast."""
        return math.log(MIN_SALES), math.log(self.customers / self.sales_unit)

    # --- a plan for the stock ---
    def fluid_action(self, margin: Array, held: Array, supply: Array) -> Array:
        """[B] action of the fluid program: of the two that it mixes, the one with the larger share.

        Args:
            margin: [B, K] reward per unit sold.
            held: [B, K] share of the customers that buy a candidate; see `held`.
            supply: [B] units left per customer to come.
        """
        reward = margin * held
        mix = fluid.solve(reward, held, supply)
        return fluid.action_of(mix, mix.weight > 0.5, reward)
