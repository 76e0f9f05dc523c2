"""What an evaluation shows: JSON, a table on the terminal, figures."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import recgym
from recgym.data import TransactionLog
from recgym.evaluation.statistics import Interval
from recgym.evaluation.summary import Summary
from recgym.evaluation.trials import Trials, action_shares

__all__ = [
    "action_figure",
    "curves_figure",
    "environments_markdown",
    "print_shares",
    "print_table",
    "print_transactions",
    "report_json",
]

KNOWS = {"prior-free": "nothing", "prior-aware": "task distribution", "informed": "the task", "agent": "its training"}
SIGNS = {1: "+", 0: " ", -1: "-"}
Z95 = 1.959963984540054
MOST_INSIDE = 12  # curves whose legend fits into the figure


def report_json(
    summaries: Mapping[str, Summary],
    *,
    env: str,
    parameters: Mapping[str, Any],
    trials: int,
    seed: int,
    reference: str,
    kinds: Mapping[str, str],
) -> dict[str, Any]:
    """The report as JSON can carry it."""

    def plain(value: Any) -> Any:
        return {key: plain(item) for key, item in value.items()} if isinstance(value, dict) else value._asdict()

    policies = {}
    for name, summary in summaries.items():
        figures = {key: plain(value) for key, value in summary._asdict().items() if value is not None}
        policies[name] = {"kind": kinds.get(name, "agent"), "return": figures.pop("returns"), **figures}
    return {
        "env": env,
        "parameters": dict(parameters),
        "trials": trials,
        "seed": seed,
        "reference": reference,
        "policies": policies,
    }


def _sign(gain: Mapping[str, float]) -> int:
    """Of a difference whose whole interval lies on one side of 0; else 0."""
    return int(gain["low"] > 0) - int(gain["high"] < 0)


def _terminal(title: str) -> tuple[Any, Any]:
    """Where to print, and an empty table."""
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError as error:
        raise ImportError("tables are drawn with rich: pip install 'recgym[agents]'") from error
    return Console(width=None if sys.stdout.isatty() else 120), Table(title=title)


def print_table(report: Mapping[str, Any], *, title: str = "") -> None:
    """The report as a table on the terminal, best return first."""
    console, table = _terminal(title or f"{report['env']}: {report['trials']:,} held-out trials, seed {report['seed']}")

    def figure(value: Mapping[str, float], digits: int) -> str:
        half = max(value["high"] - value["mean"], value["mean"] - value["low"])
        return f"{value['mean']:.{digits}f} ± {half:.{digits}f}"

    table.add_column("policy")
    bounded = "of_bound" in next(iter(report["policies"].values()))  # regret of the moment is no measure there
    measure = "% of bound" if bounded else "regret"
    for heading in ("knows", "return", measure, "normalised", f"minus {report['reference']}"):
        table.add_column(heading, justify="right")
    rows = sorted(report["policies"].items(), key=lambda item: -item[1]["return"]["mean"])
    for name, policy in rows:
        gain = policy["versus"][report["reference"]]
        table.add_row(
            name,
            KNOWS[policy["kind"]],
            figure(policy["return"], 2),
            figure({k: 100 * v for k, v in policy["of_bound"].items()}, 1) if bounded else figure(policy["regret"], 2),
            figure(policy["normalised"], 3),
            f"{figure(gain, 2)} {SIGNS[_sign(gain)]}",
            style="bold" if policy["kind"] == "agent" else None,
        )
    table.caption = "± 95 % bootstrap interval; + / -: the whole paired interval is above / below 0"
    console.print(table)
    for name, policy in rows:
        if policy["kind"] == "agent":
            for sign, meaning in ((1, "is above"), (0, "cannot be told from"), (-1, "is below")):
                others = [other for other, _ in rows if other != name and _sign(policy["versus"][other]) == sign]
                if others:
                    console.print(f"{name} {meaning} {', '.join(others)}", highlight=False)


def print_shares(shares: Mapping[str, Interval]) -> None:
    """Each policy's return in percent of the informed policy's, on the terminal, best first."""
    console, table = _terminal("percent of the informed policy's return")
    table.add_column("policy")
    table.add_column("percent", justify="right")
    for name, (mean, low, high) in sorted(shares.items(), key=lambda item: -item[1].mean):
        table.add_row(name, f"{100 * mean:.1f} ({100 * low:.1f} to {100 * high:.1f})")
    table.caption = "95 % bootstrap interval, paired"
    console.print(table)


def print_transactions(log: TransactionLog, parameters: Mapping[str, Any], origins: Mapping[str, str]) -> None:
    """What a log of sales says of demand, and where the parameters of the scenario come from, on the terminal.

    Args:
        log: the log.
        parameters: of the scenario, all of them.
        origins: where each of them comes from; see `TransactionLog.origins`.
    """
    console, table = _terminal(f"demand in {log.path}, {len(log.sales):,} rows")
    table.add_column("product")
    for heading in ("rows", "base price", "sales at it", "price elasticity", "promotion lift, %", "residual, log"):
        table.add_column(heading, justify="right")
    for fit in log.fits:
        lift = f"{100 * fit.lift:.0f} ± {100 * fit.lift_error:.0f}" if np.isfinite(fit.lift) else "assumed"
        elasticity = f"{-fit.elasticity:.2f} ± {fit.elasticity_error:.2f}"
        figures = (f"{fit.base_price:.4g}", f"{np.exp(fit.level):,.4g}", elasticity, lift, f"{fit.residual:.2f}")
        table.add_row(fit.product, f"{fit.rows:,}", *figures)
    table.caption = "± standard error; associational: prices and promotions were not drawn at random"
    console.print(table)

    _, table = _terminal("held-out demand error")
    table.add_column("model")
    for heading in ("root mean square, log sales", "mean absolute, % of sales"):
        table.add_column(heading, justify="right")
    for model, error in log.held_out.items():
        table.add_row(model, f"{error.rmse:.3f} ± {error.error:.3f}", f"{100 * error.ape:.0f}")
    console.print(table)

    _, table = _terminal("parameters of the task distribution")
    table.add_column("origin")
    table.add_column("parameters")
    for origin in dict.fromkeys(origins.values()):
        names = [name for name, found in origins.items() if found == origin]
        table.add_row(origin, "; ".join(f"{name} {parameters[name]}" for name in names))
    console.print(table)


def curves_figure(
    results: Mapping[str, Trials], scenario: Any, *, title: str = "", emphasise: Sequence[str] = ()
) -> Any:
    """What each policy lacks so far over the decisions of a trial, mean with a 95 % band. A matplotlib Figure.

    Regret against the best action of the moment; where that is no measure (see `Scenario.myopic`) the reward so far
    behind the informed policy's.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("figures are drawn with matplotlib: pip install 'recgym[plot]'") from error
    figure = Figure(figsize=(8, 5), dpi=110, layout="constrained")
    axes = figure.subplots()
    behind = not scenario.myopic
    lacking = {
        name: np.cumsum(results["informed"].rewards - trials.rewards if behind else trials.regret, axis=1, dtype=float)
        for name, trials in results.items()
    }
    for place, (name, curve) in enumerate(sorted(lacking.items(), key=lambda item: float(item[1][:, -1].sum()))):
        mean, half = curve.mean(axis=0), Z95 * curve.std(axis=0) / np.sqrt(len(curve))
        decisions = np.arange(1, curve.shape[1] + 1)
        width, order = (2.6, 3) if name in emphasise else (1.3, 2)
        dash = "-" if place < 10 else "--"  # there are ten colours
        (line,) = axes.plot(decisions, mean, dash, label=f"{name}  {mean[-1]:.1f}", linewidth=width, zorder=order)
        axes.fill_between(decisions, mean - half, mean + half, color=line.get_color(), alpha=0.2, linewidth=0)
    what = "behind the informed policy" if behind else "regret"
    axes.set(xlabel="decision", ylabel=f"{what} so far (reward), lower is better", title=title)
    if not behind:
        axes.set_ylim(bottom=0)
    look: dict[str, Any] = {"fontsize": 9, "frameon": False, "title": "policy, at the end"}
    if len(results) > MOST_INSIDE:  # they would cover the curves
        figure.legend(**look, loc="outside right upper")
    else:
        axes.legend(**look)
    return figure


