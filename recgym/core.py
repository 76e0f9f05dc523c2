"""Batched decision problems: arrays, the observation's layout, and the `Scenario` protocol.

Everything is written once over a batch of rows and runs on NumPy or on torch (CPU or GPU) through the array API.
"""

from __future__ import annotations

import difflib
import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, NamedTuple, Protocol, TypeVar, cast

import array_api_compat
import array_api_compat.numpy
import gymnasium
import numpy as np

__all__ = [
    "CHOSEN",
    "Array",
    "Field",
    "Layout",
    "Outcome",
    "Panel",
    "Rng",
    "Scenario",
    "Seed",
    "Series",
    "Traced",
    "batch_size",
    "check_number",
    "check_range",
    "clip",
    "clock",
    "clock_fields",
    "log_scaled",
    "make_scenario",
    "namespace",
    "numbers",
    "to_numpy",
    "tree_items",
    "tree_map",
    "write_atomically",
]

Array = Any  # np.ndarray or torch.Tensor: float32, bool or int64
Seed = int | Sequence[int] | None
LOG_SCALE = math.log(1001.0)  # 1,000 decisions map to 1, whatever the horizon: policies carry over between horizons


# --- arrays ----------------------------------------------------------------------------------------------------------
def namespace(array: Array) -> Any:
    """Array API namespace of `array`; a shortcut for NumPy, where a look-up would cost as much as the operation."""
    return array_api_compat.numpy if isinstance(array, np.ndarray) else array_api_compat.array_namespace(array)


