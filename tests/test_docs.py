"""The documentation does what it says: its programs run, what it names exists, its translations agree."""

from __future__ import annotations

import importlib.util
import json
import re
import runpy
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import recgym
from recgym.cli.options import COMMANDS
from recgym.cli.pages import environment_page, environments_table
from recgym.parameters import parameters_of

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
MADE = ("environments", "equations")  # folders of pages that others include, or that the build writes
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in (ROOT / "README.md", ROOT / "README.zh.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md")))
    if not set(path.relative_to(ROOT).parts) & set(MADE)
}
TRANSLATED = {page: page.replace(".md", ".zh.md") for page in PAGES if page.replace(".md", ".zh.md") in PAGES}
ELSEWHERE = ("docs/guides/scenario.md", "docs/guides/clients.md")  # run by tests of their own
TUTORIALS = sorted((DOCS / "tutorials").glob("*.py"))


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGES[page], flags=re.MULTILINE | re.DOTALL)


WITH_PYTHON = [
    page for page in PAGES if blocks(page, "python") and page not in ELSEWHERE and page not in TRANSLATED.values()
]


@pytest.mark.parametrize("page", WITH_PYTHON)
def test_the_programs_of_a_page_run_in_an_empty_folder(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One after another, as one program, for a page may go on from its earlier blocks."""
    name = re.sub(r"\W", "_", page)
    (tmp_path / f"{name}.py").write_text("\n\n".join(blocks(page, "python")))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    importlib.import_module(name)


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_runs_in_an_empty_folder(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.chdir(tmp_path)
    program = path.read_text().replace("plt.show()", f"plt.savefig('{path.stem}.png')")
    (tmp_path / path.name).write_text(re.sub(r"(learn|pretrain_steps=)\(?[\d_]+", shorter, program))
    runpy.run_path(str(tmp_path / path.name))
    assert (tmp_path / f"{path.stem}.png").stat().st_size > 5000


def shorter(training: re.Match[str]) -> str:
    """A part of the training: the test is of the program, and the notebook shows what it gives."""
    return "learn(19_200" if training[1] == "learn" else "pretrain_steps=12_800"


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_notebook_is_its_tutorial_executed(path: Path) -> None:
    """`make notebooks` writes it anew: the same code, with what it printed and drew, and without a machine's paths."""
    cells = json.loads(path.with_suffix(".ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    prose = re.sub(r"^# ?", "", path.read_text(), flags=re.MULTILINE)
    assert all(cell in path.read_text() for cell in code)
    assert all("".join(cell["source"]) in prose for cell in cells if cell["cell_type"] == "markdown")
    written = sum(len(cell.splitlines()) for cell in code)
    program = [line for line in path.read_text().splitlines() if line and not line.startswith("# ")]
    assert written >= len([line for line in program if line != "#"])
    outputs = [output for cell in cells if cell["cell_type"] == "code" for output in cell["outputs"]]
    assert any("image/png" in output.get("data", {}) for output in outputs), "run `make notebooks`"
    assert not re.search(r"/(home|root|tmp|work)/", json.dumps(outputs)) and "Traceback" not in json.dumps(outputs)


@pytest.mark.parametrize("page, translation", TRANSLATED.items())
def test_a_translation_has_the_same_programs_tables_and_links(page: str, translation: str) -> None:
    for language in ("python", "sh", "text"):
        assert blocks(page, language) == blocks(translation, language)
    here = {link for link in links(page) if ".zh.md" not in link and link != Path(page).name}
    there = {link.replace(".zh.md", ".md") for link in links(translation)} - {Path(page).name}
    assert there == here
    assert PAGES[page].count("\n| ") == PAGES[translation].count("\n| ")
    assert len(re.findall("^#", PAGES[page], flags=re.M)) == len(re.findall("^#", PAGES[translation], flags=re.M))


def test_the_introduction_is_short() -> None:
    assert len(PAGES["README.md"].splitlines()) <= 180
    assert len(blocks("README.md", "python")[0].strip().splitlines()) <= 15


@pytest.mark.parametrize("page", ["README.md", "README.zh.md"])
def test_environment_table_is_that_of_the_registry(page: str) -> None:
    table = PAGES[page].split("`recgym list --markdown` -->")[1].split("<!-- end of environments -->")[0]
    assert table.strip() == environments_table(), "run `recgym list --markdown` and paste what it prints"


@pytest.mark.parametrize("env_id", recgym.SCENARIOS)
def test_the_page_of_an_environment_has_every_field_parameter_and_baseline(env_id: str) -> None:
    from recgym.baselines import baselines_for

    scenario, page = recgym.make_scenario(env_id), environment_page(env_id, DOCS)
    names = [field.name for field in (*scenario.layout.context, *scenario.layout.candidate)]
    names += [each.name for each, _ in parameters_of(type(scenario))] + list(baselines_for(scenario))
    for name in names:
        assert f"| `{name}` |" in page, name
    (equations,) = re.findall(r"\{include\} \.\./(equations/\w+\.md)", page)
    assert (DOCS / equations).exists() and f"![A trial]({env_id}.png)" in page
    assert all(f"`{key}`" in page for key in ("task", "regret", "expected_reward", *scenario.objectives))
    guide = {"Ad": "ads", "RecSlate": "slates"}.get(next((k for k in ("Ad", "RecSlate") if env_id.startswith(k)), ""))
    assert guide is None or f"](../guides/{guide}.md)" in page
    for section in ("Description", "Action Space", "Observation Space", "Rewards", "Starting State", "Episode End"):
        assert f"\n## {section}\n\n" in page


def links(page: str) -> list[str]:
    """Of a page, to files."""
    return re.findall(r"\]\((?!http)([^)#\s]+)", re.sub(r"^```.*?^```", "", PAGES[page], flags=re.M | re.S))


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_linked_exist(page: str) -> None:
    for link in links(page):
        assert ((ROOT / page).parent / link).exists() or link.startswith(("environments/", "../environments/")), link


def commands() -> Iterator[tuple[str, str]]:
    calls = rf"^(?:python scripts/\S+\.py|recgym (?:{'|'.join(COMMANDS)})) .*$"
    for page in PAGES:
        for block in blocks(page, "sh"):
            for command in re.findall(calls, block.replace("\\\n", " "), flags=re.M):
                yield page, command


@pytest.mark.parametrize("page, command", list(commands()))
def test_options_that_are_named_exist(page: str, command: str) -> None:
    program, name, *options = shlex.split(command, comments=True)
    assert program == "recgym" or (ROOT / name).exists(), command
    module = COMMANDS[Path(name).stem].module
    source = "".join((ROOT / "recgym" / "cli" / f"{part}.py").read_text() for part in (module, "options"))
    for option in options:
        assert not re.match("-[^0-9]", option) or f'"{option}"' in source or option == "--help", (command, option)


def test_make_targets_that_are_named_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    for page, text in PAGES.items():
        for target in re.findall(r"`make ([a-z-]+)", text):
            assert target in targets, (page, target)


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
    table = (ROOT / "docs/guides/agents.md").read_text().split("## What is wrong")[1]
    code = re.sub(r'"\s*f?"', "", "".join(path.read_text() for path in (ROOT / "recgym" / "agents").glob("*.py")))
    quoted = re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)
    assert len(quoted) > 4
    for message in quoted:
        for part in filter(None, (part.strip() for part in message.split("..."))):
            assert part in code, message
