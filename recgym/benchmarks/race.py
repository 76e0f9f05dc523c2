"""Time training until a score, and count trials from an initial policy: MetaPPO beside RecurrentPPO and PPO."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from stable_baselines3.common.callbacks import BaseCallback

import recgym
from recgym.agents.tuned import tuned_values
from recgym.baselines import make_baseline
from recgym.benchmarks.sizes import LEARNERS, NO_EXPERT, OURS, make_learner, make_training_env, size_of
from recgym.benchmarks.timing import BANDIT, Measurement, Workload
from recgym.evaluation import VALIDATION_SEED, rollout
from recgym.evaluation.drawing import new_figure
from recgym.terminal import say

__all__ = ["Point", "Race", "initial_policies", "time_figure", "time_ratio", "time_to_score"]

WAY = 0.98  # from random to the Gittins index
SHARE = 1 / 3  # of the time of the better of the others that training may take
INITIAL: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {  # of the environment, policy, algorithm
    "uniform, imitation first": ({}, {}, {}),
    "uniform": ({}, {}, NO_EXPERT),
    "softmax of the running mean": ({}, {"init_policy": "softmax"}, NO_EXPERT),
    "an expert's judgement with noise 3": ({"expert": 3.0}, {"init_policy": "expert"}, NO_EXPERT),
}


class Point(NamedTuple):
    """One evaluation."""

    seconds: float  # of training so far, evaluations left out
    cpu_seconds: float  # of the process, likewise
    timesteps: int
    score: float  # mean expected reward per trial


class Race(BaseCallback):
    """Keep a clock that stands still during evaluations; end training where all goals are reached or time is up.

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
        self.score = score
        self.goals = goals
        self.every = every
        self.budget = budget
        self.label = label
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
        clocks = zip(self._spent, self._now(), self._started, strict=True)
        seconds, cpu_seconds = (before + now - then for before, now, then in clocks)
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
        say(
            f"    {self.label}, {seconds:.1f} s, {point.timesteps:,} timesteps: {point.score:.2f} ({goals})",
            error=True,
        )
        self._spent = (seconds, cpu_seconds)
        self._started = self._now()

    def _on_step(self) -> bool:
        return not self.over

    def line(self, name: str, goal: str) -> Measurement:
        """Report the seconds until a goal, or how far training came."""
        if goal in self.reached:
            point = self.reached[goal]
            note = f"{point.timesteps:,} timesteps, {point.cpu_seconds:.0f} s of processor time"
            note += f"; scored {point.score:.2f} of {self.goals[goal]:.2f}"
            return Measurement.of(name, [point.seconds], "s", note)
        seconds = self.curve[-1].seconds if self.curve else 0.0
        best = max((point.score for point in self.curve), default=float("nan"))
        note = f"not within {seconds:.0f} s: scored {best:.2f} at best of {self.goals[goal]:.2f}"
        return Measurement.of(name, [], "s", note)


def time_to_score(name: str, workload: Workload, *, curves: dict[str, Any]) -> Iterator[Measurement]:
    """Race all learners, one after another; `curves` keeps their evaluations and the scores that count."""
    size = size_of(workload)
    scenario = recgym.make_scenario(BANDIT, **size.parameters)

    def score(policy: Any) -> float:
        return float(rollout(policy, scenario, trials=size.trials, seed=VALIDATION_SEED).expected.mean())

    random, thompson, gittins = (score(make_baseline(n, scenario)) for n in ("random", "thompson", "gittins"))
    goals = {"Thompson": thompson, f"{100 * WAY:.0f} % of the way to FHGI": random + WAY * (gittins - random)}
    curves |= {"random": random, "fhgi": gittins, "goals": goals, "learners": {}}
    races: dict[str, Race] = {}
    for label, algo in LEARNERS.items():
        race = races[label] = Race(score, goals, every=size.every, budget=workload.budget, label=label)
        model = make_learner(algo, make_training_env(scenario, size.n_envs), size)
        stop: KeyboardInterrupt | None = None
        try:
            while not race.over:  # where the tuned number of steps is over, another call of learn goes on
                model.learn(tuned_values(algo, BANDIT)["n_timesteps"], race, reset_num_timesteps=False)
        except KeyboardInterrupt as interrupt:
            stop = interrupt
        curves["learners"][label] = [point._asdict() for point in race.curve]
        yield from (race.line(f"{name}: {label}, {goal}", goal) for goal in goals)
        if stop:
            raise stop
    yield from (time_ratio(f"{name}: {OURS} / better of the others, {goal}", races, goal) for goal in goals)


