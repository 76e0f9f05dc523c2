"""What a checkpoint says of an environment, and where it can be used."""

from __future__ import annotations

import json
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecMonitor, VecNormalize

import recgym
from recgym.agents import MetaPPO, load_pretrained
from recgym.agents.algorithms import ALGORITHMS, build
from recgym.agents.checkpoint import export, load, read, save
from recgym.agents.environments import identify
from recgym.layout import Layout
from recgym.sb3 import RecVecEnv, make_vec_env
from recgym.scenarios.bandit import Bandit
from recgym.scenarios.contextual import ContextualBandit
from tests.small_checkpoints import PARAMETERS, SMALL, Unregistered, cart_pole, make, meta, write


def test_horizon_may_differ_but_arms_may_not_for_an_mlp(written: Path) -> None:
    longer = make_vec_env("RecBandit-v0", 4, 0, arms=4, horizon=50)
    action, _ = load(written, env=longer).predict(longer.reset())
    assert action.shape == (4,)
    with pytest.raises(ValueError, match=r"candidates \(4 there, 5 here\)"):
        load(written, env=make_vec_env("RecBandit-v0", 4, arms=5))
    with pytest.raises(ValueError, match=r"average \(1 there, 0 here\)"):
        load(written, env=make_vec_env("RecBandit-v0", 4, arms=4, statistics=False))
    with pytest.raises(ValueError, match=r"time, remaining, .* there, no named fields here"):
        load(written, env=VecFrameStack(make_vec_env("RecBandit-v0", 4, arms=4), 2))


def test_what_is_described_wrongly_is_not_saved(tmp_path: Path) -> None:
    model = make("ppo")
    described = {"arguments": SMALL["ppo"], "env_id": "RecBandit-v0", "parameters": PARAMETERS}
    for wrong, message in (
        ({"algo": "a2c"}, "the model is a PPO, not a2c"),
        ({"env_id": "RecBanditDrift-v0"}, "environment is not"),
        ({"parameters": {"arms": 5}}, "environment is not"),
    ):
        with pytest.raises(ValueError, match=message):
            save(tmp_path / "wrong", model, **{**described, **wrong})
    with pytest.raises(ValueError, match="without the id"):
        save(tmp_path / "nameless", model, arguments=SMALL["ppo"], parameters=PARAMETERS)
    model.set_env(VecMonitor(make_vec_env("RecBandit-v0", 4, 0, **PARAMETERS)))
    assert read(save(tmp_path / "monitored", model, **described))[0]["algo"] == "ppo"
    model.set_env(VecNormalize(make_vec_env("RecBandit-v0", 4, 0, **PARAMETERS)))
    with pytest.raises(ValueError, match="VecNormalize"):
        save(tmp_path / "normalised", model, **described)
    model.set_env(VecNormalize(make_vec_env("RecBandit-v0", 4, 0, **PARAMETERS), norm_obs=False))
    assert read(save(tmp_path / "rewards", model, **described))[0]["algo"] == "ppo"
    model.learn(40)
    with pytest.raises(ValueError, match="VecNormalize"):
        save(tmp_path / "normalised", model, training=True, **described)
    stacked = build("ppo", VecFrameStack(make_vec_env("RecBandit-v0", 4, **PARAMETERS), 2), SMALL["ppo"])
    with pytest.raises(ValueError, match="environment is not"):
        save(tmp_path / "stacked", stacked, **described)
    model.env = None
    with pytest.raises(ValueError, match="no environment"):
        save(tmp_path / "without", model, **described)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["monitored.safetensors", "rewards.safetensors"]


@pytest.mark.parametrize("env_id", recgym.SCENARIOS)
def test_every_registered_environment_is_described(env_id: str) -> None:
    assert identify(recgym.make_scenario(env_id)) == (env_id, {})
    assert identify(recgym.make_scenario(env_id, horizon=7)) == (env_id, {"horizon": 7})
    for changed in recgym.SCENARIOS[env_id].shifted:
        shifted = recgym.make_scenario(env_id, **changed)
        found, parameters = identify(shifted)
        assert recgym.make_scenario(found, **json.loads(json.dumps(parameters))) == shifted


