"""The published table of RL^2 and SNAIL: nine sizes of Bernoulli bandit, their numbers beside those measured here."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np

import recgym
from recgym.baselines import baselines_for, make_baseline
from recgym.baselines.exact import Optimum, Recorder
from recgym.evaluation import CHUNK, TEST_SEED, Interval, interval, rollout

__all__ = ["FIELD", "RL2", "Agent", "Cell", "make_cell", "markdown", "play", "print_tables", "seeds_of"]

ENV = "RecBandit-v0"
PRIOR = (1.0, 1.0)  # all click rates are uniform on [0, 1]: the best of k has mean k / (k + 1)
FIELD = {  # the baselines that always play, and how tables call them
    "random": "random",
    "greedy": "greedy",
    "epsilon_greedy": "ε-greedy",
    "ucb1_tuned": "UCB1",
    "thompson": "TS",
    "ots": "OTS",
    "gittins": "FHGI",
}
REFERENCE = "gittins"
LEARNED = {"rl2": "RL²", "snail": "SNAIL"}  # of which only published numbers are known
ACROSS = 5  # policies per table on the terminal: fits 120 columns
ABSENT = "–"


# --- what is published -----------------------------------------------------------------------------------------------
class Cell(NamedTuple):
    """One size of the table."""

    pulls: int  # decisions n
    arms: int  # k
    published: Mapping[str, float]  # total reward, by baseline of ours, or "rl2", "snail"
    bound: float | None  # no policy's value is higher; None where only n k / (k + 1) is known
    exact: bool  # the best policy's value is that number

    @property
    def informed(self) -> float:
        """Value of a policy that knows the task: no policy's is higher."""
        return self.pulls * self.arms / (self.arms + 1)

    @property
    def name(self) -> str:
        return f"n={self.pulls} k={self.arms}"


# Total reward of n pulls of k arms. RL^2 and the classical policies: Duan et al. 2016 (arXiv:1611.02779, section 3.1),
# means over 1,000 instances with standard errors of about .06, .3 to .5 and .7 to 2.3 at n = 10, 100 and 500; their
# "Gittins" is the best of several approximations, and constants were chosen on the instances that are reported. SNAIL:
# Mishra et al. 2018 (arXiv:1707.03141). The last two columns were computed for this table. Exact values are backward
# induction over the counts of all arms; bounds are Lagrangian: the least, over a price of a pull for each moment, of
# those prices' sum and k times what one arm is worth when pulling it at any moment costs that moment's price (Brown
# & Smith 2020, Management Science 66:3029), rounded.
_COLUMNS = ("random", "gittins", "thompson", "ots", "ucb1_tuned", "epsilon_greedy", "greedy", "rl2", "snail")
_TABLE: tuple[tuple[int, int, tuple[float, ...], float | None, bool], ...] = (
    # n, k, published in the order of _COLUMNS, bound, exact
    (10, 5, (5.0, 6.6, 5.7, 6.5, 6.7, 6.6, 6.6, 6.7, 6.6), 6.65999, True),
    (10, 10, (5.0, 6.6, 5.5, 6.2, 6.7, 6.6, 6.6, 6.7, 6.7), 6.71395, True),
    (10, 50, (5.1, 6.5, 5.2, 5.5, 6.6, 6.5, 6.5, 6.8, 6.7), 6.71395, True),
    (100, 5, (49.9, 78.3, 74.7, 77.9, 78.0, 75.4, 74.8, 78.7, 79.1), None, False),
    (100, 10, (49.9, 82.8, 76.7, 81.4, 82.4, 77.4, 77.1, 83.5, 83.5), 85.78, False),
    (100, 50, (49.8, 85.2, 64.5, 67.7, 84.3, 78.3, 78.0, 84.9, 85.1), 85.80, False),
    (500, 5, (249.8, 405.8, 402.0, 406.7, 405.8, 388.2, 380.6, 401.6, 408.1), None, False),
    (500, 10, (249.0, 437.8, 429.5, 438.9, 437.1, 408.0, 395.0, 432.5, 432.4), 460.4, False),
    (500, 50, (249.6, 463.7, 427.2, 437.6, 457.6, 413.6, 402.8, 438.9, 442.6), 466.10, False),
)
RL2 = tuple(Cell(n, k, dict(zip(_COLUMNS, row, strict=True)), bound, exact) for n, k, row, bound, exact in _TABLE)
REMARKS = (
    'Under FHGI stands what is published as "Gittins", the best of several approximations; FHGI computes the index.',
    "The papers tuned UCB1 and ε-greedy cell by cell on the instances that they report; here they are tuned once, on "
    "validation tasks of 100 pulls of 10 arms. OTS is that of May et al. (2012), and the published one scores higher.",
)
SOURCES = "Duan et al. 2016 (RL², classical policies: 1,000 instances) and Mishra et al. 2018 (SNAIL)"


