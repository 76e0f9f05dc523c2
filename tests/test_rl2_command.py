"""The published table from the command line: checkpoints in their mode, and what is refused."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from recgym.evaluation import rl2
from recgym.evaluation.rl2 import BASELINES, RL2

ROOT = Path(__file__).parent.parent
SHIPPED = ROOT / "agents/RecBandit-v0/agent.safetensors"
FIVE, TEN = RL2[:2]


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    monkeypatch.setattr(rl2, "RL2", (FIVE, TEN._replace(exact=False)))  # both ways of measuring
    return importlib.import_module("evaluate").main


def test_evaluate_plays_checkpoints_in_the_mode_they_were_trained_in(
    main: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("stable_baselines3")
    from recgym.agents.algorithms import build
    from recgym.agents.checkpoint import save
    from recgym.sb3 import make_vec_env

    size = {"arms": 5, "horizon": 10, "statistics": False}
    arguments = {"policy": "MlpPolicy", "n_steps": 10, "batch_size": 20}
    model = build("ppo", make_vec_env("RecBandit-v0", 2, **size), arguments, device="cpu", seed=0)
    file = save(tmp_path / "bare", model, arguments=arguments, env_id="RecBandit-v0", parameters=size)
    report, table = tmp_path / "r" / "report.json", tmp_path / "r" / "table.md"
    options = ["--suite", "rl2", "--policies", f"meta={SHIPPED},bare={file},ucb1", "--trials", "100", "--device", "cpu"]
    assert main([*options, "--json", str(report), "--markdown", str(table)]) == 0
    out = capsys.readouterr()
    assert "bare: trained on 5 candidates; no result at (n, k) = (10, 10)" in out.out and not out.err
    content = json.loads(report.read_text())
    assert content["policies"]["meta"]["statistics"] is True and content["policies"]["bare"]["statistics"] is False
    assert content["policies"]["meta"]["path"] == str(SHIPPED) and content["policies"]["meta"]["algo"] == "meta_ppo"
    assert "torch" in content["versions"] and content["device"] == "cpu"
    five, ten = (cell["policies"] for cell in content["cells"])
    assert "value" in five["meta"] and "value" in five["bare"] and ten["bare"] == {"note": "trained on 5 candidates"}
    assert set(five) == {*BASELINES, "ucb1", "meta", "bare"} and "| meta |" in table.read_text()

    single = ["--param", "arms=10", "--param", "horizon=10", "--trials", "100", "--device", "cpu"]
    assert main([*single, "--policies", f"meta={SHIPPED},gittins", "--json", str(report)]) == 0
    policies = json.loads(report.read_text())["policies"]
    for name in ("meta", "gittins"):
        assert ten[name]["value"]["mean"] == pytest.approx(10 * 10 / 11 - policies[name]["regret"]["mean"])


def test_a_suite_needs_no_policies(main: Any, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    assert main(["--suite", "rl2", "--trials", "2", "--json", str(file)]) == 0
    report = json.loads(file.read_text())
    assert set(report["cells"][1]["policies"]) == set(BASELINES) and report["cells"][1]["arms"] == 10


REFUSED = {
    "environment of its own": (["--env", "RecBandit-v0"], "leave --env and --param out"),
    "parameter": (["--param", "arms=3"], "leave --env and --param out"),
    "figure": (["--figure", "x.png"], "--figure shows the regret in one environment"),
    "few trials": (["--trials", "1"], "--trials at least 2"),
    "seed": (["--seed", "-1"], "--seed must be at least 0"),
    "unknown policy": (["--policies", "tompson"], "did you mean 'thompson'"),
    "no policy": (["--policies", ","], "--policies names none"),
    "name of a baseline": (["--policies", f"random={SHIPPED}"], "is the name of a baseline"),
    "no checkpoint": (["--policies", "a=README.md"], "not a checkpoint"),
    "no file": (["--policies", "a=nowhere.safetensors"], "no such checkpoint"),
    "folder": (["--markdown", "tests"], "it is a folder"),
    "unknown suite": (["--suite", "rl3"], "invalid choice: 'rl3'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_gets_one_error(
    case: str, main: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, message = REFUSED[case]
    monkeypatch.chdir(ROOT)
    try:
        code = main(["--suite", "rl2", "--trials", "2", *arguments])
    except SystemExit as error:  # of argparse
        code = error.code
    out = capsys.readouterr()
    assert code == 2 and message in out.err and not out.out


def test_markdown_is_a_suites(main: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["--policies", "ucb1", "--markdown", str(tmp_path / "table.md")]) == 2
    assert "--markdown writes the tables of a suite" in capsys.readouterr().err
