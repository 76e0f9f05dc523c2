"""Small models of every algorithm, and their checkpoints, for tests."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import safetensors.torch
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv

from recgym.agents.algorithms import build
from recgym.agents.archive import _digest
from recgym.agents.checkpoint import save
from recgym.sb3 import make_vec_env
from recgym.scenarios.bandit import Bandit

SMALL: dict[str, dict[str, Any]] = {
    "ppo": {"policy": "MlpPolicy", "n_steps": 10, "batch_size": 40, "n_epochs": 2, "learning_rate": "lin_1e-3"},
    "a2c": {"policy": "MlpPolicy", "n_steps": 5, "policy_kwargs": {"net_arch": [16], "activation_fn": "ReLU"}},
    "dqn": {
        "policy": "MlpPolicy",
        "buffer_size": 400,
        "learning_starts": 40,
        "train_freq": 2,
        "target_update_interval": 50,
        "batch_size": 16,
    },
    "recurrent_ppo": {
        "policy": "MlpLstmPolicy",
        "n_steps": 10,
        "batch_size": 40,
        "n_epochs": 2,
        "policy_kwargs": {"lstm_hidden_size": 8, "net_arch": [8]},
    },
    "meta_ppo": {
        "policy": "TransformerPolicy",
        "n_epochs": 2,
        "learning_rate": "lin_1e-3",
        "policy_kwargs": {"width": 8, "layers": 1},
    },
}
PARAMETERS = {"arms": 4, "horizon": 15}  # rollouts of 10 steps end within trials
TOTAL = 640


def make(algo: str, *, seed: int | None = 0) -> Any:
    return build(algo, make_vec_env("RecBandit-v0", 4, 0, **PARAMETERS), SMALL[algo], device="cpu", seed=seed)


def write(path: Path, model: Any, algo: str = "ppo", *, training: bool = False) -> Path:
    described = {"algo": algo, "arguments": SMALL[algo], "env_id": "RecBandit-v0", "parameters": PARAMETERS}
    return save(path, model, training=training, counters={"saved": 1}, **described)


class SaveAt(BaseCallback):
    """Saves at the first rollout boundary from `timesteps` on."""

    def __init__(self, path: Path, algo: str, timesteps: int) -> None:
        super().__init__()
        self.path, self.algo, self.timesteps, self.saved = path, algo, timesteps, False

    def _on_rollout_start(self) -> None:
        if not self.saved and self.model.num_timesteps >= self.timesteps:
            write(self.path, self.model, self.algo, training=True)
            self.saved = True

    def _on_step(self) -> bool:
        return True


@dataclass(frozen=True)
class Unregistered(Bandit):
    """Of a user."""


def cart_pole(n_envs: int = 2) -> DummyVecEnv:
    return DummyVecEnv([lambda: gymnasium.make("CartPole-v1")] * n_envs)


def meta(env: Any, *, seed: int = 0, **arguments: Any) -> Any:
    return build("meta_ppo", env, {**SMALL["meta_ppo"], **arguments}, device="cpu", seed=seed)


def edited(content: bytes, edit: Callable[[dict[str, Any], dict[str, torch.Tensor]], None]) -> bytes:
    """A checkpoint with another header or tensors, and a digest that fits them."""
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["recgym"])
    tensors = safetensors.torch.load(content)
    header.pop("digest")
    edit(header, tensors)
    header["digest"] = _digest(tensors, header)
    return safetensors.torch.save(tensors, metadata={"recgym": json.dumps(header)})


def as_first_format(header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    """An edit that makes a file as the first version wrote it: fields without roles."""
    header["format"] = 1
    for block in ("context", "candidate"):
        header["layout"][block] = [field[:5] for field in header["layout"][block]]
