"""Dynamic pricing: what holds whatever is done, and what is refused.

The first test plays any actions on any task, those at the limits of the task space among them, and recomputes every
step from the state before it.
"""

from __future__ import annotations

import math
import re
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import recgym
from recgym.arrays import to_numpy, tree_items, tree_map
from recgym.baselines import ConstantPolicy, baselines_for, left_out, make_baseline
from recgym.evaluation import rollout
from recgym.parameters import parameters_of
from recgym.rng import make_rng
from recgym.runner import Runner
from recgym.scenarios.pricing import DynamicPricing
from recgym.scenarios.pricing.demand import CURVES, FAMILIES, RIVALS, PricingTask
from recgym.scenarios.pricing.dynamic import FREE_CHANGE
from recgym.scenarios.pricing.products import MAX_NUMBER, TASK_LIMITS

RANGES = {
    each.name: (known.low, known.high)
    for each, known in parameters_of(DynamicPricing)
    if known and known.kind == "range"
}
FERREIRA = recgym.SCENARIOS["DynamicPricingFerreira-v0"].parameters
ONE = {"prices": (1.0,), "promotions": ((0.0, 0.0),)}
EXTREMES: list[dict[str, Any]] = [
    {},
    FERREIRA,
    {**FERREIRA, "table": None},
    {"stock": 1},
    {"stock": None},
    {"choke": True, "stock": 40},
    {"prices": (1.0, 2.0), "promotions": ((0.0, 0.0),), "choke": True},
    {"stock": (1e-6, 1e-6), "customers": 0.001},
    {"stock": 40, "customers": 1e6},
    {"stock": (1e6, 1e6), "customers": 1e6, "poisson": False},
    {"forecast": None, "embedding": 0, "rivals": (), "statistics": False},
    {"forecast": 10.0, "embedding": 1},
    {"season": (1.0, 1.0), "period": 1},
    {"season": (1.0, 1.0), "period": 2, "poisson": False, "stock": 30},
    {"gain": (20.0, 20.0), "aversion": (10.0, 10.0), "memory": (0.0, 0.0)},
    {"promotions": ((0.999, 1.0),), "lift": (10.0, 10.0), "dip": (10.0, 10.0), "cost": (0.0, 0.0)},
    {"cost": (0.0, 0.0), "w_rev": (0.0, 0.0)},
    {"w_rev": (100.0, 100.0), "w_vol": (100.0, 100.0), "base_price": 1e9, "prices": (1e9, 2e9)},
    {**ONE, "cost": (0.99, 0.99)},
    {"prices": (1e-3, 1.0, 1e3), "stock": 5},
    {"prices": (1e-3, 1.0), "families": "constant", "purchase": (1e-6, 1e-6), "stock": None, "alpha": 0.3},
    {"families": "logit", "purchase": (0.95, 0.95), "cross": (10.0, 10.0), "elasticity": (20.0, 0.0, 20.0, 20.0)},
]
FIELDS = sorted(TASK_LIMITS)


