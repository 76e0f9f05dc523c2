"""The contract of every registered environment: a new one is tested by being registered."""

from __future__ import annotations

import copy
import functools
import itertools
import json
import math
import pickle
from collections.abc import Callable, Mapping
from dataclasses import fields
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
from recgym.envs import RecEnv, RecVectorEnv
from recgym.layout import LOG_SCALE, Layout
from recgym.rng import NumpyRng, make_rng
from recgym.runner import Runner
from recgym.testing import check_scenario

IDS = list(recgym.SCENARIOS)
OLD_GYMNASIUM = tuple(map(int, gym.__version__.split(".")[:2])) < (1, 4)
MODES = [mode.value for mode in AutoresetMode]
DEVICES = ["cpu", "torch"]
TABLE = [[0.5, -2.0, 1.0], [3.0, 0.0, 0.1]]
EXTREMES: list[dict[str, Any]] = [  # each is tried on the environments that have all of these parameters
    {},
    {"horizon": 1},
    {"horizon": 49},  # 49 x float32(1/49) is not 1
    {"arms": 1},
    {"arms": 1, "horizon": 1},
    {"arms": 300, "horizon": 2},
    {"prior": (0.05, 0.05)},
    {"prior": (0.001, 0.001)},
    {"prior": (1e6, 0.001)},
    {"alpha": 0.0},
    {"alpha": 1.0},
    {"statistics": False},
    {"drift": 10.0, "change_rate": 0.0},
    {"drift": 0.0, "change_rate": 1.0, "prior": (0.05, 0.1)},
    {"taste": 100.0, "bias": 20.0},
    {"taste": 0.0, "bias": -20.0},
    {"features": 1},
    {"features": [[1.5], [-2.0]]},
    {"features": TABLE},
    {"features": [[0.0, 0.0]]},
    {"features": [[1e6, -1e6]], "taste": 100.0},
    {"stock": 1},
    {"stock": None, "base_price": 1e-3, "prices": (1e-6, 1e-3, 1.0), "table": None},  # tiny to huge, in base prices
    {"stock": 1_000_000, "customers": 1e6},
    {"stock": (1e-6, 1e-6), "customers": 0.001},
    {"stock": (1e6, 1e6), "customers": 1e6, "poisson": False, "base_price": 1e9, "prices": (1e9, 2e9), "table": None},
    {"prices": (1.0,), "base_price": 1.0, "promotions": ((0.0, 0.0),), "choke": False, "table": None, "horizon": 1},
    {"prices": (1.0, 2.0), "base_price": 1.0, "choke": True, "table": None, "stock": 3},
    {"prices": tuple(range(1, 101)), "base_price": 50.0, "table": None, "horizon": 2},
    {"promotions": ((0.999, 1.0), (0.0, 1.0), (0.999, 0.0)), "table": None, "lift": (10.0, 10.0)},
    {"forecast": None, "embedding": 0, "rivals": (), "statistics": False},
    {"forecast": 10.0, "embedding": 1, "poisson": True},
    {"families": ("linear",), "table": None, "elasticity": (20.0, 0.0, 20.0, 20.0)},
    {"families": ("exponential", "constant"), "table": None, "elasticity": (1e-3, 10.0, 1e-3, 20.0)},
    {"families": ("logit",), "table": None, "purchase": (0.95, 0.95), "cross": (10.0, 10.0), "rivals": ("static",)},
    {"families": "table", "table": None, "purchase": (1e-6, 1e-6), "alpha": 0.3},
    {"families": ("constant",), "table": None, "purchase": (1e-6, 1e-6), "alpha": 0.7, "stock": None},
    {"season": (1.0, 1.0), "period": 1},
    {"season": (1.0, 1.0), "period": 2, "poisson": False, "rivals": ("follower", "undercutter")},
    {"gain": (20.0, 20.0), "aversion": (10.0, 10.0), "memory": (0.0, 0.0), "dip": (10.0, 10.0)},
    {"gain": (20.0, 20.0), "aversion": (0.0, 0.0), "memory": (0.99, 0.99), "cross": (10.0, 10.0), "rivals": ("ar1",)},
    {"cost": (0.0, 0.0), "w_rev": (0.0, 0.0), "w_vol": (0.0, 0.0)},
    {"w_rev": (100.0, 100.0), "w_vol": (100.0, 100.0), "purchase": (1e-6, 1e-6)},
]
VARIED: dict[str, dict[str, Any]] = {"DynamicPricingFerreira-v0": {"table": None}}  # without it there is one task alone
FEWEST = {"family": 3, "rival": 3, "elasticity": 40, "stock": 40, "table": 1, "w_rev": 1}  # values among 50 tasks


