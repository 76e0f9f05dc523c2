"""The contract: a decision problem as pure functions over a batch of rows.

What the world does and what is known of it are two things. The world (`begin`, `respond`) alone draws luck and sees the
task; the bookkeeping (`open`, `account`, `update`, `observe`) has what anyone may know, so that a simulator, the replay
of a log and a session with live users share it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import gymnasium
import numpy as np

from recgym.arrays import Array, Rng, clip, namespace, to_numpy
from recgym.layout import Field, Layout
from recgym.panels import Panel
from recgym.parameters import arguments_section, check_parameters, numbers, param, refuse

__all__ = ["Account", "Outcome", "Response", "Scenario", "Seen", "State", "rows_from", "weights_param"]

Task = Any  # NamedTuples of arrays [B, ...]: a scenario's own types
Hidden = Any
Offer = Any
Feedback = Any
Kept = Any


class Seen(NamedTuple):
    """What anyone may know of a batch of trials."""

    offer: Offer  # what can be chosen now, and what is known of it
    reward: Array  # [B] last reward; 0 before the first
    time: Array  # [B] float32 decisions made
    kept: Kept  # what is kept of the past: statistics, stock left, chosen


class State(NamedTuple):
    """A batch of trials."""

    task: Task  # drawn for the trial
    hidden: Hidden  # what the world carries besides
    seen: Seen


class Response(NamedTuple):
    """What the world does with one decision of each row."""

    feedback: Feedback  # what anyone sees of the outcome, raw: clicks, units sold
    offer: Offer  # what is on offer next
    expected: Array  # [B] mean reward of the action taken, given the state; hidden


class Account(NamedTuple):
    """What the feedback is worth."""

    reward: Array  # [B]
    objectives: Array  # [B, M] named by `Scenario.objectives`
    costs: Array  # [B, C] named by `Scenario.costs`


class Outcome(NamedTuple):
    """What one decision of each row led to."""

    state: State
    reward: Array  # [B] sampled
    expected: Array  # [B] mean reward of the action taken, given the state
    objectives: Array  # [B, M]
    costs: Array  # [B, C]
    ended: Array  # [B] bool: time == horizon; a horizon is part of the problem (terminated, never truncated)


class Scenario:
    """A decision problem. A subclass is a frozen dataclass: its fields are the parameters, and gym.make's kwargs.

    Every trial has exactly `horizon` decisions. A task reaches an observation only through the offer and the feedback,
    which are public: two tasks with the same offers and feedback give the same observations.
    """

    horizon: int
    weights: Mapping[str, Any] | None = None  # see `weights_param`; only where a subclass has it as a field

    task_type: ClassVar[type]  # NamedTuples of arrays [B, ...]
    offer_type: ClassVar[type]  # holds at least one array, which tells rows, library and device
    feedback_type: ClassVar[type]
    objectives: ClassVar[tuple[str, ...]]  # what the reward may weigh, the most usual first
    costs: ClassVar[tuple[str, ...]] = ()  # what it may charge for
    covered: ClassVar[tuple[str, ...] | None] = None  # of both, what the optimum can weigh; None: all objectives
    labels: ClassVar[Mapping[str, Mapping[int, str]]] = {}  # names of values of the task's whole numbers, by field
    myopic: ClassVar[bool] = True  # whether regret against the best action of the moment is a measure
    credited: ClassVar[bool] = False  # whether `expected`, summed, has the mean of the return, and less noise
    family: ClassVar[str] = ""  # "module:NAME" of the table of its baselines, experts, log readers and page

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        cls.__doc__ = arguments_section(cls)

    def __post_init__(self) -> None:
        check_parameters(self)
        _check_weights(self)

    # --- the world: it alone draws luck, and alone sees the task ---
    def sample_task(self, rng: Rng, batch: int) -> Task:
        """Draw tasks [batch, ...] from the task distribution."""
        raise NotImplementedError

    def begin(self, task: Task, rng: Rng) -> tuple[Hidden, Offer]:
        """Start the world on each task, and say what it offers first."""
        raise NotImplementedError

    def respond(self, state: State, action: Array, rng: Rng) -> tuple[Hidden, Response]:
        """Answer the actions [B] or [B, k] int64. Of what is seen it may read the clock and what is kept."""
        raise NotImplementedError

    # --- the bookkeeping: from public things alone ---
    def open(self, offer: Offer) -> Kept:
        """What is kept at the start of a trial."""
        raise NotImplementedError

    def account(self, seen: Seen, action: Array, feedback: Feedback) -> Account:
        """Say what `feedback` to `action` is worth: weights . objectives - prices . costs, see `worth`."""
        raise NotImplementedError

    def update(self, seen: Seen, action: Array, feedback: Feedback) -> Kept:
        """What is kept after `feedback` to `action`; nothing is changed in place."""
        raise NotImplementedError

    def observe(self, seen: Seen) -> Array:
        """The state vector [B, D] float32, laid out as `layout` says."""
        raise NotImplementedError

    # --- the two together, for everybody ---
    def start(self, offer: Offer) -> Seen:
        """What is known at the start of a trial."""
        leaf = offer[0]
        if isinstance(leaf, np.ndarray):
            nothing = np.zeros(leaf.shape[0], dtype=np.float32)
        else:
            xp = namespace(leaf)
            nothing = xp.zeros((leaf.shape[0],), dtype=xp.float32, device=leaf.device)
        return Seen(offer, nothing, nothing, self.open(offer))

    def learn(self, seen: Seen, action: Array, feedback: Feedback, offer: Offer | None = None) -> tuple[Seen, Account]:
        """Take in what a decision led to, as simulator, replay of a log and live session do.

        Args:
            seen: before the decision.
            action: [B] or [B, k] int64.
            feedback: of `feedback_type`.
            offer: what is on offer next; None: the same as before.
        """
        account = self.account(seen, action, feedback)
        kept = self.update(seen, action, feedback)
        return Seen(seen.offer if offer is None else offer, account.reward, seen.time + 1.0, kept), account

    def reset(self, task: Task, rng: Rng) -> State:
        """First state of a trial on each task."""
        hidden, offer = self.begin(task, rng)
        return State(task, hidden, self.start(offer))

    def step(self, state: State, action: Array, rng: Rng) -> Outcome:
        """What one decision of each row leads to."""
        hidden, response = self.respond(state, action, rng)
        seen, account = self.learn(state.seen, action, response.feedback, response.offer)
        after = State(state.task, hidden, seen)
        ended = seen.time >= self.horizon
        return Outcome(after, account.reward, response.expected, account.objectives, account.costs, ended)

    def impossible(self, seen: Seen, action: Array, feedback: Any) -> str:
        """Say why feedback from outside, each field of which is within its space, cannot follow an action; "": it can.

        Args:
            seen: [B] what was seen before.
            action: [B] or [B, k].
            feedback: of `feedback_type`, NumPy.
        """
        return ""

    def plain_offer(self, rows: int) -> Offer | None:
        """What is on offer [rows, ...] where nothing can be said of it, NumPy; None: something must be said."""
        return None

    # --- the optimum ---
    def best_reward(self, state: State) -> Array:
        """[B] highest `expected` of any action now."""
        raise NotImplementedError

    def informed_action(self, state: State) -> Array:
        """[B] or [B, k]: what a policy that knows the task does."""
        raise NotImplementedError

    def bound(self, state: State) -> np.ndarray | None:
        """[B] float64 upper bounds on the expected return of any policy, at the start of a trial; None: not known."""
        return None

    def candidate_rewards(self, state: State) -> tuple[Array, Array | None]:
        """For pictures: expected reward [B, K] of each candidate, true and as the running statistics estimate it.

        None is marked as shown last where there is no estimate, or where `names_of` gives pictures of pages.
        """
        raise NotImplementedError

    def targets(self, state: State) -> Mapping[str, Array]:
        """Labels [B, ...] of what is hidden, for auxiliary heads in training only."""
        return {}

    def trial_figures(self, task: Task, objectives: np.ndarray, costs: np.ndarray) -> dict[str, np.ndarray]:
        """For reports: [N] figures of whole trials that are no sums over decisions, by name; NumPy.

        Args:
            task: [N, ...].
            objectives: [N, M] summed over each trial.
            costs: [N, C] likewise.
        """
        return {}

    # --- pictures of how a trial went: where there are panels, they take the place of the regret's ---
    @property
    def panels(self) -> tuple[Panel, ...]:
        """What is drawn over the decisions, beside the reward so far, which always is."""
        return ()

    @property
    def candidate_names(self) -> tuple[str, ...] | None:
        """Of the K candidates; None: they are numbered."""
        return None

    @property
    def candidate_grid(self) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
        """Names along both axes where candidates are cells of a grid, the second the fastest; None: they are not."""
        return None

    def names_of(self, state: State) -> list[tuple[str, ...]]:
        """Of the K candidates that are on offer in each of the B rows."""
        count = len(to_numpy(state.seen.reward))
        return [self.candidate_names or tuple(map(str, range(self.layout.candidates)))] * count

    def trace(self, state: State) -> Mapping[str, Array]:
        """[B] values of the series of all panels, of maps [B, rows]: levels after the last decision, others in it."""
        return {}

    # --- spaces ---
    @cached_property
    def layout(self) -> Layout:
        """Names the numbers of an observation."""
        raise NotImplementedError

    @cached_property
    def observation_space(self) -> gymnasium.spaces.Box:
        return self.layout.box()

    @cached_property
    def action_space(self) -> gymnasium.spaces.Discrete | gymnasium.spaces.MultiDiscrete:
        return gymnasium.spaces.Discrete(self.layout.candidates)

    @cached_property
    def task_space(self) -> gymnasium.spaces.Dict:
        """One Box per field of a Task, without the batch axis: what `reset(options={"task": ...})` accepts."""
        raise NotImplementedError

    @cached_property
    def offer_space(self) -> gymnasium.spaces.Dict:
        """The same of an offer: what a live session accepts."""
        raise NotImplementedError

    @cached_property
    def feedback_space(self) -> gymnasium.spaces.Dict:
        """The same of the feedback."""
        raise NotImplementedError

    # --- weights ---
    @cached_property
    def weight_ranges(self) -> dict[str, tuple[float, float]]:
        """[least, most] weight of each objective, and price of each cost, in the reward."""
        names = (*self.objectives, *self.costs)
        if self.weights is None:
            return {name: (float(name == self.objectives[0]),) * 2 for name in names}
        ranges = dict(self.weights)
        return {name: tuple(np.broadcast_to(ranges.get(name, 0.0), 2).tolist()) for name in names}

    @cached_property
    def preferences(self) -> tuple[str, ...]:
        """Objectives and costs whose weight is drawn for each task."""
        return tuple(name for name, (least, most) in self.weight_ranges.items() if least < most)

    @property
    def solved(self) -> bool:
        """Whether the optimum covers the weights.

        If not, there is neither bound nor informed policy, and regret and expected reward are NaN.
        """
        covered = self.objectives if self.covered is None else self.covered
        return all(name in covered for name, (_, most) in self.weight_ranges.items() if most > 0)

    @cached_property
    def _unweighted(self) -> bool:
        """Whether the reward is the first objective itself."""
        return all(span == (float(name == self.objectives[0]),) * 2 for name, span in self.weight_ranges.items())

    @cached_property
    def reward_unit(self) -> float:
        """Reward of a unit of the first objective where the reward is nothing else, so that it counts; else 1."""
        paid = {name: span for name, span in self.weight_ranges.items() if span[1] > 0}
        alone = list(paid) == [self.objectives[0]] and not self.preferences
        return paid[self.objectives[0]][1] if alone else 1.0

    def draw_preference(self, rng: Rng, batch: int) -> Array:
        """[batch, P] weights of the P `preferences`, uniform: a part of the task, and of the offer."""
        drawn = rng.uniform((batch, len(self.preferences)))
        for place, name in enumerate(self.preferences):
            least, most = self.weight_ranges[name]
            drawn[:, place] = clip(least + (most - least) * drawn[:, place], least, most)  # a sum may round above
        return drawn

    def preference_fields(self) -> tuple[Field, ...]:
        """Context fields that show the `preferences`."""
        return tuple(
            Field(f"weight_{name}", *self.weight_ranges[name], f"weight of {name} in the reward", role="preference")
            for name in self.preferences
        )

    @cached_property
    def preference_space(self) -> gymnasium.spaces.Box:
        """What the weights of the `preferences` may be."""
        spans = np.array([self.weight_ranges[name] for name in self.preferences], dtype=np.float32).reshape(-1, 2)
        return gymnasium.spaces.Box(spans[:, 0], spans[:, 1], dtype=np.float32)

    def weighed(self, amount: Array, preference: Array) -> Array:
        """[B, ...] reward of so much of the first objective, where nothing else is weighed; `preference` [B, P]."""
        first = self.objectives[0]
        if first in self.preferences:
            weight = preference[:, self.preferences.index(first)]
            return amount * weight.reshape((-1,) + (1,) * (amount.ndim - 1))
        weight = self.weight_ranges[first][1]
        return amount if weight == 1.0 else weight * amount

    def worth(self, objectives: Array, costs: Array, preference: Array | None = None) -> Array:
        """[B] reward: weights . objectives - prices . costs.

        Args:
            objectives: [B, M].
            costs: [B, C].
            preference: [B, P] weights of the `preferences`; not looked at where there are none.
        """
        if self._unweighted:
            return objectives[:, 0]
        reward = None
        for place, (name, (least, most)) in enumerate(self.weight_ranges.items()):
            if most == 0.0:
                continue
            count = objectives.shape[1]
            amount = objectives[:, place] if place < count else -costs[:, place - count]
            if least < most:
                assert preference is not None, f"the weight of {name} is drawn: the offer must hold it"
                amount = preference[:, self.preferences.index(name)] * amount
            elif most != 1.0:
                amount = most * amount
            reward = amount if reward is None else reward + amount
        return objectives[:, 0] * 0.0 if reward is None else reward


# --- weights ---------------------------------------------------------------------------------------------------------
MIN_WEIGHT, MAX_WEIGHT = 1e-6, 1e6  # of those that are not 0: float32 holds rewards, and what is added up of them


def weights_param() -> Any:
    """The field `weights` of a scenario whose reward can be weighed."""
    effect = "of objectives and prices of costs in the reward, by name: numbers, or [least, most] to be drawn per trial"
    return param(None, unit="numbers by name, or None: the first objective alone", effect=effect, kind="other")


def _check_weights(scenario: Scenario) -> None:
    """Refuse weights that are none, and keep them as a sorted tuple of pairs, which is hashable."""
    if scenario.weights is None:
        return
    known = (*scenario.objectives, *scenario.costs)
    span = f"0 or from {MIN_WEIGHT:g} to {MAX_WEIGHT:,.0f}"
    wanted = f"numbers by name, or [least, most], each {span}, of {', '.join(known)}"
    try:
        pairs = sorted(dict(scenario.weights).items())
    except (TypeError, ValueError):
        refuse(scenario, "weights", wanted)
    values = []
    for name, weight in pairs:
        value = numbers(weight)
        within = (value == 0) | ((value >= MIN_WEIGHT) & (value <= MAX_WEIGHT))
        right = value.shape in ((), (2,)) and value.size and np.all(within)
        if name not in known or not right or (value.ndim and value[0] > value[1]):
            refuse(scenario, "weights", wanted)
        values.append((name, tuple(value.tolist()) if value.ndim else float(value)))
    object.__setattr__(scenario, "weights", tuple(values))


# --- what comes from outside -----------------------------------------------------------------------------------------
ARTICLES = {"task": "a task", "offer": "an offer", "feedback": "feedback"}


def rows_from(kind: Any, space: gymnasium.spaces.Dict, values: Any, rows: int | None, word: str, owner: Any) -> Any:
    """A NamedTuple `kind` of NumPy arrays [B, ...] from one, or from a mapping, of arrays: one for all rows, or B.

    Args:
        kind: the NamedTuple.
        space: a Box per field, without the batch axis.
        values: what came from outside.
        rows: number of rows B; None: as many as there are in its first field.
        word: what it is called in errors: "task", "offer" or "feedback".
        owner: the scenario that it is for.

    Raises:
        ValueError: a field is missing, unknown, of the wrong shape, not finite or out of range (names it).
    """
    boxes: Any = space.spaces
    values = values._asdict() if hasattr(values, "_asdict") else values
    if not isinstance(values, Mapping) or set(values) != set(boxes):
        names = sorted(values) if isinstance(values, Mapping) else type(values).__name__
        raise ValueError(f"{ARTICLES[word]} of {type(owner).__name__} has the fields {sorted(boxes)}, got {names}")
    arrays = []
    for name in kind._fields:
        box = boxes[name]
        field = f"{word} field {name!r}"
        try:
            array = to_numpy(values[name])
        except (TypeError, ValueError) as error:
            raise ValueError(f"{field} is not an array: {error}") from None
        flags = "b" if word == "feedback" else ""  # a click is 1, or true
        if array.dtype.kind not in {"f": "iuf" + flags, "i": "iu", "u": "iu", "b": "biuf"}[box.dtype.kind]:
            raise ValueError(f"{field} must hold {box.dtype} numbers, got {array.dtype}")
        if box.dtype.kind == "b" and not np.all((array == 0) | (array == 1)):
            raise ValueError(f"{field} must hold flags, True and False or 1 and 0")
        with np.errstate(over="ignore"):  # becomes infinite, which is out of range
            array = array.astype(box.dtype)
        if rows is None:
            rows = len(array) if array.ndim > len(box.shape) else 1
        if array.shape == box.shape:
            array = np.broadcast_to(array, (rows, *box.shape)).copy()
        if array.shape != (rows, *box.shape):
            raise ValueError(f"{field} must have shape {box.shape} or {(rows, *box.shape)}, got {array.shape}")
        if not np.all((array >= box.low) & (array <= box.high)):  # also refuses NaN
            raise ValueError(f"{field} must be within [{box.low.min()}, {box.high.max()}]")
        arrays.append(array)
    return kind(*arrays)
