"""Recommendation as a bandit: which of K candidates does this user click?

Sources: Duan et al. 2016 (RL^2, section 3.1: the task distribution and its nine sizes), Li et al. 2010 (contextual
recommendation), Whittle 1988 (restless arms).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import gymnasium
import numpy as np

from recgym.arrays import Array, Rng, clip, namespace
from recgym.layout import CHOSEN, Field, Layout, clock, clock_fields, log_bound, log_scaled
from recgym.parameters import check_number, numbers
from recgym.rng import beta
from recgym.scenario import Outcome

__all__ = ["Bandit", "DriftBandit"]

LONGEST_HORIZON = 100_000
MOST_ARMS = 10_000
SMALLEST_PRIOR = 1e-3  # Beta parameters below it are indistinguishable from a coin, and their draws overflow in float32
LARGEST_PRIOR = 1e6  # above it the click rates are all alike
SMALLEST_RATE = 1e-6  # keeps the logit of a click rate finite in float32
WIDEST_GAP = 28.0  # logits; the largest and the smallest logit of a click rate are 27.6 apart


class BanditTask(NamedTuple):
    rates: Array  # [B, K] click probability of each candidate, at the start of the trial


class BanditState(NamedTuple):
    task: BanditTask
    rates: Array  # [B, K] click probability now
    best: Array  # [B] the highest of them
    expert: Array  # [B, K] log-probability that an expert gave each candidate before the trial; 0 where there is none
    average: Array  # [B, K] exponential moving average of the feedback
    counts: Array  # [B, K] float32, how often each candidate was shown
    chosen: Array  # [B, K] float32, 1 for the candidate shown last
    reward: Array  # [B] last reward
    time: Array  # [B] float32 decisions made


def logit(rates: Array) -> Array:
    """log(r / (1 - r)) of click probabilities, which are kept off 0 and 1."""
    inside = clip(rates, SMALLEST_RATE, 1.0 - SMALLEST_RATE)
    return namespace(rates).log(inside / (1.0 - inside))


def check_common(scenario: Any) -> None:
    """Refuse parameters out of range that all bandits have."""
    check_number(scenario, "arms", 1, MOST_ARMS, whole=True)
    check_number(scenario, "horizon", 1, LONGEST_HORIZON, whole=True)
    check_number(scenario, "alpha", 0.0, 1.0)
    if not isinstance(scenario.statistics, bool):
        raise ValueError(f"{type(scenario).__name__}: statistics must be true or false, got {scenario.statistics!r}")


@dataclass(frozen=True)
class Bandit:
    """Show one of K items to a new user, see a click or none, adapt.

    ## Description
    Each trial is one user. The user clicks item i with a fixed, hidden probability r_i ~ Beta(a, b), so that the
    first decisions find out what this user likes and the later ones use it (Duan et al. 2016, section 3.1).

    ## Action Space
    `Discrete(arms)`: the item to show.

    ## Observation Space
    The fields of `layout`. The exponential moving average of item i starts at the prior mean a / (a + b) and moves
    only when the item is shown: s_i <- alpha s_i + (1 - alpha) click. Without `statistics` only `time`, `remaining`,
    `last_reward` and `chosen` are left: the setting of Duan et al. (2016), where memory alone tells the arms apart.
    With an `expert`, each item shows the log-probability log softmax(logit r + error)_i that he gave it before the
    trial, his error e_i ~ N(0, expert^2); it stays as it is until the next trial.

    ## Rewards
    1 for a click, else 0. `expected` is r_i; the best action's is max_i r_i.

    ## Starting State
    Nothing shown yet, every average at the prior mean.

    ## Episode End
    Terminates after `horizon` decisions; never truncated.

    ## Arguments
    * `arms` (items, 1 to 10,000): number of candidates K; more make the search longer.
    * `horizon` (decisions, 1 to 100,000): length of a trial; the longer, the more exploring pays.
    * `prior` ([a, b], each 0.001 to 1e6): Beta distribution of the click rates; a / (a + b) is their mean,
      a + b how alike they are.
    * `alpha` (share, 0 to 1): weight of the old value in the moving average; near 1 remembers longer, 1 never learns.
    * `statistics` (bool): show the running statistics `average` and `exposure`.
    * `expert` (logits, 0 to 100, or None): standard deviation of the error of an expert who judges the items at the
      start of each trial: at zero he knows the click rates, far above the spread of their logits next to nothing;
      without a number there is no expert, and the observation has no such field.

    ## Version History
    * v0: first version.
    """

    arms: int = 10
    horizon: int = 100
    prior: tuple[float, float] = (1.0, 1.0)
    alpha: float = 0.9
    statistics: bool = True
    expert: float | None = None

    task_type: ClassVar[type] = BanditTask
    objectives: ClassVar[tuple[str, ...]] = ("clicks",)
    costs: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        check_common(self)
        prior = numbers(self.prior)
        if prior.shape != (2,) or not np.all((prior >= SMALLEST_PRIOR) & (prior <= LARGEST_PRIOR)):
            message = f"prior must be two numbers in [{SMALLEST_PRIOR}, {LARGEST_PRIOR:g}], got {self.prior!r}"
            raise ValueError(f"{type(self).__name__}: {message}")
        object.__setattr__(self, "prior", tuple(prior.tolist()))
        if self.expert is not None:
            check_number(self, "expert", 0.0, 100.0)
            object.__setattr__(self, "expert", float(self.expert))

    # --- the trial ---
    def sample_task(self, rng: Rng, batch: int) -> BanditTask:
        return BanditTask(beta(rng, *self.prior, (batch, self.arms)))

    def reset(self, task: BanditTask, rng: Rng) -> BanditState:
        xp, (batch, arms) = rng.xp, task.rates.shape
        none = xp.zeros((batch, arms), dtype=xp.float32, device=rng.device)
        start = xp.zeros((batch,), dtype=xp.float32, device=rng.device)
        best = xp.max(task.rates, axis=-1)
        expert = none if self.expert is None else self._judge(task, self.expert, rng)
        return BanditState(task, task.rates, best, expert, none + self.prior_mean, none, none, start, start)

    def step(self, state: BanditState, action: Array, rng: Rng) -> Outcome[BanditState]:
        xp, shown = rng.xp, (rng.xp.arange(action.shape[0], device=rng.device), action)
        luck = rng.uniform((action.shape[0],))
        expected = state.rates[shown]
        reward = xp.astype(luck < expected, xp.float32)
        average, counts = state.average + 0.0, state.counts + 0.0  # copies, to be written at one candidate per row
        average[shown] = self.alpha * average[shown] + (1.0 - self.alpha) * reward
        counts[shown] += 1.0
        chosen = xp.zeros_like(counts)
        chosen[shown] = 1.0
        time = state.time + 1.0
        after = state._replace(average=average, counts=counts, chosen=chosen, reward=reward, time=time)
        objectives = reward[:, None]
        return Outcome(after, reward, expected, objectives, objectives[:, :0], time >= self.horizon)

    def observe(self, state: BanditState) -> Array:
        candidate = {"chosen": state.chosen}
        if self.statistics:
            candidate |= {"average": state.average, "exposure": log_scaled(state.counts)}
        if self.expert is not None:
            candidate["expert"] = state.expert
        return self.layout.join(clock(state, self.horizon), candidate)

    def _judge(self, task: BanditTask, noise: float, rng: Rng) -> Array:
        """[B, K] log softmax(logits + noise), cut below at what a right judgement cannot reach."""
        xp = rng.xp
        judged = logit(task.rates) + noise * rng.normal(tuple(task.rates.shape))
        judged = judged - xp.max(judged, axis=-1, keepdims=True)
        judged = judged - xp.log(xp.sum(xp.exp(judged), axis=-1, keepdims=True))
        return clip(judged, self._least_likely, 0.0)

    # --- the optimum ---
    def best_reward(self, state: BanditState) -> Array:
        return state.best

    def informed_action(self, state: BanditState) -> Array:
        return namespace(state.rates).argmax(state.rates, axis=-1)

    def candidate_rewards(self, state: BanditState) -> tuple[Array, Array | None]:
        return state.rates, state.average

    # --- spaces ---
    @property
    def prior_mean(self) -> float:
        """Click probability of a candidate of which nothing is known."""
        return self.prior[0] / (self.prior[0] + self.prior[1])

    @property
    def _least_likely(self) -> float:
        """Lower bound of an expert's log-probabilities: l_i - log sum_j exp(l_j) >= -(max l - min l) - log K."""
        return -(WIDEST_GAP + math.log(self.arms))

    @cached_property
    def layout(self) -> Layout:
        candidate = [CHOSEN]
        if self.statistics:
            most = log_bound(self.horizon)
            candidate += [
                Field("average", 0.0, 1.0, "moving average of the candidate's clicks", role="statistic"),
                Field("exposure", 0.0, most, "log(1 + times shown) / log(1001)", role="statistic"),
            ]
        if self.expert is not None:
            meaning = "log-probability that an expert gives the candidate before the trial"
            candidate.append(Field("expert", self._least_likely, 0.0, meaning, role="prior"))
        return Layout(clock_fields(self.horizon), tuple(candidate), self.arms)

    @cached_property
    def observation_space(self) -> gymnasium.spaces.Box:
        return self.layout.box()

    @cached_property
    def action_space(self) -> gymnasium.spaces.Discrete:
        return gymnasium.spaces.Discrete(self.arms)

    @cached_property
    def task_space(self) -> gymnasium.spaces.Dict:
        return gymnasium.spaces.Dict({"rates": gymnasium.spaces.Box(0.0, 1.0, (self.arms,), np.float32)})


