"""Measure whether learning generalises: PPO alone on fixed numbers of tasks, scored on these and on held-out ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

import recgym
from recgym.arrays import batch_size, to_numpy, tree_map
from recgym.baselines import make_baseline
from recgym.benchmarks.sizes import FULL_SIZE, NO_EXPERT, QUICK_SIZE, make_learner, make_training_env
from recgym.benchmarks.timing import BANDIT
from recgym.evaluation import TEST_SEED, VALIDATION_SEED, Interval, Trials, interval, rollout, summarise
from recgym.evaluation.drawing import new_figure
from recgym.terminal import Table, say

__all__ = [
    "Generalisation",
    "make_split",
    "normalised_score",
    "overfit",
    "overfitting_figure",
    "print_overfitting",
    "train_on_fixed_tasks",
]

TASKS = (10, 100, 1_000, 10_000, None)  # None: a new task for every trial
KNOBS: dict[str, dict[str, Any]] = {
    "default": {},
    "weight_decay 0.01, target_kl 0.02": {"weight_decay": 0.01, "target_kl": 0.02},
}
TRAINING_SEED = 500_000  # of training tasks that no run here has drawn


class Split(NamedTuple):
    """What a policy is scored on, and how those play it that scores are normalised by, and one that never trained."""

    play: Callable[[Any], Trials]
    random: Trials
    informed: Trials
    gittins: Trials


class Generalisation(NamedTuple):
    """An agent that was trained on `tasks` tasks (None: always new ones); normalised scores of sampled actions."""

    tasks: int | None
    knobs: str
    timesteps: int
    seconds: float  # of training
    training: Interval
    validation: Interval
    test: Interval
    gap: Interval  # clicks per trial by which training tasks suit it better than test tasks; see `overfit`

    def to_json(self) -> dict[str, Any]:
        """Give it as JSON can carry it."""
        return {k: v._asdict() if isinstance(v, Interval) else v for k, v in self._asdict().items()}


def make_split(scenario: Any, trials: int, *, seed: int, tasks: Any = None) -> Split:
    """Make a split of tasks that the seed draws, or of `tasks` [N, ...]: all equally often, or as many as `trials`."""
    task = None
    if tasks is not None:
        count = batch_size(tasks)
        trials = trials if count > trials else count * -(-trials // count)
        task = tree_map(lambda leaf: np.take(to_numpy(leaf), np.arange(trials) % count, axis=0), tasks)
    play = partial(rollout, scenario=scenario, trials=trials, seed=seed, task=task)
    return Split(play, *(play(make_baseline(name, scenario)) for name in ("random", "informed", "gittins")))


def normalised_score(own: Trials, split: Split, scenario: Any) -> Interval:
    """Score (R - R_random) / (R_informed - R_random) of expected rewards, with an interval over the trials.

    A few tasks are played over and over: their interval is about these tasks, not about the drawing of them.
    """
    results = {"random": split.random, "informed": split.informed, "agent": own}
    expected = {name: trials._replace(returns=trials.expected) for name, trials in results.items()}
    score = summarise(expected, scenario)["agent"].normalised
    assert score is not None, "the benchmark's environment has an optimum"
    return score


def overfit(training: Trials, train_split: Split, test: Trials, test_split: Split) -> Interval:
    """Measure by how much more an agent is above the Gittins index on its training tasks than on test tasks.

    The index has not seen either, so that what tells the two sets of tasks apart, such as easy ones by chance, cancels
    as far as both suffer it alike. The interval adds the variances of the two sets.
    """
    here = interval(training.expected - train_split.gittins.expected)
    there = interval(test.expected - test_split.gittins.expected)
    low = np.hypot(here.mean - here.low, there.high - there.mean)
    high = np.hypot(here.high - here.mean, there.mean - there.low)
    gap = here.mean - there.mean
    return Interval(gap, float(gap - low), float(gap + high))


def train_on_fixed_tasks(*, timesteps: int, quick: bool) -> Iterator[Generalisation]:
    """Train from scratch, by PPO alone, on ever more tasks, and score on these and on held-out ones.

    Args:
        timesteps: of each training, rounded up to whole rollouts.
        quick: small environments and networks, few tasks.
    """
    size = QUICK_SIZE if quick else FULL_SIZE
    scenario = recgym.make_scenario(BANDIT, **size.parameters)
    fresh = {s: make_split(scenario, size.trials, seed=s) for s in (TRAINING_SEED, VALIDATION_SEED, TEST_SEED)}
    runs = [(knobs, tasks) for knobs in KNOBS for tasks in (TASKS[:2] + TASKS[-1:] if quick else TASKS)]
    for number, (knobs, tasks) in enumerate(runs, 1):
        what = f"{tasks_text(tasks)} tasks, {knobs}"
        say(f"[{number}/{len(runs)}] {what} ...", error=True)
        env = make_training_env(scenario, size.n_envs, tasks=tasks)
        model = make_learner("meta_ppo", env, size, **NO_EXPERT, **KNOBS[knobs])
        start = time.perf_counter()
        model.learn(timesteps)
        seconds = time.perf_counter() - start
        training = fresh[TRAINING_SEED]  # tasks always new in training are so here
        if tasks is not None:
            training = make_split(scenario, size.trials, seed=TRAINING_SEED, tasks=env.fixed_tasks)
        splits = (training, fresh[VALIDATION_SEED], fresh[TEST_SEED])
        results = [split.play(model) for split in splits]
        scores = [normalised_score(trials, split, scenario) for trials, split in zip(results, splits, strict=True)]
        gap = overfit(results[0], training, results[2], splits[2])
        outcome = f"{seconds:.0f} s; {score_text(scores[0])}, held out {score_text(scores[2])}"
        say(f"    {outcome}", error=True)
        yield Generalisation(tasks, knobs, model.num_timesteps, seconds, scores[0], scores[1], scores[2], gap)


def tasks_text(tasks: int | None) -> str:
    """Write a number of tasks."""
    return "fresh" if tasks is None else f"{tasks:,}"


def score_text(score: Interval) -> str:
    """Write a score with its interval."""
    return f"{score.mean:.3f} ({score.low:.3f} to {score.high:.3f})"


def print_overfitting(lines: Sequence[Generalisation], caption: str) -> None:
    """Print the scores as a table."""
    title = "normalised scores of sampled actions, 95 % intervals: PPO from scratch on N tasks"
    headings = ("tasks", "knobs", "timesteps", "training tasks", "validation", "test", "overfit")
    table = Table(title, headings, left=("knobs",), spare=("timesteps", "knobs"))
    table.caption = f"overfit: clicks above the Gittins index on training tasks, minus those on test tasks. {caption}"
    for line in lines:
        scores = [score_text(score) for score in (line.training, line.validation, line.test)]
        gap = f"{line.gap.mean:+.2f} ({line.gap.low:.2f} to {line.gap.high:.2f})"
        table.add(tasks_text(line.tasks), line.knobs, f"{line.timesteps:,}", *scores, gap)
    table.show()


def overfitting_figure(agents: Sequence[Generalisation]) -> Any:
    """Draw scores over the number of training tasks, with 95 % bands; fresh tasks stand at the right."""
    figure, axes = new_figure()
    numbers = [agent.tasks for agent in agents if agent.tasks is not None]
    fresh = 10 * max(numbers, default=1)
    sets = list(dict.fromkeys(agent.knobs for agent in agents))
    for style, knobs in zip(("-", "--"), sets, strict=False):
        lines = [agent for agent in agents if agent.knobs == knobs]
        places = [fresh if line.tasks is None else line.tasks for line in lines]
        for colour, name in enumerate(("training", "validation", "test")):
            mean, low, high = zip(*(getattr(line, name) for line in lines), strict=True)
            label = f"{name} tasks" + ("" if knobs == "default" else f", {knobs}")
            axes.plot(places, mean, f"C{colour}{style}", marker=".", label=label, linewidth=1.5)
            axes.fill_between(places, low, high, color=f"C{colour}", alpha=0.15, linewidth=0)
    ticks = {**{n: tasks_text(n) for n in sorted(set(numbers))}, fresh: tasks_text(None)}
    axes.set_xscale("log")
    axes.set_xticks(list(ticks), ticks.values())
    axes.minorticks_off()
    axes.set(xlabel="tasks in training", ylabel="normalised score", title=f"{BANDIT}: PPO from scratch on fixed tasks")
    if agents:
        axes.legend(fontsize=9, frameon=False)
    return figure
