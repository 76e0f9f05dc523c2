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

from recgym.core import (
    CHOSEN,
    Array,
    Field,
    Layout,
    Outcome,
    Rng,
    check_number,
    clip,
    clock,
    clock_fields,
    log_bound,
    log_scaled,
    namespace,
    numbers,
)
from recgym.rng import beta

__all__ = ["Bandit", "ContextualBandit", "DriftBandit"]

LONGEST_HORIZON = 100_000
MOST_ARMS = 10_000
CLIP = 3.0  # drawn features are normal, cut at three standard deviations so that the observation space is bounded
LARGEST_FEATURE = 1e6  # of a given table: keeps products and sums finite in float32
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
                Field("average", 0.0, 1.0, "moving average of the candidate's clicks"),
                Field("exposure", 0.0, most, "log(1 + times shown) / log(1001)"),
            ]
        if self.expert is not None:
            meaning = "log-probability that an expert gives the candidate before the trial"
            candidate.append(Field("expert", self._least_likely, 0.0, meaning))
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


class ContextualTask(NamedTuple):
    theta: Array  # [B, d] what the user likes


class ContextualState(NamedTuple):
    task: ContextualTask
    features: Array  # [B, K, d] the candidates on offer now
    rates: Array  # [B, K] their click probability
    feedback: Array  # [B, d] exponential moving average of (click - base rate) x features shown
    chosen: Array  # [B, K] float32, 1 for the candidate shown last
    reward: Array  # [B] last reward
    time: Array  # [B] float32 decisions made


