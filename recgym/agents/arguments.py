"""Arguments of algorithms as a file can carry them, and an algorithm from such arguments."""

from __future__ import annotations

import json
import math
import operator
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule, LinearSchedule
from stable_baselines3.common.vec_env import VecEnv

from recgym.agents.limits import OF_A_PLACE
from recgym.agents.options import SCHEDULES, MetaPPOOptions
from recgym.rng import check_gpu

__all__ = [
    "check_device",
    "construct",
    "json_values",
    "plain_arguments",
    "plain_schedule",
    "single_precision",
    "writable_options",
]

ACTIVATIONS = ("ReLU", "Tanh", "GELU", "SiLU")  # names that a file may give


def json_values(value: Any) -> Any:
    """NumPy's numbers and arrays as Python's, in mappings and sequences too, as JSON can carry them."""
    if isinstance(value, Mapping):
        return {key: json_values(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [json_values(part) for part in value]
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _schedule(name: str, value: Any) -> Any:
    """ "lin_X" is RL Zoo's way to write a value that falls linearly from X to 0."""
    if not (isinstance(value, str) and value.startswith("lin_")):
        return value
    try:
        start = float(value.removeprefix("lin_"))
    except ValueError:
        start = math.nan
    if not math.isfinite(start):
        raise ValueError(f"{name} = {value!r}: there must be a number after lin_")
    return LinearSchedule(start, 0.0, 1.0)


def plain_schedule(value: Any, *, name: str = "schedule") -> float | str | None:
    """A schedule as `build` takes it, and JSON can carry it; numbers, "lin_X" and None stay as they are.

    Args:
        value: a number, or a schedule of `stable_baselines3.common.utils`.
        name: of the argument, for the error.

    Raises:
        ValueError: JSON cannot carry it.
    """
    schedule = value.value_schedule if isinstance(value, FloatSchedule) else value
    if isinstance(schedule, LinearSchedule) and (schedule.end, schedule.end_fraction) == (0.0, 1.0):
        return f"lin_{float(schedule.start)!r}"
    constant = schedule.val if isinstance(schedule, ConstantSchedule) else schedule
    constant = constant.item() if isinstance(constant, np.number) else constant
    if constant is None or (isinstance(constant, int | float) and not isinstance(constant, bool)):
        return constant
    if isinstance(constant, str) and isinstance(_schedule(name, constant), LinearSchedule):
        return constant
    raise ValueError(
        f"{name} = {value!r} cannot be kept in a checkpoint: give a number, or 'lin_X' for a fall from X to 0 "
        "(as a schedule: LinearSchedule(X, 0, 1))"
    )


def writable_options(options: MetaPPOOptions) -> dict[str, Any]:
    """Options by name, schedules as `plain_schedule` gives them; of what it refuses the first value, with a warning."""
    values = {each.name: getattr(options, each.name) for each in fields(options)}
    for name in SCHEDULES:
        try:
            values[name] = plain_schedule(values[name], name=name)
        except ValueError as error:
            first = float(values[name](1.0))
            warnings.warn(f"{error}; the file keeps its first value {first:g}", stacklevel=4)
            values[name] = first
    return values


def plain_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Constructor arguments as JSON can carry them, schedules as `plain_schedule` takes them.

    Where logs go and on which device is learned is of the place, and left out.
    """
    values = {}
    for name, value in arguments.items():
        if name in OF_A_PLACE:
            continue
        schedule = callable(value) and not isinstance(value, type)
        values[name] = plain_schedule(value, name=name) if schedule else value
        try:
            json.dumps(values[name])
        except (TypeError, ValueError) as error:
            raise ValueError(f"argument {name!r} cannot be kept in a checkpoint: {error}") from None
    return values


def check_device(device: torch.device | str) -> None:
    """Refuse a GPU that is not here: Stable-Baselines3 would take the CPU and say nothing.

    Raises:
        ValueError: there is no such device, or torch does not find it here.
    """
    if device == "auto":
        return
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError):
        raise ValueError(f"device {device!r} is not known; use 'auto', 'cpu', 'cuda' or 'cuda:N'") from None
    check_gpu(found)


def construct(kind: type, env: VecEnv, arguments: Mapping[str, Any], *, device: str, seed: int | None) -> Any:
    """An algorithm of a class from plain values.

    Args:
        kind: an SB3 algorithm.
        env: what it learns in.
        arguments: of its constructor, as JSON or TOML can carry them: "lin_X" stands for a schedule that falls linearly
            from X to 0; `policy_kwargs.activation_fn` is a name.
        device: "auto", "cpu" or "cuda".
        seed: of the algorithm; None leaves the global generators as they are.

    Raises:
        ValueError: no policy is named, an unknown activation, "lin_" without a number, or a GPU that is not here.
    """
    check_device(device)
    if "policy" not in arguments:
        raise ValueError("the arguments name no policy")
    values = {key: _schedule(key, value) for key, value in arguments.items()}
    policy_kwargs = dict(values.pop("policy_kwargs", None) or {})
    if "activation_fn" in policy_kwargs:
        activation = policy_kwargs["activation_fn"]
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation_fn {activation!r} is not one of {', '.join(ACTIVATIONS)}")
        policy_kwargs["activation_fn"] = getattr(torch.nn, activation)
    seed = None if seed is None else operator.index(seed)  # SB3 takes no whole number of NumPy's
    with single_precision():
        return kind(values.pop("policy"), env, policy_kwargs=policy_kwargs, device=device, seed=seed, **values)


@contextmanager
def single_precision() -> Iterator[None]:
    """Make networks of float32, whatever torch's default is elsewhere in the process: observations are float32."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(default)
