"""Dynamic pricing: which price and which promotion now, with a finite stock and a demand that must be found out?

Sources: Gallego & van Ryzin 1994, Ferreira, Simchi-Levi & Wang 2018 (finite stock, unknown demand); for demand see
`recgym.scenarios.pricing.demand`.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import gymnasium
import numpy as np

from recgym import fluid
from recgym.arrays import Array, Rng, clip, namespace, to_numpy, tree_map
from recgym.layout import CHOSEN, Field, Layout, clock, clock_fields, log_bound, log_scaled
from recgym.panels import Panel, Series
from recgym.parameters import check_number, check_range, numbers
from recgym.rng import beta
from recgym.scenario import Outcome
from recgym.scenarios.pricing import foresight
from recgym.scenarios.pricing.bound import upper_bound
from recgym.scenarios.pricing.demand import CURVES, FAMILIES, RIVALS, Ladder, PricingTask, pull, rival_price, shares
from recgym.scenarios.pricing.foresight import ELASTICITY_SPREAD, LARGEST_TRAIT, LEAST_SALES, MEDIAN_ELASTICITY

__all__ = ["DynamicPricing"]

LONGEST_HORIZON = 100_000
MOST_CUSTOMERS = 1e6  # in a decision, on average
MOST_CANDIDATES = 10_000
UNLIMITED = 2**40  # units: more than can be sold
LARGEST = 100.0  # of an observed number; what is larger is cut
LARGEST_PACE = 1e4  # sales units per decision: more stock than can be sold
RIVAL_SPREAD = 0.1  # sd of the log of the rival's usual price
RIVAL_MEMORY, RIVAL_NOISE = 0.8, 0.05  # of the AR(1) of its log price
FREE_CHANGE = 0.1  # share by which a price may move without being volatile

RANGES = {  # of the parameters that are [least, most]
    "purchase": (1e-6, 0.95),
    "cost": (0.0, LARGEST),
    "lift": (0.0, 10.0),
    "memory": (0.0, 0.99),
    "gain": (0.0, 20.0),
    "aversion": (0.0, 10.0),
    "dip": (0.0, 10.0),
    "cross": (0.0, 10.0),
    "season": (0.0, 1.0),
    "w_rev": (0.0, LARGEST),
    "w_vol": (0.0, LARGEST),
}
TASK_LIMITS: dict[str, tuple[float, float] | tuple[int, int]] = {
    **{name: RANGES[name] for name in ("purchase", "cost", "lift", "memory", "gain", "dip", "cross", "season")},
    **{name: RANGES[name] for name in ("w_rev", "w_vol")},
    "family": (0, len(FAMILIES) - 1),
    "elasticity": (1e-3, 20.0),
    "table": (0.0, 1000.0),
    "loss": (0.0, 200.0),
    "rival": (0, len(RIVALS) - 1),
    "rival_price": (0.01, LARGEST),
    "phase": (0.0, 1.0),
    "stock": (1, UNLIMITED),
}


class PricingState(NamedTuple):
    task: PricingTask
    margin: Array  # [B, K] reward per unit sold, in base prices
    pull: Array  # [B, K] demand without memory: its share of the customers, or the odds of the logit
    embedding: Array  # [B, E] what is known of the product
    forecast: Array  # [B, K] log of the sales predicted before the trial, in sales units
    stock: Array  # [B] int64 units left
    reference: Array  # [B] price that customers remember, in base prices
    drift: Array  # [B] log deviation of an AR(1) rival
    rival: Array  # [B] its price in the coming decision, in base prices
    rival_seen: Array  # [B] its price in the last one
    demand: Array  # [B, K] share of the customers that would buy in the coming decision
    worth: Array  # [B, K] expected reward of each candidate, if stock were no limit
    chosen: Array  # [B, K] float32, 1 for the candidate chosen last
    average: Array  # [B, K] exponential moving average of the sales, in sales units
    counts: Array  # [B, K] float32, how often each candidate was chosen
    exposure: Array  # [B, K] the same, log-scaled
    paid: Array  # [B] price paid in the last decision; 0 before the first
    wanted: Array  # [B] float32 units that customers wanted in the last decision
    sales: Array  # [B] float32 units sold in it
    reward: Array  # [B] last reward
    time: Array  # [B] float32 decisions made


def between(rng: Rng, limits: tuple[float, float], batch: int) -> Array:
    """[batch] uniform draws; they are made even where there is only one value, so that others stay as they are."""
    return limits[0] + (limits[1] - limits[0]) * rng.uniform((batch,))


@dataclass(frozen=True)
class DynamicPricing:
    """Choose price and promotion of a new product, sell from a finite stock, learn how demand answers.

    ## Description
    Each trial is one product and its season. M_t customers come; each buys with a probability q that depends on the
    price x paid (list price less the promotion's discount, in base prices) through a hidden demand curve: linear
    q_0 (1 - e (x - 1)), exponential q_0 exp(-e (x - 1)), constant elasticity q_0 x^-e, or multinomial logit with an
    outside option and one rival. e is the elasticity and q_0 the demand at base price in all of them. Everything else
    moves log demand (of the logit: the utility) by an amount that adds up:
    a promotion's display by log(1 + lift) display (Wittink et al. 1988); a price below the reference price r by
    gain (r - x), one above it by -loss (x - r), where r <- memory r + (1 - memory) x (Hardie et al. 1993); the decision
    after a promotion by -dip (van Heerde et al. 2000); the price y of a rival by cross log y (in the logit his utility
    moves instead, with the same elasticity at base price, which is at most `LARGEST_SHARE` of e). Every q is cut at 1.
    A rival's usual price is lognormal (`RIVAL_SPREAD`); he keeps it, lets its logarithm follow an AR(1)
    (`RIVAL_MEMORY`, `RIVAL_NOISE`), multiplies it by the reference price, or stays below `UNDERCUT` of that. Customers
    come in seasons: M_t = customers (1 + A sin(2 pi (t / period + phase))) on average, Poisson distributed. Demand is
    Binomial(M_t, q), sales are min(demand, stock).

    ## Action Space
    `Discrete(K)`: pairs of a list price and a promotion; candidate i has price i // promotions and promotion
    i % promotions.

    ## Observation Space
    The fields of `layout`. Prices are in base prices, sales in sales units: what a product sells at base price in one
    decision, on average over the products. Hidden is what decides demand: family, elasticity, demand at base price,
    lift, memory, gain, loss, dip, cross elasticity, amplitude, the rival's kind and usual price. A forecast of the
    sales of each candidate, were it held, and an embedding of the product stand for what a large model would say of it
    before the trial: both are noisy, the forecast is also miscalibrated (see `foresight`). They come with the trial's
    luck: a task that is played again with another seed has others.

    ## Rewards
    (w_rev (x - cost) + w_vol) sales, in base prices and sales units. `expected` and the best action's are means before
    stock truncates: myopic rates, also where nothing is left to sell. `bound` is an upper bound on a whole trial.

    ## Info
    `revenue` and `profit` (without cost) in money, `volume` in units; `volatility`, by how much more than `FREE_CHANGE`
    of the last one the price paid moved; `stock_out`, 1 where demand was above the stock.

    ## Starting State
    Full stock: a share of what would be sold at the best price if there were no limit. The reference price is the base
    price. Nothing sold yet; the moving averages start at one sales unit.

    ## Episode End
    Terminates after `horizon` decisions, also where the stock is gone earlier; never truncated.

    ## Arguments
    * `prices` (money): list prices, the ladder.
    * `choke` (bool): whether nobody buys at the last of them, which is known: an action that stops selling (p_infinity
      in Ferreira et al. 2018).
    * `base_price` (money): the price that elasticity and demand refer to; prices are observed in its units.
    * `promotions` (list of [depth, display]): share off the list price, and how loudly it is announced (0 to 1).
    * `horizon` (decisions, 1 to 100,000): length of a trial.
    * `families` (of "linear", "exponential", "constant", "logit"; or "table" alone): demand curves, drawn per trial.
      With "table" each candidate has a demand of its own.
    * `table` (K probabilities, or None: each uniform): demand of the family "table".
    * `elasticity` ([median, sd of the logarithm, least, most]): lognormal, cut.
    * `purchase` ([least, most], shares): customers that buy at base price, uniform; as all ranges below.
    * `customers` (mean number per decision, up to 1e6): of those who come; more make sales less noisy.
    * `poisson` (bool): whether their number is random; if not, it is the mean, rounded up or down at random.
    * `cost` ([least, most], base prices): of a unit.
    * `stock` ([least, most] share of the unconstrained optimum's sales, a whole number of units, or None: no limit).
    * `lift` ([least, most] share; [0, 0]: off): what a full display adds to demand.
    * `memory` ([least, most] share): weight of the old reference price.
    * `gain` ([least, most], log demand per base price; [0, 0]: no reference effect), `aversion` ([least, most]): loss
      over gain. The informed policy plans as if a price were held: where gains are near the largest accepted, leading
      the reference price up and down pays more, and others may earn more than it.
    * `dip` ([least, most], log demand; [0, 0]: off): lost after a promotion.
    * `rivals` (of "static", "ar1", "follower", "undercutter"; none: off): kinds, drawn per trial.
    * `cross` ([least, most]): elasticity with respect to the rival's price.
    * `season` ([least, most] share; [0, 0]: off): amplitude; `period` (decisions): its length.
    * `w_rev`, `w_vol` ([least, most]): weights of profit and of volume.
    * `embedding` (numbers, 0: off): width of the product's embedding.
    * `forecast` (log units, or None: off): standard deviation of the level error of the forecast.
    * `alpha` (share, 0 to 1): weight of the old value in the moving average of sales.
    * `statistics` (bool): show the running statistics `average` and `exposure`.

    ## Version History
    * v0: first version.
    """

    prices: tuple[float, ...] = (0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3)
    choke: bool = False
    base_price: float = 1.0
    promotions: tuple[tuple[float, float], ...] = ((0.0, 0.0), (0.1, 0.5), (0.2, 1.0))
    horizon: int = 60
    families: tuple[str, ...] = CURVES
    table: tuple[float, ...] | None = None
    elasticity: tuple[float, float, float, float] = (MEDIAN_ELASTICITY, ELASTICITY_SPREAD, 1.1, 6.0)
    purchase: tuple[float, float] = (0.02, 0.1)
    customers: float = 50.0
    poisson: bool = True
    cost: tuple[float, float] = (0.2, 0.6)
    stock: tuple[float, float] | int | None = (0.3, 1.2)
    lift: tuple[float, float] = (0.05, 0.4)
    memory: tuple[float, float] = (0.6, 0.9)
    gain: tuple[float, float] = (0.2, 1.0)
    aversion: tuple[float, float] = (1.0, 2.5)
    dip: tuple[float, float] = (0.0, 0.2)
    rivals: tuple[str, ...] = RIVALS
    cross: tuple[float, float] = (0.2, 0.8)
    season: tuple[float, float] = (0.0, 0.4)
    period: int = 12
    w_rev: tuple[float, float] = (1.0, 1.0)
    w_vol: tuple[float, float] = (0.0, 0.1)
    embedding: int = 4
    forecast: float | None = 0.3
    alpha: float = 0.9
    statistics: bool = True

    task_type: ClassVar[type] = PricingTask
    objectives: ClassVar[tuple[str, ...]] = ("revenue", "profit", "volume")
    costs: ClassVar[tuple[str, ...]] = ("volatility", "stock_out")

    def __post_init__(self) -> None:
        self._check_ladder()
        self._check_kinds()
        check_number(self, "horizon", 1, LONGEST_HORIZON, whole=True)
        check_number(self, "period", 1, LONGEST_HORIZON, whole=True)
        check_number(self, "customers", 1e-3, MOST_CUSTOMERS)
        check_number(self, "embedding", 0, 1000, whole=True)
        check_number(self, "alpha", 0.0, 1.0)
        for name in ("poisson", "choke", "statistics"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"DynamicPricing: {name} must be true or false, got {getattr(self, name)!r}")
        if self.forecast is not None:
            check_number(self, "forecast", 0.0, 10.0)
        for name, (low, high) in RANGES.items():
            check_range(self, name, low, high)
        median = numbers(self.elasticity)
        low, high = TASK_LIMITS["elasticity"]
        if median.shape != (4,) or not (low <= median[2] <= median[0] <= median[3] <= high and 0 <= median[1] <= 10.0):
            wanted = f"[median, sd of the logarithm, least, most] with {low:g} <= least <= median <= most <= {high:g}"
            raise ValueError(f"DynamicPricing: elasticity must be {wanted}, got {self.elasticity!r}")
        object.__setattr__(self, "elasticity", tuple(median.tolist()))
        if isinstance(self.stock, int | np.integer) and not isinstance(self.stock, bool):
            check_number(self, "stock", 1, UNLIMITED, whole=True)
        elif isinstance(self.stock, list | tuple):
            check_range(self, "stock", 1e-6, 1e6)
        elif self.stock is not None:
            wanted = "a whole number of units, [least, most] shares, or None"
            raise ValueError(f"DynamicPricing: stock must be {wanted}, got {self.stock!r}")
        if not 0.5 * min(self.prices) <= self.base_price <= 2.0 * max(self.prices):
            ladder = f"{min(self.prices):g} to {max(self.prices):g}"
            given = f"base_price {self.base_price:g} is far from the prices {ladder}"
            advice = "demand, cost and stock refer to it: give the usual price in the same money"
            warnings.warn(f"DynamicPricing: {given}: {advice}", UserWarning, stacklevel=3)
        dearest = float(self.ladder.paid[self.sells].max())
        if self.cost[1] >= dearest:
            what = f"cost reaches {self.cost[1]:g} base prices, and the highest price paid is {dearest:g}"
            warnings.warn(f"DynamicPricing: {what}: such a product loses on every sale", UserWarning, stacklevel=3)

    def _check_ladder(self) -> None:
        """Refuse prices, promotions and base price that make no ladder."""
        check_number(self, "base_price", 1e-6, 1e9)
        prices, promotions = numbers(self.prices), numbers(self.promotions)
        usual = prices / self.base_price
        if prices.ndim != 1 or prices.size == 0 or not np.all((usual >= 1e-3) & (usual <= 1e3)):
            wanted = "a list of prices from .001 to 1,000 base prices"
            raise ValueError(f"DynamicPricing: prices must be {wanted}, got {self.prices!r}")
        wanted = "a list of [depth, display] with a depth from 0 to below 1 and a display from 0 to 1"
        right = promotions.ndim == 2 and promotions.shape[1:] == (2,) and promotions.size > 0
        if not right or not np.all((promotions >= 0) & (promotions <= (0.999, 1.0))):
            raise ValueError(f"DynamicPricing: promotions must be {wanted}, got {self.promotions!r}")
        if self.choke and len(prices) < 2:
            raise ValueError(f"DynamicPricing: choke needs another price to sell at, got prices {self.prices!r}")
        if len(prices) * len(promotions) > MOST_CANDIDATES:
            given = f"{len(prices)} x {len(promotions)}"
            what = f"prices and promotions must make at most {MOST_CANDIDATES:,} candidates, got {given}"
            raise ValueError(f"DynamicPricing: {what}")
        object.__setattr__(self, "prices", tuple(prices.tolist()))
        object.__setattr__(self, "promotions", tuple(map(tuple, promotions.tolist())))

    def _check_kinds(self) -> None:
        """Refuse families and rivals that do not exist, and a table that does not go with them."""
        for name, known in (("families", FAMILIES), ("rivals", RIVALS)):
            value = getattr(self, name)
            given = tuple(value) if isinstance(value, list | tuple) else (value,)
            wrong = [kind for kind in given if kind not in known]
            if wrong or len(set(given)) < len(given) or (name == "families" and not given):
                raise ValueError(f"DynamicPricing: {name} must be some of {', '.join(known)}, got {value!r}")
            object.__setattr__(self, name, given)
        if "table" in self.families and len(self.families) > 1:
            raise ValueError(f"DynamicPricing: families must be 'table' alone or without it, got {self.families!r}")
        if self.table is not None:
            table = numbers(self.table)
            if self.families != ("table",) or table.shape != (self.layout.candidates,):
                wanted = f"{self.layout.candidates} probabilities, with families ['table']"
                raise ValueError(f"DynamicPricing: table must be {wanted}, got {self.table!r}")
            if not np.all((table >= 0) & (table <= 1)):
                raise ValueError(f"DynamicPricing: table must hold probabilities, got {self.table!r}")
            object.__setattr__(self, "table", tuple(table.tolist()))

    # --- the trial ---
    def sample_task(self, rng: Rng, batch: int) -> PricingTask:
        xp, device = rng.xp, rng.device

        def kind(kinds: tuple[str, ...], known: tuple[str, ...]) -> Array:
            drawn = rng.uniform((batch,))
            index = xp.asarray([known.index(name) for name in kinds] or [0], dtype=xp.int64, device=device)
            return index[xp.astype(drawn * max(len(kinds), 1), xp.int64)]

        median, spread, least, most = self.elasticity
        elasticity = clip(xp.exp(math.log(median) + spread * rng.normal((batch,))), least, most)
        rival_price = xp.exp(clip(RIVAL_SPREAD * rng.normal((batch,)), -0.5, 0.5))
        family, rival = kind(self.families, FAMILIES), kind(self.rivals, RIVALS)
        purchase, lift, memory = (between(rng, limits, batch) for limits in (self.purchase, self.lift, self.memory))
        gain, aversion = between(rng, self.gain, batch), between(rng, self.aversion, batch)
        dip, cross, season = (between(rng, limits, batch) for limits in (self.dip, self.cross, self.season))
        phase = between(rng, (0.0, float(self.season[1] > 0)), batch)  # without a season it would be noise to see
        cost = between(rng, self.cost, batch)
        w_rev, w_vol = between(rng, self.w_rev, batch), between(rng, self.w_vol, batch)
        share = between(rng, self.stock if isinstance(self.stock, tuple) else (0.0, 0.0), batch)
        shape = (batch, self.layout.candidates)
        if self.table is not None:
            given = xp.asarray(self.table, dtype=xp.float32, device=device)
            table = xp.broadcast_to(given, shape) + 0.0
        elif self.families == ("table",):
            table = beta(rng, 1.0, 1.0, shape)
        else:
            table = xp.ones(shape, dtype=xp.float32, device=device)
        if not self.rivals:
            rival_price, cross = xp.ones_like(rival_price), xp.zeros_like(cross)
        units = xp.full((batch,), UNLIMITED if self.stock is None else 1, dtype=xp.int64, device=device)
        task = PricingTask(
            family, elasticity, purchase, table, lift, memory, gain, gain * aversion, dip, rival, rival_price, cross,
            season, phase, cost, units, w_rev, w_vol,
        )  # fmt: skip
        if isinstance(self.stock, tuple):  # of what the best price would sell, held for the whole trial
            start = xp.zeros_like(cost)
            held = self.held(task, self.base(task), start + 1.0, start, start)
            best = xp.argmax(self.margin(task) * held, axis=1)
            sold = share * held[xp.arange(batch, device=device), best] * self.customers_left(task, start)
            task = task._replace(stock=clip(xp.astype(xp.round(sold), xp.int64), 1, UNLIMITED))
        elif self.stock is not None:
            task = task._replace(stock=units * int(self.stock))
        return task

    def reset(self, task: PricingTask, rng: Rng) -> PricingState:
        xp = rng.xp
        none = xp.zeros_like(task.table)
        start = none[:, 0]
        rival = rival_price(task, none[:, :1] + 1.0, none[:, :1])[:, 0]
        base = self.base(task)
        known = foresight.embed(task, self.embedding, rng) if self.embedding else none[:, :0]
        forecast = none
        if self.forecast is not None:
            truth = self.log_sales(self.held(task, base, start + 1.0, start, start))
            told = foresight.forecast(truth, xp.log(self._on(start).paid), self.forecast, rng)
            forecast = clip(told, *self._forecasts)
        state = PricingState(
            task, self.margin(task), base, known, forecast, task.stock + 0, reference=start + 1.0, drift=start,
            rival=rival, rival_seen=rival, demand=none, worth=none, chosen=none, average=none + 1.0, counts=none,
            exposure=none, paid=start, wanted=start, sales=start, reward=start, time=start,
        )  # fmt: skip
        return self._open(state, start)

    def step(self, state: PricingState, action: Array, rng: Rng) -> Outcome[PricingState]:
        xp, task, shown = rng.xp, state.task, (rng.xp.arange(action.shape[0], device=rng.device), action)
        noise = rng.normal((action.shape[0],))
        mean = self.arriving(task, state.time)
        come = rng.poisson(mean) if self.poisson else self._whole(mean, rng)
        wanted = rng.binomial(come, state.demand[shown])
        sold = xp.minimum(wanted, state.stock)
        sales = xp.astype(sold, xp.float32)
        ladder = self._on(state.reward)
        paid, promoted = ladder.paid[action], ladder.promoted[action]
        expected = state.worth[shown]
        profit = (paid - task.cost) * sales
        reward = (task.w_rev * profit + task.w_vol * sales) / self.sales_unit

        average, counts = state.average + 0.0, state.counts + 0.0  # copies, to be written at one candidate per row
        average[shown] = self.alpha * average[shown] + (1.0 - self.alpha) * clip(sales / self.sales_unit, 0, LARGEST)
        counts[shown] += 1.0
        exposure, chosen = state.exposure + 0.0, xp.zeros_like(counts)
        exposure[shown] = log_scaled(counts[shown])
        chosen[shown] = 1.0
        before = xp.where(state.time > 0, state.paid, paid)
        volatility = clip(xp.abs(paid / before - 1.0) - FREE_CHANGE, 0.0, LARGEST)
        reference = task.memory * state.reference + (1.0 - task.memory) * paid
        drift = self.next_drift(state.drift, noise)
        time = state.time + 1.0
        after = state._replace(
            stock=state.stock - sold, reference=reference, drift=drift, rival_seen=state.rival,
            rival=rival_price(task, reference[:, None], drift[:, None])[:, 0], chosen=chosen, average=average,
            counts=counts, exposure=exposure, paid=paid, wanted=xp.astype(wanted, xp.float32), sales=sales,
            reward=reward, time=time,
        )  # fmt: skip
        objectives = xp.stack([self.base_price * paid * sales, self.base_price * profit, sales], axis=1)
        costs = xp.stack([volatility, xp.astype(wanted > state.stock, xp.float32)], axis=1)
        return Outcome(self._open(after, promoted), reward, expected, objectives, costs, time >= self.horizon)

    def observe(self, state: PricingState) -> Array:
        xp, task = namespace(state.reward), state.task
        ladder = self._on(state.reward)
        context = clock(state, self.horizon)
        context["last_reward"] = clip(state.reward, -LARGEST, LARGEST)
        stock = xp.astype(state.stock, xp.float32)
        pace = stock / (clip(self.horizon - state.time, 1.0, None) * self.sales_unit)
        angle = self._angle(task, state.time)
        context |= {
            "last_sales": clip(state.sales / self.sales_unit, 0.0, LARGEST),
            "stock": stock / xp.astype(task.stock, xp.float32),
            "pace": xp.log(1.0 + clip(pace, 0.0, LARGEST_PACE)),
            "reference": state.reference,
            "rival": clip(state.rival_seen, 0.0, LARGEST),
            "season_sin": xp.sin(angle),
            "season_cos": xp.cos(angle),
            "w_rev": task.w_rev,
            "w_vol": task.w_vol,
            "embedding": state.embedding,
        }
        candidate = {name: getattr(ladder, name)[None] for name in ("price", "depth", "display", "paid")}
        candidate |= {"cost": task.cost[:, None], "chosen": state.chosen, "forecast": state.forecast}
        candidate |= {"average": state.average, "exposure": state.exposure}
        return self.layout.join(context, candidate)

    # --- the market ---
    def base(self, task: PricingTask) -> Array:
        """[B, K] demand without memory, as `recgym.scenarios.pricing.demand.pull` gives it; none at the choke price."""
        demand = pull(task, self._on(task.cost))
        if self.choke:
            demand[:, -len(self.promotions) :] = 0.0
        return demand

    def arriving(self, task: PricingTask, time: Array) -> Array:
        """[B] mean number that come in a decision."""
        return self.customers * (1.0 + task.season * namespace(time).sin(self._angle(task, time)))

    def _angle(self, task: PricingTask, time: Array) -> Array:
        """[B] where in the season a decision is."""
        return 2.0 * math.pi * (time * (1.0 / self.period) + task.phase)

    def _whole(self, mean: Array, rng: Rng) -> Array:
        """[B] int64: the mean rounded up or down, at random so that it stays the mean."""
        xp = rng.xp
        least = xp.floor(mean)
        return xp.astype(least, xp.int64) + xp.astype(rng.uniform(tuple(mean.shape)) < mean - least, xp.int64)

    def customers_left(self, task: PricingTask, time: Array) -> Array:
        """[B] mean number from `time` to the end; sum of sines in closed form."""
        xp, step, left = namespace(time), math.pi / self.period, self.horizon - time
        middle = self._angle(task, time) + step * (left - 1.0)
        if self.period == 1:  # every decision is at the same point of the season
            return left * self.arriving(task, time)
        return self.customers * (left + task.season * xp.sin(middle) * xp.sin(step * left) / math.sin(step))

    def next_drift(self, drift: Array, noise: Array) -> Array:
        """Log deviation of an AR(1) rival's price after one more decision; `noise` is standard normal."""
        return RIVAL_MEMORY * drift + RIVAL_NOISE * noise

    def margin(self, task: PricingTask) -> Array:
        """[B, K] reward per unit sold, in base prices."""
        return task.w_rev[:, None] * (self._on(task.cost).paid - task.cost[:, None]) + task.w_vol[:, None]

    def _open(self, state: PricingState, promoted: Array) -> PricingState:
        """The state before a decision, with the demand it meets; `promoted` [B]: whether the last was a promotion."""
        task = state.task
        reference, rival = state.reference[:, None], state.rival[:, None]
        demand = shares(task, state.pull, self._on(state.reward), reference, rival, promoted[:, None])
        rate = self.arriving(task, state.time) / self.sales_unit
        return state._replace(demand=demand, worth=state.margin * demand * rate[:, None])

    def log_sales(self, share: Array) -> Array:
        """Log of the sales, in sales units, of a share of the customers; not below `LEAST_SALES`."""
        xp, all_buy = namespace(share), self.customers / self.sales_unit
        return xp.log(clip(share * all_buy, LEAST_SALES, all_buy))

    @property
    def _forecasts(self) -> tuple[float, float]:
        """The least and the largest forecast."""
        return math.log(LEAST_SALES), math.log(self.customers / self.sales_unit)

    # --- the optimum ---
    def best_reward(self, state: PricingState) -> Array:
        return namespace(state.worth).max(state.worth, axis=1)

    def informed_action(self, state: PricingState) -> Array:
        """As if the candidate chosen were held to the end: near the bound where demand remembers as much as by default,
        far from it where it pays to raise the reference price first."""
        task = state.task
        held = self.held(task, state.pull, state.reference, state.drift, state.time)
        left = clip(self.customers_left(task, state.time), 1e-6, None)  # none come at the bottom of a season
        return self.plan(state.margin, held, namespace(held).astype(state.stock, held.dtype) / left)

    def bound(self, state: PricingState) -> np.ndarray:
        """[B] float64 upper bound on the expected return of any policy, from the start of a trial."""
        return upper_bound(self, tree_map(to_numpy, state))

    def plan(self, margin: Array, held: Array, supply: Array) -> Array:
        """[B] action of the fluid program: of the two that it mixes, the one with the larger share.

        Args:
            margin: [B, K] reward per unit sold.
            held: [B, K] share of the customers that buy a candidate; see `held`.
            supply: [B] units left per customer to come.
        """
        reward = margin * held
        mix = fluid.solve(reward, held, supply)
        return fluid.action_of(mix, mix.weight > 0.5, reward)

    def candidate_rewards(self, state: PricingState) -> tuple[Array, Array | None]:
        return state.worth, state.margin * state.average if self.statistics else None

    def trace(self, state: PricingState) -> dict[str, Array]:
        """[B] prices in money; demand, sales and stock in units."""
        xp, ladder, price = namespace(state.reward), self._on(state.reward), self.base_price
        return {
            "list": price * xp.sum(state.chosen * ladder.price, axis=1),
            "paid": price * xp.sum(state.chosen * ladder.paid, axis=1),
            "display": xp.sum(state.chosen * ladder.display, axis=1),
            "reference": price * state.reference,
            "rival": price * state.rival_seen,
            "demand": state.wanted,
            "sales": state.sales,
            "stock": state.stock,
        }

    @cached_property
    def panels(self) -> tuple[Panel, ...]:
        """What `trace` says, less what these parameters leave without a meaning."""
        prices = [Series("paid", "price paid", "step")]
        if self.ladder.promoted.any():
            prices.append(Series("list", "list price", "step"))
            prices.append(Series("display", "promotion (darker: louder)", "band"))
        if self.gain[1] > 0:
            prices.append(Series("reference", "reference price", "line"))
        if self.rivals:
            prices.append(Series("rival", "rival's price", "step"))
        missed = Series("demand", "demand (seen where it exceeds them)", "bars")
        units = Panel("sales (units)", (Series("sales", "sales", "bars"), missed))
        stock = Panel("stock (units)", (Series("stock", "stock", "area"),))
        return (Panel("price (money)", tuple(prices)), units, *(() if self.stock is None else (stock,)))

    @cached_property
    def candidate_names(self) -> tuple[str, ...]:
        """List price and promotion."""
        depths = [depth for depth, _ in self.promotions]
        names = []
        for depth, display in self.promotions:
            plain = depths.count(depth) == 1
            names.append((f" -{100 * depth:.10g}%" if depth else "") + ("" if plain else f" display {display:g}"))
        return tuple(f"{price:.10g}{name}" for price in self.prices for name in names)

    def held(self, task: PricingTask, base: Array, reference: Array, drift: Array, time: Array) -> Array:
        """[B, K] share of the customers that would buy, if the candidate were held from `time` to the end.

        At the mean over that time of the reference price and of the rival's deviation, which is what they come to where
        demand is linear in them.
        """
        xp, ladder = namespace(base), self._on(base)
        left = clip(self.horizon - time, 1.0, None)

        def mean(memory: Array) -> Array:  # of memory^t over the time left
            return ((1.0 - memory**left) / (left * (1.0 - memory)))[:, None]

        reference = ladder.paid + (reference[:, None] - ladder.paid) * mean(task.memory)
        rival = rival_price(task, reference, drift[:, None] * mean(xp.full_like(left, RIVAL_MEMORY)))
        return shares(task, base, ladder, reference, rival, ladder.promoted)

    # --- spaces ---
    @cached_property
    def ladder(self) -> Ladder:
        """The candidates' prices and promotions, NumPy."""
        return Ladder.build(np.asarray(self.prices) / self.base_price, self.promotions)

    @cached_property
    def sells(self) -> np.ndarray:
        """[K] bool: whether a candidate is one at which anybody buys."""
        count = len(self.ladder.price)
        return np.arange(count) < count - (len(self.promotions) if self.choke else 0)

    def _on(self, like: Array) -> Ladder:
        """The ladder in the array library and on the device of `like`."""
        if isinstance(like, np.ndarray):
            return self.ladder
        if str(like.device) not in self._ladders:
            columns = (namespace(like).asarray(column, device=like.device) for column in self.ladder)
            self._ladders[str(like.device)] = Ladder(*columns)
        return self._ladders[str(like.device)]

    @cached_property
    def _ladders(self) -> dict[str, Ladder]:
        """By device, of torch: copied there once."""
        return {}

    @property
    def sales_unit(self) -> float:
        """Units that a product sells at base price in one decision, on average over products; of a table: customers."""
        return self.customers * (1.0 if self.families == ("table",) else 0.5 * (self.purchase[0] + self.purchase[1]))

    @cached_property
    def layout(self) -> Layout:
        dearest, cheapest = max(1.0, float(self.ladder.paid.max())), min(1.0, float(self.ladder.paid.min()))
        context = [
            *clock_fields(self.horizon, reward=(-LARGEST, LARGEST)),
            Field("last_sales", 0.0, LARGEST, "units sold in the last decision, in sales units", role="outcome"),
            Field("stock", 0.0, 1.0, "share of the stock that is left", role="market"),
            Field(
                "pace",
                0.0,
                1.001 * math.log1p(LARGEST_PACE),
                "log(1 + sales units left over decisions left)",
                role="market",
            ),
            Field(
                "reference",
                0.999 * cheapest,
                1.001 * dearest,
                "price that customers remember, in base prices",
                role="market",
            ),
            Field("rival", 0.0, LARGEST, "the rival's last price, in base prices", role="market"),
            Field("season_sin", -1.0, 1.0, "sine of the season's phase", role="market"),
            Field("season_cos", -1.0, 1.0, "cosine of the season's phase", role="market"),
            Field("w_rev", 0.0, LARGEST, "weight of the profit in the reward", role="preference"),
            Field("w_vol", 0.0, LARGEST, "weight of the units sold in the reward, in base prices", role="preference"),
        ]
        if self.embedding:
            meaning = "what is known of the product before the trial"
            context.append(Field("embedding", -LARGEST_TRAIT, LARGEST_TRAIT, meaning, self.embedding))
        candidate = [
            Field("price", 0.0, 1.001 * float(self.ladder.price.max()), "list price, in base prices"),
            Field("depth", 0.0, 1.0, "share that the promotion takes off it"),
            Field("display", 0.0, 1.0, "how strongly the promotion is announced"),
            Field("paid", 0.0, 1.001 * float(self.ladder.paid.max()), "price that is left, in base prices"),
            Field("cost", 0.0, LARGEST, "cost of a unit, in base prices"),
            CHOSEN,
        ]
        if self.forecast is not None:
            least, most = (value * 1.001 for value in self._forecasts)
            candidate.append(Field("forecast", least, most, "log of the sales units per decision that are predicted"))
        if self.statistics:
            candidate += [
                Field(
                    "average",
                    0.0,
                    1.001 * LARGEST,
                    "moving average of its sales, in sales units; starts at 1",
                    role="statistic",
                ),
                Field("exposure", 0.0, log_bound(self.horizon), "log(1 + times chosen) / log(1001)", role="statistic"),
            ]
        return Layout(tuple(context), tuple(candidate), len(self.ladder.paid))

    @cached_property
    def observation_space(self) -> gymnasium.spaces.Box:
        return self.layout.box()

    @cached_property
    def action_space(self) -> gymnasium.spaces.Discrete:
        return gymnasium.spaces.Discrete(len(self.ladder.paid))

    @cached_property
    def task_space(self) -> gymnasium.spaces.Dict:
        spaces: dict[str, gymnasium.Space[Any]] = {}
        for name in PricingTask._fields:
            low, high = TASK_LIMITS[name]
            whole = np.int64 if isinstance(high, int) else np.float32
            shape = (len(self.ladder.paid),) if name == "table" else ()
            spaces[name] = gymnasium.spaces.Box(low, high, shape, whole)
        return gymnasium.spaces.Dict(spaces)
