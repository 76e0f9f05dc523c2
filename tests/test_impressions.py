"""Logs of impressions: fits against what made the data and by hand, layouts, what is refused, and a run on one."""

from __future__ import annotations

import gzip
import json
import math
import re
import tracemalloc
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs_for_tests import DEFAULT

import recgym
from recgym.data import ImpressionLog, impressions
from recgym.data.ads import BARE, COLUMNS
from recgym.data.campaign_parameters import MAX_CREATIVES, ORIGINS
from recgym.data.impression_log import DAY, HELD_OUT, MIN_CLICKS
from recgym.data.landscape import (
    ClickTable,
    area_under_curve,
    fit_clicks,
    fit_delays,
    fit_market,
    fit_prediction,
    shrunk_rates,
    spreads_of,
)
from recgym.rng import NumpyRng
from recgym.scenarios.ads import Placement

NONE = np.zeros(0)
WORLD = Placement(base_rate=(0.02, 0.02), prediction=(0.3, 0.7), conversion_rate=0.2, conversion_spread=0.0)
HORIZON, PER_DAY = 40, 3_000  # days, and auctions of each


def write(path: Path, columns: dict[str, Any], *, header: bool = True) -> Path:
    """A log file of columns, compressed if its name says so."""
    rows = [",".join(map(str, row)) for row in zip(*(np.asarray(x).tolist() for x in columns.values()), strict=True)]
    content = "\n".join([*([",".join(columns)] if header else []), *rows, ""]).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def bought(seed: int = 0) -> tuple[dict[str, np.ndarray], Any, np.ndarray]:
    """Columns of auctions that a campaign of `WORLD` met, all of them won; the campaign; its predictions [K, S]."""
    task = WORLD.sample_task(NumpyRng(seed), 1)
    _, offer = WORLD.begin(task, NumpyRng(seed + 1))
    rng = np.random.default_rng(seed)
    traffic = rng.poisson(PER_DAY * np.exp(WORLD.day_factor * rng.normal(size=HORIZON)))
    day, shares = np.repeat(np.arange(HORIZON), traffic), WORLD.shares / WORLD.shares.sum()
    count = len(day)
    slot, creative = rng.choice(WORLD.slots, count, p=shares), rng.integers(WORLD.creatives, size=count)
    time = (day + (slot + rng.random(count)) / WORLD.slots) * DAY
    price = np.exp(task.log_price[0, slot] + task.sigma[0] * rng.normal(size=count))
    clicked = rng.random(count) < 1.0 / (1.0 + np.exp(-task.logit[0, creative, slot]))
    (fast, early), (_, late) = WORLD.delays
    delay = np.where(rng.random(count) < fast, early, late) * rng.exponential(size=count) * DAY
    comes = clicked & (rng.random(count) < task.rate[0, creative]) & (time + delay < HORIZON * DAY)
    predicted = offer.predicted[0] + task.base[0]
    columns = {
        "clicked": clicked.astype(int),
        "price": price,
        "prediction": 1.0 / (1.0 + np.exp(-predicted[creative, slot].astype(float))),
        "creative": np.array([f"banner {k}" for k in creative]),
        "time": time,
        "converted": np.where(comes, (time + delay).astype(str), ""),
    }
    return columns, task, predicted


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[ImpressionLog, Any, np.ndarray]:
    columns, task, predicted = bought()
    return impressions(write(tmp_path_factory.mktemp("ads") / "log.csv.gz", columns)), task, predicted


# --- a log of the scenario itself ------------------------------------------------------------------------------------
def test_the_fit_finds_the_market_that_made_the_log(made: Any) -> None:
    log, task, _ = made
    market = log.market
    assert market.kind == "all" and log.parts == WORLD.slots
    assert np.all(np.abs(market.means - task.log_price[0]) < 4 * market.errors)
    assert abs(market.sigma - task.sigma[0]) < 4 * market.sigma_error < 0.02
    found = log.parameters
    low, high = found["log_price"]
    assert low < task.log_price[0].mean() < high and high - low > 4 * WORLD.slot_price / math.sqrt(WORLD.slots) * 0.5
    assert found["price_spread"][0] < task.sigma[0] + 0.01 and found["price_spread"][1] > task.sigma[0] - 0.01
    assert found["slot_price"] == pytest.approx(task.log_price[0].std(ddof=1), rel=0.05)
    assert log.win_error.worst < 0.01
    share = np.bincount(log.slot, minlength=WORLD.slots) / len(log.slot)
    np.testing.assert_allclose(found["profile"], WORLD.slots * share, rtol=1e-3)
    np.testing.assert_allclose(found["profile"], WORLD.profile, rtol=0.05)
    assert abs(found["day_factor"] - WORLD.day_factor) < 4 * log.day_factor.error < 0.08


