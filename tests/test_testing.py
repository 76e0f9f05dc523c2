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
from recgym.arrays import Array, Rng, namespace, rows_of
from recgym.layout import CHOSEN, Field, Layout, clock, clock_fields
from recgym.rng import STEP, TASK, make_rng
from recgym.runner import Runner
from recgym.scenario import Account, Response, Seen, State
from recgym.testing import check_scenario
from tests import toys
from tests.toys import Feedback, Hidden, Kept, Offer, Shelf, ShelfOffer, Task, Toy

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


@broken("the informed policy earns .*, `expected`")
class Miscredited(Toy):
    def respond(self, state: State, action: Array, rng: Rng) -> tuple[Hidden, Response]:
        hidden, response = super().respond(state, action, rng)
        return hidden, response._replace(expected=0.5 * response.expected)

    def best_reward(self, state: State) -> Array:
        return 0.5 * super().best_reward(state)


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


# --- the world writes to what it is given ---
@broken("begin writes to its arguments: rates")
class Rounding(Toy):
    def begin(self, task: Task, rng: Rng) -> tuple[Hidden, Offer]:
        task.rates[:] *= 0.5
        return super().begin(task, rng)


@broken("respond writes to its arguments: hidden.rates")
class Growing(Toy):
    def begin(self, task: Task, rng: Rng) -> tuple[Hidden, Offer]:
        return Hidden(0.1 * task.rates), Offer(task.preference)

    def respond(self, state: State, action: Array, rng: Rng) -> tuple[Hidden, Response]:
        answer = super().respond(state, action, rng)
        state.hidden.rates[:] *= 1.1
        return answer


@broken("respond writes to its arguments: seen.kept.chosen")
class Forgetful(Toy):
    def respond(self, state: State, action: Array, rng: Rng) -> tuple[Hidden, Response]:
        state.seen.kept.chosen[:] = 1.0
        return super().respond(state, action, rng)


@broken("respond writes to its arguments: value")
class Deciding(Toy):
    def respond(self, state: State, action: Array, rng: Rng) -> tuple[Hidden, Response]:
        action[:] = 0
        return super().respond(state, action, rng)


# --- a row is not alone ---
@broken("sample_task: a row depends on other rows, or on where it stands: rates")
class Ranked(Toy):
    def sample_task(self, rng: Rng, batch: int) -> Task:
        task = super().sample_task(rng, batch)
        place = rng.xp.arange(batch, device=rng.device)[:, None] / batch
        return task._replace(rates=task.rates * rng.xp.astype(place, rng.xp.float32))


@broken("begin: a row depends on other rows, or on where it stands: hidden.rates")
class Average(Toy):
    def begin(self, task: Task, rng: Rng) -> tuple[Hidden, Offer]:
        return Hidden(0.5 * task.rates + 0.5 * rng.xp.mean(task.rates, axis=0)[None]), Offer(task.preference)


class Crowd(Toy):
    """Rows have rates in common: all functions of them agree."""

    def together(self, state: State) -> State:
        raise NotImplementedError

    def respond(self, state: State, action: Array, rng: Rng) -> tuple[Hidden, Response]:
        return state.hidden, super().respond(self.together(state), action, rng)[1]

    def candidate_rewards(self, state: State) -> tuple[Array, Array | None]:
        return super().candidate_rewards(self.together(state))


@broken("respond: a row depends on other rows, or on where it stands")
class LikeTheFirst(Crowd):
    credited: ClassVar[bool] = False

    def together(self, state: State) -> State:
        return state._replace(hidden=Hidden(state.hidden.rates[rows_of(state.seen.time) * 0]))


@broken("respond: a row depends on other rows, or on where it stands")
class LikeAll(Crowd):
    def together(self, state: State) -> State:
        mean = namespace(state.hidden.rates).mean(state.hidden.rates, axis=0)
        return state._replace(hidden=Hidden(0.0 * state.hidden.rates + mean))


@broken("respond: a row depends on other rows, or on where it stands")
class OneMoreDraw(Toy):
    def respond(self, state: State, action: Array, rng: Rng) -> tuple[Hidden, Response]:
        if int(action[0]) % 2:
            rng.uniform((action.shape[0], 2))
        return super().respond(state, action, rng)


@broken("respond: a row depends on other rows, or on where it stands")
class OwnLuck(Toy):
    def respond(self, state: State, action: Array, rng: Rng) -> tuple[Hidden, Response]:
        hidden, response = super().respond(state, action, rng)
        luck = rng.xp.asarray(np.random.default_rng(0).random(action.shape[0]), device=rng.device)
        click = rng.xp.astype(luck < state.hidden.rates[rows_of(action), action], rng.xp.float32)
        return hidden, response._replace(feedback=Feedback(click, 0.0 * click))


