"""The contract of scenarios as a test: `check_scenario` says what a scenario of yours breaks.

It plays a few trials on NumPy, and on torch where it is installed, and raises an AssertionError that names what is
wrong. The interfaces around a scenario (Gymnasium, Stable-Baselines3) need no such test: they are the same for all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields, is_dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np

import recgym
from recgym.arrays import Array, to_numpy, tree_items, tree_map
from recgym.baselines import family_of
from recgym.layout import Layout
from recgym.parameters import instantiate
from recgym.rng import START, STEP, TASK, NumpyRng, make_rng
from recgym.runner import Runner
from recgym.scenario import Account, Response, Scenario, Seen, State, rows_from

__all__ = ["MOVES", "check_scenario"]

ROWS = 6
ALL, OTHERS = np.arange(ROWS), np.array([5, 4, 3, 5, 4, 3])  # half of the rows, in other places and company
MAX_DECISIONS = 12  # of a trial that is looked at decision by decision
MAX_ACTIONS = 128  # that are tried one by one
TRIALS = 128  # of the comparison of means
CLOSE = 1e-5  # what rounding may make of 1
ERRORS = 5.0  # standard errors by which means may differ: a right scenario fails once in a million
DTYPES = ("float32", "bool", "int64")
ALWAYS = {"time": "clock", "remaining": "remaining", "last_reward": "outcome"}  # context fields, and their roles
MOVES = {  # the roles of the fields that a part of what is seen may move
    "time": {"clock", "remaining", "market"},
    "reward": {"outcome"},
    "offer": {"feature", "prior", "market", "preference", "presence", "availability", "group"},
    "kept": {"prior", "statistic", "outcome", "action", "market", "presence", "availability"},
}
TOLD = {"offer": {"statistic"}, "time": {"statistic", "feature"}}  # of candidates: clicks on a topic, rates of an hour


class Moment(NamedTuple):
    """One decision of a trial."""

    state: State  # before it
    action: np.ndarray
    hidden: Any  # after it
    response: Response
    seen: Seen
    account: Account


def check_scenario(problem: Any, *, seed: int = 0, trials: int = TRIALS) -> None:
    """Check that a scenario keeps its contract.

    Args:
        problem: a scenario, or what `recgym.make_scenario` takes.
        seed: of tasks, luck and actions.
        trials: of the comparison of means (credit and bound), which 0 leaves out.

    Raises:
        AssertionError: it does not (says what, where and what was expected).
    """
    scenario = recgym.make_scenario(problem)
    check_declaration(scenario)
    check_layout(scenario, seed)
    check_trial(scenario, seed)
    check_public(scenario, seed)
    check_roles(scenario, seed)
    check_luck(scenario, seed)
    check_rows(scenario, seed)
    check_pictures(scenario, seed)
    if find_spec("torch") is not None:
        check_torch(scenario, seed)
    if trials and scenario.solved:
        check_means(scenario, seed, trials)


# --- playing ---------------------------------------------------------------------------------------------------------
def random_actions(scenario: Scenario, rng: np.random.Generator, rows: int) -> np.ndarray:
    """Random actions [rows] or, without a candidate twice, [rows, k]."""
    space: Any = scenario.action_space
    if not space.shape:
        return rng.integers(0, space.n, rows)
    return np.stack([rng.permutation(scenario.layout.candidates)[: space.shape[0]] for _ in range(rows)])


def moments(scenario: Scenario, seed: int, decisions: int = MAX_DECISIONS) -> Iterator[Moment]:
    """Decisions of a trial in `ROWS` rows, played with random actions."""
    rng = make_rng("cpu", seed)
    actions = np.random.default_rng(seed)
    rng.rekey(TASK, 0)
    task = scenario.sample_task(rng, ROWS)
    untouched(scenario.begin, task, rng)
    rng.rekey(START, 0)
    state = scenario.reset(task, rng)
    for t in range(min(decisions, scenario.horizon)):
        action = random_actions(scenario, actions, ROWS)
        rng.rekey(STEP, t + 1)
        hidden, response = untouched(scenario.respond, state, action, rng)
        untouched(scenario.account, state.seen, action, response.feedback)
        untouched(scenario.update, state.seen, action, response.feedback)
        seen, account = scenario.learn(state.seen, action, response.feedback, response.offer)
        yield Moment(state, action, hidden, response, seen, account)
        state = State(state.task, hidden, seen)


def equal(one: Any, other: Any, what: str, room: float = 0.0) -> None:
    """Assert that two trees are equal, bit for bit, or to `room` where the largest number is 1 or less."""
    for (name, left), (_, right) in zip(tree_items(one), tree_items(other), strict=True):
        left, right = to_numpy(left), to_numpy(right)
        if not np.array_equal(left, right):
            size = np.abs(right).max(initial=1.0) if room else 1.0  # there may be nothing in it
            np.testing.assert_allclose(left / size, right / size, 0, room, err_msg=f"{what}: {name or 'value'} differs")


def untouched(function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of `function`, which must not write to its arguments, but for a generator."""
    copies = [(tree, tree_map(np.copy, tree)) for tree in arguments if not isinstance(tree, NumpyRng)]
    result = function(*arguments)
    for argument, copied in copies:
        equal(copied, argument, f"{function.__name__} writes to its arguments")
    return result


