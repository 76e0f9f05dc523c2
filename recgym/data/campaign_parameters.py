"""Parameters of `Placement` from what a log of impressions says, and where each of them comes from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from recgym.parameters import parameters_of
from recgym.scenarios.ads.campaign import MAX_ERROR_SD
from recgym.scenarios.ads.placement import Placement

__all__ = ["MAX_CREATIVES", "ORIGINS", "REPLACED", "campaign_parameters", "rounded"]

MAX_CREATIVES = 20  # of a task: more candidates than 120 are slow to learn
RANGES = {each.name: (known.low, known.high) for each, known in parameters_of(Placement) if known is not None}
MAX_DOUBT = 1.0  # standard error of a mean logarithm of prices, beyond which it is not known
EFFECTS = ("taste", "taste_by_slot", "slot_effect", "creative_effect", "cell_effect")
SIGNIFICANT = 5  # digits of what is printed and used

# Where each parameter of the scenario comes from. fitted: estimated from the log. fixed: a choice of how the problem is
# posed. assumed: a fact of the market that such a log does not hold. Of a log with a catalog `REPLACED` are unused.
ORIGINS = {
    **dict.fromkeys(("base_rate", "log_price", "price_spread"), "fitted"),
    **dict.fromkeys(("catalog", "campaign", "embedding", "conversion_value", "goal", "cap", "packet"), "fixed"),
    **dict.fromkeys(("weights", "horizon", "budget"), "fixed"),
    **dict.fromkeys(("level", *EFFECTS), "assumed"),
    **dict.fromkeys(("prediction", "conversion_rate", "conversion_spread", "delays", "creatives"), "assumed"),
    **dict.fromkeys(("dose", "fatigue_memory", "profile", "slot_price", "price_walk", "day_factor"), "assumed"),
    **dict.fromkeys(("fatigue", "drift", "change", "launch", "reaction", "rival_memory"), "assumed"),
}
REPLACED = ("taste", "prediction", "embedding")


def rounded(values: Any) -> Any:
    """To a few digits, as plain numbers: what is printed is what is used."""
    return np.vectorize(lambda value: float(f"{value:.{SIGNIFICANT}g}"))(values).tolist()


def _inside(name: str, values: Any) -> Any:
    """Values of a parameter, cut at what it may be, as they are printed and used."""
    return rounded(np.clip(values, *RANGES[name]))


def campaign_parameters(log: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Fit all that a log tells; see `ImpressionLog.parameters_beside`.

    Args:
        log: an ImpressionLog.
        given: parameters that stand as they are.
    """
    found = {**_prices(log), **_click_rates(log, given), **_days_and_conversions(log), **given}
    if log.by_features is not None:
        found = {name: value for name, value in found.items() if name not in REPLACED or name in given}
        found["catalog"] = log.by_features.catalog.digest
    try:
        Placement(**found)
    except ValueError as error:
        what = f"the campaign of this log is none of the scenario's: {error}"
        raise ValueError(f"{log.path}: {what}: see that prices are in the right units, or give it") from error
    return found


def _prices(log: Any) -> dict[str, Any]:
    """Parameters of the market."""
    market, seen = log.market, np.isfinite(log.market.errors)
    means, errors = market.means[seen], market.errors[seen]
    if market.sigma > RANGES["price_spread"][1] or errors.max() > MAX_DOUBT:
        what = f"logarithms of market prices of {means.mean():.3g} with a spread of {market.sigma:.3g}"
        why = (
            "prices cut at the bid do not tell how far rivals go beyond it"
            if market.kind == "truncated"
            else "prices are not lognormal, or of several units"
        )
        ways = "give the bids that lost too, more rows, or leave out the bids (bid=None)"
        raise ValueError(f"{log.path}: {what}: {why}: {ways}")
    middle, count = float(means.mean()), len(means)
    error = math.sqrt(log.price_by_slot.sd**2 / count + float((errors**2).mean()) / count)
    found = {"log_price": rounded([middle - 2.0 * error, middle + 2.0 * error])}
    spread = [market.sigma - 2.0 * market.sigma_error, market.sigma + 2.0 * market.sigma_error]
    found["price_spread"] = _inside("price_spread", spread)
    if log.has_slots:
        found["slot_price"] = _inside("slot_price", log.price_by_slot.sd)
    return found


def _click_rates(log: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of click rates; `given` ones are taken for true."""
    found: dict[str, Any] = {}
    if log.has_creatives:
        effects = log.effects
        found["creatives"] = min(len(log.names), MAX_CREATIVES)
        pairs = {("taste", "creative_effect"): effects.creative.sd}
        if log.has_slots:
            found["slot_effect"] = _inside("slot_effect", effects.slot.sd)
            pairs["taste_by_slot", "cell_effect"] = effects.cell.sd
        for names, sd in pairs.items():
            parts = np.array([getattr(Placement, name) for name in names])
            both = sd * parts / np.hypot(*parts)
            found |= {name: _inside(name, part) for name, part in zip(names, both, strict=True)}
        rate, error = effects.median, effects.median_error
        if log.by_features is not None:
            rate, error = log.by_features.base_rate
            found["creative_effect"] = _inside("creative_effect", log.by_features.fit.rest.sd)
    else:
        assumed = sum(given.get(name, getattr(Placement, name)) ** 2 for name in EFFECTS)
        rate = log.clicked.sum() / log.won.sum() * math.exp(-0.5 * assumed)
        error = 1.0 / math.sqrt(log.clicked.sum())
    if rate > RANGES["base_rate"][1]:
        what = f"a click rate of {rate:.3g} for a creative and hour of the middle, more than"
        ways = "are these impressions, or is clicked another column?"
        raise ValueError(f"{log.path}: {what} {RANGES['base_rate'][1]:g}: {ways}")
    found["base_rate"] = _inside("base_rate", rate * np.exp([-2.0 * error, 2.0 * error]))
    if log.calibration is not None:
        errors = np.array([abs(log.calibration.level), log.calibration.error.sd])
        found["prediction"] = rounded(np.clip(errors, 0.0, MAX_ERROR_SD))
    return found


def _days_and_conversions(log: Any) -> dict[str, Any]:
    """Parameters of traffic, and of what comes after a click."""
    found: dict[str, Any] = {}
    if log.time is not None:
        found["profile"] = log.profile
    if log.day_factor is not None:
        found["day_factor"] = _inside("day_factor", log.day_factor.sd)
    if log.delays is not None and log.conversions is not None:
        found["delays"] = [rounded(pair) for pair in log.delays.mixture]
        found["conversion_rate"] = _inside("conversion_rate", log.conversions[0])
        if log.has_creatives:
            found["conversion_spread"] = _inside("conversion_spread", log.conversions[1])
    return found
