"""The fluid program against a general solver, dynamic programming against brute force, and published problems."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from scipy.optimize import linprog

from recgym import fluid
from recgym.arrays import to_numpy
from recgym.rng import make_rng

FERREIRA_PRICES = np.asarray([29.9, 34.9, 39.9, 44.9])
FERREIRA_DEMAND = np.asarray([0.8, 0.6, 0.3, 0.1])


def by_linprog(reward: np.ndarray, demand: np.ndarray, supply: float) -> float:
    limits = np.stack([demand, np.ones_like(demand)])
    found = linprog(-reward, A_ub=limits, b_ub=[supply, 1.0], bounds=(0, None), method="highs")
    assert found.status == 0
    return -float(found.fun)


def problems(kind: str, rng: np.random.Generator, batch: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    demand, supply = rng.random((batch, count)), rng.random(batch)
    reward = rng.normal(0.3, 0.5, (batch, count)) * demand  # margins of either sign
    if kind == "no supply":
        supply = 0.0 * supply
        demand[::2, 0] = 0.0
        reward[::2, 0] = rng.random(len(reward[::2]))  # sold without using anything
    elif kind == "plenty":
        supply = supply + rng.choice([1.0, 1e6, 1e12], batch)
    elif kind == "ties":
        demand, supply = np.round(4 * demand) / 4, np.round(4 * supply) / 4
        reward = np.round(4 * reward) / 4
    elif kind == "no demand":
        demand = demand * (rng.random((batch, count)) < 0.5)
        reward = np.where(demand > 0, reward, rng.choice([0.0, 0.2, -0.2], (batch, count)))
    elif kind == "scarce":
        supply = supply * 0.1
    elif kind == "worthless":
        reward = -np.abs(reward)
    return reward, demand, supply


@pytest.mark.parametrize("library", ["cpu", "torch"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["plain", "no supply", "plenty", "ties", "no demand", "scarce", "worthless"])
def test_the_fluid_program_equals_linprog(kind: str, dtype: str, library: str) -> None:
    if library == "torch":
        pytest.importorskip("torch")
    xp, rng = make_rng(library, 0).xp, np.random.default_rng(1)
    for count in (1, 2, 5, 12):
        given = [array.astype(dtype) for array in problems(kind, rng, 12, count)]
        mix = fluid.solve(*(xp.asarray(array) for array in given))
        value, first, second, weight = (to_numpy(leaf) for leaf in mix)
        assert str(value.dtype) == dtype and first.dtype == second.dtype == np.int64
        reward, demand, supply = (array.astype(np.float64) for array in given)
        known = [by_linprog(*row) for row in zip(reward, demand, supply, strict=True)]
        np.testing.assert_allclose(value, known, rtol=0, atol=1e-6)
        # the solution that it names: one or two actions, feasible, and worth that much
        assert ((first >= 0) & (first <= count) & (second >= 0) & (second <= count)).all()
        assert ((weight >= 0) & (weight <= 1)).all()
        rows = np.arange(len(value))
        reward, demand = (np.column_stack([array, np.zeros(len(array))]) for array in (reward, demand))
        shares = np.zeros_like(reward)
        np.add.at(shares, (rows, first), 1.0 - weight.astype(np.float64))
        np.add.at(shares, (rows, second), weight.astype(np.float64))
        assert ((shares * demand).sum(axis=1) <= supply + 1e-6).all()
        np.testing.assert_allclose((shares * reward).sum(axis=1), value, rtol=0, atol=1e-6)
        used = weight < 1.0
        assert (demand[rows, first] < demand[rows, second])[used].all()  # `first` has the lower demand


def test_the_fluid_program_by_hand() -> None:
    """Prices 2 and 1 sell .2 and .8 to a supply of .5: half of the time each, worth .5 (.4) + .5 (.8)."""
    reward, demand = np.asarray([[0.4, 0.8]]), np.asarray([[0.2, 0.8]])
    mix = fluid.solve(reward, demand, np.asarray([0.5]))
    assert [float(leaf[0]) for leaf in mix] == pytest.approx([0.6, 0, 1, 0.5])
    mix = fluid.solve(reward, demand, np.asarray([0.1]))  # half of the time nothing
    assert [float(leaf[0]) for leaf in mix] == pytest.approx([0.2, 2, 0, 0.5])
    mix = fluid.solve(reward, demand, np.asarray([1.0]))
    assert (mix.value[0], mix.second[0], mix.weight[0]) == (0.8, 1, 1.0)


def test_rows_do_not_matter_to_each_other() -> None:
    reward, demand, supply = problems("plain", np.random.default_rng(2), 20, 6)
    both = fluid.solve(reward, demand, supply)
    for i in range(20):
        one = fluid.solve(reward[i : i + 1], demand[i : i + 1], supply[i : i + 1])
        assert [leaf[0] for leaf in one] == [leaf[i] for leaf in both]


# --- dynamic programming ---------------------------------------------------------------------------------------------
def by_enumeration(margin: np.ndarray, demand: np.ndarray, stock: int, horizon: int) -> float:
    """Best of all policies that look at decisions and units left, each valued by its distribution over units left."""
    states = [(n, s) for n in range(1, horizon + 1) for s in range(1, stock + 1)]
    best = -np.inf
    for choice in itertools.product(range(len(margin)), repeat=len(states)):
        policy, total = dict(zip(states, choice, strict=True)), 0.0
        mass = np.zeros(stock + 1)
        mass[stock] = 1.0
        for n in range(horizon, 0, -1):
            after = np.zeros(stock + 1)
            after[0] = mass[0]
            for s in range(1, stock + 1):
                for wanted, chance in enumerate(demand[policy[n, s]]):
                    sold = min(wanted, s)
                    total += mass[s] * chance * margin[policy[n, s]] * sold
                    after[s - sold] += mass[s] * chance
            mass = after
        best = max(best, total)
    return best


@pytest.mark.parametrize("stock, horizon, actions", [(1, 1, 3), (1, 5, 2), (2, 3, 2), (3, 2, 2), (2, 2, 4), (3, 3, 2)])
def test_backward_induction_equals_the_best_of_all_policies(stock: int, horizon: int, actions: int) -> None:
    rng = np.random.default_rng(stock + 10 * horizon)
    for width in (2, 3):
        margin, demand = rng.random(actions), rng.dirichlet(np.ones(width), actions)
        plan = fluid.exact_plan(margin, demand, stock, horizon)
        assert plan.values[horizon, stock] == pytest.approx(by_enumeration(margin, demand, stock, horizon), rel=1e-12)


def test_one_unit_by_hand() -> None:
    """29.9, 34.9, 39.9, 44.9: at the end the cheapest earns .8 29.9 = 23.92; before, .6 34.9 + .4 23.92 = 30.508."""
    demand = np.stack([1 - FERREIRA_DEMAND, FERREIRA_DEMAND], axis=1)
    plan = fluid.exact_plan(FERREIRA_PRICES, demand, 1, 3)
    np.testing.assert_allclose(plan.values[:, 1], [0.0, 23.92, 30.508, 0.3 * 39.9 + 0.7 * 30.508], rtol=1e-12)
    np.testing.assert_array_equal(plan.actions[1:, 1], [0, 1, 2])
    np.testing.assert_array_equal(plan.values[:, 0], 0.0)
    many = fluid.exact_plan(FERREIRA_PRICES, demand, 3, 3)  # as much as can be sold: the best price of the moment
    np.testing.assert_allclose(many.values[3, 3], 3 * 23.92, rtol=1e-12)
    # one decision and up to two wanted: 1 (.5) + 2 (.25) sold of two units, 1 (.75) of one
    two = fluid.exact_plan(np.asarray([2.0]), np.asarray([[0.25, 0.5, 0.25]]), 2, 1)
    np.testing.assert_allclose(two.values[1], [0.0, 1.5, 2.0], rtol=1e-12)


def test_a_plan_is_below_the_fluid_value_and_concave_in_units() -> None:
    demand = np.stack([1 - FERREIRA_DEMAND, FERREIRA_DEMAND], axis=1)
    plan = fluid.exact_plan(FERREIRA_PRICES, demand, 30, 60)
    assert (np.diff(plan.values, axis=0) >= -1e-9).all() and (np.diff(plan.values, axis=1) >= -1e-9).all()
    assert (np.diff(plan.values, 2, axis=1) <= 1e-9).all()
    for n in (1, 10, 60):
        supply = np.arange(31.0) / n
        rates = np.broadcast_to(FERREIRA_DEMAND, (31, 4))
        fluid_value = n * fluid.solve(FERREIRA_PRICES * rates, rates, supply).value
        assert (plan.values[n] <= fluid_value + 1e-9).all()


# --- published problems ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "alpha, value, mixture, percents",
    [
        (0.25, 10.10, (0, 0, 0.75, 0.25), {100: 99.16, 1000: 99.94}),
        (0.5, 17.95, (0, 2 / 3, 1 / 3, 0), {100: 99.41, 1000: 99.94}),
    ],
)
def test_ferreira(alpha: float, value: float, mixture: Any, percents: dict[int, float]) -> None:
    """Ferreira, Simchi-Levi & Wang 2018, section 4.1: value and solution per period, percent that the optimum gets."""
    reward, demand = (FERREIRA_PRICES * FERREIRA_DEMAND)[None], FERREIRA_DEMAND[None]
    mix = fluid.solve(reward, demand, np.asarray([alpha]))
    assert mix.value[0] == pytest.approx(value, abs=1e-2)
    shares = np.zeros(5)
    shares[mix.first[0]] += 1 - mix.weight[0]
    shares[mix.second[0]] += mix.weight[0]
    np.testing.assert_allclose(shares, [*mixture, 0], atol=1e-9)
    for horizon, percent in percents.items():
        law = np.stack([1 - FERREIRA_DEMAND, FERREIRA_DEMAND], axis=1)
        plan = fluid.exact_plan(FERREIRA_PRICES, law, round(alpha * horizon), horizon)
        assert 100 * plan.values[horizon, -1] / (horizon * mix.value[0]) == pytest.approx(percent, abs=0.01)


def test_hi_lo_pricing() -> None:
    """Demand max(0, 5000 - 20 p - 300 sqrt((p - p')+) + 100 sqrt((p' - p)+)), p' the last price, cost 100, T = 20.

    Stock is no limit there and demand looks at the last price, which no routine of ours does: the induction over it is
    the test's own. The best constant price is the fluid program's, with as much supply as anybody may want.
    """
    price = np.arange(10.0, 491.0, 10.0)
    up, down = (np.maximum(s * (price[None] - price[:, None]), 0.0) for s in (1, -1))  # [last, now]
    demand = np.maximum(0.0, 5000 - 20 * price - 300 * np.sqrt(up) + 100 * np.sqrt(down))
    profit, same = (price - 100) * demand, demand.diagonal()
    mix = fluid.solve(((price - 100) * same)[None], same[None], np.asarray([1e9]))
    assert price[mix.second[0]] == 170 and mix.weight[0] == 1
    assert 20 * mix.value[0] == pytest.approx(2_240_000)
    later = np.zeros(len(price))
    for _ in range(20):
        later = (profit + later).max(axis=1)
    assert later[price == 170][0] == pytest.approx(2_866_796, abs=1)  # 28 % more, from the best constant price on
    assert later.min() == pytest.approx(2_866_796, abs=1)


def test_three_products_and_one_promotion() -> None:
    """Multinomial logit (Jain et al. 2024), alpha (1, 2, 3), beta (.1, .2, .3), lifts (.8, .5, .3), no cost.

    At the optimum price_i = 1 / beta_i + R, R = sum_i exp(alpha_i - 1 - beta_i R) / beta_i (Anderson & de Palma 1992):
    a check of the numbers. Our routine sees the prices of all three as one candidate: with supply without limit the
    fluid program finds the best of a grid around them, and with a tight one what linprog finds.
    """
    alpha, beta, lift = np.asarray([1.0, 2.0, 3.0]), np.asarray([0.1, 0.2, 0.3]), np.asarray([0.8, 0.5, 0.3])

    def optimum(alpha: np.ndarray) -> tuple[float, np.ndarray]:
        low, high = 0.0, 30.0
        for _ in range(60):
            middle = 0.5 * (low + high)
            higher = (np.exp(alpha - 1 - beta * middle) / beta).sum() > middle
            low, high = (middle, high) if higher else (low, middle)
        return low, 1 / beta + low

    plain, _ = optimum(alpha)
    values = [optimum(alpha + lift * (np.arange(3) == i)) for i in range(3)]
    best, prices = values[0]
    assert plain == pytest.approx(8.5724, abs=1e-4)
    assert best == max(value for value, _ in values) == pytest.approx(10.5032, abs=1e-4)
    np.testing.assert_allclose(prices, (20.50, 15.50, 13.84), atol=5e-3)

    steps = np.arange(-2.0, 3.0)
    grid = prices + np.asarray(list(itertools.product(steps, repeat=3)))  # [125, 3] around it, itself among them
    tables = []
    for promoted in (np.zeros(3), *np.eye(3)):
        utility = np.exp(alpha + lift * promoted - beta * grid)
        tables.append(utility / (1 + utility.sum(axis=1, keepdims=True)))
    demand = np.concatenate(tables)  # [500, 3] by promotion, then prices
    reward = (np.tile(grid, (4, 1)) * demand).sum(axis=1)
    used = demand.sum(axis=1)
    mix = fluid.solve(reward[None], used[None], np.asarray([1.0]))
    assert mix.value[0] == pytest.approx(10.5032, abs=1e-4)
    assert mix.weight[0] == 1 and divmod(int(mix.second[0]), 125) == (1, 62)  # the first promoted, the middle
    scarce = fluid.solve(reward[None], used[None], np.asarray([0.4]))
    assert scarce.value[0] == pytest.approx(by_linprog(reward, used, 0.4), abs=1e-6)