# --- what is declared ------------------------------------------------------------------------------------------------
def check_declaration(scenario: Scenario) -> None:
    """Parameters, names, types and spaces."""
    kind = type(scenario)
    assert is_dataclass(kind), f"{kind.__name__} is no dataclass"
    assert kind.__hash__ is not None, f"{kind.__name__} cannot be hashed: @dataclass(frozen=True)"
    hash(scenario)
    parameters = json.loads(json.dumps(asdict(scenario)))
    assert instantiate(kind, parameters) == scenario, f"{kind.__name__}: parameters do not survive JSON: {parameters}"
    names = [*scenario.objectives, *scenario.costs, "regret", "expected_reward"]
    assert len(set(names)) == len(names), f"objectives and costs share names, or use one of recgym's: {names}"
    assert scenario.objectives, f"{kind.__name__} has no objectives"
    for part in ("task", "offer", "feedback"):
        fields_ = getattr(scenario, f"{part}_type")._fields
        boxes = getattr(scenario, f"{part}_space").spaces
        assert set(boxes) == set(fields_), f"{part}_space has {sorted(boxes)}, {part}_type {sorted(fields_)}"
    if (plain := scenario.plain_offer(ROWS)) is not None:
        _check_inside(scenario, "offer", plain, "plain_offer")
    family = family_of(scenario)
    for name in filter(None, (*family.shown, family.expert)):
        assert name in family.baselines, f"the family of {kind.__name__} has no baseline {name!r}"


def check_layout(scenario: Scenario, seed: int) -> None:
    """The fields that are always there, and that an observation is what its fields say."""
    layout = scenario.layout
    roles = {field.name: field.role for field in layout.context}
    for name, role in ALWAYS.items():
        assert roles.get(name) == role, f"the context needs a field {name!r} of the role {role!r}: see clock_fields"
    assert layout.named("action", block=1), "no candidate field has the role 'action': see CHOSEN"
    assert all(field.meaning for field in layout), "every field needs a meaning"
    assert Layout.from_json(json.loads(json.dumps(layout.to_json()))) == layout, "the layout does not survive JSON"
    assert scenario.observation_space == layout.box(), "observation_space is not the layout's"
    for moment in moments(scenario, seed, 2):
        observation = scenario.observe(moment.seen)
        values = {field.name: layout.get(observation, field.name) for field in layout}
        equal(layout.join(values, values), observation, "layout.join")


