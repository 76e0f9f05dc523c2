"""What creatives say of their click rates: campaigns with known tastes, the fit against what made the data, a run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from runs_for_tests import DEFAULT

import recgym
from recgym.arrays import logistic, to_numpy, unit_rows
from recgym.baselines import make_baseline
from recgym.baselines.ads.beliefs import aware_noise, aware_prior
from recgym.catalog import Catalog
from recgym.data import impressions
from recgym.data.creative_rates import CreativeFit, _find_mode, fit_creatives, score_new_creatives
from recgym.data.landscape import ClickTable
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
    """Campaigns with tastes and what is predicted are the same whatever the parameters that these take the place of."""
    logits, predictions = [], []
    for taste, prediction in ((0.5, (0.3, 1.0)), (2.0, (0.0, 0.0))):
        scenario = campaign(taste=taste, prediction=prediction)
        task = scenario.sample_task(NumpyRng(1), 20)
        logits.append(task.logit)
        predictions.append(scenario.begin(task, NumpyRng(2))[1].predicted)
    np.testing.assert_array_equal(*logits)
    np.testing.assert_array_equal(*predictions)


# --- the fit ---------------------------------------------------------------------------------------------------------
class Made(NamedTuple):
    table: ClickTable
    slot: np.ndarray  # [S] logits
    features: np.ndarray  # [K, D]
    taste: np.ndarray  # [D]
    logit: np.ndarray  # [K, S]


def made(
    seed: int, count: int = 40, width: int = 4, tau: float = 0.8, sigma: float = 0.3, shown: float = 400.0
) -> Made:
    """Counts of creatives of a known taste, some thirty clicks each, in six parts of the day."""
    rng = np.random.default_rng(seed)
    features = unit_rows(rng.normal(size=(count, width)))
    taste, slot = tau * rng.normal(size=width), 0.3 * rng.normal(size=6)
    logit = -4.5 + (features @ taste + sigma * rng.normal(size=count))[:, None] + slot
    often = np.floor(shown * rng.lognormal(0.0, 0.7, size=logit.shape))
    return Made(ClickTable(often, rng.binomial(often.astype(int), logistic(logit)) * 1.0), slot, features, taste, logit)


def distances(fits: list[tuple[CreativeFit, Made]]) -> np.ndarray:
    """Squared distance of each taste from its mean in units of its covariance: chi-squared of four, 95 % below 9.49."""
    return np.array([(w := each.taste - fit.mean) @ np.linalg.solve(fit.covariance, w) for fit, each in fits])


def test_few_creatives_do_not_make_certain() -> None:
    """Of ten creatives the largest evidence is often at no taste; what is claimed of it holds yet."""
    logs = [made(seed, count=10) for seed in range(60)]
    fits = [(fit_creatives(each.table, each.slot, each.features), each) for each in logs]
    assert 2.0 < distances(fits).mean() < 6.0 and (distances(fits) < 9.49).mean() > 0.85


def test_the_fit_finds_what_made_the_clicks() -> None:
    """Over 100 logs: no bias beyond 4 standard errors of the mean, spreads of estimates as their errors say."""
    fits = [(fit_creatives(each.table, each.slot, each.features), each) for each in map(made, range(100))]
    base = np.array([(fit.base + 4.5) / fit.base_error for fit, _ in fits])
    assert abs(base.mean()) < 0.5 and 0.8 < base.std() < 1.5  # errors given the taste, which is not
    sigma = np.array([fit.rest for fit, _ in fits])
    assert abs(sigma[:, 0].mean() - 0.3) < 4 * sigma[:, 0].std() / 10 < 0.03
    assert sigma[:, 1].mean() == pytest.approx(sigma[:, 0].std(), rel=0.2)
    tau = np.array([fit.taste for fit, _ in fits])
    assert tau[:, 0].mean() == pytest.approx(0.8, abs=0.12)  # above it, as a mean of what four weights leave open
    assert tau[:, 1].mean() == pytest.approx(tau[:, 0].std(), rel=0.35)
    wrong = np.array([each.taste - fit.mean for fit, each in fits])
    assert np.abs(wrong.mean(axis=0)).max() < 4 * wrong.std() / 10
    inside = distances(fits)
    assert inside.mean() == pytest.approx(4.0, abs=4 * inside.std() / 10) and (inside < 9.49).mean() > 0.9
    fit = fits[0][0]
    np.testing.assert_allclose(fit.tastes[1:].T @ fit.tastes[1:], fit.covariance)


def test_the_evidence_is_that_of_an_integral() -> None:
    """One creative with an effect of its own: the sum over a fine grid of its logit; 100 clicks make it normal."""
    table = ClickTable(np.array([[2_000.0, 1_000.0]]), np.array([[70.0, 30.0]]))
    offset = np.array([[-3.0, -3.2]])
    mode = _find_mode(table, offset, np.ones((1, 1)), np.array([0.5**2]), 0.3**2)
    logit = np.linspace(-3.0, 3.0, 6_001)
    chance = logistic(offset + logit[:, None])
    fit = (table.clicks * np.log(chance) + (table.shown - table.clicks) * np.log1p(-chance)).sum(axis=1)
    variance = 0.5**2 + 0.3**2
    weight = np.exp(fit - fit.max() - 0.5 * logit**2 / variance) / np.sqrt(2.0 * np.pi * variance)
    assert mode.evidence == pytest.approx(fit.max() + np.log(weight.sum() * 0.001), abs=0.01)
    mean = (weight * logit).sum() / weight.sum() * 0.5**2 / variance  # of the base: its share of the logit
    assert mode.weights[0] == pytest.approx(mean, abs=0.01)


def test_more_features_than_creatives() -> None:
    """A rotation of the features to those in which creatives differ changes nothing."""
    each = made(3, count=12, width=5)
    padded = np.concatenate([each.features, np.zeros((12, 15))], axis=1)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(20, 20)))[0]
    few, many = (fit_creatives(each.table, each.slot, x) for x in (each.features, padded @ turn))
    np.testing.assert_allclose(turn @ many.mean, np.append(few.mean, np.zeros(15)), atol=1e-3)
    wanted = np.eye(20) * (few.taste.sd**2 + few.taste.error**2)
    wanted[:5, :5] = few.covariance
    np.testing.assert_allclose(turn @ many.covariance @ turn.T, wanted, atol=2e-3)


def test_predictions_of_new_creatives_are_calibrated() -> None:
    """Slopes of 1 within their errors, errors as what features do not tell, and a gain; without taste none."""
    found = [score_new_creatives(each.table, each.slot, each.features) for each in map(made, range(5))]
    slope = np.array([(new.slope - 1.0) / new.slope_error for new in found])
    assert abs(slope.mean()) < 4 / np.sqrt(5) and np.abs(slope).max() < 4
    assert 0.3 < np.mean([new.wrong.sd for new in found]) < 0.4 < np.mean([new.spread.sd for new in found])
    assert all(new.gain > 0 for new in found) and sum(new.gain > 2 * new.gain_error for new in found) >= 4
    nothing = [made(seed, tau=0.0) for seed in range(5)]
    vain = [score_new_creatives(each.table, each.slot, each.features) for each in nothing]
    assert all(new.gain < 2 * new.gain_error for new in vain)
    assert np.mean([new.wrong.sd - new.spread.sd for new in vain]) > -0.005


def test_what_is_predicted_was_not_fitted() -> None:
    """Features that are the creative's own noise: the fit sees all of it, the score of new creatives nothing."""
    each = made(0, count=30, width=4, tau=0.0, sigma=0.6)
    own = np.eye(30)
    new = score_new_creatives(each.table, each.slot, own)
    assert abs(new.gain) < 0.2 and new.wrong.sd > 0.95 * new.spread.sd
    fit = fit_creatives(each.table, each.slot, own)
    assert np.corrcoef(fit.mean, each.logit.mean(axis=1))[0, 1] > 0.5


