"""A policy's figures over trials: returns, regret, normalised scores and paired differences, with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from recgym.evaluation.statistics import Interval, percentiles, ratio, resampled_means
from recgym.evaluation.trials import Trials
from recgym.scenario import Scenario

__all__ = ["Summary", "summarise"]


class Summary(NamedTuple):
    """A policy's figures per trial."""

    returns: Interval
    regret: Interval | None  # None, as the next two, where no optimum is known for the scenario's weights
    normalised: Interval | None  # (R - R_random) / (R_informed - R_random)
    of_bound: Interval | None  # R as a share of the upper bound on any policy's; None where the scenario has none
    versus: dict[str, Interval]  # paired difference of the return to that of every policy
    objectives: dict[str, Interval]
    costs: dict[str, Interval]
    figures: dict[str, Interval]  # of whole trials; see `Scenario.trial_figures`


def summarise(
    results: Mapping[str, Trials], scenario: Scenario, bounds: np.ndarray | None = None
) -> dict[str, Summary]:
    """Figures per policy, all from the same resamples of the common trials.

    Args:
        results: by name; "random" and, where the scenario has an optimum, "informed" must be among them.
        scenario: names objectives and costs.
        bounds: [N] upper bounds on the return; see `upper_bounds`.
    """
    names = list(results)
    of_trials = [scenario.trial_figures(trials.tasks, trials.objectives, trials.costs) for trials in results.values()]
    extra = tuple(of_trials[0])
    fields = ("return", "regret", *scenario.objectives, *scenario.costs, *extra)
    columns = [
        np.column_stack([_per_trial(trials), *more.values()])
        for trials, more in zip(results.values(), of_trials, strict=True)
    ]
    table = np.stack(columns, axis=1)  # [N, P, F]
    means = table.mean(axis=0)
    resampled = resampled_means(table.reshape(len(table), -1)).reshape(-1, *means.shape)  # [R, P, F]
    random = names.index("random")
    informed = names.index("informed") if scenario.solved else random

    def normalise(returns: np.ndarray, i: int) -> np.ndarray:
        span = returns[..., informed] - returns[..., random]
        return (returns[..., i] - returns[..., random]) / np.where(np.abs(span) > 1e-12, span, np.nan)

    summaries = {}
    for i, name in enumerate(names):
        figures = {f: percentiles(means[i, j], resampled[:, i, j]) for j, f in enumerate(fields)}
        gain = means[i, 0] - means[:, 0]  # [P]
        gains = resampled[:, i, :1] - resampled[:, :, 0]  # [R, P]
        score = percentiles(float(normalise(means[:, 0], i)), normalise(resampled[:, :, 0], i))
        summaries[name] = Summary(
            returns=figures["return"],
            regret=figures["regret"] if scenario.solved else None,
            normalised=score if scenario.solved else None,
            of_bound=None if bounds is None else ratio(results[name].returns, bounds),
            versus={other: percentiles(gain[j], gains[:, j]) for j, other in enumerate(names)},
            objectives={key: figures[key] for key in scenario.objectives},
            costs={key: figures[key] for key in scenario.costs},
            figures={key: figures[key] for key in extra},
        )
    return summaries


def _per_trial(trials: Trials) -> np.ndarray:
    """[N, 2 + M + C]: return, regret, objectives and costs of each trial."""
    regret = trials.regret.sum(axis=1, dtype=np.float64)
    return np.column_stack([trials.returns, regret, trials.objectives, trials.costs])
