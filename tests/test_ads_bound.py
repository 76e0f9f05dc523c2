"""The bounds of campaigns attacked: exact programs on tiny problems, over the whole range of parameters.

A packet of a million clicks has no luck to speak of, so that what a sequence of actions earns is known when it begins,
and the best of all sequences is the optimum.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from recgym.arrays import tree_map
from recgym.baselines import ConstantPolicy, make_baseline
from recgym.evaluation import rollout, upper_bounds
from recgym.rng import NumpyRng, make_rng
from recgym.runner import Runner
from recgym.scenarios.ads import Bidding, Placement
from recgym.scenarios.ads.campaign import paid
from tests.test_ads import PLAIN, QUIET

SURE = 1e6  # clicks of a packet without luck
NOISE = 2e-3  # that is left of it: floors of impressions, and payments
TASKS = 12  # of each problem


def best_of_all(scenario: Any, task: Any) -> float:
    """The most that a sequence of actions earns on one task [1, ...]."""
    sequences = np.array(list(itertools.product(range(scenario.action_space.n), repeat=scenario.horizon)))
    rows = len(sequences)
    runner = Runner(scenario, rows, make_rng("cpu", 0), autoreset_mode="Disabled")
    runner.restart(task=tree_map(lambda leaf: np.repeat(leaf, rows, axis=0), task))
    earned = sum(runner.step(sequences[:, t]).info["expected_reward"].astype(float) for t in range(scenario.horizon))
    return float(earned.max())


def attacked(scenario: Any, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Bounds and optima [TASKS]."""
    task = scenario.sample_task(NumpyRng(seed), TASKS)
    runner = Runner(scenario, TASKS, make_rng("cpu", 0), autoreset_mode="Disabled")
    runner.restart(task=task)
    bound = scenario.bound(runner.state)
    best = [best_of_all(scenario, tree_map(lambda leaf, i=i: leaf[i : i + 1], task)) for i in range(TASKS)]
    return bound, np.array(best)


def drawn_placement(seed: int) -> Placement:
    """Two creatives, two slots, and every mechanism that needs no luck at a strength of its own."""
    rng = np.random.default_rng(seed)
    low, high = np.sort(rng.uniform(0.0, 5.0, 2) * rng.choice([0.0, 0.02, 0.2, 1.0]))
    reaction = rng.choice([0.0, 0.05, 1.0, 5.0])
    share = 10.0 ** rng.uniform(-2.0, 0.5)
    parameters = {
        **PLAIN,
        "creatives": 2,
        "profile": tuple(rng.uniform(0.1, 2.0, 2)),
        "horizon": int(rng.integers(2, 5)),
        "packet": SURE,
        "prediction": None,
        "fatigue": (float(low), float(high)),
        "fatigue_memory": float(rng.choice([0.0, 0.5, 0.95, 0.999])),
        "dose": float(rng.choice([0.1, 0.5, 2.0])),
        "reaction": (0.0, float(reaction)),
        "rival_memory": float(rng.choice([0.0, 0.8, 0.999])),
        "budget": (0.5 * share, share),
        "conversion_value": float(rng.choice([0.0, 20.0, 1000.0])),
        "delays": ((0.3, float(10.0 ** rng.uniform(-1, 1))), (0.7, float(10.0 ** rng.uniform(0, 2)))),
        "change": float(rng.choice([0.0, 1.0])),
        "launch": float(rng.choice([0.0, 0.9])),
        "price_spread": tuple(np.sort(rng.uniform(0.05, 3.0, 2)).tolist()),
        "slot_price": float(rng.uniform(0.0, 1.0)),
        "taste": float(rng.uniform(0.0, 1.0)),
    }
    return Placement(**parameters)


def drawn_bidding(seed: int) -> Bidding:
    """One creative and four levels; no walk of prices, which is luck."""
    rng = np.random.default_rng(seed)
    share = 10.0 ** rng.uniform(-2.0, 1.0)
    return Bidding(
        **{
            **QUIET,
            "creatives": 1,
            "levels": (0.0, *np.sort(rng.uniform(0.1, 4.0, 3)).tolist()),
            "parts": int(rng.integers(1, 3)),
            "horizon": int(rng.integers(2, 5)),
            "packet": SURE,
            "prediction": None,
            "budget": (0.5 * share, share),
            "auction": str(rng.choice(["second", "first"])),
            "reaction": (0.0, float(rng.choice([0.0, 0.6, 5.0]))),
            "rival_memory": float(rng.choice([0.0, 0.9])),
            "price_wave": float(rng.choice([0.0, 0.25, 1.0])),
            "price_spread": tuple(np.sort(rng.uniform(0.05, 3.0, 2)).tolist()),
            "traffic": float(rng.choice([0.0, 0.5])),
            "conversion_value": float(rng.choice([0.0, 10.0, 1000.0])),
        }
    )