def varied(id: str, **parameters: Any) -> dict[str, Any]:
    """Parameters under which the tasks of an environment differ: those of a reference problem are all the same."""
    return {**(VARIED[id] if recgym.SCENARIOS[id].reference else {}), **parameters}


def parameters_of(id: str) -> set[str]:
    return {field.name for field in fields(recgym.make_scenario(id))}


CASES = [(id, extreme) for id in IDS for extreme in EXTREMES if set(extreme) <= parameters_of(id)]
every_id = pytest.mark.parametrize("id", IDS)
every_case = pytest.mark.parametrize("id, parameters", CASES, ids=lambda value: str(value))
every_mode = pytest.mark.parametrize("mode", MODES)
every_device = pytest.mark.parametrize("device", DEVICES)


def vector(id: str, rows: int, **options: Any) -> RecVectorEnv:
    if options.get("device") == "torch":
        pytest.importorskip("torch")
    env = gym.make_vec(id, num_envs=rows, **options)
    assert isinstance(env, RecVectorEnv)
    return env


def single(id: str, **options: Any) -> RecEnv:
    env = gym.make(id, **options).unwrapped
    assert isinstance(env, RecEnv)
    return env


def draw(space: gym.Space, rng: np.random.Generator, *rows: int) -> np.ndarray:
    """Actions [*rows] or [*rows, k] of a single action space."""
    high = space.n if isinstance(space, gym.spaces.Discrete) else space.nvec  # type: ignore[attr-defined]
    return rng.integers(0, high, size=(*rows, *(space.shape or ())))


def same(one: Any, other: Any) -> None:
    """Two nested results are equal bit for bit, and of the same types."""
    if isinstance(one, Mapping):
        assert list(one) == list(other)
        for key in one:
            same(one[key], other[key])
    elif isinstance(one, tuple | list):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            same(left, right)
    else:
        left, right = to_numpy(one), to_numpy(other)
        assert left.dtype == right.dtype
        if not (left.shape == right.shape and (left == right).all()):  # NumPy's own test takes ten times as long
            np.testing.assert_array_equal(left, right)


def rows_of(task: Any) -> np.ndarray:
    """Tasks [N, ...] as rows [N, F]."""
    return np.concatenate([to_numpy(leaf).reshape(len(leaf), -1) for _, leaf in tree_items(task)], axis=1)


def play(env: Any, seed: Any, steps: int, actions: np.random.Generator, rows: tuple[int, ...]) -> list[Any]:
    """Everything that a run of `steps` returns; trials of a single environment are restarted by hand."""
    space = env.action_space if not rows else env.single_action_space
    results: list[Any] = [env.reset(seed=seed)]
    for _ in range(steps):
        result = env.step(draw(space, actions, *rows))
        results.append(result)
        if not rows and result[2]:
            results.append(env.reset())
    return results


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
    env = gym.wrappers.vector.DictInfoToList(vector(id, 3, horizon=2))
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
    assert info == {} and env.observation_space.contains(observation)
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
        assert list(info) == keys + final
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
    env = vector(id, 3, device=device, horizon=1)
    env.reset(seed=1)
    *arrays, info = env.step(np.zeros(env.action_space.shape, dtype=np.int64))
    final = info.pop("final_info")
    leaves = [to_numpy(leaf) for leaf in (*arrays, *info.values(), *final.values())]
    assert not any(np.shares_memory(one, other) for one, other in itertools.combinations(leaves, 2))


@every_case
def test_single_terminates_at_the_horizon(id: str, parameters: dict[str, Any]) -> None:
    env, rng = single(id, **{"horizon": 6, **parameters}), np.random.default_rng(0)
    keys = ["regret", "expected_reward", *env.scenario.objectives, *env.scenario.costs]
    observation, info = env.reset(seed=2)
    assert list(info) == ["task"] and env.observation_space.contains(observation)
    json.dumps(info)
    for t in range(1, env.scenario.horizon + 1):
        observation, reward, terminated, truncated, info = env.step(draw(env.action_space, rng))
        assert env.observation_space.contains(observation)
        assert type(reward) is float and type(terminated) is bool and truncated is False
        assert terminated is (t == env.scenario.horizon)
        assert list(info) == keys and all(type(value) is float for value in info.values())
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
        same(leaf[0].tolist(), info["task"][name][0])
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