def check_close(here: Any, there: Any, *, rtol: float = 0.0, atol: float = 0.0) -> None:
    """As `np.testing.assert_allclose`, which takes ten times as long where all is well, and equality by default."""
    alike = np.shape(here) == np.shape(there) or np.ndim(there) == 0
    if not (alike and (np.abs(here - there) <= atol + rtol * np.abs(there)).all()):
        np.testing.assert_allclose(here, there, rtol=rtol, atol=atol)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(
    parameters=st.sampled_from(EXTREMES),
    device=st.sampled_from(["cpu", "torch"]),
    seed=st.integers(0, 2**40),
    corner=st.dictionaries(st.sampled_from(FIELDS), st.booleans(), max_size=len(FIELDS)),
    shares=st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=12),
)
def test_whatever_is_done_the_books_balance(
    parameters: dict[str, Any], device: str, seed: int, corner: dict[str, bool], shares: list[float]
) -> None:
    if device == "torch":
        pytest.importorskip("torch")
    scenario = DynamicPricing(**{**parameters, "horizon": len(shares)})
    runner = Runner(scenario, 4, make_rng(device, seed), autoreset_mode="Disabled")
    runner.restart()
    if corner:  # fields of the task at the lowest or the highest value that is accepted
        task = {name: to_numpy(leaf).copy() for name, leaf in tree_items(runner.state.task)}
        for name, high in corner.items():
            space: Any = scenario.task_space[name]
            task[name][:] = space.high if high else space.low
        runner.restart(task=task)
    task = PricingTask(*(to_numpy(leaf) for leaf in runner.state.task))
    ladder, unit, space = scenario.ladder, scenario.sales_unit, scenario.observation_space
    row, sold_before = np.arange(4), np.zeros(4)
    assert all(space.contains(seen) for seen in to_numpy(runner.observation()))

    for t, share in enumerate(shares):
        before = tree_map(lambda leaf: to_numpy(leaf).copy(), runner.state)
        demand, worth, stock_before = before.hidden.demand, before.hidden.worth, before.seen.kept.stock
        assert ((demand >= 0) & (demand <= 1)).all() and np.isfinite(worth).all()
        if scenario.choke and "table" not in corner:
            assert (demand[:, ladder.price == ladder.price[-1]] == 0).all()
        rate = scenario.customers * (1 + task.season * np.sin(2 * math.pi * (t / scenario.period + task.phase)))
        margin = task.w_rev[:, None] * (ladder.paid - task.cost[:, None]) + task.w_vol[:, None]
        scale = np.maximum(np.abs(margin) * scenario.customers / unit, 1e-6)
        check_close(worth / scale, margin * demand * rate[:, None] / unit / scale, atol=1e-4)
        informed = to_numpy(scenario.informed_action(runner.state))
        assert ((informed >= 0) & (informed < len(ladder.paid))).all()

        action = np.full(4, int(share * len(ladder.paid)))
        action[3] = informed[3]
        step = runner.step(action)
        after, info = runner.state, {name: to_numpy(value) for name, value in step.info.items()}
        stock, sales, wanted = (
            to_numpy(leaf) for leaf in (after.seen.kept.stock, after.seen.kept.sales, after.hidden.wanted)
        )
        paid = ladder.paid[action]

        # the stock
        assert stock.dtype == np.int64 and sales.dtype == wanted.dtype == np.float32
        assert (stock >= 0).all() and (sales >= 0).all()
        assert (sales <= wanted).all() and (sales <= stock_before).all()
        check_close(sales.astype(np.int64), np.minimum(wanted.astype(np.int64), stock_before))
        check_close(stock, stock_before - sales.astype(np.int64))
        sold_before += sales
        check_close(task.stock - stock, sold_before.astype(np.int64))
        assert (wanted[demand[row, action] == 0] == 0).all()
        if not scenario.poisson:
            assert (wanted <= np.round(rate) + 1).all()

        # the objectives, the costs and the reward
        check_close(info["volume"], sales)
        money = scenario.base_price * (paid + task.cost).astype(np.float64) * sales + 1e-30
        revenue = scenario.base_price * paid.astype(np.float64) * sales
        profit = revenue - scenario.base_price * task.cost.astype(np.float64) * sales
        check_close(info["revenue"] / money, revenue / money, atol=1e-6)
        check_close(info["profit"] / money, profit / money, atol=1e-6)
        reward, size = to_numpy(step.reward), (task.w_rev * money / scenario.base_price + task.w_vol * sales) / unit
        wished = (task.w_rev * profit / scenario.base_price + task.w_vol * sales) / unit
        size = np.maximum(size, 1e-30)
        check_close(reward / size, wished / size, atol=1e-5)
        check_close(info["stock_out"], (wanted > stock_before).astype(np.float32))
        last = (before.seen.kept.chosen * ladder.paid).sum(axis=1)
        change = np.abs(paid / np.where(last > 0, last, paid) - 1.0)
        volatility = np.clip(change - FREE_CHANGE, 0.0, MAX_NUMBER)
        check_close(info["volatility"], volatility, rtol=1e-5, atol=1e-5)

        # the optimum
        check_close(info["expected_reward"], worth[row, action])
        check_close(info["regret"], worth.max(axis=1) - worth[row, action])
        assert (info["regret"] >= 0).all()

        # what is remembered and shown
        reference = task.memory * before.hidden.reference + (1 - task.memory) * paid
        check_close(to_numpy(after.hidden.reference), reference, rtol=1e-5)
        check_close(to_numpy(after.seen.kept.counts).sum(axis=1), t + 1)
        assert (to_numpy(step.ended) == (t + 1 == len(shares))).all()
        seen = to_numpy(step.observation)
        assert all(space.contains(line) for line in seen), seen[~((seen >= space.low) & (seen <= space.high))]
        shown = {name: scenario.layout.get(seen, name) for name in ("stock", "last_sales", "last_reward", "chosen")}
        check_close(shown["stock"], stock / task.stock, rtol=1e-6)
        check_close(shown["last_sales"], np.minimum(sales / unit, MAX_NUMBER), rtol=1e-6)
        check_close(shown["last_reward"], np.clip(reward, -MAX_NUMBER, MAX_NUMBER), rtol=1e-6)
        assert (shown["chosen"].argmax(axis=1) == action).all() and (shown["chosen"].sum(axis=1) == 1).all()
        for name, leaf in tree_items(after):
            assert str(leaf.dtype).split(".")[-1] in ("float32", "int64"), name
            assert np.isfinite(to_numpy(leaf)).all(), name
    scenario.informed_action(runner.state)  # a picture of a trial that has ended asks for it
    with pytest.raises(gym.error.ResetNeeded):
        runner.step(np.zeros(4, dtype=np.int64))