def test_the_fit_finds_the_click_rates_that_made_the_log(made: Any) -> None:
    log, task, predicted = made
    logit = task.logit[0].astype(float)
    effects, scores = log.effects, log.held_out
    assert abs(math.log(effects.median) - logit.mean()) < 4 * effects.median_error
    assert abs(effects.creative.sd - logit.mean(axis=1).std(ddof=1)) < 3 * max(effects.creative.error, 0.05)
    assert abs(effects.slot.sd - logit.mean(axis=0).std(ddof=1)) < 3 * max(effects.slot.error, 0.05)
    truth = 1.0 / (1.0 + np.exp(-logit))
    plain = log.table_of(log.won)
    plain_error = np.abs(np.log((plain.clicks + 0.5) / (plain.shown + 1.0) / truth)).mean()
    assert np.abs(np.log(effects.rates / truth)).mean() < plain_error  # shrinkage helps
    found = log.parameters
    assert math.hypot(found["taste"], found["creative_effect"]) == pytest.approx(effects.creative.sd, rel=1e-3)
    assert found["taste"] / found["creative_effect"] == pytest.approx(Placement.taste / Placement.creative_effect, 1e-3)
    assert math.hypot(found["taste_by_slot"], found["cell_effect"]) == pytest.approx(effects.cell.sd, rel=1e-3)
    assert found["slot_effect"] == pytest.approx(effects.slot.sd, rel=1e-3) and found["creatives"] == WORLD.creatives
    assert log.split == "the last 8 of 40 days" and log.late.mean() == pytest.approx(HELD_OUT, abs=0.03)
    assert scores["creative x slot"].log_loss < scores["creative"].log_loss < scores["constant"].log_loss
    assert scores["creative x slot"].gain > 3 * scores["creative x slot"].gain_error
    assert scores["prediction, calibrated"].log_loss < scores["prediction"].log_loss
    constant = scores["constant"]
    assert constant.gain == 0.0 and constant.gain_error == 0.0
    calibration = log.calibration
    wrong = predicted - logit
    assert abs(calibration.error.sd - wrong.std()) < 4 * calibration.error.error < 0.5
    assert abs(calibration.level - wrong.mean()) < 4 * calibration.level_error < 0.6
    assert found["prediction"] == pytest.approx([abs(calibration.level), calibration.error.sd], rel=1e-3)


def test_the_fit_finds_the_conversions_that_made_the_log(made: Any) -> None:
    log, *_ = made
    fit = log.delays
    assert abs(fit.rate - WORLD.conversion_rate) < 4 * fit.rate_error
    np.testing.assert_allclose(fit.weights, [w for w, _ in WORLD.delays], atol=0.12)
    np.testing.assert_allclose(fit.means, [mean for _, mean in WORLD.delays], rtol=0.35)
    found = log.parameters
    assert sum(w for w, _ in found["delays"]) == pytest.approx(1.0, abs=1e-9)
    assert found["conversion_rate"] == pytest.approx(WORLD.conversion_rate, rel=0.2)
    assert found["conversion_spread"] < 0.3


def test_parameters_make_a_scenario(made: Any) -> None:
    log, *_ = made
    parameters = json.loads(json.dumps(log.parameters))
    assert parameters == log.parameters
    scenario = recgym.make_scenario("AdPlacement-v0", **parameters)
    assert scenario.layout.candidates == WORLD.creatives * WORLD.slots
    task = scenario.sample_task(NumpyRng(3), 4_000)
    low, high = np.log(parameters["base_rate"])
    assert task.base.min() >= low - 1e-5 and task.base.max() <= high + 1e-5
    assert log.parameters_beside({"horizon": 9})["horizon"] == 9
    report = json.loads(json.dumps(log.to_json(), allow_nan=False))
    assert report["clicks"] == log.clicked.sum() and report["creatives"] == 8 and "nobody drew" in report["note"]


