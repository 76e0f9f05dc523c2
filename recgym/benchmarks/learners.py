"""Measure what learning costs: speed of PPO training, latency of a decision, the Gittins table, races to a score."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

import recgym
from recgym.agents import load_pretrained
from recgym.agents.onnx_file import export_onnx, measure_latency
from recgym.agents.pretrained import agent_ids
from recgym.agents.tuned import tuned_values
from recgym.baselines.gittins import load_table
from recgym.benchmarks.race import initial_policies, time_to_score
from recgym.benchmarks.sizes import FULL_SIZE, NO_EXPERT, OURS, make_learner, make_training_env, size_of
from recgym.benchmarks.timing import BANDIT, Benchmark, Measurement, Play, Workload, measure
from recgym.sb3 import RecVecEnv

__all__ = ["learner_benchmarks", "phase_lines"]

SAME_WORK = "MetaPPO, RecurrentPPO's passes"
GPU_ENVS = 4_096
MAX_LATENCY = 5.0  # ms that a decision for one user may take
MAX_REPEATS = 3  # of PPO training: an update of RecurrentPPO takes the better part of a minute
DECISIONS = 500  # of a latency in both libraries
WARM_UPS = 2  # plays of `measure` before those that count
PHASES = ("collect_rollouts", "train")  # the two halves of an SB3 on-policy iteration
BEGINNING_MIDDLE_END = ((0.0, 0.1), (0.4, 0.5), (0.9, 1.0))  # of a trial


@contextmanager
def empty_cache() -> Iterator[None]:
    """Lend an empty folder to what is kept between processes."""
    before = os.environ.get("XDG_CACHE_HOME")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        try:
            yield
        finally:
            del os.environ["XDG_CACHE_HOME"]
            if before is not None:
                os.environ["XDG_CACHE_HOME"] = before


def gittins_table(name: str, workload: Workload) -> Iterator[Measurement]:
    """Time the computation of the table that the Gittins index plays by."""
    scenario: Any = recgym.make_scenario(BANDIT, **size_of(workload).parameters)

    def seconds() -> float:
        start = time.perf_counter()
        load_table(scenario.prior, scenario.horizon)
        return time.perf_counter() - start

    first = []
    again = []
    for _ in range(workload.repeats):
        with empty_cache():
            first.append(seconds())
            again.append(seconds())
    note = f"horizon {scenario.horizon}, as many threads as cores, up to 8; from the cache {median(again):.3f} s"
    yield Measurement.of(name, first, "s", f"{note}; the time to a score has it from there")


# --- speed of training -----------------------------------------------------------------------------------------------
def training_play(model: Any, times: list[tuple[float, ...]]) -> Play:
    """Give a play that makes one rollout and learns from it, and adds the seconds of the two to `times`.

    The learning rate has fallen to 0 at the end of each: that changes no speed.
    """
    seconds: dict[str, float] = {}

    def with_clock(phase: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            start = time.perf_counter()
            result = method(*arguments, **options)
            seconds[phase] = time.perf_counter() - start
            return result

        return run

    for phase in PHASES:
        setattr(model, phase, with_clock(phase, getattr(model, phase)))
    steps = model.n_steps * model.n_envs

    def play() -> int:
        model.learn(steps, reset_num_timesteps=False)
        times.append(tuple(seconds[phase] for phase in PHASES))
        return steps

    return play


def phase_lines(name: str, times: Sequence[tuple[float, ...]], steps: int) -> Iterator[Measurement]:
    """Report the speed of rollout and update apart, each as if the other took no time."""
    whole = sum(map(median, zip(*times, strict=True)))
    for phase, seconds in zip(("rollout", "update"), zip(*times, strict=True), strict=True):
        note = f"{median(seconds) / whole:.0%} of the time"
        yield Measurement.of(f"{name}, {phase}", [steps / s for s in seconds], "steps/s", note)


def training_speed(name: str, workload: Workload) -> Iterator[Measurement]:
    """Time PPO of both, without imitation, in turns: as tuned, and ours with RecurrentPPO's work on every decision."""
    size = size_of(workload)
    other = "RecurrentPPO"
    workload = workload._replace(repeats=min(workload.repeats, MAX_REPEATS))
    scenario = recgym.make_scenario(BANDIT, **size.parameters)
    models = {other: make_learner("recurrent_ppo", make_training_env(scenario, size.n_envs), size)}
    same = {"n_epochs": models[other].n_epochs, "batch_size": models[other].batch_size, "batch_decisions": None}
    for label, values in ((OURS, {}), (SAME_WORK, same)):
        models[label] = make_learner("meta_ppo", make_training_env(scenario, size.n_envs), size, **NO_EXPERT, **values)
    times: dict[str, list[tuple[float, ...]]] = {label: [] for label in models}
    rates = measure(workload, *(training_play(model, times[label]) for label, model in models.items()))
    for (label, model), figures in zip(models.items(), rates, strict=True):
        decisions = getattr(model, "batch_decisions", None) or model.n_steps
        passes = model.n_epochs * min(1.0, decisions / model.n_steps)
        batch = f"of about {model.batch_size:,}" if model.batch_size else "a quarter of a rollout each"
        note = f"{model.n_envs} environments, {passes:.1f} passes over each decision, minibatches {batch}"
        yield Measurement.of(f"{name}: {label}", figures, "steps/s", note)
        yield from phase_lines(f"{name}: {label}", times[label][WARM_UPS:], model.n_steps * model.n_envs)
    theirs, *ours = rates
    for label, figures in zip((OURS, SAME_WORK), ours, strict=True):
        ratios = [mine / other_rate for mine, other_rate in zip(figures, theirs, strict=True)]
        yield Measurement.of(f"{name}: {label} / {other}", ratios, "times", "in turns, repeat by repeat", least=1)


