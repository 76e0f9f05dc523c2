"""What learning costs: MetaPPO beside SB3's RecurrentPPO and PPO, for `benchmark.py --learners`.

Time of training until a score, trials from an initial policy, speed of PPO training, latency of a decision.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from benchmark import ENV, Plan, Play, Row, measure, row
from stable_baselines3.common.callbacks import BaseCallback
from train import hyperparameters

import recgym
from recgym.agents.algorithms import build
from recgym.baselines import make_baseline
from recgym.baselines.gittins import load_table
from recgym.evaluation import VALIDATION_SEED, rollout
from recgym.sb3 import RecVecEnv

LEARNERS = {"MetaPPO": "meta_ppo", "RecurrentPPO": "recurrent_ppo", "PPO": "ppo"}
OURS = "MetaPPO"
SAME_WORK = "MetaPPO, RecurrentPPO's passes"
GPU_ENVS = 4_096
WAY = 0.98  # from random to the Gittins index
SLOWEST = 5.0  # ms that a decision for one user may take
SHARE = 1 / 3  # of the time of the better of the others that training may take
NO_EXPERT = {"expert": None, "expert_coef": 0.0, "pretrain_steps": 0}  # PPO alone
INITIAL: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {  # of the environment, policy, algorithm
    "uniform, imitation first": ({}, {}, {}),
    "uniform": ({}, {}, NO_EXPERT),
    "softmax of the running mean": ({}, {"init_policy": "softmax"}, NO_EXPERT),
    "an expert's judgement with noise 3": ({"expert": 3.0}, {"init_policy": "expert"}, NO_EXPERT),
}
WARM_UPS = 2  # plays of `measure` before those that count
PHASES = ("collect_rollouts", "train")  # the two halves of an SB3 on-policy iteration
BEGINNING_MIDDLE_END = ((0.0, 0.1), (0.4, 0.5), (0.9, 1.0))  # of a trial


class Size(NamedTuple):
    """How large everything is."""

    parameters: dict[str, Any]  # of the environment
    long_horizon: int  # decisions of the trials in which a history grows
    n_envs: int  # of every algorithm
    trials: int  # per evaluation
    every: float  # seconds of training from one evaluation to the next, at least
    hyperparameters: dict[str, dict[str, Any]]  # by algorithm, in place of the tuned ones


FULL = Size({}, 500, 256, 2_000, 3.0, {})
SMALL = {"n_steps": 10, "batch_size": 40, "n_epochs": 2}
QUICK = Size(
    {"arms": 3, "horizon": 10},
    30,
    16,
    50,
    0.1,
    {
        "meta_ppo": {**SMALL, "pretrain_steps": 800, "policy_kwargs": {"width": 8, "layers": 1}},
        "recurrent_ppo": {**SMALL, "policy_kwargs": {"lstm_hidden_size": 8, "net_arch": [8]}},
        "ppo": {**SMALL, "policy_kwargs": {"net_arch": [8]}},
    },
)


def size_of(plan: Plan) -> Size:
    return QUICK if plan.shrink > 1 else FULL


def make(algo: str, env: RecVecEnv, size: Size, *, device: str = "cpu", **values: Any) -> Any:
    """An algorithm with its tuned values, and `values` instead of some."""
    chosen = {**hyperparameters(algo, ENV), **size.hyperparameters.get(algo, {}), **values}
    for name in ("n_timesteps", "n_envs"):  # of the script that trains
        del chosen[name]
    return build(algo, env, chosen, device=device, seed=0)


def make_env(scenario: Any, n_envs: int, **arguments: Any) -> RecVecEnv:
    env = RecVecEnv(scenario, n_envs, **arguments)
    env.seed(0)
    return env


# --- time until a score ----------------------------------------------------------------------------------------------
class Point(NamedTuple):
    """One evaluation."""

    seconds: float  # of training so far, evaluations left out
    cpu_seconds: float  # of the process, likewise
    timesteps: int
    score: float  # mean expected reward per trial


class Race(BaseCallback):
    """A clock that stands still during evaluations; training ends where all goals are reached or the budget is spent.

    Args:
        score: of a policy.
        goals: scores by name.
        every: seconds of training from one evaluation to the next, at least; it is the end of an update that is waited
            for.
        budget: seconds of training.
        label: of the learner, for the progress on stderr.
    """

    def __init__(
        self, score: Callable[[Any], float], goals: Mapping[str, float], *, every: float, budget: float, label: str
    ) -> None:
        super().__init__()
        self.score, self.goals, self.every, self.budget, self.label = score, goals, every, budget, label
        self.curve: list[Point] = []
        self.reached: dict[str, Point] = {}
        self.over = False
        self._spent = (0.0, 0.0)  # wall and processor seconds until the clock was last stopped
        self._started = (0.0, 0.0)  # when it was started again

    @staticmethod
    def _now() -> tuple[float, float]:
        return time.perf_counter(), time.process_time()

    def _on_training_start(self) -> None:
        if not self.curve:  # learn() may be called several times
            self._started = self._now()

    def _on_rollout_start(self) -> None:  # after an update
        spent = [s + now - then for s, now, then in zip(self._spent, self._now(), self._started, strict=True)]
        seconds, cpu_seconds = spent
        self.over = seconds >= self.budget
        if self.curve and not self.over and seconds - self.curve[-1].seconds < self.every:
            return
        point = Point(seconds, cpu_seconds, self.num_timesteps, self.score(self.model))
        self.curve.append(point)
        for goal, needed in self.goals.items():
            if point.score >= needed:
                self.reached.setdefault(goal, point)
        self.over = self.over or len(self.reached) == len(self.goals)
        goals = ", ".join(f"{goal} {needed:.2f}" for goal, needed in self.goals.items())
        print(
            f"    {self.label}, {seconds:.1f} s, {point.timesteps:,} timesteps: {point.score:.2f} ({goals})",
            file=sys.stderr,
            flush=True,
        )
        self._spent, self._started = (seconds, cpu_seconds), self._now()

    def _on_step(self) -> bool:
        return not self.over

    def row(self, name: str, goal: str) -> Row:
        """The seconds until a goal, or how far training came."""
        if goal in self.reached:
            point = self.reached[goal]
            note = f"{point.timesteps:,} timesteps, {point.cpu_seconds:.0f} s of processor time"
            return row(name, [point.seconds], "s", f"{note}; scored {point.score:.2f} of {self.goals[goal]:.2f}")
        seconds = self.curve[-1].seconds if self.curve else 0.0
        best = max((point.score for point in self.curve), default=float("nan"))
        return row(name, [], "s", f"not within {seconds:.0f} s: scored {best:.2f} at best of {self.goals[goal]:.2f}")


def time_to_score(name: str, plan: Plan, *, curves: dict[str, Any]) -> Iterator[Row]:
    """All learners, one after another; `curves` keeps their evaluations and the scores that count."""
    size = size_of(plan)
    scenario = recgym.make_scenario(ENV, **size.parameters)

    def score(policy: Any) -> float:
        return float(rollout(policy, scenario, trials=size.trials, seed=VALIDATION_SEED).expected.mean())

    random, thompson, gittins = (score(make_baseline(n, scenario)) for n in ("random", "thompson", "gittins"))
    goals = {"Thompson": thompson, f"{100 * WAY:.0f} % of the way to FHGI": random + WAY * (gittins - random)}
    curves |= {"random": random, "fhgi": gittins, "goals": goals, "learners": {}}
    races: dict[str, Race] = {}
    for label, algo in LEARNERS.items():
        race = races[label] = Race(score, goals, every=size.every, budget=plan.budget, label=label)
        model = make(algo, make_env(scenario, size.n_envs), size)
        stopped = None
        try:
            while not race.over:  # where the tuned number of steps is over, another call of learn goes on
                model.learn(hyperparameters(algo, ENV)["n_timesteps"], race, reset_num_timesteps=False)
        except KeyboardInterrupt as interrupt:
            stopped = interrupt
        curves["learners"][label] = [point._asdict() for point in race.curve]
        yield from (race.row(f"{name}: {label}, {goal}", goal) for goal in goals)
        if stopped:
            raise stopped
    yield from (time_ratio(f"{name}: {OURS} / better of the others, {goal}", races, goal) for goal in goals)


def time_ratio(name: str, races: Mapping[str, Race], goal: str) -> Row:
    """Seconds that ours takes by those of the better of the others; an upper bound where they do not get there."""
    ours, others = races[OURS], [race for label, race in races.items() if label != OURS]
    found = [race.reached[goal] for race in others if goal in race.reached]
    if goal not in ours.reached:
        note = "MetaPPO did not get there" + ("" if found else ", nor did the others")
        return row(name, [], "times", note, most=SHARE)._replace(met=False if found else None)
    mine, ends = ours.reached[goal], found or [race.curve[-1] for race in others]
    ratio, cpu = (mine[i] / max(min(point[i] for point in ends), 1e-9) for i in (0, 1))
    note = "evaluations not counted" if found else "an upper bound: the others did not get there"
    line = row(name, [ratio], "times", f"{note}; of processor time {cpu:.2f}", most=SHARE)
    return line if found else line._replace(met=line.met or None)  # the ratio itself is smaller


def initial_policies(name: str, plan: Plan) -> Iterator[Row]:
    """Trials that MetaPPO plays in training until it scores as Thompson sampling, by what it begins with."""
    size = size_of(plan)
    for label, (parameters, policy, values) in INITIAL.items():
        scenario = recgym.make_scenario(ENV, **size.parameters, **parameters)

        def score(agent: Any, scenario: Any = scenario) -> float:
            return float(rollout(agent, scenario, trials=size.trials, seed=VALIDATION_SEED).expected.mean())

        goal = {"Thompson": score(make_baseline("thompson", scenario))}
        given = {**hyperparameters("meta_ppo", ENV), **size.hyperparameters.get("meta_ppo", {})}
        kwargs = {**given.get("policy_kwargs", {}), **policy}
        race = Race(score, goal, every=0.0, budget=plan.budget, label=label)
        model = make("meta_ppo", make_env(scenario, size.n_envs), size, **values, policy_kwargs=kwargs)
        while not race.over:
            model.learn(hyperparameters("meta_ppo", ENV)["n_timesteps"], race, reset_num_timesteps=False)
        point = race.reached.get("Thompson", race.curve[-1])
        trials = point.timesteps // scenario.horizon
        scores = f"{race.curve[0].score:.2f}, then {point.score:.2f} of {goal['Thompson']:.2f}"
        note = f"scored {scores} after {point.seconds:.0f} s"
        reached = [float(trials)] if race.reached else []
        yield row(f"{name}: {label}", reached, "trials", note if reached else f"not within {trials:,} trials; {note}")


@contextmanager
def empty_cache() -> Iterator[None]:
    before = os.environ.get("XDG_CACHE_HOME")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        try:
            yield
        finally:
            del os.environ["XDG_CACHE_HOME"]
            if before is not None:
                os.environ["XDG_CACHE_HOME"] = before


def gittins_table(name: str, plan: Plan) -> Iterator[Row]:
    scenario = recgym.make_scenario(ENV, **size_of(plan).parameters)

    def seconds() -> float:
        start = time.perf_counter()
        load_table(scenario.prior, scenario.horizon)
        return time.perf_counter() - start

    computed, cached = [], []
    for _ in range(plan.repeats):
        with empty_cache():
            computed.append(seconds())
            cached.append(seconds())
    note = f"horizon {scenario.horizon}, as many threads as cores, up to 8; from the cache {median(cached):.3f} s"
    yield row(name, computed, "s", f"{note}; the time to a score has it from there")


# --- speed of training -----------------------------------------------------------------------------------------------
def training_play(model: Any, spent: list[tuple[float, ...]]) -> Play:
    """Makes one rollout and learns from it, and adds the seconds of the two to `spent`.

    The learning rate has fallen to 0 at the end of each: that changes no speed.
    """
    seconds: dict[str, float] = {}

    def timed(phase: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            result = method(*arguments, **named)
            seconds[phase] = time.perf_counter() - start
            return result

        return run

    for phase in PHASES:
        setattr(model, phase, timed(phase, getattr(model, phase)))
    steps = model.n_steps * model.n_envs

    def play() -> int:
        model.learn(steps, reset_num_timesteps=False)
        spent.append(tuple(seconds[phase] for phase in PHASES))
        return steps

    return play


def phase_rows(name: str, spent: Sequence[tuple[float, ...]], steps: int) -> Iterator[Row]:
    """Speed of rollout and update apart, each as if the other took no time."""
    whole = sum(map(median, zip(*spent, strict=True)))
    for phase, seconds in zip(("rollout", "update"), zip(*spent, strict=True), strict=True):
        note = f"{median(seconds) / whole:.0%} of the time"
        yield row(f"{name}, {phase}", [steps / s for s in seconds], "steps/s", note)


def training_speed(name: str, plan: Plan) -> Iterator[Row]:
    """PPO of both, without imitation, in turns: as tuned, and ours with RecurrentPPO's work on every decision."""
    size, other = size_of(plan), "RecurrentPPO"
    plan = plan._replace(repeats=min(plan.repeats, 3))  # one of its updates takes the better part of a minute
    scenario = recgym.make_scenario(ENV, **size.parameters)
    models = {other: make("recurrent_ppo", make_env(scenario, size.n_envs), size)}
    same = {"n_epochs": models[other].n_epochs, "batch_size": models[other].batch_size, "batch_decisions": None}
    for label, values in ((OURS, {}), (SAME_WORK, same)):
        models[label] = make("meta_ppo", make_env(scenario, size.n_envs), size, **NO_EXPERT, **values)
    spent: dict[str, list[tuple[float, ...]]] = {label: [] for label in models}
    rates = measure(plan, *(training_play(model, spent[label]) for label, model in models.items()))
    for (label, model), figures in zip(models.items(), rates, strict=True):
        seen = getattr(model, "batch_decisions", None) or model.n_steps
        passes = model.n_epochs * min(1.0, seen / model.n_steps)
        batch = f"of about {model.batch_size:,}" if model.batch_size else "a quarter of a rollout each"
        note = f"{model.n_envs} environments, {passes:.1f} passes over each decision, minibatches {batch}"
        yield row(f"{name}: {label}", figures, "steps/s", note)
        yield from phase_rows(f"{name}: {label}", spent[label][WARM_UPS:], model.n_steps * model.n_envs)
    theirs, *ours = rates
    for label, figures in zip((OURS, SAME_WORK), ours, strict=True):
        ratios = [mine / other_rate for mine, other_rate in zip(figures, theirs, strict=True)]
        yield row(f"{name}: {label} / {other}", ratios, "times", "in turns, repeat by repeat", least=1)


