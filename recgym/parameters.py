"""Parameters of scenarios: what they may be, and a scenario from them."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping
from dataclasses import fields
from importlib import import_module
from typing import Any

import numpy as np

__all__ = ["check_number", "check_range", "make_scenario", "numbers"]


def make_scenario(scenario: str | Any, parameters: Mapping[str, Any]) -> Any:
    """A scenario from its `module:Name` (or an object as it is, when there are no parameters).

    Raises:
        ValueError: a parameter is unknown (the nearest is named) or out of range.
    """
    if not isinstance(scenario, str):
        if parameters:
            raise ValueError(f"parameters {sorted(parameters)} come with a scenario's name, not with a built scenario")
        return scenario
    module, _, name = scenario.partition(":")
    kind = getattr(import_module(module), name)
    known = [field.name for field in fields(kind)]
    for parameter in parameters:
        if parameter not in known:
            near = difflib.get_close_matches(parameter, known, 1, 0.5)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(f"{name} has no parameter {parameter!r}; {hint}its parameters are {', '.join(known)}")
    return kind(**parameters)


def stands_for(name: str, kind: type) -> bool:
    """Whether "module:Name" stands for exactly this class; a module never imported cannot have made it."""
    module, _, attribute = name.partition(":")
    return getattr(sys.modules.get(module), attribute, None) is kind


def check_number(owner: Any, name: str, low: float, high: float, *, whole: bool = False) -> None:
    """Refuse a parameter of `owner` that is not a finite (or whole) number in [low, high]; keep it as Python's.

    A float64 of NumPy would turn all that it meets into float64.
    """
    value = getattr(owner, name)
    kind = "a whole number" if whole else "a number"
    right = isinstance(value, int | np.integer) if whole else isinstance(value, int | float | np.integer | np.floating)
    if not right or isinstance(value, bool) or not low <= value <= high:  # NaN fails the comparison
        raise ValueError(f"{type(owner).__name__}: {name} must be {kind} in [{low}, {high}], got {value!r}")
    if isinstance(value, np.generic):
        object.__setattr__(owner, name, value.item())


def numbers(values: Any) -> np.ndarray:
    """`values` as float64; empty where they are not an array of numbers."""
    try:
        array = np.asarray(values)
    except (TypeError, ValueError):
        return np.empty(0)
    return array.astype(np.float64) if array.dtype.kind in "iuf" else np.empty(0)


def check_range(owner: Any, name: str, low: float, high: float) -> None:
    """Refuse a parameter of `owner` that is not a pair of numbers, in order and in [low, high]; keep it as a tuple."""
    pair = numbers(getattr(owner, name))
    if pair.shape != (2,) or not low <= pair[0] <= pair[1] <= high:
        wanted = f"two numbers [least, most] in [{low}, {high:g}]"
        raise ValueError(f"{type(owner).__name__}: {name} must be {wanted}, got {getattr(owner, name)!r}")
    object.__setattr__(owner, name, tuple(pair.tolist()))
