"""Arguments of algorithms as a file can carry them, and an algorithm from such arguments."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule, LinearSchedule
from stable_baselines3.common.vec_env import VecEnv

__all__ = ["RANGES", "check_numbers", "construct", "json_values", "plain_arguments", "plain_schedule"]

ACTIVATIONS = ("ReLU", "Tanh", "GELU", "SiLU")


POSITIVE, ANY = 1e-12, float("inf")


RANGES: dict[str, tuple[float, float, bool]] = {  # least and greatest number, and whether it must be whole
    **dict.fromkeys(("n_steps", "batch_size", "n_epochs", "batch_decisions"), (1, ANY, True)),
    **dict.fromkeys(("width", "heads", "layers", "context_length"), (1, ANY, True)),
    **dict.fromkeys(("pretrain_steps", "history_layers"), (0, ANY, True)),
    **dict.fromkeys(("gamma", "gae_lambda", "pretrain_mix"), (0.0, 1.0, False)),
    **dict.fromkeys(("ent_coef", "vf_coef", "weight_decay", "expert_coef"), (0.0, ANY, False)),
    **dict.fromkeys(("max_grad_norm", "target_kl", "reward_scale", "temperature"), (POSITIVE, ANY, False)),
    **dict.fromkeys(("pretrain_learning_rate", "pretrain_epochs"), (POSITIVE, ANY, False)),
}


OPTIONAL = ("n_steps", "batch_size", "batch_decisions", "target_kl")  # None is a value of theirs


def check_numbers(values: Mapping[str, Any]) -> None:
    """Refuse what is outside `RANGES`; names that are not there are passed over.

    Raises:
        ValueError: says which, and what it may be.
    """
    for name, given in values.items():
        if name not in RANGES or (given is None and name in OPTIONAL):
            continue
        (low, high, whole), value = RANGES[name], json_values(given)
        number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        if not (number and low <= value <= high):
            least = "above 0" if low == POSITIVE else f"of at least {low:g}"
            most = f" and at most {high:g}" if high < ANY else ""
            raise ValueError(f"{name} must be a {'whole ' if whole else ''}number {least}{most}, got {given!r}")


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
    kept = value.value_schedule if isinstance(value, FloatSchedule) else value
    if isinstance(kept, LinearSchedule) and (kept.end, kept.end_fraction) == (0.0, 1.0):
        return f"lin_{float(kept.start)!r}"
    kept = kept.val if isinstance(kept, ConstantSchedule) else kept
    kept = kept.item() if isinstance(kept, np.number) else kept
    if kept is None or (isinstance(kept, int | float) and not isinstance(kept, bool)):
        return kept
    if isinstance(kept, str) and isinstance(_schedule(name, kept), LinearSchedule):
        return kept
    raise ValueError(
        f"{name} = {value!r} cannot be kept in a checkpoint: give a number, or 'lin_X' for a fall from X to 0 "
        "(as a schedule: LinearSchedule(X, 0, 1))"
    )


def plain_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Constructor arguments as JSON can carry them, schedules as `plain_schedule` takes them."""
    kept = {}
    for name, value in arguments.items():
        schedule = callable(value) and not isinstance(value, type)
        kept[name] = plain_schedule(value, name=name) if schedule else value
        try:
            json.dumps(kept[name])
        except (TypeError, ValueError) as error:
            raise ValueError(f"argument {name!r} cannot be kept in a checkpoint: {error}") from None
    return kept


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
        ValueError: no policy is named, an unknown activation, or "lin_" without a number.
    """
    if "policy" not in arguments:
        raise ValueError("the arguments name no policy")
    values = {key: _schedule(key, value) for key, value in arguments.items()}
    policy_kwargs = dict(values.pop("policy_kwargs", None) or {})
    if "activation_fn" in policy_kwargs:
        activation = policy_kwargs["activation_fn"]
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation_fn {activation!r} is not one of {', '.join(ACTIVATIONS)}")
        policy_kwargs["activation_fn"] = getattr(torch.nn, activation)
    return kind(values.pop("policy"), env, policy_kwargs=policy_kwargs, device=device, seed=seed, **values)
