"""What a log says of several policies: every estimate beside what it assumes, and whether the log agrees."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from recgym.data.bandit import OpenBanditLog
from recgym.evaluation.offpolicy.assumptions import Finding, enough_clicks, overlap, propensities, steady, uniform
from recgym.evaluation.offpolicy.estimators import ESTIMATORS, counted_propensity, importance_weights, off_policy
from recgym.evaluation.offpolicy.replaying import kept_events, replay
from recgym.evaluation.trials import TEST_SEED, action_shares, rollout
from recgym.terminal import Table

__all__ = ["off_policy_report", "print_off_policy"]

SIMULATED_TRIALS = 4096
ASSUMED = {"replay": "items were shown uniformly, or propensities are right", **ESTIMATORS}
CELL = 25  # characters across, so that three such columns stand on 80
FEWEST_KEPT = 0.01  # share of the rows that must be left where a log is thinned to a uniform one


def off_policy_report(
    policies: Mapping[str, Any],
    scenario: Any,
    log: OpenBanditLog,
    *,
    seed: int = TEST_SEED,
    on_event: Callable[[str, int], None] | None = None,
) -> dict[str, Any]:
    """What the log says of each policy, as JSON can carry it.

    Replay as in `replay`, of a log that is not uniform thinned by its propensities, and left out where these contradict
    the log. The other estimators (`off_policy`) score the policy's mean distribution over the items at the end of
    trials that are simulated on the log's own click rates. Those rates come from the clicks that the distribution is
    then scored on: what a policy learned from chance in the log counts in its favour. Where propensities contradict the
    log, those counted by position stand in for them, and the finding says so.
    """
    even, right, stays = uniform(log), propensities(log), steady(log)
    propensity = None if right.holds else counted_propensity(log)
    thinned = not even.holds
    left_out = ""
    if thinned and not right.holds:
        left_out = f"{even.says}, and propensities that contradict the log cannot mend it"
    elif thinned and kept_events(log, seed).mean() < FEWEST_KEPT:
        left_out = f"{even.says}, and a uniform part of them would be less than {FEWEST_KEPT:.0%}"
    rates = log.item_rates(scenario.prior).astype(np.float32)
    rows: dict[str, Any] = {}
    for name, policy in policies.items():
        row: dict[str, Any] = {}
        if not left_out:
            done = None if on_event is None else _named(on_event, name)
            played = replay(policy, scenario, log, thinned=thinned, seed=seed, on_event=done)
            how = f"{even.says}, so rows are thinned by their propensities" if thinned else even.says
            ctr = played.ctr._asdict() | {"value": played.ctr.mean}
            row["replay"] = {**ctr, "matched": played.matched, "clicks": played.clicks}
            row["replay"] |= _judged([Finding(even.holds or right.holds, how), enough_clicks(played.clicks)])
        simulated = rollout(policy, scenario, trials=SIMULATED_TRIALS, seed=seed, task={"rates": rates})
        shares = action_shares(simulated, log.arms)[-1]
        covered = overlap(log, shares, importance_weights(log, shares, propensity))
        weighted = right if right.holds else Finding(False, f"{right.says}; counted ones stand in")
        for kind, estimate in off_policy(log, shares, propensity=propensity).items():
            findings = [stays if kind == "direct" else weighted, covered, estimate.enough]
            row[kind] = {**estimate._asdict(), **_judged(findings)}
        rows[name] = row
    return {
        "log": log.path,
        "events": len(log.action),
        "items": log.arms,
        "ctr": log.ctr,
        "uniform": even._asdict(),
        "propensities": right._asdict(),
        "steady": stays._asdict(),
        "replay_left_out": left_out,
        "policies": rows,
    }


def _judged(findings: list[Finding]) -> dict[str, Any]:
    """Whether all findings hold; what they say, and of it what is wrong."""
    return {
        "agrees": all(finding.holds for finding in findings),
        "findings": [finding.says for finding in findings],
        "wrong": [finding.says for finding in findings if not finding.holds],
    }


def _named(on_event: Callable[[str, int], None], name: str) -> Callable[[int], None]:
    return lambda event: on_event(name, event)


def _percent(estimate: Mapping[str, float]) -> str:
    if math.isnan(estimate["value"]):  # nothing matched
        return "-"
    value, low, high = (100 * estimate[part] for part in ("value", "low", "high"))
    return f"{value:.2f} ({low:.2f}-{high:.2f})"


def print_off_policy(report: Mapping[str, Any]) -> None:
    """The off-policy report: a table of the estimates, and one of what they assume."""
    kinds = [kind for kind in ("replay", *ESTIMATORS) if any(kind in row for row in report["policies"].values())]
    title = f"off-policy, {report['events']:,} events, {report['items']} items, click rate {report['ctr']:.2%}"
    table = Table(title, ("policy", *kinds, "effective rows"), spare=("clipped", "effective rows", "direct"))
    table.caption = "percent, 95 % intervals; all but replay use the log's clicks twice and flatter what learns"
    for name, row in report["policies"].items():
        table.add(name, *(_percent(row[kind]) for kind in kinds), f"{row['ips']['effective_sample_size']:,.0f}")
    table.show()
    columns = ("estimate", "assumes", "does the log agree?")
    judged = Table("what the estimates rest on", columns, left=columns, spare=("assumes",))
    groups: dict[tuple[str, ...], list[str]] = {}  # estimates of which the same is to be said
    if report["replay_left_out"]:
        groups[ASSUMED["replay"], f"no, left out: {report['replay_left_out']}"] = ["replay"]
    for kind in kinds:
        groups.setdefault((ASSUMED[kind], *_said(kind, report["policies"])), []).append(kind)
    for (assumed, *said), alike in groups.items():
        for number, text in enumerate(said):
            lead = (", ".join(alike), assumed) if not number else ("", "")
            judged.add(*(textwrap.fill(cell, CELL) for cell in (*lead, text)), last=number + 1 == len(said))
    judged.show()


def _said(kind: str, policies: Mapping[str, Any]) -> list[str]:
    """What is wrong with an estimate, and of which policies if not of all; or why nothing is."""
    whose: dict[str, list[str]] = {}
    for name, policy in policies.items():
        row = policy[kind]
        for text in [f"no: {says}" for says in row["wrong"]] or [f"yes: {row['findings'][0]}"]:
            whose.setdefault(text, []).append(name)
    return [text if len(names) == len(policies) else f"{text} ({', '.join(names)})" for text, names in whose.items()]
