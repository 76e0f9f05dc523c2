"""The bound on what any policy can earn in a pricing trial: exact cases, and that nobody exceeds it."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import recgym
from recgym import fluid
from recgym.arrays import tree_items
from recgym.baselines import baselines_for, make_baseline
from recgym.evaluation import TEST_SEED, rollout
from recgym.rng import make_rng
from recgym.runner import Runner
from recgym.scenarios.pricing import DynamicPricing, bound
from recgym.scenarios.pricing.demand import rival_price, shares

NONE = (0.0, 0.0)
MEMORYLESS: dict[str, Any] = {**dict.fromkeys(("gain", "dip"), NONE), "rivals": ()}
SMALL: dict[str, Any] = {
    "prices": (0.7, 0.85, 1.0, 1.15, 1.3),
    "promotions": (NONE, (0.15, 1.0)),
    "horizon": 30,
}
ALONE: dict[str, dict[str, Any]] = {  # one mechanism that makes a decision depend on those before
    "reference": {"gain": (0.8, 1.0), "aversion": (2.0, 2.5)},
    "dip": {"dip": (0.2, 0.2)},
    "static": {"rivals": ("static",)},
    "ar1": {"rivals": ("ar1",), "cross": (0.8, 0.8)},
    "follower": {"rivals": ("follower",), "cross": (0.8, 0.8)},
    "undercutter": {"rivals": ("undercutter",), "cross": (0.8, 0.8)},
}


def at_start(scenario: DynamicPricing, trials: int, seed: int = TEST_SEED, **task: Any) -> Any:
    """The first states of what `rollout` plays with this seed, with these fields of the task."""
    runner = Runner(scenario, trials, make_rng("cpu", [seed, 0]))
    runner.restart()
    if task:
        drawn = dict(tree_items(runner.state.task))
        runner.restart(task=drawn | {name: np.full_like(drawn[name], value) for name, value in task.items()})
    return runner.state


def earned(name: str, scenario: DynamicPricing, trials: int) -> np.ndarray:
    return rollout(make_baseline(name, scenario), scenario, trials=trials, seed=TEST_SEED).returns


# --- exact cases -----------------------------------------------------------------------------------------------------
def fluid_value(scenario: DynamicPricing, state: Any) -> np.ndarray:
    """[B] value of the fluid program of a whole trial, from the demand of the first decision."""
    times = np.arange(scenario.horizon, dtype=np.float32)
    come = np.sum(
        [scenario.arriving(state.task, np.full(len(state.seen.time), t)) for t in times], axis=0, dtype=np.float64
    )
    demand = state.hidden.demand.astype(np.float64) * come[:, None]
    value = fluid.solve(scenario.margin(state.task) * demand, demand, state.task.stock.astype(np.float64)).value
    return np.asarray(value / scenario.sales_unit)


@pytest.mark.parametrize("stock", [None, 5, (0.3, 1.2)], ids=str)
def test_without_memory_it_is_the_fluid_value(stock: Any) -> None:
    scenario = DynamicPricing(**MEMORYLESS, stock=stock)
    state = at_start(scenario, 60)
    np.testing.assert_allclose(scenario.bound(state), fluid_value(scenario, state), rtol=1e-4)


@pytest.mark.parametrize("parameters", [{}, SMALL, {"prices": (0.8, 1.0)}, {"prices": (1.0,), "promotions": (NONE,)}])
@pytest.mark.parametrize("stock", [(0.1, 0.1), (0.6, 0.6), (3.0, 3.0)], ids=str)
def test_hardly_any_memory_gives_nearly_the_fluid_value(parameters: dict[str, Any], stock: Any) -> None:
    """Duality: at the fluid program's dual price the relaxed problem has its value; other prices give no less.

    One price alone, and a stock so scarce that a unit is worth all of its margin, are among the cases.
    """
    scenario = DynamicPricing(**{**parameters, **MEMORYLESS, "dip": (1e-9, 1e-9), "stock": stock})
    state = at_start(scenario, 20)
    np.testing.assert_allclose(scenario.bound(state), fluid_value(scenario, state), rtol=1e-4)


def best_of_all_sequences(scenario: DynamicPricing, state: Any) -> np.ndarray:
    """[B] highest expected return with unlimited stock, over all sequences of actions, in float64."""
    task, ladder, rows = state.task, scenario.ladder, len(state.seen.time)
    margin, best = scenario.margin(task).astype(np.float64), np.full(rows, -np.inf)
    for sequence in itertools.product(range(len(ladder.paid)), repeat=scenario.horizon):
        reference, after, total = np.ones((rows, 1)), 0.0, np.zeros(rows)
        for t, action in enumerate(sequence):
            rival = rival_price(task, reference, np.zeros((rows, 1)))
            demand = shares(task, state.hidden.pull, ladder, reference, rival, np.full((rows, 1), after))[:, action]
            total += margin[:, action] * demand * scenario.arriving(task, np.full(rows, t, dtype=np.float32))
            reference = task.memory[:, None] * reference + (1.0 - task.memory[:, None]) * ladder.paid[action]
            after = float(ladder.promoted[action])
        best = np.maximum(best, total / scenario.sales_unit)
    return best


@pytest.mark.parametrize("horizon", [1, 2, 3])
@pytest.mark.parametrize("kind", ["reference", "dip", "follower", "undercutter", "all"])
def test_with_unlimited_stock_it_is_the_best_of_all_sequences(kind: str, horizon: int) -> None:
    """Never below it; above by the grid of reference prices: .1 %, .5 % in a cell where an undercutter has his kink."""
    given = {"rivals": ("follower",)} if kind == "all" else {**MEMORYLESS, **ALONE[kind]}
    ladder = {"prices": (0.8, 1.0, 1.2), "promotions": (NONE, (0.1, 1.0))}
    scenario = DynamicPricing(**{**given, **ladder, "horizon": horizon, "stock": None, "memory": (0.2, 0.6)})
    state = at_start(scenario, 25)
    found, known = scenario.bound(state), best_of_all_sequences(scenario, state)
    error = 5e-3 if kind == "undercutter" else 1e-3
    assert (known <= found).all() and (found <= known * (1 + error)).all()
    if horizon == 1:
        np.testing.assert_allclose(found, scenario.best_reward(state), rtol=1e-4)


def test_where_reference_prices_lie_on_the_grid_it_is_exact() -> None:
    """Memory 0: the reference price is the last price paid."""
    parameters = {**MEMORYLESS, **ALONE["reference"], "memory": NONE, "prices": (0.8, 1.0, 1.2), "promotions": (NONE,)}
    scenario = DynamicPricing(**parameters, horizon=4, stock=None)
    state = at_start(scenario, 25)
    np.testing.assert_allclose(scenario.bound(state), best_of_all_sequences(scenario, state), rtol=2e-5)


@pytest.mark.parametrize("paid", [(0.56, 1.0, 1.3), (0.9, 1.0, 1.2), (0.8, 1.1)], ids=str)
def test_a_price_that_is_best_held_is_held(paid: tuple[float, ...]) -> None:
    """To leave it costs much and for long: the bound is the best of the constant prices, however the grid falls."""
    given = {**MEMORYLESS, "gain": (0.5, 0.5), "aversion": (10.0, 10.0), "memory": (0.99, 0.99), "season": NONE}
    given |= {"promotions": (NONE,), "families": ("exponential",), "elasticity": (2.0, 0.0, 2.0, 2.0)}
    scenario = DynamicPricing(**given, prices=paid, cost=(0.5, 0.5), stock=None)
    state = at_start(scenario, 20)
    held = rollout(make_baseline("best_fixed", scenario), scenario, trials=20, seed=TEST_SEED).expected
    np.testing.assert_allclose(scenario.bound(state), held, rtol=1e-4)


def test_a_rivals_random_path_is_followed() -> None:
    """Without stock or other memory every decision takes the best of the moment, so that the bound varies by the path.

    log price has sd .03 to .08 over 10 decisions, and demand y^.8: their mean has an sd of 4 %.
    """
    given = {**MEMORYLESS, **SMALL, "families": ("constant",), "stock": None, "horizon": 10}
    moving = DynamicPricing(**{**given, **ALONE["ar1"]})
    still = at_start(moving, 300)
    ratio = moving.bound(still) / moving.bound(still._replace(task=still.task._replace(rival=0 * still.task.rival)))
    assert abs(ratio.mean() - 1.0) < 0.01
    assert 0.02 < ratio.std() < 0.06


def test_nobody_comes_and_one_price() -> None:
    scenario = DynamicPricing(season=(1.0, 1.0), period=1, horizon=4)
    assert np.isfinite(scenario.bound(at_start(scenario, 5, phase=0.75))).all()
    one = DynamicPricing(prices=(1.0,), promotions=(NONE,), rivals=(), dip=NONE, stock=None, horizon=9)
    state = at_start(one, 20)  # price and reference price are the same: all is as without memory
    np.testing.assert_allclose(one.bound(state), fluid_value(one, state), rtol=1e-4)


def test_a_product_that_loses_on_every_sale() -> None:
    """One sells until the stock is gone, and no longer: the bound is not what selling to everybody would cost."""
    with pytest.warns(UserWarning, match="loses on every sale"):
        scenario = DynamicPricing(**SMALL, cost=(2.0, 2.0), w_vol=NONE, stock=3)
    gap = scenario.bound(at_start(scenario, 50)) - earned("informed", scenario, 50)
    assert (gap >= 0).all()


# --- nobody exceeds it -----------------------------------------------------------------------------------------------
def check_ceiling(scenario: DynamicPricing, trials: int, least: float) -> None:
    """The informed policy's mean return is at most the mean bound (3 standard errors), and at least `least` of it."""
    bound, returns = scenario.bound(at_start(scenario, trials)), earned("informed", scenario, trials)
    gap = bound - returns
    assert gap.mean() > -3 * gap.std() / np.sqrt(trials)
    assert returns.mean() > least * bound.mean()


