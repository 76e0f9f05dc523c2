"""The Gymnasium interfaces of every registered environment: what they return, seeds, tasks, actions, devices."""

from __future__ import annotations

import copy
import itertools
import pickle
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from hypothesis import given, settings
from hypothesis import strategies as st

import recgym
from recgym.arrays import to_numpy, tree_items
from recgym.rng import NumpyRng, make_rng
from recgym.runner import Runner
from tests.registry import (
    FEWEST,
    IDS,
    MODES,
    OLD_GYMNASIUM,
    TABLE,
    VARIED,
    as_lists,
    draw,
    every_case,
    every_device,
    every_id,
    every_mode,
    json_task,
    parameters_of,
    play,
    rows_of,
    same,
    single,
    varied,
    vector,
)


# --- what Gymnasium asks for -----------------------------------------------------------------------------------------
@every_id
def test_gymnasium_checks_the_environment(id: str) -> None:
    pytest.importorskip("matplotlib")  # it draws in every render mode
    check_env(gym.make(id).unwrapped)


@every_id
def test_stable_baselines_checks_the_environment(id: str) -> None:
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    checker.check_env(gym.make(id))


@every_id
def test_registration_leaves_the_horizon_to_the_scenario(id: str) -> None:
    spec = gym.spec(id)
    assert spec.max_episode_steps is None and not spec.nondeterministic
    for horizon in (2, 150):
        env = gym.make(id, horizon=horizon)
        assert env.spec.max_episode_steps == horizon + 1  # a TimeLimit made of it truncates nothing
        for again in (gym.wrappers.TimeAwareObservation(env), gym.make(env.spec)):
            again.reset(seed=0)
            ends = [again.step(again.action_space.sample())[2:4] for _ in range(horizon)]
            assert ends == [(False, False)] * (horizon - 1) + [(True, False)]
    gym.make_vec(env.spec, num_envs=2)
    with pytest.raises(ValueError, match="max_episode_steps=150 would cut trials of 150 decisions short"):
        gym.make_vec(id, num_envs=2, horizon=150, max_episode_steps=150)
    assert gym.make(f"recgym:{id}").unwrapped.spec.id == id


@every_id
def test_spec_round_trip(id: str) -> None:
    env = gym.make(id, horizon=5, **({"features": TABLE} if "features" in parameters_of(id) else {}))
    again = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    assert again.unwrapped.scenario == env.unwrapped.scenario
    assert again.unwrapped.scenario.horizon == 5
    same(again.reset(seed=3), env.reset(seed=3))

    batch = gym.make_vec(id, num_envs=3, horizon=5, device="cpu", autoreset_mode="NextStep")
    text = batch.spec.to_json()
    other = gym.make_vec(gym.envs.registration.EnvSpec.from_json(text), num_envs=3)
    assert other.unwrapped.scenario == batch.unwrapped.scenario
    assert other.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    same(other.reset(seed=3), batch.reset(seed=3))


@every_id
def test_works_inside_gymnasiums_own_vector(id: str) -> None:
    env = gym.make_vec(id, num_envs=2, vectorization_mode="sync", horizon=3)
    env.reset(seed=1)
    for _ in range(5):
        observation, *_ = env.step(env.action_space.sample())
        assert env.observation_space.contains(observation)
    env.close()


@every_id
@every_mode
def test_vector_wrappers_work(id: str, mode: str) -> None:
    if OLD_GYMNASIUM and mode == "SameStep":
        pytest.skip("this Gymnasium's RecordEpisodeStatistics counts as if the mode were NextStep")
    env = gym.wrappers.vector.RecordEpisodeStatistics(vector(id, 3, horizon=4, autoreset_mode=mode))
    env.reset(seed=0)
    rng, lengths = np.random.default_rng(0), []
    for _ in range(12):
        _, _, ended, _, info = env.step(draw(env.single_action_space, rng, 3))
        lengths += info["episode"]["l"][info["_episode"]].tolist() if "episode" in info else []
        if mode == "Disabled" and ended.any():
            env.reset(options={"reset_mask": ended})
    assert len(lengths) >= 6 and set(lengths) == {4}