def test_every_parameter_has_an_origin(made: Any, tmp_path: Path) -> None:
    log, *_ = made
    names = {each.name for each in fields(Placement)}
    assert set(ORIGINS) == set(log.origins) == names
    assert {name for name, origin in log.origins.items() if origin == "fitted"} == set(log.parameters)
    for name in ("fatigue", "drift", "change", "launch", "reaction", "level"):  # no such log holds them
        assert log.origins[name] == "assumed"
    assert log.origins["budget"] == log.origins["conversion_value"] == "fixed"
    columns, *_ = bought()
    bare = impressions(write(tmp_path / "bare.csv", {name: columns[name][:9000] for name in ("clicked", "price")}))
    assert set(bare.parameters) == {"base_rate", "log_price", "price_spread"}
    assert bare.origins["delays"] == bare.origins["prediction"] == bare.origins["taste"] == "assumed"


def test_one_creative_has_assumed_effects(tmp_path: Path) -> None:
    """And a base rate from which these lead to the click rate of the log."""
    columns, *_ = bought()
    columns["creative"] = np.full(len(columns["price"]), "the one")
    log = impressions(write(tmp_path / "log.csv", columns))
    assert log.origins["taste"] == log.origins["cell_effect"] == log.origins["creatives"] == "assumed"
    assert log.origins["profile"] == log.origins["delays"] == "fitted" and "creative" not in log.held_out
    task = Placement(**{**log.parameters, "level": 0.0}).sample_task(NumpyRng(0), 4_000)
    mean = (1.0 / (1.0 + np.exp(-task.logit))).mean()
    assert mean == pytest.approx(log.clicked.mean(), rel=0.05)


def test_what_is_held_out_is_not_fitted(tmp_path: Path) -> None:
    """The creative that is clicked until the last days is not clicked in them: who has seen only those before loses."""
    rng = np.random.default_rng(0)
    time, creative = np.sort(rng.random(20_000)) * 10 * DAY, rng.integers(2, size=20_000)
    clicked = rng.random(20_000) < np.where((creative == 0) == (time < 8 * DAY), 0.2, 0.02)
    columns = {"clicked": clicked.astype(int), "price": rng.lognormal(size=20_000), "creative": creative, "time": time}
    columns["prediction"] = np.where(creative == 0, 0.2, 0.02)
    log = impressions(write(tmp_path / "log.csv", columns))
    assert log.split == "the last 2 of 10 days" and np.array_equal(log.late, time >= 8 * DAY)
    for model in ("creative", "creative x slot", "prediction, calibrated"):
        assert log.held_out[model].gain < -5 * log.held_out[model].gain_error
    columns["prediction"] = np.where(clicked, 1e-300, np.nextafter(1.0, 0.0))  # as wrong as can be, yet not endless
    wrong = impressions(write(tmp_path / "log.csv", columns)).held_out["prediction"]
    assert math.isfinite(wrong.log_loss) and wrong.gain < 0
    columns["prediction"] = np.full(len(time), 0.1)
    columns["price"] = np.where(time < 8 * DAY, 1.0, 3.0) * columns["price"]
    assert impressions(write(tmp_path / "log.csv", columns)).win_error.worst > 0.3 > 10 * log.win_error.worst