# --- a trial ---------------------------------------------------------------------------------------------------------
def check_trial(scenario: Scenario, seed: int) -> None:
    """Every decision of a trial: types, ranges, purity, clock, reward, optimum."""
    for t, moment in enumerate(moments(scenario, seed)):
        state, _, hidden, response, seen, account = moment
        place = f"decision {t + 1}"
        for name, leaf in tree_items(State(state.task, hidden, seen), "state"):
            assert isinstance(leaf, np.ndarray), f"{place}: {name} is a {type(leaf).__name__}, no array"
            assert str(leaf.dtype) in DTYPES, f"{place}: {name} is {leaf.dtype}, one of {', '.join(DTYPES)} is right"
            assert leaf.shape[:1] == (ROWS,), f"{place}: {name} has shape {leaf.shape}, the rows are {ROWS}"
        for word, values in (("task", state.task), ("offer", response.offer), ("feedback", response.feedback)):
            _check_inside(scenario, word, values, place)
        before, observation = scenario.observe(state.seen), untouched(scenario.observe, seen)
        for row in observation:
            assert scenario.observation_space.contains(row), f"{place}: outside the space: {_outside(scenario, row)}"
        assert not np.shares_memory(before, observation), f"{place}: an observation overwrites the one before it"
        untouched(scenario.open, state.seen.offer)
        shapes = ((), (), (len(scenario.objectives),), (len(scenario.costs),))
        arrays = {"expected": response.expected, **account._asdict()}
        for (name, array), shape in zip(arrays.items(), shapes, strict=True):
            assert array.shape == (ROWS, *shape), f"{place}: {name} has shape {array.shape}, not {(ROWS, *shape)}"
            assert array.dtype == np.float32, f"{place}: {name} is {array.dtype}, not float32"
            assert np.isfinite(array).all(), f"{place}: {name} is not finite"
        _check_reward(scenario, moment, place)
        if scenario.solved:
            _check_optimum(scenario, moment, place)
        assert (seen.time == t + 1).all(), f"{place}: time is {seen.time}"


def _check_inside(scenario: Scenario, word: str, values: Any, place: str) -> None:
    """What the scenario itself says (`word`: task, offer or feedback) is what it accepts from outside."""
    kind, space = getattr(scenario, f"{word}_type"), getattr(scenario, f"{word}_space")
    assert type(values) is kind, f"{place}: the {word} is a {type(values).__name__}, no {kind.__name__}"
    try:
        checked = rows_from(kind, space, values, ROWS, word, scenario)
    except ValueError as error:
        raise AssertionError(f"{place}: the scenario's own {word} is outside its space: {error}") from None
    for (name, right), (_, leaf) in zip(tree_items(checked, word), tree_items(values), strict=True):
        found, wanted = (f"{array.dtype} {array.shape}" for array in (leaf, right))
        assert found == wanted, f"{place}: {name} is {found}, not {wanted}"


def _outside(scenario: Scenario, row: np.ndarray) -> str:
    """The fields of an observation that are outside their ranges."""
    if row.dtype != np.float32 or row.shape != scenario.observation_space.shape:
        return f"{row.dtype} {row.shape}"
    return scenario.layout.outside(row[None]) or "another shape"


def _check_reward(scenario: Scenario, moment: Moment, place: str) -> None:
    """The reward is what `worth` makes of objectives and costs, where it can be weighed."""
    if "weights" not in {field.name for field in fields(scenario)}:  # type: ignore[arg-type] # a dataclass
        return
    preference = getattr(moment.state.seen.offer, "preference", None)
    if scenario.preferences:
        assert preference is not None, "weights are drawn: the offer needs them as `preference`, see draw_preference"
        assert scenario.layout.named("preference"), "weights are drawn: show them, see preference_fields"
    reward = scenario.worth(moment.account.objectives, moment.account.costs, preference)
    equal(moment.account.reward, reward, f"{place}: the reward is not worth(...)", CLOSE)


def _check_optimum(scenario: Scenario, moment: Moment, place: str) -> None:
    """The best action has the best reward, the informed policy's are actions and, in a myopic problem, the best."""
    best = untouched(scenario.best_reward, moment.state)
    room = CLOSE * max(1.0, float(np.abs(best).max()))
    assert (moment.response.expected <= best + room).all(), f"{place}: an action expects more than best_reward"
    action = untouched(scenario.informed_action, moment.state)
    space: Any = scenario.action_space
    assert all(space.contains(row) for row in np.asarray(action)), f"{place}: informed_action {action}"
    tried = {"the informed action": [action]} if scenario.myopic else {}
    if not space.shape and space.n <= MAX_ACTIONS:
        tried["the best action"] = [np.full(ROWS, number) for number in range(space.n)]
    rng = make_rng("cpu", 0)  # what is expected is no matter of luck
    for who, actions in tried.items():
        most = np.max([scenario.respond(moment.state, action, rng)[1].expected for action in actions], axis=0)
        equal(best, most, f"{place}: best_reward is not what {who} expects", CLOSE)


