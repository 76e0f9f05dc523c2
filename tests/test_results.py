"""Published results are made by a command: kept while they are current, checked, and shown as they were measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import recgym
from recgym.benchmarks.results import (
    Cell,
    PublishedSize,
    cells,
    check_cell,
    data_file,
    env_cells,
    is_current,
    measure_cell,
    sizes,
)
from recgym.cli import main
from recgym.cli.result_pages import BLOCK, fill, policies_table, result_page

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "results"
ENV = "DynamicPricingFerreira-v0"  # one cell, no agent: the quickest
PLACES = ("*.md", "agents/*/*.md", "docs/results/*.md")
WITH_RESULTS = [path for place in PLACES for path in ROOT.glob(place) if BLOCK.search(path.read_text())]


def run(folder: Path, *arguments: str) -> int:
    return main(["results", "--folder", str(folder), "--only", ENV, "--trials", "40", *arguments])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    assert run(folder) == 0
    return folder


def test_a_second_run_keeps_what_is_current(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = data_file(made, Cell(ENV, {}))
    before = path.stat().st_mtime_ns
    assert run(made) == 0
    assert "there already" in capsys.readouterr().out and path.stat().st_mtime_ns == before
    assert (made / f"{ENV}.png").stat().st_size > 5000


def test_a_result_of_another_scenario_is_measured_again(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = data_file(made, Cell(ENV, {}))
    before = path.read_bytes()
    content = json.loads(before)
    content["made_from"]["scenario"]["stock"] = 26
    path.write_text(json.dumps(content))
    assert not is_current(made, Cell(ENV, {}), 40)
    assert run(made) == 0
    assert "there already" not in capsys.readouterr().out and path.read_bytes() == before


def test_a_check_names_the_figure_that_is_not_found_again(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = data_file(made, Cell(ENV, {}))
    before = path.read_bytes()
    assert run(made, "--quick") == 0
    assert "agree" in capsys.readouterr().out
    content = json.loads(before)
    for part in ("mean", "low", "high"):
        content["report"]["policies"]["thompson"]["return"][part] *= 2
    path.write_text(json.dumps(content))
    try:
        assert run(made, "--quick") == 1
        out = capsys.readouterr().out
        assert "thompson" in out and "ucb1" not in out
    finally:
        path.write_bytes(before)


def test_what_is_no_result_is_said(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = data_file(tmp_path, Cell(ENV, {}))
    assert run(tmp_path, "--quick") == 2 and "no results of" in capsys.readouterr().err
    path.parent.mkdir()
    path.write_text("{}")
    assert run(tmp_path, "--quick") == 2 and str(path) in capsys.readouterr().err
    assert main(["results", "--only", "Nothing"]) == 2 and "no environment has 'Nothing'" in capsys.readouterr().err
    with pytest.raises(ValueError, match="no policy 'gittins'"):
        policies_table(json.loads(data_file(made, Cell(ENV, {})).read_text())["report"], ("gittins",))
    with pytest.raises(ValueError, match="PAGE: no results 'Nothing'"):
        fill("<!-- results Nothing -->\n<!-- end of results -->", made, "PAGE")


def test_cells_have_names_of_their_own() -> None:
    names = [cell.name for cell in cells()]
    assert len(set(names)) == len(names)
    assert [cell.env for cell in env_cells() if not cell.parameters] == list(recgym.SCENARIOS)


def test_a_size_of_the_published_table_is_a_result_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (size, *_) = sizes()
    measure_cell(tmp_path, size, trials=30)
    assert is_current(tmp_path, size, 30) and not is_current(tmp_path, size, 31)
    assert not list(check_cell(tmp_path, size, trials=20))
    monkeypatch.setattr("recgym.cli.result_pages.sizes", lambda: [size])
    page = fill("<!-- results rl2 -->\n<!-- end of results -->", tmp_path, "PAGE")
    assert f"| {size.cell.pulls}, {size.cell.arms} |" in page and "raw (mean of 3)" in page


@pytest.mark.parametrize("cell", cells(), ids=lambda cell: cell.name)
def test_published_results_are_those_of_what_ships(cell: Cell | PublishedSize) -> None:
    """Not measured again here; `make results QUICK=1` does."""
    assert is_current(FOLDER, cell, 4000), "run `make results`"


@pytest.mark.parametrize("path", WITH_RESULTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_pages_show_what_was_measured(path: Path) -> None:
    assert fill(path.read_text(), FOLDER, path.name) == path.read_text(), "run `make results`"


@pytest.mark.parametrize("env", recgym.SCENARIOS)
def test_pages_of_results_are_those_of_the_data(env: str) -> None:
    assert (FOLDER / f"{env}.md").read_text() == result_page(FOLDER, env), "run `make results`"