@dataclass(frozen=True)
class ContextualBandit:
    """Every item is new: only its features tell whether this user will like it.

    ## Description
    Each trial is one user with a hidden taste theta ~ N(0, taste^2 I). Each decision brings `arms` fresh items with
    features x; a click has probability sigmoid(bias + theta . x) (Li et al. 2010; logistic as in Chapelle & Li 2011).
    An item seen once never returns, so a memory per candidate means nothing: the history of features shown and
    feedback received does.

    ## Action Space
    `Discrete(arms)`: which of the items on offer to show.

    ## Observation Space
    The fields of `layout`. `chosen` refers to the rows of the previous observation, whose features were shown.
    `feedback` is the state vector's moving average f <- alpha f + (1 - alpha) (click - sigmoid(bias)) x_shown, which
    points towards theta; without `statistics` it is left out.

    ## Rewards
    1 for a click, else 0. `expected` is the click probability of the item shown.

    ## Starting State
    Fresh items, nothing shown yet.

    ## Episode End
    Terminates after `horizon` decisions; never truncated.

    ## Arguments
    * `arms` (items, 1 to 10,000): number of candidates K on offer at each decision.
    * `horizon` (decisions, 1 to 100,000): length of a trial.
    * `features` (a number d, 1 to 1,000, or a table [N, d]): d independent standard normal numbers cut at +-3, or
      rows drawn from the table, with replacement.
    * `taste` (logits per unit of a feature, 0 to 100): standard deviation of each entry of theta.
    * `bias` (logits, -20 to 20): logit of the click probability of an item that is neither liked nor disliked.
    * `alpha` (share, 0 to 1): weight of the old value in the moving average.
    * `statistics` (bool): show the running statistic `feedback`.

    ## Version History
    * v0: first version.
    """

    arms: int = 10
    horizon: int = 100
    features: int | tuple[tuple[float, ...], ...] = 8
    # At these two, of 100 decisions (4,000 trials, standard errors up to .2) random wins 34.8, LinTS 70.4, LinUCB 71.1,
    # the same with a logistic model and the true prior 72.1, informed 81.4.
    taste: float = 0.7
    bias: float = -1.0
    alpha: float = 0.9
    statistics: bool = True

    task_type: ClassVar[type] = ContextualTask
    objectives: ClassVar[tuple[str, ...]] = ("clicks",)
    costs: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        check_common(self)
        check_number(self, "taste", 0.0, 100.0)
        check_number(self, "bias", -20.0, 20.0)
        if isinstance(self.features, int | np.integer):
            check_number(self, "features", 1, 1_000, whole=True)
            return
        table = numbers(self.features)
        if table.ndim != 2 or table.size == 0 or not np.all(np.abs(table) <= LARGEST_FEATURE):
            message = f"features must be a number or a table [N, d] of numbers within +-{LARGEST_FEATURE:g}"
            raise ValueError(f"{type(self).__name__}: {message}")
        object.__setattr__(self, "features", tuple(map(tuple, table.tolist())))

    # --- the trial ---
    def sample_task(self, rng: Rng, batch: int) -> ContextualTask:
        return ContextualTask(self.taste * rng.normal((batch, self.width)))

    def reset(self, task: ContextualTask, rng: Rng) -> ContextualState:
        xp, batch = rng.xp, task.theta.shape[0]
        features, rates = self._offer(task, rng)
        chosen = xp.zeros((batch, self.arms), dtype=xp.float32, device=rng.device)
        start = xp.zeros((batch,), dtype=xp.float32, device=rng.device)
        return ContextualState(task, features, rates, xp.zeros_like(task.theta), chosen, start, start)

    def step(self, state: ContextualState, action: Array, rng: Rng) -> Outcome[ContextualState]:
        xp, shown = rng.xp, (rng.xp.arange(action.shape[0], device=rng.device), action)
        luck = rng.uniform((action.shape[0],))
        expected = state.rates[shown]
        reward = xp.astype(luck < expected, xp.float32)
        surprise = (reward - 1.0 / (1.0 + math.exp(-self.bias)))[:, None] * state.features[shown]
        feedback = self.alpha * state.feedback + (1.0 - self.alpha) * surprise
        chosen = xp.zeros_like(state.chosen)
        chosen[shown] = 1.0
        features, rates = self._offer(state.task, rng)
        time = state.time + 1.0
        after = ContextualState(state.task, features, rates, feedback, chosen, reward, time)
        objectives = reward[:, None]
        return Outcome(after, reward, expected, objectives, objectives[:, :0], time >= self.horizon)

    def observe(self, state: ContextualState) -> Array:
        context = clock(state, self.horizon)
        if self.statistics:
            context["feedback"] = state.feedback
        return self.layout.join(context, {"chosen": state.chosen, "features": state.features})

    def _offer(self, task: ContextualTask, rng: Rng) -> tuple[Array, Array]:
        """Fresh candidates: features [B, K, d] and click probabilities [B, K]."""
        xp, batch = rng.xp, task.theta.shape[0]
        if self.table is None:
            features = clip(rng.normal((batch, self.arms, self.width)), -CLIP, CLIP)
        else:
            row = xp.astype(rng.uniform((batch, self.arms)) * self.table.shape[0], xp.int64)
            features = xp.asarray(self.table, device=rng.device)[row]
        logit = self.bias + xp.sum(features * task.theta[:, None, :], axis=-1)
        return features, 1.0 / (1.0 + xp.exp(-clip(logit, -30.0, 30.0)))

    # --- the optimum ---
    def best_reward(self, state: ContextualState) -> Array:
        return namespace(state.rates).max(state.rates, axis=-1)

    def informed_action(self, state: ContextualState) -> Array:
        return namespace(state.rates).argmax(state.rates, axis=-1)

    def candidate_rewards(self, state: ContextualState) -> tuple[Array, Array | None]:
        return state.rates, None

    # --- spaces ---
    @cached_property
    def table(self) -> np.ndarray | None:
        """float32 [N, d] the given items, or None where features are drawn."""
        return None if isinstance(self.features, int | np.integer) else np.asarray(self.features, dtype=np.float32)

    @property
    def width(self) -> int:
        """Number of features d."""
        return int(self.features) if self.table is None else self.table.shape[1]  # type: ignore[arg-type]

    @cached_property
    def layout(self) -> Layout:
        largest = CLIP if self.table is None else float(np.abs(self.table).max()) or 1.0  # a Box needs some width
        context = clock_fields(self.horizon)
        if self.statistics:
            meaning = "moving average of (click - base rate) x features shown"
            most = largest * 1.0001  # room for rounding
            context += (Field("feedback", -most, most, meaning, self.width),)
        features = Field("features", -largest, largest, "what is known of the candidate on offer now", self.width)
        return Layout(context, (CHOSEN, features), self.arms)

    @cached_property
    def observation_space(self) -> gymnasium.spaces.Box:
        return self.layout.box()

    @cached_property
    def action_space(self) -> gymnasium.spaces.Discrete:
        return gymnasium.spaces.Discrete(self.arms)

    @cached_property
    def task_space(self) -> gymnasium.spaces.Dict:
        taste = gymnasium.spaces.Box(-1e6, 1e6, (self.width,), np.float32)
        return gymnasium.spaces.Dict({"theta": taste})
