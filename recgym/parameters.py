"""Parameters: what each may be and what it does stands with its default, and is checked and printed from there."""

from __future__ import annotations

import difflib
import math
import sys
import textwrap
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, field, fields, is_dataclass
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

__all__ = [
    "INFINITE",
    "Param",
    "UnknownParameter",
    "arguments_section",
    "check_parameters",
    "class_of",
    "instantiate",
    "numbers",
    "param",
    "parameter_lines",
    "parameter_names",
    "parameters_of",
    "refuse",
    "stands_for",
]

INFINITE = math.inf


class UnknownParameter(TypeError, ValueError):
    """A keyword that nothing takes: as Python's own error for one, and as any other bad value here.

    Programs that probe for keywords (torchrl, for one) look for the TypeError and its words.
    """


class Param(NamedTuple):
    """What is known of a parameter beside its name and default."""

    kind: str  # "number", "whole" (number), "flag", "range" ([least, most]), or "other", which code checks
    low: float
    high: float
    unit: str
    effect: str
    optional: bool  # whether None is a value
    above: bool  # whether `low` itself is too low

    @property
    def wanted(self) -> str:
        """What a value must be, for errors."""
        if self.kind == "flag":
            return "true or false"
        if self.high < INFINITE:
            within = f"in [{self.low}, {self.high:g}]" if self.kind == "range" else f"in [{self.low}, {self.high}]"
        else:
            within = f"above {self.low:g}" if self.above else f"of at least {self.low:g}"
        noun = {"number": "a number", "whole": "a whole number", "range": "two numbers [least, most]"}[self.kind]
        return f"{noun} {within}" + (", or None" if self.optional else "")

    @property
    def span(self) -> str:
        """Unit and range, for documentation."""
        span = ""
        if self.kind in ("number", "whole", "range"):
            most = f" to {self.high:,g}" if self.high < INFINITE else " or more"
            span = f"{'above ' if self.above else ''}{self.low:,g}{most}"
        shape = {"range": "[least, most]", "flag": "true or false"}.get(self.kind, "")
        return ", ".join(filter(None, (shape, self.unit, span, "or None" if self.optional else "")))


def param(
    default: Any,
    low: float = 0.0,
    high: float = INFINITE,
    unit: str = "",
    effect: str = "",
    *,
    kind: str | None = None,
    optional: bool = False,
    above: bool = False,
) -> Any:
    """A dataclass field that says what its values may be and what they do.

    Args:
        default: of the field.
        low: least value.
        high: greatest value.
        unit: of the value; of a parameter that is no number what it is made of.
        effect: what it does, as documentation and `--help` print it.
        kind: of `Param`; None takes it from the default: a bool is a flag, an int whole, a pair of numbers a range.
        optional: whether None is a value.
        above: whether the least value itself is too low.
    """
    if kind is None:
        pair = isinstance(default, tuple) and len(default) == 2 and all(isinstance(part, float) for part in default)
        plain = {bool: "flag", int: "whole", float: "number"}
        kind = plain.get(type(default), "range" if pair else "other")
    return field(default=default, metadata={"param": Param(kind, low, high, unit, effect, optional, above)})


def parameters_of(kind: Any) -> Iterator[tuple[Field[Any], Param | None]]:
    """The fields of a dataclass, with what is known of each."""
    for each in fields(kind):
        yield each, each.metadata.get("param")


def parameter_lines(kind: Any) -> list[str]:
    """What each parameter is, its default, unit and range, and what it does: a line each, for people."""
    lines = []
    for each, known in parameters_of(kind):
        default = "" if each.default is MISSING else f"={each.default!r}"
        span = f" ({known.span})" if known is not None and known.span else ""
        lines.append(f"{each.name}{default}{span}" + (f": {known.effect}" if known is not None else ""))
    return lines


def arguments_section(kind: type) -> str | None:
    """The docstring of a class that is about to become a dataclass, with a section on the parameters that it adds."""
    text = kind.__doc__
    own = [(name, each.metadata["param"]) for name, each in vars(kind).items() if _is_param(each)]
    if not text or not own:
        return text
    inherits = next((base.__name__ for base in kind.__mro__[1:] if is_dataclass(base)), None)
    lines = ["## Arguments", *([f"Those of `{inherits}`, and"] if inherits else [])]
    for name, known in own:
        span = f" ({known.span})" if known.span else ""
        item = textwrap.wrap(f"* `{name}`{span}: {known.effect}.", 114, subsequent_indent="  ", break_on_hyphens=False)
        lines += item
    section = textwrap.indent("\n".join(lines), "    ") + "\n\n"
    before, history, after = text.partition("    ## Version History")
    return f"{before}{section}{history}{after}" if history else f"{text.rstrip()}\n\n{section.rstrip()}\n    "


