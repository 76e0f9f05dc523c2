"""The catalog as a scenario of slates uses it: what items are, and what is seen of them before anyone has clicked."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from recgym.arrays import Array, arange_like, take_rows, unit_rows
from recgym.catalog import Catalog
from recgym.scenarios.slate.advice import vectors_of

__all__ = ["Inventory", "draw_pool", "inventory_of"]


class Inventory(NamedTuple):
    """Columns of N items, and centroids of Z topics."""

    features: Array  # [N, D] of length 1
    centroids: Array  # [Z, D]
    topic: Array  # [N] int64
    burden: Array  # [N] hidden
    appeal: Array  # [N] hidden
    price: Array  # [N]
    popularity: Array  # [N] appeal with noise; 0 where the item is cold
    hint: Array  # [N] burden with noise; the mean where the item is cold
    cold: Array  # [N] 1 for an item of which nothing has been logged
    member: Array  # [N, G] 1 for the group of the item's provider
    flagged: Array  # [N]
    shuffled: Array  # [N] int64 the items in a random order
    vectors: Array  # [N, F] of the recommender that advises; F = 0: none does
    tastes: Array  # [1 + F, D] mean and factor of users' tastes; [0, D]: by topic


def inventory_of(
    catalog: Catalog, *, cold: float, hint_noise: float, popularity_noise: float, advice: str | None
) -> Inventory:
    """Columns of a catalog, in float32 and int64, with 0 for what it lacks.

    Popularity, hints and who is cold are drawn once, from a stream that the catalog's content alone decides: they are
    what a log made before the trial tells.

    Args:
        catalog: the items; it needs topics.
        cold: share of the items of which nothing has been logged.
        hint_noise: standard deviation of the hint around the burden.
        popularity_noise: standard deviation of the popularity around the appeal, in logits.
        advice: whose vectors are wanted, see `recgym.scenarios.slate.advice`.

    Raises:
        ValueError: the catalog has no topics, or no vectors that the advice needs.
    """
    count = catalog.items
    topic = catalog.require("topic", of="Slate")
    features = unit_rows(catalog.features)
    rng = np.random.default_rng([int(catalog.digest[:16], 16), 0])
    burden, appeal = (_column(value, count) for value in (catalog.burden, catalog.appeal))
    unseen = rng.permutation(count) < round(cold * count)
    hint = burden + hint_noise * rng.standard_normal(count) * (catalog.burden is not None)
    popularity = appeal + popularity_noise * rng.standard_normal(count) * (catalog.appeal is not None)
    centroids = catalog.centroids
    if centroids is None:  # topics may have any numbers
        known, topic = np.unique(topic, return_inverse=True)
        centroids = np.stack([features[topic == z].mean(axis=0) for z in range(len(known))])
    columns = Inventory(
        features=features,
        centroids=centroids,
        topic=topic,
        burden=burden,
        appeal=appeal,
        price=_column(catalog.price, count),
        popularity=np.where(unseen, 0.0, popularity),
        hint=np.where(unseen, burden.mean(), np.clip(hint, -1.0, 2.0)),
        cold=unseen,
        member=np.ones((count, 1)) if catalog.group is None else np.eye(catalog.group.max() + 1)[catalog.group],
        flagged=_column(catalog.flagged, count),
        shuffled=rng.permutation(count),
        vectors=np.zeros((count, 0)) if advice is None else vectors_of(advice, catalog),
        tastes=np.zeros((0, catalog.width)) if catalog.tastes is None else catalog.tastes,
    )
    return Inventory(*(_plain(column) for column in columns))


def _column(value: np.ndarray | None, count: int) -> np.ndarray:
    return np.zeros(count, dtype=np.float32) if value is None else value.astype(np.float32)


def _plain(column: Any) -> np.ndarray:
    array = np.ascontiguousarray(column, dtype=np.int64 if np.asarray(column).dtype.kind == "i" else np.float32)
    array.flags.writeable = False
    return array


def draw_pool(rng: Any, shuffled: Array, shape: tuple[int, int]) -> Array:
    """[B, C] int64 rows of C different items, each of the N equally likely.

    Candidate c comes from the c-th of C stretches of the shuffled items, which begin at a random place: different items
    for one draw each.
    """
    xp = rng.xp
    count, (_, candidates) = shuffled.shape[0], shape
    stretch = count // candidates
    luck = rng.uniform((shape[0], candidates + 1))
    place = xp.astype(luck[:, :-1] * stretch, xp.int64)
    place += stretch * arange_like(candidates, shuffled) + xp.astype(luck[:, -1:] * count, xp.int64)
    return take_rows(shuffled, place % count)
