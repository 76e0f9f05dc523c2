"""The published table as it is shown: what was played beside what is published."""

from __future__ import annotations

from typing import Any

import pytest

from recgym.evaluation.rl2 import RL2, markdown, play_suite, print_tables
from tests.test_rl2_playing import of_baseline

FIVE, TEN = RL2[:2]


@pytest.fixture(scope="module")
def crowded() -> dict[str, Any]:
    agents = {f"meta-{i}": of_baseline("greedy") for i in range(3)}
    agents |= {f"rows-{i}": of_baseline("ots", statistics=True) for i in range(7)}
    return play_suite(
        {**agents, "lone": of_baseline("greedy", only=10)}, ["softmax"], cells=(FIVE, TEN), trials=50, seed=0
    )


def cells_of(line: str) -> list[str]:
    return [part.strip() for part in line.strip("|").split("|")]


def test_markdown_shows_what_was_measured_beside_what_is_published(crowded: dict[str, Any]) -> None:
    text = markdown(crowded)
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert [len(table) for table in tables] == [4, 4, 4]
    assert all(len({len(cells_of(line)) for line in table}) == 1 for table in tables)
    first, second, seeds = ([dict(zip(cells_of(t[0]), cells_of(line), strict=True)) for line in t[2:]] for t in tables)
    policies = crowded["cells"][0]["policies"]
    assert first[0]["n, k"] == "10, 5" and first[0]["TS"] == f"{policies['thompson']['value']['mean']:.3f} (5.7)"
    assert first[0]["optimum"] == "= 6.660" and first[1]["optimum"] == "= 6.714"
    assert first[0]["RL²"] == "(6.7)" and first[1]["SNAIL"] == "(6.7)"
    assert list(second[0])[4:] == ["meta (mean of 3)", "rows (mean of 7)", "lone", "softmax"]
    assert second[0]["lone"] == "–" and second[1]["lone"] != "–"
    rows = policies["rows"]
    half = max(rows["value"]["high"] - rows["value"]["mean"], rows["value"]["mean"] - rows["value"]["low"])
    assert second[0]["rows (mean of 7)"].startswith(f"{rows['value']['mean']:.3f} ± {half:.3f}, ")
    assert f"{rows['percent']['mean']:+.2f} ± " in second[0]["rows (mean of 7)"]
    assert list(seeds[0])[1:] == [*(f"meta-{i}" for i in range(3)), *(f"rows-{i}" for i in range(7))]
    assert "With running statistics: rows." in text and "Without running statistics: meta, lone." in text
    assert text.endswith("- lone: trained on 10 candidates; no result at (n, k) = (10, 5)\n")


def test_an_upper_bound_is_never_above_what_knowing_the_task_brings(crowded: dict[str, Any]) -> None:
    """The Lagrangian bound of one cell is."""
    loose = next(cell for cell in RL2 if cell.bound is not None and cell.bound > cell.informed)
    long = {**crowded["cells"][0], **loose._asdict(), "informed": loose.informed}
    assert "≤ 454.5" in markdown({**crowded, "cells": [long]})


def test_tables_fit_the_terminal(crowded: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    print_tables(crowded)
    output = capsys.readouterr().out
    assert max(map(len, output.splitlines())) <= 120
    assert "…" not in output
    for label in ("SNAIL", "published", "meta-2", "rows-6", "lone", "softmax"):
        assert label in output
    assert output.count("with running statistics") == 2  # eight policies are too wide for one table
    figure = crowded["cells"][1]["policies"]["lone"]["value"]["mean"]
    assert f"{figure:.3f} ±" in output and "lone: trained on 10 candidates" in output