def _is_param(each: Any) -> bool:
    return isinstance(each, Field) and "param" in each.metadata


# --- checks ----------------------------------------------------------------------------------------------------------
def refuse(owner: Any, name: str, wanted: str) -> None:
    """Raise the ValueError of a parameter that is not what is wanted."""
    raise ValueError(f"{type(owner).__name__}: {name} must be {wanted}, got {getattr(owner, name)!r}")


def check_parameters(owner: Any) -> None:
    """Check every parameter of a frozen dataclass that is a number, a flag or a range, and keep it as Python's.

    A float64 of NumPy would turn all that it meets into float64.

    Raises:
        ValueError: names the parameter, what it must be and what it is.
    """
    for each, known in parameters_of(owner):
        value = getattr(owner, each.name)
        if known is None or known.kind == "other" or (value is None and known.optional):
            continue
        if known.kind == "range":
            pair = numbers(value)
            if pair.shape != (2,) or not known.low <= pair[0] <= pair[1] <= known.high:
                refuse(owner, each.name, known.wanted)
            value = tuple(pair.tolist())
        elif known.kind == "flag":
            if not isinstance(value, bool):
                refuse(owner, each.name, known.wanted)
        else:
            whole = isinstance(value, int | np.integer)
            right = whole if known.kind == "whole" else whole or isinstance(value, float | np.floating)
            if not right or isinstance(value, bool) or not known.low <= value <= known.high:  # NaN fails this
                refuse(owner, each.name, known.wanted)
            if known.above and value == known.low:
                refuse(owner, each.name, known.wanted)
            value = value.item() if isinstance(value, np.generic) else value
        object.__setattr__(owner, each.name, value)


def numbers(values: Any) -> np.ndarray:
    """`values` as float64; empty where they are not an array of numbers."""
    try:
        array = np.asarray(values)
    except (TypeError, ValueError):
        return np.empty(0)
    return array.astype(np.float64) if array.dtype.kind in "iuf" else np.empty(0)


# --- from names ------------------------------------------------------------------------------------------------------
def parameter_names(kind: type) -> list[str]:
    """Names of the parameters that a dataclass is built from.

    Raises:
        ValueError: it is no dataclass.
    """
    if not is_dataclass(kind):
        raise ValueError(f"{kind.__module__}:{kind.__name__} is no dataclass: write @dataclass(frozen=True) above it")
    return [each.name for each in fields(kind) if each.init]


def instantiate(kind: type, given: Mapping[str, Any]) -> Any:
    """A dataclass from parameters by name.

    Raises:
        ValueError: it is no dataclass, or a parameter is unknown (an `UnknownParameter`, which names the nearest),
            missing or out of range.
    """
    known = parameter_names(kind)
    for parameter in given:
        if parameter not in known:
            near = difflib.get_close_matches(parameter, known, 1, 0.5)
            hint = f"did you mean {near[0]!r}? " if near else ""
            names = ", ".join(known) or "none"
            raise UnknownParameter(
                f"{kind.__name__} got an unexpected keyword argument {parameter!r}; {hint}its parameters are {names}"
            )
    for each, _ in parameters_of(kind):
        if each.init and each.default is MISSING and each.default_factory is MISSING and each.name not in given:
            raise ValueError(f"{kind.__name__} needs {each.name}, which has no default: give it, or its field one")
    return kind(**given)


def class_of(name: str) -> Any:
    """What "module:Name" stands for.

    Raises:
        ValueError: it cannot be imported, whatever its module raises (says what, and where).
    """
    module, _, attribute = name.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except (Exception, SystemExit) as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        own = last.filename == __file__ or "importlib" in last.filename
        where = "" if own else f", {last.filename}:{last.lineno}"
        raise ValueError(f"{name!r} cannot be imported ({type(error).__name__}: {error}{where})") from error


def stands_for(name: str, kind: Any) -> bool:
    """Whether "module:Name" stands for exactly this class; a module never imported cannot have made it."""
    module, _, attribute = name.partition(":")
    return getattr(sys.modules.get(module), attribute, None) is kind