# --- from a log to campaigns -----------------------------------------------------------------------------------------
NAMES = tuple(f"ad {k}" for k in range(24))


def log_file(path: Path, seed: int = 0, rows: int = 60_000) -> tuple[Path, Catalog, np.ndarray]:
    """A log of the first twenty of 24 creatives, the catalog of all, and their logits without the base."""
    rng = np.random.default_rng(seed)
    features = 3.0 * rng.normal(size=(24, 3))  # of any length: what counts are those of length 1
    logit = unit_rows(features) @ np.array([1.2, -0.8, 0.0]) + 0.1 * rng.normal(size=24)
    creative, time = rng.integers(20, size=rows), rng.random(rows) * 10 * 86_400
    evening = 0.5 * (time % 86_400 > 43_200)
    clicked = rng.random(rows) < logistic(-4.0 + logit[creative] + evening)
    price = rng.lognormal(4.0, 1.0, size=rows)
    lines = [f"ad {k},{t:.0f},{p:.3f},{c:d}" for k, t, p, c in zip(creative, time, price, clicked, strict=True)]
    path.write_text("\n".join(["creative,time,price,clicked", *lines, ""]))
    return path, Catalog(features, ids=NAMES), logit


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Catalog, np.ndarray]:
    return log_file(tmp_path_factory.mktemp("log") / "log.csv")


