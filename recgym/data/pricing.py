"""Logs of sales: reader, log-log demand per product, and a task distribution of `DynamicPricing` fitted to it.

A row is what one product sold at one price, in one shop and week say, and whether it was promoted. The model is that
of SCAN*PRO (Wittink et al. 1988) without what such logs do not hold (rivals, seasons, shops):
log sales = level - elasticity log(price / base price) + log(1 + lift) promoted + error, by least squares per product.

The elasticities are associational. Nobody drew the prices at random: whoever set them knew of demand what the log does
not show, so an estimate is what sales went with, not what a change of the price would bring about.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from recgym.data.reading import Column, number, read_columns, spellings
from recgym.data.sources import label_of, shortened
from recgym.scenarios.pricing import DynamicPricing
from recgym.scenarios.pricing.dynamic import MAX_CUSTOMERS
from recgym.scenarios.pricing.products import TASK_LIMITS

__all__ = ["HeldOut", "ProductFit", "TransactionLog", "transactions"]

MIN_ROWS = 20  # of a product: three coefficients, each on some seven rows
MIN_PROMOTED = 10  # rows with, and rows without, a promotion: fewer give its lift no standard error to speak of
FOLDS, SPLIT_SEED = 5, 0  # of the held-out error

PRICES = 7  # list prices, as many as the scenario has by default
PRICE_RANGE = (0.05, 0.95)  # quantiles of the relative prices: the few beyond are no ground to fit demand on
# Least sd of the log of the elasticity, half of that over products of all kinds (Bijmolt et al. 2005, the scenario's
# .4): a few brands of one category agree by chance, and a distribution that is a point leaves nothing to be learned.
MIN_SPREAD = 0.2
CUT = 3.0  # standard deviations of the log of the elasticity to either side
FULL = 0.9  # share of the customers that buy at the lowest price, promoted, with the highest elasticity drawn

# Rows without sales are those with few: leaving them out bends the elasticity.
ZEROS = "correct it; if nothing was sold add up longer periods, as without such rows the elasticity is too small"
COLUMNS = {  # their names are arguments of `transactions`
    "sales": Column((), number, np.float64, lambda x: np.isfinite(x) & (x > 0), "a number above 0", ZEROS),
    "price": Column((), number, np.float64, lambda x: np.isfinite(x) & (x > 0), "a number above 0"),
    "product": Column((), str.strip, np.object_, lambda x: x != "", "the name of a product"),
    "promotion": Column((), number, np.float64, lambda x: (x == 0) | (x == 1), "0 or 1"),
}
MODELS = ("log-log", "without elasticity", "product mean")  # their columns of the design: all, without price, the first

# Where each parameter of the scenario comes from. fitted: estimated from the log. fixed: a choice of how the problem is
# posed, or what the model implies. assumed: a fact of the market that such a log does not hold.
ORIGINS = {
    **dict.fromkeys(("prices", "elasticity", "lift"), "fitted"),
    **dict.fromkeys(("choke", "base_price", "horizon", "families", "table", "poisson", "w_rev", "w_vol"), "fixed"),
    **dict.fromkeys(("embedding", "alpha", "statistics"), "fixed"),
    **dict.fromkeys(("promotions", "purchase", "customers", "cost", "stock", "memory", "gain", "aversion"), "assumed"),
    **dict.fromkeys(("dip", "rivals", "cross", "season", "period", "forecast"), "assumed"),
}


class ProductFit(NamedTuple):
    """Demand of one product; standard errors are robust to errors of unequal variance (HC1, MacKinnon & White 1985).

    They take rows to be independent: where a shop or a week has several rows, they are too small.
    """

    product: str
    rows: int
    base_price: float  # median of its prices, money
    level: float  # log of the sales at base price without promotion (with it, where it was never without)
    elasticity: float  # as a positive number
    elasticity_error: float  # standard error, as below
    log_lift: float  # of a promotion, in log sales; NaN, with lift and errors, where it cannot be estimated
    log_lift_error: float
    lift: float  # the same as a share: exp(log_lift) - 1
    lift_error: float
    residual: float  # standard deviation of the errors, log sales


class HeldOut(NamedTuple):
    """Error of predictions for rows that the fit did not see."""

    rmse: float  # root mean squared error of log sales
    error: float  # its standard error
    ape: float  # mean of |predicted - sold| / sold, a share


@dataclass(frozen=True, eq=False)
class TransactionLog:
    """Sales of one log, and what they say of demand; N rows, P products."""

    product: np.ndarray  # [N] int64, index into `products`
    sales: np.ndarray  # [N] float64, units, above 0
    price: np.ndarray  # [N] float64, money, above 0
    promoted: np.ndarray  # [N] bool
    products: tuple[str, ...]  # P, sorted
    path: str

    @cached_property
    def fits(self) -> tuple[ProductFit, ...]:
        """Of each product in the order of `products`.

        Raises:
            ValueError: a product has too few rows, or prices that do not vary enough to tell what they do.
        """
        return tuple(_fit(self, index) for index in range(len(self.products)))

    @cached_property
    def held_out(self) -> dict[str, HeldOut]:
        """Errors of cross-validation in `FOLDS` parts, the rows of each product split at random with a fixed seed.

        By model: "log-log" is the fit, "without elasticity" the same without the price (product and promotion only),
        "product mean" has neither. Rows of one shop and week are close to each other, and may fall on both sides.
        """
        rng = np.random.default_rng(SPLIT_SEED)
        errors = np.empty((len(MODELS), len(self.sales)))
        for index in range(len(self.products)):
            at = np.flatnonzero(self.product == index)
            fold = rng.permutation(len(at)) % FOLDS
            design, log_sales = _design(self, at), np.log(self.sales[at])
            for model, columns in enumerate(([0, 1, 2], [0, 2], [0])):
                x = design[:, columns]
                for part in range(FOLDS):
                    out = fold == part
                    coefficients = np.linalg.lstsq(x[~out], log_sales[~out], rcond=None)[0]
                    errors[model, at[out]] = x[out] @ coefficients - log_sales[out]
        return dict(zip(MODELS, map(_held_out, errors), strict=True))

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """Parameters of `DynamicPricing` that differ from its defaults: products like those of the log. JSON-able."""
        return self.parameters_beside({})

    def parameters_beside(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The same where some are given: what stands in the place of an estimate is looked at in its stead.

        A product of the task distribution is a new one of the same kind. Its elasticity is lognormal, with the mean of
        the estimates and a variance that adds up how they spread (which holds their sampling error) and how uncertain
        their mean is; the sd of its logarithm is at least `MIN_SPREAD`. Its lift is uniform, between the unbiased
        bounds of a uniform distribution, but at least two standard errors beyond the estimates.
        Prices are in units of the product's own base price: a ladder of equal ratios over those observed. The log does
        not tell the discount that came with a promotion (prices are as paid), so there is a display without a discount.
        Demand of constant elasticity has no upper limit but the number of customers, so they are as many as keep it
        below; the units sold at base price stay those of the defaults.

        Raises:
            ValueError: an estimated elasticity of the wrong sign: sales that rise with the price fit no task; or
                parameters that the scenario refuses (names the products' elasticities).
        """
        estimated = "elasticity" not in given
        wrong = [f"{fit.product!r} {fit.elasticity:.2f} (s.e. {fit.elasticity_error:.2f})" for fit in self.wrong_sign]
        if wrong and estimated:
            said = f"elasticity of the wrong sign, {', '.join(wrong)}"
            why = "sales rise with the price (something else moved both), which no task does"
            raise ValueError(f"{self.path}: {said}: {why}: remove these rows")
        least, most = TASK_LIMITS["elasticity"]
        beyond = [f"{fit.product!r} {fit.elasticity:.3g}" for fit in self.fits if not least <= fit.elasticity <= most]
        if beyond and estimated:
            why = f"an elasticity of {', '.join(beyond)}: those of tasks are {least:g} to {most:g}"
            raise ValueError(f"{self.path}: {why}: remove these rows")
        relative = self.price / np.array([fit.base_price for fit in self.fits])[self.product]
        low, high = np.quantile(relative, PRICE_RANGE)
        if low == high:  # a price that is hardly ever left
            low, high = relative.min(), relative.max()
        prices = _rounded(np.geomspace(low, high, PRICES))
        elasticity: Any = given.get("elasticity")
        if estimated:
            elasticity = _elasticity([(fit.elasticity, fit.elasticity_error) for fit in self.fits])
        lifts = [(fit.lift, fit.lift_error) for fit in self.fits if math.isfinite(fit.lift)]
        found: dict[str, Any] = {"families": ["constant"], "prices": prices, "elasticity": elasticity}
        found["promotions"] = [[0.0, 0.0], [0.0, 1.0]] if self.promoted.any() else [[0.0, 0.0]]
        if lifts:
            found["lift"] = _lift(lifts)
        elif not self.promoted.any():
            found["lift"] = [0.0, 0.0]
        found |= given
        prices = found["prices"]
        most = DynamicPricing.purchase[1] * (1.0 + found.get("lift", DynamicPricing.lift)[1])
        most *= max(prices[0] ** -elasticity[3], 1.0)
        scale = min(1.0, max(FULL / most, DynamicPricing.customers / MAX_CUSTOMERS))
        implied = {"purchase": _rounded(scale * np.array(DynamicPricing.purchase))}
        implied["customers"] = _rounded(DynamicPricing.customers / scale)
        found = {**implied, **found}
        try:
            DynamicPricing(**found)
        except ValueError as error:
            fitted = ", ".join(f"{fit.product!r} {fit.elasticity:.3g}" for fit in self.fits)
            why = f"its products (elasticities {fitted}) are none of the scenario's: {error}"
            raise ValueError(f"{self.path}: {why}: remove the rows of those that cannot be") from error
        return found

    @property
    def origins(self) -> dict[str, str]:
        """Where each parameter of `DynamicPricing` comes from: "fitted", "fixed" or "assumed" (see `ORIGINS`).

        A lift of which nothing is left within the scenario's range is fixed at the end of it.
        """
        lifts = [(fit.lift, fit.lift_error) for fit in self.fits if math.isfinite(fit.lift)]
        low, high = _lift(lifts) if lifts else (0.0, 0.0)
        return {**ORIGINS, "lift": "assumed" if not lifts else "fitted" if low < high else "fixed"}

    @property
    def wrong_sign(self) -> tuple[ProductFit, ...]:
        """Products whose sales rise with the price."""
        return tuple(fit for fit in self.fits if not fit.elasticity > 0)

    def to_json(self) -> dict[str, Any]:
        """The report: plain numbers and text; NaN where a lift cannot be estimated."""
        return {
            "log": self.path,
            "rows": len(self.sales),
            "products": [fit._asdict() for fit in self.fits],
            "held_out": {model: error._asdict() for model, error in self.held_out.items()},
            "origins": self.origins,
            "note": "elasticities and lifts are associational: prices and promotions were not drawn at random",
        }