# --- pairing ---------------------------------------------------------------------------------------------------------
# --- the scenario itself ---------------------------------------------------------------------------------------------
@every_case
def test_the_scenario_keeps_its_contract(id: str, parameters: dict[str, Any]) -> None:
    """Means are compared over 32 trials: a difference of five standard errors or more is found."""
    check_scenario(recgym.make_scenario(id, **{"horizon": 8, **parameters}), trials=32)


# --- desynchronised rows ---------------------------------------------------------------------------------------------
@every_id
@every_mode
@every_device
@pytest.mark.parametrize("horizon", [1, 5])
def test_each_row_keeps_its_own_clock(id: str, mode: str, device: str, horizon: int) -> None:
    """Some rows restart in the middle; each row is then followed by a count of its own."""
    env = vector(id, 4, **varied(id, horizon=horizon, autoreset_mode=mode, device=device))
    layout, rng = env.layout, np.random.default_rng(2)
    observation, _ = env.reset(seed=3)
    time, pending = np.zeros(4, dtype=int), np.zeros(4, dtype=bool)
    last_action: np.ndarray = draw(env.single_action_space, rng, 4)
    reward = np.zeros(4)

    def check(observation: Any, reward: np.ndarray) -> None:
        seen = to_numpy(observation)
        assert env.observation_space.contains(seen)
        np.testing.assert_allclose(layout.get(seen, "time"), time / horizon, rtol=0, atol=1e-6)
        left = np.log1p(horizon - time) / LOG_SCALE
        np.testing.assert_allclose(layout.get(seen, "remaining"), left, rtol=0, atol=1e-6)
        np.testing.assert_allclose(layout.get(seen, "last_reward"), np.where(time > 0, reward, 0), rtol=0, atol=1e-6)
        wanted = np.zeros((4, layout.candidates))
        for row in np.flatnonzero(time > 0):
            wanted[row, last_action[row]] = 1
        np.testing.assert_array_equal(layout.get(seen, "chosen"), wanted)

    for t in range(40):
        if rng.random() < 0.25 or (mode == "Disabled" and pending.any()):
            mask = rng.random(4) < 0.5
            mask = mask | pending if mode == "Disabled" or t % 2 else mask
            if mask.any():
                before = rows_of(env.tasks)
                observation, _ = env.reset(options={"reset_mask": mask})
                time[mask], pending[mask] = 0, False
                check(observation, reward)
                assert ((rows_of(env.tasks) != before).any(axis=1) == mask).all()
        before, action = rows_of(env.tasks), draw(env.single_action_space, rng, 4)
        observation, raw, ended, truncated, info = env.step(action)
        reward, ended = to_numpy(raw), to_numpy(ended)
        assert not to_numpy(truncated).any()
        if mode == "NextStep":
            started = pending.copy()
            time = np.where(pending, 0, time + 1)
            pending = time == horizon
            assert (reward[started] == 0).all()
            assert all((to_numpy(value)[started] == 0).all() for value in info.values())
        else:
            time = time + 1
            pending = time == horizon
            started = pending.copy() if mode == "SameStep" else np.zeros(4, dtype=bool)
        np.testing.assert_array_equal(ended, time == horizon)
        assert ((rows_of(env.tasks) != before).any(axis=1) == started).all()
        last_action = action
        if mode == "SameStep" and pending.any():
            seen = time.copy()
            final = to_numpy(info["final_obs"])
            check(final, reward)  # also right in the rows that go on
            same(to_numpy(info["_final_obs"]), pending)
            time, pending = np.where(seen == horizon, 0, seen), np.zeros(4, dtype=bool)
        check(observation, reward)
        if mode == "Disabled" and pending.any():
            kept = env.runner.snapshot()
            with pytest.raises(gym.error.ResetNeeded, match=f"rows .*{np.flatnonzero(pending)[0]}"):
                env.step(action)
            same(env.runner.snapshot(), kept)


