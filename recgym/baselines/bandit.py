"""Classic bandit policies for candidates that stay the same: batched, from `chosen` and `last_reward` alone.

`softmax`, `gradient` and `expert` are distributions over the candidates, of which `deterministic=True` takes the mode.
The others are index policies: whatever chance they take belongs to the index, and they ignore `deterministic`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recgym.arrays import to_numpy
from recgym.baselines import Baseline, Family
from recgym.baselines.gittins import checked, load_table
from recgym.baselines.policy import Floats, IndexPolicy, Reading, restarted

__all__ = ["EXPERT", "FAMILY", "STATIONARY", "ExpertPolicy"]

MAX_TABLE = 1000  # decisions: half a gigabyte, which grows with their cube


class Fixed(NamedTuple):
    logits: Floats  # [B, K]


class ExpertPolicy:
    """What an expert would show without feedback: softmax of the true logits with noise of his own per trial.

    Candidates that change every decision are judged anew every decision.

    Args:
        scenario: one of the bandits.
        noise: standard deviation of the error, in logits.
    """

    sees_state = True

    def __init__(self, scenario: Any, noise: float = 1.0) -> None:
        self._noise, self._stays = noise, "rates" in scenario.task_type._fields
        self.reseed(0)

    def reseed(self, seed: Any) -> None:
        self._rng = np.random.default_rng(seed)

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, Any]:
        """Actions [B] for the scenario's state, and the memory for the next call."""
        memory = self._judge(observation, state, episode_start)
        draw = 0.0 if deterministic else self._rng.gumbel(size=memory.logits.shape)
        return (memory.logits + draw).argmax(axis=1), memory

    def distribution(
        self, observation: Any, state: Any = None, episode_start: Any = None
    ) -> tuple[NDArray[np.float32], Any]:
        """Probabilities [B, K] that `predict` draws from, for the scenario's state, and the memory for the next."""
        memory = self._judge(observation, state, episode_start)
        weights = np.exp(memory.logits - memory.logits.max(axis=1, keepdims=True))
        return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32), memory

    def _judge(self, observation: Any, state: Any, episode_start: Any) -> Fixed:
        """The logits of this trial, or of this decision where candidates change."""
        rates = np.clip(to_numpy(observation.hidden.rates).astype(np.float64), 1e-6, 1.0 - 1e-6)
        error = self._noise * self._rng.standard_normal(rates.shape)
        judged = Fixed(np.log(rates / (1.0 - rates)) + error)
        return restarted(state, lambda: judged, episode_start) if self._stays else judged


# --- memories --------------------------------------------------------------------------------------------------------
class Counts(NamedTuple):
    shown: Floats  # [B, K] how often each candidate was shown
    clicks: Floats  # [B, K] how often it was clicked


def counting(scenario: Any, index: Callable[[Any, Reading], Floats], discount: float = 1.0) -> IndexPolicy:
    """Counts of which a decision later only `discount` is left."""

    def learn(memory: Counts, reading: Reading) -> Counts:
        clicked = reading.chosen * reading.reward[:, None]
        return Counts(discount * memory.shown + reading.chosen, discount * memory.clicks + clicked)

    shape = scenario.layout.candidates
    return IndexPolicy(scenario, lambda rows: Counts(*np.zeros((2, rows, shape))), learn, index)


# --- indices from counts ---------------------------------------------------------------------------------------------
def posterior_mean(memory: Any, reading: Reading) -> Floats:
    """Under a uniform prior (Laplace's rule)."""
    return (memory.clicks + 1.0) / (memory.shown + 2.0)


def epsilon_greedy(memory: Any, reading: Reading, *, epsilon: float) -> Floats:
    """Greedy, but with probability epsilon uniform (Sutton & Barto 2018, section 2.2)."""
    explore = reading.rng.random((len(reading.chosen), 1)) < epsilon
    return np.where(explore, 0.0, posterior_mean(memory, reading))


def softmax(memory: Any, reading: Reading, *, temperature: float) -> Floats:
    """Boltzmann exploration: p_i ~ exp(mean_i / temperature) (Sutton 1990; Kaelbling et al. 1996, section 2.2.2)."""
    return reading.sample(posterior_mean(memory, reading) / temperature)


