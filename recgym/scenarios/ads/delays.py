"""Conversions that come late: a click's delay is exponential, with one of several means.

Source: Chapelle 2014, Modeling delayed feedback in display advertising (exponential delays). They have no memory, so
that counts of what is still to come are all that has to be kept: of n conversions that wait with mean tau, each comes
in the next decision with probability 1 - exp(-1 / tau), whenever its click was.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from recgym.arrays import Array, Rng, constant, namespace

__all__ = ["CLICKS", "CONVERTING", "REVEALED", "WINS", "Delays", "delays_of"]

# Branches of the randomness of a decision, a draw of counts each; from CLASSES on one for each class of delay.
CLICKS, CONVERTING, REVEALED, WINS, CLASSES = 1, 2, 3, 4, 16


@dataclass(frozen=True)
class Delays:
    """A mixture of J exponential delays."""

    weights: tuple[float, ...]  # they add up to 1
    means: tuple[float, ...]  # decisions

    @cached_property
    def passing(self) -> tuple[float, ...]:
        """Probability that a conversion which waits comes within a decision, by class."""
        return tuple(-math.expm1(-1.0 / mean) for mean in self.means)

    @cached_property
    def shares(self) -> tuple[float, ...]:
        """Probability to wait with each mean but the last, of what waits with none of those before."""
        left = [1.0]
        for weight in self.weights[:-1]:
            left.append(max(left[-1] - weight, 1e-12))
        return tuple(min(weight / rest, 1.0) for weight, rest in zip(self.weights[:-1], left, strict=False))

    def matured(self, decisions: Array) -> Array:
        """Share of conversions that have come within so many decisions of the click: sum_j w_j (1 - e^(-n / tau_j))."""
        exp = namespace(decisions).exp
        parts = [w * (1.0 - exp(decisions * (-1.0 / tau))) for w, tau in zip(self.weights, self.means, strict=True)]
        return sum(parts[1:], parts[0])

    def by_class(self, conversions: Array, rng: Rng) -> list[Array]:
        """J arrays [B] int64: how many of `conversions` [B] int64 wait with each mean."""
        left, parts = conversions, []
        for place, share in enumerate(constant(self.shares, conversions)):
            rng.branch(CLASSES + place)
            parts.append(rng.binomial(left, share))
            left = left - parts[-1]
        return [*parts, left]

    def revealed(self, waiting: Array, rng: Rng) -> Array:
        """[B, K, J] int64 of `waiting` [B, K, J] that come in this decision."""
        return rng.binomial(waiting, constant(self.passing, waiting))


def delays_of(pairs: Any) -> Delays:
    """From [weight, mean] pairs."""
    return Delays(*(tuple(float(pair[i]) for pair in pairs) for i in range(2)))
