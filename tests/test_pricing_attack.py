"""The pricing bound under attack: exact programs over the whole range of accepted parameters never exceed it."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from recgym.arrays import tree_map
from recgym.scenarios.pricing import DynamicPricing
from recgym.scenarios.pricing.demand import CURVES, rival_price, shares
from tests.test_pricing_bound import NONE, at_start, best_of_all_sequences

pytestmark = pytest.mark.filterwarnings("ignore:DynamicPricing")  # of losses, and of prices far from the base price
SLACK = 1e-6  # of the exact programs, which begin with numbers in float32


def test_two_decisions_at_the_lower_price() -> None:
    """Demand is cut at 1 between two nodes of the grid: the bound was 4.438, and action 1 twice earns 4.877."""
    off = dict.fromkeys(("season", "dip", "lift", "cost", "w_vol"), NONE)
    scenario = DynamicPricing(
        prices=(2.0, 0.92), promotions=(NONE,), rivals=(), horizon=2, families=("constant",), memory=(0.4, 0.4),
        gain=(18.0, 18.0), aversion=(1.4, 1.4), purchase=(0.35, 0.35), elasticity=(3.8, 0.0, 3.8, 3.8),
        customers=100.0, stock=None, **off,
    )  # fmt: skip
    state = at_start(scenario, 3)
    known = best_of_all_sequences(scenario, state)
    np.testing.assert_allclose(known, 4.877, rtol=1e-3)
    found = scenario.bound(state)
    assert (known <= found).all() and (found < 1.25 * known).all()


def within(rng: np.random.Generator, low: float, high: float, *, log: bool = False) -> tuple[float, float]:
    """A range inside [low, high], now and then a single number at one of its ends."""
    if rng.random() < 0.25:
        return (float(rng.choice([low, high])),) * 2
    ends = np.sort(rng.uniform(math.log(low) if log else low, math.log(high) if log else high, 2))
    least, most = np.clip(np.exp(ends) if log else ends, low, high)
    return float(least), float(most)


def anything(rng: np.random.Generator, **given: Any) -> DynamicPricing:
    """A scenario anywhere in what is accepted, with every mechanism that a short trial can have."""
    prices = np.sort(rng.uniform(0.3, 2.5, rng.integers(1, 4)))
    promotions = [NONE, *((float(rng.uniform(0, 0.6)), float(rng.uniform(0, 1))) for _ in range(rng.integers(0, 2)))]
    least, most = within(rng, 0.2, 12.0, log=True)
    values: dict[str, Any] = {
        "prices": tuple(prices), "base_price": 1.0, "promotions": tuple(promotions),
        "families": (str(rng.choice(CURVES)),), "elasticity": (least, 0.0, least, most),
        "purchase": within(rng, 1e-4, 0.95, log=True), "lift": within(rng, 0.0, 10.0), "memory": within(rng, 0.0, 0.99),
        "gain": within(rng, 0.0, 20.0), "aversion": within(rng, 0.0, 10.0), "dip": within(rng, 0.0, 10.0),
        "rivals": [(), ("static",), ("follower",), ("undercutter",)][rng.integers(4)], "cross": within(rng, 0.0, 10.0),
        "season": within(rng, 0.0, 1.0), "period": int(rng.integers(1, 9)), "cost": within(rng, 0.0, 1.5),
        "w_rev": within(rng, 0.0, 3.0), "w_vol": within(rng, 0.0, 3.0), "embedding": 0, "forecast": None,
    }  # fmt: skip
    if rng.random() < 0.5:  # half of them mild, where curves bend between the nodes rather than end
        values |= {"gain": within(rng, 0.0, 2.0), "aversion": within(rng, 0.0, 3.0), "cross": within(rng, 0.0, 2.0)}
    return DynamicPricing(**{**values, **given})


@pytest.mark.parametrize("part", range(8))
def test_no_sequence_of_actions_earns_more(part: int) -> None:
    """With stock for all: 50 scenarios, four trials of two to four decisions each, every sequence, in float64."""
    rng = np.random.default_rng(part)
    for _ in range(50):
        scenario = anything(rng, horizon=int(rng.integers(2, 5)), stock=None, customers=50.0)
        state = at_start(scenario, 4, seed=int(rng.integers(1000)))
        known, found = best_of_all_sequences(scenario, state), scenario.bound(state)
        assert (known <= found * (1 + SLACK) + 1e-12).all(), scenario


def optimum(scenario: DynamicPricing, task: Any, pull: np.ndarray, customers: int) -> float:
    """The exact value of one trial: over every action, every number of sales, and the stock that is left."""
    ladder, margin = scenario.ladder, scenario.margin(task)[0].astype(np.float64)
    counts = np.arange(customers + 1)
    ways = np.asarray([math.comb(customers, n) for n in counts], dtype=np.float64)

    def value(time: int, reference: float, after: float, stock: int) -> float:
        if time == scenario.horizon or (stock == 0 and (margin <= 0).all()):
            return 0.0
        at = np.full((1, 1), reference)
        rival = rival_price(task, at, np.zeros((1, 1)))
        chance = shares(task, pull, ladder, at, rival, np.full((1, 1), after))[0].astype(np.float64)
        best = -np.inf
        for k, q in enumerate(chance):
            law = ways * q**counts * (1 - q) ** (customers - counts)
            following = float(task.memory[0]) * reference + (1 - float(task.memory[0])) * float(ladder.paid[k])
            total = 0.0
            for sold in range(min(customers, stock) + 1):
                share = law[sold] if sold < min(customers, stock) else law[sold:].sum()
                if share > 0:
                    later = value(time + 1, following, float(ladder.promoted[k]), stock - sold)
                    total += share * (margin[k] * sold + later)
            best = max(best, total)
        return best

    return value(0, 1.0, 0.0, int(task.stock[0])) / scenario.sales_unit


@pytest.mark.parametrize("part", range(4))
def test_no_policy_earns_more_from_a_stock(part: int) -> None:
    """Policies that see what is sold: exact dynamic programs of two or three decisions, two customers, stock 1 to 4."""
    rng = np.random.default_rng(100 + part)
    for _ in range(12):
        given = {"horizon": int(rng.integers(2, 4)), "customers": 2.0, "poisson": False, "season": NONE}
        scenario = anything(rng, **given, stock=int(rng.integers(1, 5)))
        if len(scenario.ladder.paid) > 4:
            continue
        state = at_start(scenario, 2, seed=int(rng.integers(1000)))
        for row, found in enumerate(scenario.bound(state)):
            one = tree_map(lambda leaf, row=row: leaf[row : row + 1], state)
            known = optimum(scenario, one.task, one.hidden.pull, 2)
            assert known <= found * (1 + SLACK) + 1e-12, scenario


@pytest.mark.parametrize("family", CURVES)
def test_lines_are_above_demand_everywhere(family: str) -> None:
    """Looked at between the nodes: 40 points in each cell, over the whole range of parameters."""
    from recgym.scenarios.pricing.bound import _demand, _grid

    rng = np.random.default_rng(7)
    for _ in range(60):
        scenario = anything(rng, families=(family,), horizon=2)
        state, grid = at_start(scenario, 3, seed=int(rng.integers(1000))), _grid(scenario)
        still = np.zeros((3, 1), dtype=np.float32)
        _, lines = _demand(scenario, state, still)
        for place, after in itertools.product(np.linspace(0, 1, 41), (0.0, 1.0)):
            for cell in range(len(grid) - 1):
                at = np.full((3, 1), grid[cell] + place * (grid[cell + 1] - grid[cell]))
                rival = rival_price(state.task, at, still)
                q = shares(state.task, state.hidden.pull, scenario.ladder, at, rival, np.full((3, 1), after))
                line = (1 - place) * lines.left[:, cell, int(after)] + place * lines.right[:, cell, int(after)]
                assert (q <= line * (1 + 1e-5) + 1e-9).all(), scenario
