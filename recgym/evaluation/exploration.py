"""How a policy explores: what it tries, when it stays with what it chose, and when it stops to try."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from recgym.evaluation.drawing import new_figure
from recgym.evaluation.trials import Trials
from recgym.terminal import Table

__all__ = [
    "FIRST",
    "Exploration",
    "check_explored",
    "exploration_figure",
    "exploration_json",
    "explore",
    "print_exploration",
]

FIRST = 10  # decisions that are printed one by one


class Exploration(NamedTuple):
    """Means over trials for each of T decisions; NaN where no trial is of the kind."""

    new: np.ndarray  # [T] share that choose what was not chosen before in the trial
    tried: np.ndarray  # [T] different candidates so far
    stayed_after_reward: np.ndarray  # [T] share that choose the same again, of those whose last reward was above 0
    stayed_after_none: np.ndarray  # [T] of those whose last reward was not
    best: np.ndarray  # [T] share that choose the best of the moment; NaN where that is no measure


def check_explored(scenario: Any) -> None:
    """Refuse problems in which a decision is not one candidate.

    Raises:
        ValueError: says so.
    """
    if scenario.action_space.shape:
        raise ValueError(
            f"how a policy explores is shown where a decision is one candidate; {type(scenario).__name__} has pages"
        )


def explore(trials: Trials, scenario: Any) -> Exploration:
    """Measure how the policy that played these trials explores, in a problem whose decision is one candidate."""
    actions, rewarded = trials.actions, trials.rewards > 0.0
    count, decisions = actions.shape
    rows = np.arange(count)
    known = np.zeros((count, int(actions.max()) + 1), dtype=bool)
    new, tried = np.zeros((2, decisions))
    for t in range(decisions):
        new[t] = 1.0 - known[rows, actions[:, t]].mean()
        known[rows, actions[:, t]] = True
        tried[t] = known.sum(axis=1).mean()
    same = actions[:, 1:] == actions[:, :-1]

    def share(kind: np.ndarray) -> np.ndarray:  # of rows [N, T - 1] of a kind; nothing comes before the first decision
        number = kind.sum(axis=0)
        stayed = np.where(number > 0, (same & kind).sum(axis=0) / np.maximum(number, 1), np.nan)
        return np.concatenate([[np.nan], stayed])

    measured = scenario.myopic and scenario.solved
    best = (trials.regret <= 1e-6).mean(axis=0) if measured else np.full(decisions, np.nan)
    return Exploration(new, tried, share(rewarded[:, :-1]), share(~rewarded[:, :-1]), best)


def exploration_json(explored: Mapping[str, Exploration]) -> dict[str, dict[str, list[float | None]]]:
    """By policy and figure, over all decisions, as JSON can carry it."""

    def plain(values: np.ndarray) -> list[float | None]:
        return [None if np.isnan(value) else float(value) for value in values]

    return {
        name: {key: plain(values) for key, values in figures._asdict().items()} for name, figures in explored.items()
    }


def print_exploration(report: Mapping[str, Mapping[str, Sequence[float | None]]]) -> None:
    """Print the first decisions of each policy, as `exploration_json` has them."""
    decisions = range(min(FIRST, len(next(iter(report.values()))["new"])))
    for key, title in (
        ("new", "choosing what was not chosen before in the trial, % of trials"),
        ("stayed_after_reward", "staying after a reward, %"),
        ("stayed_after_none", "staying after none, %"),
    ):
        table = Table(f"{title}, by decision", ("policy", *(str(t + 1) for t in decisions)))
        for name, figures in report.items():
            shares = [figures[key][t] for t in decisions]
            table.add(name, *("-" if share is None else f"{100 * share:.0f}" for share in shares))
        table.show()


def exploration_figure(explored: Mapping[str, Exploration], *, title: str = "", emphasise: Sequence[str] = ()) -> Any:
    """Draw what `explore` measured, over the decisions of a trial on a logarithmic axis; a matplotlib Figure."""
    measured = not any(np.isnan(figures.best).any() for figures in explored.values())
    figure, axes = new_figure(10.0, 7.0, grid=(2, 2))
    panels = (
        ("tried", "different candidates so far"),
        ("best", "chooses the best, share of trials") if measured else ("new", "chooses a new one, share of trials"),
        ("stayed_after_reward", "stays after a reward, share"),
        ("stayed_after_none", "stays after none, share"),
    )
    decisions = max(len(figures.new) for figures in explored.values())
    ticks = [step * 10**power for power in range(6) for step in (1, 2, 5) if step * 10**power <= decisions]
    for axis, (key, label) in zip(axes.ravel(), panels, strict=True):
        for name, figures in explored.items():
            values = getattr(figures, key)
            width, order = (2.6, 3) if name in emphasise else (1.3, 2)
            axis.plot(np.arange(1, len(values) + 1), values, label=name, linewidth=width, zorder=order)
        axis.axvline(FIRST, color="grey", linewidth=0.8, linestyle=":")
        axis.set(xscale="log", ylabel=label, xlabel="decision", xlim=(0.9, 1.1 * decisions))
        axis.set_xticks(ticks, [str(tick) for tick in ticks])
        axis.set_xticks([], minor=True)
        if key != "tried":
            axis.set_ylim(0, 1.02)
    axes[0, 0].legend(fontsize=9, frameon=False)
    figure.suptitle(title)
    return figure
