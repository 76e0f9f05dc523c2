"""The README does what it says."""

from __future__ import annotations

import importlib
import re
import shlex
import tomllib
from pathlib import Path

import pytest

import recgym
from recgym.report import environments_markdown

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.S)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_python_block_runs_as_it_stands(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f"readme_block_{number}.py").write_text(BLOCKS[number])
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module(f"readme_block_{number}")


def test_the_first_block_is_short() -> None:
    assert len(BLOCKS[0].strip().splitlines()) <= 15


def test_environment_table_is_that_of_the_registry() -> None:
    table = README.split("checked by the tests -->")[1].split("<!-- end of environments -->")[0]
    assert table.strip() == environments_markdown(), "run `python -m recgym.report` and paste what it prints"


def test_files_and_options_that_are_named_exist() -> None:
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / link).exists(), link
    for command in re.findall(r"^python scripts/\S+\.py.*$", README, flags=re.M):
        _, script, *options = shlex.split(command, comments=True)
        source = (ROOT / script).read_text()
        for option in options:
            assert not option.startswith("-") or f'"{option}"' in source or option == "--help", (command, option)


def test_no_default_of_a_parameter_is_retyped_in_a_docstring() -> None:
    for env_id in recgym.SCENARIOS:
        assert "default" not in (type(recgym.make_scenario(env_id)).__doc__ or "").lower()


def test_the_version_stands_in_one_place_or_agrees() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "version" in project["dynamic"]
    assert f"version: {recgym.__version__}" in (ROOT / "CITATION.cff").read_text().replace('"', "")
    assert recgym.__version__ in (ROOT / "CHANGELOG.md").read_text()