@every_id
def test_infos_can_be_listed_by_row(id: str) -> None:
    if OLD_GYMNASIUM:
        pytest.skip("this Gymnasium's DictInfoToList wants a mask beside every key")
    env = gym.wrappers.vector.DictInfoToList(vector(id, 3, horizon=2, autoreset_mode="SameStep"))
    env.reset(seed=0)
    for t in range(4):
        *_, infos = env.step(draw(env.single_action_space, np.random.default_rng(0), 3))
        assert len(infos) == 3 and all("regret" in info and ("final_obs" in info) == (t % 2 == 1) for info in infos)


# --- our own checker of a batch --------------------------------------------------------------------------------------
@every_case
@every_mode
def test_vector_returns_what_its_spaces_say(id: str, parameters: dict[str, Any], mode: str) -> None:
    env = vector(id, 3, autoreset_mode=mode, **{"horizon": 4, **parameters})
    scenario, rng = env.scenario, np.random.default_rng(0)
    assert env.metadata["autoreset_mode"].value == mode
    assert env.observation_space.shape == (3, *env.single_observation_space.shape)
    assert env.single_observation_space.shape == (scenario.layout.sizes[2],)
    assert env.single_observation_space.dtype == np.float32
    keys = ["regret", "expected_reward", *scenario.objectives, *scenario.costs]
    observation, info = env.reset(seed=1)
    assert list(info) == ["task", "_task"] and env.observation_space.contains(observation)
    assert info["_task"].all()
    same(info["task"], dict(tree_items(env.tasks)))
    for t in range(1, 2 * scenario.horizon + 4):
        observation, reward, terminated, truncated, info = env.step(draw(env.single_action_space, rng, 3))
        assert env.observation_space.contains(observation)  # float32, the right shape, within bounds, no NaN
        assert reward.dtype == np.float32 and terminated.dtype == np.bool_ and truncated.dtype == np.bool_
        assert reward.shape == terminated.shape == truncated.shape == (3,)
        assert not truncated.any()
        cycle = scenario.horizon + (mode == "NextStep")  # calls from one end to the next
        ends = t % cycle == scenario.horizon % cycle
        assert terminated.tolist() == [ends] * 3
        final = ["final_info", "_final_info", "final_obs", "_final_obs"] if ends and mode == "SameStep" else []
        begins = mode != "Disabled" and t % cycle == (scenario.horizon + (mode == "NextStep")) % cycle
        assert list(info) == keys + final + (["task", "_task"] if begins else [])
        if begins:
            assert info["_task"].all()
            same(info["task"], dict(tree_items(env.tasks)))
        for key in keys:
            assert info[key].shape == (3,) and info[key].dtype == np.float32 and np.isfinite(info[key]).all()
        assert (info["regret"] >= 0).all()
        if final:
            assert list(info["final_info"]) == keys
            same(info["_final_obs"], terminated)
            same(info["_final_info"], terminated)
            assert env.observation_space.contains(info["final_obs"])
            assert (scenario.layout.get(info["final_obs"], "time") == 1).all()
            assert (scenario.layout.get(observation, "time") == 0).all()
            same(info["final_info"], {key: info[key] for key in keys})
        if ends and mode == "Disabled":
            env.reset()


@every_id
@every_device
def test_what_a_step_returns_shares_no_memory(id: str, device: str) -> None:
    env = vector(id, 3, device=device, horizon=1, autoreset_mode="SameStep")
    env.reset(seed=1)
    *arrays, info = env.step(np.zeros(env.action_space.shape, dtype=np.int64))
    env.step(np.zeros(env.action_space.shape, dtype=np.int64))
    final, tasks = info.pop("final_info"), info.pop("task")
    own = [leaf for _, leaf in tree_items(env.runner.state)]
    leaves = [to_numpy(leaf) for leaf in (*arrays, *info.values(), *final.values(), *tasks.values())]
    assert not any(np.shares_memory(one, to_numpy(other)) for one in leaves for other in own)
    assert not any(np.shares_memory(one, other) for one, other in itertools.combinations(leaves, 2))


