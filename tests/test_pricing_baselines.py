"""Policies for dynamic pricing: what they count, infer and draw, by hand and against other programs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import minimize

import recgym
from recgym.arrays import tree_items, tree_map
from recgym.baselines import ConstantPolicy, baselines_for, make_baseline
from recgym.baselines.policy import Reading
from recgym.baselines.pricing.curves import Curve, curve_features, learned_prior, vague
from recgym.baselines.pricing.particles import Particles
from recgym.baselines.pricing.policies import Tally
from recgym.baselines.pricing.units import units_of
from recgym.baselines.regression import laplace
from recgym.evaluation import TEST_SEED, rollout
from recgym.layout import decisions_left
from recgym.rng import make_rng
from recgym.runner import Runner
from recgym.scenarios.pricing import DynamicPricing
from recgym.scenarios.pricing.demand import shares

PRESETS = ("DynamicPricing-v0", "DynamicPricingFerreira-v0")
ALL = [(preset, name) for preset in PRESETS for name in baselines_for(recgym.make_scenario(preset))]
EACH = pytest.mark.parametrize(("preset", "name"), ALL)
NONE = (0.0, 0.0)
ROWS = 6


def short(preset: str) -> Any:
    """Few decisions, so that the stock runs out in some rows."""
    return recgym.make_scenario(preset, horizon=10, **({"stock": 3} if "Ferreira" in preset else {}))


def observed(scenario: Any, rows: int = ROWS, actions: Any = None, seed: int = 3, **task: Any) -> tuple[Any, list[Any]]:
    """Actions [T, B] and the T + 1 observations that they lead to."""
    runner = Runner(scenario, rows, make_rng("cpu", seed), autoreset_mode="Disabled")
    runner.restart()
    if task:
        drawn = dict(tree_items(runner.state.task))
        runner.restart(task=drawn | {name: np.broadcast_to(v, drawn[name].shape) + 0 for name, v in task.items()})
    if actions is None:
        actions = np.random.default_rng(seed).integers(0, scenario.layout.candidates, (scenario.horizon, rows))
    found = [runner.observation()]
    for action in np.asarray(actions):
        found.append(runner.step(action).observation)
    return np.asarray(actions), found


def as_seen(scenario: Any, observation: Any) -> Reading:
    def field(name: str) -> Any:
        return scenario.layout.get(observation, name).astype(np.float64)

    remaining = np.rint(decisions_left(field("remaining")))
    return Reading(field("chosen"), field("last_reward"), remaining, None, field, np.random.default_rng(0), False)


def remembered(policy: Any, observations: Any) -> Any:
    memory = None
    for observation in observations:
        _, memory = policy.predict(observation, memory)
    return memory


def learns(policy: Any) -> bool:
    return hasattr(policy, "_learn")


# --- the acting interface --------------------------------------------------------------------------------------------
def leaves(memory: Any) -> list[np.ndarray]:
    return [leaf for _, leaf in tree_items(memory)]


@EACH
def test_rows_are_independent_and_a_trial_begins_anew(preset: str, name: str) -> None:
    """What is remembered of a batch is what is remembered row by row; nothing is changed in place."""
    scenario = short(preset)
    policy = make_baseline(name, scenario)
    if not learns(policy):
        return
    _, observations = observed(scenario)
    memory = remembered(policy, observations)
    for i in range(ROWS):
        alone = remembered(policy, [observation[i] for observation in observations])
        for one, whole in zip(leaves(alone), leaves(memory), strict=True):
            np.testing.assert_allclose(one[0], whole[i], rtol=1e-6, atol=1e-6)
    kept, start = tree_map(np.array, memory), np.arange(ROWS) % 2 == 0
    fresh = policy.predict(observations[0])[1]
    mixed = policy.predict(observations[0], memory, start)[1]
    carried = policy.predict(observations[0], memory, np.zeros(ROWS, dtype=bool))[1]
    for new, old, keep in zip(*map(leaves, (mixed, fresh, carried)), strict=True):
        np.testing.assert_array_equal(new[start], old[start])
        np.testing.assert_array_equal(new[~start], keep[~start])
    tree_map(np.testing.assert_array_equal, memory, kept)


@EACH
def test_acting_alone_and_again(preset: str, name: str) -> None:
    """The same seed repeats the actions; one observation [D] gives one action, that of a batch of one."""
    scenario = short(preset)
    policy = make_baseline(name, scenario)
    found = []
    for _ in range(2):
        first = rollout(policy, scenario, trials=ROWS, seed=5)
        found.append((first.returns, first.actions))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_array_equal(found[0][1], found[1][1])
    if getattr(policy, "sees_state", False):
        return
    _, observations = observed(scenario, rows=1)
    actions: list[list[int]] = []
    for rows in (slice(None), 0):
        policy.reseed(1) if hasattr(policy, "reseed") else None
        memory, chosen = None, []
        for observation in observations:
            action, memory = policy.predict(observation[rows], memory)
            assert np.shape(action) == ((1,) if rows else ())
            chosen.append(int(np.ravel(action)[0]))
        actions.append(chosen)
    assert actions[0] == actions[1]


@EACH
def test_a_distribution_is_what_is_acted_on(preset: str, name: str) -> None:
    scenario = short(preset)
    policy, memory = make_baseline(name, scenario), None
    if not hasattr(policy, "distribution"):
        assert name in ("random", "constant", "informed", "best_fixed")
        return
    for t, observation in enumerate(observed(scenario)[1]):
        policy.reseed(t)
        probabilities, after = policy.distribution(observation, memory)
        policy.reseed(t)
        action, memory = policy.predict(observation, memory)
        np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-6)
        assert probabilities.dtype == np.float32 and (probabilities[np.arange(ROWS), action] > 0).all()
        tree_map(np.testing.assert_array_equal, after, memory)


@pytest.mark.parametrize(("preset", "name"), [case for case in ALL if case[1] != "meta_dp"])  # glm_ts but for a prior
def test_running_statistics_do_not_matter(preset: str, name: str) -> None:
    found = []
    for statistics in (True, False):
        scenario = recgym.make_scenario(preset, horizon=8, statistics=statistics)
        found.append(rollout(make_baseline(name, scenario), scenario, trials=8, seed=5).actions)
    np.testing.assert_array_equal(*found)


# --- counts ----------------------------------------------------------------------------------------------------------
CERTAIN = {"table": (1.0, 0.0, 0.5, 0.1, 0.0), "horizon": 5}


def test_sales_are_counted_while_there_is_stock() -> None:
    """Two units; the first price always sells. What sold the last unit, and what came after it, tells nothing."""
    scenario = recgym.make_scenario("DynamicPricingFerreira-v0", **CERTAIN, stock=2)
    _, observations = observed(scenario, 1, [[0], [1], [0], [0], [1]])
    policy = make_baseline("ts_update", scenario)
    memory: Any = None
    shown = [[0] * 5, [1, 0, 0, 0, 0], [1, 1, 0, 0, 0], *[[1, 1, 0, 0, 0]] * 3]
    for t, observation in enumerate(observations):
        memory = policy.predict(observation, memory)[1]
        assert isinstance(memory, Tally)
        np.testing.assert_array_equal(memory.shown, [shown[t]])
        np.testing.assert_array_equal(memory.sold, [[min(t, 1), 0, 0, 0, 0]])
        assert memory.time[0] == t and memory.supply[0] == pytest.approx(0.4)
        now = units_of(scenario, as_seen(scenario, observation))
        assert now.stock[0] == pytest.approx([2, 1, 1, 0, 0, 0][t], abs=1e-5)
        np.testing.assert_allclose(now.margin[0], np.asarray(scenario.prices) / 44.9, rtol=1e-6)


def test_a_drawn_demand_is_from_the_posterior() -> None:
    """After one sale at the first price and none at the second: Beta(2, 1) and Beta(1, 2), and 0 at the choke price.

    20,000 rows: 4 standard errors are .8 % of a unit.
    """
    from recgym.baselines.pricing.policies import drawn_demand

    scenario = recgym.make_scenario("DynamicPricingFerreira-v0", **CERTAIN, stock=5)
    shown, sold = np.zeros((2, 20_000, 5))
    shown[:, :2], sold[:, 0] = 1.0, 1.0
    memory = Tally(shown, sold, *np.ones((2, 20_000)))
    drawn = drawn_demand(scenario, memory, np.random.default_rng(0))
    np.testing.assert_allclose(drawn.mean(axis=0), [2 / 3, 1 / 3, 0.5, 0.5, 0.0], atol=0.0085)
    many = DynamicPricing(horizon=5)  # Gamma(1 + sold, 1 / unit + shown); a unit is 3 = 50 (.02 + .1) / 2
    memory = Tally(np.full((20_000, 21), 2.0), np.full((20_000, 21), 5.0), *np.ones((2, 20_000)))
    drawn = drawn_demand(many, memory, np.random.default_rng(0))
    assert drawn.mean() == pytest.approx(6 / (1 / 3 + 2), rel=0.005)
    assert drawn.var() == pytest.approx(6 / (1 / 3 + 2) ** 2, rel=0.02)


def test_besbes_zeevi_explores_then_follows_the_fluid_program() -> None:
    """27 decisions: 9 of exploring, 2 for each of 4 prices. Then prices by the mean sales, the cheaper first."""
    scenario = recgym.make_scenario("DynamicPricingFerreira-v0", table=(1.0, 1.0, 0.0, 0.0, 0.0), horizon=27, stock=14)
    policy, runner, memory = make_baseline("besbes_zeevi", scenario), Runner(scenario, 1, make_rng("cpu", 0)), None
    runner.restart()
    actions = []
    for _ in range(27):
        action, memory = policy.predict(runner.observation(), memory)
        actions.append(int(action[0]))
        runner.advance(action)
    assert actions[:8] == [0, 0, 1, 1, 2, 2, 3, 3]
    # demand (1, 1, 0, 0) and a supply of 14/27: the second price for 14/27 of the 19 that are left, 9.85, then none
    assert actions[8:18] == [1] * 10 and set(actions[18:]) <= {2, 3, 4}


def test_linear_demand_by_hand() -> None:
    """Ridge regression with weight .1, shrunk to one sales unit whatever the price, against the normal equations."""
    scenario = DynamicPricing(horizon=6, stock=None)
    actions, observations = observed(scenario, 4)
    policy = make_baseline("linear_demand", scenario, explore=0.0)
    memory = remembered(policy, observations)
    ladder, unit = scenario.ladder, scenario.sales_unit
    for b in range(4):
        x = np.stack([np.ones(6), ladder.paid[actions[:, b]] - 1.0, ladder.display[actions[:, b]]], axis=1)
        sold = [o[b] * unit for o in (scenario.layout.get(seen, "last_sales") for seen in observations[1:])]
        root = np.sqrt(0.1)
        rows, targets = np.vstack([x, root * np.eye(3)]), np.concatenate([sold, [root * unit, 0, 0]])
        weights = np.linalg.lstsq(rows, targets, rcond=None)[0]
        demand = np.maximum(weights[0] + weights[1] * (ladder.paid - 1) + weights[2] * ladder.display, 0)
        seen = as_seen(scenario, observations[-1])
        margin = units_of(scenario, seen).margin[b]
        assert policy._index(memory, seen)[b].argmax() == (margin * demand).argmax()


# --- the Poisson regression ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("forecast", [None, 0.3])
def test_the_laplace_step_finds_the_mode(forecast: float | None) -> None:
    """Two updates, against a numerical optimum of the log posterior and the inverse of its curvature there."""
    scenario = DynamicPricing(horizon=3, stock=500, forecast=forecast)
    actions, observations = observed(scenario, 5)
    policy, memory = make_baseline("glm_ts", scenario), None
    (mean,), covariance = vague(scenario)
    means, covariances = np.tile(mean, (5, 1)), np.tile(covariance, (5, 1, 1))
    for t in range(3):
        memory = policy.predict(observations[t], memory)[1]
        assert isinstance(memory, Curve)
        np.testing.assert_allclose(memory.mean, means, atol=2e-4)
        np.testing.assert_allclose(memory.covariance, covariances, atol=2e-4)
        features = curve_features(scenario, as_seen(scenario, observations[t]))
        if t == 2:
            break
        sold = scenario.layout.get(observations[t + 1], "last_sales").reshape(5) * scenario.sales_unit
        for b in range(5):
            x, y = features[b, actions[t, b]], float(sold[b])
            first, inverse = means[b].copy(), np.linalg.inv(covariances[b])

            def loss(w: Any, x: Any = x, y: float = y, m: Any = first, inverse: Any = inverse) -> Any:
                rate = scenario.sales_unit * np.exp(w @ x)
                return rate - y * (w @ x) + 0.5 * (w - m) @ inverse @ (w - m), (rate - y) * x + inverse @ (w - m)

            means[b] = minimize(loss, first, jac=True, method="BFGS", options={"gtol": 1e-8}).x
            rate = scenario.sales_unit * np.exp(means[b] @ x)
            covariances[b] = np.linalg.inv(inverse + rate * np.outer(x, x))


@pytest.mark.parametrize("outcome", [0.0, 3.0, 2e6])
@pytest.mark.parametrize("start", [-2.0, 2.0])
def test_the_laplace_step_finds_the_mode_at_any_scale(start: float, outcome: float) -> None:
    """A million units expected or sold: the mode is m + g S x, where g + response there crosses the outcome."""
    mean, covariance, x = np.array([[start, 0.0]]), np.array([[[4.0, 0.5], [0.5, 2.0]]]), np.array([[1.0, 0.3]])

    def response(predictor: np.ndarray) -> np.ndarray:
        return 1e6 * np.exp(np.clip(predictor, -30.0, 30.0))

    found, _ = laplace(mean, covariance, x, np.array([[outcome]]), response, lambda rate: rate, 60)
    moved = (covariance @ x[..., None])[..., 0]
    g, variance = ((found - mean) / moved).mean(), (x * moved).sum()
    below, above = (at + response(start + variance * at) - outcome for at in (g - 1e-6, g + 1e-6))
    assert below < 0 < above


def test_features_by_hand() -> None:
    scenario = DynamicPricing(horizon=4)
    _, observations = observed(scenario, 1, [[0], [4]])  # .7; .8 with a coupon
    found = curve_features(scenario, as_seen(scenario, observations[-1]))[0]
    field = as_seen(scenario, observations[-1]).field
    reference = field("reference")[0]
    for k in (0, 10, 20):
        paid, told = scenario.ladder.paid[k], field("forecast")[0, k]
        gap = reference - paid
        rival = np.log(field("rival")[0])
        known = [1, np.log(paid), scenario.ladder.display[k], max(gap, 0), min(gap, 0), 1, rival, told]
        np.testing.assert_allclose(found[k], known, rtol=1e-5, atol=1e-7)


def test_a_learned_prior_recovers_the_distribution_of_the_products() -> None:
    """Products of constant elasticity, for which the regression is the true model: log purchase and elasticity.

    500 products: 4 standard errors are 18 % of a standard deviation for the mean, and 13 % for the standard deviation.
    """
    scenario = DynamicPricing(
        families=("constant",), elasticity=(2.5, 0.2, 0.5, 10.0), purchase=(0.05, 0.15), lift=(0.3, 0.3), gain=NONE,
        dip=NONE, rivals=(), season=NONE, stock=None, forecast=None, embedding=0, customers=400.0, horizon=40,
    )  # fmt: skip
    (mean,), covariance = learned_prior(scenario)
    spread = np.sqrt(covariance.diagonal())
    purchase = np.log(np.random.default_rng(0).uniform(0.5, 1.5, 100_000))
    elasticity = np.exp(np.log(2.5) + 0.2 * np.random.default_rng(1).standard_normal(100_000))
    for i, known in ((0, purchase), (1, -elasticity)):
        assert abs(mean[i] - known.mean()) < 0.25 * known.std()
        assert spread[i] == pytest.approx(known.std(), rel=0.25)
    assert mean[2] == pytest.approx(np.log(1.3), abs=0.05) and spread[2] < 0.1


# --- particles -------------------------------------------------------------------------------------------------------
QUIET: dict[str, Any] = {"embedding": 0, "forecast": None, "stock": None}


@pytest.mark.parametrize("poisson", [True, False])
def test_likelihoods_are_those_of_scipy(poisson: bool) -> None:
    """Of every particle, up to a constant per row, from the equations of demand."""
    scenario = DynamicPricing(**QUIET, poisson=poisson, season=NONE if not poisson else (0.0, 0.4), horizon=5)
    actions, observations = observed(scenario, 4)
    belief = Particles(scenario, 30)
    memory: Any = belief.start(4)
    known, usual = np.zeros((4, 30)), np.ones((4, 30), dtype=bool)
    before: Any = None
    for t, observation in enumerate(observations):
        seen = as_seen(scenario, observation)
        memory = belief.learn(memory, seen)
        if t:
            sold = np.rint(seen.field("last_sales") * scenario.sales_unit)
            for b in range(4):
                flat = np.ones((30, 1))
                after = float(scenario.ladder.promoted[actions[t - 2, b]]) if t > 1 else 0.0
                reference, rival = before.field("reference")[b] * flat, seen.field("rival")[b] * flat
                share = shares(belief.task, belief.pull, scenario.ladder, reference, rival, after * flat)
                q = np.clip(share[:, actions[t - 1, b]], 1e-7, 1.0 - 1e-6)
                usual[b] &= (q > 1e-7) & (q < 0.99)  # at the limits what cannot be is merely unlikely
                if poisson:
                    come = 50.0 * (1 + belief.task.season * before.field("season_sin")[b])
                    known[b] += stats.poisson.logpmf(sold[b], q * come)
                else:
                    known[b] += stats.binom.logpmf(sold[b], 50, q)
        gap = memory.weight - known
        middle = np.asarray([row[mask].mean() for row, mask in zip(gap, usual, strict=True)])
        np.testing.assert_allclose((gap - middle[:, None])[usual], 0.0, atol=2e-3)
        before = seen
    assert usual.mean() > 0.7


def test_the_posterior_concentrates_on_the_product_that_is_sold() -> None:
    """24 products of one family, 60 decisions at random prices, 2,000 customers each; each product played 5 times."""
    scenario = DynamicPricing(**QUIET, families=("exponential",), rivals=(), customers=2000.0)
    belief = Particles(scenario, 24)
    true = np.repeat(np.arange(24), 5)
    task = {name: leaf[true] for name, leaf in tree_items(belief.task)}
    runner = Runner(scenario, 120, make_rng("cpu", 3), autoreset_mode="Disabled")
    runner.restart()
    runner.restart(task=task)
    rng, memory = np.random.default_rng(0), belief.start(120)
    for t in range(60):
        memory = belief.learn(memory, as_seen(scenario, runner.observation()))
        if t == 0:
            np.testing.assert_array_equal(memory.weight, 0.0)  # nothing is known before the first sales
        runner.advance(rng.integers(0, 21, 120))
    assert (memory.weight.argmax(axis=1) == true).mean() > 0.95
    seen = as_seen(scenario, runner.observation())
    drawn = np.stack(list(belief.draw(memory, seen, 20)))
    assert (drawn == true).mean() > 0.9


@pytest.mark.parametrize("known", ["forecast", "embedding", "stock"])
def test_what_is_told_before_the_trial_is_used(known: str) -> None:
    """The true product is among the likelier half of 40 in most of 200 trials; by chance in half of them."""
    on = {"forecast": {"forecast": 0.3}, "embedding": {"embedding": 4}, "stock": {"stock": (0.5, 0.6)}}
    scenario = DynamicPricing(**{**QUIET, **on[known]}, purchase=(0.02, 0.3))
    belief = Particles(scenario, 40)
    true = np.arange(200) % 40
    runner = Runner(scenario, 200, make_rng("cpu", 3))
    runner.restart()
    runner.restart(task={name: leaf[true] for name, leaf in tree_items(belief.task)})
    weight = belief.learn(belief.start(200), as_seen(scenario, runner.observation())).weight
    own = weight[np.arange(200), true][:, None]
    rank = (weight > own).sum(axis=1) + 0.5 * (weight == own).sum(axis=1)  # ties count half
    assert (rank < 20).mean() > 0.8  # 8 standard errors above one half
    assert rank.mean() < 12


# --- policies that know the task -------------------------------------------------------------------------------------
def test_the_best_fixed_candidate_is_as_good_as_every_constant() -> None:
    """On average over 500 trials, within 2 standard errors of the paired difference; the stock is scarce."""
    scenario = DynamicPricing(prices=(0.8, 1.0, 1.2), promotions=(NONE, (0.15, 1.0)), stock=(0.2, 0.5), horizon=30)
    best = rollout(make_baseline("best_fixed", scenario), scenario, trials=500, seed=TEST_SEED)
    np.testing.assert_array_equal(best.actions, np.tile(best.actions[:, :1], (1, 30)))  # held
    constants = []
    for action in range(6):
        one = rollout(ConstantPolicy(scenario, action), scenario, trials=500, seed=TEST_SEED).returns
        constants.append(one.mean())
        gap = best.returns - one
        assert gap.mean() > -2 * gap.std() / np.sqrt(500)
    assert best.returns.mean() > 1.01 * max(constants)


def test_the_exact_plan_where_promotions_sell_to_all_and_stock_is_endless() -> None:
    """Demand is cut at one customer, and no more stock matters than decisions; 300 trials: a standard error of .2 %."""
    given: dict[str, Any] = {"promotions": [(0.0, 0.0), (0.3, 1.0)], "lift": (10.0, 10.0)}
    table = (0.05, 0.05, 0.045, 0.045, 0.5, 0.5, 0.1, 0.1, 0.0, 0.0)
    means = {}
    for stock in (25, 10**8):
        scenario = recgym.make_scenario("DynamicPricingFerreira-v0", **given, table=table, stock=stock)
        for name in ("exact", "informed"):
            means[name] = rollout(make_baseline(name, scenario), scenario, trials=300, seed=1).returns.mean()
        assert means["exact"] > 0.995 * means["informed"]


def test_the_exact_plan_refuses_what_it_cannot_play() -> None:
    with pytest.raises(ValueError, match="exact cannot play this DynamicPricing: it needs one product"):
        make_baseline("exact", recgym.make_scenario("DynamicPricing-v0"))
