"""A report cut by groups of tasks: by kind of user, demand family, tenths of a number or of difficulty."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from recgym.evaluation.drawing import new_figure
from recgym.evaluation.statistics import shown
from recgym.evaluation.summary import Summary, summarise
from recgym.evaluation.trials import Trials, subset
from recgym.scenario import Scenario
from recgym.terminal import Table

__all__ = ["DIFFICULTY", "Cut", "check_cut", "cut_figure", "cut_json", "cut_trials", "print_cut"]

DIFFICULTY = "difficulty"  # what to cut by, beside the fields of the task
GROUPS = 10  # into which numbers are cut, equally large; fewer where there are not `MIN_TRIALS` for each
MIN_TRIALS = 2  # of a group: fewer have no interval
DIGITS = 3  # of the ends of a span; more where they would look alike


class Cut(NamedTuple):
    """Figures by groups of tasks."""

    by: str  # field of the task, or "difficulty"
    sizes: dict[str, int]  # trials of each group
    summaries: dict[str, dict[str, Summary]]  # by group, then by policy
    left_out: dict[str, int]  # trials of the groups that have too few for an interval, and are in none of these


def check_cut(scenario: Scenario, by: str, trials: int) -> None:
    """Refuse what no report can be cut by, and a report of too few trials for two groups.

    Raises:
        ValueError: says what it can be cut by, or how many trials that takes.
    """
    if trials < 2 * MIN_TRIALS:
        raise ValueError(f"a report of {trials} trials cannot be cut by {by!r}: play at least {2 * MIN_TRIALS}")
    spaces: Any = scenario.task_space.spaces
    fit = [*(name for name, box in spaces.items() if box.shape == ()), *_drawn_weights(scenario)]
    if by == DIFFICULTY:
        if not scenario.solved:
            raise ValueError(f"no optimum is known for these weights, so that nothing can be cut by {DIFFICULTY}")
    elif by not in fit:
        many = f", which is {spaces[by].shape} numbers a task" if by in spaces else ""
        raise ValueError(f"a report cannot be cut by {by!r}{many}; it can by {', '.join([*fit, DIFFICULTY])}")


def cut_trials(scenario: Scenario, results: Mapping[str, Trials], by: str, bounds: np.ndarray | None) -> Cut:
    """Figures by value of a field of the task, or by tenths of it.

    Raises:
        ValueError: no group has `MIN_TRIALS`.
    """
    if by == DIFFICULTY:
        values = results["informed"].expected - results["random"].expected
        if scenario.myopic:
            values = results["random"].regret.sum(axis=1, dtype=np.float64)
    elif by in (weights := _drawn_weights(scenario)):
        values = results["random"].tasks.preference[:, weights.index(by)]
    else:
        values = getattr(results["random"].tasks, by)
    labels, places = _groups(scenario, by, values)
    sizes: dict[str, int] = {}
    left_out: dict[str, int] = {}
    summaries = {}
    for place, label in enumerate(labels):
        rows = places == place
        if rows.sum() < MIN_TRIALS:
            left_out[label] = int(rows.sum())
            continue
        part = {name: subset(trials, rows) for name, trials in results.items()}
        sizes[label] = int(rows.sum())
        summaries[label] = summarise(part, scenario, None if bounds is None else bounds[rows])
    if not sizes:
        raise ValueError(
            f"{len(values)} trials are too few to be cut by {by!r}: none of its {len(labels)} values came up "
            f"{MIN_TRIALS} times; play more trials"
        )
    return Cut(by, sizes, summaries, left_out)


def _drawn_weights(scenario: Scenario) -> list[str]:
    """Names of the `preference` [N, P] of tasks whose weights are drawn, as the observation has them."""
    return [field.name for field in scenario.preference_fields()]


def _groups(scenario: Scenario, by: str, values: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Names of the groups, in the order of their values, and [N] the place in it of each trial's."""
    if values.dtype.kind in "iub":
        names = scenario.labels.get(by, {})
        kinds, places = np.unique(values, return_inverse=True)
        if len(kinds) <= 2 * GROUPS:
            return [names.get(kind, str(kind)) for kind in kinds.tolist()], places
        named = np.isin(values, list(names))  # what has a name is no number: never
        if named.any():
            labels, places[~named] = _tenths(values[~named])
            own, places[named] = np.unique(values[named], return_inverse=True)
            places[named] += len(labels)
            return [*labels, *(names[kind] for kind in own.tolist())], places
    return _tenths(values)


