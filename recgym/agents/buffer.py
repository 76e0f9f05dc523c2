"""What a rollout leaves, as tensors on the learner's device, and generalised advantage estimation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import BaseBuffer
from torch import Tensor

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
    labels: Tensor  # [b, T, K] the expert's probabilities, or [b, T, k] its slate; last axis 0 without an expert


def generalised_advantages(
    rewards: Tensor, values: Tensor, starts: Tensor, last_values: Tensor, dones: Tensor, *, gamma: float, lam: float
) -> Tensor:
    """A_t = delta_t + gamma lambda A_{t+1}, delta_t = r_t + gamma V_{t+1} - V_t within a trial (Schulman et al. 2016).

    Args:
        rewards: [T, B].
        values: [T, B].
        starts: [T, B] bool, decisions that begin a trial.
        last_values: [B] of the observation after the last decision.
        dones: [B] bool, whether the last decision ended a trial.
        gamma: discount.
        lam: lambda.
    """
    advantages = torch.zeros_like(rewards)
    advantage, following, going = torch.zeros_like(last_values), last_values, ~dones
    for t in reversed(range(len(rewards))):
        delta = rewards[t] + gamma * following * going - values[t]
        advantage = delta + gamma * lam * advantage * going
        advantages[t], following, going = advantage, values[t], ~starts[t]
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
    ) -> None:
        super().__init__(buffer_size, observation_space, action_space, device, n_envs)
        self.gamma, self.gae_lambda = gamma, gae_lambda
        size = (buffer_size, n_envs)

        def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(*size, *shape, dtype=dtype, device=self.device)

        self.observations = empty(*(observation_space.shape or ()))
        self.actions = empty(*(action_space.shape or ()), dtype=torch.int64)
        self.starts = empty(dtype=torch.bool)
        self.rewards, self.values, self.log_probs, self.advantages = empty(), empty(), empty(), empty()
        slate = isinstance(action_space, spaces.MultiDiscrete)
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
    ) -> None:
        """One decision of every environment; tensors [B, ...]."""
        t = self.pos
        self.observations[t], self.actions[t], self.rewards[t] = observation, action, reward
        self.starts[t], self.values[t], self.log_probs[t] = start, value, log_prob
        if label is not None:
            self.labels[t] = label
        self.pos += 1
        self.full = self.pos == self.buffer_size

    def compute_returns_and_advantage(self, last_values: Tensor, dones: Tensor) -> None:
        """See `generalised_advantages`; returns are advantages plus values."""
        self.advantages = generalised_advantages(
            self.rewards, self.values, self.starts, last_values, dones, gamma=self.gamma, lam=self.gae_lambda
        )

    @property
    def returns(self) -> Tensor:
        """[T, B] what the values are fitted to (TD(lambda))."""
        return self.advantages + self.values

    def trials(self, length: int) -> Batch:
        """Everything, as B T / length rows of `length` decisions."""

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
            labels=rows(self.labels),
        )

    def get(self, length: int, batch_size: int) -> Iterator[Batch]:
        """Minibatches of `batch_size` rows of `length` decisions, in random order, each row once.

        The last one takes what is left over as well: none is smaller than the others, one may be almost twice as large.
        """
        whole = self.trials(length)
        order = torch.randperm(len(whole.actions), device=self.device)
        count = max(1, len(order) // batch_size)
        for i in range(count):
            chosen = order[i * batch_size :] if i == count - 1 else order[i * batch_size : (i + 1) * batch_size]
            yield Batch(*(column[chosen] for column in whole))

    def _get_samples(self, *_: Any, **__: Any) -> Any:  # SB3's other buffers sample transitions
        raise TypeError("a TrialBuffer hands out whole trials: use get()")
