"""What a simple recommender advises: log-probabilities of the candidates, which a policy may begin with or take up.

It has a vector for each item, and takes the cosine with the sum of those clicked for the match of taste and item in the
user's own logit; what is popular counts as well.
"""

from __future__ import annotations

import numpy as np

from recgym.arrays import Array, namespace, row_sum, unit_rows
from recgym.catalog import Catalog

__all__ = ["ADVISERS", "UNLIKELY", "advice", "matched", "vectors_of"]

ADVISERS = ("content", "collaborative")
UNLIKELY = -30.0  # no log-probability is lower


def vectors_of(adviser: str, catalog: Catalog) -> np.ndarray:
    """[N, F] of length 1, or 0 where nothing is known of an item: its features, or its `vectors`, which a log gave.

    Raises:
        ValueError: the catalog has no vectors.
    """
    table = catalog.features if adviser == "content" else catalog.require("vectors", of="advice='collaborative'")
    return unit_rows(table)


def matched(strength: float, vectors: Array, direction: Array, popularity: Array) -> Array:
    """[B, C] strength x cosine(vector, direction) + popularity; the cosine is 0 where the direction is.

    Args:
        strength: logits between a cosine of 0 and 1.
        vectors: [B, C, F] of the candidates, of length 1.
        direction: [B, F] of any length.
        popularity: [B, C] logits.
    """
    length = namespace(direction).sqrt(row_sum(direction * direction))[:, None] + 1e-9
    return strength * (vectors @ (direction / length)[:, :, None])[:, :, 0] + popularity


def advice(strength: float, vectors: Array, liked: Array, popularity: Array) -> Array:
    """[B, C] log softmax of what `matched` gives for the sum `liked` [B, F] of those clicked, not below `UNLIKELY`."""
    xp = namespace(liked)
    logit = matched(strength, vectors, liked, popularity)
    logit = logit - xp.max(logit, axis=1)[:, None]
    least = xp.zeros_like(logit) + UNLIKELY
    return xp.maximum(logit - xp.log(row_sum(xp.exp(logit)))[:, None], least)
