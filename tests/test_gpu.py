"""On a GPU, where there is one: no step waits for the host, and learning, checkpoints and actions are as on the CPU."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import recgym
from recgym.agents import load, load_pretrained
from recgym.agents.algorithms import build
from recgym.arrays import to_numpy, tree_items, tree_map
from recgym.rng import make_rng
from recgym.runner import Runner
from recgym.sb3 import make_vec_env
from tests.small_checkpoints import PARAMETERS, SMALL, write

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
ROWS = 64
AGENTS = Path(__file__).parent.parent / "agents"
SHIPPED = [env_id for env_id in recgym.SCENARIOS if (AGENTS / env_id / "agent.safetensors").exists()]
CLOSE = 1e-4  # of numbers of about 1: sums and exponentials differ in their last digits


@contextmanager
def without_waiting() -> Iterator[None]:
    """Raise where the GPU is waited for."""

    def watch(mode: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch calls it a prototype
            torch.cuda.set_sync_debug_mode(mode)

    watch("error")
    try:
        yield
    finally:
        watch("default")


def started(env_id: str, device: str) -> Runner:
    runner = Runner(recgym.make_scenario(env_id), ROWS, make_rng(device, 0))
    runner.reset()
    return runner


@pytest.mark.parametrize("env_id", recgym.SCENARIOS)
def test_no_step_waits_for_the_host(env_id: str) -> None:
    runner = started(env_id, "cuda")
    space: Any = runner.scenario.action_space
    shape = (ROWS, *space.shape)
    actions = torch.zeros(shape, dtype=torch.int64, device="cuda")
    if space.shape:
        actions = actions + torch.arange(space.shape[0], device="cuda")
    runner.step(actions)  # what is copied to the device once
    with without_waiting():
        for _ in range(3):
            step = runner.step(actions)
    assert step.observation.device.type == "cuda"
    assert torch.isfinite(step.observation).all()
    assert torch.isfinite(step.reward).all()


@pytest.mark.parametrize("env_id", recgym.SCENARIOS)
def test_the_same_state_is_the_same_there(env_id: str) -> None:
    """What draws no luck gives the same numbers of a state that is copied over."""
    host = started(env_id, "cpu")
    space: Any = host.scenario.action_space
    for _ in range(5):
        host.step(np.stack([space.sample() for _ in range(ROWS)]))
    state, scenario = host.state, host.scenario
    there = tree_map(lambda leaf: torch.as_tensor(np.copy(leaf), device="cuda"), state)
    scale = np.maximum(1.0, np.abs(scenario.observation_space.high))
    found, wanted = to_numpy(scenario.observe(there.seen)), scenario.observe(state.seen)
    np.testing.assert_allclose(found / scale, wanted / scale, 0, CLOSE)
    if scenario.solved:
        best = scenario.best_reward(state)
        np.testing.assert_allclose(to_numpy(scenario.best_reward(there)), best, CLOSE, CLOSE)


@pytest.mark.parametrize("env_id", ["RecBandit-v0", "RecSlate-v0", "AdPlacement-v0"])
def test_luck_has_the_same_mean(env_id: str) -> None:
    """2,000 trials' first decisions on either device: the means of the reward are within five standard errors."""
    means, errors = [], []
    for device in ("cpu", "cuda"):
        runner = Runner(recgym.make_scenario(env_id), 2_000, make_rng(device, 1))
        runner.reset()
        space: Any = runner.scenario.action_space
        action = np.arange(space.shape[0]) if space.shape else np.array(0)
        reward = to_numpy(runner.step(np.broadcast_to(action, (2_000, *space.shape)).copy()).reward)
        means.append(reward.mean())
        errors.append(reward.std() / np.sqrt(2_000))
    assert abs(means[0] - means[1]) <= 5.0 * np.hypot(*errors)


def learner() -> Any:
    env = make_vec_env("RecBandit-v0", 4, 0, device="cuda", **PARAMETERS)
    arguments = {**SMALL["meta_ppo"], "expert": "gittins", "pretrain_steps": 120}
    return build("meta_ppo", env, arguments, device="cuda", seed=0)


def test_training_resumes_bit_for_bit(tmp_path: Path) -> None:
    whole, part = learner(), learner()
    whole.learn(480)
    part.learn(240)
    path = write(tmp_path / "agent", part, "meta_ppo", training=True)
    resumed = load(path, env=learner().get_env(), device="cuda", resume=True, expert="gittins", pretrain_steps=120)
    resumed.learn(240, reset_num_timesteps=False)
    for name, wanted in whole.policy.state_dict().items():
        torch.testing.assert_close(resumed.policy.state_dict()[name], wanted, rtol=0, atol=0, msg=name)


@pytest.mark.parametrize("env_id", SHIPPED)
def test_agents_act_there_as_on_the_cpu(env_id: str) -> None:
    runner = started(env_id, "cpu")
    observation = runner.observation()
    starts = torch.ones(ROWS, dtype=torch.bool)
    probabilities = []
    for device in ("cpu", "cuda"):
        agent = load_pretrained(env_id, device=device)
        with torch.no_grad():
            distribution, _, memory = agent.policy.step(
                torch.as_tensor(observation, device=device), None, starts.to(device)
            )
        assert all(leaf.device.type == device for _, leaf in tree_items(memory))
        probabilities.append(to_numpy(distribution.log_probabilities().exp()))
    np.testing.assert_allclose(*probabilities, 0, CLOSE)
