"""Randomness: are the draws what they say, independent across steps, rows and streams, and repeatable?

Seeds are fixed, so nothing here fails by chance. Means are held to 4 standard errors; a defect of 6 standard errors is
then found with a probability of 98 %.
"""

from __future__ import annotations

import copy
import math
import os
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import pytest

import recgym
from recgym.arrays import batch_size, to_numpy, tree_items, tree_map
from recgym.baselines import RandomPolicy
from recgym.evaluation import rollout
from recgym.files import write_atomically
from recgym.layout import LOG_SCALE, Field, Layout, log_scaled
from recgym.rng import START, STEP, TASK, NumpyRng, TorchRng, beta, make_rng
from recgym.runner import Runner

DEVICES = ["cpu", "torch"]
every_device = pytest.mark.parametrize("device", DEVICES)


def rng_on(device: str, seed: Any = 0) -> Any:
    if device == "torch":
        pytest.importorskip("torch")
    return make_rng(device, seed)


def check_moments(draws: Any, mean: float, variance: float) -> None:
    """Mean and variance of independent draws within 4 standard errors (that of the variance from the 4th moment)."""
    values = to_numpy(draws).astype(np.float64).ravel()
    assert np.isfinite(values).all()
    count, centred = len(values), values - mean
    assert abs(centred.mean()) < 4 * math.sqrt(variance / count)
    spread = np.mean(centred**4) - np.mean(centred**2) ** 2
    assert abs(np.mean(centred**2) - variance) < 4 * math.sqrt(spread / count)


def full(rng: Any, value: float, count: int) -> Any:
    return rng.xp.full((count,), value, dtype=rng.xp.float32, device=rng.device)


# --- distributions ---------------------------------------------------------------------------------------------------
@every_device
def test_uniform_and_normal(device: str) -> None:
    rng = rng_on(device, 1)
    rng.rekey(STEP, 3)
    uniform, normal = rng.uniform((500, 400)), rng.normal((500, 400))
    assert str(uniform.dtype).endswith("float32") and str(normal.dtype).endswith("float32")
    assert tuple(uniform.shape) == tuple(normal.shape) == (500, 400)
    assert float(uniform.min()) >= 0.0 and float(uniform.max()) < 1.0
    check_moments(uniform, 1 / 2, 1 / 12)
    check_moments(normal, 0.0, 1.0)
    check_moments(to_numpy(normal) ** 3, 0.0, 15.0)  # not skewed: E x^6 = 15
    shares = np.histogram(to_numpy(uniform), bins=20, range=(0, 1))[0]
    assert np.sum((shares - 10_000) ** 2 / 10_000) < 43.8  # chi-square, 19 degrees of freedom: 1 in 1,000


@every_device
@pytest.mark.parametrize("rate", [0.02, 3.0, 250.0])
def test_poisson(device: str, rate: float) -> None:
    rng = rng_on(device, 2)
    rng.rekey(STEP, 0)
    draws = rng.poisson(full(rng, rate, 200_000))
    assert str(draws.dtype).endswith("int64")
    check_moments(draws, rate, rate)


@every_device
@pytest.mark.parametrize("count, probability", [(1, 0.3), (20, 0.02), (5_000, 0.4), (7, 0.0), (7, 1.0)])
def test_binomial(device: str, count: int, probability: float) -> None:
    rng = rng_on(device, 3)
    rng.rekey(STEP, 0)
    counts = rng.xp.full((200_000,), count, dtype=rng.xp.int64, device=rng.device)
    draws = rng.binomial(counts, full(rng, probability, 200_000))
    assert str(draws.dtype).endswith("int64")
    if probability in (0.0, 1.0):
        assert (to_numpy(draws) == count * probability).all()
    else:
        check_moments(draws, count * np.float32(probability), count * probability * (1 - probability))


@every_device
@pytest.mark.parametrize("shape", [0.2, 1.0, 30.0])
def test_gamma(device: str, shape: float) -> None:
    rng = rng_on(device, 4)
    rng.rekey(STEP, 0)
    draws = rng.gamma(full(rng, shape, 200_000))
    assert str(draws.dtype).endswith("float32")
    check_moments(draws, shape, shape)