def transactions(
    path: Any,
    *,
    sales: str | Sequence[str] = "sales",
    price: str | Sequence[str] = "price",
    product: str | Sequence[str] = ("product", "brand"),
    promotion: str | Sequence[str] | None = ("promotion", "feat"),
) -> TransactionLog:
    """Read a log of sales, one row per product, price and period, and fit log-log demand to each product.

    Args:
        path: a table with a header; see `recgym.data.sources.table_rows`.
        sales: name of the column of units sold, all above 0; or several names, of which the file has one. As below.
        price: of the price paid, above 0.
        product: of the name of the product.
        promotion: of the flag of a promotion, 0 or 1; None: nothing was promoted, and no such column is read.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a malformed file, named with line and column; a product with too few rows, or whose prices do not
            vary on their own; an argument that names no column, or one that another names as well.
    """
    source = path
    if isinstance(path, str | Path):
        source = Path(path)
        if source.is_dir():
            raise FileNotFoundError(f"{source} is a folder: name the file of transactions in it (.csv, .csv.gz)")
        if not source.exists():
            raise FileNotFoundError(f"{source} does not exist: name a file of transactions (.csv, .csv.gz)")
    given = {"sales": sales, "price": price, "product": product, "promotion": promotion}
    read = {
        key: COLUMNS[key]._replace(names=names)
        for key, names in spellings("transactions", given, ("promotion",)).items()
    }
    columns = read_columns(source, read, record="product, price and period")
    products, index = np.unique(columns["product"], return_inverse=True)
    promoted = columns["promotion"] > 0 if promotion is not None else np.zeros(len(index), dtype=bool)
    log = TransactionLog(
        product=index.astype(np.int64),
        sales=columns["sales"],
        price=columns["price"],
        promoted=promoted,
        products=tuple(products.tolist()),
        path=label_of(source),
    )
    _ = log.fits  # what cannot be fitted is refused here
    return log


