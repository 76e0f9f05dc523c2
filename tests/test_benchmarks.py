"""Clocks, scores and sums of the benchmarks, against what is known by hand."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("sb3_contrib")

import recgym
from recgym.baselines import make_baseline
from recgym.benchmarks.learners import phase_lines
from recgym.benchmarks.overfitting import make_split, normalised_score, overfit
from recgym.benchmarks.race import Point, Race, time_ratio
from recgym.benchmarks.sizes import make_training_env
from recgym.benchmarks.timing import Measurement, Workload, measure


def test_figures_are_summed_up_and_judged() -> None:
    line = Measurement.of("x", [3.0, 1.0, 8.0], "steps/s", "", least=3)
    assert (line.value, line.low, line.high, line.target, line.met) == (3.0, 1.0, 8.0, ">= 3", True)
    assert Measurement.of("x", [3.0], "s", "", most=3.0).met is False
    nothing = Measurement.of("x", [], "s", "", most=3.0)
    assert nothing.value is nothing.low is nothing.high is nothing.met is None


def test_speed_is_steps_by_seconds_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock driven by hand: 2 s and 1 s a play of ten steps, repeats of four seconds; the plays take turns."""
    now = [0.0]
    order = []
    monkeypatch.setattr("recgym.benchmarks.timing.time.perf_counter", lambda: now[0])

    def play(name: str, seconds: float) -> int:
        now[0] += seconds
        order.append(name)
        return 10

    workload = Workload(4.0, 2, 1, 1, None, 1.0)
    rates = measure(workload, lambda: play("a", 2.0), lambda: play("b", 1.0))
    assert rates == [(5.0, 5.0), (10.0, 10.0)]
    assert "".join(order[4:]) == 2 * "aabbbb"  # after two each to warm up


def test_time_to_a_score_is_that_of_training_alone() -> None:
    """The clock, driven by hand: evaluations do not count, a goal keeps the time of its first score."""
    now = [0.0]
    scores = iter([1.0, 5.0, 4.0, 9.0])

    def score(policy: Any) -> float:
        now[0] += 100.0  # seconds that the evaluation takes
        return next(scores)

    race = Race(score, {"low": 5.0, "high": 8.0}, every=10.0, budget=60.0, label="learner")
    race.model = None
    race._now = lambda: (now[0], now[0] / 2)
    race._on_training_start()
    for seconds in (0.0, 10.0, 4.0, 6.0, 12.0):
        now[0] += seconds
        assert not race.over
        race._on_rollout_start()
    assert race.over and [point.seconds for point in race.curve] == [0.0, 10.0, 20.0, 32.0]  # 14 s: too early
    assert race.reached["low"].seconds == 10.0 and race.reached["high"].seconds == 32.0
    assert race.reached["high"].cpu_seconds == 16.0
    assert race.line("name", "high").value == 32.0

    late = Race(lambda policy: 0.0, {"low": 5.0, "high": 8.0}, every=10.0, budget=20.0, label="another")
    late.curve = [Point(0.0, 0.0, 0, 1.0), Point(20.0, 10.0, 100, 3.0)]
    missed = late.line("name", "low")
    assert missed.value is None and "not within 20 s: scored 3.00 at best of 5.00" in missed.note
    races = {"MetaPPO": race, "PPO": late}
    bound = time_ratio("ratio", races, "low")  # 10 s by at least 20 s
    assert bound.value == 0.5 and bound.met is None and "upper bound" in bound.note
    late.reached["low"] = Point(40.0, 40.0, 100, 5.0)
    ratio = time_ratio("ratio", races, "low")
    assert ratio.value == 0.25 and ratio.met and ratio.target == "< 0.333"
    behind = time_ratio("ratio", {"MetaPPO": late, "PPO": race}, "high")
    assert behind.value is None and behind.met is False


def test_rollout_and_update_are_timed_apart() -> None:
    rollout, update = phase_lines("x", [(1.0, 2.0), (1.0, 3.0), (4.0, 3.0)], 600)
    assert (rollout.low, rollout.value, rollout.high) == (150.0, 600.0, 600.0) and rollout.note == "25% of the time"
    assert (update.low, update.value, update.high) == (200.0, 200.0, 300.0) and update.name == "x, update"


def test_training_tasks_are_played_equally_often_and_informed_scores_one() -> None:
    scenario = recgym.make_scenario("RecBandit-v0", arms=3, horizon=5)
    env = make_training_env(scenario, 4, tasks=6)
    env.reset()
    split = make_split(scenario, 20, seed=1, tasks=env.fixed_tasks)
    best = env.fixed_tasks.rates.max(axis=-1)
    assert split.informed.expected.shape == (24,)
    assert split.informed.expected == pytest.approx(5 * best[[i % 6 for i in range(24)]], rel=1e-5)
    policy = make_baseline("informed", scenario)
    assert normalised_score(split.play(policy), split, scenario) == pytest.approx((1.0, 1.0, 1.0))
    other = make_split(scenario, 20, seed=2)
    gap = overfit(split.gittins, split, other.informed, other)
    assert gap.mean == pytest.approx(float((other.gittins.expected - other.informed.expected).mean()))
    assert gap.low < gap.mean < gap.high < 0.0
    assert len(make_split(scenario, 4, seed=1, tasks=env.fixed_tasks).random.expected) == 4
