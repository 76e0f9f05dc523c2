"""Desks: what a campaign's observation tells, and how beliefs about clicks and conversions become a decision.

A desk of ad placement and one of live bidding have the same methods, so that whoever believes something of clicks plays
both. Impressions are in base packets, money in base packets at the mean price; cells are creatives x slots.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np

from recgym.baselines.planning import indicators, mixture
from recgym.baselines.policy import Floats, Reading
from recgym.scenarios.ads import Bidding
from recgym.scenarios.ads.auctions import auction
from recgym.scenarios.ads.campaign import OFFERED
from recgym.scenarios.ads.observation import BASE, FREQUENCY, MATURE, PSEUDO
from recgym.scenarios.ads.pacing import paced

__all__ = ["BiddingDesk", "Counted", "Desk", "PlacementDesk", "desk_of"]

MAX_LOG_RATE = 5.0  # logarithm of a click rate over the base that is believed


class Counted(NamedTuple):
    """What was counted so far."""

    bought: Floats  # [B, K, S] base packets
    clicks: Floats  # [B, K, S]
    mature: Floats  # [B, K] clicks whose conversions would have come
    revealed: Floats  # [B, K] conversions


class Desk(Protocol):
    """One of `PlacementDesk` and `BiddingDesk`."""

    scenario: Any

    def start(self, rows: int) -> Any:
        """What is kept of trials that begin."""

    def learn(self, kept: Any, reading: Reading) -> Any:
        """The same after a decision."""

    def counts(self, kept: Any, reading: Reading) -> Counted:
        """What was counted."""

    def predicted(self, reading: Reading) -> Floats:
        """[B, K, S] predicted logits less the base."""

    def embedding(self, reading: Reading) -> Floats:
        """[B, K, d] of the creatives."""

    def bought(self, reading: Reading) -> Floats:
        """[B, K, S] 1 for the cell that the last decision bought impressions of; else 0."""

    def frequency(self, reading: Reading) -> Floats:
        """[B, K] recent base packets that wear a creative out; 0 where nothing does."""

    def due(self, reading: Reading) -> Floats:
        """[B] share of the budget that an even pace spends in the coming decision."""

    def plan(self, kept: Any, reading: Reading, log_rate: Floats, conversion: Floats) -> Floats:
        """Scores [B, C] of the fluid program: click rates e^`log_rate` [B, K, S] over the base, conversions [B, K]."""

    def buy(self, kept: Any, reading: Reading, log_rate: Floats, conversion: Floats, log_multiplier: Floats) -> Floats:
        """Scores [B, C] at a price of money [B], in the reward of a base packet at the base per mean base packet."""


def desk_of(scenario: Any) -> Desk:
    """The desk that plays a scenario."""
    return BiddingDesk(scenario) if isinstance(scenario, Bidding) else PlacementDesk(scenario)


class _Common:
    """What both desks read alike, from columns of the second candidate axis that are the same for each creative."""

    def __init__(self, scenario: Any, columns: int) -> None:
        self.scenario = scenario
        self.grid = (-1, scenario.creatives, columns)

    def cells(self, reading: Reading, name: str) -> Floats:
        """[B, K, columns] a field."""
        return reading.field(name).reshape(self.grid)

    def of_creative(self, reading: Reading, name: str) -> Floats:
        """[B, K] a field that is the creative's own."""
        return self.cells(reading, name)[:, :, 0]

    def wide(self, reading: Reading, name: str) -> Floats:
        """[B, K, n] the same of a field with several numbers."""
        width = self.scenario.layout.field(name).width
        return reading.field(name).reshape(*self.grid, width)[:, :, 0]

    def embedding(self, reading: Reading) -> Floats:
        return self.wide(reading, "embedding")

    def conversions(self, reading: Reading) -> tuple[Floats, Floats]:
        """Mature clicks and conversions [B, K]."""
        mature = np.expm1(self.of_creative(reading, "mature") / MATURE)
        ratio = np.exp(self.of_creative(reading, "conversion"))
        return mature, np.maximum(ratio * (mature * self.scenario.conversion_rate + 1.0) - 1.0, 0.0)

    def worth(self, conversion: Floats, maturity: Floats) -> Floats:
        """[B, K] reward of a base packet's clicks at conversion rates [B, K]."""
        return self.scenario.packet * self.scenario.worth_of_clicks(conversion, maturity[:, None])


