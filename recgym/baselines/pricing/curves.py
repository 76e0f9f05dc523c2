"""Pricing with a demand curve: a Poisson regression whose posterior is sampled, with a vague or a learned prior.

Index policies, as those of `recgym.baselines.pricing`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from recgym.baselines.planning import mixture
from recgym.baselines.policy import Floats, IndexPolicy, Reading
from recgym.baselines.pricing.units import Units, embedding_of, units_of
from recgym.baselines.regression import draw, laplace
from recgym.rng import make_rng
from recgym.runner import Runner

__all__ = ["Curve", "Prior", "curve_features", "glm_ts", "learned_prior", "meta_dp", "vague"]

PRIOR_TRIALS = 500  # of training tasks, from which Meta-DP learns its prior
PRIOR_SEED = 999_979


class Curve(NamedTuple):
    offered: Floats  # [B, K, F] features of the previous observation
    mean: Floats  # [B, F] of the coefficients
    covariance: Floats  # [B, F, F]


def curve_features(scenario: Any, reading: Reading) -> Floats:
    """[B, K, F] 1, log price paid, display, price below and above the reference, after a promotion, log rival's price.

    What the demand model's equation is linear in for the family of constant elasticity; the others come close.
    """
    ladder, shape = scenario.ladder, reading.chosen.shape
    gap = reading.field("reference")[:, None] - ladder.paid
    after = (reading.chosen @ ladder.promoted)[:, None]
    rival = np.log(np.maximum(reading.field("rival"), 1e-3))[:, None]
    columns = [1.0, np.log(ladder.paid), ladder.display, np.maximum(gap, 0.0), np.minimum(gap, 0.0), after, rival]
    if scenario.forecast is not None:
        columns.append(reading.field("forecast"))
    return np.stack([np.broadcast_to(c, shape) for c in columns], axis=2).astype(np.float64)


class Prior(NamedTuple):
    """Gaussian of a curve's coefficients, with a mean that is linear in what is known of the product."""

    weights: Floats  # [P, F] mean is [1, embedding][:P] . weights
    covariance: Floats  # [F, F]

    def mean(self, embedding: Floats) -> Floats:
        """[B, F] of products with embeddings [B, E]."""
        return self.design(embedding)[:, : len(self.weights)] @ self.weights

    @staticmethod
    def design(embedding: Floats) -> Floats:
        """[B, 1 + E]"""
        return np.column_stack([np.ones(len(embedding)), embedding])


def poisson_curve(scenario: Any, prior: Prior, decide: Callable[[Curve, Reading, Units], Floats]) -> IndexPolicy:
    """Poisson regression of the sales on `curve_features`, in sales units: a Gaussian posterior of the coefficients.

    One step of `recgym.baselines.regression.laplace` per decision whose sales were demand.
    """

    def start(rows: int) -> Curve:
        width = len(prior.covariance)
        covariance = np.broadcast_to(prior.covariance, (rows, width, width)).copy()
        return Curve(np.zeros((rows, scenario.layout.candidates, width)), np.zeros((rows, width)), covariance)

    def response(predictor: Floats) -> Floats:
        return scenario.sales_unit * np.exp(np.clip(predictor, -30.0, 30.0))

    def learn(memory: Curve, reading: Reading) -> Curve:
        now, played = units_of(scenario, reading), reading.chosen.any(axis=1, keepdims=True)
        mean = np.where(played, memory.mean, prior.mean(embedding_of(scenario, reading)))
        x = ((reading.chosen * now.open[:, None])[:, None, :] @ memory.offered)[:, 0]
        sold = np.where(now.open, now.sold, 0.0)[:, None]
        after = laplace(mean, memory.covariance, x, sold, response, lambda rate: rate, 40)
        return Curve(curve_features(scenario, reading), *after)

    return IndexPolicy(
        scenario, start, learn, lambda memory, reading: decide(memory, reading, units_of(scenario, reading))
    )


def curve_demand(scenario: Any, memory: Curve, weights: Floats) -> Floats:
    """[B, K] units per decision, at most all customers."""
    expected = np.exp(np.clip((memory.offered @ weights[..., None])[..., 0], -30.0, 30.0)) * scenario.sales_unit
    return np.minimum(expected, scenario.customers) * scenario.sells


def curve_thompson(scenario: Any, prior: Prior, scale: float) -> IndexPolicy:
    """The fluid program of a demand curve drawn from the posterior, whose covariance is multiplied by scale^2."""

    def decide(memory: Curve, reading: Reading, now: Units) -> Floats:
        weights = draw(memory.mean, scale**2 * memory.covariance, reading.rng) if scale > 0 else memory.mean
        demand = curve_demand(scenario, memory, weights)
        return mixture(now.margin * demand, demand, now.supply, reading)

    return poisson_curve(scenario, prior, decide)


def vague(scenario: Any) -> Prior:
    """Of one who knows nothing but what a forecast is."""
    mean, spread = [0.0] * 7, [1.0, 4.0, 0.5, 1.0, 1.0, 0.3, 1.0]
    if scenario.forecast is not None:
        mean, spread = [*mean, 1.0], [*spread, 0.5]
    return Prior(np.asarray([mean]), np.diag(np.square(spread)))


def glm_ts(scenario: Any, scale: float = 0.5) -> IndexPolicy:
    """Thompson sampling with a Poisson regression (generalised linear model) and a vague prior."""
    return curve_thompson(scenario, vague(scenario), scale)


@cache
def learned_prior(scenario: Any) -> Prior:
    """Of the coefficients over products, from trials on training tasks.

    Trials are played by `glm_ts` from the vague prior N(v, V). Of the posterior N(m_n, S_n) of trial n the data alone
    have the precision R_n = S_n^-1 - V^-1 and the moment S_n^-1 m_n - V^-1 v. The prior that makes all of them most
    likely is found by expectation maximisation: empirical Bayes of a Gaussian random-effects model, where Bastani et
    al. (2022) average the estimates; its mean is regressed on the embedding.
    """
    policy = glm_ts(scenario)
    policy.reseed(PRIOR_SEED)
    runner = Runner(scenario, PRIOR_TRIALS, make_rng("cpu", PRIOR_SEED))
    runner.restart()
    design = Prior.design(runner.state.seen.offer.embedding.astype(np.float64))
    memory: Any = None
    for _ in range(scenario.horizon):
        action, memory = policy.predict(runner.observation(), memory)
        runner.advance(action)
    first, wide = vague(scenario)
    inside = np.linalg.inv(memory.covariance)
    precision = inside - np.linalg.inv(wide)  # [N, F, F]
    moment = (inside @ memory.mean[..., None])[..., 0] - np.linalg.solve(wide, first[0])
    mean, covariance = np.repeat(first, len(design), axis=0), wide  # [N, F], [F, F]
    for _ in range(200):
        each_covariance = np.linalg.inv(precision + np.linalg.inv(covariance))
        each = (each_covariance @ (moment + np.linalg.solve(covariance, mean.T).T)[..., None])[..., 0]
        weights = np.linalg.lstsq(design, each)[0]
        mean = design @ weights
        spread = each - mean
        covariance = each_covariance.mean(axis=0) + spread.T @ spread / len(each) + 1e-6 * np.eye(len(wide))
    return Prior(weights, covariance)


def meta_dp(scenario: Any, scale: float = 1.0) -> IndexPolicy:
    """Meta dynamic pricing (Bastani, Simchi-Levi & Zhu 2022): Thompson sampling with a prior learned over products."""
    return curve_thompson(scenario, learned_prior(scenario), scale)
