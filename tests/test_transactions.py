"""Logs of sales: estimates against known demand and by hand, the error table, the orange-juice sample, the tasks."""

from __future__ import annotations

import gzip
import json
import math
import os
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import recgym
from recgym.data import ProductFit, TransactionLog, transactions
from recgym.data.fitting import MIN_PROMOTED, MIN_ROWS
from recgym.data.pricing import MIN_SPREAD, ORIGINS, _elasticity, _lift
from recgym.evaluation import ratio
from recgym.rng import NumpyRng
from recgym.scenarios.pricing import DynamicPricing

pytestmark = pytest.mark.filterwarnings("ignore:.*sales are fractions")  # made without units here

FOLDER = Path(os.environ.get("RECGYM_DATA", Path(__file__).parents[1] / ".." / "shared" / "data"))
SAMPLE = FOLDER / "orange_juice.csv.gz"
needs_sample = pytest.mark.skipif(
    not SAMPLE.is_file(), reason=f"no orange-juice sample at {SAMPLE}: set RECGYM_DATA to the folder that holds it"
)
HEADER = "sales,price,product,promotion"
TRUE = {"ale": (3.0, 0.5, 2.0), "bun": (1.5, 1.2, 4.0), "cod": (2.2, 0.1, 9.0)}  # elasticity, lift, base price


def write(path: Path, rows: list[str], header: str = HEADER) -> Path:
    """A log file, compressed if its name says so."""
    content = "\n".join([header, *rows, ""]).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def sales_rows(
    name: str, elasticity: float, lift: float, base: float, *, count: int = 2000, seed: int = 0
) -> list[str]:
    """Rows of a product with that demand and lognormal errors, wider at high prices; promoted ones are cheaper."""
    rng = np.random.default_rng([seed, *name.encode()])
    promoted = rng.random(count) < 0.3
    price = base * np.exp(rng.uniform(-0.3, 0.3, count) - 0.1 * promoted)
    error = rng.normal(size=count) * (0.3 + 0.5 * np.abs(np.log(price / base)))
    sales = np.exp(7.0 - elasticity * np.log(price / base) + math.log1p(lift) * promoted + error)
    return [f"{s!r},{p!r},{name},{int(f)}" for s, p, f in zip(sales.tolist(), price.tolist(), promoted, strict=True)]


def made(tmp_path: Path, *, count: int = 2000, seed: int = 0, name: str = "log.csv", **true: Any) -> TransactionLog:
    rows = [row for key, v in (true or TRUE).items() for row in sales_rows(key, *v, count=count, seed=seed)]
    np.random.default_rng(seed).shuffle(rows)
    return transactions(write(tmp_path / name, rows))


