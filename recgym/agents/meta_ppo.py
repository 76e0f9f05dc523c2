"""MetaPPO: proximal policy optimisation of a Transformer that learns within the trial, used like any SB3 algorithm."""

from __future__ import annotations

import operator
import time
import warnings
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback
from stable_baselines3.common.utils import FloatSchedule, update_learning_rate
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from recgym.agents import archive, losses
from recgym.agents.arguments import check_device, json_values, single_precision, writable_options
from recgym.agents.buffer import Batch, TrialBuffer
from recgym.agents.distribution import PlackettLuce
from recgym.agents.environments import check_raw, check_shown, horizon_of, layout_of, spaces_of
from recgym.agents.imitation import imitation_loss, label_entropy, warn_of_short_imitation
from recgym.agents.model_file import load_model, save_model
from recgym.agents.options import MetaPPOOptions, Option, TransformerOptions, takes_options
from recgym.agents.pictures import policy_figures
from recgym.agents.policy import TransformerPolicy
from recgym.agents.rollout import Arena, Collector, check_length, make_arenas, plan_rollouts
from recgym.agents.training_state import check_counters
from recgym.evaluation.luck import alone, own_luck

__all__ = ["MetaPPO"]

NAME = "meta_ppo"  # of the algorithm in files
STEPS = 128  # decisions per environment and update without a Layout
BY_POSITION = 7  # options that SB3's algorithms also take by position, up to clip_range
MAX_DIVERGENCE = 1.5  # times target_kl, where an update ends early
SelfMetaPPO = TypeVar("SelfMetaPPO", bound="MetaPPO")