@broken("uniform is drawn beside other rows of something else")
class OwnShape(Toy):
    def respond(self, state: State, action: Array, rng: Rng) -> tuple[Hidden, Response]:
        rng.uniform((1 + int(action[0]),))
        return super().respond(state, action, rng)


@broken("begin re-keys the rng")
class SameStart(Toy):
    def begin(self, task: Task, rng: Rng) -> tuple[Hidden, Offer]:
        rng.rekey(TASK, 0)
        return super().begin(task, rng)


@broken("respond re-keys the rng")
class SameLuck(Toy):
    def respond(self, state: State, action: Array, rng: Rng) -> tuple[Hidden, Response]:
        rng.rekey(STEP, 7)
        return super().respond(state, action, rng)


# --- the optimum is another ---
@broken("best_reward is not what the informed action expects")
class Boastful(Toy):
    def best_reward(self, state: State) -> Array:
        return 2.0 * super().best_reward(state)


@broken("best_reward is not what the informed action expects")
class Misinformed(Toy):
    def informed_action(self, state: State) -> Array:
        return namespace(state.hidden.rates).argmin(state.hidden.rates, axis=1)


@broken("best_reward is not what the best action expects")
class FarSighted(Boastful):
    myopic: ClassVar[bool] = False


@broken("best_reward is not what the informed action expects")
class BoastfulShelf(Shelf):
    def best_reward(self, state: State) -> Array:
        return 2.0 * super().best_reward(state)


@broken("the random policy earns .*, `expected`")
class NoRegret(Toy):
    """What is expected is the best, whatever is done."""

    def respond(self, state: State, action: Array, rng: Rng) -> tuple[Hidden, Response]:
        hidden, response = super().respond(state, action, rng)
        return hidden, response._replace(expected=self.best_reward(state))


# --- what is handed out ---
BUFFERS: dict[Any, Array] = {}


@broken("decision 1: an observation overwrites the one before it")
class Buffered(Toy):
    def observe(self, seen: Seen) -> Array:
        observation = super().observe(seen)
        buffer = BUFFERS.setdefault((observation.shape, type(observation)), observation)
        buffer[:] = observation
        return buffer


@broken("on torch an observation overwrites the one before it")
class BufferedOnTorch(Buffered):
    def observe(self, seen: Seen) -> Array:
        return Toy.observe(self, seen) if isinstance(seen.time, np.ndarray) else super().observe(seen)


@broken("plain_offer: .* must have shape")
class OfferOfAnotherShape(Toy):
    def plain_offer(self, rows: int) -> Offer:
        return Offer(np.zeros((rows, 3), dtype=np.float32))


@broken(r"plain_offer: offer.preference is float32 \(0,\), not float32 \(6, 0\)")
class OfferWithoutRows(Toy):
    def plain_offer(self, rows: int) -> Offer:
        return Offer(np.zeros(0, dtype=np.float32))


@broken("plain_offer: offer.preference is float64")
class OfferOfDoubles(Toy):
    def plain_offer(self, rows: int) -> Offer:
        return Offer(np.zeros((rows, 0)))


@broken("plain_offer: .* must be within")
class OfferOutOfRange(Shelf):
    def plain_offer(self, rows: int) -> ShelfOffer:
        return ShelfOffer(np.full((rows, self.arms), 77.0, dtype=np.float32))


@broken("expected is float64")
class ExpectedInDoubles(Toy):
    def respond(self, state: State, action: Array, rng: Rng) -> tuple[Hidden, Response]:
        hidden, response = super().respond(state, action, rng)
        return hidden, response._replace(expected=rng.xp.astype(response.expected, rng.xp.float64))


@broken(r"targets: rates is float32 \(3, 6\), the rows are 6")
class TargetsAcross(Toy):
    def targets(self, state: State) -> dict[str, Array]:
        return {"rates": state.hidden.rates.T}


@pytest.mark.parametrize("build, message", BROKEN, ids=[message for _, message in BROKEN])
def test_what_breaks_the_contract_is_named(build: Callable[[], type], message: str) -> None:
    if "on torch" in message:
        pytest.importorskip("torch")
    scenario: Any = build()(horizon=8)
    with pytest.raises((AssertionError, ValueError), match=message):
        check_scenario(scenario)


def test_a_snapshot_stays_as_it_was_taken() -> None:
    """Even where a scenario writes to its state."""
    runner = Runner(Growing(), 2, make_rng("cpu", 0))
    runner.reset()
    snapshot = runner.snapshot()
    before = snapshot["state.hidden.rates"].copy()
    runner.step(np.array([0, 1]))
    np.testing.assert_array_equal(snapshot["state.hidden.rates"], before)
    assert (runner.state.hidden.rates > before).all()


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