def ucb1(memory: Any, reading: Reading, *, bonus: float, pseudo: float = 0.0) -> Floats:
    """mean_i + bonus sqrt(ln t / n_i), with t = sum_i n_i; what was never shown comes first.

    Auer et al. (2002) have bonus = sqrt(2). With discounted counts it is D-UCB (Garivier & Moulines 2011, section 2.1;
    their bonus is 2 B sqrt(xi)), within a window SW-UCB (section 2.2; B sqrt(xi)).

    Args:
        memory: counts.
        reading: not looked at.
        bonus: weight of the width.
        pseudo: clicks, and as many misses, credited to every candidate: at 1 the mean is the posterior's under a
            uniform prior, and nothing has to be shown first (Duan et al. 2016 must have done so: their UCB1 gets 84.3
            from 100 pulls of 50 arms).
    """
    shown = memory.shown + 2.0 * pseudo
    with np.errstate(divide="ignore", invalid="ignore"):
        width = np.sqrt(np.log(np.maximum(memory.shown.sum(axis=1, keepdims=True) + pseudo, 1.0)) / shown)
        return np.where(shown > 0, (memory.clicks + pseudo) / shown + bonus * width, np.inf)


def thompson(memory: Any, reading: Reading, *, prior: tuple[float, float] = (1.0, 1.0)) -> Floats:
    """A draw from each posterior Beta(a + clicks, b + shown - clicks) (Thompson 1933; Chapelle & Li 2011).

    With discounted counts it is dTS (Raj & Kalyani 2017), within a window SW-TS (Trovo et al. 2020).
    """
    misses = np.maximum(memory.shown - memory.clicks, 0.0)  # rounding of discounted counts
    return reading.rng.beta(memory.clicks + prior[0], misses + prior[1])


def optimistic_thompson(memory: Any, reading: Reading) -> Floats:
    """The draw, but never below the posterior mean (May et al. 2012)."""
    return np.maximum(thompson(memory, reading), posterior_mean(memory, reading))


def gittins(scenario: Any) -> IndexPolicy:
    """Finite-horizon Gittins index under the scenario's prior; the table is made, or read, at the first decision."""
    table = cache(partial(load_table, scenario.prior, scenario.horizon, progress=scenario.horizon > 200))

    def index(memory: Counts, reading: Reading) -> Floats:
        left = np.maximum(reading.remaining, 1.0)[:, None].astype(np.int64)
        live = reading.remaining[:, None] > 0  # after the last decision there is no index, and nothing to decide
        clicks, shown = (np.where(live, array, 0.0).astype(np.int64) for array in (memory.clicks, memory.shown))
        return table().lookup(clicks, shown - clicks, left)

    return counting(scenario, index)


def unfit_table(scenario: Any) -> str:
    """Why there is no Gittins table for a scenario."""
    if scenario.horizon > MAX_TABLE:
        return f"a Gittins table for {scenario.horizon} decisions is too large; the longest is for {MAX_TABLE}"
    try:
        checked(scenario.prior, scenario.horizon)
    except ValueError as error:
        return str(error)
    return ""


# --- other memories --------------------------------------------------------------------------------------------------
class Averages(NamedTuple):
    average: Floats  # [B, K]


def greedy_average(scenario: Any, start: float | None = None) -> IndexPolicy:
    """Greedy on the scenario's moving average s_i, begun at `start` (None: as the state vector)."""
    first = scenario.first_average if start is None else start

    def learn(memory: Averages, reading: Reading) -> Averages:
        step = (1.0 - scenario.alpha) * reading.chosen
        return Averages(memory.average + step * (reading.reward[:, None] - memory.average))

    return IndexPolicy(
        scenario,
        lambda rows: Averages(np.full((rows, scenario.arms), first)),
        learn,
        lambda memory, reading: memory.average,
    )


class Preferences(NamedTuple):
    preference: Floats  # [B, K]
    total: Floats  # [B] sum of rewards
    time: Floats  # [B] decisions made


