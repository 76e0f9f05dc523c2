"""What creatives say of their click rates: campaigns with known tastes, the fit against what made the data, a run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from recgym.arrays import to_numpy
from recgym.baselines import make_baseline
from recgym.baselines.ads.beliefs import aware_noise, aware_prior
from recgym.catalog import Catalog
from recgym.rng import NumpyRng, make_rng
from recgym.runner import Runner
from recgym.scenarios.ads import Bidding, Placement
from recgym.scenarios.ads.creatives import draw_logits

BOTH = [Placement, Bidding]
TASTES = np.array([[1.0, -0.5, 0.3], [0.4, 0.0, 0.2], [0.0, 0.3, 0.1]])  # mean, and a factor of two rows


def campaign(kind: Any = Placement, **parameters: Any) -> Any:
    """A scenario whose nine creatives come with tastes."""
    features = np.random.default_rng(0).normal(size=(9, 3))
    return kind(catalog=Catalog(features, tastes=TASTES), base_rate=(0.001, 0.001), creatives=4, **parameters)


# --- campaigns -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("device", ["cpu", torch.device("cpu")])
@pytest.mark.parametrize("kind", BOTH)
def test_the_prior_of_beliefs_is_how_campaigns_are_drawn(kind: Any, device: Any) -> None:
    """Mean and covariance of 40,000 drawn logits, before and after the change point, against `aware_prior`."""
    scenario = campaign(kind)
    rows, cells = 40_000, 4 * scenario.slots
    rng = make_rng(device, 0)
    embedding = rng.xp.asarray(np.repeat(scenario.creative_table[None, :4], rows, axis=0))
    base = rng.xp.asarray(np.full(rows, -9.0, dtype=np.float32))
    now, changed = (to_numpy(x).reshape(rows, cells) + 9.0 for x in draw_logits(scenario, base, embedding, rng))
    one = to_numpy(embedding)[:1].astype(float)
    mean, covariance = aware_prior(scenario, one, np.zeros((1, cells)))
    mean, covariance = mean[0, :cells], covariance[0, :cells, :cells]
    np.testing.assert_allclose(mean, np.repeat(one[0] @ TASTES[0], scenario.slots), atol=1e-6)
    for logit in (now, changed):
        np.testing.assert_allclose(logit.mean(axis=0), mean, atol=4 * (covariance.max() / rows) ** 0.5)
        np.testing.assert_allclose(np.cov(logit.T), covariance, atol=6 * covariance.max() / rows**0.5)
    if kind is Placement:  # of which a decision adds the share of a change point, and the drift of creatives
        moved = np.cov((changed - now).T) * scenario.change / scenario.horizon
        drift = scenario.drift**2 * np.kron(np.eye(4), np.ones((scenario.slots, scenario.slots)))
        np.testing.assert_allclose(aware_noise(scenario, one)[0], moved + drift, atol=0.02 * moved.max())


@pytest.mark.parametrize("kind", BOTH)
def test_predictions_are_the_mean_of_tastes(kind: Any) -> None:
    """The same in every slot, without noise, on NumPy and torch; hidden where there are to be none."""
    for device in ("cpu", torch.device("cpu")):
        runner = Runner(campaign(kind), 30, make_rng(device, 5), autoreset_mode="Disabled")
        runner.restart()
        offer = runner.state.seen.offer
        wanted = to_numpy(offer.embedding) @ TASTES[0]
        found = to_numpy(offer.predicted)
        np.testing.assert_allclose(found, np.broadcast_to(wanted[:, :, None], found.shape), atol=1e-6)
    hidden = Runner(campaign(kind, prediction=None), 3, NumpyRng(5), autoreset_mode="Disabled")
    hidden.restart()
    assert not hidden.state.seen.offer.predicted.any()


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("prediction", [(0.3, 1.0), None])
def test_belief_begins_at_the_mean_of_tastes(kind: Any, prediction: Any) -> None:
    """Whether predictions are shown or hidden: who knows the tastes needs none."""
    scenario = campaign(kind, prediction=prediction)
    runner = Runner(scenario, 5, NumpyRng(5), autoreset_mode="Disabled")
    runner.restart()
    _, memory = make_baseline("belief_lp", scenario).predict(runner.observation())
    wanted = np.repeat(runner.state.seen.offer.embedding @ TASTES[0], scenario.slots, axis=1)
    np.testing.assert_allclose(memory.mean[:, : wanted.shape[1]], wanted, atol=1e-5)


def test_taste_and_errors_of_predictions_are_unused() -> None:
    """Campaigns with tastes are the same whatever the parameters that these take the place of."""
    one, other = (
        campaign(taste=taste, prediction=prediction).sample_task(NumpyRng(1), 20).logit
        for taste, prediction in ((0.5, (0.3, 1.0)), (2.0, (0.0, 0.0)))
    )
    np.testing.assert_array_equal(one, other)