def _tenths(values: np.ndarray) -> tuple[list[str], np.ndarray]:
    """The spans of tenths of numbers [N], and the place of each in them."""
    exact = np.sort(values.astype(np.float64))
    parts = max(min(GROUPS, len(exact) // MIN_TRIALS), 1)
    lows = np.unique(exact[np.arange(parts) * len(exact) // parts])  # equal values stay in one group
    places = np.searchsorted(lows, values, side="right") - 1
    ends = _distinct([*lows.tolist(), float(exact[-1])])
    return [low if low == high else f"{low} to {high}" for low, high in itertools.pairwise(ends)], places


def _distinct(numbers: Sequence[float]) -> list[str]:
    """Write numbers with the fewest digits, but at least `DIGITS`, that tell those apart that differ."""
    different = len(set(numbers))
    for digits in range(DIGITS, 18):  # 17 tell any two of float64 apart
        texts = [f"{number:.{digits}g}" for number in numbers]
        if len(set(texts)) == different:
            break
    return texts


# --- showing ---------------------------------------------------------------------------------------------------------
def cut_json(cut: Cut) -> dict[str, Any]:
    """The cut as JSON can carry it: of each group its size, and of each policy return, score and gain on the best.

    `left_out` has the sizes of groups of too few trials.
    """
    groups = {}
    for label, summaries in cut.summaries.items():
        policies = {}
        for name, summary in summaries.items():
            versus = {other: gain._asdict() for other, gain in summary.versus.items() if other != name}
            policies[name] = {"return": summary.returns._asdict(), "versus": versus}
            if summary.normalised is not None:
                policies[name]["normalised"] = summary.normalised._asdict()
        groups[label] = {"trials": cut.sizes[label], "policies": policies}
    return {"by": cut.by, "groups": groups, "left_out": cut.left_out}


def _measure(summary: Summary) -> Any:
    """What groups are compared by: the normalised score, or the return where there is none."""
    return summary.returns if summary.normalised is None else summary.normalised


def print_cut(report: Mapping[str, Any]) -> None:
    """A report's cut, as `cut_json` gives it, as a table on the terminal.

    A row per group, and a column per policy but the ends of the scale.
    """
    first = next(iter(report["groups"].values()))["policies"]
    names = [name for name in first if name not in ("random", "informed")] or list(first)
    measure = "normalised" if "normalised" in first[names[0]] else "return"
    title = f"{measure} score by {report['by']}" if measure == "normalised" else f"return by {report['by']}"
    table = Table(title, (str(report["by"]), "trials", *names))
    for label, group in report["groups"].items():
        figures = [group["policies"][name][measure] for name in names]
        table.add(label, f"{group['trials']:,}", *(shown(figure, 3) for figure in figures))
    table.caption = (
        "± 95 % bootstrap interval over the trials of the group; -: it has none, random is too close to informed"
    )
    if report["by"] == DIFFICULTY:
        table.caption += f"\n{DIFFICULTY}: what random choices lose to the policy that knows the task"
    if report["left_out"]:
        table.caption += f"\nleft out, with fewer than {MIN_TRIALS} trials: {', '.join(report['left_out'])}"
    table.show()


def cut_figure(cut: Cut, *, title: str = "", emphasise: Sequence[str] = ()) -> Any:
    """Scores of each policy by group, mean with 95 % intervals. A matplotlib Figure."""
    labels = list(cut.summaries)
    first = cut.summaries[labels[0]]
    names = [name for name in first if name not in ("random", "informed")] or list(first)
    figure, axes = new_figure(max(7.0, 1.1 * len(labels) + 2.5), 4.5)
    for place, name in enumerate(names):
        figures = [_measure(cut.summaries[label][name]) for label in labels]
        x = np.arange(len(labels)) + 0.6 * ((place + 0.5) / len(names) - 0.5)
        mean, low, high = (np.asarray([figure_[i] for figure_ in figures]) for i in range(3))
        size = 8 if name in emphasise else 5
        axes.errorbar(x, mean, (mean - low, high - mean), fmt="o", markersize=size, capsize=2, label=name)
    axes.set_xticks(range(len(labels)), [f"{label}\n{cut.sizes[label]:,}" for label in labels], fontsize=8)
    scored = first[names[0]].normalised is not None
    what = "normalised score (0 random, 1 informed)" if scored else "return"
    axes.set(xlabel=f"{cut.by}; trials below", ylabel=what, title=title)
    axes.grid(axis="y", alpha=0.3)
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure
