"""Batched decision problems: randomness, observation layout, the `Scenario` protocol and the `Runner`.

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
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar, cast

import array_api_compat
import array_api_compat.numpy
import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode

__all__ = [
    "Array",
    "Field",
    "Layout",
    "NumpyRng",
    "Outcome",
    "Rng",
    "Runner",
    "Scenario",
    "Step",
    "TorchRng",
    "batch_size",
    "beta",
    "log_scaled",
    "make_rng",
    "make_scenario",
    "namespace",
    "to_numpy",
    "tree_map",
    "write_atomically",
]

Array = Any  # np.ndarray or torch.Tensor: float32, bool or int64
Seed = int | Sequence[int] | None
TASK, START, STEP = range(3)  # the streams of one seed: which task, how it starts, what happens in it
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


def log_scaled(count: Array) -> Array:
    """log(1 + count) of float32 counts, in units that do not depend on the horizon."""
    return namespace(count).log(count + 1.0) * (1.0 / LOG_SCALE)


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


class NumpyRng:
    """Philox keyed by (seed, stream, step): re-keying sets its counter, which costs about a microsecond."""

    xp = array_api_compat.numpy
    device = "cpu"

    def __init__(self, seed: Seed = None) -> None:
        self.seed(seed)

    def seed(self, seed: Seed) -> None:
        self._generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed)))
        self._state = self._generator.bit_generator.state

    @property
    def key(self) -> np.ndarray:
        """The seed as it is kept in checkpoints: int64 [2]."""
        return np.asarray(self._state["state"]["key"]).view(np.int64)

    @key.setter
    def key(self, key: np.ndarray) -> None:
        self._state["state"]["key"] = np.asarray(key, dtype=np.int64).view(np.uint64)

    def rekey(self, stream: int, step: int) -> None:
        self._state["state"]["counter"][:] = (0, 0, step, stream)
        self._generator.bit_generator.state = self._state

    def uniform(self, shape: tuple[int, ...]) -> Array:
        return self._generator.random(shape, dtype=np.float32)

    def normal(self, shape: tuple[int, ...]) -> Array:
        return self._generator.standard_normal(shape, dtype=np.float32)

    def poisson(self, rate: Array) -> Array:
        return self._generator.poisson(rate)

    def binomial(self, count: Array, probability: Array) -> Array:
        return self._generator.binomial(count, probability)

    def gamma(self, shape: Array) -> Array:
        return self._generator.standard_gamma(shape, dtype=np.float32)


class TorchRng:
    """One torch generator on `device`, reseeded for every (stream, step)."""

    def __init__(self, seed: Seed = None, *, device: Any = "cpu") -> None:
        import torch  # the only place in this module that needs it

        self._torch = torch
        self.xp = array_api_compat.array_namespace(torch.empty(0))
        try:
            self.device = torch.device(device)
        except (RuntimeError, TypeError):
            raise ValueError(f"device {device!r} is not known; use 'cpu', 'torch', 'cuda' or 'cuda:N'") from None
        if self.device.type == "cuda" and (self.device.index or 0) >= (found := torch.cuda.device_count()):
            gpus = f"{found} GPU(s)" if found else "no GPU"
            raise ValueError(f"device {str(device)!r}: torch {torch.__version__} finds {gpus} here; use device='cpu'")
        self._generator = torch.Generator(self.device)
        self.seed(seed)

    def seed(self, seed: Seed) -> None:
        self.key = np.random.SeedSequence(seed).generate_state(2, np.uint64).view(np.int64)

    def __getstate__(self) -> dict[str, Any]:  # neither a module nor a generator can be pickled
        return {"device": str(self.device), "key": self.key}

    def __setstate__(self, state: dict[str, Any]) -> None:
        TorchRng.__init__(self, device=state["device"])
        self.key = state["key"]

    def rekey(self, stream: int, step: int) -> None:
        # The CPU engine takes 32 bits of a seed: a bijection of them (the finaliser of MurmurHash3) keeps
        # all (stream, step) of one key apart, the upper half adds the key's own bits on a GPU.
        low = (int(self.key[0]) + 4 * step + stream) & 0xFFFFFFFF
        low = ((low ^ (low >> 16)) * 0x85EBCA6B) & 0xFFFFFFFF
        low = ((low ^ (low >> 13)) * 0xC2B2AE35) & 0xFFFFFFFF
        self._generator.manual_seed((int(self.key[1]) & 0x7FFFFFFF) << 32 | (low ^ (low >> 16)))

    def uniform(self, shape: tuple[int, ...]) -> Array:
        return self._torch.rand(shape, generator=self._generator, device=self.device)

    def normal(self, shape: tuple[int, ...]) -> Array:
        return self._torch.randn(shape, generator=self._generator, device=self.device)

    def poisson(self, rate: Array) -> Array:
        return self._torch.poisson(rate, generator=self._generator).to(self._torch.int64)

    def binomial(self, count: Array, probability: Array) -> Array:
        drawn = self._torch.binomial(count.to(probability.dtype), probability, generator=self._generator)
        return drawn.to(self._torch.int64)

    def gamma(self, shape: Array) -> Array:
        return self._torch._standard_gamma(shape, generator=self._generator)


def make_rng(device: Any = "cpu", seed: Seed = None) -> Any:
    """The randomness, and with it the array library, of an environment.

    Args:
        device: "cpu" for NumPy arrays, "torch" for torch on the CPU, "cuda" or "cuda:N" for a GPU, or a `torch.device`.
        seed: int, or ints that `numpy.random.SeedSequence` folds into one; None draws from the system.

    Raises:
        ValueError: there is no such device here.
    """
    if device == "cpu" and isinstance(device, str):
        return NumpyRng(seed)
    if isinstance(device, str) and device != "torch" and device.split(":")[0] != "cuda":
        raise ValueError(f"device {device!r} is not known; use 'cpu' (NumPy), 'torch' (torch on the CPU) or 'cuda'")
    return TorchRng(seed, device="cpu" if isinstance(device, str) and device == "torch" else device)


def beta(rng: Rng, a: float, b: float, shape: tuple[int, ...]) -> Array:
    """Beta(a, b) draws of `shape`, by two gammas in log space: G_a = G_{a+1} U^{1/a} (Marsaglia & Tsang 2000, sec. 6).

    Plain float32 gammas underflow to 0/0 for shapes below about .1; their logarithms do not.
    """
    xp = rng.xp
    if a == b == 1.0:  # the uniform distribution, at a tenth of the cost
        return rng.uniform(shape)

    def log_gamma_draw(value: float) -> Array:
        larger = rng.gamma(xp.full(shape, value + 1.0, dtype=xp.float32, device=rng.device))
        return xp.log(larger) + xp.log(1.0 - rng.uniform(shape)) / value  # 1 - uniform is in (0, 1]

    return 1.0 / (1.0 + xp.exp(xp.clip(log_gamma_draw(b) - log_gamma_draw(a), -80.0, 80.0)))


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

    def get(self, observation: Array, name: str) -> Array:
        """One field of an observation [B, D]: context [B], candidate [B, K]; plus an axis where its width is > 1."""
        for fields_, block in zip((self.context, self.candidate), self.split(observation), strict=True):
            start = 0
            for field in fields_:
                if field.name == name:
                    return block[..., start] if field.width == 1 else block[..., start : start + field.width]
                start += field.width
        raise KeyError(f"observation has no field {name!r}; its fields are {[f.name for f in self]}")

    def join(self, context: Mapping[str, Array], candidate: Mapping[str, Array]) -> Array:
        """The inverse of `get`: arrays per field, [B(, width)] and [B, K(, width)], to one float32 array [B, D].

        The last axis of a field of width 1 may be there or not.
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

    Every trial has exactly `horizon` decisions.
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
        """For pictures: expected reward [B, K] of each candidate, true and as the running statistics estimate it."""
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