# --- what is public --------------------------------------------------------------------------------------------------
def check_public(scenario: Scenario, seed: int) -> None:
    """From offers and feedback alone, without task and luck, come the same observations, bit for bit."""
    for t, moment in enumerate(moments(scenario, seed)):
        if t == 0:
            seen = scenario.start(tree_map(np.copy, moment.state.seen.offer))
        observation = scenario.observe(seen)
        equal(observation, scenario.observe(moment.state.seen), f"decision {t + 1}: a task reaches the observation")
        feedback, offer = tree_map(np.copy, moment.response.feedback), tree_map(np.copy, moment.response.offer)
        assert not (why := scenario.impossible(seen, moment.action, feedback)), f"decision {t + 1}: {why}"
        seen, _ = scenario.learn(seen, moment.action, feedback, offer)


def check_roles(scenario: Scenario, seed: int) -> None:
    """Another row's value of one part of what is seen moves no field but those whose roles it may move."""
    layout = scenario.layout
    for moment in moments(scenario, seed, min(3, scenario.horizon - 1)):
        before = np.copy(scenario.observe(moment.seen))
        for part in Seen._fields:
            for name, changed in _changes(moment.seen, part):
                after = scenario.observe(changed)
                for field in layout:
                    same = np.array_equal(layout.get(before, field.name), layout.get(after, field.name))
                    what = f"{name} moves the field {field.name!r}, whose role is {field.role!r}"
                    told = TOLD.get(part, set()) if field in layout.candidate else set()
                    assert same or field.role in MOVES[part] | told, what


def _changes(seen: Seen, part: str) -> Iterator[tuple[str, Seen]]:
    """What is seen, with one array of one part replaced by the next row's (the clock: by that of a decision later)."""
    if part == "time":
        yield "time", seen._replace(time=seen.time + 1.0)
        return
    value = getattr(seen, part)
    for target, _ in tree_items(value, part):
        leaves = iter([np.roll(leaf, 1, axis=0) if name == target else leaf for name, leaf in tree_items(value, part)])
        yield target, seen._replace(**{part: tree_map(lambda _, leaves=leaves: next(leaves), value)})


# --- rows and luck ---------------------------------------------------------------------------------------------------
def check_luck(scenario: Scenario, seed: int) -> None:
    """Rows that act alike fare alike, bit for bit, whatever the other rows do; a snapshot goes on alike."""
    one, other, later = (Runner(scenario, ROWS, make_rng("cpu", key)) for key in (seed, seed, seed + 1))
    one.restart()
    other.restart()
    actions = np.random.default_rng(seed)
    half = ROWS // 2
    for t in range(min(2 * scenario.horizon, MAX_DECISIONS) + 1):
        mine = random_actions(scenario, actions, ROWS)
        theirs = np.concatenate([mine[:half], random_actions(scenario, actions, ROWS)[half:]])
        if t == 1:
            later.restore(one.snapshot())
        first, second = one.step(mine), other.step(theirs)
        equal(first.observation[:half], second.observation[:half], "what other rows do changes the luck: observation")
        equal(first.reward[:half], second.reward[:half], "what other rows do changes the luck: reward")
        equal(one.state.task, other.state.task, "what is done changes the tasks that come later: task")
        if t:
            equal(later.step(mine).observation, first.observation, "a snapshot does not go on alike: observation")


