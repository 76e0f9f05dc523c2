"""`check_scenario` passes what keeps the contract, and names what breaks it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pytest

import recgym
import recgym.envs
from recgym.arrays import Array, Rng, rows_of
from recgym.layout import CHOSEN, Field, Layout, clock, clock_fields
from recgym.scenario import Account, Response, Seen, State
from recgym.testing import check_scenario
from tests import toys
from tests.toys import Feedback, Hidden, Kept, Offer, Shelf, Toy

WEIGHTS: list[Any] = [
    None,
    {"clicks": 1.0},
    {"likes": 2.0},
    {"clicks": [0.5, 2.0], "likes": 1.0},
    {"clicks": 1.0, "display": 0.25},
    {"clicks": [0.0, 1.0], "display": [0.5, 1.0]},
    {},
]


@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
def test_what_keeps_the_contract_passes(weights: Any) -> None:
    check_scenario(Toy(weights=weights))


def test_a_slate_passes() -> None:
    """Which of equal items the informed policy takes is not torch's business: their rates differ here."""
    check_scenario(Shelf(arms=3, places=3))


def test_a_name_will_do() -> None:
    check_scenario("tests.toys:Toy", seed=3)
    check_scenario("RecBandit-v0")


# --- what breaks it --------------------------------------------------------------------------------------------------
BROKEN: list[tuple[Callable[[], type], str]] = []


def broken(message: str) -> Callable[[type], type]:
    """Register a scenario that breaks the contract, and what is said of it."""

    def register(kind: type) -> type:
        BROKEN.append((lambda: dataclass(frozen=True)(kind), message))
        return kind

    return register


@broken("cannot be hashed")
class Unhashable(Toy):
    extra: list[int] = field(default_factory=list)
    __hash__: ClassVar[None] = None  # type: ignore[assignment]


@broken(r"feedback_space has \['click', 'like'\], feedback_type \['click'\]")
class OtherFeedback(Toy):
    feedback_type: ClassVar[type] = type("Click", (tuple,), {"_fields": ("click",)})


@broken("share names, or use one of recgym's")
class Regretful(Toy):
    costs: ClassVar[tuple[str, ...]] = ("regret",)
    covered: ClassVar[tuple[str, ...]] = ("clicks", "likes")


@broken("needs a field 'remaining' of the role 'remaining'")
class NoClock(Toy):
    @cached_property
    def layout(self) -> Layout:
        context = tuple(f for f in clock_fields(self.horizon) if f.name != "remaining")
        return Layout(context, (CHOSEN,), self.arms)


@broken("outside the space: last_reward from .* not in")
class Outside(Toy):
    @cached_property
    def layout(self) -> Layout:
        return Layout(clock_fields(self.horizon, reward=(0.0, 0.5)), (CHOSEN,), self.arms)


@broken("an action expects more than best_reward")
class Modest(Toy):
    def best_reward(self, state: State) -> Array:
        return 0.5 * super().best_reward(state)


@broken("update writes to its arguments")
class InPlace(Toy):
    def update(self, seen: Seen, action: Array, feedback: Feedback) -> Kept:
        seen.kept.chosen[:] = 0.0
        seen.kept.chosen[rows_of(action), action] = 1.0
        return seen.kept


@broken("seen.kept.chosen is float64")
class Double(Toy):
    def update(self, seen: Seen, action: Array, feedback: Feedback) -> Kept:
        return Kept(super().update(seen, action, feedback).chosen * np.float64(1.0))


@broken("the reward is not worth")
class Generous(Toy):
    def account(self, seen: Seen, action: Array, feedback: Feedback) -> Account:
        account = super().account(seen, action, feedback)
        return account._replace(reward=0.5 * account.reward)


@broken("what other rows do changes the luck")
class Shared(Toy):
    def respond(self, state: State, action: Array, rng: Rng) -> tuple[Hidden, Response]:
        rng.uniform((1 + int(action.sum()),))
        return super().respond(state, action, rng)


@broken("a task reaches the observation")
class Telling(Toy):
    """Keeps a rate of the task where the bookkeeping cannot have it from."""

    def reset(self, task: Any, rng: Rng) -> State:
        state = super().reset(task, rng)
        return state._replace(seen=state.seen._replace(kept=Kept(task.rates * 0.5)))