@every_case
def test_single_terminates_at_the_horizon(id: str, parameters: dict[str, Any]) -> None:
    env, rng = single(id, **{"horizon": 6, **parameters}), np.random.default_rng(0)
    keys = ["regret", "expected_reward", *env.scenario.objectives, *env.scenario.costs]
    observation, info = env.reset(seed=2)
    assert list(info) == ["task"] and env.observation_space.contains(observation)
    assert all(isinstance(leaf, np.ndarray) for leaf in info["task"].values())
    for t in range(1, env.scenario.horizon + 1):
        observation, reward, terminated, truncated, info = env.step(draw(env.action_space, rng))
        assert env.observation_space.contains(observation)
        assert type(reward) is float and type(terminated) is bool and truncated is False
        assert terminated is (t == env.scenario.horizon)
        assert list(info) == keys and all(type(value) is np.float64 for value in info.values())
    with pytest.raises(gym.error.ResetNeeded, match="ended"):
        env.step(draw(env.action_space, rng))


@settings(max_examples=8, deadline=None, derandomize=True, database=None)
@given(seed=st.integers(0, 2**40), shares=st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=25))
@every_case
def test_observations_stay_in_the_space(id: str, parameters: dict[str, Any], seed: int, shares: list[float]) -> None:
    env = vector(id, 4, **{"horizon": 9, **parameters})
    high = np.asarray(getattr(env.single_action_space, "n", getattr(env.single_action_space, "nvec", None)))
    env.reset(seed=seed)
    for share in shares:  # the same candidate over and over is what hypothesis tries first
        action = np.broadcast_to((share * high).astype(np.int64), env.action_space.shape)
        observation, _, _, _, info = env.step(action)
        assert env.observation_space.contains(observation), observation
        assert "final_obs" not in info or env.observation_space.contains(info["final_obs"])


@every_id
@every_device
def test_what_is_handed_out_is_the_callers(id: str, device: str) -> None:
    """Overwriting every returned array in place changes nothing that follows."""
    for mode in MODES:
        env, copied = (vector(id, 2, horizon=3, device=device, autoreset_mode=mode) for _ in range(2))
        env.reset(seed=4), copied.reset(seed=4)
        rng = np.random.default_rng(0)
        for t in range(8):
            if t == 1:  # a desynchronised batch looks at its old states again
                mask = np.array([True, False])
                same(env.reset(options={"reset_mask": mask}), copied.reset(options={"reset_mask": mask}))
            action = draw(env.single_action_space, rng, 2)
            result, wanted = (batch.step(action) for batch in (env, copied))
            same(result, wanted)
            ended = to_numpy(wanted[2]).copy()
            leaves = [*result[:4], *(v for v in result[4].values() if not isinstance(v, dict))]
            for leaf in leaves:
                leaf[...] = True if leaf.dtype in (np.bool_, getattr(env.runner.rng.xp, "bool", None)) else 77.0
            if mode == "Disabled" and ended.any():
                same(env.reset(options={"reset_mask": ended}), copied.reset(options={"reset_mask": ended}))


# --- seeds and copies ------------------------------------------------------------------------------------------------
@every_id
@every_mode
@every_device
def test_seeded_copies_are_equal(id: str, mode: str, device: str) -> None:
    env, other = (vector(id, 5, horizon=6, autoreset_mode=mode, device=device) for _ in range(2))
    steps = 6 if mode == "Disabled" else 17
    first = play(env, 11, steps, np.random.default_rng(0), (5,))
    same(play(other, 11, steps, np.random.default_rng(0), (5,)), first)
    same(play(env, 11, steps, np.random.default_rng(0), (5,)), first)  # seeding forgets what went before
    different = play(env, 12, steps, np.random.default_rng(0), (5,))
    assert not np.array_equal(to_numpy(different[-1][0]), to_numpy(first[-1][0]))
    assert to_numpy(first[-1][1]).dtype == np.float32


@every_id
def test_seeds_of_several_kinds(id: str) -> None:
    env = vector(id, 4, **varied(id))

    def tasks(seed: Any) -> Any:
        env.reset(seed=seed)
        return env.tasks

    same(tasks([1, 2]), tasks([1, 2]))
    same(tasks(np.int64(7)), tasks(7))
    for other in ([1, 3], [2, 1], 1, None):
        assert (rows_of(tasks(other)) != rows_of(tasks([1, 2]))).any(axis=1).all()
    assert (rows_of(tasks(None)) != rows_of(tasks(None))).any(axis=1).all()
    for bad in (-1, "x", 1.5):
        before = env.runner.snapshot()
        with pytest.raises((gym.error.Error, ValueError, TypeError)):
            env.reset(seed=bad)
        same(env.runner.snapshot(), before)
    one = single(id)
    same(one.reset(seed=np.int64(7))[1], one.reset(seed=7)[1])
    same(one.reset(seed=[7, 1])[1], one.reset(seed=[7, 1])[1])


