"""The Stable-Baselines3 interface: `RecVecEnv` and `make_vec_env`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode

try:
    from stable_baselines3.common.vec_env import VecEnv
except ImportError as error:
    raise ImportError("recgym.sb3 needs Stable-Baselines3: pip install 'recgym[agents]'") from error

import recgym
from recgym.arrays import Array, Seed, to_numpy, tree_items
from recgym.envs import RENDERED_ROWS, check_options, check_render_mode
from recgym.render import Recorder
from recgym.rng import make_rng
from recgym.runner import Runner, Step

__all__ = ["RecVecEnv", "make_vec_env"]


def make_vec_env(
    id: Any,
    n_envs: int = 1,
    seed: Seed = None,
    device: Any = "cpu",
    *,
    render_mode: str | None = None,
    tasks: Any = None,
    **parameters: Any,
) -> RecVecEnv:
    """A problem as an SB3 environment, `n_envs` trials computed as one batch.

    Args:
        id: a problem as `recgym.make_scenario` takes it: an id, `module:Class`, or a built scenario.
        n_envs: number of trials B.
        seed: for the whole batch; None draws from the system.
        device: "cpu" for NumPy, "torch" for torch on the CPU, "cuda" for a GPU. SB3 sees NumPy arrays in any case;
            `RecVecEnv.step_tensor` stays on the device.
        render_mode: None, "rgb_array" or "ansi".
        tasks: a number of fixed tasks, or the tasks themselves; see `RecVecEnv`.
        parameters: fields of the scenario.

    Raises:
        ValueError: unknown id or parameter (names the nearest), or a parameter out of range.
    """
    scenario = recgym.make_scenario(id, **parameters)
    env = RecVecEnv(scenario, n_envs, device=device, render_mode=render_mode, tasks=tasks)
    env.seed(seed)
    return env


class RecVecEnv(VecEnv):
    """`n_envs` trials of a scenario as an SB3 `VecEnv`.

    `infos` carry regret, expected reward, objectives and costs; where a trial ends also `terminal_observation`,
    `TimeLimit.truncated` (always False: the horizon is part of the problem) and `episode`, as SB3's Monitor adds it.

    Args:
        scenario: as `recgym.make_scenario` takes it.
        n_envs: number of trials B.
        device: see `make_vec_env`.
        render_mode: None, "rgb_array" or "ansi"; the first rows are drawn.
        tasks: None draws a new task for every trial; N trains on N fixed tasks, drawn once per seed at the reset that
            takes the seed up; a Task [N, ...] trains on these (see `Runner`). `fixed_tasks` has them.
    """

    def __init__(
        self, scenario: Any, n_envs: int, *, device: Any = "cpu", render_mode: str | None = None, tasks: Any = None
    ) -> None:
        scenario = recgym.make_scenario(scenario)
        self.scenario = scenario
        self.layout = scenario.layout
        self.spec = None
        self.runner = Runner(scenario, n_envs, make_rng(device), autoreset_mode=AutoresetMode.SAME_STEP, tasks=tasks)
        self.render_mode = check_render_mode(render_mode)
        super().__init__(n_envs, scenario.observation_space, scenario.action_space)
        self._seed: Seed = None
        self._recorder = Recorder(min(n_envs, RENDERED_ROWS))
        self._returns = np.zeros(n_envs, dtype=np.float64)
        self._started = time.time()
        self._actions: Any = None

    # --- SB3's interface ---
    def seed(self, seed: Seed = None) -> list[Any]:
        """Start the random streams of the whole batch anew at the next reset."""
        np.random.SeedSequence(seed)  # refuses what is none, now rather than at the reset
        self._seed = seed
        return [seed] * self.num_envs

    def reset(self) -> np.ndarray:
        """Begin trials in all rows; options set by `set_options({"task": ...})` hold for these trials only."""
        try:
            observation = to_numpy(self.reset_tensor(task=self._pending_task()))
        finally:
            self._reset_options()
        self.reset_infos = [{"task": task} for task in self._tasks(range(self.num_envs))]
        return observation

    def _tasks(self, rows: Iterable[int]) -> list[dict[str, np.ndarray]]:
        """The tasks now played in some rows, an array for each of their fields."""
        leaves = {name: to_numpy(leaf) for name, leaf in tree_items(self.runner.state.task)}
        return [{name: np.array(leaf[row]) for name, leaf in leaves.items()} for row in rows]

    def _pending_task(self) -> Any:
        tasks = [check_options(option, ("task",)).get("task") for option in self._options]
        given = [task for task in tasks if task is not None]
        if not given:
            return None
        if len(given) < self.num_envs or not all(isinstance(task, Mapping) for task in given):
            raise ValueError(
                f"options give a task to {len(given)} of {self.num_envs} rows: give all of them one, a mapping such as "
                "an info['task'], or none"
            )
        if any(task.keys() != given[0].keys() for task in given):
            raise ValueError(f"the tasks of the rows have different fields: {sorted({*map(str, map(sorted, given))})}")
        return {name: [task[name] for task in given] for name in given[0]}

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        step = self.runner.step(self._actions)
        reward, ended = to_numpy(step.reward), to_numpy(step.ended)
        columns = [to_numpy(value).astype(np.float64) for value in step.info.values()]
        infos = [dict(zip(step.info, row, strict=True)) for row in zip(*columns, strict=True)]
        self._returns += reward
        if self.render_mode is not None:
            self._recorder.record(self.runner, step)
        if step.final_observation is not None:
            final, elapsed = to_numpy(step.final_observation), round(time.time() - self._started, 6)
            for row in np.flatnonzero(ended):
                episode = {"r": float(self._returns[row]), "l": self.scenario.horizon, "t": elapsed}
                infos[row] |= {"terminal_observation": final[row], "TimeLimit.truncated": False, "episode": episode}
            self._returns[ended] = 0.0
            rows = np.flatnonzero(ended)
            for row, task in zip(rows, self._tasks(rows), strict=True):
                self.reset_infos[row] = {"task": task}
        return to_numpy(step.observation), reward, ended, infos

    def close(self) -> None:
        pass

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """An attribute of the environment or of its scenario, once per row; `task` gives each row its own."""
        rows = list(self._get_indices(indices))
        if attr_name == "task":
            self._check_started()
            return self._tasks(rows)
        return [getattr(self if hasattr(self, attr_name) else self.scenario, attr_name)] * len(rows)

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute for all rows; they share it, so a part of them cannot differ."""
        if len(list(self._get_indices(indices))) != self.num_envs:
            raise ValueError(f"the rows of a RecVecEnv share {attr_name!r}: set it for all of them")
        setattr(self, attr_name, value)

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        """Call a method of the environment or of its scenario once; every row gets the result."""
        if method_name == "get_wrapper_attr":
            return self.get_attr(method_args[0], indices)
        if method_name == "render":  # SB3's own render() comes this way for "ansi"
            self._check_started()
            pictures: Any = self._recorder.draw(self.runner, self.render_mode or "ansi")
            return [pictures[row] if row < len(pictures) else None for row in self._get_indices(indices)]
        owner = self if hasattr(self, method_name) else self.scenario
        result = getattr(owner, method_name)(*method_args, **method_kwargs)
        return [result] * len(list(self._get_indices(indices)))

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        return [False] * len(list(self._get_indices(indices)))

    def get_images(self) -> Sequence[np.ndarray | None]:
        """Pictures of the first rows, uint8 [H, W, 3] each."""
        self._check_started()
        return self._recorder.draw(self.runner, "rgb_array")

    def _check_started(self) -> None:
        if self.runner.state is None:
            raise gymnasium.error.ResetNeeded("call reset() first")

    @property
    def fixed_tasks(self) -> Any:
        """Task [N, ...] of which every trial plays one, on the environment's device; None where each draws its own.

        `rollout(..., trials=N, task=env.fixed_tasks)` evaluates on the very same.
        """
        self._check_started()  # the first reset takes up the seed, which decides on them
        return self.runner.fixed_tasks

    # --- staying on the device ---
    def reset_tensor(self, *, task: Any = None) -> Array:
        """As `reset`, returning the observations [B, D] on the environment's device."""
        task = None if task is None else self.runner.make_task(task)  # refused before anything changes
        if self._seed is not None:
            self.runner.seed(self._seed)
            self._seed = None
        self._returns[:] = 0.0
        observation = self.runner.reset(task=task)
        if self.render_mode is not None:
            self._recorder.begin(self.runner)
        return observation

    def step_tensor(self, action: Array) -> Step:
        """As `step`, with arrays of the environment's device in and out: no copy, no wait for the device.

        `Step.final_observation` is None except where trials end.
        """
        return self.runner.step(action)

    # --- checkpoints ---
    def observation(self) -> np.ndarray:
        """[B, D] what the current states show."""
        return to_numpy(self.runner.observation())

    def snapshot(self) -> dict[str, np.ndarray]:
        """Everything that decides what happens next."""
        return {**self.runner.snapshot(), "returns": self._returns.copy()}

    def restore(self, arrays: Any) -> None:
        """Take up a `snapshot`; raises ValueError where it does not fit."""
        self.runner.restore(arrays)
        self._returns[:] = arrays["returns"]