class PlacementDesk(_Common):
    """Reads and plans a `Placement`; nothing has to be kept."""

    def __init__(self, scenario: Any) -> None:
        super().__init__(scenario, scenario.slots)

    def start(self, rows: int) -> Floats:
        return np.zeros(rows)

    def learn(self, kept: Floats, reading: Reading) -> Floats:
        return kept

    def counts(self, kept: Floats, reading: Reading) -> Counted:
        bought = np.expm1(self.cells(reading, "exposure"))
        expected = bought * self.scenario.packet + PSEUDO
        clicks = np.maximum(np.exp(self.cells(reading, "response")) * expected - PSEUDO, 0.0)
        return Counted(bought, clicks, *self.conversions(reading))

    def predicted(self, reading: Reading) -> Floats:
        return self.cells(reading, "predicted")

    def bought(self, reading: Reading) -> Floats:
        return self.cells(reading, "chosen") * (reading.field("last_wins") > 0.0)[:, None, None]

    def frequency(self, reading: Reading) -> Floats:
        return self.of_creative(reading, "frequency") / FREQUENCY

    def due(self, reading: Reading) -> Floats:
        return np.full(len(reading.remaining), 1.0 / self.scenario.horizon)

    def values(self, reading: Reading, log_rate: Floats, conversion: Floats) -> Floats:
        """[B, K, S] reward of a packet, 0 where the creative cannot be had."""
        worth = self.worth(conversion, reading.field("maturity"))[:, :, None]
        wins = np.exp(self.cells(reading, "volume")) * self.cells(reading, "available")
        return np.exp(np.minimum(log_rate, MAX_LOG_RATE)) * wins * worth

    def plan(self, kept: Floats, reading: Reading, log_rate: Floats, conversion: Floats) -> Floats:
        value = self.values(reading, log_rate, conversion)
        best, creative = value.max(axis=1), value.argmax(axis=1)
        cost = np.exp(self.cells(reading, "cost")[:, 0])  # in the money left per decision left
        slots = mixture(best, cost, np.ones(len(value)), reading)
        scores = np.zeros_like(value)
        np.put_along_axis(scores, creative[:, None], slots[:, None], axis=1)
        return scores.reshape(len(value), -1)

    def buy(
        self, kept: Floats, reading: Reading, log_rate: Floats, conversion: Floats, log_multiplier: Floats
    ) -> Floats:
        value = self.values(reading, log_rate, conversion)
        money = np.exp(reading.field("pace"))[:, None, None]  # left per decision left, in mean packets
        scores = value - np.exp(log_multiplier)[:, None, None] * np.exp(self.cells(reading, "cost")) * money
        return np.where(self.cells(reading, "available") > 0.0, scores, -np.inf).reshape(len(value), -1)


class MarketRead(NamedTuple):
    """What a day of bidding has told of auctions and clicks."""

    log_price: Floats  # [B] median of the highest rival bid, as the last win rate tells it
    misfit: Floats  # [B, G] of each spread of rival bids that is thought possible, to prices paid
    bought: Floats  # [B, K, S] base packets
    clicks: Floats  # [B, K, S]
    slot: Any  # [B] int64 part of the day of the coming decision


SPREADS = np.linspace(0.8, 1.25, 10)  # of the logarithm of rival bids
USUAL_SPREAD = 1.0  # until prices have told
MAX_WEIGHT = 2000.0  # wins that a price is trusted by
MIN_WINS = 3.0