@every_id
def test_rows_differ(id: str) -> None:
    env = vector(id, 50, **varied(id))
    env.reset(seed=0)
    for name, leaf in tree_items(env.tasks):
        if not leaf.size:
            continue
        values = len(np.unique(leaf.reshape(50, -1), axis=0))
        if recgym.SCENARIOS[id].reference:
            assert values == (50 if name in VARIED[id] else 1), name
        else:
            assert values >= FEWEST.get(name, 50), name
    assert len(np.unique(rows_of(env.tasks), axis=0)) == 50


@pytest.mark.parametrize("id", [id for id in IDS if recgym.SCENARIOS[id].reference])
@every_device
def test_a_reference_problem_is_one_task(id: str, device: str) -> None:
    """Whatever the seed, in every trial, and it starts alike: luck is all that differs."""
    env = vector(id, 50, device=device, horizon=1)
    first = [to_numpy(env.reset(seed=0)[0]).copy(), rows_of(env.tasks)]
    for seed in (0, 1, None):
        for part, rows in zip(first, (to_numpy(env.reset(seed=seed)[0]), rows_of(env.tasks)), strict=True):
            np.testing.assert_array_equal(rows, np.stack([part[0]] * 50))
        env.step(np.zeros(env.action_space.shape, dtype=np.int64))
        np.testing.assert_array_equal(rows_of(env.tasks), first[1])


@every_id
@every_mode
def test_single_is_a_batch_of_one(id: str, mode: str) -> None:
    """Bit for bit, over three trials, against Gymnasium's own vector environment of one single environment."""
    ours = vector(id, 1, horizon=4, autoreset_mode=mode)
    theirs = gym.vector.SyncVectorEnv([lambda: single(id, horizon=4)], autoreset_mode=AutoresetMode(mode))
    rng = np.random.default_rng(1)
    observation, _ = ours.reset(seed=9)
    reference, info = theirs.reset(seed=9)
    same(observation, reference)
    for name, leaf in tree_items(ours.tasks):
        same(leaf, info["task"][name])
    for _ in range(14):
        action = draw(ours.single_action_space, rng, 1)
        mine, other = ours.step(action), theirs.step(action)
        for position in (0, 2, 3):
            same(mine[position], other[position])
        np.testing.assert_array_equal(mine[1], other[1])  # Gymnasium's rewards are float64
        mine_info, info = mine[4], other[4]
        if "final_obs" in info:
            same(mine_info["final_obs"][0], info["final_obs"][0])
            mine_info, info = mine_info["final_info"], info["final_info"]
        for key in ("regret", "expected_reward", *ours.scenario.objectives, *ours.scenario.costs):
            if key in info:
                assert mine_info[key][0] == np.float32(info[key][0]), key
            else:
                assert mine_info[key][0] == 0  # Gymnasium shows the reset's info where a trial starts anew
        if mode == "Disabled" and mine[2].all():
            options = {"reset_mask": np.array([True])}
            same(ours.reset(options=dict(options))[0], theirs.reset(options=dict(options))[0])


@every_id
@every_device
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_copies_continue_alike(id: str, device: str, duplicate: Callable[[Any], Any]) -> None:
    env = vector(id, 3, horizon=5, device=device)
    play(env, 6, 7, np.random.default_rng(0), (3,))
    other, rng = duplicate(env), np.random.default_rng(1)
    for _ in range(12):
        action = draw(env.single_action_space, rng, 3)
        same(env.step(action), other.step(action))
    same(env.reset(), other.reset())
    if device == "cpu":
        one = single(id, horizon=5)
        one.reset(seed=1), one.step(draw(one.action_space, rng))
        other = duplicate(one)
        for _ in range(4):
            action = draw(one.action_space, rng)
            same(one.step(action), other.step(action))
        same(one.reset(), other.reset())


