"""Policies for slates: they score candidates, and show the highest in order. The table of their names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from recgym.baselines import Baseline, Family
from recgym.baselines.policy import IndexPolicy, InformedPolicy, memoryless
from recgym.baselines.regression import unwieldy
from recgym.baselines.slate.collaborative import als, item_knn, too_large
from recgym.baselines.slate.learners import content, glm_ts, lints, linucb, rotation, width_of
from recgym.baselines.slate.posterior import not_gaussian, posterior

__all__ = ["FAMILY", "by_field"]


def by_field(scenario: Any, name: str, sign: float = 1.0) -> IndexPolicy:
    """Score by one field of the candidates."""

    return memoryless(scenario, lambda reading: sign * reading.field(name))


def too_wide(scenario: Any) -> str:
    """Why a matrix per trial cannot be kept."""
    return unwieldy(width_of(scenario))


def _fitting(baseline: Baseline, unfit: Callable[[Any], str]) -> Baseline:
    """The baseline with one more reason not to play."""
    return baseline._replace(unfit=lambda scenario: unfit(scenario) or baseline.unfit(scenario))


def no_trust(scenario: Any) -> str:
    """Why there is no burden to avoid."""
    return "" if scenario.items.burden is not None else "the catalog has no burden"


_ALPHA = (0.0, 0.03, 0.1, 0.2, 0.3, 0.5)
_POPULARITY = (0.0, 0.1, 0.3, 1.0)
_EITHER = (0.0, 1.0)  # clicks, or rewards

_LINEAR = {
    "linucb": Baseline(
        linucb,
        "prior-free",
        "ridge regression with a confidence bonus (LinUCB), of clicks or rewards, both tuned",
        {"alpha": _ALPHA, "reward": _EITHER},
        {
            "RecSlate-v0": {"alpha": 0.1, "reward": 0.0},
            "RecSlateShop-v0": {"alpha": 0.0, "reward": 0.0},
            "RecSlateSocial-v0": {"alpha": 0.2, "reward": 0.0},
        },
    ),
    "linucb_burden": Baseline(
        lambda scenario, alpha=0.1, reward=0.0, caution=0.1: linucb(scenario, alpha, reward, caution),
        "prior-free",
        "the same less a multiple of the hint of burden, all three tuned",
        {"alpha": _ALPHA, "reward": _EITHER, "caution": (0.02, 0.05, 0.1, 0.2, 0.4)},
        {
            "RecSlate-v0": {"alpha": 0.03, "reward": 1.0, "caution": 0.1},
            "RecSlateShop-v0": {"alpha": 0.0, "reward": 1.0, "caution": 0.2},
            "RecSlateSocial-v0": {"alpha": 0.2, "reward": 0.0, "caution": 0.05},
        },
        unfit=no_trust,
    ),
    "lints": Baseline(
        lints,
        "prior-free",
        "Thompson sampling with ridge regression (LinTS), of clicks or rewards, both tuned",
        {"v": (0.01, 0.03, 0.1, 0.2), "reward": _EITHER},
        {
            "RecSlate-v0": {"v": 0.03, "reward": 0.0},
            "RecSlateShop-v0": {"v": 0.03, "reward": 0.0},
            "RecSlateSocial-v0": {"v": 0.03, "reward": 0.0},
        },
    ),
    "glm_ts": Baseline(
        glm_ts,
        "prior-free",
        "Thompson sampling with logistic regression of clicks, its scale tuned",
        {"v": (0.1, 0.2, 0.35, 0.5, 1.0)},
        {"RecSlate-v0": {"v": 0.1}, "RecSlateShop-v0": {"v": 0.1}, "RecSlateSocial-v0": {"v": 0.2}},
    ),
}

_COLLABORATIVE = {
    "item_knn": Baseline(
        item_knn,
        "prior-aware",
        "item-item neighbours in a log of uniform pages, shrinkage and share of popularity tuned",
        {"shrink": (5.0, 20.0, 100.0), "popularity": _POPULARITY},
        {
            "RecSlate-v0": {"shrink": 20.0, "popularity": 0.1},
            "RecSlateShop-v0": {"shrink": 5.0, "popularity": 0.0},
            "RecSlateSocial-v0": {"shrink": 20.0, "popularity": 0.1},
        },
    ),
    "als": Baseline(
        als,
        "prior-aware",
        "matrix factorisation of that log (implicit ALS), confidence and share of popularity tuned",
        {"confidence": (0.3, 1.0, 3.0), "popularity": _POPULARITY},
        {
            "RecSlate-v0": {"confidence": 3.0, "popularity": 0.3},
            "RecSlateShop-v0": {"confidence": 3.0, "popularity": 0.0},
            "RecSlateSocial-v0": {"confidence": 3.0, "popularity": 0.3},
        },
    ),
}

FAMILY = Family(
    page="Recommendation in slates",
    guide="slates",
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
        "rotation": Baseline(rotation, "prior-free", "the topics that were shown longest ago"),
        "content": Baseline(
            content,
            "prior-free",
            "nearest to what was clicked, share of popularity tuned",
            {"popularity": _POPULARITY},
            {
                "RecSlate-v0": {"popularity": 0.3},
                "RecSlateShop-v0": {"popularity": 0.0},
                "RecSlateSocial-v0": {"popularity": 0.3},
            },
        ),
        **{name: _fitting(baseline, too_wide) for name, baseline in _LINEAR.items()},
        **{name: _fitting(baseline, too_large) for name, baseline in _COLLABORATIVE.items()},
        "posterior": Baseline(
            posterior,
            "prior-aware",
            "Bayes' rule for taste and trust, and the page that pays then and later, bonus and weight tuned",
            {"bonus": (0.0, 0.3, 0.6, 1.0), "future": (0.7, 0.85, 1.0, 1.15)},
            {
                "RecSlate-v0": {"bonus": 0.6, "future": 1.15},
                "RecSlateShop-v0": {"bonus": 1.0, "future": 1.0},
                "RecSlateSocial-v0": {"bonus": 0.6, "future": 0.85},
            },
            unfit=not_gaussian,
        ),
        "myopic": Baseline(
            lambda scenario: InformedPolicy(scenario, lambda state: scenario.myopic_page(state)[0]),
            "informed",
            "knows the task, and shows the page that is best now",
        ),
    },
    shown=("popularity", "linucb_burden", "posterior"),
    expert="posterior",
    reader="recgym.data.slate:ratings",
)
