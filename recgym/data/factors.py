"""Collaborative filtering: what the users of a log clicked together, as similarities and as factors of its items."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["FACTORS", "RIDGE", "factorise", "item_vectors", "similarities"]

Floats = NDArray[Any]

SEED = 1_000
FACTORS, RIDGE = 12, 10.0
CONFIDENCE = 3.0  # per click, where nothing else is tuned
ROUNDS = 10  # each solves for users, then for items
MAX_CELLS = 50_000_000  # of the table of users and items that factors are found from
KINDS = ("als", "item_knn")
DIRECTIONS = 32  # of similarities


def similarities(clicks: Floats, shrink: float) -> Floats:
    """[N, N] cosines of the items' columns of `clicks` [users, N], of those few clicked shrunk; 0 on the diagonal.

    Item-based collaborative filtering (Sarwar et al. 2001; Deshpande & Karypis 2004).
    """
    together = clicks.T @ clicks
    length = np.sqrt(np.diag(together))
    cosine = together / (length[:, None] * length + shrink)
    np.fill_diagonal(cosine, 0.0)
    return cosine


def factorise(clicks: Floats, factors: int, confidence: float, ridge: float) -> Floats:
    """[N, factors] of the items, by alternating least squares on implicit feedback (Hu, Koren & Volinsky 2008).

    What was clicked c times is preferred with confidence 1 + confidence c, all else is not, with confidence 1.

    Args:
        clicks: [users, N] counts.
        factors: of a user and of an item.
        confidence: per click.
        ridge: weight of the squared factors.
    """
    rng = np.random.default_rng(SEED)
    items: Floats = 0.1 * rng.standard_normal((clicks.shape[1], factors))
    for _ in range(ROUNDS):
        users = _solved(clicks, items, confidence, ridge)
        items = _solved(clicks.T, users, confidence, ridge)
    return items


def item_vectors(clicks: Floats, kind: str = "als") -> NDArray[np.float32]:
    """Vectors of items whose products say how alike they are in a log, 0 for those that nobody clicked.

    Args:
        clicks: [users, N] counts.
        kind: "als": the factors that `factorise` finds, in units of what they say of a new user (the square root of
            (Q'Q + ridge)^-1). "item_knn": products are the items' cosines, up to the `DIRECTIONS` largest directions.

    Returns:
        [N, F] float32, for `Catalog.vectors`.

    Raises:
        ValueError: there is no such kind.
    """
    if kind not in KINDS:
        raise ValueError(f"item_vectors: kind must be one of {', '.join(KINDS)}, got {kind!r}")
    if kind == "als":
        items = factorise(clicks, FACTORS, CONFIDENCE, RIDGE)
        size, direction = np.linalg.eigh(items.T @ items + RIDGE * np.eye(FACTORS))
        vectors = items @ direction / np.sqrt(size)
    else:
        length = np.linalg.norm(clicks, axis=0)
        _, size, right = np.linalg.svd(clicks / np.maximum(length, 1e-9), full_matrices=False)
        vectors = (size[:DIRECTIONS, None] * right[:DIRECTIONS]).T
    return np.where((clicks.sum(axis=0) > 0.0)[:, None], vectors, 0.0).astype(np.float32)


def _solved(clicks: Floats, other: Floats, confidence: float, ridge: float) -> Floats:
    """Factors of the rows of `clicks`, given those of its columns."""
    outer = (other[:, :, None] * other[:, None, :]).reshape(len(other), -1)
    width = other.shape[1]
    precision = (confidence * clicks @ outer).reshape(-1, width, width) + other.T @ other + ridge * np.eye(width)
    moment = ((clicks > 0.0) + confidence * clicks) @ other
    return np.linalg.solve(precision, moment[..., None])[..., 0]