@every_id
@every_mode
@every_device
def test_snapshots_continue_alike(id: str, mode: str, device: str) -> None:
    if device == "torch":
        pytest.importorskip("torch")
    scenario = recgym.make_scenario(id, horizon=5)
    rng, runner = np.random.default_rng(0), Runner(scenario, 3, make_rng(device, 8), autoreset_mode=mode)
    with pytest.raises(gym.error.ResetNeeded):
        runner.snapshot()
    runner.reset()
    for steps in (0, 2, 3, 4):  # also right after a trial has ended
        for _ in range(steps if mode != "Disabled" or steps < 3 else 0):
            runner.step(draw(scenario.action_space, rng, 3))
        kept = runner.snapshot()
        other = Runner(scenario, 3, make_rng(device, 99), autoreset_mode=mode)
        other.restore(kept)
        same(other.snapshot(), kept)
        clone = copy.deepcopy(runner)
        for _ in range(3 if mode == "Disabled" else 9):
            action = draw(scenario.action_space, rng, 3)
            same(other.step(action), clone.step(action))
        same(other.snapshot(), clone.snapshot())


@every_id
def test_snapshots_that_do_not_fit_change_nothing(id: str) -> None:
    runner = Runner(recgym.make_scenario(id), 3, NumpyRng(1))
    runner.reset()
    kept = runner.snapshot()
    more = Runner(runner.scenario, 4, NumpyRng(1))
    more.reset()
    name = next(key for key in kept if key.startswith("state."))
    bad = [more.snapshot(), {}, {**kept, name: kept[name][:2]}, {**kept, name: kept[name].astype(np.float64)}]
    bad += [{key: value for key, value in kept.items() if key != left_out} for left_out in kept]
    for arrays in bad:
        with pytest.raises(ValueError, match="environment state"):
            runner.restore(arrays)
        same(runner.snapshot(), kept)


# --- one code, two libraries -----------------------------------------------------------------------------------------
@every_id
def test_torch_in_torch_out(id: str) -> None:
    torch = pytest.importorskip("torch")
    env = vector(id, 3, horizon=2, device="torch")
    observation, _ = env.reset(seed=1)
    assert isinstance(observation, torch.Tensor)
    for _ in range(3):
        action = torch.as_tensor(draw(env.single_action_space, np.random.default_rng(0), 3))
        *arrays, info = env.step(action)
        assert [a.dtype for a in arrays] == [torch.float32, torch.float32, torch.bool, torch.bool]
        leaves = [v for v in info.values() if not isinstance(v, dict)] + list(info.get("final_info", {}).values())
        assert all(isinstance(leaf, torch.Tensor) for leaf in leaves)
    same(vector(id, 3, device=torch.device("cpu")).reset(seed=1)[0], vector(id, 3, device="torch").reset(seed=1)[0])


@pytest.mark.parametrize("device", ["tpu", "mps", "", "cudax", "cuda:x", None, 3.5, ["cpu"]])
def test_unknown_devices_are_refused(device: Any) -> None:
    pytest.importorskip("torch")  # which knows what else is a device
    with pytest.raises(ValueError, match=r"device .* is not known; use 'cpu'"):
        vector(IDS[0], 2, device=device)


def test_a_missing_gpu_is_named() -> None:
    torch = pytest.importorskip("torch")
    device = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(ValueError, match=f"{device}.*finds .* here"):
        vector(IDS[0], 2, device=device)


# --- tasks -----------------------------------------------------------------------------------------------------------
@every_case
def test_a_task_goes_through_json_and_is_played(id: str, parameters: dict[str, Any]) -> None:
    parameters = varied(id, **parameters)
    task = json_task(id, 3, **parameters)
    env = single(id, **parameters)
    _, info = env.reset(seed=99, options={"task": task})
    assert as_lists(info["task"]) == task
    again = as_lists(env.reset()[1]["task"])  # drawn anew
    fixed = recgym.SCENARIOS[id].reference and parameters.get("families", "table") != "table"  # curves have no table
    one = fixed or not parameters.get("taste", 1) or "prior" in parameters  # these may leave but one task
    assert again != task or one


