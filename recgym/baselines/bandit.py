"""Classic bandit policies, batched, working from `chosen` and `last_reward` alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from recgym.baselines import Baseline
from recgym.core import LOG_SCALE

__all__ = ["BASELINES", "IndexPolicy", "Statistics"]


class Statistics(NamedTuple):
    """What an index may look at."""

    shown: np.ndarray  # [B, K] how often each candidate was shown (discounted, or within a window)
    clicks: np.ndarray  # [B, K] how often it was clicked, likewise
    remaining: np.ndarray  # [B] decisions left
    rng: np.random.Generator


class Memory(NamedTuple):
    """Carried from one `predict` to the next; rows are cleared where `episode_start` says so."""

    shown: np.ndarray  # [B, K]
    clicks: np.ndarray  # [B, K]


class IndexPolicy:
    """Shows the candidate with the highest index; ties are broken at random.

    Args:
        scenario: gives the layout.
        index: from `Statistics` to a score [B, K].
    """

    def __init__(self, scenario: Any, index: Callable[[Statistics], np.ndarray]) -> None:
        self._layout, self._index = scenario.layout, index
        self.reseed(0)

    def reseed(self, seed: Any) -> None:
        self._rng = np.random.default_rng(seed)

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, Any]:
        """Actions [B] for observations [B, D] (or one action for [D]), and the memory for the next call."""
        batch = np.atleast_2d(np.asarray(observation))
        chosen = self._layout.get(batch, "chosen").astype(np.float64)
        reward = self._layout.get(batch, "last_reward").astype(np.float64)
        memory = state if state is not None else Memory(*np.zeros((2, *chosen.shape)))
        if episode_start is not None:
            keep = ~np.asarray(episode_start, dtype=bool).reshape(-1, 1)
            memory = Memory(*(array * keep for array in memory))
        memory = Memory(memory.shown + chosen, memory.clicks + chosen * reward[:, None])
        remaining = np.rint(np.expm1(self._layout.get(batch, "remaining").astype(np.float64) * LOG_SCALE))
        scores = self._index(Statistics(memory.shown, memory.clicks, remaining, self._rng))
        tied = scores >= scores.max(axis=1, keepdims=True)
        action = np.where(tied, self._rng.random(scores.shape), -1.0).argmax(axis=1)
        return (action if np.ndim(observation) == 2 else action[0]), memory


def greedy(s: Statistics) -> np.ndarray:
    """Posterior mean under a uniform prior."""
    return (s.clicks + 1.0) / (s.shown + 2.0)


def ucb1(s: Statistics, *, bonus: float) -> np.ndarray:
    """Mean + bonus sqrt(ln t / n); Auer et al. (2002) have bonus = sqrt(2)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        width = np.sqrt(np.log(np.maximum(s.shown.sum(axis=1, keepdims=True), 1.0)) / s.shown)
        return np.where(s.shown > 0, s.clicks / s.shown + bonus * width, np.inf)


def thompson(s: Statistics) -> np.ndarray:
    """A draw from each posterior under a uniform prior (Thompson 1933)."""
    return s.rng.beta(s.clicks + 1.0, s.shown - s.clicks + 1.0)


_STATIONARY = {
    "greedy": Baseline(lambda scenario: IndexPolicy(scenario, greedy), "prior-free", "highest posterior mean"),
    "ucb1": Baseline(
        lambda scenario: IndexPolicy(scenario, lambda s: ucb1(s, bonus=math.sqrt(2.0))), "prior-free", "UCB1, untuned"
    ),
    "ucb1_tuned": Baseline(
        lambda scenario, bonus=0.3: IndexPolicy(scenario, lambda s: ucb1(s, bonus=bonus)),
        "prior-free",
        "UCB1, bonus tuned",
        {"bonus": (0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)},
    ),
    "thompson": Baseline(
        lambda scenario: IndexPolicy(scenario, thompson), "prior-free", "Thompson sampling, uniform prior"
    ),
}

BASELINES: dict[str, dict[str, Baseline]] = {"Bandit": _STATIONARY, "DriftBandit": _STATIONARY, "ContextualBandit": {}}
