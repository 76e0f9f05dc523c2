"""Reports cut by groups of tasks, against a calculation by hand, and evaluation without an optimum."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import recgym
from recgym.cli.result_pages import policies_table
from recgym.evaluation import cut_figure, cut_json, evaluate, interval, print_cut, rollout
from recgym.evaluation.groups import _groups, cut_trials
from recgym.evaluation.report import compare, print_table
from recgym.evaluation.statistics import shown
from recgym.scenarios.pricing.demand import FAMILIES
from tests.toys import Toy


@pytest.fixture(scope="module")
def by_family() -> Any:
    return evaluate("DynamicPricing-v0", {"thompson": None, "best_fixed": None}, trials=120, seed=5, by="family")


def test_groups_are_those_of_the_tasks_that_were_played(by_family: Any) -> None:
    families = by_family.trials["thompson"].tasks.family
    assert by_family.cut.by == "family" and list(by_family.cut.sizes) == list(FAMILIES[:4])
    for index, name in enumerate(FAMILIES[:4]):
        rows = families == index
        assert by_family.cut.sizes[name] == rows.sum()
        summary = by_family.cut.summaries[name]["thompson"]
        assert summary.returns == interval(by_family.trials["thompson"].returns[rows])
        gain = by_family.trials["thompson"].returns[rows] - by_family.trials["random"].returns[rows]
        assert summary.versus["random"].mean == pytest.approx(gain.mean())
        share = by_family.trials["best_fixed"].returns[rows].mean()
        assert by_family.cut.summaries[name]["best_fixed"].returns.mean == pytest.approx(share)
    everybody = sum(by_family.cut.sizes[n] * s["thompson"].returns.mean for n, s in by_family.cut.summaries.items())
    assert everybody / 120 == pytest.approx(by_family.summaries["thompson"].returns.mean)


def test_trials_keep_their_tasks_and_actions() -> None:
    scenario = recgym.make_scenario("RecBandit-v0", arms=4, horizon=6)
    policy = recgym.baselines.make_baseline("greedy", scenario)
    trials = rollout(policy, scenario, trials=30, seed=1)
    assert trials.actions.shape == (30, 6) and trials.tasks.rates.shape == (30, 4)
    expected = np.take_along_axis(trials.tasks.rates, trials.actions, axis=1).sum(axis=1)
    np.testing.assert_allclose(trials.expected, expected, rtol=1e-6)


def test_numbers_are_cut_into_tenths_and_difficulty_is_what_random_loses() -> None:
    tenths = evaluate("DynamicPricing-v0", {"thompson": None}, trials=200, seed=5, by="elasticity")
    assert list(tenths.cut.sizes.values()) == [20] * 10
    lows = [float(label.split(" to ")[0]) for label in tenths.cut.sizes]
    assert lows == sorted(lows)
    hard = evaluate("RecBandit-v0", {"greedy": None}, trials=200, seed=5, by="difficulty")
    regret = [summaries["random"].regret.mean for summaries in hard.cut.summaries.values()]
    assert regret == sorted(regret) and list(hard.cut.sizes.values()) == [20] * 10


@pytest.mark.parametrize(
    "low, high, spans",
    [
        (1000.0, 1009.0, ["1000 to 1000.9", "1000.9 to 1001.8", "1001.8 to 1002.7"]),
        (0.5, 0.5004, ["0.5 to 0.50004", "0.50004 to 0.50008", "0.50008 to 0.50012"]),
        (0.0, 0.9, ["0 to 0.09", "0.09 to 0.18", "0.18 to 0.27"]),
    ],
)
def test_spans_are_as_long_as_tells_them_apart(low: float, high: float, spans: list[str]) -> None:
    values = np.random.default_rng(0).permutation(np.linspace(low, high, 1001))
    labels, places = _groups(Toy(), "x", values)
    assert labels[:3] == spans and len(set(labels)) == 10
    np.testing.assert_array_equal(np.bincount(places), [100] * 9 + [101])
    assert all(values[places == place].max() < values[places == place + 1].min() for place in range(9))


def test_spans_of_few_and_of_equal_numbers() -> None:
    labels, places = _groups(Toy(), "x", np.asarray([3.0, 1.0, 2.0, 5.0, 4.0]))
    assert labels == ["1 to 3", "3 to 5"] and places.tolist() == [1, 0, 0, 1, 1]
    labels, places = _groups(Toy(), "x", np.full(50, 0.25, dtype=np.float32))
    assert labels == ["0.25"] and not places.any()
    labels, places = _groups(Toy(), "x", np.repeat([0.0, 1.0], [30, 70]))
    assert labels == ["0 to 1", "1"] and np.bincount(places).tolist() == [30, 70]
    labels, places = _groups(Toy(), "x", np.random.default_rng(0).permutation(1000))
    assert len(labels) == 10 and np.bincount(places).tolist() == [100] * 10


def test_a_narrow_range_is_cut_into_tenths_too() -> None:
    narrow = recgym.make_scenario("DynamicPricing-v0", cost=[0.5, 0.5004], horizon=5)
    assert list(evaluate(narrow, {}, trials=40, seed=0, by="cost").cut.sizes.values()) == [4] * 10


def test_few_trials_make_fewer_groups_and_too_few_are_refused_before_anything_is_played() -> None:
    bandit = recgym.make_scenario("RecBandit-v0", horizon=5)
    assert list(evaluate(bandit, {}, trials=10, seed=0, by="difficulty").cut.sizes.values()) == [2] * 5
    assert list(evaluate(bandit, {}, trials=4, seed=0, by="difficulty").cut.sizes.values()) == [2, 2]
    with pytest.raises(ValueError, match="a report of 3 trials cannot be cut by 'difficulty': play at least 4"):
        evaluate(bandit, {}, trials=3, seed=0, by="difficulty", on_step=lambda *_: pytest.fail("was played"))


def kinds_of(values: list[int]) -> Any:
    """The cut by family of trials on tasks of these, played by nobody."""
    scenario = recgym.make_scenario("DynamicPricing-v0", horizon=3)
    trials = rollout(recgym.baselines.make_baseline("random", scenario), scenario, trials=len(values), seed=0)
    tasks = trials.tasks._replace(family=np.asarray(values))
    return cut_trials(scenario, dict.fromkeys(("random", "informed"), trials._replace(tasks=tasks)), "family", None)


def test_trials_of_kinds_that_are_too_few_are_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    cut = kinds_of([0, 1, 0, 2, 0, 1])
    assert cut.sizes == {FAMILIES[0]: 3, FAMILIES[1]: 2} and cut.left_out == {FAMILIES[2]: 1}
    print_cut(cut_json(cut))
    printed = " ".join(capsys.readouterr().out.split())
    assert f"left out, with fewer than 2 trials: {FAMILIES[2]}" in printed
    with pytest.raises(ValueError, match="4 trials are too few to be cut by 'family': none of its 4 values came up 2"):
        kinds_of([0, 1, 2, 3])


@pytest.mark.parametrize(
    "by, message",
    [
        ("rates", r"cannot be cut by 'rates', which is \(10,\) numbers a task; it can by difficulty"),
        ("family", "cannot be cut by 'family'; it can by difficulty"),
    ],
)
def test_what_cannot_be_cut_by_is_refused_before_anything_is_played(by: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate("RecBandit-v0", {}, trials=10**9, seed=0, by=by)


def test_the_cut_as_json_table_and_figure(by_family: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = json.loads(json.dumps(cut_json(by_family.cut)))
    group = report["groups"]["linear"]
    assert group["trials"] == by_family.cut.sizes["linear"]
    assert group["policies"]["thompson"]["normalised"]["mean"] < 1.0
    print_cut(report)
    printed = capsys.readouterr().out
    assert "family" in printed and "exponential" in printed and "best_fixed" in printed
    pytest.importorskip("matplotlib")
    figure = cut_figure(by_family.cut, title="by family", emphasise=["thompson"])
    figure.savefig(tmp_path / "cut.png")
    assert len(figure.axes[0].get_xticklabels()) == 4


# --- weights that the optimum does not cover -------------------------------------------------------------------------
def test_drawn_weights_cut_a_report_by_name() -> None:
    toy = Toy(weights={"clicks": [0.0, 1.0], "likes": [0.0, 1.0]})
    comparison = evaluate(toy, {"last": None}, trials=200, seed=0, by="weight_likes")
    cut, preference = comparison.cut, comparison.trials["random"].tasks.preference
    assert cut is not None and list(cut.sizes.values()) == [20] * 10
    least, highest = (float(end) for end in list(cut.sizes)[-1].split(" to "))
    assert toy.preferences == ("clicks", "likes") and highest == pytest.approx(preference[:, 1].max(), rel=1e-2)
    assert (preference[:, 1] >= least - 5e-3).sum() in range(18, 23)
    with pytest.raises(ValueError, match="it can by weight_clicks, weight_likes, difficulty"):
        evaluate(toy, {"last": None}, trials=200, seed=0, by="preference")


def test_a_group_in_which_nothing_can_be_won_shows_no_number(capsys: pytest.CaptureFixture[str]) -> None:
    nothing = {"mean": float("nan"), "low": float("nan"), "high": float("nan")}
    some = {"mean": 0.5, "low": 0.4, "high": 0.6}
    groups = {
        name: {"trials": 9, "policies": {"last": {"normalised": value}}}
        for name, value in (("easy", nothing), ("hard", some))
    }
    print_cut({"by": "difficulty", "groups": groups, "left_out": {}})
    printed = capsys.readouterr().out
    assert "nan" not in printed and "0.500 ± 0.100" in printed and "random choices lose" in printed


@pytest.mark.parametrize("horizon", [6, 200])
def test_a_change_that_never_comes_is_a_group_of_its_own(horizon: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Few change points are groups of one value each, many are cut into tenths: none holds those without one."""
    scenario = recgym.make_scenario("AdPlacement-v0", creatives=2, profile=(1.0,), horizon=horizon, change=0.5)
    result = evaluate(scenario, {"round_robin": None}, trials=300, seed=0, by="change")
    assert result.cut is not None
    change = result.trials["random"].tasks.change
    *others, last = result.cut.sizes
    assert last == "never" and result.cut.sizes[last] == (change > horizon).sum()
    assert sum(result.cut.sizes.values()) == 300 and len(others) <= 10
    assert max(int(float(label.split(" to ")[-1])) for label in others) == change[change <= horizon].max()
    print_cut(json.loads(json.dumps(cut_json(result.cut))))
    assert "never" in capsys.readouterr().out
    unlimited = recgym.make_scenario("DynamicPricing-v0", stock=None, horizon=3)
    cut = evaluate(unlimited, {}, trials=20, seed=0, by="stock").cut
    assert cut is not None and list(cut.sizes) == ["without limit"]


