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
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from recgym.data.doubts import ROW_OF, doubt_repeated, doubt_units
from recgym.data.fitting import ProductFit, Unfit, demand_design, fit_product
from recgym.data.reading import Column, number, read_columns, spellings
from recgym.data.sources import label_of, shortened
from recgym.scenarios.pricing import DynamicPricing
from recgym.scenarios.pricing.dynamic import MAX_CUSTOMERS
from recgym.scenarios.pricing.products import TASK_LIMITS

__all__ = ["HeldOut", "ProductFit", "TransactionLog", "transactions"]

FOLDS, SPLIT_SEED = 5, 0  # of the held-out error

PRICES = 7  # list prices, as many as the scenario has by default
PRICE_RANGE = (0.05, 0.95)  # quantiles of the relative prices: the few beyond are no ground to fit demand on
# Least sd of the log of the elasticity, half of that over products of all kinds (Bijmolt et al. 2005, the scenario's
# .4): a few brands of one category agree by chance, and a distribution that is a point leaves nothing to be learned.
MIN_SPREAD = 0.2
CUT = 3.0  # standard deviations of the log of the elasticity to either side
FULL = 0.9  # share of the customers that buy at the lowest price, promoted, with the highest elasticity drawn

MISSING = ("", "na", "n/a", "nan", "null", "none")  # how people and programs write that there is no number
WAYS = {"missing": ("drop",), "returns": ("drop",), "few_rows": ("drop", "pool")}  # beside refusing, which is None
POOLING_STEPS = 25  # the effect of price in the levels shrinks by more than half in each
MOST_NAMED = 5  # products that a message lists
ADVICE = "correct it or remove the row; {}"
COLUMNS = {  # their names are arguments of `transactions`
    "sales": Column((), number, np.float64, lambda x: np.isfinite(x) & (x >= 0), "a number of at least 0"),
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


class HeldOut(NamedTuple):
    """Error of predictions for rows that the fit did not see."""

    rmse: float  # root mean squared error of log sales
    error: float  # its standard error
    ape: float  # mean of |predicted - sold| / sold, a share


@dataclass(frozen=True, eq=False)
class TransactionLog:
    """Sales of one log, and what they say of demand; N rows, P products."""

    product: np.ndarray  # [N] int64, index into `products`
    sales: np.ndarray  # [N] float64, units, at least 0
    price: np.ndarray  # [N] float64, money, above 0
    promoted: np.ndarray  # [N] bool
    products: tuple[str, ...]  # P, sorted
    path: str
    few_rows: str | None = None  # what becomes of products without a fit; see `transactions`
    left_out: Mapping[str, int] = field(default_factory=dict)  # rows by reason

    @cached_property
    def places(self) -> list[np.ndarray]:
        """The rows of each product, indices."""
        order = np.argsort(self.product, kind="stable")
        return np.split(order, np.cumsum(np.bincount(self.product, minlength=len(self.products)))[:-1])

    @cached_property
    def outcomes(self) -> tuple[ProductFit | Unfit, ...]:
        """The fit of each product in the order of `products`, or why it has none."""
        rows = zip(self.products, self.places, strict=True)
        return tuple(fit_product(name, self.price[at], self.sales[at], self.promoted[at]) for name, at in rows)

    @cached_property
    def fits(self) -> tuple[ProductFit, ...]:
        """Of each product in the order of `products`.

        Raises:
            ValueError: a product has too few rows, or prices that do not vary enough to tell what they do.
        """
        found = [each for each in self.outcomes if isinstance(each, ProductFit)]
        unfit = [each for each in self.outcomes if isinstance(each, Unfit)]
        if unfit and self.few_rows is None:
            named = "; ".join(f"product {shortened(each.product)} {each.reason}" for each in unfit[:MOST_NAMED])
            more = f"; and {len(unfit) - MOST_NAMED:,} more products" if len(unfit) > MOST_NAMED else ""
            ways = "remove them, or few_rows='drop' (--few-rows drop) leaves them out, 'pool' makes one product of them"
            raise ValueError(f"{self.path}: {named}{more}: {ways}")
        if unfit and self.few_rows == "pool":
            found += [pooled for pooled in [self._pooled()] if isinstance(pooled, ProductFit)]
        if not found:
            raise ValueError(f"{self.path}: none of {len(self.products):,} products can be fitted: bring more rows")
        return tuple(found)

    def _pooled(self) -> ProductFit | Unfit:
        """One product of all that have no fit: prices over the median of each, sales over the mean of each."""
        parts = [at for at, each in zip(self.places, self.outcomes, strict=True) if isinstance(each, Unfit)]
        parts = [at for at in parts if self.sales[at].sum() > 0]
        if not parts:
            return Unfit("pooled", "sold nothing")
        price = np.concatenate([self.price[at] / np.median(self.price[at]) for at in parts])
        rows, owner = np.concatenate(parts), np.repeat(np.arange(len(parts)), list(map(len, parts)))
        sales, promoted = self.sales[rows], self.promoted[rows]
        sold, usual = (
            np.bincount(owner, sales),
            np.ones(len(rows)),
        )  # `usual`: what price and promotion alone would sell
        for _ in range(POOLING_STEPS):  # a level of each product's own, as in a fit with fixed effects
            level = (sold / np.bincount(owner, usual))[owner]
            fit = fit_product(f"{len(parts)} products, pooled", price, sales / level, promoted)
            if isinstance(fit, Unfit):
                return fit
            lift = fit.log_lift if math.isfinite(fit.log_lift) else 0.0
            usual = price**-fit.elasticity * np.exp(lift * promoted)
        return fit

    @property
    def unfit(self) -> tuple[Unfit, ...]:
        """Products without a fit of their own, and why."""
        return tuple(each for each in self.outcomes if isinstance(each, Unfit))

    @cached_property
    def held_out(self) -> dict[str, HeldOut]:
        """Errors of cross-validation in `FOLDS` parts, the rows of each product split at random with a fixed seed.

        By model: "log-log" is the fit, "without elasticity" the same without the price (product and promotion only),
        "product mean" has neither. Rows of one shop and week are close to each other, and may fall on both sides.
        Of products that were sold in every row; where there are none, of nothing.
        """
        rng = np.random.default_rng(SPLIT_SEED)
        errors = np.full((len(MODELS), len(self.sales)), np.nan)
        for at, fit in zip(self.places, self.outcomes, strict=True):
            if isinstance(fit, Unfit) or fit.model != "log-log":
                continue
            fold = rng.permutation(len(at)) % FOLDS
            design, log_sales = demand_design(self.price[at], self.promoted[at]), np.log(self.sales[at])
            for model, columns in enumerate(([0, 1, 2], [0, 2], [0])):
                x = design[:, columns]
                for part in range(FOLDS):
                    out = fold == part
                    coefficients = np.linalg.lstsq(x[~out], log_sales[~out], rcond=None)[0]
                    errors[model, at[out]] = x[out] @ coefficients - log_sales[out]
        errors = errors[:, np.isfinite(errors[0])]
        return dict(zip(MODELS, map(_held_out, errors), strict=True)) if errors.size else {}

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
        beyond = [
            f"{fit.product!r} {fit.elasticity:.3g}"
            for fit in self.fits
            if not least - 2 * fit.elasticity_error <= fit.elasticity <= most + 2 * fit.elasticity_error
        ]
        if beyond and estimated:
            why = f"an elasticity of {', '.join(beyond)}: those of tasks are {least:g} to {most:g}"
            raise ValueError(f"{self.path}: {why}: remove these rows")
        used = [
            self.price[at] / np.median(self.price[at])
            for at, each in zip(self.places, self.outcomes, strict=True)
            if isinstance(each, ProductFit) or self.few_rows == "pool"
        ]
        relative = np.concatenate(used)
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
        """Products whose sales rise with the price, by more than two standard errors."""
        return tuple(fit for fit in self.fits if not fit.elasticity + 2 * fit.elasticity_error > 0)

    def to_json(self) -> dict[str, Any]:
        """The report: plain numbers and text; NaN where a lift cannot be estimated."""
        return {
            "log": self.path,
            "rows": len(self.sales),
            "left_out": dict(self.left_out),
            "products": [fit._asdict() for fit in self.fits],
            "without_fit": [each._asdict() for each in self.unfit],
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
    missing: str | None = None,
    returns: str | None = None,
    few_rows: str | None = None,
) -> TransactionLog:
    """Read a log of sales, one row per product, price and period, and fit demand to each product (see `fit_product`).

    Args:
        path: a table with a header; see `recgym.data.sources.table_rows`.
        sales: name of the column of units sold; or several names, of which the file has one. As below.
        price: of the price paid, above 0.
        product: of the name of the product.
        promotion: of the flag of a promotion, 0 or 1; None: nothing was promoted, and no such column is read.
        missing: "drop" leaves out rows without a price or sales; None refuses them.
        returns: "drop" leaves out rows of negative sales; None refuses them.
        few_rows: what becomes of products without a fit, as of few rows or one price: "drop" leaves them out, "pool"
            makes one product of them; None refuses them.

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
    for name, way in {"missing": missing, "returns": returns, "few_rows": few_rows}.items():
        if way not in (None, *WAYS[name]):
            raise ValueError(f"transactions: {name} must be {' or '.join(map(repr, WAYS[name]))} or None, got {way!r}")
    given = {"sales": sales, "price": price, "product": product, "promotion": promotion}
    read = {
        key: COLUMNS[key]._replace(names=names)
        for key, names in spellings("transactions", given, ("promotion",)).items()
    }
    for key in ("sales", "price"):
        read[key] = _lenient(read[key], missing=missing, returns=returns if key == "sales" else "")
    taken = {name for column in read.values() for name in column.names}
    row_of = {key: column for key, column in ROW_OF.items() if not taken & set(column.names)}
    columns = read_columns(source, {**read, **row_of}, record="product, price and period")
    gaps = np.isnan(columns["sales"]) | np.isnan(columns["price"])
    negative = ~gaps & (columns["sales"] < 0)
    left_out = {"missing numbers": int(gaps.sum()), "returns": int(negative.sum())}
    if (gaps | negative).all():
        raise ValueError(f"{label_of(source)}: nothing is left of {len(gaps):,} rows without a number or with returns")
    columns = {key: column[~(gaps | negative)] for key, column in columns.items()}
    products, index = np.unique(columns["product"], return_inverse=True)
    promoted = columns["promotion"] > 0 if promotion is not None else np.zeros(len(index), dtype=bool)
    log = TransactionLog(
        product=index.astype(np.int64),
        sales=columns["sales"],
        price=columns["price"],
        promoted=promoted,
        products=tuple(products.tolist()),
        path=label_of(source),
        few_rows=few_rows,
        left_out={reason: rows for reason, rows in left_out.items() if rows},
    )
    doubt_units(log.path, log.products, log.places, log.sales, log.price)
    doubt_repeated(log.path, log.product, {key: columns[key] for key in row_of if key in columns})
    _ = log.fits  # what cannot be fitted is refused here
    return log


def _lenient(column: Column, *, missing: str | None, returns: str | None) -> Column:
    """A column of numbers that lets through what will be left out, and says how the rest could be.

    Args:
        column: as it is read where nothing is left out.
        missing: see `transactions`.
        returns: likewise; "" of a column that has none.
    """
    ways = []
    if missing is None:
        ways.append("missing='drop' (--missing drop) leaves out rows without a number")
    if returns is None:
        ways.append("returns='drop' (--returns drop) those below 0")

    def convert(text: str) -> float:
        if missing == "drop" and text.strip().lower() in MISSING:
            return math.nan
        return number(text)

    def valid(x: np.ndarray) -> np.ndarray:
        kept = column.valid(x) | np.isnan(x) if missing == "drop" else column.valid(x)
        return kept | (np.isfinite(x) & (x < 0)) if returns == "drop" else kept

    advice = ADVICE.format(", ".join(ways)) if ways else column.advice
    return column._replace(convert=convert, valid=valid, advice=advice)


# --- the fits --------------------------------------------------------------------------------------------------------
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
    values = np.clip(values, *TASK_LIMITS["elasticity"])  # an estimate within its error of them may lie beyond
    count, mean = len(values), values.mean()
    variance = values.var(ddof=1) * (1.0 + 1.0 / count) if count > 1 else errors[0] ** 2
    spread = max(math.sqrt(math.log1p(variance / mean**2)), MIN_SPREAD)
    median = mean * math.exp(-0.5 * spread**2)
    least, most = TASK_LIMITS["elasticity"]
    low, high = max(median * math.exp(-CUT * spread), least), min(median * math.exp(CUT * spread), most)
    return _rounded(np.array([min(max(median, low), high), spread, low, high]))


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