@dataclass(frozen=True)
class DriftBandit(Bandit):
    """The bandit of a user whose taste changes while being served.

    ## Description
    As `Bandit`, but after every decision the logit of each click probability makes a step of a random walk, whether
    shown or not, and each item is now and then replaced by a new one with a freshly drawn probability (restless arms,
    Whittle 1988). What was learned grows stale, so exploring never ends.

    ## Action Space
    As `Bandit`.

    ## Observation Space
    As `Bandit`.

    ## Rewards
    As `Bandit`; `expected` and the best action are those of the moment.

    ## Starting State
    As `Bandit`.

    ## Episode End
    As `Bandit`.

    ## Arguments
    Those of `Bandit`, and
    * `drift` (logits per square root of a decision, 0 to 10): standard deviation of a step of the random walk.
    * `change_rate` (probability per decision, 0 to 1): chance that an item is replaced; both at 0 give `Bandit`.

    ## Version History
    * v0: first version.
    """

    # At these two, knowing nothing of the drift costs: of 100 decisions (4,000 trials, standard errors up to .2) random
    # wins 50.3, Thompson 66.6, tuned UCB1 73.7, tuned D-UCB 75.3, Bayes-UCB on the exact posterior 75.8, informed 91.1.
    drift: float = 0.05
    change_rate: float = 0.03

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self, "drift", 0.0, 10.0)
        check_number(self, "change_rate", 0.0, 1.0)

    def step(self, state: BanditState, action: Array, rng: Rng) -> Outcome[BanditState]:
        outcome = super().step(state, action, rng)
        xp, rates = rng.xp, state.rates
        if self.drift > 0:
            moved = logit(rates) + self.drift * rng.normal(tuple(rates.shape))
            rates = 1.0 / (1.0 + xp.exp(-moved))
        if self.change_rate > 0:
            replaced = rng.uniform(tuple(rates.shape)) < self.change_rate
            rates = xp.where(replaced, beta(rng, *self.prior, tuple(rates.shape)), rates)
        after = outcome.state._replace(rates=rates, best=xp.max(rates, axis=-1))
        return outcome._replace(state=after)
