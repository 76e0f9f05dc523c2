"""Bandit policies that forget, or know how fast candidates change: for click rates that drift."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recgym.arrays import tree_map
from recgym.baselines import Baseline, Family
from recgym.baselines.bandit import BONUS, PSEUDO, STATIONARY, counting, thompson, ucb1
from recgym.baselines.policy import Floats, IndexPolicy, Reading

__all__ = ["FAMILY"]


# --- forgetting (by discount: `counting`) ----------------------------------------------------------------------------
class Window(NamedTuple):
    shown: Floats  # [B, K] counts of the last W decisions
    clicks: Floats  # [B, K]
    arm: NDArray[np.int32]  # [B, W] ring of what was shown; -1: nothing yet
    click: Floats  # [B, W] and what it brought
    time: NDArray[np.int64]  # [B] decisions made


def within_window(scenario: Any, index: Callable[[Any, Reading], Floats], window: float) -> IndexPolicy:
    """Counts of the last `window` decisions."""
    size = max(1, min(int(window), scenario.horizon))

    def start(rows: int) -> Window:
        shown, clicks = np.zeros((2, rows, scenario.arms))
        nothing = np.full((rows, size), -1, dtype=np.int32)
        return Window(shown, clicks, nothing, np.zeros((rows, size)), np.zeros(rows, dtype=np.int64))

    def learn(memory: Window, reading: Reading) -> Window:
        shown, clicks, arm, click, time = tree_map(np.copy, memory)
        rows = np.flatnonzero(reading.chosen.any(axis=1))
        slot = time[rows] % size
        gone, new = arm[rows, slot], reading.chosen[rows].argmax(axis=1)
        left = gone >= 0
        shown[rows[left], gone[left]] -= 1.0
        clicks[rows[left], gone[left]] -= click[rows, slot][left]
        shown[rows, new] += 1.0
        clicks[rows, new] += reading.reward[rows]
        arm[rows, slot], click[rows, slot] = new, reading.reward[rows]
        time[rows] += 1
        return Window(shown, clicks, arm, click, time)

    return IndexPolicy(scenario, start, learn, index)


# --- knowing the drift -----------------------------------------------------------------------------------------------
class Masses(NamedTuple):
    mass: NDArray[np.float32]  # [B, K, G] posterior of each candidate's logit on a grid


CELLS = 61  # of that grid
MAX_ARMS = 1000  # a gigabyte or two for a chunk of trials
MAX_LOGIT = 14.0  # logits: the scenario keeps a drifting click rate above 1e-6


def logit_grid(scenario: Any) -> tuple[Floats, Floats, Floats]:
    """Logits [G], prior mass [G] ~ p^a (1 - p)^b (Beta(a, b) in the logit) and transition [G, G] of one decision.

    Rows of the transition are "from": with probability 1 - c a step of the random walk, with c a new item.
    """
    (a, b), reach = scenario.prior, scenario.drift * math.sqrt(scenario.horizon)

    def mass_at(logits: Floats) -> Floats:
        log_mass = a * logits - (a + b) * np.logaddexp(0.0, logits)
        mass = np.exp(log_mass - log_mass.max())
        return mass / mass.sum()

    fine = np.linspace(-MAX_LOGIT, MAX_LOGIT, 20_001)
    low, high = np.interp((5e-4, 1.0 - 5e-4), np.cumsum(mass_at(fine)), fine)
    low, high = max(low - reach, -MAX_LOGIT), min(high + reach, MAX_LOGIT)
    logits = np.linspace(low, max(high, low + 1e-3), CELLS)  # never of no width, however extreme the prior
    prior, width = mass_at(logits), logits[1] - logits[0]
    offsets = np.arange(1 - CELLS, CELLS)
    if scenario.drift < 0.7 * width:  # too narrow to be sampled: three points of the right variance
        kernel = np.zeros(2 * CELLS - 1)
        beside = 0.5 * (scenario.drift / width) ** 2
        kernel[CELLS - 2 : CELLS + 1] = beside, 1.0 - 2.0 * beside, beside
    else:
        kernel = np.exp(-0.5 * (offsets * width / scenario.drift) ** 2)
        kernel /= kernel.sum()
    walk = np.zeros((CELLS, CELLS))
    for cell in range(CELLS):  # what would leave the grid stays in its outermost cell
        np.add.at(walk[cell], np.clip(cell + offsets, 0, CELLS - 1), kernel)
    return logits, prior, (1.0 - scenario.change_rate) * walk + scenario.change_rate * prior


def filtering(scenario: Any, index: Callable[[NDArray[np.float32], Any, Reading], Floats]) -> IndexPolicy:
    """Exact posterior of each candidate's click rate now, from the true prior, random walk and rate of change.

    Bayes filter on a grid: observe, mass *= likelihood of the click; move, mass = mass @ transition.

    Args:
        scenario: a `DriftBandit`.
        index: (logits [G], memory, reading) -> logits [B, K] that serve as scores (their order is that of the rates).
    """
    logits, prior, transition = (array.astype(np.float32) for array in logit_grid(scenario))
    rates = 1.0 / (1.0 + np.exp(-logits))

    def start(rows: int) -> Masses:
        return Masses(np.broadcast_to(prior, (rows, scenario.arms, CELLS)).copy())

    def learn(memory: Masses, reading: Reading) -> Masses:
        played = np.flatnonzero(reading.chosen.any(axis=1))
        if len(played) == 0:
            return memory
        mass, shown = memory.mass[played], (np.arange(len(played)), reading.chosen[played].argmax(axis=1))
        mass[shown] *= np.where(reading.reward[played, None] > 0, rates, 1.0 - rates)
        mass[shown] /= mass[shown].sum(axis=1, keepdims=True)
        mass = mass @ transition
        if len(played) == len(memory.mass):
            return Masses(mass)
        after = memory.mass.copy()
        after[played] = mass
        return Masses(after)

    return IndexPolicy(scenario, start, learn, partial(index, logits))


def grid_quantile(logits: NDArray[np.float32], mass: NDArray[np.float32], share: Any) -> Floats:
    """Logit [B, K] below which `share` [B, K] of the mass [B, K, G] lies; mass is spread evenly over its cell."""
    below = mass.cumsum(axis=2)
    target = share * below[..., -1]
    cell = np.minimum((below < target[..., None]).sum(axis=2), CELLS - 1)[..., None]
    short, inside = (np.take_along_axis(array, cell, axis=2)[..., 0] for array in (below, mass))
    within = np.clip((target - short) / np.maximum(inside, 1e-30), -1.0, 0.0)  # from the cell's upper edge, in cells
    return logits[cell[..., 0]] + (logits[1] - logits[0]) * (within + 0.5)


def thompson_drift(scenario: Any) -> IndexPolicy:
    """Thompson sampling (1933) from the exact posterior of a drifting click rate."""

    def index(logits: NDArray[np.float32], memory: Masses, reading: Reading) -> Floats:
        return grid_quantile(logits, memory.mass, reading.rng.random(memory.mass.shape[:2]))

    return filtering(scenario, index)


def bayes_ucb_drift(scenario: Any, quantile: float = 0.8) -> IndexPolicy:
    """Bayes-UCB (Kaufmann et al. 2012) on the exact posterior of a drifting click rate, at a fixed quantile.

    Their 1 - 1/t suits a posterior that only narrows; here it widens again, and one quantile does throughout.
    """

    def index(logits: NDArray[np.float32], memory: Masses, reading: Reading) -> Floats:
        return grid_quantile(logits, memory.mass, quantile)

    return filtering(scenario, index)


# --- the table -------------------------------------------------------------------------------------------------------
_DISCOUNT = (0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99)
_WINDOW = (5.0, 10.0, 20.0, 30.0, 50.0, 80.0)


def too_many(scenario: Any) -> str:
    """Why a distribution per candidate and trial cannot be kept."""
    if scenario.arms <= MAX_ARMS:
        return ""
    return f"it keeps {CELLS} numbers for each of {scenario.arms} arms per trial; the most it can are {MAX_ARMS}"


_TABLE = {
    "discounted_ucb": Baseline(
        lambda scenario, bonus=0.3, pseudo=1.0, discount=0.95: counting(
            scenario, partial(ucb1, bonus=bonus, pseudo=pseudo), discount
        ),
        "prior-free",
        "UCB1 on discounted counts (D-UCB), bonus, pseudo-counts and discount tuned",
        {"bonus": BONUS, "pseudo": PSEUDO, "discount": _DISCOUNT},
        {"RecBanditDrift-v0": {"bonus": 0.1, "pseudo": 1.0, "discount": 0.8}},
    ),
    "sliding_window_ucb": Baseline(
        lambda scenario, bonus=0.3, pseudo=1.0, window=30.0: within_window(
            scenario, partial(ucb1, bonus=bonus, pseudo=pseudo), window
        ),
        "prior-free",
        "UCB1 on the latest decisions (SW-UCB), bonus, pseudo-counts and window tuned",
        {"bonus": BONUS, "pseudo": PSEUDO, "window": _WINDOW},
        {"RecBanditDrift-v0": {"bonus": 0.3, "pseudo": 1.0, "window": 20.0}},
    ),
    "discounted_thompson": Baseline(
        lambda scenario, discount=0.95: counting(scenario, thompson, discount),
        "prior-free",
        "Thompson sampling on discounted counts (dTS), discount tuned",
        {"discount": _DISCOUNT},
        {"RecBanditDrift-v0": {"discount": 0.99}},
    ),
    "sliding_window_thompson": Baseline(
        lambda scenario, window=30.0: within_window(scenario, thompson, window),
        "prior-free",
        "Thompson sampling on the latest decisions (SW-TS), window tuned",
        {"window": _WINDOW},
        {"RecBanditDrift-v0": {"window": 80.0}},
    ),
    "thompson_drift": Baseline(
        thompson_drift, "prior-aware", "Thompson sampling from the exact posterior under the true drift", unfit=too_many
    ),
    "bayes_ucb_drift": Baseline(
        bayes_ucb_drift,
        "prior-aware",
        "upper quantile of the exact posterior under the true drift, quantile tuned",
        {"quantile": (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)},
        {"RecBanditDrift-v0": {"quantile": 0.85}},
        too_many,
    ),
}

FAMILY = Family(
    page="Recommendation to users whose taste changes",
    baselines={**STATIONARY, **_TABLE},
    shown=("greedy", "ucb1_tuned", "thompson", "gittins", "discounted_ucb"),
    expert="bayes_ucb_drift",
    reader="recgym.data.bandit:open_bandit",
)
