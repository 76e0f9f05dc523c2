"""The runner: rows that keep clocks of their own, whatever restarts them."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from recgym.arrays import to_numpy
from recgym.layout import LOG_SCALE
from tests.registry import (
    draw,
    every_device,
    every_id,
    every_mode,
    parameters_of,
    rows_of,
    same,
    single,
    varied,
    vector,
)


# --- desynchronised rows ---------------------------------------------------------------------------------------------
@every_id
@every_mode
@every_device
@pytest.mark.parametrize("horizon", [1, 5])
def test_each_row_keeps_its_own_clock(id: str, mode: str, device: str, horizon: int) -> None:
    """Some rows restart in the middle; each row is then followed by a count of its own."""
    always = {"leaving": (0.0, 0.0)} if "leaving" in parameters_of(id) else {}  # what is shown to nobody is no choice
    env = vector(id, 4, **varied(id, horizon=horizon, autoreset_mode=mode, device=device, **always))
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
            shown = np.atleast_1d(last_action[row])
            for place in reversed(range(len(shown))):
                wanted[row, shown[place]] = 1 - place / len(shown)
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
            tasks = info.pop("task", {})
            np.testing.assert_array_equal(to_numpy(info.pop("_task", started)), started)  # none where none begins
            assert all((to_numpy(value)[started] == 0).all() for value in info.values())
            assert all((to_numpy(value)[~started] == 0).all() for value in tasks.values())
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


@every_id
@every_device
def test_what_nobody_knows_is_no_number(id: str, device: str) -> None:
    """Where the optimum does not cover the weights there is neither regret nor expected reward; both are known else."""
    env = vector(id, 3, device=device, horizon=4)
    charged = {env.scenario.objectives[0]: 1.0, **dict.fromkeys(env.scenario.costs, 0.5)}
    weighed = {"weights": charged} if "weights" in parameters_of(id) and env.scenario.costs else {}
    for parameters in ({}, weighed):
        env = vector(id, 3, device=device, horizon=4, **parameters)
        assert env.scenario.solved == (not parameters)
        env.reset(seed=0)
        for _ in range(3):
            _, reward, *_, info = env.step(draw(env.single_action_space, np.random.default_rng(0), 3))
            assert np.isfinite(to_numpy(reward)).all()
            for name in ("regret", "expected_reward"):
                assert np.isfinite(to_numpy(info[name])).all() == env.scenario.solved, name
                assert to_numpy(info[name]).dtype == np.float32
