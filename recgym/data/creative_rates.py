"""Click rates of creatives from their features: a hierarchical logistic regression, and what it is worth on new ones.

The logit of a click on creative k in part s of the day is b + g_s + e_k.w + delta_k: g_s is given, e_k are the
creative's features, w ~ N(0, tau^2 I) the campaign's taste, delta_k ~ N(0, sigma^2) what features do not tell. The mode
of b, w and delta is found by Newton's method, and tau and sigma are averaged over, by their evidence in Laplace's
approximation and half-normal priors: the largest evidence may be at no taste at all, of which few creatives make nobody
certain (Gelman & Hill 2007, chapter 14; Rasmussen & Williams 2006, chapter 3; Gelman 2006 for priors of spreads). What
is predicted of a creative that the log has never seen is b + e_k.mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from recgym.arrays import logistic, unit_rows
from recgym.catalog import Catalog, known_catalog
from recgym.data.factors import Floats
from recgym.data.landscape import PER_THOUSAND, ClickEffects, ClickTable, Spread
from recgym.data.sources import shortened

__all__ = [
    "MIN_CREATIVES",
    "CreativeFit",
    "KnownCreatives",
    "NewCreatives",
    "fit_creatives",
    "known_creatives",
    "score_new_creatives",
    "slot_logits",
]

MIN_CREATIVES = 8  # fewer do not tell what features do from chance
FOLDS = 10  # of creatives
SEED = 0
STEPS, CLOSE = 100, 1e-7  # of Newton's method
LONGEST = 2.0  # logits that a step may move a creative by: a long one from far away overshoots
MIN_SPREAD, MAX_SPREAD = 0.01, 5.0  # tau and sigma, logits
WIDE = 1.0  # logits, of their half-normal priors
POINTS, PASSES = 8, 3  # of a side of the grid of them, and how often it closes in
TAIL = 1e-3  # of the most probable value, below which one is left out of the next grid
FLAT = 10.0  # standard deviation a priori of what has no spread to be fitted
FLOOR = 1e-12  # of a chance


class CreativeFit(NamedTuple):
    """The model; features have D columns."""

    base: float  # b, the logit at features and effects of 0
    base_error: float  # its standard error, given w
    mean: Floats  # [D] of the taste w, a posteriori
    covariance: Floats  # [D, D] of it
    taste: Spread  # tau, logits per unit of a feature
    rest: Spread  # sigma, logits

    @property
    def tastes(self) -> Floats:
        """[1 + D, D] mean and factor of the taste, as `Catalog.tastes` has them."""
        return np.concatenate([self.mean[None], np.linalg.cholesky(self.covariance).T])


class NewCreatives(NamedTuple):
    """What predictions are worth on creatives that the fit has not seen, each predicted without its own clicks."""

    slope: float  # of logits in predicted logits; below 1: they promise too much
    slope_error: float
    wrong: Spread  # standard deviation of logits around the predicted ones, their level aside
    spread: Spread  # the same of one prediction for all
    gain: float  # nats per thousand impressions of log loss less than who predicts the same for all
    gain_error: float  # over creatives


class _Mode(NamedTuple):
    weights: Floats  # [W]
    covariance: Floats  # [W, W]
    evidence: float  # log marginal likelihood
    precision: float  # of the first weight, given the others


def _find_mode(table: ClickTable, offset: Floats, x: Floats, prior: Floats, variance: float) -> _Mode:
    """The most probable weights of rows x [K, W], with effects of rows integrated out.

    Args:
        table: K x S counts.
        offset: [K, S] or [1, S] logits that are given.
        x: [K, W].
        prior: [W] variances of the weights.
        variance: of the effect of a row.
    """
    weights, rest = np.zeros(x.shape[1]), np.zeros(len(x))
    shown, clicks = table
    for _ in range(STEPS):
        logit = x @ weights + rest
        chance = logistic(offset + logit[:, None])
        slope = (clicks - shown * chance).sum(axis=1)
        curvature = (shown * chance * (1.0 - chance)).sum(axis=1)
        shrunk = 1.0 / (1.0 + variance * curvature)
        inner = (x.T * (curvature * shrunk)) @ x + np.diag(1.0 / prior)
        target = shrunk * (curvature * logit + slope)
        new = np.linalg.solve(inner, x.T @ target)
        new_rest = variance * shrunk * (curvature * (logit - x @ new) + slope)
        moved = np.abs(x @ (new - weights) + new_rest - rest).max()
        share = min(1.0, LONGEST / max(moved, CLOSE))
        weights, rest = weights + share * (new - weights), rest + share * (new_rest - rest)
        if moved < CLOSE:
            break
    chance = np.clip(logistic(offset + (x @ weights + rest)[:, None]), FLOOR, 1.0 - FLOOR)
    fit = (clicks * np.log(chance) + (shown - clicks) * np.log1p(-chance)).sum()
    penalty = (weights**2 / prior).sum() + (rest**2).sum() / variance
    volume = np.log(prior).sum() + np.linalg.slogdet(inner)[1] - np.log(shrunk).sum()
    return _Mode(weights, np.linalg.inv(inner), float(fit - 0.5 * (penalty + volume)), float(inner[0, 0]))


def fit_creatives(
    table: ClickTable, offset: Floats, features: Floats, taste: tuple[float, float] = (MIN_SPREAD, MAX_SPREAD)
) -> CreativeFit:
    """Fit the model.

    Args:
        table: counts of K creatives in S parts of the day.
        offset: [S], or [K, S], logits that are given, their level aside.
        features: [K, D]; D may be 0.
        taste: least and most tau.
    """
    level = math.log((table.clicks.sum() + 0.5) / (table.shown.sum() - table.clicks.sum() + 0.5))
    given, width = np.atleast_2d(offset) + level, features.shape[1]
    turn = np.eye(width)
    if width > len(features):  # of the directions in which no creatives differ the prior alone is known
        turn = np.linalg.svd(features, full_matrices=False)[2].T
    x = np.column_stack([np.ones(len(features)), features @ turn])

    def mode(tau: float, sigma: float) -> _Mode:
        return _find_mode(table, given, x, np.array([FLAT**2, *[tau**2] * turn.shape[1]]), sigma**2)

    tau, sigma, share, modes = _weighed(mode, [taste if width else (FLAT, FLAT), (MIN_SPREAD, MAX_SPREAD)])
    outside = np.eye(width) - turn @ turn.T
    base = share @ [each.weights[0] for each in modes]
    mean = turn @ np.sum([p * each.weights[1:] for p, each in zip(share, modes, strict=True)], axis=0)
    covariance = (share @ tau**2) * outside - np.outer(mean, mean)
    for p, each in zip(share, modes, strict=True):
        own = each.covariance[1:, 1:] + np.outer(each.weights[1:], each.weights[1:])
        covariance += p * turn @ own @ turn.T
    return CreativeFit(
        base=level + float(base),
        base_error=math.sqrt(share @ [1.0 / each.precision for each in modes]),
        mean=mean,
        covariance=covariance,
        taste=_spread_of(tau, share),
        rest=_spread_of(sigma, share),
    )


def _weighed(
    mode: Callable[[float, float], _Mode], limits: list[tuple[float, float]]
) -> tuple[Floats, Floats, Floats, list[_Mode]]:
    """Pairs of spreads [n] on a grid that closes in on where the evidence lies, their shares [n] of it, and modes."""
    for _ in range(PASSES):
        axes = [np.geomspace(low, high, POINTS if low < high else 1) for low, high in limits]
        tau, sigma = (each.ravel() for each in np.meshgrid(*axes, indexing="ij"))
        modes = [mode(*pair) for pair in zip(tau, sigma, strict=True)]
        log = np.array([each.evidence for each in modes]) - 0.5 * sigma**2 / WIDE**2 + np.log(sigma)
        if len(axes[0]) > 1:
            log += np.log(tau) - 0.5 * tau**2 / WIDE**2
        share = np.exp(log - log.max())
        share /= share.sum()
        table = share.reshape(len(axes[0]), len(axes[1]))
        limits = [_closer(axis, table.sum(axis=1 - side)) for side, axis in enumerate(axes)]
    return tau, sigma, share, modes


def _closer(axis: Floats, mass: Floats) -> tuple[float, float]:
    """The ends of that part of a grid [n] on which the mass [n] lies, with a point to either side."""
    near = np.flatnonzero(mass > TAIL * mass.max())
    return axis[max(near[0] - 1, 0)], axis[min(near[-1] + 1, len(axis) - 1)]


def _spread_of(values: Floats, share: Floats) -> Spread:
    """Mean and standard deviation of values [n] with shares [n]."""
    mean = share @ values
    return Spread(float(mean), math.sqrt(max(share @ (values - mean) ** 2, 0.0)))


def slot_logits(effects: ClickEffects) -> Floats:
    """[S] offsets of the parts of the day: shrunk, and what the mean of cells that differ is above their middle."""
    logs = np.log(effects.rates)
    return logs.mean(axis=0) - logs.mean() + 0.5 * effects.cell.sd**2


def score_new_creatives(table: ClickTable, offset: Floats, features: Floats) -> NewCreatives:
    """Score predictions of creatives by a fit to the others, `FOLDS` parts in turn.

    Args:
        table: counts of K creatives in S parts of the day.
        offset: [S] logits that are given.
        features: [K, D].
    """
    count, none = len(features), np.zeros((len(features), 0))
    fold = np.random.default_rng(SEED).permutation(count) % min(FOLDS, count)
    predicted, gain = np.zeros(count), np.zeros(count)
    for part in range(fold.max() + 1):
        new = fold == part
        known = ClickTable(*(each[~new] for each in table))
        models = [(fit_creatives(known, offset, each[~new]), each[new]) for each in (features, none)]
        for (fit, x), sign in zip(models, (1.0, -1.0), strict=True):
            logit = fit.base + x @ fit.mean
            doubt = fit.base_error**2 + fit.rest.sd**2 + ((x @ fit.covariance) * x).sum(axis=1)
            chance = logistic(offset + (logit + 0.5 * doubt)[:, None])  # clicks have the mean of e^logit
            shown, clicks = table.shown[new], table.clicks[new]
            gain[new] += sign * (clicks * np.log(chance) + (shown - clicks) * np.log1p(-chance)).sum(axis=1)
            if x.shape[1]:
                predicted[new] = logit
    centred = predicted - predicted.mean()
    line = fit_creatives(table, offset, centred[:, None], taste=(FLAT, FLAT))
    shown = table.shown.sum(axis=1)
    mean = gain.sum() / shown.sum()
    error = math.sqrt(count / (count - 1.0) * ((gain - mean * shown) ** 2).sum()) / shown.sum()
    return NewCreatives(
        slope=float(line.mean[0]),
        slope_error=float(line.covariance[0, 0]) ** 0.5,
        wrong=fit_creatives(table, offset + centred[:, None], none).rest,
        spread=fit_creatives(table, offset, none).rest,
        gain=PER_THOUSAND * float(mean),
        gain_error=PER_THOUSAND * float(error),
    )


@dataclass(frozen=True, eq=False)
class KnownCreatives:
    """Creatives of a log that are items of a catalog, and what their features say of click rates."""

    items: Catalog  # as it was given
    features: Floats  # [K, D] of the creatives
    table: ClickTable
    effects: ClickEffects  # of the log, whatever the features

    @cached_property
    def fit(self) -> CreativeFit:
        """The model; see `fit_creatives`."""
        return fit_creatives(self.table, slot_logits(self.effects), self.features)

    @cached_property
    def new(self) -> NewCreatives:
        """What it is worth on creatives that it has not seen."""
        return score_new_creatives(self.table, slot_logits(self.effects), self.features)

    @property
    def base_rate(self) -> tuple[float, float]:
        """e^b, as scenarios have it, and the standard error of its logarithm."""
        slots = int((self.table.shown.sum(axis=0) > 0).sum())
        return math.exp(self.fit.base), math.hypot(self.fit.base_error, self.effects.slot.sd / math.sqrt(slots))

    @cached_property
    def catalog(self) -> Catalog:
        """The items with the campaign's tastes, known by its digest; see `Catalog.tastes`."""
        return known_catalog(replace(self.items, tastes=self.fit.tastes))

    @property
    def estimates(self) -> list[tuple[str, float, float, str]]:
        """What is printed: name, value, its standard error and unit."""
        fit, new = self.fit, self.new
        return [
            (f"taste for their {len(fit.mean)} features", *fit.taste, "logits"),
            ("creatives beside their features", *fit.rest, "logits"),
            ("new creatives by features, slope", new.slope, new.slope_error, ""),
            ("error of these predictions", *new.wrong, "logits"),
            ("error of one prediction for all", *new.spread, "logits"),
            ("log loss less than that of one for all", new.gain, new.gain_error, "nats per thousand impressions"),
        ]

    def to_json(self) -> dict[str, Any]:
        """The report: plain numbers."""
        fit, new = self.fit, self.new
        spreads = {"taste": fit.taste, "rest": fit.rest, "wrong": new.wrong, "spread": new.spread}
        single = {"base": fit.base, "base_error": fit.base_error, "slope": new.slope, "slope_error": new.slope_error}
        found = {name: each._asdict() for name, each in spreads.items()}
        return {**single, "gain": new.gain, "gain_error": new.gain_error, "mean": fit.mean.tolist(), **found}