def gpu_training(name: str, plan: Plan) -> Iterator[Row]:
    """With environments, policy and buffer on the GPU; and how much of a rollout the environments take."""
    if plan.gpu is None:
        yield row(name, [], "steps/s", "no GPU here")
        return
    n_envs = GPU_ENVS // plan.shrink
    size = size_of(plan)
    env: Any = make_env(recgym.make_scenario(ENV, **size.parameters), n_envs, device=plan.gpu)
    model, spent = make("meta_ppo", env, size, device=plan.gpu, **NO_EXPERT), []
    play = training_play(model, spent)
    (rates,) = measure(plan, play)
    yield row(name, rates, "steps/s", f"{n_envs:,} environments on the GPU, {model.n_epochs} epochs")
    yield from phase_rows(name, spent[WARM_UPS:], model.n_steps * n_envs)
    inside, step = 0.0, env.step_tensor

    def timed_step(action: torch.Tensor) -> Any:
        nonlocal inside
        synchronise(action)
        start = time.perf_counter()
        result = step(action)
        synchronise(action)
        inside += time.perf_counter() - start
        return result

    env.step_tensor = timed_step
    shares = []
    for _ in range(plan.repeats):
        inside = 0.0
        play()
        shares.append(100.0 * inside / spent[-1][0])
    yield row(f"{name}, environment's share", shares, "%", "of a rollout that waits for the GPU around each step")


