"""Conversions that come late: a click's delay is exponential, with one of several means.

Source: Chapelle 2014, Modeling delayed feedback in display advertising (exponential delays). They have no memory, so
that counts of what is still to come are all that has to be kept: of n conversions that wait with mean tau, each comes
in the next decision with probability 1 - exp(-1 / tau), whenever its click was.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from recgym.arrays import Array, Rng, namespace

__all__ = ["Delays", "delays_of"]

BRANCH = 16  # of the randomness of a decision, from which on classes are drawn


class Delays(NamedTuple):
    """A mixture of J exponential delays."""

    weights: tuple[float, ...]  # they add up to 1
    means: tuple[float, ...]  # decisions

    @property
    def passing(self) -> tuple[float, ...]:
        """Probability that a conversion which waits comes within a decision, by class."""
        return tuple(-math.expm1(-1.0 / mean) for mean in self.means)

    def matured(self, decisions: Array) -> Array:
        """Share of conversions that have come within so many decisions of the click: sum_j w_j (1 - e^(-n / tau_j))."""
        exp = namespace(decisions).exp
        parts = [w * (1.0 - exp(decisions * (-1.0 / tau))) for w, tau in zip(self.weights, self.means, strict=True)]
        return sum(parts[1:], parts[0])

    def row(self, values: tuple[float, ...], like: Array) -> Array:
        """[J] float32 in the array library and on the device of `like`."""
        xp = namespace(like)
        if isinstance(like, np.ndarray):
            return np.asarray(values, dtype=np.float32)
        return xp.asarray(values, dtype=xp.float32, device=like.device)

    def by_class(self, conversions: Array, rng: Rng) -> list[Array]:
        """J arrays [B] int64: how many of `conversions` [B] int64 wait with each mean."""
        left, parts, rest = conversions, [], 1.0
        for place, weight in enumerate(self.weights[:-1]):
            rng.branch(BRANCH + place)
            share = namespace(conversions).zeros_like(conversions, dtype=rng.xp.float32) + min(weight / rest, 1.0)
            parts.append(rng.binomial(left, share))
            left, rest = left - parts[-1], max(rest - weight, 1e-12)
        return [*parts, left]

    def revealed(self, waiting: Array, rng: Rng) -> Array:
        """[B, K, J] int64 of `waiting` [B, K, J] that come in this decision."""
        chance = self.row(self.passing, waiting) + rng.xp.zeros_like(waiting, dtype=rng.xp.float32)
        return rng.binomial(waiting, chance)


def delays_of(pairs: Any) -> Delays:
    """From [weight, mean] pairs."""
    return Delays(*(tuple(float(pair[i]) for pair in pairs) for i in range(2)))