def by_hand(log: TransactionLog, product: str) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients of the normal equations, and HC1 standard errors summed row by row."""
    at = log.product == log.products.index(product)
    price = log.price[at]
    x = np.stack([np.ones(at.sum()), np.log(price / np.median(price)), log.promoted[at].astype(float)], axis=1)
    y = np.log(log.sales[at])
    inverse = np.linalg.inv(x.T @ x)
    beta = inverse @ x.T @ y
    meat = np.zeros((3, 3))
    for row, residual in zip(x, y - x @ beta, strict=True):
        meat += residual**2 * np.outer(row, row)
    return beta, np.sqrt(np.diag(inverse @ meat @ inverse) * len(y) / (len(y) - 3))


# --- the fit ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["log.csv", "log.csv.gz"])
def test_estimates_find_the_demand(tmp_path: Path, name: str) -> None:
    log = made(tmp_path, name=name)
    assert log.products == tuple(TRUE) and len(log.sales) == 6000
    for fit in log.fits:
        elasticity, lift, base = TRUE[fit.product]
        assert fit.rows == 2000
        assert fit.base_price == pytest.approx(base, rel=0.1)
        assert abs(fit.elasticity - elasticity) < 3 * fit.elasticity_error < 0.3
        assert abs(fit.lift - lift) < 3 * fit.lift_error < 0.3
        assert fit.lift == pytest.approx(math.exp(fit.log_lift) - 1)
        assert abs(fit.level - (7.0 - elasticity * math.log(fit.base_price / base))) < 0.05
        assert 0.3 < fit.residual < 0.45


def test_coefficients_and_standard_errors_by_hand(tmp_path: Path) -> None:
    log = made(tmp_path, count=60)
    for fit in log.fits:
        beta, error = by_hand(log, fit.product)
        assert (fit.level, -fit.elasticity, fit.log_lift) == pytest.approx(tuple(beta), rel=1e-9)
        assert (fit.elasticity_error, fit.log_lift_error) == pytest.approx(tuple(error[1:]), rel=1e-9)
        assert fit.lift_error == pytest.approx((1 + fit.lift) * error[2], rel=1e-9)


def test_standard_errors_are_those_of_repetitions(tmp_path: Path) -> None:
    """Their mean over 200 logs is the spread of the estimates, and 95 % intervals hold the truth as often as that."""
    fits = [made(tmp_path, count=100, seed=seed, bun=TRUE["bun"]).fits[0] for seed in range(200)]
    found = np.array([(fit.elasticity, fit.elasticity_error) for fit in fits])
    assert found[:, 1].mean() == pytest.approx(found[:, 0].std(), rel=0.15)  # s.e. of a spread of 200: 5 %
    covered = np.abs(found[:, 0] - 1.5) < 1.96 * found[:, 1]
    assert 0.88 < covered.mean() < 0.99


def test_two_prices_by_hand(tmp_path: Path) -> None:
    """Sales 8 at price 1 and 2 at price 2, exactly: elasticity 2; a promotion doubles them; nothing is left over."""
    rows = [f"{8 * 2**f / p**2},{p},x,{f}" for p in (1, 2) for f in (0, 1) for _ in range(MIN_PROMOTED)]
    fit = transactions(write(tmp_path / "log.csv", rows)).fits[0]
    assert fit.base_price == 1.5
    assert (fit.elasticity, fit.lift, fit.level) == pytest.approx((2.0, 1.0, math.log(8 / 1.5**2)))
    assert (fit.elasticity_error, fit.lift_error, fit.residual) == pytest.approx((0, 0, 0), abs=1e-9)


def test_held_out_error(tmp_path: Path) -> None:
    log = made(tmp_path)
    full, without, mean = (log.held_out[name] for name in ("log-log", "without elasticity", "product mean"))
    assert full.rmse == pytest.approx(np.mean([fit.residual**2 for fit in log.fits]) ** 0.5, rel=0.02)
    assert full.rmse + 5 * (full.error + without.error) < without.rmse < mean.rmse
    assert full.ape < without.ape < mean.ape
    again = transactions(log.path)
    assert again.held_out == log.held_out  # the split has a seed


def test_held_out_error_is_held_out(tmp_path: Path) -> None:
    """Against noise alone the model's two further coefficients make it no better, as they would in sample."""
    rng = np.random.default_rng(3)
    rows = [f"{math.exp(rng.normal())},{math.exp(rng.normal())},x,{i % 2}" for i in range(40)]
    log = transactions(write(tmp_path / "log.csv", rows))
    assert log.held_out["log-log"].rmse > log.held_out["product mean"].rmse > np.log(log.sales).std()


@needs_sample
def test_sample() -> None:
    log = transactions(SAMPLE)
    assert len(log.sales) == 28_947
    assert log.products == ("dominicks", "minute.maid", "tropicana")
    found = {fit.product: (round(fit.elasticity, 2), round(fit.lift, 2), fit.base_price) for fit in log.fits}
    assert found == {
        "dominicks": (2.90, 1.40, 1.59),
        "minute.maid": (2.37, 2.06, 2.17),
        "tropicana": (2.29, 0.79, 2.99),
    }
    for fit in log.fits:
        assert fit.rows == 9_649 and 0.02 < fit.elasticity_error < 0.06 and 0.03 < fit.lift_error < 0.06
        beta, error = by_hand(log, fit.product)
        assert (fit.elasticity, fit.elasticity_error) == pytest.approx((-beta[1], error[1]), rel=1e-6)
    full, without = log.held_out["log-log"], log.held_out["without elasticity"]
    assert full.rmse == pytest.approx(0.701, abs=0.002)
    assert full.rmse < 0.85 * without.rmse < 0.85 * log.held_out["product mean"].rmse
    assert json.loads(json.dumps(log.to_json()))["rows"] == 28_947


