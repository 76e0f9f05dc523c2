"""Show the report of `play_suite` beside what is published: on the terminal, as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from recgym.evaluation.rl2.published import BASELINES, LEARNERS, REFERENCE_BASELINE, SOURCES
from recgym.terminal import Table, say

__all__ = ["markdown", "print_tables"]

MAX_ACROSS = 4  # policies per table on the terminal: fits 120 columns
ABSENT = "–"
REMARKS = (
    'Under FHGI stands what is published as "Gittins", the best of several approximations; FHGI computes the index.',
    "The papers tuned UCB1 and ε-greedy cell by cell on the instances that they report; here they are tuned once, on "
    "validation tasks of 100 pulls of 10 arms. OTS is that of May et al. (2012), and the published one scores higher.",
)


# --- what stands in a cell -------------------------------------------------------------------------------------------
def _number(value: float, cell: Mapping[str, Any]) -> str:
    digits = 3 if cell["exact"] else 1 if cell["pulls"] >= 500 else 2
    return f"{value:.{digits}f}"


def _half_width(figure: Mapping[str, float]) -> float:
    return max(figure["high"] - figure["mean"], figure["mean"] - figure["low"])


def _value(name: str, cell: Mapping[str, Any], *, width: bool) -> str:
    """Write the value, with half the interval's width if asked for; a dash where the policy did not play."""
    figure = cell["policies"][name].get("value")
    if figure is None:
        return ABSENT
    mean = _number(figure["mean"], cell)
    return f"{mean} ± {_number(_half_width(figure), cell)}" if width else mean


def _percent(name: str, cell: Mapping[str, Any]) -> str:
    figure = cell["policies"][name].get("percent")
    return "" if figure is None else f"{figure['mean']:+.2f} ± {_half_width(figure):.2f} %"


def _value_and_percent(name: str, cell: Mapping[str, Any]) -> str:
    return ", ".join(filter(None, (_value(name, cell, width=True), _percent(name, cell))))


def _published(name: str, cell: Mapping[str, Any]) -> str:
    value = cell["published"].get(name)
    return ABSENT if value is None else f"{value:.1f}"


def _bound(cell: Mapping[str, Any]) -> str:
    """Write the exact value, or the lower of the upper bounds."""
    if cell["exact"]:
        return f"= {_number(cell['bound'], cell)}"
    bounds = [value for value in (cell["bound"], cell["informed"]) if value is not None]
    return f"≤ {_number(min(bounds), cell)}"


def _size(cell: Mapping[str, Any]) -> str:
    return f"{cell['pulls']}, {cell['arms']}"


# --- which policies stand where --------------------------------------------------------------------------------------
def _additions(report: Mapping[str, Any]) -> list[str]:
    """Order what played beyond `BASELINES`: means over seeds with these after them, other agents, baselines."""
    policies = {name: policy for name, policy in report["policies"].items() if name not in BASELINES}
    means = [name for name, policy in policies.items() if policy["kind"] == "mean"]
    families = [name for mean in means for name in (mean, *policies[mean]["of"])]
    others = [name for name in policies if name not in families]
    return [*families, *sorted(others, key=lambda name: policies[name]["kind"] != "agent")]


def _by_sight(names: Sequence[str], report: Mapping[str, Any]) -> dict[str, list[str]]:
    """Group the names by what their policies see."""
    titles = {True: "with running statistics", False: "without running statistics", None: "further baselines"}
    groups: dict[str, list[str]] = {title: [] for title in titles.values()}
    for name in names:
        groups[titles[report["policies"][name].get("statistics")]].append(name)
    return {title: members for title, members in groups.items() if members}


def _notes(report: Mapping[str, Any]) -> list[str]:
    """Write one sentence per agent and reason for the cells that it did not play."""
    sizes: dict[tuple[str, str], list[str]] = {}
    for cell in report["cells"]:
        for name, policy in cell["policies"].items():
            if "note" in policy:
                sizes.setdefault((name, policy["note"]), []).append(f"({_size(cell)})")
    return [f"{name}: {note}; no result at (n, k) = {', '.join(cells)}" for (name, note), cells in sizes.items()]


def _heading(name: str, report: Mapping[str, Any]) -> str:
    policy = report["policies"][name]
    return f"{name} (mean of {len(policy['of'])})" if policy["kind"] == "mean" else name


