"""Demand of one product from its sales: least squares in logarithms, or a Poisson fit where there are zeros."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

__all__ = ["MIN_ROWS", "ProductFit", "Unfit", "demand_design", "fit_product", "poisson_fit"]

MIN_ROWS = 20  # of a product: three coefficients, each on some seven rows
MIN_PROMOTED = 10  # rows with, and rows without, a promotion: fewer give its lift no standard error to speak of
MIN_SPAN = 1e-9  # of logarithms: below, they are all the same
STEPS, CLOSE = 100, 1e-10  # of Newton's method
MAX_LOG = 30.0  # of predicted sales, while it searches


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
    residual: float  # standard deviation of the errors, log sales; NaN of a Poisson fit
    model: str = "log-log"  # or "poisson"


class Unfit(NamedTuple):
    """Why a product has no fit."""

    product: str
    reason: str


def demand_design(price: np.ndarray, promoted: np.ndarray) -> np.ndarray:
    """[n, 3] ones, -log(price / base price), promoted; of the rows of one product."""
    return np.column_stack([np.ones(len(price)), -np.log(price / np.median(price)), promoted])


def fit_product(name: str, price: np.ndarray, sales: np.ndarray, promoted: np.ndarray) -> ProductFit | Unfit:
    """Fit log sales = level - elasticity log(price / base price) + log(1 + lift) promoted.

    By least squares of the logarithms where everything was sold, which has no use for a zero; else by Poisson
    pseudo-likelihood, whose estimates need no Poisson distribution, the mean alone (Santos Silva & Tenreyro 2006).
    """
    count = len(price)
    if count < MIN_ROWS:
        return Unfit(name, f"has {count} rows, at least {MIN_ROWS} are needed")
    x, varies = demand_design(price, promoted), bool(0 < promoted.sum() < count)
    if not varies:
        x = x[:, :2]
    if np.ptp(sales) <= MIN_SPAN * sales.max(initial=0.0) or sales.max() == 0:
        return Unfit(name, f"always has sales of {sales[0]:g}: they do not answer to its price at all")
    if np.ptp(x[:, 1]) < MIN_SPAN:
        return Unfit(name, f"has one price alone, {price[0]:g}: without another its elasticity is unknown")
    if varies and max(np.ptp(x[promoted, 1]), np.ptp(x[~promoted, 1])) < MIN_SPAN:
        return Unfit(name, "has one price with its promotion and one without: what each does cannot be told apart")
    zeros = bool((sales == 0).any())
    if zeros:
        found = poisson_fit(x, sales)
        if found is None:
            return Unfit(name, "sold too seldom for a fit")
        coefficients, mean = found
        errors, bread = sales - mean, np.linalg.inv((x.T * mean) @ x)
    else:
        coefficients = np.linalg.lstsq(x, np.log(sales), rcond=None)[0]
        errors, bread = np.log(sales) - x @ coefficients, np.linalg.inv(x.T @ x)
    free = count - x.shape[1]
    variance = bread @ (x.T * errors**2 @ x) @ bread * (count / free)  # HC1
    error = np.sqrt(np.diag(variance))
    shown = varies and min(promoted.sum(), count - promoted.sum()) >= MIN_PROMOTED
    log_lift, log_lift_error = (float(coefficients[2]), float(error[2])) if shown else (math.nan, math.nan)
    return ProductFit(
        product=name,
        rows=count,
        base_price=float(np.median(price)),
        level=float(coefficients[0]),
        elasticity=float(coefficients[1]),
        elasticity_error=float(error[1]),
        log_lift=log_lift,
        log_lift_error=log_lift_error,
        lift=math.expm1(log_lift),
        lift_error=math.exp(log_lift) * log_lift_error,  # delta method
        residual=math.nan if zeros else float(np.sqrt((errors**2).sum() / free)),
        model="poisson" if zeros else "log-log",
    )


def poisson_fit(x: np.ndarray, sales: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Coefficients and means [n] that solve sum x (sales - exp(x b)) = 0, by Newton's method; None: there are none."""
    b = np.zeros(x.shape[1])
    b[0] = math.log(sales.mean())
    for _ in range(STEPS):
        mean = np.exp(np.clip(x @ b, -MAX_LOG, MAX_LOG))
        try:
            step = np.linalg.solve((x.T * mean) @ x, x.T @ (sales - mean))
        except np.linalg.LinAlgError:
            return None
        size = np.abs(step).max()
        b = b + step * min(1.0, 2.0 / max(size, 1e-300))  # a long step from far away overshoots
        if size < CLOSE:
            return b, np.exp(np.clip(x @ b, -MAX_LOG, MAX_LOG))
    return None