# --- reading ---------------------------------------------------------------------------------------------------------
def test_names_of_columns(tmp_path: Path) -> None:
    rows = sales_rows("ale", *TRUE["ale"], count=80)
    expected = transactions(write(tmp_path / "a.csv", rows)).fits
    assert transactions(write(tmp_path / "b.csv", rows, "sales,price,brand,feat")).fits == expected
    other = write(tmp_path / "c.csv", rows, "units,paid,sku,deal")
    named = {"sales": "units", "price": "paid", "product": "sku", "promotion": ["promo", "deal"]}
    assert transactions(str(other), **named).fits == expected
    more = write(tmp_path / "d.csv", [f"{row},x" for row in rows], HEADER + ",brand")
    with pytest.raises(ValueError, match=r"the same column is there 2 times, 'product' .*, 'brand'"):
        transactions(more)
    assert transactions(more, product="product").fits == expected


def test_no_promotions(tmp_path: Path) -> None:
    rows = [row.rpartition(",")[0] for row in sales_rows("ale", *TRUE["ale"], count=40)]
    path = write(tmp_path / "log.csv", rows, "sales,price,product")
    with pytest.raises(ValueError, match="line 1: no column 'promotion' or 'feat': name these columns"):
        transactions(path)
    log = transactions(path, promotion=None)
    assert not log.promoted.any() and math.isnan(log.fits[0].lift)
    assert log.parameters["promotions"] == [[0.0, 0.0]] and log.parameters["lift"] == [0.0, 0.0]


GOOD = "10,1.5,ale,0"
BAD_ROWS = {  # the second row of three, so line 3: row, message
    "negative sales": ("-2,1.5,ale,0", "line 3, column 'sales': '-2' is not a number of at least 0"),
    "text sales": ("many,1.5,ale,0", "line 3, column 'sales': 'many' is not a number of at least 0"),
    "empty sales": (",1.5,ale,0", "line 3, column 'sales': '' is not a number of at least 0"),
    "NaN sales": ("nan,1.5,ale,0", "line 3, column 'sales': 'nan' is not a number of at least 0"),
    "endless sales": ("inf,1.5,ale,0", "line 3, column 'sales': 'inf' is not a number of at least 0"),
    "grouped digits": ("1_0,1.5,ale,0", "line 3, column 'sales': '1_0' is not a number of at least 0"),
    "free": ("10,0.0,ale,0", "line 3, column 'price': '0.0' is not a number above 0"),
    "negative price": ("10,-1.5,ale,0", "line 3, column 'price': '-1.5' is not a number above 0"),
    "text price": ("10,$1.5,ale,0", "line 3, column 'price': '$1.5' is not a number above 0"),
    "no product": ("10,1.5, ,0", "line 3, column 'product': ' ' is not the name of a product"),
    "promotion": ("10,1.5,ale,0.5", "line 3, column 'promotion': '0.5' is not 0 or 1"),
    "text promotion": ("10,1.5,ale,yes", "line 3, column 'promotion': 'yes' is not 0 or 1"),
    "short row": ("10,1.5,ale", "line 3, column 'promotion': 3 fields, 4 in the header"),
}


@pytest.mark.parametrize(("row", "message"), BAD_ROWS.values(), ids=BAD_ROWS.keys())
@pytest.mark.parametrize("name", ["log.csv", "log.csv.gz"])
def test_bad_row(tmp_path: Path, name: str, row: str, message: str) -> None:
    path = write(tmp_path / name, [GOOD, row, GOOD])
    with pytest.raises(ValueError, match=f"^{re.escape(f'{path}, {message}')}"):
        transactions(path)


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        ("sales,price,item,promotion", [GOOD], "line 1: no column 'product' or 'brand': name these"),
        ("units,cost,product,promotion", [GOOD], "line 1: no column 'sales'; no column 'price': name these"),
        (f"{HEADER},price", [f"{GOOD},1"], "line 1: the same column is there 2 times, 'price' (column 2), 'price'"),
        (
            "Sales;Price",
            [GOOD],
            "line 1: no column 'sales'; no column 'price'; no column 'product' or 'brand'; no column "
            "'promotion' or 'feat': name these columns in the header (it has: 'Sales', 'Price')",
        ),
        (HEADER, [], "line 2: a header but no rows: the log needs one row per product, price and period"),
    ],
)
def test_bad_header(tmp_path: Path, header: str, rows: list[str], message: str) -> None:
    path = write(tmp_path / "log.csv", rows, header)
    with pytest.raises(ValueError, match=f"^{re.escape(f'{path}, {message}')}"):
        transactions(path)


