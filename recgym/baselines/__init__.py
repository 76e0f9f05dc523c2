"""Reference policies, and the table in which a family of scenarios names its own.

`baselines_for(scenario)` lists those that fit a scenario, `make_baseline(name, scenario)` builds one. A scenario class
names its family's table as `family = "module:NAME"`, wherever it comes from.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import recgym
from recgym.baselines.policy import ConstantPolicy, InformedPolicy, RandomPolicy
from recgym.parameters import class_of
from recgym.scenario import Scenario

__all__ = ["GENERAL", "Baseline", "Family", "baselines_for", "family_of", "left_out", "make_baseline"]


class Baseline(NamedTuple):
    """A named reference policy."""

    build: Callable[..., Any]  # (scenario, **constants) -> policy
    kind: str  # "prior-free" or "prior-aware": does it know the task distribution? "informed": it knows the task
    meaning: str
    grid: Mapping[str, tuple[float, ...]] = {}  # constants, and the values tried on validation tasks
    tuned: Mapping[str, Mapping[str, float]] = {}  # by preset: the constants that did best there
    unfit: Callable[[Any], str] = lambda scenario: ""  # why it cannot play a scenario; "" where it can


class Family(NamedTuple):
    """What belongs to a family of scenarios beside the scenario class itself."""

    page: str  # title of its page in the documentation
    baselines: Mapping[str, Baseline] = {}
    shown: tuple[str, ...] = ()  # of them, what TensorBoard draws beside an agent
    expert: str = ""  # of them, what an agent may imitate first
    guide: str = ""  # name of its guide in the documentation
    bound: str = ""  # what pages of results say of its bound
    reader: str = ""  # "module:NAME" of the function that reads a log and fits the parameters to it


def no_optimum(scenario: Scenario) -> str:
    """Why nobody knows what is best."""
    return "" if scenario.solved else "no optimum is known for these weights"


GENERAL = {
    "random": Baseline(RandomPolicy, "prior-free", "uniform over the candidates"),
    "constant": Baseline(ConstantPolicy, "prior-free", "always the first candidate"),
    "informed": Baseline(InformedPolicy, "informed", "knows the task: the ceiling", unfit=no_optimum),
}


def family_of(scenario: Any) -> Family:
    """The family of a scenario; one without anything of its own where the class names none.

    Args:
        scenario: as `recgym.make_scenario` takes it; so in all functions here.

    Raises:
        ValueError: the class names something else.
    """
    scenario = recgym.make_scenario(scenario)
    name = scenario.family
    if not name:
        return Family(type(scenario).__name__)
    try:
        family = class_of(name)
    except ValueError as error:
        raise ValueError(f"{type(scenario).__name__}: family {error}") from error
    if not isinstance(family, Family):
        raise ValueError(f"{type(scenario).__name__}: family {name!r} is no recgym.baselines.Family")
    return family


def _all_for(scenario: Scenario) -> dict[str, Baseline]:
    return {**GENERAL, **family_of(scenario).baselines}


def baselines_for(scenario: Any) -> dict[str, Baseline]:
    """The baselines that fit a scenario, by name."""
    scenario = recgym.make_scenario(scenario)
    return {name: baseline for name, baseline in _all_for(scenario).items() if not baseline.unfit(scenario)}


def left_out(scenario: Any) -> dict[str, str]:
    """Why baselines of this kind of scenario do not fit its parameters, by name."""
    scenario = recgym.make_scenario(scenario)
    return {name: reason for name, baseline in _all_for(scenario).items() if (reason := baseline.unfit(scenario))}


def make_baseline(name: str, scenario: Any, **constants: float) -> Any:
    """Build a baseline with its tuned constants, or with the given ones.

    Args:
        name: of the baseline.
        scenario: what is played, as `recgym.make_scenario` takes it.
        constants: in place of the tuned ones.

    Raises:
        ValueError: there is no such baseline for this scenario (names the nearest), or it does not fit its parameters.
    """
    scenario = recgym.make_scenario(scenario)
    known = baselines_for(scenario)
    unfit = left_out(scenario)
    if name in unfit:
        raise ValueError(f"{name} cannot play this {type(scenario).__name__}: {unfit[name]}")
    if name not in known:
        near = difflib.get_close_matches(name, known, 1, 0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"no baseline {name!r} for {type(scenario).__name__}; {hint}there are {', '.join(known)}")
    baseline = known[name]
    tuned = baseline.tuned.get(recgym.preset_of(scenario) or "", {}) if baseline.tuned else {}
    return baseline.build(scenario, **{**tuned, **constants})
