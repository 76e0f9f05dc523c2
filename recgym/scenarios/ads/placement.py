"""Ad placement: which creative in which part of the day now, under a budget, with conversions that come late?

Sources: iPinYou's campaigns for click rates and prices (Zhang et al. 2014), Chapelle 2014 for delayed conversions,
Badanidiyuru, Kleinberg & Slivkins 2013 for bandits with a budget.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple

import gymnasium
import numpy as np

from recgym import fluid
from recgym.arrays import Array, Rng, clip, logistic, namespace, rows_of, to_numpy
from recgym.layout import Layout
from recgym.panels import Panel
from recgym.parameters import numbers, param, refuse
from recgym.scenario import Account, Response, Seen, State
from recgym.scenarios.ads import pictures
from recgym.scenarios.ads.auctions import auction, per_win
from recgym.scenarios.ads.campaign import (
    MAX_HORIZON,
    MAX_MONEY,
    MONEY_PER_PRICE,
    OFFERED,
    TINY,
    Campaign,
    Delivery,
    Tally,
    affordable,
    between,
    paid,
    ranged,
)
from recgym.scenarios.ads.campaigns import CAMPAIGNS
from recgym.scenarios.ads.creatives import MIN_CLICK_LOGIT, cut, draw_embedding, draw_logits, draw_rates, predict
from recgym.scenarios.ads.observation import placement_layout, placement_observation
from recgym.scenarios.ads.placement_bound import bound_of_placement

__all__ = ["Placement", "PlacementOffer", "PlacementTask"]

NEVER = 2**40  # a decision that does not come
MAX_SLOTS = 1_000
CHANGES = (1 / 6, 5 / 6)  # of the horizon, between which a change point lies
LAUNCHES = (1 / 12, 2 / 3)  # and a late launch
LIMITS = {  # of a task's numbers
    "base": (-20.0, 0.0),
    "sigma": (1e-3, 10.0),
    "bid": (-20.0, 20.0),
    "reaction": (0.0, 10.0),
}


class PlacementTask(NamedTuple):
    """A campaign."""

    base: Array  # [B] base logit
    embedding: Array  # [B, K, d]
    logit: Array  # [B, K, S] of a click, before fatigue and drift
    changed: Array  # [B, K, S] the same after the change point
    change: Array  # [B] int64 decision from which it is
    launch: Array  # [B, K] int64 decision from which a creative can be had
    rate: Array  # [B, K] conversions per click
    fatigue: Array  # [B, K] logits lost per recent base packet
    log_price: Array  # [B, S] mean logarithm of the highest rival bid, per thousand impressions
    sigma: Array  # [B] its standard deviation
    bid: Array  # [B] logarithm of the campaign's own bid
    reaction: Array  # [B] by which rivals raise their bids in a slot that was bought
    budget: Array  # [B] money
    goal: Array  # [B] money per conversion that is wanted
    preference: Array  # [B, P] weights that are drawn


class PlacementHidden(NamedTuple):
    drift: Array  # [B, K] walk of each creative's logit
    walk: Array  # [B, S] of the logarithm of each slot's price
    rivals: Array  # [B, S] what rivals add to it
    worn: Array  # [B, K] recent base packets, which wear a creative out
    traffic: Array  # [B] factor of the coming day
    variance: Array  # [B, S] of what an impression costs now
    click_rate: Array  # [B, K, S] probability that an impression is clicked now
    value: Array  # [B, K, S] mean value of a packet on a usual day, were there money enough; 0 where it cannot be had
    waiting: Array  # [B, K, J] int64 conversions that are still to come


class PlacementOffer(NamedTuple):
    """What is known before a decision; only the last three change."""

    base: Array  # [B]
    embedding: Array  # [B, K, d]
    predicted: Array  # [B, K, S] logits that a large model predicts, less the base
    sigma: Array  # [B]
    budget: Array  # [B] money
    goal: Array  # [B]
    preference: Array  # [B, P]
    available: Array  # [B, K] bool
    volume: Array  # [B, S] mean impressions that a packet wins
    price: Array  # [B, S] money that one of them costs on average


@dataclass(frozen=True)
class Placement(Campaign):
    """Buy a packet of impressions for one creative in one part of the day, each day, until the budget is gone.

    ## Description
    Each trial is one campaign. A decision places a creative k in a slot s: its fixed bid meets lognormal rivals in
    second-price auctions, whose win rate and mean price are quoted per slot; a packet wins a Poisson number of
    impressions and costs a normal amount, and where the budget does not cover it both are cut alike. Impressions are
    clicked with probability 1 / (1 + exp(-(l_ks - phi_k x_k))), where x_k counts recent packets of the creative
    (x <- memory x + dose packets, in expected impressions), and clicks convert at a rate of the creative, late
    (`recgym.scenarios.ads.delays`). Logits drift, may change at once at a change point, and some creatives are launched
    late; prices walk, and rivals bid more in slots that were bought. `campaign` takes one of iPinYou's campaigns.

    ## Action Space
    `Discrete(creatives * slots)`; candidate i is creative i // slots in slot i % slots.

    ## Observation Space
    The fields of `layout`. A campaign knows its base click rate, the embeddings of its creatives, the click rates that
    a large model predicts for them, the prices and volumes quoted now, and what it counted so far. Hidden are the click
    and conversion rates, fatigue, drift, change, launches to come, and how rivals react.

    ## Rewards
    `value`: clicks plus `conversion_value` per conversion that comes in this decision, in units of what a base packet
    brings on average. `expected` is the mean value of what the decision buys, all its conversions until the end of the
    trial included.

    ## Info
    `value`, `clicks`, `conversions`, `spend` in money (prices are per thousand impressions); of costs `over_cap`, base
    packets of impressions beyond the frequency cap, and `excess_cost`, spend less what the conversions were to cost.

    ## Starting State
    The whole budget, nothing bought yet.

    ## Episode End
    Terminates after `horizon` decisions; what has not converted by then is lost. Never truncated.

    ## Version History
    * v0: first version.
    """

    profile: tuple[float, ...] = param(
        (0.4, 0.6, 1.1, 1.2, 1.3, 1.4), unit="a number above 0 per slot", effect="how many impressions each slot has"
    )
    horizon: int = param(60, 1, MAX_HORIZON, "decisions", "length of a trial")
    budget: tuple[float, float] = ranged(
        (0.4, 1.0), 1e-6, 1e3, "of the cost of a mean packet at each decision", "money for the trial"
    )
    log_price: tuple[float, float] = ranged(
        (3.64, 4.22), -10.0, 15.0, "log money per thousand", "of the campaign's bid, which is the median rival's"
    )
    price_spread: tuple[float, float] = ranged((0.84, 1.19), 1e-2, 5.0, "log money", "standard deviation of rival bids")
    slot_price: float = param(0.35, 0.0, 3.0, "log money", "standard deviation of prices over slots")
    price_walk: float = param(0.02, 0.0, 1.0, "log money", "step of a slot's price at each decision; 0: off")
    day_factor: float = param(0.1, 0.0, 1.0, "log impressions", "standard deviation of a day's traffic; 0: off")
    fatigue: tuple[float, float] = ranged(
        (0.0, 0.1), 0.0, 5.0, "logits per recent base packet", "what a creative loses by being shown; zeros: off"
    )
    drift: float = param(0.02, 0.0, 1.0, "logits", "step of a creative's logit at each decision; 0: off")
    change: float = param(0.2, 0.0, 1.0, "probability", "of a change point in a trial; 0: off")
    launch: float = param(0.125, 0.0, 1.0, "probability", "that a creative other than the first comes late; 0: off")
    reaction: tuple[float, float] = ranged(
        (0.0, 0.04), 0.0, 5.0, "log money", "by which rivals raise their bids where they lost; zeros: off"
    )
    rival_memory: float = param(0.8, 0.0, 0.999, "share", "of that kept at each decision")

    labels: ClassVar[Mapping[str, Mapping[int, str]]] = {"change": {NEVER: "never"}}
    task_type: ClassVar[type] = PlacementTask
    offer_type: ClassVar[type] = PlacementOffer

    def __post_init__(self) -> None:
        super().__post_init__()
        shares = numbers(self.profile)
        if shares.ndim != 1 or not 1 <= len(shares) <= MAX_SLOTS or not np.all((shares > 0.0) & (shares <= 100.0)):
            refuse(self, "profile", f"1 to {MAX_SLOTS} numbers above 0, at most 100: one per slot")
        object.__setattr__(self, "profile", tuple(shares.tolist()))
        price = MONEY_PER_PRICE * math.exp(self.price_of_campaign[0][1])  # no win pays more than the bid
        mean, most = (OFFERED * self.most_wins * share for share in (shares.mean(), shares.max()))
        per_click = price * self.most_wins / self.packet
        self.check_amounts(
            budget=self.budget[1] * self.horizon * mean * price,
            goal=self.goal[1] * per_click / self.conversion_rate,
            packet=most,
        )

    @cached_property
    def slots(self) -> int:
        """Number of parts of the day."""
        return len(self.profile)

    @cached_property
    def shares(self) -> np.ndarray:
        """[S] float32 the profile."""
        return np.asarray(self.profile, dtype=np.float32)

    @cached_property
    def price_of_campaign(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """[least, most] of the logarithm of prices and of its spread."""
        if self.campaign is None:
            return self.log_price, self.price_spread
        real = CAMPAIGNS[self.campaign]
        return (real.log_price,) * 2, (real.spread,) * 2

    # --- the world ---
    def sample_task(self, rng: Rng, batch: int) -> PlacementTask:
        xp = rng.xp
        base = self.draw_base(rng, batch)
        luck = rng.uniform((batch, 6))
        embedding = draw_embedding(self, rng, batch)
        logits = draw_logits(self, base, embedding, rng)
        rate = draw_rates(self, rng, batch)
        late = rng.uniform((batch, self.creatives, 2))
        fatigue = between(self.fatigue, rng.uniform((batch, self.creatives)))
        log_price, spread = self.price_of_campaign
        bid, sigma = between(log_price, luck[:, 0]), between(spread, luck[:, 1])
        price = clip(bid[:, None] + self.slot_price * rng.normal((batch, self.slots)), *LIMITS["bid"])
        found, cost, _ = self.market(base, price, sigma, bid)
        budget = between(self.budget, luck[:, 2]) * self.horizon * (found * cost).mean(axis=1)
        mean_cost = (found * cost).sum(axis=1) / clip(found.sum(axis=1), TINY, None)
        goal = between(self.goal, luck[:, 3]) * mean_cost * xp.exp(-base) / self.conversion_rate
        changes = luck[:, 4] < self.change
        never = xp.full((batch,), NEVER, dtype=xp.int64, device=rng.device)
        comes = xp.astype(between(CHANGES, luck[:, 5]) * self.horizon, xp.int64)
        launch = xp.astype(between(LAUNCHES, late[:, :, 1]) * self.horizon, xp.int64)
        launch = xp.where(late[:, :, 0] < self.launch, launch, xp.zeros_like(launch))
        launch[:, 0] = 0
        return PlacementTask(
            base=base,
            embedding=embedding,
            logit=logits.now,
            changed=xp.where(changes[:, None, None], logits.changed, logits.now),
            change=xp.where(changes, comes, never),
            launch=launch,
            rate=rate,
            fatigue=fatigue,
            log_price=price,
            sigma=sigma,
            bid=bid,
            reaction=between(self.reaction, rng.uniform((batch,))),
            budget=clip(budget, TINY, None),
            goal=goal,
            preference=self.draw_preference(rng, batch),
        )

    def begin(self, task: PlacementTask, rng: Rng) -> tuple[PlacementHidden, PlacementOffer]:
        xp = rng.xp
        none = xp.zeros_like(task.rate)
        day = rng.normal((task.base.shape[0],))
        waiting = xp.zeros((*task.rate.shape, len(self.delays)), dtype=xp.int64, device=rng.device)
        still = xp.zeros_like(task.log_price)
        volume, price, variance = self.market(task.base, task.log_price, task.sigma, task.bid)
        available = task.launch <= 0
        packets = self._packets(task, 0.0 * task.base, none, none, available, volume)
        hidden = PlacementHidden(none, still, still, none, self.day_traffic(day), variance, *packets, waiting)
        predicted = predict(self, task, rng)
        known = task.sigma, task.budget, task.goal, task.preference
        return hidden, PlacementOffer(task.base, task.embedding, predicted, *known, available, volume, price)

    def respond(self, state: State, action: Array, rng: Rng) -> tuple[PlacementHidden, Response]:
        xp = rng.xp
        task, hidden, seen = state
        batch, slots = action.shape[0], self.slots
        noise = rng.normal((batch, 2 + self.creatives + slots))
        creative, slot = action // slots, action % slots
        rows = rows_of(action)
        cell = rows, creative, slot
        volume, price, today = seen.offer.volume[rows, slot], seen.offer.price[rows, slot], hidden.traffic
        mean = volume * today * xp.astype(seen.offer.available[rows, creative], xp.float32)
        left = seen.kept.left
        share = clip(left / clip(mean * price, TINY, None), 0.0, 1.0)
        wins, spend = paid(rng.poisson(mean), price, hidden.variance[rows, slot], noise[:, 0], left)
        feedback, waiting = self.sell(wins, spend, creative, hidden.click_rate[cell], task.rate, hidden.waiting, rng)
        expected = self.weighed(hidden.value[cell] * affordable(today, volume * price * today, left), task.preference)
        worn = hidden.worn * self.fatigue_memory
        worn[rows, creative] += self.dose * share * mean / self.base_wins(task.base)
        rivals = hidden.rivals * self.rival_memory
        rivals[rows, slot] += task.reaction * xp.astype(mean * left > 0.0, xp.float32)
        drift = hidden.drift + self.drift * noise[:, 2 : 2 + self.creatives]
        walk = hidden.walk + self.price_walk * noise[:, 2 + self.creatives :]
        volume, price, variance = self.market(task.base, task.log_price + walk + rivals, task.sigma, task.bid)
        available = task.launch <= xp.astype(seen.time, xp.int64)[:, None] + 1
        packets = self._packets(task, seen.time + 1.0, drift, worn, available, volume)
        after = PlacementHidden(drift, walk, rivals, worn, self.day_traffic(noise[:, 1]), variance, *packets, waiting)
        offer = seen.offer._replace(available=available, volume=volume, price=price)
        return after, Response(feedback, offer, expected)

    def day_traffic(self, noise: Array) -> Array:
        """[B] factor of a day's traffic, 1 on average."""
        return namespace(noise).exp(self.day_factor * noise - 0.5 * self.day_factor**2)

    def market(self, base: Array, log_price: Array, sigma: Array, bid: Array) -> tuple[Array, Array, Array]:
        """Mean impressions [B, S] that a packet wins in each slot, the money that one costs, and its variance."""
        found = auction("second", bid[:, None], log_price, sigma[:, None])
        offered = OFFERED * self.base_wins(base)[:, None] * self.table_like("shares", base)
        mean, variance = per_win(found)
        return offered * found.win, mean * MONEY_PER_PRICE, variance * MONEY_PER_PRICE**2

    def logits_at(self, task: PlacementTask, time: Array, drift: Array) -> Array:
        """[B, K, S] logits of a click at `time` [B], before fatigue."""
        later = self.has_changed(task, time)[:, None, None]
        return cut(namespace(drift).where(later, task.changed, task.logit) + drift[:, :, None])

    def has_changed(self, task: PlacementTask, time: Array) -> Array:
        """[B] bool whether the change point has passed."""
        return namespace(time).astype(time, namespace(time).int64) >= task.change

    # --- the bookkeeping ---
    def open(self, offer: PlacementOffer) -> Tally:
        return self.first_tally(offer.budget)

    def account(self, seen: Seen, action: Array, feedback: Delivery) -> Account:
        offer, creative = seen.offer, action // self.slots
        return self.accounted(seen.kept, offer.base, offer.goal, offer.preference, creative, feedback)

    def update(self, seen: Seen, action: Array, feedback: Delivery) -> Tally:
        creative, slot = action // self.slots, action % self.slots
        return self.tally_after(seen.kept, seen.offer.base, action, creative, slot, feedback)

    def impossible(self, seen: Seen, action: Array, feedback: Delivery) -> str:
        there = seen.offer.available[np.arange(len(action)), action // self.slots]
        if (feedback.wins[~there] > 0).any():
            return f"row {int((~there & (feedback.wins > 0)).argmax())} buys a creative that is not available"
        return self.why_impossible(seen.kept, action // self.slots, feedback)

    def observe(self, seen: Seen) -> Array:
        return placement_observation(self, seen)

    # --- the optimum ---
    def _packets(
        self, task: PlacementTask, time: Array, drift: Array, worn: Array, available: Array, volume: Array
    ) -> tuple[Array, Array]:
        """[B, K, S] click rates and mean values of packets at `time` [B]; see `PlacementHidden`."""
        logit = self.logits_at(task, time, drift) - (task.fatigue * worn)[:, :, None]
        worth = self.value_of_clicks(task.rate, time) * namespace(logit).astype(available, logit.dtype)
        click_rate = logistic(logit)
        return click_rate, click_rate * worth[:, :, None] * volume[:, None]

    def candidate_rewards(self, state: State) -> tuple[Array, Array | None]:
        estimate = pictures.believed(self, state.seen)
        return self._affordable(state), self.weighed(estimate, state.task.preference)

    def targets(self, state: State) -> Mapping[str, Array]:
        """[B, C] logits of a click now, less the base: `logit`."""
        task, hidden, seen = state
        logit = self.logits_at(task, seen.time, hidden.drift) - task.base[:, None, None]
        return {"logit": logit.reshape(logit.shape[0], -1)}

    def best_reward(self, state: State) -> Array:
        return namespace(state.seen.reward).max(self._affordable(state), axis=1)

    def _affordable(self, state: State) -> Array:
        """[B, C] `expected` of each candidate, today and with the money left."""
        offer, today, left = state.seen.offer, state.hidden.traffic[:, None], state.seen.kept.left[:, None]
        value = state.hidden.value * affordable(today, offer.volume * offer.price * today, left)[:, None]
        return self.weighed(value.reshape(value.shape[0], -1), state.task.preference)

    def informed_action(self, state: State) -> Array:
        """The fluid program of each slot's best creative, with the budget per decision left, solved anew each time."""
        offer = state.seen.offer
        creative, best, mix = self.planned(state.hidden.value, offer.volume * offer.price, state.seen)
        slot = fluid.action_of(mix, mix.weight > 0.5, best)
        return creative[rows_of(slot), slot] * self.slots + slot

    def planned(self, value: Array, cost: Array, seen: Seen) -> tuple[Array, Array, fluid.Mix]:
        """Best creative [B, S] int64 of each slot, its value [B, S], and the fluid program's mix of slots."""
        xp = namespace(value)
        creative = xp.argmax(value, axis=1)
        best = xp.max(value, axis=1)
        left = clip(self.horizon - seen.time, 1.0, None)
        return creative, best, fluid.solve(best, cost, seen.kept.left / left)

    def bound(self, state: State) -> np.ndarray:
        """It holds on average over trials: whoever plays the relaxed problem knows prices, drift and traffic."""
        return self.weighed(bound_of_placement(self, state), to_numpy(state.task.preference))

    # --- pictures ---
    @cached_property
    def panels(self) -> tuple[Panel, ...]:
        return pictures.panels_of(self)

    @cached_property
    def candidate_names(self) -> tuple[str, ...]:
        return pictures.names_of(self)

    @cached_property
    def candidate_grid(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return pictures.grid_of(self, tuple(f"slot {s + 1}" for s in range(self.slots)))

    def trace(self, state: State) -> Mapping[str, Array]:
        return pictures.trace(self, state)

    # --- spaces ---
    @cached_property
    def layout(self) -> Layout:
        return placement_layout(self)

    @cached_property
    def task_space(self) -> gymnasium.spaces.Dict:
        boxes = dict(self.public_boxes)
        boxes |= {name: self.box(*limits) for name, limits in LIMITS.items()}
        boxes |= {name: self.box(MIN_CLICK_LOGIT, 0.0, self.creatives, self.slots) for name in ("logit", "changed")}
        boxes |= {"rate": self.box(0.0, 1.0, self.creatives), "fatigue": self.box(0.0, 5.0, self.creatives)}
        boxes["log_price"] = self.box(*LIMITS["bid"], self.slots)
        boxes["change"] = gymnasium.spaces.Box(0, NEVER, (), np.int64)
        boxes["launch"] = gymnasium.spaces.Box(0, NEVER, (self.creatives,), np.int64)
        return gymnasium.spaces.Dict(boxes)

    @cached_property
    def offer_space(self) -> gymnasium.spaces.Dict:
        boxes = dict(self.public_boxes) | {"predicted": self.predicted_box, "sigma": self.box(*LIMITS["sigma"])}
        boxes["available"] = gymnasium.spaces.Box(0, 1, (self.creatives,), np.bool_)
        boxes |= {name: self.box(0.0, MAX_MONEY, self.slots) for name in ("volume", "price")}
        return gymnasium.spaces.Dict(boxes)
