"""What a log of impressions says: market prices, click rates, calibration of predictions, delays of conversions.

All are plain functions of arrays; `recgym.data.impression_log` makes parameters of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from recgym.scenarios.ads.delays import Delays

__all__ = [
    "ClickEffects",
    "ClickScores",
    "ClickTable",
    "DelayFit",
    "MarketFit",
    "PredictionFit",
    "Spread",
    "WinError",
    "area_under_curve",
    "fit_clicks",
    "fit_delays",
    "fit_market",
    "fit_prediction",
    "plain_numbers",
    "shrunk_rates",
    "spreads_of",
]

TYPICAL = 0.25  # variance of an effect that the weights of the moments reckon with: .5 logits
TURNS = 30  # of shrinkage, creatives, slots and cells each
RIDGE = 1e-3  # keeps the slope finite where predictions part clicks from the rest without a fault
STEPS, CLOSE = 60, 1e-9  # of Newton's method
ROUNDS, STILL = 3_000, 1e-7  # of expectation and maximisation, and the change of a parameter at which they end
DIGITS = 3  # of a delay: a log of millions of clicks has some thousand different ones
DECIMALS = 5  # of the weight of a delay
MIN_MIXTURE = 200  # conversions: fewer do not tell two delays apart
MIN_RATE, MAX_RATE = 1e-9, 0.5  # of a predicted click
PER_THOUSAND = 1_000.0  # impressions: what prices and losses are of
UNSEEN = 0.5  # clicks, where none tells the rate of what has none
ROUNDED = 1e-12  # share of a sum that is its rounding
GROUPS = 1_000  # of creatives or slots that are left out in turn
TINY = 1e-300


class Spread(NamedTuple):
    """A standard deviation and its standard error."""

    sd: float
    error: float


class ClickScores(NamedTuple):
    """Of predicted click rates on impressions that the fit did not see, in nats per thousand of them."""

    log_loss: float
    error: float  # its standard error
    gain: float  # by how much that of the constant rate is larger
    gain_error: float  # paired


class WinError(NamedTuple):
    """Of win rates on held-out rows, against those predicted: differences of shares."""

    mean: float
    worst: float
    of: str  # what was compared


def plain_numbers(values: Iterable[float]) -> list[float | None]:
    """Numbers of JSON; None for what is infinite."""
    return [float(value) if math.isfinite(value) else None for value in values]


# --- market prices ---------------------------------------------------------------------------------------------------
class MarketFit(NamedTuple):
    """The logarithm of the highest rival bid: normal, with a mean for each of S slots."""

    means: np.ndarray  # [S] log money per thousand impressions
    errors: np.ndarray  # [S] their standard errors
    sigma: float  # standard deviation around them
    sigma_error: float
    kind: str  # "all": every price is seen; "truncated": those up to the bid; "censored": beside bids that lost

    def quantile(self, log_price: np.ndarray, slot: np.ndarray, log_bid: np.ndarray | None) -> np.ndarray:
        """[n] chance of a price up to the one that was seen, given that it was won: uniform where the law is right."""
        from scipy import special

        below = special.ndtr((log_price - self.means[slot]) / self.sigma)
        if log_bid is None or self.kind == "all":
            return below
        return below / np.clip(self.win_rate(log_bid, slot), TINY, None)

    def win_rate(self, log_bid: np.ndarray, slot: np.ndarray) -> np.ndarray:
        """[n] chance that a bid wins."""
        from scipy import special

        return special.ndtr((log_bid - self.means[slot]) / self.sigma)


def fit_market(
    log_price: np.ndarray,
    slot: np.ndarray,
    log_bid: np.ndarray | None,
    lost_bid: np.ndarray,
    lost_slot: np.ndarray,
    slots: int,
) -> MarketFit:
    """Fit the lognormal law of the highest rival bid by maximum likelihood.

    Without bids the density of all prices; where bids are known, a price is seen if it is at most the bid: the density
    over the chance to win (truncated), or, where the bids that lost are logged too, the density of what was won and the
    chance to lose for what was not (censored; Amemiya 1984, Tobit models; Wu, Yeh & Chen 2015, censored bids).

    Args:
        log_price: [n] of impressions that were won.
        slot: [n] int64.
        log_bid: [n], or None.
        lost_bid: [m] logarithms of bids that lost; may be empty.
        lost_slot: [m] int64.
        slots: S; one without prices has the mean of the others.
    """
    count = np.bincount(slot, minlength=slots)
    seen = count > 0
    total = np.bincount(slot, log_price, minlength=slots)
    means = np.where(seen, total / np.maximum(count, 1), log_price.mean())
    sigma = float(np.sqrt(np.mean((log_price - means[slot]) ** 2)))
    if log_bid is None:
        errors = np.where(seen, sigma / np.sqrt(np.maximum(count, 1)), math.inf)
        return MarketFit(means, errors, sigma, sigma / math.sqrt(2.0 * len(log_price)), "all")
    from scipy import optimize, special

    places = np.cumsum(seen) - 1  # of the slots that are fitted
    used, censored = int(seen.sum()), len(lost_bid) > 0
    lost = seen[lost_slot]
    lost_bid, lost_at, at = lost_bid[lost], places[lost_slot[lost]], places[slot]

    def ratio(x: np.ndarray) -> np.ndarray:  # density over distribution, without underflow
        return np.exp(-0.5 * x * x - 0.5 * math.log(2.0 * math.pi) - special.log_ndtr(x))

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        mean, spread = x[:-1], math.exp(x[-1])
        z = (log_price - mean[at]) / spread
        value = 0.5 * (z * z).sum() + len(z) * x[-1]
        by_mean = np.bincount(at, -z, minlength=used) / spread
        by_log = len(z) - (z * z).sum()
        if censored:
            q = (mean[lost_at] - lost_bid) / spread  # Phi(q): to lose
            value -= special.log_ndtr(q).sum()
            slope = ratio(q)
            by_mean -= np.bincount(lost_at, slope, minlength=used) / spread
            by_log += (slope * q).sum()
        else:
            q = (log_bid - mean[at]) / spread
            value += special.log_ndtr(q).sum()
            slope = ratio(q)
            by_mean -= np.bincount(at, slope, minlength=used) / spread
            by_log -= (slope * q).sum()
        return value / len(z), np.append(by_mean, by_log) / len(z)

    start = np.append(means[seen], math.log(max(sigma, 1e-3)))
    middle = float(log_price.mean())  # truncated prices alone may say that all are far above every bid: not so far
    limits = [(middle - 15.0, middle + 15.0)] * used + [(-6.0, 3.0)]
    found = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", bounds=limits)
    sides = [(loss(found.x + step)[1] - loss(found.x - step)[1]) / 2e-4 for step in 1e-4 * np.eye(used + 1)]
    curvature = 0.5 * (np.array(sides) + np.array(sides).T) * len(log_price)
    deviation = np.sqrt(np.clip(np.diag(np.linalg.pinv(curvature)), 0.0, None))
    fitted, errors = np.full(slots, found.x[:-1].mean()), np.full(slots, math.inf)
    fitted[seen], errors[seen] = found.x[:-1], deviation[:-1]
    sigma = math.exp(found.x[-1])
    return MarketFit(fitted, errors, sigma, sigma * deviation[-1], "censored" if censored else "truncated")


# --- click rates -----------------------------------------------------------------------------------------------------
class ClickTable(NamedTuple):
    """Counts of K creatives in S slots."""

    shown: np.ndarray  # [K, S]
    clicks: np.ndarray  # [K, S]

    @classmethod
    def of(cls, creative: np.ndarray, slot: np.ndarray, clicked: np.ndarray, shape: tuple[int, int]) -> ClickTable:
        """Count rows [n]."""
        cell, size = creative * shape[1] + slot, shape[0] * shape[1]
        counts = np.bincount(cell, minlength=size), np.bincount(cell, clicked, minlength=size)
        return cls(*(each.reshape(shape).astype(np.float64) for each in counts))


class ClickEffects(NamedTuple):
    """How click rates differ: standard deviations in logits, and the rates of the cells."""

    median: float  # rate of a creative and a slot of effect 0
    median_error: float  # of its logarithm
    creative: Spread
    slot: Spread
    cell: Spread
    rates: np.ndarray  # [K, S] shrunk
    rates_by_creative: np.ndarray  # [K] shrunk, whatever the slot


def spreads_of(table: ClickTable) -> tuple[float, float, float, float]:
    """The rate at effects 0, and the variances of the effects of creatives, slots and cells, in squared logits.

    Clicks of a cell are binomial, with logarithm of the rate b + A_k + G_s + X_ks, the three normal. Then products of
    rates have the means e^(2 b + V), times e^(2 Var) of what the two share, where Var A + Var G + Var X = V: of two
    cells of one creative E = M^2 e^a^2, of one slot M^2 e^g^2, of neither M^2, and of one cell, where c (c - 1) /
    (n (n - 1)) has the mean of the squared rate, M^2 e^(a^2 + g^2 + x^2). Ratios of such means over pairs of cells give
    the variances, without sampling noise in them. (Moments of variance components: Searle, Casella & McCulloch 1992;
    factorial moments for counts.) Cells are weighted as if each had an effect of variance `TYPICAL`, so that none with
    many clicks drowns the others. Logits: divided by the square of 1 - rate, d log(rate) / d logit. Where no two cells
    that share nothing have both clicks, as all are of one creative or slot, M^2 is that of half a click more, spread
    over all impressions: a spread that large at least, and not none.
    """
    seen = np.ix_(table.shown.sum(axis=1) > 0, table.shown.sum(axis=0) > 0)
    shown, clicks = table.shown[seen], table.clicks[seen]
    rate = clicks.sum() / max(shown.sum(), 1.0)
    weight = shown / (1.0 + shown * rate * TYPICAL)
    rates = np.divide(clicks, shown, out=np.zeros_like(clicks), where=shown > 0)
    pairs = shown * (shown - 1.0)
    squares = np.divide(clicks * (clicks - 1.0), pairs, out=np.zeros_like(clicks), where=pairs > 0)

    def sums(x: np.ndarray) -> tuple[float, float, float]:
        """Of products of two cells that share the creative, the slot, nothing."""
        square, rows, columns = (x * x).sum(), (x.sum(axis=1) ** 2).sum(), (x.sum(axis=0) ** 2).sum()
        return rows - square, columns - square, x.sum() ** 2 - rows - columns + square

    products, weights = sums(weight * rates), sums(weight)
    if clicks.sum() > 0.0 and not products[2] > ROUNDED * (weight * rates).sum() ** 2:
        products = sums(weight * (rates + UNSEEN / shown.sum() * (shown > 0.0)))
    same = (weight**2 * squares)[pairs > 0].sum(), (weight**2)[pairs > 0].sum()

    def mean(product: float, weighted: float) -> float:
        return max(product, 0.0) / weighted if weighted > 1e-9 * weight.sum() ** 2 else math.nan

    creative, slot, neither = map(mean, products, weights)
    cell = mean(*same)
    if shown.shape[1] == 1:  # every other cell is of another creative
        creative, neither, slot = cell, slot, slot
    if not neither > 0.0:
        return rate, 0.0, 0.0, 0.0
    logs = [math.log(max(each / neither, 1.0)) if each == each else 0.0 for each in (creative, slot, cell)]
    rest = max(logs[2] - logs[0] - logs[1], 0.0)
    median = math.sqrt(neither) * math.exp(-0.5 * (logs[0] + logs[1] + rest))
    scale = 1.0 / (1.0 - min(rate, MAX_RATE)) ** 2
    return median, logs[0] * scale, logs[1] * scale, rest * scale


def fit_clicks(table: ClickTable) -> ClickEffects:
    """Fit click rates by creative and slot, with shrinkage; standard errors by leaving out each creative and slot.

    Of more than `GROUPS` creatives, as many groups are left out in turn (Efron & Tibshirani 1993, An introduction to
    the bootstrap: the jackknife).
    """
    median, *variances = spreads_of(table)
    deviation = np.zeros(3)
    for axis, size in enumerate(table.shown.shape):  # the jackknife of either side, added up
        if size > 2:
            groups = np.array_split(np.arange(size), min(size, GROUPS))
            left = (ClickTable(*(np.delete(x, out, axis=axis) for x in table)) for out in groups)
            values = np.array([np.sqrt(spreads_of(each)[1:]) for each in left])
            deviation += (len(values) - 1.0) / len(values) * ((values - values.mean(axis=0)) ** 2).sum(axis=0)
    spreads = [Spread(math.sqrt(v), math.sqrt(d)) for v, d in zip(variances, deviation, strict=True)]
    creatives, slots = ((table.shown.sum(axis=axis) > 0).sum() for axis in (1, 0))
    noise = variances[0] / creatives + variances[1] / slots + variances[2] / (creatives * slots)
    error = math.sqrt(noise + 1.0 / max(table.clicks.sum(), 1.0))
    rates, by_creative = shrunk_rates(table, *variances)
    return ClickEffects(median, error, spreads[0], spreads[1], spreads[2], rates, by_creative)


def shrunk_rates(table: ClickTable, creative: float, slot: float, cell: float) -> tuple[np.ndarray, np.ndarray]:
    """Rates [K, S] and [K] as products of factors, each the mean of its gamma posterior given the others.

    A factor of mean 1 and variance v, with c clicks where e are expected without it, is (c + 1 / v) / (e + 1 / v)
    (Clayton & Kaldor 1987, empirical Bayes for Poisson counts); factors of creatives, slots and cells in turn.
    """
    shown, clicks = table
    rate = clicks.sum() / max(shown.sum(), 1.0)

    def factor(count: np.ndarray, expected: np.ndarray, variance: float) -> np.ndarray:
        if variance <= 0.0:
            return np.ones_like(count)
        prior = 1.0 / math.expm1(variance)
        return (count + prior) / (expected + prior)

    f, g, x = np.ones(shown.shape[0]), np.ones(shown.shape[1]), np.ones(shown.shape)
    for _ in range(TURNS):
        f = factor(clicks.sum(axis=1), rate * (shown * g * x).sum(axis=1), creative)
        g = factor(clicks.sum(axis=0), rate * (shown * f[:, None] * x).sum(axis=0), slot)
        x = factor(clicks, rate * shown * f[:, None] * g, cell)
        expected = (shown * f[:, None] * g * x).sum()
        rate = clicks.sum() / max(expected, TINY)
    plain = clicks.sum() / max(shown.sum(), 1.0)
    alone = plain * factor(clicks.sum(axis=1), plain * shown.sum(axis=1), creative)
    limits = MIN_RATE, MAX_RATE
    return np.clip(rate * f[:, None] * g * x, *limits), np.clip(alone, *limits)


# --- predictions -----------------------------------------------------------------------------------------------------
class PredictionFit(NamedTuple):
    """Calibration of predicted click rates: logit(rate) = intercept + slope logit(prediction)."""

    intercept: float
    intercept_error: float
    slope: float
    slope_error: float
    auc: float  # chance that a click was predicted above an impression without one
    level: float  # by how much predictions are above click rates on the whole, logits
    level_error: float
    error: Spread  # of a prediction, logits

    def rates(self, logit: np.ndarray) -> np.ndarray:
        """[n] calibrated click rates."""
        from scipy import special

        return np.clip(special.expit(self.intercept + self.slope * logit), MIN_RATE, 1.0 - MIN_RATE)


def fit_prediction(logit: np.ndarray, clicked: np.ndarray) -> PredictionFit:
    """Fit the calibration by logistic regression (Platt 1999), and from its slope the error of predictions.

    Let the prediction z be the logit l and an error of mean m and variance s^2 that does not depend on it. Where both
    are normal, l given z has the slope Var l / Var z, and clicks are rare, so that the regression of clicks has the
    same: s^2 = Var z (1 - slope). Their level is then m = mean z - mean l, mean l = intercept + slope mean z -
    Var l (1 - slope) / 2, the last as clicks count the mean of e^l and not e^mean l. Predictions that are the same
    number are taken to share one error, so that there are as many errors as different predictions.
    """
    from scipy import special

    middle, variance = float(logit.mean()), float(logit.var())
    x = np.column_stack([np.ones(len(logit)), logit - middle])
    rate = float(np.clip(clicked.mean(), MIN_RATE, 1.0 - MIN_RATE))
    weights, curvature = np.array([math.log(rate / (1.0 - rate)), 0.0]), np.eye(2)
    steps = STEPS if variance > 1e-12 else 0
    for _ in range(steps):
        chance = special.expit(x @ weights)
        curvature = (x.T * (chance * (1.0 - chance))) @ x + RIDGE * np.eye(2)
        step = np.linalg.solve(curvature, x.T @ (clicked - chance) - RIDGE * weights)
        weights = weights + step * min(1.0, 2.0 / max(np.abs(step).max(), TINY))
        if np.abs(step).max() < CLOSE:
            break
    covariance = np.linalg.inv(curvature)
    slope, errors = float(weights[1]), len(np.unique(logit))
    intercept = float(weights[0] - slope * middle)
    inside = min(max(slope, 0.0), 1.0)
    slope_error = math.sqrt(covariance[1, 1] + inside * (1.0 - inside) / errors)  # of a regression on so few logits
    wrong = math.sqrt(variance * (1.0 - inside))
    truth = variance * inside
    level = middle - (intercept + slope * middle - 0.5 * truth * (1.0 - inside))
    by_slope = variance * slope_error / (2.0 * wrong) if wrong > 0.0 else math.sqrt(variance * slope_error)
    spread = Spread(wrong, math.hypot(by_slope, wrong / math.sqrt(2.0 * errors)))
    by_slope = 0.5 * variance * abs(1.0 - 2.0 * inside) * slope_error
    level_error = math.sqrt(covariance[0, 0] + by_slope**2 + variance * (1.0 - inside) / errors)
    intercept_error = math.sqrt(covariance[0, 0] - 2.0 * middle * covariance[0, 1] + middle**2 * covariance[1, 1])
    auc = area_under_curve(logit, clicked)
    return PredictionFit(intercept, intercept_error, slope, slope_error, auc, level, level_error, spread)


def area_under_curve(score: np.ndarray, clicked: np.ndarray) -> float:
    """Chance that a click has a higher score than an impression without one; equal scores count half (Mann-Whitney)."""
    values, place = np.unique(score, return_inverse=True)
    good = np.bincount(place, clicked, minlength=len(values))
    bad = np.bincount(place, 1.0 - clicked, minlength=len(values))
    below = np.cumsum(bad) - 0.5 * bad
    pairs = good.sum() * bad.sum()
    return float((good * below).sum() / pairs) if pairs else math.nan


# --- conversions -----------------------------------------------------------------------------------------------------
class DelayFit(NamedTuple):
    """Conversions per click, and a mixture of exponential delays."""

    rate: float  # of all clicks, those included whose conversion is still to come
    rate_error: float
    weights: tuple[float, ...]
    means: tuple[float, ...]  # days, ascending

    @property
    def mixture(self) -> list[tuple[float, float]]:
        """Weight and mean of each delay; one whose weight is nothing is left out, and weights add up to 1."""
        pairs = [(w, mean) for w, mean in zip(self.weights, self.means, strict=True) if w >= 1e-3]
        weights = np.round(np.array([w for w, _ in pairs]) / sum(w for w, _ in pairs), DECIMALS)
        weights[-1] = 1.0 - weights[:-1].sum()
        return [(w, mean) for w, (_, mean) in zip(weights.round(DECIMALS).tolist(), pairs, strict=True)]

    def matured(self, days: np.ndarray) -> np.ndarray:
        """Share of conversions that have come within so many days."""
        share: np.ndarray = Delays(self.weights, self.means).matured(days)
        return share


def _counted(days: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Different values of `days` [n] above 0 to `DIGITS` significant digits, and how many have each."""
    size = 10.0 ** (np.floor(np.log10(np.maximum(days, 1e-6))) - (DIGITS - 1))
    values, counts = np.unique(np.round(days / size) * size, return_counts=True)
    return values, counts.astype(np.float64)