class LentRng:
    """Draws made once for each place in a stream, and lent: so no last digit makes another binomial draw.

    Lent are its `rows` [ROWS]; `where` stands in errors."""

    def __init__(self, like: Any, draws: dict[Any, Any], where: str, rows: np.ndarray) -> None:
        self.xp, self.device = like.xp, like.device
        self.draws, self.where, self.rows = draws, where, rows
        self.place = [0, 0, 0]  # stream, step, draws since

    def rekey(self, stream: int, step: int) -> None:
        self.place = [stream, step, 0]

    def branch(self, number: int) -> None: ...  # draws are lent by their place alone
    def __getattr__(self, name: str) -> Any:
        def draw(*arguments: Any) -> Array:
            self.place[2] += 1
            place = tuple(self.place)
            plain = [np.array(part if isinstance(part, tuple) else to_numpy(part)) for part in arguments]
            if place not in self.draws:
                self.draws[place] = name, plain, getattr(NumpyRng([21, *place]), name)(*plain)
            kind, wanted, values = self.draws[place]
            assert (kind, len(wanted)) == (name, len(plain)), f"{kind} is drawn, {self.where} {name}"
            for one, other in zip(plain, wanted, strict=True):
                assert one.dtype == other.dtype and str(one.dtype) in DTYPES, f"{name} of {one.dtype} and {other.dtype}"
                equal(one, self.part(other), f"{name} is drawn {self.where} of something else", CLOSE)
            return self.xp.asarray(self.part(values).copy())

        return draw

    def part(self, array: np.ndarray) -> np.ndarray:
        """The `rows` of a draw or of its parameters, along the first axis that is as long."""
        return np.take(array, self.rows, axis=array.shape.index(ROWS)) if ROWS in array.shape else array