# --- the fit ---------------------------------------------------------------------------------------------------------
def _design(log: TransactionLog, at: np.ndarray) -> np.ndarray:
    """[n, 3] ones, -log(price / base price), promoted; of the rows `at` of one product."""
    price = log.price[at]
    return np.column_stack([np.ones(len(at)), -np.log(price / np.median(price)), log.promoted[at]])


def _fit(log: TransactionLog, index: int) -> ProductFit:
    """Least squares for one product, or a ValueError that says why not."""
    at = np.flatnonzero(log.product == index)
    name, count = f"{log.path}: product {shortened(log.products[index])}", len(at)
    if count < MIN_ROWS:
        raise ValueError(f"{name} has {count} rows, at least {MIN_ROWS} are needed: remove it, or bring more of them")
    x, y, promoted = _design(log, at), np.log(log.sales[at]), log.promoted[at]
    varies = 0 < promoted.sum() < count
    if not varies:
        x = x[:, :2]
    if np.ptp(y) < 1e-9:
        sold = log.sales[at[0]]
        raise ValueError(f"{name} always has sales of {sold:g}: they do not answer to its price at all; remove it")
    if np.ptp(x[:, 1]) < 1e-9:
        price = log.price[at[0]]
        raise ValueError(f"{name} has one price alone, {price:g}: without another its elasticity is unknown; remove it")
    if varies and max(np.ptp(x[promoted, 1]), np.ptp(x[~promoted, 1])) < 1e-9:
        what = "has one price with its promotion and one without: what each of them does cannot be told apart"
        raise ValueError(f"{name} {what}; remove it")
    coefficients = np.linalg.lstsq(x, y, rcond=None)[0]
    errors = y - x @ coefficients
    free = count - x.shape[1]
    bread = np.linalg.inv(x.T @ x)
    variance = bread @ (x.T * errors**2 @ x) @ bread * (count / free)  # HC1
    error = np.sqrt(np.diag(variance))
    shown = varies and min(promoted.sum(), count - promoted.sum()) >= MIN_PROMOTED
    log_lift, log_lift_error = (float(coefficients[2]), float(error[2])) if shown else (math.nan, math.nan)
    return ProductFit(
        product=log.products[index],
        rows=count,
        base_price=float(np.median(log.price[at])),
        level=float(coefficients[0]),
        elasticity=float(coefficients[1]),
        elasticity_error=float(error[1]),
        log_lift=log_lift,
        log_lift_error=log_lift_error,
        lift=math.expm1(log_lift),
        lift_error=math.exp(log_lift) * log_lift_error,  # delta method
        residual=float(np.sqrt((errors**2).sum() / free)),
    )