class BiddingDesk(_Common):
    """Reads and plans a `Bidding`: the market's level and spread follow from win rates and prices paid."""

    def __init__(self, scenario: Any) -> None:
        super().__init__(scenario, len(scenario.levels))

    def time(self, reading: Reading) -> Any:
        """[B] int64 decisions made."""
        return self.scenario.horizon - reading.remaining.astype(np.int64)

    def now(self, reading: Reading) -> Any:
        """[B] int64 the coming decision; after the last one, that one."""
        return np.minimum(self.time(reading), self.scenario.horizon - 1)

    def start(self, rows: int) -> MarketRead:
        cells = np.zeros((rows, self.scenario.creatives, self.scenario.slots))
        return MarketRead(np.zeros(rows), np.zeros((rows, len(SPREADS))), cells, cells, np.zeros(rows, dtype=np.int64))

    def learn(self, kept: MarketRead, reading: Reading) -> MarketRead:
        from scipy.special import ndtri

        scenario, chosen = self.scenario, self.cells(reading, "chosen")
        offered, won = reading.field("last_auctions"), reading.field("last_wins")
        base = scenario.base_wins(reading.field("base") + BASE)
        offered, won = offered * base, won * base
        level = chosen.sum(axis=1) @ scenario.log_levels
        there = chosen.any(axis=(1, 2)) & (chosen.sum(axis=1) @ scenario.bids > 0.0) & (won > MIN_WINS)
        there &= reading.field("budget") > 0.0  # what is cut says nothing of prices
        q = ndtri(np.clip((won + 0.5) / (offered + 1.0), 1e-4, 1.0 - 1e-4))[:, None]
        median = level[:, None] - SPREADS * q  # if the spread were this one
        misfit = kept.misfit
        if scenario.auction == "second":
            found = auction("second", level[:, None], median, SPREADS)
            paid = np.log(found.cost / np.maximum(found.win, 1e-12))
            error = (paid - reading.field("paid")[:, None]) ** 2 * np.minimum(won, MAX_WEIGHT)[:, None]
            misfit = misfit + np.where(there[:, None], error, 0.0)
        best = misfit.argmin(axis=1)
        log_price = np.where(there, np.take_along_axis(median, best[:, None], axis=1)[:, 0], kept.log_price)
        clicks = reading.field("last_clicks") * scenario.packet
        cell = self.bought(reading)
        bought = kept.bought + cell * reading.field("last_wins")[:, None, None]
        slot = scenario.slot_of[self.time(reading)]
        return MarketRead(log_price, misfit, bought, kept.clicks + cell * clicks[:, None, None], slot)

    def counts(self, kept: MarketRead, reading: Reading) -> Counted:
        return Counted(kept.bought, kept.clicks, *self.conversions(reading))

    def predicted(self, reading: Reading) -> Floats:
        return self.wide(reading, "outlook")

    def bought(self, reading: Reading) -> Floats:
        before = np.maximum(self.time(reading) - 1, 0)
        slots = indicators(self.scenario.slot_of[before], self.scenario.slots)
        creative = self.cells(reading, "chosen").sum(axis=2) * (reading.field("last_wins") > 0.0)[:, None]
        return creative[:, :, None] * slots[:, None]

    def frequency(self, reading: Reading) -> Floats:
        return np.zeros((len(reading.remaining), self.scenario.creatives))

    def due(self, reading: Reading) -> Floats:
        share = self.scenario.profile[self.time(reading)] / self.scenario.horizon
        return share.astype(np.float64)  # memories are, from the start on

    def ahead(self, log_rate: Floats, conversion: Floats) -> Floats:
        """[B, K, T] reward of a base packet in each decision of the day."""
        scenario = self.scenario
        rate = np.exp(np.minimum(log_rate, MAX_LOG_RATE))[:, :, scenario.slot_of[:-1]]
        return rate * scenario.packet * scenario.worth_of_clicks(conversion[:, :, None], scenario.maturities[:-1])

    def money(self, reading: Reading) -> Floats:
        """[B] left, in base packets at the reference price."""
        return np.exp(reading.field("pace")) * np.maximum(reading.remaining, 1.0)

    def spread(self, kept: MarketRead) -> Floats:
        """[B] of rival bids."""
        told = kept.misfit.max(axis=1) > 0.0
        return np.where(told, SPREADS[kept.misfit.argmin(axis=1)], USUAL_SPREAD)

    def plan(self, kept: MarketRead, reading: Reading, log_rate: Floats, conversion: Floats) -> Floats:
        scenario, now = self.scenario, self.now(reading)
        value = self.ahead(log_rate, conversion)
        rows = np.arange(len(value))
        creative = value[rows, :, now].argmax(axis=1)
        auctions = np.broadcast_to(OFFERED * scenario.profile[:-1], (len(rows), scenario.horizon))
        money = self.money(reading)
        mix = paced(scenario, value.max(axis=1), kept.log_price, self.spread(kept), money, auctions, now)
        level = np.where(reading.rng.random(len(rows)) < mix.weight, mix.dear, mix.cheap)
        return indicators(creative * len(scenario.levels) + level, scenario.layout.candidates)

    def buy(
        self, kept: MarketRead, reading: Reading, log_rate: Floats, conversion: Floats, log_multiplier: Floats
    ) -> Floats:
        """The level nearest to the value over the price of money: at the second price nothing is better."""
        value = self.ahead(log_rate, conversion)[np.arange(len(log_multiplier)), :, self.now(reading)]
        creative, best = value.argmax(axis=1), value.max(axis=1)
        bid = np.log(np.maximum(best, 1e-12)) - log_multiplier
        levels = np.where(self.scenario.bids > 0.0, self.scenario.log_levels, -np.inf)
        distance = np.abs(levels - bid[:, None])
        level = np.where(reading.field("budget") > 0.0, distance.argmin(axis=1), 0)
        return indicators(creative * len(self.scenario.levels) + level, self.scenario.layout.candidates)