def test_parameters_of_a_log_with_a_catalog(known: Any) -> None:
    """Predictions of the four creatives that the log has never seen are near the truth, and campaigns show them."""
    path, catalog, logit = known
    plain = impressions(path)
    log = plain.with_catalog(catalog)
    assert plain.items is None and plain.catalog is None
    assert "catalog" not in plain.parameters and plain.to_json()["known_creatives"] is None
    found = json.loads(json.dumps(log.parameters))
    assert "taste" not in found and found["creative_effect"] == pytest.approx(log.by_features.fit.rest.sd, rel=1e-4)
    assert log.items is catalog and log.catalog.digest == found["catalog"] and log.catalog.tastes is not None
    scenario = recgym.make_scenario("AdPlacement-v0", **found)
    assert scenario.items.ids == NAMES
    predicted = scenario.creative_table @ scenario.taste_table[0]
    assert np.sqrt(((predicted - logit)[20:] ** 2).mean()) < 0.3 < logit[20:].std()
    low, high = np.log(found["base_rate"])
    assert low < -4.0 + 0.25 < high and high - low < 2.0  # the mean of two halves of the day
    assert log.origins["catalog"] == "fitted" and log.origins["creative_effect"] == "fitted"
    assert {log.origins[name] for name in ("taste", "prediction", "embedding")} == {"unused"}
    report = json.loads(json.dumps(log.to_json(), allow_nan=False))["known_creatives"]
    assert report["slope"] == pytest.approx(1.0, abs=4 * report["slope_error"]) and report["gain"] > 0
    names = [name for name, *_ in log.estimates]
    assert "new creatives by features, slope" in names and set(names) > {name for name, *_ in plain.estimates}
    assert log.parameters_beside({"taste": 0.1, "prediction": None})["prediction"] is None
    other = unit_rows(np.asarray(catalog.features)) @ np.diag([1.0, 1.0, 5.0])
    assert log.parameters["catalog"] != plain.with_catalog(Catalog(other, ids=NAMES)).parameters["catalog"]


REFUSED = {
    "other names": (("x", *NAMES[1:]), {}, "1 of 20 creatives are no ids of the catalog (such as 'ad 0'; its first id"),
    "no ids": (None, {}, "the catalog has no ids: give it the names of the log's creatives as ids"),
    "one creative": (NAMES, {"creative": None}, "1 creatives, at least 8 are needed to fit click rates"),
}


@pytest.mark.parametrize(("ids", "columns", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_catalogs_that_are_of_other_creatives(known: Any, ids: Any, columns: Any, message: str) -> None:
    path, catalog, _ = known
    with pytest.raises(ValueError, match=f"^{re.escape(f'{path}: {message}')}"):
        impressions(path, **columns).with_catalog(Catalog(catalog.features, ids=ids))


@pytest.mark.usefixtures("no_pictures")
def test_a_log_and_a_catalog_make_an_agent(command: Any, known: Any, tmp_path: Path) -> None:
    """From both files to a run that keeps the catalog with its tastes, is evaluated without the log, and goes on."""
    path, catalog, _ = known
    items = catalog.save(tmp_path / "ads.safetensors")
    logs = tmp_path / "logs"
    small = ["--env", "AdPlacement-v0", "--log", str(path), "--param", "horizon=5", "--param", "creatives=4"]
    small += ["--n-envs", "8", "--pretrain-steps", "80", "--trials", "20", "--eval-trials", "20", "--eval-freq", "0"]
    small += ["--tensorboard-log", str(logs), '--hyperparam=policy_kwargs={"width": 8, "layers": 1}']
    printed = command("train", *small, "-n", "120", "--param", f"catalog={items}")
    for expected in ("taste for their 3 features", "error of these predictions", "fitted: base_rate", "unused: "):
        assert expected in printed, printed
    assert re.search(r"given:\s+horizon 5;\s+creatives 4$", printed, re.MULTILINE), printed
    folder = logs / DEFAULT / "AdPlacement-v0_1"
    kept = Catalog.load(folder / "catalog.safetensors")
    assert kept.ids == NAMES and kept.tastes is not None and kept.tastes.shape == (4, 3)
    report = json.loads((folder / "report.json").read_text())
    assert report["impressions"]["known_creatives"]["mean"] == pytest.approx(kept.tastes[0].tolist(), abs=1e-3)
    again = command("train", "-i", str(folder), "-n", "160")
    assert "is not here" not in again
    no_ids = Catalog(catalog.features).save(tmp_path / "no_ids.safetensors")
    printed = command("train", *small, "-n", "80", "--param", f"catalog={no_ids}")
    assert "note: the catalog has no ids" in printed and "taste for their" not in printed
    other = Catalog(catalog.features, ids=[f"x {k}" for k in range(24)]).save(tmp_path / "other.safetensors")
    refused = command("train", *small, "-n", "80", "--param", f"catalog={other}", code=2)
    assert "20 of 20 creatives are no ids of the catalog (such as 'ad 0'" in refused