def synchronise(tensor: torch.Tensor) -> None:
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)


# --- latency ---------------------------------------------------------------------------------------------------------
def decision_times(model: Any, env: RecVecEnv) -> list[tuple[float, float]]:
    """Milliseconds of each decision of one user's trial, and those on the processor; memory is handed on."""
    observation, memory, times = env.reset()[0], None, []
    for _ in range(env.scenario.horizon):
        start, on_processor = time.perf_counter(), time.thread_time()
        action, memory = model.predict(observation, state=memory)
        times.append((1e3 * (time.perf_counter() - start), 1e3 * (time.thread_time() - on_processor)))
        observation = env.step(np.asarray([action]))[0][0]
    return times


def latency(name: str, plan: Plan, *, history_layers: int) -> Iterator[Row]:
    """Of `predict` for one user; with a history, at the beginning, in the middle and at the end of a long trial."""
    size = size_of(plan)
    parameters = {**size.parameters, **({"horizon": size.long_horizon} if history_layers else {})}
    env = make_env(recgym.make_scenario(ENV, **parameters), 1)
    policy = {**hyperparameters("meta_ppo", ENV).get("policy_kwargs", {}), "history_layers": history_layers}
    model = make("meta_ppo", env, FULL, **NO_EXPERT, policy_kwargs=policy)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        trials = [decision_times(model, env) for _ in range(1 + plan.repeats)][1:]  # the first warms up
    finally:
        torch.set_num_threads(threads)
    horizon, found = env.scenario.horizon, []
    for begin, end in BEGINNING_MIDDLE_END if history_layers else ((0.0, 1.0),):
        first, last = round(begin * horizon), round(end * horizon)
        walls, cpus = zip(*(map(median, zip(*times[first:last], strict=True)) for times in trials), strict=True)
        found.append(walls)
        note = f"median of decisions {first + 1} to {last}, one thread; {median(cpus):.2f} ms of processor time"
        place = f" at {first + 1}-{last}" if history_layers else ""
        yield row(f"{name}{place}", found[-1], "ms", note, most=SLOWEST)
    if history_layers:
        growth = [last / first for first, last in zip(found[0], found[-1], strict=True)]
        longer = (horizon - 1) / (round(BEGINNING_MIDDLE_END[0][1] * horizon) - 1)
        yield row(f"{name}, end / beginning", growth, "times", f"of a history that is {longer:.0f} times as long")


