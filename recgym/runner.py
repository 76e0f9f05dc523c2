"""The `Runner`: a batch of trials, when they end, and what happens then. The three interfaces are thin views of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode

from recgym.arrays import NUMPY, Array, Seed, batch_size, to_numpy, tree_items, tree_map, where_rows
from recgym.rng import START, STEP, TASK
from recgym.scenario import Scenario, rows_from

__all__ = ["Runner", "Step"]

POOL = STEP + 1  # one more stream of a seed: the fixed tasks
MAX_TASKS = 1_000_000  # of which float32 draws still pick each about equally often


class Step(NamedTuple):
    """What one call of `Runner.step` returns; arrays on the runner's device."""

    observation: Array  # [B, D] to act on next
    reward: Array  # [B]
    ended: Array  # [B] bool
    info: dict[str, Array]  # [B] each: regret, expected_reward, objectives, costs; see `Scenario.solved`
    final_observation: Array | None = None  # [B, D] last observation of the trials that ended here; None: none can have
    restarted: Array | None = None  # [B] bool: rows whose trial began in this call; None where none can have


class Runner:
    """Holds the state of a batch of trials and alone acts on `ended`.

    Tasks are drawn only when a row can end: while all rows started together that is counted on the host; otherwise
    one `any()` a step asks the device, which makes a GPU wait for the host.

    Args:
        scenario: what is played.
        rows: number of trials B played at once.
        rng: randomness, which also decides array library and device.
        autoreset_mode: Gymnasium's modes; what happens to rows whose trial has ended.
        tasks: None draws a new task for every trial. A number N draws N tasks once per seed, on which seed and N alone
            decide, and every trial plays one of them, uniformly drawn; so with a Task [N, ...] (or a mapping of its
            fields), whose tasks are kept whatever the seed.

    Raises:
        ValueError: rows or tasks are no such number, or a task is refused (see `make_task`).
    """

    def __init__(
        self,
        scenario: Scenario,
        rows: int,
        rng: Any,
        *,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        tasks: Any = None,
    ) -> None:
        if isinstance(rows, bool) or not isinstance(rows, int) or rows < 1:
            raise ValueError(f"number of environments must be a whole number of at least 1, got {rows!r}")
        self.scenario = scenario
        self.rows = rows
        self.rng = rng
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.state: Any = None
        self._space = scenario.action_space
        limits = self._space.n if isinstance(self._space, gymnasium.spaces.Discrete) else self._space.nvec
        self._limits = np.asarray(limits, dtype=np.uint64)
        self._shape = (rows, *(self._space.shape or ()))
        self._names = ("regret", "expected_reward", *scenario.objectives, *scenario.costs)
        self._count = 0  # calls so far: the key of the random streams
        self._together: int | None = None  # decisions since all rows started; None once they differ
        self._finished: Array = None  # [B] bool: trials that have ended and were not restarted
        given = isinstance(tasks, Mapping) or hasattr(tasks, "_asdict")
        self.fixed_tasks = self._checked_task(tasks, None) if given else None  # Task [N, ...] or None
        number = batch_size(self.fixed_tasks) if given else tasks
        right = isinstance(number, int | np.integer) and not isinstance(number, bool) and 1 <= number <= MAX_TASKS
        if tasks is not None and not right:
            whole = f"a whole number from 1 to {MAX_TASKS}"
            raise ValueError(f"tasks must be None, {whole}, or as many tasks of the scenario, got {number!r}")
        self._fixed = int(number or 0)  # number of fixed tasks N
        self._drawn = not given  # they follow from the seed
        self._draw_fixed_tasks()

    def seed(self, seed: Seed) -> None:
        """Start the random streams anew; the next restart draws its tasks from them."""
        self.rng.seed(seed)
        self._count = 0
        self._draw_fixed_tasks()

    def _draw_fixed_tasks(self) -> None:
        if self._fixed and self._drawn:
            self.rng.rekey(POOL, 0)
            self.fixed_tasks = self.scenario.sample_task(self.rng, self._fixed)

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
        if tasks is None and self.fixed_tasks is None:
            tasks = self.scenario.sample_task(self.rng, self.rows)
        elif tasks is None:
            xp, number = self.rng.xp, batch_size(self.fixed_tasks)
            index = xp.astype(self.rng.uniform((self.rows,)) * number, xp.int64)  # uniform <= 1 - 2^-24: below N
            tasks = tree_map(lambda leaf: leaf[index], self.fixed_tasks)
        self.rng.rekey(START, self._count)
        fresh = self.scenario.reset(tasks, self.rng)
        self._count += 1
        if mask is None:
            xp = self.rng.xp
            self.state = fresh
            self._together = 0
            self._finished = xp.zeros((self.rows,), dtype=xp.bool, device=self.rng.device)
            return
        self.state = tree_map(lambda new, old: where_rows(mask, new, old), fresh, self.state)
        self._finished = self._finished & ~mask
        self._together = None

    def advance(self, action: Array) -> Step:
        """One decision in every row; nothing is restarted."""
        if self.state is None:
            raise gymnasium.error.ResetNeeded("call reset() before step()")
        action = self.check_action(action)
        best = self.scenario.best_reward(self.state) if self.scenario.solved else np.nan
        self.rng.rekey(STEP, self._count)
        outcome = self.scenario.step(self.state, action, self.rng)
        self._count += 1
        if self._together is not None:
            self._together += 1
        self.state = outcome.state
        self._finished = outcome.ended
        # Weights that the optimum does not cover are not in `expected`, and then it is no mean of the reward.
        expected = outcome.expected if self.scenario.solved else outcome.expected * np.nan
        columns = [best - outcome.expected, expected]
        for block in (outcome.objectives + 0.0, outcome.costs + 0.0):  # copies: what is handed out is the caller's
            columns += [block[:, j] for j in range(block.shape[1])]
        info = dict(zip(self._names, columns, strict=True))
        return Step(self.scenario.observe(outcome.state.seen), outcome.reward + 0.0, outcome.ended | False, info)

    # --- the three adapters ---
    def reset(self, mask: Array | None = None, task: Any = None, seed: Seed = None) -> Array:
        """`restart`, and the observation [B, D] to act on."""
        self.restart(mask, task, seed)
        return self.observation()

    def observation(self) -> Array:
        """[B, D] what the current states show."""
        return self.scenario.observe(self.state.seen)

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
            final = step.observation
            return step._replace(observation=self.observation(), final_observation=final, restarted=step.ended | False)
        if self.state is None or not self._has_finished():
            return self.advance(action)
        if self.autoreset_mode == AutoresetMode.NEXT_STEP:
            return self._restart_step(action)
        if self.rows == 1:
            raise gymnasium.error.ResetNeeded("the trial has ended: call reset()")
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
            return Step(self.observation(), zeros[-1], self._finished | False, info, restarted=restarted)
        self.restart(restarted)
        fresh = self.state
        step = self.advance(action)
        self.state = tree_map(lambda new, old: where_rows(restarted, new, old), fresh, self.state)
        self._finished = step.ended & ~restarted

        def blank(array: Array) -> Array:
            return xp.where(restarted, xp.zeros_like(array), array)

        info = {name: blank(value) for name, value in step.info.items()}
        return Step(self.observation(), blank(step.reward), self._finished | False, info, restarted=restarted)

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
        numbers = array.astype(np.int64, copy=False)
        wrong = numbers.view(np.uint64) >= self._limits  # a negative number is a large one without its sign
        if wrong.any():
            row = int(np.argwhere(wrong)[0][0])
            raise ValueError(f"action {array[row].tolist()} of row {row} is outside the space {self._space}")
        array = numbers
        return array if self.rng.xp is NUMPY else self._to_device(array)

    def make_task(self, task: Any) -> Any:
        """A Task [B, ...] from a Task, a mapping or an `info["task"]`: one task for all rows, or one per row.

        Raises:
            ValueError: a field is missing, unknown, of the wrong shape, not finite or out of range (names it).
        """
        return self._checked_task(task, self.rows)

    def _checked_task(self, task: Any, rows: int | None) -> Any:
        """`make_task` for any number of rows; None: as many as there are in its first field."""
        scenario = self.scenario
        checked = rows_from(scenario.task_type, scenario.task_space, task, rows, "task", scenario)
        return tree_map(self._to_device, checked)

    def _to_device(self, array: np.ndarray) -> Array:
        return self.rng.xp.asarray(array, device=self.rng.device)

    # --- checkpoints ---
    def snapshot(self) -> dict[str, np.ndarray]:
        """Everything that decides what happens next, as NumPy arrays by name, which are the caller's."""
        if self.state is None:
            raise gymnasium.error.ResetNeeded("call reset() before snapshot()")
        together = -1 if self._together is None else self._together
        counters = np.asarray([self._count, together], dtype=np.int64)
        arrays = {name: np.array(to_numpy(leaf)) for name, leaf in tree_items(self.state, "state")}
        if self.fixed_tasks is not None:
            arrays |= {name: np.array(to_numpy(leaf)) for name, leaf in tree_items(self.fixed_tasks, "fixed_tasks")}
        finished = np.array(to_numpy(self._finished))
        return {"key": np.array(self.rng.key), "counters": counters, "finished": finished, **arrays}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take up a `snapshot`, with its fixed tasks if it has any.

        Raises:
            ValueError: it was taken from another scenario, another number of rows or, where there are fixed tasks
                here, another number of them; nothing has changed.
        """
        like = self.state  # a state of the right structure
        if like is None:
            like = self.scenario.reset(self.scenario.sample_task(self.rng, self.rows), self.rng)
        template = {name: to_numpy(leaf) for name, leaf in tree_items(like, "state")}
        if any(name.startswith("state.") for name in arrays) and not any(
            name.startswith("state.seen.") for name in arrays
        ):
            raise ValueError("the environment's state was kept by an earlier version of recgym, in another form")
        two = np.empty(2, dtype=np.int64)
        expected = {"key": two, "counters": two, "finished": np.empty(self.rows, dtype=np.bool_), **template}
        kept = tree_items(like.task, "fixed_tasks")
        found_tasks = [len(arrays[name]) for name, _ in kept if name in arrays and arrays[name].ndim > 0]
        number = self._fixed or (found_tasks[0] if found_tasks else 0)
        pool = {name: np.empty((number, *leaf.shape[1:]), to_numpy(leaf).dtype) for name, leaf in kept if number}
        expected |= pool
        for name, leaf in expected.items():
            found = (arrays[name].dtype, tuple(arrays[name].shape)) if name in arrays else "nothing"
            if found != (leaf.dtype, leaf.shape):
                raise ValueError(f"environment state {name!r} should be {leaf.dtype} {leaf.shape}, found {found}")
        self._check_state(arrays, [*template, *pool])
        leaves = iter([self._to_device(np.array(arrays[name])) for name in template])
        self.state = tree_map(lambda _: next(leaves), like)
        tasks = iter([self._to_device(np.array(arrays[name])) for name in pool])
        self.fixed_tasks = tree_map(lambda _: next(tasks), like.task) if pool else None
        self.rng.key = np.array(arrays["key"])
        self._count, together = (int(value) for value in arrays["counters"])
        self._together = None if together < 0 else together
        self._finished = self._to_device(np.array(arrays["finished"]))

    def _check_state(self, arrays: Mapping[str, np.ndarray], names: list[str]) -> None:
        """Refuse a state that no trial is ever in: what has a name in the scenario's spaces must lie in them.

        Raises:
            ValueError: says which number is none.
        """
        scenario, horizon = self.scenario, self.scenario.horizon
        offers, tasks = scenario.offer_space.spaces, scenario.task_space.spaces
        spaces = {"state.task": tasks, "state.hidden": tasks, "fixed_tasks": tasks, "state.seen.offer": offers}
        count, together = arrays["counters"].tolist()
        if count < 0 or not -1 <= together <= horizon:
            raise ValueError(
                f"environment state 'counters' must be at least 0 and in [-1, {horizon}]: {count, together}"
            )
        for name in names:
            values = np.asarray(arrays[name])
            if not np.isfinite(values).all():
                raise ValueError(f"environment state {name!r} holds numbers that are not finite")
            part, _, field = name.rpartition(".")
            space = spaces.get(part, {}).get(field)
            low, high = (space.low, space.high) if isinstance(space, gymnasium.spaces.Box) else (-np.inf, np.inf)
            low, high = (0, horizon) if name == "state.seen.time" else (low, high)
            if not ((values >= low) & (values <= high)).all():
                ends = f"[{np.min(low):g}, {np.max(high):g}]"
                raise ValueError(
                    f"environment state {name!r} holds numbers outside of {ends}, such as {values.max():g}"
                )


def _first(array: np.ndarray) -> str:
    return f"(first value {array.reshape(-1)[0]!r})" if array.size else "(empty)"
