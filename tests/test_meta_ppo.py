"""MetaPPO as an algorithm of SB3: learning, callbacks, logs, files, what is refused."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import (
    CheckpointCallback,
    EvalCallback,
    StopTrainingOnMaxEpisodes,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.utils import ConstantSchedule, LinearSchedule
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor, VecNormalize

from recgym.agents.algorithms import build
from recgym.agents.meta_ppo import MetaPPO
from recgym.agents.policy import TransformerPolicy
from recgym.baselines import make_baseline
from recgym.evaluation import VALIDATION_SEED, rollout, summarise
from recgym.sb3 import RecVecEnv
from tests.small_agents import (
    LEARNING,
    NETWORKS,
    POLICY,
    Log,
    bandit,
    cart_pole,
    contextual,
    log_ratios,
    meta,
    same,
    shaken,
    singles,
    slates,
    stepped,
    weights,
)
from tests.toys import Shelf

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("ignore:imitation of")]


ENVIRONMENTS: dict[str, Callable[[], Any]] = {
    "batch": bandit,
    "batch on torch": lambda: bandit(device="torch"),
    "contextual": contextual,
    "single": singles,
    "several": lambda: singles(2),
    "id": lambda: "RecBandit-v0",
    "environment": lambda: gymnasium.make("RecBandit-v0", arms=3, horizon=5),
    "monitored batch": lambda: VecMonitor(bandit()),
    "monitored singles": lambda: VecMonitor(DummyVecEnv([lambda: gymnasium.make("RecBandit-v0", arms=3, horizon=5)])),
    "rewards normalised": lambda: VecNormalize(bandit(), norm_obs=False),
    "no layout": cart_pole,
    "no layout, id": lambda: "CartPole-v1",
    "no layout, normalised": lambda: VecNormalize(cart_pole()),
}


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_learns_predicts_saves_and_loads(name: str, tmp_path: Path) -> None:
    model = MetaPPO(
        "TransformerPolicy",
        ENVIRONMENTS[name](),
        policy_kwargs=POLICY,
        n_steps=16 if "no layout" in name else None,
        **LEARNING,
    )
    before = weights(model)
    assert model.learn(1) is model and model._n_updates == LEARNING["n_epochs"]
    assert not same(before, weights(model))
    assert model.num_timesteps == model.n_steps * model.n_envs
    env = model.get_env()
    observation = env.reset()
    action, memory = model.predict(observation)
    assert action.shape == (env.num_envs,) and all(env.action_space.contains(a) for a in action)
    assert all(isinstance(leaf, np.ndarray) and len(leaf) == env.num_envs for leaf in memory)
    if "normalised" in name and "no layout" in name:  # their statistics are in no checkpoint
        return
    model.save(tmp_path / "agent")
    loaded = MetaPPO.load(tmp_path / "agent", env=env, device="cpu")
    assert same(weights(model), weights(loaded))
    assert np.array_equal(*(m.predict(observation, deterministic=True)[0] for m in (model, loaded)))
    loaded.set_parameters(model.get_parameters())
    assert loaded.learn(1).num_timesteps == model.num_timesteps


@pytest.mark.parametrize("env", [bandit, lambda: bandit(device="torch"), cart_pole])
def test_one_seed_gives_the_same_weights(env: Callable[[], Any]) -> None:
    found = []
    for seed in (7, 7, 8):
        torch.manual_seed(len(found))
        found.append(weights(meta(env(), seed=seed).learn(60)))
    assert same(found[0], found[1]) and not same(found[0], found[2])


def test_the_seed_is_that_of_the_environment_too() -> None:
    rates = []
    for _ in range(2):
        env = bandit(seed=None)
        meta(env, seed=5).learn(1)
        rates.append(np.array(env.get_attr("task")[0]["rates"]))
    assert np.array_equal(*rates)


@pytest.mark.parametrize("env", [bandit, cart_pole])
def test_learning_in_two_calls_is_learning_in_one(env: Callable[[], Any]) -> None:
    once = meta(env())
    rows = once.n_envs * once.n_steps
    once.learn(4 * rows)
    twice = meta(env())
    twice.learn(rows)
    twice.learn(3 * rows, reset_num_timesteps=False)
    assert twice.num_timesteps == once.num_timesteps == 4 * rows
    assert same(weights(once), weights(twice))
    assert twice.learn(rows).num_timesteps == rows


def test_another_environment_is_set() -> None:
    model, other = meta(bandit()), bandit(seed=3)
    model.learn(20)
    model.set_env(other)
    other.seed(3)
    model.learn(40, reset_num_timesteps=False)
    assert other.runner.snapshot()["counters"][0] == 1 + 2 * 6  # a reset, and two trials with one each
    assert model.num_timesteps == 60
    with pytest.raises(AssertionError, match="number of environments"):
        model.set_env(bandit(2))
    with pytest.raises(ValueError, match=r"other spaces, such as .*MetaPPO.load\(path, env=...\) plays it"):
        model.set_env(bandit(arms=4))
    with pytest.raises(ValueError, match=r"than here: average \(1 there, 0 here\), exposure \(1 there, 0 here\)"):
        model.set_env(bandit(statistics=False))


@pytest.mark.parametrize("network", NETWORKS)
def test_loaded_for_other_rows_candidates_and_horizons(network: str, tmp_path: Path) -> None:
    model = shaken(meta(bandit(), NETWORKS[network]))
    model.learn(20)
    model.save(tmp_path / "agent")
    for n_envs, arms, horizon in ((4, 3, 5), (2, 6, 5), (7, 2, 9)):
        loaded = MetaPPO.load(tmp_path / "agent", env=bandit(n_envs, arms=arms, horizon=horizon), device="cpu")
        assert same(weights(model), weights(loaded))
        trials = rollout(loaded, loaded.env.scenario, trials=20, seed=1)
        assert trials.actions.shape == (20, horizon) and trials.actions.max() < arms
        loaded.learn(1)
        assert loaded.num_timesteps == n_envs * horizon
        assert not same(weights(model), weights(loaded))
    with pytest.raises(ValueError, match="holds a MetaPPO, not a Other"):
        type("Other", (MetaPPO,), {}).load(tmp_path / "agent")


def test_schedules() -> None:
    four = 4 * 20
    schedules: dict[Any, list[float]] = {
        "lin_1e-3": [1e-3, 7.5e-4, 5e-4, 2.5e-4],
        1e-3: [1e-3] * 4,
        ConstantSchedule(1e-3): [1e-3] * 4,
        LinearSchedule(1e-3, 0.0, 1.0): [1e-3, 7.5e-4, 5e-4, 2.5e-4],
        (lambda left: 1e-3 * left**2): [1e-3 * left**2 for left in (1.0, 0.75, 0.5, 0.25)],
    }
    for schedule, expected in schedules.items():
        plain = {name: value for name, value in LEARNING.items() if name not in ("seed", "device")}
        changed = {"learning_rate": schedule, "clip_range": schedule, "batch_size": 20, "policy_kwargs": POLICY}
        arguments = {"policy": "TransformerPolicy", **plain, **changed}
        model, log = build("meta_ppo", bandit(), arguments, device="cpu", seed=0), Log()
        model.learn(four, log)
        assert log["train/learning_rate"] == pytest.approx(expected)
        assert log["train/clip_range"] == pytest.approx(expected)
        assert model.policy.optimizer.param_groups[0]["lr"] == pytest.approx(expected[-1])


def test_nothing_turns_negative_where_the_last_rollout_goes_beyond_the_end() -> None:
    model, log = meta(bandit(), learning_rate=lambda left: 1e-3 * left, expert="ucb1", expert_coef=0.5), Log()
    model.learn(21, log)
    assert log["train/expert_coef"] == pytest.approx([0.5, 0.5 / 21])
    assert log["train/learning_rate"] == pytest.approx([1e-3, 1e-3 / 21])


def test_updates_are_counted_in_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    for n_epochs in (1, 3):
        model = meta(bandit(), n_epochs=n_epochs, batch_size=5)
        found = log_ratios(monkeypatch)
        model.learn(40)
        assert model._n_updates == 2 * n_epochs
        assert [log_ratio.numel() for log_ratio in found] == [5] * 4 * 2 * n_epochs


def test_an_update_ends_early_where_the_policy_moves_too_far() -> None:
    model, log = meta(bandit(), n_epochs=5, batch_size=10, learning_rate=0.1, target_kl=1e-6), Log()
    model.learn(20, log)
    assert model._n_updates == 1
    assert log["train/approx_kl"][0] > 1e-6
    model = meta(bandit(), n_epochs=5, batch_size=10, learning_rate=0.1, target_kl=None)
    assert model.learn(20)._n_updates == 5


@pytest.mark.parametrize("batch_size, minibatches", [(1, 4), (7, 4), (10, 2), (15, 1), (1000, 1), (None, 4)])
def test_minibatches_hold_whole_trials(batch_size: int | None, minibatches: int) -> None:
    model = meta(bandit(), batch_size=batch_size, n_epochs=1)
    model.learn(20)  # four trials of five decisions
    assert {int(state["step"]) for state in model.policy.optimizer.state.values()} == {minibatches}


def test_optimizer_arguments() -> None:
    model = meta(bandit(), {"optimizer_kwargs": {"eps": 1e-3}}, weight_decay=0.25)
    groups = model.policy.optimizer.param_groups
    assert isinstance(model.policy.optimizer, torch.optim.AdamW)
    assert [group["weight_decay"] for group in groups] == [0.25, 0.0]
    assert {(group["eps"], group["lr"]) for group in groups} == {(1e-3, LEARNING["learning_rate"])}
    assert sum(len(group["params"]) for group in groups) == len(list(model.policy.parameters()))


def test_weight_decay_leaves_time_scales_and_biases_alone() -> None:
    model = meta(bandit(), weight_decay=0.5)
    names = {id(weight): name for name, weight in model.policy.named_parameters()}
    decayed = {
        names[id(w)] for group in model.policy.optimizer.param_groups if group["weight_decay"] for w in group["params"]
    }
    assert "network.embed.0.weight" in decayed
    assert not any(part in name for name in decayed for part in ("logit", "ridge", "bias", "norm"))


@pytest.mark.parametrize("env", [lambda seed: VecMonitor(bandit(seed=seed)), lambda seed: cart_pole()])
def test_evaluating_in_the_middle_of_rollouts_changes_nothing(env: Callable[[int], Any], tmp_path: Path) -> None:
    alone = shaken(meta(env(0))).learn(100)
    watched = shaken(meta(env(0)))
    evaluation = EvalCallback(
        env(1),
        eval_freq=3,
        n_eval_episodes=4,
        deterministic=True,
        best_model_save_path=str(tmp_path),
        verbose=0,
    )
    watched.learn(100, evaluation)
    assert evaluation.n_calls > 3 and evaluation.best_mean_reward > -np.inf
    assert same(weights(alone), weights(watched))
    assert MetaPPO.load(tmp_path / "best_model", env=env(1), device="cpu").num_timesteps > 0


def test_callbacks_of_sb3(tmp_path: Path) -> None:
    model = meta(VecMonitor(bandit()))
    model.learn(40, CheckpointCallback(save_freq=5, save_path=str(tmp_path)), progress_bar=True)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["rl_model_20_steps.safetensors", "rl_model_40_steps.safetensors"]
    assert MetaPPO.load(tmp_path / files[1], env=model.env).num_timesteps == 40
    threshold = StopTrainingOnRewardThreshold(reward_threshold=-1.0)
    stopping = EvalCallback(VecMonitor(bandit()), callback_on_new_best=threshold, eval_freq=2, verbose=0)
    assert model.learn(1000, stopping).num_timesteps == 2 * 4


@pytest.mark.parametrize("device", ["cpu", "torch"])
def test_a_callback_that_counts_trials(device: str) -> None:
    model = meta(bandit(device=device))
    assert model.learn(1000, StopTrainingOnMaxEpisodes(3)).num_timesteps == 3 * 20  # of each environment


def test_callbacks_see_the_names_of_sb3() -> None:
    seen: list[dict[str, Any]] = []

    def look(local: dict[str, Any], _: dict[str, Any]) -> bool:
        seen.append(local)
        return True

    for env in (bandit(), bandit(device="torch"), cart_pole()):
        meta(env).learn(1, look)
        names = {"self", "env", "rollout_buffer", "n_steps", "actions", "values", "log_probs", "new_obs", "rewards"}
        assert names | {"dones", "infos"} <= seen[-1].keys()
        assert len(seen[-1]["dones"]) == len(seen[-1]["rewards"]) == env.num_envs


def test_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    model = meta(bandit(), expert="ucb1", pretrain_steps=40, expert_coef=0.1, tensorboard_log=str(tmp_path))
    model.learn(100)
    (folder,) = tmp_path.iterdir()
    assert folder.name == "MetaPPO_1"
    events = EventAccumulator(str(folder)).Reload()
    wanted = {
        *("rollout/ep_rew_mean", "rollout/ep_len_mean", "time/fps", "time/rollout_seconds", "time/update_seconds"),
        *(f"imitation/{name}" for name in ("loss", "agreement", "value_loss", "grad_norm", "learning_rate")),
        *("train/approx_kl", "train/clip_fraction", "train/clip_range", "train/entropy_loss", "train/loss"),
        *("train/explained_variance", "train/policy_gradient_loss", "train/value_loss", "train/learning_rate"),
        *("train/grad_norm", "train/expert_coef", "train/expert_divergence", "train/expert_agreement"),
    }
    assert wanted <= set(events.Tags()["scalars"])
    assert all(np.isfinite(event.value) for tag in wanted for event in events.Scalars(tag))
    assert [event.step for event in events.Scalars("imitation/loss")] == [40, 60]  # logged after the next rollout
    assert [event.step for event in events.Scalars("train/loss")] == [80, 100]
    assert {event.value for event in events.Scalars("rollout/ep_len_mean")} == {5.0}
    assert min(event.value for event in events.Scalars("time/update_seconds")) > 0


@pytest.mark.parametrize("network", NETWORKS)
def test_slates_are_learned_from_as_they_were_chosen(
    network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = RecVecEnv(Shelf(), 6)
    model = shaken(meta(env, NETWORKS[network], learning_rate=0.0))
    found = log_ratios(monkeypatch)
    model.learn(96)
    assert torch.cat([log_ratio.flatten() for log_ratio in found]).abs().max() < 1e-4
    actions = model.rollout_buffer.actions
    assert actions.shape == (8, 6, 2) and (actions[..., 0] != actions[..., 1]).all()
    action, _ = model.predict(env.reset())
    assert action.shape == (6, 2) and model.predict(env.reset()[0])[0].shape == (2,)
    observations, starts = slates(RecVecEnv(Shelf(), 6), 8)
    logits, values = stepped(model.policy, observations, starts)
    with torch.no_grad():
        distribution, full = model.policy.evaluate_trials(observations, starts)
    torch.testing.assert_close(logits, distribution.logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(values, full, rtol=1e-5, atol=1e-5)
    clicked = slice(env.layout.sizes[0] + 1, None, 2)
    assert 0 < observations[:, 3, clicked].sum() < observations[:, 3, clicked].numel()
    observations[:, 3, clicked] = 1.0 - observations[:, 3, clicked]  # of what was shown then: remembered
    changed = stepped(model.policy, observations, starts)[0] - logits
    assert torch.equal(changed[:, :3], torch.zeros_like(changed[:, :3]))
    assert changed[:, -1].abs().amax(dim=-1).min() > 1e-4
    model.save(tmp_path / "agent")
    loaded, seen = MetaPPO.load(tmp_path / "agent", env=env, device="cpu"), env.reset()
    assert np.array_equal(*(m.predict(seen, deterministic=True)[0] for m in (model, loaded)))


def test_slates_are_learned() -> None:
    scenario = Shelf()
    model = meta(RecVecEnv(scenario, 64), learning_rate=2e-2, n_epochs=4)
    model.learn(10 * 64 * 8)
    names = {"random": make_baseline("random", scenario), "informed": make_baseline("informed", scenario)}
    results = {n: rollout(p, scenario, trials=500, seed=VALIDATION_SEED) for n, p in {**names, "agent": model}.items()}
    summary = summarise(results, scenario)["agent"]
    assert summary.versus["random"].low > 1.0
    assert summary.normalised.low > 0.2


def test_observations_must_not_be_normalised() -> None:
    refused = "VecNormalize changes the rewards and candidates .*norm_obs=False"
    with pytest.raises(ValueError, match=refused):
        meta(VecNormalize(bandit()))
    model = meta(bandit())
    model.set_env(VecNormalize(bandit()))
    with pytest.raises(ValueError, match=refused):
        model.learn(1)


@pytest.mark.parametrize("expert", [{}, {"expert": "ucb1", "pretrain_steps": 100}])
def test_a_loss_that_is_not_finite_stops_before_the_weights_change(
    expert: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = meta(bandit(), **expert)
    before = weights(model)
    monkeypatch.setattr(model, "_value_loss", lambda values, *_: values.mean() * math.nan)
    with pytest.raises(
        ValueError, match="update 1: loss nan, gradient norm nan; stopped before the weights were changed"
    ):
        model.learn(1)
    assert same(before, weights(model))
    monkeypatch.setattr(model, "_value_loss", lambda values, *_: (values - values.detach()).abs().sqrt().sum())
    with pytest.raises(ValueError, match="gradient norm"):
        model.learn(1)
    assert same(before, weights(model))


def test_a_policy_of_another_class_is_in_no_checkpoint(tmp_path: Path) -> None:
    other = type("Other", (TransformerPolicy,), {})
    model = MetaPPO(other, bandit(), policy_kwargs=POLICY, **LEARNING)
    model.learn(1)
    with pytest.raises(ValueError, match="can hold a TransformerPolicy, not a Other"):
        model.save(tmp_path / "agent")
    assert not list(tmp_path.iterdir())


def test_what_a_file_cannot_hold_is_kept_as_its_first_value_or_left_out(tmp_path: Path) -> None:
    kwargs = {**POLICY, "optimizer_class": torch.optim.Adam, "expert_prior": np.full(3, 1 / 3), "init_policy": "expert"}
    model = meta(bandit(), kwargs, learning_rate=lambda left: 1e-3 * left, n_steps=np.int64(10), n_epochs=np.int64(2))
    model.learn(40)
    with pytest.warns(UserWarning, match="file") as warned:
        model.save(tmp_path / "agent")
    said = " ".join(str(one.message) for one in warned)
    assert "learning_rate" in said and "the file keeps its first value" in said and "optimizer_class" in said
    loaded = MetaPPO.load(tmp_path / "agent", device="cpu", n_epochs=3, verbose=1)
    assert same(weights(model), weights(loaded)) and loaded.n_epochs == 3 and loaded.verbose == 1
    assert loaded.learning_rate == 1e-3
    assert not same(weights(model), weights(loaded.learn(20)))
    with pytest.raises(ValueError, match=r"header's arguments and \['n_epoch'\]: .*n_epoch"):
        MetaPPO.load(tmp_path / "agent", device="cpu", n_epoch=3)
    with pytest.raises(ValueError, match="nothing to exclude"):
        model.save(tmp_path / "other", exclude=["env"])
    with pytest.raises(TypeError, match="needs the path of a file, got a BytesIO"):
        model.save(io.BytesIO())