@every_device
@pytest.mark.parametrize("a, b", [(1.0, 1.0), (2.0, 5.0), (0.05, 0.1), (1.3, 250.0), (0.001, 0.002), (1.0, 0.5)])
def test_beta(device: str, a: float, b: float) -> None:
    """Closed-form moments, also where a float32 gamma would underflow to 0/0."""
    rng = rng_on(device, 5)
    rng.rekey(TASK, 0)
    draws = beta(rng, a, b, (400, 1000))
    assert tuple(draws.shape) == (400, 1000) and str(draws.dtype).endswith("float32")
    values = to_numpy(draws)
    assert np.isfinite(values).all() and values.min() >= 0.0 and values.max() <= 1.0
    mean = a / (a + b)
    check_moments(draws, mean, mean * (1 - mean) / (a + b + 1))


# --- streams ---------------------------------------------------------------------------------------------------------
def correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Correlation of uniforms, in standard errors: a defect of .01 is 4.5 of them at 200,000 pairs."""
    return float(np.mean((x - 0.5) * (y - 0.5)) * 12 * math.sqrt(x.size))


@every_device
def test_steps_rows_streams_and_seeds_are_independent(device: str) -> None:
    steps, rows = 2000, 100
    rng, other = rng_on(device, 6), rng_on(device, 7)
    streams = np.empty((3, steps, rows))
    foreign = np.empty((steps, rows))
    for step in range(steps):
        for stream in (TASK, START, STEP):
            rng.rekey(stream, step)
            streams[stream, step] = to_numpy(rng.uniform((rows,)))
        other.rekey(STEP, step)
        foreign[step] = to_numpy(other.uniform((rows,)))
    drawn = streams[STEP]
    for lag in (1, 2, 3, 4, 5):
        assert abs(correlation(drawn[lag:], drawn[:-lag])) < 4, f"{lag} steps apart"
        assert abs(correlation(drawn[:, lag:], drawn[:, :-lag])) < 4, f"{lag} rows apart"
        assert abs(correlation(drawn[lag:], streams[TASK][:-lag])) < 4, f"streams {lag} steps apart"
    for stream in (TASK, START):
        assert abs(correlation(drawn, streams[stream])) < 4
        check_moments(streams[stream], 1 / 2, 1 / 12)
    assert abs(correlation(drawn, foreign)) < 4
    # the first draw of each key alone: that is what a batch of one sees
    assert abs(correlation(drawn[1:, 0], drawn[:-1, 0])) < 4
    check_moments(drawn[:, 0], 1 / 2, 1 / 12)
    assert len(np.unique(streams)) > 0.98 * streams.size  # of 2^24 values, 600,000 draws repeat 1.8 %


@every_device
def test_rekeying_repeats_whatever_went_before(device: str) -> None:
    rng = rng_on(device, 8)

    def draws() -> list[np.ndarray]:
        rng.rekey(STEP, 12)
        odd = [rng.uniform((3,)), rng.normal((5,)), rng.gamma(full(rng, 0.4, 7)), rng.poisson(full(rng, 2.0, 3))]
        return [to_numpy(x) for x in [*odd, rng.uniform((1,)), rng.normal((2, 2))]]

    first = draws()
    rng.rekey(START, 12)
    rng.uniform((1,)), rng.normal((1,))  # leaves half a word of 64 bits behind
    for one, other in zip(draws(), first, strict=True):
        np.testing.assert_array_equal(one, other)
    again = copy.deepcopy(rng)
    rng.seed(9)
    assert not np.array_equal(draws()[0], first[0])
    rng.key = again.key
    np.testing.assert_array_equal(draws()[0], first[0])
    rng.seed(8)
    np.testing.assert_array_equal(draws()[5], first[5])


@every_device
def test_seeds(device: str) -> None:
    def draw(seed: Any) -> np.ndarray:
        rng = rng_on(device, seed)
        rng.rekey(TASK, 0)
        return to_numpy(rng.uniform((8,)))

    np.testing.assert_array_equal(draw([3, 4]), draw((3, 4)))
    np.testing.assert_array_equal(draw(2_000_000), draw(np.int64(2_000_000)))
    several = [draw(seed) for seed in (0, 1, 2, [0, 1], [1, 0, 1], [3, 4], [4, 3], 2**70, None, None)]
    assert len(np.unique(several, axis=0)) == len(several)


def test_torch_keys_do_not_collide() -> None:
    """The CPU engine takes 32 bits of the seed: all (stream, step) of a run must differ in them."""
    pytest.importorskip("torch")
    for seed in (0, 1):
        rng = TorchRng(seed)
        seeds = set()
        for step in range(33_334):
            for stream in (TASK, START, STEP):
                rng.rekey(stream, step)
                seeds.add(rng._generator.initial_seed() & 0xFFFFFFFF)
        assert len(seeds) == 3 * 33_334


def test_numpy_keys_set_the_counter() -> None:
    """Two keys share no numbers, however many are drawn from one: stream and step are the counter's upper words."""
    rng = NumpyRng(1)
    rng.rekey(STEP, 5)
    counter = rng._generator.bit_generator.state["state"]["counter"]
    assert counter.tolist() == [0, 0, 5, STEP]
    assert rng.key.shape == (2,) and rng.key.dtype == np.int64