def test_bad_path_and_arguments(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.csv does not exist: name a file of transactions"):
        transactions(tmp_path / "none.csv")
    with pytest.raises(FileNotFoundError, match="is a folder: name the file"):
        transactions(tmp_path)
    path = write(tmp_path / "log.csv", [GOOD])
    with pytest.raises(ValueError, match="sales and price both name the column 'sales'"):
        transactions(path, price="sales")
    for wrong in (3, "", [], [None], None):
        with pytest.raises(ValueError, match="price must be the name of a column"):
            transactions(path, price=wrong)  # type: ignore[arg-type]


def rows_of(count: int, prices: tuple[float, ...], promoted: tuple[int, ...]) -> list[str]:
    rng = np.random.default_rng(0)
    return [
        f"{math.exp(rng.normal() - 2 * math.log(prices[i % len(prices)]))},{prices[i % len(prices)]},x,"
        f"{promoted[i % len(promoted)]}"
        for i in range(count)
    ]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (rows_of(MIN_ROWS - 1, (1.0, 2.0, 3.0), (0, 1)), "product 'x' has 19 rows, at least 20 are needed"),
        (rows_of(40, (1.29,), (0, 1)), "product 'x' has one price alone, 1.29: without another"),
        ([f"5,{1 + i % 7},x,0" for i in range(60)], "product 'x' always has sales of 5: they do not answer"),
        (rows_of(40, (2.0, 1.5), (0, 1)), "product 'x' has one price with its promotion and one without: what each"),
    ],
)
def test_what_cannot_be_fitted(tmp_path: Path, rows: list[str], message: str) -> None:
    path = write(tmp_path / "log.csv", [*sales_rows("ale", *TRUE["ale"], count=40), *rows])
    with pytest.raises(
        ValueError, match=rf"^{re.escape(f'{path}: {message}')}.*few_rows='drop' \(--few-rows drop\) leaves"
    ):
        transactions(path)


@pytest.mark.parametrize("promoted", [0, 1])
def test_promotion_that_never_changes_has_no_lift(tmp_path: Path, promoted: int) -> None:
    log = transactions(write(tmp_path / "log.csv", rows_of(40, (1.0, 1.5, 2.0), (promoted,))))
    fit = log.fits[0]
    assert math.isnan(fit.lift) and math.isnan(fit.lift_error)
    assert fit.elasticity == pytest.approx(2, abs=3 * fit.elasticity_error)
    assert log.origins["lift"] == "assumed"
    scenario = DynamicPricing(**log.parameters)
    assert scenario.lift == (DynamicPricing.lift if promoted else (0.0, 0.0))
    assert len(scenario.promotions) == 1 + promoted


def test_few_promotions_have_no_lift_and_do_not_bend_the_elasticity(tmp_path: Path) -> None:
    rows = rows_of(60, (1.0, 1.5, 2.0), (0,))
    expected = transactions(write(tmp_path / "a.csv", rows)).fits[0]
    log = transactions(write(tmp_path / "b.csv", [*rows, "1e6,1.0,x,1"]))
    assert math.isnan(log.fits[0].lift) and log.origins["lift"] == "assumed"
    assert log.fits[0].elasticity == pytest.approx(expected.elasticity, rel=1e-6)


