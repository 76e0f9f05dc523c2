"""The benchmark runs from end to end and reports every row; how fast anything is, is not tested."""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import recgym

ROOT = Path(__file__).parents[1]
BATCHES = [f"{env_id} batch, NumPy" for env_id in recgym.SCENARIOS]
ROWS = [
    "RecBandit-v0 single env",
    "RecBandit-v0 single env, without sampling",
    "DynamicPricing-v0 single env",
    "DynamicPricing-v0 batch, torch CPU",
    *BATCHES,
    "RecBandit-v0 batch, torch CPU",
    "RecBandit-v0 batch, torch GPU",
    "SB3 RecVecEnv",
    "SB3 DummyVecEnv",
    "SB3 RecVecEnv / DummyVecEnv",
    "memory growth, NumPy",
    "memory growth, torch CPU",
    "import recgym",
]

GOALS = ("Thompson", "98 % of the way to FHGI")
STARTS = (
    "uniform, imitation first",
    "uniform",
    "softmax of the running mean",
    "an expert's judgement with noise 3",
)
OURS = ("MetaPPO", "MetaPPO, RecurrentPPO's passes")
LEARNER_ROWS = [
    "Gittins table",
    "latency of a decision",
    *(f"latency with a history at {place}" for place in ("1-3", "13-15", "28-30")),
    "latency with a history, end / beginning",
    *(f"PPO training: {who}{part}" for who in ("RecurrentPPO", *OURS) for part in ("", ", rollout", ", update")),
    *(f"PPO training: {who} / RecurrentPPO" for who in OURS),
    "PPO training, torch GPU",
    *(f"trials from an initial policy: {start}" for start in STARTS),
    *(f"time to a score: {who}, {goal}" for who in ("MetaPPO", "RecurrentPPO", "PPO") for goal in GOALS),
    *(f"time to a score: MetaPPO / better of the others, {goal}" for goal in GOALS),
]


