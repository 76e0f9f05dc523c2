"""Is there something to learn in a scenario, and do the known policies leave something to win?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import recgym
from recgym.baselines import ConstantPolicy, baselines_for
from recgym.evaluation.comparison import evaluate
from recgym.evaluation.report import KNOWS
from recgym.evaluation.statistics import Interval
from recgym.evaluation.trials import TEST_SEED, rollout, upper_bounds
from recgym.terminal import Table, say

__all__ = ["Headroom", "bound_shares", "headroom", "headrooms", "print_bound_shares", "print_headrooms"]

HORIZONS = (30, 60, 100)  # decisions: short, usual and long beside what is learned in them


class Headroom(NamedTuple):
    """What `headroom` found."""

    best: str  # the best prior-free baseline
    gain: Interval  # its return above random's
    gap: Interval  # the informed policy's return above its
    left: float  # share of the random-to-informed range that it leaves
    constant: float  # return of the best constant action, as a share of the informed policy's
    of_bound: Interval | None  # the informed policy's return as a share of the upper bound, where there is one
    passed: bool


def headroom(scenario: Any, *, trials: int = 4000, seed: int = TEST_SEED) -> Headroom:
    """Check that random < best prior-free baseline < informed, outside the paired intervals, with room between them.

    The best prior-free baseline must leave a tenth of the range from random to informed, no constant action may reach
    nine tenths of the informed policy's return, and no policy may do better than the best action of the moment, nor in
    the mean than the upper bound where there is one.
    """
    scenario = recgym.make_scenario(scenario)
    free = (name for name, baseline in baselines_for(scenario).items() if baseline.kind == "prior-free")
    results, summaries, best, _ = evaluate(scenario, dict.fromkeys(free), trials=trials, seed=seed)
    score = summaries[best].normalised
    if score is None:
        raise ValueError(f"no optimum of this {type(scenario).__name__} is known for its weights: nothing to be left")
    constants = [
        rollout(ConstantPolicy(scenario, action), scenario, trials=trials, seed=seed).returns.mean()
        for action in range(scenario.layout.candidates)
    ]
    gain, gap = summaries[best].versus["random"], summaries["informed"].versus[best]
    left = 1.0 - score.mean
    constant = float(max(constants) / summaries["informed"].returns.mean)
    of_bound, shares = summaries["informed"].of_bound, [summary.of_bound for summary in summaries.values()]
    bounded = all(trials_.regret.min() >= -1e-6 for trials_ in results.values())
    bounded = bounded and all(share is None or share.low <= 1.0 for share in shares)
    passed = gain.low > 0 and gap.low > 0 and left > 0.1 and constant < 0.9 and bounded
    return Headroom(best, gain, gap, left, constant, of_bound, passed)


def learnable_ids() -> list[str]:
    """List the registered environments that leave something to learn over tasks."""
    return [env_id for env_id, preset in recgym.SCENARIOS.items() if not preset.reference]


def headrooms(trials: int) -> dict[str, dict[str, Any]]:
    """Check the headroom of every preset, as JSON can carry it."""
    report = {}
    for env_id in learnable_ids():
        say(f"headroom of {env_id} ...", error=True)
        result = headroom(recgym.make_scenario(env_id), trials=trials)
        report[env_id] = {k: v._asdict() if isinstance(v, Interval) else v for k, v in result._asdict().items()}
    return report


def print_headrooms(report: Mapping[str, Mapping[str, Any]], trials: int) -> None:
    """Print what `headrooms` gives as a table."""
    title = f"headroom: {trials:,} trials per policy, 95 % paired intervals of the return"
    figures = ("above random", "below informed", "range left", "best constant", "% of bound", "passed")
    table = Table(title, ("environment", "best prior-free", *figures), left=("best prior-free",))
    for env_id, result in report.items():
        gain, gap = (f"{i['mean']:.2f} ({i['low']:.2f} to {i['high']:.2f})" for i in (result["gain"], result["gap"]))
        share = f"{result['constant']:.0%} of informed"
        of_bound = percent(result["of_bound"]) if result["of_bound"] else ""
        passed = "yes" if result["passed"] else "no"
        table.add(env_id, result["best"], gain, gap, f"{result['left']:.0%}", share, of_bound, passed)
    table.show()


def percent(share: Mapping[str, float]) -> str:
    """Write a share in percent, with its interval."""
    return f"{100 * share['mean']:.1f} ({100 * share['low']:.1f} to {100 * share['high']:.1f})"


def bound_shares(trials: int) -> dict[str, dict[str, dict[str, Any]]]:
    """What classical policies reach of the bound on any, by environment, policy and horizon, as JSON can carry it."""
    report: dict[str, dict[str, dict[str, Any]]] = {}
    for env_id in learnable_ids():
        if upper_bounds(recgym.make_scenario(env_id), trials=1, seed=TEST_SEED) is None:
            continue
        cells: dict[str, dict[str, Any]] = {}
        for horizon in HORIZONS:
            say(f"bound of {env_id}, {horizon} decisions ...", error=True)
            scenario = recgym.make_scenario(env_id, horizon=horizon)
            names = dict.fromkeys(baselines_for(scenario))
            for name, summary in evaluate(scenario, names, trials=trials, seed=TEST_SEED).summaries.items():
                if summary.of_bound:
                    cells.setdefault(name, {})[str(horizon)] = summary.of_bound._asdict()
        report[env_id] = cells
    return report


def print_bound_shares(report: Mapping[str, Mapping[str, Mapping[str, Any]]], trials: int) -> None:
    """Print what `bound_shares` gives, a table per environment."""
    for env_id, cells in report.items():
        title = f"{env_id}: percent of the bound on any policy, {trials:,} trials, 95 % intervals"
        table = Table(
            title, ("policy", "knows", *(f"{h} decisions" for h in HORIZONS)), left=("knows",), spare=("knows",)
        )
        known = baselines_for(recgym.make_scenario(env_id))
        first = str(HORIZONS[0])
        for name, shares in sorted(cells.items(), key=lambda item: -item[1].get(first, {"mean": 0.0})["mean"]):
            table.add(
                name, KNOWS[known[name].kind], *(percent(shares[str(h)]) if str(h) in shares else "" for h in HORIZONS)
            )
        table.show()
