"""The trained agents that ship with the package: one folder each, weights and card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import recgym
from recgym.agents.checkpoint import load
from recgym.sb3 import RecVecEnv

__all__ = ["agent_file", "agent_ids", "load_pretrained"]

WEIGHTS = "agent.safetensors"
PACKAGED = Path(__file__).with_name("pretrained")  # in a wheel
CHECKOUT = Path(__file__).parents[2] / "agents"  # beside the package, in a checkout


def _folder() -> Path:
    """Where the agents lie: in the installed package, or in the checkout that it is installed from."""
    return PACKAGED if PACKAGED.is_dir() else CHECKOUT


def agent_ids() -> list[str]:
    """Ids of the environments for which an agent ships."""
    return sorted(path.parent.name for path in _folder().glob(f"*/{WEIGHTS}"))


def agent_file(env_id: str) -> Path:
    """Path of the weights that ship for an environment.

    Raises:
        ValueError: none ships for it (names those that do).
    """
    if env_id not in agent_ids():
        raise ValueError(f"no trained agent ships for {env_id!r}; there are: {', '.join(agent_ids()) or 'none'}")
    return _folder() / env_id / WEIGHTS


def load_pretrained(env_id: str, *, env: Any = None, device: str = "auto", **parameters: Any) -> Any:
    """Load the trained agent that ships for an environment; see `recgym.agents.load`.

    Args:
        env_id: a key of `recgym.SCENARIOS`.
        env: what to act in; None makes it.
        device: "auto", "cpu" or "cuda".
        parameters: of the environment that is made: another number of candidates, another horizon.

    Raises:
        ValueError: none ships for it (names those that do), or parameters come with an environment.
    """
    path = agent_file(env_id)
    if parameters:
        if env is not None:
            raise ValueError(
                f"parameters {sorted(parameters)} are of an environment to be made: give them or env, not both"
            )
        env = RecVecEnv(recgym.make_scenario(env_id, **parameters), 1)
    return load(path, env=env, device=device)