def known_creatives(
    names: Sequence[str], items: Catalog, table: ClickTable, effects: ClickEffects, path: str
) -> KnownCreatives:
    """Find the creatives of a log in a catalog, whose ids are their names.

    Args:
        names: K creatives.
        items: N of them.
        table: counts of the creatives.
        effects: of the log.
        path: of the log, for errors.

    Raises:
        ValueError: ids are lacking, creatives are not among them, or there are too few creatives for a fit.
    """
    if items.ids is None:
        raise ValueError(f"{path}: the catalog has no ids: give it the names of the log's creatives as ids")
    ways = "or leave its ids out, and its items are creatives of which the log says nothing"
    if len(names) < MIN_CREATIVES:
        what = f"{len(names)} creatives, at least {MIN_CREATIVES} are needed to fit click rates to a catalog's features"
        raise ValueError(f"{path}: {what}: bring more, name their column (creative), {ways}")
    unknown = [name for name in names if name not in items.rows]
    if unknown:
        what = f"{len(unknown):,} of {len(names):,} creatives are no ids of the catalog"
        such = f"such as {shortened(unknown[0])}; its first id is {shortened(items.ids[0])}"
        raise ValueError(f"{path}: {what} ({such}): add them to it under these ids, {ways}")
    features = unit_rows(items.features).astype(np.float64)  # of length 1, as the scenario has them
    return KnownCreatives(items, features[[items.rows[name] for name in names]], table, effects)