def check_rows(scenario: Scenario, seed: int) -> None:
    """A row is the same whatever the others are and wherever it stands, if it has the same luck."""
    draws: dict[Any, Any] = {}
    here, there = (LentRng(NumpyRng(), draws, "beside other rows", rows) for rows in (ALL, OTHERS))
    others = partial(tree_map, lambda leaf: leaf[OTHERS])

    def alike(name: str, stream: int, step: int, function: Callable[..., Any], *trees: Any) -> Any:
        results = []
        for rng, arguments in ((here, trees), (there, map(others, trees))):
            rng.rekey(stream, step)
            results.append(function(*arguments, rng))
            assert rng.place[:2] == [stream, step], f"{name} re-keys the rng, which only the Runner does"
        equal(results[1], others(results[0]), f"{name}: a row depends on other rows, or on where it stands", CLOSE)
        return results[0]

    actions = np.random.default_rng(seed)
    task = alike("sample_task", TASK, 0, lambda rng: scenario.sample_task(rng, ROWS))
    state = alike("begin", START, 0, scenario.reset, task)
    for t in range(min(scenario.horizon, MAX_DECISIONS // 2)):
        state = alike("respond", STEP, t, scenario.step, state, random_actions(scenario, actions, ROWS)).state
        alike("observe", STEP, t, lambda seen, _: scenario.observe(seen), state.seen)


def check_torch(scenario: Scenario, seed: int) -> None:
    """NumPy and torch give the same trial from the same luck, to rounding."""
    draws: dict[Any, Any] = {}
    runners = [Runner(scenario, ROWS, LentRng(make_rng(key), draws, "on torch", ALL)) for key in ("cpu", "torch")]
    actions = np.random.default_rng(seed)
    scale = np.maximum(1.0, np.abs(scenario.observation_space.high))
    last = [runner.reset() for runner in runners][1]
    for _ in range(min(2 * scenario.horizon + 2, MAX_DECISIONS + 4)):
        action = random_actions(scenario, actions, ROWS)
        numpy, tensor = (runner.step(action) for runner in runners)
        assert str(tensor.observation.dtype) == "torch.float32", f"observations on torch are {tensor.observation.dtype}"
        equal(to_numpy(tensor.observation) / scale, numpy.observation / scale, "observation on torch", CLOSE)
        assert tensor.observation.data_ptr() != last.data_ptr(), "on torch an observation overwrites the one before it"
        last = tensor.observation
        equal(tensor.ended, numpy.ended, "torch ends trials elsewhere")
        assert (tensor.final_observation is None) == (numpy.final_observation is None)
        for key, value in {**numpy.info, "reward": numpy.reward}.items():
            equal({**tensor.info, "reward": tensor.reward}[key], value, f"{key} on torch", CLOSE)
        if scenario.solved:
            state = runners[0].state  # the same on both: a last digit may decide between near equals
            tensors = tree_map(lambda leaf: runners[1].rng.xp.asarray(np.copy(leaf)), state)
            first, second = scenario.informed_action(state), scenario.informed_action(tensors)
            equal(first, second, "informed_action on torch")
        for (name, left), (_, right) in zip(*(tree_items(runner.state) for runner in runners), strict=True):
            assert tuple(left.shape) == tuple(right.shape), f"{name} has another shape on torch"
            assert str(right.dtype) == f"torch.{left.dtype}", f"{name} is {left.dtype} on NumPy, {right.dtype} on torch"
            equal(right, left, f"{name} on torch", CLOSE)


# --- pictures --------------------------------------------------------------------------------------------------------
def check_pictures(scenario: Scenario, seed: int) -> None:
    """What pictures and auxiliary heads are made of has the right names and shapes."""
    count = scenario.layout.candidates
    names = scenario.candidate_names
    assert names is None or len(names) == count, f"{len(names or ())} candidate_names of {count} candidates"
    for moment in moments(scenario, seed, 1):
        true, estimate = scenario.candidate_rewards(moment.state)
        assert to_numpy(true).shape == (ROWS, count), f"candidate_rewards has shape {true.shape}, not {(ROWS, count)}"
        assert estimate is None or to_numpy(estimate).shape == (ROWS, count)
        for name, values in scenario.targets(moment.state).items():
            shape, dtype = values.shape, str(values.dtype)
            assert shape[:1] == (ROWS,) and dtype in DTYPES, f"targets: {name} is {dtype} {shape}, the rows are {ROWS}"
        trace = scenario.trace(State(moment.state.task, moment.hidden, moment.seen))
        shown = {series.name: series for panel in scenario.panels for series in panel.series}
        assert shown.keys() <= trace.keys(), f"panels show {set(shown) - set(trace)}, which trace does not have"
        for name, values in trace.items():
            stripes = (len(shown[name].rows),) if name in shown and shown[name].kind == "map" else ()
            assert name not in shown or values.shape == (ROWS, *stripes), f"trace: {name} has shape {values.shape}"


# --- means -----------------------------------------------------------------------------------------------------------
def check_means(scenario: Scenario, seed: int, trials: int) -> None:
    """Where `expected` is credited its sum has the mean of the return; nobody's mean is above the bound's.

    Trials of the informed policy, and of a random one where there is credit; `room_of` says how far means may differ.
    """
    actions = np.random.default_rng(seed)
    for who in ("informed", "random") if scenario.credited else ("informed",):
        runner = Runner(scenario, trials, make_rng("cpu", seed), autoreset_mode="Disabled")
        runner.restart()
        bound = scenario.bound(runner.state)
        total, expected, largest = *np.zeros((2, trials)), 0.0
        for _ in range(scenario.horizon):
            informed = scenario.informed_action(runner.state) if who == "informed" else None
            step = runner.advance(random_actions(scenario, actions, trials) if informed is None else informed)
            total += step.reward
            largest = max(largest, float(np.abs(step.reward).max()))
            expected += step.info["expected_reward"]
        if scenario.credited:
            gap = total - expected
            room = room_of(gap, largest) + 1e-3 * max(1.0, np.abs(expected).mean())
            assert abs(gap.mean()) <= room, f"the {who} policy earns {total.mean():g}, `expected` {expected.mean():g}"
        if bound is not None:
            assert bound.shape == (trials,) and bound.dtype == np.float64, f"bound is {bound.dtype} {bound.shape}"
            gap, room = bound - total, room_of(bound - total, largest) + 1e-6
            assert gap.mean() >= -room, f"the {who} policy earns {total.mean():g}, the bound is {bound.mean():g}"


def room_of(gap: np.ndarray, largest: float) -> float:
    """What the mean of `gap` [N] may differ from its expectation by: `ERRORS` standard errors, and rare outcomes.

    One of probability `ERRORS / N` is missed by all N trials once in 150 times, and then no standard error knows of it:
    it adds the reward that is at stake in it, `largest`.
    """
    return ERRORS * float(gap.std() / np.sqrt(len(gap)) + largest / len(gap))