# --- fixed tasks -----------------------------------------------------------------------------------------------------
IDS = list(recgym.SCENARIOS)
every_id = pytest.mark.parametrize("id", IDS)
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
        step = runner.step(actions.integers(0, runner.scenario.layout.candidates, runner.rows))
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
        runner.step(np.zeros(3500, dtype=np.int64))
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
        bad += [{**tasks, name: wrong} for wrong in (value * np.nan, value[None], value[:, None], value[..., :-1])]
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
        np.testing.assert_array_equal(env.step(np.zeros(4, dtype=int))[0], twin.step(np.zeros(4, dtype=int))[0])
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
        np.testing.assert_array_equal(restored.step(np.ones(4, dtype=int))[0], twin.step(np.ones(4, dtype=int))[0])
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


# --- small things ----------------------------------------------------------------------------------------------------
def test_log_scaled_maps_a_thousand_to_one() -> None:
    np.testing.assert_allclose(log_scaled(np.float32([0, 1, 9, 1000])), np.log([1, 2, 10, 1001]) / LOG_SCALE, rtol=1e-6)
    assert math.log(1001) == LOG_SCALE


class Leaf(NamedTuple):
    a: Any
    b: Any


def test_trees() -> None:
    tree = Leaf(np.ones((4, 2)), Leaf(np.zeros(4), np.full(4, 2.0)))
    assert [name for name, _ in tree_items(tree)] == ["a", "b.a", "b.b"]
    doubled = tree_map(lambda x, y: x + y, tree, tree)
    assert isinstance(doubled, Leaf) and isinstance(doubled.b, Leaf)
    for (_, one), (_, two) in zip(tree_items(tree), tree_items(doubled), strict=True):
        np.testing.assert_array_equal(2 * one, two)
    assert batch_size(tree) == batch_size(tree.b) == 4


def test_layout_by_hand() -> None:
    layout = Layout(
        (Field("c", 0, 1, "c"), Field("w", -1, 2, "w", 2)), (Field("i", 0, 3, "i"), Field("v", 4, 5, "v", 2)), 2
    )
    assert layout.sizes == (3, 3, 9)
    observation = np.arange(18, dtype=np.float32).reshape(2, 9)
    np.testing.assert_array_equal(layout.get(observation, "c"), [0, 9])
    np.testing.assert_array_equal(layout.get(observation, "w"), [[1, 2], [10, 11]])
    np.testing.assert_array_equal(layout.get(observation, "i"), [[3, 6], [12, 15]])
    np.testing.assert_array_equal(layout.get(observation, "v"), [[[4, 5], [7, 8]], [[13, 14], [16, 17]]])
    context, candidates = layout.split(observation)
    np.testing.assert_array_equal(context, [[0, 1, 2], [9, 10, 11]])
    np.testing.assert_array_equal(candidates[1], [[12, 13, 14], [15, 16, 17]])
    one_context, one = layout.split(observation[0])  # any leading axes
    assert one_context.shape == (3,) and one.shape == (2, 3)
    fields = {field.name: layout.get(observation, field.name) for field in layout}
    np.testing.assert_array_equal(layout.join(fields, fields), observation)
    assert layout.box().low.tolist() == [0, -1, -1, 0, 4, 4, 0, 4, 4]
    assert layout.box().high.tolist() == [1, 2, 2, 3, 5, 5, 3, 5, 5]
    assert layout.box().dtype == np.float32


def test_a_name_stands_for_one_field() -> None:
    x = Field("x", 0, 1, "x")
    with pytest.raises(ValueError, match="several fields named x: name each differently"):
        Layout((Field("t", 0, 1, "t"), x), (x,), 2)


def test_write_atomically(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a" / "b.bin"
    write_atomically(target, b"one")
    write_atomically(target, b"two")
    assert target.read_bytes() == b"two" and [p.name for p in target.parent.iterdir()] == ["b.bin"]
    plain = tmp_path / "plain"
    plain.write_bytes(b"")
    assert target.stat().st_mode == plain.stat().st_mode

    def fail(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(target, b"three")
    assert target.read_bytes() == b"two" and [p.name for p in target.parent.iterdir()] == ["b.bin"]