def gpu_training(name: str, workload: Workload) -> Iterator[Measurement]:
    """Time training all on the GPU, and what share of a rollout the environments take."""
    if workload.gpu is None:
        yield Measurement.of(name, [], "steps/s", "no GPU here")
        return
    n_envs = GPU_ENVS // workload.shrink
    size = size_of(workload)
    env: Any = make_training_env(recgym.make_scenario(BANDIT, **size.parameters), n_envs, device=workload.gpu)
    model = make_learner("meta_ppo", env, size, device=workload.gpu, **NO_EXPERT)
    times: list[tuple[float, ...]] = []
    play = training_play(model, times)
    (rates,) = measure(workload, play)
    yield Measurement.of(name, rates, "steps/s", f"{n_envs:,} environments on the GPU, {model.n_epochs} epochs")
    yield from phase_lines(name, times[WARM_UPS:], model.n_steps * n_envs)
    inside = 0.0
    step = env.step_tensor

    def step_with_clock(action: torch.Tensor) -> Any:
        nonlocal inside
        synchronise(action)
        start = time.perf_counter()
        result = step(action)
        synchronise(action)
        inside += time.perf_counter() - start
        return result

    env.step_tensor = step_with_clock
    shares = []
    for _ in range(workload.repeats):
        inside = 0.0
        play()
        shares.append(100.0 * inside / times[-1][0])
    note = "of a rollout that waits for the GPU around each step"
    yield Measurement.of(f"{name}, environment's share", shares, "%", note)


def synchronise(tensor: torch.Tensor) -> None:
    """Wait for the device of a tensor."""
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)


# --- latency ---------------------------------------------------------------------------------------------------------
def decision_times(model: Any, env: RecVecEnv) -> list[tuple[float, float]]:
    """Time each decision of one user's trial, in milliseconds, and those on the processor; memory is handed on."""
    observation: Any = env.reset()[0]
    memory = None
    times = []
    for _ in range(env.scenario.horizon):
        start = time.perf_counter()
        on_processor = time.thread_time()
        action, memory = model.predict(observation, state=memory)
        times.append((1e3 * (time.perf_counter() - start), 1e3 * (time.thread_time() - on_processor)))
        rows: Any = env.step(np.asarray([action]))[0]
        observation = rows[0]
    return times


