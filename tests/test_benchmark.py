"""The benchmark runs from end to end and reports every row; how fast anything is, is not tested."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import recgym

ROOT = Path(__file__).parents[1]
BATCHES = [f"{env_id} batch, NumPy" for env_id in recgym.SCENARIOS]
ROWS = [
    "RecBandit-v0 single env",
    "RecBandit-v0 single env, without sampling",
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
