"""What a campaign's desk sees: an observation of ad placement in packets and clicks, and how it plans with beliefs."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from recgym.baselines.planning import mixture
from recgym.baselines.policy import Floats, Reading
from recgym.scenarios.ads.observation import FREQUENCY, MATURE, PSEUDO

__all__ = ["Desk", "conversion_rates", "desk_of", "packet_values", "planned"]


class Desk(NamedTuple):
    """An observation in units; cells are creatives x slots."""

    predicted: Floats  # [B, K, S] logit less the base
    available: Floats  # [B, K, S] 1 or 0
    volume: Floats  # [B, K, S] base packets that a packet wins
    cost: Floats  # [B, K, S] of a packet, in the money left per decision left
    bought: Floats  # [B, K, S] base packets so far
    clicks: Floats  # [B, K, S]
    frequency: Floats  # [B, K] recent base packets
    mature: Floats  # [B, K] clicks whose conversions would have come
    revealed: Floats  # [B, K] conversions
    maturity: Floats  # [B] share of the conversions of a click now that will come
    left: Floats  # [B] share of the budget


def desk_of(scenario: Any, reading: Reading) -> Desk:
    """Undo the logarithms of the observation."""
    grid = (-1, scenario.creatives, scenario.slots)

    def cells(name: str) -> Floats:
        return reading.field(name).reshape(grid)

    def of_creative(name: str) -> Floats:
        return cells(name)[:, :, 0]

    bought = np.expm1(cells("exposure"))
    mature = np.expm1(of_creative("mature") / MATURE)
    return Desk(
        predicted=cells("predicted"),
        available=cells("available"),
        volume=np.exp(cells("volume")),
        cost=np.exp(cells("cost")),
        bought=bought,
        clicks=np.maximum(np.exp(cells("response")) * (bought * scenario.packet + PSEUDO) - PSEUDO, 0.0),
        frequency=of_creative("frequency") / FREQUENCY,
        mature=mature,
        revealed=np.maximum(np.exp(of_creative("conversion")) * (mature * scenario.conversion_rate + 1.0) - 1.0, 0.0),
        maturity=reading.field("maturity"),
        left=reading.field("budget"),
    )


def packet_values(scenario: Any, now: Desk, log_rate: Floats, conversion: Floats) -> Floats:
    """[B, K, S] reward of a packet at click rates e^`log_rate` times the base, and conversion rates [B, K]."""
    worth = (1.0 + scenario.conversion_value * conversion * now.maturity[:, None]) / scenario.unit
    return np.exp(log_rate) * now.volume * scenario.packet * worth[:, :, None] * now.available


def planned(value: Floats, now: Desk, reading: Reading) -> Floats:
    """Scores [B, C] of a cell drawn from the fluid program: the best creative of each slot, and the money left."""
    best, creative = value.max(axis=1), value.argmax(axis=1)
    slots = mixture(best, now.cost[:, 0], np.ones(len(value)), reading)
    scores = np.zeros_like(value)
    np.put_along_axis(scores, creative[:, None], slots[:, None], axis=1)
    return scores.reshape(len(value), -1)


def conversion_rates(
    scenario: Any, now: Desk, shape: float, mean: Floats | float, rng: np.random.Generator, scale: float
) -> Floats:
    """[B, K] Gamma beliefs about conversions per click: their mean, or a draw whose logarithm is moved by `scale`.

    Args:
        scenario: a Campaign.
        now: what was counted.
        shape: conversions that the prior is worth.
        mean: of the prior, [B] or one.
        rng: of the draw.
        scale: 0 is the mean, 1 a draw.
    """
    prior = shape / np.broadcast_to(np.asarray(mean, dtype=np.float64), now.left.shape)[:, None]
    count, exposure = shape + now.revealed, prior + now.mature
    return count / exposure * gamma_factor(count, rng, scale)


def gamma_factor(count: Floats, rng: np.random.Generator, scale: float) -> Floats:
    """A Gamma(count) draw over its mean, to the power of `scale`."""
    if scale == 0.0:
        return np.ones_like(count)
    return np.maximum(rng.standard_gamma(count) / count, 1e-12) ** scale


def pooled_rate(scenario: Any, now: Desk) -> Floats:
    """[B] conversions per click of all creatives, shrunk to the campaign's usual rate by one conversion."""
    return (now.revealed.sum(axis=1) + 1.0) / (now.mature.sum(axis=1) + 1.0 / scenario.conversion_rate)