@pytest.mark.parametrize("seed", range(24))
@pytest.mark.parametrize("draw", [drawn_placement, drawn_bidding])
def test_no_sequence_earns_more_than_the_bound(draw: Any, seed: int) -> None:
    bound, best = attacked(draw(seed), seed)
    assert (best > 0.0).all()
    assert (bound >= best * (1.0 - NOISE)).all(), (bound / best).min()


def test_the_bounds_are_not_far_above() -> None:
    """Where money is short and nothing else matters, they are what a sequence earns, but for what it cannot mix."""
    for scenario in (
        Placement(**{**PLAIN, "creatives": 1, "profile": (1.0,), "horizon": 4, "packet": SURE, "budget": (0.5, 0.5)}),
        Bidding(**QUIET, creatives=1, levels=(0.0, 1.0), parts=1, horizon=4, packet=SURE, budget=(0.2, 0.2)),
    ):
        bound, best = attacked(scenario, 1)
        np.testing.assert_allclose(bound, best, rtol=5e-3)


@pytest.mark.parametrize("horizon", [30, 100])
def test_the_informed_policy_is_near_the_bound_of_the_plain_variant(horizon: int) -> None:
    """.98 of it at least; 400 trials, of which the ratio of means has a standard error of .0005."""
    scenario = Placement(**PLAIN, horizon=horizon)
    runner = Runner(scenario, 400, make_rng("cpu", [2_000_000, 0]), autoreset_mode="Disabled")
    runner.restart()
    bound, earned = scenario.bound(runner.state), np.zeros(400)
    for _ in range(horizon):
        earned += runner.step(scenario.informed_action(runner.state)).info["expected_reward"]
    assert 0.98 <= earned.mean() / bound.mean() <= 1.0


FEW: dict[str, Any] = {"packet": 10.0, "base_rate": (0.1, 0.1), "creatives": 2, "horizon": 60}
LUCKY: dict[Any, dict[str, Any]] = {
    Placement: {"fatigue": (0.0, 0.0), "slot_price": 3.0},
    Bidding: {"price_level": 3.0},
}


@pytest.mark.parametrize("kind", [Placement, Bidding])
@pytest.mark.parametrize("budget", [1e-5, 1e-3, 0.1])
@pytest.mark.parametrize("spread", [0.3, 3.0])
def test_the_bound_holds_on_average_where_money_buys_a_few_impressions(kind: Any, budget: float, spread: float) -> None:
    """A hundred impressions to a packet, as few as may be, and fewer where prices are high: luck counts.

    400 trials: an excess of four standard errors of the difference is found.
    """
    scenario = kind(**FEW, **LUCKY.get(kind, {}), budget=(budget, budget), price_spread=(spread, spread))
    bound = upper_bounds(scenario, trials=400, seed=7)
    for policy in (ConstantPolicy(scenario, 1), make_baseline("informed", scenario)):
        excess = rollout(policy, scenario, trials=400, seed=7).returns - bound
        assert excess.mean() <= 4.0 * excess.std() / np.sqrt(400.0) + 1e-6


@pytest.mark.parametrize("kind", [Placement, Bidding])
def test_packets_of_a_few_impressions_are_refused(kind: Any) -> None:
    with pytest.raises(ValueError, match=r"packet must be at least 100 impressions' clicks, 10 here, got 9"):
        kind(**{**FEW, "packet": 9.0})
    with pytest.raises(ValueError, match="packet must be at least 100 impressions' clicks"):
        kind(packet=0.01, campaign="2997")


def test_nothing_is_free_however_lucky() -> None:
    """Of one impression the normal payment would be nothing or less in a sixth of the draws."""
    rows = 10_000
    one, price = np.ones(rows, dtype=np.int64), np.full(rows, 2.0, dtype=np.float32)
    noise = np.random.default_rng(0).standard_normal(rows).astype(np.float32)
    wins, spend = paid(one, price, price**2, noise, np.full(rows, 100.0, dtype=np.float32))
    assert (wins == 1).all() and spend.min() == 1.0 and (spend == 1.0).mean() > 0.25
