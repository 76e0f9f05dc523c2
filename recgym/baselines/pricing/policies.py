"""Pricing policies: what sells is learned from prices, sales and stock as observed; the fluid program decides.

All are index policies: whatever chance they take belongs to the index, and they ignore `deterministic`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np

from recgym import fluid
from recgym.baselines.planning import indicators, mixture
from recgym.baselines.policy import Floats, IndexPolicy, InformedPolicy, Reading, memoryless
from recgym.baselines.pricing.units import Units, units_of
from recgym.rng import NumpyRng

__all__ = [
    "Tally",
    "besbes_zeevi",
    "best_fixed",
    "exact",
    "linear_demand",
    "not_tabular",
    "pd_bwk",
    "thompson",
    "ts_fixed",
    "ts_update",
]


# --- a demand per candidate ------------------------------------------------------------------------------------------
class Tally(NamedTuple):
    shown: Floats  # [B, K] how often each candidate was chosen while there was stock
    sold: Floats  # [B, K] units it sold then
    supply: Floats  # [B] units per decision at the start
    time: Floats  # [B] decisions made


def first_tally(scenario: Any, rows: int) -> Tally:
    shown, sold = np.zeros((2, rows, scenario.layout.candidates))
    return Tally(shown, sold, np.zeros(rows), np.zeros(rows))


def count(scenario: Any, memory: Tally, reading: Reading, until: float = np.inf) -> Tally:
    """The tally after one more decision, of which the first `until` are counted."""
    now, first = units_of(scenario, reading), ~reading.chosen.any(axis=1)
    counted = reading.chosen * (now.open & (memory.time < until))[:, None]
    supply = np.where(first, now.supply, memory.supply)
    return Tally(memory.shown + counted, memory.sold + counted * now.sold[:, None], supply, memory.time + ~first)


def tallying(scenario: Any, index: Callable[[Tally, Reading, Units], Floats], until: float = np.inf) -> IndexPolicy:
    """Counts and sales of each candidate, whatever its price, over the first `until` decisions."""
    return IndexPolicy(
        scenario,
        partial(first_tally, scenario),
        lambda memory, reading: count(scenario, memory, reading, until),
        lambda memory, reading: index(memory, reading, units_of(scenario, reading)),
    )


def drawn_demand(scenario: Any, memory: Tally, rng: np.random.Generator) -> Floats:
    """[B, K] a draw of each candidate's demand in a decision.

    From Beta(1 + buyers, 1 + others) where one customer comes (Ferreira et al. 2018), else from a Gamma whose prior is
    exponential with the mean of one sales unit.
    """
    if scenario.customers == 1 and not scenario.poisson:
        drawn = rng.beta(1.0 + memory.sold, 1.0 + np.maximum(memory.shown - memory.sold, 0.0))
    else:
        drawn = rng.gamma(1.0 + memory.sold) / (1.0 / scenario.sales_unit + memory.shown)
    return drawn * scenario.sells


def thompson(scenario: Any) -> IndexPolicy:
    """Thompson sampling that ignores the stock."""
    return tallying(scenario, lambda memory, reading, now: now.margin * drawn_demand(scenario, memory, reading.rng))


def ts_fixed(scenario: Any) -> IndexPolicy:
    """Ferreira, Simchi-Levi & Wang 2018, algorithm 1: the fluid program of a drawn demand, with the first supply."""

    def index(memory: Tally, reading: Reading, now: Units) -> Floats:
        demand = drawn_demand(scenario, memory, reading.rng)
        return mixture(now.margin * demand, demand, memory.supply, reading)

    return tallying(scenario, index)


def ts_update(scenario: Any) -> IndexPolicy:
    """Their algorithm 2: with the supply that is left."""

    def index(memory: Tally, reading: Reading, now: Units) -> Floats:
        demand = drawn_demand(scenario, memory, reading.rng)
        return mixture(now.margin * demand, demand, now.supply, reading)

    return tallying(scenario, index)


def besbes_zeevi(scenario: Any, explore: float = 1.0) -> IndexPolicy:
    """Besbes & Zeevi 2012, algorithm 1: each candidate in turn for explore T^(2/3) decisions together, then the fluid
    program of their mean sales with the first supply, its two candidates one after the other, the cheaper first.
    """
    order = np.flatnonzero(scenario.sells)
    each = max(1, int(explore * scenario.horizon ** (2.0 / 3.0) / len(order)))
    length, arms = each * len(order), scenario.layout.candidates

    def index(memory: Tally, reading: Reading, now: Units) -> Floats:
        demand = memory.sold / np.maximum(memory.shown, 1.0)
        mix = fluid.solve(now.margin * demand, demand, memory.supply)
        passed = (memory.time - length + 0.5) / max(scenario.horizon - length, 1)
        later = fluid.action_of(mix, passed < mix.weight, now.margin * demand)  # `second` sells faster
        turn = order[np.minimum(memory.time // each, len(order) - 1).astype(np.int64)]
        return indicators(np.where(memory.time < length, turn, later), arms)

    return tallying(scenario, index, until=length)


class Dual(NamedTuple):
    tally: Tally
    price: Floats  # [B] of stock, where that of time is 1


def pd_bwk(scenario: Any, bonus: float = 0.3) -> IndexPolicy:
    """Badanidiyuru, Kleinberg & Slivkins 2013, PrimalDualBwK: optimistic reward per dual price of what it uses up.

    Stock and time are the resources, each scaled to last for the horizon T; the dual price of time is 1 at the start
    and that of stock grows by the factor 1 + epsilon per unit of pessimistic use, epsilon = sqrt(ln 2 / T). The width
    of the intervals is tuned, as its constant is made for the proof.
    """
    epsilon = np.sqrt(np.log(2.0) / scenario.horizon)
    scale = 1.0 if scenario.customers == 1 else 3.0 * scenario.sales_unit  # of a decision's sales

    def bounds(memory: Tally) -> tuple[Floats, Floats]:
        mean = memory.sold / np.maximum(memory.shown, 1.0) / scale
        level = bonus * np.log(1.0 + memory.time)[:, None] / np.maximum(memory.shown, 1.0)
        width = level + np.sqrt(level * mean)
        high = np.where(memory.shown > 0, np.minimum(mean + width, 1.0), 1.0)
        return np.maximum(mean - width, 0.0) * scale * scenario.sells, high * scale * scenario.sells

    def start(rows: int) -> Dual:
        return Dual(first_tally(scenario, rows), np.ones(rows))

    def learn(memory: Dual, reading: Reading) -> Dual:
        tally = count(scenario, memory.tally, reading)
        used = (reading.chosen * bounds(tally)[0]).sum(axis=1) / np.maximum(tally.supply, 1e-9) - 1.0
        return Dual(tally, memory.price * (1.0 + epsilon) ** np.clip(used, -1.0, 20.0))

    def index(memory: Dual, reading: Reading) -> Floats:
        margin, (low, high) = units_of(scenario, reading).margin, bounds(memory.tally)
        use = memory.price[:, None] * low / np.maximum(memory.tally.supply, 1e-9)[:, None]
        return margin * high / (1.0 + use) + np.where(margin > 0, 0.0, margin)

    return IndexPolicy(scenario, start, learn, index)


def linear_demand(scenario: Any, explore: float = 8.0) -> IndexPolicy:
    """Certainty equivalence: the fluid program of demand that is linear in price and display, by ridge regression.

    The first `explore` candidates are random; without them it may never learn (den Boer & Zwart 2014).
    """
    ladder = scenario.ladder
    x = np.stack([np.ones_like(ladder.paid), ladder.paid - 1.0, ladder.display], axis=1).astype(np.float64)  # [K, 3]

    def index(memory: Tally, reading: Reading, now: Units) -> Floats:
        matrix = np.einsum("bk,kf,kg->bfg", memory.shown, x, x) + 0.1 * np.eye(3)
        first = np.asarray([scenario.sales_unit, 0.0, 0.0])  # what the regression is shrunk to
        weights = first + np.linalg.solve(matrix, ((memory.sold - memory.shown * (x @ first)) @ x)[..., None])[..., 0]
        demand = np.maximum(weights @ x.T, 0.0) * scenario.sells
        planned = mixture(now.margin * demand, demand, now.supply, reading)
        return np.where((memory.time < explore)[:, None], 0.0, planned)

    return tallying(scenario, index)


# --- policies that know the task -------------------------------------------------------------------------------------
def best_fixed(scenario: Any) -> InformedPolicy:
    """The best candidate to hold for the whole trial."""

    def act(state: Any) -> np.ndarray:
        task = state.task
        start = 0.0 * state.seen.time
        held = scenario.held(task, state.hidden.pull, start + 1.0, start, start)
        sold = np.minimum(held * scenario.customers_left(task, start)[:, None], task.stock[:, None])
        return (state.hidden.margin * sold).argmax(axis=1)

    return InformedPolicy(scenario, act)


def exact(scenario: Any) -> Any:
    """Backward induction over the stock: the optimum where demand has no memory."""
    task = scenario.sample_task(NumpyRng(0), 1)
    margin, share = scenario.margin(task)[0], np.minimum(scenario.base(task)[0].astype(np.float64), 1.0)
    demand, stock = np.stack([1.0 - share, share], axis=1), min(int(task.stock[0]), scenario.horizon)
    plan = cache(lambda: fluid.exact_plan(margin, demand, stock, scenario.horizon))

    def index(reading: Reading) -> Floats:
        left = np.minimum(np.rint(units_of(scenario, reading).stock), stock).astype(np.int64)
        return indicators(plan().actions[reading.remaining.astype(np.int64), left], scenario.layout.candidates)

    return memoryless(scenario, index)


def not_tabular(scenario: Any) -> str:
    """Why backward induction cannot be done once and for all trials."""
    off = not scenario.rivals and all(getattr(scenario, name)[1] == 0 for name in ("gain", "dip", "season"))
    points = (getattr(scenario, name) for name in ("cost", "lift", "w_rev", "w_vol"))
    fixed = scenario.table is not None and isinstance(scenario.stock, int) and all(low == high for low, high in points)
    if fixed and off and scenario.customers == 1 and not scenario.poisson:
        return ""
    return "it needs one product: a table and a stock that are given, one customer per decision, nothing remembered"
