"""What a public log gives an environment: the task distribution at first, a part of the report at last."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import asdict
from inspect import signature
from pathlib import Path
from typing import Any

import recgym
from recgym.baselines import baselines_for, family_of, make_baseline
from recgym.catalog import known_catalog
from recgym.data import ImpressionLog, OpenBanditLog, RatingLog, TransactionLog
from recgym.evaluation.offpolicy import off_policy_report, print_off_policy
from recgym.evaluation.report import print_impressions, print_ratings, print_shares, print_transactions
from recgym.evaluation.statistics import ratio
from recgym.evaluation.trials import Trials
from recgym.parameters import class_of
from recgym.scenario import Scenario
from recgym.scenarios.ads import Bidding
from recgym.terminal import progress, say

__all__ = ["begin", "finish", "print_findings", "read_log"]

BESIDE = ("random", "greedy", "thompson_prior", "gittins")  # baselines that stand beside an agent on a log


def begin_bandit(log: OpenBanditLog, env: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Take arms and prior of a log, and print them; `parameters` come on top.

    Raises:
        ValueError: the parameters name another number of arms.
    """
    fit = log.parameters_beside(parameters)
    a, b = fit["prior"]
    spread = math.sqrt(a * b / (a + b + 1)) / (a + b)
    shape = f"mean {a / (a + b):.2%}, standard deviation {spread:.2%}"
    if fit["arms"] != log.arms:
        raise ValueError(f"--param arms={fit['arms']} does not fit the {log.arms} items of {log.path}; leave it out")
    origin = ", as given" if "prior" in parameters else ""
    say(f"{log.path}: {log.arms} items, click rates Beta({a:.3g}, {b:.3g}){origin}: {shape}")
    return fit


