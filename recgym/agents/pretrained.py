"""The trained agents that ship with the package: one folder each, weights and card."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import recgym
from recgym.agents.checkpoint import load
from recgym.sb3 import RecVecEnv

__all__ = ["agent_file", "agent_files", "agent_ids", "load_pretrained"]

WEIGHTS = "agent.safetensors"
PACKAGED = Path(__file__).with_name("pretrained")  # in a wheel
CHECKOUT = Path(__file__).parents[2] / "agents"  # beside the package, in a checkout


def _folder() -> Path:
    """Where the agents lie: in the installed package, or in the checkout that it is installed from."""
    return PACKAGED if PACKAGED.is_dir() else CHECKOUT


def agent_files() -> dict[str, Path]:
    """Weights by name: an environment's id for the agent that ships for it, "folder/file" for the other agents."""
    paths = sorted(_folder().glob("*/*.safetensors"), key=lambda path: (path.name != WEIGHTS, path))
    return {path.parent.name if path.name == WEIGHTS else f"{path.parent.name}/{path.stem}": path for path in paths}


def agent_ids() -> list[str]:
    """Ids of the environments for which an agent ships."""
    return [name for name in agent_files() if "/" not in name]


def agent_file(name: str) -> Path:
    """Path of the weights that ship under a name of `agent_files`.

    Raises:
        ValueError: none do (names the nearest, and all).
    """
    files = agent_files()
    if name not in files:
        near = difflib.get_close_matches(name, files, 1, 0.5)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ValueError(f"no trained agent ships as {name!r}; {hint}there are: {', '.join(files) or 'none'}")
    return files[name]


def load_pretrained(name: str, *, env: Any = None, device: str = "auto", **parameters: Any) -> Any:
    """Load a trained agent that ships; see `recgym.agents.load`.

    Args:
        name: the id of the environment that it ships for, or another name of `agent_files`.
        env: what to act in; None makes it.
        device: "auto", "cpu" or "cuda".
        parameters: of the environment that is made: another number of candidates, another horizon.

    Raises:
        ValueError: no agent ships as that (names those that do), or parameters come with an environment or without
            an id.
    """
    path = agent_file(name)
    if parameters:
        if env is not None:
            raise ValueError(
                f"parameters {sorted(parameters)} are of an environment to be made: give them or env, not both"
            )
        env = RecVecEnv(recgym.make_scenario(name, **parameters), 1)
    return load(path, env=env, device=device)
