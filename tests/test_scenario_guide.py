"""The guide to a scenario of one's own does what it says."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
GUIDE = (ROOT / "docs" / "guides" / "scenario.md").read_text()


@pytest.fixture(scope="module")
def boredom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the scenario that the guide prints, as it prints it."""
    (block,) = re.findall(r"```python\n(.*?)```", GUIDE, flags=re.S)
    folder = tmp_path_factory.mktemp("boredom")
    (folder / "boredom.py").write_text(block)
    return folder


def run(folder: Path, *command: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def test_the_added_scenario_runs_as_it_stands(boredom: Path) -> None:
    """To its purpose: the contract is checked, and its baseline is evaluated against the bound."""
    printed = run(boredom, "boredom.py")
    scores = dict(re.findall(r"^(\w+) +([\d.]+) clicks, \d+% of the bound$", printed, flags=re.M))
    assert float(scores["random"]) < float(scores["round_robin"]) < float(scores["informed"])


def test_the_added_scenario_is_taken_by_name_from_outside(
    boredom: Path, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a baseline of its own, through training with that as the expert; of the guide's commands, made short."""
    monkeypatch.chdir(boredom)
    commands = re.findall(r"^recgym (.*boredom:Boredom.*)$", GUIDE, flags=re.M)
    assert [line.split()[0] for line in commands] == ["list", "evaluate", "train", "evaluate"]
    for line in commands:
        words = shlex.split(line)
        if words[0] == "evaluate":
            words += ["--trials", "50"]
        if words[0] == "train":
            words[words.index("-n") + 1] = "4000"
            words[words.index("--pretrain-steps") + 1] = "2000"
            words += ["--n-envs", "20", "--trials", "50", "--eval-trials", "20", "--eval-freq", "0"]
        printed = run(boredom, "-m", "recgym", *words) if words[0] == "train" else command(*words)
        assert "round_robin" in printed, printed
    assert list(boredom.glob("logs/meta_ppo/boredom*_1/checkpoint.safetensors"))


@pytest.mark.slow
def test_the_added_scenario_keeps_the_contract_in_the_tree(boredom: Path) -> None:
    """Registered with the preset that the guide prints, the project's own contract tests pass."""
    assert 'Preset("recgym.scenarios.boredom:Boredom", {}, ({"factor": 0.5},))' in GUIDE
    plugin = """
import gymnasium, recgym
preset = recgym.SCENARIOS["Boredom-v0"] = recgym.Preset("boredom:Boredom", {}, ({"factor": 0.5},))
gymnasium.register("Boredom-v0", entry_point="recgym.envs:RecEnv", vector_entry_point="recgym.envs:RecVectorEnv",
                   kwargs={"scenario": preset.scenario})
"""
    (boredom / "boredom_plugin.py").write_text(plugin)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(boredom)])}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "boredom_plugin", "-p", "no:cacheprovider"]
    command += ["-m", "not slow", "-k", "Boredom", "tests"]
    command += ["--ignore=tests/test_results.py", "--ignore=tests/test_docs.py"]  # what it says of them is not there
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-9000:] + done.stderr[-2000:]
    assert int(re.findall(r"(\d+) passed", done.stdout)[0]) > 50
