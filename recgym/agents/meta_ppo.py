"""MetaPPO: proximal policy optimisation of a Transformer that learns within the trial, used like any SB3 algorithm."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.utils import FloatSchedule, explained_variance
from stable_baselines3.common.vec_env import VecEnv, VecNormalize, unwrap_vec_wrapper
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from recgym.agents import archive
from recgym.agents.arguments import check_numbers, json_values, plain_schedule
from recgym.agents.buffer import Batch, TrialBuffer
from recgym.agents.environments import check_shown, layout_of, spaces_of
from recgym.agents.imitation import Expert, imitation_loss, label_entropy, mixed
from recgym.agents.model_file import load_model, save_model
from recgym.agents.pictures import policy_figures
from recgym.agents.policy import CONTEXT_LENGTH, PlackettLuce, TransformerPolicy
from recgym.agents.training_state import is_whole
from recgym.arrays import to_numpy
from recgym.evaluation import own_luck
from recgym.layout import Layout
from recgym.sb3 import RecVecEnv

__all__ = ["MetaPPO"]

NAME = "meta_ppo"  # of the algorithm in files
LEARN_FROM = ("reward", "expected_reward", "regret")
STEPS = 128  # decisions per environment and update without a Layout
SelfMetaPPO = TypeVar("SelfMetaPPO", bound="MetaPPO")


class Course(NamedTuple):
    """What one rollout plays."""

    env: VecEnv
    length: int  # decisions per row that learning sees at once: a trial, or without a Layout the rollout
    buffer: TrialBuffer
    expert: Expert | None


class MetaPPO(OnPolicyAlgorithm):
    """PPO (Schulman et al. 2017) on whole trials, after imitation of an expert where one is given.

    With an environment that has a `layout` (all of recgym's), candidates are scored with shared weights and every
    rollout holds whole trials. Any other environment with Box observations and Discrete actions gets one token per
    step; its memory begins anew at every rollout.

    Args:
        policy: "TransformerPolicy", or a subclass of it.
        env: a VecEnv, an environment, or the id of one.
        learning_rate: of PPO; a number, or a schedule of the remaining progress, which falls from 1 to 0 over all
            timesteps of `learn`, those of imitation included.
        n_steps: decisions per environment and update; None: one trial (without a Layout: `STEPS`).
        batch_size: decisions per minibatch, rounded down to whole trials (without a Layout: whole sequences of
            `n_steps`), at least one; the last takes what is left over. None: a quarter of the rollout.
        n_epochs: passes over the trials of a rollout.
        batch_decisions: decisions that a minibatch looks at in each of its trials, drawn anew every time; None: all.
            Neighbours have much in common, and a part of them is faster.
        gamma: discount. At 1, which a trial's fixed length allows, late decisions count like early ones.
        gae_lambda: lambda of the advantage estimate.
        clip_range: of the probability ratio; a number, or a schedule.
        normalize_advantage: to mean 0 and standard deviation 1 per minibatch.
        ent_coef: weight of the entropy bonus.
        vf_coef: weight of the value loss.
        max_grad_norm: gradients are clipped to it.
        target_kl: an update ends early where the policy has moved by more than 1.5 times that; None: never.
        weight_decay: of AdamW.
        reward_scale: rewards are divided by it.
        learn_from: "reward"; or, where the environment tells in its `infos`, "expected_reward", the reward's mean given
            state and action, which has the same gradient and less noise; or "regret", the expected reward less that of
            the best action, which has still less, and the same gradient where what is best does not depend on what was
            done before (a baseline that depends on the task; Mao et al. 2019, "Variance reduction for RL in
            input-driven environments"). The policy sees the same observations in any case.
        expert: name of a baseline to imitate first and to stay near later.
        expert_coef: weight of the divergence from the expert during PPO, times the remaining progress.
        pretrain_steps: decisions of the beginning, summed over environments, that imitate the expert.
        pretrain_learning_rate: of that phase, falling to 0.
        pretrain_mix: share of the decisions of that phase that the expert takes itself.
        pretrain_epochs: how often a decision of that phase is looked at, on average; every trial is at least once.
        variants: parameters of the scenario that differ from rollout to rollout, taken in turn: one set of weights
            learns numbers of candidates and horizons together. Needs a `RecVecEnv`.
        stats_window_size: episodes that the logged means cover.
        tensorboard_log: folder of the logs.
        policy_kwargs: of `TransformerPolicy`.
        verbose: 0 nothing, 1 information, 2 debugging.
        seed: of weights, actions and the environment.
        device: "auto", "cpu", "cuda".

    Raises:
        ValueError: spaces, arguments and environment do not go together (says which).
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"TransformerPolicy": TransformerPolicy}
    any_candidates: ClassVar[bool] = True  # a checkpoint may be loaded with another number of candidates
    policy: TransformerPolicy
    rollout_buffer: TrialBuffer  # type: ignore[assignment]

    def __init__(
        self,
        policy: str | type[TransformerPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 3e-4,
        n_steps: int | None = None,
        batch_size: int | None = None,
        n_epochs: int = 4,
        gamma: float = 1.0,
        gae_lambda: float = 0.9,
        clip_range: float | Schedule = 0.2,
        *,
        batch_decisions: int | None = None,
        normalize_advantage: bool = True,
        ent_coef: float = 0.0,
        vf_coef: float = 0.5,
        max_grad_norm: float = 0.5,
        target_kl: float | None = None,
        weight_decay: float = 0.0,
        reward_scale: float = 1.0,
        learn_from: str = "reward",
        expert: str | None = None,
        expert_coef: float = 0.0,
        pretrain_steps: int = 0,
        pretrain_learning_rate: float = 4e-3,
        pretrain_mix: float = 0.3,
        pretrain_epochs: float = 0.3,
        variants: Sequence[Mapping[str, Any]] = (),
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
        check_numbers(locals())
        super().__init__(
            policy,
            env,
            learning_rate=learning_rate,
            n_steps=n_steps,  # type: ignore[arg-type] # None until the environment is known
            gamma=gamma,
            gae_lambda=gae_lambda,
            ent_coef=ent_coef,
            vf_coef=vf_coef,
            max_grad_norm=max_grad_norm,
            use_sde=False,
            sde_sample_freq=-1,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=dict(policy_kwargs or {}),
            verbose=verbose,
            seed=seed,
            device=device,
            _init_setup_model=False,
            supported_action_spaces=(spaces.Discrete, spaces.MultiDiscrete),
        )
        self.batch_size, self.n_epochs = batch_size, n_epochs
        self.clip_range = clip_range
        self.normalize_advantage, self.target_kl, self.weight_decay = normalize_advantage, target_kl, weight_decay
        if learn_from not in LEARN_FROM:
            raise ValueError(f"learn_from must be one of {', '.join(LEARN_FROM)}, got {learn_from!r}")
        self.reward_scale, self.learn_from = reward_scale, learn_from
        self.expert, self.expert_coef = expert, expert_coef
        self.pretrain_steps, self.pretrain_learning_rate = pretrain_steps, pretrain_learning_rate
        self.pretrain_mix = pretrain_mix
        self.batch_decisions, self.pretrain_epochs = batch_decisions, pretrain_epochs
        self.variants = [dict(variant) for variant in variants]
        self._n_steps, self._policy_kwargs = n_steps, dict(policy_kwargs or {})  # as given
        self._courses: list[Course] = []
        self._prepared: VecEnv | None = None  # the environment that the courses were made for
        self._rollouts = 0  # made so far: decides whose turn it is among the variants
        self._pretrained = 0  # decisions that imitated the expert
        self._imitating = False
        self._seconds = {"rollout": 0.0, "update": 0.0}
        if _init_setup_model:
            self._setup_model()
            self.prepare()

    # --- setting up ---
    def _setup_model(self) -> None:
        assert self.env is not None
        layout = layout_of(self.env)
        if layout is not None:
            _check_raw(self.env)
        else:  # it looks back over the whole rollout, unless told otherwise
            self.policy_kwargs = {"context_length": max(CONTEXT_LENGTH, self._n_steps or 0), **self.policy_kwargs}
        self.policy_kwargs = {
            **self.policy_kwargs,
            "layout": None if layout is None else layout.to_json(),
            "optimizer_kwargs": {"weight_decay": self.weight_decay, **self.policy_kwargs.get("optimizer_kwargs", {})},
        }
        self._setup_lr_schedule()
        self.set_random_seed(self.seed)
        self.policy = self.policy_class(  # type: ignore[assignment]
            self.observation_space, self.action_space, self.lr_schedule, **self.policy_kwargs
        ).to(self.device)
        self._check_length(_horizon(self.env, layout) or 0)

    def prepare(self) -> None:
        """Make what learning needs and acting does not: buffers, experts, the variants' environments.

        Raises:
            ValueError: arguments of learning do not fit the environment (says which).
        """
        assert self.env is not None
        if self.policy.layout is not None:
            _check_raw(self.env)
        horizon = _horizon(self.env, self.policy.layout)
        self.n_steps = self._n_steps or horizon or STEPS
        if horizon and self.n_steps % horizon:
            raise ValueError(f"n_steps {self.n_steps} does not hold whole trials of {horizon} decisions")
        if self.pretrain_steps and self.expert is None:
            raise ValueError(f"pretrain_steps {self.pretrain_steps} needs an expert to imitate")
        self._courses = self._make_courses(self.env)
        self._prepared = self.env
        self.rollout_buffer = self._courses[0].buffer

    def _check_length(self, length: int) -> None:
        longest = self.policy.context_length
        if longest is not None and length > longest:
            what = "a trial" if self.policy.layout is not None else "a rollout (n_steps)"
            raise ValueError(f"{what} of {length} decisions is longer than the policy's context_length {longest}")

    def _make_courses(self, env: VecEnv) -> list[Course]:
        if not self.variants:
            return [self._make_course(env, self.n_steps)]
        if not isinstance(env.unwrapped, RecVecEnv):
            raise ValueError("variants need a RecVecEnv: see recgym.sb3.make_vec_env")
        if env.unwrapped.runner.fixed_tasks is not None:
            raise ValueError("variants draw a new task for every trial: leave out the environment's fixed tasks")
        made = []
        for variant in self.variants:
            try:
                scenario = replace(env.unwrapped.scenario, **variant)
            except TypeError as error:
                raise ValueError(f"variant {variant}: {error}") from None
            layouts = scenario.layout, self.policy.layout or ()
            shown = [[(field.name, field.width) for field in layout] for layout in layouts]
            if shown[0] != shown[1]:
                raise ValueError(f"variant {variant} shows {dict(shown[0])}, the environment {dict(shown[1])}")
            course_env = RecVecEnv(scenario, env.num_envs, device=env.unwrapped.runner.rng.device)
            made.append(self._make_course(course_env, scenario.horizon))
        return made

    def _make_course(self, env: VecEnv, n_steps: int) -> Course:
        horizon = _horizon(env, self.policy.layout)
        length = horizon or n_steps
        self._check_length(length)
        expert = Expert(self.expert, env) if self.expert and (self.pretrain_steps or self.expert_coef) else None
        buffer = TrialBuffer(
            n_steps,
            env.observation_space,
            env.action_space,
            self.device,
            env.num_envs,
            gamma=self.gamma,
            gae_lambda=self.gae_lambda,
            labels=expert.width if expert else 0,
        )
        return Course(env, length, buffer, expert)

    def arguments(self) -> dict[str, Any]:
        """Those of the constructor, as JSON can carry them: what a checkpoint keeps to build the same again.

        A schedule that cannot be written down (see `recgym.agents.arguments.plain_schedule`) is kept as the value
        that it begins with, and an optimizer's class not at all; a warning says so.

        Raises:
            ValueError: a policy of another class, which no checkpoint names.
        """
        if self.policy_class is not TransformerPolicy:
            raise ValueError(f"a checkpoint can hold a TransformerPolicy, not a {self.policy_class.__name__}")
        names = (
            *("batch_size", "n_epochs", "gamma", "gae_lambda", "normalize_advantage", "ent_coef", "vf_coef"),
            *("max_grad_norm", "target_kl", "weight_decay", "reward_scale", "learn_from", "expert", "expert_coef"),
            "pretrain_steps",
            *("pretrain_learning_rate", "pretrain_mix", "pretrain_epochs", "batch_decisions", "variants"),
        )
        schedules = {name: self._kept_schedule(name) for name in ("learning_rate", "clip_range")}
        values = {name: getattr(self, name) for name in names}
        kept = {name: value for name, value in self._policy_kwargs.items() if name != "optimizer_class"}
        if len(kept) < len(self._policy_kwargs):
            warnings.warn("optimizer_class is not kept in the file: what is loaded has AdamW", stacklevel=3)
        given = {"n_steps": self._n_steps, "policy_kwargs": kept, "stats_window_size": self._stats_window_size}
        return json_values({"policy": "TransformerPolicy", **given, **schedules, **values})

    def _kept_schedule(self, name: str) -> float | str | None:
        schedule = getattr(self, name)
        try:
            return plain_schedule(schedule, name=name)
        except ValueError as error:
            first = float(schedule(1.0))
            warnings.warn(f"{error}; the file keeps its first value {first:g}", stacklevel=4)
            return first

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """Learn and act in another environment that shows the same fields.

        Raises:
            ValueError: it shows other ones, or other numbers of candidates or decisions (says how to have these).
        """
        assert self.env is not None
        wrapped = self._wrap_env(env, self.verbose)
        layout = self.policy.layout
        check_shown(wrapped, layout, spaces_of(self.env), any_candidates=True)
        if (wrapped.observation_space, wrapped.action_space) != (self.observation_space, self.action_space):
            raise ValueError(
                "set_env: this environment has other spaces, such as of another number of candidates or decisions; "
                "save(path), and MetaPPO.load(path, env=...) plays it with the same weights"
            )
        super().set_env(wrapped, force_reset)

    # --- acting ---
    def collect_rollouts(
        self,
        env: VecEnv,
        callback: BaseCallback,
        rollout_buffer: TrialBuffer,  # type: ignore[override]
        n_rollout_steps: int,
    ) -> bool:
        """Fill a buffer with whole trials; imitating, a share of the actions is the expert's.

        Where environment and policy are on one device, nothing is copied from it within the loop.

        Raises:
            ValueError: a reward is not finite, or the trials of the rows do not begin together.
        """
        started = time.perf_counter()
        course = self._courses[self._rollouts % len(self._courses)]
        env, rollout_buffer = course.env, course.buffer
        self.rollout_buffer, n_rollout_steps = rollout_buffer, rollout_buffer.buffer_size
        self._imitating = self._pretrained < self.pretrain_steps
        expert = course.expert if self._imitating or self.expert_coef else None
        seed = [self.seed or 0, self._rollouts]
        on_device = _on_device(env, self.device)
        if self.variants:
            env.seed(seed)  # type: ignore[arg-type] # the rollout's number decides its tasks, whatever was before
        if self.variants or (self.policy.layout is not None and not np.all(self._last_episode_starts)):
            self._last_obs = env.reset()  # type: ignore[assignment]
            self._last_episode_starts = np.ones(env.num_envs, dtype=bool)
        if expert is not None:
            expert.begin([*seed, 1])
        self.policy.set_training_mode(False)
        rollout_buffer.reset()
        callback.on_rollout_start()
        n_steps, memory, label = 0, None, None
        earned: Any = 0.0  # [B] of the trials under way
        returns: list[Tensor] = []  # of the trials that ended, on the device
        obs = torch.as_tensor(np.asarray(self._last_obs), device=self.device)
        starts = torch.as_tensor(np.asarray(self._last_episode_starts), dtype=torch.bool, device=self.device)
        self._last_obs = None  # where a rollout breaks off, in the middle of trials, learn() begins anew
        infos: list[dict[str, Any]]
        totals: dict[str, Any] = {}  # on the device: sums of what `infos` would say of each row

        while n_steps < n_rollout_steps:
            with torch.no_grad():
                distribution, values, memory = self.policy.step(obs, memory, starts)
                actions = distribution.sample()
                if expert is not None:
                    label = expert.label(obs, starts)
                    actions = mixed(actions, label, self.pretrain_mix) if self._imitating else actions
                log_probs = distribution.log_prob(actions)
            if on_device:
                step = env.step_tensor(actions)  # type: ignore[attr-defined]
                new_obs, rewards, infos = step.observation, step.reward, []
                dones = np.full(env.num_envs, step.final_observation is not None)  # trials of one length end together
                totals = {name: totals.get(name, 0.0) + value for name, value in step.info.items()}
                learned = step.info.get(self.learn_from, rewards)
            else:
                new_obs, rewards, dones, infos = env.step(actions.cpu().numpy())
                learned = rewards if self.learn_from == "reward" else self._told(infos)
            self.num_timesteps += env.num_envs
            callback.update_locals(locals())
            if not callback.on_step():
                return False
            self._update_info_buffer(infos, dones)
            n_steps += 1
            scale = -self.reward_scale if self.learn_from == "regret" else self.reward_scale
            reward = torch.as_tensor(learned, dtype=torch.float32, device=self.device) / scale
            earned = rewards if n_steps % course.length == 1 or course.length == 1 else earned + rewards
            if on_device and n_steps % course.length == 0:
                returns.append(earned)
            for row, info in enumerate(infos):
                cut_off = info.get("TimeLimit.truncated", False) and info.get("terminal_observation") is not None
                if dones[row] and cut_off:  # not ended: its future counts
                    last = torch.as_tensor(np.asarray(info["terminal_observation"])[None], device=self.device)
                    before = type(memory)(*(leaf[row : row + 1] for leaf in memory))
                    going = torch.zeros(1, dtype=torch.bool, device=self.device)
                    with torch.no_grad():
                        reward[row] += self.gamma * self.policy.predict_values(last, before, going)[0]
            rollout_buffer.add(obs, actions, reward, starts, values, log_probs, label)
            obs = torch.as_tensor(new_obs, device=self.device)
            starts = step.ended if on_device else torch.as_tensor(dones, dtype=torch.bool, device=self.device)
            if self.policy.layout is not None and n_steps % course.length == 0:
                memory = None  # all trials have ended

        with torch.no_grad():
            last_values = self.policy.predict_values(obs, memory, starts)
        self._check_rollout(course, starts)
        rollout_buffer.compute_returns_and_advantage(last_values, starts)
        self._last_obs, self._last_episode_starts = to_numpy(obs), to_numpy(starts)
        self._rollouts += 1
        self._pretrained += n_steps * env.num_envs if self._imitating else 0
        if on_device:
            earnings = torch.cat(returns).tolist()
            self._update_info_buffer([{"episode": {"r": r, "l": course.length, "t": 0.0}} for r in earnings])
        self._seconds["rollout"] = time.perf_counter() - started
        callback.update_locals(locals())
        callback.on_rollout_end()
        return True

    def _told(self, infos: list[dict[str, Any]]) -> np.ndarray:
        """[B] what to learn from instead of the reward."""
        try:
            return np.array([info[self.learn_from] for info in infos], dtype=np.float32)
        except KeyError:
            raise ValueError(
                f"learn_from={self.learn_from!r}: the environment's infos do not tell it; use learn_from='reward'"
            ) from None

    def _check_rollout(self, course: Course, ended: Tensor) -> None:
        buffer = course.buffer
        finite = torch.isfinite(buffer.rewards)
        if not finite.all():
            t, row = (int(i) for i in (~finite).nonzero()[0])
            raise ValueError(f"update {self._n_updates + 1}: reward {t} of environment {row} is not finite; stopped")
        if self.policy.layout is not None:
            begun = buffer.starts.view(-1, course.length, buffer.n_envs)
            if not (begun[:, 0].all() and not begun[:, 1:].any() and ended.all()):
                raise ValueError(
                    f"trials do not all begin and end together every {course.length} decisions: with a Layout, "
                    "every trial of every row must have the scenario's horizon, and nobody else may step the "
                    "environment between two calls of learn (env.reset() and learn() begin anew)"
                )

    # --- learning ---
    def train(self) -> None:
        """One update from the last rollout: imitation, or PPO."""
        started = time.perf_counter()
        self.policy.set_training_mode(True)
        course = self._courses[(self._rollouts - 1) % len(self._courses)]
        rows = course.buffer.buffer_size * course.env.num_envs
        batch_size = max(1, (self.batch_size or rows // 4) // course.length)
        if self._imitating:
            self._imitate(course, batch_size)
        else:
            self._optimise(course, batch_size)
        self._seconds["update"] = time.perf_counter() - started
        for name, seconds in self._seconds.items():
            self.logger.record(f"time/{name}_seconds", seconds)

    def _imitate(self, course: Course, batch_size: int) -> None:
        left = max(0.0, 1.0 - self._pretrained / self.pretrain_steps)
        for group in self.policy.optimizer.param_groups:
            group["lr"] = self.pretrain_learning_rate * max(left, 0.01)
        count = min(self.batch_decisions or course.length, course.length)
        logs: dict[str, list[float]] = {}
        for _ in range(max(1, round(self.pretrain_epochs * course.length / count))):
            for batch in course.buffer.get(course.length, batch_size):
                distribution, values, batch = self._evaluate(batch, course.length)
                loss, agreement = imitation_loss(distribution, batch.labels)
                value_loss = self._value_loss(values, batch.returns, batch.observations)
                norm = self._descend(loss + self.vf_coef * value_loss)
                _note(logs, loss=loss, agreement=agreement, value_loss=value_loss, grad_norm=norm)
        self._n_updates += 1
        for name, values_ in logs.items():
            self.logger.record(f"imitation/{name}", np.mean(values_))
        self.logger.record("imitation/learning_rate", self.policy.optimizer.param_groups[0]["lr"])
        if left <= 0.0:  # moments of another loss would mislead PPO
            self.policy.optimizer.state.clear()

    def _optimise(self, course: Course, batch_size: int) -> None:
        self._update_learning_rate(self.policy.optimizer)
        clip_range = FloatSchedule(self.clip_range)(self._current_progress_remaining)
        expert_coef = self.expert_coef * self._current_progress_remaining if course.expert else 0.0
        logs: dict[str, list[float]] = {}
        moved_too_far = False
        for _ in range(self.n_epochs):
            for batch in course.buffer.get(course.length, batch_size):
                distribution, values, batch = self._evaluate(batch, course.length)
                log_prob = distribution.log_prob(batch.actions)
                policy_loss, log_ratio = self._policy_loss(log_prob, batch, clip_range)
                value_loss = self._value_loss(values, batch.returns, batch.observations)
                entropy_loss = -distribution.entropy(batch.actions).mean()
                loss = policy_loss + self.ent_coef * entropy_loss + self.vf_coef * value_loss
                if expert_coef:
                    cross_entropy, agreement = imitation_loss(distribution, batch.labels)
                    loss = loss + expert_coef * cross_entropy
                    divergence = cross_entropy - label_entropy(batch.labels)
                    _note(logs, expert_divergence=divergence, expert_agreement=agreement)
                with torch.no_grad():  # (r - 1) - log r: unbiased and never negative (Schulman 2020)
                    approx_kl = float((log_ratio.exp() - 1.0 - log_ratio).mean())
                    clipped = ((log_ratio.exp() - 1.0).abs() > clip_range).float().mean()
                logs.setdefault("approx_kl", []).append(approx_kl)
                if self.target_kl is not None and approx_kl > 1.5 * self.target_kl:
                    moved_too_far = True
                    break
                norm = self._descend(loss)
                _note(logs, policy_gradient_loss=policy_loss, value_loss=value_loss, entropy_loss=entropy_loss)
                _note(logs, loss=loss, clip_fraction=clipped, grad_norm=norm)
            self._n_updates += 1
            if moved_too_far:
                break
        for name, values_ in logs.items():
            self.logger.record(f"train/{name}", np.mean(values_))
        buffer = course.buffer
        variance = explained_variance(to_numpy(buffer.values).flatten(), to_numpy(buffer.returns).flatten())
        self.logger.record("train/explained_variance", variance)
        self.logger.record("train/expert_coef", expert_coef)
        self.logger.record("train/clip_range", clip_range)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    def _evaluate(self, batch: Batch, length: int) -> tuple[PlackettLuce, Tensor, Batch]:
        """Distributions and values [b, S] of `batch_decisions` of its decisions, and the batch of these."""
        at = None
        if self.batch_decisions is not None:
            at = torch.randperm(length, device=self.device)[: self.batch_decisions].sort().values
        distribution, values = self.policy.evaluate_trials(batch.observations, batch.starts, at)
        return distribution, values, batch if at is None else Batch(*(column[:, at] for column in batch))

    def _policy_loss(self, log_prob: Tensor, batch: Batch, clip_range: float) -> tuple[Tensor, Tensor]:
        """-E min(r A, clip(r) A) (Schulman et al. 2017, eq. 7), and log r [b, T]."""
        advantages = batch.advantages
        if self.normalize_advantage and advantages.numel() > 1:
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        log_ratio = log_prob - batch.log_probs
        ratio = log_ratio.exp()
        clipped = ratio.clamp(1.0 - clip_range, 1.0 + clip_range)
        return -torch.min(ratio * advantages, clipped * advantages).mean(), log_ratio

    def _value_loss(self, values: Tensor, returns: Tensor, observations: Tensor) -> Tensor:
        """Mean squared error, in units of one decision's reward where the decisions left are known."""
        return ((values - returns) / self.policy.decisions_left(observations)).square().mean()

    def _descend(self, loss: Tensor) -> Tensor:
        """One step of the optimizer; returns the gradient's norm before clipping.

        Raises:
            ValueError: loss or gradient is not finite; the weights are as before.
        """
        self.policy.optimizer.zero_grad()
        loss.backward()
        norm = clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
        if not torch.isfinite(loss) or not torch.isfinite(norm):
            raise ValueError(
                f"update {self._n_updates + 1}: loss {float(loss.detach())}, gradient norm {float(norm)}; stopped "
                "before the weights were changed. Try a smaller learning rate, or look at the rewards"
            )
        self.policy.optimizer.step()
        return norm

    def _update_current_progress_remaining(self, num_timesteps: int, total_timesteps: int) -> None:
        """The last rollout may go beyond the total: learning rate and `expert_coef` must not turn negative."""
        super()._update_current_progress_remaining(min(num_timesteps, total_timesteps), total_timesteps)

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
    def load(  # type: ignore[override]
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
        header, tensors = archive.read(path)
        if header["algo"] != NAME or cls is not MetaPPO:
            held = "MetaPPO" if header["algo"] == NAME else header["algo"]
            raise ValueError(f"{path}: holds a {held}, not a {cls.__name__}")
        return load_model(path, cls, header, tensors, env=wrapped, device=str(device), **arguments)

    def training_counters(self) -> dict[str, int | None]:
        """What going on needs beside SB3's own counters: how far training is, and the seed of its streams."""
        return {"rollouts": self._rollouts, "pretrained": self._pretrained, "seed": self.seed}

    def restore_counters(self, counters: Mapping[str, int | None]) -> None:
        """Take up what `training_counters` gave.

        Raises:
            ValueError: it is something else.
        """
        whole = {name: value for name, value in counters.items() if value is not None or name != "seed"}
        if set(counters) != set(self.training_counters()) or not all(map(is_whole, whole.values())):
            raise ValueError(
                f"own counters must be whole numbers rollouts, pretrained and seed, found {dict(counters)}"
            )
        self._rollouts, self._pretrained = int(counters["rollouts"] or 0), int(counters["pretrained"] or 0)
        self.seed = counters["seed"]


# --- what the environment tells --------------------------------------------------------------------------------------
def _attribute(env: VecEnv, name: str) -> Any:
    """The environment's attribute, or None."""
    return env.get_attr(name)[0] if env.has_attr(name) else None  # asked for what it lacks, a subprocess would die


def _check_raw(env: VecEnv) -> None:
    normalised = unwrap_vec_wrapper(env, VecNormalize)
    if normalised is not None and normalised.norm_obs:
        raise ValueError(
            "VecNormalize changes the rewards and candidates that MetaPPO reads in the observation: "
            "use VecNormalize(norm_obs=False), or reward_scale"
        )


def _horizon(env: VecEnv, layout: Layout | None) -> int | None:
    """Decisions of a trial; None without a Layout.

    Raises:
        ValueError: there is a Layout, and the environment does not tell.
    """
    if layout is None:
        return None
    horizon = getattr(_attribute(env, "scenario"), "horizon", None) or _attribute(env, "horizon")
    if horizon is None:
        raise ValueError("an environment with a Layout must have an attribute `horizon`: the decisions of a trial")
    return int(horizon)


def _on_device(env: VecEnv, device: torch.device) -> bool:
    """Whether environment and policy can pass tensors to each other: an unwrapped RecVecEnv on torch."""
    if type(env) is not RecVecEnv:
        return False
    place = env.runner.rng.device
    return isinstance(place, torch.device) and (place.type, place.index or 0) == (device.type, device.index or 0)


def _note(logs: dict[str, list[float]], **values: Tensor) -> None:
    for name, value in values.items():
        logs.setdefault(name, []).append(float(value.detach()))