def latency(name: str, workload: Workload, *, history_layers: int) -> Iterator[Measurement]:
    """Time `predict` for one user; with a history, at the beginning, in the middle and at the end of a long trial."""
    size = size_of(workload)
    parameters = {**size.parameters, **({"horizon": size.long_horizon} if history_layers else {})}
    env = make_training_env(recgym.make_scenario(BANDIT, **parameters), 1)
    policy = {**tuned_values("meta_ppo", BANDIT).get("policy_kwargs", {}), "history_layers": history_layers}
    model = make_learner("meta_ppo", env, FULL_SIZE, **NO_EXPERT, policy_kwargs=policy)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        trials = [decision_times(model, env) for _ in range(1 + workload.repeats)][1:]  # the first warms up
    finally:
        torch.set_num_threads(threads)
    horizon = env.scenario.horizon
    places = []
    for begin, end in BEGINNING_MIDDLE_END if history_layers else ((0.0, 1.0),):
        start = round(begin * horizon)
        stop = round(end * horizon)
        walls, cpus = zip(*(map(median, zip(*times[start:stop], strict=True)) for times in trials), strict=True)
        places.append(walls)
        note = f"median of decisions {start + 1} to {stop}, one thread; {median(cpus):.2f} ms of processor time"
        place = f" at {start + 1}-{stop}" if history_layers else ""
        yield Measurement.of(f"{name}{place}", walls, "ms", note, most=MAX_LATENCY)
    if history_layers:
        growth = [last / first for first, last in zip(places[0], places[-1], strict=True)]
        longer = (horizon - 1) / (round(BEGINNING_MIDDLE_END[0][1] * horizon) - 1)
        note = f"of a history that is {longer:.0f} times as long"
        yield Measurement.of(f"{name}, end / beginning", growth, "times", note)


def shipped_latency(name: str, workload: Workload) -> Iterator[Measurement]:
    """Time one user's decision of every shipped agent, in torch and in onnxruntime, decision by decision in turn."""
    if find_spec("onnxscript") is None:
        yield Measurement.of(name, [], "µs", "needs pip install 'recgym[export]'")
        return
    agents = [BANDIT] if workload.shrink > 1 else agent_ids()
    with tempfile.TemporaryDirectory() as folder:
        for env_id in agents:
            model = load_pretrained(env_id, device="cpu")
            path = export_onnx(model, Path(folder) / env_id)
            decisions = max(10, DECISIONS // workload.shrink)
            pairs = [measure_latency(model, path, decisions=decisions) for _ in range(workload.repeats)]
            for library, times in zip(("torch", "onnxruntime"), zip(*pairs, strict=True), strict=True):
                note = f"`predict`, median of {decisions} decisions, one thread"
                yield Measurement.of(f"{name}: {env_id}, {library}", times, "µs", note)


def learner_benchmarks(curves: dict[str, Any]) -> dict[str, Benchmark]:
    """List what can be measured, by name; the longest comes last.

    Args:
        curves: filled with the evaluations of the time to a score.
    """
    return {
        "Gittins table": Benchmark("cpu", gittins_table),
        "latency of a decision": Benchmark("torch", partial(latency, history_layers=0)),
        "latency of shipped agents": Benchmark("torch", shipped_latency),
        "latency with a history": Benchmark("torch", partial(latency, history_layers=2)),
        "PPO training": Benchmark("torch", training_speed),
        "PPO training, torch GPU": Benchmark("cuda", gpu_training),
        "trials from an initial policy": Benchmark("torch", initial_policies),
        "time to a score": Benchmark("torch", partial(time_to_score, curves=curves)),
    }
