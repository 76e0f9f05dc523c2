"""The published bandit table: its numbers against closed forms, and what is measured beside them."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import recgym
from recgym.baselines import make_baseline
from recgym.cli import evaluate
from recgym.evaluation import TEST_SEED, interval, rl2, rollout
from recgym.evaluation.rl2 import FIELD, RL2, Agent, Cell, make_cell, markdown, play, print_tables, seeds_of

ROOT = Path(__file__).parent.parent
SHIPPED = ROOT / "agents/RecBandit-v0/agent.safetensors"
SHORT = tuple(cell for cell in RL2 if cell.pulls == 10)
FIVE, TEN, FIFTY = SHORT
LONG = next(cell for cell in RL2 if cell.pulls == 100)


def named(cell: Cell) -> str:
    return cell.name.replace(" ", "-")


# --- the table -------------------------------------------------------------------------------------------------------
def test_the_nine_cells() -> None:
    assert [(cell.pulls, cell.arms) for cell in RL2] == [(n, k) for n in (10, 100, 500) for k in (5, 10, 50)]
    assert set(FIELD) <= set(RL2[0].published) and all(cell.published.keys() == RL2[0].published.keys() for cell in RL2)


def optimum(pulls: int, arms: int) -> float:
    """Bellman's equation over the (successes, failures) of the arms that were pulled, in any order."""

    @cache
    def value(pulled: tuple[tuple[int, int], ...], left: int) -> float:
        if left == 0:
            return 0.0
        choices = [(pulled[:i] + pulled[i + 1 :], arm) for i, arm in enumerate(pulled)]
        choices += [(pulled, (0, 0))] if len(pulled) < arms else []
        values = []
        for others, (s, f) in choices:
            p = (s + 1) / (s + f + 2)
            click, miss = (tuple(sorted((*others, arm))) for arm in ((s + 1, f), (s, f + 1)))
            values.append(p * (1 + value(click, left - 1)) + (1 - p) * value(miss, left - 1))
        return max(values)

    return value((), pulls)


@pytest.mark.parametrize("cell", SHORT, ids=named)
def test_exact_values(cell: Cell) -> None:
    assert cell.exact and cell.bound == pytest.approx(optimum(cell.pulls, cell.arms), abs=6e-6)


def one_price_bound(pulls: int, arms: int) -> float:
    """The least of n price + k V(price): V is what one arm is worth at one price for all moments (weak duality)."""
    price = np.linspace(0.5, 1.0, 501)
    value = np.zeros((pulls + 1, len(price)))  # [successes, price]
    for pulled in range(pulls - 1, -1, -1):
        p = ((1 + np.arange(pulled + 1)) / (2 + pulled))[:, None]
        value = np.maximum(0.0, p - price + p * value[1:] + (1 - p) * value[:-1])
    return float((pulls * price + arms * value[0]).min())


@pytest.mark.parametrize("cell", [cell for cell in RL2 if cell.pulls < 500], ids=named)
def test_bounds_and_published_numbers_agree(cell: Cell) -> None:
    """One price for all moments bounds less tightly than the table's; nothing published is clearly above the bound."""
    error = {10: 0.06, 100: 0.4}[cell.pulls]  # standard error of 1,000 instances
    assert abs(cell.published["random"] - cell.pulls / 2) < 3 * error
    highest = cell.informed
    if cell.bound is not None:
        assert 0.98 * one_price_bound(cell.pulls, cell.arms) < cell.bound or cell.exact
        assert cell.bound < one_price_bound(cell.pulls, cell.arms)
        highest = min(highest, cell.bound)
    assert max(cell.published.values()) < highest + 3 * error


# --- playing ---------------------------------------------------------------------------------------------------------
def test_tasks_and_luck_are_the_same_in_both_modes() -> None:
    seen, bare = (make_cell(FIVE, statistics=mode) for mode in (True, False))
    assert len(seen.layout.candidate) == 3 and len(bare.layout.candidate) == 1
    for name in FIELD:
        left, right = (rollout(make_baseline(name, s), s, trials=50, seed=3) for s in (seen, bare))
        assert (left.regret == right.regret).all() and (left.returns == right.returns).all(), name
        assert left.regret.any()
    other = rollout(make_baseline("thompson", bare), bare, trials=50, seed=4)
    assert (other.returns != rollout(make_baseline("thompson", bare), bare, trials=50, seed=3).returns).any()