@every_id
def test_reset_masks_are_checked(id: str) -> None:
    env = vector(id, 3, autoreset_mode="Disabled")
    with pytest.raises(gym.error.ResetNeeded):
        env.step(np.zeros(env.action_space.shape, dtype=np.int64))
    with pytest.raises(gym.error.ResetNeeded):
        env.reset(seed=1, options={"reset_mask": np.array([True, False, True])})
    env.reset(options={"reset_mask": np.array([True, True, True])})
    kept = env.runner.snapshot()
    bad: list[tuple[Any, type[Exception]]] = [
        ([True, False, True], TypeError),
        (np.array([1, 0, 1]), TypeError),
        (np.array([True, False]), ValueError),
        (np.array([[True, False, True]]), ValueError),
        (np.array([False, False, False]), ValueError),
    ]
    for mask, error in bad:
        with pytest.raises(error, match="reset_mask"):
            env.reset(seed=5, options={"reset_mask": mask})
        same(env.runner.snapshot(), kept)
    for option in ({"tsk": 1}, {"task": None, "mask": 1}):
        with pytest.raises(ValueError, match="reset options"):
            env.reset(seed=5, options=option)
        with pytest.raises(ValueError, match="reset options"):
            single(id).reset(options=option)
    same(env.runner.snapshot(), kept)


# --- tasks -----------------------------------------------------------------------------------------------------------
def json_task(id: str, seed: int, **parameters: Any) -> dict[str, Any]:
    task = json.loads(json.dumps(single(id, **parameters).reset(seed=seed)[1]["task"]))
    assert isinstance(task, dict)
    return task


@every_case
def test_a_task_goes_through_json_and_is_played(id: str, parameters: dict[str, Any]) -> None:
    parameters = varied(id, **parameters)
    task = json_task(id, 3, **parameters)
    env = single(id, **parameters)
    _, info = env.reset(seed=99, options={"task": task})
    assert info["task"] == task
    again = env.reset()[1]["task"]  # drawn anew
    fixed = recgym.SCENARIOS[id].reference and parameters.get("families", "table") != "table"  # curves have no table
    one = fixed or not parameters.get("taste", 1) or "prior" in parameters  # these may leave but one task
    assert again != task or one


@every_id
@every_device
def test_one_task_for_all_rows_or_one_per_row(id: str, device: str) -> None:
    parameters = varied(id, horizon=3)
    tasks = [json_task(id, seed, **parameters) for seed in range(3)]
    env = vector(id, 3, device=device, **parameters)
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
    kinds = {(spaces[name].dtype, spaces[name].shape): name for name in reversed(task)}  # one field of each kind
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


# --- pictures --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("id, parameters", [c for c in CASES if not c[1] or {"arms", "prices"} & set(c[1])], ids=str)
def test_pictures_of_a_single_environment(id: str, parameters: dict[str, Any]) -> None:
    pytest.importorskip("matplotlib")
    for mode, kind in (("rgb_array", np.ndarray), ("ansi", str)):
        env = single(id, render_mode=mode, **parameters)
        with pytest.raises(gym.error.ResetNeeded):
            env.render()
        env.reset(seed=1)
        pictures = [env.render()]
        env.step(draw(env.action_space, np.random.default_rng(0)))
        pictures.append(env.render())
        assert all(isinstance(picture, kind) for picture in pictures)
        if mode == "rgb_array":
            assert all(p.dtype == np.uint8 and p.shape == pictures[0].shape and p.shape[2] == 3 for p in pictures)
            assert (pictures[0] != pictures[1]).any()
        else:
            assert "decision 0 of" in pictures[0] and "decision 1 of" in pictures[1]
            lasting = env.unwrapped.scenario.candidate_rewards(env.unwrapped.runner.state)[1] is not None
            assert ">" not in pictures[0] and (">" in pictures[1]) == lasting and "best" in pictures[0]


@every_id
@every_device
def test_pictures_of_a_batch(id: str, device: str) -> None:
    pytest.importorskip("matplotlib")
    for mode, rows in (("rgb_array", 1), ("ansi", 6)):
        env = vector(id, rows, render_mode=mode, horizon=3, device=device)
        env.reset(seed=1)
        for t in range(5):
            env.step(np.zeros(env.action_space.shape, dtype=np.int64))
            if mode == "rgb_array" and t % 3:
                continue  # a picture is drawn in one trial and in the next
            pictures = env.render()
            assert isinstance(pictures, tuple) and len(pictures) == min(rows, 4)
            if mode == "ansi":
                assert all(f"decision {(t + 1) % 3} of 3" in picture for picture in pictures)
    env.reset(options={"reset_mask": np.arange(rows) == 1})
    assert [f"decision {2 * (row != 1)} of 3" in picture for row, picture in enumerate(env.render())] == [True] * 4
    assert vector(id, 2).render_mode is None


