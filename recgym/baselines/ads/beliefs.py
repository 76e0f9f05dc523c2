"""Campaign policies with a Gaussian belief about all click logits together, moved by Laplace steps of a Poisson model.

The belief of who knows the task distribution has the covariance that `recgym.scenarios.ads.creatives` draws from,
given the predictions; the one without has effects of slots, embeddings and cells whose spreads are tuned.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from recgym.baselines.ads.desk import MAX_LOG_RATE, Counted, desk_of
from recgym.baselines.ads.policies import conversion_rates, pooled_rate
from recgym.baselines.policy import Floats, IndexPolicy, Reading
from recgym.baselines.regression import draw, laplace, unwieldy
from recgym.scenarios.ads.creatives import KEPT

__all__ = ["belief_lp", "lints_lp", "too_many_cells"]

HALVINGS = 25  # of a Laplace step
CELL = 0.3  # spread of a cell by itself, of the prior-free belief
FATIGUE = (0.05, 0.05)  # mean and standard deviation of the fatigue that the prior-free belief starts from
JITTER = 1e-8  # of covariances, before a draw


class ClickBelief(NamedTuple):
    kept: Any  # by the desk
    mean: Floats  # [B, F] cells' logits less the base, then creatives' fatigue
    covariance: Floats  # [B, F, F]
    frequency: Floats  # [B, K] recent base packets before
    known: Floats  # [B] 1 where the prior has met the trial's embeddings and predictions


Prior = Callable[[Floats, Floats], tuple[Floats, Floats]]  # embedding [B, K, d], predicted [B, N] -> mean, covariance


def kernels(scenario: Any, embedding: Floats, factor: Floats | None = None) -> dict[str, Floats]:
    """[B or 1, N, N] covariances of unit effects over the N = K x S cells.

    Args:
        scenario: a Campaign.
        embedding: [B, K, d].
        factor: [F, d] A of a taste z A, z ~ N(0, I); None: I.
    """
    creatives, slots = scenario.creatives, scenario.slots
    one_s, one_k = np.ones((slots, slots)), np.ones((creatives, creatives))
    same_s, same_k = np.eye(slots), np.eye(creatives)
    gram = embedding @ embedding.transpose(0, 2, 1)
    projected = embedding if factor is None else embedding @ factor.T

    def kron(left: Floats, right: Floats) -> Floats:
        cells = np.einsum("...kl,st->...kslt", left, right)
        return cells.reshape(*left.shape[:-2], creatives * slots, creatives * slots)

    return {
        "level": kron(one_k, one_s)[None],
        "taste": kron(projected @ projected.transpose(0, 2, 1), one_s),
        "taste_by_slot": kron(gram, same_s),
        "slot_effect": kron(one_k, same_s)[None],
        "creative_effect": kron(same_k, one_s)[None],
        "cell_effect": kron(same_k, same_s)[None],
    }


def with_fatigue(mean: Floats, covariance: Floats, fatigue: Floats, variance: Floats) -> tuple[Floats, Floats]:
    """Mean [B, N + K] and covariance with independent fatigue of mean [K] and variance [K]."""
    rows, cells = mean.shape
    whole = np.zeros((rows, cells + len(fatigue), cells + len(fatigue)))
    whole[:, :cells, :cells] = covariance
    place = np.arange(cells, cells + len(fatigue))
    whole[:, place, place] = variance
    return np.concatenate([mean, np.broadcast_to(fatigue, (rows, len(fatigue)))], axis=1), whole


def aware_kernels(scenario: Any, embedding: Floats) -> tuple[dict[str, Floats], dict[str, float]]:
    """Covariances of unit effects as the scenario draws them, and standard deviations of these effects, by name."""
    known = scenario.taste_table
    parts = kernels(scenario, embedding, known[1:] if len(known) else None)
    spreads = {name: getattr(scenario, name) for name in parts}
    return parts, spreads | {"taste": 1.0} if len(known) else spreads


def aware_prior(scenario: Any, embedding: Floats, predicted: Floats) -> tuple[Floats, Floats]:
    """The scenario's own distribution, given the predictions; those of the catalog's tastes say no more than it."""
    parts, spreads = aware_kernels(scenario, embedding)
    covariance: Any = sum(spreads[name] ** 2 * part for name, part in parts.items())
    covariance = np.broadcast_to(covariance, (len(embedding), *covariance.shape[1:]))
    mean = np.zeros_like(predicted)
    if len(scenario.taste_table):
        mean = np.repeat(embedding @ scenario.taste_table[0], scenario.slots, axis=1)
    elif scenario.prediction is not None:
        level, cell = scenario.prediction
        error = level**2 * parts["level"][0] + max(cell, 1e-3) ** 2 * parts["cell_effect"][0]
        gain = np.linalg.solve(covariance + error, covariance).transpose(0, 2, 1)
        mean = (gain @ predicted[..., None])[..., 0]
        covariance = covariance - gain @ covariance
    low, high = getattr(scenario, "fatigue", (0.0, 0.0))
    count = scenario.creatives
    return with_fatigue(mean, covariance, np.full(count, 0.5 * (low + high)), np.full(count, (high - low) ** 2 / 12.0))


def aware_noise(scenario: Any, embedding: Floats) -> Floats:
    """[B or 1, N, N] by how much the belief widens in a decision: drift, and change points as they are on average."""
    parts, spreads = aware_kernels(scenario, embedding)
    rate = getattr(scenario, "change", 0.0) / scenario.horizon
    change = {name: spreads[name] ** 2 for name in ("taste", "taste_by_slot", "slot_effect", "creative_effect")}
    # Of an effect a of variance 1, sqrt(k) a + sqrt(1 - k) c is left, so that it moves by (1 - sqrt(k))^2 + 1 - k.
    moved = (1.0 - np.sqrt(KEPT)) ** 2 + (1.0 - KEPT)
    noise = sum(rate * moved * variance * parts[name] for name, variance in change.items())
    return noise + getattr(scenario, "drift", 0.0) ** 2 * parts["creative_effect"]


def free_prior(
    scenario: Any, temper: float, spread: float, embedding: Floats, predicted: Floats
) -> tuple[Floats, Floats]:
    """Tempered predictions, and effects of creatives' embeddings, slots and cells with spreads of one's own."""
    parts = kernels(scenario, embedding)
    names = ("level", "taste", "taste_by_slot", "slot_effect")
    covariance = spread**2 * sum(parts[name] for name in names) + CELL**2 * parts["cell_effect"]
    mean, deviation = FATIGUE if wears(scenario) else (0.0, 1e-3)
    count = scenario.creatives
    return with_fatigue(temper * predicted, covariance, np.full(count, mean), np.full(count, deviation**2))


def wears(scenario: Any) -> bool:
    """Whether creatives wear out."""
    return getattr(scenario, "fatigue", (0.0, 0.0))[1] > 0.0


def gaussian(
    scenario: Any,
    prior: Prior,
    noise: Callable[[Floats], Floats],
    scale: float,
    conversion: Callable[[Counted, np.random.Generator], Floats],
) -> IndexPolicy:
    """The fluid program of the belief's mean, moved towards a draw by `scale`.

    Args:
        scenario: a Campaign.
        prior: of a trial, from embeddings and predictions.
        noise: embeddings -> covariance [B or 1, N, N] that a decision adds.
        scale: 0 for the mean, 1 for Thompson sampling.
        conversion: (counts, rng) -> conversions per click [B, K].
    """
    desk = desk_of(scenario)
    creatives, slots = scenario.creatives, scenario.slots
    cells = creatives * slots
    of_cell = np.arange(cells) // slots

    def start(rows: int) -> ClickBelief:
        width = cells + creatives
        none = np.zeros((rows, width))
        return ClickBelief(desk.start(rows), none, np.zeros((rows, width, width)), none[:, :creatives], none[:, 0])

    def learn(memory: ClickBelief, reading: Reading) -> ClickBelief:
        mean, covariance = memory.mean, memory.covariance
        new = memory.known == 0.0
        if new.any():
            predicted = desk.predicted(reading)[new].reshape(int(new.sum()), -1)
            mean, covariance = mean.copy(), covariance.copy()
            mean[new], covariance[new] = prior(desk.embedding(reading)[new], predicted)
        if not new.all():
            old = ~new
            bought = desk.bought(reading).reshape(len(mean), -1) * old[:, None]
            worn = bought.reshape(-1, creatives, slots).sum(axis=2) * memory.frequency
            x = np.concatenate([bought, -worn], axis=1)
            exposure = (reading.field("last_wins") * old)[:, None] * scenario.packet
            clicks = np.rint(reading.field("last_clicks") * scenario.packet * old)[:, None]

            def rate(logit: Floats) -> Floats:
                return exposure * np.exp(np.minimum(logit, MAX_LOG_RATE))

            mean, covariance = laplace(mean, covariance, x, clicks, rate, rate, HALVINGS)
            covariance[:, :cells, :cells] += np.where(old[:, None, None], noise(desk.embedding(reading)), 0.0)
        kept = desk.learn(memory.kept, reading)
        return ClickBelief(kept, mean, covariance, desk.frequency(reading), np.ones(len(mean)))

    def index(memory: ClickBelief, reading: Reading) -> Floats:
        logit = memory.mean
        if scale > 0.0:
            safe = memory.covariance + JITTER * np.eye(memory.mean.shape[1])
            logit = logit + scale * (draw(memory.mean, safe, reading.rng) - logit)
        fatigue = np.maximum(logit[:, cells:], 0.0) * desk.frequency(reading)
        worn = (logit[:, :cells] - fatigue[:, of_cell]).reshape(-1, creatives, slots)
        rates = conversion(desk.counts(memory.kept, reading), reading.rng)
        return desk.plan(memory.kept, reading, worn, rates)

    return IndexPolicy(scenario, start, learn, index)


def belief_lp(scenario: Any, scale: float = 0.5) -> IndexPolicy:
    """Bayes' rule with the task distribution, and the fluid program of a draw."""
    spread = scenario.conversion_spread
    shape = 1.0 / max(np.expm1(spread**2), 1e-3)  # a Gamma with the variation of a lognormal
    mean = scenario.conversion_rate * np.exp(0.5 * spread**2)

    def conversion(counts: Counted, rng: np.random.Generator) -> Floats:
        return conversion_rates(counts, shape, mean, rng, scale)

    return gaussian(scenario, partial(aware_prior, scenario), partial(aware_noise, scenario), scale, conversion)


def lints_lp(
    scenario: Any, scale: float = 0.5, temper: float = 0.35, spread: float = 0.5, forget: float = 0.05
) -> IndexPolicy:
    """Linear Thompson sampling that forgets, around tempered predictions, and the fluid program of the draw."""
    wider = forget**2 * np.eye(scenario.creatives * scenario.slots)[None]

    def conversion(counts: Counted, rng: np.random.Generator) -> Floats:
        return conversion_rates(counts, 1.0, pooled_rate(scenario, counts), rng, scale)

    prior = partial(free_prior, scenario, temper, spread)
    return gaussian(scenario, prior, lambda embedding: wider, scale, conversion)


def too_many_cells(scenario: Any) -> str:
    """Why a matrix per trial cannot be kept."""
    return unwieldy(scenario.creatives * (scenario.slots + 1))