def test_many_creatives_make_a_task_of_some(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    clicked = rng.random(6_000) < 0.05
    columns = {"clicked": clicked.astype(int), "price": rng.lognormal(size=6_000)}
    columns["creative"] = rng.integers(300, size=6_000)
    log = impressions(write(tmp_path / "log.csv", columns))
    assert len(log.names) == 300 and log.parameters["creatives"] == MAX_CREATIVES
    assert log.split == "20% of the rows" and log.effects.creative.sd < 0.5


# --- the fits, one by one --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["all", "truncated", "censored"])
def test_the_law_of_prices_and_its_errors(kind: str) -> None:
    """Over 100 logs: no bias beyond 4 standard errors of the mean, and spreads of estimates as their errors say."""
    found, means = [], np.array([3.5, 4.5])
    for seed in range(100):
        rng = np.random.default_rng(seed)
        slot = rng.integers(2, size=2_000)
        price, bid = means[slot] + 0.9 * rng.normal(size=2_000), 4.0 + 0.8 * rng.normal(size=2_000)
        won = np.ones(2_000, dtype=bool) if kind == "all" else price <= bid
        lost = ~won if kind == "censored" else np.zeros(2_000, dtype=bool)
        fit = fit_market(price[won], slot[won], None if kind == "all" else bid[won], bid[lost], slot[lost], 3)
        assert fit.kind == kind and np.isinf(fit.errors[2])
        found.append([*fit.means[:2], fit.sigma, *fit.errors[:2], fit.sigma_error])
    values, errors = np.split(np.array(found), 2, axis=1)
    spread = values.std(axis=0, ddof=1)
    assert np.all(np.abs(values.mean(axis=0) - [*means, 0.9]) < 4 * spread / 10)
    np.testing.assert_allclose(errors.mean(axis=0), spread, rtol=0.25)  # a spread of 100 has an error of 7 %


def test_prices_cut_at_the_bid_are_not_taken_for_all(tmp_path: Path) -> None:
    columns, task, _ = bought()
    rng = np.random.default_rng(5)
    bid = np.exp(task.bid[0] + 0.8 * rng.normal(size=len(columns["price"])))
    won = columns["price"] <= bid
    plain = {name: column[won] for name, column in columns.items()}
    naive = impressions(write(tmp_path / "plain.csv", plain))
    cut = impressions(write(tmp_path / "cut.csv", {**plain, "bid": bid[won]}))
    assert naive.market.means.mean() < task.log_price[0].mean() - 0.3
    assert np.all(np.abs(cut.market.means - task.log_price[0]) < 5 * cut.market.errors)
    assert cut.market.kind == "truncated" and cut.win_error.worst < 0.02
    np.testing.assert_allclose(cut.profile, WORLD.profile, rtol=0.15)
    lost = {"clicked": columns["clicked"] * won, "price": np.where(won, columns["price"], 0.0), "bid": bid}
    lost |= {"time": columns["time"]}
    whole = impressions(write(tmp_path / "lost.csv", lost))
    assert whole.market.kind == "censored" and int(whole.won.sum()) == int(won.sum())
    assert np.all(np.abs(whole.market.means - task.log_price[0]) < 4 * whole.market.errors)
    assert np.all(whole.market.errors < cut.market.errors) and whole.win_error.worst < 0.05
    np.testing.assert_allclose(whole.profile, WORLD.profile, rtol=0.05)


def test_moments_of_click_rates_by_hand() -> None:
    """Two creatives in two slots, 1,000 impressions each: products of rates over pairs that share what."""
    clicks = np.array([[40.0, 20.0], [20.0, 10.0]])
    median, creative, slot, cell = spreads_of(ClickTable(np.full((2, 2), 1e3), clicks))
    rates = clicks / 1e3
    neither = (rates[0, 0] * rates[1, 1] + rates[0, 1] * rates[1, 0]) / 2
    one = (rates[0, 0] * rates[0, 1] + rates[1, 0] * rates[1, 1]) / 2
    same = (clicks * (clicks - 1) / (1e3 * 999)).mean()
    scale = 1 / (1 - rates.mean()) ** 2
    assert creative == pytest.approx(slot) == pytest.approx(math.log(one / neither) * scale)
    logs = np.array([math.log(same / neither), math.log(one / neither)])
    assert cell == pytest.approx(max(logs[0] - 2 * logs[1], 0.0) * scale)
    assert median == pytest.approx(math.sqrt(neither) * math.exp(-max(logs[0], 2 * logs[1]) / 2))


def test_spreads_of_click_rates_are_net_of_noise() -> None:
    """Means over 200 tables of few clicks: of effects .5, .3 and .3, and of none."""
    found, none = [], []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        effects = 0.5 * rng.normal(size=(20, 1)) + 0.3 * rng.normal(size=(1, 12)) + 0.3 * rng.normal(size=(20, 12))
        shown = np.floor(600 * rng.lognormal(0.0, 0.7, size=(20, 12)))  # six clicks of a cell
        for to, logit in ((found, effects), (none, 0.0 * effects)):
            clicks = rng.binomial(shown.astype(int), 1.0 / (1.0 + np.exp(-math.log(0.01) - logit)))
            to.append(spreads_of(ClickTable(shown, clicks.astype(float))))
    mean = np.mean(found, axis=0)
    np.testing.assert_allclose(mean[1:], [0.25, 0.09, 0.09], rtol=0.15)  # the logarithm of a ratio costs some
    assert np.mean(none, axis=0)[1:].max() < 0.01 and math.log(mean[0] / 0.01) == pytest.approx(0.0, abs=0.05)


@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize("clicks", [0, 1, 2, 20, 1000])
def test_clicks_of_one_creative_alone_are_a_difference(slots: int, clicks: int) -> None:
    """Of 8 creatives one has all clicks: the more there are, the further are rates apart; one click tells nothing."""
    table = ClickTable(np.full((8, slots), 1e4), np.zeros((8, slots)))
    table.clicks[2] = clicks // slots + (np.arange(slots) < clicks % slots)
    effects = fit_clicks(table)
    assert all(math.isfinite(value) for each in (effects.creative, effects.slot, effects.cell) for value in each)
    assert effects.slot.sd < 0.1
    low, high = {0: (0.0, 0.0), 1: (0.0, 0.9), 2: (0.5, 1.9), 20: (1.9, 2.9), 1000: (2.8, 4.0)}[clicks]
    assert low <= effects.creative.sd <= high, effects.creative
    assert 0.0 < effects.median < 1.0 or clicks == 0
    assert clicks < 2 or (effects.rates.argmax(axis=0) == 2).all()
    slot = fit_clicks(ClickTable(table.shown.T, table.clicks.T))
    assert (slot.slot.sd, slot.creative.sd) == pytest.approx(
        (effects.creative.sd, effects.slot.sd), abs=1e-6
    ) or slots == 1


def test_errors_of_click_rates_are_those_of_the_jackknife() -> None:
    """Each creative and each slot left out in turn, by hand; of many creatives groups, within the memory of a table."""
    rng = np.random.default_rng(0)
    shown = np.floor(600 * rng.lognormal(0.0, 0.7, size=(30, 4)))
    rates = 1.0 / (1.0 + np.exp(4.5 - 0.5 * rng.normal(size=(30, 1)) - 0.3 * rng.normal(size=(1, 4))))
    table = ClickTable(shown, rng.binomial(shown.astype(int), rates).astype(float))
    variance = np.zeros(3)
    for axis, size in ((0, 30), (1, 4)):
        left = [ClickTable(*(np.delete(x, i, axis=axis) for x in table)) for i in range(size)]
        values = np.array([np.sqrt(spreads_of(each)[1:]) for each in left])
        variance += (size - 1) / size * ((values - values.mean(axis=0)) ** 2).sum(axis=0)
    effects = fit_clicks(table)
    np.testing.assert_array_equal(
        [effects.creative.error, effects.slot.error, effects.cell.error], [math.sqrt(v) for v in variance]
    )
    few, many = (ClickTable(*(np.tile(x[:, :1], (times, 1)) for x in table)) for times in (1, 400))
    tracemalloc.start()
    wide = fit_clicks(many)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60 * many.shown.nbytes
    assert 20.0 * wide.creative.error == pytest.approx(fit_clicks(few).creative.error, rel=0.4)


def test_shrunk_rates_lie_between_the_count_and_the_mean() -> None:
    """A creative with few impressions is drawn to the mean, one with many has its own rate; without variance all do."""
    table = ClickTable(np.array([[1e4, 1e4], [1e4, 1e4], [100.0, 100.0]]), np.array([[200.0, 210], [100, 95], [9, 1]]))
    mean = table.clicks.sum() / table.shown.sum()
    rates, by_creative = shrunk_rates(table, 0.25, 0.04, 0.04)
    assert by_creative[0] == pytest.approx(0.0205, rel=0.03) and mean < by_creative[2] < 0.05
    prior = 1.0 / math.expm1(0.25)
    assert by_creative[2] == pytest.approx(mean * (10 + prior) / (200 * mean + prior))
    assert rates[0, 0] < rates[0, 1] and mean < rates[2, 1] < rates[2, 0] < 0.09
    alike, plain = shrunk_rates(table, 0.0, 0.0, 0.0)
    np.testing.assert_allclose(alike, mean)
    np.testing.assert_allclose(plain, mean)


def test_the_error_of_predictions() -> None:
    """Logits N(-4, .6^2), predictions .3 too high with errors of sd 1: slope .36 / 1.36, and the area it implies."""
    rng = np.random.default_rng(1)
    logit = -4.0 + 0.6 * rng.normal(size=400_000)
    predicted = logit + 0.3 + rng.normal(size=len(logit))
    fit = fit_prediction(predicted, (rng.random(len(logit)) < 1 / (1 + np.exp(-logit))).astype(float))
    assert abs(fit.slope - 0.36 / 1.36) < 4 * fit.slope_error + 0.01 and fit.slope_error < 0.02
    assert abs(fit.error.sd - 1.0) < 4 * fit.error.error + 0.01 and abs(fit.level - 0.3) < 4 * fit.level_error + 0.02
    implied = 0.5 * (1.0 + math.erf(fit.slope * predicted.std() / 2.0))
    assert fit.auc == pytest.approx(implied, abs=0.015)
    assert fit.rates(predicted).mean() == pytest.approx((1 / (1 + np.exp(-logit))).mean(), rel=0.05)


def test_the_area_under_the_curve_counts_pairs() -> None:
    score, clicked = np.array([3.0, 1.0, 2.0, 2.0]), np.array([1.0, 0.0, 1.0, 0.0])
    assert area_under_curve(score, clicked) == pytest.approx((1 + 1 + 1 + 0.5) / 4)
    assert math.isnan(area_under_curve(score, np.zeros(4)))


def test_conversions_to_come_are_reckoned_with() -> None:
    """Clicks of 30 days with a mean delay of 10: what has come by the end is early, and not all."""
    rng = np.random.default_rng(2)
    left = 30.0 * rng.random(40_000)
    delay = np.where(rng.random(len(left)) < 0.4, 0.5, 10.0) * rng.exponential(size=len(left))
    came = (rng.random(len(left)) < 0.1) & (delay < left)
    assert came.mean() < 0.085 and delay[came].mean() < 0.8 * 6.2  # the premise
    fit = fit_delays(delay[came], left[~came])
    assert abs(fit.rate - 0.1) < 4 * fit.rate_error < 0.012
    assert fit.weights == pytest.approx((0.4, 0.6), abs=0.05) and fit.means == pytest.approx((0.5, 10.0), rel=0.2)
    few = fit_delays(delay[came][:100], left[~came][:900])
    assert len(few.means) == 1 and few.weights == (1.0,)


# --- layouts ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["log.csv", "log.csv.gz"])
def test_four_columns_without_a_header(tmp_path: Path, name: str) -> None:
    columns, task, _ = bought()
    four = {"clicked": columns["clicked"], "price": columns["price"] * 0.5, "prediction": columns["prediction"]}
    four["rival"] = columns["price"]
    log = impressions(write(tmp_path / name, four, header=False))
    assert tuple(four) == BARE and len(log.clicked) == len(columns["price"]) and log.parts == 1
    np.testing.assert_allclose(log.log_price, np.log(columns["price"]))  # of the highest rival, not what was paid
    assert log.origins["prediction"] == "fitted" and log.origins["profile"] == "assumed"
    assert set(log.held_out) == {"constant", "prediction", "prediction, calibrated"}
    assert log.split == "20% of the rows" and log.late.sum() == math.ceil(HELD_OUT * len(log.clicked))
    low, high = log.parameters["log_price"]
    assert task.log_price[0].min() < low < high < task.log_price[0].max()


def test_names_and_units_of_columns(tmp_path: Path) -> None:
    columns, *_ = bought()
    columns = {name: column[:12_000] for name, column in columns.items()}
    expected = impressions(write(tmp_path / "a.csv", columns)).parameters
    usual = dict(
        zip(("click", "paying_price", "pctr", "ad_id", "timestamp", "converted_at"), columns.values(), strict=True)
    )
    assert impressions(write(tmp_path / "b.csv", usual)).parameters == expected
    other = dict(zip("abcdef", columns.values(), strict=True)) | {"b": columns["price"] / 1_000.0}
    path = write(tmp_path / "c.csv", other)
    named = dict(zip(columns, "abcdef", strict=True))
    found = impressions(path, **named, per=1).parameters  # type: ignore[arg-type]
    assert found == expected
    criteo = {**columns, "converted": np.where(columns["converted"] == "", "-1", columns["converted"])}
    assert impressions(write(tmp_path / "d.csv", criteo)).parameters == expected
    without = impressions(tmp_path / "a.csv", creative=None, converted=None)
    assert without.names == ("",) and without.converted is None
    halves = impressions(tmp_path / "a.csv", parts=2)
    assert len(halves.parameters["profile"]) == 2 and halves.table_of(halves.won).shown.shape == (8, 2)
    iso = {**columns, "time": [f"{np.datetime64(int(t * 1000), 'ms')}" for t in columns["time"]]}
    iso["converted"] = [
        "" if t == "" else f"{np.datetime64(int(float(t) * 1000) + 1, 'ms')}" for t in columns["converted"]
    ]
    assert impressions(write(tmp_path / "e.csv", iso)).parameters["profile"] == expected["profile"]


# --- what is refused -------------------------------------------------------------------------------------------------
GOOD = {"clicked": 0, "price": 2.5, "prediction": 0.01, "creative": "a", "time": 100.0, "bid": 4.0, "converted": ""}
BAD_ROWS: dict[str, tuple[dict[str, Any], str]] = {  # the second row, so line 3
    "half a click": ({"clicked": 0.5}, "line 3, column 'clicked': '0.5' is not 0 or 1"),
    "no click": ({"clicked": "nan"}, "line 3, column 'clicked': 'nan' is not 0 or 1"),
    "negative price": ({"price": -1}, "line 3, column 'price': '-1' is not a number of at least 0"),
    "NaN price": ({"price": "nan"}, "line 3, column 'price': 'nan' is not a number of at least 0"),
    "endless bid": ({"bid": "inf"}, "line 3, column 'bid': 'inf' is not a number of at least 0"),
    "sure prediction": ({"prediction": 1.0}, "line 3, column 'prediction': '1.0' is not a probability in (0, 1)"),
    "no prediction": ({"prediction": 0}, "line 3, column 'prediction': '0' is not a probability in (0, 1)"),
    "NaN prediction": ({"prediction": "nan"}, "line 3, column 'prediction': 'nan' is not a probability"),
    "percent": ({"prediction": 1.3}, "line 3, column 'prediction': '1.3' is not a probability in (0, 1)"),
    "no creative": ({"creative": " "}, "line 3, column 'creative': ' ' is not the name of a creative"),
    "packed date": ({"time": "20130606000104008"}, "line 3, column 'time': '20130606000104008' is not seconds"),
    "no time": ({"time": "soon"}, "line 3, column 'time': 'soon' is not seconds, or an ISO 8601 time"),
    "click not won": ({"clicked": 1, "price": 0}, "row 3: clicked, but no price was paid"),
    "click without price": ({"clicked": 1, "price": ""}, "row 3: clicked, but no price was paid"),
    "click without bid": ({"clicked": 1, "bid": ""}, "row 3: a price but no bid: give its bid"),
    "price above the bid": ({"price": 4.1}, "row 3: a price above the bid, which cannot have won"),
    "conversion alone": ({"converted": 200.0}, "row 3: converted without a click"),
    "early conversion": ({"clicked": 1, "converted": 50.0}, "row 3: converted before the impression"),
    "late date": ({"clicked": 1, "converted": "later"}, "line 3, column 'converted': 'later' is not seconds"),
}


@pytest.mark.parametrize(("change", "message"), BAD_ROWS.values(), ids=BAD_ROWS.keys())
def test_bad_row(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    rows = [GOOD, {**GOOD, **change}, GOOD]
    text = "\n".join([",".join(GOOD), *(",".join(map(str, row.values())) for row in rows), ""])
    path = tmp_path / "log.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"^{re.escape(f'{path}, {message}')}") as caught:
        impressions(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["log{x}.csv", "{}.csv"])
def test_a_path_with_braces_is_named_as_it_is(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    wrong = write(path, {**few(), "bid": np.where(np.arange(1_000) < 3, 0.001, 1e6)})
    what = "a price above the bid, which cannot have won: see that both are in the same units (3 such rows)"
    with pytest.raises(ValueError, match=f"^{re.escape(f'{path}, row 2: {what}')}$"):
        impressions(wrong)
    late = write(path, {**few(), "converted": np.where(np.arange(1_000) < 9, "7", "")})
    what = "times of conversion but none of impressions: name them as time"
    with pytest.raises(ValueError, match=f"^{re.escape(f'{path}: {what}')}$"):
        impressions(late)


def few(clicks: int = 200, count: int = 1_000) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {"clicked": (np.arange(count) < clicks).astype(int), "price": rng.lognormal(size=count).round(3) + 0.1}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "few clicks": (few(MIN_CLICKS - 1), "29 clicks, at least 30 are needed: bring a longer log"),
    "all clicked": (few(1_000), "every impression is clicked: give those without a click too"),
    "one price": (
        {**few(), "price": np.full(1_000, 3.0)},
        "every price is 3: the law of prices needs some that differ",
    ),
    "first price": ({**few(), "bid": few()["price"]}, "every price is the bid, as in first-price auctions"),
    "lost without bids": (
        {**few(), "price": few()["price"] * (np.arange(1_000) < 900)},
        "row 902: no price, so that it",
    ),
    "no rival": ({**few(), "rival": np.zeros(1_000)}, "row 2: won, but the price of the highest rival is 0"),
    "no time": (
        {**few(), "converted": np.where(np.arange(1_000) < 9, "7", "")},
        "but none of impressions: name them as",
    ),
}


@pytest.mark.parametrize(("columns", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_logs_that_say_nothing_are_refused(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        impressions(write(tmp_path / "log.csv", columns))


def test_bad_header_path_and_arguments(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.csv does not exist: name a file of impressions"):
        impressions(tmp_path / "none.csv")
    with pytest.raises(FileNotFoundError, match="is a folder: name the file"):
        impressions(tmp_path)
    path = tmp_path / "log.csv"
    for text, message in (
        ("", "line 1: the file is empty"),
        ("clicked,price\n", "line 2: a header but no rows"),
        ("clicks,price\n1,2\n", "line 1: no column 'clicked' or 'click' or 'clk' or 'is_click': name these"),
        ("clicked,price,cost\n1,2,3\n", "the same column is there 2 times, 'price' .*, 'cost'"),
        ("1,2.5,0.1,2.5\n0,2.5,0.1\n", "line 2, column 'rival': 3 fields, 4 in the header"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            impressions(path)
    write(path, few())
    with pytest.raises(ValueError, match="no column 'offer': name these columns"):
        impressions(path, bid="offer")  # named, so that it has to be there
    with pytest.raises(ValueError, match="price and bid both name the column 'price'"):
        impressions(path, bid="price")
    for wrong in (0, -1.0, math.nan, True, "1000"):
        with pytest.raises(ValueError, match="per must be a number above 0"):
            impressions(path, per=wrong)  # type: ignore[arg-type]
    for wrong in (0, 25, 2.0, True):
        with pytest.raises(ValueError, match=r"parts must be a whole number in \[1, 24\]"):
            impressions(path, parts=wrong)  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match=r"a click rate of 0\.\d+ for a creative and hour of the middle, more than 0\.1"
    ):
        _ = impressions(path).parameters
    cheap = {**few(20_000 // 400, 20_000), "price": few(1, 20_000)["price"] * 1e9}
    with pytest.raises(ValueError, match=r"is none of the scenario's: .*log_price.*: see that prices are in the right"):
        _ = impressions(write(path, cheap)).parameters
    even = {**few(60, 6_000), "price": np.linspace(0.001, 1.0, 6_000), "bid": np.ones(6_000)}
    with pytest.raises(
        ValueError, match=r"prices cut at the bid do not tell how far rivals go beyond it: give the bids"
    ):
        _ = impressions(write(path, even)).parameters
    dropped = impressions(
        write(
            path,
            {
                **few(),
                "bid": np.where(np.arange(1_000) < 990, 1e6, 0.0),
                "price": few()["price"] * (np.arange(1_000) < 990),
            },
        )
    )
    assert dropped.left_out == {"neither a price nor a bid": 10} and len(dropped.clicked) == 990
    assert {name for name, column in COLUMNS.items() if not column.optional} == {"clicked", "price"}


# --- the command -----------------------------------------------------------------------------------------------------
@pytest.mark.usefixtures("no_pictures")
def test_log_of_impressions_trains_and_reports(command: Any, tmp_path: Path) -> None:
    """From the log to an agent and its percent of informed."""
    columns, *_ = bought()
    path = write(tmp_path / "log.csv.gz", {name: column[:30_000] for name, column in columns.items()})
    small = ["--env", "AdPlacement-v0", "--log", str(path), "--param", "horizon=8", "--n-envs", "8", "-n", "200"]
    small += ["--pretrain-steps", "80", "--trials", "20", "--eval-trials", "20", "--eval-freq", "0"]
    small += ["--tensorboard-log", str(tmp_path), '--hyperparam=policy_kwargs={"width": 8, "layers": 1}']
    printed = command("train", *small)
    for expected in (
        "30,000 impressions",
        "prediction, calibrated",
        "win rates, held out: off by",
        "fitted: base_rate",
        "assumed: level",
        "given: horizon",
        "percent of the informed",
    ):
        assert expected in printed, printed
    report = json.loads((tmp_path / DEFAULT / "AdPlacement-v0_1" / "report.json").read_text())
    assert report["impressions"]["held_out"]["creative x slot"]["log_loss"] > 0
    assert 0.0 < report["share_of_informed"][DEFAULT]["mean"] < 1.5
    refused = command("train", "--env", "AdBidding-v0", "--log", str(path), code=2)
    assert "AdBidding-v0 takes nothing from a log; " in refused and "AdPlacement-v0" in refused
    refused = command("train", "--env", "AdPlacement-v0", "--log", str(path), "--log-column", "sold=x", code=2)
    assert "its columns are clicked, price, prediction, creative, time, bid, converted, rival, per, parts" in refused
