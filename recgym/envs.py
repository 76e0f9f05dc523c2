"""The Gymnasium interfaces: `RecVectorEnv`, a native batch, and `RecEnv`, its one-row view."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from enum import Enum
from pathlib import PurePath
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

import recgym
from recgym.arrays import Array, Seed, namespace, tree_items, where_rows
from recgym.catalog import Catalog
from recgym.render import Recorder
from recgym.rng import make_rng
from recgym.runner import Runner

__all__ = ["RecEnv", "RecVectorEnv", "kept_spec"]

RENDER_MODES = ["rgb_array", "ansi"]
RENDERED_ROWS = 4  # a batch shows its first rows only


def check_options(options: Mapping[str, Any] | None, known: tuple[str, ...]) -> Mapping[str, Any]:
    """Refuse reset options that nothing reads."""
    unknown = sorted(set(options or {}) - set(known))
    if unknown:
        raise ValueError(f"reset options {unknown} are not known; there are {list(known)}")
    return options or {}


def check_render_mode(render_mode: str | None) -> str | None:
    if render_mode is not None and render_mode not in RENDER_MODES:
        raise ValueError(f"render_mode must be None or one of {RENDER_MODES}, got {render_mode!r}")
    return render_mode


def one_seed(seed: Seed) -> int | None:
    """The seed of the generator that Gymnasium keeps in every environment: an int, where ours may be several.

    Raises:
        ValueError: it is no seed.
    """
    if seed is None or isinstance(seed, int):
        return seed
    try:
        return int(np.random.SeedSequence(seed).generate_state(1)[0])
    except (TypeError, ValueError) as error:
        wanted = "None, a whole number of at least 0, or several of these"
        raise ValueError(f"seed must be {wanted}, which are one seed of the whole batch; got {seed!r}") from error


def kept_spec(spec: Any, scenario: Any) -> Any:
    """A copy of Gymnasium's EnvSpec whose arguments `to_json` can hold, where there is a way to.

    A catalog becomes the digest under which the scenario has it, which whoever reads the JSON must have been given
    before (`recgym.catalog.known_catalog`); a path its text; an array what the scenario keeps of it; an enum its value.
    """
    if spec is None:
        return None
    spec = copy.copy(spec)
    spec.kwargs = {name: _kept(name, value, scenario) for name, value in spec.kwargs.items()}
    return spec


def _kept(name: str, value: Any, scenario: Any) -> Any:
    if isinstance(value, Catalog | np.ndarray | np.generic):
        return getattr(scenario, name, value)
    if isinstance(value, PurePath):
        return str(value)
    return value.value if isinstance(value, Enum) else value


class RecEnv(gymnasium.Env):
    """One trial at a time of a scenario: a batch of one, seen through `gymnasium.Env`.

    Args:
        scenario: a problem as `recgym.make_scenario` takes it: an id, `module:Class`, or a built scenario.
        render_mode: None, "rgb_array" (uint8 [H, W, 3]) or "ansi" (str).
        parameters: fields of the scenario.

    Raises:
        ValueError: a parameter is unknown (names the nearest) or out of range.
    """

    metadata = {"render_modes": RENDER_MODES, "render_fps": 4}

    def __init__(self, scenario: Any, *, render_mode: str | None = None, **parameters: Any) -> None:
        self.scenario = recgym.make_scenario(scenario, **parameters)
        self.spec = None
        self.render_mode = check_render_mode(render_mode)
        self.observation_space = self.scenario.observation_space
        self.action_space = self.scenario.action_space
        self.runner = Runner(self.scenario, 1, make_rng(), autoreset_mode=AutoresetMode.DISABLED)
        self._recorder = Recorder(1)

    @property
    def layout(self) -> Any:
        """Names of the numbers of an observation."""
        return self.scenario.layout

    @property
    def spec(self) -> Any:
        """Gymnasium's EnvSpec, as `kept_spec` has it, with the `max_episode_steps` that some wrappers read.

        One more than the horizon, so that a TimeLimit made of it truncates nothing: a trial ends of itself.
        """
        return self._spec

    @spec.setter
    def spec(self, spec: Any) -> None:
        self._spec = kept_spec(spec, self.scenario)
        if self._spec is not None and self._spec.max_episode_steps is None:
            self._spec.max_episode_steps = self.scenario.horizon + 1

    def reset(self, *, seed: Seed = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin a trial.

        Args:
            seed: int (or ints, folded into one) that starts the random streams anew; None goes on with them.
            options: `{"task": ...}` plays a given task: a mapping of its fields, for example an earlier `info["task"]`.

        Returns:
            Observation float32 [D], and `{"task": ...}`: the task, an array for each of its fields.
        """
        task = check_options(options, ("task",)).get("task")
        super().reset(seed=one_seed(seed))
        observation = self.runner.reset(task=task, seed=seed)
        if self.render_mode is not None:
            self._recorder.begin(self.runner)
        return observation[0], {"task": {name: np.array(leaf[0]) for name, leaf in tree_items(self.runner.state.task)}}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, np.float64]]:
        """Show the candidate(s) `action`; `info` holds regret, expected reward, objectives and costs of this decision.

        Raises:
            ValueError: the action is outside the action space; nothing has changed.
            gymnasium.error.ResetNeeded: the trial has not begun, or has ended.
        """
        step = self.runner.step(np.asarray(action)[None])
        if self.render_mode is not None:
            self._recorder.record(self.runner, step)
        info = {name: np.float64(value[0]) for name, value in step.info.items()}
        return step.observation[0], float(step.reward[0]), bool(step.ended[0]), False, info

    def render(self) -> Any:
        """The trial so far: true and estimated rewards of the candidates, what was shown, regret.

        Where the scenario has `panels`: what was done and what came of it, decision by decision, and the reward so far.
        """
        if self.render_mode is None:
            gymnasium.logger.warn("render() needs a render_mode: gym.make(id, render_mode='rgb_array' or 'ansi')")
            return None
        if self.runner.state is None:
            raise gymnasium.error.ResetNeeded("call reset() before render()")
        return self._recorder.draw(self.runner, self.render_mode)[0]