class MetaPPO(OnPolicyAlgorithm):
    """PPO (Schulman et al. 2017) on whole trials, after imitation of an expert where one is given.

    With an environment that has a `layout` (all of recgym's), candidates are scored with shared weights and every
    rollout holds whole trials. Any other environment with Box observations and Discrete actions gets one token per
    step; its memory begins anew at every rollout.

    Args:
        policy: "TransformerPolicy", or a subclass of it.
        env: a VecEnv, an environment, or the id of one.
        options: of learning; as arguments, and as attributes, each field of `MetaPPOOptions` by its name
            (`recgym.parameters.parameter_lines(MetaPPOOptions)` says what each does).
        stats_window_size: episodes that the logged means cover.
        tensorboard_log: folder of the logs.
        policy_kwargs: of `TransformerPolicy`.
        verbose: 0 nothing, 1 information, 2 debugging.
        seed: of weights, actions and the environment.
        device: "auto", "cpu", "cuda".

    Raises:
        ValueError: spaces, arguments and environment do not go together (says which).
        TypeError: an argument is unknown (names the nearest).
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"TransformerPolicy": TransformerPolicy}
    any_candidates: ClassVar[bool] = True  # a checkpoint may be loaded with another number of candidates
    options: MetaPPOOptions
    policy: TransformerPolicy
    rollout_buffer: TrialBuffer  # type: ignore[assignment] # of whole trials

    @takes_options(MetaPPOOptions, by_position=BY_POSITION)
    def __init__(
        self,
        policy: str | type[TransformerPolicy],
        env: GymEnv | str,
        *,
        options: MetaPPOOptions,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: Mapping[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        if env is None:
            raise ValueError("MetaPPO needs an environment")
        check_device(device)
        self.options = options
        super().__init__(
            policy,
            env,
            learning_rate=options.learning_rate,
            n_steps=options.n_steps,  # type: ignore[arg-type] # None until the environment is known
            gamma=options.gamma,
            gae_lambda=options.gae_lambda,
            ent_coef=options.ent_coef,  # type: ignore[arg-type] # may be a schedule
            vf_coef=options.vf_coef,
            max_grad_norm=options.max_grad_norm,
            use_sde=False,
            sde_sample_freq=-1,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=dict(policy_kwargs or {}),
            verbose=verbose,
            seed=None if seed is None else operator.index(seed),
            device=device,
            _init_setup_model=False,
            supported_action_spaces=(spaces.Discrete, spaces.MultiDiscrete),
        )
        self._policy_kwargs = dict(policy_kwargs or {})  # as given
        self._arenas: list[Arena] = []
        self._prepared: VecEnv | None = None  # the environment that the arenas were made for
        self._rollouts = 0  # made so far: decides whose turn it is among the variants
        self._pretrained = 0  # decisions that imitated the expert
        self._began = 0  # timesteps when the last rollout began: schedules are read there
        self._imitating = False
        self._seconds = {"rollout": 0.0, "update": 0.0}
        if _init_setup_model:
            self._setup_model()
            self.prepare()

    # --- setting up ---
    def _setup_model(self) -> None:
        assert self.env is not None
        check_raw(self.env)
        layout = layout_of(self.env)
        if layout is None:  # it looks back over the whole rollout, unless told otherwise
            longest = max(TransformerOptions.context_length, self.options.n_steps or 0)
            self.policy_kwargs = {"context_length": longest, **self.policy_kwargs}
        optimizer = {"weight_decay": self.options.weight_decay, **self.policy_kwargs.get("optimizer_kwargs", {})}
        described = None if layout is None else layout.to_json()
        self.policy_kwargs = {**self.policy_kwargs, "layout": described, "optimizer_kwargs": optimizer}
        self._setup_lr_schedule()
        self.set_random_seed(self.seed)
        with single_precision():
            self.policy = self.policy_class(  # type: ignore[assignment] # or a subclass
                self.observation_space, self.action_space, self.lr_schedule, **self.policy_kwargs
            ).to(self.device)
        check_length(self.policy, horizon_of(self.env, layout) or 0)

    def prepare(self) -> None:
        """Make what learning needs and acting does not: buffers, experts, the variants' environments.

        Raises:
            ValueError: options of learning do not fit the environment (says which).
        """
        assert self.env is not None
        check_raw(self.env)
        horizon = horizon_of(self.env, self.policy.layout)
        self.n_steps = self.options.n_steps or horizon or STEPS
        if horizon and self.n_steps % horizon:
            raise ValueError(f"n_steps {self.n_steps} does not hold whole trials of {horizon} decisions")
        if self.options.pretrain_steps and self.options.expert is None:
            raise ValueError(f"pretrain_steps {self.options.pretrain_steps} needs an expert to imitate")
        self._arenas = make_arenas(self.env, self.n_steps, self.policy, self.options)
        self._prepared = self.env
        self.rollout_buffer = self._arenas[0].buffer

    def arguments(self) -> dict[str, Any]:
        """Those of the constructor, as JSON can carry them: what a checkpoint keeps to build the same again.

        A schedule that cannot be written down (see `recgym.agents.arguments.plain_schedule`) is kept as the value
        that it begins with, and an optimizer's class not at all; a warning says so.

        Raises:
            ValueError: a policy of another class, which no checkpoint names.
        """
        if self.policy_class is not TransformerPolicy:
            raise ValueError(f"a checkpoint can hold a TransformerPolicy, not a {self.policy_class.__name__}")
        policy_kwargs = {name: value for name, value in self._policy_kwargs.items() if name != "optimizer_class"}
        if len(policy_kwargs) < len(self._policy_kwargs):
            warnings.warn("optimizer_class is not kept in the file: what is loaded has AdamW", stacklevel=3)
        own = {"policy_kwargs": policy_kwargs, "stats_window_size": self._stats_window_size}
        return json_values({"policy": "TransformerPolicy", **writable_options(self.options), **own})

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """Learn and act in another environment that shows the same fields.

        Raises:
            ValueError: it shows other ones, or other numbers of candidates or decisions (says how to have these).
        """
        assert self.env is not None
        wrapped = self._wrap_env(env, self.verbose)
        check_shown(wrapped, self.policy.layout, spaces_of(self.env), any_candidates=True)
        if (wrapped.observation_space, wrapped.action_space) != (self.observation_space, self.action_space):
            raise ValueError(
                "set_env: this environment has other spaces, such as of another number of candidates or decisions; "
                "save(path), and MetaPPO.load(path, env=...) plays it with the same weights"
            )
        super().set_env(wrapped, force_reset)

    # --- acting ---
    @alone
    def collect_rollouts(  # type: ignore[override] # it fills a TrialBuffer of its own
        self,
        env: VecEnv,
        callback: BaseCallback,
        rollout_buffer: TrialBuffer,
        n_rollout_steps: int,
    ) -> bool:
        """Fill the buffer of the arena whose turn it is with whole trials; see `recgym.agents.rollout.Collector`.

        Returns:
            Whether the rollout is whole: False where a callback broke it off.

        Raises:
            ValueError: a reward is not finite, or the trials of the rows do not begin together.
        """
        started = time.perf_counter()
        self._began = self.num_timesteps
        arena = self._arenas[self._rollouts % len(self._arenas)]
        self.rollout_buffer = arena.buffer
        self._imitating = self._pretrained < self.options.pretrain_steps
        collector = Collector(arena, self.policy, self.options, imitating=self._imitating)
        seed = [self.seed or 0, self._rollouts]
        self._last_obs, self._last_episode_starts = collector.begin(
            self._last_obs, self._last_episode_starts, seed=seed, anew=bool(self.options.variants)
        )
        callback.on_rollout_start()
        self._last_obs = None  # where a rollout breaks off, in the middle of trials, learn() begins anew
        while not arena.buffer.full:
            decision = collector.decide()
            turn = collector.play(decision)
            self.num_timesteps += arena.env.num_envs
            callback.update_locals({"self": self, **collector.local_names(decision, turn)})
            if not callback.on_step():
                return False
            self._update_info_buffer(turn.infos, turn.dones)
            collector.record(decision, turn)
        self._last_obs, self._last_episode_starts = collector.finish(self._n_updates + 1)
        self._rollouts += 1
        self._pretrained += collector.n_steps * arena.env.num_envs if self._imitating else 0
        self._update_info_buffer(collector.episodes())
        self._seconds["rollout"] = time.perf_counter() - started
        callback.update_locals({"n_steps": collector.n_steps, "totals": collector.totals})
        callback.on_rollout_end()
        return True

    # --- learning ---
    @alone
    def train(self) -> None:
        """Update once from the last rollout: imitation, or PPO."""
        started = time.perf_counter()
        self.policy.set_training_mode(True)
        arena = self._arenas[(self._rollouts - 1) % len(self._arenas)]
        batch_size = max(1, (self.options.batch_size or arena.decisions // 4) // arena.length)
        if self._imitating:
            self._imitate(arena, batch_size)
        else:
            self._optimise(arena, batch_size)
        self._seconds["update"] = time.perf_counter() - started
        for name, seconds in self._seconds.items():
            self.logger.record(f"time/{name}_seconds", seconds)

    def _imitate(self, arena: Arena, batch_size: int) -> None:
        options = self.options
        before = self._pretrained - arena.decisions  # a rate read at the end would be 0 where one rollout is all
        rate = options.pretrain_learning_rate * (1.0 - before / options.pretrain_steps)
        update_learning_rate(self.policy.optimizer, rate)
        count = min(options.batch_decisions or arena.length, arena.length)
        logs: dict[str, list[float]] = {}
        for _ in range(max(1, round(options.pretrain_epochs * arena.length / count))):
            for batch in arena.buffer.get(arena.length, batch_size):
                distribution, values, batch, present, auxiliary = self._evaluate(batch, arena.length)
                loss, agreement = imitation_loss(distribution, batch.labels, present)
                value_loss = self._value_loss(values, batch, present)
                whole = loss + options.vf_coef * value_loss + options.auxiliary_coef * auxiliary
                losses.note(logs, loss=loss, agreement=agreement, value_loss=value_loss, grad_norm=self._descend(whole))
        self._n_updates += 1
        for name, numbers in logs.items():
            self.logger.record(f"imitation/{name}", np.mean(numbers))
        self.logger.record("imitation/learning_rate", rate)
        if self._pretrained >= options.pretrain_steps:  # moments of another loss would mislead PPO
            self.policy.optimizer.state.clear()

    def _optimise(self, arena: Arena, batch_size: int) -> None:
        options = self.options
        self._update_learning_rate(self.policy.optimizer)
        clip_range = FloatSchedule(options.clip_range)(self._current_progress_remaining)
        ent_coef = FloatSchedule(options.ent_coef)(self._current_progress_remaining)
        expert_coef = options.expert_coef * self._current_progress_remaining if arena.expert else 0.0
        logs: dict[str, list[float]] = {}
        too_far = False
        for _ in range(options.n_epochs):
            for batch in arena.buffer.get(arena.length, batch_size):
                distribution, values, batch, present, auxiliary = self._evaluate(batch, arena.length)
                advantages = batch.advantages
                if options.normalize_advantage and advantages.numel() > 1:
                    advantages = losses.normalise(advantages, present)
                log_probs = distribution.log_prob(batch.actions)
                policy_loss, log_ratio = losses.policy_loss(log_probs, batch.log_probs, advantages, clip_range, present)
                value_loss = self._value_loss(values, batch, present)
                entropy_loss = -losses.mean_present(distribution.entropy(batch.actions), present)
                loss = policy_loss + ent_coef * entropy_loss + options.vf_coef * value_loss
                loss = loss + options.auxiliary_coef * auxiliary
                if expert_coef:
                    cross_entropy, agreement = imitation_loss(distribution, batch.labels, present)
                    loss = loss + expert_coef * cross_entropy
                    divergence = cross_entropy - label_entropy(batch.labels, present)
                    losses.note(logs, expert_divergence=divergence, expert_agreement=agreement)
                approx_kl, clip_fraction = losses.measure_change(log_ratio, clip_range, present)
                losses.note(logs, approx_kl=approx_kl)
                too_far = options.target_kl is not None and float(approx_kl) > MAX_DIVERGENCE * options.target_kl
                if too_far:
                    break
                losses.note(logs, policy_gradient_loss=policy_loss, value_loss=value_loss, entropy_loss=entropy_loss)
                losses.note(logs, loss=loss, clip_fraction=clip_fraction, grad_norm=self._descend(loss))
            self._n_updates += 1
            if too_far:
                break
        for name, numbers in logs.items():
            self.logger.record(f"train/{name}", np.mean(numbers))
        variance = arena.buffer.explained_variance(self.policy.present(arena.buffer.observations))
        self.logger.record("train/explained_variance", variance)
        self.logger.record("train/expert_coef", expert_coef)
        self.logger.record("train/clip_range", clip_range)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    def _evaluate(self, batch: Batch, length: int) -> tuple[PlackettLuce, Tensor, Batch, Tensor | None, Tensor | float]:
        """Distributions, values [b, S] and batch of `batch_decisions`, where [b, S] one is made, auxiliary loss."""
        count = self.options.batch_decisions
        at = None if count is None else torch.randperm(length, device=self.device)[:count].sort().values
        seen = batch if at is None else Batch(*(column[:, at] for column in batch))
        distribution, values, told = self.policy.tell_trials(batch.observations, batch.starts, at, seen.truth)
        present = self.policy.present(seen.observations)
        return distribution, values, seen, present, losses.auxiliary_loss(told, seen.hidden, present)

    def _value_loss(self, values: Tensor, batch: Batch, present: Tensor | None) -> Tensor:
        return losses.value_loss(values, batch.returns, self.policy.decisions_left(batch.observations), present)

    def _descend(self, loss: Tensor) -> Tensor:
        """Make one step of the optimizer; returns the gradient's norm before clipping.

        Raises:
            ValueError: loss or gradient is not finite; the weights are as before.
        """
        self.policy.optimizer.zero_grad()
        loss.backward()
        norm = clip_grad_norm_(self.policy.parameters(), self.options.max_grad_norm)
        if not torch.isfinite(loss) or not torch.isfinite(norm):
            raise ValueError(
                f"update {self._n_updates + 1}: loss {float(loss.detach())}, gradient norm {float(norm)}; stopped "
                "before the weights were changed. Try a smaller learning rate, or look at the rewards"
            )
        self.policy.optimizer.step()
        return norm

    def _update_current_progress_remaining(self, num_timesteps: int, total_timesteps: int) -> None:
        """As when the last rollout began: learning rate and `expert_coef` of a single one would be 0 at its end."""
        super()._update_current_progress_remaining(self._began, total_timesteps)

    def plan(self, total_timesteps: int) -> tuple[int, int]:
        """How many decisions learning for so many more really plays, and how many of them imitate."""
        imitating = self.options.pretrain_steps - self._pretrained
        return plan_rollouts(self._arenas, self._rollouts, total_timesteps, imitating)

    def learn(
        self: SelfMetaPPO,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str = "MetaPPO",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfMetaPPO:
        """Train for `total_timesteps` decisions, rounded up to whole rollouts; see SB3's `BaseAlgorithm.learn`."""
        assert self.env is not None
        if self._prepared is not self.env:
            self.prepare()
        warn_of_short_imitation(self._pretrained + self.plan(total_timesteps)[1], self._arenas[0].decisions)
        return super().learn(total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)

    def figures(self, scenario: Any, *, seed: int, title: str = "") -> dict[str, Any]:
        """Pictures of sample trials for TensorBoard, by name; see `recgym.agents.pictures.policy_figures`."""
        with own_luck(self, [seed]):
            return policy_figures(self.policy, scenario, trials=64, seed=seed, title=title)

    # --- files ---
    def save(self, path: str | Path, exclude: Any = None, include: Any = None) -> None:  # type: ignore[override]
        """Write the policy as a `.safetensors` checkpoint; `recgym.agents.save` can also keep training's state.

        Raises:
            TypeError: `path` is none: a checkpoint is written as a file, whole or not at all.
            ValueError: `exclude` or `include` is given, or see `recgym.agents.save`.
        """
        if not isinstance(path, str | Path):
            raise TypeError(f"save needs the path of a file, got a {type(path).__name__}")
        if exclude or include:
            raise ValueError(
                "a checkpoint holds the weights and the constructor's arguments: nothing to exclude or include"
            )
        if type(self) is not MetaPPO:
            raise ValueError(f"the model is a {type(self).__name__}, and a checkpoint can hold a MetaPPO")
        save_model(path, self, algo=NAME, arguments=self.arguments())

    @classmethod
    def load(  # type: ignore[override] # reads no pickle, so has fewer arguments
        cls: type[SelfMetaPPO],
        path: str | Path,
        env: GymEnv | None = None,
        device: torch.device | str = "auto",
        **arguments: Any,
    ) -> SelfMetaPPO:
        """Read a checkpoint; see `recgym.agents.load`. Nothing in it is run.

        Unlike SB3's files it holds no state of the optimizer (that takes `recgym.agents.save(training=True)` and
        `recgym.agents.load(resume=True)`), and neither `verbose` nor `tensorboard_log`.

        Args:
            path: of the file.
            env: what to act and learn in; None makes the environment that the file names.
            device: "auto", "cpu" or "cuda".
            arguments: of the constructor, in place of the file's.

        Raises:
            ValueError: it holds another algorithm, or see there.
        """
        wrapped = None if env is None else cls._wrap_env(env, 0)
        header, tensors = archive.read_archive(path)
        if header["algo"] != NAME or cls is not MetaPPO:
            held = "MetaPPO" if header["algo"] == NAME else header["algo"]
            raise ValueError(f"{path}: holds a {held}, not a {cls.__name__}")
        return load_model(path, cls, header, tensors, env=wrapped, device=str(device), **arguments)

    def training_counters(self) -> dict[str, int | None]:
        """What going on needs beside SB3's own: how far training is, and the seed of its streams."""
        return {"rollouts": self._rollouts, "pretrained": self._pretrained, "seed": self.seed}

    def restore_counters(self, counters: Mapping[str, int | None]) -> None:
        """Take up what `training_counters` gave.

        Raises:
            ValueError: it is something else.
        """
        check_counters(counters, self.training_counters())
        self._rollouts, self._pretrained = int(counters["rollouts"] or 0), int(counters["pretrained"] or 0)
        self.seed = counters["seed"]


for _field in fields(MetaPPOOptions):
    if _field.name != "n_steps":  # the attribute is the number in use, as in SB3
        setattr(MetaPPO, _field.name, Option(_field.name))