@pytest.mark.filterwarnings("ignore:DynamicPricing. base_price")
def test_the_moving_average_stays_in_its_space() -> None:
    """In float32 a weighted mean of 100 and 100 is above 100 for one `alpha` in twenty."""
    for alpha in np.random.default_rng(0).random(40):
        scenario = DynamicPricing(
            prices=(1e-3,), promotions=((0.0, 0.0),), families=("constant",), elasticity=(6.0, 0.0, 6.0, 6.0),
            purchase=(1e-6, 1e-6), cost=(0.0, 0.0), stock=None, customers=1e6, alpha=float(alpha), horizon=60,
        )  # fmt: skip
        runner = Runner(scenario, 1, make_rng("cpu", 0))
        runner.restart()
        for _ in range(59):
            seen = runner.step(np.zeros(1, dtype=np.int64)).observation
            assert scenario.observation_space.contains(seen[0])
        assert scenario.layout.get(seen, "average")[0, 0] > 0.9 * MAX_NUMBER or alpha > 0.95


def test_nobody_comes_at_the_bottom_of_a_season() -> None:
    """The informed policy looks at stock per customer; nothing is divided by zero."""
    scenario = DynamicPricing(season=(1.0, 1.0), period=1, horizon=4)
    for device in ("cpu", "torch"):
        if device == "torch":
            pytest.importorskip("torch")
        runner = Runner(scenario, 5, make_rng(device, 1))
        runner.restart()
        task = {name: to_numpy(leaf).copy() for name, leaf in tree_items(runner.state.task)}
        task["phase"][:] = 0.75
        runner.restart(task=task)
        for _ in range(3):
            step = runner.step(scenario.informed_action(runner.state))
            assert (to_numpy(runner.state.hidden.wanted) == 0).all()
            np.testing.assert_allclose(to_numpy(step.info["expected_reward"]), 0, atol=1e-6)


# --- what is refused -------------------------------------------------------------------------------------------------
BAD: list[tuple[str, Any]] = [
    *(("prices", value) for value in (
        (), (0.0, 1.0), (-1.0, 1.0), (math.nan,), (math.inf,), (1e-4, 1.0), (1e4,), ((1.0, 2.0),), 1.0, "1", None,
        ("a",), (True, False), (1.0, None),
    )),
    *(("base_price", value) for value in (0, -1.0, math.nan, math.inf, "1", None, True)),
    *(("promotions", value) for value in (
        (), ((1.0, 0.0),), ((-0.1, 0.0),), ((0.1, 1.1),), ((0.1, -0.1),), ((0.1,),), ((0.1, 0.2, 0.3),), (0.1, 0.2),
        ((math.nan, 0.0),), None, "none", (("a", "b"),), ((0.1, 0.2), (0.1,)),
    )),
    *(("horizon", value) for value in (0, -1, 100_001, 1.0, True, None, "60")),
    *(("period", value) for value in (0, -1, 1.5, None)),
    *(("families", value) for value in (
        (), "cubic", ("linear", "cubic"), ("linear", "linear"), ("table", "linear"), None, 5, ("linear", None),
        [["linear"]],
    )),
    *(("rivals", value) for value in ("nobody", ("static", "nobody"), ("ar1", "ar1"), None, 5, (1,))),
    *(("elasticity", value) for value in (
        (2.6, 0.4, 1.1), 2.6, None, (2.6, 0.4, 6.0, 1.1), (2.6, -0.1, 1.1, 6.0), (2.6, 0.4, 0.0, 6.0),
        (0.5, 0.4, 1.1, 6.0), (1e-5, 0.0, 1e-5, 1e-5), (7.0, 0.4, 1.1, 6.0), (2.6, 0.4, 1.1, 20.1),
        (math.nan, 0.4, 1.1, 6.0),
        (2.6, math.nan, 1.1, 6.0), (2.6, 10.1, 1.1, 6.0), ("a", 0.4, 1.1, 6.0),
    )),
    *(("customers", value) for value in (0, -1.0, 1e6 + 1, math.nan, "100", None, True)),
    *(("poisson", value) for value in (1, 0.0, None, "yes")),
    *((name, value) for name in ("choke", "statistics") for value in (1, None, "no")),
    *(("stock", value) for value in (
        0, -1, 2**40 + 1, 0.5, True, "25", (0.0, 1.0), (1.2, 0.3), (0.3, 1e7), (0.3,), (math.nan, 1.0), (0.3, None),
    )),
    *(("embedding", value) for value in (-1, 1001, 2.5, None, True)),
    *(("forecast", value) for value in (-0.1, 10.1, math.nan, "0.3", True)),
    *(("alpha", value) for value in (-0.1, 1.1, math.nan, None)),
    *((name, value) for name, (low, high) in RANGES.items() for value in (
        (0.5 * low + 0.5 * high, low), (low - 1e-3, high), (low, high * 1.01), (low, math.nan), (low,), low, None,
        (low, high, high), "low", ("a", "b"), (True, True),
    )),
]  # fmt: skip


