"""The Stable-Baselines3 interface: `RecVecEnv`, `make_vec_env`, and evaluation during training."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np

try:
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.logger import Figure, HParam
    from stable_baselines3.common.vec_env import VecEnv
except ImportError as error:
    raise ImportError("recgym.sb3 needs Stable-Baselines3: pip install 'recgym[agents]'") from error

import recgym
from recgym.arrays import Array, Seed, to_numpy, tree_items
from recgym.baselines import make_baseline
from recgym.envs import RENDERED_ROWS, check_options, check_render_mode
from recgym.evaluation import VALIDATION_SEED, Trials, rollout, summarise
from recgym.evaluation.report import action_figure, curves_figure
from recgym.render import Recorder
from recgym.rng import make_rng
from recgym.runner import Runner, Step

__all__ = ["EvaluationCallback", "RecVecEnv", "make_vec_env"]

RATES = {"clicks": "ctr"}  # what an objective per decision is called


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
    """A registered environment for SB3, `n_envs` trials computed as one batch.

    Args:
        id: a problem as `recgym.make_scenario` takes it: an id, `module:Class`, or a built scenario.
        n_envs: number of trials B.
        seed: for the whole batch; None draws from the system.
        device: "cpu" for NumPy, "torch" for torch on the CPU, "cuda" for a GPU. SB3 sees NumPy arrays in any case;
            `RecVecEnv.step_tensor` stays on the device.
        render_mode: None, "rgb_array" or "ansi".
        tasks: of a fixed number; see `RecVecEnv`.
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
        scenario: a built scenario.
        n_envs: number of trials B.
        device: see `make_vec_env`.
        render_mode: None, "rgb_array" or "ansi"; the first rows are drawn.
        tasks: None draws a new task for every trial; N trains on N fixed tasks, drawn once per seed at the reset that
            takes the seed up; a Task [N, ...] trains on these (see `Runner`). `fixed_tasks` has them.
    """

    def __init__(
        self, scenario: Any, n_envs: int, *, device: Any = "cpu", render_mode: str | None = None, tasks: Any = None
    ) -> None:
        self.scenario = scenario
        self.layout = scenario.layout
        self.spec = None
        self.runner = Runner(scenario, n_envs, make_rng(device), tasks=tasks)
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
        rows = {name: to_numpy(leaf) for name, leaf in tree_items(self.runner.state.task)}
        self.reset_infos = [{"task": {n: leaf[i].tolist() for n, leaf in rows.items()}} for i in range(self.num_envs)]
        return observation

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
        columns = [to_numpy(value).tolist() for value in step.info.values()]
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
        return to_numpy(step.observation), reward, ended, infos

    def close(self) -> None:
        pass

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """An attribute of the environment or of its scenario, once per row; `task` gives each row its own."""
        rows = list(self._get_indices(indices))
        if attr_name == "task":
            self._check_started()
            leaves = {name: to_numpy(leaf) for name, leaf in tree_items(self.runner.state.task)}
            return [{name: leaf[row].tolist() for name, leaf in leaves.items()} for row in rows]
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


class EvaluationCallback(BaseCallback):
    """Evaluates on validation tasks every `every` timesteps and logs figures and pictures to TensorBoard.

    Tags, named alike for every algorithm: `rollout/ctr` (or another objective per decision), `eval/ctr`, `eval/return`,
    `eval/regret`, `eval/expected_reward`, `eval/normalised_score`, `eval/difference` (to the best baseline), and the
    images `eval/regret_curves` and `eval/actions`. A model with a method `figures(scenario, seed=..., title=...)` adds
    its own, by name.

    Args:
        scenario: what is evaluated; seeds are those of validation, the same tasks and luck each time.
        every: timesteps between evaluations; 0 evaluates at the start and at the end only.
        trials: per evaluation.
        baselines: names drawn beside the agent; random and informed are added.
        hyperparameters: shown in TensorBoard's HPARAMS tab.

    Raises:
        ValueError: when training begins, where VecNormalize changes the observations that the model sees.
    """

    def __init__(
        self,
        scenario: Any,
        *,
        every: int,
        trials: int = 1000,
        baselines: Iterable[str] = (),
        hyperparameters: dict[str, Any] | None = None,
        verbose: int = 0,
    ) -> None:
        super().__init__(verbose)
        self.scenario = scenario
        self.every, self.trials = every, trials
        self.names = list(dict.fromkeys(("random", *baselines, "informed")))
        self.hyperparameters = hyperparameters
        self.last_evaluation = -1  # timesteps; kept in checkpoints
        self._baselines: dict[str, Trials] = {}
        self._running = np.zeros((0, 1 + len(scenario.objectives)))  # [B, 1 + M] decisions and sums of trials under way
        self._whole = np.zeros(0, dtype=bool)  # [B] seen from their beginning
        self._finished: deque[np.ndarray] = deque()  # [1 + M] each: the latest whole trials

    def _init_callback(self) -> None:
        normalised = self.model.get_vec_normalize_env()
        if normalised is not None and normalised.norm_obs:
            raise ValueError("EvaluationCallback shows observations as they are: use VecNormalize(norm_obs=False)")
        rows = self.training_env.num_envs
        self._running = np.zeros((rows, 1 + len(self.scenario.objectives)))
        self._whole = np.full(rows, self.model.num_timesteps == 0)
        self._finished = deque(maxlen=self.model._stats_window_size)  # as many as ep_rew_mean averages
        if not self._baselines:
            for name in self.names:
                policy = make_baseline(name, self.scenario)
                self._baselines[name] = rollout(policy, self.scenario, trials=self.trials, seed=VALIDATION_SEED)

    def _on_training_start(self) -> None:
        if self.hyperparameters:
            shown = {k: v if isinstance(v, int | float | str) else str(v) for k, v in self.hyperparameters.items()}
            metrics: dict[str, float] = {"eval/normalised_score": 0.0, "eval/regret": 0.0, "rollout/ep_rew_mean": 0.0}
            self.logger.record("hparams", HParam(shown, metrics), exclude=("stdout", "log", "json", "csv"))
        if self.last_evaluation < 0:
            self.evaluate()

    def _on_step(self) -> bool:
        infos, ended = self.locals["infos"], self.locals["dones"]
        if not infos:  # the rollout stays on a GPU and says at its end what they would have said
            return True
        self._running += [[1.0, *(info[name] for name in self.scenario.objectives)] for info in infos]
        for row in np.flatnonzero(ended):
            if self._whole[row]:
                self._finished.append(self._running[row].copy())
            self._running[row], self._whole[row] = 0.0, True
        return True

    def _on_rollout_end(self) -> None:
        totals = self.locals.get("totals")  # sums over the rollout, by name
        if totals:
            means = [float(totals[name].mean()) / self.locals["n_steps"] for name in self.scenario.objectives]
        elif self._finished:
            decisions, *sums = np.sum(self._finished, axis=0)
            means = [float(value / decisions) for value in sums]
        else:
            return
        for name, mean in zip(self.scenario.objectives, means, strict=True):
            self.logger.record(f"rollout/{RATES.get(name, name)}", mean)

    def _on_rollout_start(self) -> None:  # weights and counters agree here, after an update
        if self.every and self.num_timesteps - self.last_evaluation >= self.every:
            self.evaluate()

    def _on_training_end(self) -> None:
        if self.num_timesteps != self.last_evaluation:
            self.evaluate()

    def evaluate(self) -> Trials:
        """Evaluate the current policy, sampled, and log."""
        trials = rollout(self.model, self.scenario, trials=self.trials, seed=VALIDATION_SEED)
        results = {**self._baselines, "agent": trials}
        contenders = [name for name in self.names if name not in ("random", "informed")] or ["random"]
        reference = max(contenders, key=lambda name: self._baselines[name].returns.mean())
        summary = summarise(results, self.scenario)["agent"]
        for name, value in summary.objectives.items():
            self.logger.record(f"eval/{RATES.get(name, name)}", value.mean / self.scenario.horizon)
        for name, value in summary.costs.items():
            self.logger.record(f"eval/{name}", value.mean / self.scenario.horizon)
        self.logger.record("eval/return", summary.returns.mean)
        if summary.regret is not None and summary.normalised is not None:
            self.logger.record("eval/regret", summary.regret.mean)
            self.logger.record("eval/normalised_score", summary.normalised.mean)
        self.logger.record("eval/expected_reward", float(trials.expected.mean()) / self.scenario.horizon)
        self.logger.record("eval/difference", summary.versus[reference].mean)
        hidden = ("stdout", "log", "json", "csv")
        title = f"after {self.num_timesteps:,} timesteps, {self.trials:,} validation trials"
        own: dict[str, Any] = getattr(self.model, "figures", lambda *_, **__: {})(
            self.scenario, seed=VALIDATION_SEED, title=title
        )
        curves = curves_figure(results, self.scenario, title=title, emphasise=("agent",))
        actions = action_figure(trials, self.scenario, title=title)
        for name, figure in {"regret_curves": curves, "actions": actions, **own}.items():
            figure.set_dpi(70)  # a run has dozens of them
            self.logger.record(f"eval/{name}", Figure(figure, close=False), exclude=hidden)
        self.logger.dump(self.num_timesteps)
        self.last_evaluation = self.num_timesteps
        return trials
