"""Published simulations of one product with a finite stock (Ferreira, Simchi-Levi & Wang 2018, section 4.1)."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest

import recgym
from recgym import fluid
from recgym.baselines import make_baseline
from recgym.evaluation import TEST_SEED, rollout
from recgym.scenarios.pricing import DynamicPricing

TRIALS = 500  # as theirs
THEIR_ERROR = 0.5  # standard error of their mean percent, at most
CELLS = ((0.25, 100), (0.25, 1000), (0.5, 100), (0.5, 1000))  # stock per decision, decisions
PUBLISHED = {  # mean percent of the fluid value
    "exact": (99.16, 99.94, 99.41, 99.94),
    "ts_update": (94.4, 99.3, 93.8, 99.1),
    "ts_fixed": (82.2, 96.5, 83.3, 96.8),
    "besbes_zeevi": (82.7, 90.1, 80.5, 91.8),
    "thompson": (81.3, 77.0, 89.8, 85.5),
}


def problem(alpha: float, horizon: int) -> DynamicPricing:
    scenario: DynamicPricing = recgym.make_scenario(
        "DynamicPricingFerreira-v0", horizon=horizon, stock=round(alpha * horizon)
    )
    return scenario


@cache
def percent(name: str, alpha: float, horizon: int) -> np.ndarray:
    """[TRIALS] money earned, in percent of the fluid value."""
    scenario = problem(alpha, horizon)
    assert scenario.table is not None
    demand = np.asarray([scenario.table])
    value = fluid.solve(np.asarray(scenario.prices) * demand, demand, np.asarray([alpha])).value[0]
    returns = rollout(make_baseline(name, scenario), scenario, trials=TRIALS, seed=TEST_SEED).returns
    return 100 * returns * scenario.base_price / (horizon * value)


@pytest.mark.parametrize(
    "name, cell",
    [
        pytest.param(name, cell, marks=[pytest.mark.slow] if CELLS[cell][1] == 1000 else [])
        for name in PUBLISHED
        for cell in range(4)
    ],
)
def test_published_percent_of_the_fluid_value(name: str, cell: int) -> None:
    """Within 3 standard errors, theirs and ours together: of the exact plan, whose value is computed, ours alone.

    Ours are .02 to .7 percent: the interval is at most 2.6 wide on either side, where the policies lie 2 to 20 apart.
    """
    found = percent(name, *CELLS[cell])
    ours = found.std() / math.sqrt(TRIALS)
    error = math.hypot(ours, 0.0 if name == "exact" else THEIR_ERROR)
    assert ours < 0.75
    assert abs(found.mean() - PUBLISHED[name][cell]) < 3 * error + 0.05  # .05: rounding


@pytest.mark.parametrize("alpha", [0.25, 0.5])
def test_the_exact_plan_is_at_least_as_good_as_solving_anew(alpha: float) -> None:
    """Paired: 500 trials tell differences of .2 percent; the linear program that is solved anew loses .5 at most."""
    gap = percent("exact", alpha, 100) - percent("informed", alpha, 100)
    assert gap.mean() > -2 * gap.std() / math.sqrt(TRIALS)
    assert abs(gap.mean()) < 1.0


@pytest.mark.parametrize("alpha", [0.25, 0.5])
def test_the_order_of_the_policies(alpha: float) -> None:
    means = {name: percent(name, alpha, 100).mean() for name in PUBLISHED}
    assert means["exact"] > means["ts_update"] > max(means["ts_fixed"], means["thompson"], means["besbes_zeevi"])
    assert means["exact"] < 100.0
