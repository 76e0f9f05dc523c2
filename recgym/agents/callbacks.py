"""What runs beside training: evaluation on validation tasks, and checkpoints."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Figure, HParam

import recgym
from recgym.agents.checkpoint import save
from recgym.baselines import make_baseline
from recgym.evaluation import VALIDATION_SEED, Trials, rollout, summarise
from recgym.evaluation.report import action_figure, curves_figure

__all__ = ["CheckpointCallback", "EvaluationCallback"]

RATES = {"clicks": "ctr"}  # what an objective per decision is called
PICTURE_DPI = 70  # a run has dozens of them


class EvaluationCallback(BaseCallback):
    """Evaluate on validation tasks every `every` timesteps and log figures and pictures to TensorBoard.

    Tags, named alike for every algorithm: `rollout/ctr` (or another objective per decision), `eval/ctr`, `eval/return`,
    `eval/regret`, `eval/expected_reward`, `eval/normalised_score`, `eval/difference` (to the best baseline), and the
    images `eval/regret_curves` and `eval/actions`; regret, expected reward and score where an optimum is known. A model
    with a method `figures(scenario, seed=..., title=...)` adds its own, by name.

    Args:
        scenario: what is evaluated, as `recgym.make_scenario` takes it; seeds are those of validation, the same tasks
            and luck each time.
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
        self.scenario = recgym.make_scenario(scenario)
        self.every = every
        self.trials = trials
        ends = ("informed",) if self.scenario.solved else ()
        self.names = list(dict.fromkeys(("random", *baselines, *ends)))
        self.hyperparameters = hyperparameters
        self.last_evaluation = -1  # timesteps; kept in checkpoints
        self.stopped = False  # training ends before its time, and whoever stopped it is waiting
        self._baselines: dict[str, Trials] = {}
        # [B, 1 + M] decisions and sums of the trials under way
        self._running = np.zeros((0, 1 + len(self.scenario.objectives)))
        self._whole = np.zeros(0, dtype=bool)  # [B] seen from their beginning
        self._trials: deque[np.ndarray] = deque()  # [1 + M] each: the latest whole trials

    def _init_callback(self) -> None:
        normalised = self.model.get_vec_normalize_env()
        if normalised is not None and normalised.norm_obs:
            raise ValueError("EvaluationCallback shows observations as they are: use VecNormalize(norm_obs=False)")
        rows = self.training_env.num_envs
        self._running = np.zeros((rows, 1 + len(self.scenario.objectives)))
        self._whole = np.full(rows, self.model.num_timesteps == 0)
        self._trials = deque(maxlen=self.model._stats_window_size)  # as many as ep_rew_mean averages
        if not self._baselines:
            for name in self.names:
                policy = make_baseline(name, self.scenario)
                self._baselines[name] = rollout(policy, self.scenario, trials=self.trials, seed=VALIDATION_SEED)

    def _on_training_start(self) -> None:
        if self.hyperparameters:
            values = {k: v if isinstance(v, int | float | str) else str(v) for k, v in self.hyperparameters.items()}
            metrics: dict[str, float] = {"eval/normalised_score": 0.0, "eval/regret": 0.0, "rollout/ep_rew_mean": 0.0}
            self.logger.record("hparams", HParam(values, metrics), exclude=("stdout", "log", "json", "csv"))
        if self.last_evaluation < 0:
            self.evaluate()

    def _on_step(self) -> bool:
        infos = self.locals["infos"]
        if not infos:  # the rollout stays on a GPU and says at its end what they would have said
            return True
        self._running += [[1.0, *(info[name] for name in self.scenario.objectives)] for info in infos]
        for row in np.flatnonzero(self.locals["dones"]):
            if self._whole[row]:
                self._trials.append(self._running[row].copy())
            self._running[row] = 0.0
            self._whole[row] = True
        return True

    def _on_rollout_end(self) -> None:
        totals = self.locals.get("totals")  # sums over the rollout, by name
        if totals:
            means = [float(totals[name].mean()) / self.locals["n_steps"] for name in self.scenario.objectives]
        elif self._trials:
            decisions, *sums = np.sum(self._trials, axis=0)
            means = [float(value / decisions) for value in sums]
        else:
            return
        for name, mean in zip(self.scenario.objectives, means, strict=True):
            self.logger.record(f"rollout/{RATES.get(name, name)}", mean)

    def _on_rollout_start(self) -> None:  # weights and counters agree here, after an update
        if self.every and self.num_timesteps - self.last_evaluation >= self.every:
            self.evaluate()

    def _on_training_end(self) -> None:
        if self.num_timesteps != self.last_evaluation and not self.stopped:
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
        if summary.regret is not None and summary.normalised is not None:  # an optimum is known
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
            figure.set_dpi(PICTURE_DPI)
            self.logger.record(f"eval/{name}", Figure(figure, close=False), exclude=hidden)
        self.logger.dump(self.num_timesteps)
        self.last_evaluation = self.num_timesteps
        return trials


class CheckpointCallback(BaseCallback):
    """Save between an update and the next rollout, every `every` timesteps, at the end, and when asked to stop.

    Args:
        path: of the file.
        every: timesteps between checkpoints; 0 saves at the end only.
        evaluation: its last evaluation is kept, so that a resumed run evaluates when this one would have.
        options: JSON values that resuming needs to know of the run.
        about: what `recgym.agents.save` is to know of the model.
    """

    def __init__(
        self, path: Path, *, every: int, evaluation: EvaluationCallback, options: dict[str, Any], **about: Any
    ) -> None:
        super().__init__()
        self.path = path
        self.every = every
        self.evaluation = evaluation
        self.options = options
        self.about = about
        self.last_save: int | None = None  # timesteps in the file; None before it is written
        self.stop = False  # asked to
        self.early = False  # it ended before its time, with everything saved
        self._first = 0  # timesteps when training began

    def _on_training_start(self) -> None:
        self._first = self.model.num_timesteps

    def _on_rollout_start(self) -> None:
        due = self.every and self.model.num_timesteps - (self.last_save or self._first) >= self.every
        if self.stop or due:
            self.save()
            self.early = self.evaluation.stopped = self.stop

    def _on_step(self) -> bool:
        return not self.early

    def _on_training_end(self) -> None:
        if not self.early:
            self.save()

    def save(self) -> None:
        """Write the checkpoint."""
        counters = {"last_evaluation": self.evaluation.last_evaluation, "options": self.options}
        save(self.path, self.model, training=True, counters=counters, **self.about)
        self.last_save = self.model.num_timesteps