@every_id
@every_device
@every_mode
def test_pictures_follow_the_trial_however_it_is_restarted(id: str, device: str, mode: str) -> None:
    """The number of decisions is the observation's; what is drawn of a trial is what happened in it, and no more."""
    env = vector(id, 5, render_mode="ansi", horizon=3, device=device, autoreset_mode=mode)
    observation, _ = env.reset(seed=1)
    actions = np.random.default_rng(0)
    rewards: list[list[float]] = [[] for _ in range(4)]
    over = np.zeros(5, dtype=bool)
    for call in range(10):
        if call == 2:  # from here on rows differ
            mask = np.arange(5) == 1
            observation, _ = env.reset(options={"reset_mask": mask})
        elif over.any() and mode == AutoresetMode.DISABLED.value:
            observation, _ = env.reset(options={"reset_mask": over})
            over = ~over & False
        else:
            observation, reward, ended, _, _ = env.step(draw(env.single_action_space, actions, 5))
            over = to_numpy(ended).copy()
            for row in range(4):
                rewards[row].append(float(reward[row]))
        made = np.round(3 * to_numpy(env.layout.get(observation, "time"))).astype(int)
        for row, picture in enumerate(env.render()):
            rewards[row] = rewards[row][-made[row] :] if made[row] else []
            assert f"decision {made[row]} of 3" in picture
            path = env._recorder.paths[row]
            assert [moment["decision"] for moment in path] == list(range(made[row] + 1))
            assert [moment["reward"] for moment in path] == [0.0, *rewards[row]]