def gradient(scenario: Any, step: float = 1.0) -> IndexPolicy:
    """Gradient bandit (Sutton & Barto 2018, section 2.8).

    H_i += step (R - mean R) (1[i shown] - pi_i), with pi = softmax(H). The mean is of the rewards before this one;
    before the first it is that reward itself.
    """

    def learn(memory: Preferences, reading: Reading) -> Preferences:
        played = reading.chosen.any(axis=1)
        pi = np.exp(memory.preference - memory.preference.max(axis=1, keepdims=True))
        pi /= pi.sum(axis=1, keepdims=True)
        mean = np.where(memory.time > 0, memory.total / np.maximum(memory.time, 1.0), reading.reward)
        rise = step * (played * (reading.reward - mean))[:, None] * (reading.chosen - pi)
        return Preferences(memory.preference + rise, memory.total + played * reading.reward, memory.time + played)

    return IndexPolicy(
        scenario,
        lambda rows: Preferences(np.zeros((rows, scenario.arms)), *np.zeros((2, rows))),
        learn,
        lambda memory, reading: reading.sample(memory.preference),
    )


# --- the tables ------------------------------------------------------------------------------------------------------
BONUS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)
PSEUDO = (0.0, 1.0)

EXPERT = Baseline(ExpertPolicy, "informed", "fixed softmax over a noisy copy of the true logits")

STATIONARY = {
    "expert": EXPERT,
    "softmax": Baseline(
        lambda scenario, temperature=0.05: counting(scenario, partial(softmax, temperature=temperature)),
        "prior-free",
        "Boltzmann exploration on posterior means, temperature tuned",
        {"temperature": (0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2)},
        {"RecBandit-v0": {"temperature": 0.05}, "RecBanditDrift-v0": {"temperature": 0.05}},
    ),
    "gradient": Baseline(
        gradient,
        "prior-free",
        "gradient bandit with average-reward baseline, step size tuned",
        {"step": (0.2, 0.4, 0.7, 1.0, 1.5, 2.5, 4.0)},
        {"RecBandit-v0": {"step": 2.5}, "RecBanditDrift-v0": {"step": 1.5}},
    ),
    "greedy": Baseline(lambda scenario: counting(scenario, posterior_mean), "prior-free", "highest posterior mean"),
    "greedy_average": Baseline(greedy_average, "prior-free", "highest moving average, as the state vector shows it"),
    "epsilon_greedy": Baseline(
        lambda scenario, epsilon=0.02: counting(scenario, partial(epsilon_greedy, epsilon=epsilon)),
        "prior-free",
        "highest posterior mean, now and then uniform, epsilon tuned",
        {"epsilon": (0.01, 0.02, 0.05, 0.1, 0.2)},
        {"RecBandit-v0": {"epsilon": 0.01}, "RecBanditDrift-v0": {"epsilon": 0.1}},
    ),
    "ucb1": Baseline(
        lambda scenario: counting(scenario, partial(ucb1, bonus=math.sqrt(2.0))), "prior-free", "UCB1, untuned"
    ),
    "ucb1_tuned": Baseline(
        lambda scenario, bonus=0.3, pseudo=1.0: counting(scenario, partial(ucb1, bonus=bonus, pseudo=pseudo)),
        "prior-free",
        "UCB1, bonus and pseudo-counts tuned",
        {"bonus": BONUS, "pseudo": PSEUDO},
        {"RecBandit-v0": {"bonus": 0.3, "pseudo": 1.0}, "RecBanditDrift-v0": {"bonus": 0.4, "pseudo": 1.0}},
    ),
    "thompson": Baseline(
        lambda scenario: counting(scenario, thompson), "prior-free", "Thompson sampling, uniform prior"
    ),
    "thompson_prior": Baseline(
        lambda scenario: counting(scenario, partial(thompson, prior=scenario.prior)),
        "prior-aware",
        "Thompson sampling, true prior",
    ),
    "ots": Baseline(
        lambda scenario: counting(scenario, optimistic_thompson), "prior-free", "optimistic Thompson sampling"
    ),
    "gittins": Baseline(gittins, "prior-aware", "finite-horizon Gittins index, true prior", unfit=unfit_table),
}

FAMILY = Family(
    page="Recommendation as a bandit",
    baselines=STATIONARY,
    shown=("greedy", "ucb1_tuned", "thompson", "gittins"),
    expert="gittins",
    reader="recgym.data.bandit:open_bandit",
)
