"""What pictures show of a trial of slates."""

from __future__ import annotations

from typing import Any

import numpy as np

from recgym.arrays import Array, logistic, namespace, take_rows
from recgym.catalog import Catalog
from recgym.panels import Panel, Series
from recgym.scenario import Seen, State
from recgym.scenarios.slate.advice import matched
from recgym.scenarios.slate.observation import AVERAGES

__all__ = ["panels_of", "predicted", "titles", "trace"]


def titles(catalog: Catalog, item: np.ndarray) -> list[tuple[str, ...]]:
    """Of items [B, C], as the catalog has them; else their numbers."""
    if catalog.title is None:
        return [tuple(f"item {number}" for number in row) for row in item]
    return [tuple(catalog.title[number] for number in row) for row in item]


def _topics(catalog: Catalog) -> tuple[str, ...]:
    """Names of the topics, in the order of the inventory's centroids."""
    topic = catalog.require("topic", of="the picture of satiation")
    numbers = np.unique(topic) if catalog.centroids is None else np.arange(len(catalog.centroids))
    names = catalog.topic_names
    return tuple(f"topic {z}" if names is None or z >= len(names) else names[z] for z in numbers.tolist())


def panels_of(scenario: Any) -> tuple[Panel, ...]:
    """What `trace` says, less what the parameters leave without a meaning."""
    user = []
    trusting = scenario.sensitivity[1] > 0.0 and scenario.items.burden is not None
    if trusting:
        user.append(Series("trust", "trust", "line"))
    if scenario.leaving[1] > 0.0:
        user.append(Series("away", "away", "band"))
    consumed = (Series("burden", "average of what was clicked", "area"),)
    bored = (Series("satiation", "topic", "map", _topics(scenario.items)),)
    panels = [
        *([Panel("user" if trusting else "away", tuple(user))] if user else []),
        *([Panel("burden", consumed)] if trusting else []),
        *([Panel("satiation (logits)", bored)] if scenario.satiation[1] > 0.0 else []),
    ]
    return tuple(panels)


def predicted(scenario: Any, seen: Seen) -> Array:
    """[B, C] reward of each candidate alone, as what is kept of the trial has it.

    Its chance of a click, by the cosine with the moving average of taste, the popularity and the mean user's `outside`,
    times the moving average of the reward per click.
    """
    inventory = scenario.inventory_like(seen.reward)
    features, popularity = (take_rows(table, seen.offer.item) for table in (inventory.features, inventory.popularity))
    outside = 0.5 * (scenario.outside[0] + scenario.outside[1])
    logit = matched(scenario.beta, features, seen.kept.taste, popularity) - outside
    per_click = seen.kept.averages[:, list(AVERAGES).index("worth_slow")]
    return logistic(logit) * per_click[:, None]


def trace(scenario: Any, state: State) -> dict[str, Array]:
    """[B] trust, burden, whether the user is away, and [B, Z] satiation by topic."""
    task, hidden, seen = state
    xp = namespace(seen.reward)
    return {
        "trust": scenario.trust(task, hidden),
        "away": xp.astype(seen.kept.gone, xp.float32),
        "burden": hidden.burden,
        "satiation": task.satiation[:, None] * hidden.interest,
    }