@pytest.mark.parametrize("id", [id for id in IDS if recgym.make_scenario(id).panels])
@every_device
def test_what_a_scenario_traces_can_be_drawn(id: str, device: str) -> None:
    pytest.importorskip("matplotlib")
    env = vector(id, 1, render_mode="rgb_array", device=device, autoreset_mode="Disabled")
    scenario, actions = env.scenario, np.random.default_rng(0)
    names = {series.name for panel in scenario.panels for series in panel.series}
    assert len(scenario.candidate_names or ()) in (0, scenario.layout.candidates)
    env.reset(seed=1)
    pictures = []
    for t in range(scenario.horizon + 1):
        if t in (0, 1, scenario.horizon // 2, scenario.horizon):
            pictures.append(env.render()[0])
            traced = {name: to_numpy(values) for name, values in scenario.trace(env.runner.state).items()}
            assert names <= set(traced)
            assert all(values.shape == (1,) and np.isfinite(values).all() for values in traced.values())
        if t < scenario.horizon:
            env.step(draw(env.single_action_space, actions, 1))
    assert all(picture.shape == pictures[0].shape for picture in pictures)
    assert all((one != other).any() for one, other in itertools.combinations(pictures, 2))
    env.reset(seed=1)
    np.testing.assert_array_equal(env.render()[0], pictures[0])  # nothing is left of the trial before


@every_id
def test_rendering_without_a_mode_warns(id: str) -> None:
    for env in (single(id), vector(id, 2)):
        env.reset(seed=1)
        with pytest.warns(UserWarning, match="render_mode"):
            assert env.render() is None
    with pytest.raises(ValueError, match="render_mode"):
        RecEnv(recgym.SCENARIOS[id].scenario, render_mode="human")
    with pytest.raises(ValueError, match="render_mode"):
        vector(id, 2, render_mode="human")


# --- layout ----------------------------------------------------------------------------------------------------------
@every_case
@every_device
def test_layout(id: str, parameters: dict[str, Any], device: str) -> None:
    env = vector(id, 3, device=device, **parameters)
    layout = env.layout
    observation, _ = env.reset(seed=1)
    observation = env.step(draw(env.single_action_space, np.random.default_rng(0), 3))[0]
    assert Layout.from_json(json.loads(json.dumps(layout.to_json()))) == layout
    context, candidates = layout.split(observation)
    width, row, total = layout.sizes
    assert tuple(context.shape) == (3, width) and tuple(candidates.shape) == (3, layout.candidates, row)
    assert total == observation.shape[1] == width + layout.candidates * row
    same(np.concatenate([to_numpy(context), to_numpy(candidates).reshape(3, -1)], axis=1), observation)
    got = {field.name: layout.get(observation, field.name) for field in layout}
    for field in layout.context:
        assert tuple(got[field.name].shape) == ((3,) if field.width == 1 else (3, field.width))
    for field in layout.candidate:
        assert tuple(got[field.name].shape[:2]) == (3, layout.candidates)
    same(layout.join(got, got), observation)
    with pytest.raises(KeyError, match=r"no field 'nothing'.*time"):
        layout.get(observation, "nothing")
    assert {"time", "remaining", "last_reward"} <= {field.name for field in layout.context}
    assert "chosen" in {field.name for field in layout.candidate}
    assert len({field.name for field in layout}) == len(list(layout)) and all(field.meaning for field in layout)
    assert env.get_attr("layout") == (layout,) * 3 and env.call("horizon") == (env.scenario.horizon,) * 3


# --- the registry ----------------------------------------------------------------------------------------------------
@every_id
def test_shifted_parameters_build_and_differ(id: str) -> None:
    preset = recgym.SCENARIOS[id]
    assert preset.shifted and set(preset.shifted) <= parameters_of(id)
    assert recgym.make_scenario(id, **preset.shifted) != recgym.make_scenario(id)
    play(vector(id, 2, **preset.shifted), 1, 3, np.random.default_rng(0), (2,))


@every_id
def test_parameters_are_json(id: str) -> None:
    preset, scenario = recgym.SCENARIOS[id], recgym.make_scenario(id)
    for values in (preset.parameters, preset.shifted, {f.name: getattr(scenario, f.name) for f in fields(scenario)}):
        again = json.loads(json.dumps(values))
        recgym.make_scenario(id, **again)
    given = json.loads(json.dumps({f.name: getattr(scenario, f.name) for f in fields(scenario)}))
    assert recgym.make_scenario(id, **given) == scenario
    assert hash(scenario) == hash(recgym.make_scenario(id))


@pytest.mark.parametrize("id", [id for id in IDS if recgym.SCENARIOS[id].scenario.startswith("recgym.")])  # they check
def test_numpys_numbers_are_as_good_as_pythons(id: str) -> None:
    """A float64 of NumPy must not turn the state into float64."""
    scenario = recgym.make_scenario(id)
    values = {f.name: getattr(scenario, f.name) for f in fields(scenario)}
    kinds = {int: np.int64, float: np.float64}
    numpys = {name: kinds[type(value)](value) for name, value in values.items() if type(value) in kinds}
    assert {"horizon", "alpha"} <= set(numpys)
    env, other = vector(id, 3, **numpys), vector(id, 3)
    assert env.scenario == scenario
    assert all(type(getattr(env.scenario, name)) in (int, float) for name in numpys)
    same(play(env, 1, 3, np.random.default_rng(0), (3,)), play(other, 1, 3, np.random.default_rng(0), (3,)))
    assert all(leaf.dtype in (np.float32, np.int64, np.bool_) for _, leaf in tree_items(env.runner.state))


@every_id
def test_a_built_scenario_will_do_in_place_of_its_name(id: str) -> None:
    scenario = recgym.make_scenario(id, horizon=5)
    assert RecVectorEnv(scenario, num_envs=5).scenario is scenario
    assert RecVectorEnv(scenario, num_envs=5, horizon=3).scenario == recgym.make_scenario(id, horizon=3)


@pytest.mark.parametrize("rows", [0, -1, 2.0, True, "3", None])
def test_numbers_of_environments_are_checked(rows: Any) -> None:
    with pytest.raises(ValueError, match="number of environments"):
        RecVectorEnv(recgym.SCENARIOS[IDS[0]].scenario, num_envs=rows)


def test_autoreset_modes_are_checked() -> None:
    with pytest.raises(ValueError, match="AutoresetMode"):
        vector(IDS[0], 2, autoreset_mode="Sometimes")


# --- Stable-Baselines3 -----------------------------------------------------------------------------------------------
@functools.cache
def sb3() -> Any:
    pytest.importorskip("stable_baselines3")
    import recgym.sb3

    return recgym.sb3


@every_id
@every_device
def test_sb3_returns_what_its_interface_says(id: str, device: str) -> None:
    env = sb3().make_vec_env(id, 3, 5, device, horizon=4)
    twin = vector(id, 3, horizon=4, device=device)
    space, rng = env.observation_space, np.random.default_rng(0)
    observation = env.reset()
    same(observation, twin.reset(seed=5)[0])
    assert [list(info) for info in env.reset_infos] == [["task"]] * 3
    total = np.zeros(3)
    for t in range(1, 10):
        action = draw(env.action_space, rng, 3)
        observation, reward, done, infos = env.step(action)
        wanted, twin_reward, ended, _, info = twin.step(action)
        same([observation, reward, done], [wanted, twin_reward, ended])
        assert isinstance(observation, np.ndarray) and observation.dtype == np.float32 and reward.shape == (3,)
        assert done.tolist() == [t % 4 == 0] * 3 and len(infos) == 3
        total += reward
        for row, shown in enumerate(infos):
            assert space.contains(observation[row])
            common = {key: shown[key] for key in env.scenario.objectives + env.scenario.costs}
            common |= {key: shown[key] for key in ("regret", "expected_reward")}
            assert common == {key: float(info[key][row]) for key in common}
            assert all(type(value) is float for value in common.values())
            if done[row]:
                same(shown["terminal_observation"], info["final_obs"][row])
                assert shown["TimeLimit.truncated"] is False
                assert shown["episode"]["r"] == pytest.approx(total[row]) and shown["episode"]["l"] == 4
            else:
                assert set(shown) == set(common)
        total[done] = 0


@every_id
def test_sb3_seeds(id: str) -> None:
    env = sb3().make_vec_env(id, 2, **varied(id, horizon=3))
    results, tasks = [], []
    for seed in (7, 7, 8):
        env.seed(seed)
        rng = np.random.default_rng(0)
        results.append([env.reset(), *(env.step(draw(env.action_space, rng, 2))[:3] for _ in range(7))])
        tasks.append(env.get_attr("task"))
    same(results[0], results[1])
    assert tasks[0] == tasks[1] != tasks[2]
    env.seed(8)
    first, second = ((env.reset(), env.get_attr("task"))[1] for _ in range(2))
    assert first != second  # the seed holds for one reset


@every_id
def test_sb3_attributes_and_methods(id: str) -> None:
    env = sb3().make_vec_env(id, 3, 1)
    env.reset()
    assert env.get_attr("horizon") == [env.scenario.horizon] * 3 and env.get_attr("layout", [0, 2]) == [env.layout] * 2
    assert env.has_attr("horizon") and not env.has_attr("nothing_of_that_name")
    assert env.env_method("get_wrapper_attr", "horizon", indices=1) == [env.scenario.horizon]
    assert [len(task) for task in env.get_attr("task")] == [len(env.reset_infos[0]["task"])] * 3
    assert env.get_attr("task") == [info["task"] for info in env.reset_infos]
    env.set_attr("note", 4)
    assert env.get_attr("note") == [4] * 3
    with pytest.raises(ValueError, match="share"):
        env.set_attr("note", 5, indices=[0])
    env.close()


@every_id
def test_sb3_tasks(id: str) -> None:
    env = sb3().make_vec_env(id, 2, 1, **varied(id, horizon=3))
    tasks = [json_task(id, seed, **varied(id, horizon=3)) for seed in range(2)]
    env.set_options({"task": tasks[0]})
    env.reset()
    assert env.get_attr("task") == [tasks[0]] * 2
    env.reset()
    assert tasks[0] not in env.get_attr("task")
    env.set_options([{"task": task} for task in tasks])
    env.reset()
    assert env.get_attr("task") == tasks and [info["task"] for info in env.reset_infos] == tasks
    for _ in range(3):
        env.step(np.zeros((2, *env.action_space.shape), dtype=np.int64))
    assert not any(task in env.get_attr("task") for task in tasks)
    env.set_options({"tsk": tasks[0]})
    with pytest.raises(ValueError, match="reset options"):
        env.reset()
    env.set_options([{"task": tasks[0]}, {}])
    with pytest.raises(ValueError, match="1 of 2 rows"):
        env.reset()
    for wrong in ({"task": 5}, [{"task": tasks[0]}, {"task": {"other": 1}}]):
        env.set_options(wrong)
        with pytest.raises(ValueError, match=r"a mapping such as|different fields"):
            env.reset()
    env.reset()  # a refused option is gone
    with pytest.raises(ValueError, match="non-negative"):
        env.seed(-1)
    for early in (lambda new: new.get_attr("task"), lambda new: new.get_images()):
        with pytest.raises(gym.error.ResetNeeded):
            early(sb3().make_vec_env(id, 2))


@every_id
def test_sb3_refused_resets_change_nothing(id: str) -> None:
    env, other = (sb3().make_vec_env(id, 2, 1) for _ in range(2))
    env.reset(), other.reset()
    kept = env.snapshot()
    env.seed(3), other.seed(3)
    env.set_options({"task": {"nothing": 1}})
    with pytest.raises(ValueError, match="task"):
        env.reset()
    same(env.snapshot(), kept)
    env.set_options()
    same(env.reset(), other.reset())  # and the seed still holds


@every_id
@every_device
def test_sb3_step_tensor_is_step(id: str, device: str) -> None:
    one, other = (sb3().make_vec_env(id, 3, 2, device, horizon=3) for _ in range(2))
    rng = np.random.default_rng(0)
    same(one.reset(), to_numpy(other.reset_tensor()))
    for _ in range(8):
        action = draw(one.action_space, rng, 3)
        observation, reward, done, infos = one.step(action)
        step = other.step_tensor(other.runner.check_action(action))
        same([observation, reward, done], [to_numpy(part) for part in step[:3]])
        assert (step.final_observation is not None) == done.any()
        if done.any():
            same(infos[0]["terminal_observation"], to_numpy(step.final_observation)[0])


@every_id
def test_sb3_snapshots(id: str) -> None:
    env = sb3().make_vec_env(id, 3, 2, horizon=5)
    rng = np.random.default_rng(0)
    env.reset()
    for _ in range(3):
        env.step(draw(env.action_space, rng, 3))
    other = sb3().make_vec_env(id, 3, 9, horizon=5)
    other.restore(env.snapshot())
    for _ in range(6):
        action = draw(env.action_space, rng, 3)
        (*arrays, infos), (*wanted, expected) = other.step(action), env.step(action)
        same(arrays, wanted)
        assert [info.get("episode", {}).get("r") for info in infos] == [e.get("episode", {}).get("r") for e in expected]


@every_id
def test_sb3_bad_actions_change_nothing(id: str) -> None:
    env = sb3().make_vec_env(id, 2, 1)
    env.reset()
    kept = env.snapshot()
    for action in (np.full((2, *env.action_space.shape), 10**6), np.zeros((2, *env.action_space.shape))):
        with pytest.raises(ValueError, match="action"):
            env.step(action)
        same(env.snapshot(), kept)


@every_id
def test_sb3_wrappers_and_learners(id: str) -> None:
    sb3()
    from stable_baselines3 import PPO
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.vec_env import VecMonitor, VecNormalize

    env = VecMonitor(sb3().make_vec_env(id, 4, 1, horizon=6))
    env.reset()
    for _ in range(6):
        *_, infos = env.step(draw(env.action_space, np.random.default_rng(0), 4))
    assert [info["episode"]["l"] for info in infos] == [6] * 4
    model = PPO("MlpPolicy", env, n_steps=12, batch_size=24, n_epochs=1, seed=3, device="cpu")
    model.learn(48)
    rewards, lengths = evaluate_policy(model, env, n_eval_episodes=6, return_episode_rewards=True)
    limits = next(field for field in env.get_attr("layout")[0].context if field.name == "last_reward")
    assert lengths == [6] * 6 and all(6 * limits.low <= value <= 6 * limits.high for value in rewards)
    normalised = VecNormalize(sb3().make_vec_env(id, 2, 1, horizon=6))
    normalised.reset()
    assert np.isfinite(normalised.step(draw(env.action_space, np.random.default_rng(0), 2))[0]).all()
    assert math.isfinite(float(np.mean(rewards)))


@every_id
def test_sb3_pictures(id: str) -> None:
    pytest.importorskip("matplotlib")
    env = sb3().make_vec_env(id, 2, 1, render_mode="rgb_array", horizon=6)
    env.reset()
    env.step(draw(env.action_space, np.random.default_rng(0), 2))
    picture = env.render()
    assert picture.dtype == np.uint8 and picture.ndim == 3
    assert len(env.get_images()) == 2
    env = sb3().make_vec_env(id, 5, 1, render_mode="ansi", horizon=6)
    env.reset()
    env.step(draw(env.action_space, np.random.default_rng(0), 5))
    assert [picture is None for picture in env.env_method("render")] == [False] * 4 + [True]
    other = sb3().make_vec_env(id, 5, 2, render_mode="ansi", horizon=6)
    other.reset()
    other.restore(env.snapshot())  # of the trial so far, it has seen nothing
    assert all("decision 1 of 6" in picture for picture in other.env_method("render")[:4])
    text = sb3().make_vec_env(id, 2, 1, render_mode="ansi")
    text.reset()
    text.render()  # SB3 leaves text to the environment; it must come back
