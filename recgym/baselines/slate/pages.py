"""What an observation of slates tells of the page before: which candidates stood where, and what was clicked."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recgym.baselines.policy import Floats, Reading

__all__ = ["Finder", "clicks_by_place", "seen_of", "shown_by_place"]


def shown_by_place(reading: Reading, places: int) -> Floats:
    """[B, k, C] 1 for the candidate at each place of the page before; nothing where a place was empty."""
    chosen = reading.chosen[:, None, :]
    place = np.arange(places)[:, None]
    return ((chosen > 0.0) & (np.rint(places * (1.0 - chosen)) == place)).astype(np.float64)


def clicks_by_place(reading: Reading, shown: Floats) -> Floats:
    """[B, k] 1 for a click at each place of `shown`, as `shown_by_place` has it."""
    return (shown @ reading.field("clicked")[..., None])[..., 0]


def seen_of(scenario: Any, reading: Reading) -> Floats:
    """[B, C, F] what a learner sees of the candidates, on scales that go together, and 1: the intercept."""
    assert reading.features is not None
    columns = [reading.features, reading.field("popularity"), reading.field("hint") - 0.5]
    if scenario.reward == "shop":
        columns.append(np.log(np.maximum(reading.field("price"), 1e-3)) + 1.0)
    if scenario.statistics:
        columns.append(0.3 * reading.field("topic_slow"))
    columns.append(np.ones(reading.chosen.shape))
    return np.concatenate([column.reshape(*reading.chosen.shape, -1) for column in columns], axis=2)


class Finder:
    """Rows of the catalog by the features of its items; of items with equal features one of them.

    Args:
        features: [N, D] float32.
    """

    def __init__(self, features: NDArray[np.float32]) -> None:
        direction = np.random.default_rng(0).standard_normal(features.shape[1])
        self._direction = direction
        keys = features.astype(np.float64) @ direction
        self._order = np.argsort(keys)
        self._keys = keys[self._order]

    def __call__(self, features: Floats) -> NDArray[np.int64]:
        """[...] int64 rows of features [..., D]."""
        keys = features @ self._direction
        after = np.clip(np.searchsorted(self._keys, keys), 1, len(self._keys) - 1)
        nearer = np.abs(keys - self._keys[after - 1]) < np.abs(keys - self._keys[after])
        return self._order[after - nearer]
