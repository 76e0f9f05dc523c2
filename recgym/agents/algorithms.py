"""The algorithms that recgym trains: Stable-Baselines3's and its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stable_baselines3.common.vec_env import VecEnv

from recgym.agents.arguments import construct
from recgym.parameters import class_of, stands_for

__all__ = ["ALGORITHMS", "algorithm", "build", "name_of"]

ALGORITHMS = {  # the classes that a file may name
    "ppo": "stable_baselines3:PPO",
    "a2c": "stable_baselines3:A2C",
    "dqn": "stable_baselines3:DQN",
    "recurrent_ppo": "sb3_contrib:RecurrentPPO",
    "meta_ppo": "recgym.agents.meta_ppo:MetaPPO",
}


def algorithm(algo: str) -> Any:
    """The class of a key of `ALGORITHMS`.

    Raises:
        ValueError: there is no such key.
    """
    if algo not in ALGORITHMS:
        raise ValueError(f"no algorithm {algo!r}; there are {', '.join(ALGORITHMS)}")
    return class_of(ALGORITHMS[algo])


def name_of(model: Any) -> str | None:
    """The key of `ALGORITHMS` that has exactly the model's class; None where none has."""
    return next((key for key in ALGORITHMS if stands_for(ALGORITHMS[key], type(model))), None)


def build(
    algo: str, env: VecEnv, arguments: Mapping[str, Any], *, device: str = "auto", seed: int | None = None
) -> Any:
    """Build an algorithm from plain values.

    Args:
        algo: a key of `ALGORITHMS`.
        env: what it learns in.
        arguments: of its constructor, as JSON or TOML can carry them; see `recgym.agents.arguments.construct`.
        device: "auto", "cpu" or "cuda".
        seed: of the algorithm; None leaves the global generators as they are.

    Raises:
        ValueError: unknown algorithm, policy or activation, or "lin_" without a number.
    """
    return construct(algorithm(algo), env, arguments, device=device, seed=seed)
