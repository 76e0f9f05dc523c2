"""Playing the published table: who plays what, on which trials, and how it is valued."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import recgym
from recgym.baselines import make_baseline
from recgym.evaluation import TEST_SEED, interval, rollout
from recgym.evaluation.rl2 import BASELINES, RL2, SuiteAgent, make_cell, play_suite, playing, seeds_of

SHORT = tuple(cell for cell in RL2 if cell.pulls == 10)
FIVE, TEN, FIFTY = SHORT
LONG = next(cell for cell in RL2 if cell.pulls == 100)


def test_tasks_and_luck_are_the_same_in_both_modes() -> None:
    full, bare = (make_cell(FIVE, statistics=mode) for mode in (True, False))
    assert len(full.layout.candidate) == 3 and len(bare.layout.candidate) == 1
    for name in BASELINES:
        one, other = (rollout(make_baseline(name, s), s, trials=50, seed=3) for s in (full, bare))
        assert (one.regret == other.regret).all() and (one.returns == other.returns).all(), name
        assert one.regret.any()
    other = rollout(make_baseline("thompson", bare), bare, trials=50, seed=4)
    assert (other.returns != rollout(make_baseline("thompson", bare), bare, trials=50, seed=3).returns).any()


@pytest.fixture(scope="module")
def baselines_alone() -> dict[str, Any]:
    return play_suite({}, ["informed"], cells=(FIVE, FIFTY), trials=2000, seed=0)


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
    (entry,) = play_suite({}, cells=(LONG,), trials=200, seed=0)["cells"]
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


class Witness:
    """Thompson sampling that remembers how it was asked."""

    def __init__(self, scenario: Any) -> None:
        self.inner = make_baseline("thompson", scenario)
        self.deterministic = set[bool]()
        self.rows = 0
        self.reseed = self.inner.reseed

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> Any:
        self.deterministic.add(deterministic)
        self.rows = len(observation)
        return self.inner.predict(observation, state, episode_start)


def test_agents_play_their_mode_on_the_same_trials() -> None:
    witnesses: list[tuple[str, Any, Witness]] = []

    def agent(label: str, statistics: bool, deterministic: bool = False) -> SuiteAgent:
        def build(scenario: Any) -> Witness:
            witnesses.append((label, scenario, Witness(scenario)))
            return witnesses[-1][2]

        return SuiteAgent(build, statistics, deterministic, {"origin": label})

    agents = {
        "full": agent("full", True),
        "bare": agent("bare", False),
        "bare:argmax": agent("bare:argmax", False, True),
    }
    steps: list[tuple[str, int, int]] = []
    report = play_suite(
        agents, ["softmax"], cells=(FIVE, TEN), trials=30, seed=1, on_step=lambda *step: steps.append(step)
    )
    assert [(label, scenario.arms, scenario.statistics) for label, scenario, _ in witnesses] == [
        (label, arms, label == "full") for arms in (5, 10) for label in agents
    ]
    for label, _, policy in witnesses:
        assert policy.deterministic == {label == "bare:argmax"} and policy.rows == 30
    for cell in report["cells"]:
        for label in agents:
            assert cell["policies"][label] == cell["policies"]["thompson"]
    assert report["policies"]["full"] == {"kind": "agent", "statistics": True, "origin": "full"}
    assert report["policies"]["gittins"] == {"kind": "prior-aware"}
    assert set(report["policies"]) == {*BASELINES, "softmax", *agents} == set(report["cells"][0]["policies"])
    assert (report["trials"], report["seed"], report["reference"]) == (30, 1, "gittins")
    assert report["versions"]["recgym"] == recgym.__version__
    assert [decisions for _, decisions, _ in steps] == list(range(1, 2 * 10 * 11 + 1)) and {
        total for *_, total in steps
    } == {220}
    assert steps[0][0] == "n=10 k=5 random" and steps[-1][0] == "n=10 k=10 bare:argmax"


def of_baseline(name: str, *, only: int | None = None, statistics: bool = False) -> SuiteAgent:
    def build(scenario: Any) -> Any:
        if only not in (None, scenario.arms):
            raise ValueError(f"trained on {only} candidates")
        return make_baseline(name, scenario)

    return SuiteAgent(build, statistics)


def test_labels_of_seeds() -> None:
    labels = ["meta-0", "other", "meta-1", "single-3", "meta-0:argmax", "meta-1:argmax", "meta-x"]
    assert seeds_of(labels) == {"meta": ["meta-0", "meta-1"], "meta:argmax": ["meta-0:argmax", "meta-1:argmax"]}


def test_mean_over_seeds_and_cells_that_cannot_be_played() -> None:
    agents = {"meta-0": of_baseline("greedy"), "meta-1": of_baseline("ots", only=5)}
    report = play_suite(agents, cells=(FIVE, TEN), trials=100, seed=0)
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
    monkeypatch.setattr(playing, "rollout", lambda *_, **__: pytest.fail("it was played"))
    with pytest.raises(ValueError, match=message):
        play_suite(agents, baselines, cells=SHORT, trials=10, seed=0)