@pytest.fixture(scope="module")
def baselines_alone() -> dict[str, Any]:
    return play({}, ["informed"], cells=(FIVE, FIFTY), trials=2000, seed=0)


def test_gittins_is_close_to_the_optimum_and_above_the_others(baselines_alone: dict[str, Any]) -> None:
    for cell in baselines_alone["cells"]:
        gittins = cell["policies"]["gittins"]["value"]
        assert cell["bound"] - 1e-3 < gittins["low"] <= gittins["high"] < cell["bound"] + 1e-5
        for name in ("random", "thompson", "ots"):
            assert cell["policies"][name]["difference"]["high"] < -0.1
        assert cell["policies"]["gittins"]["difference"] == {"mean": 0.0, "low": 0.0, "high": 0.0}


def test_values_of_exact_cells_agree_with_clicks_and_vary_less(baselines_alone: dict[str, Any]) -> None:
    """Thompson's clicks, at 2,000 trials, have a standard error of .04: a bias of .16 would be found."""
    for cell, entry in zip((FIVE, FIFTY), baselines_alone["cells"], strict=True):
        random = entry["policies"]["random"]["value"]
        assert random["low"] < cell.pulls / 2 < random["high"]
        scenario = make_cell(cell, statistics=True)
        clicks = interval(rollout(make_baseline("thompson", scenario), scenario, trials=2000, seed=TEST_SEED).returns)
        value = entry["policies"]["thompson"]["value"]
        error = (clicks.high - clicks.low) / (2 * 1.96)
        assert 0.02 < error < 0.05 and value["mean"] == pytest.approx(clicks.mean, abs=4 * error)
        assert value["high"] - value["low"] < 0.5 * (clicks.high - clicks.low)
        informed = entry["policies"]["informed"]["value"]  # knows more than the best policy: not taken apart so
        assert list(informed.values()) == pytest.approx([cell.informed] * 3)


def test_values_of_other_cells_are_what_the_best_arm_is_known_to_bring_minus_regret() -> None:
    (entry,) = play({}, cells=(LONG,), trials=200, seed=0)["cells"]
    scenario = make_cell(LONG, statistics=True)
    trials = {
        name: rollout(make_baseline(name, scenario), scenario, trials=200, seed=TEST_SEED)
        for name in ("greedy", "gittins")
    }
    greedy = entry["policies"]["greedy"]
    regret = trials["greedy"].regret.sum(axis=1, dtype=np.float64)
    assert greedy["value"] == pytest.approx(interval(LONG.informed - regret)._asdict())
    gain = trials["greedy"].expected.mean() - trials["gittins"].expected.mean()
    assert greedy["difference"]["mean"] == pytest.approx(gain, abs=1e-4)
    percent = 100 * gain / entry["policies"]["gittins"]["value"]["mean"]
    assert greedy["percent"]["mean"] == pytest.approx(percent, abs=1e-3)


class Recorded:
    """Thompson sampling that remembers how it was asked."""

    def __init__(self, scenario: Any) -> None:
        self.inner, self.deterministic, self.rows = make_baseline("thompson", scenario), set[bool](), 0
        self.reseed = self.inner.reseed

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> Any:
        self.deterministic.add(deterministic)
        self.rows = len(observation)
        return self.inner.predict(observation, state, episode_start)


