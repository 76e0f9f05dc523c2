"""From a model to a file and back, for any class of algorithm: what a checkpoint says of model and environment."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

import recgym
from recgym.agents import archive, training_state
from recgym.agents.arguments import construct, plain_arguments, single_precision
from recgym.agents.environments import check_shown, identify, layout_of, make_env, scenario_of, spaces_of
from recgym.agents.training_state import check_tensors
from recgym.layout import Layout

__all__ = ["load_model", "plain_weights", "save_model"]

WRAPPERS = ("_orig_mod", "module")  # names of what torch.compile, DataParallel and DistributedDataParallel wrap


# --- writing ---------------------------------------------------------------------------------------------------------
def save_model(
    path: str | Path,
    model: Any,
    *,
    algo: str,
    arguments: Mapping[str, Any],
    env_id: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    training: bool = False,
    counters: Mapping[str, Any] | None = None,
) -> Path:
    """Write a model under the name `algo`; see `recgym.agents.save`."""
    header: dict[str, Any] = {
        "format": archive.FORMAT,
        "algo": algo,
        **_header_of_env(model, env_id, parameters, training=training),
        "arguments": plain_arguments(arguments),
        "versions": archive.versions(),
        "threads": torch.get_num_threads(),
        "num_timesteps": model.num_timesteps,
        "exploration_rate": getattr(model, "exploration_rate", None),  # with which DQN samples
        "counters": dict(counters or {}),
        "own": dict(model.training_counters()) if hasattr(model, "training_counters") else None,
        "training": None,
    }
    tensors = {f"policy.{name}": value for name, value in plain_weights(model.policy).items()}
    if training:
        arrays, header["training"] = training_state.capture(model)
        tensors |= arrays
    return archive.write_archive(path, header, tensors)


def plain_weights(policy: Any) -> dict[str, torch.Tensor]:
    """The weights of a policy under the names that a fresh one has: without those that wrappers put before them.

    `torch.compile`, `DataParallel` and their like keep what they wrap as a part of that name.
    """
    weights: dict[str, torch.Tensor] = {}
    for name, value in policy.state_dict().items():
        weights[".".join(part for part in name.split(".") if part not in WRAPPERS)] = value
    return weights


def _header_of_env(
    model: Any, env_id: str | None, parameters: Mapping[str, Any] | None, *, training: bool
) -> dict[str, Any]:
    """The header's env, layout and spaces, once the environment is known to be what they say."""
    if model.env is None:
        raise ValueError("the model has no environment that the file could describe: see its set_env")
    scenario = scenario_of(model.env)
    values = dict(parameters or {})
    normalised = model.get_vec_normalize_env()
    if normalised is not None and (training or normalised.norm_obs):
        what = "the model's VecNormalize keeps statistics that a checkpoint does not hold"
        if training or scenario is not None:
            raise ValueError(f"{what}: train without it")
        warnings.warn(f"{what}: save them with env.save(path)", stacklevel=4)
    if env_id is not None:
        expected = recgym.make_scenario(env_id, **values)
        if scenario is None or scenario != expected:
            raise ValueError(
                f"the model's environment is not {expected}: see recgym.sb3.make_vec_env, or name its parameters"
            )
    else:
        if values:
            raise ValueError(f"parameters {sorted(values)} without the id of the environment that has them")
        if scenario is not None:
            env_id, values = identify(scenario)
        if env_id is None and not getattr(model, "any_candidates", False):
            raise ValueError(
                f"the model's environment is not one of {', '.join(recgym.SCENARIOS)}: see recgym.sb3.make_vec_env"
            )
    layout = layout_of(model.env)
    return {
        "env": {"id": env_id, "parameters": values, "n_envs": model.n_envs},
        "layout": None if layout is None else layout.to_json(),
        "spaces": spaces_of(model.env) if env_id is None else None,
    }


# --- reading ---------------------------------------------------------------------------------------------------------
def load_model(
    path: str | Path,
    kind: type,
    header: Mapping[str, Any],
    tensors: Mapping[str, torch.Tensor],
    *,
    env: Any = None,
    device: str = "auto",
    resume: bool = False,
    **arguments: Any,
) -> Any:
    """A model of class `kind` from what `archive.read_archive` gave of the file `path`; see `recgym.agents.load`."""
    path = archive.find_archive(path)
    if resume and header["training"] is None:
        raise ValueError(f"{path}: holds weights only; resume from a checkpoint that training wrote")
    if resume and arguments:
        raise ValueError(
            f"{path}: a resumed run keeps its arguments; load it without resume to change {sorted(arguments)}"
        )
    if env is None:
        env = make_env(path, header["env"])
    elif not isinstance(env, VecEnv):
        env = BaseAlgorithm._wrap_env(env)
    theirs = None if header["layout"] is None else Layout.from_json(header["layout"])
    try:
        check_shown(env, theirs, header["spaces"], any_candidates=getattr(kind, "any_candidates", False))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    model = _construct(path, kind, header, env, device=device, resume=resume, arguments=arguments)
    weights = {n.removeprefix("policy."): t for n, t in tensors.items() if n.startswith("policy.")}
    try:
        check_tensors(model.policy.state_dict(), weights)
    except ValueError as error:
        raise ValueError(f"{path}: tensors do not fit the policy: {error}") from None
    model.policy.load_state_dict(weights)
    model.num_timesteps = header["num_timesteps"]
    if header["exploration_rate"] is not None:
        model.exploration_rate = header["exploration_rate"]
    if hasattr(model, "restore_counters"):
        try:
            own = header["own"]
            if own is None and not resume:  # of an earlier version: its decisions were those of the beginning
                own = {"rollouts": 0, "pretrained": header["num_timesteps"], "seed": None}
            model.restore_counters({**(own or {}), **({"seed": model.seed} if "seed" in arguments else {})})
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    if resume:
        try:
            training_state.restore(model, header["training"], tensors)
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            older = f" (the file is of format {header['format']}, when environments kept their state otherwise)"
            why = f"{error}{older if header['format'] < archive.FORMAT else ''}"
            raise ValueError(f"{path}: the training state does not fit: {why}; load it without resume") from None
    return model


def _construct(
    path: Path,
    kind: type,
    header: Mapping[str, Any],
    env: VecEnv,
    *,
    device: str,
    resume: bool,
    arguments: Mapping[str, Any],
) -> Any:
    """A fresh model from the header's arguments, of which `arguments` take the place of some."""
    with warnings.catch_warnings():
        if not resume:  # batch sizes that do not fit this number of environments matter to learning alone
            warnings.filterwarnings("ignore", message="You have specified a mini-batch size", category=UserWarning)
        try:
            # An agent that acts needs nothing that only learning does, which need not fit this environment.
            values = {**header["arguments"], **arguments, "_init_setup_model": resume}
            model = construct(kind, env, values, device=device, seed=values.pop("seed", None))
            if not resume:
                with single_precision():
                    model._setup_model()
        except Exception as error:  # SB3 checks little: what a wrong argument raises depends on how far it gets
            why = str(error) or type(error).__name__
            others = f" and {sorted(arguments)}" if arguments else ""
            raise ValueError(
                f"{path}: {header['algo']} cannot be built from the header's arguments{others}: {why}"
            ) from error
    return model
