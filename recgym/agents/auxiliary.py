"""What is hidden of each candidate, as labels of an auxiliary head: it shapes what the network keeps of a trial.

Source: Jaderberg et al. 2017, Reinforcement learning with unsupervised auxiliary tasks, for heads that only shape.
Labels exist in a simulator alone, in training; acting reads neither them nor the head.
"""

from __future__ import annotations

from typing import Any

import torch
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from recgym.arrays import to_numpy
from recgym.sb3 import RecVecEnv

__all__ = ["check_labels", "check_truth", "hidden_labels", "simulator_of", "true_rewards"]


def simulator_of(env: VecEnv) -> tuple[Any, Any]:
    """Scenario and state that a RecVecEnv, wrapped or not, is in; the state is None before the first reset."""
    inner: Any = env.unwrapped
    return inner.scenario, inner.runner.state


def hidden_labels(env: VecEnv, device: Any) -> Tensor:
    """[B, K, n] those of a scenario's `targets` that have a number per candidate, of what the environments are in."""
    scenario, state = simulator_of(env)
    rows, count = env.num_envs, scenario.layout.candidates
    labels = [value for value in scenario.targets(state).values() if tuple(value.shape) == (rows, count)]
    if not labels:
        return torch.zeros(rows, count, 0, device=device)
    return torch.stack([as_labels(each, device) for each in labels], dim=-1)


def as_labels(array: Any, device: Any) -> Tensor:
    """A tensor of float32 on a device; what is there already is not copied."""
    return torch.as_tensor(array if isinstance(array, Tensor) else to_numpy(array), dtype=torch.float32, device=device)


def check_labels(env: VecEnv, wanted: int) -> None:
    """Refuse an environment that does not tell so many hidden numbers of each candidate.

    Raises:
        ValueError: says how many there are.
    """
    if not wanted:
        return
    if not isinstance(env.unwrapped, RecVecEnv):
        raise ValueError(f"auxiliary={wanted} needs labels from the simulator, which only a RecVecEnv gives")
    if env.unwrapped.runner.state is None:
        env.reset()
    found = hidden_labels(env, "cpu").shape[-1]
    if found != wanted:
        name = type(env.unwrapped.scenario).__name__
        raise ValueError(f"auxiliary={wanted}, but {name}.targets gives {found} numbers of each candidate: use {found}")


def true_rewards(env: VecEnv, device: Any) -> Tensor:
    """[B, K, 1] mean reward of each candidate, as `Scenario.candidate_rewards` knows it; 0 where it does not."""
    scenario, state = simulator_of(env)
    rewards = as_labels(scenario.candidate_rewards(state)[0], device)
    return torch.nan_to_num(rewards)[..., None]


def check_truth(env: VecEnv, *, asked: bool) -> None:
    """Refuse an environment whose simulator an asymmetric critic cannot ask.

    Raises:
        ValueError: says why.
    """
    if asked and not isinstance(env.unwrapped, RecVecEnv):
        raise ValueError("asymmetric_critic needs the simulator's truth, which only a RecVecEnv gives")
    if asked and not simulator_of(env)[0].solved:
        raise ValueError("asymmetric_critic: the simulator knows no mean rewards with these weights: leave it out")