def _held_out(errors: np.ndarray) -> HeldOut:
    """Figures of errors [N] of predicted log sales."""
    squares = errors**2
    rmse = float(np.sqrt(squares.mean()))
    error = float(squares.std(ddof=1) / np.sqrt(len(squares)) / (2.0 * rmse)) if rmse else 0.0  # delta method
    return HeldOut(rmse, error, float(np.abs(np.expm1(errors)).mean()))


# --- the task distribution -------------------------------------------------------------------------------------------
def _elasticity(estimates: list[tuple[float, float]]) -> list[float]:
    """[median, sd of the logarithm, least, most] of a lognormal with the moments that the estimates have."""
    values, errors = np.array(estimates).T
    count, mean = len(values), values.mean()
    variance = values.var(ddof=1) * (1.0 + 1.0 / count) if count > 1 else errors[0] ** 2
    spread = max(math.sqrt(math.log1p(variance / mean**2)), MIN_SPREAD)
    median = mean * math.exp(-0.5 * spread**2)
    least, most = TASK_LIMITS["elasticity"]
    low, high = max(median * math.exp(-CUT * spread), least), min(median * math.exp(CUT * spread), most)
    return _rounded(np.array([median, spread, low, high]))


def _lift(estimates: list[tuple[float, float]]) -> list[float]:
    """[least, most] of a uniform distribution; (n min - max) / (n - 1) is unbiased for its lower bound."""
    values, errors = np.array(estimates).T
    beyond = 2.0 * errors.max()
    if len(values) > 1:
        beyond = max(beyond, np.ptp(values) / (len(values) - 1))
    return _rounded(np.clip([values.min() - beyond, values.max() + beyond], *TASK_LIMITS["lift"]))


def _rounded(values: Any) -> Any:
    """To five digits, as plain numbers: what is printed is what is used."""
    return np.vectorize(lambda value: float(f"{value:.5g}"))(values).tolist()