def tree_map(function: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """Apply `function` to the leaves of (nested) NamedTuples of one type."""
    if isinstance(tree, tuple):
        return type(tree)(*(tree_map(function, *leaves) for leaves in zip(tree, *others, strict=True)))
    return function(tree, *others)


def tree_items(tree: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """(dotted name, leaf) pairs of (nested) NamedTuples."""
    if not isinstance(tree, tuple):
        return [(prefix, tree)]
    names = cast(Any, tree)._fields
    return [
        item for n, leaf in zip(names, tree, strict=True) for item in tree_items(leaf, f"{prefix}.{n}" if prefix else n)
    ]


def batch_size(tree: Any) -> int:
    """Number of rows B of (nested) NamedTuples of arrays [B, ...]."""
    return batch_size(tree[0]) if isinstance(tree, tuple) else int(tree.shape[0])


LONG = 4096  # numbers in an array: from here on a pass over it costs more than a call


def clip(array: Array, low: float | None, high: float | None) -> Array:
    """`array` cut at the bounds that are not None; the array API's own costs ten times as much for small arrays.

    NumPy's method takes one pass over the array, but a while to begin.
    """
    if not isinstance(array, np.ndarray) or array.size > LONG:
        return array.clip(low, high)
    array = array if low is None else np.maximum(array, low)
    return array if high is None else np.minimum(array, high)


def log_scaled(count: Array) -> Array:
    """log(1 + count) of float32 counts, in units that do not depend on the horizon."""
    return namespace(count).log(count + 1.0) * (1.0 / LOG_SCALE)


def to_numpy(array: Array) -> np.ndarray:
    """`array`, or any nested sequence, as a NumPy array on the host."""
    return np.asarray(array.detach().cpu() if hasattr(array, "detach") else array)


def write_atomically(path: Path, content: bytes) -> None:
    """The whole file or nothing: to a temporary file beside it, flushed to disk, then renamed. Makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.umask(mask := os.umask(0))
        os.chmod(temporary, 0o666 & ~mask)  # as any other new file; mkstemp's are private
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


# --- randomness ------------------------------------------------------------------------------------------------------
class Rng(Protocol):
    """What the array API leaves out. Draws are float32 (counts int64), on one device, from a stream set by `rekey`.

    Within one step the draws of fixed width (uniform, normal) come first and do not depend on the action, so that
    one seed gives every policy the same luck.
    """

    xp: Any
    device: Any

    def seed(self, seed: Seed) -> None: ...
    def rekey(self, stream: int, step: int) -> None: ...
    def uniform(self, shape: tuple[int, ...]) -> Array: ...
    def normal(self, shape: tuple[int, ...]) -> Array: ...
    def poisson(self, rate: Array) -> Array: ...
    def binomial(self, count: Array, probability: Array) -> Array: ...
    def gamma(self, shape: Array) -> Array: ...


# --- observation -----------------------------------------------------------------------------------------------------
class Field(NamedTuple):
    """One named part of the observation: `width` numbers in [low, high]."""

    name: str
    low: float
    high: float
    meaning: str
    width: int = 1


@dataclass(frozen=True)
class Layout:
    """Names the numbers of an observation: the context fields, then one row of candidate fields per candidate.

    Attributes:
        context: fields that belong to no candidate, Dc numbers together.
        candidate: fields of each candidate, Di numbers together.
        candidates: number of candidates K.
    """

    context: tuple[Field, ...]
    candidate: tuple[Field, ...]
    candidates: int

    def __post_init__(self) -> None:
        names = [field.name for field in (*self.context, *self.candidate)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"observation has several fields named {', '.join(twice)}: name each differently")

    @cached_property
    def sizes(self) -> tuple[int, int, int]:
        """(Dc, Di, D): numbers of the context, of one candidate, of the whole observation."""
        context = sum(field.width for field in self.context)
        candidate = sum(field.width for field in self.candidate)
        return context, candidate, context + self.candidates * candidate

    def split(self, observation: Array) -> tuple[Array, Array]:
        """Observation [..., D] -> context [..., Dc] and candidates [..., K, Di]."""
        context, candidate, _ = self.sizes
        rows = observation[..., context:]
        return observation[..., :context], rows.reshape((*rows.shape[:-1], self.candidates, candidate))

    @cached_property
    def places(self) -> dict[str, tuple[int, int, int]]:
        """Of each field, by name: block (0 context, 1 candidate), first column within the block, width."""
        found = {}
        for block, fields_ in enumerate((self.context, self.candidate)):
            start = 0
            for field in fields_:
                found[field.name] = block, start, field.width
                start += field.width
        return found

    def _place(self, name: str) -> tuple[int, int, int]:
        if name not in self.places:
            raise KeyError(f"observation has no field {name!r}; its fields are {list(self.places)}")
        return self.places[name]

    def get(self, observation: Array, name: str) -> Array:
        """One field of an observation [B, D]: context [B], candidate [B, K]; plus an axis where its width is > 1."""
        block, start, width = self._place(name)
        numbers_ = self.split(observation)[block]
        return numbers_[..., start] if width == 1 else numbers_[..., start : start + width]

    def columns(self, name: str) -> list[int]:
        """Where the numbers of one field stand in an observation, all candidates' together."""
        block, start, width = self._place(name)
        context, step, _ = self.sizes
        firsts = [context + i * step + start for i in range(self.candidates)] if block else [start]
        return [first + j for first in firsts for j in range(width)]

    def join(self, context: Mapping[str, Array], candidate: Mapping[str, Array]) -> Array:
        """The inverse of `get`: arrays per field, [B(, width)] and [B, K(, width)], to one float32 array [B, D].

        The last axis of a field of width 1 may be there or not; K (and after the first field B) may be 1: all alike.
        """
        xp, (start, step, total) = namespace(first := context[self.context[0].name]), self.sizes
        observation = xp.empty((first.shape[0], total), dtype=xp.float32, device=getattr(first, "device", "cpu"))
        column = 0
        for field in self.context:
            value = context[field.name]
            observation[:, column : column + field.width] = value if value.ndim > 1 else value[:, None]
            column += field.width
        for field in self.candidate:
            value = candidate[field.name]
            for j in range(field.width):  # strided columns are views on every backend; a reshaped block need not be
                observation[:, start + j :: step] = value if value.ndim == 2 else value[..., j]
            start += field.width
        return observation

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter((*self.context, *self.candidate))

    def box(self) -> gymnasium.spaces.Box:
        """The observation space: float32 [D]."""
        bounds = [(f.low, f.high) for f in self.context for _ in range(f.width)]
        bounds += [(f.low, f.high) for f in self.candidate for _ in range(f.width)] * self.candidates
        low, high = np.asarray(bounds, dtype=np.float32).T
        return gymnasium.spaces.Box(low.copy(), high.copy(), dtype=np.float32)

    def to_json(self) -> dict[str, Any]:
        """Plain lists and numbers, read back by `from_json`."""
        return {
            "context": [list(f) for f in self.context],
            "candidate": [list(f) for f in self.candidate],
            "candidates": self.candidates,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Layout:
        return cls(
            tuple(Field(*f) for f in value["context"]),
            tuple(Field(*f) for f in value["candidate"]),
            int(value["candidates"]),
        )


def log_bound(horizon: int) -> float:
    """Upper bound of `log_scaled(n)` for n <= horizon, with room for rounding."""
    return math.log1p(horizon) / LOG_SCALE * 1.0001


def clock_fields(horizon: int, *, reward: tuple[float, float] = (0.0, 1.0)) -> tuple[Field, ...]:
    """The context fields that every scenario has, with the range of its reward; `clock` fills them."""
    return (
        Field("time", 0.0, 1.0, "share of the trial's decisions already made"),
        Field("remaining", 0.0, log_bound(horizon), "log(1 + decisions left) / log(1001), alike at every horizon"),
        Field("last_reward", *reward, "reward of the last decision; 0 before the first"),
    )


def clock(state: Any, horizon: int) -> dict[str, Array]:
    """Values [B] of the fields that every scenario has."""
    remaining = log_scaled(horizon - state.time)
    return {"time": state.time * (1.0 / horizon), "remaining": remaining, "last_reward": state.reward}


CHOSEN = Field("chosen", 0.0, 1.0, "1 for the candidate shown last; it refers to the rows of the previous observation")


# --- pictures --------------------------------------------------------------------------------------------------------
class Series(NamedTuple):
    """Numbers over the decisions of a trial, as pictures show them.

    A "line" and an "area" are levels, known before the first decision and after each. The others belong to a decision:
    "step" is held while it lasts, "bars" stand on zero, and "band" is a share, 0 to 1, that shades the panel.
    """

    name: str  # of the values in `Scenario.trace`
    label: str
    kind: Literal["line", "area", "step", "bars", "band"]


class Panel(NamedTuple):
    """Series that share an axis; the first is drawn over the others."""

    title: str  # of the axis, with its unit
    series: tuple[Series, ...]


# --- scenarios -------------------------------------------------------------------------------------------------------
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


def make_scenario(scenario: str | Any, parameters: Mapping[str, Any]) -> Any:
    """A scenario from its `module:Name` (or an object as it is, when there are no parameters).

    Raises:
        ValueError: a parameter is unknown (the nearest is named) or out of range.
    """
    if not isinstance(scenario, str):
        if parameters:
            raise ValueError(f"parameters {sorted(parameters)} come with a scenario's name, not with a built scenario")
        return scenario
    module, _, name = scenario.partition(":")
    kind = getattr(import_module(module), name)
    known = [field.name for field in fields(kind)]
    for parameter in parameters:
        if parameter not in known:
            near = difflib.get_close_matches(parameter, known, 1, 0.5)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(f"{name} has no parameter {parameter!r}; {hint}its parameters are {', '.join(known)}")
    return kind(**parameters)


def check_number(owner: Any, name: str, low: float, high: float, *, whole: bool = False) -> None:
    """Refuse a parameter of `owner` that is not a finite (or whole) number in [low, high]; keep it as Python's.

    A float64 of NumPy would turn all that it meets into float64.
    """
    value = getattr(owner, name)
    kind = "a whole number" if whole else "a number"
    right = isinstance(value, int | np.integer) if whole else isinstance(value, int | float | np.integer | np.floating)
    if not right or isinstance(value, bool) or not low <= value <= high:  # NaN fails the comparison
        raise ValueError(f"{type(owner).__name__}: {name} must be {kind} in [{low}, {high}], got {value!r}")
    if isinstance(value, np.generic):
        object.__setattr__(owner, name, value.item())


def numbers(values: Any) -> np.ndarray:
    """`values` as float64; empty where they are not an array of numbers."""
    try:
        array = np.asarray(values)
    except (TypeError, ValueError):
        return np.empty(0)
    return array.astype(np.float64) if array.dtype.kind in "iuf" else np.empty(0)


def check_range(owner: Any, name: str, low: float, high: float) -> None:
    """Refuse a parameter of `owner` that is not a pair of numbers, in order and in [low, high]; keep it as a tuple."""
    pair = numbers(getattr(owner, name))
    if pair.shape != (2,) or not low <= pair[0] <= pair[1] <= high:
        wanted = f"two numbers [least, most] in [{low}, {high:g}]"
        raise ValueError(f"{type(owner).__name__}: {name} must be {wanted}, got {getattr(owner, name)!r}")
    object.__setattr__(owner, name, tuple(pair.tolist()))
