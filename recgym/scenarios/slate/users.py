"""The users: what a task is, within what limits, and how tasks are drawn."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from recgym.arrays import Array, Rng, namespace, row_sum, where_rows
from recgym.parameters import param
from recgym.scenarios.slate.inventory import Inventory

__all__ = ["LIMITS", "SlateTask", "next_taste", "sample_users", "task_space", "uniform_param"]

LIMITS = {  # of a task's numbers
    "outside": (-20.0, 20.0),
    "attention": (0.01, 1.0),
    "satiation": (0.0, 20.0),
    "retention": (0.0, 0.999),
    "sensitivity": (0.0, 20.0),
    "memory": (0.0, 0.999),
    "leaving": (0.0, 1.0),
    "price_sensitivity": (0.0, 100.0),
}
MAX_TASTE = 1.001  # length 1, with room for rounding


class SlateTask(NamedTuple):
    """A user."""

    taste: Array  # [B, D] u, of length 1
    outside: Array  # [B] v0, logits of no click
    attention: Array  # [B] gamma, of each place relative to the one above
    satiation: Array  # [B] phi, logits lost per recent click on the topic
    retention: Array  # [B] rho, of satiation from one step to the next
    sensitivity: Array  # [B] sigma, of trust to the burden consumed
    memory: Array  # [B] mu, weight of the old in the average burden consumed
    leaving: Array  # [B] probability to leave after a page without a click
    price_sensitivity: Array  # [B] logits per unit of price
    preference: Array  # [B, P] weights that are drawn


def uniform_param(name: str, default: tuple[float, float], unit: str, effect: str) -> Any:
    """A parameter [least, most] of a field of the task."""
    return param(default, *LIMITS[name], unit, effect, kind="range")


def draw_taste(rng: Rng, batch: int, inventory: Inventory, breadth: float) -> Array:
    """[batch, D] u = normalise(sum_z g_z c_z), g_z ~ Gamma(breadth), of topics' centroids c [Z, D].

    Where the catalog tells of users' tastes, m [D] and A [F, D], u = normalise(m + g A), g ~ N(0, I).
    """
    xp = rng.xp
    if inventory.tastes.shape[0]:
        normal = rng.normal((batch, inventory.tastes.shape[0] - 1))
        return _normalised(inventory.tastes[0] + normal @ inventory.tastes[1:])
    shape = xp.full((batch, inventory.centroids.shape[0]), breadth, dtype=xp.float32, device=rng.device)
    weight = rng.gamma(shape) + 1e-12  # a small shape may give all zeros
    return _normalised(weight @ inventory.centroids)


def _normalised(taste: Array) -> Array:
    """Rows [B, D] of length 1."""
    return taste / (namespace(taste).sqrt(row_sum(taste * taste))[:, None] + 1e-12)


def sample_users(scenario: Any, rng: Rng, batch: int) -> SlateTask:
    """Draw users [batch, ...] of a `Slate`: uniform in the ranges of its parameters, satiation log-uniform."""
    xp = rng.xp
    luck = rng.uniform((batch, len(LIMITS)))
    columns = {}
    for place, name in enumerate(LIMITS):
        low, high = getattr(scenario, name)
        unit = luck[:, place]
        if name == "satiation" and low > 0.0:
            drawn = low * xp.exp(math.log(high / low) * unit)
        else:
            drawn = low + (high - low) * unit
        columns[name] = xp.clip(drawn, low, high)  # rounding may go beyond
    taste = draw_taste(rng, batch, scenario.inventory_like(luck), scenario.breadth)
    return SlateTask(taste=taste, **columns, preference=scenario.draw_preference(rng, batch))


def task_space(scenario: Any) -> gymnasium.spaces.Dict:
    """What a task of a `Slate` may be."""
    boxes: dict[str, gymnasium.Space[Any]] = {
        name: gymnasium.spaces.Box(low, high, (), np.float32) for name, (low, high) in LIMITS.items()
    }
    boxes["taste"] = gymnasium.spaces.Box(-MAX_TASTE, MAX_TASTE, (scenario.items.width,), np.float32)
    boxes["preference"] = scenario.preference_space
    return gymnasium.spaces.Dict(boxes)


def next_taste(scenario: Any, taste: Array, features: Array, clicks: Array, count: Array, rng: Rng) -> Array:
    """[B, D] the taste after a page; as it is where neither `drift` nor `redraw` moves it.

    Args:
        scenario: a Slate.
        taste: [B, D] before.
        features: [B, k, D] of the items shown.
        clicks: [B, k] on them.
        count: [B] of the clicks.
        rng: decides whose taste is drawn anew.
    """
    xp = rng.xp
    if scenario.drift > 0.0:
        target = xp.sum(clicks[:, :, None] * features, axis=1) / xp.maximum(count, xp.ones_like(count))[:, None]
        moved = _normalised(taste + scenario.drift * (target - taste))
        taste = where_rows(count > 0.0, moved, taste)
    if scenario.redraw > 0.0:
        changes = rng.uniform((taste.shape[0],)) < scenario.redraw
        drawn = draw_taste(rng, taste.shape[0], scenario.inventory_like(taste), scenario.breadth)
        taste = where_rows(changes, drawn, taste)
    return taste