@every_id
@every_device
def test_one_task_for_all_rows_or_one_per_row(id: str, device: str) -> None:
    parameters = varied(id, horizon=3)
    tasks = [json_task(id, seed, **parameters) for seed in range(3)]
    env = vector(id, 3, device=device, autoreset_mode="SameStep", **parameters)
    env.reset(seed=1, options={"task": tasks[1]})
    rows = {name: to_numpy(leaf) for name, leaf in tree_items(env.tasks)}
    for name, leaf in rows.items():
        same(leaf, np.stack([np.asarray(tasks[1][name], dtype=leaf.dtype)] * 3))
    per_row = {name: [task[name] for task in tasks] for name in tasks[0]}
    env.reset(seed=1, options={"task": per_row})
    rows = {name: to_numpy(leaf).copy() for name, leaf in tree_items(env.tasks)}
    for name, leaf in rows.items():
        assert leaf.tolist() == per_row[name]
    kept, played = env.tasks, rows_of(env.tasks)
    for _ in range(3):
        env.step(np.zeros(env.action_space.shape, dtype=np.int64))
    assert (rows_of(env.tasks) != played).any(axis=1).all()  # drawn again
    env.reset(options={"task": kept})  # a Task as it is
    same(env.tasks, kept)
    before = env.tasks
    env.reset(options={"task": tasks[2], "reset_mask": np.array([False, True, False])})
    for (name, leaf), (_, old) in zip(tree_items(env.tasks), tree_items(before), strict=True):
        assert to_numpy(leaf)[1].tolist() == tasks[2][name]
        same(leaf[0], old[0])
        same(leaf[2], old[2])


@every_id
def test_bad_tasks_change_nothing(id: str) -> None:
    task = json_task(id, 3)
    spaces = single(id).scenario.task_space.spaces
    bad: list[Any] = [5, "task", [task], {}, {**task, "extra": 1}]
    bad += [{key: value for key, value in task.items() if key != left_out} for left_out in task]
    # one field of each kind, of those that hold anything
    kinds = {(spaces[name].dtype, spaces[name].shape): name for name in reversed(task) if np.size(task[name])}
    spaces = {name: box for name, box in spaces.items() if np.size(task[name])}
    for name in kinds.values():
        box, value = spaces[name], np.asarray(task[name])
        low, high = box.low.max(), box.high.max()
        if box.dtype == np.float32:
            limits = [np.nan, np.inf, -np.inf, np.nextafter(high, np.float32(np.inf)), low - 1]
        else:
            limits = [high + 1, low - 1, np.iinfo(np.int64).max, np.uint64(2**64 - 1), 0.5, 1.0, np.nan]
        for wrong in (
            *(np.full(value.shape, limit) for limit in limits),
            np.full(value.shape, 1e300), np.full((*value.shape[:-1], max(value.size - 1, 0)), value.flat[0]),
            value[None, None], value.astype(str), value > 0, value + 1j,
            None, "x", [[1.0], [1.0, 2.0]], np.stack([value] * 3),
        ):  # fmt: skip
            bad.append({**task, name: wrong})
    for name, box in spaces.items():  # and the limits of every field
        value = np.asarray(task[name])
        bad += [{**task, name: np.full(value.shape, np.float64(box.high.max()) * 2 + 1)}]
        bad += [{**task, name: np.full(value.shape, box.low.max() - 1)}]
    env, batch = single(id), vector(id, 2)
    for wrong in bad:
        for owner in (env, batch):
            owner.reset(seed=1)
            kept = owner.runner.snapshot()
            with pytest.raises(ValueError, match="task"):
                owner.reset(seed=2, options={"task": wrong})
            same(owner.runner.snapshot(), kept)
            action = np.zeros(owner.action_space.shape, dtype=np.int64)
            same(owner.step(action), copy_before(owner, kept).step(action))


def copy_before(env: Any, kept: Mapping[str, np.ndarray]) -> Any:
    """A copy of an environment with the state of an earlier snapshot."""
    other = copy.deepcopy(env)
    other.runner.restore(kept)
    return other


