"""Classic bandit policies for candidates that stay the same: batched, from `chosen` and `last_reward` alone.

`softmax`, `gradient` and `expert` are distributions over the candidates, of which `deterministic=True` takes the mode. The
others are index policies: whatever chance they take belongs to the index, and they ignore `deterministic`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recgym.baselines import Baseline
from recgym.baselines.gittins import load_table
from recgym.core import LOG_SCALE, to_numpy, tree_map

__all__ = ["BASELINES", "ExpertPolicy", "IndexPolicy", "Seen"]

Floats = NDArray[np.floating[Any]]


# --- acting ----------------------------------------------------------------------------------------------------------
class Seen(NamedTuple):
    """What an observation tells, and how to act on it."""

    chosen: Floats  # [B, K] 1 for the candidate shown last; all 0 at the start of a trial
    reward: Floats  # [B] what it brought
    remaining: Floats  # [B] decisions left, this one included
    features: Floats | None  # [B, K, d] of the candidates on offer now, where they have any
    rng: np.random.Generator
    deterministic: bool

    def sample(self, logits: Floats) -> Floats:
        """Scores [B, K] whose highest is a draw from softmax(logits): Gumbel-max; the mode where deterministic."""
        return logits if self.deterministic else logits + self.rng.gumbel(size=logits.shape)


class IndexPolicy:
    """Shows the candidate with the highest index; ties are broken at random.

    Args:
        scenario: gives the layout.
        start: number of rows -> memory, a NamedTuple of arrays [B, ...] of fixed size.
        learn: (memory, seen) -> memory with the last decision's outcome; changes nothing in place.
        index: (memory, seen) -> scores [B, K].
    """

    def __init__(
        self,
        scenario: Any,
        start: Callable[[int], Any],
        learn: Callable[[Any, Seen], Any],
        index: Callable[[Any, Seen], Floats],
    ) -> None:
        self._layout, self._start, self._learn, self._index = scenario.layout, start, learn, index
        self._has_features = any(field.name == "features" for field in self._layout.candidate)
        self.reseed(0)

    def reseed(self, seed: Any) -> None:
        self._rng = np.random.default_rng(seed)

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, Any]:
        """Actions [B] for observations [B, D] (or one action for [D]), and the memory for the next call."""
        batch = np.atleast_2d(to_numpy(observation))

        def field(name: str) -> Floats:
            return self._layout.get(batch, name).astype(np.float64)

        remaining = np.rint(np.expm1(field("remaining") * LOG_SCALE))
        features = field("features").reshape(*field("chosen").shape, -1) if self._has_features else None
        seen = Seen(field("chosen"), field("last_reward"), remaining, features, self._rng, deterministic)
        memory = self._learn(restarted(state, lambda: self._start(len(batch)), episode_start), seen)
        scores = self._index(memory, seen)
        tied = scores >= scores.max(axis=1, keepdims=True)
        action = np.where(tied, self._rng.random(scores.shape), -1.0).argmax(axis=1)
        return (action if np.ndim(observation) == 2 else action[0]), memory


def restarted(memory: Any, start: Callable[[], Any], episode_start: Any) -> Any:
    """The memory with the rows of `episode_start` [B] as new; all of them where there is no memory yet."""
    if memory is None:
        return start()
    if episode_start is None or not np.any(episode_start):
        return memory
    rows = np.asarray(episode_start, dtype=bool).reshape(-1)
    return tree_map(lambda new, old: np.where(rows.reshape(-1, *[1] * (old.ndim - 1)), new, old), start(), memory)


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
        rates = np.clip(to_numpy(observation.rates).astype(np.float64), 1e-6, 1.0 - 1e-6)
        error = self._noise * self._rng.standard_normal(rates.shape)
        judged = Fixed(np.log(rates / (1.0 - rates)) + error)
        memory = restarted(state, lambda: judged, episode_start) if self._stays else judged
        draw = 0.0 if deterministic else self._rng.gumbel(size=rates.shape)
        return (memory.logits + draw).argmax(axis=1), memory


# --- memories --------------------------------------------------------------------------------------------------------
class Counts(NamedTuple):
    shown: Floats  # [B, K] how often each candidate was shown
    clicks: Floats  # [B, K] how often it was clicked


def counting(scenario: Any, index: Callable[[Any, Seen], Floats], discount: float = 1.0) -> IndexPolicy:
    """Counts of which a decision later only `discount` is left."""

    def learn(memory: Counts, seen: Seen) -> Counts:
        clicked = seen.chosen * seen.reward[:, None]
        return Counts(discount * memory.shown + seen.chosen, discount * memory.clicks + clicked)

    return IndexPolicy(scenario, lambda rows: Counts(*np.zeros((2, rows, scenario.arms))), learn, index)


class Window(NamedTuple):
    shown: Floats  # [B, K] counts of the last W decisions
    clicks: Floats  # [B, K]
    arm: NDArray[np.int32]  # [B, W] ring of what was shown; -1: nothing yet
    click: Floats  # [B, W] and what it brought
    time: NDArray[np.int64]  # [B] decisions made


def within_window(scenario: Any, index: Callable[[Any, Seen], Floats], window: float) -> IndexPolicy:
    """Counts of the last `window` decisions."""
    size = max(1, min(int(window), scenario.horizon))

    def start(rows: int) -> Window:
        ring = np.full((rows, size), -1, dtype=np.int32), np.zeros((rows, size))
        return Window(*np.zeros((2, rows, scenario.arms)), *ring, np.zeros(rows, dtype=np.int64))

    def learn(memory: Window, seen: Seen) -> Window:
        shown, clicks, arm, click, time = (array.copy() for array in memory)
        rows = np.flatnonzero(seen.chosen.any(axis=1))
        slot = time[rows] % size
        gone, new = arm[rows, slot], seen.chosen[rows].argmax(axis=1)
        left = gone >= 0
        shown[rows[left], gone[left]] -= 1.0
        clicks[rows[left], gone[left]] -= click[rows, slot][left]
        shown[rows, new] += 1.0
        clicks[rows, new] += seen.reward[rows]
        arm[rows, slot], click[rows, slot] = new, seen.reward[rows]
        time[rows] += 1
        return Window(shown, clicks, arm, click, time)

    return IndexPolicy(scenario, start, learn, index)


# --- indices from counts ---------------------------------------------------------------------------------------------
def posterior_mean(memory: Any, seen: Seen) -> Floats:
    """Under a uniform prior (Laplace's rule)."""
    return (memory.clicks + 1.0) / (memory.shown + 2.0)


def epsilon_greedy(memory: Any, seen: Seen, *, epsilon: float) -> Floats:
    """Greedy, but with probability epsilon uniform (Sutton & Barto 2018, section 2.2)."""
    explore = seen.rng.random((len(seen.chosen), 1)) < epsilon
    return np.where(explore, 0.0, posterior_mean(memory, seen))


def softmax(memory: Any, seen: Seen, *, temperature: float) -> Floats:
    """Boltzmann exploration: p_i ~ exp(mean_i / temperature) (Sutton 1990; Kaelbling et al. 1996, section 2.2.2)."""
    return seen.sample(posterior_mean(memory, seen) / temperature)


def ucb1(memory: Any, seen: Seen, *, bonus: float, pseudo: float = 0.0) -> Floats:
    """mean_i + bonus sqrt(ln t / n_i), with t = sum_i n_i; what was never shown comes first.

    Auer et al. (2002) have bonus = sqrt(2). With discounted counts it is D-UCB (Garivier & Moulines 2011, section 2.1;
    their bonus is 2 B sqrt(xi)), within a window SW-UCB (section 2.2; B sqrt(xi)).

    Args:
        memory: counts.
        seen: not looked at.
        bonus: weight of the width.
        pseudo: clicks, and as many misses, that every candidate is credited with: at 1 the mean is the posterior's under
            a uniform prior, and nothing has to be shown first (Duan et al. 2016 must have done so: their UCB1 gets 84.3
            from 100 pulls of 50 arms).
    """
    shown = memory.shown + 2.0 * pseudo
    with np.errstate(divide="ignore", invalid="ignore"):
        width = np.sqrt(np.log(np.maximum(memory.shown.sum(axis=1, keepdims=True) + pseudo, 1.0)) / shown)
        return np.where(shown > 0, (memory.clicks + pseudo) / shown + bonus * width, np.inf)


def thompson(memory: Any, seen: Seen, *, prior: tuple[float, float] = (1.0, 1.0)) -> Floats:
    """A draw from each posterior Beta(a + clicks, b + shown - clicks) (Thompson 1933; Chapelle & Li 2011).

    With discounted counts it is dTS (Raj & Kalyani 2017), within a window SW-TS (Trovo et al. 2020).
    """
    misses = np.maximum(memory.shown - memory.clicks, 0.0)  # rounding of discounted counts
    return seen.rng.beta(memory.clicks + prior[0], misses + prior[1])


def optimistic_thompson(memory: Any, seen: Seen) -> Floats:
    """The draw, but never below the posterior mean (May et al. 2012)."""
    return np.maximum(thompson(memory, seen), posterior_mean(memory, seen))


def gittins(scenario: Any) -> IndexPolicy:
    """Finite-horizon Gittins index under the scenario's prior; the table is made, or read, at the first decision."""
    table = cache(partial(load_table, scenario.prior, scenario.horizon))

    def index(memory: Counts, seen: Seen) -> Floats:
        left = np.maximum(seen.remaining, 1.0)[:, None].astype(np.int64)
        live = seen.remaining[:, None] > 0  # after the last decision there is no index, and nothing to decide
        clicks, shown = (np.where(live, array, 0.0).astype(np.int64) for array in (memory.clicks, memory.shown))
        return table().lookup(clicks, shown - clicks, left)

    return counting(scenario, index)


# --- other memories --------------------------------------------------------------------------------------------------
class Averages(NamedTuple):
    average: Floats  # [B, K]


def greedy_average(scenario: Any, start: float | None = None) -> IndexPolicy:
    """Greedy on the scenario's moving average s_i, begun at `start` (None: at the prior mean, as the state vector)."""
    first = scenario.prior_mean if start is None else start

    def learn(memory: Averages, seen: Seen) -> Averages:
        step = (1.0 - scenario.alpha) * seen.chosen
        return Averages(memory.average + step * (seen.reward[:, None] - memory.average))

    return IndexPolicy(
        scenario,
        lambda rows: Averages(np.full((rows, scenario.arms), first)),
        learn,
        lambda memory, seen: memory.average,
    )


class Preferences(NamedTuple):
    preference: Floats  # [B, K]
    total: Floats  # [B] sum of rewards
    time: Floats  # [B] decisions made


def gradient(scenario: Any, step: float = 1.0) -> IndexPolicy:
    """Gradient bandit (Sutton & Barto 2018, section 2.8): H_i += step (R - mean R) (1[i shown] - pi_i), pi = softmax(H).

    The mean is of the rewards before this one; before the first it is that reward itself.
    """

    def learn(memory: Preferences, seen: Seen) -> Preferences:
        played = seen.chosen.any(axis=1)
        pi = np.exp(memory.preference - memory.preference.max(axis=1, keepdims=True))
        pi /= pi.sum(axis=1, keepdims=True)
        mean = np.where(memory.time > 0, memory.total / np.maximum(memory.time, 1.0), seen.reward)
        rise = step * (played * (seen.reward - mean))[:, None] * (seen.chosen - pi)
        return Preferences(memory.preference + rise, memory.total + played * seen.reward, memory.time + played)

    return IndexPolicy(
        scenario,
        lambda rows: Preferences(np.zeros((rows, scenario.arms)), *np.zeros((2, rows))),
        learn,
        lambda memory, seen: seen.sample(memory.preference),
    )


class Belief(NamedTuple):
    mass: NDArray[np.float32]  # [B, K, G] posterior of each candidate's logit on a grid


CELLS = 61  # of that grid
WIDEST = 14.0  # logits: the scenario keeps a drifting click rate above 1e-6


def logit_grid(scenario: Any) -> tuple[Floats, Floats, Floats]:
    """Logits [G], prior mass [G] ~ p^a (1 - p)^b (Beta(a, b) in the logit) and transition [G, G] of one decision.

    Rows of the transition are "from": with probability 1 - c a step of the random walk, with c a new item.
    """
    (a, b), reach = scenario.prior, scenario.drift * math.sqrt(scenario.horizon)

    def mass_at(logits: Floats) -> Floats:
        log_mass = a * logits - (a + b) * np.logaddexp(0.0, logits)
        mass = np.exp(log_mass - log_mass.max())
        return mass / mass.sum()

    fine = np.linspace(-WIDEST, WIDEST, 20_001)
    low, high = np.interp((5e-4, 1.0 - 5e-4), np.cumsum(mass_at(fine)), fine)
    logits = np.linspace(max(low - reach, -WIDEST), min(high + reach, WIDEST), CELLS)
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


def filtering(scenario: Any, index: Callable[[NDArray[np.float32], Any, Seen], Floats]) -> IndexPolicy:
    """Exact posterior of each candidate's click rate now, from the true prior, random walk and rate of change.

    Bayes filter on a grid: observe, mass *= likelihood of the click; move, mass = mass @ transition.

    Args:
        scenario: a `DriftBandit`.
        index: (logits [G], memory, seen) -> logits [B, K] that serve as scores (their order is that of the rates).
    """
    logits, prior, transition = (array.astype(np.float32) for array in logit_grid(scenario))
    rates = 1.0 / (1.0 + np.exp(-logits))

    def start(rows: int) -> Belief:
        return Belief(np.broadcast_to(prior, (rows, scenario.arms, CELLS)).copy())

    def learn(memory: Belief, seen: Seen) -> Belief:
        played = np.flatnonzero(seen.chosen.any(axis=1))
        if len(played) == 0:
            return memory
        mass, shown = memory.mass[played], (np.arange(len(played)), seen.chosen[played].argmax(axis=1))
        mass[shown] *= np.where(seen.reward[played, None] > 0, rates, 1.0 - rates)
        mass[shown] /= mass[shown].sum(axis=1, keepdims=True)
        mass = mass @ transition
        if len(played) == len(memory.mass):
            return Belief(mass)
        after = memory.mass.copy()
        after[played] = mass
        return Belief(after)

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

    def index(logits: NDArray[np.float32], memory: Belief, seen: Seen) -> Floats:
        return grid_quantile(logits, memory.mass, seen.rng.random(memory.mass.shape[:2]))

    return filtering(scenario, index)


def bayes_ucb_drift(scenario: Any, quantile: float = 0.8) -> IndexPolicy:
    """Bayes-UCB (Kaufmann et al. 2012) on the exact posterior of a drifting click rate, at a fixed quantile.

    Their 1 - 1/t suits a posterior that only narrows; here it widens again, and one quantile does throughout.
    """

    def index(logits: NDArray[np.float32], memory: Belief, seen: Seen) -> Floats:
        return grid_quantile(logits, memory.mass, quantile)

    return filtering(scenario, index)


# --- the tables ------------------------------------------------------------------------------------------------------
_BONUS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)
_PSEUDO = (0.0, 1.0)
_DISCOUNT = (0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99)
_WINDOW = (5.0, 10.0, 20.0, 30.0, 50.0, 80.0)

