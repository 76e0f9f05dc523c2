"""The command that evaluates: where policies come from, and what is refused; the suite is in test_rl2_command.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from recgym.cli.evaluate import read_policies

SHIPPED = "agents/RecBandit-v0/agent.safetensors"


def test_policies_have_labels_and_come_from_somewhere() -> None:
    shipped = "pretrained:A-v0,pretrained:A-v0:argmax,mine=pretrained:rl2/raw-0"
    assert read_policies(f"ucb1, {shipped},x/y.safetensors:argmax,z=x/y.safetensors") == {
        "ucb1": None,
        "pretrained:A-v0": "pretrained:A-v0",
        "pretrained:A-v0:argmax": "pretrained:A-v0",
        "mine": "pretrained:rl2/raw-0",
        "y:argmax": "x/y.safetensors",
        "z": "x/y.safetensors",
    }


def test_shipped_agents_play_by_name(command: Any, tmp_path: Path) -> None:
    """As the files that they are, sampled and not."""
    report = tmp_path / "report.json"
    policies = f"pretrained:RecBandit-v0,pretrained:RecBandit-v0:argmax,own=pretrained:RecBandit-v0,file={SHIPPED}"
    command("evaluate", "--param", "horizon=10", "--trials", "50", "--json", str(report), "--policies", policies)
    figures = json.loads(report.read_text())["policies"]
    assert {"pretrained:RecBandit-v0", "pretrained:RecBandit-v0:argmax", "own", "file"} < set(figures)
    assert figures["own"]["return"] == figures["file"]["return"] == figures["pretrained:RecBandit-v0"]["return"]
    assert figures["pretrained:RecBandit-v0:argmax"]["return"] != figures["file"]["return"]
    sizes = ["--param", "arms=5", "--param", "horizon=10", "--param", "statistics=false"]
    printed = command("evaluate", *sizes, "--trials", "50", "--policies", "raw=pretrained:rl2/raw-0")
    assert "raw is above" in printed


def test_lists_and_help(command: Any) -> None:
    printed = command("evaluate", "--list-policies")
    assert "thompson" in printed and "prior-aware" in printed
    assert "examples:" in command("evaluate", "--help")


REFUSED = {
    "no shipped agent": (
        ["--policies", "pretrained:RecBandid-v0"],
        "no trained agent ships as 'RecBandid-v0'; did you mean RecBandit-v0?",
    ),
    "way out of the folder": (["--policies", "pretrained:../README"], "no trained agent ships as"),
    "unknown policy": (["--policies", "tompson"], "did you mean 'thompson'"),
    "no policies": ([], "--policies names none"),
    "same label": (["--policies", "a=x,a=y"], "two policies are called 'a'"),
    "evaluate a file that is none": (["--policies", "a=README.md"], "not a checkpoint"),
    "device of an evaluation": (["--device", "gpu", "--policies", SHIPPED], "use auto, cpu, cuda"),
    "name of a baseline": (["--policies", f"random={SHIPPED}"], "is the name of a baseline"),
    "folder for a report": (["--policies", "ucb1", "--json", "tests"], "it is a folder"),
    "figure of no kind": (["--policies", "ucb1", "--figure", "x.abc"], "the ending must be one of"),
    "prior without a table": (
        ["--policies", "gittins", "--param", "prior=[0.005,1]"],
        "gittins cannot play this Bandit",
    ),
    "horizon without a table": (["--policies", "gittins", "--param", "horizon=4000"], "too large"),
    "few trials": (["--policies", "ucb1", "--trials", "1"], "--trials at least 2"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_gets_one_error(case: str, command: Any) -> None:
    arguments, message = REFUSED[case]
    error = command("evaluate", *arguments, code=2)
    assert message in error and error.startswith("error: ")
