"""Demand for a product: every mechanism has an off switch, and switching it on moves the outcome by the closed form."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from recgym.arrays import to_numpy, tree_items
from recgym.rng import make_rng
from recgym.runner import Runner
from recgym.scenarios.pricing import DynamicPricing
from recgym.scenarios.pricing.demand import (
    CURVES,
    FAMILIES,
    MAX_SHARE,
    RIVALS,
    UNDERCUT,
    Ladder,
    PricingTask,
    pull,
    rival_price,
    shares,
)
from recgym.scenarios.pricing.foresight import EMBEDDING_NOISE, EMBEDDING_SEED, MIN_SALES, SPECK, TILT, traits
from recgym.scenarios.pricing.market import RIVAL_MEMORY, RIVAL_NOISE
from recgym.scenarios.pricing.products import UNLIMITED

NONE = (0.0, 0.0)
OFF: dict[str, Any] = {  # every mechanism that makes a decision depend on another one, or that adds noise
    **dict.fromkeys(("lift", "gain", "dip", "season", "w_vol"), NONE),
    "rivals": (),
    "stock": None,
    "embedding": 0,
    "forecast": None,
}
MEMORYLESS = DynamicPricing(**OFF)
E, Q = 2.5, 0.08  # elasticity and demand at base price, where a test looks at one product
EACH_CURVE = pytest.mark.parametrize("family", CURVES)
EACH_DEVICE = pytest.mark.parametrize("device", ["cpu", "torch"])


def product(family: str = "exponential", **fields: Any) -> PricingTask:
    """One product [1], float64, without any mechanism but those in `fields`."""
    plain = dict.fromkeys(PricingTask._fields, 0.0)
    plain |= {"family": FAMILIES.index(family), "elasticity": E, "purchase": Q, "rival_price": 1.0, "w_rev": 1.0}
    columns = {name: np.atleast_1d(np.asarray(value)) for name, value in (plain | fields).items()}
    columns["table"] = np.ones((1, 1)) if "table" not in fields else np.atleast_2d(fields["table"])
    return PricingTask(**columns)


def ladder_of(*paid: float, display: float = 0.0) -> Ladder:
    """float64, so that derivatives can be taken."""
    price, none = np.asarray(paid), np.zeros(len(paid))
    return Ladder(price, none, none + display, price, none + display > 0)


def bought(task: PricingTask, ladder: Ladder, *, reference: float = 1.0, rival: float = 1.0, after: float = 0.0) -> Any:
    """[K] share of the customers."""
    one = np.ones((1, 1))
    return shares(task, pull(task, ladder), ladder, reference * one, rival * one, after * one)[0]


def odds(share: Any, family: str) -> Any:
    """What effects multiply: the demand, or of the logit the odds of buying from us."""
    return share / (1.0 - share) if family == "logit" else share


def played(scenario: DynamicPricing, *, rows: int = 1, steps: int, seed: int = 0, act: Any = 0, **task: Any) -> Any:
    """States and steps of a trial with `task`; `act` is an action or a function of time."""
    runner = Runner(scenario, rows, make_rng("cpu", seed), autoreset_mode="Disabled")
    runner.restart()
    drawn = dict(tree_items(runner.state.task))
    drawn |= {name: np.full_like(drawn[name], value) for name, value in task.items()}
    runner.restart(task=drawn)
    found = [(runner.state, None)]
    for t in range(steps):
        step = runner.step(np.full(rows, act(t) if callable(act) else act, dtype=np.int64))
        found.append((runner.state, step))
    return found


# --- families --------------------------------------------------------------------------------------------------------
@EACH_CURVE
@pytest.mark.parametrize("cross", [0.0, 0.3, 0.8])
def test_demand_and_elasticities_at_base_price(family: str, cross: float) -> None:
    """Central differences of step .001 in float64 are exact to 1e-5."""
    task, h = product(family, cross=cross), 1e-3
    assert bought(task, ladder_of(1.0)) == pytest.approx(Q, rel=1e-12)
    low, high = np.log(bought(task, ladder_of(math.exp(-h), math.exp(h))))
    assert (high - low) / (2 * h) == pytest.approx(-E, rel=1e-5)
    low, high = (math.log(bought(task, ladder_of(1.0), rival=math.exp(d))[0]) for d in (-h, h))
    assert (high - low) / (2 * h) == pytest.approx(cross, rel=1e-5, abs=1e-10)


def test_curves_by_hand() -> None:
    """At 1.2 and .8 of the base price, with e = 2.5 and q = .08."""
    x = ladder_of(1.2, 0.8, 1.5)
    known = {
        "linear": [0.04, 0.12, 0.0],  # .08 (1 - 2.5 (x - 1)), not below 0
        "exponential": [0.08 * math.exp(-0.5), 0.08 * math.exp(0.5), 0.08 * math.exp(-1.25)],
        "constant": [0.08 * 1.2**-2.5, 0.08 * 0.8**-2.5, 0.08 * 1.5**-2.5],
    }
    for family, demand in known.items():
        np.testing.assert_allclose(bought(product(family), x), demand, rtol=1e-12, atol=1e-15)
    utility = [math.log(0.08 / 0.92) - 2.5 / 0.92 * (p - 1) for p in (1.2, 0.8, 1.5)]
    np.testing.assert_allclose(bought(product("logit"), x), 1 / (1 + np.exp(-np.asarray(utility))), rtol=1e-12)
    table = np.asarray([0.3, 0.2, 0.7])
    np.testing.assert_array_equal(bought(product("table", table=table), x), table)  # whatever the price
    for family in CURVES:  # of a curve the table is a factor on demand, or on the odds
        once, twice = (odds(bought(product(family, table=[[f] * 3]), x), family) for f in (1.0, 0.5))
        np.testing.assert_allclose(twice, 0.5 * once, rtol=1e-12)


def test_the_rival_of_a_logit_has_no_more_than_its_largest_share() -> None:
    """Cross elasticity e s / (1 - q): s would be above .9 (1 - q), and the elasticity is then .9 e."""
    task, h = product("logit", cross=2.4), 1e-3
    assert bought(task, ladder_of(1.0)) == pytest.approx(Q, rel=1e-12)
    low, high = (math.log(bought(task, ladder_of(1.0), rival=math.exp(d))[0]) for d in (-h, h))
    assert (high - low) / (2 * h) == pytest.approx(MAX_SHARE * E, rel=1e-5)


@EACH_CURVE
def test_no_more_buy_than_come(family: str) -> None:
    task = product(family, purchase=0.9, lift=10.0, gain=20.0)
    share = bought(task, ladder_of(0.5, 1.0, display=1.0), reference=3.0)
    assert ((share > 0.99) & (share <= 1.0)).all()


# --- what moves log demand -------------------------------------------------------------------------------------------
@EACH_CURVE
@pytest.mark.parametrize("display", [0.0, 0.5, 1.0])
def test_a_display_multiplies_demand(family: str, display: float) -> None:
    plain, lifted = (bought(product(family, lift=lift), ladder_of(0.9, display=display)) for lift in (0.0, 0.4))
    np.testing.assert_allclose(odds(lifted, family), odds(plain, family) * 1.4**display, rtol=1e-12)


@EACH_CURVE
def test_a_price_is_judged_by_the_reference_price(family: str) -> None:
    ladder = ladder_of(0.8, 1.0, 1.1)
    plain = odds(bought(product(family), ladder, reference=0.9), family)
    moved = odds(bought(product(family, gain=0.6, loss=1.5), ladder, reference=0.9), family)
    factor = np.exp([0.6 * 0.1, -1.5 * 0.1, -1.5 * 0.2])
    np.testing.assert_allclose(moved, plain * factor, rtol=1e-12)
    at_reference = bought(product(family, gain=0.6, loss=1.5), ladder_of(0.9), reference=0.9)
    np.testing.assert_array_equal(at_reference, bought(product(family), ladder_of(0.9), reference=0.9))


@EACH_CURVE
def test_demand_dips_after_a_promotion(family: str) -> None:
    ladder = ladder_of(0.8, 1.2)
    plain = odds(bought(product(family), ladder, after=1.0), family)
    np.testing.assert_allclose(
        odds(bought(product(family, dip=0.3), ladder, after=1.0), family), plain * math.exp(-0.3)
    )
    np.testing.assert_array_equal(bought(product(family, dip=0.3), ladder), bought(product(family), ladder))


@EACH_CURVE
@pytest.mark.parametrize("rival", [0.7, 1.0, 1.4])
def test_a_rivals_price_moves_demand(family: str, rival: float) -> None:
    """By y^cross; a logit's rival has odds s / (1 - q - s) exp(-e (y - 1) / (1 - q)) against buying nowhere."""
    ladder, share = ladder_of(0.9), bought(product(family, cross=0.5), ladder_of(0.9), rival=rival)
    if family == "logit":
        taken = 0.5 / E * (1 - Q)
        nowhere = 1 - Q - taken
        ours = Q / nowhere * math.exp(-E / (1 - Q) * -0.1)
        theirs = taken / nowhere * math.exp(-E / (1 - Q) * (rival - 1))
        np.testing.assert_allclose(share, ours / (1 + ours + theirs), rtol=1e-12)
    else:
        np.testing.assert_allclose(share, bought(product(family), ladder) * rival**0.5, rtol=1e-12)
    np.testing.assert_array_equal(bought(product(family), ladder, rival=rival), bought(product(family), ladder))