def test_the_nearest_preset_describes_a_scenario(monkeypatch: pytest.MonkeyPatch) -> None:
    preset = recgym.Preset("recgym.scenarios.bandit:Bandit", {"arms": 50, "horizon": 500}, {})
    monkeypatch.setitem(recgym.SCENARIOS, "RecBanditLarge-v0", preset)
    assert identify(Bandit(arms=50, horizon=500)) == ("RecBanditLarge-v0", {})
    assert identify(Bandit(arms=50, horizon=500, alpha=0.5)) == ("RecBanditLarge-v0", {"alpha": 0.5})
    assert identify(Bandit(arms=50)) == ("RecBandit-v0", {"arms": 50})
    assert identify(Bandit()) == ("RecBandit-v0", {})


def test_values_of_numpy_are_described_plainly() -> None:
    found = identify(Bandit(arms=np.int64(4), alpha=np.float32(0.5)))  # type: ignore[arg-type]
    assert found == ("RecBandit-v0", {"arms": 4, "alpha": 0.5})
    table = ((0.5, 1.0), (2.0, -1.0), (0.0, 0.0))
    assert identify(ContextualBandit(arms=3, features=table))[1]["features"] == [list(row) for row in table]


def test_what_is_not_registered_is_not_described() -> None:
    assert identify(Unregistered()) == (None, {})
    assert identify(object()) == (None, {})


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_the_environment_of_the_model_is_described(algo: str, tmp_path: Path) -> None:
    model = make(algo)
    header = read(save(tmp_path / "agent", model, arguments=SMALL[algo]))[0]
    assert header["algo"] == algo
    assert header["env"] == {"id": "RecBandit-v0", "parameters": PARAMETERS, "n_envs": 4}
    assert header["spaces"] is None
    assert load(tmp_path / "agent").env.scenario == model.env.scenario


@pytest.mark.parametrize("algo", [algo for algo in ALGORITHMS if algo != "meta_ppo"])
def test_an_unregistered_environment_is_for_any_candidates_alone(algo: str, tmp_path: Path) -> None:
    model = build(algo, RecVecEnv(Unregistered(arms=4, horizon=15), 4), SMALL[algo], device="cpu")
    with pytest.raises(ValueError, match="environment is not one of RecBandit-v0, "):
        save(tmp_path / "agent", model, arguments=SMALL[algo])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arms", [2, 9])
def test_any_number_of_candidates_may_be_played(arms: int, tmp_path: Path) -> None:
    path = write(tmp_path / "agent", make("meta_ppo"), "meta_ppo")
    env = make_vec_env("RecBandit-v0", 3, 0, arms=arms, horizon=20)
    action, _ = load(path, env=env).predict(env.reset())
    assert action.shape == (3,) and action.max() < arms
    with pytest.raises(ValueError, match=r"average \(1 there, 0 here\), exposure \(1 there, 0 here\)") as caught:
        load(path, env=make_vec_env("RecBandit-v0", 3, arms=arms, statistics=False))
    assert str(caught.value).startswith(f"{path}: ")
    with pytest.raises(ValueError, match=r"time, remaining, .* there, no named fields here"):
        load(path, env=cart_pole())


@pytest.mark.parametrize("algo", ["ppo", "meta_ppo"])
def test_fields_in_another_order_are_refused(algo: str, tmp_path: Path) -> None:
    path = write(tmp_path / "agent", make(algo), algo)
    env = make_vec_env("RecBandit-v0", 4, **PARAMETERS)
    env.layout = Layout(env.layout.context[::-1], env.layout.candidate, env.layout.candidates)
    with pytest.raises(ValueError, match=r"the order time, remaining, .* there, last_reward, remaining, time, .* here"):
        load(path, env=env)