def benchmark(*arguments: str) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("stable_baselines3")
    pytest.importorskip("rich")
    command = [sys.executable, str(ROOT / "scripts" / "benchmark.py"), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("benchmark") / "new" / "report.json"
    done = benchmark("--quick", "--json", str(path))
    assert done.returncode == 0, done.stderr
    assert "RecBandit-v0 single env" in done.stdout and "[1/" in done.stderr  # the table, and the progress
    return json.loads(path.read_text())


def test_reports_every_row_with_positive_figures(report: dict[str, Any]) -> None:
    rows = {row["name"]: row for row in report["rows"]}
    assert set(ROWS) <= set(rows)
    for name, row in rows.items():
        if row["value"] is None:
            assert row["note"] and ("GPU" in name or "memory" in name)
        else:
            assert 0 < row["low"] <= row["value"] <= row["high"], name


def test_ratio_is_that_of_the_two(report: dict[str, Any]) -> None:
    rows = {row["name"]: row for row in report["rows"]}
    ratio, ours, theirs = (rows[name] for name in ("SB3 RecVecEnv / DummyVecEnv", "SB3 RecVecEnv", "SB3 DummyVecEnv"))
    assert ours["low"] / theirs["high"] <= ratio["value"] <= ours["high"] / theirs["low"]


def test_says_where_it_was_measured(report: dict[str, Any]) -> None:
    assert report["versions"]["recgym"] == recgym.__version__ and report["versions"]["numpy"]
    assert report["platform"] and report["cores"] >= 1 and report["torch_threads"] == 1
    assert len(report["load_average"]["start"]) == len(report["load_average"]["end"]) == 3
    assert report["quick"] and {row["met"] for row in report["rows"]} == {None}  # small batches are not judged


def test_wrong_arguments_give_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = benchmark("--quick", "--json", str(tmp_path / "file" / "report.json"))
    assert done.returncode == 2 and done.stderr.startswith("error: cannot write") and done.stderr.count("\n") == 1
    done = benchmark("--quick", "--only", "nothing of that name")
    assert done.returncode == 2 and "RecBandit-v0 single env" in done.stderr and done.stderr.count("\n") == 1


# --- learners: in this process, which spares the imports --------------------------------------------------------------
@pytest.fixture(scope="module")
def scripts() -> Iterator[tuple[Any, Any]]:
    """The modules benchmark and learners."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("sb3_contrib")
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "scripts")
        yield importlib.import_module("benchmark"), importlib.import_module("learners")
    torch.set_num_threads(threads)


def test_learners_report_every_row(
    scripts: tuple[Any, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, figure = tmp_path / "report.json", tmp_path / "curves.svg"
    given = ["--learners", "--quick", "--budget", "0.2", "--json", str(path), "--figure", str(figure)]
    assert scripts[0].main(given) == 0
    printed = capsys.readouterr()
    assert "latency of a decision" in printed.out and "[1/7]" in printed.err and "MetaPPO, 0.0 s" in printed.err
    report = json.loads(path.read_text())
    assert report["quick"] and report["complete"] and report["versions"]["sb3-contrib"]
    rows = {row["name"]: row for row in report["rows"]}
    assert list(rows) == LEARNER_ROWS
    for name, row in rows.items():
        assert row["met"] is None
        if row["value"] is None:  # a GPU that is not here, a score that was not reached
            assert row["note"] and (name.startswith(("time to a score", "trials from")) or "GPU" in name), name
        else:
            assert (-1 if name.startswith("trials from") else 0) < row["low"] <= row["value"] <= row["high"], name
    curves = report["time to a score"]
    assert set(curves["learners"]) == {"MetaPPO", "RecurrentPPO", "PPO"} and set(curves["goals"]) == set(GOALS)
    for points in curves["learners"].values():
        assert points[0]["timesteps"] == 0 and points[-1]["seconds"] >= 0.2
        assert points == sorted(points, key=lambda point: point["seconds"])
    assert figure.stat().st_size > 1000


def test_time_to_a_score_is_that_of_training_alone(scripts: tuple[Any, Any]) -> None:
    """The clock, driven by hand: evaluations do not count, a goal keeps the time of its first score."""
    _, learners = scripts
    now, scores = [0.0], iter([1.0, 5.0, 4.0, 9.0])

    def score(policy: Any) -> float:
        now[0] += 100.0  # seconds that the evaluation takes
        return next(scores)

    race = learners.Race(score, {"low": 5.0, "high": 8.0}, every=10.0, budget=60.0, label="learner")
    race.model, race._now = None, lambda: (now[0], now[0] / 2)
    race._on_training_start()
    for seconds in (0.0, 10.0, 4.0, 6.0, 12.0):
        now[0] += seconds
        assert not race.over
        race._on_rollout_start()
    assert race.over and [point.seconds for point in race.curve] == [0.0, 10.0, 20.0, 32.0]  # 14 s: too early
    assert race.reached["low"].seconds == 10.0 and race.reached["high"].seconds == 32.0
    assert race.reached["high"].cpu_seconds == 16.0
    assert race.row("name", "high").value == 32.0

    late = learners.Race(lambda policy: 0.0, {"low": 5.0, "high": 8.0}, every=10.0, budget=20.0, label="another")
    late.curve = [learners.Point(0.0, 0.0, 0, 1.0), learners.Point(20.0, 10.0, 100, 3.0)]
    missed = late.row("name", "low")
    assert missed.value is None and "not within 20 s: scored 3.00 at best of 5.00" in missed.note
    races = {"MetaPPO": race, "PPO": late}
    bound = learners.time_ratio("ratio", races, "low")  # 10 s by at least 20 s
    assert bound.value == 0.5 and bound.met is None and "upper bound" in bound.note
    late.reached["low"] = learners.Point(40.0, 40.0, 100, 5.0)
    ratio = learners.time_ratio("ratio", races, "low")
    assert ratio.value == 0.25 and ratio.met and ratio.target == "< 0.333"
    behind = learners.time_ratio("ratio", {"MetaPPO": late, "PPO": race}, "high")
    assert behind.value is None and behind.met is False


def test_rollout_and_update_are_timed_apart(scripts: tuple[Any, Any]) -> None:
    _, learners = scripts
    rollout, update = learners.phase_rows("x", [(1.0, 2.0), (1.0, 3.0), (4.0, 3.0)], 600)
    assert (rollout.low, rollout.value, rollout.high) == (150.0, 600.0, 600.0) and rollout.note == "25% of the time"
    assert (update.low, update.value, update.high) == (200.0, 200.0, 300.0) and update.name == "x, update"


def test_overfitting_reports_scores_on_three_kinds_of_tasks(
    scripts: tuple[Any, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, figure = tmp_path / "report.json", tmp_path / "tasks.png"
    given = ["--overfitting", "--quick", "--timesteps", "160", "--json", str(path), "--figure", str(figure)]
    assert scripts[0].main(given) == 0
    printed = capsys.readouterr()
    assert "training tasks" in printed.out and "[6/6]" in printed.err
    found = json.loads(path.read_text())["overfitting"]
    assert [line["tasks"] for line in found] == 2 * [10, 100, None]
    assert len({line["knobs"] for line in found}) == 2 and {line["timesteps"] for line in found} == {160}
    for line in found:
        for kind in ("training", "validation", "test"):
            score = line[kind]
            assert score["low"] <= score["mean"] <= score["high"] <= 1.0 + 1e-9
    assert figure.stat().st_size > 1000


def test_training_tasks_are_played_equally_often_and_informed_scores_one(scripts: tuple[Any, Any]) -> None:
    _, learners = scripts
    overfitting = importlib.import_module("overfitting")
    scenario = recgym.make_scenario("RecBandit-v0", arms=3, horizon=5)
    env = learners.make_env(scenario, 4, tasks=6)
    env.reset()
    split = overfitting.make_split(scenario, 20, seed=1, tasks=env.fixed_tasks)
    best = env.fixed_tasks.rates.max(axis=-1)
    assert split.informed.expected.shape == (24,)
    assert split.informed.expected == pytest.approx(5 * best[[i % 6 for i in range(24)]], rel=1e-5)
    policy = learners.make_baseline("informed", scenario)
    assert overfitting.normalised_score(split.play(policy), split, scenario) == pytest.approx((1.0, 1.0, 1.0))
    other = overfitting.make_split(scenario, 20, seed=2)
    gap = overfitting.overfit(split.gittins, split, other.informed, other)
    assert gap.mean == pytest.approx(float((other.gittins.expected - other.informed.expected).mean()))
    assert gap.low < gap.mean < gap.high < 0.0
    assert len(overfitting.make_split(scenario, 4, seed=1, tasks=env.fixed_tasks).random.expected) == 4


def test_interrupting_prints_what_was_measured(
    scripts: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    benchmark_module, learners = scripts
    calls, rollout = [], learners.rollout

    def interrupted(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == 6:  # three baselines, and two evaluations of the first learner, come before
            raise KeyboardInterrupt
        return rollout(*arguments, **named)

    monkeypatch.setattr(learners, "rollout", interrupted)
    path = tmp_path / "report.json"
    given = ["--learners", "--quick", "--only", "time to", "--budget", "60", "--json", str(path)]
    assert benchmark_module.main(given) == 130
    printed = capsys.readouterr()
    assert "stopped; what was measured so far" in printed.err and "MetaPPO, Thompson" in printed.out
    report = json.loads(path.read_text())
    assert not report["complete"] and [row["name"] for row in report["rows"]] == [
        f"time to a score: MetaPPO, {goal}" for goal in GOALS
    ]
    assert len(report["time to a score"]["learners"]["MetaPPO"]) == 2


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--budget", "5"], "--budget is the time of --learners"),
        (["--learners", "--budget", "0"], "above 0 seconds"),
        (["--learners", "--timesteps", "5"], "--timesteps is the length"),
        (["--learners", "--only", "nothing of that name"], "latency of a decision"),
        (["--overfitting", "--only", "latency"], "leave them out"),
        (["--figure", "x.png"], "--figure shows what"),
        (["--learners", "--figure", "x.abc"], "the ending must be one of"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    arguments: list[str], message: str, scripts: tuple[Any, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert scripts[0].main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error
