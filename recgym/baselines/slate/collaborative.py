"""Collaborative recommenders: what users of a log clicked together says what a new user will click.

The log is that of uniform pages, shown to users of training seeds. They know its items by their features, and
recommend nothing by content: an item that nobody clicked in the log has no score.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recgym.baselines.policy import Floats, IndexPolicy, RandomPolicy, Reading
from recgym.baselines.regression import linear_scores
from recgym.baselines.slate.pages import Finder
from recgym.data.factors import FACTORS, RIDGE, factorise, similarities
from recgym.rng import make_rng
from recgym.runner import Runner

__all__ = ["als", "item_knn", "logged_clicks", "too_large"]

USERS = 2_000  # in the log
SEED = 1_000
MAX_ITEMS = 10_000  # of whose similarities there is a matrix


@lru_cache(maxsize=4)
def logged_clicks(scenario: Any) -> Floats:
    """[`USERS`, N] clicks of users of training seeds on items of the catalog, on uniform pages of one trial each."""
    runner = Runner(scenario, USERS, make_rng("cpu", SEED))
    policy = RandomPolicy(scenario)
    policy.reseed(SEED)
    counts = np.zeros((USERS, scenario.items.items))
    observation = runner.reset()
    for _ in range(scenario.horizon):
        item = runner.state.seen.offer.item
        observation = runner.step(policy.predict(observation)[0]).observation
        clicked = scenario.layout.get(observation, "clicked") > 0.0
        rows, places = np.nonzero(clicked)
        np.add.at(counts, (rows, item[rows, places]), 1.0)
    counts.flags.writeable = False
    return counts


class Neighbours(NamedTuple):
    item: NDArray[np.int64]  # [B, C] rows of the catalog
    score: Floats  # [B, N] sum of similarities to what was clicked


def item_knn(scenario: Any, shrink: float = 20.0, popularity: float = 0.1) -> IndexPolicy:
    """Item-item neighbours: most like what was clicked, and at first the most clicked in the log."""
    clicks = logged_clicks(scenario)
    similar = similarities(clicks, shrink)
    known = np.log1p(clicks.sum(axis=0))
    find = Finder(scenario.inventory.features)

    def start(rows: int) -> Neighbours:
        return Neighbours(np.zeros((rows, scenario.candidates), dtype=np.int64), np.zeros((rows, len(known))))

    def learn(memory: Neighbours, reading: Reading) -> Neighbours:
        assert reading.features is not None
        rows, places = np.nonzero(reading.field("clicked") > 0.0)
        score = memory.score.copy()
        np.add.at(score, rows, similar[memory.item[rows, places]])
        return Neighbours(find(reading.features), score)

    def index(memory: Neighbours, reading: Reading) -> Floats:
        score = np.take_along_axis(memory.score, memory.item, axis=1)
        largest = np.maximum(score.max(axis=1, keepdims=True), 1e-9)
        return score / largest + popularity * known[memory.item]

    return IndexPolicy(scenario, start, learn, index)


class Folded(NamedTuple):
    item: NDArray[np.int64]  # [B, C]
    precision: Floats  # [B, f, f]
    moment: Floats  # [B, f]


def als(scenario: Any, confidence: float = 1.0, popularity: float = 0.1) -> IndexPolicy:
    """Matrix factorisation: the user's factors from what was clicked, by the items' of the log."""
    clicks = logged_clicks(scenario)
    items = factorise(clicks, FACTORS, confidence, RIDGE)
    known = np.log1p(clicks.sum(axis=0))
    find = Finder(scenario.inventory.features)
    prior = items.T @ items + RIDGE * np.eye(FACTORS)

    def start(rows: int) -> Folded:
        item = np.zeros((rows, scenario.candidates), dtype=np.int64)
        return Folded(item, np.broadcast_to(prior, (rows, FACTORS, FACTORS)).copy(), np.zeros((rows, FACTORS)))

    def learn(memory: Folded, reading: Reading) -> Folded:
        assert reading.features is not None
        clicked = reading.field("clicked")[..., None] * items[memory.item]
        precision = memory.precision + confidence * clicked.transpose(0, 2, 1) @ clicked
        return Folded(find(reading.features), precision, memory.moment + (1.0 + confidence) * clicked.sum(axis=1))

    def index(memory: Folded, reading: Reading) -> Floats:
        user = np.linalg.solve(memory.precision, memory.moment[..., None])[..., 0]
        return linear_scores(items[memory.item], user) + popularity * known[memory.item]

    return IndexPolicy(scenario, start, learn, index)


def too_large(scenario: Any) -> str:
    """Why items are too many to be compared with each other."""
    if scenario.items.items <= MAX_ITEMS:
        return ""
    return f"it keeps a number for each two of {scenario.items.items} items; the most it can are {MAX_ITEMS}"
