"""Recommendation as a bandit: which of K candidates does this user click?

Sources: Duan et al. 2016 (RL^2, section 3.1: the task distribution and its nine sizes), Whittle 1988 (restless arms).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import gymnasium
import numpy as np

from recgym.arrays import Array, Rng, clip, namespace, rows_of
from recgym.layout import CHOSEN, Field, Layout, clock, clock_fields, log_bound, log_scaled
from recgym.parameters import numbers, param, refuse
from recgym.rng import beta
from recgym.scenario import Account, Response, Scenario, Seen, State, weights_param

__all__ = ["Bandit", "BanditOffer", "Clicks", "DriftBandit"]

MAX_HORIZON = 100_000
MAX_ARMS = 10_000
MIN_PRIOR = 1e-3  # Beta parameters below it are indistinguishable from a coin, and their draws overflow in float32
MAX_PRIOR = 1e6  # above it the click rates are all alike
MIN_RATE = 1e-6  # keeps the logit of a click rate finite in float32
MAX_GAP = 28.0  # logits; the largest and the smallest logit of a click rate are 27.6 apart


class BanditTask(NamedTuple):
    rates: Array  # [B, K] click probability of each candidate, at the start of the trial


class BanditHidden(NamedTuple):
    rates: Array  # [B, K] click probability now
    best: Array  # [B] the highest of them


class BanditOffer(NamedTuple):
    expert: Array  # [B, K] log-probability that an expert gave each candidate before the trial; 0 where there is none


class Clicks(NamedTuple):
    click: Array  # [B] float32, 1 for a click on the candidate shown


class BanditKept(NamedTuple):
    average: Array  # [B, K] exponential moving average of the feedback
    counts: Array  # [B, K] float32, how often each candidate was shown
    chosen: Array  # [B, K] float32, 1 for the candidate shown last


def logit(rates: Array) -> Array:
    """log(r / (1 - r)) of click probabilities, which are kept off 0 and 1."""
    inside = clip(rates, MIN_RATE, 1.0 - MIN_RATE)
    return namespace(rates).log(inside / (1.0 - inside))


class ClickScenario(Scenario):
    """What all scenarios have in common whose feedback is a click on the one candidate shown, or none."""

    feedback_type: ClassVar[type] = Clicks
    objectives: ClassVar[tuple[str, ...]] = ("clicks",)
    credited: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.preferences or self.weight_ranges["clicks"] == (0.0, 0.0):
            refuse(self, "weights", "one number above 0, of clicks: a weight that is drawn changes nothing here")

    def valued(self, clicks: Array) -> Array:
        """Reward of so many clicks."""
        return clicks if self.reward_unit == 1.0 else self.reward_unit * clicks

    def account(self, seen: Seen, action: Array, feedback: Clicks) -> Account:
        objectives = feedback.click[:, None]
        costs = objectives[:, :0]
        return Account(self.worth(objectives, costs), objectives, costs)

    @cached_property
    def feedback_space(self) -> gymnasium.spaces.Dict:
        return gymnasium.spaces.Dict({"click": gymnasium.spaces.Box(0.0, 1.0, (), np.float32)})


@dataclass(frozen=True)
class Bandit(ClickScenario):
    """Show one of K items to a new user, see a click or none, adapt.

    ## Description
    Each trial is one user. The user clicks item i with a fixed, hidden probability r_i ~ Beta(a, b), so that the
    first decisions find out what this user likes and the later ones use it (Duan et al. 2016, section 3.1).

    ## Action Space
    `Discrete(arms)`: the item to show.

    ## Observation Space
    The fields of `layout`. The exponential moving average of item i starts at `initial_average`, the prior mean, and
    moves only when the item is shown: s_i <- alpha s_i + (1 - alpha) click. Without `statistics` only `time`,
    `remaining`, `last_reward` and `chosen` are left: the setting of Duan et al. (2016), where memory alone tells the
    arms apart.
    With an `expert`, each item shows the log-probability log softmax(logit r + error)_i that he gave it before the
    trial, his error e_i ~ N(0, expert^2); it stays as it is until the next trial.

    ## Rewards
    1 for a click (or its weight), else 0. `expected` is r_i; the best action's is max_i r_i.

    ## Starting State
    Nothing shown yet, every average at `initial_average`.

    ## Episode End
    Terminates after `horizon` decisions; never truncated.

    ## Version History
    * v0: first version.
    """

    arms: int = param(10, 1, MAX_ARMS, "items", "number of candidates K; more make the search longer")
    horizon: int = param(100, 1, MAX_HORIZON, "decisions", "length of a trial; the longer, the more exploring pays")
    prior: tuple[float, float] = param(
        (1.0, 1.0),
        unit=f"[a, b], each {MIN_PRIOR} to {MAX_PRIOR:g}",
        effect="Beta distribution of the click rates; a / (a + b) is their mean, a + b how alike they are",
        kind="other",
    )
    alpha: float = param(
        0.9, 0.0, 1.0, "share", "weight of the old value in the moving average; near 1 remembers longer, 1 never learns"
    )
    initial_average: float | None = param(
        None,
        0.0,
        1.0,
        "probability",
        "what the moving averages start at, where the prior is to stay secret; without a number its mean a / (a + b)",
        kind="number",
        optional=True,
    )
    statistics: bool = param(True, effect="show the running statistics `average` and `exposure`")
    expert: float | None = param(
        None,
        0.0,
        100.0,
        "logits",
        "standard deviation of the error of an expert who judges the items at the start of each trial: at zero he "
        "knows the click rates, far above the spread of their logits next to nothing; without a number there is no "
        "expert, and the observation has no such field",
        kind="number",
        optional=True,
    )
    weights: Mapping[str, Any] | None = weights_param()

    family: ClassVar[str] = "recgym.baselines.bandit:FAMILY"
    task_type: ClassVar[type] = BanditTask
    offer_type: ClassVar[type] = BanditOffer

    def __post_init__(self) -> None:
        super().__post_init__()
        prior = numbers(self.prior)
        if prior.shape != (2,) or not np.all((prior >= MIN_PRIOR) & (prior <= MAX_PRIOR)):
            refuse(self, "prior", f"two numbers in [{MIN_PRIOR}, {MAX_PRIOR:g}]")
        object.__setattr__(self, "prior", tuple(prior.tolist()))
        if self.expert is not None:
            object.__setattr__(self, "expert", float(self.expert))

    # --- the world ---
    def sample_task(self, rng: Rng, batch: int) -> BanditTask:
        return BanditTask(beta(rng, *self.prior, (batch, self.arms)))

    def begin(self, task: BanditTask, rng: Rng) -> tuple[BanditHidden, BanditOffer]:
        best = rng.xp.max(task.rates, axis=-1)
        expert = rng.xp.zeros_like(task.rates) if self.expert is None else self._judge(task, self.expert, rng)
        return BanditHidden(task.rates, best), BanditOffer(expert)

    def respond(self, state: State, action: Array, rng: Rng) -> tuple[BanditHidden, Response]:
        luck = rng.uniform((action.shape[0],))
        rate = state.hidden.rates[rows_of(action), action]
        click = rng.xp.astype(luck < rate, rng.xp.float32)
        return state.hidden, Response(Clicks(click), state.seen.offer, self.valued(rate))

    def _judge(self, task: BanditTask, noise: float, rng: Rng) -> Array:
        """[B, K] log softmax(logits + noise), cut below at what a right judgement cannot reach."""
        xp = rng.xp
        scores = logit(task.rates) + noise * rng.normal(tuple(task.rates.shape))
        scores = scores - xp.max(scores, axis=-1, keepdims=True)
        scores = scores - xp.log(xp.sum(xp.exp(scores), axis=-1, keepdims=True))
        return clip(scores, self._least_likely, 0.0)

    # --- the bookkeeping ---
    def open(self, offer: BanditOffer) -> BanditKept:
        none = namespace(offer.expert).zeros_like(offer.expert)
        return BanditKept(none + self.first_average, none, none)

    def update(self, seen: Seen, action: Array, feedback: Clicks) -> BanditKept:
        shown = (rows_of(action), action)
        average = seen.kept.average + 0.0  # copies, to be written at one candidate per row
        counts = seen.kept.counts + 0.0
        average[shown] = self.alpha * average[shown] + (1.0 - self.alpha) * feedback.click
        counts[shown] += 1.0
        chosen = namespace(counts).zeros_like(counts)
        chosen[shown] = 1.0
        return BanditKept(average, counts, chosen)

    def observe(self, seen: Seen) -> Array:
        candidate = {"chosen": seen.kept.chosen}
        if self.statistics:
            candidate["average"] = seen.kept.average
            candidate["exposure"] = log_scaled(seen.kept.counts)
        if self.expert is not None:
            candidate["expert"] = seen.offer.expert
        return self.layout.join(clock(seen, self.horizon), candidate)

    def plain_offer(self, rows: int) -> BanditOffer | None:
        return BanditOffer(np.zeros((rows, self.arms), dtype=np.float32)) if self.expert is None else None

    # --- the optimum ---
    def best_reward(self, state: State) -> Array:
        return self.valued(state.hidden.best)

    def informed_action(self, state: State) -> Array:
        return namespace(state.hidden.rates).argmax(state.hidden.rates, axis=-1)

    def candidate_rewards(self, state: State) -> tuple[Array, Array | None]:
        return self.valued(state.hidden.rates), self.valued(state.seen.kept.average)

    # --- spaces ---
    @property
    def first_average(self) -> float:
        """What the moving average of a candidate starts at of which nothing is known."""
        return self.prior[0] / (self.prior[0] + self.prior[1]) if self.initial_average is None else self.initial_average

    @property
    def _least_likely(self) -> float:
        """Lower bound of an expert's log-probabilities: l_i - log sum_j exp(l_j) >= -(max l - min l) - log K."""
        return -(MAX_GAP + math.log(self.arms))

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
        return Layout(clock_fields(self.horizon, reward=(0.0, self.reward_unit)), tuple(candidate), self.arms)

    @cached_property
    def task_space(self) -> gymnasium.spaces.Dict:
        return gymnasium.spaces.Dict({"rates": gymnasium.spaces.Box(0.0, 1.0, (self.arms,), np.float32)})

    @cached_property
    def offer_space(self) -> gymnasium.spaces.Dict:
        return gymnasium.spaces.Dict(
            {"expert": gymnasium.spaces.Box(self._least_likely, 0.0, (self.arms,), np.float32)}
        )


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

    ## Version History
    * v0: first version.
    """

    # At these two, knowing nothing of the drift costs: of 100 decisions (4,000 trials, standard errors up to .2) random
    # wins 50.3, Thompson 66.6, tuned UCB1 73.7, tuned D-UCB 75.3, Bayes-UCB on the exact posterior 75.8, informed 91.1.
    drift: float = param(
        0.05, 0.0, 10.0, "logits per square root of a decision", "standard deviation of a step of the random walk"
    )
    change_rate: float = param(
        0.03, 0.0, 1.0, "probability per decision", "chance that an item is replaced; both at 0 give `Bandit`"
    )

    family: ClassVar[str] = "recgym.baselines.drift:FAMILY"

    def respond(self, state: State, action: Array, rng: Rng) -> tuple[BanditHidden, Response]:
        _, response = super().respond(state, action, rng)
        xp = rng.xp
        rates = state.hidden.rates
        if self.drift > 0:
            logits = logit(rates) + self.drift * rng.normal(tuple(rates.shape))
            rates = 1.0 / (1.0 + xp.exp(-logits))
        if self.change_rate > 0:
            replaced = rng.uniform(tuple(rates.shape)) < self.change_rate
            rates = xp.where(replaced, beta(rng, *self.prior, tuple(rates.shape)), rates)
        return BanditHidden(rates, xp.max(rates, axis=-1)), response
