"""Weights of the reward: which are taken, and what is drawn of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import recgym
from recgym.arrays import to_numpy
from recgym.evaluation import evaluate
from recgym.rng import NumpyRng, TorchRng
from tests.toys import Toy


@pytest.mark.parametrize(
    "weight", [1e39, 1e300, 1.1e6, 9e-7, 1e-60, -1.0, np.nan, np.inf, "1", [0.5, 1e7], [1e-9, 1.0]]
)
def test_weights_that_float32_cannot_carry_are_refused(weight: Any) -> None:
    message = r"weights must be numbers by name, or \[least, most\], each 0 or from 1e-06 to 1,000,000, of clicks"
    with pytest.raises(ValueError, match=message):
        recgym.make_scenario("RecBandit-v0", weights={"clicks": weight})
    with pytest.raises(ValueError, match=f"{message}, likes, display"):
        Toy(weights={"clicks": 1.0, "display": weight})


@pytest.mark.parametrize("weight", [1e-6, 1e6])
def test_scores_do_not_depend_on_the_unit(weight: float) -> None:
    plain, other = (recgym.make_scenario("RecBandit-v0", horizon=20, weights={"clicks": w}) for w in (1.0, weight))
    ours, theirs = (
        evaluate(scenario, {"ucb1": None}, trials=20, seed=0).summaries["ucb1"] for scenario in (plain, other)
    )
    assert theirs.returns.mean == pytest.approx(weight * ours.returns.mean)
    assert theirs.normalised == pytest.approx(ours.normalised)


@pytest.mark.parametrize("kind", [NumpyRng, TorchRng], ids=["numpy", "torch"])
def test_drawn_weights_stay_within_their_range(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """.72 + (.76 - .72) u is above .76 in float32 for the greatest u < 1."""
    toy = Toy(weights={"clicks": [0.72, 0.76]})
    rng = kind(0)
    greatest = rng.xp.ones((2, 1), dtype=rng.xp.float32) - 2.0**-24
    assert to_numpy(0.72 + (0.76 - 0.72) * greatest).max() > np.float32(0.76)
    monkeypatch.setattr(rng, "uniform", lambda shape: greatest + rng.xp.zeros(shape, dtype=rng.xp.float32))
    assert (to_numpy(toy.draw_preference(rng, 2)) == np.float32(0.76)).all()
    state = toy.reset(toy.sample_task(rng, 2), rng)
    assert toy.observation_space.contains(to_numpy(toy.observe(state.seen))[0])
    assert toy.task_space["preference"].contains(to_numpy(state.task.preference)[0])