# --- what is remembered ----------------------------------------------------------------------------------------------
def test_reference_price_and_dip_in_a_trial() -> None:
    """r <- .7 r + .3 x, and the demand of every candidate in every decision, against the equations in float64."""
    scenario = DynamicPricing(**{**OFF, "families": ("exponential",), "horizon": 12})
    actions = np.random.default_rng(0).integers(0, 21, 12)
    task = {"memory": 0.7, "gain": 0.6, "loss": 1.5, "dip": 0.2, "lift": 0.3, "elasticity": E, "purchase": Q}
    states = played(scenario, steps=12, act=lambda t: actions[t], **task)
    paid, display = scenario.ladder.paid.astype(np.float64), scenario.ladder.display.astype(np.float64)
    reference, promoted = 1.0, False
    for t, (state, _) in enumerate(states):
        assert state.hidden.reference[0] == pytest.approx(reference, rel=1e-6)
        demand = Q * np.exp(-E * (paid - 1)) * 1.3**display * math.exp(-0.2 * promoted)
        demand = demand * np.exp(np.where(paid < reference, 0.6, 1.5) * (reference - paid))
        np.testing.assert_allclose(state.hidden.demand[0], demand, rtol=2e-6)
        if t < 12:
            reference, promoted = 0.7 * reference + 0.3 * paid[actions[t]], bool(actions[t] % 3)


