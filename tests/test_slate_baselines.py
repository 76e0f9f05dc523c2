"""Policies for slates: what they show, and how they stand to each other."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import recgym
from recgym.baselines import left_out, make_baseline
from recgym.baselines.policy import IndexPolicy, Reading
from recgym.baselines.regression import ridge_start, ridge_step, ridge_weights
from recgym.baselines.slate import by_field
from recgym.baselines.slate.pages import Finder, clicks_by_place, shown_by_place
from recgym.baselines.slate.posterior import Belief, kalman_step
from recgym.catalog import Catalog
from recgym.data.factors import CONFIDENCE, DIRECTIONS, FACTORS, RIDGE, factorise, item_vectors, similarities
from recgym.evaluation import rollout
from recgym.rng import make_rng
from recgym.runner import Runner
from recgym.scenarios.slate import LONG_TERM_SATISFACTION, Slate
from recgym.scenarios.slate.choice import first_places


@pytest.mark.parametrize(("name", "field", "sign"), [("popularity", "popularity", 1.0), ("low_burden", "hint", -1.0)])
def test_the_highest_are_shown_in_order(name: str, field: str, sign: float) -> None:
    scenario = Slate()
    runner = Runner(scenario, 50, make_rng("cpu", 0))
    observation = runner.reset()
    action, _ = make_baseline(name, scenario).predict(observation)
    scores = sign * scenario.layout.get(observation, field)
    shown = np.take_along_axis(scores, action, axis=1)
    np.testing.assert_array_equal(shown, -np.sort(-scores, axis=1)[:, :4])
    assert first_places(action).all()
    single, _ = make_baseline(name, scenario).predict(observation[0])
    assert single.shape == (4,)


def test_random_pages_hold_different_items() -> None:
    scenario = Slate()
    policy = make_baseline("random", scenario)
    action, _ = policy.predict(np.zeros((2_000, scenario.layout.sizes[2]), dtype=np.float32))
    assert action.shape == (2_000, 4) and first_places(action).all()
    np.testing.assert_allclose(np.bincount(action.ravel(), minlength=20) / action.size, 0.05, atol=0.012)


def test_low_burden_needs_one() -> None:
    assert "burden" in left_out(Slate(catalog=Catalog(np.eye(30), np.arange(30))))["low_burden"]


# --- learning ---------------------------------------------------------------------------------------------------------
def test_ridge_is_that_of_all_rows_at_once() -> None:
    rng = np.random.default_rng(0)
    memory = ridge_start(2, 5, 3)
    rows, outcomes = rng.standard_normal((2, 7, 4, 3)), rng.random((2, 7, 4))
    for page in range(7):
        memory = ridge_step(memory, rows[:, page], outcomes[:, page], memory.offered)
    x, y = rows.reshape(2, -1, 3), outcomes.reshape(2, -1)
    precision = x.transpose(0, 2, 1) @ x + np.eye(3)
    np.testing.assert_allclose(memory.inverse, np.linalg.inv(precision), atol=1e-10)
    wanted = np.linalg.solve(precision, (x.transpose(0, 2, 1) @ y[..., None]))[..., 0]
    np.testing.assert_allclose(ridge_weights(memory), wanted, atol=1e-10)
    same = ridge_step(memory, np.zeros((2, 4, 3)), np.ones((2, 4)), memory.offered)
    np.testing.assert_allclose(ridge_weights(same), ridge_weights(memory), atol=1e-12)


def test_places_are_read_back() -> None:
    """What was shown and clicked, place by place, with an empty place, and nothing while the user is away."""
    scenario = Slate(leaving=(1.0, 1.0))
    runner = Runner(scenario, 500, make_rng("cpu", 0))
    runner.reset()
    action = np.random.default_rng(0).random((500, 20)).argsort(axis=1)[:, :4]
    action[:, 3] = action[:, 0]
    kept: list[Reading] = []
    reader = IndexPolicy(
        scenario,
        make_baseline("popularity", scenario).start,
        lambda memory, reading: memory,
        lambda memory, reading: kept.append(reading) or reading.chosen,  # type: ignore[func-returns-value]
    )
    for _ in range(2):
        here = runner.state.seen.offer.present
        observation = runner.step(action).observation
        kept.clear()
        reader.predict(observation)
        shown = shown_by_place(kept[0], 4)
        wanted = (action[:, :, None] == np.arange(20)) & np.array([True, True, True, False])[:, None]
        np.testing.assert_array_equal(shown, wanted * here[:, None, None])
        clicks = clicks_by_place(kept[0], shown)
        assert (clicks.sum(axis=1) == scenario.layout.get(observation, "clicked").sum(axis=1)).all()
    assert not here.all() and (clicks[~here] == 0).all()


def test_kalman_step_is_the_likelihoods_curvature() -> None:
    """Against the gradient and the curvature of the multinomial logit, by differences."""
    rng = np.random.default_rng(1)
    x, mean = rng.standard_normal((1, 6, 3)), rng.standard_normal((1, 3))
    root = rng.standard_normal((3, 3))
    covariance = (root @ root.T + np.eye(3))[None]
    none = np.zeros((1, 6))
    belief = Belief(x, 0.3 + none, none, none, mean, covariance, none, none)
    shown = np.eye(6)[None, [4, 1, 2]]
    shown[0, 2] = 0.0  # an empty place
    clicks, weight = np.array([[0.0, 1.0, 0.0]]), np.array([[1.0, 0.8, 0.64]])

    def likelihood(weights: np.ndarray) -> float:
        odds = np.exp(x[0, [4, 1]] @ weights + 0.3) * weight[0, :2]
        return float(np.log(odds[1] / (1.0 + odds.sum())))

    step = 1e-4 * np.eye(3)
    gradient = [(likelihood(mean[0] + d) - likelihood(mean[0] - d)) / 2e-4 for d in step]
    curvature = [
        [
            (
                likelihood(mean[0] + a + b)
                - likelihood(mean[0] + a - b)
                - likelihood(mean[0] - a + b)
                + likelihood(mean[0] - a - b)
            )
            / 4e-8
            for a in step
        ]
        for b in step
    ]
    after, narrowed = kalman_step(belief, shown, clicks, weight)
    np.testing.assert_allclose(np.linalg.inv(narrowed[0]), np.linalg.inv(covariance[0]) - curvature, atol=1e-5)
    np.testing.assert_allclose(after[0], mean[0] + narrowed[0] @ gradient, atol=1e-5)


def test_beliefs_find_the_user() -> None:
    """After a trial of random pages the taste believed points to the user's, and the sensitivity is told apart."""
    beliefs = []
    for sensitivity in (0.5, 3.5):
        scenario = Slate(outside=(-1.0, -1.0), leaving=(0.0, 0.0))
        runner = Runner(scenario, 100, make_rng("cpu", 0))
        task = scenario.sample_task(make_rng("cpu", 0), 100)._replace(sensitivity=np.full(100, sensitivity, np.float32))
        observation = runner.reset(task=task)
        policy, luck = make_baseline("posterior", scenario), make_baseline("random", scenario)
        memory = None
        for _ in range(100):
            _, memory = policy.predict(observation, state=memory, episode_start=None)
            observation = runner.step(luck.predict(observation)[0]).observation
        taste = memory.mean[:, :16] / np.linalg.norm(memory.mean[:, :16], axis=1, keepdims=True)
        assert np.mean((taste * task.taste).sum(axis=1)) > 0.9
        mass = np.exp(memory.log_mass - memory.log_mass.max(axis=1, keepdims=True))
        beliefs.append(((mass / mass.sum(axis=1, keepdims=True)) * np.repeat(np.linspace(0, 4, 9), 3)).sum(axis=1))
    assert np.mean(beliefs[0]) < 1.2 and np.mean(beliefs[1]) > 2.8


