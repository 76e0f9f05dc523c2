"""Rollouts of whole trials: where one takes place, and its steps from the first observation to the advantages.

Where environment and policy are on one device, nothing is copied from it between the first step and the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

import recgym
from recgym.agents.auxiliary import check_labels, check_truth, hidden_labels, true_rewards
from recgym.agents.buffer import TrialBuffer
from recgym.agents.environments import attribute_of, horizon_of
from recgym.agents.imitation import Expert, follow_expert
from recgym.agents.memory import Memory
from recgym.agents.options import MetaPPOOptions
from recgym.agents.policy import TransformerPolicy
from recgym.arrays import to_numpy
from recgym.sb3 import RecVecEnv

__all__ = [
    "Arena",
    "Collector",
    "Decision",
    "Turn",
    "check_length",
    "check_rewards",
    "check_source",
    "check_trials",
    "make_arenas",
    "plan_rollouts",
]


class Arena(NamedTuple):
    """Where a rollout takes place, and what it is kept in."""

    env: VecEnv
    length: int  # decisions per row that learning sees at once: a trial, or without a Layout the rollout
    buffer: TrialBuffer
    expert: Expert | None

    @property
    def decisions(self) -> int:
        """Of a rollout, summed over the rows."""
        return self.buffer.buffer_size * self.env.num_envs


def plan_rollouts(arenas: Sequence[Arena], turn: int, total: int, imitating: int) -> tuple[int, int]:
    """How many decisions are played until there are at least `total`, and how many of them imitate.

    Args:
        arenas: which take turns, a whole rollout each.
        turn: of the first rollout.
        total: decisions wanted.
        imitating: decisions that are to imitate, rounded up to whole rollouts.
    """
    played = imitated = 0
    while played < total:
        decisions = arenas[turn % len(arenas)].decisions
        imitated += decisions if imitated < imitating else 0
        played += decisions
        turn += 1
    return played, imitated


class Decision(NamedTuple):
    """What every row decided, and on what; tensors on the policy's device."""

    observation: Tensor  # [B, D]
    starts: Tensor  # [B] bool, rows that begin a trial
    actions: Tensor  # [B] or [B, k]
    values: Tensor  # [B]
    log_probs: Tensor  # [B] of the policy, whoever acted
    label: Tensor | None  # what the expert would do, where it is asked
    hidden: Tensor | None  # [B, K, n] what an auxiliary head is to tell
    truth: Tensor | None  # [B, K, 1] what an asymmetric critic is told


class Turn(NamedTuple):
    """What the environments answered."""

    observation: Any  # [B, D] the next one
    rewards: Any  # [B] as the environment gives them
    target: Any  # [B] what is learned from
    dones: np.ndarray  # [B] bool
    ended: Tensor  # [B] bool, the same on the policy's device
    infos: list[dict[str, Any]]  # of each row; empty on a device


def make_arenas(env: VecEnv, n_steps: int, policy: TransformerPolicy, options: MetaPPOOptions) -> list[Arena]:
    """Make what rollouts of `n_steps` decisions take place in: one arena, or one for each of the variants.

    Raises:
        ValueError: options and environment do not go together (says which).
    """
    if not options.variants:
        return [_make_arena(env, n_steps, policy, options)]
    if not isinstance(env.unwrapped, RecVecEnv):
        raise ValueError("variants need a RecVecEnv: see recgym.sb3.make_vec_env")
    if env.unwrapped.runner.fixed_tasks is not None:
        raise ValueError("variants draw a new task for every trial: leave out the environment's fixed tasks")
    arenas = []
    for variant in options.variants:
        try:
            scenario = recgym.make_scenario(env.unwrapped.scenario, **variant)
        except ValueError as error:
            raise ValueError(f"variant {variant}: {error}") from error
        layouts = scenario.layout, policy.layout or ()
        theirs, ours = ([(field.name, field.width) for field in layout] for layout in layouts)
        if theirs != ours:
            raise ValueError(f"variant {variant} shows {dict(theirs)}, the environment {dict(ours)}")
        variant_env = RecVecEnv(scenario, env.num_envs, device=env.unwrapped.runner.rng.device)
        arenas.append(_make_arena(variant_env, scenario.horizon, policy, options))
    return arenas


def _make_arena(env: VecEnv, n_steps: int, policy: TransformerPolicy, options: MetaPPOOptions) -> Arena:
    length = horizon_of(env, policy.layout) or n_steps
    check_length(policy, length)
    check_labels(env, policy.options.auxiliary)
    check_truth(env, asked=policy.options.asymmetric_critic)
    check_source(env, options.learn_from)
    asked = options.expert is not None and (options.pretrain_steps or options.expert_coef)
    expert = Expert(options.expert, env, options.expert_draws) if options.expert and asked else None
    buffer = TrialBuffer(
        n_steps,
        env.observation_space,
        env.action_space,
        policy.device,
        env.num_envs,
        gamma=options.gamma,
        gae_lambda=options.gae_lambda,
        labels=expert.width if expert else 0,
        hidden=(policy.layout.candidates, policy.options.auxiliary) if policy.layout else (0, 0),
        truth=(policy.layout.candidates, int(policy.options.asymmetric_critic)) if policy.layout else (0, 0),
    )
    return Arena(env, length, buffer, expert)


