"""Playing: the same tasks and the same luck for every policy, one trial per row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, NamedTuple, Protocol

import numpy as np

import recgym
from recgym.arrays import Array, to_numpy, tree_map
from recgym.evaluation.luck import own_luck
from recgym.layout import Layout
from recgym.rng import make_rng
from recgym.runner import Runner

__all__ = [
    "ARGMAX",
    "CHUNK",
    "PRETRAINED",
    "TEST_SEED",
    "VALIDATION_SEED",
    "Policy",
    "Shuffled",
    "Trials",
    "action_shares",
    "rollout",
    "subset",
    "upper_bounds",
]

CHUNK = 4096  # trials played at once: a part of the random key, so it must not depend on the machine


VALIDATION_SEED = 1_000_000  # task seeds: training below, validation from here, test from TEST_SEED


TEST_SEED = 2_000_000


ARGMAX = ":argmax"  # ends the name of a policy that plays deterministically


PRETRAINED = "pretrained:"  # begins the name of an agent that ships with the package


class Policy(Protocol):
    """Whatever has SB3's `predict`: a baseline, an SB3 algorithm, your own object.

    A policy with an attribute `sees_state = True` is handed the scenario's state in place of the observation; one with
    a method `reseed(seed)` is told the chunk's seed before it acts.
    """

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, Any]: ...


class Shuffled:
    """A policy that is shown some fields of the observation from another trial: what they are worth to it.

    Each trial gets those of the one before it among the trials that are played together (`CHUNK`), for all of its
    decisions.

    Args:
        policy: see `Policy`.
        layout: of the observations.
        fields: names of what is shuffled.

    Raises:
        ValueError: the observation has no such field.
    """

    def __init__(self, policy: Any, layout: Layout, fields: Sequence[str]) -> None:
        known = [field.name for field in layout]
        if unknown := [name for name in fields if name not in known]:
            raise ValueError(f"the observation has no field {unknown[0]!r}; there are {', '.join(known)}")
        self._policy, self._columns = policy, [column for name in fields for column in layout.columns(name)]
        self.action_space = getattr(policy, "action_space", None)  # has luck of its own; see `own_luck`

    def reseed(self, seed: Any) -> None:
        if hasattr(self._policy, "reseed"):
            self._policy.reseed(seed)

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, Any]:
        """As the policy's, on observations [B, D]."""
        shown = np.array(to_numpy(observation))
        shown[:, self._columns] = np.roll(shown[:, self._columns], 1, axis=0)
        return self._policy.predict(shown, state=state, episode_start=episode_start, deterministic=deterministic)


class Trials(NamedTuple):
    """Result of N trials of one policy."""

    returns: np.ndarray  # [N] float64 sum of rewards
    expected: np.ndarray  # [N] float64 sum of the expected rewards of what was chosen; NaN where no optimum is known
    regret: np.ndarray  # [N, T] float32 per decision; NaN where no optimum is known
    rewards: np.ndarray  # [N, T] float32 per decision
    objectives: np.ndarray  # [N, M] sums
    costs: np.ndarray  # [N, C] sums
    actions: np.ndarray  # [N, T] or [N, T, k] int32 what was chosen
    tasks: Any  # Task [N, ...], NumPy: what was played


def action_shares(trials: Trials, count: int) -> np.ndarray:
    """[T, A] share of the trials (of a slate: of its places) that chose each of `count` actions, by decision."""
    decisions = trials.actions.shape[1]
    chosen = trials.actions.reshape(len(trials.actions), decisions, -1)
    shares = np.stack([np.bincount(chosen[:, t].ravel(), minlength=count) for t in range(decisions)])
    return shares / (chosen.shape[0] * chosen.shape[2])


def subset(trials: Trials, rows: np.ndarray) -> Trials:
    """The trials of the rows that an index or a mask [N] picks."""
    return tree_map(lambda leaf: leaf[rows], trials)


