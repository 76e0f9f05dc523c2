"""Small scenarios that tests need: `Toy` has two objectives and a cost to be weighed, `Shelf` an ordered slate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import gymnasium
import numpy as np

from recgym.arrays import Array, Rng, namespace, rows_of
from recgym.baselines import Baseline, Family
from recgym.baselines.policy import ConstantPolicy
from recgym.layout import CHOSEN, Field, Layout, clock, clock_fields
from recgym.parameters import param
from recgym.scenario import Account, Response, Scenario, Seen, State, weights_param


class Task(NamedTuple):
    rates: Array  # [B, K] click probability
    preference: Array  # [B, P]


class Hidden(NamedTuple):
    rates: Array  # [B, K]


class Offer(NamedTuple):
    preference: Array  # [B, P]


class Feedback(NamedTuple):
    click: Array  # [B]
    like: Array  # [B]


class Kept(NamedTuple):
    chosen: Array  # [B, K]


FAMILY = Family(
    page="A toy",
    baselines={
        "last": Baseline(lambda scenario: ConstantPolicy(scenario, scenario.arms - 1), "prior-free", "the last")
    },
    shown=("last",),
    expert="last",
)


@dataclass(frozen=True)
class Toy(Scenario):
    """Show one of K items; a click is followed by a like half of the time, and the first item costs its display.

    ## Description
    Click probabilities are uniform.

    ## Version History
    * v0: first version.
    """

    arms: int = param(3, 1, 100, "items", "number of candidates")
    horizon: int = param(4, 1, 1000, "decisions", "length of a trial")
    weights: Mapping[str, Any] | None = weights_param()

    task_type: ClassVar[type] = Task
    offer_type: ClassVar[type] = Offer
    feedback_type: ClassVar[type] = Feedback
    objectives: ClassVar[tuple[str, ...]] = ("clicks", "likes")
    costs: ClassVar[tuple[str, ...]] = ("display",)
    covered: ClassVar[tuple[str, ...]] = ("clicks", "likes")
    credited: ClassVar[bool] = True
    family: ClassVar[str] = "tests.toys:FAMILY"

    def sample_task(self, rng: Rng, batch: int) -> Task:
        return Task(rng.uniform((batch, self.arms)), self.draw_preference(rng, batch))

    def begin(self, task: Task, rng: Rng) -> tuple[Hidden, Offer]:
        return Hidden(task.rates), Offer(task.preference)

    def respond(self, state: State, action: Array, rng: Rng) -> tuple[Hidden, Response]:
        xp = rng.xp
        luck = rng.uniform((action.shape[0], 2))
        rate = state.hidden.rates[rows_of(action), action]
        click = xp.astype(luck[:, 0] < rate, xp.float32)
        like = xp.astype(luck[:, 1] < 0.5, xp.float32) * click
        expected = self._mean(state, rate[:, None], action[:, None])[:, 0]
        return state.hidden, Response(Feedback(click, like), state.seen.offer, expected)

    def _mean(self, state: State, rates: Array, action: Array) -> Array:
        """[B, N] mean reward of candidates `action` [B, N] of rates [B, N]."""
        xp = namespace(rates)
        columns = []
        for j in range(rates.shape[1]):
            display = xp.astype(action[:, j] == 0, xp.float32)[:, None]
            objectives = xp.stack([rates[:, j], 0.5 * rates[:, j]], axis=1)
            columns.append(self.worth(objectives, display, state.seen.offer.preference))
        return xp.stack(columns, axis=1)

    def open(self, offer: Offer) -> Kept:
        xp = namespace(offer.preference)
        shape = (offer.preference.shape[0], self.arms)
        return Kept(xp.zeros(shape, dtype=xp.float32, device=getattr(offer.preference, "device", "cpu")))

    def account(self, seen: Seen, action: Array, feedback: Feedback) -> Account:
        xp = namespace(feedback.click)
        objectives = xp.stack([feedback.click, feedback.like], axis=1)
        costs = xp.astype(action == 0, xp.float32)[:, None]
        return Account(self.worth(objectives, costs, seen.offer.preference), objectives, costs)

    def update(self, seen: Seen, action: Array, feedback: Feedback) -> Kept:
        chosen = namespace(seen.kept.chosen).zeros_like(seen.kept.chosen)
        chosen[rows_of(action), action] = 1.0
        return Kept(chosen)

    def observe(self, seen: Seen) -> Array:
        context = clock(seen, self.horizon)
        for place, name in enumerate(self.preferences):
            context[f"weight_{name}"] = seen.offer.preference[:, place]
        return self.layout.join(context, {"chosen": seen.kept.chosen})

    def best_reward(self, state: State) -> Array:
        return namespace(state.hidden.rates).max(self.candidate_rewards(state)[0], axis=1)

    def informed_action(self, state: State) -> Array:
        return namespace(state.hidden.rates).argmax(self.candidate_rewards(state)[0], axis=1)

    def candidate_rewards(self, state: State) -> tuple[Array, Array | None]:
        rates = state.hidden.rates
        xp = namespace(rates)
        numbers = xp.arange(self.arms, device=getattr(rates, "device", "cpu"))
        return self._mean(state, rates, xp.broadcast_to(numbers[None], rates.shape)), None

    def plain_offer(self, rows: int) -> Offer | None:
        return None if self.preferences else Offer(np.zeros((rows, 0), dtype=np.float32))

    @cached_property
    def layout(self) -> Layout:
        spans = [span[1] for span in self.weight_ranges.values()]
        reward = (-spans[2], spans[0] + spans[1])
        return Layout((*clock_fields(self.horizon, reward=reward), *self.preference_fields()), (CHOSEN,), self.arms)

    @cached_property
    def task_space(self) -> gymnasium.spaces.Dict:
        rates = gymnasium.spaces.Box(0.0, 1.0, (self.arms,), np.float32)
        return gymnasium.spaces.Dict({"rates": rates, **self.offer_space.spaces})

    @cached_property
    def offer_space(self) -> gymnasium.spaces.Dict:
        return gymnasium.spaces.Dict(
            {"preference": gymnasium.spaces.Box(0.0, 100.0, (len(self.preferences),), np.float32)}
        )

    @cached_property
    def feedback_space(self) -> gymnasium.spaces.Dict:
        click = gymnasium.spaces.Box(0.0, 1.0, (), np.float32)
        return gymnasium.spaces.Dict({"click": click, "like": click})


# --- a slate ---------------------------------------------------------------------------------------------------------
class ShelfTask(NamedTuple):
    rates: Array  # [B, K] click probability in the first place


class ShelfOffer(NamedTuple):
    items: Array  # [B, K] 1 for every item


class ShelfClicks(NamedTuple):
    click: Array  # [B, k] by place


class ShelfKept(NamedTuple):
    chosen: Array  # [B, K]
    clicked: Array  # [B, K]


class Nothing(NamedTuple):
    """The world carries nothing besides the task."""


@dataclass(frozen=True)
class Shelf(Scenario):
    """Show k of K items in order; each is clicked by itself, and lower places are seen less."""

    arms: int = param(5, 1, 100, "items", "number of candidates")
    places: int = param(2, 1, 100, "items", "length of the slate")
    horizon: int = param(8, 1, 1000, "decisions", "length of a trial")

    task_type: ClassVar[type] = ShelfTask
    offer_type: ClassVar[type] = ShelfOffer
    feedback_type: ClassVar[type] = ShelfClicks
    objectives: ClassVar[tuple[str, ...]] = ("clicks",)
    credited: ClassVar[bool] = True

    def sample_task(self, rng: Rng, batch: int) -> ShelfTask:
        rates = rng.uniform((batch, self.arms))
        return ShelfTask(rng.xp.astype(rates > 0.6, rng.xp.float32) * 0.9 + 0.05)

    def begin(self, task: ShelfTask, rng: Rng) -> tuple[Nothing, ShelfOffer]:
        return Nothing(), ShelfOffer(rng.xp.ones_like(task.rates))

    def respond(self, state: State, action: Array, rng: Rng) -> tuple[Nothing, Response]:
        xp = rng.xp
        examined = 0.9 ** xp.astype(xp.arange(self.places, device=rng.device), xp.float32)
        rates = state.task.rates[rows_of(action)[:, None], action] * examined
        clicks = xp.astype(rng.uniform(tuple(rates.shape)) < rates, xp.float32)
        return state.hidden, Response(ShelfClicks(clicks), state.seen.offer, xp.sum(rates, axis=-1))

    def open(self, offer: ShelfOffer) -> ShelfKept:
        none = namespace(offer.items).zeros_like(offer.items)
        return ShelfKept(none, none)

    def account(self, seen: Seen, action: Array, feedback: ShelfClicks) -> Account:
        reward = namespace(feedback.click).sum(feedback.click, axis=-1)
        return Account(reward, reward[:, None], reward[:, None][:, :0])

    def update(self, seen: Seen, action: Array, feedback: ShelfClicks) -> ShelfKept:
        xp = namespace(seen.kept.chosen)
        rows = rows_of(action)[:, None]
        chosen = xp.zeros_like(seen.kept.chosen)
        clicked = xp.zeros_like(seen.kept.chosen)
        chosen[rows, action] = 1.0
        clicked[rows, action] = feedback.click
        return ShelfKept(chosen, clicked)

    def observe(self, seen: Seen) -> Array:
        return self.layout.join(clock(seen, self.horizon), seen.kept._asdict())

    def best_reward(self, state: State) -> Array:
        xp = namespace(state.task.rates)
        best = xp.sort(state.task.rates, axis=-1)
        return sum(best[:, -1 - place] * 0.9**place for place in range(self.places))

    def informed_action(self, state: State) -> Array:
        xp = namespace(state.task.rates)
        return xp.argsort(state.task.rates, axis=-1, descending=True)[:, : self.places]

    def candidate_rewards(self, state: State) -> tuple[Array, Array | None]:
        return state.task.rates, None

    @cached_property
    def layout(self) -> Layout:
        clicked = Field("clicked", 0.0, 1.0, "1 for the candidates clicked last", role="outcome")
        return Layout(clock_fields(self.horizon, reward=(0.0, self.places)), (CHOSEN, clicked), self.arms)

    @cached_property
    def action_space(self) -> gymnasium.spaces.MultiDiscrete:
        return gymnasium.spaces.MultiDiscrete([self.arms] * self.places)

    @cached_property
    def task_space(self) -> gymnasium.spaces.Dict:
        return gymnasium.spaces.Dict({"rates": gymnasium.spaces.Box(0.0, 1.0, (self.arms,), np.float32)})

    @cached_property
    def offer_space(self) -> gymnasium.spaces.Dict:
        return gymnasium.spaces.Dict({"items": gymnasium.spaces.Box(0.0, 1.0, (self.arms,), np.float32)})

    @cached_property
    def feedback_space(self) -> gymnasium.spaces.Dict:
        return gymnasium.spaces.Dict({"click": gymnasium.spaces.Box(0.0, 1.0, (self.places,), np.float32)})