def test_rotation_shows_what_was_not_shown() -> None:
    scenario = Slate(leaving=(0.0, 0.0))
    runner = Runner(scenario, 200, make_rng("cpu", 0))
    observation, memory, policy, pages = runner.reset(), None, make_baseline("rotation", scenario), []
    for _ in range(3):
        item = runner.state.seen.offer.item
        action, memory = policy.predict(observation, state=memory)
        pages.append(scenario.inventory.topic[np.take_along_axis(item, action, axis=1)])
        observation = runner.step(action).observation
    again = [np.mean([len(set(a) & set(b)) for a, b in zip(*pair, strict=True)]) for pair in itertools.pairwise(pages)]
    assert max(again) < 0.3  # of 4 topics of 12: 1.3 by chance


# --- from a log -------------------------------------------------------------------------------------------------------
def test_items_are_found_by_their_features() -> None:
    features = Slate(catalog_size=5_000).inventory.features
    items = np.random.default_rng(0).integers(0, 5_000, (30, 20))
    np.testing.assert_array_equal(Finder(features)(features[items].astype(np.float64)), items)


def test_similarities_are_cosines() -> None:
    clicks = np.array([[1.0, 1.0, 0.0], [2.0, 0.0, 0.0], [0.0, 1.0, 3.0]])
    wanted = np.array([[0, 1 / np.sqrt(10), 0], [1 / np.sqrt(10), 0, 3 / np.sqrt(18)], [0, 3 / np.sqrt(18), 0]])
    np.testing.assert_allclose(similarities(clicks, 0.0), wanted)
    assert (similarities(clicks, 5.0) <= wanted).all()


