"""Small agents and environments that the tests of `recgym.agents` share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import (
    BaseCallback,
)
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import Tensor

from recgym.agents import losses
from recgym.agents.meta_ppo import MetaPPO
from recgym.agents.policy import TransformerPolicy
from recgym.layout import Layout
from recgym.sb3 import RecVecEnv, make_vec_env

POLICY: dict[str, Any] = {
    "width": 8,
    "heads": 2,
    "layers": 1,
    "candidate_memory": True,
    "memory_scales": (1.0, 0.9),
    "history_layers": 0,
    "context_length": 200,
    "init_policy": "uniform",
}
LEARNING: dict[str, Any] = {
    "learning_rate": 1e-3,
    "n_epochs": 1,
    "gamma": 1.0,
    "gae_lambda": 0.9,
    "clip_range": 0.2,
    "ent_coef": 0.0,
    "vf_coef": 0.5,
    "max_grad_norm": 0.5,
    "weight_decay": 0.0,
    "reward_scale": 1.0,
    "expert_coef": 0.0,
    "pretrain_learning_rate": 1e-2,
    "pretrain_mix": 0.3,
    "batch_decisions": None,
    "learn_from": "reward",
    "pretrain_epochs": 1.0,
    "seed": 0,
    "device": "cpu",
}
NETWORKS: dict[str, dict[str, Any]] = {
    "memory": {},
    "history": {"candidate_memory": False, "history_layers": 2},
    "both": {"history_layers": 1, "layers": 2},
}


def bandit(
    n_envs: int = 4, seed: int | None = 0, device: str = "cpu", tasks: Any = None, **parameters: Any
) -> RecVecEnv:
    return make_vec_env("RecBandit-v0", n_envs, seed, device, tasks=tasks, **{"arms": 3, "horizon": 5, **parameters})


def contextual(n_envs: int = 4, **parameters: Any) -> RecVecEnv:
    return make_vec_env("RecBanditContextual-v0", n_envs, 0, **{"arms": 3, "horizon": 5, "features": 2, **parameters})


def singles(n_envs: int = 1, id: str = "RecBandit-v0", **parameters: Any) -> DummyVecEnv:
    parameters = parameters or ({"arms": 3, "horizon": 5} if id == "RecBandit-v0" else {})
    return DummyVecEnv([lambda: Monitor(gymnasium.make(id, **parameters))] * n_envs)


def cart_pole(n_envs: int = 2) -> DummyVecEnv:
    return singles(n_envs, "CartPole-v1")


def meta(env: Any, policy: Mapping[str, Any] | None = None, **arguments: Any) -> MetaPPO:
    chosen = {**LEARNING, **({} if env.has_attr("layout") else {"n_steps": 16}), **arguments}
    return MetaPPO("TransformerPolicy", env, policy_kwargs={**POLICY, **(policy or {})}, **chosen)


def shaken(model: MetaPPO, scale: float = 0.5) -> MetaPPO:
    """The model with weights that make everything matter."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.policy.parameters():
            weight += scale * torch.randn(weight.shape, generator=generator)
    return model


def weights(model: Any) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.policy.state_dict().items()}


def same(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> bool:
    assert left.keys() == right.keys()
    return all(torch.equal(left[name], right[name]) for name in left)


def played(env: Any, steps: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Observations [B, T, D] under random actions, and where trials start [B, T]."""
    env.action_space.seed(seed)
    observation, dones = env.reset(), np.ones(env.num_envs, dtype=bool)
    observations, starts = [], []
    for _ in range(steps):
        observations.append(observation)
        starts.append(dones)
        observation, _, dones, _ = env.step(np.array([env.action_space.sample() for _ in range(env.num_envs)]))
    return torch.tensor(np.stack(observations, axis=1)), torch.tensor(np.stack(starts, axis=1))


def stepped(policy: TransformerPolicy, observations: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [B, T, K] and values [B, T] of acting step by step."""
    memory = None
    decisions = []
    with torch.no_grad():
        for t in range(observations.shape[1]):
            distribution, values, memory = policy.step(observations[:, t], memory, starts[:, t])
            decisions.append((distribution.logits, values))
    logits, values = zip(*decisions, strict=True)
    return torch.stack(logits, dim=1), torch.stack(values, dim=1)


class Log(BaseCallback):
    """What each update logged, and what each rollout left in the buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.updates: list[dict[str, Any]] = []
        self.starts: list[Tensor] = []

    def _on_rollout_start(self) -> None:
        self._on_training_end()

    def _on_rollout_end(self) -> None:
        self.starts.append(self.locals["rollout_buffer"].starts.clone())

    def _on_training_end(self) -> None:
        logged = dict(self.logger.name_to_value)
        if any(name.startswith(("train/", "imitation/")) for name in logged):
            self.updates.append(logged)
            self.logger.name_to_value.clear()

    def _on_step(self) -> bool:
        return True

    def __getitem__(self, name: str) -> list[float]:
        return [logged[name] for logged in self.updates if name in logged]


class StopAt(BaseCallback):
    """Stops the rollout, or breaks it off, at one call."""

    def __init__(self, call: int, error: BaseException | None = None) -> None:
        super().__init__()
        self.call, self.error = call, error

    def _on_step(self) -> bool:
        if self.n_calls == self.call and self.error is not None:
            raise self.error
        return self.n_calls != self.call


class Answer(gymnasium.Env):
    """Lasts `length` steps; each earns 1 where the action is the one that a fixed sequence asks for."""

    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = spaces.Discrete(3)

    def __init__(self, length: int, *, truncated: bool = False, always: bool = False) -> None:
        self.length, self.truncated, self.always = length, truncated, always

    def _observation(self) -> np.ndarray:
        return np.array([math.sin(5.0 * self.time + self.length), math.cos(3.0 * self.time)], dtype=np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        self.time = 0
        return self._observation(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        right = self.always or int(action) == (self.time * 7 + self.length) % 3
        self.time += 1
        over = self.time == self.length
        return self._observation(), float(right), over and not self.truncated, over and self.truncated, {}


def log_ratios(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Collect log r of every minibatch that is learned from after this."""
    collected: list[Tensor] = []
    policy_loss = losses.policy_loss

    def spy(*arguments: Any) -> tuple[Tensor, Tensor]:
        loss, log_ratio = policy_loss(*arguments)
        collected.append(log_ratio.detach())
        return loss, log_ratio

    monkeypatch.setattr(losses, "policy_loss", spy)
    return collected


def permuted(layout: Layout, observations: Tensor, order: list[int]) -> Tensor:
    context, candidates = layout.split(observations)
    return torch.cat([context, candidates[..., order, :].flatten(-2)], dim=-1)


def slates(env: Any, steps: int) -> tuple[Tensor, Tensor]:
    """As `played`, with distinct items."""
    generator = np.random.default_rng(0)
    env.seed(0)
    env.action_space.sample = lambda: generator.permutation(5)[:2]
    return played(env, steps)


class Spaces(gymnasium.Env):
    """Of any spaces."""

    def __init__(self, observation: spaces.Space, action: spaces.Space) -> None:
        self.observation_space, self.action_space = observation, action

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.observation_space.sample(), 0.0, False, False, {}


BOX = spaces.Box(-1.0, 1.0, (3,), np.float32)