@pytest.mark.parametrize("kind", ["static", "follower", "undercutter"])
def test_rivals_that_answer_the_price(kind: str) -> None:
    scenario = DynamicPricing(**{**OFF, "families": ("exponential",), "rivals": (kind,), "horizon": 20})
    task = {"memory": 0.5, "cross": 0.6, "rival_price": 0.9, "elasticity": E, "purchase": Q}
    states = played(scenario, steps=20, act=lambda t: 0 if t < 10 else 18, **task)  # .7, then 1.3 of the base price
    reference = 1.0
    for t, (state, _) in enumerate(states):
        known = {"static": 0.9, "follower": 0.9 * reference, "undercutter": min(0.9, UNDERCUT * reference)}[kind]
        assert state.hidden.rival[0] == pytest.approx(known, rel=1e-5)
        plain = Q * np.exp(-E * (scenario.ladder.paid - 1.0))
        np.testing.assert_allclose(state.hidden.demand[0], plain * known**0.6, rtol=1e-5)
        if t:
            assert (
                state.seen.offer.rival_seen[0] == states[t - 1][0].hidden.rival[0]
            )  # what was seen is the last decision's
        reference = 0.5 * reference + 0.5 * (0.7 if t < 10 else 1.3)
    if kind != "static":
        assert min(s.hidden.rival[0] for s, _ in states) < 0.7


