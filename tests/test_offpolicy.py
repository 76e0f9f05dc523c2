"""Estimators on logs, against closed forms, and what they assume, against logs that agree and logs that do not."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import recgym
from recgym.baselines import ConstantPolicy, make_baseline
from recgym.data import OpenBanditLog
from recgym.evaluation.offpolicy import (
    ESTIMATORS,
    counted_propensity,
    importance_weights,
    off_policy,
    off_policy_report,
    overlap,
    print_off_policy,
    propensities,
    replay,
    steady,
    uniform,
)

RATES = np.array([0.3, 0.2, 0.1, 0.05])


def simulated(
    shares: Any, rows: int, seed: int, *, rates: np.ndarray = RATES, claimed: Any = None, positions: int = 1
) -> OpenBanditLog:
    """A log of a policy that shows items with these shares, [K] or by position [P, K]; own propensities or claimed."""
    rng = np.random.default_rng(seed)
    shares = np.atleast_2d(np.asarray(shares, float))
    position = rng.integers(0, positions, rows)
    law = shares[position % len(shares)]
    action = (rng.random(rows)[:, None] > law.cumsum(axis=1)[:, :-1]).sum(axis=1)
    click = (rng.random(rows) < rates[action]).astype(np.float32)
    said = law if claimed is None else np.broadcast_to(np.asarray(claimed, float), law.shape)
    return OpenBanditLog(
        action=action,
        position=position + 1,
        click=click,
        propensity=said[np.arange(rows), action],
        items=np.arange(law.shape[1]),
        path="made",
    )


@pytest.mark.parametrize("logging", [[0.25] * 4, [0.1, 0.2, 0.3, 0.4]], ids=["uniform", "uneven"])
def test_intervals_cover_the_truth(logging: list[float]) -> None:
    """95 % of 300 logs of 3,000 rows, within 4 standard errors (5 %); each is right on average within 4 of its own."""
    policy = np.array([0.6, 0.2, 0.1, 0.1])
    truth = float(policy @ RATES)
    found = [off_policy(simulated(logging, 3000, seed), policy, resamples=200) for seed in range(300)]
    for kind in ESTIMATORS:
        estimates = [each[kind] for each in found]
        covered = np.mean([each.low <= truth <= each.high for each in estimates])
        assert covered > 0.95 - 4 * math.sqrt(0.95 * 0.05 / 300), kind
        values = np.array([each.value for each in estimates])
        assert abs(values.mean() - truth) < 4 * values.std() / math.sqrt(300) + 1e-3, kind  # a thousandth of shrinkage
        width = np.mean([each.high - each.low for each in estimates])  # no wider than it must be: of 3.92 standard
        assert width == pytest.approx(3.92 * values.std(), rel=0.17), kind  # errors, known to 4 %, four of them
    widths = {kind: np.mean([each[kind].high - each[kind].low for each in found]) for kind in ESTIMATORS}
    assert widths["doubly robust"] < widths["ips"]


def test_doubly_robust_bears_wrong_propensities() -> None:
    policy = np.array([0.7, 0.1, 0.1, 0.1])
    truth = float(policy @ RATES)
    log = simulated([0.1, 0.2, 0.3, 0.4], 200_000, 1, claimed=[0.25] * 4)
    found = off_policy(log, policy, resamples=10)
    assert found["doubly robust"].value == pytest.approx(truth, rel=0.02)
    assert found["direct"].value == pytest.approx(truth, rel=0.02)
    assert abs(found["ips"].value - truth) > 0.1 * truth


def test_clipping_by_hand() -> None:
    log = OpenBanditLog(
        action=np.array([0, 0, 1, 1]),
        position=np.ones(4, dtype=int),
        click=np.array([1, 0, 1, 0], dtype=np.float32),
        propensity=np.array([0.1, 0.5, 0.5, 0.5]),
        items=np.arange(2),
        path="made",
    )
    clipped = off_policy(log, [0.5, 0.5], clip=2.0)["clipped"]
    assert clipped.value == pytest.approx((2 + 1) / 4)  # weights 5, 1, 1, 1
    assert off_policy(log, [0.5, 0.5], clip=100.0)["clipped"].value == pytest.approx((5 + 1) / 4)
    assert clipped.high == 1.0  # .75, what is lost, (5 - 2) / 4, and more: a rate is no higher


def test_the_interval_of_a_clipped_value_covers_what_is_lost() -> None:
    """Half of the value is cut off, and the truth stays inside; the interval ends where rates do."""
    for seed in range(20):
        found = off_policy(simulated([0.05, 0.95], 2000, seed, rates=np.array([0.3, 0.1])), [1.0, 0.0], clip=10.0)
        assert found["clipped"].value == pytest.approx(found["ips"].value / 2)
        assert found["clipped"].low < 0.3 < found["clipped"].high <= 1.0


@pytest.mark.parametrize("tiny", [1e-100, 1e-300, 5e-324])
def test_tiny_propensities_are_named_and_undefine_nothing(tiny: float) -> None:
    log = simulated([0.5, 0.5], 500, 0, rates=np.array([0.5, 0.5]))
    log = replace(log, propensity=np.where(np.arange(500) == 7, tiny, log.propensity))
    assert propensities(log) == (False, f"propensities contradict the log, where one of {tiny:.3g} is not to be met")
    for estimate in off_policy(log, [0.5, 0.5]).values():
        assert np.isfinite(estimate).all()
    row = report_on(log)["policies"]["greedy"]  # with propensities as counted
    assert 0.4 < row["ips"]["value"] < 0.6 and row["ips"]["wrong"] and row["direct"]["agrees"]


@pytest.mark.parametrize("wrong", [0.0, -0.5, 1.5, math.nan])
def test_what_is_no_propensity_is_refused(wrong: float) -> None:
    log = simulated([0.5, 0.5], 50, 0)
    log = replace(log, propensity=np.where(np.arange(50) == 7, wrong, log.propensity))
    assert propensities(log) == (False, "propensities lie outside of (0, 1]")
    with pytest.raises(
        ValueError, match=r"propensities of made must be 50 numbers in \(0, 1\]; see counted_propensity"
    ):
        off_policy(log, [0.5, 0.5])


def test_a_policy_of_its_own_for_each_row_gives_the_same() -> None:
    log, policy = simulated([[0.7, 0.3], [0.2, 0.8]], 500, 3, positions=2), np.array([0.4, 0.6])
    one, each = off_policy(log, policy), off_policy(log, np.tile(policy, (500, 1)))
    for kind in ESTIMATORS:
        assert one[kind] == pytest.approx(each[kind], rel=1e-12), kind


def test_propensities_are_counted_by_position() -> None:
    log = simulated([[0.7, 0.3], [0.2, 0.8]], 20_000, 3, rates=np.array([0.3, 0.1]), positions=2)
    assert np.abs(counted_propensity(log) - log.propensity).max() < 0.02


# --- what is assumed -------------------------------------------------------------------------------------------------
def contextual(rows: int, seed: int, *, scale: float = 1.0, matters: bool = False) -> OpenBanditLog:
    """A log of a policy that looks at users, which matter to clicks or do not."""
    rng = np.random.default_rng(seed)
    score = scale * rng.normal(size=(rows, 3)) @ rng.normal(size=(3, 6))
    law = np.exp(score) / np.exp(score).sum(axis=1, keepdims=True)
    action = (rng.random(rows)[:, None] > law.cumsum(axis=1)[:, :-1]).sum(axis=1)
    taken = np.arange(rows), action
    click = rng.random(rows) < (np.minimum(0.05 * np.exp(score[taken] / 2), 1.0) if matters else 0.05)
    return OpenBanditLog(
        action=action,
        position=np.ones(rows, dtype=int),
        click=click.astype(np.float32),
        propensity=law[taken],
        items=np.arange(6),
        path="made",
    )


def in_part(rows: int, seed: int) -> OpenBanditLog:
    """A log of which item 0 was there in the second half only."""
    before, after = simulated([0, 0.4, 0.3, 0.3], rows, seed), simulated([0.4, 0.3, 0.2, 0.1], rows, seed + 1000)
    names = ("action", "position", "click", "propensity")
    return replace(after, **{name: np.concatenate([getattr(before, name), getattr(after, name)]) for name in names})


MANY = np.random.default_rng(0).dirichlet(np.full(34, 0.5)) + 1e-4  # shares of 34 items, some of them rare
MANY = MANY / MANY.sum()
ALIKE = np.full(34, 0.1)


@pytest.mark.parametrize(
    "make, checks",
    [
        (lambda seed: simulated([0.25] * 4, 2000, seed), [uniform, propensities, steady]),
        (lambda seed: simulated([0.7, 0.2, 0.07, 0.03], 2000, seed), [propensities, steady]),
        (lambda seed: simulated(np.full(34, 1 / 34), 170, seed, rates=ALIKE), [uniform, propensities, steady]),
        (lambda seed: simulated(MANY, 2000, seed, rates=ALIKE), [propensities, steady]),
        (lambda seed: simulated([MANY, MANY[::-1]], 2000, seed, rates=ALIKE, positions=2), [propensities, steady]),
        (lambda seed: contextual(1000, seed), [propensities, steady]),
        (lambda seed: contextual(1000, seed, scale=3.0), [propensities, steady]),
        (lambda seed: in_part(1000, seed), [propensities, steady]),
    ],
    ids=["uniform", "uneven", "few rows", "rare items", "two positions", "contextual", "greedy", "new item"],
)
def test_a_log_that_agrees_is_not_doubted(
    make: Callable[[int], OpenBanditLog], checks: list[Callable[[OpenBanditLog], Any]]
) -> None:
    """Level 1/1,000: of 200 logs at most 3 may be doubted (P < 1e-4)."""
    logs = [make(seed) for seed in range(200)]
    for check in checks:
        assert sum(not check(log).holds for log in logs) <= 3, check.__name__


def test_propensities_that_are_wrong_at_each_position_do_not_cancel() -> None:
    """Shares of .4 and .6 are right on the whole, while the positions have .2 and .8, and the reverse."""
    log = simulated([[0.2, 0.8], [0.6, 0.4]], 10_000, 0, rates=RATES[:2], claimed=[0.4, 0.6], positions=2)
    found = propensities(log)
    assert not found.holds and "item 0 at position 1 0.5 times as often as they say" in found.says


def test_a_log_that_is_uniform_on_the_whole_only() -> None:
    before, after = simulated([0.4, 0.3, 0.2, 0.1], 2000, 0), simulated([0.1, 0.2, 0.3, 0.4], 2000, 1)
    names = ("action", "position", "click", "propensity")
    log = replace(after, **{name: np.concatenate([getattr(before, name), getattr(after, name)]) for name in names})
    assert uniform(log) == (False, "items were not equally probable (propensities 0.1 to 0.4)")


def test_clicks_that_go_with_something_else_are_found() -> None:
    """Rates that rise from .05 to .15, and users whom the logging policy knew: z of 6 and more, where 3.5 is enough."""
    log = simulated([0.25] * 4, 5000, 0)
    rising = np.random.default_rng(1).random(5000) < np.linspace(0.05, 0.15, 5000)
    assert steady(replace(log, click=rising.astype(np.float32))).says.endswith("go with time")
    assert steady(contextual(3000, 0, matters=True)).says.endswith("go with the propensity")


def test_what_had_no_chance_in_a_part_of_the_log_is_found() -> None:
    log = in_part(1000, 0)
    for policy, holds in (([1.0, 0.0, 0.0, 0.0], False), ([0.0, 0.5, 0.5, 0.0], True)):
        probabilities = np.array(policy)
        found = overlap(log, probabilities, importance_weights(log, probabilities))
        assert found.holds == holds
        assert holds or found.says.startswith("what the policy chooses had next to no chance in 4")  # 50 %, s.e. 2.7


def test_findings_name_what_is_wrong() -> None:
    uneven = uniform(simulated([0.85, 0.05, 0.05, 0.05], 2000, 0))
    assert not uneven.holds and "not shown equally often" in uneven.says
    wrong = propensities(simulated([0.85, 0.05, 0.05, 0.05], 2000, 0, claimed=[0.25] * 4))
    assert not wrong.holds and "item 0 3.4 times" in wrong.says
    one = propensities(simulated([0.4, 0.2, 0.2, 0.2], 20_000, 0, claimed=[0.4, 0.2, 0.2, 0.1]))
    assert not one.holds and one.says.endswith("shows item 3 2 times as often as they say")
    log = simulated([0.5, 0.5, 0.0, 0.0], 500, 0)
    for policy, says in (
        ([0.2, 0.2, 0.5, 0.1], "60.0% of what the policy chooses was never shown there"),
        ([0.5, 0.5, 0.0, 0.0], "what the policy chooses was shown"),
    ):
        each = np.tile(policy, (500, 1))
        for probabilities in (np.array(policy), each):
            assert overlap(log, probabilities, importance_weights(log, probabilities)).says == says


# --- the report ------------------------------------------------------------------------------------------------------
def report_on(log: OpenBanditLog) -> dict[str, Any]:
    scenario = recgym.make_scenario("RecBandit-v0", arms=log.arms, horizon=50, prior=[1, 4])
    policies = {"greedy": make_baseline("greedy", scenario), "first": ConstantPolicy(scenario, 1)}
    found: dict[str, Any] = json.loads(json.dumps(off_policy_report(policies, scenario, log)))
    return found


def test_a_log_that_contradicts_itself_gives_no_replay(capsys: pytest.CaptureFixture[str]) -> None:
    """Shares of .85 and thrice .05 said to be uniform: replay had .058, "enough clicks", where the truth is .23."""
    pytest.importorskip("rich")
    rates = np.array([0.05, 0.23, 0.1, 0.1])
    report = report_on(simulated([0.85, 0.05, 0.05, 0.05], 8000, 0, rates=rates, claimed=[0.25] * 4))
    first = report["policies"]["first"]
    assert "replay" not in first and "not shown equally often" in report["replay_left_out"]
    for kind in ESTIMATORS:  # with counted propensities, or none, all are near the truth
        assert first[kind]["low"] < 0.23 < first[kind]["high"], kind
        assert kind == "direct" or not first[kind]["agrees"]
    print_off_policy(report)
    printed = " ".join(capsys.readouterr().out.split())
    for expected in ("left out: items were", "no: propensities", "too few clicks to", "(first)"):
        assert expected in printed, printed


def test_a_log_that_is_not_uniform_is_thinned() -> None:
    rates = np.array([0.05, 0.23, 0.1, 0.1])
    report = report_on(simulated([0.55, 0.15, 0.15, 0.15], 20_000, 0, rates=rates))
    played = report["policies"]["first"]["replay"]
    assert played["low"] < 0.23 < played["high"] and "rows are thinned" in " ".join(played["findings"])
    assert played["agrees"]


@pytest.mark.parametrize("shares", [[0.25] * 4, [0.55, 0.15, 0.15, 0.15]], ids=["uniform", "thinned"])
def test_replay_covers_the_truth(shares: list[float]) -> None:
    """Of the policy that chooses at random: 95 % of 100 logs of 400 rows, within 4 standard errors (9 %), and on
    average within 4 of its own, a third of what is between that and what the log's shares would give it."""
    scenario = recgym.make_scenario("RecBandit-v0", arms=4, horizon=50, prior=[1, 4])
    policy, truth = make_baseline("random", scenario), RATES.mean()
    logs = [simulated(shares, 400, seed) for seed in range(100)]
    found = [replay(policy, scenario, log, thinned=shares[0] > 0.25, seed=seed) for seed, log in enumerate(logs, 1000)]
    values = np.array([each.ctr.mean for each in found])
    assert abs(values.mean() - truth) < 4 * values.std() / 10 < 0.02
    assert np.mean([each.ctr.low <= truth <= each.ctr.high for each in found]) > 0.95 - 4 * math.sqrt(0.0475 / 100)


