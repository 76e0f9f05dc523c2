"""Reference policies: NumPy, batched, used through `predict` like any SB3 model.

`baselines_for(scenario)` lists those that fit a scenario, `make_baseline(name, scenario)` builds one.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from recgym.baselines.policy import ConstantPolicy, InformedPolicy, RandomPolicy

__all__ = ["Baseline", "ConstantPolicy", "InformedPolicy", "RandomPolicy", "baselines_for", "left_out", "make_baseline"]


class Baseline(NamedTuple):
    """A named reference policy."""

    build: Callable[..., Any]  # (scenario, **constants) -> policy
    kind: str  # "prior-free" or "prior-aware": does it know the task distribution? "informed": it knows the task
    meaning: str
    grid: Mapping[str, tuple[float, ...]] = {}  # constants, and the values tried on validation tasks
    tuned: Mapping[str, Mapping[str, float]] = {}  # per scenario class: the values that did best there
    unfit: Callable[[Any], str] = lambda scenario: ""  # why it cannot play a scenario; "" where it can


GENERAL = {
    "random": Baseline(RandomPolicy, "prior-free", "uniform over the candidates"),
    "constant": Baseline(ConstantPolicy, "prior-free", "always the first candidate"),
    "informed": Baseline(InformedPolicy, "informed", "knows the task: the ceiling"),
}


def _all_for(scenario: Any) -> dict[str, Baseline]:
    from recgym.baselines import bandit, contextual, drift, pricing

    tables = (module.BASELINES.get(type(scenario).__name__, {}) for module in (bandit, drift, contextual, pricing))
    return {**GENERAL, **{name: baseline for table in tables for name, baseline in table.items()}}


def baselines_for(scenario: Any) -> dict[str, Baseline]:
    """The baselines that fit a scenario, by name."""
    return {name: baseline for name, baseline in _all_for(scenario).items() if not baseline.unfit(scenario)}


def left_out(scenario: Any) -> dict[str, str]:
    """Why baselines of this kind of scenario do not fit its parameters, by name."""
    return {name: reason for name, baseline in _all_for(scenario).items() if (reason := baseline.unfit(scenario))}


def make_baseline(name: str, scenario: Any, **constants: float) -> Any:
    """Build a baseline with its tuned constants, or with the given ones.

    Raises:
        ValueError: there is no such baseline for this scenario (names the nearest), or it does not fit its parameters.
    """
    known, unfit = baselines_for(scenario), left_out(scenario)
    if name in unfit:
        raise ValueError(f"{name} cannot play this {type(scenario).__name__}: {unfit[name]}")
    if name not in known:
        near = difflib.get_close_matches(name, known, 1, 0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"no baseline {name!r} for {type(scenario).__name__}; {hint}there are {', '.join(known)}")
    baseline = known[name]
    return baseline.build(scenario, **{**baseline.tuned.get(type(scenario).__name__, {}), **constants})
