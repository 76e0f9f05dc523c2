"""Slate policies that learn about features within the trial and know nothing of the tasks.

They score every candidate for itself and learn one outcome per place, as if places and neighbours did not matter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from recgym.arrays import logistic
from recgym.baselines.policy import Floats, IndexPolicy, Reading
from recgym.baselines.regression import (
    Gaussian,
    Ridge,
    draw,
    laplace,
    linear_scores,
    ridge_start,
    ridge_step,
    ridge_weights,
    spread,
)
from recgym.baselines.slate.pages import clicks_by_place, seen_of, shown_by_place

__all__ = ["content", "glm_ts", "lints", "linucb", "rotation", "width_of"]

HALVINGS = 8
BASE = -2.0  # logit of a click before any was seen
POPULAR = 0.3  # decisions that a topic waits longer, per logit of popularity


def width_of(scenario: Any) -> int:
    """F, the numbers that `seen_of` has of a candidate."""
    return scenario.items.width + 3 + (scenario.reward == "shop") + scenario.statistics


def ridge(scenario: Any, reward: float, index: Callable[[Ridge, Reading], Floats]) -> IndexPolicy:
    """Ridge regression of clicks (`reward` 0), of rewards (1), or of a mixture of both."""

    def start(rows: int) -> Ridge:
        return ridge_start(rows, scenario.candidates, width_of(scenario))

    def learn(memory: Ridge, reading: Reading) -> Ridge:
        shown = shown_by_place(reading, scenario.places)
        clicks = clicks_by_place(reading, shown)
        earned = reading.reward[:, None] / np.maximum(clicks.sum(axis=1, keepdims=True), 1.0)
        outcome = clicks * (1.0 - reward + reward * earned)
        return ridge_step(memory, shown @ memory.offered, outcome, seen_of(scenario, reading))

    return IndexPolicy(scenario, start, learn, index)


def linucb(scenario: Any, alpha: float = 0.1, reward: float = 0.0, caution: float = 0.0) -> IndexPolicy:
    """LinUCB (Li et al. 2010, algorithm 1, with one model for all candidates), less `caution` times the hint of burden.

    With `caution` it is the heuristic of who knows that burden does harm, and not how much.
    """

    def index(memory: Ridge, reading: Reading) -> Floats:
        score = linear_scores(memory.offered, ridge_weights(memory)) + alpha * spread(memory.offered, memory.inverse)
        return score - caution * reading.field("hint")

    return ridge(scenario, reward, index)


def lints(scenario: Any, v: float = 0.1, reward: float = 0.0) -> IndexPolicy:
    """LinTS: w . x with w ~ N(A^-1 b, v^2 A^-1) (Agrawal & Goyal 2013, algorithm 1)."""

    def index(memory: Ridge, reading: Reading) -> Floats:
        mean = ridge_weights(memory)
        return linear_scores(memory.offered, draw(mean, v**2 * memory.inverse, reading.rng) if v > 0 else mean)

    return ridge(scenario, reward, index)


def glm_ts(scenario: Any, v: float = 0.5) -> IndexPolicy:
    """Thompson sampling with logistic regression of clicks (Chapelle & Li 2011), from N(0, I) but for the intercept."""
    width = width_of(scenario)

    def start(rows: int) -> Gaussian:
        mean = np.zeros((rows, width))
        mean[:, -1] = BASE
        covariance = np.broadcast_to(np.eye(width), (rows, width, width)).copy()
        return Gaussian(np.zeros((rows, scenario.candidates, width)), mean, covariance)

    def learn(memory: Gaussian, reading: Reading) -> Gaussian:
        shown = shown_by_place(reading, scenario.places)
        clicks = clicks_by_place(reading, shown)
        x = shown @ memory.offered
        after = memory.mean, memory.covariance
        for place in range(scenario.places):
            one = x[:, place], clicks[:, place, None]
            after = laplace(*after, *one, logistic, lambda p: p * (1.0 - p), HALVINGS)
        return Gaussian(seen_of(scenario, reading), *after)

    def index(memory: Gaussian, reading: Reading) -> Floats:
        theta = draw(memory.mean, v**2 * memory.covariance, reading.rng) if v > 0 else memory.mean
        return linear_scores(memory.offered, theta)

    return IndexPolicy(scenario, start, learn, index)


class Clicked(NamedTuple):
    offered: Floats  # [B, C, D] features
    total: Floats  # [B, D] sum of those clicked


def content(scenario: Any, popularity: float = 0.1) -> IndexPolicy:
    """Nearest to what was clicked: product with the mean of its features, and a little popularity."""

    def start(rows: int) -> Clicked:
        width = scenario.items.width
        return Clicked(np.zeros((rows, scenario.candidates, width)), np.zeros((rows, width)))

    def learn(memory: Clicked, reading: Reading) -> Clicked:
        clicked = reading.field("clicked")
        assert reading.features is not None
        return Clicked(reading.features, memory.total + (clicked[:, None, :] @ memory.offered)[:, 0])

    def index(memory: Clicked, reading: Reading) -> Floats:
        length = np.linalg.norm(memory.total, axis=1, keepdims=True)
        mean = memory.total / np.maximum(length, 1e-9)
        return linear_scores(memory.offered, mean) + popularity * reading.field("popularity")

    return IndexPolicy(scenario, start, learn, index)


class Waiting(NamedTuple):
    topic: Floats  # [B, C] of the candidates
    age: Floats  # [B, Z] decisions since each topic was shown


def rotation(scenario: Any) -> IndexPolicy:
    """The topics that were shown longest ago, of them the popular; an item's topic is that of the nearest centroid."""
    centroids = scenario.inventory.centroids

    def start(rows: int) -> Waiting:
        return Waiting(np.zeros((rows, scenario.candidates)), np.zeros((rows, len(centroids))))

    def learn(memory: Waiting, reading: Reading) -> Waiting:
        shown = (reading.chosen > 0.0)[..., None] & (memory.topic[..., None] == np.arange(len(centroids)))
        assert reading.features is not None
        nearest = (reading.features @ centroids.T).argmax(axis=2).astype(np.float64)
        return Waiting(nearest, np.where(shown.any(axis=1), 0.0, memory.age + 1.0))

    def index(memory: Waiting, reading: Reading) -> Floats:
        age = np.take_along_axis(memory.age, memory.topic.astype(np.int64), axis=1)
        return age + POPULAR * reading.field("popularity")

    return IndexPolicy(scenario, start, learn, index)