# --- playing ---------------------------------------------------------------------------------------------------------
class Agent(NamedTuple):
    """A policy that was trained, and in what it can play."""

    build: Callable[[Any], Any]  # scenario -> policy; ValueError says why it cannot play that one
    statistics: bool  # whether it was trained on running statistics, or on what memory keeps
    deterministic: bool = False
    about: Mapping[str, Any] = {}  # JSON for the report


def make_cell(cell: Cell, *, statistics: bool) -> Any:
    """The scenario of a cell. Tasks and luck of a seed do not depend on `statistics`."""
    return recgym.make_scenario(ENV, arms=cell.arms, horizon=cell.pulls, prior=PRIOR, statistics=statistics)


def seeds_of(labels: Sequence[str]) -> dict[str, list[str]]:
    """Labels that differ in a final number alone, by what they share: meta-0, meta-1 are seeds of meta."""
    groups: dict[str, list[str]] = {}
    for label in labels:
        if match := re.fullmatch(r"(.+)-\d+((?::argmax)?)", label):
            groups.setdefault(match[1] + match[2], []).append(label)
    return {name: members for name, members in groups.items() if len(members) > 1}


def play(
    agents: Mapping[str, Agent],
    baselines: Sequence[str] = (),
    *,
    cells: Sequence[Cell] = RL2,
    trials: int,
    seed: int,
    on_step: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Play the cells with the agents and the baselines of `FIELD`, all on the same trials; a report as JSON carries it.

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

    Raises:
        ValueError: a name is no baseline, a label is taken, an agent can play none of the cells.
    """
    more = [name for name in dict.fromkeys(baselines) if name not in FIELD]
    groups = seeds_of(list(agents))
    _check_names(agents, groups, [*FIELD, *more], cells)
    fitted = [{label: _fit(agent, cell) for label, agent in agents.items()} for cell in cells]
    for label in agents:
        if all(isinstance(row[label], str) for row in fitted):
            raise ValueError(f"{label} can play none of the cells: {fitted[0][label]}")

    order = [*FIELD, *more, *agents]
    batches = -(-trials // CHUNK)
    playing = [[name for name in order if not isinstance(row.get(name), str)] for row in fitted]
    total = sum(cell.pulls * batches * len(names) for cell, names in zip(cells, playing, strict=True))
    done, measured = 0, []
    for cell, row, names in zip(cells, fitted, playing, strict=True):
        values: dict[str, np.ndarray] = {}  # [N] each: all that is kept of the trials
        for name in names:
            agent = agents.get(name)
            scenario = make_cell(cell, statistics=agent is not None and agent.statistics)
            policy = row[name] if agent is not None else make_baseline(name.removesuffix(":argmax"), scenario)

            def show(decisions: int, what: str = f"{cell.name} {name}", before: int = done) -> None:
                if on_step is not None:
                    on_step(what, before + decisions, total)

            chosen = agent.deterministic if agent is not None else name.endswith(":argmax")
            values[name] = _values(
                policy, scenario, cell, trials=trials, seed=TEST_SEED + seed, deterministic=chosen, on_step=show
            )
            done += cell.pulls * batches
        notes = {label: fit for label, fit in row.items() if isinstance(fit, str)}
        for group, members in groups.items():
            if missing := [label for label in members if label in notes]:
                notes[group] = notes[missing[0]]
            else:
                values[group] = np.mean([values[label] for label in members], axis=0)
        measured.append(_report_cell(cell, values, notes, [*order, *groups]))
    known = baselines_for(make_cell(cells[0], statistics=False))
    policies: dict[str, Any] = {name: {"kind": known[name.removesuffix(":argmax")].kind} for name in [*FIELD, *more]}
    for label, agent in agents.items():
        policies[label] = {"kind": "agent", "statistics": agent.statistics, **agent.about}
    for group, members in groups.items():
        policies[group] = {"kind": "mean", "statistics": agents[members[0]].statistics, "of": members}
    return {
        "suite": "rl2",
        "sources": SOURCES,
        "trials": trials,
        "seed": seed,
        "reference": REFERENCE,
        "versions": {
            "recgym": recgym.__version__,
            "python": platform.python_version(),
            **{library: version(library) for library in ("numpy", "gymnasium")},
        },
        "policies": policies,
        "cells": measured,
    }


def _values(policy: Any, scenario: Any, cell: Cell, **arguments: Any) -> np.ndarray:
    """[N] whose mean is that of the total reward; see `play`."""
    if cell.exact and not getattr(policy, "sees_state", False):
        best = Optimum(cell.pulls, cell.arms, PRIOR)
        recorder = Recorder(policy, scenario.layout)
        rollout(recorder, scenario, **arguments)
        return best.value - best.losses(*recorder.played())
    result = rollout(policy, scenario, **arguments)
    return cell.informed - result.regret.sum(axis=1, dtype=np.float64)


def _check_names(
    agents: Mapping[str, Agent], groups: Mapping[str, Sequence[str]], baselines: Sequence[str], cells: Sequence[Cell]
) -> None:
    for cell in cells:
        scenario = make_cell(cell, statistics=False)
        for name in baselines:
            make_baseline(name.removesuffix(":argmax"), scenario)
        for name in (*agents, *groups):
            if name.removesuffix(":argmax") in baselines_for(scenario):
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


def _fit(agent: Agent, cell: Cell) -> Any:
    """The policy, or why there is none."""
    try:
        return agent.build(make_cell(cell, statistics=agent.statistics))
    except ValueError as error:
        return str(error)


def _report_cell(
    cell: Cell, values: Mapping[str, np.ndarray], notes: Mapping[str, str], order: Sequence[str]
) -> dict[str, Any]:
    reference = values[REFERENCE]
    scale = 100.0 / reference.mean()  # its own relative error is left out: it scales a difference that is small
    policies: dict[str, Any] = {}
    for name in order:
        if name in notes:
            policies[name] = {"note": notes[name]}
            continue
        value, difference = interval(values[name]), interval(values[name] - reference)
        percent = Interval(*(float(scale * part) for part in difference))
        figures = {"value": value, "difference": difference, "percent": percent}
        policies[name] = {key: figure._asdict() for key, figure in figures.items()}
    return {**cell._asdict(), "published": dict(cell.published), "informed": cell.informed, "policies": policies}


# --- showing ---------------------------------------------------------------------------------------------------------
def _number(value: float | None, cell: Mapping[str, Any]) -> str:
    digits = 3 if cell["exact"] else 1 if cell["pulls"] >= 500 else 2
    return ABSENT if value is None else f"{value:.{digits}f}"


def _half(figure: Mapping[str, float]) -> float:
    return max(figure["high"] - figure["mean"], figure["mean"] - figure["low"])


def _value(name: str, cell: Mapping[str, Any], *, width: bool) -> str:
    """As measured, with half the interval's width if asked for; a dash where the policy did not play."""
    figure = cell["policies"][name].get("value")
    if figure is None:
        return ABSENT
    return _number(figure["mean"], cell) + (f" ± {_number(_half(figure), cell)}" if width else "")


def _percent(name: str, cell: Mapping[str, Any]) -> str:
    figure = cell["policies"][name].get("percent")
    return "" if figure is None else f"{figure['mean']:+.2f} ± {_half(figure):.2f} %"


def _published(name: str, cell: Mapping[str, Any]) -> str:
    value = cell["published"].get(name)
    return ABSENT if value is None else f"{value:.1f}"


def _bound(cell: Mapping[str, Any]) -> str:
    if cell["exact"]:
        return f"= {_number(cell['bound'], cell)}"
    known = [value for value in (cell["bound"], cell["informed"]) if value is not None]
    return f"≤ {_number(min(known), cell)}"


def _size(cell: Mapping[str, Any]) -> str:
    return f"{cell['pulls']}, {cell['arms']}"


def _brought(report: Mapping[str, Any]) -> list[str]:
    """What was measured beyond `FIELD`: means over seeds with these after them, other agents, baselines."""
    policies = {name: policy for name, policy in report["policies"].items() if name not in FIELD}
    means = [name for name, policy in policies.items() if policy["kind"] == "mean"]
    grouped = [name for mean in means for name in (mean, *policies[mean]["of"])]
    others = [name for name in policies if name not in grouped]
    return [*grouped, *sorted(others, key=lambda name: policies[name]["kind"] != "agent")]


def _modes(names: Sequence[str], report: Mapping[str, Any]) -> dict[str, list[str]]:
    """The names, by what their policies see."""
    titles = {True: "with running statistics", False: "without running statistics", None: "further baselines"}
    modes: dict[str, list[str]] = {title: [] for title in titles.values()}
    for name in names:
        modes[titles[report["policies"][name].get("statistics")]].append(name)
    return {title: members for title, members in modes.items() if members}


def _notes(report: Mapping[str, Any]) -> list[str]:
    """One sentence per agent and reason for the cells that it did not play."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for cell in report["cells"]:
        for name, figures in cell["policies"].items():
            if "note" in figures:
                reasons.setdefault((name, figures["note"]), []).append(f"({_size(cell)})")
    return [f"{name}: {note}; no result at (n, k) = {', '.join(sizes)}" for (name, note), sizes in reasons.items()]


def _heading(name: str, report: Mapping[str, Any]) -> str:
    policy = report["policies"][name]
    return f"{name} (mean of {len(policy['of'])})" if policy["kind"] == "mean" else name


def print_tables(report: Mapping[str, Any]) -> None:
    """The report of `play` on the terminal: baselines beside what is published, then what was brought."""
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError as error:
        raise ImportError("tables are drawn with rich: pip install 'recgym[agents]'") from error

    console = Console(width=None if sys.stdout.isatty() else 120)

    def draw(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> None:
        table = Table(title=title, caption=caption)
        for column in columns:
            table.add_column(column, justify="right")
        for i, (cell, row) in enumerate(zip(report["cells"], rows, strict=True)):
            last = i + 1 == len(rows) or report["cells"][i + 1]["pulls"] != cell["pulls"]
            table.add_row(_size(cell), *row, end_section=last)
        console.print(table)

    draw(
        f"RL^2's bandits: {report['trials']:,} common held-out trials a cell, seed {report['seed']}",
        ["n, k", "", *FIELD.values(), "optimum", *LEARNED.values()],
        [
            [
                "here\npublished",
                *(f"{_value(name, cell, width=False)}\n[dim]{_published(name, cell)}[/dim]" for name in FIELD),
                _bound(cell),
                *(f"\n[dim]{_published(name, cell)}[/dim]" for name in LEARNED),
            ]
            for cell in report["cells"]
        ],
        f"n pulls, k arms; total reward. Published: {SOURCES}",
    )
    for title, names in _modes(_brought(report), report).items():
        for start in range(0, len(names), ACROSS):
            shown = names[start : start + ACROSS]
            draw(
                title,
                ["n, k", "FHGI", *LEARNED.values(), *(_heading(name, report) for name in shown)],
                [
                    [
                        _value(REFERENCE, cell, width=False),
                        *(f"[dim]{_published(name, cell)}[/dim]" for name in LEARNED),
                        *(f"{_value(name, cell, width=True)}\n{_percent(name, cell)}" for name in shown),
                    ]
                    for cell in report["cells"]
                ],
                "± 95 % bootstrap interval; below it the paired difference to FHGI in % of FHGI",
            )
    for note in _notes(report):
        console.print(note, highlight=False)


def markdown(report: Mapping[str, Any]) -> str:
    """The report of `play` as Markdown: means stand for their seeds, which follow in a table of their own."""
    policies = report["policies"]
    seeds = [name for policy in policies.values() for name in policy.get("of", ())]
    shown = [name for name in _brought(report) if name not in seeds]

    def table(columns: Sequence[str], row: Callable[[Mapping[str, Any]], Sequence[str]]) -> list[str]:
        lines = [["n, k", *columns], ["---"] * (len(columns) + 1)]
        lines += [[_size(cell), *row(cell)] for cell in report["cells"]]
        return [f"| {' | '.join(line)} |" for line in lines]

    def measured(name: str, cell: Mapping[str, Any]) -> str:
        return ", ".join(filter(None, (_value(name, cell, width=True), _percent(name, cell))))

    lines = [
        f"Total reward of n pulls, k arms: {report['trials']:,} common held-out trials a cell, seed {report['seed']}; "
        f"in brackets as published ({SOURCES}).",
        "FHGI is the finite-horizon Gittins index. Optimum: the exact value (=) or an upper bound (≤).",
        *REMARKS,
        "",
        *table(
            [*FIELD.values(), "optimum", *LEARNED.values()],
            lambda cell: [
                *(f"{_value(name, cell, width=False)} ({_published(name, cell)})" for name in FIELD),
                _bound(cell),
                *(f"({_published(name, cell)})" for name in LEARNED),
            ],
        ),
    ]
    if shown:
        lines += [
            "",
            "± is the 95 % bootstrap interval over trials; after it the paired difference to FHGI in % of FHGI.",
            *(f"{title[0].upper()}{title[1:]}: {', '.join(names)}." for title, names in _modes(shown, report).items()),
            "",
            *table(
                ["FHGI", *LEARNED.values(), *(_heading(name, report) for name in shown)],
                lambda cell: [
                    _value(REFERENCE, cell, width=False),
                    *(f"({_published(name, cell)})" for name in LEARNED),
                    *(measured(name, cell) for name in shown),
                ],
            ),
        ]
    if seeds:
        lines += ["", "Each training seed:", "", *table(seeds, lambda cell: [measured(name, cell) for name in seeds])]
    notes = [f"- {note}" for note in _notes(report)]
    return "\n".join([*lines, *([""] if notes else []), *notes]) + "\n"
