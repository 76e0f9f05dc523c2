"""Dynamic pricing: which price and which promotion now, with a finite stock and a demand that must be found out?

Sources: Gallego & van Ryzin 1994, Ferreira, Simchi-Levi & Wang 2018 (finite stock, unknown demand); for demand see
`recgym.scenarios.pricing.demand`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import gymnasium
import numpy as np

from recgym.arrays import Array, Rng, clip, columns, namespace, rows_of
from recgym.layout import Layout, log_scaled
from recgym.panels import Panel
from recgym.parameters import param
from recgym.scenario import Account, Response, Seen, State
from recgym.scenarios.pricing import foresight, pictures
from recgym.scenarios.pricing.bound import upper_bound
from recgym.scenarios.pricing.checks import check_elasticity, check_kinds, check_ladder, check_stock, warn_of_losses
from recgym.scenarios.pricing.demand import CURVES, FAMILIES, RIVALS, PricingTask, rival_price, shares
from recgym.scenarios.pricing.foresight import ELASTICITY_SPREAD, MAX_TRAIT, MEDIAN_ELASTICITY
from recgym.scenarios.pricing.market import MIN_CUSTOMERS, Market
from recgym.scenarios.pricing.observation import pricing_layout, pricing_observation
from recgym.scenarios.pricing.products import MAX_NUMBER, TASK_LIMITS, UNLIMITED, sample_products

__all__ = ["DynamicPricing", "PricingOffer", "Sales"]

MAX_HORIZON = 100_000
MAX_CUSTOMERS = 1e6  # in a decision, on average
MAX_EMBEDDING = 1_000
MAX_RIVAL = 1e6  # base prices, of a rival's price that a live session is told
FREE_CHANGE = 0.1  # share by which a price may move without being volatile
UNIFORM = "[least, most] of a uniform distribution over products"


class PricingHidden(NamedTuple):
    margin: Array  # [B, K] reward per unit sold, in base prices
    pull: Array  # [B, K] demand without memory: its share of the customers, or the odds of the logit
    reference: Array  # [B] price that customers remember, in base prices
    drift: Array  # [B] log deviation of an AR(1) rival
    rival: Array  # [B] its price in the coming decision, in base prices
    demand: Array  # [B, K] share of the customers that would buy in the coming decision
    worth: Array  # [B, K] expected reward of each candidate, if stock were no limit
    wanted: Array  # [B] float32 units that customers wanted in the last decision


class PricingOffer(NamedTuple):
    """What is known of a product before a decision; the first seven stay as they are for the whole trial."""

    embedding: Array  # [B, E] what is known of the product
    forecast: Array  # [B, K] log of the sales predicted before the trial, in sales units
    phase: Array  # [B] share of a season that has passed at the start
    cost: Array  # [B] of a unit, in base prices
    supply: Array  # [B] int64 units at the start
    w_rev: Array  # [B] weight of the profit in the reward
    w_vol: Array  # [B] weight of the units sold, in base prices
    reference: Array  # [B] price that customers remember, in base prices
    rival_seen: Array  # [B] the rival's last price, in base prices


class Sales(NamedTuple):
    sold: Array  # [B] int64 units
    short: Array  # [B] bool: customers wanted more than there was


class PricingKept(NamedTuple):
    stock: Array  # [B] int64 units left
    chosen: Array  # [B, K] float32, 1 for the candidate chosen last
    average: Array  # [B, K] exponential moving average of the sales, in sales units
    counts: Array  # [B, K] float32, how often each candidate was chosen
    exposure: Array  # [B, K] the same, log-scaled
    paid: Array  # [B] price paid in the last decision; 0 before the first
    sales: Array  # [B] float32 units sold in it


def ranged(default: tuple[float, float], name: str, unit: str, effect: str) -> Any:
    """A parameter [least, most] of a field of the task, uniform over products."""
    low, high = TASK_LIMITS[name]
    return param(default, float(low), float(high), unit, effect, kind="range")


def box_of(name: str, *shape: int) -> gymnasium.spaces.Box:
    """The space of a field of the task."""
    low, high = TASK_LIMITS[name]
    whole = np.int64 if isinstance(high, int) else np.float32
    return gymnasium.spaces.Box(low, high, shape, whole)


@dataclass(frozen=True)
class DynamicPricing(Market):
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
    moves instead, with the same elasticity at base price, which is at most `MAX_SHARE` of e). Every q is cut at 1.
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

    ## Version History
    * v0: first version.
    """

    prices: tuple[float, ...] = param(
        (0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3), unit="money", effect="list prices, the ladder", kind="other"
    )
    choke: bool = param(
        False,
        effect="whether nobody buys at the last of them, which is known: an action that stops selling (p_infinity in "
        "Ferreira et al. 2018)",
    )
    base_price: float = param(
        1.0, 1e-6, 1e9, "money", "the price that elasticity and demand refer to; prices are observed in its units"
    )
    promotions: tuple[tuple[float, float], ...] = param(
        ((0.0, 0.0), (0.1, 0.5), (0.2, 1.0)),
        unit="list of [depth, display]",
        effect="share off the list price, and how loudly it is announced, 0 to 1",
    )
    horizon: int = param(60, 1, MAX_HORIZON, "decisions", "length of a trial")
    families: tuple[str, ...] = param(
        CURVES,
        unit=f"of {', '.join(CURVES)}; or table alone",
        effect="demand curves, drawn per trial; with a table each candidate has a demand of its own",
    )
    table: tuple[float, ...] | None = param(
        None, unit="K probabilities, or None: each uniform", effect="demand of the family of tables", kind="other"
    )
    elasticity: tuple[float, float, float, float] = param(
        (MEDIAN_ELASTICITY, ELASTICITY_SPREAD, 1.1, 6.0),
        unit="[median, sd of the logarithm, least, most]",
        effect="price elasticity of demand at base price, lognormal, cut",
    )
    purchase: tuple[float, float] = ranged(
        (0.02, 0.1), "purchase", "shares", f"customers that buy at base price; {UNIFORM}, as all ranges"
    )
    customers: float = param(
        50.0, 1e-3, MAX_CUSTOMERS, "mean number per decision", "of those who come; more make sales less noisy"
    )
    poisson: bool = param(
        True, effect="whether their number is random; if not, it is the mean, rounded up or down at random"
    )
    cost: tuple[float, float] = ranged((0.2, 0.6), "cost", "base prices", "of a unit")
    stock: tuple[float, float] | int | None = param(
        (0.3, 1.2),
        unit="[least, most] share of the unconstrained optimum's sales, a whole number of units, or None: no limit",
        effect="units to sell in a trial. The informed policy plans for many: with a handful of units waiting for a "
        "buyer at a higher price pays more, and others may earn a hundredth or two more than it",
        kind="other",
    )
    lift: tuple[float, float] = ranged((0.05, 0.4), "lift", "share", "what a full display adds to demand; zeros: off")
    memory: tuple[float, float] = ranged((0.6, 0.9), "memory", "share", "weight of the old reference price")
    gain: tuple[float, float] = ranged(
        (0.2, 1.0),
        "gain",
        "log demand per base price",
        "effect of a price below the reference price; zeros: off. The informed policy plans as if a price were held: "
        "where gains are near the largest accepted, leading the reference price up and down pays more, and others may "
        "earn more than it",
    )
    aversion: tuple[float, float] = param((1.0, 2.5), 0.0, 10.0, "ratio", "loss over gain")
    dip: tuple[float, float] = ranged(
        (0.0, 0.2), "dip", "log demand", "lost in the decision after a promotion; zeros: off"
    )
    rivals: tuple[str, ...] = param(
        RIVALS, unit=f"of {', '.join(RIVALS)}; none: off", effect="kinds of rival, drawn per trial"
    )
    cross: tuple[float, float] = ranged(
        (0.2, 0.8), "cross", "elasticity", "of demand with respect to the rival's price"
    )
    season: tuple[float, float] = ranged(
        (0.0, 0.4), "season", "share", "amplitude of the number of customers; zeros: off"
    )
    period: int = param(12, 1, MAX_HORIZON, "decisions", "length of a season")
    w_rev: tuple[float, float] = ranged((1.0, 1.0), "w_rev", "weight", "of the profit in the reward")
    w_vol: tuple[float, float] = ranged((0.0, 0.1), "w_vol", "base prices", "weight of the units sold in the reward")
    embedding: int = param(4, 0, MAX_EMBEDDING, "numbers", "width of the product's embedding; 0: off")
    forecast: float | None = param(
        0.3,
        0.0,
        10.0,
        "log units",
        "standard deviation of the level error of the forecast; without a number there is none",
        optional=True,
    )
    alpha: float = param(0.9, 0.0, 1.0, "share", "weight of the old value in the moving average of sales")
    statistics: bool = param(True, effect="show the running statistics `average` and `exposure`")

    family: ClassVar[str] = "recgym.baselines.pricing:FAMILY"
    task_type: ClassVar[type] = PricingTask
    offer_type: ClassVar[type] = PricingOffer
    feedback_type: ClassVar[type] = Sales
    objectives: ClassVar[tuple[str, ...]] = ("revenue", "profit", "volume")
    costs: ClassVar[tuple[str, ...]] = ("volatility", "stock_out")
    labels: ClassVar[Mapping[str, Mapping[int, str]]] = {
        "family": dict(enumerate(FAMILIES)),
        "rival": dict(enumerate(RIVALS)),
        "stock": {UNLIMITED: "without limit"},
    }
    myopic: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ladder(self)
        check_kinds(self)
        check_elasticity(self)
        check_stock(self)
        warn_of_losses(self)

    # --- the world ---
    def sample_task(self, rng: Rng, batch: int) -> PricingTask:
        return sample_products(self, rng, batch)

    def begin(self, task: PricingTask, rng: Rng) -> tuple[PricingHidden, PricingOffer]:
        xp = rng.xp
        none = xp.zeros_like(task.table)
        start = none[:, 0]
        rival = rival_price(task, none[:, :1] + 1.0, none[:, :1])[:, 0]
        base = self.base(task)
        embedding = foresight.embed(task, self.embedding, rng) if self.embedding else none[:, :0]
        forecast = none
        if self.forecast is not None:
            truth = self.log_sales(self.held(task, base, start + 1.0, start, start))
            noisy = foresight.forecast(truth, xp.log(self.ladder_like(start).paid), self.forecast, rng)
            forecast = clip(noisy, *self.forecast_range)
        offer = PricingOffer(
            embedding=embedding,
            forecast=forecast,
            phase=task.phase,
            cost=task.cost,
            supply=task.stock,
            w_rev=task.w_rev,
            w_vol=task.w_vol,
            reference=start + 1.0,
            rival_seen=rival,
        )
        return self._meet(task, self.margin(task), base, offer.reference, start, rival, start, start, start), offer

    def respond(self, state: State, action: Array, rng: Rng) -> tuple[PricingHidden, Response]:
        xp = rng.xp
        task, hidden, seen = state
        shown = (rows_of(action), action)
        noise = rng.normal((action.shape[0],))
        mean = self.arriving(task, seen.time)
        come = rng.poisson(mean) if self.poisson else self._whole(mean, rng)
        wanted = rng.binomial(come, hidden.demand[shown])
        sold = xp.minimum(wanted, seen.kept.stock)
        ladder = self.ladder_like(seen.reward)
        reference = task.memory * hidden.reference + (1.0 - task.memory) * ladder.paid[action]
        drift = self.next_drift(hidden.drift, noise)
        rival = rival_price(task, reference[:, None], drift[:, None])[:, 0]
        promoted = ladder.promoted[action]
        time = seen.time + 1.0
        units = xp.astype(wanted, xp.float32)
        after = self._meet(task, hidden.margin, hidden.pull, reference, drift, rival, promoted, time, units)
        offer = seen.offer._replace(reference=reference, rival_seen=hidden.rival)
        return after, Response(Sales(sold, wanted > seen.kept.stock), offer, hidden.worth[shown])

    def _meet(
        self,
        task: PricingTask,
        margin: Array,
        pull: Array,
        reference: Array,
        drift: Array,
        rival: Array,
        promoted: Array,
        time: Array,
        wanted: Array,
    ) -> PricingHidden:
        """The world before the decision at `time` [B], with the demand it meets; `promoted` [B]: after a promotion."""
        ladder = self.ladder_like(margin)
        demand = shares(task, pull, ladder, reference[:, None], rival[:, None], promoted[:, None])
        rate = self.arriving(task, time) / self.sales_unit
        worth = margin * demand * rate[:, None]
        return PricingHidden(margin, pull, reference, drift, rival, demand, worth, wanted)

    def _whole(self, mean: Array, rng: Rng) -> Array:
        """[B] int64: the mean rounded up or down, at random so that it stays the mean."""
        xp = rng.xp
        least = xp.floor(mean)
        return xp.astype(least, xp.int64) + xp.astype(rng.uniform(tuple(mean.shape)) < mean - least, xp.int64)

    # --- the bookkeeping ---
    def open(self, offer: PricingOffer) -> PricingKept:
        none = namespace(offer.forecast).zeros_like(offer.forecast)
        start = none[:, 0]
        return PricingKept(offer.supply + 0, none, none + 1.0, none, none, start, start)

    def account(self, seen: Seen, action: Array, feedback: Sales) -> Account:
        xp = namespace(seen.reward)
        offer = seen.offer
        paid = self.ladder_like(seen.reward).paid[action]
        sales = xp.astype(feedback.sold, xp.float32)
        profit = (paid - offer.cost) * sales
        reward = (offer.w_rev * profit + offer.w_vol * sales) / self.sales_unit
        before = xp.where(seen.time > 0, seen.kept.paid, paid)
        volatility = clip(xp.abs(paid / before - 1.0) - FREE_CHANGE, 0.0, MAX_NUMBER)
        objectives = columns(self.base_price * paid * sales, self.base_price * profit, sales)
        costs = columns(volatility, xp.astype(feedback.short, xp.float32))
        return Account(reward, objectives, costs)

    def update(self, seen: Seen, action: Array, feedback: Sales) -> PricingKept:
        xp = namespace(seen.reward)
        shown = (rows_of(action), action)
        sales = xp.astype(feedback.sold, xp.float32)
        average = seen.kept.average + 0.0  # copies, to be written at one candidate per row
        counts = seen.kept.counts + 0.0
        exposure = seen.kept.exposure + 0.0
        chosen = xp.zeros_like(counts)
        average[shown] = self.alpha * average[shown] + (1.0 - self.alpha) * clip(sales / self.sales_unit, 0, MAX_NUMBER)
        counts[shown] += 1.0
        exposure[shown] = log_scaled(counts[shown])
        chosen[shown] = 1.0
        paid = self.ladder_like(seen.reward).paid[action]
        return PricingKept(seen.kept.stock - feedback.sold, chosen, average, counts, exposure, paid, sales)

    def impossible(self, seen: Seen, action: Array, feedback: Sales) -> str:
        left = feedback.short & (feedback.sold < seen.kept.stock)
        return f"row {int(left.argmax())} ran short with stock left" if left.any() else ""

    def observe(self, seen: Seen) -> Array:
        return pricing_observation(self, seen)

    # --- the optimum ---
    def best_reward(self, state: State) -> Array:
        return namespace(state.hidden.worth).max(state.hidden.worth, axis=1)

    def informed_action(self, state: State) -> Array:
        """As if the candidate chosen were held to the end: near the bound where demand remembers as much as by default,
        far from it where it pays to raise the reference price first."""
        task, hidden, seen = state
        held = self.held(task, hidden.pull, hidden.reference, hidden.drift, seen.time)
        customers = clip(self.customers_left(task, seen.time), MIN_CUSTOMERS, None)
        stock = namespace(held).astype(seen.kept.stock, held.dtype)
        return self.fluid_action(hidden.margin, held, stock / customers)

    def bound(self, state: State) -> np.ndarray:
        return upper_bound(self, state)

    def candidate_rewards(self, state: State) -> tuple[Array, Array | None]:
        estimate = state.hidden.margin * state.seen.kept.average if self.statistics else None
        return state.hidden.worth, estimate

    # --- pictures ---
    @cached_property
    def panels(self) -> tuple[Panel, ...]:
        return pictures.panels_of(self)

    @cached_property
    def candidate_names(self) -> tuple[str, ...]:
        return pictures.names_of(self)

    def trace(self, state: State) -> Mapping[str, Array]:
        return pictures.trace(self, state)

    # --- spaces ---
    @cached_property
    def layout(self) -> Layout:
        return pricing_layout(self)

    @cached_property
    def task_space(self) -> gymnasium.spaces.Dict:
        spaces: dict[str, gymnasium.Space[Any]] = {name: box_of(name) for name in PricingTask._fields}
        spaces["table"] = box_of("table", len(self.ladder.paid))
        return gymnasium.spaces.Dict(spaces)

    @cached_property
    def offer_space(self) -> gymnasium.spaces.Dict:
        box = gymnasium.spaces.Box
        reference = self.layout.field("reference")
        numbers: dict[str, gymnasium.Space[Any]] = {
            "embedding": box(-MAX_TRAIT, MAX_TRAIT, (self.embedding,), np.float32),
            "forecast": box(*self.forecast_range, (len(self.ladder.paid),), np.float32),
            "supply": box_of("stock"),
            "reference": box(reference.low, reference.high, (), np.float32),
            "rival_seen": box(0.0, MAX_RIVAL, (), np.float32),
        }
        return gymnasium.spaces.Dict(numbers | {name: box_of(name) for name in ("phase", "cost", "w_rev", "w_vol")})

    @cached_property
    def feedback_space(self) -> gymnasium.spaces.Dict:
        return gymnasium.spaces.Dict(
            {
                "sold": gymnasium.spaces.Box(0, UNLIMITED, (), np.int64),
                "short": gymnasium.spaces.Box(0, 1, (), np.bool_),
            }
        )
