"""What a rollout leaves, as tensors on the learner's device, and generalised advantage estimation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import BaseBuffer
from stable_baselines3.common.utils import explained_variance
from torch import Tensor

from recgym.arrays import to_numpy

__all__ = ["Batch", "TrialBuffer", "generalised_advantages"]


class Batch(NamedTuple):
    """Whole trials (or, without a Layout, whole sequences of a rollout) of T decisions."""

    observations: Tensor  # [b, T, D]
    actions: Tensor  # [b, T] or [b, T, k] int64
    starts: Tensor  # [b, T] bool
    values: Tensor  # [b, T] as estimated when acting
    log_probs: Tensor  # [b, T]
    advantages: Tensor  # [b, T]
    returns: Tensor  # [b, T]
    hidden: Tensor  # [b, T, K, n] labels of the auxiliary head; n is 0 without one
    truth: Tensor  # [b, T, K, 1] what an asymmetric critic is told; last axis 0 without one
    labels: Tensor  # [b, T, K] the expert's probabilities, or [b, T, k] its slate; last axis 0 without an expert


def generalised_advantages(
    rewards: Tensor,
    values: Tensor,
    starts: Tensor,
    last_values: Tensor,
    dones: Tensor,
    *,
    gamma: float,
    lam: float,
    present: Tensor | None = None,
) -> Tensor:
    """A_t = delta_t + gamma lambda A_{t+1}, delta_t = r_t + gamma V_{t+1} - V_t within a trial (Schulman et al. 2016).

    Where nothing is decided, no value is fitted and none is read: what comes in then belongs to the decision before,
    discounted over the time that passes, and lambda counts decisions (as in a semi-Markov process).

    Args:
        rewards: [T, B].
        values: [T, B].
        starts: [T, B] bool, decisions that begin a trial.
        last_values: [B] of the observation after the last decision.
        dones: [B] bool, whether the last decision ended a trial.
        gamma: discount.
        lam: lambda.
        present: [T, B] bool, where something is decided; None: everywhere. Elsewhere the advantage is 0.
    """
    advantages = torch.zeros_like(rewards)
    advantage = torch.zeros_like(last_values)  # of the next decision, as seen from the step after this one
    following = last_values  # V_{t+1}
    going = ~dones
    for t in reversed(range(len(rewards))):
        target = rewards[t] + gamma * following * going
        later = advantage * going
        advantage = target - values[t] + gamma * lam * later
        following = values[t]
        if present is None:
            advantages[t] = advantage
        else:
            advantages[t] = torch.where(present[t], advantage, 0.0)
            advantage = torch.where(present[t], advantage, gamma * later)
            following = torch.where(present[t], following, target)
        going = ~starts[t]
    return advantages


class TrialBuffer(BaseBuffer):
    """Decisions [T, B] of one rollout, handed out as whole trials.

    Args:
        buffer_size: decisions per environment T.
        observation_space: Box.
        action_space: Discrete or MultiDiscrete.
        device: of the learner; nothing leaves it.
        n_envs: B.
        gamma: discount.
        gae_lambda: lambda.
        labels: width of the expert's labels.
        hidden: shape (K, n) of the auxiliary head's.
        truth: shape (K, 1) of what an asymmetric critic is told.
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        device: Any = "auto",
        n_envs: int = 1,
        *,
        gamma: float = 1.0,
        gae_lambda: float = 0.95,
        labels: int = 0,
        hidden: tuple[int, int] = (0, 0),
        truth: tuple[int, int] = (0, 0),
    ) -> None:
        super().__init__(buffer_size, observation_space, action_space, device, n_envs)
        self.gamma, self.gae_lambda = gamma, gae_lambda
        size = buffer_size, n_envs

        def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(*size, *shape, dtype=dtype, device=self.device)

        self.observations = empty(*(observation_space.shape or ()))
        self.actions = empty(*(action_space.shape or ()), dtype=torch.int64)
        self.starts = empty(dtype=torch.bool)
        self.rewards = empty()
        self.values = empty()
        self.log_probs = empty()
        self.advantages = empty()
        slate = isinstance(action_space, spaces.MultiDiscrete)
        self.hidden, self.truth = empty(*hidden), empty(*truth)
        self.labels = empty(labels, dtype=torch.int64 if slate else torch.float32)

    def add(
        self,
        observation: Tensor,
        action: Tensor,
        reward: Tensor,
        start: Tensor,
        value: Tensor,
        log_prob: Tensor,
        label: Tensor | None = None,
        hidden: Tensor | None = None,
        truth: Tensor | None = None,
    ) -> None:
        """Keep one decision of every environment; tensors [B, ...]."""
        t = self.pos
        self.observations[t] = observation
        self.actions[t] = action
        self.rewards[t] = reward
        self.starts[t] = start
        self.values[t] = value
        self.log_probs[t] = log_prob
        if label is not None:
            self.labels[t] = label
        if hidden is not None:
            self.hidden[t] = hidden
        if truth is not None:
            self.truth[t] = truth
        self.pos += 1
        self.full = self.pos == self.buffer_size

    def compute_returns_and_advantage(self, last_values: Tensor, dones: Tensor, present: Tensor | None = None) -> None:
        """Estimate advantages (`generalised_advantages`), and with them returns."""
        self.advantages = generalised_advantages(
            self.rewards,
            self.values,
            self.starts,
            last_values,
            dones,
            gamma=self.gamma,
            lam=self.gae_lambda,
            present=present,
        )

    @property
    def returns(self) -> Tensor:
        """[T, B] what the values are fitted to (TD(lambda))."""
        return self.advantages + self.values

    def explained_variance(self, present: Tensor | None = None) -> float:
        """Share of the returns' variance that the values explain, where something is decided (None: everywhere)."""
        values, returns = to_numpy(self.values).flatten(), to_numpy(self.returns).flatten()
        if present is not None:
            rows = to_numpy(present).flatten()
            values, returns = values[rows], returns[rows]
        return float(explained_variance(values, returns))

    def trials(self, length: int) -> Batch:
        """Hand out everything, as B T / length rows of `length` decisions."""

        def rows(tensor: Tensor) -> Tensor:  # [T, B, ...] -> [B T / length, length, ...]
            return tensor.transpose(0, 1).reshape(self.n_envs * self.buffer_size // length, length, *tensor.shape[2:])

        return Batch(
            observations=rows(self.observations),
            actions=rows(self.actions),
            starts=rows(self.starts),
            values=rows(self.values),
            log_probs=rows(self.log_probs),
            advantages=rows(self.advantages),
            returns=rows(self.returns),
            hidden=rows(self.hidden),
            truth=rows(self.truth),
            labels=rows(self.labels),
        )

    def get(self, length: int, batch_size: int) -> Iterator[Batch]:
        """Hand out minibatches of `batch_size` rows of `length` decisions, in random order, each row once.

        The last one takes what is left over as well: none is smaller than the others, one may be almost twice as large.
        """
        whole = self.trials(length)
        order = torch.randperm(len(whole.actions), device=self.device)
        count = max(1, len(order) // batch_size)
        for i in range(count):
            end = None if i == count - 1 else (i + 1) * batch_size
            rows = order[i * batch_size : end]
            yield Batch(*(column[rows] for column in whole))

    def _get_samples(self, *_: Any, **__: Any) -> Any:  # SB3's other buffers sample transitions
        raise TypeError("a TrialBuffer hands out whole trials: use get()")
