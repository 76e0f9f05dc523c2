"""Estimators on logs, against closed forms, and what they assume, against logs that agree and logs that do not."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

import recgym
from recgym.baselines import ConstantPolicy, make_baseline
from recgym.data import OpenBanditLog
from recgym.evaluation.offpolicy import (
    ESTIMATORS,
    counted_propensity,
    off_policy,
    off_policy_report,
    overlap,
    print_off_policy,
    propensities,
    replay,
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
    assert clipped.high - clipped.value == pytest.approx((clipped.value - clipped.low) + (5 - 2) / 4)


def test_large_weights_are_not_undefined() -> None:
    log = simulated([0.5, 0.5], 50, 0, rates=np.array([0.5, 0.5]))
    tiny = np.where(np.arange(50) == 7, 1e-100, log.propensity)
    for estimate in off_policy(log, [0.5, 0.5], propensity=tiny).values():
        assert not math.isnan(estimate.effective_sample_size) and not math.isnan(estimate.value)


def test_propensities_are_counted_by_position() -> None:
    log = simulated([[0.7, 0.3], [0.2, 0.8]], 20_000, 3, rates=np.array([0.3, 0.1]), positions=2)
    assert np.abs(counted_propensity(log) - log.propensity).max() < 0.02


# --- what is assumed -------------------------------------------------------------------------------------------------
def test_findings_agree_with_logs_that_agree() -> None:
    """Level 1/1,000: of 200 logs at most 4 may be doubted (P < 1e-5)."""
    doubted = [0, 0]
    for seed in range(200):
        doubted[0] += not uniform(simulated([0.25] * 4, 2000, seed)).holds
        doubted[1] += not propensities(simulated([0.7, 0.2, 0.07, 0.03], 2000, seed)).holds
    assert max(doubted) <= 4


def test_findings_name_what_is_wrong() -> None:
    uneven = uniform(simulated([0.85, 0.05, 0.05, 0.05], 2000, 0))
    assert not uneven.holds and "not shown equally often" in uneven.says
    wrong = propensities(simulated([0.85, 0.05, 0.05, 0.05], 2000, 0, claimed=[0.25] * 4))
    assert not wrong.holds and "contradict the log: item" in wrong.says and "0 (3.4" in wrong.says
    one = propensities(simulated([0.4, 0.2, 0.2, 0.2], 20_000, 0, claimed=[0.4, 0.2, 0.2, 0.1]))
    assert not one.holds and "item 3 (" in one.says and "item 0" not in one.says
    log = simulated([0.5, 0.5, 0.0, 0.0], 500, 0)
    assert not overlap(log, np.array([0.2, 0.2, 0.5, 0.1])).holds
    assert overlap(log, np.array([0.5, 0.5, 0.0, 0.0])).holds


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
    assert "replay" not in first and "contradict the log" in report["replay_left_out"]
    for kind in ESTIMATORS:  # with counted propensities, or none, all are near the truth
        assert first[kind]["low"] < 0.23 < first[kind]["high"], kind
        assert kind == "direct" or not first[kind]["agrees"]
    print_off_policy(report)
    printed = " ".join(capsys.readouterr().out.split())
    assert "replay is left out: items were not shown equally often" in printed
    assert "no: propensities contradict" in printed


def test_a_log_that_is_not_uniform_is_thinned() -> None:
    rates = np.array([0.05, 0.23, 0.1, 0.1])
    report = report_on(simulated([0.55, 0.15, 0.15, 0.15], 20_000, 0, rates=rates))
    played = report["policies"]["first"]["replay"]
    assert played["low"] < 0.23 < played["high"] and "thinned to uniform" in " ".join(played["findings"])
    assert played["agrees"]


def test_replay_of_a_uniform_log_is_unbiased() -> None:
    log = simulated([0.25] * 4, 20_000, 5)
    scenario = recgym.make_scenario("RecBandit-v0", arms=4, horizon=50, prior=[1, 4])
    for item in range(4):
        found = replay(ConstantPolicy(scenario, item), scenario, log)
        assert found.ctr.low < RATES[item] < found.ctr.high and found.events == 20_000
    report = report_on(log)
    assert report["policies"]["greedy"]["replay"]["agrees"] and not report["replay_left_out"]


def test_few_clicks_are_never_enough() -> None:
    report = report_on(simulated([0.25] * 4, 400, 0, rates=RATES / 50))
    for row in report["policies"].values():
        assert all(not row[kind]["agrees"] for kind in ("replay", *ESTIMATORS) if kind in row)