def test_wrong_sign_is_said(tmp_path: Path) -> None:
    log = made(tmp_path, ale=TRUE["ale"], fad=(-0.5, 0.2, 1.0))
    assert [fit.product for fit in log.wrong_sign] == ["fad"]
    with pytest.raises(ValueError, match=r"of the wrong sign, 'fad' -0\.[45]\d \(s\.e\. 0\.0\d\): sales rise"):
        _ = log.parameters
    assert log.to_json()["products"][1]["elasticity"] < 0  # the report has it all the same


@pytest.mark.parametrize("elasticity", [30.0])
def test_an_elasticity_that_no_task_has_is_said(tmp_path: Path, elasticity: float) -> None:
    log = made(tmp_path, ale=TRUE["ale"])
    log.__dict__["fits"] = (log.fits[0]._replace(elasticity=elasticity),)
    with pytest.raises(
        ValueError, match=rf"log\.csv: an elasticity of 'ale' {elasticity:g}: those of tasks are 0\.001 to"
    ):
        _ = log.parameters


# --- the task distribution -------------------------------------------------------------------------------------------
def test_parameters_make_a_scenario(tmp_path: Path) -> None:
    log = made(tmp_path)
    parameters = json.loads(json.dumps(log.parameters))
    assert parameters == log.parameters
    scenario = recgym.make_scenario("DynamicPricing-v0", **parameters)
    assert scenario.families == ("constant",) and scenario.layout.candidates == 14
    median, spread, least, most = scenario.elasticity
    estimates = [fit.elasticity for fit in log.fits]
    assert median * math.exp(spread**2 / 2) == pytest.approx(np.mean(estimates), rel=1e-4)
    assert least < min(estimates) and max(estimates) < most
    ratios = np.divide(scenario.prices[1:], scenario.prices[:-1])
    np.testing.assert_allclose(ratios, ratios[0], rtol=1e-4)
    relative = log.price / np.array([fit.base_price for fit in log.fits])[log.product]
    assert np.mean(relative < scenario.prices[0]) == pytest.approx(0.05, abs=0.002)
    assert np.mean(relative > scenario.prices[-1]) == pytest.approx(0.05, abs=0.002)
    assert scenario.lift[0] < min(fit.lift for fit in log.fits) < max(fit.lift for fit in log.fits) < scenario.lift[1]
    assert scenario.sales_unit == pytest.approx(DynamicPricing().sales_unit, rel=1e-3)


def test_drawn_demand_is_of_constant_elasticity(tmp_path: Path) -> None:
    """No task reaches the number of its customers, where demand would stop rising."""
    log = made(tmp_path, wild=(6.0, 3.0, 1.0), tame=(2.0, 0.5, 1.0))
    scenario = DynamicPricing(**log.parameters)
    task = scenario.sample_task(NumpyRng(1), 4000)
    state = scenario.reset(task, NumpyRng(2))
    assert state.hidden.demand.max(axis=1).mean() < 0.9 and np.mean(state.hidden.demand.max(axis=1) >= 1.0) < 0.01
    plain = scenario.ladder.display == 0
    slope = np.diff(np.log(state.hidden.pull[:, plain]), axis=1) / np.diff(np.log(scenario.ladder.paid[plain]))
    np.testing.assert_allclose(slope, np.broadcast_to(-task.elasticity[:, None], slope.shape), rtol=2e-3)


def test_spread_of_the_elasticity_by_hand() -> None:
    """Estimates 1 and 3: mean 2, variance 2, times 1 + 1/2 for the mean's own: log(1 + 3/4) of the lognormal."""
    spread = math.sqrt(math.log(1.75))
    median = 2 / math.sqrt(1.75)
    expected = [median, spread, median * math.exp(-3 * spread), median * math.exp(3 * spread)]
    assert _elasticity([(1.0, 0.1), (3.0, 0.1)]) == pytest.approx(expected, rel=1e-4)
    for alike in ([(2.0, 0.01)] * 3, [(2.0, 0.01)]):
        assert _elasticity(alike)[1] == MIN_SPREAD
    assert _elasticity([(2.0, 2.0)])[1] == pytest.approx(math.sqrt(math.log(2)), rel=1e-4)  # one product: its s.e.
    assert _elasticity([(19.0, 1.0)])[3] == 20.0  # what the scenario takes