def check_source(env: VecEnv, learn_from: str) -> None:
    """Refuse to learn from what the environment does not know for its weights.

    Raises:
        ValueError: says what it is, and what to learn from instead.
    """
    if learn_from != "reward" and not getattr(attribute_of(env, "scenario"), "solved", True):
        raise ValueError(
            f"learn_from={learn_from!r}: no expected reward is known for these weights; use learn_from='reward'"
        )


def check_length(policy: TransformerPolicy, length: int) -> None:
    """Refuse what is longer than the policy's history looks back.

    Raises:
        ValueError: says both lengths.
    """
    longest = policy.context_length
    if longest is not None and length > longest:
        what = "a trial" if policy.layout is not None else "a rollout (n_steps)"
        raise ValueError(f"{what} of {length} decisions is longer than the policy's context_length {longest}")


class Collector:
    """Plays one rollout and holds what goes from one decision to the next.

    `begin`, then `decide`, `play` and `record` until the buffer is full, then `finish`.

    Args:
        arena: where.
        policy: who plays.
        options: of learning.
        imitating: whether the expert takes its share of the decisions.
    """

    def __init__(self, arena: Arena, policy: TransformerPolicy, options: MetaPPOOptions, *, imitating: bool) -> None:
        self.arena, self.policy, self.options = arena, policy, options
        self.expert = arena.expert if imitating or options.expert_coef else None
        self.imitating = imitating
        self.on_device = _share_device(arena.env, policy.device)
        self.n_steps = 0
        self.memory: Memory | None = None
        self.totals: dict[str, Any] = {}  # on a device, sums of what `infos` would say of each row
        self.returns: list[Tensor] = []  # on a device, of the trials that ended
        self._earned: Any = 0.0  # [B] of the trials under way
        self.observation: Tensor = torch.zeros(0)
        self.starts: Tensor = torch.zeros(0)

    def begin(self, observation: Any, starts: Any, *, seed: Sequence[int], anew: bool) -> tuple[np.ndarray, np.ndarray]:
        """Go on from the last rollout's end, or begin trials in all rows where it broke off.

        Args:
            observation: [B, D] that the environments showed last.
            starts: [B] bool, rows that begin a trial with it.
            seed: of the rollout: decides what the expert draws.
            anew: seed the environment too, and begin trials in all rows.

        Returns:
            Observations and starts that the rollout begins with.
        """
        env = self.arena.env
        if anew:
            env.seed(list(seed))  # type: ignore[arg-type] # the rollout's number decides its tasks
        if anew or (self.policy.layout is not None and not np.all(starts)):
            observation = env.reset()
            starts = np.ones(env.num_envs, dtype=bool)
        if self.expert is not None:
            self.expert.begin([*seed, 1])
        self.policy.set_training_mode(False)
        self.arena.buffer.reset()
        device = self.policy.device
        self.observation = torch.as_tensor(np.asarray(observation), device=device)
        self.starts = torch.as_tensor(np.asarray(starts), dtype=torch.bool, device=device)
        return observation, starts

    def decide(self) -> Decision:
        """Draw actions of the policy, of which some are the expert's."""
        label = None
        env, device, options = self.arena.env, self.policy.device, self.policy.options
        hidden = hidden_labels(env, device) if options.auxiliary else None
        truth = true_rewards(env, device) if options.asymmetric_critic else None
        with torch.no_grad():
            distribution, values, self.memory = self.policy.step(self.observation, self.memory, self.starts, truth)
            actions = distribution.sample()
            if self.expert is not None:
                label = self.expert.label(self.observation, self.starts)
                actions = follow_expert(actions, label, self.options.pretrain_mix) if self.imitating else actions
            log_probs = distribution.log_prob(actions)
        return Decision(self.observation, self.starts, actions, values, log_probs, label, hidden, truth)

    def play(self, decision: Decision) -> Turn:
        """Step the environments."""
        env, source = self.arena.env, self.options.learn_from
        if self.on_device:
            step = env.step_tensor(decision.actions)  # type: ignore[attr-defined]
            dones = np.full(env.num_envs, step.final_observation is not None)  # trials of one length end together
            self.totals = {name: self.totals.get(name, 0.0) + value for name, value in step.info.items()}
            target = step.info.get(source, step.reward)
            return Turn(step.observation, step.reward, target, dones, step.ended, [])
        observation, rewards, dones, infos = env.step(decision.actions.cpu().numpy())
        target = rewards if source == "reward" else _read_infos(infos, source)
        ended = torch.as_tensor(dones, dtype=torch.bool, device=self.policy.device)
        return Turn(observation, rewards, target, dones, ended, infos)

    def record(self, decision: Decision, turn: Turn) -> None:
        """Keep decision and reward in the buffer, and go on to the next observation."""
        self.n_steps += 1
        whole = self.n_steps % self.arena.length == 0  # all trials end with this decision
        if self.on_device:
            self._earned = self._earned + turn.rewards
            if whole:
                self.returns.append(self._earned)
                self._earned = 0.0
        scale = -self.options.reward_scale if self.options.learn_from == "regret" else self.options.reward_scale
        reward = torch.as_tensor(turn.target, dtype=torch.float32, device=self.policy.device) / scale
        self._add_futures(reward, turn)
        self.arena.buffer.add(
            decision.observation,
            decision.actions,
            reward,
            decision.starts,
            decision.values,
            decision.log_probs,
            decision.label,
            decision.hidden,
            decision.truth,
        )
        self.observation = torch.as_tensor(turn.observation, device=self.policy.device)
        self.starts = turn.ended
        if self.policy.layout is not None and whole:
            self.memory = None

    def _add_futures(self, reward: Tensor, turn: Turn) -> None:
        """Add the value of what would have followed to rewards of rows that were cut off and did not end."""
        for row, info in enumerate(turn.infos):
            last = info.get("terminal_observation")
            if not turn.dones[row] or last is None or not info.get("TimeLimit.truncated", False):
                continue
            assert self.memory is not None
            memory = Memory(*(leaf[row : row + 1] for leaf in self.memory))
            observation = torch.as_tensor(np.asarray(last)[None], device=self.policy.device)
            going = torch.zeros(1, dtype=torch.bool, device=self.policy.device)
            with torch.no_grad():
                reward[row] += self.options.gamma * self.policy.predict_values(observation, memory, going)[0]

    def finish(self, update: int) -> tuple[np.ndarray, np.ndarray]:
        """Estimate advantages, once the rollout is known to be whole.

        Args:
            update: number of the update that follows, for errors.

        Returns:
            Observations [B, D] and starts [B] for the next rollout.

        Raises:
            ValueError: a reward is not finite, or the trials of the rows do not begin together.
        """
        with torch.no_grad():
            last_values = self.policy.predict_values(self.observation, self.memory, self.starts)
        buffer = self.arena.buffer
        check_rewards(buffer, update)
        if self.policy.layout is not None:
            check_trials(buffer, self.arena.length, self.starts)
        buffer.compute_returns_and_advantage(last_values, self.starts, self.policy.present(buffer.observations))
        return to_numpy(self.observation), to_numpy(self.starts)

    def episodes(self) -> list[dict[str, Any]]:
        """Say of the trials that ended on a device what `infos` would: as SB3's Monitor tells it."""
        earnings = torch.cat(self.returns).tolist() if self.returns else []
        return [{"episode": {"r": earned, "l": self.arena.length, "t": 0.0}} for earned in earnings]

    def local_names(self, decision: Decision, turn: Turn) -> dict[str, Any]:
        """What callbacks find in `locals`, by SB3's names."""
        return {
            "env": self.arena.env,
            "rollout_buffer": self.arena.buffer,
            "n_rollout_steps": self.arena.buffer.buffer_size,
            "n_steps": self.n_steps,
            "actions": decision.actions,
            "values": decision.values,
            "log_probs": decision.log_probs,
            "new_obs": turn.observation,
            "rewards": turn.rewards,
            "dones": turn.dones,
            "infos": turn.infos,
            "totals": self.totals,
        }