class RecVectorEnv(gymnasium.vector.VectorEnv):
    """`num_envs` trials at a time, computed as one batch.

    Args:
        scenario: a problem as `recgym.make_scenario` takes it: an id, `module:Class`, or a built scenario.
        num_envs: number of trials B.
        device: "cpu" for NumPy arrays, "torch" for torch on the CPU, "cuda" for torch on a GPU; observations, rewards
            and flags are arrays of that library on that device.
        autoreset_mode: member of `gymnasium.vector.AutoresetMode`, or its value.
        render_mode: None, "rgb_array" or "ansi"; the first rows are drawn.
        max_episode_steps: what `gymnasium.make_vec` hands on from a spec; above the horizon, where it changes nothing.
        parameters: fields of the scenario.

    Raises:
        ValueError: a parameter is unknown (names the nearest) or out of range.
    """

    metadata: dict[str, Any] = {"render_modes": RENDER_MODES, "render_fps": 4}

    def __init__(
        self,
        scenario: Any,
        *,
        num_envs: int = 1,
        device: Any = "cpu",
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
        max_episode_steps: int | None = None,
        **parameters: Any,
    ) -> None:
        self.scenario = recgym.make_scenario(scenario, **parameters)
        if max_episode_steps is not None and max_episode_steps <= self.scenario.horizon:
            raise ValueError(
                f"max_episode_steps={max_episode_steps} would cut trials of {self.scenario.horizon} decisions short, "
                "and observations say how many are left: give horizon instead"
            )
        self.spec = None
        self.render_mode = check_render_mode(render_mode)
        self.runner = Runner(self.scenario, num_envs, make_rng(device), autoreset_mode=autoreset_mode)
        self.num_envs = num_envs
        self.autoreset_mode = self.runner.autoreset_mode
        self.metadata = {**type(self).metadata, "autoreset_mode": self.autoreset_mode}
        self.single_observation_space = self.scenario.observation_space
        self.single_action_space = self.scenario.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._recorder = Recorder(min(num_envs, RENDERED_ROWS))

    @property
    def spec(self) -> Any:
        """Gymnasium's EnvSpec, as `kept_spec` has it; None where the environment was made without one."""
        return self._spec

    @spec.setter
    def spec(self, spec: Any) -> None:
        self._spec = kept_spec(spec, self.scenario)

    @property
    def layout(self) -> Any:
        """Names of the numbers of an observation."""
        return self.scenario.layout

    @property
    def tasks(self) -> Any:
        """The tasks now played: the scenario's Task NamedTuple, arrays [B, ...]."""
        return None if self.runner.state is None else self.runner.state.task

    def reset(self, *, seed: Seed = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Begin trials.

        Args:
            seed: int (or ints, folded into one) that starts the random streams of the whole batch anew, even where a
                `reset_mask` begins trials in some rows only; None goes on with them.
            options: `{"task": ...}` plays one task in all rows, or one per row, for this trial;
                `{"reset_mask": bool [B]}` begins new trials only there.

        Returns:
            Observations [B, D], and `{"task": ..., "_task": bool [B]}`: the tasks, an array [B, ...] for each of their
            fields, zeros in rows that the mask `_task` leaves out.
        """
        options = dict(check_options(options, ("task", "reset_mask")))
        mask = options.get("reset_mask")
        if mask is not None:
            self._check_mask(mask)
        super().reset(seed=one_seed(seed))
        xp, device = self.runner.rng.xp, self.runner.rng.device
        rows = None if mask is None or mask.all() else xp.asarray(mask, device=device)
        observation = self.runner.reset(rows, options.get("task"), seed)
        if self.render_mode is not None:
            self._recorder.begin(self.runner, mask)
        return observation, self._task_info(
            xp.ones((self.num_envs,), dtype=xp.bool, device=device) if rows is None else rows
        )

    def _task_info(self, restarted: Array) -> dict[str, Any]:
        """The tasks of the rows whose trial has begun, under Gymnasium's rule for what only some rows have."""
        tasks = tree_items(self.runner.state.task)
        shown = {name: where_rows(restarted, leaf, namespace(leaf).zeros_like(leaf)) for name, leaf in tasks}
        return {"task": shown, "_task": restarted | False}

    def _check_mask(self, mask: Any) -> None:
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
            raise TypeError(f"options['reset_mask'] must be a numpy array of dtype bool, got {type(mask).__name__}")
        if mask.shape != (self.num_envs,):
            raise ValueError(f"options['reset_mask'] must have shape ({self.num_envs},), got {mask.shape}")
        if not mask.any():
            raise ValueError("options['reset_mask'] must be True for at least one row")

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Show the candidate(s) `actions` [B] or [B, k]; see `RecEnv.step`.

        Where a trial ends under SAME_STEP, `info["final_obs"]` [B, D] and `info["final_info"]` hold what its last step
        returned, with masks `_final_obs` and `_final_info`; the observation is already the next trial's first. Where
        a trial begins, `info["task"]` is as in `reset`.
        """
        step = self.runner.step(actions)
        observation, reward, ended, info, final_observation, restarted = step
        if self.render_mode is not None:
            self._recorder.record(self.runner, step)
        if final_observation is not None:  # copies: whoever writes to one of these arrays changes no other
            final_info = {name: value + 0.0 for name, value in info.items()}
            info |= {"final_info": final_info, "_final_info": ended | False}
            info |= {"final_obs": final_observation, "_final_obs": ended | False}
        if restarted is not None:
            info |= self._task_info(restarted)
        return observation, reward, ended, ended & False, info

    def render(self) -> Any:
        """Pictures of the first rows, a tuple of what `RecEnv.render` returns."""
        if self.render_mode is None:
            gymnasium.logger.warn("render() needs a render_mode: make_vec(id, render_mode='rgb_array' or 'ansi')")
            return None
        if self.runner.state is None:
            raise gymnasium.error.ResetNeeded("call reset() before render()")
        return self._recorder.draw(self.runner, self.render_mode)

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Look up (and call, where it can be called) `name` on the environment or its scenario, once for all rows."""
        value = getattr(self if hasattr(self, name) else self.scenario, name)
        return (value(*args, **kwargs) if callable(value) else value,) * self.num_envs

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """An attribute of the environment or its scenario, once per row."""
        return (getattr(self if hasattr(self, name) else self.scenario, name),) * self.num_envs
