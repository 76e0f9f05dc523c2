"""The benchmark runs from end to end and reports every row; how fast anything is, is not tested."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sb3_contrib")

import recgym
from recgym.benchmarks import race
from recgym.cli.benchmark import main

BATCHES = [f"{env_id} batch, NumPy" for env_id in recgym.SCENARIOS]
ROWS = [
    "RecBandit-v0 single env",
    "RecBandit-v0 single env, without sampling",
    "DynamicPricing-v0 single env",
    "DynamicPricing-v0 batch, torch CPU",
    *("RecSlate-v0 single env", "RecSlate-v0 single env, without sampling", "RecSlate-v0 batch, torch CPU"),
    *(
        f"{env_id} single env{how}"
        for env_id in ("AdPlacement-v0", "AdBidding-v0")
        for how in ("", ", without sampling")
    ),
    "AdPlacement-v0 batch, torch CPU",
    *(f"{env_id} / RecBanditContextual-v0 batch" for env_id in ("RecSlate-v0", "AdPlacement-v0", "AdBidding-v0")),
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
    *(f"latency of shipped agents: RecBandit-v0, {library}" for library in ("torch", "onnxruntime")),
    *(f"latency with a history at {place}" for place in ("1-3", "13-15", "28-30")),
    "latency with a history, end / beginning",
    *(f"PPO training: {who}{part}" for who in ("RecurrentPPO", *OURS) for part in ("", ", rollout", ", update")),
    *(f"PPO training: {who} / RecurrentPPO" for who in OURS),
    "PPO training, torch GPU",
    *(f"trials from an initial policy: {start}" for start in STARTS),
    *(f"time to a score: {who}, {goal}" for who in ("MetaPPO", "RecurrentPPO", "PPO") for goal in GOALS),
    *(f"time to a score: MetaPPO / better of the others, {goal}" for goal in GOALS),
]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("benchmark") / "new" / "report.json"
    assert main(["--quick", "--json", str(path)]) == 0
    read: dict[str, Any] = json.loads(path.read_text())
    return read


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


def test_prints_the_table_and_how_far_it_is(command: Any) -> None:
    printed = command("benchmark", "--quick", "--only", "RecBandit-v0 batch, NumPy")
    assert "[1/1] RecBandit-v0 batch, NumPy ..." in printed and "not judged" in printed
    assert "median" in printed and "load average" in printed


def test_unwritable_places_give_one_clear_error(command: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    error = command("benchmark", "--quick", "--json", str(tmp_path / "file" / "report.json"), code=2)
    assert error.startswith("error: cannot write") and error.count("\n") == 1


def test_headroom_is_a_table_and_json(command: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("recgym.cli.benchmark.QUICK_TRIALS", 20)
    module = import_module("recgym.evaluation.headroom")
    monkeypatch.setattr(module, "HORIZONS", (5,))
    monkeypatch.setattr(module, "learnable_ids", lambda: ["RecBandit-v0", "DynamicPricing-v0"])
    path = tmp_path / "report.json"
    printed = command("benchmark", "--headroom", "--quick", "--json", str(path))
    words = " ".join(printed.split())  # titles are wrapped
    assert "headroom: 20 trials per policy" in words and "DynamicPricing-v0: percent of the bound on any" in words
    read = json.loads(path.read_text())
    assert set(read["headroom"]) == {"RecBandit-v0", "DynamicPricing-v0"}
    assert set(read["headroom"]["RecBandit-v0"]) >= {"best", "gain", "gap", "left", "constant", "of_bound", "passed"}
    assert set(read["percent of bound"]) == {"DynamicPricing-v0"}  # the one that has a bound
    assert 0 < read["percent of bound"]["DynamicPricing-v0"]["informed"]["5"]["mean"] <= 1.1


# --- learners --------------------------------------------------------------------------------------------------------
def test_learners_report_every_row(command: Any, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    figure = tmp_path / "curves.svg"
    options = ["--quick", "--budget", "0.05", "--json", str(path), "--figure", str(figure)]
    printed = command("benchmark", "--learners", *options)
    assert "latency of a decision" in printed and "[1/8]" in printed and "MetaPPO, 0.0 s" in printed
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
        assert points[0]["timesteps"] == 0 and points[-1]["seconds"] >= 0.05
        assert points == sorted(points, key=lambda point: point["seconds"])
    assert figure.stat().st_size > 1000


def test_overfitting_reports_scores_on_three_kinds_of_tasks(command: Any, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    figure = tmp_path / "tasks.png"
    options = ["--quick", "--timesteps", "160", "--json", str(path), "--figure", str(figure)]
    printed = command("benchmark", "--overfitting", *options)
    assert "training tasks" in printed and "[6/6]" in printed
    found = json.loads(path.read_text())["overfitting"]
    assert [line["tasks"] for line in found] == 2 * [10, 100, None]
    assert len({line["knobs"] for line in found}) == 2 and {line["timesteps"] for line in found} == {160}
    for line in found:
        for kind in ("training", "validation", "test"):
            score = line[kind]
            assert score["low"] <= score["mean"] <= score["high"] <= 1.0 + 1e-9
    assert figure.stat().st_size > 1000


def test_interrupting_prints_what_was_measured(command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    rollout = race.rollout

    def interrupted(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == 6:  # three baselines, and two evaluations of the first learner, come before
            raise KeyboardInterrupt
        return rollout(*arguments, **named)

    monkeypatch.setattr(race, "rollout", interrupted)
    path = tmp_path / "report.json"
    options = ["--quick", "--only", "time to", "--budget", "60", "--json", str(path)]
    printed = command("benchmark", "--learners", *options, code=130)
    assert "stopped; what was measured so far" in printed and "MetaPPO, Thompson" in printed
    report = json.loads(path.read_text())
    assert not report["complete"] and [row["name"] for row in report["rows"]] == [
        f"time to a score: MetaPPO, {goal}" for goal in GOALS
    ]
    assert len(report["time to a score"]["learners"]["MetaPPO"]) == 2


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--threads", "0"], "--threads must be at least 1"),
        (["--quick", "--only", "nothing of that name"], "RecBandit-v0 single env"),
        (["--budget", "5"], "--budget is the time of --learners"),
        (["--learners", "--budget", "0"], "above 0 seconds"),
        (["--learners", "--timesteps", "5"], "--timesteps is the length"),
        (["--learners", "--only", "nothing of that name"], "latency of a decision"),
        (["--overfitting", "--only", "latency"], "leave them out"),
        (["--figure", "x.png"], "--figure shows what"),
        (["--learners", "--figure", "x.abc"], "the ending must be one of"),
    ],
)
def test_options_that_do_not_go_together_are_refused(arguments: list[str], message: str, command: Any) -> None:
    error = command("benchmark", *arguments, code=2)
    assert error.startswith("error: ") and message in error and error.count("\n") == 1
