"""A report cut by groups of tasks: by kind of user, demand family, tenths of a number or of difficulty."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from recgym.evaluation.summary import Summary, summarise
from recgym.evaluation.trials import Trials, subset
from recgym.scenario import Scenario

__all__ = ["DIFFICULTY", "Cut", "check_cut", "cut_figure", "cut_json", "cut_trials", "print_cut"]

DIFFICULTY = "difficulty"  # what to cut by, beside the fields of the task


GROUPS = 10  # into which numbers are cut, equally large


MIN_TRIALS = 2  # of a group: fewer have no interval


class Cut(NamedTuple):
    """Figures by groups of tasks."""

    by: str  # field of the task, or "difficulty"
    sizes: dict[str, int]  # trials of each group
    summaries: dict[str, dict[str, Summary]]  # by group, then by policy


def check_cut(scenario: Scenario, by: str) -> None:
    """Refuse what no report can be cut by."""
    spaces: Any = scenario.task_space.spaces
    fit = [name for name, box in spaces.items() if box.shape == ()]
    if by == DIFFICULTY:
        if not scenario.solved:
            raise ValueError(f"no optimum is known for these weights, so that nothing can be cut by {DIFFICULTY}")
    elif by not in fit:
        many = f", which is {spaces[by].shape} numbers a task" if by in spaces else ""
        raise ValueError(f"a report cannot be cut by {by!r}{many}; it can by {', '.join([*fit, DIFFICULTY])}")


def cut_trials(scenario: Scenario, results: Mapping[str, Trials], by: str, bounds: np.ndarray | None) -> Cut:
    """Figures by value of a field of the task, or by tenths of it."""
    if by == DIFFICULTY:
        values = results["informed"].expected - results["random"].expected
        if scenario.myopic:
            values = results["random"].regret.sum(axis=1, dtype=np.float64)
    else:
        values = getattr(results["random"].tasks, by)
    labels = _labels(scenario, by, values)
    sizes: dict[str, int] = {}
    summaries = {}
    for label in dict.fromkeys(labels[np.argsort(values, kind="stable")].tolist()):
        rows = labels == label
        if rows.sum() >= MIN_TRIALS:
            part = {name: subset(trials, rows) for name, trials in results.items()}
            sizes[label] = int(rows.sum())
            summaries[label] = summarise(part, scenario, None if bounds is None else bounds[rows])
    return Cut(by, sizes, summaries)


def _labels(scenario: Scenario, by: str, values: np.ndarray) -> np.ndarray:
    """[N] names of the groups that trials belong to."""
    if values.dtype.kind in "iub" and len(np.unique(values)) <= 2 * GROUPS:
        names = scenario.labels.get(by)
        return np.asarray([names[value] if names else str(value) for value in values.tolist()])
    edges = np.unique(np.quantile(values, np.linspace(0.0, 1.0, GROUPS + 1)))
    place = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, max(len(edges) - 2, 0))
    spans = [f"{low:.3g} to {high:.3g}" for low, high in itertools.pairwise(edges)] or [f"{edges[0]:.3g}"]
    return np.asarray(spans)[place]


# --- showing ---------------------------------------------------------------------------------------------------------
def cut_json(cut: Cut) -> dict[str, Any]:
    """The cut as JSON can carry it: of each group its size, and of each policy return, score and gain on the best."""
    groups = {}
    for label, summaries in cut.summaries.items():
        policies = {}
        for name, summary in summaries.items():
            versus = {other: gain._asdict() for other, gain in summary.versus.items() if other != name}
            policies[name] = {"return": summary.returns._asdict(), "versus": versus}
            if summary.normalised is not None:
                policies[name]["normalised"] = summary.normalised._asdict()
        groups[label] = {"trials": cut.sizes[label], "policies": policies}
    return {"by": cut.by, "groups": groups}


def _measure(summary: Summary) -> Any:
    """What groups are compared by: the normalised score, or the return where there is none."""
    return summary.returns if summary.normalised is None else summary.normalised


def print_cut(report: Mapping[str, Any], *, policies: Sequence[str] = ()) -> None:
    """A report's cut as a table on the terminal: a row per group, a column per policy.

    Args:
        report: of `cut_json`.
        policies: names of the columns; empty: all but the ends of the scale.
    """
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError as error:
        raise ImportError("tables are drawn with rich: pip install 'recgym[agents]'") from error
    first = next(iter(report["groups"].values()))["policies"]
    names = [name for name in policies or first if name not in ("random", "informed")] or list(first)
    measure = "normalised" if "normalised" in first[names[0]] else "return"
    table = Table(
        title=f"{measure} score by {report['by']}" if measure == "normalised" else f"return by {report['by']}"
    )
    table.add_column(str(report["by"]))
    for name in ("trials", *names):
        table.add_column(name, justify="right")
    for label, group in report["groups"].items():
        figures = [group["policies"][name][measure] for name in names]
        cells = [f"{f['mean']:.3f} ± {max(f['high'] - f['mean'], f['mean'] - f['low']):.3f}" for f in figures]
        table.add_row(label, f"{group['trials']:,}", *cells)
    table.caption = "± 95 % bootstrap interval over the trials of the group"
    Console(width=None if Console().is_terminal else 160).print(table)


def cut_figure(cut: Cut, *, title: str = "", emphasise: Sequence[str] = ()) -> Any:
    """Scores of each policy by group, mean with 95 % intervals. A matplotlib Figure."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("figures are drawn with matplotlib: pip install 'recgym[plot]'") from error
    labels = list(cut.summaries)
    first = cut.summaries[labels[0]]
    names = [name for name in first if name not in ("random", "informed")] or list(first)
    figure = Figure(figsize=(max(7.0, 1.1 * len(labels) + 2.5), 4.5), dpi=110, layout="constrained")
    axes = figure.subplots()
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
