"""Campaigns at the ends of what their parameters may be: nothing overflows, and tasks are those that they accept."""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from scipy import stats

import recgym
from recgym.arrays import to_numpy
from recgym.catalog import Catalog
from recgym.rng import make_rng
from recgym.runner import Runner
from recgym.scenarios.ads import Bidding, Placement
from recgym.scenarios.ads.campaign import Delivery, paid, share_over

SPREADS = dict.fromkeys(
    ("level", "taste", "taste_by_slot", "slot_effect", "creative_effect", "cell_effect", "conversion_spread"), 3.0
)
TASTES = Catalog(np.random.default_rng(0).standard_normal((9, 3)), tastes=50.0 * np.eye(3))
ENDS: dict[str, tuple[type, dict[str, Any]]] = {
    "dear": (Placement, {"log_price": (15.0, 15.0), "price_spread": (5.0, 5.0), "price_walk": 1.0}),
    "rivals for ever": (Placement, {"reaction": (5.0, 5.0), "rival_memory": 0.999, "price_spread": (5.0, 5.0)}),
    "nothing is won": (Placement, {"price_spread": (0.01, 0.01), "slot_price": 3.0, "profile": (1.0, 1.0)}),
    "cheap": (Placement, {"log_price": (-10.0, -10.0), "slot_price": 3.0, "budget": (1e-6, 1e-6), "horizon": 1}),
    "far apart": (Placement, {**SPREADS, "base_rate": (1e-6, 1e-6), "drift": 1.0, "change": 1.0}),
    "clicks for sure": (Placement, {**SPREADS, "base_rate": (0.1, 0.1), "fatigue": (5.0, 5.0), "dose": 10.0}),
    "strong tastes": (Placement, {"catalog": TASTES, "base_rate": (1e-6, 1e-6)}),
    "wild market": (Bidding, {"price_level": 3.0, "price_walk": 1.0, "price_wave": 3.0, "price_spread": (5.0, 5.0)}),
    "wild traffic": (Bidding, {"traffic": 3.0, "reaction": (5.0, 5.0), "rival_memory": 0.0, "levels": (0.0, 1e6)}),
    "first price": (Bidding, {"auction": "first", "levels": (1e-9, 1e6), "price_level": 3.0, **SPREADS}),
    "rare clicks": (Bidding, {**SPREADS, "base_rate": (1e-6, 1e-6), "price_spread": (0.01, 0.01)}),
}


@pytest.mark.parametrize("device", ["cpu", "torch"])
@pytest.mark.parametrize("name", ENDS)
def test_nothing_overflows_and_tasks_are_accepted(name: str, device: str) -> None:
    """Warnings are errors. What is told of a task makes the same task again, and offers are within their space."""
    kind, parameters = ENDS[name]
    if device == "torch":
        pytest.importorskip("torch")
    scenario = kind(**{"creatives": 3, "horizon": 40, **parameters})
    rows, rng = 400, np.random.default_rng(1)
    with warnings.catch_warnings(), np.errstate(over="raise", invalid="raise", divide="raise"):
        warnings.simplefilter("error")
        runner = Runner(scenario, rows, make_rng(device, 0), autoreset_mode="Disabled")
        runner.restart()
        again = Runner(scenario, rows, make_rng(device, 0), autoreset_mode="Disabled")
        again.restart(task=runner.state.task)
        for ours, theirs in zip(runner.state.task, again.state.task, strict=True):
            np.testing.assert_array_equal(to_numpy(ours), to_numpy(theirs))
        for t in range(scenario.horizon):
            informed = scenario.informed_action(runner.state)
            step = runner.step(informed if t % 2 else rng.integers(0, scenario.layout.candidates, rows))
            assert not (wrong := scenario.layout.outside(step.observation)), wrong
            assert np.isfinite(to_numpy(step.reward)).all()
            for field, box in scenario.offer_space.spaces.items():
                value = to_numpy(getattr(runner.state.seen.offer, field))
                assert ((value >= box.low) & (value <= box.high)).all(), field


@pytest.mark.parametrize("name", ENDS)
def test_a_task_that_is_told_can_be_played(name: str) -> None:
    kind, parameters = ENDS[name]
    env = gym.make("AdPlacement-v0" if kind is Placement else "AdBidding-v0", **{"horizon": 2, **parameters})
    for seed in range(5):
        _, info = env.reset(seed=seed)
        _, again = env.reset(options={"task": info["task"]})
        for field, value in info["task"].items():
            np.testing.assert_array_equal(again["task"][field], value)


