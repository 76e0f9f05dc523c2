"""Campaigns: every mechanism against its closed form, budgets and counts for any actions, bad parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import integrate, special, stats

import recgym
from recgym.arrays import tree_map
from recgym.baselines import make_baseline
from recgym.catalog import Catalog
from recgym.cli.result_pages import policies_table
from recgym.evaluation import evaluate
from recgym.evaluation.report import compare, print_table
from recgym.live import LiveSession
from recgym.rng import NumpyRng, make_rng
from recgym.runner import Runner
from recgym.scenarios.ads import Bidding, Placement
from recgym.scenarios.ads.auctions import AUCTIONS, auction, normal_cdf, per_win
from recgym.scenarios.ads.campaign import share_over
from recgym.scenarios.ads.campaigns import CAMPAIGNS
from recgym.scenarios.ads.creatives import draw_embedding, draw_logits
from recgym.scenarios.ads.delays import Delays
from recgym.testing import check_scenario

PLAIN: dict[str, Any] = {
    "conversion_value": 0.0,
    "fatigue": (0.0, 0.0),
    "drift": 0.0,
    "change": 0.0,
    "launch": 0.0,
    "reaction": (0.0, 0.0),
    "price_walk": 0.0,
    "day_factor": 0.0,
}
QUIET: dict[str, Any] = {
    "conversion_value": 0.0,
    "reaction": (0.0, 0.0),
    "price_walk": 0.0,
    "price_wave": 0.0,
    "traffic": 0.0,
}
BOTH = {"AdPlacement-v0": Placement, "AdBidding-v0": Bidding}
SIZE = {"horizon": 20, "creatives": 4}
OPTIONS: dict[str, tuple[type, dict[str, Any]]] = {
    "placement": (Placement, {}),
    "plain": (Placement, PLAIN),
    "one slot": (Placement, {"profile": (1.0,)}),
    "real": (Placement, {"campaign": "2997", "prediction": None}),
    "weighed": (Placement, {"weights": {"clicks": 1.0, "over_cap": [0.0, 0.5], "excess_cost": 1e-4}}),
    "drawn value": (Placement, {"weights": {"value": [0.5, 1.0]}}),
    "catalog": (Placement, {"catalog": Catalog(np.random.default_rng(0).standard_normal((9, 3)))}),
    "tastes": (
        Placement,
        {"catalog": Catalog(np.random.default_rng(0).standard_normal((9, 3)), tastes=np.eye(3))},
    ),
    "one delay": (Placement, {"delays": ((1.0, 3.0),)}),
    "bidding": (Bidding, {}),
    "first price": (Bidding, {"auction": "first"}),
    "quiet": (Bidding, QUIET),
    "no zero": (Bidding, {"levels": (0.5, 1.0), "parts": 1}),
}


def started(scenario: Any, rows: int, seed: Any = 5) -> Runner:
    runner = Runner(scenario, rows, make_rng("cpu", seed), autoreset_mode="Disabled")
    runner.restart()
    return runner


def alike(scenario: Any, rows: int, **changed: Any) -> Runner:
    """Rows that play the same task, of which some fields are changed."""
    task = scenario.sample_task(NumpyRng(3), 1)
    task = tree_map(lambda leaf: np.repeat(leaf, rows, axis=0), task)
    fields = {name: np.broadcast_to(value, getattr(task, name).shape).copy() for name, value in changed.items()}
    runner = Runner(scenario, rows, make_rng("cpu", 7), autoreset_mode="Disabled")
    runner.restart(task=task._replace(**{n: f.astype(getattr(task, n).dtype) for n, f in fields.items()}))
    return runner


def near(found: np.ndarray, wanted: float, errors: float = 4.0) -> None:
    """The mean of `found` [N] is `wanted`, to 4 of its standard errors: a right one fails once in 16,000 times."""
    assert abs(found.mean() - wanted) <= errors * found.std() / np.sqrt(len(found)) + 1e-6 * abs(wanted), (
        found.mean(),
        wanted,
        found.std() / np.sqrt(len(found)),
    )


# --- the contract ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", OPTIONS)
def test_it_keeps_the_contract(name: str) -> None:
    kind, parameters = OPTIONS[name]
    check_scenario(kind(**SIZE, **parameters), trials=64)


@pytest.mark.parametrize(
    ("kind", "parameters", "named"),
    [
        (Placement, {"campaign": "1"}, "campaign must be one of 1458"),
        (Placement, {"budget": (0.0, 1.0)}, r"budget must be two numbers \[least, most\] in"),
        (Placement, {"budget": (-1.0, 1.0)}, "budget must be"),
        (Placement, {"base_rate": (0.0, 0.1)}, "base_rate must be"),
        (Placement, {"base_rate": (0.1, 1.5)}, "base_rate must be"),
        (Placement, {"conversion_rate": 1.0}, "conversion_rate must be"),
        (Placement, {"change": 1.5}, "change must be"),
        (Placement, {"delays": ((0.5, 1.0), (0.4, 2.0))}, "whose weights add up to 1"),
        (Placement, {"delays": ()}, "delays must be"),
        (Placement, {"delays": ((1.0, 0.0),)}, "delays must be"),
        (Placement, {"creatives": 0}, "creatives must be"),
        (Placement, {"profile": ()}, "profile must be 1 to"),
        (Placement, {"profile": (1.0, float("nan"))}, "profile must be"),
        (Placement, {"prediction": (1.0,)}, "prediction must be"),
        (Placement, {"catalog": Catalog(np.eye(3))}, "creatives must be at most the number of the catalog's items, 3"),
        (Bidding, {"levels": (1.0, 1.0)}, "levels must be"),
        (Bidding, {"levels": (0.0, float("nan"))}, "levels must be"),
        (Bidding, {"levels": (-1.0, 1.0)}, "levels must be"),
        (Bidding, {"auction": "third"}, "auction must be one of second, first"),
    ],
)
def test_bad_parameters(kind: type, parameters: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        kind(**parameters)


def test_campaigns_are_the_defaults_ends() -> None:
    """The default draws between the least and the most of the nine."""
    rates = [real.click_rate for real in CAMPAIGNS.values()]
    default = Placement()
    assert len(CAMPAIGNS) == 9
    assert default.base_rate == pytest.approx((min(rates), max(rates)), rel=0.02)
    spans = {"log_price": "log_price", "price_spread": "spread"}
    for name, field in spans.items():
        values = [getattr(real, field) for real in CAMPAIGNS.values()]
        assert getattr(default, name) == (min(values), max(values))


@pytest.mark.parametrize("name", CAMPAIGNS)
def test_a_real_campaign_fixes_rates_and_prices(name: str) -> None:
    task = Placement(campaign=name).sample_task(NumpyRng(0), 50)
    real = CAMPAIGNS[name]
    np.testing.assert_allclose(np.exp(task.base), real.click_rate, rtol=1e-5)
    np.testing.assert_allclose(task.sigma, real.spread, rtol=1e-6)
    np.testing.assert_allclose(task.bid, real.log_price, rtol=1e-6)
    day = Bidding(campaign=name).sample_task(NumpyRng(0), 50)
    np.testing.assert_allclose(day.sigma, real.spread, rtol=1e-6)


# --- auctions --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", AUCTIONS)
@pytest.mark.parametrize(("mean", "spread", "bid"), [(0.0, 0.84, 0.7), (0.3, 1.19, 2.0), (-0.4, 1.0, 0.35)])
def test_auctions_have_their_closed_forms(kind: str, mean: float, spread: float, bid: float) -> None:
    """Against the integral over the highest rival bid."""
    found = auction(kind, np.array([np.log(bid)]), np.array([mean]), np.array([spread]))
    law = stats.lognorm(spread, scale=np.exp(mean))

    def moment(power: int) -> float:
        pays = (lambda p: p) if kind == "second" else (lambda p: bid)
        return integrate.quad(lambda p: pays(p) ** power * law.pdf(p), 0.0, bid)[0]

    for power, value in enumerate(found):
        assert value[0] == pytest.approx(moment(power), rel=1e-6)
    average, variance = per_win(found)
    assert average[0] == pytest.approx(moment(1) / moment(0), rel=1e-6)
    assert variance[0] == pytest.approx(max(moment(2) / moment(0) - (moment(1) / moment(0)) ** 2, 0.0), abs=1e-6)


def test_normal_cdf_on_torch() -> None:
    torch = pytest.importorskip("torch")
    x = np.linspace(-8.0, 8.0, 101, dtype=np.float32)
    np.testing.assert_allclose(normal_cdf(torch.from_numpy(x)).numpy(), special.ndtr(x), rtol=1e-5, atol=1e-12)


def test_a_packet_wins_and_pays_as_quoted() -> None:
    """20,000 packets of one campaign: wins, spending and their spread are those of the closed forms."""
    runner = alike(Placement(**PLAIN), 20_000, budget=1e9)
    state = runner.state
    step = runner.step(np.full(20_000, 2))
    volume, price = (leaf[0, 2] for leaf in (state.seen.offer.volume, state.seen.offer.price))
    feedback_wins = runner.state.seen.kept.won * runner.scenario.base_wins(state.task.base)
    near(feedback_wins, volume)
    near(step.info["spend"], volume * price)
    law = auction("second", state.task.bid, state.task.log_price[:, 2], state.task.sigma)
    second_moment = law.square[0] / law.win[0] * 1e-6  # of one payment; a Poisson sum has it times the mean count
    assert step.info["spend"].var() == pytest.approx(volume * second_moment, rel=0.05)
    offered = 2.0 * runner.scenario.base_wins(state.task.base)[0] * runner.scenario.profile[2]
    assert volume == pytest.approx(offered * law.win[0], rel=1e-5)
    near(step.info["clicks"], volume / (1.0 + np.exp(-state.task.logit[0, 0, 2])))


@pytest.mark.parametrize("kind", AUCTIONS)
def test_a_level_wins_and_pays_as_its_auctions_say(kind: str) -> None:
    runner = alike(Bidding(auction=kind, **QUIET), 20_000, budget=1e9)
    state, level = runner.state, 5
    log_price = runner.scenario.log_price(state)
    np.testing.assert_allclose(log_price, log_price[0], rtol=1e-6)  # nothing is drawn where all is off
    step = runner.step(np.full(20_000, level))
    law = auction(kind, np.log(np.float32(1.4)), log_price, state.task.sigma)
    auctions = runner.scenario.traffic_at(state.task, state.seen.time)[0]
    near(step.info["spend"], auctions * law.cost[0])
    assert step.info["spend"].var() == pytest.approx(auctions * law.square[0], rel=0.05)
    near(runner.state.seen.kept.offered * runner.scenario.base_wins(state.task.base), auctions)
    near(runner.state.seen.kept.tally.won * runner.scenario.base_wins(state.task.base), auctions * law.win[0])


# --- creatives -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("which", ["now", "changed"])
def test_logits_have_the_spreads_of_their_parts(which: str) -> None:
    """Variance of a cell, and covariances within a creative and within a slot, of 40,000 campaigns."""
    scenario = Placement(creatives=2, profile=(1.0, 1.0), base_rate=(1e-3, 1e-3))
    rng = NumpyRng(1)
    base = np.full(40_000, np.log(1e-3), dtype=np.float32)
    embedding = draw_embedding(scenario, rng, 40_000)
    logit = getattr(draw_logits(scenario, base, embedding, rng), which) - base[:, None, None]
    u, w, w_s, g, d, x = (
        getattr(scenario, name) ** 2
        for name in ("level", "taste", "taste_by_slot", "slot_effect", "creative_effect", "cell_effect")
    )
    assert logit.var() == pytest.approx(u + w + w_s + g + d + x, rel=0.03)  # |e|^2 is 1 on average
    cells = logit.reshape(-1, 4)
    covariance = np.cov(cells.T)
    assert covariance[0, 1] == pytest.approx(u + w + d, abs=0.015)  # one creative, two slots
    assert covariance[0, 2] == pytest.approx(u + g, abs=0.015)  # two creatives, one slot
    assert covariance[0, 3] == pytest.approx(u, abs=0.015)


def test_predictions_are_as_wrong_as_told() -> None:
    runner = started(Placement(prediction=(0.3, 1.0)), 5_000)
    task, offer = runner.state.task, runner.state.seen.offer
    error = offer.predicted - (task.logit - task.base[:, None, None])
    assert error.var() == pytest.approx(0.3**2 + 1.0, rel=0.02)
    assert error.mean(axis=(1, 2)).var() == pytest.approx(0.3**2 + 1.0 / 48, rel=0.08)
    none = started(Placement(prediction=None), 3).state.seen.offer.predicted
    assert not none.any()


def test_creatives_are_rows_of_the_catalog_each_another() -> None:
    table = np.random.default_rng(0).standard_normal((9, 3))
    scenario = Placement(creatives=8, catalog=Catalog(table))
    found = started(scenario, 50).state.seen.offer.embedding
    rows = table / np.linalg.norm(table, axis=1, keepdims=True)
    match = np.isclose(found[:, :, None], rows[None, None], atol=1e-6).all(axis=3)  # [50, 8, 9]
    assert (match.sum(axis=2) == 1).all()
    assert (match.sum(axis=1) <= 1).all()


# --- delays ----------------------------------------------------------------------------------------------------------
def test_pools_are_a_simulation_of_every_event() -> None:
    """2,000 clicks a day convert late, for 60 days: mean and variance of what comes each day, against single events."""
    law, rows, horizon = Delays((0.3, 0.7), (0.6, 11.0)), 4_000, 60
    rng, events = NumpyRng(0), np.random.default_rng(0)
    waiting = np.zeros((rows, 1, 2), dtype=np.int64)
    pools, single = np.zeros((rows, horizon)), np.zeros((rows, horizon))
    for t in range(horizon):
        rng.rekey(2, t)
        fresh = events.binomial(40, 0.05, rows)
        waiting[:, 0] += np.stack(law.by_class(fresh, rng), axis=1)
        come = law.revealed(waiting, rng)
        waiting -= come
        pools[:, t] = come.sum(axis=(1, 2))
        row = np.repeat(np.arange(rows), events.binomial(40, 0.05, rows))
        mean = np.asarray(law.means)[(events.random(len(row)) > law.weights[0]).astype(int)]
        day = t + np.floor(events.exponential(mean)).astype(int)
        np.add.at(single, (row[day < horizon], day[day < horizon]), 1)
    assert pools.sum(axis=1).mean() == pytest.approx(single.sum(axis=1).mean(), rel=0.005)
    assert pools.sum(axis=1).var() == pytest.approx(single.sum(axis=1).var(), rel=0.1)
    for t in (0, 1, 5, 20, 59):
        assert pools[:, t].mean() == pytest.approx(2.0 * float(law.matured(np.float64(t + 1))), rel=0.05)
        assert pools[:, t].mean() == pytest.approx(single[:, t].mean(), rel=0.05)
        assert pools[:, t].var() == pytest.approx(single[:, t].var(), rel=0.15)


@pytest.mark.parametrize("env_id", BOTH)
def test_mature_clicks_tell_the_conversions_to_expect(env_id: str) -> None:
    """Revealed conversions have the mean rate x mature, creative by creative, whatever was bought."""
    scenario = recgym.make_scenario(env_id)
    runner, rng = started(scenario, 3_000), np.random.default_rng(2)
    for _ in range(scenario.horizon):
        runner.step(rng.integers(0, scenario.action_space.n, 3_000))
    kept = runner.state.seen.kept
    tally = kept if env_id == "AdPlacement-v0" else kept.tally
    gap = (tally.revealed - runner.state.task.rate * tally.mature).sum(axis=1)
    near(gap, 0.0)
    assert tally.revealed.mean() > 0.3


# --- what moves over a trial -----------------------------------------------------------------------------------------
def test_fatigue_is_the_closed_form() -> None:
    """One creative shown n times at a budget without end: x = dose packets (1 - rho^n) / (1 - rho)."""
    scenario = Placement(**{**PLAIN, "fatigue": (0.1, 0.1)})
    runner = alike(scenario, 4, budget=1e12)
    quoted = runner.state.seen.offer.volume[0, 3] / scenario.base_wins(runner.state.task.base)[0]
    first = runner.step(np.full(4, 3)).info["expected_reward"][0]
    for _ in range(9):
        last = runner.step(np.full(4, 3)).info["expected_reward"][0]
    rho = scenario.fatigue_memory
    worn = scenario.dose * quoted * (1.0 - rho**10) / (1.0 - rho)
    np.testing.assert_allclose(runner.state.hidden.worn[:, 0], worn, rtol=1e-5)
    assert not runner.state.hidden.worn[:, 1:].any()
    logit, before = runner.state.task.logit[0, 0, 3], scenario.dose * quoted * (1.0 - rho**9) / (1.0 - rho)
    ratio = special.expit(logit - 0.1 * before) / special.expit(logit)
    assert last / first == pytest.approx(ratio, rel=1e-4)


@pytest.mark.parametrize("mean", [0.05, 1.0, 4.0, 20.0])
@pytest.mark.parametrize("cap", [1, 4, 9])
def test_share_beyond_the_cap_is_the_closed_form(mean: float, cap: int) -> None:
    """m P(c, m) - c P(c + 1, m) of the regularised lower gamma function, over m; and the sum over a Poisson law."""
    beyond = mean * special.gammainc(cap, mean) - cap * special.gammainc(cap + 1, mean)
    count = np.arange(200)
    direct = (np.maximum(count - cap, 0) * stats.poisson(mean).pmf(count)).sum()
    assert beyond == pytest.approx(direct, rel=1e-6, abs=1e-12)
    assert share_over(np.array([mean]), cap)[0] == pytest.approx(beyond / mean, rel=1e-5, abs=1e-7)


def test_change_points_come_as_often_and_where_they_should() -> None:
    scenario = Placement(change=0.2)
    task = scenario.sample_task(NumpyRng(0), 20_000)
    changes = task.change < scenario.horizon
    near(changes.astype(float), 0.2)
    when = task.change[changes]
    assert when.min() == 10
    assert when.max() == 49
    near(when.astype(float), 29.5)
    np.testing.assert_array_equal(task.changed[~changes], task.logit[~changes])
    moved = (task.changed - task.logit)[changes]
    parts = sum(getattr(scenario, n) ** 2 for n in ("taste", "taste_by_slot", "slot_effect", "creative_effect"))
    assert moved.var() == pytest.approx(((1.0 - np.sqrt(0.5)) ** 2 + 0.5) * parts, rel=0.05)


def test_logits_change_at_the_change_point() -> None:
    runner = alike(Placement(**{**PLAIN, "change": 1.0}), 2, change=12)
    task, scenario = runner.state.task, runner.scenario
    drift = np.zeros((2, 8), dtype=np.float32)
    for time, wanted in ((11.0, task.logit), (12.0, task.changed)):
        np.testing.assert_array_equal(scenario.logits_at(task, np.full(2, time, dtype=np.float32), drift), wanted)
    assert (task.logit != task.changed).all()


def test_launches_come_as_often_and_where_they_should() -> None:
    task = Placement(launch=0.125).sample_task(NumpyRng(0), 20_000)
    assert not task.launch[:, 0].any()
    near((task.launch[:, 1:] > 0).mean(axis=1), 0.125)
    late = task.launch[task.launch > 0]
    assert late.min() == 5
    assert late.max() == 39


def test_nothing_is_bought_of_what_is_not_yet_launched() -> None:
    runner = alike(Placement(launch=1.0), 200, launch=np.array([0, *[7] * 7]))
    for t in range(10):
        step = runner.step(np.full(200, 47))
        there = t >= 7
        assert (step.info["spend"] > 0).all() if there else not step.info["spend"].any()
        assert step.info["clicks"].any() == there
        assert (step.info["expected_reward"] > 0).all() if there else not step.info["expected_reward"].any()


@pytest.mark.parametrize("name", ["drift", "price_walk"])
def test_walks_have_their_step(name: str) -> None:
    """Variance after 30 decisions, of 2,000 campaigns; 0 is off."""
    for step in (0.03, 0.0):
        runner = started(Placement(**{**PLAIN, name: step}), 2_000)
        for _ in range(30):
            runner.step(np.zeros(2_000, dtype=np.int64))
        found = getattr(runner.state.hidden, "drift" if name == "drift" else "walk")
        assert found.var() == pytest.approx(30 * step**2, rel=0.05, abs=1e-12)


def test_days_have_a_mean_of_one() -> None:
    runner = started(Placement(), 20_000)
    near(runner.state.hidden.traffic, 1.0)
    assert np.log(runner.state.hidden.traffic).std() == pytest.approx(0.1, rel=0.03)


def test_rivals_react_as_the_recursion_says() -> None:
    """y <- memory y + reaction in the slot that is bought, and prices follow it."""
    scenario = Placement(**{**PLAIN, "reaction": (0.04, 0.04)})
    runner = alike(scenario, 2, budget=1e12)
    quoted = runner.state.seen.offer.price[0].copy()
    for _ in range(6):
        runner.step(np.array([2, 2]))
    wanted = 0.04 * (1.0 - 0.8**6) / (1.0 - 0.8)
    np.testing.assert_allclose(runner.state.hidden.rivals[:, 2], wanted, rtol=1e-5)
    assert not np.delete(runner.state.hidden.rivals, 2, axis=1).any()
    offer, task = runner.state.seen.offer, runner.state.task
    law = auction("second", task.bid[:1], task.log_price[:1, 2] + np.float32(wanted), task.sigma[:1])
    np.testing.assert_allclose(offer.price[0, 2], per_win(law)[0][0] * 1e-3, rtol=1e-5)
    np.testing.assert_array_equal(np.delete(offer.price[0], 2), np.delete(quoted, 2))


def test_bidders_react_to_the_share_that_they_lose() -> None:
    scenario = Bidding(**{**QUIET, "reaction": (0.6, 0.6)})
    runner = alike(scenario, 2, budget=1e12, reaction=0.6)
    wanted = 0.0
    for _ in range(5):
        state = runner.state
        law = auction("second", np.log(np.float32(3.0)), scenario.log_price(state), state.task.sigma)
        wanted = 0.9 * wanted + 0.1 * 0.6 * float(law.win[0])
        runner.step(np.array([7, 7]))
        np.testing.assert_allclose(runner.state.hidden.rivals, wanted, rtol=1e-4)
    runner.step(np.array([0, 0]))  # no bid: they calm down
    np.testing.assert_allclose(runner.state.hidden.rivals, 0.9 * wanted, rtol=1e-4)
    half = Bidding().sample_task(NumpyRng(0), 20_000).reaction
    near((half > 0.0).astype(float), 0.5)


def test_a_day_has_its_shape() -> None:
    scenario = Bidding()
    profile = scenario.profile[:-1]
    assert profile.mean() == pytest.approx(1.0, rel=1e-6)
    assert profile.max() / profile.min() == pytest.approx(12.0, rel=0.1)
    assert scenario.profile_left[0] == pytest.approx(1.0, rel=1e-6)
    assert scenario.profile_left[-1] == 0.0
    near(scenario.sample_task(NumpyRng(0), 5_000).traffic.mean(axis=1), 1.0)


# --- for any actions -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("env_id", BOTH)
@pytest.mark.parametrize("budget", [(1e-4, 1e-3), (0.01, 0.05), (0.4, 1.0), (100.0, 100.0)])
def test_no_actions_overspend_or_convert_too_much(env_id: str, budget: tuple[float, float]) -> None:
    """Random, greedy and constant actions: money, counts and conversions stay within what there is."""
    scenario = recgym.make_scenario(env_id, budget=budget)
    rows = 300
    rng = np.random.default_rng(3)
    for policy in ("random", "constant", "best"):
        runner = started(scenario, rows, [1, len(policy)])
        spent = np.zeros(rows)
        for _ in range(scenario.horizon):
            actions = rng.integers(0, scenario.action_space.n, rows)
            if policy == "constant":
                actions = np.full(rows, scenario.action_space.n - 1)
            elif policy == "best":
                actions = scenario.candidate_rewards(runner.state)[0].argmax(axis=1)
            step = runner.step(actions)
            spent += step.info["spend"]
            kept = runner.state.seen.kept
            tally = kept if env_id == "AdPlacement-v0" else kept.tally
            assert (step.info["spend"] >= 0.0).all()
            assert (spent <= runner.state.task.budget * (1.0 + 1e-5)).all()
            assert (tally.left >= 0.0).all()
            assert (tally.revealed <= tally.clicks.sum(axis=2) + 1e-3).all()
            assert (step.info["clicks"] <= tally.won * scenario.base_wins(runner.state.task.base) + 0.5).all()
        broke = tally.left == 0.0
        assert broke.all() if budget[1] < 0.1 and policy == "best" else not (broke.all() and budget[0] == 100.0)
        after = runner.state
        nothing = scenario.candidate_rewards(after)[0][broke]
        assert not nothing.any()  # without money nothing can be had


@pytest.mark.parametrize("env_id", BOTH)
def test_expected_rewards_are_what_their_decision_earns(env_id: str) -> None:
    """Sums of `expected` have the mean of the return, with less noise, for any actions."""
    scenario = recgym.make_scenario(env_id)
    runner, rng = started(scenario, 4_000), np.random.default_rng(3)
    reward, expected = np.zeros((2, 4_000))
    for _ in range(scenario.horizon):
        step = runner.step(rng.integers(0, scenario.action_space.n, 4_000))
        reward += step.reward
        expected += step.info["expected_reward"]
    gap = reward - expected
    assert abs(gap.mean()) <= 4.0 * gap.std() / np.sqrt(4_000)
    assert expected.var() < reward.var()


def test_the_part_of_the_day_follows_from_the_clock() -> None:
    """A live client offers the same all day: what is shown and what is counted are of the part of the decision."""
    scenario = Bidding(creatives=2, parts=3, horizon=6)
    assert "part" not in scenario.offer_space.spaces
    predicted = np.array([[1.0, 2.0, 3.0], [-1.0, -2.0, -3.0]], dtype=np.float32)
    offer = alike(scenario, 1).state.seen.offer._replace(predicted=predicted[None])
    session = LiveSession(make_baseline("constant", scenario, action=3), scenario)
    levels, shown = len(scenario.levels), []
    for t in range(6):
        session.choose(offer if t == 0 else None)
        shown.append(scenario.layout.get(session.observation(), "predicted")[0, [0, levels]].tolist())
        session.learn({"wins": 10 * (t + 1), "offered": 100, "spend": 0.0, "clicks": 1, "conversions": [0, 0]})
    assert shown == [predicted[:, part].tolist() for part in (0, 0, 1, 1, 2, 2)]
    assert session.seen is not None
    wins = session.seen.kept.tally.wins[0, 0] * scenario.base_wins(offer.base)[0]
    np.testing.assert_allclose(wins, [30.0, 70.0, 110.0], rtol=1e-5)


# --- feedback from outside -------------------------------------------------------------------------------------------
def feedback(scenario: Any, **changed: Any) -> Any:
    kind = scenario.feedback_type
    none = {name: np.zeros((1, *box.shape), box.dtype) for name, box in scenario.feedback_space.spaces.items()}
    return kind(**{**none, **{name: np.asarray(value).reshape(none[name].shape) for name, value in changed.items()}})


@pytest.mark.parametrize(
    ("env_id", "action", "changed", "named"),
    [
        ("AdPlacement-v0", 0, {"wins": 10, "clicks": 11}, "more clicks than impressions"),
        ("AdPlacement-v0", 0, {"wins": 10, "spend": 1e11}, "spends more than is left"),
        ("AdPlacement-v0", 0, {"spend": 1.0}, "pays for impressions that it did not win"),
        (
            "AdPlacement-v0",
            0,
            {"wins": 10, "spend": 0.1, "conversions": [1] + [0] * 7},
            "more conversions of a creative than clicks",
        ),
        ("AdPlacement-v0", 47, {"wins": 10, "spend": 0.1}, "not available"),
        ("AdBidding-v0", 3, {"wins": 10, "spend": 1.0, "offered": 9}, "wins more than was offered"),
        ("AdBidding-v0", 0, {"wins": 10, "spend": 1.0, "offered": 20}, "wins without a bid"),
    ],
)
def test_impossible_feedback_is_named(env_id: str, action: int, changed: dict[str, Any], named: str) -> None:
    scenario = recgym.make_scenario(env_id)
    late = {"launch": np.array([0, *[7] * 7])} if env_id == "AdPlacement-v0" else {}
    seen = alike(scenario, 1, **late).state.seen
    assert named in scenario.impossible(seen, np.array([action]), feedback(scenario, **changed))
    assert scenario.impossible(seen, np.array([3]), feedback(scenario)) == ""


def test_first_prices_are_not_above_the_bid() -> None:
    scenario = Bidding(auction="first")
    seen = alike(scenario, 1).state.seen
    paid = feedback(scenario, wins=10, offered=20, spend=10 * 0.78)
    assert "pays more than its bids" in scenario.impossible(seen, np.array([3]), paid)
    assert scenario.impossible(seen, np.array([3]), paid._replace(spend=np.array([7.0], dtype=np.float32))) == ""


@pytest.mark.parametrize("env_id", BOTH)
def test_the_score_of_a_report_punishes_dear_conversions_alone(env_id: str) -> None:
    scenario = recgym.make_scenario(env_id)
    task = scenario.sample_task(make_rng("cpu", 0), 4)._replace(goal=np.array([2.0, 2.0, 2.0, 2.0], np.float32))
    objectives = np.zeros((4, 4))
    objectives[:, 2] = [10.0, 10.0, 10.0, 0.0]  # conversions
    objectives[:, 3] = [10.0, 40.0, 20.0, 40.0]  # at a cost of 1, of 4 and of 2 each; and none for the money
    score = scenario.trial_figures(task, objectives, np.zeros((4, 2)))["auctionnet_score"]
    np.testing.assert_allclose(score, [10.0, 2.5, 10.0, 0.0])
    summaries = evaluate(scenario, {"ts_lp": None}, trials=64, seed=0).summaries
    for summary in summaries.values():
        assert 0.0 < summary.figures["auctionnet_score"].mean <= summary.objectives["conversions"].mean
    mean = {name: summary.figures["auctionnet_score"].mean for name, summary in summaries.items()}
    assert mean["random"] < mean["informed"]


def test_figures_of_whole_trials_have_columns_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    """In the table on the terminal, and in that of a page of results; other environments have no such column."""
    for env_id, figures in (("AdPlacement-v0", ["auctionnet_score"]), ("RecBandit-v0", [])):
        scenario = recgym.make_scenario(env_id, horizon=5)
        _, report = compare(scenario, {"epsilon_greedy": None}, env=env_id, parameters={}, trials=20, seed=0)
        print_table(report)
        shown = capsys.readouterr().out
        heading, _, *rows = policies_table(report).splitlines()
        assert [name for name in ("auctionnet_score",) if name in shown and name in heading] == figures
        for name in figures:
            place = [cell.strip() for cell in heading.split("|")].index(name)
            found = {cells[1].strip(" `*"): cells[place].split()[0] for cells in (row.split("|") for row in rows)}
            means = {policy: value["figures"][name]["mean"] for policy, value in report["policies"].items()}
            assert found == {policy: f"{mean:.1f}" for policy, mean in means.items()}
            assert all(f"{mean:.2f} ±" in shown for mean in means.values())
