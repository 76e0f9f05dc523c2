"""Policies for slates: what they show, and how they stand to each other."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from recgym.baselines import left_out, make_baseline
from recgym.catalog import Catalog
from recgym.evaluation import rollout
from recgym.rng import make_rng
from recgym.runner import Runner
from recgym.scenarios.slate import Slate
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


def test_they_stand_as_the_figures_say() -> None:
    """256 tasks: random below popularity, below myopic, below informed, by two paired standard errors at least."""
    scenario = Slate()
    names = ("random", "popularity", "myopic", "informed")
    returns = [rollout(make_baseline(name, scenario), scenario, trials=256, seed=2_000_000).expected for name in names]
    for low, high in itertools.pairwise(returns):
        gain = high - low
        assert gain.mean() > 2.0 * gain.std() / np.sqrt(len(gain))