def action_figure(trials: Trials, scenario: Any, *, title: str = "") -> Any:
    """What was chosen, and how often it was the best, over the decisions of a trial. A matplotlib Figure.

    The best is that of the moment, and not shown where it is no measure (see `Scenario.myopic`). Candidates that have
    names are coloured in their order.
    """
    try:
        from matplotlib import colormaps
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("figures are drawn with matplotlib: pip install 'recgym[plot]'") from error
    figure = Figure(figsize=(8, 5), dpi=110, layout="constrained")
    axes = figure.subplots()
    shares = action_shares(trials, scenario.layout.candidates)
    decisions = np.arange(1, len(shares) + 1)
    names = scenario.candidate_names
    if names is None:
        axes.stackplot(decisions, shares.T, alpha=0.6)
    else:
        bands = axes.stackplot(decisions, shares.T, colors=colormaps["viridis"](np.linspace(0, 1, len(names))))
        figure.legend(bands[::-1], names[::-1], fontsize=8, frameon=False, loc="outside right center")
    if scenario.myopic:
        best = (trials.regret <= 1e-6).mean(axis=0)
        axes.plot(decisions, best, color="black", linewidth=2, label="share of best choices")
        axes.legend(loc="upper left", fontsize=9)
    axes.set(xlabel="decision", ylabel="share of trials", ylim=(0, 1), title=title)
    axes.set_xlim(decisions[0], max(decisions[-1], decisions[0] + 1))
    return figure


def environments_markdown() -> str:
    """The registered environments and the fields of their observations, as the README shows them."""
    lines = ["| id | what it is | candidates | decisions |", "|---|---|---|---|"]
    built = {env_id: recgym.make_scenario(env_id) for env_id in recgym.SCENARIOS}
    for env_id, scenario in built.items():
        first = recgym.SCENARIOS[env_id].about or (type(scenario).__doc__ or "").strip().splitlines()[0]
        lines.append(f"| `{env_id}` | {first} | {scenario.layout.candidates} | {scenario.horizon} |")
    for env_id, scenario in built.items():
        layout, (start, step, total) = scenario.layout, scenario.layout.sizes
        lines += ["", f"`{env_id}` observes {total} numbers; i counts candidates from 0.", ""]
        lines += ["| index | name | range | meaning |", "|---|---|---|---|"]
        column = 0
        for field in layout.context:
            index = str(column) if field.width == 1 else f"{column} to {column + field.width - 1}"
            lines.append(f"| {index} | `{field.name}` | {field.low:.3g} to {field.high:.3g} | {field.meaning} |")
            column += field.width
        for field in layout.candidate:
            index = f"{start} + {step} i" if field.width == 1 else f"{start} to {start + field.width - 1}, + {step} i"
            lines.append(f"| {index} | `{field.name}` | {field.low:.3g} to {field.high:.3g} | {field.meaning} |")
            start += field.width
    return "\n".join(lines)


if __name__ == "__main__":
    print(environments_markdown())
