"""What is observed of a campaign: the layouts of the numbers, and the numbers."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

from recgym.arrays import Array, clip, constant, namespace, rows_of
from recgym.layout import CHOSEN, Field, Layout, clock, clock_fields
from recgym.scenario import Seen
from recgym.scenarios.ads.campaign import MAX_REWARD, TINY, Tally
from recgym.scenarios.ads.creatives import MAX_PREDICTED

__all__ = ["bidding_layout", "bidding_observation", "placement_layout", "placement_observation"]

MAX_NUMBER = 1e18  # of an observed number: no campaign gets there
MAX_LOG = 60.0  # of an observed logarithm, likewise
PSEUDO = 2.0  # clicks that a response is shrunk by
BASE = math.log(1e-3)  # around which base logits are observed
FREQUENCY = 0.2  # scale of the recent packets
LOWEST_BID = -3.0  # logarithm that a bid of nothing is shown as
WIN_SHRINKAGE = 0.01  # base packets won and lost, that a win rate is shrunk by
MATURE = 0.25  # scale of the logarithm of mature clicks


def log_field(name: str, meaning: str, role: str = "statistic") -> Field:
    return Field(name, -MAX_LOG, MAX_LOG, meaning, role=role)


def numbering(what: str, count: int) -> str:
    """What a field from `numbered` means."""
    return f"number of the {what}, counted from 0, divided by {max(count - 1, 1)}"


def campaign_context(scenario: Any, packet: str) -> list[Field]:
    """Context fields of every campaign; `packet` says what a mean packet is."""
    reward = (-MAX_REWARD, MAX_REWARD)
    return [
        *clock_fields(scenario.horizon, reward=reward),
        Field("last_wins", 0.0, MAX_NUMBER, "impressions won in the last decision, in base packets", role="outcome"),
        Field("last_clicks", 0.0, MAX_NUMBER, "clicks of the last decision, in those of a base packet", role="outcome"),
        Field("last_conversions", 0.0, MAX_NUMBER, "conversions that came in it, likewise", role="outcome"),
        Field("budget", 0.0, 1.0, "share of the budget that is left", role="market"),
        log_field("pace", f"log of the money left per decision left, in the cost of {packet}", "market"),
        Field("maturity", 0.0, 1.0, "share of conversions of a click now that will come in the trial", role="clock"),
        Field("base", -MAX_LOG, MAX_LOG, "the campaign's base logit, less that of one click per thousand"),
        log_field("goal", "log of the wanted cost of a conversion, in that expected at the base", "feature"),
        *scenario.preference_fields(),
    ]


def creative_fields(scenario: Any) -> list[Field]:
    """Candidate fields that belong to the creative."""
    frequency = f"recent base packets of the creative, times {FREQUENCY:g}"
    mature = f"{MATURE:g} times the log of 1 plus the creative's clicks whose conversions would have come"
    none = "; 0 before anything was shown"
    return [
        CHOSEN,
        Field(
            "predicted", -MAX_PREDICTED, MAX_PREDICTED, "predicted logit of a click in the slot, less the base; 0: none"
        ),
        Field("embedding", -1e3, 1e3, "of the creative", scenario.width),
        Field("frequency", 0.0, MAX_NUMBER, frequency, role="statistic"),
        log_field("exposure", "log of 1 plus the base packets bought of the creative in the slot"),
        log_field(
            "response", f"log of its clicks in the slot per click expected at the base, {PSEUDO:g} of each added{none}"
        ),
        log_field("exposure_creative", "log of 1 plus the base packets bought of the creative in all slots"),
        log_field("response_creative", f"as response, of the creative in all slots{none}"),
        log_field("mature", mature),
        log_field(
            "conversion", f"log of its conversions per conversion expected of mature clicks, 1 of each added{none}"
        ),
        Field("creative", 0.0, 1.0, numbering("creative", scenario.creatives), role="group"),
    ]


def placement_layout(scenario: Any) -> Layout:
    """The layout of a `Placement`."""
    slot = f"{numbering('slot', scenario.slots)}; slots are equal parts of the day, the first from midnight on"
    candidate = [
        *creative_fields(scenario),
        Field("slot", 0.0, 1.0, slot, role="group"),
        Field("available", 0.0, 1.0, "1 for a creative that can be had", role="availability"),
        log_field("cost", "log of a packet's cost, in the money left per decision left", "market"),
        log_field("volume", "log of the impressions that a packet wins, in base packets", "market"),
        log_field("exposure_slot", "log of 1 plus the base packets bought of all creatives in the slot"),
        log_field("response_slot", "as response, of all creatives in the slot"),
    ]
    context = campaign_context(scenario, "a packet now, the mean over slots")
    return Layout(tuple(context), tuple(candidate), scenario.creatives * scenario.slots)


def log_ratio(xp: Any, one: Array, other: Array) -> Array:
    return xp.log((one + TINY) / (other + TINY))


def campaign_numbers(scenario: Any, seen: Seen, tally: Tally, mean_cost: Array, mean_price: Array) -> dict[str, Array]:
    """Values of `campaign_context`.

    Args:
        scenario: a Campaign.
        seen: what is known.
        tally: of it.
        mean_cost: [B] money of a mean packet.
        mean_price: [B] money of an impression.
    """
    xp = namespace(seen.reward)
    offer = seen.offer
    context = clock(seen, scenario.horizon)
    left = clip(scenario.horizon - seen.time, 1.0, None)
    expected = mean_price * xp.exp(-offer.base) / scenario.conversion_rate
    context["last_wins"] = tally.won
    context["last_clicks"] = tally.clicked * (1.0 / scenario.packet)
    per_packet = scenario.packet * scenario.conversion_rate
    context["last_conversions"] = tally.converted * (1.0 / per_packet)
    context["budget"] = tally.left / offer.budget
    context["pace"] = log_ratio(xp, tally.left / left, mean_cost)
    context["maturity"] = scenario.maturity(seen.time)
    context["base"] = offer.base - BASE
    context["goal"] = log_ratio(xp, offer.goal, expected)
    for place, name in enumerate(scenario.preferences):
        context[f"weight_{name}"] = offer.preference[:, place]
    return context


def exposure_and_response(xp: Any, packet: float, packets: Array, clicks: Array) -> tuple[Array, Array]:
    """log(1 + n) of base packets n, and log of clicks per click expected at the base, `PSEUDO` added to both."""
    response = xp.log((clicks + PSEUDO) / (packets * packet + PSEUDO))
    return xp.log(packets + 1.0), response


def creative_numbers(scenario: Any, tally: Tally) -> dict[str, Array]:
    """Values [B, K, 1] and [B, K, S] of what was counted of creatives and cells."""
    xp, packet = namespace(tally.left), scenario.packet
    exposure, response = exposure_and_response(xp, packet, tally.wins, tally.clicks)
    totals = xp.sum(tally.wins, axis=2), xp.sum(tally.clicks, axis=2)
    by_creative = exposure_and_response(xp, packet, *totals)
    mature = xp.log(tally.mature + 1.0) * MATURE
    conversion = xp.log((tally.revealed + 1.0) / (tally.mature * scenario.conversion_rate + 1.0))
    one = {
        "frequency": tally.frequency * FREQUENCY,
        "exposure_creative": by_creative[0],
        "response_creative": by_creative[1],
        "mature": mature,
        "conversion": conversion,
    }
    return {name: value[:, :, None] for name, value in one.items()} | {"exposure": exposure, "response": response}


@cache
def even_steps(count: int) -> tuple[float, ...]:
    """`count` numbers from 0 to 1."""
    return tuple((np.arange(count, dtype=np.float32) * np.float32(1.0 / max(count - 1, 1))).tolist())


def numbered(count: int, like: Array) -> Array:
    """[count] float32 from 0 to 1."""
    return constant(even_steps(count), like)


def placement_observation(scenario: Any, seen: Seen) -> Array:
    """The state vector [B, D] of a `Placement`."""
    xp = namespace(seen.reward)
    tally, offer = seen.kept, seen.offer
    grid = scenario.creatives, scenario.slots
    cost = offer.volume * offer.price
    total_cost = xp.sum(cost, axis=1)
    mean_cost = total_cost / scenario.slots
    mean_price = total_cost / clip(xp.sum(offer.volume, axis=1), TINY, None)
    pace = tally.left / clip(scenario.horizon - seen.time, 1.0, None)
    cells = creative_numbers(scenario, tally)
    cells["chosen"] = tally.chosen.reshape((-1, *grid))
    cells["predicted"] = offer.predicted
    cells["creative"] = numbered(scenario.creatives, pace)[None, :, None]
    cells["slot"] = numbered(scenario.slots, pace)[None, None, :]
    cells["available"] = xp.astype(offer.available, xp.float32)[:, :, None]
    cells["cost"] = log_ratio(xp, cost, pace[:, None])[:, None]
    cells["volume"] = log_ratio(xp, offer.volume, scenario.base_wins(offer.base)[:, None])[:, None]
    totals = xp.sum(tally.wins, axis=1), xp.sum(tally.clicks, axis=1)
    by_slot = exposure_and_response(xp, scenario.packet, *totals)
    cells["exposure_slot"], cells["response_slot"] = (each[:, None] for each in by_slot)
    cells["embedding"] = offer.embedding[:, :, None]
    context = campaign_numbers(scenario, seen, tally, mean_cost, mean_price)
    return scenario.layout.join(context, cells, grid)


# --- bidding ---------------------------------------------------------------------------------------------------------
def bidding_layout(scenario: Any) -> Layout:
    """The layout of a `Bidding`."""
    context = [
        *campaign_context(scenario, "a base packet at the reference price"),
        Field("last_auctions", 0.0, MAX_NUMBER, "auctions of the last decision, in base packets", role="outcome"),
        log_field("paid", "log of the mean price of the last decision that won", "market"),
        Field(
            "traffic", 0.0, MAX_NUMBER, "usual auctions of the coming decision, in those of a mean one", role="clock"
        ),
        Field(
            "traffic_left", 0.0, 1.0, "usual auctions from the coming decision on, as a share of the day", role="clock"
        ),
    ]
    candidate = [
        *creative_fields(scenario),
        Field(
            "outlook",
            -MAX_PREDICTED,
            MAX_PREDICTED,
            "predicted, in each part of the day from midnight on",
            scenario.slots,
        ),
        Field("bid", -MAX_LOG, MAX_LOG, "log of the level; the lowest where it bids nothing"),
        Field("bids", 0.0, 1.0, "1 for a level that bids"),
        Field("level", 0.0, 1.0, numbering("level", len(scenario.levels)), role="group"),
        log_field("cost", "log of the bid, in the money left per usual auction won of those to come", "market"),
        log_field("asked", "log of 1 plus the auctions at the level so far, in base packets"),
        Field("win_rate", 0.0, 1.0, "share of them won, shrunk to a half", role="statistic"),
    ]
    return Layout(tuple(context), tuple(candidate), scenario.creatives * len(scenario.levels))


def bidding_observation(scenario: Any, seen: Seen) -> Array:
    """The state vector [B, D] of a `Bidding`."""
    xp = namespace(seen.reward)
    ledger, offer = seen.kept, seen.offer
    tally = ledger.tally
    grid = scenario.creatives, len(scenario.levels)
    index = scenario.index_of(seen.time)
    slot = scenario.part_at(seen.time)
    usual = scenario.table_like("profile", seen.reward)[index]
    to_come = scenario.table_like("profile_left", seen.reward)[index]
    half = scenario.base_wins(offer.base)  # of a mean decision's auctions
    cells = creative_numbers(scenario, tally)
    rows = rows_of(slot)
    for name in ("exposure", "response"):
        cells[name] = cells[name][rows, :, slot][:, :, None]
    cells["chosen"] = tally.chosen.reshape((-1, *grid))
    cells["predicted"] = offer.predicted[rows, :, slot][:, :, None]
    cells["creative"] = numbered(scenario.creatives, seen.reward)[None, :, None]
    bids = scenario.table_like("bids", seen.reward)
    log_bid = clip(scenario.table_like("log_levels", seen.reward), LOWEST_BID, MAX_LOG)
    cells["bid"], cells["bids"] = log_bid[None, None], bids[None, None]
    cells["level"] = numbered(len(scenario.levels), seen.reward)[None, None]
    per_auction = log_ratio(xp, tally.left, half * scenario.horizon * clip(to_come, 1e-6, None))
    cells["cost"] = (log_bid[None] - per_auction[:, None])[:, None]
    cells["asked"] = xp.log(ledger.asked + 1.0)[:, None]
    rate = (ledger.taken + WIN_SHRINKAGE) / (ledger.asked + 2.0 * WIN_SHRINKAGE)
    cells["win_rate"] = clip(rate, None, 1.0)[:, None]
    cells["embedding"], cells["outlook"] = offer.embedding[:, :, None], offer.predicted[:, :, None]
    context = campaign_numbers(scenario, seen, tally, half, xp.ones_like(half))
    context["last_auctions"] = ledger.offered
    context["paid"] = xp.log(ledger.price + TINY)
    context["traffic"], context["traffic_left"] = usual, to_come
    return scenario.layout.join(context, cells, grid)
