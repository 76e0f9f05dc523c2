"""The contract: a decision problem as pure functions over a batch of rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

import gymnasium

from recgym.arrays import Array, Rng
from recgym.layout import Layout
from recgym.panels import Panel

__all__ = ["Outcome", "Scenario", "Traced"]

State = TypeVar("State")


Task = TypeVar("Task")


class Outcome(NamedTuple, Generic[State]):
    """What one decision of each row led to."""

    state: State  # NamedTuple of arrays [B, ...]; its field `task` is the Task, itself a NamedTuple of arrays
    reward: Array  # [B] sampled
    expected: Array  # [B] mean reward of the action taken, given the state
    objectives: Array  # [B, M] named by scenario.objectives
    costs: Array  # [B, C] named by scenario.costs
    ended: Array  # [B] bool: time == horizon; a horizon is part of the problem (terminated, never truncated)


class Scenario(Protocol[Task, State]):
    """A decision problem as pure functions over a batch. A frozen dataclass: its fields are gym.make's kwargs.

    Every trial has exactly `horizon` decisions. Where what is chosen changes later rewards, so that regret against the
    best action of the moment is no measure, a scenario also has `bound(state) -> np.ndarray`: at the start of a trial,
    [B] upper bounds on the expected return of any policy.
    """

    horizon: int
    task_type: ClassVar[type]  # the Task NamedTuple

    @property
    def layout(self) -> Layout: ...
    @property
    def objectives(self) -> tuple[str, ...]: ...
    @property
    def costs(self) -> tuple[str, ...]: ...
    @property
    def observation_space(self) -> gymnasium.spaces.Box: ...
    @property
    def action_space(self) -> gymnasium.spaces.Discrete | gymnasium.spaces.MultiDiscrete: ...
    @property
    def task_space(self) -> gymnasium.spaces.Dict:
        """One Box per field of a Task, without the batch axis: what `reset(options={"task": ...})` accepts."""
        ...

    def sample_task(self, rng: Rng, batch: int) -> Task:
        """Tasks [batch, ...] from the task distribution."""
        ...

    def reset(self, task: Task, rng: Rng) -> State:
        """First state of a trial on each task."""
        ...

    def step(self, state: State, action: Array, rng: Rng) -> Outcome[State]:
        """The dynamics. `action` [B] or [B, k] int64."""
        ...

    def observe(self, state: State) -> Array:
        """State vector [B, D] float32, laid out as `layout` says."""
        ...

    def best_reward(self, state: State) -> Array:
        """[B] highest `expected` of any action now."""
        ...

    def informed_action(self, state: State) -> Array:
        """[B] or [B, k]: what a policy that knows the task does."""
        ...

    def candidate_rewards(self, state: State) -> tuple[Array, Array | None]:
        """For pictures: expected reward [B, K] of each candidate, true and as the running statistics estimate it.

        There is no estimate, and none is marked as shown last, where candidates do not outlast a decision.
        """
        ...


class Traced(Protocol):
    """What a scenario may have beside, for pictures of how a trial went: they take the place of the regret's."""

    @property
    def panels(self) -> tuple[Panel, ...]:
        """What is drawn over the decisions, beside the reward so far, which always is."""
        ...

    @property
    def candidate_names(self) -> tuple[str, ...]:
        """Of the K candidates; where a scenario leaves this out, they are numbered."""
        ...

    def trace(self, state: Any) -> Mapping[str, Array]:
        """[B] values of the series of all panels: levels after the last decision, the others in it."""
        ...