def test_every_estimate_needs_overlap() -> None:
    log = simulated([[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]], 4000, 0, positions=2)
    row = report_on(log)["policies"]["first"]
    for kind in ESTIMATORS:
        assert row[kind]["wrong"][0] == "50.7% of what the policy chooses was never shown there", kind


def test_a_uniform_log_is_replayed_whole() -> None:
    log = simulated([0.25] * 4, 2000, 5)
    scenario = recgym.make_scenario("RecBandit-v0", arms=4, horizon=50, prior=[1, 4])
    assert replay(ConstantPolicy(scenario, 0), scenario, log).events == 2000
    report = report_on(log)
    assert report["policies"]["greedy"]["replay"]["agrees"] and not report["replay_left_out"]


def test_what_is_never_matched_has_no_value(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rich")
    scenario = recgym.make_scenario("RecBandit-v0", arms=2, prior=[1, 4])
    log = simulated([0.5, 0.5], 300, 0, rates=RATES[:2])
    played = replay(ConstantPolicy(scenario, 0), scenario, replace(log, action=np.ones(300, dtype=int)))
    assert played.matched == played.clicks == 0 and math.isnan(played.ctr.mean)
    report = report_on(log)
    report["policies"]["first"]["replay"] |= {"value": math.nan, "low": math.nan, "high": math.nan}
    print_off_policy(report)
    printed = capsys.readouterr().out
    assert re.search(r"│ first  │ +- │", printed) and "nan" not in printed


def test_few_clicks_are_never_enough() -> None:
    report = report_on(simulated([0.25] * 4, 400, 0, rates=RATES / 50))
    for row in report["policies"].values():
        assert all(not row[kind]["agrees"] for kind in ("replay", *ESTIMATORS) if kind in row)
