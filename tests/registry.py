"""What the tests over the registry share: the environments, extreme parameters, and how they are played."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

import recgym
from recgym.arrays import to_numpy, tree_items
from recgym.envs import RecEnv, RecVectorEnv
from recgym.rng import make_rng

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
FEWEST = {  # values among 50 tasks
    "family": 3, "rival": 3, "elasticity": 40, "stock": 40, "table": 1, "w_rev": 1, "change": 5, "launch": 20,
    "reaction": 20,
}  # fmt: skip


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


def rng_on(device: str, seed: Any = 0) -> Any:
    if device == "torch":
        pytest.importorskip("torch")
    return make_rng(device, seed)


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


def json_task(id: str, seed: int, **parameters: Any) -> dict[str, Any]:
    """A task of an environment as JSON carries it."""
    task = json.loads(json.dumps(as_lists(single(id, **parameters).reset(seed=seed)[1]["task"])))
    assert isinstance(task, dict)
    return task


def as_lists(task: Mapping[str, Any]) -> dict[str, Any]:
    """An `info["task"]`, whose fields are arrays, as numbers and lists, which can be compared with =="""
    assert all(isinstance(leaf, np.ndarray) for leaf in task.values())
    return {name: leaf.tolist() for name, leaf in task.items()}