def test_moments_of_a_rival_with_an_ar1() -> None:
    """log(price / usual) has variance s^2 (1 - phi^2t) / (1 - phi^2) and correlation phi from one decision to the next.

    With 20,000 rows a variance that is 4 % off and a correlation that is .01 off lie outside 4 standard errors.
    """
    one = {"prices": (1.0,), "promotions": (NONE,)}  # what is for sale does not matter
    scenario = DynamicPricing(**{**OFF, **one, "rivals": ("ar1",), "horizon": 30})
    rows = 20_000
    states = played(scenario, rows=rows, steps=30, rival_price=1.2, cross=0.5)
    logs = np.stack([np.log(state.hidden.rival.astype(np.float64) / 1.2) for state, _ in states])
    np.testing.assert_allclose(logs[0], 0.0, atol=1e-6)
    for t in (1, 2, 5, 30):
        variance = RIVAL_NOISE**2 * (1 - RIVAL_MEMORY ** (2 * t)) / (1 - RIVAL_MEMORY**2)
        assert abs(logs[t].mean()) < 4 * math.sqrt(variance / rows)
        assert logs[t].var() == pytest.approx(variance, rel=4 * math.sqrt(2 / rows))
    assert abs(np.corrcoef(logs[29], logs[30])[0, 1] - RIVAL_MEMORY) < 4 * (1 - RIVAL_MEMORY**2) / math.sqrt(rows)
    assert abs(np.corrcoef(logs[30, :-1], logs[30, 1:])[0, 1]) < 4 / math.sqrt(rows)


def test_only_an_ar1_drifts() -> None:
    reference, drift = np.asarray([[1.0, 0.8]]), np.asarray([[0.3]])
    for i, kind in enumerate(RIVALS):
        price = rival_price(product(rival=i, rival_price=0.9), reference, drift)[0]
        known = {"ar1": [0.9 * math.exp(0.3)] * 2, "follower": [0.9, 0.72], "undercutter": [0.9, UNDERCUT * 0.8]}
        np.testing.assert_allclose(price, known.get(kind, [0.9, 0.9]), rtol=1e-12)


# --- seasons, weights, stock -----------------------------------------------------------------------------------------
@EACH_DEVICE
@pytest.mark.parametrize("period", [1, 2, 7, 12, 1000])
def test_customers_left_are_the_sum_of_those_who_come(period: int, device: str) -> None:
    if device == "torch":
        pytest.importorskip("torch")
    xp = make_rng(device, 0).xp
    scenario = DynamicPricing(season=(0.0, 1.0), period=period, horizon=40, customers=30.0)
    task = scenario.sample_task(make_rng(device, 1), 16)
    season, phase = (to_numpy(leaf).astype(np.float64) for leaf in (task.season, task.phase))
    for start in (0, 1, 13, 39, 40):
        time = [xp.full((16,), float(t), dtype=xp.float32) for t in range(start, 40)]
        each = [30.0 * (1 + season * np.sin(2 * math.pi * (t / period + phase))) for t in range(start, 40)]
        for now, known in zip(time, each, strict=True):
            np.testing.assert_allclose(to_numpy(scenario.arriving(task, now)), known, rtol=1e-4, atol=1e-3)
        left = to_numpy(scenario.customers_left(task, xp.full((16,), float(start), dtype=xp.float32)))
        np.testing.assert_allclose(left, np.sum(each, axis=0) if each else 0.0, rtol=1e-4, atol=2e-3)


def test_a_season_multiplies_the_worth_of_every_candidate() -> None:
    scenario = DynamicPricing(**{**OFF, "horizon": 15})
    plain = played(scenario, rows=4, steps=15)
    moved = played(scenario, rows=4, steps=15, season=0.3, phase=0.2)
    for t in range(15):
        factor = 1 + 0.3 * math.sin(2 * math.pi * (t / 12 + 0.2))
        np.testing.assert_allclose(moved[t][0].hidden.worth, plain[t][0].hidden.worth * factor, rtol=1e-5)
        np.testing.assert_array_equal(moved[t][0].hidden.demand, plain[t][0].hidden.demand)


