"""What an environment shows an agent, the id that names it, and whether two of them show the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecNormalize, unwrap_vec_wrapper

import recgym
from recgym.catalog import is_digest, known_catalog
from recgym.layout import Layout
from recgym.parameters import stands_for
from recgym.sb3 import RecVecEnv

__all__ = [
    "CATALOG",
    "attribute_of",
    "check_raw",
    "check_shown",
    "horizon_of",
    "identify",
    "know_catalog",
    "layout_of",
    "make_env",
    "scenario_of",
    "spaces_of",
]


CATALOG = "catalog.safetensors"  # beside a checkpoint: the items of its environment, where it has a catalog


def know_catalog(checkpoint: Path, parameters: Mapping[str, Any]) -> None:
    """Read the catalog that parameters name by its digest from beside a checkpoint, where it lies there.

    Raises:
        ValueError: the file is damaged.
    """
    beside = checkpoint.with_name(CATALOG)
    if is_digest(parameters.get("catalog")) and beside.is_file():
        known_catalog(beside)


def identify(scenario: Any) -> tuple[str | None, dict[str, Any]]:
    """The registered environment that a scenario is: the id that it differs least from, and the parameters that differ.

    `recgym.make_scenario(id, **parameters)` gives an equal scenario. Where none does, because no id has this class or
    JSON cannot carry a parameter, this is (None, {}).
    """
    candidates = []
    for env_id in (key for key, preset in recgym.SCENARIOS.items() if stands_for(preset.scenario, type(scenario))):
        values = {field.name: getattr(scenario, field.name) for field in fields(scenario)}
        preset = recgym.make_scenario(env_id)
        differ = {name: value for name, value in values.items() if value != getattr(preset, name)}
        try:
            parameters = json.loads(json.dumps(differ, default=np.generic.item))
            same = recgym.make_scenario(env_id, **parameters) == scenario
        except (TypeError, ValueError):
            same = False
        if same:
            candidates.append((env_id, parameters))
    return min(candidates, key=lambda named: len(named[1]), default=(None, {}))


def scenario_of(env: VecEnv) -> Any:
    """Of a `RecVecEnv`; None where a wrapper changes what the policy sees or does, or for any other environment."""
    inner = env.unwrapped
    same = (env.observation_space, env.action_space) == (inner.observation_space, inner.action_space)
    return inner.scenario if isinstance(inner, RecVecEnv) and same else None


def layout_of(env: VecEnv) -> Layout | None:
    """Of what the policy sees, where the environment has one; a wrapper may show something else than it describes.

    Raises:
        ValueError: the rows of the environment have different ones.
    """
    layouts = env.get_attr("layout") if env.has_attr("layout") else [None]
    layout = layouts[0]
    if not isinstance(layout, Layout) or env.observation_space.shape != (layout.sizes[2],):
        return None
    for row, other in enumerate(layouts):
        if not isinstance(other, Layout) or list(_widths(other).items()) != list(_widths(layout).items()):
            raise ValueError(f"environment {row} has another layout than environment 0")
    return layout


def attribute_of(env: VecEnv, name: str) -> Any:
    """Of the first row; None where it has no such attribute: asked for what it lacks, a subprocess would die."""
    return env.get_attr(name)[0] if env.has_attr(name) else None


def horizon_of(env: VecEnv, layout: Layout | None) -> int | None:
    """Decisions of a trial; None without a Layout.

    Raises:
        ValueError: there is a Layout, and the environment does not tell.
    """
    if layout is None:
        return None
    horizon = getattr(attribute_of(env, "scenario"), "horizon", None) or attribute_of(env, "horizon")
    if horizon is None:
        raise ValueError("an environment with a Layout must have an attribute `horizon`: the decisions of a trial")
    return int(horizon)


def check_raw(env: VecEnv) -> None:
    """Refuse a wrapper that changes observations whose fields are read by their layout.

    Raises:
        ValueError: says which, and what to do instead.
    """
    layout = attribute_of(env, "layout")
    if not isinstance(layout, Layout):
        return
    shape, named = env.observation_space.shape, layout.sizes[2]
    if shape != (named,):
        wrapper = type(env).__name__ if isinstance(env, VecEnvWrapper) else "a wrapper"
        raise ValueError(
            f"{wrapper} shows observations of shape {shape}, and the environment's layout names {named} numbers: "
            "MetaPPO reads the fields of the layout and remembers the trial itself, so leave the wrapper out"
        )
    normalised = unwrap_vec_wrapper(env, VecNormalize)
    if normalised is not None and normalised.norm_obs:
        raise ValueError(
            "VecNormalize changes the rewards and candidates that MetaPPO reads in the observation: "
            "use VecNormalize(norm_obs=False), or reward_scale"
        )


def spaces_of(env: VecEnv) -> dict[str, list[int]]:
    """Sizes of observations and actions."""
    space = env.action_space
    if isinstance(space, gymnasium.spaces.Discrete):
        action = [int(space.n)]
    else:
        action = np.ravel(getattr(space, "nvec", ())).tolist()
    return {"observation": list(env.observation_space.shape or ()), "action": action}


def make_env(path: Path, named: Mapping[str, Any]) -> RecVecEnv:
    """Make the environment that a file names by id, parameters and n_envs.

    Raises:
        ValueError: it names none, or one that cannot be made.
    """
    if named["id"] is None:
        advice = "so pass one: load(..., env=recgym.sb3.make_vec_env(...))"
        raise ValueError(f"{path}: was trained in an environment that is not registered, {advice}")
    try:
        know_catalog(path, named["parameters"])
        return RecVecEnv(recgym.make_scenario(named["id"], **named["parameters"]), named["n_envs"])
    except (ArithmeticError, LookupError, MemoryError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: its environment cannot be made: {error}") from error


def check_shown(env: VecEnv, theirs: Layout | None, spaces: Any, *, any_candidates: bool) -> None:
    """Refuse an environment that shows other things than the one of training.

    Args:
        env: the one to act in.
        theirs: layout in training.
        spaces: in training, see `spaces_of`; looked at where there is no layout.
        any_candidates: whether their number may differ.

    Raises:
        ValueError: names what differs.
    """
    ours = layout_of(env)
    if theirs is None and ours is None:
        sizes = spaces_of(env).items()
        differ = [f"{name} ({spaces[name]} there, {size} here)" for name, size in sizes]
        differ = differ if spaces != dict(sizes) else []
    elif theirs is None or ours is None:
        names = ["no named fields" if layout is None else ", ".join(_widths(layout)) for layout in (theirs, ours)]
        differ = [f"{names[0]} there, {names[1]} here"]
    else:
        there, here = _widths(theirs), _widths(ours)
        if not any_candidates:
            there["candidates"], here["candidates"] = theirs.candidates, ours.candidates
        names = sorted({name for name, _ in there.items() ^ here.items()})
        differ = [f"{name} ({there.get(name, 0)} there, {here.get(name, 0)} here)" for name in names]
        if not differ and list(there) != list(here):
            differ = [f"the order {', '.join(there)} there, {', '.join(here)} here"]
        if not differ:
            pairs = zip(theirs, ours, strict=True)
            differ = [
                f"{field.name} ({field.role} there, {other.role} here)"
                for field, other in pairs
                if field.role != other.role
            ]
    if differ:
        raise ValueError(f"trained on other observations or actions than here: {', '.join(differ)}")


def _widths(layout: Layout) -> dict[str, int]:
    """Names and widths in order: what must agree between training and use. Bounds may differ, with the horizon."""
    return {field.name: field.width for field in layout}
