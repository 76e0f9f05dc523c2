"""What placement and bidding share: a campaign's creatives, budget and conversions, and what is kept of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import gymnasium
import numpy as np

from recgym.arrays import Array, Rng, clip, columns, constant, namespace, row_sum, rows_of, unit_rows
from recgym.catalog import MAX_WIDTH, Catalog, known_catalog
from recgym.parameters import numbers, param, refuse
from recgym.scenario import Account, Scenario, weights_param
from recgym.scenarios.ads.campaigns import CAMPAIGNS
from recgym.scenarios.ads.creatives import MAX_PREDICTED
from recgym.scenarios.ads.delays import CLICKS, CONVERTING, REVEALED, Delays, delays_of

__all__ = ["Campaign", "Delivery", "Tally", "affordable", "between", "paid", "ranged"]

MAX_HORIZON = 100_000
MAX_CREATIVES = 1_000
MAX_MONEY = 1e12
MAX_COUNT = 2**40  # impressions, clicks, conversions
MAX_REWARD = 1e18
MAX_ERROR_SD = 10.0  # logits, of predictions
MONEY_PER_PRICE = 1e-3  # of an impression: prices are per thousand
OFFERED = 2.0  # opportunities of a base packet per impression: a mean decision is to win half
LEAST_PAID = 0.5  # share of the mean payment
MIN_IMPRESSIONS = 100  # of a base packet: payments are normal, and whole impressions all that money buys
TINY = 1e-9  # money, impressions or packets: what is divided by is no less
ROUNDING = 1e-6  # of sums in float32, as a share
UNIFORM = "[least, most] of a uniform distribution over campaigns"


def ranged(default: tuple[float, float], low: float, high: float, unit: str, effect: str) -> Any:
    """A parameter [least, most] of a field of the task, uniform over campaigns."""
    return param(default, low, high, unit, effect, kind="range")


class Delivery(NamedTuple):
    """Feedback: what one packet bought and what it and those before it led to."""

    wins: Array  # [B] int64 impressions
    spend: Array  # [B] money
    clicks: Array  # [B] int64
    conversions: Array  # [B, K] int64 that came in this decision, by creative


class Tally(NamedTuple):
    """What is kept of a campaign, whatever is chosen."""

    chosen: Array  # [B, C] 1 for the candidate chosen last
    left: Array  # [B] money
    wins: Array  # [B, K, S] base packets bought
    clicks: Array  # [B, K, S]
    revealed: Array  # [B, K] conversions so far
    young: Array  # [B, K, J] clicks whose conversions would be still to come, by class of delay
    mature: Array  # [B, K] clicks whose conversions would have come
    frequency: Array  # [B, K] recent base packets per creative, what wears it out
    won: Array  # [B] base packets of the last decision
    clicked: Array  # [B] clicks of the last decision
    converted: Array  # [B] conversions that came in it


def between(limits: tuple[float, float], luck: Array) -> Array:
    """Uniform in `limits`, by uniform `luck`."""
    return clip(limits[0] + (limits[1] - limits[0]) * luck, *limits)


def paid(wins: Array, price: Array, variance: Array, noise: Array, left: Array) -> tuple[Array, Array]:
    """Impressions [B] int64 and spending [B]: what was won at a normal payment, both cut where money is short.

    A payment is at least `LEAST_PAID` of its mean, so that nothing is free, however few impressions there are.

    Args:
        wins: [B] int64 impressions, were there money enough.
        price: [B] mean money that one costs.
        variance: [B] of it.
        noise: [B] standard normal.
        left: [B] money.
    """
    xp = namespace(price)
    count = xp.astype(wins, xp.float32)
    mean = count * price
    spend = xp.maximum(mean + noise * xp.sqrt(count * variance), LEAST_PAID * mean)
    covered = clip(left / clip(spend, TINY, None), 0.0, 1.0)
    bought, spend = xp.astype(xp.floor(count * covered), xp.int64), xp.minimum(spend, left)
    bought = xp.minimum(bought, wins)  # float32 may round a count up
    return bought, spend * (bought > 0)


def affordable(amount: Array, cost: Array, left: Array) -> Array:
    """What of an `amount` that costs so much the money left buys; shapes are those of all three together."""
    return amount * clip(left / clip(cost, TINY, None), None, 1.0)


@dataclass(frozen=True)
class Campaign(Scenario):
    """A campaign: creatives to choose from, a budget that is never overspent, clicks now and conversions later."""

    catalog: Any = param(
        None,
        unit="a Catalog, the path of its file, its digest once it was given, or None: synthetic",
        effect="creatives, drawn anew for each campaign; their features are embeddings, its `tastes` the campaign's",
        kind="other",
    )
    campaign: str | None = param(
        None,
        unit=f"one of {', '.join(CAMPAIGNS)}, or None: drawn",
        effect="the iPinYou campaign that gives click rate and prices, in place of their ranges",
        kind="other",
    )
    base_rate: tuple[float, float] = ranged(
        (0.0003, 0.0045), 1e-6, 0.1, "clicks per impression", "[least, most] of the base, log-uniform over campaigns"
    )
    embedding: int = param(4, 1, MAX_WIDTH, "numbers", "width of a synthetic creative's embedding")
    level: float = param(0.3, 0.0, 3.0, "logits", "standard deviation of a campaign's click rate around its base")
    taste: float = param(0.5, 0.0, 3.0, "logits", "of the effect of an embedding; unused with `tastes`")
    taste_by_slot: float = param(0.4, 0.0, 3.0, "logits", "of what a slot adds to it")
    slot_effect: float = param(0.3, 0.0, 3.0, "logits", "of a slot")
    creative_effect: float = param(0.15, 0.0, 3.0, "logits", "of a creative beside its embedding")
    cell_effect: float = param(0.15, 0.0, 3.0, "logits", "of a creative in a slot")
    prediction: tuple[float, float] | None = param(
        (0.3, 1.0),
        unit="[level, cell] standard deviations in logits, or None: no prediction",
        effect="errors of the click rates that a large model predicts; with `tastes` their mean is predicted instead",
        kind="other",
    )
    conversion_value: float = param(20.0, 0.0, 1e4, "clicks", "what a conversion is worth; 0: off")
    conversion_rate: float = param(0.05, 1e-6, 0.5, "conversions per click", "at the middle of their logits")
    conversion_spread: float = param(0.6, 0.0, 3.0, "logits", "standard deviation over creatives")
    delays: tuple[tuple[float, float], ...] = param(
        ((0.3, 0.6), (0.7, 11.0)),
        unit="list of [weight, mean number of decisions]",
        effect="exponential delays of conversions, a mixture; weights add up to 1",
    )
    goal: tuple[float, float] = ranged(
        (0.8, 1.5), 0.01, 100.0, "of the mean cost of a conversion", f"cost per conversion that is wanted; {UNIFORM}"
    )
    cap: int = param(4, 1, 50, "impressions per user", "frequency cap, beyond which impressions are counted as a cost")
    creatives: int = param(8, 1, MAX_CREATIVES, "creatives", "to choose from")
    dose: float = param(0.5, 0.0, 10.0, "recent packets", "that one base packet adds")
    fatigue_memory: float = param(0.95, 0.0, 0.999, "share", "of recent packets kept at each decision")
    packet: float = param(20.0, 1e-3, 1e6, "clicks", "of a base packet, on average: what one decision is about")
    weights: Mapping[str, Any] | None = weights_param()

    family: ClassVar[str] = "recgym.baselines.ads:FAMILY"
    feedback_type: ClassVar[type] = Delivery
    objectives: ClassVar[tuple[str, ...]] = ("value", "clicks", "conversions", "spend")
    costs: ClassVar[tuple[str, ...]] = ("over_cap", "excess_cost")
    covered: ClassVar[tuple[str, ...] | None] = ("value",)
    myopic: ClassVar[bool] = False
    credited: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.campaign, int | np.integer):
            object.__setattr__(self, "campaign", str(self.campaign))  # their names are numbers
        if self.campaign is not None and self.campaign not in CAMPAIGNS:
            refuse(self, "campaign", f"one of {', '.join(CAMPAIGNS)}, or None")
        if self.base_rate[0] <= 0.0:
            refuse(self, "base_rate", "two numbers above 0")
        rate = self.base_rate[1] if self.campaign is None else math.exp(CAMPAIGNS[self.campaign].base)
        if self.packet < MIN_IMPRESSIONS * rate:
            refuse(self, "packet", f"at least {MIN_IMPRESSIONS} impressions' clicks, {MIN_IMPRESSIONS * rate:g} here")
        pairs = numbers(self.delays)
        right = pairs.ndim == 2 and pairs.shape[1] == 2 and np.all(pairs > 0.0) and np.all(np.isfinite(pairs))
        if not right or abs(pairs[:, 0].sum() - 1.0) > 1e-6:
            refuse(self, "delays", "a list of [weight, mean], all above 0, whose weights add up to 1")
        object.__setattr__(self, "delays", tuple(tuple(pair) for pair in pairs.tolist()))
        if self.prediction is not None:
            errors = numbers(self.prediction)
            if errors.shape != (2,) or not np.all((errors >= 0.0) & (errors <= MAX_ERROR_SD)):
                refuse(self, "prediction", f"[level, cell], two numbers in [0, {MAX_ERROR_SD:g}], or None")
            object.__setattr__(self, "prediction", tuple(errors.tolist()))
        if self.catalog is not None:
            found = known_catalog(self.catalog)
            object.__setattr__(self, "catalog", found.digest)
            object.__setattr__(self, "items", found)
            if found.items < self.creatives:
                refuse(self, "creatives", f"at most the number of the catalog's items, {found.items}")

    def check_amounts(self, **most: float) -> None:
        """Refuse parameters under which money or impressions may be more than tasks and offers hold.

        Args:
            most: the largest, by what it is of.
        """
        for name, amount in most.items():
            if amount > MAX_MONEY:
                kind, why = type(self).__name__, f"of up to {amount:.3g}, more than {MAX_MONEY:g}"
                ways = "lower packet, prices or horizon, or raise base_rate"
                raise ValueError(f"{kind}: with these parameters a {name} is {why}: {ways}")

    # --- constants that follow ---
    @cached_property
    def most_wins(self) -> float:
        """Impressions of a base packet where clicks are rarest."""
        rate = self.base_rate[0] if self.campaign is None else CAMPAIGNS[self.campaign].click_rate
        return self.packet / rate

    @cached_property
    def slots(self) -> int:
        """Number of parts of the day."""
        raise NotImplementedError

    @cached_property
    def items(self) -> Catalog | None:
        """The catalog of creatives; None: they are synthetic."""
        return None

    @cached_property
    def width(self) -> int:
        """Numbers of an embedding."""
        return self.embedding if self.items is None else self.items.width

    @cached_property
    def creative_table(self) -> np.ndarray:
        """[N, d] float32 the catalog's features, of length 1."""
        assert self.items is not None
        return unit_rows(self.items.features).astype(np.float32)

    @cached_property
    def taste_table(self) -> np.ndarray:
        """[1 + F, d] float32 the catalog's tastes, mean and factor; [0, d]: it tells of none."""
        known = None if self.items is None else self.items.tastes
        return np.zeros((0, self.width), dtype=np.float32) if known is None else known

    def table_like(self, name: str, like: Array) -> Array:
        """An array that follows from the parameters, where `like` is."""
        if isinstance(like, np.ndarray):
            return getattr(self, name)
        key = name, str(like.device)
        if key not in self._copies:
            self._copies[key] = namespace(like).asarray(getattr(self, name).copy(), device=like.device)
        return self._copies[key]

    @cached_property
    def _copies(self) -> dict[tuple[str, str], Array]:
        return {}

    @cached_property
    def delay(self) -> Delays:
        return delays_of(self.delays)

    @cached_property
    def unit(self) -> float:
        """Value, in clicks, of a base packet: the reward of which is 1."""
        return self.packet * (1.0 + self.conversion_value * self.conversion_rate)

    def base_wins(self, base: Array) -> Array:
        """[B] impressions of a base packet: those that bring `packet` clicks at the base logit."""
        return self.packet * namespace(base).exp(-base)

    def draw_base(self, rng: Rng, batch: int) -> Array:
        """[batch] base logits."""
        unit = rng.uniform((batch,))
        low, high = (math.log(rate) for rate in self.base_rate)
        if self.campaign is not None:
            low = high = CAMPAIGNS[self.campaign].base
        return low + (high - low) * unit

    @cached_property
    def maturities(self) -> np.ndarray:
        """[T + 1] float32 share of a click's conversions that come by the end of the trial, by its decision."""
        return self.delay.matured(np.arange(self.horizon, -1, -1.0)).clip(0.0, 1.0).astype(np.float32)

    def maturity(self, time: Array) -> Array:
        """[B] the same at `time` [B]."""
        return self.table_like("maturities", time)[self.index_of(time)]

    def index_of(self, time: Array) -> Array:
        """[B] int64 the decision at `time` [B]."""
        xp = namespace(time)
        return clip(xp.astype(time, xp.int64), 0, self.horizon)

    def value_of_clicks(self, rates: Array, time: Array) -> Array:
        """[B, ...] reward of a click at `time` [B], late conversions included, at conversion rates [B, ...]."""
        return self.worth_of_clicks(rates, self.maturity(time).reshape((-1,) + (1,) * (rates.ndim - 1)))

    def worth_of_clicks(self, rates: Array, maturity: Array) -> Array:
        """Reward of a click at conversion rates of which a share comes in time; shapes go together."""
        return (1.0 + self.conversion_value * maturity * rates) * (1.0 / self.unit)

    # --- the world ---
    def sell(
        self, wins: Array, spend: Array, creative: Array, click_rate: Array, rates: Array, waiting: Array, rng: Rng
    ) -> tuple[Delivery, Array]:
        """Draw what impressions lead to: clicks, conversions that come now, and [B, K, J] those that then wait.

        Args:
            wins: [B] int64 impressions.
            spend: [B] money.
            creative: [B] int64 shown.
            click_rate: [B] of it.
            rates: [B, K] conversions per click.
            waiting: [B, K, J] int64 conversions that are still to come.
            rng: of the draws.
        """
        shown = rows_of(creative), creative
        rng.branch(CLICKS)
        clicks = rng.binomial(wins, click_rate)
        rng.branch(CONVERTING)
        converting = rng.binomial(clicks, rates[shown])
        by_class = self.delay.by_class(converting, rng)
        waiting = waiting + 0
        waiting[shown] += columns(*by_class)
        rng.branch(REVEALED)
        come = self.delay.revealed(waiting, rng)
        return Delivery(wins, spend, clicks, come.sum(axis=2)), waiting - come

    # --- the bookkeeping ---
    def first_tally(self, budget: Array) -> Tally:
        """Of campaigns with budgets [B]."""
        xp = namespace(budget)

        def none(*shape: int) -> Array:
            return xp.zeros((budget.shape[0], *shape), dtype=xp.float32, device=budget.device)

        cells = none(self.creatives, self.slots)
        by_creative = none(self.creatives)
        young = none(self.creatives, len(self.delays))
        start = none()
        return Tally(
            none(self.layout.candidates), budget + 0.0, cells, cells, by_creative, young, by_creative, by_creative,
            start, start, start,
        )  # fmt: skip

    def tally_after(
        self, tally: Tally, base: Array, action: Array, creative: Array, slot: Array, feedback: Delivery
    ) -> Tally:
        """The tally after `feedback` to a creative [B] in a slot [B]."""
        xp = namespace(base)
        rows = rows_of(creative)
        clicked = xp.astype(feedback.clicks, xp.float32)
        packets = xp.astype(feedback.wins, xp.float32) / self.base_wins(base)
        revealed = xp.astype(feedback.conversions, xp.float32)
        chosen = xp.zeros_like(tally.chosen)
        chosen[rows, action] = 1.0
        wins, clicks, young = tally.wins + 0.0, tally.clicks + 0.0, tally.young + 0.0
        wins[rows, creative, slot] += packets
        clicks[rows, creative, slot] += clicked
        young[rows, creative] += clicked[:, None] * constant(self.delay.weights, base)
        passing = young * constant(self.delay.passing, base)
        frequency = tally.frequency * self.fatigue_memory
        frequency[rows, creative] += self.dose * packets
        left = clip(tally.left - feedback.spend, 0.0, None)
        mature = tally.mature + passing.sum(axis=2)
        return Tally(
            chosen, left, wins, clicks, tally.revealed + revealed, young - passing, mature, frequency, packets, clicked,
            row_sum(revealed),
        )  # fmt: skip

    def accounted(
        self, tally: Tally, base: Array, goal: Array, preference: Array, creative: Array, feedback: Delivery
    ) -> Account:
        """What `feedback` is worth: `value` in base packets, counts, money, and costs.

        The mean exposure per user is twice the recent base packets; of N ~ Poisson(m) exposures those beyond the cap c
        are E[(N - c)+] = m P(N >= c) - c P(N > c), where P(N >= n) is the regularised lower gamma function of n and m.
        """
        xp = namespace(base)
        wins, clicks = (xp.astype(each, xp.float32) for each in (feedback.wins, feedback.clicks))
        conversions = row_sum(xp.astype(feedback.conversions, xp.float32))
        value = (clicks + self.conversion_value * conversions) * (1.0 / self.unit)
        packets = wins / self.base_wins(base)
        exposure = 2.0 * (tally.frequency[rows_of(creative), creative] * self.fatigue_memory + self.dose * packets)
        over = packets * share_over(exposure, self.cap)
        excess = feedback.spend - goal * conversions
        objectives = columns(value, clicks, conversions, feedback.spend)
        costs = columns(over, excess)
        return Account(self.worth(objectives, costs, preference), objectives, costs)

    def trial_figures(self, task: Any, objectives: np.ndarray, costs: np.ndarray) -> dict[str, np.ndarray]:
        """`auctionnet_score`: n min(1, (C / c)^2) for n conversions at a cost c each, where C is wanted.

        Su et al. 2024, "AuctionNet: A Novel Benchmark for Decision-Making in Large-Scale Games", NeurIPS.
        """
        conversions, spend = (objectives[:, self.objectives.index(name)] for name in ("conversions", "spend"))
        wanted = task.goal * conversions
        kept = np.minimum(1.0, wanted / np.maximum(spend, TINY))
        return {"auctionnet_score": conversions * kept**2}

    def why_impossible(self, tally: Tally, creative: np.ndarray, feedback: Delivery) -> str:
        """Say why no packet of a creative [B] could have led to `feedback`; "": one could."""
        clicks = tally.clicks.sum(axis=2)
        clicks[rows_of(creative), creative] += feedback.clicks
        unclicked = tally.revealed + feedback.conversions > clicks * (1.0 + ROUNDING)
        faults = {
            "has more clicks than impressions": feedback.clicks > feedback.wins,
            "spends more than is left": feedback.spend > tally.left * (1.0 + ROUNDING),
            "pays for impressions that it did not win": (feedback.wins == 0) & (feedback.spend > 0.0),
            "has more conversions of a creative than clicks on it so far": unclicked.any(axis=1),
        }
        wrong = next(((why, rows) for why, rows in faults.items() if rows.any()), None)
        return "" if wrong is None else f"row {int(wrong[1].argmax())} {wrong[0]}"

    # --- spaces ---
    def box(self, low: float, high: float, *shape: int) -> gymnasium.spaces.Box:
        """A space of numbers."""
        return gymnasium.spaces.Box(low, high, shape, np.float32)

    @cached_property
    def public_boxes(self) -> dict[str, gymnasium.spaces.Space[Any]]:
        """What a campaign is told, of tasks and offers."""
        return {
            "base": self.box(-20.0, 0.0),
            "embedding": self.box(-1e3, 1e3, self.creatives, self.width),
            "budget": self.box(TINY, MAX_MONEY),
            "goal": self.box(0.0, MAX_MONEY),
            "preference": self.preference_space,
        }

    @cached_property
    def predicted_box(self) -> gymnasium.spaces.Box:
        return self.box(-MAX_PREDICTED, MAX_PREDICTED, self.creatives, self.slots)

    @cached_property
    def feedback_space(self) -> gymnasium.spaces.Dict:
        def count(*shape: int) -> gymnasium.spaces.Box:
            return gymnasium.spaces.Box(0, MAX_COUNT, shape, np.int64)

        return gymnasium.spaces.Dict(
            {
                "wins": count(),
                "spend": self.box(0.0, MAX_MONEY),
                "clicks": count(),
                "conversions": count(self.creatives),
            }
        )


def share_over(mean: Array, cap: int) -> Array:
    """[B] share of impressions beyond the cap where a user's are Poisson with `mean` [B]."""
    xp = namespace(mean)
    term = xp.exp(-mean)
    below = term  # P(N < cap), in the end
    for n in range(1, cap):
        term = term * mean * (1.0 / n)
        below = below + term
    at = term * mean * (1.0 / cap)  # P(N = cap)
    beyond = mean * (1.0 - below) - cap * (1.0 - below - at)
    return clip(beyond / clip(mean, TINY, None), 0.0, 1.0)
