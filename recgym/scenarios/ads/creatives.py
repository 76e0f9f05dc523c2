"""Creatives: how likely a click on each is in each part of the day, and what a large model would say of it.

The logit of a click on creative k in slot s is b + u + e_k.w + e_k.w_s + g_s + delta_k + xi_ks: b the campaign's base,
e_k the creative's embedding, the others normal with the spreads of the scenario. Where the catalog tells of tastes,
m [d] and A [F, d], as a log gave them, w = m + z A with z ~ N(0, I), and what a model predicts is e_k.m.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from recgym.arrays import Array, Rng, clip, logistic, namespace

__all__ = [
    "KEPT",
    "MAX_PREDICTED",
    "MIN_CLICK_LOGIT",
    "Logits",
    "cut",
    "draw_embedding",
    "draw_logits",
    "draw_rates",
    "predict",
]

MIN_CLICK_LOGIT = -20.0
MAX_CLICK_LOGIT = -0.5  # a click rate below a half: the bound needs convexity
MAX_PREDICTED = 20.0  # logits above or below the base, of a prediction
KEPT = 0.5  # share of the variance of what a change point redraws; the rest is new, so that variances stay


class Logits(NamedTuple):
    now: Array  # [B, K, S]
    changed: Array  # [B, K, S] after the change point


def draw_embedding(scenario: Any, rng: Rng, batch: int) -> Array:
    """[batch, K, d] e_k ~ N(0, I_d) / sqrt(d), or rows of the catalog, of length 1, each creative another one."""
    xp, count = rng.xp, scenario.creatives
    if scenario.catalog is None:
        return rng.normal((batch, count, scenario.embedding)) * (1.0 / math.sqrt(scenario.embedding))
    luck = rng.uniform((batch, scenario.items.items))
    order = xp.argsort(luck, axis=1)
    return scenario.table_like("creative_table", luck)[order[:, :count]]


def draw_logits(scenario: Any, base: Array, embedding: Array, rng: Rng) -> Logits:
    """The logits of campaigns with base logits [B] and embeddings [B, K, d]."""
    batch, creatives, width = embedding.shape
    slots = scenario.slots
    known = scenario.table_like("taste_table", embedding)

    def parts() -> Array:  # [B, K, S] of what a change point redraws
        if known.shape[0]:
            taste = (rng.normal((batch, known.shape[0] - 1)) @ known[1:])[:, :, None]
        else:
            taste = scenario.taste * rng.normal((batch, width, 1))
        by_slot = scenario.taste_by_slot * rng.normal((batch, width, slots))
        slot = scenario.slot_effect * rng.normal((batch, 1, slots))
        creative = scenario.creative_effect * rng.normal((batch, creatives, 1))
        return embedding @ (taste + by_slot) + slot + creative

    cell = scenario.cell_effect * rng.normal((batch, creatives, slots)) + scenario.level * rng.normal((batch, 1, 1))
    fixed = base[:, None, None] + cell
    if known.shape[0]:
        fixed = fixed + (embedding @ known[0])[:, :, None]
    one, other = parts(), parts()
    kept, new = math.sqrt(KEPT), math.sqrt(1.0 - KEPT)
    return Logits(cut(fixed + one), cut(fixed + kept * one + new * other))


def cut(logit: Array) -> Array:
    """Between the least and the largest that a click may have."""
    return clip(logit, MIN_CLICK_LOGIT, MAX_CLICK_LOGIT)


def draw_rates(scenario: Any, rng: Rng, batch: int) -> Array:
    """[batch, K] conversions per click: their logit is normal around that of `conversion_rate`."""
    middle = math.log(scenario.conversion_rate / (1.0 - scenario.conversion_rate))
    logit = middle + scenario.conversion_spread * rng.normal((batch, scenario.creatives))
    return logistic(logit)


def predict(scenario: Any, task: Any, rng: Rng) -> Array:
    """[B, K, S] predicted logits less the base: the truth, and errors of level and cells; 0: none is made.

    Where the catalog tells of tastes, e_k.m in every slot.
    """
    logit, base = task.logit, task.base
    if scenario.prediction is None:
        return namespace(logit).zeros_like(logit)
    known = scenario.table_like("taste_table", logit)
    if known.shape[0]:
        expected = (task.embedding @ known[0])[:, :, None] + namespace(logit).zeros_like(logit)
        return clip(expected, -MAX_PREDICTED, MAX_PREDICTED)
    level, cell = scenario.prediction
    error = level * rng.normal((logit.shape[0], 1, 1)) + cell * rng.normal(tuple(logit.shape))
    return clip(logit - base[:, None, None] + error, -MAX_PREDICTED, MAX_PREDICTED)
