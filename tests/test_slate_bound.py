"""The bound of slates attacked: exact programs on problems small enough to enumerate, over the whole range of users."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from recgym.arrays import MAX_LOGIT, tree_map
from recgym.catalog import Catalog
from recgym.rng import make_rng
from recgym.runner import Runner
from recgym.scenarios.slate import Slate
from recgym.scenarios.slate.users import LIMITS, SlateTask
from recgym.scenarios.slate.worth import mean_worth

TASKS = 24  # of each problem
ROUNDING = 1e-8  # of a decision
WHOLE: dict[str, Any] = {name: span for name, span in LIMITS.items() if name != "satiation"}
WHOLE["satiation"] = (0.01, LIMITS["satiation"][1])
MILD: dict[str, Any] = {  # users for whom more than one decision matters
    "outside": (-1.0, 1.5),
    "attention": (0.5, 1.0),
    "satiation": (0.3, 6.0),
    "retention": (0.5, 0.999),
    "sensitivity": (0.5, 6.0),
    "memory": (0.0, 0.9),
    "leaving": (0.0, 0.8),
}


def problem(seed: int, candidates: int, places: int, horizon: int, reward: str, users: dict[str, Any]) -> Slate:
    """As many items as candidates, so that every pool is the same."""
    rng = np.random.default_rng([seed, candidates, places, horizon])
    features = rng.normal(size=(candidates, 2))
    catalog = Catalog(
        features / np.linalg.norm(features, axis=1, keepdims=True),
        topic=rng.integers(2, size=candidates),
        burden=rng.choice([0.0, 1.0, rng.random()], size=candidates),
        appeal=rng.normal(size=candidates),
        price=rng.uniform(0.1, 1.0, size=candidates),
        centroids=np.eye(2),
    )
    sizes = {"candidates": candidates, "places": places, "horizon": horizon}
    away, beta = float(rng.choice([1.0, 4.0])), float(rng.choice([0.0, 2.0, 5.0]))
    return Slate(catalog=catalog, reward=reward, away=away, beta=beta, cold=0.0, **sizes, **users)


def exact(scenario: Slate, task: SlateTask) -> float:
    """The most that a policy can expect which knows the task, by backward induction over all that can happen.

    Args:
        scenario: a problem of few items.
        task: one user, as numbers.
    """
    stock = scenario.inventory
    match = stock.features @ task.taste
    price = np.float32(task.price_sensitivity)
    worth = mean_worth(scenario.reward, match, stock.burden, stock.price, price).tolist()
    base = (scenario.beta * match + stock.appeal - task.outside).tolist()
    topic, burden = stock.topic.tolist(), stock.burden.tolist()
    satiation, retention, sensitivity, memory, leaving = (
        float(getattr(task, name)) for name in ("satiation", "retention", "sensitivity", "memory", "leaving")
    )
    weight = [float(task.attention) ** place for place in range(scenario.places)]
    items = range(scenario.candidates)
    pages = [page for size in range(1, scenario.places + 1) for page in itertools.permutations(items, size)]

    def value(t: int, interest: tuple[float, ...], level: float, here: bool) -> float:
        if t == scenario.horizon:
            return 0.0
        faded = tuple(retention * x for x in interest)
        stays = value(t + 1, faded, level, True)
        gone = value(t + 1, faded, level, False) if (not here and scenario.away > 1.0) or leaving > 0.0 else 0.0
        if not here:
            return stays / scenario.away + (1.0 - 1.0 / scenario.away) * gone
        trust = math.exp(-sensitivity * level)
        odds, after = [], []
        for i in items:
            logit = base[i] - satiation * interest[topic[i]]
            odds.append(math.exp(min(max(logit, -MAX_LOGIT), MAX_LOGIT)))
            clicked = tuple(x + (z == topic[i]) for z, x in enumerate(faded))
            then = value(t + 1, clicked, memory * level + (1.0 - memory) * burden[i], True)
            after.append(worth[i] * trust + then)
        nothing = (1.0 - leaving) * stays + leaving * gone
        best = -math.inf
        for page in pages:
            shares = [odds[i] * w for i, w in zip(page, weight, strict=False)]
            earned = nothing + sum(share * after[i] for share, i in zip(shares, page, strict=True))
            best = max(best, earned / (1.0 + sum(shares)))
        return best

    return value(0, (0.0,) * 2, 0.0, True)


def values(scenario: Slate, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Exact values and bounds of drawn users."""
    runner = Runner(scenario, TASKS, make_rng("cpu", seed))
    runner.restart()
    state = runner.state
    bound = scenario.bound(state)
    assert bound is not None
    one = (tree_map(lambda leaf, row=row: leaf[row], state.task) for row in range(TASKS))
    return np.array([exact(scenario, task) for task in one]), bound


SIZES = [(2, 1, 4), (2, 2, 4), (3, 1, 4), (3, 2, 3), (3, 3, 3), (1, 1, 6)]  # candidates, places, horizon
REWARDS = ("video", "shop", "social")


@pytest.mark.parametrize("users", [WHOLE, MILD], ids=["whole", "mild"])
@pytest.mark.parametrize("reward", REWARDS)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_no_policy_earns_more_than_the_bound(sizes: tuple[int, int, int], reward: str, users: dict[str, Any]) -> None:
    scenario = problem(0, *sizes, reward, users)
    best, bound = values(scenario, 1)
    assert (best <= bound + ROUNDING * scenario.horizon).all(), (best - bound).max()
    assert best.max() > 0.0


@pytest.mark.parametrize("reward", REWARDS)
def test_without_satiation_the_bound_is_the_exact_value(reward: str) -> None:
    """To 2 %, which straight lines between the nodes of the average burden leave."""
    users = {**MILD, "satiation": (0.0, 0.0), "sensitivity": (0.0, 3.0)}
    for sizes in SIZES:
        best, bound = values(problem(1, *sizes, reward, users), 2)
        np.testing.assert_allclose(bound, best, rtol=0.02)


def test_the_exact_value_by_hand() -> None:
    """One item and two decisions: P r (1 + ...), where the user tires, loses trust and leaves."""
    scenario = problem(0, 1, 1, 2, "video", MILD)
    row = dict.fromkeys(LIMITS, 0.5)
    task = SlateTask(taste=np.array([1.0, 0.0], dtype=np.float32), **{**row, "preference": np.zeros(0)})  # type: ignore[arg-type]
    stock = scenario.inventory
    match = float(stock.features[0, 0])
    worth = 1 / (1 + math.exp(-(2 * match + 1.5 * (float(stock.burden[0]) - 0.5))))
    logit = scenario.beta * match + float(stock.appeal[0]) - 0.5
    first, tired = (math.exp(logit - 0.5 * x) / (1 + math.exp(logit - 0.5 * x)) for x in (0.0, 1.0))
    later = tired * worth * math.exp(-0.5 * 0.5 * float(stock.burden[0]))
    wanted = first * (worth + later) + (1 - first) * 0.5 * first * worth
    assert exact(scenario, task) == pytest.approx(wanted, rel=1e-6)
