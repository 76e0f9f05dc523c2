"""Play the sizes of the published table, all policies on the same trials, and report what they earn."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np

import recgym
from recgym.baselines import baselines_for, make_baseline
from recgym.baselines.exact import Optimum
from recgym.evaluation.rl2.published import BASELINES, PRIOR, REFERENCE_BASELINE, RL2, SOURCES, PublishedCell, make_cell
from recgym.evaluation.statistics import Interval, interval
from recgym.evaluation.trials import ARGMAX, CHUNK, TEST_SEED, Policy, rollout
from recgym.scenario import Scenario

__all__ = ["SuiteAgent", "play_suite", "seeds_of"]


class SuiteAgent(NamedTuple):
    """A policy that was trained, and in what it can play."""

    build: Callable[[Scenario], Policy]  # ValueError says why it cannot play that scenario
    statistics: bool  # whether it was trained on running statistics, or on what memory keeps
    deterministic: bool = False
    about: Mapping[str, Any] = {}  # JSON for the report


class Scores(NamedTuple):
    """What a policy earned in a cell."""

    value: Interval
    difference: Interval  # to the reference, in pairs
    percent: Interval  # of the reference

    def to_json(self) -> dict[str, dict[str, float]]:
        """Turn into objects of JSON."""
        return {name: figure._asdict() for name, figure in self._asdict().items()}


class CellResult(NamedTuple):
    """What all policies earned in a cell, or why one could not play it."""

    cell: PublishedCell
    policies: Mapping[str, Scores | str]

    def to_json(self) -> dict[str, Any]:
        """Turn into an object of JSON, in which a reason is a note."""
        return {
            **self.cell._asdict(),
            "published": dict(self.cell.published),
            "informed": self.cell.informed,
            "policies": {
                name: {"note": result} if isinstance(result, str) else result.to_json()
                for name, result in self.policies.items()
            },
        }


class Progress:
    """Counts the decisions of one policy after another.

    Args:
        on_step: called with what is played, the decisions made so far, and how many there will be.
        total: how many there will be.
    """

    def __init__(self, on_step: Callable[[str, int, int], None] | None, total: int) -> None:
        self._on_step = on_step
        self._total = total
        self._before = 0  # decisions of the policies that have played

    def of(self, what: str) -> Callable[[int], None] | None:
        """Give `rollout` what it calls while `what` is played."""
        if self._on_step is None:
            return None
        on_step = self._on_step
        return lambda decisions: on_step(what, self._before + decisions, self._total)

    def finish(self, decisions: int) -> None:
        """Count what one policy played."""
        self._before += decisions


def seeds_of(labels: Sequence[str]) -> dict[str, list[str]]:
    """Group labels that differ in a final number alone, by what they share: meta-0, meta-1 are seeds of meta."""
    groups: dict[str, list[str]] = {}
    for label in labels:
        if match := re.fullmatch(rf"(.+)-\d+((?:{ARGMAX})?)", label):
            groups.setdefault(match[1] + match[2], []).append(label)
    return {name: members for name, members in groups.items() if len(members) > 1}


def play_suite(
    agents: Mapping[str, SuiteAgent],
    baselines: Sequence[str] = (),
    *,
    cells: Sequence[PublishedCell] = RL2,
    trials: int,
    seed: int,
    on_step: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Play the cells with the agents and the baselines of the table, all on the same trials.

    What luck of tasks and clicks can be taken out is taken out, so that the expectation is that of the total reward and
    the variance a fraction of it. Where the best policy's value is exact, a policy's value is this minus what each
    decision loses to it (`recgym.baselines.exact`). Elsewhere a trial counts with the expected reward of what was
    chosen, and the best arm with its mean over all tasks: the value is n k / (k + 1) minus the mean regret.

    Args:
        agents: by label. Those that `seeds_of` groups are also reported as one, by the mean over them in each trial:
            its interval is over trials, for these seeds.
        baselines: names of more of them; one that ends in ":argmax" plays deterministically.
        cells: at least one.
        trials: per policy and cell.
        seed: which held-out tasks, counted from `TEST_SEED`.
        on_step: called with what is played, the decisions of a batch made so far, and how many there will be.

    Returns:
        The report as JSON holds it.

    Raises:
        ValueError: a name is no baseline, a label is taken, an agent can play none of the cells.
    """
    names = list(dict.fromkeys([*BASELINES, *baselines]))
    groups = seeds_of(list(agents))
    _check_names(agents, groups, names, cells)
    line_ups = [{label: _build(agent, cell) for label, agent in agents.items()} for cell in cells]
    for label in agents:
        if all(isinstance(line_up[label], str) for line_up in line_ups):
            raise ValueError(f"{label} can play none of the cells: {line_ups[0][label]}")

    batches = -(-trials // CHUNK)
    decisions = sum(
        cell.pulls * batches * (len(names) + sum(not isinstance(policy, str) for policy in line_up.values()))
        for cell, line_up in zip(cells, line_ups, strict=True)
    )
    progress = Progress(on_step, decisions)
    results = []
    for cell, line_up in zip(cells, line_ups, strict=True):
        optimum = Optimum(cell.pulls, cell.arms, PRIOR) if cell.exact else None
        values: dict[str, np.ndarray | str] = {}  # [N] each: all that is kept of the trials
        for name in (*names, *agents):
            agent = agents.get(name)
            scenario = make_cell(cell, statistics=agent is not None and agent.statistics)
            policy = line_up[name] if agent is not None else make_baseline(name.removesuffix(ARGMAX), scenario)
            if isinstance(policy, str):
                values[name] = policy
                continue
            values[name] = _play_cell(
                policy,
                scenario,
                cell,
                optimum,
                trials=trials,
                seed=TEST_SEED + seed,
                deterministic=agent.deterministic if agent is not None else name.endswith(ARGMAX),
                on_step=progress.of(f"{cell.name} {name}"),
            )
            progress.finish(cell.pulls * batches)
        for group, members in groups.items():
            values[group] = _mean([values[label] for label in members])
        results.append(_compare(cell, values))
    return {
        "suite": "rl2",
        "sources": SOURCES,
        "trials": trials,
        "seed": seed,
        "reference": REFERENCE_BASELINE,
        "versions": {
            "recgym": recgym.__version__,
            "python": platform.python_version(),
            **{library: version(library) for library in ("numpy", "gymnasium")},
        },
        "policies": _describe(agents, groups, names, cells[0]),
        "cells": [result.to_json() for result in results],
    }


def _play_cell(
    policy: Policy, scenario: Scenario, cell: PublishedCell, optimum: Optimum | None, **options: Any
) -> np.ndarray:
    """Play, and return values [N] whose mean is that of the total reward; see `play_suite`."""
    if optimum is not None and not getattr(policy, "sees_state", False):
        trials = rollout(policy, scenario, **options)
        return optimum.value - optimum.losses(trials.actions, trials.rewards)
    trials = rollout(policy, scenario, **options)
    return cell.informed - trials.regret.sum(axis=1, dtype=np.float64)


def _mean(values: Sequence[np.ndarray | str]) -> np.ndarray | str:
    """Average [N] over seeds; the first reason why one of them has none takes its place."""
    reasons = [value for value in values if isinstance(value, str)]
    if reasons:
        return reasons[0]
    return np.mean([np.asarray(value) for value in values], axis=0)


def _compare(cell: PublishedCell, values: Mapping[str, np.ndarray | str]) -> CellResult:
    reference = np.asarray(values[REFERENCE_BASELINE])
    scale = 100.0 / reference.mean()  # its own relative error is left out: it scales a difference that is small
    policies: dict[str, Scores | str] = {}
    for name, value in values.items():
        if isinstance(value, str):
            policies[name] = value
            continue
        difference = interval(value - reference)
        percent = Interval(*(float(scale * part) for part in difference))
        policies[name] = Scores(interval(value), difference, percent)
    return CellResult(cell, policies)


def _describe(
    agents: Mapping[str, SuiteAgent],
    groups: Mapping[str, Sequence[str]],
    names: Sequence[str],
    cell: PublishedCell,
) -> dict[str, dict[str, Any]]:
    """Say of every policy of the report what kind it is."""
    kinds = baselines_for(make_cell(cell, statistics=False))
    policies: dict[str, dict[str, Any]] = {name: {"kind": kinds[name.removesuffix(ARGMAX)].kind} for name in names}
    for label, agent in agents.items():
        policies[label] = {"kind": "agent", "statistics": agent.statistics, **agent.about}
    for group, members in groups.items():
        policies[group] = {"kind": "mean", "statistics": agents[members[0]].statistics, "of": members}
    return policies


def _check_names(
    agents: Mapping[str, SuiteAgent],
    groups: Mapping[str, Sequence[str]],
    baselines: Sequence[str],
    cells: Sequence[PublishedCell],
) -> None:
    """Refuse a name that is no baseline, or that two policies would have."""
    for cell in cells:
        scenario = make_cell(cell, statistics=False)
        for name in baselines:
            make_baseline(name.removesuffix(ARGMAX), scenario)
        for name in (*agents, *groups):
            if name.removesuffix(ARGMAX) in baselines_for(scenario):
                what = f", the mean over {', '.join(groups[name])}," if name in groups else ""
                raise ValueError(f"{name!r}{what} is the name of a baseline: give your policy another")
    for group, members in groups.items():
        if group in agents:
            raise ValueError(f"the mean over {', '.join(members)} would be called {group!r} as another policy is")
        if len({agents[label].statistics for label in members}) > 1:
            raise ValueError(
                f"{', '.join(members)} are no seeds of one agent, as some were trained on running statistics and some "
                "were not: name them apart"
            )


def _build(agent: SuiteAgent, cell: PublishedCell) -> Policy | str:
    """Build the policy, or say why there is none."""
    try:
        return agent.build(make_cell(cell, statistics=agent.statistics))
    except ValueError as error:
        return str(error)