# --- actions ---------------------------------------------------------------------------------------------------------
@every_id
@every_device
def test_bad_actions_change_nothing(id: str, device: str) -> None:
    env = vector(id, 3, device=device, horizon=20)
    env.reset(seed=1)
    good = draw(env.single_action_space, np.random.default_rng(0), 3)
    env.step(good)
    high = int(np.max(getattr(env.single_action_space, "n", getattr(env.single_action_space, "nvec", None))))
    bad: list[tuple[Any, str]] = []
    for value in (-1, high, 2**40, -(2**63)):
        wrong = good.copy()
        wrong[1] = value
        bad += [(wrong, rf"{value}\b.* of row 1 "), (wrong.tolist(), "of row 1 ")]
    bad += [
        (good.astype(np.float64), "whole numbers"),
        (np.full(good.shape, np.nan), "whole numbers.*nan"),
        (good > 0, "whole numbers, got bool"),
        (good.astype(str), "whole numbers"),
        ([None] * 3, "whole numbers"),
        (good[:2], "shape"),
        (good[:, None], "shape"),
        (good[0], "shape"),
        ([], "whole numbers"),
        (np.zeros((0,), dtype=np.int64), "shape"),
    ]
    if device == "torch":
        torch = pytest.importorskip("torch")
        bad += [(torch.as_tensor(good) > 0, "whole numbers"), (torch.as_tensor(good) * 1.0, "whole numbers")]
        bad += [(torch.as_tensor(good) + high, "of row 0 ")]
    kept = env.runner.snapshot()
    for action, message in bad:
        with pytest.raises(ValueError, match=message):
            env.step(action)
        same(env.runner.snapshot(), kept)
    other = vector(id, 3, device=device, horizon=20)
    other.reset(seed=1), other.step(good)
    same(env.step(good), other.step(good))  # as a copy that never saw a bad action


@every_id
def test_bad_actions_of_a_single_environment(id: str) -> None:
    env = single(id)
    env.reset(seed=1)
    good = draw(env.action_space, np.random.default_rng(0))
    kept = env.runner.snapshot()
    for action in (good - 10_000, good + 10_000, good * 1.0, good == 0, np.nan, None, "0", [good, good], [[good]], {}):
        with pytest.raises(ValueError, match="action"):
            env.step(action)
        same(env.runner.snapshot(), kept)
    other = single(id)
    other.reset(seed=1)
    same(env.step(good), other.step(np.asarray(good, dtype=np.int32)))


def test_actions_of_several_numbers_are_checked_one_by_one() -> None:
    """MultiDiscrete spaces, which a slate has: the limits differ between positions."""
    space = gym.spaces.MultiDiscrete([3, 2])
    runner = Runner(SimpleNamespace(action_space=space, objectives=(), costs=()), 2, NumpyRng(0))
    same(runner.check_action([[2, 1], [0, 0]]), np.array([[2, 1], [0, 0]]))
    for wrong in ([[0, 0], [1, 2]], [[0, 0], [3, 1]], [[0, 0], [-1, 0]]):
        with pytest.raises(ValueError, match=r"action \[.*\] of row 1 is outside"):
            runner.check_action(wrong)
    with pytest.raises(ValueError, match="shape"):
        runner.check_action([0, 1])


@every_id
@pytest.mark.parametrize(
    "wrapper", ["NormalizeObservation", "NormalizeReward", "NumpyToTorch", "DictInfoToList", "TransformReward"]
)
def test_gymnasiums_vector_wrappers_take_a_batch_as_it_is_made(id: str, wrapper: str) -> None:
    if OLD_GYMNASIUM and wrapper == "DictInfoToList":
        pytest.skip("this Gymnasium's DictInfoToList wants a mask beside every key")
    if wrapper == "NumpyToTorch":
        pytest.importorskip("torch")
    more = {"func": lambda reward: 2 * reward} if wrapper == "TransformReward" else {}
    env = getattr(gym.wrappers.vector, wrapper)(vector(id, 3, horizon=2), **more)
    assert env.unwrapped.autoreset_mode is AutoresetMode.NEXT_STEP is env.metadata["autoreset_mode"]
    env.reset(seed=0)
    ends = 0
    for _ in range(6):
        action = env.action_space.sample()
        if wrapper == "NumpyToTorch":
            import torch

            action = torch.as_tensor(action)
        _, _, terminated, truncated, _ = env.step(action)
        ends += int(terminated.sum())
        assert not truncated.any()
    assert ends == 6