def test_a_skewed_interval_is_written_from_low_to_high(capsys: pytest.CaptureFixture[str]) -> None:
    """Its ± would take in 0, while the + beside it says that it does not; and what is no number is none."""
    assert shown({"mean": 17.93, "low": 0.4, "high": 44.53}, 2) == "17.93 (0.40 to 44.53)"
    assert shown({"mean": -17.93, "low": -44.53, "high": -0.4}, 2) == "-17.93 (-44.53 to -0.40)"
    assert shown({"mean": 17.93, "low": -0.4, "high": 44.53}, 2) == "17.93 ± 26.60"
    assert shown({"mean": 2.0, "low": 1.5, "high": 2.25}, 1) == "2.0 ± 0.5"
    scenario = recgym.make_scenario("AdPlacement-v0", creatives=2, profile=(1.0,), horizon=2)
    weights = {"weights": {"value": 2.0}}
    _, report = compare(scenario, {"round_robin": None}, env="AdPlacement-v0", parameters={}, trials=8, seed=0)
    ours = report["policies"]["round_robin"]
    nothing = dict.fromkeys(("mean", "low", "high"), float("nan"))
    ours["normalised"] = ours["of_bound"] = nothing
    ours["versus"][report["reference"]] = {"mean": 17.93, "low": 0.4, "high": 44.53}
    for parameters in ({}, weights):
        print_table({**report, "parameters": parameters})
        printed = capsys.readouterr().out
        assert "nan" not in printed and "17.93 (0.40 to 44.53) +" in printed
        assert ("baselines play for the default reward" in printed) == bool(parameters)
    _, _, *rows = policies_table(report).splitlines()
    assert "nan" not in "".join(rows) and "| - |" in next(row for row in rows if "round_robin" in row)