@pytest.mark.parametrize("name, value", BAD, ids=str)
def test_bad_parameters_are_named(name: str, value: Any) -> None:
    shown = re.escape(repr(value))
    with pytest.raises(ValueError, match=rf"^DynamicPricing: {name} must .*, got {shown}$") as error:
        DynamicPricing(**{name: value})
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=rf"DynamicPricing: {name} must"):
        gym.make("DynamicPricing-v0", **{name: value})


@pytest.mark.parametrize(
    "table, families, message",
    [
        ((0.5,) * 20, "table", "table must be 21 probabilities"),
        ((0.5,) * 22, "table", "table must be 21 probabilities"),
        ((), "table", "table must be 21 probabilities"),
        (0.5, "table", "table must be 21 probabilities"),
        ("a", "table", "table must be 21 probabilities"),
        ((0.5,) * 21, "linear", r"table must be 21 probabilities, with families \['table'\]"),
        ((0.5,) * 20 + (1.1,), "table", "table must hold probabilities"),
        ((0.5,) * 20 + (-0.1,), "table", "table must hold probabilities"),
        ((0.5,) * 20 + (math.nan,), "table", "table must hold probabilities"),
    ],
    ids=str,
)
def test_bad_tables_are_named(table: Any, families: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^DynamicPricing: {message}.*got {re.escape(repr(table))}$"):
        DynamicPricing(table=table, families=families)


def test_candidates_are_counted() -> None:
    many = tuple(np.linspace(0.5, 1.5, 101).tolist())
    with pytest.raises(ValueError, match="prices and promotions must make at most 10,000 candidates, got 101 x 100"):
        DynamicPricing(prices=many, promotions=((0.0, 0.0),) * 100)


@pytest.mark.parametrize("cost, prices, paid", [((0.2, 2.0), (0.7, 1.3), "1.3"), ((1.0, 1.0), (1.0,), "1")], ids=str)
def test_a_cost_above_every_price_warns(cost: tuple[float, float], prices: tuple[float, ...], paid: str) -> None:
    """It is a problem all the same: then one sells as little as one can."""
    with pytest.warns(
        UserWarning, match=rf"cost reaches {cost[1]:g} base prices, .* is {paid}: .* loses on every sale"
    ):
        scenario = DynamicPricing(cost=cost, prices=prices, horizon=5)
    runner = Runner(scenario, 3, make_rng("cpu", 0))
    runner.restart(task={name: to_numpy(leaf) for name, leaf in tree_items(scenario.sample_task(make_rng(seed=1), 3))})
    for _ in range(5):
        step = runner.step(scenario.informed_action(runner.state))
        assert np.isfinite(step.reward).all() and (step.info["regret"] >= 0).all()


def test_lists_and_names_are_taken_as_they_come() -> None:
    listed = DynamicPricing(prices=[1, 2], promotions=[[0, 0]], families=["linear"], rivals=[], stock=[0.3, 1])  # type: ignore[arg-type]
    assert listed == DynamicPricing(
        prices=(1.0, 2.0),
        promotions=((0.0, 0.0),),
        families="linear",
        rivals=(),
        stock=(0.3, 1.0),  # type: ignore[arg-type]
    )
    assert hash(listed) and listed.rivals == () and listed.families == ("linear",)
    for families in (*CURVES, "table", CURVES):
        assert set(DynamicPricing(families=families).families) <= set(FAMILIES)  # type: ignore[arg-type]
    for rival in RIVALS:
        assert DynamicPricing(rivals=rival).rivals == (rival,)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unexpected keyword argument 'price'; did you mean 'prices'"):
        recgym.make_scenario("DynamicPricing-v0", price=(1.0,))


# --- pictures --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "parameters", [{}, FERREIRA, {"stock": 40, "base_price": 20.0, "prices": (15.0, 20.0, 25.0)}, {"stock": None}]
)
def test_pictures_show_what_happened(parameters: dict[str, Any]) -> None:
    """The path that is drawn agrees with `info` and the observations; the text has the same numbers."""
    env: Any = gym.make("DynamicPricing-v0", render_mode="ansi", **parameters).unwrapped
    scenario, actions = env.scenario, np.random.default_rng(3)
    observation, _ = env.reset(seed=2)
    told, seen, rewards, played = [], [observation], [], []
    for _ in range(scenario.horizon):
        played.append(int(actions.integers(scenario.action_space.n)))
        observation, reward, _, _, info = env.step(played[-1])
        told.append(info)
        seen.append(observation)
        rewards.append(reward)
    path = env._recorder.paths[0]
    first, after = path[0], {name: np.array([moment[name] for moment in path[1:]]) for name in path[0]}
    ladder, money = scenario.ladder, scenario.base_price
    fields = {name: scenario.layout.get(np.array(seen), name) for name in ("reference", "rival", "stock")}
    stock = int(env.runner.state.task.stock[0])
    np.testing.assert_array_equal(after["decision"], np.arange(1, scenario.horizon + 1))
    np.testing.assert_allclose(after["list"], money * ladder.price[played], rtol=1e-6)
    np.testing.assert_allclose(after["paid"] * after["sales"], [one["revenue"] for one in told], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(after["paid"], money * ladder.paid[played], rtol=1e-6)
    np.testing.assert_array_equal(after["display"], ladder.display[played])
    np.testing.assert_array_equal(after["sales"], [one["volume"] for one in told])
    np.testing.assert_array_equal(after["demand"] > after["sales"], [one["stock_out"] > 0 for one in told])
    np.testing.assert_array_equal(after["reward"], rewards)
    np.testing.assert_allclose([first["reference"], *after["reference"]], money * fields["reference"], rtol=1e-6)
    np.testing.assert_allclose(after["rival"], money * fields["rival"][1:], rtol=1e-6)
    assert first["stock"] == stock
    np.testing.assert_array_equal(after["stock"], stock - np.cumsum(after["sales"]))

    lines = env.render().splitlines()
    assert f"decision {scenario.horizon} of {scenario.horizon}" in lines[0]
    assert f"reward so far {np.sum(rewards):.2f}" in lines[0]
    names, last = lines[1].split(), lines[-2].split()
    assert last[0] == ">" and len(lines) == 23 and lines[-1].startswith("best now: ")
    row = dict(zip(names, map(float, last[1:]), strict=True))
    assert row["decision"] == scenario.horizon and row["total"] == pytest.approx(np.sum(rewards), abs=0.006)
    assert row["paid"] == pytest.approx(after["paid"][-1], abs=0.006)
    assert (row["demand"], row["sales"]) == (after["demand"][-1], after["sales"][-1])
    assert ("stock" in row) == (scenario.stock is not None) and row.get("stock", 0) in (0, after["stock"][-1])
    assert ("reference" in row) == ("rival" in row) == (scenario.gain[1] > 0)


def test_pictures_name_the_candidates() -> None:
    assert DynamicPricing(prices=(1.5, 1e6), promotions=((0, 0), (0.125, 1)), base_price=1e3).candidate_names == (
        "1.5", "1.5 -12.5%", "1000000", "1000000 -12.5%",
    )  # fmt: skip
    names = DynamicPricing(prices=(1.0,), promotions=((0, 0), (0, 1), (0.2, 0.5), (0.2, 1))).candidate_names
    assert names == ("1 display 0", "1 display 1", "1 -20% display 0.5", "1 -20% display 1")


# --- what a review found ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("parameters", [{}, {"stock": 3}, {"stock": (5.0, 9.0)}, {"customers": 4000.0}])
def test_the_units_in_stock_can_be_told_from_the_observation(parameters: dict[str, Any]) -> None:
    """Products that sell best are those of which most is in stock: nothing of it may be cut off."""
    scenario = DynamicPricing(**parameters)
    runner, layout = Runner(scenario, 300, make_rng("cpu", 0)), scenario.layout
    runner.restart()
    for _ in range(3):
        observation = runner.observation()
        left = scenario.horizon - runner.state.seen.time
        told = np.expm1(layout.get(observation, "pace").astype(np.float64)) * scenario.sales_unit * left
        np.testing.assert_allclose(told, runner.state.seen.kept.stock, rtol=1e-5, atol=1e-2)
        runner.advance(np.full(300, 2))


def test_a_losing_product_is_held_at_the_least_loss() -> None:
    with pytest.warns(UserWarning, match="loses on every sale"):
        scenario = DynamicPricing(cost=(1.4, 1.5), w_vol=(0.0, 0.0), stock=None)
    results = {
        name: rollout(make_baseline(name, scenario), scenario, trials=200, seed=0)
        for name in ("informed", "random", "glm_ts")
    }
    least = max(
        rollout(ConstantPolicy(scenario, action), scenario, trials=200, seed=0).returns.mean() for action in range(21)
    )
    assert results["informed"].returns.mean() >= least - 0.5
    assert results["glm_ts"].returns.mean() > results["random"].returns.mean()


def test_a_product_has_one_embedding_whatever_else_is_drawn() -> None:
    plain = recgym.make_scenario("DynamicPricing-v0")
    shifted = recgym.make_scenario("DynamicPricing-v0", **recgym.SCENARIOS["DynamicPricing-v0"].shifted[0])
    task = plain.sample_task(make_rng("cpu", 0), 50)
    one, other = (scenario.reset(task, make_rng("cpu", 1)).seen.offer.embedding for scenario in (plain, shifted))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "parameters",
    [
        {
            "promotions": ((0.0, 0.0), (0.0, 1.0)),
            "lift": (0.0, 3.0),
            "table": (0.8, 0.8, 0.6, 0.6, 0.3, 0.3, 0.1, 0.1, 0.0, 0.0),
        },
        {"rivals": ("static",), "cross": (2.0, 2.0)},
        {"w_vol": (0.0, 2.0)},
        {"table": None},
    ],
    ids=str,
)
def test_backward_induction_is_offered_only_where_it_is_the_optimum(parameters: dict[str, Any]) -> None:
    scenario = recgym.make_scenario("DynamicPricingFerreira-v0", **parameters)
    assert "exact" in left_out(scenario)
    assert "exact" in baselines_for(recgym.make_scenario("DynamicPricingFerreira-v0"))


