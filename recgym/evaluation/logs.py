"""What a public log gives an environment: the task distribution at first, a part of the report at last."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple

import recgym
from recgym.baselines import baselines_for, make_baseline
from recgym.data import OpenBanditLog, TransactionLog, open_bandit, transactions
from recgym.evaluation.offpolicy import off_policy_report, print_off_policy
from recgym.evaluation.report import print_shares, print_transactions
from recgym.evaluation.statistics import ratio
from recgym.evaluation.trials import Trials

__all__ = ["LogKind", "log_kind", "read_log"]

BESIDE = ("random", "greedy", "thompson_prior", "gittins")  # baselines that stand beside an agent on a log


class LogKind(NamedTuple):
    """What an environment takes from a log."""

    read: Callable[..., Any]  # (path, **names of columns) -> log
    begin: Callable[..., dict[str, Any]]  # (log, env, parameters) -> all parameters; prints them
    finish: Callable[..., dict[str, Any]]  # (log, agents, scenario, results, progress=) -> parts of the report, printed


def begin_bandit(log: OpenBanditLog, env: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Take arms and prior of a log, and print them; `parameters` come on top.

    Raises:
        ValueError: the parameters name another number of arms.
    """
    fit = log.parameters
    a, b = fit["prior"]
    spread = math.sqrt(a * b / (a + b + 1)) / (a + b)
    print(f"{log.path}: {fit['arms']} items, click rates Beta({a:.3g}, {b:.3g}): ", end="")
    print(f"mean {a / (a + b):.2%}, standard deviation {spread:.2%}")
    if parameters.get("arms", fit["arms"]) != fit["arms"]:
        wrong = f"--param arms={parameters['arms']} does not fit the {fit['arms']} items of {log.path}"
        raise ValueError(f"{wrong}; leave it out")
    return {**fit, **parameters}


def begin_pricing(log: TransactionLog, env: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Take the task distribution of a log of sales, and print what it rests on; `parameters` come on top."""
    everything = {**log.parameters, **parameters}
    scenario = recgym.make_scenario(env, **everything)
    print_transactions(log, asdict(scenario), {**log.origins, **dict.fromkeys(parameters, "given")})
    return everything


def finish_bandit(
    log: OpenBanditLog, agents: Mapping[str, Any], scenario: Any, results: Mapping[str, Trials], *, progress: bool
) -> dict[str, Any]:
    """Report and print what the log says of the agents, beside a few baselines."""
    from tqdm import tqdm

    names = [name for name in BESIDE if name in baselines_for(scenario)]
    policies = {name: make_baseline(name, scenario) for name in names} | dict(agents)
    total = len(policies) * len(log.action)
    with tqdm(unit=" events", disable=not progress, leave=False, total=total) as bar:
        report = off_policy_report(policies, scenario, log, on_event=lambda *_: bar.update())
    print_off_policy(report)
    return {"off_policy": report}


def finish_pricing(
    log: TransactionLog, agents: Mapping[str, Any], scenario: Any, results: Mapping[str, Trials], *, progress: bool
) -> dict[str, Any]:
    """Report what the log says of demand, and print the returns in percent of the informed policy's."""
    shares = {name: ratio(trials.returns, results["informed"].returns) for name, trials in results.items()}
    if math.isnan(shares["informed"].mean):
        print("percent of the informed policy's return: none, as that policy earns nothing for certain")
    else:
        print_shares(shares)
    return {"transactions": log.to_json(), "share_of_informed": {k: v._asdict() for k, v in shares.items()}}


BANDIT_LOGS = LogKind(open_bandit, begin_bandit, finish_bandit)
LOGS = {  # by scenario class
    "Bandit": BANDIT_LOGS,
    "DriftBandit": BANDIT_LOGS,
    "DynamicPricing": LogKind(transactions, begin_pricing, finish_pricing),
}


def log_kind(env: str) -> LogKind:
    """Look up the kind of log that sets up an environment.

    Args:
        env: as `recgym.make_scenario` takes it.

    Raises:
        ValueError: none does, or there is no such environment.
    """
    kind = LOGS.get(type(recgym.make_scenario(env)).__name__)
    references = [env_id for env_id, preset in recgym.SCENARIOS.items() if preset.reference]
    if kind is None or env in references:
        presets = {env_id: type(recgym.make_scenario(env_id)).__name__ for env_id in recgym.SCENARIOS}
        able = [env_id for env_id, name in presets.items() if name in LOGS and env_id not in references]
        raise ValueError(f"--log: {env} takes nothing from a log; {', '.join(able)} do")
    return kind


def read_log(env: str, path: Path, columns: Mapping[str, Any]) -> Any:
    """Read a log by the reader of the environment's kind.

    Args:
        env: as `recgym.make_scenario` takes it.
        path: of the log.
        columns: what the reader's columns are called in it.

    Raises:
        ValueError: no log sets this environment up, its logs have no such column, or the file is malformed.
    """
    read = log_kind(env).read
    known = [name for name, argument in signature(read).parameters.items() if argument.kind is argument.KEYWORD_ONLY]
    for name in columns:
        if name not in known:
            has = f"its columns are {', '.join(known)}" if known else "the names of its columns are fixed"
            raise ValueError(f"--log-column {name}: no such column in a log for {env}: {has}")
    return read(path, **columns)
