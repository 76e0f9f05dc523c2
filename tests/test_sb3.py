"""The Stable-Baselines3 interface of every registered environment."""

from __future__ import annotations

import functools
import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from recgym.arrays import to_numpy
from tests.registry import (
    as_lists,
    draw,
    every_device,
    every_id,
    json_task,
    same,
    varied,
    vector,
)


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
    twin = vector(id, 3, horizon=4, device=device, autoreset_mode="SameStep")
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
            assert all(type(value) is np.float64 for value in common.values())
            if done[row]:
                same(shown["terminal_observation"], info["final_obs"][row])
                assert shown["TimeLimit.truncated"] is False
                assert shown["episode"]["r"] == pytest.approx(total[row]) and shown["episode"]["l"] == 4
            else:
                assert set(shown) == set(common)
        total[done] = 0
        same([info["task"] for info in env.reset_infos], env.get_attr("task"))  # of the trial that is played


@every_id
def test_sb3_seeds(id: str) -> None:
    env = sb3().make_vec_env(id, 2, **varied(id, horizon=3))
    results, tasks = [], []
    for seed in (7, 7, 8):
        env.seed(seed)
        rng = np.random.default_rng(0)
        results.append([env.reset(), *(env.step(draw(env.action_space, rng, 2))[:3] for _ in range(7))])
        tasks.append([as_lists(task) for task in env.get_attr("task")])
    same(results[0], results[1])
    assert tasks[0] == tasks[1] != tasks[2]
    env.seed(8)
    first, second = ((env.reset(), [as_lists(task) for task in env.get_attr("task")])[1] for _ in range(2))
    assert first != second  # the seed holds for one reset


@every_id
def test_sb3_attributes_and_methods(id: str) -> None:
    env = sb3().make_vec_env(id, 3, 1)
    env.reset()
    assert env.get_attr("horizon") == [env.scenario.horizon] * 3 and env.get_attr("layout", [0, 2]) == [env.layout] * 2
    assert env.has_attr("horizon") and not env.has_attr("nothing_of_that_name")
    assert env.env_method("get_wrapper_attr", "horizon", indices=1) == [env.scenario.horizon]
    assert [len(task) for task in env.get_attr("task")] == [len(env.reset_infos[0]["task"])] * 3
    same(env.get_attr("task"), [info["task"] for info in env.reset_infos])
    env.set_attr("note", 4)
    assert env.get_attr("note") == [4] * 3
    with pytest.raises(ValueError, match="share"):
        env.set_attr("note", 5, indices=[0])
    env.close()


@every_id
def test_sb3_tasks(id: str) -> None:
    env = sb3().make_vec_env(id, 2, 1, **varied(id, horizon=3))
    tasks = [json_task(id, seed, **varied(id, horizon=3)) for seed in range(2)]

    def played() -> list[dict[str, Any]]:
        return [as_lists(task) for task in env.get_attr("task")]

    env.set_options({"task": tasks[0]})
    env.reset()
    assert played() == [tasks[0]] * 2
    env.reset()
    assert tasks[0] not in played()
    env.set_options([{"task": task} for task in tasks])
    env.reset()
    assert played() == tasks and [as_lists(info["task"]) for info in env.reset_infos] == tasks
    for _ in range(3):
        env.step(np.zeros((2, *env.action_space.shape), dtype=np.int64))
    assert not any(task in played() for task in tasks)
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
