"""A run from beginning to end: train an agent, evaluate it on held-out trials, report; stopped and gone on with."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from stable_baselines3.common.callbacks import CallbackList, ConvertCallback
from stable_baselines3.common.logger import configure
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

import recgym
from recgym.agents.algorithms import build
from recgym.agents.beginning import Beginning
from recgym.agents.callbacks import CheckpointCallback, EvaluationCallback
from recgym.agents.checkpoint import load
from recgym.agents.environments import CATALOG
from recgym.agents.folders import CHECKPOINT, make_folder
from recgym.agents.meta_ppo import MetaPPO
from recgym.agents.run_folder import describe_device, write_record
from recgym.agents.run_options import Resumption, RunOptions, arguments_of, log_digest, options_to_keep
from recgym.baselines import baselines_for, family_of, left_out
from recgym.catalog import known_catalog
from recgym.evaluation import ARGMAX, logs
from recgym.evaluation.luck import alone
from recgym.evaluation.report import action_figure, compare, curves_figure, print_comparison
from recgym.files import write_json
from recgym.sb3 import RecVecEnv
from recgym.terminal import progress, say

__all__ = ["RunResult", "train"]

STOPS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
EVALUATIONS = 10  # of a run, and checkpoints, unless told otherwise
REPORT = "report.json"


class Run(NamedTuple):
    """A run that has begun."""

    options: RunOptions
    parameters: dict[str, Any]  # of the environment, those of a log included
    arguments: dict[str, Any]  # of the algorithm
    total: int  # timesteps
    model: Any
    env: RecVecEnv
    folder: Path
    env_id: str | None  # under which the environment is registered here
    log: Any = None  # that it is reported on
    log_record: Mapping[str, str | None] = {}  # where the log lay, and its digest: known also where it is not here


class RunResult(NamedTuple):
    """What a run leaves."""

    options: RunOptions
    parameters: dict[str, Any]  # of the environment, those of a log included
    timesteps: int
    folder: Path
    checkpoint: Path
    baselines: list[str]  # that the agent was compared with
    interrupted: bool  # it can be gone on with, and was not evaluated


@alone
def train(options: RunOptions, *, device: str, resumption: Resumption | None = None) -> RunResult:
    """Train, evaluate on held-out tasks, and leave everything about the run in one folder; prints how it goes.

    Runs in several threads of a process wait for each other: they would take each other's random numbers.
    The first interrupt (SIGINT, SIGTERM or SIGHUP) stops after the update, with everything saved; the second at once.

    Args:
        options: of the run.
        device: of the agent, as torch names it.
        resumption: the run to go on with, in its own folder.

    Raises:
        ValueError: the options do not fit together, or do not fit the environment or the algorithm.
        OSError: the folder, or a file in it, cannot be written.
        KeyboardInterrupt: the second interrupt.
    """
    if options.num_threads:
        torch.set_num_threads(options.num_threads)
    run = _begin(options, device) if resumption is None else _take_up(options, resumption, device)
    write_record(run.folder, options, run.env, {**run.arguments, "n_timesteps": run.total}, device)
    say(f"training {options.algo} on {options.env} for {_planned(run)} on {describe_device(device)}")
    say(f"run folder: {run.folder}")
    evaluation, checkpoints = _callbacks(run)
    if resumption is not None:
        evaluation.last_evaluation = resumption.last_evaluation
    started = time.monotonic()
    _learn(run, evaluation, checkpoints, again=resumption is not None)
    baselines = [name for name, baseline in baselines_for(run.env.scenario).items() if baseline.kind != "informed"]
    timesteps = run.model.num_timesteps
    result = RunResult(
        options, run.parameters, timesteps, run.folder, checkpoints.path, baselines, interrupted=checkpoints.stop
    )
    if checkpoints.stop:
        say(f"interrupted; saved after {checkpoints.last_save:,} timesteps in {checkpoints.path}")
    else:
        say(f"trained in {time.monotonic() - started:.0f} s")
        _report(run, baselines)
    return result


# --- beginning -------------------------------------------------------------------------------------------------------
def _begin(options: RunOptions, device: str) -> Run:
    """Make environment, model and folder of a new run."""
    parameters, log = dict(options.param), None
    if options.log:
        log = logs.read_log(options.env, options.log, options.log_column)
        parameters = logs.begin(log, options.env, parameters)
    scenario: Any = recgym.make_scenario(options.env, **parameters)
    if "catalog" in parameters:
        parameters["catalog"] = scenario.catalog  # its digest
    values = arguments_of(options)
    total = options.n_timesteps or values["n_timesteps"]
    n_envs = options.n_envs or values["n_envs"]
    arguments = {key: value for key, value in values.items() if key not in ("n_timesteps", "n_envs")}
    begun = Beginning.of(options.start_from, options.algo) if options.start_from else None
    if begun is not None:
        arguments = begun.arguments(arguments, asked=options)
    env = RecVecEnv(scenario, n_envs, tasks=options.tasks)
    env.seed(options.seed)
    try:
        if begun is not None:
            begun.check(env)
        model = build(options.algo, env, arguments, device=device, seed=options.seed)
    except (TypeError, AssertionError) as error:
        raise ValueError(f"hyperparameters of {options.algo}: {error}") from None
    if begun is not None:
        begun.give(model)
    folder = make_folder(options.tensorboard_log, options.algo, options.env)  # nothing is left behind before this
    if parameters.get("catalog") is not None:
        known_catalog(scenario.catalog).save(folder / CATALOG)
    record = _log_record(options, log)
    return Run(options, parameters, arguments, total, model, env, folder, _registered(options.env), log, record)


def _log_record(options: RunOptions, log: Any) -> dict[str, str | None]:
    """What a checkpoint keeps of a log beside what was fitted to it."""
    digest = log_digest(Path(log.path)) if hasattr(log, "path") else None
    return {"log": None if options.log is None else str(options.log), "log_digest": digest}


def _take_up(options: RunOptions, resumption: Resumption, device: str) -> Run:
    """Make environment and model of a run that goes on."""
    header = resumption.header
    assert options.trained_agent is not None
    assert options.n_timesteps is not None
    log = logs.read_log(options.env, options.log, options.log_column) if options.log else None
    env = RecVecEnv(recgym.make_scenario(options.env, **options.param), header["env"]["n_envs"], tasks=options.tasks)
    env.seed(options.seed)
    model = load(options.trained_agent, env=env, device=device, resume=True)
    folder = options.trained_agent.parent
    arguments = header["arguments"]
    total = options.n_timesteps
    record = _log_record(options, log) if options.log else resumption.log_record
    return Run(options, options.param, arguments, total, model, env, folder, _registered(options.env), log, record)


def _planned(run: Run) -> str:
    """How many decisions will really be played, and what of them is imitation."""
    model, left = run.model, max(0, run.total - run.model.num_timesteps)
    if isinstance(model, MetaPPO):
        played, imitated = model.plan(left)
        wanted = model.options.pretrain_steps
        short = f" of {wanted:,} that should: none are left for PPO" if wanted > run.total else ""
        imitation = f", {imitated:,}{short} imitating {model.options.expert}" if imitated else ""
        return f"{played:,} timesteps{imitation}"
    if isinstance(model, OnPolicyAlgorithm):
        decisions = model.n_steps * run.env.num_envs
        left = -(-left // decisions) * decisions
    return f"{left:,} timesteps"


def _registered(env: str) -> str | None:
    return env if env in recgym.SCENARIOS else None


# --- training --------------------------------------------------------------------------------------------------------
def _callbacks(run: Run) -> tuple[EvaluationCallback, CheckpointCallback]:
    """Make what evaluates and what saves."""
    options = run.options
    settings = {"algo": options.algo, "env": options.env, "n_envs": run.env.num_envs, "seed": options.seed}
    scenario = run.env.scenario
    evaluation = EvaluationCallback(
        scenario,
        every=run.total // EVALUATIONS if options.eval_freq is None else options.eval_freq,
        trials=options.eval_trials,
        baselines=[name for name in family_of(scenario).shown if name in baselines_for(scenario)],
        hyperparameters={**settings, **run.arguments},
    )
    checkpoints = CheckpointCallback(
        run.folder / CHECKPOINT,
        every=run.total // EVALUATIONS if options.save_freq is None else options.save_freq,
        evaluation=evaluation,
        options=options_to_keep(options, total=run.total, registered=run.env_id is not None) | dict(run.log_record),
        algo=options.algo,
        arguments=run.arguments,
        env_id=run.env_id,
        parameters=run.parameters if run.env_id is not None else None,
    )
    return evaluation, checkpoints


def _learn(run: Run, evaluation: EvaluationCallback, checkpoints: CheckpointCallback, *, again: bool) -> None:
    """Learn until the end, or until told to stop."""
    remaining = run.total - run.model.num_timesteps
    interval = run.env.num_envs if isinstance(run.model, OffPolicyAlgorithm) else 1  # trials there, rollouts here
    run.model.set_logger(configure(str(run.folder), ["tensorboard"]))
    try:
        with _stopping(checkpoints):
            if remaining > 0:
                with progress("timesteps", run.total) as advance:
                    shown = ConvertCallback(lambda *_: advance(run.model.num_timesteps) or True)
                    callbacks = CallbackList([evaluation, checkpoints, shown])
                    run.model.learn(remaining, callbacks, interval, reset_num_timesteps=not again)
    finally:
        run.env.close()


@contextmanager
def _stopping(checkpoints: CheckpointCallback) -> Iterator[None]:
    """Ask for a stop at the first interrupt, hangup or termination; the second is one.

    Signals reach the main thread alone: elsewhere nothing is set, and whoever runs the thread stops it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(signum: int, frame: Any) -> None:
        if checkpoints.stop:
            raise KeyboardInterrupt
        checkpoints.stop = True
        say("\nstopping after this update; once more stops at once and keeps the last checkpoint", error=True)

    previous = {number: signal.signal(number, stop) for number in STOPS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


# --- reporting -------------------------------------------------------------------------------------------------------
def _report(run: Run, baselines: list[str]) -> None:
    """Evaluate on held-out tasks, write the report and the figures."""
    options = run.options
    scenario = run.env.scenario
    agents = {options.algo: run.model, f"{options.algo}{ARGMAX}": run.model}
    for name, reason in left_out(scenario).items():
        say(f"without {name}: {reason}")
    policies = {**dict.fromkeys(baselines), **agents}
    comparison, report = compare(
        scenario, policies, env=options.env, parameters=run.parameters, trials=options.trials, seed=0
    )
    results = comparison.trials
    write_json(run.folder / REPORT, report)
    title = f"{options.env}, {options.trials:,} held-out trials"
    curves_figure(results, scenario, title=title, emphasise=[options.algo]).savefig(run.folder / "regret.png")
    action_figure(results[options.algo], scenario, title=title).savefig(run.folder / "actions.png")
    findings = {}
    if run.log is not None:
        findings = logs.finish(run.log, {options.algo: run.model}, scenario, results)
        write_json(run.folder / REPORT, report | findings)
    print_comparison(report)
    logs.print_findings(findings)
