"""How good is a policy? Regrets, normalised scores and paired differences, with intervals."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from recgym.baselines import baselines_for, make_baseline
from recgym.evaluation.statistics import Interval, _percentiles, _resampled_means, ratio
from recgym.evaluation.trials import VALIDATION_SEED, Trials, rollout, upper_bounds

__all__ = ["Summary", "evaluate", "summarise", "tune"]


class Summary(NamedTuple):
    """A policy's figures per trial."""

    returns: Interval
    regret: Interval
    normalised: Interval  # (R - R_random) / (R_informed - R_random)
    of_bound: Interval | None  # R as a share of the upper bound on any policy's; None where the scenario has none
    versus: dict[str, Interval]  # paired difference of the return to that of every policy
    objectives: dict[str, Interval]
    costs: dict[str, Interval]


def summarise(results: Mapping[str, Trials], scenario: Any, bounds: np.ndarray | None = None) -> dict[str, Summary]:
    """Figures per policy, all from the same resamples of the common trials.

    Args:
        results: by name; "random" and "informed" must be among them.
        scenario: names objectives and costs.
        bounds: [N] upper bounds on the return; see `upper_bounds`.
    """
    names, fields = list(results), ("return", "regret", *scenario.objectives, *scenario.costs)
    table = np.stack([_per_trial(trials) for trials in results.values()], axis=1)  # [N, P, F]
    means = table.mean(axis=0)
    resampled = _resampled_means(table.reshape(len(table), -1)).reshape(-1, *means.shape)  # [R, P, F]
    random, informed = names.index("random"), names.index("informed")

    def normalise(returns: np.ndarray, i: int) -> np.ndarray:
        span = returns[..., informed] - returns[..., random]
        return (returns[..., i] - returns[..., random]) / np.where(np.abs(span) > 1e-12, span, np.nan)

    summaries = {}
    for i, name in enumerate(names):
        figures = {f: _percentiles(means[i, j], resampled[:, i, j]) for j, f in enumerate(fields)}
        gains = means[i, 0] - means[:, 0], resampled[:, i, :1] - resampled[:, :, 0]  # [P], [R, P]
        summaries[name] = Summary(
            returns=figures["return"],
            regret=figures["regret"],
            normalised=_percentiles(float(normalise(means[:, 0], i)), normalise(resampled[:, :, 0], i)),
            of_bound=None if bounds is None else ratio(results[name].returns, bounds),
            versus={other: _percentiles(gains[0][j], gains[1][:, j]) for j, other in enumerate(names)},
            objectives={key: figures[key] for key in scenario.objectives},
            costs={key: figures[key] for key in scenario.costs},
        )
    return summaries


def _per_trial(trials: Trials) -> np.ndarray:
    """[N, 2 + M + C]: return, regret, objectives and costs of each trial."""
    regret = trials.regret.sum(axis=1, dtype=np.float64)
    return np.column_stack([trials.returns, regret, trials.objectives, trials.costs])


def evaluate(
    scenario: Any,
    policies: Mapping[str, Any],
    *,
    trials: int,
    seed: int,
    on_step: Callable[[str, int], None] | None = None,
) -> tuple[dict[str, Trials], dict[str, Summary], str]:
    """Play the same trials with every policy and compare them.

    Args:
        scenario: what is played.
        policies: by name; None takes the baseline of that name. A name that ends in ":argmax" plays deterministically.
            "random" and "informed", which scores are normalised by, are added where they are missing.
        trials: number of trials.
        seed: of tasks and luck.
        on_step: called with the policy's name and the decisions made so far (see `rollout`).

    Returns:
        Trials and figures by name, and the name of the reference: the best prior-free baseline among them.

    Raises:
        TypeError: `policies` is no mapping.
        ValueError: a name is no baseline of this scenario (names the nearest).
    """
    if not isinstance(policies, Mapping):
        given = type(policies).__name__
        raise TypeError(f"evaluate(scenario, policies, ...): policies must map names to policies, got {given}")
    known = baselines_for(scenario)
    for name, policy in policies.items():
        if policy is not None and name.removesuffix(":argmax") in known:
            raise ValueError(f"{name!r} is the name of a baseline: give your policy another")
    names = list(dict.fromkeys([*policies, "random", "informed"]))
    built = {
        name: make_baseline(name.removesuffix(":argmax"), scenario) if policies.get(name) is None else policies[name]
        for name in names
    }
    results = {}
    for name, policy in built.items():
        results[name] = rollout(
            policy,
            scenario,
            trials=trials,
            seed=seed,
            deterministic=name.endswith(":argmax"),
            on_step=None if on_step is None else partial(on_step, name),
        )
    free = [name for name in names if policies.get(name) is None and known[name.split(":")[0]].kind == "prior-free"]
    reference = max(free, key=lambda name: results[name].returns.mean())
    return results, summarise(results, scenario, upper_bounds(scenario, trials=trials, seed=seed)), reference


def tune(name: str, scenario: Any, *, trials: int = 2000, seed: int = VALIDATION_SEED) -> dict[str, float]:
    """Constants of a baseline's grid with the highest mean return on validation tasks; {} where it has none."""
    grid = baselines_for(scenario)[name].grid
    choices = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]

    def score(constants: Mapping[str, float]) -> float:
        policy = make_baseline(name, scenario, **constants)
        return float(rollout(policy, scenario, trials=trials, seed=seed).returns.mean())

    return max(choices, key=score)