def _share_device(env: VecEnv, device: torch.device) -> bool:
    """Whether environment and policy can pass tensors to each other: an unwrapped RecVecEnv on torch."""
    if type(env) is not RecVecEnv:
        return False
    place = env.runner.rng.device
    return isinstance(place, torch.device) and (place.type, place.index or 0) == (device.type, device.index or 0)


def _read_infos(infos: Sequence[dict[str, Any]], name: str) -> np.ndarray:
    """[B] what to learn from instead of the reward."""
    try:
        return np.array([info[name] for info in infos], dtype=np.float32)
    except KeyError:
        raise ValueError(
            f"learn_from={name!r}: the environment's infos do not tell it; use learn_from='reward'"
        ) from None


def check_rewards(buffer: TrialBuffer, update: int) -> None:
    """Refuse rewards that are not finite.

    Raises:
        ValueError: names the first, and the update that it comes before.
    """
    wrong = ~torch.isfinite(buffer.rewards)
    if wrong.any():
        t, row = (int(i) for i in wrong.nonzero()[0])
        raise ValueError(f"update {update}: reward {t} of environment {row} is not finite; stopped")


def check_trials(buffer: TrialBuffer, length: int, ended: Tensor) -> None:
    """Refuse a rollout whose trials do not fill it in rows of `length` decisions; `ended` [B] bool of its end.

    Raises:
        ValueError: says how trials must be.
    """
    starts = buffer.starts.view(-1, length, buffer.n_envs)
    if not (starts[:, 0].all() and not starts[:, 1:].any() and ended.all()):
        raise ValueError(
            f"trials do not all begin and end together every {length} decisions: with a Layout, every trial of every "
            "row must have the scenario's horizon, and nobody else may step the environment between two calls of learn "
            "(env.reset() and learn() begin anew)"
        )
