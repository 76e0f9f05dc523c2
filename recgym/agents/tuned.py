"""Tuned values of the algorithms: the recipe of a trained agent where there is one, else a table of the package."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from recgym.agents.pretrained import agent_file, agent_ids

__all__ = ["tuned_values"]

TABLES = Path(__file__).with_name("tuned.toml")
RECIPE = "recipe.toml"  # beside the weights of a trained agent
RECIPE_ALGORITHM = "meta_ppo"  # which all trained agents are


def tuned_values(algo: str, env: str) -> dict[str, Any]:
    """Read the tuned values of an algorithm for an environment.

    Args:
        algo: a key of `recgym.agents.algorithms.ALGORITHMS`.
        env: an id; anything else, and an id for which nothing was tuned, has the defaults.

    Returns:
        `n_timesteps` and `n_envs` of the run, the other values are arguments of the algorithm.
    """
    if algo == RECIPE_ALGORITHM and env in agent_ids():
        recipe: dict[str, Any] = tomllib.loads(agent_file(env).with_name(RECIPE).read_text(encoding="utf-8"))
        return recipe
    tables = tomllib.loads(TABLES.read_text(encoding="utf-8"))[algo]
    return {**tables["default"], **tables.get(env, {})}