def benchmarks(curves: dict[str, Any]) -> dict[str, tuple[str, Callable[[str, Plan], Iterator[Row]]]]:
    """Name to device and function, as `benchmark.benchmarks`; the longest comes last.

    Args:
        curves: filled with the evaluations of the time to a score.
    """
    return {
        "Gittins table": ("cpu", gittins_table),
        "latency of a decision": ("torch", partial(latency, history_layers=0)),
        "latency with a history": ("torch", partial(latency, history_layers=2)),
        "PPO training": ("torch", training_speed),
        "PPO training, torch GPU": ("cuda", gpu_training),
        "trials from an initial policy": ("torch", initial_policies),
        "time to a score": ("torch", partial(time_to_score, curves=curves)),
    }


# --- figures ---------------------------------------------------------------------------------------------------------
def new_figure() -> tuple[Any, Any]:
    """A matplotlib Figure and its axes."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("figures are drawn with matplotlib: pip install 'recgym[plot]'") from error
    figure = Figure(figsize=(8, 5), dpi=110, layout="constrained")
    return figure, figure.subplots()


def time_figure(curves: Mapping[str, Any]) -> Any:
    """Scores over the seconds of training, with the scores that count."""
    figure, axes = new_figure()
    for label, points in curves.get("learners", {}).items():
        axes.plot([p["seconds"] for p in points], [p["score"] for p in points], ".-", label=label, linewidth=1.5)
    for goal, score in curves.get("goals", {}).items():
        axes.axhline(score, color="grey", linewidth=1, linestyle="--")
        axes.annotate(goal, (1, score), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=9)
    title = f"{ENV}: score on validation tasks, evaluations not counted"
    axes.set(xlabel="training (s)", ylabel="expected reward per trial", title=title)
    if curves.get("learners"):
        axes.legend(fontsize=9, frameon=False, loc="lower right")
    return figure