def rollout(
    policy: Policy,
    scenario: Any,
    *,
    trials: int,
    seed: int,
    deterministic: bool = False,
    task: Any = None,
    on_step: Callable[[int], None] | None = None,
) -> Trials:
    """Play `trials` trials, one per row, without restarts; the seed alone decides tasks and luck.

    Args:
        policy: see `Policy`.
        scenario: what is played, as `recgym.make_scenario` takes it.
        trials: number of trials N; they run in chunks of `CHUNK`.
        seed: of the tasks and the luck; chunk i uses the key [seed, i].
        deterministic: passed to `predict`.
        task: play this task in every trial instead of drawn ones, or one per trial: a Task [N, ...], or a mapping of
            its fields. The luck is that of drawn tasks.
        on_step: called with the number of decisions made so far, summed over chunks.

    Raises:
        ValueError: there are no trials, or the task is refused (see `Runner.make_task`).
    """
    if trials < 1:
        raise ValueError(f"trials must be at least 1, got {trials}")
    scenario = recgym.make_scenario(scenario)
    tasks = None if task is None else Runner(scenario, trials, make_rng("cpu", seed)).make_task(task)
    sizes = [min(CHUNK, trials - start) for start in range(0, trials, CHUNK)]
    parts = []
    for chunk, size in enumerate(sizes):
        key = [seed, chunk]
        runner = Runner(scenario, size, make_rng("cpu", key))
        part = None if tasks is None else tree_map(itemgetter(slice(chunk * CHUNK, chunk * CHUNK + size)), tasks)
        with own_luck(policy, key):
            parts.append(_play(policy, runner, deterministic, part, on_step, chunk))
    return tree_map(lambda *leaves: np.concatenate(leaves), *parts)


def upper_bounds(scenario: Any, *, trials: int, seed: int) -> np.ndarray | None:
    """[N] upper bounds on the expected return in the trials that `rollout` plays; None where the scenario has none."""
    scenario = recgym.make_scenario(scenario)
    if not scenario.solved:
        return None
    parts = []
    for chunk, start in enumerate(range(0, trials, CHUNK)):
        runner = Runner(scenario, min(CHUNK, trials - start), make_rng("cpu", [seed, chunk]))
        runner.restart()
        part = scenario.bound(runner.state)
        if part is None:
            return None
        parts.append(part)
    return np.concatenate(parts)


def _play(
    policy: Policy,
    runner: Runner,
    deterministic: bool,
    task: Any,
    on_step: Callable[[int], None] | None,
    chunk: int,
) -> Trials:
    """One chunk of trials."""
    scenario = runner.scenario
    size = runner.rows
    names = (*scenario.objectives, *scenario.costs)
    sums = {name: np.zeros(size) for name in ("reward", "expected_reward", *names)}
    regret, rewards = np.zeros((2, size, scenario.horizon), dtype=np.float32)
    actions = np.zeros((size, scenario.horizon, *(scenario.action_space.shape or ())), dtype=np.int32)
    sees_state = getattr(policy, "sees_state", False)
    runner.restart(task=task)
    tasks = tree_map(lambda leaf: np.array(to_numpy(leaf)), runner.state.task)
    observation = runner.observation()
    memory = None
    start = np.ones(size, dtype=bool)
    for t in range(scenario.horizon):
        view: Array = runner.state if sees_state else observation
        action, memory = policy.predict(view, state=memory, episode_start=start, deterministic=deterministic)
        start = np.zeros(size, dtype=bool)
        step = runner.advance(action)
        observation = step.observation
        actions[:, t] = action
        regret[:, t] = to_numpy(step.info["regret"])
        rewards[:, t] = to_numpy(step.reward)
        sums["reward"] += rewards[:, t]
        for name in ("expected_reward", *names):
            sums[name] += to_numpy(step.info[name])
        if on_step is not None:
            on_step(chunk * scenario.horizon + t + 1)

    def columns(chosen: Sequence[str]) -> np.ndarray:
        return np.stack([sums[name] for name in chosen], axis=1) if chosen else np.zeros((size, 0))

    objectives, costs = columns(scenario.objectives), columns(scenario.costs)
    return Trials(sums["reward"], sums["expected_reward"], regret, rewards, objectives, costs, actions, tasks)
