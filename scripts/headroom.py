"""What the environments leave to learn, and what policies reach of the bound on any: tables of `benchmark.py`."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.table import Table

import recgym
from recgym.baselines import baselines_for
from recgym.evaluation import TEST_SEED, Interval, evaluate, headroom
from recgym.evaluation.report import KNOWS

LEARNABLE = [env_id for env_id, preset in recgym.SCENARIOS.items() if not preset.reference]
HORIZONS = (30, 100)  # decisions: short and long beside what is learned in them


def headrooms(trials: int) -> dict[str, dict[str, Any]]:
    """The headroom check of every preset, as a table on the terminal and as JSON can carry it."""
    table = Table(title=f"headroom: {trials:,} trials per policy, 95 % paired intervals of the return")
    for heading in ("environment", "best prior-free", "above random", "below informed", "range left", "best constant"):
        table.add_column(heading)
    table.add_column("% of bound")
    table.add_column("passed")
    found = {}
    for env_id in LEARNABLE:
        print(f"headroom of {env_id} ...", file=sys.stderr, flush=True)
        result = headroom(recgym.make_scenario(env_id), trials=trials)
        gain, gap = (f"{i.mean:.2f} ({i.low:.2f} to {i.high:.2f})" for i in (result.gain, result.gap))
        share = f"{result.constant:.0%} of informed"
        bounded = percent(result.of_bound) if result.of_bound else ""
        passed = "yes" if result.passed else "no"
        table.add_row(env_id, result.best, gain, gap, f"{result.left:.0%}", share, bounded, passed)
        found[env_id] = {k: v._asdict() if isinstance(v, Interval) else v for k, v in result._asdict().items()}
    Console(width=None if sys.stdout.isatty() else 180).print(table)
    return found


def percent(share: Interval) -> str:
    return f"{100 * share.mean:.1f} ({100 * share.low:.1f} to {100 * share.high:.1f})"


def percents_of_bound(trials: int) -> dict[str, Any]:
    """What classical policies reach of the bound on any, by horizon: a table on the terminal, and as JSON."""
    found: dict[str, Any] = {}
    for env_id in LEARNABLE:
        if not hasattr(recgym.make_scenario(env_id), "bound"):
            continue
        table = Table(title=f"{env_id}: percent of the bound on any policy, {trials:,} trials, 95 % intervals")
        for heading in ("policy", "knows", *(f"{horizon} decisions" for horizon in HORIZONS)):
            table.add_column(heading)
        cells: dict[str, list[Interval | None]] = {}
        for horizon in HORIZONS:
            print(f"bound of {env_id}, {horizon} decisions ...", file=sys.stderr, flush=True)
            scenario = recgym.make_scenario(env_id, horizon=horizon)
            names = dict.fromkeys(baselines_for(scenario))
            summaries = evaluate(scenario, names, trials=trials, seed=TEST_SEED).summaries
            for name, summary in summaries.items():
                cells.setdefault(name, []).append(summary.of_bound)
        known = baselines_for(recgym.make_scenario(env_id))
        for name, shares in sorted(cells.items(), key=lambda item: -(item[1][0] or Interval(0, 0, 0)).mean):
            table.add_row(name, KNOWS[known[name].kind], *(percent(share) for share in shares if share))
        Console(width=None if sys.stdout.isatty() else 180).print(table)
        found[env_id] = {
            name: {str(h): s._asdict() for h, s in zip(HORIZONS, shares, strict=True) if s}
            for name, shares in cells.items()
        }
    return found
