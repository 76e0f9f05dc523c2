"""What an evaluation shows: JSON, a table on the terminal, figures."""

from __future__ import annotations

import math
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from recgym.baselines import baselines_for
from recgym.evaluation.comparison import Comparison, evaluate
from recgym.evaluation.drawing import new_figure
from recgym.evaluation.groups import cut_json, print_cut
from recgym.evaluation.statistics import Z95, ratio, shown
from recgym.evaluation.summary import Summary
from recgym.evaluation.trials import ARGMAX, CHUNK, TEST_SEED, Trials, action_shares
from recgym.scenario import Scenario
from recgym.terminal import Table, check_tables, progress, say, width_of

if TYPE_CHECKING:
    from recgym.data import ImpressionLog, RatingLog, TransactionLog

__all__ = [
    "FIGURE_ENDINGS",
    "KNOWS",
    "action_figure",
    "check_drawable",
    "compare",
    "curves_figure",
    "print_comparison",
    "print_impressions",
    "print_ratings",
    "print_shares",
    "print_table",
    "print_transactions",
    "report_json",
]

KNOWS = {"prior-free": "nothing", "prior-aware": "task distribution", "informed": "the task", "agent": "its training"}
ABOVE = "+ / -: the whole paired interval is above / below 0"
SIGNS = {1: "+", 0: " ", -1: "-"}
MAX_INSIDE = 12  # curves whose legend fits into the figure
LINE = 120  # characters, of what is no terminal
MOST_PRODUCTS = 30  # that a table lists
ENDS = 2  # random and informed are played beside what is asked for
FIGURE_ENDINGS = (".png", ".pdf", ".svg")


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
    """Put figures into a report as JSON can carry it."""

    def fields_of(value: Any) -> Any:
        return {key: fields_of(item) for key, item in value.items()} if isinstance(value, dict) else value._asdict()

    policies = {}
    for name, summary in summaries.items():
        fields = {key: fields_of(value) for key, value in summary._asdict().items() if value is not None}
        policies[name] = {"kind": kinds.get(name, "agent"), "return": fields.pop("returns"), **fields}
    return {
        "env": env,
        "parameters": dict(parameters),
        "trials": trials,
        "seed": seed,
        "reference": reference,
        "policies": policies,
    }


def _sign(gain: Mapping[str, float]) -> int:
    """Give the sign of a difference whose whole interval lies on one side of 0; else 0."""
    return int(gain["low"] > 0) - int(gain["high"] < 0)


def print_table(report: Mapping[str, Any], *, title: str = "") -> None:
    """Print the report as a table, best return first."""
    first = next(iter(report["policies"].values()))
    bounded = "of_bound" in first  # regret of the moment is no measure there
    solved = "normalised" in first
    scores = ("% of bound" if bounded else "regret", "normalised") if solved else ()
    extra = tuple(first.get("figures", {}))
    headings = ("policy", "knows", "return", *scores, f"minus {report['reference']}", *extra)
    table = Table(
        title or f"{report['env']}: {report['trials']:,} held-out trials, seed {report['seed']}",
        headings,
        left=("knows",),
        spare=("knows", *extra, *scores[:1]),
    )
    rows = sorted(report["policies"].items(), key=lambda item: -item[1]["return"]["mean"])
    for name, policy in rows:
        gain = policy["versus"][report["reference"]]
        table.add(
            name,
            KNOWS[policy["kind"]],
            shown(policy["return"], 2),
            *_score_cells(policy),
            f"{shown(gain, 2)} {SIGNS[_sign(gain)]}",
            *(shown(policy["figures"][key], 2) for key in extra),
            bold=policy["kind"] == "agent",
        )
    table.caption = "± 95 % bootstrap interval, from low to high where it is skewed; " + ABOVE
    table.show()
    if not solved:
        say("no optimum is known for these weights: no regret, no bound and no normalised score")
    if report["parameters"].get("weights"):
        say("baselines play for the default reward, not for these weights; so do agents that were trained without them")
    for name, policy in rows:
        if policy["kind"] == "agent":
            for sign, meaning in ((1, "is above"), (0, "cannot be told from"), (-1, "is below")):
                others = [other for other, _ in rows if other != name and _sign(policy["versus"][other]) == sign]
                if others:
                    say(f"{name} {meaning} {', '.join(others)}")


