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
NETWORK = "policy_kwargs"
OF_AN_EXPERT = ("auxiliary",)  # of the network: what a recipe trains by the simulator's labels


def tuned_values(algo: str, env: str, *, expert: bool = True) -> dict[str, Any]:
    """Read the tuned values of an algorithm for an environment.

    Args:
        algo: a key of `recgym.agents.algorithms.ALGORITHMS`.
        env: an id; anything else, and an id for which nothing was tuned, has the defaults.
        expert: whether an expert may be imitated and the simulator asked; if not, the defaults, which learn from the
            reward alone, with the recipe's network.

    Returns:
        `n_timesteps` and `n_envs` of the run, the other values are arguments of the algorithm.
    """
    tables = tomllib.loads(TABLES.read_text(encoding="utf-8"))[algo]
    if algo == RECIPE_ALGORITHM and env in agent_ids():
        recipe: dict[str, Any] = tomllib.loads(agent_file(env).with_name(RECIPE).read_text(encoding="utf-8"))
        if expert:
            return recipe
        network = {name: value for name, value in recipe.get(NETWORK, {}).items() if name not in OF_AN_EXPERT}
        return {**tables["default"], NETWORK: network}
    return {**tables["default"], **tables.get(env, {})}
