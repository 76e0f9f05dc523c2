"""How policies explore: figures by hand, what the classics do, refusals, the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import recgym
from recgym.baselines import make_baseline
from recgym.cli.evaluate import main
from recgym.evaluation import Trials, rollout
from recgym.evaluation.exploration import check_explored, exploration_json, explore

NONE = np.zeros((2, 0))


def test_figures_by_hand() -> None:
    actions = np.array([[0, 0, 1, 0], [2, 1, 1, 1]], dtype=np.int32)
    rewards = np.array([[1, 0, 1, 1], [0, 0, 0, 1]], dtype=np.float32)
    regret = np.array([[0, 0, 0.5, 0], [0.1, 0, 0, 0]], dtype=np.float32)
    sums = rewards.sum(axis=1)
    trials = Trials(sums, sums, regret, rewards, NONE, NONE, actions, None)
    found = explore(trials, recgym.make_scenario("RecBandit-v0"))
    np.testing.assert_array_equal(found.new, [1.0, 0.5, 0.5, 0.0])
    np.testing.assert_array_equal(found.tried, [1.0, 1.5, 2.0, 2.0])
    np.testing.assert_array_equal(found.best, [0.5, 1.0, 0.5, 1.0])
    np.testing.assert_array_equal(found.stayed_after_reward, [np.nan, 1.0, np.nan, 0.0])
    np.testing.assert_array_equal(found.stayed_after_none, [np.nan, 0.0, 0.5, 1.0])
    assert np.isnan(explore(trials, recgym.make_scenario("DynamicPricing-v0")).best).all()  # no measure there


def test_classics_explore_as_they_are_known_to() -> None:
    """The Gittins index stays with a winner (Robbins 1952), explores longer than greedy and less than Thompson."""
    scenario = recgym.make_scenario("RecBandit-v0", horizon=30)
    found = {
        name: explore(rollout(make_baseline(name, scenario), scenario, trials=500, seed=0), scenario)
        for name in ("gittins", "thompson", "greedy")
    }
    assert (found["gittins"].stayed_after_reward[1:] == 1.0).all()
    assert found["thompson"].stayed_after_reward[9] < 0.4
    assert found["greedy"].tried[-1] + 1.0 < found["gittins"].tried[-1] < found["thompson"].tried[-1] - 1.0


def test_pages_are_refused() -> None:
    with pytest.raises(ValueError, match="where a decision is one candidate; Slate has pages"):
        check_explored(recgym.make_scenario("RecSlate-v0"))


def test_the_command_draws_and_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figure, report = tmp_path / "how.png", tmp_path / "report.json"
    small = ["--param", "arms=3", "--param", "horizon=6", "--trials", "20", "--policies", "greedy"]
    assert main([*small, "--exploration", str(figure), "--json", str(report)]) == 0
    assert figure.stat().st_size > 10_000
    found = json.loads(report.read_text())["exploration"]
    assert set(found) == {"greedy", "random", "informed"}
    assert found["greedy"]["new"][0] == 1.0
    assert found["greedy"]["stayed_after_reward"][0] is None
    assert "staying after none" in capsys.readouterr().out
    assert main([*small, "--exploration", str(tmp_path / "how.gif")]) == 2
    assert main(["--suite", "rl2", "--exploration", str(figure), "--policies", "greedy"]) == 2


def test_json_has_no_number_that_is_none() -> None:
    scenario = recgym.make_scenario("RecBandit-v0", horizon=5)
    results = {"greedy": rollout(make_baseline("greedy", scenario), scenario, trials=10, seed=0)}
    found = exploration_json({name: explore(trials, scenario) for name, trials in results.items()})
    json.dumps(found, allow_nan=False)