def test_an_environment_of_others_is_kept_by_its_spaces(tmp_path: Path) -> None:
    model = meta(cart_pole(), n_steps=16)
    model.learn(32)
    header = read(save(tmp_path / "agent", model, arguments=model.arguments()))[0]
    assert header["env"] == {"id": None, "parameters": {}, "n_envs": 2}
    assert header["spaces"] == {"observation": [4], "action": [2]}
    assert header["layout"] is None
    path = tmp_path / "agent.safetensors"
    with pytest.raises(ValueError, match="not registered, so pass one") as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")
    for env in (cart_pole(3), gymnasium.make("CartPole-v1")):
        loaded = load(path, env=env, device="cpu")
        observation = np.zeros((3, 4), dtype=np.float32)
        ours, theirs = (m.predict(observation, deterministic=True)[0] for m in (model, loaded))
        assert np.array_equal(ours, theirs)
    acrobot = DummyVecEnv([lambda: gymnasium.make("Acrobot-v1")])
    with pytest.raises(ValueError, match=r"observation \(\[4\] there, \[6\] here\), action \(\[2\] there, .* here\)"):
        load(path, env=acrobot)
    with pytest.raises(ValueError, match=r"no named fields there, time, remaining, .* here"):
        load(path, env=make_vec_env("RecBandit-v0"))
    assert read(export(path, tmp_path / "small"))[0]["spaces"] == header["spaces"]


def test_single_environments_are_kept_with_their_layout(tmp_path: Path) -> None:
    model = meta(DummyVecEnv([lambda: gymnasium.make("RecBandit-v0", **PARAMETERS)] * 2))
    header = read(save(tmp_path / "agent", model, arguments=model.arguments()))[0]
    assert header["env"]["id"] is None
    assert header["spaces"] == {"observation": [15], "action": [4]}
    assert Layout.from_json(header["layout"]) == make_vec_env("RecBandit-v0", **PARAMETERS).layout
    env = make_vec_env("RecBandit-v0", 3, 0, arms=7)
    assert load(tmp_path / "agent", env=env).predict(env.reset())[0].shape == (3,)


@pytest.mark.parametrize("wrap", ["frames", "time"])
def test_a_wrapper_that_hides_the_layout_is_refused(wrap: str) -> None:
    """Whatever it is: a policy that read no fields would learn far less, and say nothing of it."""
    env = make_vec_env("RecBandit-v0", 4, 0, **PARAMETERS)
    if wrap == "frames":
        wrapped, name = VecFrameStack(env, 2), "VecFrameStack"
    else:
        single = gymnasium.wrappers.TimeAwareObservation(gymnasium.make("RecBandit-v0", **PARAMETERS))
        wrapped, name = DummyVecEnv([lambda: single]), "a wrapper"
    with pytest.raises(ValueError, match=rf"{name} shows observations of shape .* leave the wrapper out"):
        MetaPPO("TransformerPolicy", wrapped)
    build("ppo", wrapped, {**SMALL["ppo"], "batch_size": 10})  # which reads no fields


def test_other_sizes_are_explained() -> None:
    agent = load_pretrained("RecBandit-v0")
    observation = make_vec_env("RecBandit-v0", 1, 0, arms=20).reset()
    with pytest.raises(ValueError, match=r"observations must have shape \(33,\).* load_pretrained\(id, arms=20\)"):
        agent.predict(observation)
    assert load_pretrained("RecBandit-v0", arms=20).predict(observation)[0].shape == (1,)


def test_a_file_of_sb3_is_named_for_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    PPO("MlpPolicy", make_vec_env("RecBandit-v0", 2, 0, horizon=4), n_steps=4, batch_size=8).save("x")
    for load_it in (MetaPPO.load, load):
        with pytest.raises(
            ValueError, match=r"x: no such checkpoint, but x.zip looks like a file of Stable-Baselines3"
        ):
            load_it("x")
        with pytest.raises(ValueError, match=r"x.zip: this is a zip or pickle file"):
            load_it("x.zip")