def test_agents_play_their_mode_on_the_same_trials() -> None:
    built: list[tuple[str, Any, Recorded]] = []

    def agent(label: str, statistics: bool, deterministic: bool = False) -> Agent:
        def build(scenario: Any) -> Recorded:
            built.append((label, scenario, Recorded(scenario)))
            return built[-1][2]

        return Agent(build, statistics, deterministic, {"origin": label})

    agents = {
        "seen": agent("seen", True),
        "bare": agent("bare", False),
        "bare:argmax": agent("bare:argmax", False, True),
    }
    steps: list[tuple[str, int, int]] = []
    report = play(agents, ["softmax"], cells=(FIVE, TEN), trials=30, seed=1, on_step=lambda *step: steps.append(step))
    assert [(label, scenario.arms, scenario.statistics) for label, scenario, _ in built] == [
        (label, arms, label == "seen") for arms in (5, 10) for label in agents
    ]
    for label, _, policy in built:
        assert policy.deterministic == {label == "bare:argmax"} and policy.rows == 30
    for cell in report["cells"]:
        for label in agents:
            assert cell["policies"][label] == cell["policies"]["thompson"]
    assert report["policies"]["seen"] == {"kind": "agent", "statistics": True, "origin": "seen"}
    assert report["policies"]["gittins"] == {"kind": "prior-aware"}
    assert set(report["policies"]) == {*FIELD, "softmax", *agents} == set(report["cells"][0]["policies"])
    assert (report["trials"], report["seed"], report["reference"]) == (30, 1, "gittins")
    assert report["versions"]["recgym"] == recgym.__version__
    assert [done for _, done, _ in steps] == list(range(1, 2 * 10 * 11 + 1)) and {total for *_, total in steps} == {220}
    assert steps[0][0] == "n=10 k=5 random" and steps[-1][0] == "n=10 k=10 bare:argmax"


def of_baseline(name: str, *, only: int | None = None, statistics: bool = False) -> Agent:
    def build(scenario: Any) -> Any:
        if only not in (None, scenario.arms):
            raise ValueError(f"trained on {only} candidates")
        return make_baseline(name, scenario)

    return Agent(build, statistics)


def test_labels_of_seeds() -> None:
    labels = ["meta-0", "other", "meta-1", "single-3", "meta-0:argmax", "meta-1:argmax", "meta-x"]
    assert seeds_of(labels) == {"meta": ["meta-0", "meta-1"], "meta:argmax": ["meta-0:argmax", "meta-1:argmax"]}


def test_mean_over_seeds_and_cells_that_cannot_be_played() -> None:
    agents = {"meta-0": of_baseline("greedy"), "meta-1": of_baseline("ots", only=5)}
    report = play(agents, cells=(FIVE, TEN), trials=100, seed=0)
    assert report["policies"]["meta"] == {"kind": "mean", "statistics": False, "of": ["meta-0", "meta-1"]}
    five, ten = (cell["policies"] for cell in report["cells"])
    for figure in ("value", "difference", "percent"):
        halfway = (five["greedy"][figure]["mean"] + five["ots"][figure]["mean"]) / 2
        assert five["meta"][figure]["mean"] == pytest.approx(halfway)
    widths = [entry["difference"]["high"] - entry["difference"]["low"] for entry in (five["greedy"], five["ots"])]
    assert 0 < five["meta"]["difference"]["high"] - five["meta"]["difference"]["low"] < max(widths)
    assert ten["meta-1"] == ten["meta"] == {"note": "trained on 5 candidates"}
    assert ten["meta-0"] == ten["greedy"]


NAMES = {
    "a baseline's name": ({"gittins": of_baseline("ots")}, [], "'gittins' is the name of a baseline"),
    "a mean's name": (
        {"ots-0": of_baseline("ots"), "ots-1": of_baseline("ots")},
        [],
        "'ots', the mean over ots-0, ots-1, is the name of a baseline",
    ),
    "a mean's name is taken": (
        {"a-0": of_baseline("ots"), "a-1": of_baseline("ots"), "a": of_baseline("ots")},
        [],
        "the mean over a-0, a-1 would be called 'a'",
    ),
    "two modes in one mean": (
        {"a-0": of_baseline("ots"), "a-1": of_baseline("ots", statistics=True)},
        [],
        "a-0, a-1 are no seeds of one agent",
    ),
    "unknown baseline": ({}, ["tompson"], "did you mean 'thompson'"),
    "fits nowhere": ({"a": of_baseline("ots", only=7)}, [], "a can play none of the cells: trained on 7 candidates"),
}