# --- the runner ------------------------------------------------------------------------------------------------------
class Step(NamedTuple):
    """What one call of `Runner.step` returns; arrays on the runner's device."""

    observation: Array  # [B, D] to act on next
    reward: Array  # [B]
    ended: Array  # [B] bool
    info: dict[str, Array]  # [B] each: regret, expected_reward, objectives, costs
    final_observation: Array | None  # [B, D] last observation of the trials that ended here; None where none can have


class Runner:
    """Holds the state of a batch of trials and alone acts on `ended`.

    Tasks are drawn only when a row can end: while all rows started together that is counted on the host; otherwise
    one `any()` a step asks the device, which makes a GPU wait for the host.

    Args:
        scenario: what is played.
        rows: number of trials B played at once.
        rng: randomness, which also decides array library and device.
        autoreset_mode: Gymnasium's modes; what happens to rows whose trial has ended.
    """

    def __init__(
        self, scenario: Any, rows: int, rng: Any, *, autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP
    ) -> None:
        if isinstance(rows, bool) or not isinstance(rows, int) or rows < 1:
            raise ValueError(f"number of environments must be a whole number of at least 1, got {rows!r}")
        self.scenario = scenario
        self.rows = rows
        self.rng = rng
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.state: Any = None
        self._space = scenario.action_space
        limits = [self._space.n] if isinstance(self._space, gymnasium.spaces.Discrete) else self._space.nvec
        self._limits = np.asarray(limits, dtype=np.int64)
        self._shape = (rows, *self._space.shape)
        self._names = ("regret", "expected_reward", *scenario.objectives, *scenario.costs)
        self._count = 0  # calls so far: the key of the random streams
        self._together: int | None = None  # decisions since all rows started; None once they differ
        self._finished: Array = None  # [B] bool: trials that have ended and were not restarted

    def seed(self, seed: Seed) -> None:
        """Start the random streams anew; the next restart draws its tasks from them."""
        self.rng.seed(seed)
        self._count = 0

    # --- the two moves ---
    def restart(self, mask: Array | None = None, task: Any = None, seed: Seed = None) -> None:
        """Begin new trials in the rows of `mask` [B] (None: in all), on `task` (see `make_task`) or on drawn tasks.

        A `seed` starts the random streams anew first. Where the task is refused, nothing has changed.
        """
        if self.state is None and mask is not None:
            raise gymnasium.error.ResetNeeded("the first reset starts all rows: call reset() without a reset_mask")
        tasks = None if task is None else self.make_task(task)
        if seed is not None:
            self.seed(seed)
        self.rng.rekey(TASK, self._count)
        if tasks is None:
            tasks = self.scenario.sample_task(self.rng, self.rows)
        self.rng.rekey(START, self._count)
        fresh = self.scenario.reset(tasks, self.rng)
        self._count += 1
        xp = self.rng.xp
        if mask is None:
            self.state = fresh
            self._together = 0
            self._finished = xp.zeros((self.rows,), dtype=xp.bool, device=self.rng.device)
            return
        self.state = tree_map(lambda new, old: _choose(xp, mask, new, old), fresh, self.state)
        self._finished = self._finished & ~mask
        self._together = None

    def advance(self, action: Array) -> Step:
        """One decision in every row; nothing is restarted."""
        if self.state is None:
            raise gymnasium.error.ResetNeeded("call reset() before step()")
        action = self.check_action(action)
        best = self.scenario.best_reward(self.state)
        self.rng.rekey(STEP, self._count)
        outcome = self.scenario.step(self.state, action, self.rng)
        self._count += 1
        if self._together is not None:
            self._together += 1
        self.state = outcome.state
        self._finished = outcome.ended
        columns = [best - outcome.expected, outcome.expected]
        for block in (outcome.objectives + 0.0, outcome.costs + 0.0):  # copies: what is handed out is the caller's
            columns += [block[:, j] for j in range(block.shape[1])]
        info = dict(zip(self._names, columns, strict=True))
        return Step(self.scenario.observe(outcome.state), outcome.reward + 0.0, outcome.ended | False, info, None)

    # --- the three adapters ---
    def reset(self, mask: Array | None = None, task: Any = None, seed: Seed = None) -> Array:
        """`restart`, and the observation [B, D] to act on."""
        self.restart(mask, task, seed)
        return self.observation()

    def observation(self) -> Array:
        """[B, D] what the current states show."""
        return self.scenario.observe(self.state)

    def step(self, action: Array) -> Step:
        """Advance, and restart what ended as `autoreset_mode` says.

        Raises:
            ValueError: see `check_action`; the state is then unchanged.
            gymnasium.error.ResetNeeded: before the first reset, or when AutoresetMode.DISABLED leaves it to the caller.
        """
        if self.autoreset_mode == AutoresetMode.SAME_STEP:
            step = self.advance(action)
            if not self._has_finished():
                return step
            self.restart(None if self._together is not None else step.ended)
            return step._replace(observation=self.observation(), final_observation=step.observation)
        if self.state is None or not self._has_finished():
            return self.advance(action)
        if self.autoreset_mode == AutoresetMode.NEXT_STEP:
            return self._restart_step(action)
        rows = np.flatnonzero(to_numpy(self._finished))
        raise gymnasium.error.ResetNeeded(
            f"the trials of rows {rows[:8].tolist()} have ended: call reset(), or reset(options={{'reset_mask': ...}})"
        )

    def _restart_step(self, action: Array) -> Step:
        """NEXT_STEP: rows that had ended start anew with reward 0, not ended, zero info; the others advance."""
        xp, restarted = self.rng.xp, self._finished
        action = self.check_action(action)
        if self._together is not None:  # no row advances, so no luck is used: as the single env's reset
            self.restart()
            zeros = [xp.zeros((self.rows,), dtype=xp.float32, device=self.rng.device) for _ in (*self._names, "reward")]
            info = dict(zip(self._names, zeros, strict=False))
            return Step(self.observation(), zeros[-1], self._finished | False, info, None)
        self.restart(restarted)
        fresh = self.state
        step = self.advance(action)
        self.state = tree_map(lambda old, new: _choose(xp, restarted, old, new), fresh, self.state)
        self._finished = step.ended & ~restarted

        def blank(array: Array) -> Array:
            return xp.where(restarted, xp.zeros_like(array), array)

        info = {name: blank(value) for name, value in step.info.items()}
        return Step(self.observation(), blank(step.reward), self._finished | False, info, None)

    def _has_finished(self) -> bool:
        if self._together is not None:
            return self._together >= self.scenario.horizon
        return bool(self._finished.any())

    # --- input ---
    def check_action(self, action: Array) -> Array:
        """`action` as int64 [B] or [B, k] on the runner's device.

        Values on a GPU are not checked, because looking at them would make it wait for the host.

        Raises:
            ValueError: wrong shape, not whole numbers, or outside the space (names the row and the value).
        """
        on_gpu = getattr(self.rng.device, "type", "cpu") != "cpu"
        if on_gpu and not isinstance(action, np.ndarray | list | tuple):
            whole = not action.is_floating_point() and not action.is_complex() and action.dtype != self.rng.xp.bool
            if tuple(action.shape) != self._shape or not whole:
                raise ValueError(
                    f"actions must be whole numbers of shape {self._shape}, got {action.dtype} {tuple(action.shape)}"
                )
            return action.to(self.rng.device, self.rng.xp.int64)
        array = to_numpy(action)
        if array.dtype.kind not in "iu":
            raise ValueError(f"actions must be whole numbers, got {array.dtype} {_first(array)}; space {self._space}")
        if array.shape != self._shape:
            raise ValueError(f"actions must have shape {self._shape}, got {array.shape}; space {self._space}")
        wrong = (array < 0) | (array >= self._limits if array.ndim > 1 else array >= self._limits[0])
        if wrong.any():
            row = int(np.argwhere(wrong)[0][0])
            raise ValueError(f"action {array[row].tolist()} of row {row} is outside the space {self._space}")
        array = array.astype(np.int64, copy=False)
        return array if self.rng.xp is array_api_compat.numpy else self._to_device(array)

    def make_task(self, task: Any) -> Any:
        """A Task [B, ...] from a Task, a mapping or an `info["task"]`: one task for all rows, or one per row.

        Raises:
            ValueError: a field is missing, unknown, of the wrong shape, not finite or out of range (names it).
        """
        kind, spaces = self.scenario.task_type, self.scenario.task_space.spaces
        values = task._asdict() if hasattr(task, "_asdict") else task
        if not isinstance(values, Mapping) or set(values) != set(spaces):
            given = sorted(values) if isinstance(values, Mapping) else type(task).__name__
            raise ValueError(f"a task of {type(self.scenario).__name__} has the fields {sorted(spaces)}, got {given}")
        arrays = []
        for name in kind._fields:
            box = spaces[name]
            try:
                array = to_numpy(values[name])
            except (TypeError, ValueError) as error:
                raise ValueError(f"task field {name!r} is not an array: {error}") from None
            if array.dtype.kind not in {"f": "iuf", "i": "iu", "u": "iu", "b": "b"}[box.dtype.kind]:
                raise ValueError(f"task field {name!r} must hold {box.dtype} numbers, got {array.dtype}")
            with np.errstate(over="ignore"):  # becomes infinite, which is out of range
                array = array.astype(box.dtype)
            if array.shape == box.shape:
                array = np.broadcast_to(array, (self.rows, *box.shape)).copy()
            if array.shape != (self.rows, *box.shape):
                raise ValueError(
                    f"task field {name!r} must have shape {box.shape} or {(self.rows, *box.shape)}, got {array.shape}"
                )
            if not np.all((array >= box.low) & (array <= box.high)):  # also refuses NaN
                raise ValueError(f"task field {name!r} must be within [{box.low.min()}, {box.high.max()}]")
            arrays.append(self._to_device(array))
        return kind(*arrays)

    def _to_device(self, array: np.ndarray) -> Array:
        return self.rng.xp.asarray(array, device=self.rng.device)

    # --- checkpoints ---
    def snapshot(self) -> dict[str, np.ndarray]:
        """Everything that decides what happens next, as NumPy arrays by name."""
        if self.state is None:
            raise gymnasium.error.ResetNeeded("call reset() before snapshot()")
        together = -1 if self._together is None else self._together
        counters = np.asarray([self._count, together], dtype=np.int64)
        arrays = {name: to_numpy(leaf) for name, leaf in tree_items(self.state, "state")}
        return {"key": np.array(self.rng.key), "counters": counters, "finished": to_numpy(self._finished), **arrays}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take up a `snapshot`.

        Raises:
            ValueError: it was taken from another scenario or another number of rows; nothing has changed.
        """
        like = self.state  # a state of the right structure
        if like is None:
            like = self.scenario.reset(self.scenario.sample_task(self.rng, self.rows), self.rng)
        template = {name: to_numpy(leaf) for name, leaf in tree_items(like, "state")}
        two = np.empty(2, dtype=np.int64)
        expected = {"key": two, "counters": two, "finished": np.empty(self.rows, dtype=np.bool_), **template}
        for name, leaf in expected.items():
            found = (arrays[name].dtype, tuple(arrays[name].shape)) if name in arrays else "nothing"
            if found != (leaf.dtype, leaf.shape):
                raise ValueError(f"environment state {name!r} should be {leaf.dtype} {leaf.shape}, found {found}")
        leaves = iter([self._to_device(np.array(arrays[name])) for name in template])
        self.state = tree_map(lambda _: next(leaves), like)
        self.rng.key = np.array(arrays["key"])
        self._count, together = (int(value) for value in arrays["counters"])
        self._together = None if together < 0 else together
        self._finished = self._to_device(np.array(arrays["finished"]))


def _choose(xp: Any, mask: Array, yes: Array, no: Array) -> Array:
    """Rows [B, ...] of `yes` where `mask` [B], else of `no`."""
    return xp.where(mask.reshape((-1,) + (1,) * (yes.ndim - 1)), yes, no)


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


def _first(array: np.ndarray) -> str:
    return f"(first value {array.reshape(-1)[0]!r})" if array.size else "(empty)"