# --- the terminal ----------------------------------------------------------------------------------------------------
def print_tables(report: Mapping[str, Any]) -> None:
    """Print the baselines beside what is published, then the policies that were added.

    Raises:
        ImportError: rich is not installed (names the extra).
    """

    def draw(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> None:
        table = Table(title, columns)
        table.caption = caption
        for i, (cell, row) in enumerate(zip(report["cells"], rows, strict=True)):
            last = i + 1 == len(rows) or report["cells"][i + 1]["pulls"] != cell["pulls"]
            table.add(_size(cell), *row, last=last)
        table.show()

    draw(
        f"RL^2's bandits: {report['trials']:,} common held-out trials a cell, seed {report['seed']}",
        ["n, k", "", *BASELINES.values(), "optimum", *LEARNERS.values()],
        [
            [
                "here\npublished",
                *(f"{_value(name, cell, width=False)}\n{_published(name, cell)}" for name in BASELINES),
                _bound(cell),
                *(f"\n{_published(name, cell)}" for name in LEARNERS),
            ]
            for cell in report["cells"]
        ],
        f"n pulls, k arms; total reward. Published: {SOURCES}",
    )
    for title, names in _by_sight(_additions(report), report).items():
        for start in range(0, len(names), MAX_ACROSS):
            members = names[start : start + MAX_ACROSS]
            draw(
                title,
                ["n, k", "FHGI", *LEARNERS.values(), *(_heading(name, report) for name in members)],
                [
                    [
                        _value(REFERENCE_BASELINE, cell, width=False),
                        *(_published(name, cell) for name in LEARNERS),
                        *(f"{_value(name, cell, width=True)}\n{_percent(name, cell)}" for name in members),
                    ]
                    for cell in report["cells"]
                ],
                "± 95 % bootstrap interval; below it the paired difference to FHGI in % of FHGI",
            )
    for note in _notes(report):
        say(note)


# --- Markdown --------------------------------------------------------------------------------------------------------
def markdown(report: Mapping[str, Any]) -> str:
    """Write the report as Markdown: means stand for their seeds, which follow in a table of their own."""
    seeds = [name for policy in report["policies"].values() for name in policy.get("of", ())]
    additions = [name for name in _additions(report) if name not in seeds]
    notes = [f"- {note}" for note in _notes(report)]
    lines = _markdown_baselines(report)
    if additions:
        lines += ["", *_markdown_additions(report, additions)]
    if seeds:
        table = _markdown_table(report, seeds, lambda cell: [_value_and_percent(name, cell) for name in seeds])
        lines += ["", "Each training seed:", "", *table]
    if notes:
        lines += ["", *notes]
    return "\n".join(lines) + "\n"


def _markdown_table(
    report: Mapping[str, Any], columns: Sequence[str], row: Callable[[Mapping[str, Any]], Sequence[str]]
) -> list[str]:
    """Write one line per cell, from what `row` makes of it."""
    lines = [["n, k", *columns], ["---"] * (len(columns) + 1)]
    lines += [[_size(cell), *row(cell)] for cell in report["cells"]]
    return [f"| {' | '.join(line)} |" for line in lines]


def _markdown_baselines(report: Mapping[str, Any]) -> list[str]:
    return [
        f"Total reward of n pulls, k arms: {report['trials']:,} common held-out trials a cell, seed {report['seed']}; "
        f"in brackets as published ({SOURCES}).",
        "FHGI is the finite-horizon Gittins index. Optimum: the exact value (=) or an upper bound (≤).",
        *REMARKS,
        "",
        *_markdown_table(
            report,
            [*BASELINES.values(), "optimum", *LEARNERS.values()],
            lambda cell: [
                *(f"{_value(name, cell, width=False)} ({_published(name, cell)})" for name in BASELINES),
                _bound(cell),
                *(f"({_published(name, cell)})" for name in LEARNERS),
            ],
        ),
    ]


def _markdown_additions(report: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    groups = _by_sight(names, report)
    return [
        "± is the 95 % bootstrap interval over trials; after it the paired difference to FHGI in % of FHGI.",
        *(f"{title[0].upper()}{title[1:]}: {', '.join(members)}." for title, members in groups.items()),
        "",
        *_markdown_table(
            report,
            ["FHGI", *LEARNERS.values(), *(_heading(name, report) for name in names)],
            lambda cell: [
                _value(REFERENCE_BASELINE, cell, width=False),
                *(f"({_published(name, cell)})" for name in LEARNERS),
                *(_value_and_percent(name, cell) for name in names),
            ],
        ),
    ]
