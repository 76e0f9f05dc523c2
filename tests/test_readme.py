"""The README does what it says."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

import recgym
from recgym.cli.list_ import environments_markdown
from recgym.cli.options import COMMANDS
from recgym.parameters import parameters_of

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
AGENTS = (ROOT / "docs" / "agents.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README + AGENTS, flags=re.S)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_python_block_runs_as_it_stands(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f"readme_block_{number}.py").write_text(BLOCKS[number])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    importlib.import_module(f"readme_block_{number}")


def test_the_first_block_is_short() -> None:
    assert len(BLOCKS[0].strip().splitlines()) <= 15


def test_environment_table_is_that_of_the_registry() -> None:
    table = README.split("checked by the tests -->")[1].split("<!-- end of environments -->")[0]
    assert table.strip() == environments_markdown(), "run `recgym list --markdown` and paste what it prints"


def test_files_and_options_that_are_named_exist() -> None:
    for text, folder in ((README, ROOT), (AGENTS, ROOT / "docs")):
        for link in re.findall(r"\]\((?!http)([^)#]+)\)", text):
            assert (folder / link).exists(), link
    calls = rf"^(?:python scripts/\S+\.py|recgym (?:{'|'.join(COMMANDS)})) .*$"
    for command in re.findall(calls, README + AGENTS, flags=re.M):
        program, name, *options = shlex.split(command, comments=True)
        assert program == "recgym" or (ROOT / name).exists(), command
        module = COMMANDS[Path(name).stem].module
        source = "".join((ROOT / "recgym" / "cli" / f"{part}.py").read_text() for part in (module, "options"))
        for option in options:
            assert not option.startswith("-") or f'"{option}"' in source or option == "--help", (command, option)


@pytest.fixture(scope="module")
def boredom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the scenario that the README prints, as it prints it."""
    (block,) = [block for block in BLOCKS if "class Boredom" in block]
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
    """With a baseline of its own, through training with that as the expert; of the README's commands, made short."""
    monkeypatch.chdir(boredom)
    commands = re.findall(r"^recgym (.*boredom:Boredom.*)$", README, flags=re.M)
    assert [line.split()[0] for line in commands] == ["list", "evaluate", "train"]
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
    """Registered with the preset that the README prints, the project's own contract tests pass."""
    assert 'Preset("recgym.scenarios.boredom:Boredom", {}, {"factor": 0.5})' in README
    plugin = """
import gymnasium, recgym
preset = recgym.SCENARIOS["Boredom-v0"] = recgym.Preset("boredom:Boredom", {}, {"factor": 0.5})
gymnasium.register("Boredom-v0", entry_point="recgym.envs:RecEnv", vector_entry_point="recgym.envs:RecVectorEnv",
                   kwargs={"scenario": preset.scenario})
"""
    (boredom / "boredom_plugin.py").write_text(plugin)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(boredom)])}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "boredom_plugin", "-p", "no:cacheprovider"]
    command += ["-m", "not slow", "-k", "Boredom", "tests"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-9000:] + done.stderr[-2000:]
    assert int(re.findall(r"(\d+) passed", done.stdout)[0]) > 50


def test_every_parameter_is_documented_where_it_stands() -> None:
    """Unit and effect stand with the default, no default is retyped in prose, and the docstring shows all of it."""
    for env_id in recgym.SCENARIOS:
        scenario = type(recgym.make_scenario(env_id))
        text = " ".join((scenario.__doc__ or "").split())
        assert "default" not in text.lower() and "## Arguments" in text
        for each, known in parameters_of(scenario):
            assert known is not None and known.effect, (env_id, each.name)
            assert str(each.default) not in re.findall(r"[\w.-]+\w|\w", known.effect), (env_id, each.name)
            inherited = each.name not in vars(scenario).get("__annotations__", {})
            assert inherited or (f"`{each.name}`" in text and " ".join(known.effect.split()) in text), (
                env_id,
                each.name,
            )


def test_the_version_stands_in_one_place_or_agrees() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "version" in project["dynamic"]
    assert f"version: {recgym.__version__}" in (ROOT / "CITATION.cff").read_text().replace('"', "")
    assert recgym.__version__ in (ROOT / "CHANGELOG.md").read_text()


def test_quoted_messages_are_those_of_the_code() -> None:
    table = (ROOT / "docs/agents.md").read_text().split("## What is wrong")[1]
    code = re.sub(r'"\s*f?"', "", "".join(path.read_text() for path in (ROOT / "recgym" / "agents").glob("*.py")))
    quoted = re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)
    assert len(quoted) > 4
    for message in quoted:
        for part in filter(None, (part.strip() for part in message.split("..."))):
            assert part in code, message