def test_without_an_optimum_scores_say_so() -> None:
    toy = Toy(weights={"clicks": 1.0, "display": 0.5})
    assert not toy.solved and toy.objectives == ("clicks", "likes")
    result = evaluate(toy, {"last": None}, trials=50, seed=0)
    assert set(result.trials) == {"last", "random"} and result.reference in ("last", "random")
    for summary in result.summaries.values():
        assert summary.normalised is None and summary.regret is None and summary.of_bound is None
    assert np.isnan(result.trials["last"].regret).all()
    with pytest.raises(ValueError, match="informed cannot play this Toy: no optimum is known for these weights"):
        evaluate(toy, {"informed": None}, trials=10, seed=0)
    with pytest.raises(ValueError, match="no optimum is known"):
        evaluate(toy, {}, trials=10, seed=0, by="difficulty")


def test_a_weighted_bandit_plays_the_same_trials_in_other_units() -> None:
    plain, double = (recgym.make_scenario("RecBandit-v0", horizon=20, weights=w) for w in (None, {"clicks": 2.0}))
    names = dict.fromkeys(("ucb1_tuned", "thompson", "gittins", "gradient"))
    one, other = (evaluate(scenario, names, trials=40, seed=2) for scenario in (plain, double))
    for name in one.trials:
        np.testing.assert_array_equal(one.trials[name].actions, other.trials[name].actions)
        np.testing.assert_allclose(2.0 * one.trials[name].returns, other.trials[name].returns)
        assert one.summaries[name].normalised == pytest.approx(other.summaries[name].normalised)
    with pytest.raises(ValueError, match="got an unexpected keyword argument 'weights'"):
        recgym.make_scenario("DynamicPricing-v0", weights={"revenue": 1.0})