def test_the_informed_policy_and_the_bound() -> None:
    """256 trials: the standard error of the gap is 1 % of the return, and the gap 2 %."""
    check_ceiling(recgym.make_scenario("DynamicPricing-v0"), 256, 0.95)


@pytest.mark.parametrize("stock", [None, (0.3, 0.6)], ids=str)
@pytest.mark.parametrize("kind", ALONE)
def test_the_informed_policy_and_the_bound_with_one_mechanism(kind: str, stock: Any) -> None:
    check_ceiling(DynamicPricing(**{**MEMORYLESS, **SMALL, **ALONE[kind], "stock": stock}), 150, 0.94)


@pytest.mark.parametrize("kind", ["season", "lift"])
def test_the_informed_policy_and_the_bound_without_memory(kind: str) -> None:
    given = {"season": (0.8, 1.0)} if kind == "season" else {"lift": (0.4, 0.8)}
    check_ceiling(DynamicPricing(**{**MEMORYLESS, **given}), 500, 0.95)


@pytest.mark.parametrize("kind", [k for k in ALONE if k != "ar1"])
@pytest.mark.parametrize("stock", [(0.05, 0.2), (0.3, 1.2), None], ids=str)
def test_with_many_customers_it_holds_in_every_trial(kind: str, stock: Any) -> None:
    """For the informed policy, the best fixed candidate and random. (An AR(1) rival's path the bound alone knows.)

    Where stock is no limit the expected reward is without noise, and a thousandth is for the grid of reference
    prices, five for the kink that an undercutter's price has inside a cell. Else a million customers leave .3 % of
    noise.
    """
    parameters = {**MEMORYLESS, **SMALL, **ALONE[kind], "stock": stock, "customers": 1e6, "horizon": 12}
    scenario = DynamicPricing(**parameters)
    bound = scenario.bound(at_start(scenario, 40))
    for name in ("informed", "best_fixed", "random"):
        trials = rollout(make_baseline(name, scenario), scenario, trials=40, seed=TEST_SEED)
        if stock is None:
            assert (trials.expected < bound * (1.005 if kind == "undercutter" else 1.001)).all(), name
        else:
            assert (trials.returns < bound * 1.012).all(), name  # 4 standard errors