def begin_pricing(log: TransactionLog, env: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Take the task distribution of a log of sales, and print what it rests on; `parameters` come on top."""
    everything = log.parameters_beside(parameters)
    scenario: Any = recgym.make_scenario(env, **everything)
    print_transactions(log, asdict(scenario), {**log.origins, **dict.fromkeys(parameters, "given")})
    return everything


def begin_slate(log: RatingLog, env: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Take users and items of a log of ratings, and print what they rest on; `parameters` come on top."""
    say(f"{log.path}: fitting {log.users:,} users and {log.items.items:,} items to {len(log.user):,} rows")
    everything = log.parameters_beside(parameters)
    scenario: Any = recgym.make_scenario(env, **everything)
    print_ratings(log, asdict(scenario), {**log.origins, **dict.fromkeys(parameters, "given")})
    return everything


def begin_ads(log: ImpressionLog, env: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Take the campaign of a log of impressions, and print what it rests on; `parameters` come on top."""
    log = _with_creatives(log, parameters.get("catalog"))
    if parameters.get("catalog") is not None and log.items is None:
        say("note: the catalog has no ids, so that its items are not the log's creatives: taste is assumed")
    everything = log.parameters_beside(parameters)
    scenario: Any = recgym.make_scenario(env, **everything)
    given = dict.fromkeys(parameters, "given") | ({} if log.items is None else {"catalog": "fitted"})
    print_impressions(log, asdict(scenario), {**log.origins, **given})
    return everything


def _with_creatives(log: ImpressionLog, catalog: Any) -> ImpressionLog:
    """The log whose creatives are items of a catalog, if that is given and has ids to tell them by."""
    if catalog is None or known_catalog(catalog).ids is None:
        return log
    return log.with_catalog(known_catalog(catalog))


def finish_bandit(
    log: OpenBanditLog, agents: Mapping[str, Any], scenario: Any, results: Mapping[str, Trials]
) -> dict[str, Any]:
    """Report what the log says of the agents, beside a few baselines."""
    names = [name for name in BESIDE if name in baselines_for(scenario)]
    policies = {name: make_baseline(name, scenario) for name in names} | dict(agents)
    total = len(policies) * len(log.action)
    played = itertools.count(1)
    with progress("events", total) as advance:
        report = off_policy_report(policies, scenario, log, on_event=lambda *_: advance(next(played)))
    return {"off_policy": report}


def finish_pricing(
    log: TransactionLog, agents: Mapping[str, Any], scenario: Any, results: Mapping[str, Trials]
) -> dict[str, Any]:
    """Report what the log says of demand, and the returns in shares of the informed policy's."""
    return {"transactions": log.to_json(), "share_of_informed": _shares(results)}


def finish_slate(
    log: RatingLog, agents: Mapping[str, Any], scenario: Any, results: Mapping[str, Trials]
) -> dict[str, Any]:
    """Report what the log says of users and items, and the returns in shares of the informed policy's."""
    return {"ratings": log.to_json(), "share_of_informed": _shares(results)}


def finish_ads(
    log: ImpressionLog, agents: Mapping[str, Any], scenario: Any, results: Mapping[str, Trials]
) -> dict[str, Any]:
    """Report what the log says of the campaign, and the returns in shares of the informed policy's."""
    log = _with_creatives(log, scenario.items)
    return {"impressions": log.to_json(), "share_of_informed": _shares(results)}


def _shares(results: Mapping[str, Trials]) -> dict[str, dict[str, float]]:
    shares = {name: ratio(trials.returns, results["informed"].returns) for name, trials in results.items()}
    return {name: share._asdict() for name, share in shares.items()}


# --- by kind of log --------------------------------------------------------------------------------------------------
def read_log(env: str, path: Path, columns: Mapping[str, Any]) -> Any:
    """Read a log by the reader that the environment's family names.

    Args:
        env: as `recgym.make_scenario` takes it.
        path: of the log.
        columns: what the reader's columns are called in it.

    Raises:
        ValueError: no log sets this environment up, its logs have no such column, or the file is malformed.
    """
    read = _reader(env)
    known = [name for name, argument in signature(read).parameters.items() if argument.kind is argument.KEYWORD_ONLY]
    for name in columns:
        if name not in known:
            has = f"its columns are {', '.join(known)}" if known else "the names of its columns are fixed"
            raise ValueError(f"--log-column {name}: no such column in a log for {env}: {has}")
    return read(path, **columns)


def _reader(env: str) -> Any:
    """The function that reads logs for an environment."""
    name = _reader_name(env)
    if not name or _is_reference(env):
        readers = {env_id: _reader_name(env_id) for env_id in recgym.SCENARIOS}
        able = [env_id for env_id, reader in readers.items() if reader and not _is_reference(env_id)]
        raise ValueError(f"--log: {env} takes nothing from a log; {', '.join(able)} do")
    return class_of(name)


def _reader_name(env: str) -> str:
    scenario = recgym.make_scenario(env)
    if isinstance(scenario, Bidding):  # levels of bids and the traffic of a day are in no log of what was won
        return ""
    return family_of(scenario).reader


def _is_reference(env: str) -> bool:
    preset = recgym.SCENARIOS.get(env.removeprefix("recgym:"))
    return preset is not None and preset.reference


def begin(log: Any, env: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Take the parameters that a log gives an environment, and print what they are; `parameters` come on top.

    A log of a kind that recgym does not know, of a family from elsewhere, has them in its attribute `parameters`.
    """
    if isinstance(log, OpenBanditLog):
        return begin_bandit(log, env, parameters)
    if isinstance(log, TransactionLog):
        return begin_pricing(log, env, parameters)
    if isinstance(log, RatingLog):
        return begin_slate(log, env, parameters)
    if isinstance(log, ImpressionLog):
        return begin_ads(log, env, parameters)
    return {**log.parameters, **parameters}


def finish(log: Any, agents: Mapping[str, Any], scenario: Scenario, results: Mapping[str, Trials]) -> dict[str, Any]:
    """Report what a log says of agents, as parts of the run's report; nothing for an unknown kind."""
    if isinstance(log, OpenBanditLog):
        return finish_bandit(log, agents, scenario, results)
    if isinstance(log, TransactionLog):
        return finish_pricing(log, agents, scenario, results)
    if isinstance(log, RatingLog):
        return finish_slate(log, agents, scenario, results)
    if isinstance(log, ImpressionLog):
        return finish_ads(log, agents, scenario, results)
    return {}


def print_findings(findings: Mapping[str, Any]) -> None:
    """Print what `finish` reports."""
    if "off_policy" in findings:
        print_off_policy(findings["off_policy"])
    shares = findings.get("share_of_informed")
    if shares and math.isnan(shares["informed"]["mean"]):
        say("percent of the informed policy's return: none, as that policy earns nothing for certain")
    elif shares:
        print_shares(shares)