def test_range_of_the_lift_by_hand() -> None:
    assert _lift([(0.4, 0.01), (0.6, 0.01), (0.8, 0.01)]) == [0.2, 1.0]  # (3 min - max) / 2, (3 max - min) / 2
    assert _lift([(0.5, 0.1)]) == [0.3, 0.7]
    assert _lift([(0.1, 0.2), (0.2, 0.2)]) == [0.0, 0.6]


def test_every_parameter_has_an_origin(tmp_path: Path) -> None:
    log = made(tmp_path)
    names = {field.name for field in fields(DynamicPricing)}
    assert set(log.origins) == set(ORIGINS) == names
    assert set(log.origins.values()) == {"fitted", "fixed", "assumed"}
    assert {name for name, origin in log.origins.items() if origin == "fitted"} == {"prices", "elasticity", "lift"}
    for name in ("cost", "stock", "rivals", "promotions"):  # no such log holds them
        assert log.origins[name] == "assumed"
    assert set(log.parameters) <= names
    assert "associational" in str(ProductFit.__doc__) + str(log.to_json()["note"])


def test_ratio_of_two_policies_returns() -> None:
    rng = np.random.default_rng(0)
    whole = rng.uniform(50, 150, 500)
    assert ratio(0.8 * whole, whole) == pytest.approx((0.8, 0.8, 0.8))  # paired: no doubt is left
    mean, low, high = ratio(0.8 * whole + rng.normal(0, 5, 500), whole)
    assert low < mean < high < low + 0.02 and mean == pytest.approx(0.8, abs=0.01)
    assert math.isnan(ratio(whole, -whole).mean)


# --- logs as shops have them -----------------------------------------------------------------------------------------
def shop(rng: np.random.Generator, name: str, level: float, *, rows: int = 120, elasticity: float = 2.0) -> list[str]:
    """Rows of a product whose sales are Poisson, many of them none where the level is low."""
    price, promoted = rng.choice([2.0, 2.5, 3.0], rows), rng.random(rows) < 0.3
    sold = rng.poisson(level * (price / 2.5) ** -elasticity * np.where(promoted, 1.5, 1.0))
    return [f"{s},{p},{name},{int(f)}" for s, p, f in zip(sold, price, promoted, strict=True)]


def test_products_that_often_sell_nothing_have_a_poisson_fit(tmp_path: Path) -> None:
    """The elasticity of 2 within 4 standard errors, whose mean over 60 logs is that of repetitions, within 20 %."""
    found = []
    for seed in range(60):
        log = transactions(write(tmp_path / "log.csv", shop(np.random.default_rng(seed), "tea", 1.5, rows=300)))
        (fit,) = log.fits
        assert fit.model == "poisson" and (log.sales == 0).any() and math.isnan(fit.residual) and not log.held_out
        found.append((fit.elasticity, fit.elasticity_error, fit.log_lift))
    values, errors, lifts = np.array(found).T
    assert abs(values.mean() - 2.0) < 4 * values.std() / math.sqrt(60)
    assert errors.mean() == pytest.approx(values.std(ddof=1), rel=0.25)  # the sd of 60 has an error of 9 %
    assert abs(lifts.mean() - math.log(1.5)) < 4 * lifts.std() / math.sqrt(60)


def test_a_poisson_fit_by_hand(tmp_path: Path) -> None:
    """Two prices, no promotion: the fitted means are those of the sales at each price."""
    rows = [f"{s},{p},x,0" for p, sales in ((1, (0, 4, 8)), (2, (0, 1, 2))) for s in sales for _ in range(10)]
    (fit,) = transactions(write(tmp_path / "log.csv", rows)).fits
    assert fit.elasticity == pytest.approx(math.log(4 / 1) / math.log(2))


