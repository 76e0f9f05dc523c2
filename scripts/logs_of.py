"""What `train.py --log` takes from a public log: the task distribution at first, a part of the report at last."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from inspect import signature
from typing import Any, NamedTuple

from tqdm import tqdm

import recgym
from recgym.baselines import baselines_for, make_baseline
from recgym.data import OpenBanditLog, TransactionLog, open_bandit, transactions
from recgym.evaluation import Trials, ratio
from recgym.evaluation.offpolicy import off_policy_report, print_off_policy
from recgym.evaluation.report import print_shares, print_transactions


def arms_and_prior(log: OpenBanditLog, env_id: str, given: dict[str, Any]) -> dict[str, Any]:
    """Arms and prior of a log, printed; `given` parameters come on top."""
    found = log.parameters
    a, b = found["prior"]
    spread = math.sqrt(a * b / (a + b + 1)) / (a + b)
    print(f"{log.path}: {found['arms']} items, click rates Beta({a:.3g}, {b:.3g}): ", end="")
    print(f"mean {a / (a + b):.2%}, standard deviation {spread:.2%}")
    if given.get("arms", found["arms"]) != found["arms"]:
        wrong = f"--param arms={given['arms']} does not fit the {found['arms']} items of {log.path}"
        raise ValueError(f"{wrong}; leave it out")
    return {**found, **given}


def fitted_demand(log: TransactionLog, env_id: str, given: dict[str, Any]) -> dict[str, Any]:
    """Task distribution of a log of sales, printed with what it rests on; `given` parameters come on top."""
    parameters = {**log.parameters, **given}
    scenario = recgym.make_scenario(env_id, **parameters)
    print_transactions(log, asdict(scenario), {**log.origins, **dict.fromkeys(given, "given")})
    return parameters


def off_policy(options: argparse.Namespace, model: Any, scenario: Any, results: Mapping[str, Trials]) -> dict[str, Any]:
    """What the log says of the agent, beside a few baselines; prints the table."""
    log = read_log(options)
    shown = [name for name in ("random", "greedy", "thompson_prior", "gittins") if name in baselines_for(scenario)]
    built = {name: make_baseline(name, scenario) for name in shown}
    built[options.algo] = model
    with tqdm(unit=" events", disable=not options.progress, leave=False, total=len(built) * len(log.action)) as bar:
        report = off_policy_report(built, scenario, log, on_event=lambda *_: bar.update())
    print_off_policy(report)
    return {"off_policy": report}


def share_of_informed(
    options: argparse.Namespace, model: Any, scenario: Any, results: Mapping[str, Trials]
) -> dict[str, Any]:
    """What the log says of demand, and the returns in percent of the informed policy's; prints these."""
    shares = {name: ratio(trials.returns, results["informed"].returns) for name, trials in results.items()}
    if math.isnan(shares["informed"].mean):
        print("percent of the informed policy's return: none, as that policy earns nothing for certain")
    else:
        print_shares(shares)
    transactions_report = read_log(options).to_json()
    return {"transactions": transactions_report, "share_of_informed": {k: v._asdict() for k, v in shares.items()}}


class LogKind(NamedTuple):
    """What an environment takes from a log."""

    read: Callable[..., Any]  # (path, **names of columns) -> log
    begin: Callable[[Any, str, dict[str, Any]], dict[str, Any]]  # (log, env id, given) -> parameters, printed
    finish: Callable[..., dict[str, Any]]  # (options, agent, scenario, trials) -> parts of the report, printed


OPEN_BANDIT = LogKind(open_bandit, arms_and_prior, off_policy)
LOGS = {  # by scenario
    "Bandit": OPEN_BANDIT,
    "DriftBandit": OPEN_BANDIT,
    "DynamicPricing": LogKind(transactions, fitted_demand, share_of_informed),
}


def log_kind(env_id: str) -> LogKind:
    """The kind of log that sets up an environment.

    Raises:
        ValueError: none does, or there is no such environment.
    """
    recgym.make_scenario(env_id)  # refuses what is no environment, and names the nearest
    able = [name for name, preset in recgym.SCENARIOS.items() if _class_name(preset) in LOGS and not preset.reference]
    if env_id not in able:
        raise ValueError(f"--log: {env_id} takes nothing from a log; {', '.join(able)} do")
    return LOGS[_class_name(recgym.SCENARIOS[env_id])]


def _class_name(preset: recgym.Preset) -> str:
    return preset.scenario.rpartition(":")[2]


def read_log(options: argparse.Namespace) -> Any:
    """The log, by the reader of the environment's kind; errors as that, and for a column it does not have."""
    read, columns = log_kind(options.env).read, dict(options.log_column or [])
    known = [name for name, argument in signature(read).parameters.items() if argument.kind is argument.KEYWORD_ONLY]
    for name in columns:
        if name not in known:
            has = f"its columns are {', '.join(known)}" if known else "the names of its columns are fixed"
            raise ValueError(f"--log-column {name}: no such column in a log for {options.env}: {has}")
    return read(options.log, **columns)