def test_nothing_sells_and_nothing_breaks() -> None:
    scenario = DynamicPricing(
        prices=(1.25, 1.3), promotions=((0.0, 0.0),), families=("linear",), elasticity=(6, 0, 6, 6), horizon=20
    )
    for name in baselines_for(scenario):
        assert np.isfinite(rollout(make_baseline(name, scenario), scenario, trials=20, seed=0).returns).all()
    with pytest.raises(ValueError, match="choke needs another price"):
        DynamicPricing(prices=(1.0,), choke=True)


def test_a_perfect_forecast_is_worth_something_to_particles() -> None:
    """400 paired trials of 30 decisions: the mean gain is .3 and its standard error .08."""
    perfect, none = (DynamicPricing(forecast=noise, horizon=30) for noise in (0.0, None))
    returns = [rollout(make_baseline("particle_mean", s), s, trials=400, seed=0).returns for s in (perfect, none)]
    assert (returns[0] - returns[1]).mean() > 0.15


@pytest.mark.parametrize("parameters", [{"prices": (80.0, 110.0)}, {"base_price": 0.2}])
def test_a_base_price_far_from_the_prices_is_warned_of(parameters: dict[str, Any]) -> None:
    with pytest.warns(UserWarning, match=r"base_price .* is far from the prices .*: give the usual price"):
        DynamicPricing(**parameters)
    DynamicPricing(prices=(80.0, 110.0), base_price=100.0)  # warnings are errors in these tests
