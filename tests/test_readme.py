"""The README does what it says."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

import recgym
from recgym.cli.list_ import environments_markdown
from recgym.cli.options import COMMANDS

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


PLUGIN = """
import gymnasium, recgym
preset = recgym.SCENARIOS["Boredom-v0"] = recgym.Preset("boredom:Boredom", {}, {"factor": 0.5})
gymnasium.register("Boredom-v0", entry_point="recgym.envs:RecEnv", vector_entry_point="recgym.envs:RecVectorEnv",
                   kwargs={"scenario": preset.scenario})
"""


@pytest.mark.slow
def test_the_added_scenario_keeps_the_contract(tmp_path: Path) -> None:
    """The class as the README prints it, registered with the preset that the README prints."""
    assert 'Preset("recgym.scenarios.boredom:Boredom", {}, {"factor": 0.5})' in README
    (block,) = [block for block in BLOCKS if "class Boredom" in block]
    (tmp_path / "boredom.py").write_text(block)
    (tmp_path / "boredom_plugin.py").write_text(PLUGIN)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "boredom_plugin", "-p", "no:cacheprovider"]
    command += ["-k", "Boredom", "tests/test_contract.py"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert int(re.findall(r"(\d+) passed", done.stdout)[0]) > 50


def test_no_default_of_a_parameter_is_retyped_in_a_docstring() -> None:
    for env_id in recgym.SCENARIOS:
        scenario = type(recgym.make_scenario(env_id))
        text = scenario.__doc__ or ""
        assert "default" not in text.lower()
        arguments = text.split("## Arguments")[1].split("##")[0]
        defaults = {field.name: str(field.default) for field in fields(scenario)}
        for name, effect in re.findall(r"\* `(\w+)` \([^)]*\):(.*?)(?=\n    \*|\Z)", arguments, flags=re.S):
            assert defaults[name] not in re.findall(r"[\w.-]+\w|\w", effect), (env_id, name)


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