def time_ratio(name: str, races: Mapping[str, Race], goal: str) -> Measurement:
    """Divide the seconds of ours by those of the better of the others; an upper bound where they do not get there."""
    ours = races[OURS]
    others = [race for label, race in races.items() if label != OURS]
    arrivals = [race.reached[goal] for race in others if goal in race.reached]
    if goal not in ours.reached:
        note = "MetaPPO did not get there" + ("" if arrivals else ", nor did the others")
        return Measurement.of(name, [], "times", note, most=SHARE)._replace(met=False if arrivals else None)
    mine = ours.reached[goal]
    ends = arrivals or [race.curve[-1] for race in others]
    ratio, cpu = (mine[i] / max(min(point[i] for point in ends), 1e-9) for i in (0, 1))
    note = "evaluations not counted" if arrivals else "an upper bound: the others did not get there"
    line = Measurement.of(name, [ratio], "times", f"{note}; of processor time {cpu:.2f}", most=SHARE)
    return line if arrivals else line._replace(met=line.met or None)  # the ratio itself is smaller


def initial_policies(name: str, workload: Workload) -> Iterator[Measurement]:
    """Count the trials that MetaPPO plays in training until it scores as Thompson sampling, by what it begins with."""
    size = size_of(workload)
    for label, (parameters, policy, values) in INITIAL.items():
        scenario = recgym.make_scenario(BANDIT, **size.parameters, **parameters)

        def score(agent: Any, scenario: Any = scenario) -> float:
            return float(rollout(agent, scenario, trials=size.trials, seed=VALIDATION_SEED).expected.mean())

        goal = {"Thompson": score(make_baseline("thompson", scenario))}
        usual = {**tuned_values("meta_ppo", BANDIT), **size.hyperparameters.get("meta_ppo", {})}
        kwargs = {**usual.get("policy_kwargs", {}), **policy}
        race = Race(score, goal, every=0.0, budget=workload.budget, label=label)
        env = make_training_env(scenario, size.n_envs)
        model = make_learner("meta_ppo", env, size, **values, policy_kwargs=kwargs)
        while not race.over:
            model.learn(tuned_values("meta_ppo", BANDIT)["n_timesteps"], race, reset_num_timesteps=False)
        point = race.reached.get("Thompson", race.curve[-1])
        trials = point.timesteps // scenario.horizon
        scores = f"{race.curve[0].score:.2f}, then {point.score:.2f} of {goal['Thompson']:.2f}"
        note = f"scored {scores} after {point.seconds:.0f} s"
        if not race.reached:
            note = f"not within {trials:,} trials; {note}"
        yield Measurement.of(f"{name}: {label}", [float(trials)] if race.reached else [], "trials", note)


def time_figure(curves: Mapping[str, Any]) -> Any:
    """Draw scores over the seconds of training, with the scores that count."""
    figure, axes = new_figure()
    for label, points in curves.get("learners", {}).items():
        axes.plot([p["seconds"] for p in points], [p["score"] for p in points], ".-", label=label, linewidth=1.5)
    for goal, score in curves.get("goals", {}).items():
        axes.axhline(score, color="grey", linewidth=1, linestyle="--")
        axes.annotate(goal, (1, score), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=9)
    title = f"{BANDIT}: score on validation tasks, evaluations not counted"
    axes.set(xlabel="training (s)", ylabel="expected reward per trial", title=title)
    if curves.get("learners"):
        axes.legend(fontsize=9, frameon=False, loc="lower right")
    return figure