def _score_cells(policy: Mapping[str, Any]) -> list[str]:
    """Give the cells of a policy that need an optimum."""
    if "normalised" not in policy:
        return []
    if "of_bound" in policy:
        share = shown({key: 100 * value for key, value in policy["of_bound"].items()}, 1)
        return [share, shown(policy["normalised"], 3)]
    return [shown(policy["regret"], 2), shown(policy["normalised"], 3)]


def check_drawable(*, figure: bool) -> None:
    """Fail before the work rather than after it.

    Raises:
        ImportError: what draws tables, or figures, is not installed.
    """
    check_tables()
    if figure:
        new_figure()


def compare(
    scenario: Any,
    policies: Mapping[str, Any],
    *,
    env: str,
    parameters: Mapping[str, Any],
    trials: int,
    seed: int,
    by: str | None = None,
) -> tuple[Comparison, dict[str, Any]]:
    """Evaluate policies on held-out trials, with a progress bar on a terminal.

    Args:
        scenario: what is played.
        policies: by name, as `evaluate` takes them.
        env: what the report calls the environment.
        parameters: with which that gives this scenario.
        trials: per policy.
        seed: which held-out tasks, counted from `TEST_SEED`.
        by: what the report is also cut by; see `evaluate`.

    Returns:
        What was compared, and the report.
    """
    known = baselines_for(scenario)  # no agent can have the name of one
    each = scenario.horizon * -(-trials // CHUNK)  # decisions of all trials together
    names: list[str] = []
    with progress("decisions", each * (len(policies) + ENDS)) as advance:

        def show(name: str, decisions: int) -> None:
            if name not in names:
                names.append(name)
            advance(each * (len(names) - 1) + decisions, what=name)

        comparison = evaluate(scenario, policies, trials=trials, seed=TEST_SEED + seed, by=by, on_step=show)
    results = comparison.trials
    report = report_json(
        comparison.summaries,
        env=env,
        parameters=parameters,
        trials=trials,
        seed=seed,
        reference=comparison.reference,
        kinds={name: b.kind for name in results if (b := known.get(name.removesuffix(ARGMAX))) is not None},
    )
    _add_gaps(report, results, [name for name in results if name in known and known[name].kind == "prior-aware"])
    if comparison.cut is not None:
        report["cut"] = cut_json(comparison.cut)
    return comparison, report


def print_comparison(report: Mapping[str, Any]) -> None:
    """Print a report of `compare`: the table, what each agent closes of a gap, and the cut where there is one."""
    print_table(report)
    for agent, policy in report["policies"].items():
        for name, share in policy.get("gap_closed", {}).items():
            if share["mean"] > 0:  # who is below the reference is said to be so above
                interval = f"{share['mean']:.0%} ({share['low']:.0%} to {share['high']:.0%})"
                say(f"{agent} closes {interval} of the gap from {report['reference']} to {name}")
    if "cut" in report:
        print_cut(report["cut"])


def _add_gaps(report: Mapping[str, Any], results: Mapping[str, Trials], aware: Sequence[str]) -> None:
    """Add what each agent closes of the gap from the reference to the prior-aware policies."""
    reference = report["reference"]
    free = results[reference].returns
    for agent in (name for name, policy in report["policies"].items() if policy["kind"] == "agent"):
        shares = {name: ratio(results[agent].returns - free, results[name].returns - free) for name in aware}
        shares = {name: share for name, share in shares.items() if math.isfinite(share.mean)}
        report["policies"][agent]["gap_closed"] = {name: share._asdict() for name, share in shares.items()}


def print_shares(shares: Mapping[str, Mapping[str, float]]) -> None:
    """Print each policy's return in percent of the informed policy's, best first."""
    table = Table("percent of the informed policy's return", ("policy", "percent"))
    for name, share in sorted(shares.items(), key=lambda item: -item[1]["mean"]):
        mean, low, high = (100 * share[part] for part in ("mean", "low", "high"))
        table.add(name, f"{mean:.1f} ({low:.1f} to {high:.1f})")
    table.caption = "95 % bootstrap interval, paired"
    table.show()


def print_transactions(log: TransactionLog, parameters: Mapping[str, Any], origins: Mapping[str, str]) -> None:
    """Print what a log of sales says of demand, and where the parameters of the scenario come from.

    Args:
        log: the log.
        parameters: of the scenario, all of them.
        origins: where each of them comes from; see `TransactionLog.origins`.
    """
    headings = (
        "product",
        "rows",
        "base price",
        "sales at it",
        "price elasticity",
        "promotion lift, %",
        "residual, log",
    )
    spare = ("residual, log", "rows", "sales at it", "base price")
    table = Table(f"demand in {log.path}, {len(log.sales):,} rows", headings, spare=spare)
    for fit in log.fits[:MOST_PRODUCTS]:
        lift = f"{100 * fit.lift:.0f} ± {100 * fit.lift_error:.0f}" if np.isfinite(fit.lift) else "assumed"
        elasticity = f"{-fit.elasticity:.2f} ± {fit.elasticity_error:.2f}"
        residual = f"{fit.residual:.2f}" if fit.model == "log-log" else "-"
        figures = (f"{fit.base_price:.4g}", f"{np.exp(fit.level):,.4g}", elasticity, lift, residual)
        table.add(fit.product, f"{fit.rows:,}", *figures)
    table.caption = "± standard error; associational: prices and promotions were not drawn at random"
    if len(log.fits) > MOST_PRODUCTS:
        table.caption += f"\nand {len(log.fits) - MOST_PRODUCTS:,} more products, in the report"
    table.show()

    for reason, rows in log.left_out.items():
        say(f"left out: {rows:,} rows, {reason}")
    if log.unfit:
        done = {"drop": "left out", "pool": "pooled"}.get(str(log.few_rows), "")
        such = f"{log.unfit[0].product}, which {log.unfit[0].reason}"
        say(f"{done}: {len(log.unfit):,} of {len(log.products):,} products, such as {such}")
    if log.held_out:
        table = Table("held-out demand error", ("model", "root mean square, log sales", "mean absolute, % of sales"))
        for model, error in log.held_out.items():
            table.add(model, f"{error.rmse:.3f} ± {error.error:.3f}", f"{100 * error.ape:.0f}")
        table.show()

    print_origins(parameters, origins)


def print_ratings(log: RatingLog, parameters: Mapping[str, Any], origins: Mapping[str, str]) -> None:
    """Print what a log of ratings says of users and items, and where the parameters of the scenario come from.

    Args:
        log: the log.
        parameters: of the scenario, all of them.
        origins: where each of them comes from; see `RatingLog.origins`.
    """
    what = "clicks and the like, beside as many items that were not touched"
    if log.threshold is not None:
        what = f"liked from {log.threshold:.3g} on, {log.likes.liked.mean():.0%} of the rows"
    say(f"{what}; logits by taste {log.fit.strength:.2f}, by appeal {log.fit.appeal_sd:.2f} (standard deviation)")
    table = Table("what was liked, held-out rows", ("model", "log loss, nats", "area under the curve, by user"))
    for name, scores in {**log.held_out, "taste, items not seen": log.cold_start}.items():
        loss, auc = f"{scores.log_loss:.4f} ± {scores.error:.4f}", f"{scores.auc:.3f} ± {scores.auc_error:.3f}"
        table.add(name, loss, auc)
    table.caption = "± standard error; of rows that were shown or sought, not of rows drawn at random"
    table.show()
    print_origins(parameters, origins)


def print_impressions(log: ImpressionLog, parameters: Mapping[str, Any], origins: Mapping[str, str]) -> None:
    """Print what a log of impressions says of a campaign, and where the parameters of the scenario come from.

    Args:
        log: the log.
        parameters: of the scenario, all of them.
        origins: where each of them comes from; see `ImpressionLog.origins`.
    """
    won, clicks = int(log.won.sum()), int(log.clicked.sum())
    table = Table(f"campaign in {log.path}: {won:,} impressions, {clicks:,} clicks", ("what", "estimate"))
    for name, value, error, unit in log.estimates:
        table.add(name, f"{value:.4g} ± {error:.2g} {unit}" if math.isfinite(error) else f"{value:.4g} {unit}")
    table.caption = "± standard error; what creatives and hours went with: nobody drew them at random"
    table.show()
    for reason, rows in log.left_out.items():
        say(f"left out: {rows:,} rows, {reason}")
    headings = ("model", "log loss", "less than constant")
    table = Table(f"clicks, nats per thousand impressions, held out: {log.split}", headings)
    for name, scores in log.held_out.items():
        gain = "" if name == "constant" else f"{scores.gain:.3f} ± {scores.gain_error:.3f}"
        table.add(name, f"{scores.log_loss:.3f} ± {scores.error:.3f}", gain)
    table.show()
    wrong = log.win_error
    off = f"{100 * wrong.mean:.1f} % on average, {100 * wrong.worst:.1f} % at most"
    say(f"win rates, held out: off by {off} ({wrong.of})")
    print_origins(parameters, origins)


def print_origins(parameters: Mapping[str, Any], origins: Mapping[str, str]) -> None:
    """Print parameters of a scenario by where they come from."""
    say("parameters of the task distribution")
    width = width_of(sys.stdout) or LINE
    for origin in dict.fromkeys(origins.values()):
        names = [name for name, source in origins.items() if source == origin]
        text = f"{origin}: " + "; ".join(f"{name} {parameters[name]}" for name in names)
        say(textwrap.fill(text, width, subsequent_indent="  ", break_on_hyphens=False))


def curves_figure(
    results: Mapping[str, Trials], scenario: Any, *, title: str = "", emphasise: Sequence[str] = ()
) -> Any:
    """Draw what each policy lacks so far over the decisions of a trial, mean with a 95 % band; a matplotlib Figure.

    Regret against the best action of the moment; where that is no measure (see `Scenario.myopic`) the reward so far
    behind the informed policy's. Without an optimum the reward so far.
    """
    figure, axes = new_figure()
    curves, label = _curves(results, scenario)
    for place, (name, curve) in enumerate(sorted(curves.items(), key=lambda item: float(item[1][:, -1].sum()))):
        mean, half = curve.mean(axis=0), Z95 * curve.std(axis=0) / np.sqrt(len(curve))
        decisions = np.arange(1, curve.shape[1] + 1)
        width, order = (2.6, 3) if name in emphasise else (1.3, 2)
        dash = "-" if place < 10 else "--"  # there are ten colours
        (line,) = axes.plot(decisions, mean, dash, label=f"{name}  {mean[-1]:.1f}", linewidth=width, zorder=order)
        axes.fill_between(decisions, mean - half, mean + half, color=line.get_color(), alpha=0.2, linewidth=0)
    axes.set(xlabel="decision", ylabel=label, title=title)
    if scenario.solved and scenario.myopic:
        axes.set_ylim(bottom=0)
    look: dict[str, Any] = {"fontsize": 9, "frameon": False, "title": "policy, at the end"}
    if len(results) > MAX_INSIDE:  # they would cover the curves
        figure.legend(**look, loc="outside right upper")
    else:
        axes.legend(**look)
    return figure


def _curves(results: Mapping[str, Trials], scenario: Scenario) -> tuple[dict[str, np.ndarray], str]:
    """Give the curves [N, T] of each policy, and what they are."""
    if not scenario.solved:
        columns = {name: trials.rewards for name, trials in results.items()}
        label = "reward so far"
    elif scenario.myopic:
        columns = {name: trials.regret for name, trials in results.items()}
        label = "regret so far (reward), lower is better"
    else:
        columns = {name: results["informed"].rewards - trials.rewards for name, trials in results.items()}
        label = "behind the informed policy so far (reward), lower is better"
    return {name: np.cumsum(column, axis=1, dtype=float) for name, column in columns.items()}, label


def action_figure(trials: Trials, scenario: Any, *, title: str = "") -> Any:
    """Draw what was chosen, and how often it was the best, over the decisions of a trial; a matplotlib Figure.

    The best is that of the moment, and not shown where it is no measure (see `Scenario.myopic`). Candidates that have
    names are coloured in their order.
    """
    figure, axes = new_figure()
    shares = action_shares(trials, scenario.layout.candidates)
    decisions = np.arange(1, len(shares) + 1)
    names = scenario.candidate_names
    if names is None:
        axes.stackplot(decisions, shares.T, alpha=0.6)
    else:
        from matplotlib import colormaps

        bands = axes.stackplot(decisions, shares.T, colors=colormaps["viridis"](np.linspace(0, 1, len(names))))
        figure.legend(bands[::-1], names[::-1], fontsize=8, frameon=False, loc="outside right center")
    if scenario.myopic and scenario.solved:
        best = (trials.regret <= 1e-6).mean(axis=0)
        axes.plot(decisions, best, color="black", linewidth=2, label="share of best choices")
        axes.legend(loc="upper left", fontsize=9)
    axes.set(xlabel="decision", ylabel="share of trials", ylim=(0, 1), title=title)
    axes.set_xlim(decisions[0], max(decisions[-1], decisions[0] + 1))
    return figure