def test_weights_of_profit_and_volume() -> None:
    """worth = w_rev profit + w_vol units; with the same luck the reward is that of what was sold."""
    scenario = DynamicPricing(horizon=10, poisson=False)
    play = {
        weights: played(scenario, rows=6, steps=10, act=lambda t: 2 * t, w_rev=weights[0], w_vol=weights[1])
        for weights in ((1.0, 0.0), (0.0, 1.0), (2.0, 0.5), (0.0, 0.0))
    }
    for t in range(1, 11):
        (profit, first), (volume, second) = play[1.0, 0.0][t], play[0.0, 1.0][t]
        both, third = play[2.0, 0.5][t]
        np.testing.assert_allclose(both.hidden.worth, 2.0 * profit.hidden.worth + 0.5 * volume.hidden.worth, rtol=1e-5)
        np.testing.assert_allclose(third.reward, 2.0 * first.reward + 0.5 * second.reward, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(first.reward, first.info["profit"] / scenario.sales_unit, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(second.reward, second.info["volume"] / scenario.sales_unit, rtol=1e-6)
        assert (play[0.0, 0.0][t][1].reward == 0).all()


def test_the_stock_is_a_share_of_what_would_be_sold() -> None:
    """At the best price, held; memoryless, so that this is horizon x customers x its demand."""
    parameters = {**OFF, "families": CURVES, "horizon": 40}
    for share in (0.3, 1.2):
        scenario = DynamicPricing(**{**parameters, "stock": (share, share)})
        task = scenario.sample_task(make_rng("cpu", 3), 50)
        demand = played(scenario, rows=50, steps=0, **task._asdict())[0][0].hidden.demand.astype(np.float64)
        margin = scenario.ladder.paid - task.cost[:, None]
        best = demand[np.arange(50), (margin * demand).argmax(axis=1)]
        np.testing.assert_allclose(task.stock, share * 40 * 50.0 * best, atol=0.51)  # rounded to units
    assert (DynamicPricing(**{**parameters, "stock": 7}).sample_task(make_rng("cpu", 3), 5).stock == 7).all()
    assert (DynamicPricing(**parameters).sample_task(make_rng("cpu", 3), 5).stock == UNLIMITED).all()


def test_stock_cuts_the_sales_and_nothing_else() -> None:
    """Same luck: customers want the same, and get it while it lasts."""
    scenario = DynamicPricing(**{**OFF, "horizon": 20})
    free, scarce = (played(scenario, rows=8, steps=20, act=0, stock=units) for units in (UNLIMITED, 30))
    left = np.full(8, 30)
    for (one, _), (other, step) in zip(free[1:], scarce[1:], strict=True):
        np.testing.assert_array_equal(one.hidden.wanted, other.hidden.wanted)
        np.testing.assert_array_equal(one.seen.kept.sales, one.hidden.wanted)
        np.testing.assert_array_equal(other.seen.kept.sales, np.minimum(other.hidden.wanted, left))
        np.testing.assert_array_equal(step.info["stock_out"], other.hidden.wanted > left)
        left = left - other.seen.kept.sales
    assert (left == 0).all()


# --- what is known before the trial ----------------------------------------------------------------------------------
def test_errors_of_a_forecast() -> None:
    """log(told / true) is Gaussian with covariance noise^2 (1 + TILT^2 log x log x' + SPECK^2 1[same candidate]).

    The standard error of a covariance from 20,000 forecasts is at most sqrt(2 / 20,000) of the largest variance, 1 %:
    level, tilt or speck left out move an entry by 15 % of it and more.
    """
    noise, rows = 0.3, 20_000
    scenario = DynamicPricing(families=("exponential",), forecast=noise, purchase=(0.01, 0.02), horizon=5)
    drawn = scenario.sample_task(make_rng("cpu", 0), 1)
    same = {name: leaf[0] for name, leaf in drawn._asdict().items()}
    told = played(scenario, rows=rows, steps=0, **same)[0][0].seen.offer.forecast.astype(np.float64)
    quiet = DynamicPricing(families=("exponential",), forecast=0.0, purchase=(0.01, 0.02), horizon=5)
    state = played(quiet, steps=0, **same)[0][0]
    start = np.zeros(1, dtype=np.float32)
    held = quiet.held(state.task, state.hidden.pull, start + 1, start, start)
    truth = np.log(held * (quiet.customers / quiet.sales_unit))
    np.testing.assert_allclose(state.seen.offer.forecast, truth, rtol=1e-5, atol=1e-6)
    error = told - state.seen.offer.forecast
    paid = np.log(scenario.ladder.paid.astype(np.float64))
    known = noise**2 * (1.0 + TILT**2 * np.outer(paid, paid) + SPECK**2 * np.eye(21))
    tolerance = 4.5 * math.sqrt(2 / rows) * known.max()  # of 231 entries
    np.testing.assert_allclose(np.cov(error.T), known, rtol=0, atol=tolerance)
    assert (np.abs(error.mean(axis=0)) < 4.5 * np.sqrt(known.diagonal() / rows)).all()
    standard = error[:, 10] / error[:, 10].std()
    assert abs((standard**4).mean() - 3.0) < 4 * math.sqrt(96 / rows)  # Gaussian
    assert all(field.name != "forecast" for field in MEMORYLESS.layout.candidate)


def test_a_forecast_without_noise_of_a_memoryless_product_is_its_demand() -> None:
    scenario = DynamicPricing(**{**OFF, "forecast": 0.0})
    runner = Runner(scenario, 40, make_rng("cpu", 0))
    runner.restart()
    known = np.log(np.maximum(runner.state.hidden.demand * (scenario.customers / scenario.sales_unit), MIN_SALES))
    np.testing.assert_allclose(scenario.layout.get(runner.observation(), "forecast"), known, rtol=1e-5, atol=1e-6)


def test_an_embedding_is_an_affine_map_of_the_traits_and_noise() -> None:
    """Of log elasticity, purchase, lift and gain, each of mean 0 and sd 1; the noise has sd .5.

    20,000 products: 4 standard errors of the noise's sd are 2 %.
    """
    scenario, rows = DynamicPricing(embedding=6, elasticity=(2.62, 0.4, 0.2, 20.0)), 20_000
    runner = Runner(scenario, rows, make_rng("cpu", 0))
    runner.restart()
    task = runner.state.task
    special = np.stack([np.log(task.elasticity), task.purchase, task.lift, task.gain], axis=1).astype(np.float64)
    design = np.column_stack([np.ones(rows), special])
    told = traits(task, scenario.embedding).astype(np.float64)
    weights, *_ = np.linalg.lstsq(design, told, rcond=None)
    np.testing.assert_allclose(design @ weights, told, atol=1e-4)
    fixed = np.random.default_rng(EMBEDDING_SEED).standard_normal((4, 6)) / 2  # so that a number has variance 1
    np.testing.assert_allclose(weights[1:] * special.std(axis=0)[:, None], fixed, rtol=0.03)
    middle = np.asarray([1.0, math.log(2.62), 0.06, 0.225, 0.6])
    np.testing.assert_allclose(middle @ weights, 0.0, atol=1e-4)
    np.testing.assert_allclose(
        told.var(axis=0), ((special.std(axis=0)[:, None] * weights[1:]) ** 2).sum(axis=0), rtol=0.05
    )
    noise = runner.state.seen.offer.embedding - told
    error = EMBEDDING_NOISE / math.sqrt(rows)
    assert (np.abs(noise.mean(axis=0)) < 4 * error).all()
    assert (np.abs(noise.std(axis=0) - EMBEDDING_NOISE) < 4 * error / math.sqrt(2)).all()
    correlations = np.corrcoef(np.column_stack([noise, told]).T)[:6]
    correlations[np.arange(6), np.arange(6)] = 0.0
    assert (np.abs(correlations) < 4.5 / math.sqrt(rows)).all()
    np.testing.assert_array_equal(
        scenario.layout.get(runner.observation(), "embedding"), runner.state.seen.offer.embedding
    )
    assert all(field.name != "embedding" for field in MEMORYLESS.layout.context)


# --- the sampled demand ----------------------------------------------------------------------------------------------
@EACH_DEVICE
@pytest.mark.parametrize("poisson", [True, False])
def test_moments_of_what_customers_want(poisson: bool, device: str) -> None:
    """Poisson(M q) where their number is random, else Binomial(M, q); independent over decisions and rows.

    400,000 draws: 4 standard errors are .6 % of the mean and 1 % of the variance, which q = .3 tells apart by 30 %, and
    .006 of a correlation.
    """
    if device == "torch":
        pytest.importorskip("torch")
    rows, steps, q = 10_000, 40, 0.3
    scenario = DynamicPricing(**{**OFF, "poisson": poisson, "prices": (1.0,), "promotions": (NONE,), "horizon": steps})
    runner = Runner(scenario, rows, make_rng(device, 7), autoreset_mode="Disabled")
    runner.restart()
    task = {name: to_numpy(leaf).copy() for name, leaf in tree_items(runner.state.task)}
    task["purchase"][:] = q
    runner.restart(task=task)
    wanted, action = np.empty((steps, rows)), np.zeros(rows, dtype=np.int64)
    for t in range(steps):
        runner.step(action)
        wanted[t] = to_numpy(runner.state.hidden.wanted)
    mean, n = 50 * q, wanted.size
    variance = mean if poisson else mean * (1 - q)
    assert abs(wanted.mean() - mean) < 4 * math.sqrt(variance / n)
    assert wanted.var() == pytest.approx(variance, rel=4 * math.sqrt(2.1 / n))  # excess kurtosis below .1
    assert abs(np.corrcoef(wanted[1:].ravel(), wanted[:-1].ravel())[0, 1]) < 4 / math.sqrt(n)
    assert abs(np.corrcoef(wanted[:, 1:].ravel(), wanted[:, :-1].ravel())[0, 1]) < 4 / math.sqrt(n)
    assert poisson or wanted.max() <= 50


@pytest.mark.parametrize("poisson, customers", [(True, 50.0), (False, 50.0), (False, 1.4), (False, 0.3)])
def test_the_mean_reward_is_the_expected_one(poisson: bool, customers: float) -> None:
    """Everything on but the limit of stock; also where the mean number of customers is not whole.

    8,000 trials of 20 decisions: 4 standard errors are 2 % of the return, and 11 % with .3 customers, which rounding
    to the nearest whole number would move by 100 %, and 1.4 by 29 %.
    """
    scenario = DynamicPricing(
        stock=None, poisson=poisson, customers=customers, season=NONE, horizon=20, w_vol=(0.3, 0.3)
    )
    states = played(scenario, rows=8_000, steps=20, act=lambda t: (5 * t) % 21)
    gap = np.sum([step.reward - step.info["expected_reward"] for _, step in states[1:]], axis=0, dtype=np.float64)
    assert abs(gap.mean()) < 4 * gap.std() / math.sqrt(len(gap))


# --- all off ---------------------------------------------------------------------------------------------------------
@EACH_DEVICE
def test_all_off_is_the_memoryless_model_exactly(device: str) -> None:
    """Bit for bit: `shares` equals `pull` (of the logit its share), in every decision, whatever was done before."""
    if device == "torch":
        pytest.importorskip("torch")
    runner = Runner(DynamicPricing(**{**OFF, "horizon": 30}), 64, make_rng(device, 0), autoreset_mode="Disabled")
    runner.restart()
    task, odds = runner.state.task, to_numpy(runner.state.hidden.pull)
    assert set(to_numpy(task.family)) == {0, 1, 2, 3}
    logit = to_numpy(task.family) == FAMILIES.index("logit")
    known = np.where(logit[:, None], odds / (np.float32(1.0) + odds), np.minimum(odds, np.float32(1.0)))
    actions, worth = np.random.default_rng(0).integers(0, 21, (30, 64)), to_numpy(runner.state.hidden.worth)
    for action in actions:
        np.testing.assert_array_equal(to_numpy(runner.state.hidden.demand), known)
        np.testing.assert_array_equal(to_numpy(runner.state.hidden.worth), worth)
        runner.step(action)
    np.testing.assert_array_equal(to_numpy(runner.state.hidden.rival), 1.0)


SWITCHES: dict[
    str, tuple[Any, tuple[str, ...]]
] = {  # parameter: its off value, and the fields of the task that it rules
    "lift": (NONE, ("lift",)),
    "gain": (NONE, ("gain", "loss")),
    "dip": (NONE, ("dip",)),
    "rivals": ((), ("rival", "rival_price", "cross")),
    "season": (NONE, ("season", "phase")),
    "w_vol": (NONE, ("w_vol",)),
    "stock": (None, ("stock",)),
    "cost": (NONE, ("cost",)),
}


@pytest.mark.parametrize("name", SWITCHES)
def test_each_switch_leaves_the_rest_of_the_task_as_it_is(name: str) -> None:
    """Stock, a share of what would be sold, follows from the others."""
    off, fields = SWITCHES[name]
    full, without = (DynamicPricing(**given).sample_task(make_rng("cpu", 4), 50) for given in ({}, {name: off}))
    for field, leaf in full._asdict().items():
        same = np.array_equal(leaf, getattr(without, field))
        assert same != (field in fields) or field == "stock", field
    for field in {"lift", "gain", "loss", "dip", "cross", "season", "w_vol", "cost"} & set(fields):
        assert (getattr(without, field) == 0).all()


@pytest.mark.parametrize("name", ["lift", "gain", "dip", "rivals"])
def test_each_mechanism_alone_moves_demand(name: str) -> None:
    """And with its switch off nothing does: that is `test_all_off_is_the_memoryless_model_exactly`."""
    scenario = DynamicPricing(**{key: value for key, value in {**OFF, "horizon": 6}.items() if key != name})
    states = played(scenario, rows=40, steps=4, act=lambda t: (2, 18, 1, 9)[t])
    plain = played(
        MEMORYLESS, rows=40, steps=0, **states[0][0].task._replace(lift=0.0 * states[0][0].task.lift)._asdict()
    )
    if name == "lift":
        shown = scenario.ladder.display > 0
        assert (states[0][0].hidden.pull[:, shown] >= plain[0][0].hidden.pull[:, shown]).all()
        assert (states[0][0].hidden.pull[:, shown] > plain[0][0].hidden.pull[:, shown]).mean() > 0.9
        np.testing.assert_array_equal(states[0][0].hidden.pull[:, ~shown], plain[0][0].hidden.pull[:, ~shown])
    else:
        moved = np.abs(states[1][0].hidden.demand / np.maximum(states[0][0].hidden.demand, 1e-9) - 1.0).max(axis=1)
        assert (moved > 1e-4).mean() > (0.3 if name == "rivals" else 0.9)  # a static rival does not move


@EACH_CURVE
@pytest.mark.parametrize("time", [0, 4, 11])
def test_held_is_the_demand_at_the_mean_reference_price(family: str, time: int) -> None:
    """Mean of r_s over the decisions left, by the recursion; the follower is then that times his usual price."""
    scenario = DynamicPricing(horizon=12)
    fields = {"memory": 0.8, "gain": 0.5, "loss": 1.2, "dip": 0.1, "cross": 0.4, "rival": 2, "rival_price": 0.9}
    task = product(family, lift=0.2, table=np.ones((1, 21)), **fields)
    base, zero = pull(task, scenario.ladder), np.zeros(1)
    found = scenario.held(task, base, zero + 0.85, zero, zero + time)[0]
    for k in (0, 1, 10, 20):
        paid, reference, mean = float(scenario.ladder.paid[k]), 0.85, 0.0
        for _ in range(12 - time):
            mean += reference / (12 - time)
            reference = 0.8 * reference + 0.2 * paid
        one = np.ones((1, 1))
        promoted = one * bool(scenario.ladder.promoted[k])
        known = shares(task, base, scenario.ladder, mean * one, 0.9 * mean * one, promoted)[0, k]
        assert found[k] == pytest.approx(known, rel=1e-6)