def test_factors_tell_groups_of_users_apart() -> None:
    """Half of the users click one half of the items; the others are told by one click."""
    rng = np.random.default_rng(0)
    user, item = np.arange(200) % 2, np.arange(40) % 2
    clicks = ((user[:, None] == item) & (rng.random((200, 40)) < 0.3)).astype(float)
    items = factorise(clicks, 4, 1.0, 1.0)
    near = items @ items.T
    assert near[item[:, None] == item].mean() > 10 * abs(near[item[:, None] != item].mean())


@pytest.mark.parametrize("name", ["item_knn", "als"])
def test_large_catalogs_are_left_out(name: str) -> None:
    assert "10001" in left_out(Slate(catalog_size=10_001))[name]


def test_who_cannot_play_says_why() -> None:
    assert "mnl" in left_out(Slate(choice="cascade"))["posterior"]
    assert "averages" in left_out(Slate(statistics=False))["posterior"]
    assert "reward" in left_out(Slate(weights={"value": 2.0}))["posterior"]
    assert "258" in left_out(Slate(width=254))["linucb"] and "257" in left_out(Slate(width=254))["posterior"]


# --- all together -----------------------------------------------------------------------------------------------------
KINDS: dict[str, dict[str, Any]] = {
    "RecSlate-v0": {"linucb_burden": (0.3, 0.5), "als": (0.2, 0.45), "posterior": (0.7, 0.85)},
    "RecSlateShop-v0": {"linucb_burden": (0.2, 0.5), "als": (0.05, 0.3), "posterior": (0.6, 0.85)},
    "RecSlateSocial-v0": {"linucb_burden": (0.3, 0.5), "als": (0.3, 0.55), "posterior": (0.6, 0.85)},
}


@pytest.mark.parametrize("env", KINDS)
def test_they_stand_as_the_figures_say(env: str) -> None:
    """256 tasks, random 0 and informed 1; the standard error of a score is about .015."""
    scenario = recgym.make_scenario(env)
    names = ("random", "informed", "popularity", "content", *KINDS[env])
    means = {
        name: rollout(make_baseline(name, scenario), scenario, trials=256, seed=2_000_000).expected.mean()
        for name in names
    }
    low, high = means["random"], means["informed"]
    score = {name: (mean - low) / (high - low) for name, mean in means.items()}
    for name, (least, most) in KINDS[env].items():
        assert least < score[name] < most, score
    assert max(score["popularity"], score["content"]) < score["linucb_burden"] < score["posterior"], score


def test_recsims_order_turns_round_with_sensitivity() -> None:
    """RecSim has always clickbait 1101, random 953, never 804, and with sensitive users 473, 988, 1674.

    200 users each; differences are ten standard errors or more.
    """
    for sensitivity, falls in (((0.0, 0.2), True), ((2.0, 2.0), False)):
        scenario = Slate(**{**LONG_TERM_SATISFACTION, "sensitivity": sensitivity})
        policies = by_field(scenario, "hint"), *(make_baseline(name, scenario) for name in ("random", "low_burden"))
        always, random, never = (rollout(policy, scenario, trials=200, seed=0).returns.mean() for policy in policies)
        assert [always, random, never] == sorted([always, random, never], reverse=falls)


def test_vectors_of_items_say_what_a_log_says() -> None:
    """Products are the items' cosines, or what the factors of one liked item say of another."""
    clicks = np.random.default_rng(0).poisson(0.4, size=(60, 20)).astype(float)
    clicks[:, 3] = 0.0
    assert clicks.shape[1] <= DIRECTIONS
    found = item_vectors(clicks, "item_knn")
    products = found @ found.T
    cosines = similarities(clicks[:, np.arange(20) != 3], shrink=0.0) + np.eye(19)
    np.testing.assert_allclose(np.delete(np.delete(products, 3, axis=0), 3, axis=1), cosines, atol=1e-5)
    assert not found[3].any()
    items = factorise(clicks, FACTORS, CONFIDENCE, RIDGE)
    said = items @ np.linalg.solve(items.T @ items + RIDGE * np.eye(FACTORS), items.T)
    found = item_vectors(clicks)
    known = np.arange(20) != 3
    np.testing.assert_allclose((found @ found.T)[known][:, known], said[known][:, known], atol=1e-5)
    with pytest.raises(ValueError, match="kind must be one of als, item_knn, got 'svd'"):
        item_vectors(clicks, "svd")