EXPERT = Baseline(ExpertPolicy, "informed", "fixed softmax over a noisy copy of the true logits")

_STATIONARY = {
    "expert": EXPERT,
    "softmax": Baseline(
        lambda scenario, temperature=0.05: counting(scenario, partial(softmax, temperature=temperature)),
        "prior-free",
        "Boltzmann exploration on posterior means, temperature tuned",
        {"temperature": (0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2)},
    ),
    "gradient": Baseline(
        gradient,
        "prior-free",
        "gradient bandit with average-reward baseline, step size tuned",
        {"step": (0.2, 0.4, 0.7, 1.0, 1.5, 2.5, 4.0)},
    ),
    "greedy": Baseline(lambda scenario: counting(scenario, posterior_mean), "prior-free", "highest posterior mean"),
    "greedy_average": Baseline(greedy_average, "prior-free", "highest moving average, as the state vector shows it"),
    "epsilon_greedy": Baseline(
        lambda scenario, epsilon=0.02: counting(scenario, partial(epsilon_greedy, epsilon=epsilon)),
        "prior-free",
        "highest posterior mean, now and then uniform, epsilon tuned",
        {"epsilon": (0.01, 0.02, 0.05, 0.1, 0.2)},
    ),
    "ucb1": Baseline(
        lambda scenario: counting(scenario, partial(ucb1, bonus=math.sqrt(2.0))), "prior-free", "UCB1, untuned"
    ),
    "ucb1_tuned": Baseline(
        lambda scenario, bonus=0.3, pseudo=1.0: counting(scenario, partial(ucb1, bonus=bonus, pseudo=pseudo)),
        "prior-free",
        "UCB1, bonus and pseudo-counts tuned",
        {"bonus": _BONUS, "pseudo": _PSEUDO},
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
    "gittins": Baseline(gittins, "prior-aware", "finite-horizon Gittins index, true prior"),
}

_DRIFT = {
    "discounted_ucb": Baseline(
        lambda scenario, bonus=0.3, pseudo=1.0, discount=0.95: counting(
            scenario, partial(ucb1, bonus=bonus, pseudo=pseudo), discount
        ),
        "prior-free",
        "UCB1 on discounted counts (D-UCB), bonus, pseudo-counts and discount tuned",
        {"bonus": _BONUS, "pseudo": _PSEUDO, "discount": _DISCOUNT},
    ),
    "sliding_window_ucb": Baseline(
        lambda scenario, bonus=0.3, pseudo=1.0, window=30.0: within_window(
            scenario, partial(ucb1, bonus=bonus, pseudo=pseudo), window
        ),
        "prior-free",
        "UCB1 on the latest decisions (SW-UCB), bonus, pseudo-counts and window tuned",
        {"bonus": _BONUS, "pseudo": _PSEUDO, "window": _WINDOW},
    ),
    "discounted_thompson": Baseline(
        lambda scenario, discount=0.95: counting(scenario, thompson, discount),
        "prior-free",
        "Thompson sampling on discounted counts (dTS), discount tuned",
        {"discount": _DISCOUNT},
    ),
    "sliding_window_thompson": Baseline(
        lambda scenario, window=30.0: within_window(scenario, thompson, window),
        "prior-free",
        "Thompson sampling on the latest decisions (SW-TS), window tuned",
        {"window": _WINDOW},
    ),
    "thompson_drift": Baseline(
        thompson_drift, "prior-aware", "Thompson sampling from the exact posterior under the true drift"
    ),
    "bayes_ucb_drift": Baseline(
        bayes_ucb_drift,
        "prior-aware",
        "upper quantile of the exact posterior under the true drift, quantile tuned",
        {"quantile": (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)},
    ),
}

BASELINES: dict[str, dict[str, Baseline]] = {"Bandit": _STATIONARY, "DriftBandit": {**_STATIONARY, **_DRIFT}}