@pytest.mark.parametrize(
    ("kind", "parameters", "named"),
    [
        (Placement, {"packet": 1e6, "log_price": (15.0, 15.0), "budget": (1e3, 1e3)}, "a budget is of up to .*e"),
        (Placement, {"conversion_rate": 1e-6, "base_rate": (1e-6, 0.1), "log_price": (9.0, 9.0)}, "a goal is"),
        (Placement, {"packet": 1e6, "base_rate": (1e-6, 0.1), "log_price": (-10.0, -10.0)}, "a packet is"),
        (Bidding, {"packet": 1e6, "base_rate": (1e-6, 0.1)}, "a budget is of up to 2.88e.*, more than 1e.12: lower"),
        (Bidding, {"packet": 1e6, "base_rate": (1e-6, 0.1), "budget": (1e-6, 1e-6)}, "a decision is"),
        (Bidding, {"conversion_rate": 1e-6, "base_rate": (1e-6, 0.1), "goal": (100.0, 100.0)}, "a goal is"),
    ],
)
def test_money_beyond_what_is_held_is_refused(kind: type, parameters: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        kind(**parameters)


@pytest.mark.parametrize("env_id", ["AdPlacement-v0", "AdBidding-v0"])
def test_a_campaign_may_be_given_as_a_number(env_id: str) -> None:
    by_name = recgym.make_scenario(env_id, campaign="2997")
    for number in (2997, np.int64(2997)):
        assert recgym.make_scenario(env_id, campaign=number) == by_name
    for wrong in (1, True, 2997.5, b"2997"):
        with pytest.raises(ValueError, match="campaign must be one of 1458"):
            recgym.make_scenario(env_id, campaign=wrong)


@pytest.mark.parametrize("cap", [1, 4, 25, 50])
def test_the_share_beyond_the_cap_is_that_of_the_law(cap: int) -> None:
    """E[(N - cap)+] / m of N ~ Poisson(m), also where float32 knows no e^-m."""
    mean = np.array([1e-3, 0.1, 1.0, 5.0, 20.0, 45.0, 80.0, 87.0, 90.0, 100.0, 104.0, 200.0, 1e4])
    counts = np.arange(cap)
    short = ((cap - counts) * stats.poisson.pmf(counts, mean[:, None])).sum(axis=1)  # E[(cap - N)+]
    np.testing.assert_allclose(share_over(mean.astype(np.float32), cap), (mean - cap + short) / mean, atol=2e-5)
    with pytest.raises(ValueError, match=r"cap must be a whole number in \[1, 50\]"):
        Placement(cap=51)


@pytest.mark.parametrize("device", ["cpu", "torch"])
def test_not_more_is_bought_than_was_won(device: str) -> None:
    """Above 2^24 float32 knows no odd number."""
    xp = make_rng(device).xp
    wins = xp.asarray(np.arange(2**25, 2**25 + 8, dtype=np.int64))
    one = xp.asarray(np.ones(8, dtype=np.float32))
    bought, _ = paid(wins, one, 0.0 * one, 0.0 * one, 1e9 * one)
    assert (to_numpy(bought) <= to_numpy(wins)).all()
    assert (to_numpy(bought) >= to_numpy(wins) - 2).all()


@pytest.mark.parametrize("env_id", ["AdPlacement-v0", "AdBidding-v0"])
def test_conversions_are_of_creatives_that_were_clicked(env_id: str) -> None:
    """Clicks on one creative now or before, but not on another, lead to its conversions alone."""
    scenario = recgym.make_scenario(env_id, creatives=2)
    runner = Runner(scenario, 1, make_rng("cpu", 0))
    runner.restart()
    per_creative = scenario.layout.candidates // 2

    def told(clicks: int, conversions: list[int]) -> Any:
        delivery = Delivery(*(np.array([n]) for n in (100, 0, clicks)), np.array([conversions]))
        return delivery if env_id == "AdPlacement-v0" else scenario.feedback_type(*delivery, np.array([200]))

    first, second = (np.array([k * per_creative + 1]) for k in range(2))
    seen = runner.state.seen
    assert scenario.impossible(seen, first, told(3, [3, 0])) == ""
    assert "row 0 has more conversions of a creative" in scenario.impossible(seen, first, told(3, [0, 1]))
    seen, _ = scenario.learn(seen, first, told(3, [1, 0]))
    assert scenario.impossible(seen, second, told(1, [2, 1])) == ""
    assert "than clicks on it so far" in scenario.impossible(seen, second, told(1, [3, 1]))
    assert "than clicks on it so far" in scenario.impossible(seen, second, told(1, [0, 2]))
