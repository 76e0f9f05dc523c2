"""How good is a policy? Regrets, normalised scores and paired differences, with intervals."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import recgym
from recgym.baselines import baselines_for, make_baseline
from recgym.evaluation.groups import Cut, check_cut, cut_trials
from recgym.evaluation.summary import Summary, summarise
from recgym.evaluation.trials import ARGMAX, VALIDATION_SEED, Trials, rollout, upper_bounds

__all__ = ["Comparison", "evaluate", "tune"]


class Comparison(NamedTuple):
    """What `evaluate` found out about policies on common trials."""

    trials: dict[str, Trials]  # by policy, as the next
    summaries: dict[str, Summary]
    reference: str  # the best prior-free baseline among them
    cut: Cut | None  # where one was asked for


def evaluate(
    scenario: Any,
    policies: Mapping[str, Any],
    *,
    trials: int,
    seed: int,
    by: str | None = None,
    on_step: Callable[[str, int], None] | None = None,
) -> Comparison:
    """Play the same trials with every policy and compare them.

    Args:
        scenario: what is played, as `recgym.make_scenario` takes it.
        policies: by name; None takes the baseline of that name. A name that ends in ":argmax" plays deterministically.
            "random" and "informed", which scores are normalised by, are added where they are missing (without an
            optimum for the scenario's weights there is no informed policy, and no normalised score).
        trials: number of trials.
        seed: of tasks and luck.
        by: also cut the report by a field of the task, whole numbers by value and others into tenths (fewer parts
            where the trials are few); or by "difficulty", tenths of what random choices lose to the informed policy.
        on_step: called with the policy's name and the decisions made so far (see `rollout`).

    Raises:
        TypeError: `policies` is no mapping.
        ValueError: a name is no baseline of this scenario (names the nearest), the task has no such field, or the
            trials are too few to be cut.
    """
    if not isinstance(policies, Mapping):
        kind = type(policies).__name__
        raise TypeError(f"evaluate(scenario, policies, ...): policies must map names to policies, got {kind}")
    scenario = recgym.make_scenario(scenario)
    known = baselines_for(scenario)
    for name, policy in policies.items():
        if policy is not None and name.removesuffix(ARGMAX) in known:
            raise ValueError(f"{name!r} is the name of a baseline: give your policy another")
    if by is not None:
        check_cut(scenario, by, trials)
    ends = ("random", "informed") if scenario.solved else ("random",)
    names = list(dict.fromkeys([*policies, *ends]))
    built = {
        name: make_baseline(name.removesuffix(ARGMAX), scenario) if policies.get(name) is None else policies[name]
        for name in names
    }
    results = {}
    for name, policy in built.items():
        results[name] = rollout(
            policy,
            scenario,
            trials=trials,
            seed=seed,
            deterministic=name.endswith(ARGMAX),
            on_step=None if on_step is None else partial(on_step, name),
        )
    free = [
        name for name in names if policies.get(name) is None and known[name.removesuffix(ARGMAX)].kind == "prior-free"
    ]
    reference = max(free, key=lambda name: results[name].returns.mean())
    bounds = upper_bounds(scenario, trials=trials, seed=seed)
    cut = None if by is None else cut_trials(scenario, results, by, bounds)
    return Comparison(results, summarise(results, scenario, bounds), reference, cut)


def tune(name: str, scenario: Any, *, trials: int = 2000, seed: int = VALIDATION_SEED) -> dict[str, float]:
    """Constants of a baseline's grid with the highest mean return on validation tasks; {} where it has none."""
    scenario = recgym.make_scenario(scenario)
    grid = baselines_for(scenario)[name].grid
    choices = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]

    def score(constants: Mapping[str, float]) -> float:
        policy = make_baseline(name, scenario, **constants)
        return float(rollout(policy, scenario, trials=trials, seed=seed).returns.mean())

    return max(choices, key=score)
