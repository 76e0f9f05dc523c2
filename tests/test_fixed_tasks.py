"""Training and evaluation on a fixed number of tasks, and on given ones."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import recgym
from recgym.arrays import to_numpy, tree_items
from recgym.baselines import RandomPolicy
from recgym.evaluation import rollout
from recgym.rng import START, STEP, TASK, make_rng
from recgym.runner import Runner
from tests.registry import draw, every_device, every_id, rng_on

VARIED: dict[str, dict[str, Any]] = {"DynamicPricingFerreira-v0": {"table": None}}  # without it there is one task alone


def varied(id: str, **parameters: Any) -> dict[str, Any]:
    """Parameters under which the tasks of an environment differ: those of a reference problem are all the same."""
    return {**(VARIED[id] if recgym.SCENARIOS[id].reference else {}), **parameters}


def named(task: Any) -> dict[str, np.ndarray]:
    return {name: to_numpy(leaf).copy() for name, leaf in tree_items(task)}


def rows_of(task: Any) -> np.ndarray:
    """Tasks [N, ...] as rows [N, F]."""
    return np.concatenate([leaf.reshape(len(leaf), -1) for leaf in named(task).values()], axis=1)


def which(task: Any, fixed: Any) -> np.ndarray:
    """[B] the number of each task among the fixed ones; refuses one that is not among them."""
    equal = (rows_of(task)[:, None] == rows_of(fixed)[None]).all(axis=2)
    assert (equal.sum(axis=1) == 1).all()
    return np.asarray(equal.argmax(axis=1))


def same(one: Any, other: Any) -> None:
    left, right = named(one), named(other)
    assert left.keys() == right.keys()
    for name in left:
        assert left[name].dtype == right[name].dtype
        np.testing.assert_array_equal(left[name], right[name])


def differ(one: Any, other: Any) -> bool:
    return bool((rows_of(one) != rows_of(other)).any(axis=1).all())


def fixed_runner(
    id: str, tasks: Any, *, device: str = "cpu", seed: Any = 4, rows: int = 6, mode: str = "SameStep", **parameters: Any
) -> Runner:
    scenario = recgym.make_scenario(id, **varied(id, **{"horizon": 3, **parameters}))
    return Runner(scenario, rows, rng_on(device, seed), autoreset_mode=mode, tasks=tasks)


def go_on(runner: Runner, steps: int, actions: np.random.Generator) -> list[Any]:
    """What `steps` decisions return."""
    results: list[Any] = []
    for _ in range(steps):
        step = runner.step(draw(runner.scenario.action_space, actions, runner.rows))
        results += [to_numpy(part) for part in (*step[:3], *step.info.values())]
    return results


def equal(one: list[Any], other: list[Any]) -> None:
    for left, right in zip(one, other, strict=True):
        np.testing.assert_array_equal(left, right)


@every_id
@every_device
def test_only_the_fixed_tasks_occur_each_as_often(id: str, device: str) -> None:
    """7 tasks, 3,500 rows, 5 trials: chi-square, 6 degrees of freedom, 22.5 is 1 in 1,000.

    A task drawn 15 % too often is found with a probability of 99 %. Pairs of one row's trials, and of neighbouring
    rows, none of them overlapping: 48 degrees of freedom, 84.0.
    """
    runner = fixed_runner(id, 7, device=device, rows=3500, horizon=1)
    assert len(np.unique(rows_of(runner.fixed_tasks), axis=0)) == 7
    fixed, drawn = runner.fixed_tasks, []
    runner.restart()
    for _ in range(5):
        drawn.append(which(runner.state.task, fixed))
        runner.step(np.zeros((3500, *runner.scenario.action_space.shape), dtype=np.int64))
    counts = np.bincount(np.ravel(drawn), minlength=7)
    assert np.sum((counts - 2500) ** 2 / 2500) < 22.5
    trials = np.asarray(drawn)
    for one, other in ((trials[1:4:2], trials[0:4:2]), (trials[:, 1::2], trials[:, ::2])):
        pairs = np.bincount((7 * one + other).ravel(), minlength=49)
        assert np.sum((pairs - pairs.sum() / 49) ** 2 / (pairs.sum() / 49)) < 84.0


@every_id
@every_device
def test_without_fixed_tasks_they_are_the_scenarios(id: str, device: str) -> None:
    """The task stream of each restart, as it always was; and no trace in a snapshot."""
    runner, rng = fixed_runner(id, None, device=device), rng_on(device, 4)
    runner.restart()
    for trial in range(4):
        rng.rekey(TASK, trial * 4)  # a restart and 3 decisions
        same(runner.state.task, runner.scenario.sample_task(rng, 6))
        assert not any(name.startswith("fixed_tasks") for name in runner.snapshot())
        go_on(runner, 3, np.random.default_rng(0))
    assert runner.fixed_tasks is None


@every_id
@every_device
def test_fixed_tasks_leave_the_luck_as_it_is(id: str, device: str) -> None:
    """One fixed task is what an explicit task is, bit for bit; an explicit one goes before the fixed ones."""
    fixed, once = (fixed_runner(id, 1, device=device, mode=mode) for mode in ("SameStep", "Disabled"))
    task = {name: leaf[0] for name, leaf in named(fixed.fixed_tasks).items()}
    explicit, given = fixed_runner(id, None, device=device, mode="Disabled"), fixed_runner(id, task, device=device)
    fixed.restart(), once.restart(), explicit.restart(task=task), given.restart()
    equal(go_on(explicit, 3, np.random.default_rng(0)), go_on(once, 3, np.random.default_rng(0)))  # it holds so long
    equal(go_on(given, 7, np.random.default_rng(0)), go_on(copy.deepcopy(fixed), 7, np.random.default_rng(0)))
    other = fixed_runner(id, None, seed=99, rows=6).scenario.sample_task(make_rng(seed=99), 6)
    fixed.restart(task=other)
    same(fixed.state.task, other)
    fixed.restart()
    assert set(which(fixed.state.task, fixed.fixed_tasks)) == {0}


@every_id
@every_device
def test_seed_and_number_alone_decide_on_the_fixed_tasks(id: str, device: str) -> None:
    first = fixed_runner(id, 5, device=device).fixed_tasks
    same(fixed_runner(id, np.int64(5), device=device, rows=1).fixed_tasks, first)
    later = fixed_runner(id, 5, device=device, seed=8)
    assert differ(later.fixed_tasks, first)
    later.restart(), go_on(later, 4, np.random.default_rng(0))
    kept = named(later.fixed_tasks)
    later.restart(seed=4)
    same(later.fixed_tasks, first)
    later.restart(), go_on(later, 7, np.random.default_rng(0))
    same(later.fixed_tasks, first)  # without a seed they stay
    later.seed(8)
    equal(list(named(later.fixed_tasks).values()), list(kept.values()))
    other = fixed_runner(id, 5, device=device).scenario.sample_task(rng_on(device, 1), 9)
    given = fixed_runner(id, other, device=device)
    given.seed(3)
    same(given.fixed_tasks, other)  # given ones stay whatever the seed
    rng = rng_on(device, 4)
    for stream in (TASK, START, STEP):  # and no trial's own draws are used for them
        rng.rekey(stream, 0)
        assert differ(given.scenario.sample_task(rng, 5), first)


@every_id
@every_device
@pytest.mark.parametrize("mode", ["SameStep", "NextStep", "Disabled"])
def test_snapshots_carry_the_fixed_tasks(id: str, device: str, mode: str) -> None:
    """Into a runner that drew others, or has none: everything goes on as if nothing had happened, restarts included."""

    def runner(tasks: Any, seed: int) -> Runner:
        scenario = recgym.make_scenario(id, **varied(id, horizon=4))
        return Runner(scenario, 3, rng_on(device, seed), autoreset_mode=mode, tasks=tasks)

    source = runner(5, 8)
    source.restart()
    go_on(source, 2, np.random.default_rng(0))
    source.restart(source.rng.xp.asarray([True, False, False]))
    kept, fixed = source.snapshot(), named(source.fixed_tasks)
    given = source.scenario.sample_task(rng_on(device, 1), 5)
    others = [runner(tasks, 99) for tasks in (5, None, given)]
    others[1].restart()
    for other in others:
        other.restore(kept)
        equal(list(named(other.fixed_tasks).values()), list(fixed.values()))
    results = []
    for one in (source, *others):
        found = go_on(one, 2 if mode == "Disabled" else 13, np.random.default_rng(1))
        one.restart()
        results.append([*found, *one.snapshot().values()])
        equal(results[-1], results[0])
    bare = runner(None, 8)
    bare.restart()
    others[1].restore(bare.snapshot())  # without any: as that snapshot
    assert others[1].fixed_tasks is None
    more = runner(6, 8)
    more.restart()
    for wrong in (bare.snapshot(), more.snapshot()):
        before = others[0].snapshot()
        with pytest.raises(ValueError, match=r"environment state 'fixed_tasks.*should be .*\(5,.*, found"):
            others[0].restore(wrong)
        equal(list(others[0].snapshot().values()), list(before.values()))


@every_id
def test_fixed_tasks_are_checked(id: str) -> None:
    for wrong in (0, -1, 2.5, 3.0, True, False, "3", float("nan"), [3], 1_000_001, np.zeros(3)):
        with pytest.raises(ValueError, match="tasks must be None, a whole number from 1 to 1000000, or"):
            fixed_runner(id, wrong)
    tasks = named(fixed_runner(id, 4).fixed_tasks)
    number = len(next(iter(tasks.values())))
    with pytest.raises(ValueError, match="tasks must be None"):
        fixed_runner(id, {key: leaf[:0] for key, leaf in tasks.items()})
    bad: list[Any] = [{}, {**tasks, "extra": np.zeros(number)}]
    for name, value in tasks.items():
        bad += [{**tasks, name: wrong} for wrong in (value[None], value[:, None])]
        if value.size:
            bad += [{**tasks, name: value * np.nan}, {**tasks, name: value[..., :-1]}]
        bad += [{key: leaf for key, leaf in tasks.items() if key != name}]
        bad += [{**tasks, name: value[: number - 1]}] if len(tasks) > 1 else []  # else it is a smaller number of tasks
    for wrong in bad:
        with pytest.raises(ValueError, match="task"):
            fixed_runner(id, wrong)


@every_id
@every_device
def test_sb3_fixed_tasks(id: str, device: str) -> None:
    pytest.importorskip("stable_baselines3")
    from recgym.sb3 import RecVecEnv, make_vec_env

    def make(seed: Any, tasks: Any) -> RecVecEnv:
        return make_vec_env(id, 4, seed, device, tasks=tasks, **varied(id, horizon=3))

    if device == "torch":
        pytest.importorskip("torch")
    env, twin = make(5, 3), make([5], 3)
    with pytest.raises(gym.error.ResetNeeded):
        print(env.fixed_tasks)
    np.testing.assert_array_equal(env.reset(), twin.reset())
    fixed = named(env.fixed_tasks)
    assert len(rows_of(env.fixed_tasks)) == 3 and env.get_attr("fixed_tasks")[0] is env.runner.fixed_tasks
    seen = []
    for _ in range(25):
        seen += which(env.runner.state.task, env.fixed_tasks).tolist()
        action = np.zeros((4, *env.action_space.shape), dtype=int)
        np.testing.assert_array_equal(env.step(action)[0], twin.step(action)[0])
    assert set(seen) == {0, 1, 2}
    env.reset()
    equal(list(named(env.fixed_tasks).values()), list(fixed.values()))  # no seed: the same go on
    env.seed(6)
    equal(list(named(env.fixed_tasks).values()), list(fixed.values()))  # it holds from the reset on
    env.reset()
    assert (rows_of(env.fixed_tasks) != rows_of(twin.fixed_tasks)).any()
    unseeded = [make(None, 3) for _ in range(2)]
    for one in unseeded:
        one.reset()
    assert differ(*(one.fixed_tasks for one in unseeded))
    again = RecVecEnv(env.scenario, 2, device=device, tasks=twin.fixed_tasks)
    again.seed(77)
    again.reset()
    same(again.fixed_tasks, twin.fixed_tasks)
    which(again.runner.state.task, twin.fixed_tasks)
    restored = make(9, None)
    restored.restore(twin.snapshot())
    for _ in range(7):
        np.testing.assert_array_equal(restored.step(action)[0], twin.step(action)[0])
    assert make(1, None).reset().shape == (4, *env.observation_space.shape)
    with pytest.raises(ValueError, match="tasks must be None"):
        make(5, 0)


@every_id
def test_evaluation_on_one_task_per_trial(id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each chunk plays its own slice, with the luck of its key; one task for all is that task for each."""
    tasks = fixed_runner(id, 11).fixed_tasks
    scenario = recgym.make_scenario(id, **varied(id, horizon=3))
    monkeypatch.setattr("recgym.evaluation.trials.CHUNK", 4)
    played: list[np.ndarray] = []

    class Spy(RandomPolicy):
        sees_state = True

        def predict(self, observation: Any, *args: Any, **kwargs: Any) -> Any:
            if (observation.seen.time == 0).all():
                played.append(rows_of(observation.task))
            return super().predict(scenario.observe(observation.seen), *args, **kwargs)

    for given in (tasks, tasks._asdict(), {name: leaf.tolist() for name, leaf in named(tasks).items()}):
        played.clear()
        result = rollout(Spy(scenario), scenario, trials=11, seed=2, task=given)
        assert [len(part) for part in played] == [4, 4, 3]
        np.testing.assert_array_equal(np.concatenate(played), rows_of(tasks))
    one = {name: leaf[0] for name, leaf in named(tasks).items()}
    alike = {name: np.stack([leaf] * 11) for name, leaf in one.items()}
    trials = [rollout(RandomPolicy(scenario), scenario, trials=11, seed=2, task=task) for task in (one, alike)]
    equal([leaf for _, leaf in tree_items(trials[0])], [leaf for _, leaf in tree_items(trials[1])])
    np.testing.assert_array_equal(trials[0].actions, result.actions)
    for wrong in (10, 12, 4):
        with pytest.raises(ValueError, match=rf"must have shape .* or \({wrong},.*\), got \(11,"):
            rollout(RandomPolicy(scenario), scenario, trials=wrong, seed=2, task=tasks)