def test_without_zeros_the_logarithms_stay(tmp_path: Path) -> None:
    log = transactions(write(tmp_path / "log.csv", shop(np.random.default_rng(0), "tea", 60.0)))
    assert log.fits[0].model == "log-log" and set(log.held_out) == {"log-log", "without elasticity", "product mean"}


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    rows = shop(np.random.default_rng(0), "tea", 60.0)
    path = write(tmp_path / "log.csv", [*rows, ",2.5,tea,0", "5,NA,tea,0", "-3,2.5,tea,0"])
    with pytest.raises(ValueError, match=r"line 122, column 'sales': '' is not .* missing='drop' \(--missing drop\)"):
        transactions(path)
    with pytest.raises(ValueError, match=r"line 124, column 'sales': '-3' is not .* returns='drop' \(--returns drop\)"):
        transactions(path, missing="drop")
    log = transactions(path, missing="drop", returns="drop")
    assert log.left_out == {"missing numbers": 2, "returns": 1} == log.to_json()["left_out"] and len(log.sales) == 120
    with pytest.raises(ValueError, match="returns must be 'drop' or None, got 'pool'"):
        transactions(path, returns="pool")


def test_products_without_a_fit_get_one_message_and_two_ways(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = shop(rng, "tea", 60.0)
    for number in range(400):
        rows += shop(rng, f"rare {number:03}", 3.0, rows=6)
    path = write(tmp_path / "log.csv", [*rows, *["7,2.5,same,0"] * 30])
    with pytest.raises(
        ValueError, match=r"'rare 000' has 6 rows.*'rare 004'.*and 396 more products.*few_rows='drop'"
    ) as caught:
        transactions(path)
    assert len(str(caught.value)) < 700
    dropped = transactions(path, few_rows="drop")
    assert [fit.product for fit in dropped.fits] == ["tea"] and len(dropped.unfit) == 401
    pooled = transactions(path, few_rows="pool").fits
    assert [fit.product for fit in pooled] == ["tea", "401 products, pooled"] and pooled[1].rows == 400 * 6 + 30
    assert abs(pooled[1].elasticity - 2.0) < 4 * pooled[1].elasticity_error + 0.1
    assert recgym.make_scenario("DynamicPricing-v0", **transactions(path, few_rows="pool").parameters)


def test_a_wrong_sign_within_its_error_is_no_refusal(tmp_path: Path) -> None:
    log = transactions(write(tmp_path / "log.csv", shop(np.random.default_rng(3), "tea", 2.0, rows=40, elasticity=0.0)))
    (fit,) = log.fits
    log.__dict__["fits"] = (fit._replace(elasticity=-abs(fit.elasticity)),)
    assert not log.wrong_sign and log.parameters["elasticity"][0] > 0


def test_several_rows_of_one_product_and_period_are_doubted(tmp_path: Path) -> None:
    rows = shop(np.random.default_rng(0), "tea", 60.0)

    def dated(heads: str, ends: list[str]) -> Path:
        path = write(tmp_path / "log.csv", [f"{row},{end}" for row, end in zip(rows, ends, strict=True)])
        head, rest = path.read_text().split("\n", 1)
        path.write_text(f"{head},{heads}\n{rest}")
        return path

    count = len(rows)
    weeks = [str(i // 2) for i in range(count)]
    said = rf"{count // 2:,} of {count:,} rows repeat product, week: .*'store' or 'shop'"
    with pytest.warns(UserWarning, match=said):
        transactions(dated("week", weeks))
    transactions(dated("week,Shop", [f"{week},{i % 2}" for i, week in enumerate(weeks)]))  # of two shops: no doubt
    transactions(dated("year,week", [f"{i % 2},{week}" for i, week in enumerate(weeks)]))
    transactions(dated("week", [str(i) for i in range(count)]))
    transactions(dated("shop", ["1"] * count))  # without a period nothing can repeat


@pytest.mark.filterwarnings("default")
def test_units_are_doubted_aloud(tmp_path: Path) -> None:
    rows = shop(np.random.default_rng(0), "tea", 60.0)
    logs = [f"{math.log(float(row.split(',')[0])):.4f},{row.split(',', 1)[1]}" for row in rows]
    with pytest.warns(UserWarning, match="sales are fractions up to .*, as logarithms are"):
        transactions(write(tmp_path / "log.csv", logs))
    mixed = [row.replace(",2.0,", ",200.0,") if i % 9 == 0 else row for i, row in enumerate(rows)]
    with pytest.warns(UserWarning, match="prices of 'tea' differ by a factor of 50 and more"):
        transactions(write(tmp_path / "log.csv", mixed))