@pytest.mark.parametrize("stock", [(0.1, 0.1), (0.5, 0.5)], ids=str)
def test_the_optimum_by_dynamic_programming_is_below_it(stock: Any) -> None:
    """Few prices and a scarce stock, with a dip: backward induction over stock and last promotion, for one product."""
    ladder = {"prices": (0.8, 1.1), "promotions": (NONE, (0.2, 1.0))}
    parameters = {**MEMORYLESS, **ladder, "horizon": 8, "customers": 6.0, "poisson": False, "season": NONE}
    scenario = DynamicPricing(**{**parameters, "dip": (0.5, 0.5), "purchase": (0.3, 0.3), "stock": stock})
    state = at_start(scenario, 12)
    bound = scenario.bound(state)
    chance = np.asarray([1, 6, 15, 20, 15, 6, 1])
    for b in range(12):
        units, margin = int(state.task.stock[b]), scenario.margin(state.task)[b].astype(np.float64)
        one = type(state.task)(*(leaf[b : b + 1] for leaf in state.task))
        law = []
        for after in (0.0, 1.0):
            flat = np.ones((1, 1), dtype=np.float32)
            q = shares(one, state.hidden.pull[b : b + 1], scenario.ladder, flat, flat, flat * np.float32(after))[0]
            law.append(
                chance * q[:, None].astype(np.float64) ** np.arange(7) * (1 - q[:, None]) ** np.arange(6, -1, -1)
            )
        values = np.zeros((2, units + 1))
        sold = np.minimum(np.arange(7), np.arange(units + 1)[:, None])  # [S + 1, 7]
        for _ in range(8):
            worth = np.empty((2, units + 1, 4))
            for after, k in itertools.product(range(2), range(4)):
                later = values[int(scenario.ladder.promoted[k])][np.arange(units + 1)[:, None] - sold]
                worth[after, :, k] = (margin[k] * sold + later) @ law[after][k]
            values = worth.max(axis=2)
        optimum = values[0, units] / scenario.sales_unit
        assert 0.75 * bound[b] < optimum <= bound[b] * (1 + 1e-5)


def test_a_grid_twice_as_fine_hardly_moves_it(monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = recgym.make_scenario("DynamicPricing-v0")
    state = at_start(scenario, 48)
    coarse = scenario.bound(state)
    monkeypatch.setattr(bound, "GRID", 2 * bound.GRID - 1)
    assert scenario.bound(state).mean() == pytest.approx(coarse.mean(), rel=1e-3)


def test_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = DynamicPricing(**{**SMALL, "rivals": ("follower",)})
    state = at_start(scenario, 20)
    whole = scenario.bound(state)
    monkeypatch.setattr(bound, "CHUNK", 7)
    np.testing.assert_allclose(scenario.bound(state), whole, rtol=1e-6)


@pytest.mark.slow
def test_no_baseline_exceeds_it() -> None:
    scenario = recgym.make_scenario("DynamicPricing-v0")
    bound = scenario.bound(at_start(scenario, 500))
    for name in baselines_for(scenario):
        gap = bound - earned(name, scenario, 500)
        assert gap.mean() > -3 * gap.std() / np.sqrt(500), name