@broken(r"kept.chosen moves the field 'hint', whose role is 'feature'")
class WrongRole(Toy):
    @cached_property
    def layout(self) -> Layout:
        hint = Field("hint", 0.0, 1.0, "what is shown", role="feature")
        return Layout(clock_fields(self.horizon, reward=(0.0, 1.0)), (CHOSEN, hint), self.arms)

    def observe(self, seen: Seen) -> Array:
        chosen = {"chosen": seen.kept.chosen, "hint": seen.kept.chosen}
        return self.layout.join(clock(seen, self.horizon), chosen)


@broken("`expected` sums to")
class Miscredited(Toy):
    horizon: int = 50

    def respond(self, state: State, action: Array, rng: Rng) -> tuple[Hidden, Response]:
        hidden, response = super().respond(state, action, rng)
        return hidden, response._replace(expected=0.5 * response.expected)


@broken("the bound is")
class LowBound(Toy):
    def bound(self, state: State) -> np.ndarray:
        return np.full(len(state.seen.time), 0.5)


@broken("on torch")
class Unlike(Toy):
    def observe(self, seen: Seen) -> Array:
        observation = super().observe(seen)
        if not isinstance(observation, np.ndarray):
            observation[:, -1] = 1.0
        return observation


@broken("'nobody'")
class NoSuchExpert(Toy):
    family: ClassVar[str] = "tests.test_testing:FAMILY"


@broken("candidate_rewards has shape")
class Flat(Toy):
    def candidate_rewards(self, state: State) -> tuple[Array, Array | None]:
        return super().candidate_rewards(state)[0][:, :1], None

    def best_reward(self, state: State) -> Array:
        return Toy.candidate_rewards(self, state)[0].max(1)

    def informed_action(self, state: State) -> Array:
        return Toy.candidate_rewards(self, state)[0].argmax(1)


FAMILY = toys.FAMILY._replace(expert="nobody")


@pytest.mark.parametrize("build, message", BROKEN, ids=[message for _, message in BROKEN])
def test_what_breaks_the_contract_is_named(build: Callable[[], type], message: str) -> None:
    if message == "on torch":
        pytest.importorskip("torch")
    scenario: Any = build()(horizon=8) if "sums" not in message else build()()
    with pytest.raises((AssertionError, ValueError), match=message):
        check_scenario(scenario)


# --- weights ---------------------------------------------------------------------------------------------------------
def test_weights_and_prices_add_up_to_the_reward() -> None:
    toy = Toy(weights={"clicks": 2.0, "likes": 0.5, "display": 0.25})
    seen = toy.start(Offer(np.zeros((4, 0), np.float32)))
    feedback = Feedback(np.float32([1, 1, 0, 0]), np.float32([1, 0, 0, 0]))
    account = toy.account(seen, np.array([0, 1, 0, 1]), feedback)
    np.testing.assert_allclose(account.reward, [2.25, 2.0, -0.25, 0.0])
    np.testing.assert_array_equal(account.objectives, [[1, 1], [1, 0], [0, 0], [0, 0]])
    np.testing.assert_array_equal(account.costs, [[1], [0], [1], [0]])


def test_a_drawn_weight_is_part_of_the_task_and_shown() -> None:
    toy = Toy(weights={"clicks": [1.0, 3.0], "likes": 0.0})
    assert toy.preferences == ("clicks",) and toy.solved
    assert toy.layout.named("preference") == ["weight_clicks"]
    env = recgym.envs.RecVectorEnv(toy, num_envs=2000)
    observation, _ = env.reset(seed=0)
    shown = toy.layout.get(observation, "weight_clicks")
    np.testing.assert_array_equal(shown, env.tasks.preference[:, 0])
    assert abs(shown.mean() - 2.0) < 5 * (2 / np.sqrt(12)) / np.sqrt(2000) and shown.min() >= 1 and shown.max() <= 3
    _, reward, _, _, info = env.step(np.ones(2000, dtype=np.int64))
    np.testing.assert_allclose(reward, shown * info["clicks"], rtol=1e-6)


@pytest.mark.parametrize(
    "weights",
    [{"sales": 1.0}, {"clicks": -1.0}, {"clicks": "1"}, {"clicks": [2.0, 1.0]}, {"clicks": np.nan}, 3.0, ["clicks"]],
    ids=str,
)
def test_weights_that_are_none_are_refused(weights: Any) -> None:
    with pytest.raises(ValueError, match=r"Toy: weights must be numbers .* of clicks, likes, display, got"):
        Toy(weights=weights)
