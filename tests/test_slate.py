"""Slates: every mechanism against its closed form, the optimum against enumeration, the bound against the optimum."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from recgym.arrays import tree_map
from recgym.catalog import Catalog
from recgym.parameters import instantiate
from recgym.rng import NumpyRng, make_rng
from recgym.runner import Runner
from recgym.scenarios.slate import Slate, foresight
from recgym.scenarios.slate.choice import (
    CHOICES,
    attention_by_place,
    best_page,
    chances,
    clicked,
    first_places,
)
from recgym.scenarios.slate.inventory import draw_pool
from recgym.testing import check_scenario

OFF: dict[str, Any] = {"satiation": (0.0, 0.0), "sensitivity": (0.0, 0.0), "leaving": (0.0, 0.0)}
KINDS: dict[str, dict[str, Any]] = {
    "video": {},
    "shop": {"reward": "shop", "sensitivity": (0.0, 5.0), "attention": (0.6, 0.85)},
    "social": {"reward": "social", "bait": 0.0, "sensitivity": (0.0, 6.0)},
}
OPTIONS: dict[str, dict[str, Any]] = {
    "position": {"choice": "position"},
    "cascade": {"choice": "cascade"},
    "persistent": {"fresh": False},
    "drift": {"drift": 0.1, "redraw": 0.05},
    "plain": {**OFF, "statistics": False},
    "priced": {"weights": {"value": 1.0, "flagged": [0.0, 0.5], "excess": 0.1}},
}


def play(scenario: Slate, rows: int, seed: int = 5) -> Runner:
    """Trials that have begun."""
    runner = Runner(scenario, rows, make_rng("cpu", seed), autoreset_mode="Disabled")
    runner.restart()
    return runner


def random_pages(scenario: Slate, rng: np.random.Generator, rows: int) -> np.ndarray:
    return rng.random((rows, scenario.candidates)).argsort(axis=1)[:, : scenario.places]


# --- the contract ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", [*KINDS, *OPTIONS])
def test_it_keeps_the_contract(name: str) -> None:
    parameters = {**KINDS, **OPTIONS}[name]
    check_scenario(Slate(**{"horizon": 20, "catalog_size": 200, **parameters}), trials=64)


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"choice": "logit"}, "choice must be one of mnl"),
        ({"reward": "clicks"}, "reward must be one of video"),
        ({"places": 21}, "places must be at most the number of candidates, 20"),
        ({"candidates": 2_000}, "candidates must be at most the number of items, 1000"),
        ({"satiation": (0.0, 1.0)}, "or two zeros"),
        ({"topics": 17}, "topics must be at most the width"),
        ({"catalog": "0" * 64}, "is not known here"),
        ({"catalog": 3}, "a catalog is a Catalog"),
        ({"advice": "friends"}, "advice must be one of content, collaborative, or None"),
        ({"catalog": Catalog(np.eye(30))}, "needs the topic of every item"),
        ({"reward": "shop", "catalog": Catalog(np.eye(30), np.arange(30))}, "needs the price of every item"),
    ],
)
def test_bad_parameters(parameters: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Slate(**parameters)


def test_a_catalog_of_ones_own_is_named_by_its_digest(tmp_path: Any) -> None:
    catalog = Catalog.synthetic(items=50, seed=3)
    scenario = Slate(catalog=catalog.save(tmp_path / "items.safetensors"), horizon=20)
    assert scenario.catalog == catalog.digest and scenario.items == catalog
    assert instantiate(Slate, {"catalog": catalog.digest, "horizon": 20}) == scenario
    check_scenario(scenario, trials=0)


def test_advice_is_that_of_who_knows_the_items_clicked() -> None:
    """At first popularity alone; then cosines with what was clicked, times beta; the policy that begins so is it."""
    catalog = Catalog.synthetic(items=80, seed=4)
    vectors = np.random.default_rng(1).normal(size=(80, 3))
    vectors[:5] = 0.0
    for advice, table in (("content", catalog.features), ("collaborative", vectors)):
        scenario = Slate(
            catalog=replace(catalog, vectors=vectors), advice=advice, leaving=(0.0, 0.0), outside=(0.0, 0.0)
        )
        check_scenario(replace(scenario, horizon=10), trials=0)
        unit = table / np.where((size := np.linalg.norm(table, axis=1, keepdims=True)) > 0, size, 1.0)
        runner = play(scenario, 40)
        rng, liked = np.random.default_rng(0), np.zeros((40, table.shape[1]))
        for _ in range(6):
            seen = runner.state.seen
            item = seen.offer.item
            mean = liked / (np.linalg.norm(liked, axis=1, keepdims=True) + 1e-9)
            logit = scenario.beta * (unit[item] @ mean[:, :, None])[:, :, 0] + scenario.inventory.popularity[item]
            wanted = logit - np.log(np.exp(logit).sum(axis=1, keepdims=True))
            observation = scenario.observe(seen)
            np.testing.assert_allclose(scenario.layout.get(observation, "prior"), wanted, atol=1e-4)
            action = random_pages(scenario, rng, 40)
            runner.advance(action)
            clicked = scenario.layout.get(scenario.observe(runner.state.seen), "clicked")
            liked += (clicked[:, None, :] @ unit[item])[:, 0]
        assert (liked != 0.0).any(axis=1).mean() > 0.9
    with pytest.raises(ValueError, match=r"needs the vectors of every item, .*: fit them to a log"):
        Slate(catalog=catalog, advice="collaborative").layout  # noqa: B018


def test_topics_may_have_any_numbers() -> None:
    """With gaps between them, as a table may have them: the same world as without."""
    features = np.random.default_rng(0).normal(size=(60, 4))
    topic = np.array([1, 4, 9_999])[np.arange(60) % 3]
    scenario = Slate(catalog=Catalog(features, topic), horizon=5)
    np.testing.assert_array_equal(scenario.inventory.topic, np.arange(60) % 3)
    assert len(scenario.inventory.centroids) == 3
    check_scenario(scenario, trials=0)
    assert scenario.panels[-1].series[0].rows == ("topic 1", "topic 4", "topic 9999")


def test_what_real_items_lack_is_off() -> None:
    """Without burden trust is full; topics lie where their items do."""
    features = np.random.default_rng(0).normal(size=(60, 4))
    scenario = Slate(catalog=Catalog(features, np.arange(60) % 3), horizon=10)
    runner = play(scenario, 50)
    rng = np.random.default_rng(0)
    for _ in range(10):
        runner.advance(random_pages(scenario, rng, 50))
    assert runner.state.hidden.interest.sum() > 0.0
    assert (scenario.trust(runner.state.task, runner.state.hidden) == 1.0).all()


# --- choice ----------------------------------------------------------------------------------------------------------
def test_chances_by_hand() -> None:
    logit, weight = np.log([[1.0, 2.0, 3.0]]), np.array([[1.0, 0.5, 0.25]])
    first = np.array([[True, True, True]])
    odds = np.array([1.0, 1.0, 0.75])
    np.testing.assert_allclose(chances("mnl", logit, first, weight)[0], odds / 3.75)
    np.testing.assert_allclose(chances("position", logit, first, weight)[0], [1 / 2, 2 / 3 / 2, 3 / 4 / 4])
    cascade = [1 / 2, 1 / 2 * 0.5 * 2 / 3, 1 / 2 * 1 / 3 * 0.25 * 3 / 4]
    np.testing.assert_allclose(chances("cascade", logit, first, weight)[0], cascade)


@pytest.mark.parametrize("model", CHOICES)
def test_clicks_have_their_chances(model: str) -> None:
    rows = 40_000
    chance = np.tile(np.array([[0.3, 0.2, 0.1]]), (rows, 1))
    click = clicked(model, chance, np.random.default_rng(0).random((rows, 3)))
    np.testing.assert_allclose(click.mean(axis=0), [0.3, 0.2, 0.1], atol=5 * 0.5 / np.sqrt(rows))
    assert (click.sum(axis=1).max() <= 1) == (model != "position")


def test_a_duplicate_leaves_its_place_empty() -> None:
    slate = np.array([[3, 3, 5, 3], [1, 2, 1, 2]])
    assert first_places(slate).tolist() == [[True, False, True, False], [True, True, False, False]]
    weight = np.tile([[1.0, 0.5, 0.25, 0.125]], (2, 1))
    chance = chances("mnl", np.zeros((2, 4)), first_places(slate), weight)
    np.testing.assert_allclose(chance, [[1 / 2.25, 0, 0.25 / 2.25, 0], [1 / 2.5, 0.5 / 2.5, 0, 0]])


@pytest.mark.parametrize("model", CHOICES)
def test_the_best_page_is_that_of_enumeration(model: str) -> None:
    """Of 6 candidates for 2 places, duplicates included; items may be worth less than nothing."""
    rng = np.random.default_rng(1)
    count, places, rows = 6, 2, 500
    logit, worth = rng.normal(0.0, 2.0, (rows, count)), rng.normal(0.2, 0.5, (rows, count))
    outside = rng.normal(0.0, 0.3, rows) * (model != "position")
    attention = rng.uniform(0.2, 1.0, rows)
    weight = attention_by_place(attention, places)

    def value(slate: np.ndarray) -> np.ndarray:
        chance = chances(model, np.take_along_axis(logit, slate, 1), first_places(slate), weight)
        return (chance * np.take_along_axis(worth, slate, 1)).sum(axis=1) + (1.0 - chance.sum(axis=1)) * outside

    pages = (np.tile(page, (rows, 1)) for page in itertools.product(range(count), repeat=places))
    most = np.max([value(page) for page in pages], axis=0)
    page, claimed = best_page(model, logit, worth, outside, attention, places)
    np.testing.assert_allclose(value(page), most, atol=1e-12)
    np.testing.assert_allclose(claimed, most, atol=1e-12)
    assert not first_places(page).all(), "no page stops early"


# --- the world -------------------------------------------------------------------------------------------------------
def test_pools_hold_different_items_each_equally_likely() -> None:
    rng = NumpyRng(0)
    shuffled = np.random.default_rng(0).permutation(50)
    pool = draw_pool(rng, shuffled, (20_000, 7))
    assert all(len(set(row)) == 7 for row in pool[:500].tolist())
    share = np.bincount(pool.ravel(), minlength=50) / pool.size
    np.testing.assert_allclose(share, 1 / 50, atol=5 * np.sqrt(1 / 50 / pool.size))


def test_satiation_settles_where_its_closed_form_says() -> None:
    """With a click on one topic at every step x -> 1 / (1 - retention)."""
    scenario = Slate(
        horizon=200, retention=(0.9, 0.9), outside=(-20.0, -20.0), satiation=(1e-6, 1e-6), topics=1, width=1
    )
    runner = play(scenario, 20)
    for _ in range(200):
        runner.advance(np.tile(np.arange(4), (20, 1)))
    np.testing.assert_allclose(runner.state.hidden.interest[:, 0], 10.0, rtol=1e-3)


def test_satiation_decays_while_the_user_is_away() -> None:
    scenario = Slate(horizon=20, leaving=(1.0, 1.0), away=1e6, outside=(0.0, 0.0))
    runner = play(scenario, 300)
    rng = np.random.default_rng(0)
    for _ in range(12):
        runner.advance(random_pages(scenario, rng, 300))
    before, away = runner.state.hidden.interest, ~runner.state.seen.offer.present
    assert away.mean() > 0.5 and before[away].sum() > 1.0
    runner.advance(random_pages(scenario, rng, 300))
    kept = runner.state.task.retention[:, None] * before
    np.testing.assert_allclose(runner.state.hidden.interest[away], kept[away], rtol=1e-5)


def test_satiation_lowers_the_logit_of_its_topic() -> None:
    scenario = Slate(fresh=False, satiation=(1.0, 1.0), outside=(-20.0, -20.0), sensitivity=(0.0, 0.0))
    runner = play(scenario, 100)
    before = runner.state.hidden.logit
    runner.advance(np.tile(np.arange(4), (100, 1)))
    interest = runner.state.hidden.interest
    topic = scenario.inventory.topic[runner.state.seen.offer.item]
    expected = before - np.take_along_axis(interest, topic, axis=1)
    np.testing.assert_allclose(runner.state.hidden.logit, expected, atol=1e-4)
    assert np.isclose(interest.sum(axis=1), 1.0).all()


def test_trust_after_n_clicks() -> None:
    """On items of burden 1 trust is exp(-sigma (1 - memory^n)) after n clicks."""
    items = Catalog(np.eye(30), np.arange(30), burden=np.ones(30))
    scenario = Slate(catalog=items, outside=(-20.0, -20.0), memory=(0.8, 0.8), sensitivity=(2.0, 2.0), horizon=30)
    runner = play(scenario, 10)
    for n in range(1, 6):
        runner.advance(np.tile(np.arange(4), (10, 1)))
        trust = scenario.trust(runner.state.task, runner.state.hidden)
        np.testing.assert_allclose(trust, np.exp(-2.0 * (1.0 - 0.8**n)), rtol=1e-4)


def test_sessions_and_the_share_of_time_present() -> None:
    """Nobody clicks: a session lasts 1 / leaving pages on average, the user is there for that over that and `away`.

    4,000 users: a standard error of .004 of the share, measured; four are allowed.
    """
    scenario = Slate(outside=(20.0, 20.0), leaving=(0.25, 0.25), away=4.0, horizon=60)
    runner = play(scenario, 4_000)
    there, stays, stayed = [], 0, 0
    for _ in range(60):
        before = runner.state.seen.offer.present
        step = runner.advance(np.tile(np.arange(4), (4_000, 1)))
        assert (step.reward[~before] == 0.0).all()
        after = runner.state.seen.offer.present
        there.append(after.mean())
        stays, stayed = stays + before.sum(), stayed + (before & after).sum()
    assert stayed / stays == pytest.approx(0.75, abs=4 * 0.5 / np.sqrt(stays))
    assert np.mean(there[30:]) == pytest.approx(0.5, abs=0.016)


@pytest.mark.parametrize("kind", KINDS)
def test_switches_leave_the_plain_choice(kind: str) -> None:
    """Without satiation, trust and leaving every page is as the first: the best page of the moment is the optimum."""
    scenario = Slate(**{**KINDS[kind], **OFF, "horizon": 10})
    runner = play(scenario, 64)
    rng = np.random.default_rng(0)
    for _ in range(10):
        myopic, _ = scenario.myopic_page(runner.state)
        assert np.array_equal(scenario.informed_action(runner.state), myopic)
        assert runner.state.seen.offer.present.all()
        assert (scenario.trust(runner.state.task, runner.state.hidden) == 1.0).all()
        runner.advance(random_pages(scenario, rng, 64))


def test_position_lets_several_places_be_clicked() -> None:
    scenario = Slate(choice="position", outside=(-5.0, -5.0), horizon=5)
    runner = play(scenario, 200)
    step = runner.advance(np.tile(np.arange(4), (200, 1)))
    assert step.info["clicks"].max() > 1.0


# --- the optimum -----------------------------------------------------------------------------------------------------
def returns(scenario: Slate, rows: int, act: Any) -> np.ndarray:
    """[rows] sums of expected rewards."""
    runner = play(scenario, rows)
    total = np.zeros(rows)
    for _ in range(scenario.horizon):
        total += runner.advance(act(runner.state)).info["expected_reward"]
    return total


@pytest.mark.parametrize("kind", KINDS)
def test_looking_ahead_pays(kind: str) -> None:
    """On 1,024 users whoever looks ahead earns 1.3 times what the best page of the moment does, the whole interval."""
    scenario = Slate(**KINDS[kind])
    informed = returns(scenario, 1_024, scenario.informed_action)
    myopic = returns(scenario, 1_024, lambda state: scenario.myopic_page(state)[0])
    gain = informed - 1.3 * myopic
    assert gain.mean() > 1.96 * gain.std() / np.sqrt(len(gain)), informed.mean() / myopic.mean()


def test_the_bound_without_satiation_is_the_optimum() -> None:
    """But for pools and nodes: the informed policy reaches 93 % of it; nobody passes it."""
    scenario = Slate(satiation=(0.0, 0.0), horizon=30)
    bound = scenario.bound(play(scenario, 128).state)
    informed = returns(scenario, 128, scenario.informed_action)
    assert bound is not None
    assert 0.93 < informed.mean() / bound.mean() < 1.0


def test_no_bound_is_claimed_where_there_is_none() -> None:
    for option in ("position", "cascade", "persistent", "drift"):
        scenario = Slate(**OPTIONS[option], horizon=5)
        assert scenario.bound(play(scenario, 2).state) is None


def test_tables_are_kept_and_only_new_tasks_are_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    planned, tables = [], foresight._tables

    def counted(scenario: Slate, task: Any) -> Any:
        planned.append(len(task.outside))
        return tables(scenario, task)

    monkeypatch.setattr(foresight, "_tables", counted)
    scenario = Slate(horizon=10)
    task = play(scenario, 6).state.task
    plan = scenario.plan(task)
    assert scenario.plan(task) is plan and planned == [6]
    mixed = tree_map(lambda leaf: np.concatenate([leaf[:3], leaf[:3]]), task)
    again = scenario.plan(mixed)
    assert planned == [6, 3]
    np.testing.assert_array_equal(again.here[:3], plan.here[:3])
    np.testing.assert_array_equal(again.here[3:], plan.here[:3])


def test_a_bound_leaves_the_tables_of_its_tasks() -> None:
    """So that they are not computed once more by whoever plays on."""
    scenario = Slate(horizon=4)
    runner = play(scenario, 70)
    plan = scenario.plan(runner.state.task)
    scenario.bound(runner.state)
    assert scenario.plan(runner.state.task) is plan


def test_candidates_alone_on_a_page() -> None:
    scenario = Slate(horizon=5)
    runner = play(scenario, 8)
    rates, none = scenario.candidate_rewards(runner.state)
    assert none is not None and not none.any()  # no click was seen yet
    alone = np.full((8, 4), 7)
    expected = runner.advance(alone).info["expected_reward"]
    np.testing.assert_allclose(expected, rates[:, 7], rtol=1e-5)


def test_what_is_predicted_of_candidates_goes_with_what_is_true() -> None:
    """After forty pages the rank correlation within a pool is well above 0: .2 and more over 200 users."""
    scenario = Slate(horizon=60, leaving=(0.0, 0.0))
    runner = play(scenario, 200)
    rng = np.random.default_rng(0)
    for _ in range(40):
        runner.advance(random_pages(scenario, rng, 200))
    true, predicted = scenario.candidate_rewards(runner.state)
    ranks = (np.argsort(np.argsort(table, axis=1), axis=1) for table in (true, predicted))
    one, other = (table - table.mean(axis=1, keepdims=True) for table in ranks)
    correlation = (one * other).sum(axis=1) / np.sqrt((one**2).sum(axis=1) * (other**2).sum(axis=1))
    assert correlation.mean() > 0.2, correlation.mean()


# --- costs -----------------------------------------------------------------------------------------------------------
def test_excess_adds_up_to_the_exposure_beyond_fair_shares() -> None:
    scenario = Slate(horizon=20, **OFF)
    runner = play(scenario, 50)
    total, balance = np.zeros(50), np.zeros((50, scenario.groups))
    group = scenario.inventory.member.argmax(axis=1)
    for _ in range(20):
        members = group[runner.state.seen.offer.item]
        page = np.argsort(members, axis=1, kind="stable")[:, :4]  # the largest group first
        shown = np.take_along_axis(members, page, axis=1)
        for g in range(scenario.groups):
            balance[:, g] += (shown == g).mean(axis=1) - (members == g).mean(axis=1)
        total += runner.advance(page).info["excess"]
    np.testing.assert_allclose(total, np.maximum(balance, 0.0).sum(axis=1), atol=1e-3)
