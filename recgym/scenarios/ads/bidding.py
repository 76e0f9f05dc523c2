"""Live bidding: which creative and which bid in each part of a day, under a budget, in a market that reacts?

Sources: Zhang et al. 2014 for prices, Balseiro & Gur 2019 for budget pacing in repeated auctions, AuctionNet (Su et al.
2024) for the shape of a day and the score of a target cost.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple

import gymnasium
import numpy as np

from recgym.arrays import Array, Rng, clip, logistic, namespace, rows_of, to_numpy, tree_map
from recgym.layout import Layout
from recgym.panels import Panel
from recgym.parameters import numbers, param, refuse
from recgym.scenario import Account, Response, Seen, State
from recgym.scenarios.ads import pictures
from recgym.scenarios.ads.auctions import AUCTIONS, MIN_CHANCE, auction, per_win
from recgym.scenarios.ads.bidding_bound import bound_of_bidding
from recgym.scenarios.ads.campaign import (
    MAX_COUNT,
    MAX_CREATIVES,
    MAX_HORIZON,
    OFFERED,
    Campaign,
    Delivery,
    Tally,
    affordable,
    paid,
    ranged,
)
from recgym.scenarios.ads.creatives import cut, predict
from recgym.scenarios.ads.days import BLOCK, BiddingTask, day_space, sample_days, usual_traffic
from recgym.scenarios.ads.delays import WINS
from recgym.scenarios.ads.observation import bidding_layout, bidding_observation
from recgym.scenarios.ads.pacing import paced

__all__ = ["Bidding", "BiddingOffer", "Result"]

MAX_LEVELS = 1_000
MAX_BID = 1e6  # reference prices
NO_BID = 1e-12  # what a bid of 0 is taken for


class BiddingHidden(NamedTuple):
    walk: Array  # [B] of the logarithm of the price
    rivals: Array  # [B] what rivals add to it
    waiting: Array  # [B, K, J] int64 conversions that are still to come
    auctions: Array  # [B] mean number of the coming decision
    win: Array  # [B, L] chance to win one, by level
    cost: Array  # [B, L] mean payment for one
    variance: Array  # [B, L] of the payment for a win
    click_rate: Array  # [B, K] probability that an impression is clicked now, by creative
    worth: Array  # [B, K] reward of an impression, by creative


class BiddingOffer(NamedTuple):
    """What is known of a campaign; nothing of it changes."""

    base: Array  # [B]
    embedding: Array  # [B, K, d]
    predicted: Array  # [B, K, S] logits that a large model predicts, less the base
    budget: Array  # [B] reference prices
    goal: Array  # [B]
    preference: Array  # [B, P]


class Result(NamedTuple):
    """Feedback: a `Delivery`, and how many auctions there were."""

    wins: Array  # [B] int64 impressions
    spend: Array  # [B] reference prices
    clicks: Array  # [B] int64
    conversions: Array  # [B, K] int64 that came in this decision, by creative
    offered: Array  # [B] int64 auctions

    @property
    def delivery(self) -> Delivery:
        """The same without the auctions."""
        return Delivery(*self[:4])


class Ledger(NamedTuple):
    """What is kept of a day of bidding."""

    tally: Tally
    offered: Array  # [B] auctions of the last decision, in base packets
    price: Array  # [B] mean paid per win in the last decision that won; 1 before
    asked: Array  # [B, L] auctions at each level so far, in base packets
    taken: Array  # [B, L] of them


@dataclass(frozen=True)
class Bidding(Campaign):
    """Bid for impressions through a day: a creative and a level of bid for each decision, until the budget is gone.

    ## Description
    Each trial is one campaign's day. Auctions come in a Poisson number, more in the evening than at night, times a
    hidden factor for every few decisions. The highest rival bid is lognormal; its median starts at a hidden level
    beside the reference price, follows a wave over the day and a walk, and rises where rivals lost. Levels are
    multiples of the reference price; 0 bids nothing. Impressions are clicked and clicks convert as in `Placement`; the
    parts of the day are slots. Nothing is bought beyond the budget: where it does not cover what was won, wins and
    spending are cut alike.

    ## Action Space
    `Discrete(creatives * levels)`; candidate i is creative i // levels at level i % levels.

    ## Observation Space
    The fields of `layout`. A campaign knows its base click rate, its creatives' embeddings and predicted click rates,
    the usual traffic of the hours to come, and what it counted so far: auctions, wins and prices too. Hidden are click
    and conversion rates, the market's level, and how traffic and rivals behave.

    ## Rewards
    `value`: clicks plus `conversion_value` per conversion that comes in this decision, in units of what a base packet
    brings on average. `expected` is the mean value of what the decision buys, with its conversions until the end.

    ## Info
    `value`, `clicks`, `conversions`, `spend` in reference prices; of costs `over_cap` and `excess_cost` as in
    `Placement`.

    ## Starting State
    The whole budget, nothing bought yet.

    ## Episode End
    Terminates after `horizon` decisions; what has not converted by then is lost. Never truncated.

    ## Version History
    * v0: first version.
    """

    creatives: int = param(6, 1, MAX_CREATIVES, "creatives", "to choose from")
    levels: tuple[float, ...] = param(
        (0.0, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 3.0), unit="reference prices, rising", effect="bids", kind="other"
    )
    parts: int = param(6, 1, 1_000, "slots", "parts of the day, in which click rates differ")
    horizon: int = param(48, 1, MAX_HORIZON, "decisions", "length of a trial, one day")
    packet: float = param(12.0, 1e-3, 1e6, "clicks", "of a base packet: of half of a mean decision's auctions")
    budget: tuple[float, float] = ranged(
        (0.1, 0.6), 1e-6, 1e3, "of the cost of half of all auctions at the reference price", "money for the trial"
    )
    auction: str = param(
        "second", unit=f"one of {', '.join(AUCTIONS)}", effect="what a win pays: the rival's bid, or its own"
    )
    price_spread: tuple[float, float] = ranged((0.84, 1.19), 1e-2, 5.0, "log money", "standard deviation of rival bids")
    price_level: float = param(0.5, 0.0, 3.0, "log money", "standard deviation of the market's level; 0: off")
    price_wave: float = param(0.25, 0.0, 3.0, "log money", "amplitude of prices over the day; 0: off")
    price_walk: float = param(0.06, 0.0, 1.0, "log money", "step of the price at each decision; 0: off")
    traffic: float = param(0.35, 0.0, 3.0, "log auctions", "standard deviation of the hidden factors; 0: off")
    reaction: tuple[float, float] = ranged(
        (0.0, 0.6), 0.0, 5.0, "log money", "of rivals who lose everything, in half of the campaigns; zeros: off"
    )
    rival_memory: float = param(0.9, 0.0, 0.999, "share", "of that kept at each decision")
    conversion_value: float = param(10.0, 0.0, 1e4, "clicks", "what a conversion is worth; 0: off")
    delays: tuple[tuple[float, float], ...] = param(
        ((0.36, 0.8), (0.34, 120.0), (0.3, 800.0)),
        unit="list of [weight, mean number of decisions]",
        effect="exponential delays of conversions, a mixture; weights add up to 1",
    )
    fatigue_memory: float = param(0.999, 0.0, 0.999, "share", "of recent packets kept at each decision")

    task_type: ClassVar[type] = BiddingTask
    offer_type: ClassVar[type] = BiddingOffer
    feedback_type: ClassVar[type] = Result

    def __post_init__(self) -> None:
        super().__post_init__()
        levels = numbers(self.levels)
        right = levels.ndim == 1 and 1 <= len(levels) <= MAX_LEVELS and np.all((levels >= 0.0) & (levels <= MAX_BID))
        if not right or np.any(np.diff(levels) <= 0.0):
            refuse(self, "levels", f"1 to {MAX_LEVELS} numbers from 0 to {MAX_BID:g}, each above the one before")
        object.__setattr__(self, "levels", tuple(levels.tolist()))
        if self.auction not in AUCTIONS:
            refuse(self, "auction", f"one of {', '.join(AUCTIONS)}")
        goal = self.goal[1] * self.most_wins / self.packet / self.conversion_rate
        budget = self.budget[1] * self.horizon * self.most_wins
        self.check_amounts(budget=budget, goal=goal, decision=OFFERED * self.most_wins * float(self.profile.max()))

    @cached_property
    def slots(self) -> int:
        """Number of parts of the day."""
        return self.parts

    # --- what follows from the clock ---
    @cached_property
    def profile(self) -> np.ndarray:
        """[T + 1] float32 usual traffic of each decision, 1 on average; 0 after the last."""
        return usual_traffic(self.horizon)

    @cached_property
    def profile_left(self) -> np.ndarray:
        """[T + 1] float32 share of the usual traffic from each decision on."""
        return (self.profile[::-1].cumsum()[::-1] / self.horizon).clip(0.0, 1.0).astype(np.float32)

    @cached_property
    def slot_of(self) -> np.ndarray:
        """[T + 1] int64 part of the day of each decision."""
        return np.minimum(np.arange(self.horizon + 1) * self.parts // self.horizon, self.parts - 1)

    @cached_property
    def log_levels(self) -> np.ndarray:
        """[L] float32 logarithms of the bids."""
        return np.log(np.maximum(self.levels, NO_BID)).astype(np.float32)

    @cached_property
    def bids(self) -> np.ndarray:
        """[L] float32 whether a level bids at all."""
        return (np.asarray(self.levels) > 0.0).astype(np.float32)

    def auctions_of(self, base: Array) -> Array:
        """[B] mean number of auctions of a mean decision."""
        return OFFERED * self.base_wins(base)

    # --- the world ---
    def sample_task(self, rng: Rng, batch: int) -> BiddingTask:
        return sample_days(self, rng, batch)

    def begin(self, task: BiddingTask, rng: Rng) -> tuple[BiddingHidden, BiddingOffer]:
        xp = rng.xp
        none = xp.zeros_like(task.base)
        waiting = xp.zeros((*task.rate.shape, len(self.delays)), dtype=xp.int64, device=rng.device)
        walk = self.price_walk * rng.normal((task.base.shape[0],))
        predicted = predict(self, task, rng)
        known = task.budget, task.goal, task.preference
        hidden = self._meet(task, none, walk, none, waiting)
        return hidden, BiddingOffer(task.base, task.embedding, predicted, *known)

    def respond(self, state: State, action: Array, rng: Rng) -> tuple[BiddingHidden, Response]:
        task, hidden, seen = state
        rows = rows_of(action)
        noise = rng.normal((action.shape[0], 2))
        creative, level = action // len(self.levels), action % len(self.levels)
        offered = rng.poisson(hidden.auctions)
        chance = hidden.win[rows, level]
        rng.branch(WINS)
        wins = rng.binomial(offered, chance)
        cost = hidden.cost[rows, level]
        price = cost / clip(chance, MIN_CHANCE, None)
        left = seen.kept.tally.left
        wins, spend = paid(wins, price, hidden.variance[rows, level], noise[:, 0], left)
        mean = affordable(hidden.auctions * chance, hidden.auctions * cost, left)
        value = hidden.worth[rows, creative] * mean
        expected = self.weighed(value, task.preference)
        click_rate = hidden.click_rate[rows, creative]
        delivery, waiting = self.sell(wins, spend, creative, click_rate, task.rate, hidden.waiting, rng)
        rivals = self.rival_memory * hidden.rivals + (1.0 - self.rival_memory) * task.reaction * chance
        walk = hidden.walk + self.price_walk * noise[:, 1]
        after = self._meet(task, seen.time + 1.0, walk, rivals, waiting)
        return after, Response(Result(*delivery, offered), seen.offer, expected)

    def _meet(self, task: BiddingTask, time: Array, walk: Array, rivals: Array, waiting: Array) -> BiddingHidden:
        """The market before the decision at `time` [B]."""
        log_price = self.log_price_at(task, time, walk, rivals)
        levels, bids = self.table_like("log_levels", task.base), self.table_like("bids", task.base)
        found = auction(self.auction, levels[None], log_price[:, None], task.sigma[:, None])
        click_rate = logistic(self.logits_at(task, time))
        worth = click_rate * self.value_of_clicks(task.rate, time)
        market = self.traffic_at(task, time), found.win * bids, found.cost * bids, per_win(found)[1]
        return BiddingHidden(walk, rivals, waiting, *market, click_rate, worth)

    def traffic_at(self, task: BiddingTask, time: Array) -> Array:
        """[B] mean number of auctions at `time` [B]."""
        index = self.index_of(time)
        block = task.traffic[rows_of(index), clip(index, None, self.horizon - 1) // BLOCK]
        return self.auctions_of(task.base) * self.table_like("profile", time)[index] * block

    def log_price(self, state: State) -> Array:
        """[B] mean logarithm of the highest rival bid now, in reference prices."""
        task, hidden, seen = state
        return self.log_price_at(task, seen.time, hidden.walk, hidden.rivals)

    def log_price_at(self, task: BiddingTask, time: Array, walk: Array, rivals: Array) -> Array:
        """[B] the same at `time` [B], of its parts."""
        return task.level_price + self.wave(task.phase, time) + walk + rivals

    def wave(self, phase: Array, time: Array) -> Array:
        """What the time of day adds to the logarithm of the price."""
        return self.price_wave * namespace(time).sin(2.0 * math.pi * (time * (1.0 / self.horizon) + phase))

    def part_at(self, time: Array) -> Array:
        """[B] int64 part of the day at `time` [B]."""
        return self.table_like("slot_of", time)[self.index_of(time)]

    def logits_at(self, task: BiddingTask, time: Array) -> Array:
        """[B, K] logits of a click at `time` [B]."""
        part = self.part_at(time)
        return cut(task.logit[rows_of(part), :, part])

    # --- the bookkeeping ---
    def open(self, offer: BiddingOffer) -> Ledger:
        xp = namespace(offer.base)
        tally = self.first_tally(offer.budget)
        none = xp.zeros_like(offer.base)
        by_level = xp.zeros((none.shape[0], len(self.levels)), dtype=xp.float32, device=offer.base.device)
        return Ledger(tally, none, none + 1.0, by_level, by_level)

    def account(self, seen: Seen, action: Array, feedback: Result) -> Account:
        offer, creative = seen.offer, action // len(self.levels)
        return self.accounted(seen.kept.tally, offer.base, offer.goal, offer.preference, creative, feedback.delivery)

    def update(self, seen: Seen, action: Array, feedback: Result) -> Ledger:
        xp = namespace(seen.reward)
        kept, base = seen.kept, seen.offer.base
        rows = rows_of(action)
        creative, level = action // len(self.levels), action % len(self.levels)
        tally = self.tally_after(kept.tally, base, action, creative, self.part_at(seen.time), feedback.delivery)
        offered = xp.astype(feedback.offered, xp.float32) / self.base_wins(base)
        any_won = feedback.wins > 0
        paid = feedback.spend / clip(xp.astype(feedback.wins, xp.float32), 1.0, None)
        bids = self.table_like("bids", base)[level]
        asked, taken = kept.asked + 0.0, kept.taken + 0.0
        asked[rows, level] += offered * bids
        taken[rows, level] += tally.won
        return Ledger(tally, offered, xp.where(any_won, paid, kept.price), asked, taken)

    def impossible(self, seen: Seen, action: Array, feedback: Result) -> str:
        more = feedback.wins > feedback.offered
        if more.any():
            return f"row {int(more.argmax())} wins more than was offered"
        level = action % len(self.levels)
        nothing = (self.bids[level] == 0.0) & (feedback.wins > 0)
        if nothing.any():
            return f"row {int(nothing.argmax())} wins without a bid"
        most = (feedback.wins + 1) * np.asarray(self.levels)[level] * (1.0 + 1e-6)  # a part of one may be cut
        above = feedback.spend > most
        if self.auction == "first" and above.any():
            return f"row {int(above.argmax())} pays more than its bids"
        return self.why_impossible(seen.kept.tally, action // len(self.levels), feedback.delivery)

    def observe(self, seen: Seen) -> Array:
        return bidding_observation(self, seen)

    # --- the optimum ---
    def _bought(self, state: State) -> Array:
        """[B, L] mean impressions that each level buys, with the money left."""
        hidden = state.hidden
        auctions, left = hidden.auctions[:, None], state.seen.kept.tally.left[:, None]
        return affordable(auctions * hidden.win, auctions * hidden.cost, left)

    def _affordable(self, state: State) -> Array:
        """[B, C] `expected` of each candidate."""
        value = state.hidden.worth[:, :, None] * self._bought(state)[:, None]
        return self.weighed(value.reshape(value.shape[0], -1), state.task.preference)

    def candidate_rewards(self, state: State) -> tuple[Array, Array | None]:
        return self._affordable(state), None

    def targets(self, state: State) -> Mapping[str, Array]:
        """[B, C] of each candidate: `logit` of a click now less the base, and `win`, the probability to win."""
        xp, task = namespace(state.seen.reward), state.task
        win = state.hidden.win
        logit = self.logits_at(task, state.seen.time) - task.base[:, None]
        shape = (logit.shape[0], self.creatives, len(self.levels))
        both = (xp.broadcast_to(logit[:, :, None], shape), xp.broadcast_to(win[:, None], shape))
        return dict(zip(("logit", "win"), (each.reshape(shape[0], -1) for each in both), strict=True))

    def best_reward(self, state: State) -> Array:
        xp = namespace(state.seen.reward)
        best = xp.max(state.hidden.worth, axis=1) * xp.max(self._bought(state), axis=1)
        return self.weighed(best, state.task.preference)

    def informed_action(self, state: State) -> Array:
        """The level at which bids through the rest of the day spend the budget, prices being as they are now."""
        plain = tree_map(to_numpy, state)
        task, _, seen = plain
        value, auctions = self.values_of_the_day(task)
        now = np.minimum(seen.time.astype(np.int64), self.horizon - 1)
        creative = value[np.arange(len(now)), :, now].argmax(axis=1)
        money = seen.kept.tally.left
        plan = paced(self, value.max(axis=1), self.log_price(plain), task.sigma, money, auctions, now)
        level = np.where(plan.weight > 0.5, plan.dear, plan.cheap)
        action = creative * len(self.levels) + level
        like = state.task.base
        return action if isinstance(like, np.ndarray) else namespace(like).asarray(action, device=like.device)

    def values_of_the_day(self, task: BiddingTask) -> tuple[np.ndarray, np.ndarray]:
        """Reward of an impression of each creative [B, K, T] and mean number of auctions [B, T] in each decision."""
        times = np.arange(self.horizon)
        rows = len(task.base)
        logit = task.logit[:, :, self.slot_of[times]]
        worth = [self.value_of_clicks(task.rate, np.full(rows, t, dtype=np.float32)) for t in times]
        auctions = [self.traffic_at(task, np.full(rows, t, dtype=np.float32)) for t in times]
        return logistic(cut(logit)) * np.stack(worth, axis=2), np.stack(auctions, axis=1)

    def bound(self, state: State) -> np.ndarray:
        """It holds on average over trials: whoever plays the relaxed problem knows the path of prices."""
        return self.weighed(bound_of_bidding(self, state), to_numpy(state.task.preference))

    # --- pictures ---
    @cached_property
    def panels(self) -> tuple[Panel, ...]:
        return pictures.bidding_panels(self)

    @cached_property
    def candidate_names(self) -> tuple[str, ...]:
        return tuple(f"{k + 1} at {bid:g}" for k in range(self.creatives) for bid in self.levels)

    @cached_property
    def candidate_grid(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return pictures.grid_of(self, tuple(f"{bid:g}" for bid in self.levels))

    def trace(self, state: State) -> Mapping[str, Array]:
        return pictures.bidding_trace(self, state)

    # --- spaces ---
    @cached_property
    def layout(self) -> Layout:
        return bidding_layout(self)

    @cached_property
    def task_space(self) -> gymnasium.spaces.Dict:
        return day_space(self)

    @cached_property
    def offer_space(self) -> gymnasium.spaces.Dict:
        return gymnasium.spaces.Dict(dict(self.public_boxes) | {"predicted": self.predicted_box})

    @cached_property
    def feedback_space(self) -> gymnasium.spaces.Dict:
        whole = gymnasium.spaces.Box(0, MAX_COUNT, (), np.int64)
        return gymnasium.spaces.Dict({**super().feedback_space.spaces, "offered": whole})
