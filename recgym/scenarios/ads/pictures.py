"""What pictures show of a campaign."""

from __future__ import annotations

from typing import Any

from recgym.arrays import Array, logistic, namespace
from recgym.panels import Panel, Series
from recgym.scenario import Seen, State

__all__ = ["believed", "bidding_panels", "bidding_trace", "grid_of", "names_of", "panels_of", "trace"]

SHRINKAGE = 20.0  # clicks that a prediction is worth beside those counted


def believed(scenario: Any, seen: Seen) -> Array:
    """[B, C] value of each candidate by counts alone, shrunk to the prediction: what a simple dashboard would show."""
    xp = namespace(seen.reward)
    tally, offer = seen.kept, seen.offer
    prior = logistic(offer.base[:, None, None] + offer.predicted)
    bought = tally.wins * scenario.base_wins(offer.base)[:, None, None]
    rate = (tally.clicks + SHRINKAGE) / (bought + SHRINKAGE / prior)
    conversion = (tally.revealed + 1.0) / (tally.mature + 1.0 / scenario.conversion_rate)
    worth = scenario.value_of_clicks(conversion, seen.time) * xp.astype(offer.available, xp.float32)
    value = rate * worth[:, :, None] * offer.volume[:, None]
    return value.reshape(value.shape[0], -1)


def common_panels(scenario: Any) -> tuple[Panel, ...]:
    """Budget, clicks and conversions of any campaign."""
    budget = Panel("budget (share)", (Series("left", "left", "area"), Series("pacing", "left at an even pace", "line")))
    clicks = Panel("clicks", (Series("clicks", "clicks", "bars"),))
    conversions = Panel(
        "conversions",
        (Series("pending", "still to come (hidden)", "area"), Series("revealed", "came so far", "line")),
    )
    without = scenario.conversion_value == 0.0
    return (budget, clicks) if without else (budget, clicks, conversions)


def panels_of(scenario: Any) -> tuple[Panel, ...]:
    """What `trace` says of a placement."""
    return common_panels(scenario)


def bidding_panels(scenario: Any) -> tuple[Panel, ...]:
    """What `bidding_trace` says."""
    auctions = Panel("auctions (base packets)", (Series("won", "won", "bars"), Series("offered", "offered", "step")))
    return (*common_panels(scenario), auctions)


def names_of(scenario: Any) -> tuple[str, ...]:
    """Creative and slot of each candidate."""
    return tuple(f"{k + 1} in {s + 1}" for k in range(scenario.creatives) for s in range(scenario.slots))


def grid_of(scenario: Any, columns: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the creatives, and of `columns`."""
    return tuple(f"creative {k + 1}" for k in range(scenario.creatives)), columns


def trace(scenario: Any, state: State) -> dict[str, Array]:
    """[B] shares of the budget, and counts."""
    return traced(scenario, state, state.seen.kept)


def bidding_trace(scenario: Any, state: State) -> dict[str, Array]:
    """[B] the same, and auctions in base packets."""
    ledger = state.seen.kept
    return traced(scenario, state, ledger.tally) | {"won": ledger.tally.won, "offered": ledger.offered}


def traced(scenario: Any, state: State, tally: Any) -> dict[str, Array]:
    xp = namespace(state.seen.reward)
    return {
        "left": tally.left / state.seen.offer.budget,
        "pacing": 1.0 - state.seen.time * (1.0 / scenario.horizon),
        "clicks": tally.clicked,
        "pending": xp.astype(xp.sum(state.hidden.waiting, axis=(1, 2)), xp.float32),
        "revealed": xp.sum(tally.revealed, axis=1),
    }
