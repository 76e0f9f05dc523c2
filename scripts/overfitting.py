"""Whether learning generalises, for `benchmark.py --overfitting`: PPO alone on fixed numbers of tasks.

Scores of the agents on the tasks of their training and on held-out ones.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from benchmark import ENV
from learners import FULL, NO_EXPERT, QUICK, make, make_env, new_figure
from rich.console import Console
from rich.table import Table

import recgym
from recgym.arrays import batch_size, to_numpy, tree_map
from recgym.baselines import make_baseline
from recgym.evaluation import TEST_SEED, VALIDATION_SEED, Interval, Trials, interval, rollout, summarise

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
        return {k: v._asdict() if isinstance(v, Interval) else v for k, v in self._asdict().items()}


def make_split(scenario: Any, trials: int, *, seed: int, tasks: Any = None) -> Split:
    """Of tasks that the seed draws, or of given `tasks` [N, ...]: all of them equally often, or as many as `trials`."""
    task = None
    if tasks is not None:
        count = batch_size(tasks)
        trials = trials if count > trials else count * -(-trials // count)
        task = tree_map(lambda leaf: np.take(to_numpy(leaf), np.arange(trials) % count, axis=0), tasks)
    play = partial(rollout, scenario=scenario, trials=trials, seed=seed, task=task)
    return Split(play, *(play(make_baseline(name, scenario)) for name in ("random", "informed", "gittins")))


def normalised_score(played: Trials, split: Split, scenario: Any) -> Interval:
    """(R - R_random) / (R_informed - R_random) of expected rewards, with an interval over the trials.

    A few tasks are played over and over: their interval is about these tasks, not about the drawing of them.
    """
    found = {"random": split.random, "informed": split.informed, "agent": played}
    expected = {name: trials._replace(returns=trials.expected) for name, trials in found.items()}
    return summarise(expected, scenario)["agent"].normalised


def overfit(training: Trials, train_split: Split, test: Trials, test_split: Split) -> Interval:
    """By how much more an agent is above the Gittins index on its training tasks than on test tasks.

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
    size = QUICK if quick else FULL
    scenario = recgym.make_scenario(ENV, **size.parameters)
    held_out = {s: make_split(scenario, size.trials, seed=s) for s in (TRAINING_SEED, VALIDATION_SEED, TEST_SEED)}
    runs = [(knobs, tasks) for knobs in KNOBS for tasks in (TASKS[:2] + TASKS[-1:] if quick else TASKS)]
    for number, (knobs, tasks) in enumerate(runs, 1):
        what = f"{called(tasks)} tasks, {knobs}"
        print(f"[{number}/{len(runs)}] {what} ...", file=sys.stderr, flush=True)
        env = make_env(scenario, size.n_envs, tasks=tasks)
        model = make("meta_ppo", env, size, **NO_EXPERT, **KNOBS[knobs])
        start = time.perf_counter()
        model.learn(timesteps)
        seconds = time.perf_counter() - start
        training = held_out[TRAINING_SEED]  # tasks always new in training are so here
        if tasks is not None:
            training = make_split(scenario, size.trials, seed=TRAINING_SEED, tasks=env.fixed_tasks)
        splits = (training, held_out[VALIDATION_SEED], held_out[TEST_SEED])
        played = [split.play(model) for split in splits]
        scores = [normalised_score(trials, split, scenario) for trials, split in zip(played, splits, strict=True)]
        gap = overfit(played[0], training, played[2], splits[2])
        print(f"    {seconds:.0f} s; {shown(scores[0])}, held out {shown(scores[2])}", file=sys.stderr, flush=True)
        yield Generalisation(tasks, knobs, model.num_timesteps, seconds, *scores, gap)


def called(tasks: int | None) -> str:
    return "fresh" if tasks is None else f"{tasks:,}"


def shown(score: Interval) -> str:
    return f"{score.mean:.3f} ({score.low:.3f} to {score.high:.3f})"


def print_overfitting(found: Sequence[Generalisation], caption: str) -> None:
    table = Table(title="normalised scores of sampled actions, 95 % intervals: PPO from scratch on N tasks")
    table.caption = f"overfit: clicks above the Gittins index on training tasks, minus those on test tasks. {caption}"
    for heading in ("tasks", "knobs", "timesteps", "training tasks", "validation", "test", "overfit"):
        table.add_column(heading, justify="left" if heading == "knobs" else "right")
    for line in found:
        scores = [shown(score) for score in (line.training, line.validation, line.test)]
        gap = f"{line.gap.mean:+.2f} ({line.gap.low:.2f} to {line.gap.high:.2f})"
        table.add_row(called(line.tasks), line.knobs, f"{line.timesteps:,}", *scores, gap)
    Console(width=None if sys.stdout.isatty() else 180).print(table)


def overfitting_figure(found: Sequence[Generalisation]) -> Any:
    """Scores over the number of training tasks, with 95 % bands; fresh tasks stand at the right."""
    figure, axes = new_figure()
    numbers = [line.tasks for line in found if line.tasks is not None]
    fresh = 10 * max(numbers, default=1)
    sets = list(dict.fromkeys(line.knobs for line in found))
    for style, knobs in zip(("-", "--"), sets, strict=False):
        lines = [line for line in found if line.knobs == knobs]
        places = [fresh if line.tasks is None else line.tasks for line in lines]
        for colour, name in enumerate(("training", "validation", "test")):
            mean, low, high = zip(*(getattr(line, name) for line in lines), strict=True)
            label = f"{name} tasks" + ("" if knobs == "default" else f", {knobs}")
            axes.plot(places, mean, f"C{colour}{style}", marker=".", label=label, linewidth=1.5)
            axes.fill_between(places, low, high, color=f"C{colour}", alpha=0.15, linewidth=0)
    ticks = {**{n: called(n) for n in sorted(set(numbers))}, fresh: called(None)}
    axes.set_xscale("log")
    axes.set_xticks(list(ticks), ticks.values())
    axes.minorticks_off()
    axes.set(xlabel="tasks in training", ylabel="normalised score", title=f"{ENV}: PPO from scratch on fixed tasks")
    if found:
        axes.legend(fontsize=9, frameon=False)
    return figure
