"""Policies for slates: they score candidates, and show the highest in order."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from recgym.baselines import Baseline, Family
from recgym.baselines.policy import Floats, IndexPolicy, InformedPolicy, Reading

__all__ = ["FAMILY"]


class Nothing(NamedTuple):
    """The memory of who learns nothing."""

    rows: Floats  # [B] zeros


def by_field(scenario: Any, name: str, sign: float = 1.0) -> IndexPolicy:
    """Score by one field of the candidates."""

    def index(memory: Nothing, reading: Reading) -> Floats:
        return sign * reading.field(name)

    return IndexPolicy(scenario, lambda rows: Nothing(np.zeros(rows)), lambda memory, reading: memory, index)


def no_trust(scenario: Any) -> str:
    """Why there is no burden to avoid."""
    return "" if scenario.items.burden is not None else "the catalog has no burden"


FAMILY = Family(
    page="Recommendation in slates",
    baselines={
        "popularity": Baseline(
            lambda scenario: by_field(scenario, "popularity"), "prior-free", "the most popular candidates"
        ),
        "low_burden": Baseline(
            lambda scenario: by_field(scenario, "hint", -1.0),
            "prior-free",
            "the candidates whose hint of burden is lowest",
            unfit=no_trust,
        ),
        "myopic": Baseline(
            lambda scenario: InformedPolicy(scenario, lambda state: scenario.myopic_page(state)[0]),
            "informed",
            "knows the task, and shows the page that is best now",
        ),
    },
    shown=("popularity",),
)