@pytest.mark.parametrize("case", NAMES)
def test_refused_before_anything_is_played(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    agents, baselines, message = NAMES[case]
    monkeypatch.setattr(rl2, "rollout", lambda *_, **__: pytest.fail("it was played"))
    with pytest.raises(ValueError, match=message):
        play(agents, baselines, cells=SHORT, trials=10, seed=0)


# --- showing ---------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def crowded() -> dict[str, Any]:
    agents = {f"meta-{i}": of_baseline("greedy") for i in range(3)}
    agents |= {f"rows-{i}": of_baseline("ots", statistics=True) for i in range(7)}
    return play({**agents, "lone": of_baseline("greedy", only=10)}, ["softmax"], cells=(FIVE, TEN), trials=50, seed=0)


def cells_of(line: str) -> list[str]:
    return [part.strip() for part in line.strip("|").split("|")]


def test_markdown_shows_what_was_measured_beside_what_is_published(crowded: dict[str, Any]) -> None:
    text = markdown(crowded)
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert [len(table) for table in tables] == [4, 4, 4]
    assert all(len({len(cells_of(line)) for line in table}) == 1 for table in tables)
    first, second, seeds = ([dict(zip(cells_of(t[0]), cells_of(line), strict=True)) for line in t[2:]] for t in tables)
    measured = crowded["cells"][0]["policies"]
    assert first[0]["n, k"] == "10, 5" and first[0]["TS"] == f"{measured['thompson']['value']['mean']:.3f} (5.7)"
    assert first[0]["optimum"] == "= 6.660" and first[1]["optimum"] == "= 6.714"
    assert first[0]["RL²"] == "(6.7)" and first[1]["SNAIL"] == "(6.7)"
    assert list(second[0])[4:] == ["meta (mean of 3)", "rows (mean of 7)", "lone", "softmax"]
    assert second[0]["lone"] == "–" and second[1]["lone"] != "–"
    rows = measured["rows"]
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
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 120
    assert "…" not in printed
    for label in ("SNAIL", "published", "meta-2", "rows-6", "lone", "softmax"):
        assert label in printed
    assert printed.count("with running statistics") == 2  # eight policies are too wide for one table
    figure = crowded["cells"][1]["policies"]["lone"]["value"]["mean"]
    assert f"{figure:.3f} ±" in printed and "lone: trained on 10 candidates" in printed


# --- the command line ------------------------------------------------------------------------------------------------
@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(rl2, "RL2", (FIVE, TEN._replace(exact=False)))  # both ways of measuring
    return evaluate.main


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
    given = [
        "--suite",
        "rl2",
        "--policies",
        f"meta={SHIPPED},meta:argmax={SHIPPED},bare={file},ucb1",
        "--trials",
        "100",
        "--device",
        "cpu",
    ]
    assert main([*given, "--json", str(report), "--markdown", str(table)]) == 0
    out = capsys.readouterr()
    assert "bare: trained on 5 candidates; no result at (n, k) = (10, 10)" in out.out and not out.err
    read = json.loads(report.read_text())
    assert read["policies"]["meta"]["statistics"] is True and read["policies"]["bare"]["statistics"] is False
    assert read["policies"]["meta"]["path"] == str(SHIPPED) and read["policies"]["meta"]["algo"] == "meta_ppo"
    assert "torch" in read["versions"] and read["device"] == "cpu"
    five, ten = (cell["policies"] for cell in read["cells"])
    assert "value" in five["meta"] and "value" in five["bare"] and ten["bare"] == {"note": "trained on 5 candidates"}
    assert five["meta:argmax"]["value"] != five["meta"]["value"]
    assert set(five) == {*FIELD, "ucb1", "meta", "meta:argmax", "bare"} and "| meta |" in table.read_text()

    single = ["--param", "arms=10", "--param", "horizon=10", "--trials", "100", "--device", "cpu"]
    assert main([*single, "--policies", f"meta={SHIPPED},gittins", "--json", str(report)]) == 0
    policies = json.loads(report.read_text())["policies"]
    for name in ("meta", "gittins"):
        assert ten[name]["value"]["mean"] == pytest.approx(10 * 10 / 11 - policies[name]["regret"]["mean"])


def test_a_suite_needs_no_policies(main: Any, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    assert main(["--suite", "rl2", "--trials", "2", "--json", str(file)]) == 0
    report = json.loads(file.read_text())
    assert set(report["cells"][1]["policies"]) == set(FIELD) and report["cells"][1]["arms"] == 10


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
