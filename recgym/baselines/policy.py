"""How reference policies act: NumPy, batched, used through `predict` like any SB3 model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recgym.arrays import to_numpy, tree_map, where_rows
from recgym.layout import decisions_left
from recgym.scenario import Scenario

__all__ = [
    "ConstantPolicy",
    "Floats",
    "IndexPolicy",
    "InformedPolicy",
    "RandomPolicy",
    "Reading",
    "memoryless",
    "restarted",
]

Floats = NDArray[np.floating[Any]]


class RandomPolicy:
    """Uniform over the actions; of slates over those without a candidate twice."""

    def __init__(self, scenario: Any) -> None:
        space = scenario.action_space
        self._shape, self._high = space.shape, int(space.nvec[0] if space.shape else space.n)
        self.reseed(0)

    def reseed(self, seed: Any) -> None:
        self._rng = np.random.default_rng(seed)

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, Any]:
        rows = np.asarray(observation).shape[:-1]
        if not self._shape:
            return self._rng.integers(0, self._high, size=rows), state
        order = self._rng.random((*rows, self._high)).argsort(axis=-1)
        return order[..., : self._shape[0]], state


class ConstantPolicy:
    """Always the same action.

    Args:
        scenario: gives the action space.
        action: of it; for a slate the first of its items, which the following ones join.
    """

    def __init__(self, scenario: Any, action: int = 0) -> None:
        shape = scenario.action_space.shape
        first = np.asarray(action)
        self._action = (first + np.arange(shape[0])) % scenario.layout.candidates if shape else first

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, Any]:
        rows = np.asarray(observation).shape[:-1]
        return np.broadcast_to(self._action, (*rows, *self._action.shape)), state


class InformedPolicy:
    """Knows the task.

    Args:
        scenario: what is played.
        act: state -> actions [B] or [B, k]; None: the scenario's own `informed_action`.
    """

    sees_state = True

    def __init__(self, scenario: Any, act: Callable[[Any], Any] | None = None) -> None:
        self._act = scenario.informed_action if act is None else act

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, Any]:
        return to_numpy(self._act(observation)), state


class Reading(NamedTuple):
    """What an observation tells, and how to act on it."""

    chosen: Floats  # [B, K] 1 for the candidate shown last; all 0 at the start of a trial
    reward: Floats  # [B] what it brought, in units of the objective (see `Scenario.reward_unit`)
    remaining: Floats  # [B] decisions left, this one included
    features: Floats | None  # [B, K, d] of the candidates on offer now, where they have any
    field: Callable[[str], Floats]  # any field of the observation, by name
    rng: np.random.Generator
    deterministic: bool

    def sample(self, logits: Floats) -> Floats:
        """Scores [B, K] whose highest is a draw from softmax(logits): Gumbel-max; the mode where deterministic."""
        return logits if self.deterministic else logits + self.rng.gumbel(size=logits.shape)


class IndexPolicy:
    """Shows the candidate with the highest index, of slates the highest in order; ties are broken at random.

    Args:
        scenario: gives the layout.
        start: number of rows -> memory, a NamedTuple of arrays [B, ...] of fixed size.
        learn: (memory, reading) -> memory with the last decision's outcome; changes nothing in place.
        index: (memory, reading) -> scores [B, K].
    """

    def __init__(
        self,
        scenario: Scenario,
        start: Callable[[int], Any],
        learn: Callable[[Any, Reading], Any],
        index: Callable[[Any, Reading], Floats],
    ) -> None:
        self._layout = scenario.layout
        self._places = scenario.action_space.shape[0] if scenario.action_space.shape else None
        self._unit = scenario.reward_unit
        self._start = start
        self._learn = learn
        self._index = index
        self._has_features = any(field.name == "features" for field in self._layout.candidate)
        self.reseed(0)

    def start(self, rows: int) -> Any:
        """The memory of trials that begin: what `predict` hands on, in structure."""
        return self._start(rows)

    def reseed(self, seed: Any) -> None:
        self._rng = np.random.default_rng(seed)

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, Any]:
        """Actions [B] or [B, k] for observations [B, D] (or one for [D]), and the memory for the next call."""
        reading, memory = self._read(observation, state, episode_start, deterministic)
        scores = self._score(memory, reading)
        luck = self._rng.random(scores.shape)
        if self._places is None:
            action = np.where(_best(scores), luck, -1.0).argmax(axis=1)
        else:
            action = np.lexsort((luck, -scores), axis=1)[:, : self._places]
        return (action if np.ndim(observation) == 2 else action[0]), memory

    def distribution(
        self, observation: Any, state: Any = None, episode_start: Any = None, draws: int = 1
    ) -> tuple[NDArray[np.float32], Any]:
        """What `predict` would choose from in this call, of a slate for its first place: what a learner can imitate.

        Uniform over the candidates that are tied for the highest score. Where scores hold a draw, as those of
        Thompson sampling or of a softmax do, so does the distribution: over `draws` it averages to that of the policy.

        Returns:
            Probabilities [B, K] for observations [B, D] (or [K] for [D]), and the memory for the next call.
        """
        reading, memory = self._read(observation, state, episode_start, deterministic=False)
        probabilities = np.zeros_like(reading.chosen)
        for _ in range(draws):
            tied = _best(self._score(memory, reading))
            probabilities += tied / (draws * tied.sum(axis=1, keepdims=True))
        probabilities = probabilities.astype(np.float32)
        return (probabilities if np.ndim(observation) == 2 else probabilities[0]), memory

    def _read(self, observation: Any, state: Any, episode_start: Any, deterministic: bool) -> tuple[Reading, Any]:
        """What is seen, and the memory for the next call."""
        batch = np.atleast_2d(to_numpy(observation))

        def field(name: str) -> Floats:
            return self._layout.get(batch, name).astype(np.float64)

        remaining = np.rint(decisions_left(field("remaining")))
        features = field("features").reshape(*field("chosen").shape, -1) if self._has_features else None
        reading = Reading(
            field("chosen"), field("last_reward") / self._unit, remaining, features, field, self._rng, deterministic
        )
        with np.errstate(under="ignore"):  # a weight of e^-800 is 0, whatever the caller wants to hear of
            memory = self._learn(restarted(state, lambda: self._start(len(batch)), episode_start), reading)
        return reading, memory

    def _score(self, memory: Any, reading: Reading) -> Floats:
        """[B, K], with whatever chance belongs to the index."""
        with np.errstate(under="ignore"):
            return self._index(memory, reading)


class Nothing(NamedTuple):
    """The memory of a policy without one."""

    rows: Floats  # [B] zeros


def memoryless(scenario: Scenario, index: Callable[[Reading], Floats]) -> IndexPolicy:
    """A policy whose scores [B, K] follow from the observation of the moment."""
    return IndexPolicy(
        scenario,
        lambda rows: Nothing(np.zeros(rows)),
        lambda memory, reading: memory,
        lambda memory, reading: index(reading),
    )


def _best(scores: Floats) -> NDArray[np.bool_]:
    """[B, K] where the score is the highest of its row."""
    return scores >= scores.max(axis=1, keepdims=True)


def restarted(memory: Any, start: Callable[[], Any], episode_start: Any) -> Any:
    """The memory with the rows of `episode_start` [B] as new; all of them where there is no memory yet."""
    if memory is None:
        return start()
    if episode_start is None or not np.any(episode_start):
        return memory
    rows = np.asarray(episode_start, dtype=bool).reshape(-1)
    return tree_map(lambda new, old: where_rows(rows, new, old), start(), memory)