def fit_delays(delay: np.ndarray, waited: np.ndarray) -> DelayFit:
    """Fit rate and delays by expectation and maximisation (Chapelle 2014, with a mixture for the delay).

    A click that has not converted by the end of the log may still do so: with W_i since the click, it does in class j
    with the chance rate w_j e^(-W_i / tau_j) over 1 - rate F(W_i), F the distribution of the delay, and then after
    W_i + tau_j on average, as exponential delays have no memory.

    Args:
        delay: [n] days from click to conversion of clicks that converted.
        waited: [m] days from click to the end of the log, of those that did not.
    """
    total = len(delay) + len(waited)
    delay = np.maximum(delay, 1e-6)  # a second is 1e-5 days
    rate = len(delay) / total
    if len(delay) >= MIN_MIXTURE:
        low, high = np.quantile(delay, 0.25), delay.mean()
        weights, means = np.array([0.5, 0.5]), np.array([max(low, 1e-6), max(2.0 * high, 3.0 * low)])
    else:
        weights, means = np.ones(1), np.array([delay.mean()])
    come_at, many = _counted(delay)
    left, more = _counted(waited)
    for _ in range(ROUNDS):
        density = weights / means * np.exp(-come_at[:, None] / means)
        mine = many[:, None] * density / np.maximum(density.sum(axis=1, keepdims=True), TINY)
        still = rate * weights * np.exp(-left[:, None] / means)
        later = more[:, None] * still / (1.0 - rate + still.sum(axis=1, keepdims=True))
        come, comes = mine.sum(axis=0), later.sum(axis=0)
        new_means = (come_at @ mine + left @ later + comes * means) / np.maximum(come + comes, TINY)
        new_weights = (come + comes) / (come + comes).sum()
        new_rate = min(float((come + comes).sum() / total), 1.0 - 1e-9)
        moved = max(np.abs(np.log(new_means / means)).max(), abs(math.log(new_rate / rate)))
        rate, weights, means = new_rate, new_weights, new_means
        if moved < STILL:
            break
    order = np.argsort(means)
    fit = DelayFit(rate, 0.0, tuple(weights[order].tolist()), tuple(means[order].tolist()))
    seen = float((fit.matured(waited) if len(waited) else np.zeros(0)).sum()) + len(delay)
    return fit._replace(rate_error=math.sqrt(rate * (1.0 - rate) / max(seen, 1.0)))
