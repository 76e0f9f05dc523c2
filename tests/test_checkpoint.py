"""Checkpoints: round trips and bit-identical resuming."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor

from recgym.agents.algorithms import ALGORITHMS
from recgym.agents.checkpoint import export, load, read, save
from recgym.agents.pretrained import agent_files, load_pretrained
from recgym.evaluation import rollout
from recgym.sb3 import RecVecEnv, make_vec_env
from tests.small_checkpoints import PARAMETERS, TOTAL, SaveAt, Unregistered, cart_pole, make, meta, write


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_round_trip_predicts_alike(algo: str, tmp_path: Path) -> None:
    model = make(algo)
    model.learn(80)
    if algo == "dqn":
        model.exploration_rate = 0.3
    loaded = load(write(tmp_path / "agent", model, algo))
    assert getattr(loaded, "exploration_rate", 0.3) == 0.3
    observation = make_vec_env("RecBandit-v0", 4, 5, **PARAMETERS).reset()
    for name, tensor in model.policy.state_dict().items():
        assert torch.equal(tensor, loaded.policy.state_dict()[name]), name
    ours, theirs = (m.predict(observation, deterministic=True)[0] for m in (model, loaded))
    assert np.array_equal(ours, theirs)
    assert loaded.num_timesteps == model.num_timesteps


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_evaluating_is_repeatable_and_leaves_no_trace(algo: str) -> None:
    model = make(algo)
    model.learn(200)
    if algo == "dqn":
        model.exploration_rate = 0.5
    scenario = model.env.scenario
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    before = torch.get_rng_state(), np.random.get_state()[1], model.action_space.np_random.bit_generator.state  # noqa: NPY002
    first = rollout(model, scenario, trials=20, seed=1)
    after = torch.get_rng_state(), np.random.get_state()[1], model.action_space.np_random.bit_generator.state  # noqa: NPY002
    assert torch.equal(before[0], after[0]) and np.array_equal(before[1], after[1]) and before[2] == after[2]
    torch.manual_seed(4)
    np.random.seed(4)  # noqa: NPY002
    model.action_space.seed(4)
    assert np.array_equal(rollout(model, scenario, trials=20, seed=1).regret, first.regret)
    assert not np.array_equal(rollout(model, scenario, trials=20, seed=2).regret, first.regret)


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_resumed_run_ends_bit_identical(algo: str, tmp_path: Path) -> None:
    whole = make(algo)
    whole.learn(TOTAL, SaveAt(tmp_path / "middle", algo, TOTAL // 2))
    final = read(write(tmp_path / "whole", whole, algo, training=True))

    torch.manual_seed(99)  # whatever happened in between must not matter
    np.random.seed(99)  # noqa: NPY002
    env = make_vec_env("RecBandit-v0", 4, 77, **PARAMETERS)
    resumed = load(tmp_path / "middle.safetensors", env=env, device="cpu", resume=True)
    assert TOTAL // 2 <= resumed.num_timesteps < TOTAL
    kept = write(tmp_path / "kept", resumed, algo, training=True)
    assert kept.read_bytes() == (tmp_path / "middle.safetensors").read_bytes()
    resumed.learn(TOTAL - resumed.num_timesteps, reset_num_timesteps=False)
    again = read(write(tmp_path / "again", resumed, algo, training=True))

    assert set(final[1]) == set(again[1])
    for name, tensor in final[1].items():
        assert torch.equal(tensor, again[1][name]), name
    for header in (final[0], again[0]):
        for info in header["training"]["episode_infos"]:
            info.pop("t")  # wall-clock time
    assert final[0] == again[0]


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_export_keeps_the_policy_and_drops_the_rest(algo: str, tmp_path: Path) -> None:
    model = make(algo)
    model.learn(80)
    whole = write(tmp_path / "whole", model, algo, training=True)
    small = export(whole, tmp_path / "small")
    assert small.stat().st_size < whole.stat().st_size
    header, tensors = read(small)
    assert read(whole)[0]["counters"] == {"saved": 1}
    assert all(name.startswith("policy.") for name in tensors)
    assert (header["training"], header["counters"]) == (None, {})
    for name, tensor in load(small).policy.state_dict().items():
        assert torch.equal(tensor, model.policy.state_dict()[name])
    with pytest.raises(ValueError, match="weights only"):
        load(small, env=make_vec_env("RecBandit-v0", 4, **PARAMETERS), resume=True)


@pytest.mark.parametrize("name", agent_files())
def test_shipped_agents_load(name: str) -> None:
    model = load_pretrained(name)
    action, _ = model.predict(model.env.reset())
    assert len(action) == model.env.num_envs


def test_an_agent_that_does_not_ship_is_named_with_those_that_do(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recgym.agents.pretrained.CHECKOUT", tmp_path)
    for there in ("none", "RecBandit-v0"):
        with pytest.raises(ValueError, match=f"no trained agent ships as 'RecBanditDrift-v0'; .*there are: {there}"):
            load_pretrained("RecBanditDrift-v0")
        (tmp_path / "RecBandit-v0").mkdir(exist_ok=True)
        (tmp_path / "RecBandit-v0" / "agent.safetensors").write_bytes(written.read_bytes())
    assert load_pretrained("RecBandit-v0").num_timesteps == 0


def test_weights_alone_do_not_resume(written: Path) -> None:
    with pytest.raises(ValueError, match="weights only"):
        load(written, env=make_vec_env("RecBandit-v0", 4, **PARAMETERS), resume=True)


@pytest.mark.parametrize("env", [cart_pole, lambda: DummyVecEnv([lambda: gymnasium.make("RecBandit-v0")])])
def test_training_is_not_kept_where_the_environment_cannot_be(env: Callable[[], Any], tmp_path: Path) -> None:
    model = meta(env(), n_steps=100)
    model.learn(100)
    with pytest.raises(ValueError, match=r"a DummyVecEnv, whose state it cannot hold .*: save without training"):
        save(tmp_path / "agent", model, arguments=model.arguments(), training=True)
    assert not list(tmp_path.iterdir())


@pytest.fixture(params=["unregistered", "monitored", "variants", "expert", "another seed"])
def unlike(request: pytest.FixtureRequest) -> Callable[[], Any]:
    """Makes models whose training state has something of its own."""
    registered = make_vec_env("RecBandit-v0", 4, 0, **PARAMETERS)
    return {
        "unregistered": lambda: meta(RecVecEnv(Unregistered(arms=4, horizon=15), 4)),
        "monitored": lambda: meta(VecMonitor(make_vec_env("RecBandit-v0", 4, 0, **PARAMETERS))),
        "variants": lambda: meta(registered, variants=[{"arms": 3}, {"arms": 6}, {}]),
        "expert": lambda: meta(registered, expert="ucb1", expert_coef=0.1, pretrain_steps=200),
        "another seed": lambda: meta(registered, expert="thompson", pretrain_steps=480, seed=5),
    }[request.param]


def test_a_transformer_resumes_bit_identical(unlike: Callable[[], Any], tmp_path: Path) -> None:
    class Save(BaseCallback):
        def _on_rollout_start(self) -> None:
            if self.model.num_timesteps == 240:
                save(tmp_path / "middle", self.model, arguments=self.model.arguments(), training=True)

        def _on_step(self) -> bool:
            return True

    whole = unlike()
    whole.env.seed(3)
    whole.learn(480, Save())
    own = read(tmp_path / "middle")[0]["own"]
    assert own["rollouts"] == 4
    torch.manual_seed(99)  # whatever happened in between must not matter
    resumed = load(tmp_path / "middle", env=unlike().env, device="cpu", resume=True)
    assert resumed.training_counters() == own
    resumed.learn(240, reset_num_timesteps=False)
    ours, theirs = (
        read(save(tmp_path / name, model, arguments=model.arguments(), training=True))
        for name, model in (("whole", whole), ("resumed", resumed))
    )
    assert set(ours[1]) == set(theirs[1])
    for name, tensor in ours[1].items():
        assert torch.equal(tensor, theirs[1][name]), name
    for header in (ours[0], theirs[0]):
        for info in header["training"]["episode_infos"]:
            info.pop("t")  # wall-clock time
    assert ours[0] == theirs[0]
