"""MetaPPO and its policy: SB3's interface, memory, distributions, gradients against known answers, what is refused."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CheckpointCallback,
    EvalCallback,
    StopTrainingOnMaxEpisodes,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.utils import ConstantSchedule, LinearSchedule
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnvWrapper, VecFrameStack, VecMonitor, VecNormalize
from torch import Tensor

import recgym
from recgym.agents.algorithms import build
from recgym.agents.buffer import Batch, TrialBuffer, generalised_advantages
from recgym.agents.imitation import Expert, imitation_loss, mixed
from recgym.agents.meta_ppo import MetaPPO
from recgym.agents.policy import PlackettLuce, TransformerPolicy
from recgym.agents.transformer import SequenceNetwork
from recgym.arrays import Array, namespace
from recgym.baselines import make_baseline
from recgym.evaluation import VALIDATION_SEED, rollout, summarise
from recgym.layout import CHOSEN, Field, Layout, clock, clock_fields
from recgym.runner import Runner
from recgym.sb3 import RecVecEnv, make_vec_env
from recgym.scenario import Outcome

POLICY: dict[str, Any] = {
    "width": 8,
    "heads": 2,
    "layers": 1,
    "candidate_memory": True,
    "memory_scales": (1.0, 0.9),
    "history_layers": 0,
    "context_length": 200,
    "init_policy": "uniform",
}
LEARNING: dict[str, Any] = {
    "learning_rate": 1e-3,
    "n_epochs": 1,
    "gamma": 1.0,
    "gae_lambda": 0.9,
    "clip_range": 0.2,
    "ent_coef": 0.0,
    "vf_coef": 0.5,
    "max_grad_norm": 0.5,
    "weight_decay": 0.0,
    "reward_scale": 1.0,
    "expert_coef": 0.0,
    "pretrain_learning_rate": 1e-2,
    "pretrain_mix": 0.3,
    "batch_decisions": None,
    "learn_from": "reward",
    "pretrain_epochs": 1.0,
    "seed": 0,
    "device": "cpu",
}
NETWORKS: dict[str, dict[str, Any]] = {
    "memory": {},
    "history": {"candidate_memory": False, "history_layers": 2},
    "both": {"history_layers": 1, "layers": 2},
}


def bandit(
    n_envs: int = 4, seed: int | None = 0, device: str = "cpu", tasks: Any = None, **parameters: Any
) -> RecVecEnv:
    return make_vec_env("RecBandit-v0", n_envs, seed, device, tasks=tasks, **{"arms": 3, "horizon": 5, **parameters})


def contextual(n_envs: int = 4, **parameters: Any) -> RecVecEnv:
    return make_vec_env("RecBanditContextual-v0", n_envs, 0, **{"arms": 3, "horizon": 5, "features": 2, **parameters})


def singles(n_envs: int = 1, id: str = "RecBandit-v0", **parameters: Any) -> DummyVecEnv:
    parameters = parameters or ({"arms": 3, "horizon": 5} if id == "RecBandit-v0" else {})
    return DummyVecEnv([lambda: Monitor(gymnasium.make(id, **parameters))] * n_envs)


def cart_pole(n_envs: int = 2) -> DummyVecEnv:
    return singles(n_envs, "CartPole-v1")


def meta(env: Any, policy: Mapping[str, Any] | None = None, **arguments: Any) -> MetaPPO:
    chosen = {**LEARNING, **({} if env.has_attr("layout") else {"n_steps": 16}), **arguments}
    return MetaPPO("TransformerPolicy", env, policy_kwargs={**POLICY, **(policy or {})}, **chosen)


def shaken(model: MetaPPO, scale: float = 0.5) -> MetaPPO:
    """The model with weights that make everything matter."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.policy.parameters():
            weight += scale * torch.randn(weight.shape, generator=generator)
    return model


def weights(model: Any) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.policy.state_dict().items()}


def same(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> bool:
    assert left.keys() == right.keys()
    return all(torch.equal(left[name], right[name]) for name in left)


def played(env: Any, steps: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Observations [B, T, D] under random actions, and where trials start [B, T]."""
    env.action_space.seed(seed)
    observation, dones = env.reset(), np.ones(env.num_envs, dtype=bool)
    observations, starts = [], []
    for _ in range(steps):
        observations.append(observation)
        starts.append(dones)
        observation, _, dones, _ = env.step(np.array([env.action_space.sample() for _ in range(env.num_envs)]))
    return torch.tensor(np.stack(observations, axis=1)), torch.tensor(np.stack(starts, axis=1))


def stepped(policy: TransformerPolicy, observations: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [B, T, K] and values [B, T] of acting step by step."""
    memory, found = None, []
    with torch.no_grad():
        for t in range(observations.shape[1]):
            distribution, values, memory = policy.step(observations[:, t], memory, starts[:, t])
            found.append((distribution.logits, values))
    logits, values = zip(*found, strict=True)
    return torch.stack(logits, dim=1), torch.stack(values, dim=1)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Log(BaseCallback):
    """What each update logged, and what each rollout left in the buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.updates: list[dict[str, Any]] = []
        self.starts: list[Tensor] = []

    def _on_rollout_start(self) -> None:
        self._on_training_end()

    def _on_rollout_end(self) -> None:
        self.starts.append(self.locals["rollout_buffer"].starts.clone())

    def _on_training_end(self) -> None:
        logged = dict(self.logger.name_to_value)
        if any(name.startswith(("train/", "imitation/")) for name in logged):
            self.updates.append(logged)
            self.logger.name_to_value.clear()

    def _on_step(self) -> bool:
        return True

    def __getitem__(self, name: str) -> list[float]:
        return [logged[name] for logged in self.updates if name in logged]


class StopAt(BaseCallback):
    """Stops the rollout, or breaks it off, at one call."""

    def __init__(self, call: int, error: BaseException | None = None) -> None:
        super().__init__()
        self.call, self.error = call, error

    def _on_step(self) -> bool:
        if self.n_calls == self.call and self.error is not None:
            raise self.error
        return self.n_calls != self.call


# --- SB3's interface -------------------------------------------------------------------------------------------------
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
    "stacked": lambda: VecFrameStack(bandit(), 2),
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
        n_steps=16 if "no layout" in name or name == "stacked" else None,
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


@pytest.mark.parametrize("env", [bandit, lambda: bandit(device="torch"), cart_pole])
@pytest.mark.parametrize("error", [None, KeyboardInterrupt()])
def test_learning_goes_on_after_a_rollout_that_broke_off(env: Callable[[], Any], error: BaseException | None) -> None:
    model, log = meta(env()), Log()
    model.learn(1)
    before, done = weights(model), model.num_timesteps
    try:
        model.learn(1000, StopAt(3, error), reset_num_timesteps=False)
    except KeyboardInterrupt:
        assert error is not None
    assert model.num_timesteps == done + 3 * model.n_envs
    assert same(before, weights(model))
    model.learn(2 * model.n_steps * model.n_envs, log, reset_num_timesteps=False)
    assert len(log.updates) == 2 and log.starts[0][0].all()
    model.learn(1, StopAt(3))
    assert model.learn(1).num_timesteps == model.n_steps * model.n_envs


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
        assert trials.actions.shape == (horizon, arms)
        loaded.learn(1)
        assert loaded.num_timesteps == n_envs * horizon
        assert not same(weights(model), weights(loaded))
    with pytest.raises(ValueError, match="holds a MetaPPO, not a Other"):
        type("Other", (MetaPPO,), {}).load(tmp_path / "agent")


def test_schedules() -> None:
    four = 4 * 20
    schedules: dict[Any, list[float]] = {
        "lin_1e-3": [7.5e-4, 5e-4, 2.5e-4, 0.0],
        1e-3: [1e-3] * 4,
        ConstantSchedule(1e-3): [1e-3] * 4,
        LinearSchedule(1e-3, 0.0, 1.0): [7.5e-4, 5e-4, 2.5e-4, 0.0],
        (lambda left: 1e-3 * left**2): [1e-3 * left**2 for left in (0.75, 0.5, 0.25, 0.0)],
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
    assert log["train/expert_coef"] == pytest.approx([0.5 / 21, 0.0])
    assert log["train/learning_rate"] == pytest.approx([1e-3 / 21, 0.0])


def test_updates_are_counted_in_passes() -> None:
    for n_epochs in (1, 3):
        model = meta(bandit(), n_epochs=n_epochs, batch_size=5)
        found = log_ratios(model)
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


# --- callbacks and logs ----------------------------------------------------------------------------------------------
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


# --- acting ----------------------------------------------------------------------------------------------------------
@pytest.fixture(params=[*NETWORKS, "features", "no layout"])
def actor(request: pytest.FixtureRequest) -> MetaPPO:
    """A model of each kind of network, with weights that make everything matter."""
    if request.param == "no layout":
        return shaken(meta(cart_pole(3), {"layers": 2}))
    env = contextual(3, horizon=8) if request.param == "features" else bandit(3, horizon=8)
    return shaken(meta(env, NETWORKS.get(request.param, {"feature_memory": True})))


def test_a_single_observation_gives_a_single_action(actor: MetaPPO) -> None:
    observation = actor.env.reset()
    actions, _ = actor.predict(observation, deterministic=True)
    action, single = actor.predict(observation[0], deterministic=True)
    assert np.shape(action) == () and action == actions[0] and actor.action_space.contains(action)
    again, single = actor.predict(observation[0], state=single, episode_start=np.zeros(1, dtype=bool))
    assert np.shape(again) == () and len(single.length) == 1
    for leaf, row in zip(actor.predict(observation[:1])[1], actor.predict(observation[0])[1], strict=True):
        assert np.array_equal(leaf, row)


def test_actions_are_the_most_probable_or_drawn(actor: MetaPPO) -> None:
    observation = np.repeat(actor.env.reset()[:1], 2000, axis=0)
    with torch.no_grad():
        logits = actor.policy.step(torch.tensor(observation[:1]), None, torch.ones(1, dtype=torch.bool))[0].logits[0]
    torch.manual_seed(0)
    mode, _ = actor.predict(observation, deterministic=True)
    assert torch.equal(torch.get_rng_state(), torch.Generator().manual_seed(0).get_state())
    assert set(mode) == {int(logits.argmax())}
    drawn, _ = actor.predict(observation)
    torch.manual_seed(0)
    assert np.array_equal(actor.predict(observation)[0], drawn)
    probabilities = logits.softmax(-1).numpy()
    share = np.bincount(drawn, minlength=len(probabilities)) / len(drawn)
    assert np.all(np.abs(share - probabilities) < 4 * np.sqrt(probabilities * (1 - probabilities) / len(drawn)) + 1e-4)


def test_memory_goes_in_and_out_and_is_never_changed(actor: MetaPPO) -> None:
    """Two continuations of one memory are what they are when nothing else happens."""
    observations = played(actor.env, 6)[0].numpy()
    other = played(actor.env, 6, seed=5)[0].numpy()

    def run(sequence: list[np.ndarray], memory: Any = None) -> tuple[list[Any], Any]:
        actions = []
        for observation in sequence:
            action, memory = actor.predict(observation, state=memory, deterministic=True)
            actions.append(action)
        return actions, memory

    common = list(observations.swapaxes(0, 1)[:3])
    ours, theirs = list(observations.swapaxes(0, 1)[3:]), list(other.swapaxes(0, 1)[3:])
    _, middle = run(common)
    kept = [leaf.copy() for leaf in middle]
    branches = run(ours, middle), run(theirs, middle)
    assert all(np.array_equal(leaf, copy) for leaf, copy in zip(middle, kept, strict=True))
    for tail, (actions, memory) in zip((ours, theirs), branches, strict=True):
        whole, end = run(common + tail)
        assert np.array_equal(whole[3:], actions)
        assert all(np.array_equal(leaf, other) for leaf, other in zip(memory, end, strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(branches[0][1], branches[1][1], strict=True))


def test_the_memory_holds_no_part_of_the_observation_given(actor: MetaPPO) -> None:
    observation = actor.env.reset()
    observation.flags.writeable = False
    _, memory = actor.predict(observation)
    kept = [leaf.copy() for leaf in memory]
    observation.flags.writeable = True
    observation += 1.0  # environments may write the next one into the same array
    assert all(np.array_equal(leaf, copy) for leaf, copy in zip(memory, kept, strict=True))


def memories(actor: MetaPPO, observations: Tensor, starts: list[Any]) -> Any:
    memory = None
    for t, start in enumerate(starts):
        _, memory = actor.predict(observations[:, t].numpy(), state=memory, episode_start=start)
    return memory


def what_counts(memory: Any, row: int) -> list[np.ndarray]:
    """Of one row, without what its length masks."""
    length = int(memory.length[row])
    rest = [leaf[row] for name, leaf in memory._asdict().items() if name != "cache"]
    return [*rest, memory.cache[row, memory.cache.shape[1] - length :]]


def test_episode_starts(actor: MetaPPO) -> None:
    observations, _ = played(actor.env, 5)
    none, all_, some = np.zeros(3, dtype=bool), np.ones(3, dtype=bool), np.array([False, True, False])
    first = memories(actor, observations, [None] * 5)
    for starts in ([all_] + [none] * 4, [none] * 5, [None] + [none] * 4):  # a first call begins, whatever it says
        found = memories(actor, observations, starts)
        assert all(np.array_equal(a, b) for a, b in zip(first, found, strict=True))
    late = memories(actor, observations[:, 3:], [None] * 2)
    mixture = memories(actor, observations, [None, None, None, some, None])
    for row, expected in enumerate((first, late, first)):
        for ours, theirs in zip(what_counts(mixture, row), what_counts(expected, row), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    assert not all(np.allclose(a, b) for a, b in zip(what_counts(mixture, 1), what_counts(first, 1), strict=True))


class Answer(gymnasium.Env):
    """Lasts `length` steps; each earns 1 where the action is the one that a fixed sequence asks for."""

    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = spaces.Discrete(3)

    def __init__(self, length: int, *, truncated: bool = False, always: bool = False) -> None:
        self.length, self.truncated, self.always = length, truncated, always

    def _observation(self) -> np.ndarray:
        return np.array([math.sin(5.0 * self.time + self.length), math.cos(3.0 * self.time)], dtype=np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        self.time = 0
        return self._observation(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        right = self.always or int(action) == (self.time * 7 + self.length) % 3
        self.time += 1
        over = self.time == self.length
        return self._observation(), float(right), over and not self.truncated, over and self.truncated, {}


def test_rows_of_different_length_are_evaluated_as_alone() -> None:
    lengths = (3, 5, 13)
    together = DummyVecEnv([lambda length=n: Monitor(Answer(length)) for n in lengths])
    model = shaken(meta(together, {"layers": 2, "context_length": 20}), 1.0)
    rewards, found = evaluate_policy(model, together, n_eval_episodes=6, return_episode_rewards=True)
    assert sorted(found) == [3, 3, 5, 5, 13, 13]
    for length in lengths:
        alone, _ = evaluate_policy(model, Monitor(Answer(length)), n_eval_episodes=2, return_episode_rewards=True)
        assert [r for r, n in zip(rewards, found, strict=True) if n == length] == alone
    assert len({r / n for r, n in zip(rewards, found, strict=True)}) > 1


@pytest.mark.parametrize("policy", [*NETWORKS.values(), {"init_policy": "expert", "expert_prior": (0.5, 0.3, 0.2)}])
def test_a_policy_alone_is_made_again_and_never_pickled(policy: dict[str, Any], tmp_path: Path) -> None:
    ours = shaken(meta(bandit(), policy)).policy
    theirs = TransformerPolicy(**ours._get_constructor_parameters())
    theirs.load_state_dict(ours.state_dict())
    observations, starts = played(bandit(), 5)
    assert theirs.arguments == ours.arguments and theirs.context_length == ours.context_length
    for a, b in zip(stepped(ours, observations, starts), stepped(theirs, observations, starts), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(NotImplementedError, match="save the algorithm"):
        ours.save(str(tmp_path / "policy"))
    with pytest.raises(NotImplementedError, match=r"use MetaPPO.load"):
        TransformerPolicy.load(str(tmp_path / "policy"))
    assert not list(tmp_path.iterdir())


# --- acting is learning ----------------------------------------------------------------------------------------------
def test_a_cached_step_is_the_full_pass(actor: MetaPPO) -> None:
    policy, steps = actor.policy, 16 if actor.policy.layout is None else 8
    if policy.layout is None:
        actor.env.close()
        env = DummyVecEnv([lambda length=n: Answer(length) for n in (3, 4, 7)])
        actor = shaken(meta(env, {"layers": 2}))
        policy = actor.policy
    observations, starts = played(actor.env, steps)
    logits, values = stepped(policy, observations, starts)
    with torch.no_grad():
        distribution, full = policy.evaluate_trials(observations, starts)
        at = torch.tensor([0, 3, steps - 1])
        part, some = policy.evaluate_trials(observations, starts, at)
    assert logits.std() > 0.05 and values.std() > 0.05
    assert (distribution.logits - distribution.logits[:, :1]).abs().max() > 0.01
    torch.testing.assert_close(logits, distribution.logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(values, full, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(part.logits, distribution.logits[:, at], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(some, full[:, at], rtol=1e-5, atol=1e-5)


def log_ratios(model: MetaPPO) -> list[Tensor]:
    """Collects log r of every minibatch of what the model learns from now on."""
    found: list[Tensor] = []
    policy_loss = model._policy_loss

    def spy(*arguments: Any) -> tuple[Tensor, Tensor]:
        loss, log_ratio = policy_loss(*arguments)
        found.append(log_ratio.detach())
        return loss, log_ratio

    model._policy_loss = spy  # type: ignore[method-assign]
    return found


def test_the_ratio_is_one_before_the_first_step(actor: MetaPPO) -> None:
    actor.lr_schedule = ConstantSchedule(0.0)
    found, log = log_ratios(actor), Log()
    actor.learn(4 * actor.n_steps * actor.n_envs, log)
    ratio = torch.cat([log_ratio.flatten() for log_ratio in found]).exp()
    assert len(ratio) == actor.n_epochs * 4 * actor.n_steps * actor.n_envs
    assert (ratio - 1.0).abs().max() < 1e-4
    if actor.policy.layout is None:
        assert any(starts[1:].any() for starts in log.starts)  # episodes end inside,
        assert not all(starts[0].all() for starts in log.starts)  # and rollouts begin inside


def test_a_part_of_the_decisions_is_looked_at(actor: MetaPPO) -> None:
    actor.lr_schedule = ConstantSchedule(0.0)
    actor.batch_decisions, actor.batch_size = 3, actor.n_steps
    found = log_ratios(actor)
    actor.learn(1)
    assert [tuple(log_ratio.shape) for log_ratio in found] == [(1, 3)] * 3 * actor.n_epochs
    assert torch.cat(found).abs().max() < 1e-4


def test_the_ratio_moves_with_the_weights() -> None:
    model = shaken(meta(bandit(), learning_rate=0.01, n_epochs=2))
    found = log_ratios(model)
    model.learn(20)
    assert found[0].abs().max() < 1e-4 < found[-1].abs().max()


# --- the policy ------------------------------------------------------------------------------------------------------
def test_a_fresh_policy_is_uniform() -> None:
    for arms in (3, 7):
        model = meta(bandit(arms=arms), {"history_layers": 1})
        logits, _ = stepped(model.policy, *played(bandit(arms=arms), 5))
        assert torch.equal(logits, torch.zeros_like(logits))
        np.testing.assert_allclose(PlackettLuce(logits, None).log_probabilities().exp(), 1.0 / arms, rtol=1e-6)


def test_a_fresh_policy_is_the_given_prior() -> None:
    prior = torch.tensor([0.5, 0.375, 0.125])
    model = meta(bandit(), {"init_policy": "expert", "expert_prior": prior.tolist()})
    logits, _ = stepped(model.policy, *played(bandit(), 5))
    torch.testing.assert_close(PlackettLuce(logits, None).log_probabilities().exp(), prior.expand_as(logits))


def test_a_fresh_policy_is_the_expert_of_the_environment() -> None:
    env = bandit(expert=1.0)
    model = meta(env, {"init_policy": "expert"})
    observations, starts = played(env, 5)
    expected = torch.stack([env.layout.get(observations[:, t], "expert") for t in range(5)], dim=1)
    logits, _ = stepped(model.policy, observations, starts)
    assert expected.std() > 0.1
    torch.testing.assert_close(PlackettLuce(logits, None).log_probabilities(), expected)


def test_a_fresh_policy_is_a_softmax_of_the_running_estimate() -> None:
    env, temperature = bandit(8, horizon=12), 0.25
    softmax = {"init_policy": "softmax", "temperature": temperature, "memory_scales": (0.9, 1.0)}
    observations, starts = played(env, 12)
    logits, _ = stepped(meta(env, softmax).policy, observations, starts)
    shown, clicks = torch.zeros(8, 3), torch.zeros(8, 3)
    for t in range(12):
        chosen = env.layout.get(observations[:, t], "chosen")
        shown += chosen
        clicks += chosen * env.layout.get(observations[:, t], "last_reward")[:, None]
        mean = clicks.sum(dim=1, keepdim=True) / (shown.sum(dim=1, keepdim=True) + 1.0)
        expected = ((clicks + mean) / (shown + 1.0) / temperature).softmax(dim=-1)
        torch.testing.assert_close(logits[:, t].softmax(dim=-1), expected)
    assert expected.std() > 0.1


def permuted(layout: Layout, observations: Tensor, order: list[int]) -> Tensor:
    context, candidates = layout.split(observations)
    return torch.cat([context, candidates[..., order, :].flatten(-2)], dim=-1)


@pytest.mark.parametrize("init_policy", ["uniform", "expert", "softmax"])
@pytest.mark.parametrize("network", ["memory", "both"])
def test_permuting_candidates_permutes_probabilities(network: str, init_policy: str) -> None:
    env, order = bandit(arms=4, horizon=8, expert=1.0), [2, 0, 3, 1]
    model = shaken(meta(env, {**NETWORKS[network], "init_policy": init_policy}))
    observations, starts = played(env, 8)
    with torch.no_grad():
        ours, value = model.policy.evaluate_trials(observations, starts)
        theirs, same_value = model.policy.evaluate_trials(permuted(env.layout, observations, order), starts)
    torch.testing.assert_close(theirs.log_probabilities(), ours.log_probabilities()[..., order], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(same_value, value, rtol=1e-4, atol=1e-5)
    assert ours.log_probabilities().std(dim=-1).mean() > 0.1


def test_permuting_fresh_candidates_with_features() -> None:
    env, order = contextual(arms=4, horizon=8), [2, 0, 3, 1]
    model = shaken(meta(env, {"history_layers": 1, "feature_memory": True}))
    observations, starts = played(env, 8)
    with torch.no_grad():
        ours, value = model.policy.evaluate_trials(observations, starts)
        theirs, same_value = model.policy.evaluate_trials(permuted(env.layout, observations, order), starts)
    torch.testing.assert_close(theirs.log_probabilities(), ours.log_probabilities()[..., order], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(same_value, value, rtol=1e-4, atol=1e-5)


def test_the_memory_of_features_is_least_squares() -> None:
    env = contextual(2, horizon=8)
    model = meta(env, {"feature_memory": True, "memory_scales": (1.0, 0.8)})
    memory = model.policy.network.feature_memory
    with torch.no_grad():
        memory.log_ridge.copy_(torch.tensor([0.3, -0.4]))
    observations, _ = played(env, 8)
    context, candidates = env.layout.split(observations)
    features, chosen = candidates[..., 1:], candidates[..., 0]
    reward = context[..., 2]
    offered = torch.cat([torch.zeros_like(features[:, :1]), features[:, :-1]], dim=1)
    event = memory.event(chosen, offered, reward[..., None, None].expand(2, 8, 3, 1))
    with torch.no_grad():
        read = memory.read(memory.sums.scan(event, torch.tensor([7]))[:, 0], features[:, 7]).unflatten(-1, (2, 2))
    for row, (scale, (rho, log_ridge)) in itertools.product(range(2), enumerate(((1.0, 0.3), (0.8, -0.4)))):
        matrix, moment = math.exp(log_ridge) * np.eye(3), np.zeros(3)
        for t in range(1, 8):
            x = np.append(features[row, t - 1, int(chosen[row, t].argmax())].numpy(), 1.0)
            matrix += rho ** (7 - t) * np.outer(x, x)
            moment += rho ** (7 - t) * x * float(reward[row, t])
        for arm in range(3):
            x = np.append(features[row, 7, arm].numpy(), 1.0)
            solved = np.linalg.solve(matrix, x)
            assert read[row, arm, scale].tolist() == pytest.approx([solved @ moment, math.sqrt(x @ solved)], abs=1e-4)


def test_least_squares_that_cannot_be_solved_stop_learning_and_not_acting() -> None:
    model = meta(contextual(), {"feature_memory": True})
    memory = model.policy.network.feature_memory
    impossible = -10.0 * torch.eye(3, 4).flatten().expand(1, 1, 2, -1)  # sums that no features can have
    assert memory.read(impossible, torch.ones(1, 3, 2)).isnan().all()
    with torch.no_grad():
        memory.log_ridge.fill_(-math.inf)  # it has a floor
    assert model.learn(1).num_timesteps > 0
    with torch.no_grad():
        memory.log_ridge.fill_(math.nan)
    assert model.predict(model.env.reset())[0].shape == (4,)
    with pytest.raises(ValueError, match="update 2: loss nan"):
        model.learn(1, reset_num_timesteps=False)


def test_a_trial_longer_than_the_context_is_refused() -> None:
    history = {"history_layers": 1, "context_length": 7}
    with pytest.raises(ValueError, match=r"a trial of 9 decisions is longer than the policy's context_length 7"):
        meta(bandit(horizon=9), history)
    with pytest.raises(ValueError, match=r"12 decisions .* context_length 7"):
        meta(bandit(), history, variants=[{}, {"horizon": 12}])
    with pytest.raises(ValueError, match=r"16 decisions .* context_length 7"):
        meta(cart_pole(), {"context_length": 7}, n_steps=16)
    assert meta(bandit(horizon=9), {"context_length": 7}).n_steps == 9  # without a history there is no limit


@pytest.mark.parametrize("network", ["history", "no layout"])
def test_beyond_the_context_the_oldest_is_forgotten(network: str) -> None:
    """With one layer, whose keys and values know nothing of the past, that is the pass over the window alone."""
    env = bandit(3, horizon=30) if network == "history" else DummyVecEnv([lambda: Answer(40)])
    short = {"context_length": 4, "candidate_memory": False, "history_layers": int(network == "history")}
    whole = shaken(meta(env, {**short, "context_length": 30}, n_steps=None if network == "history" else 16))
    policy = TransformerPolicy(**{**whole.policy._get_constructor_parameters(), "context_length": 4})
    policy.load_state_dict(whole.policy.state_dict())
    observations, starts = played(env, 20)
    logits, values = stepped(policy, observations, starts)
    full, _ = stepped(whole.policy, observations, starts)
    assert torch.isfinite(logits).all() and torch.isfinite(values).all()
    torch.testing.assert_close(logits[:, :4], full[:, :4])
    assert (logits[:, 10:] - full[:, 10:]).abs().max() > 1e-4
    memory = None
    for t in range(20):
        _, memory = policy.predict(observations[:, t].numpy(), state=memory)
    assert memory.cache.shape[1] == 4 and set(memory.length) == {4}
    if isinstance(policy.network, SequenceNetwork):
        with torch.no_grad():
            window, value = policy.evaluate_trials(observations[:, 13:17], torch.zeros_like(starts[:, :4]))
        torch.testing.assert_close(logits[:, 16], window.logits[:, -1], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(values[:, 16], value[:, -1], rtol=1e-5, atol=1e-5)


# --- ordered slates --------------------------------------------------------------------------------------------------
LOGITS = torch.tensor([0.5, -1.0, 0.0, 1.5])


def every_slate(k: int) -> Tensor:
    return torch.tensor(list(itertools.permutations(range(len(LOGITS)), k)))


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_slates_have_the_probabilities_of_choosing_place_by_place(k: int) -> None:
    slates = every_slate(k)
    found = PlackettLuce(LOGITS.expand(len(slates), -1), k).log_prob(slates).exp()
    assert float(found.sum()) == pytest.approx(1.0, abs=1e-6)
    strength = LOGITS.exp().tolist()
    for slate, probability in zip(slates.tolist(), found.tolist(), strict=True):
        left, expected = sum(strength), 1.0
        for item in slate:
            expected *= strength[item] / left
            left -= strength[item]
        assert probability == pytest.approx(expected, rel=1e-5)


def test_sampled_slates_have_their_frequencies() -> None:
    torch.manual_seed(0)
    n, k = 60_000, 2
    drawn = PlackettLuce(LOGITS.expand(n, -1), k).sample()
    slates = every_slate(k)
    expected = PlackettLuce(LOGITS.expand(len(slates), -1), k).log_prob(slates).exp()
    share = (drawn[:, None] == slates).all(dim=-1).float().mean(dim=0)
    assert float(share.sum()) == pytest.approx(1.0)
    assert ((share - expected).abs() < 4 * (expected * (1 - expected) / n).sqrt()).all()


@pytest.mark.parametrize("k", [1, 2, 4])
def test_the_mean_entropy_of_places_is_that_of_slates(k: int) -> None:
    slates = every_slate(k)
    distribution = PlackettLuce(LOGITS.expand(len(slates), -1), k)
    logs = distribution.log_prob(slates)
    expected = float(-(logs.exp() * logs).sum())
    assert float((logs.exp() * distribution.entropy(slates)).sum()) == pytest.approx(expected, abs=1e-5)
    torch.manual_seed(0)
    many = PlackettLuce(LOGITS.expand(20_000, -1), k)
    entropies = many.entropy(many.sample())
    assert abs(float(entropies.mean()) - expected) < 4 * float(entropies.std()) / math.sqrt(20_000) + 1e-5


def test_a_single_choice_is_categorical() -> None:
    logits = torch.randn(5, 7, 4, generator=torch.Generator().manual_seed(0))
    ours, theirs = PlackettLuce(logits, None), torch.distributions.Categorical(logits=logits)
    torch.manual_seed(0)
    action = ours.sample()
    assert action.shape == (5, 7) and action.dtype == torch.int64
    torch.testing.assert_close(ours.log_prob(action), theirs.log_prob(action))
    torch.testing.assert_close(ours.entropy(action), theirs.entropy())
    assert torch.equal(ours.mode(), logits.argmax(dim=-1))
    one = PlackettLuce(logits, 1)
    torch.testing.assert_close(one.log_prob(action[..., None]), theirs.log_prob(action))
    assert one.sample().shape == (5, 7, 1)


def test_the_gradient_of_a_full_slate_is_finite() -> None:
    logits = LOGITS.clone().requires_grad_()
    slate = torch.tensor([3, 0, 1, 2])
    distribution = PlackettLuce(logits, 4)
    (distribution.log_prob(slate) + distribution.entropy(slate)).backward()
    assert torch.isfinite(logits.grad).all() and logits.grad.abs().max() > 0.1
    assert PlackettLuce(LOGITS, 4).mode().tolist() == LOGITS.argsort(descending=True).tolist()


class SlateTask(NamedTuple):
    rates: Array  # [B, K]


class SlateState(NamedTuple):
    task: SlateTask
    chosen: Array  # [B, K]
    clicked: Array  # [B, K]
    reward: Array  # [B]
    time: Array  # [B]


@dataclass(frozen=True)
class Shelf:
    """Show k of K items in order; each is clicked by itself, and lower places are seen less."""

    arms: int = 5
    places: int = 2
    horizon: int = 8
    task_type: ClassVar[type] = SlateTask
    objectives: ClassVar[tuple[str, ...]] = ("clicks",)
    costs: ClassVar[tuple[str, ...]] = ()

    def sample_task(self, rng: Any, batch: int) -> SlateTask:
        rates = rng.uniform((batch, self.arms))
        return SlateTask(rng.xp.astype(rates > 0.6, rng.xp.float32) * 0.9 + 0.05)

    def reset(self, task: SlateTask, rng: Any) -> SlateState:
        none = rng.xp.zeros_like(task.rates)
        return SlateState(task, none, none, none[:, 0], none[:, 0])

    def step(self, state: SlateState, action: Array, rng: Any) -> Outcome[SlateState]:
        xp, rows = rng.xp, rng.xp.arange(action.shape[0], device=rng.device)[:, None]
        seen = 0.9 ** xp.astype(xp.arange(self.places, device=rng.device), xp.float32)
        rates = state.task.rates[rows, action] * seen
        clicks = xp.astype(rng.uniform(tuple(rates.shape)) < rates, xp.float32)
        chosen, clicked = xp.zeros_like(state.chosen), xp.zeros_like(state.chosen)
        chosen[rows, action] = 1.0
        clicked[rows, action] = clicks
        reward, expected = xp.sum(clicks, axis=-1), xp.sum(rates, axis=-1)
        after = SlateState(state.task, chosen, clicked, reward, state.time + 1.0)
        return Outcome(after, reward, expected, reward[:, None], reward[:, None][:, :0], after.time >= self.horizon)

    def observe(self, state: SlateState) -> Array:
        return self.layout.join(clock(state, self.horizon), {"chosen": state.chosen, "clicked": state.clicked})

    def best_reward(self, state: SlateState) -> Array:
        xp = namespace(state.task.rates)
        best = xp.sort(state.task.rates, axis=-1)
        return sum(best[:, -1 - place] * 0.9**place for place in range(self.places))

    def informed_action(self, state: SlateState) -> Array:
        xp = namespace(state.task.rates)
        return xp.argsort(state.task.rates, axis=-1, descending=True)[:, : self.places]

    @cached_property
    def layout(self) -> Layout:
        clicked = Field("clicked", 0.0, 1.0, "1 for the candidates clicked last")
        return Layout(clock_fields(self.horizon, reward=(0.0, self.places)), (CHOSEN, clicked), self.arms)

    @cached_property
    def observation_space(self) -> spaces.Box:
        return self.layout.box()

    @cached_property
    def action_space(self) -> spaces.MultiDiscrete:
        return spaces.MultiDiscrete([self.arms] * self.places)

    @cached_property
    def task_space(self) -> spaces.Dict:
        return spaces.Dict({"rates": spaces.Box(0.0, 1.0, (self.arms,), np.float32)})


def slates(env: Any, steps: int) -> tuple[Tensor, Tensor]:
    """As `played`, with distinct items."""
    generator = np.random.default_rng(0)
    env.action_space.sample = lambda: generator.permutation(5)[:2]
    return played(env, steps)


@pytest.mark.parametrize("network", NETWORKS)
def test_slates_are_learned_from_as_they_were_chosen(network: str, tmp_path: Path) -> None:
    env = RecVecEnv(Shelf(), 6)
    model = shaken(meta(env, NETWORKS[network], learning_rate=0.0))
    found = log_ratios(model)
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


# --- gradients and advantages against known answers ------------------------------------------------------------------
def batch_of(observations: Tensor, actions: Tensor, log_probs: Tensor, advantages: Tensor) -> Batch:
    none = torch.zeros_like(advantages)
    return Batch(observations, actions, none == 0, none, log_probs, advantages, none, none[..., None][..., :0])


@pytest.mark.parametrize("baseline", [0.0, 0.7])
def test_the_gradient_is_that_of_the_expected_reward(baseline: float) -> None:
    """Each action in its exact share: -E[A grad log p] = -sum_i r_i grad p_i, whatever the baseline."""
    env = contextual(1, horizon=1)
    prior = {"init_policy": "expert", "expert_prior": (0.5, 0.25, 0.25)}
    model = meta(env, prior, normalize_advantage=False)
    observation, starts = torch.tensor(env.reset())[:, None], torch.ones(1, 1, dtype=torch.bool)
    rewards, actions = torch.tensor([1.0, 0.2, -0.5]), torch.tensor([[0], [0], [1], [2]])
    distribution, _ = model.policy.evaluate_trials(observation.expand(4, -1, -1), starts.expand(4, -1))
    log_prob = distribution.log_prob(actions)
    batch = batch_of(observation, actions, log_prob.detach(), rewards[actions] - baseline)
    weight = model.policy.network.score.weight
    (found,) = torch.autograd.grad(model._policy_loss(log_prob, batch, 0.2)[0], weight)
    distribution, _ = model.policy.evaluate_trials(observation, starts)
    (expected,) = torch.autograd.grad(-(distribution.log_probabilities().exp() @ rewards).sum(), weight)
    assert expected.abs().max() > 0.01
    torch.testing.assert_close(found, expected, rtol=0.0, atol=1e-6)


def test_the_ratio_is_clipped_on_the_side_that_gains() -> None:
    ratios, advantages = torch.tensor([[1.5, 0.5, 1.5, 0.5, 1.1]]), torch.tensor([[1.0, 1.0, -2.0, -2.0, 3.0]])
    model = meta(bandit(), normalize_advantage=False)
    batch = batch_of(torch.zeros(1, 5, 12), torch.zeros(1, 5), torch.zeros(1, 5), advantages)
    loss, log_ratio = model._policy_loss(ratios.log(), batch, 0.2)
    assert float(loss) == pytest.approx(-(1.2 + 0.5 - 3.0 - 1.6 + 3.3) / 5)
    torch.testing.assert_close(log_ratio, ratios.log())
    model.normalize_advantage = True
    scaled = (advantages - advantages.mean()) / advantages.std()
    expected = torch.where(scaled > 0, ratios.clamp(max=1.2), ratios.clamp(min=0.8)) * scaled
    assert float(model._policy_loss(ratios.log(), batch, 0.2)[0]) == pytest.approx(-float(expected.mean()), rel=1e-5)


def test_the_gradient_of_a_rollout_is_that_of_the_expected_reward_on_average() -> None:
    """One-step trials of one fixed task, 4,000 of them: every component within 4 standard errors."""
    n = 4000
    env = bandit(n, horizon=1, expert=1.0, tasks={"rates": [0.9, 0.4, 0.1]})
    arguments = {"n_epochs": 1, "batch_size": n, "normalize_advantage": False, "ent_coef": 0.0}
    model = shaken(meta(env, learning_rate=0.0, **arguments), 0.2)
    hidden: list[Tensor] = []
    model.policy.network.norm.register_forward_hook(lambda _module, _inputs, output: hidden.append(output.detach()))
    kept: dict[str, Any] = {}
    policy_loss = model._policy_loss

    def spy(log_prob: Tensor, batch: Batch, clip_range: float) -> tuple[Tensor, Tensor]:
        loss, log_ratio = policy_loss(log_prob, batch, clip_range)
        (gradient,) = torch.autograd.grad(loss, model.policy.network.score.weight, retain_graph=True)
        kept.update(batch=batch, gradient=gradient[0])
        return loss, log_ratio

    model._policy_loss = spy  # type: ignore[method-assign]
    model.learn(n)
    batch, tokens = kept["batch"], hidden[-1][:, 0]  # [n, K, d] of the pass that learned
    with torch.no_grad():
        p = model.policy.evaluate_trials(batch.observations, batch.starts)[0].log_probabilities().exp()[:, 0]
    rates, onehot = torch.tensor([0.9, 0.4, 0.1]), torch.nn.functional.one_hot(batch.actions[:, 0], 3)
    sampled = -(batch.advantages * (onehot - p))[..., None] * tokens
    exact = -(p * (rates - p @ rates[:, None]))[..., None] * tokens
    torch.testing.assert_close(kept["gradient"], sampled.sum(dim=1).mean(dim=0), rtol=1e-4, atol=1e-6)
    difference = (sampled - exact).sum(dim=1)
    assert (difference.mean(dim=0).abs() < 4 * difference.std(dim=0) / math.sqrt(n)).all()
    assert (exact.sum(dim=1).mean(dim=0).abs() > 4 * difference.std(dim=0) / math.sqrt(n)).any()


def test_advantages_by_hand() -> None:
    """Row 0: a trial of two decisions, then one that the rollout cuts; row 1: one trial that ends with the rollout."""
    rewards = torch.tensor([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [4.0, 8.0]])
    values = torch.tensor([[0.5, 1.0], [1.0, 2.0], [2.0, 3.0], [1.0, 4.0]])
    starts = torch.tensor([[True, True], [False, False], [True, False], [False, False]])
    last, dones = torch.tensor([10.0, 99.0]), torch.tensor([False, True])
    found = generalised_advantages(rewards, values, starts, last, dones, gamma=0.5, lam=0.5)
    # deltas of row 0: 1 + .5 - .5, 2 - 1, 3 + .5 - 2, 4 + 5 - 1; of row 1: 1 - 1, 1.5 - 2, 2 - 3, 8 - 4
    row0 = [1.0 + 0.25 * 1.0, 1.0, 1.5 + 0.25 * 8.0, 8.0]
    row1 = [0.0 + 0.25 * (-0.5 + 0.25 * (-1.0 + 0.25 * 4.0)), -0.5 + 0.25 * (-1.0 + 0.25 * 4.0), -1.0 + 0.25 * 4.0, 4.0]
    torch.testing.assert_close(found, torch.tensor([row0, row1]).T)


def test_advantages_at_the_ends_of_lambda() -> None:
    generator = torch.Generator().manual_seed(0)
    rewards, values = torch.randn(6, 2, generator=generator), torch.randn(6, 2, generator=generator)
    starts = torch.zeros(6, 2, dtype=torch.bool)
    starts[0], starts[4, 0] = True, True
    last, dones = torch.randn(2, generator=generator), torch.tensor([False, False])
    whole = generalised_advantages(rewards, values, starts, last, dones, gamma=1.0, lam=1.0) + values
    torch.testing.assert_close(whole[0], torch.stack([rewards[:4, 0].sum(), rewards[:, 1].sum() + last[1]]))
    one = generalised_advantages(rewards, values, starts, last, dones, gamma=1.0, lam=0.0)
    torch.testing.assert_close(one[3], rewards[3] + values[4] * torch.tensor([0.0, 1.0]) - values[3])


def test_a_buffer_hands_out_every_trial_once() -> None:
    buffer = TrialBuffer(6, spaces.Box(-1, 1, (1,)), spaces.Discrete(2), "cpu", 5, gamma=1.0, gae_lambda=0.9)
    for t in range(6):
        row = 10.0 * torch.arange(5) + t
        start = torch.full((5,), t in (0, 3))
        buffer.add(row[:, None], torch.zeros(5), row, start, torch.zeros(5), torch.zeros(5))
    assert buffer.full
    batches = list(buffer.get(3, 4))
    assert [len(batch.actions) for batch in batches] == [4, 6]  # what is left over goes with the last
    rows = torch.cat([batch.observations[..., 0] for batch in batches])
    assert sorted(rows[:, 0].tolist()) == [0, 3, 10, 13, 20, 23, 30, 33, 40, 43]
    assert torch.equal(rows, rows[:, :1] + torch.arange(3))
    assert all(batch.starts[:, 0].all() and not batch.starts[:, 1:].any() for batch in batches)
    with pytest.raises(TypeError, match="whole trials"):
        next(buffer._get_samples([0]))


@pytest.mark.parametrize("truncated", [True, False])
def test_what_is_cut_off_has_a_future_and_what_ends_has_none(truncated: bool) -> None:
    env = DummyVecEnv([lambda: Answer(4, truncated=truncated, always=True)])
    model = shaken(meta(env, learning_rate=0.0, gamma=0.9, gae_lambda=0.5, reward_scale=2.0, n_steps=10))
    model.learn(10)
    buffer = model.rollout_buffer
    steps = torch.arange(5.0)
    episode = torch.stack([(5.0 * steps + 4).sin(), (3.0 * steps).cos()], dim=-1)
    assert torch.allclose(buffer.observations[:4, 0], episode[:4])
    with torch.no_grad():
        values = model.policy.evaluate_trials(episode[None], torch.arange(5)[None] == 0)[1][0]
    expected = torch.full((10,), 0.5)
    expected[[3, 7]] += 0.9 * values[4] * truncated
    torch.testing.assert_close(buffer.rewards[:, 0], expected)
    torch.testing.assert_close(buffer.values[:4, 0], values[:4])
    assert buffer.starts[:, 0].nonzero().flatten().tolist() == [0, 4, 8]
    torch.testing.assert_close(buffer.advantages[3], expected[3:4] - values[3])
    # the rollout cuts the third episode after two steps
    torch.testing.assert_close(buffer.advantages[9], 0.5 + 0.9 * values[2:3] - values[1])
    torch.testing.assert_close(buffer.returns, buffer.advantages + buffer.values)


def test_values_are_fitted_in_units_of_one_decision() -> None:
    model = shaken(meta(bandit(horizon=5)))
    observations, starts = played(bandit(horizon=5), 5)
    torch.testing.assert_close(model.policy.decisions_left(observations)[0], torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0]))
    with torch.no_grad():
        _, values = model.policy.evaluate_trials(observations, starts)
    off = values + model.policy.decisions_left(observations)
    assert float(model._value_loss(values, off, observations)) == pytest.approx(1.0, rel=1e-4)
    assert shaken(meta(cart_pole())).policy.decisions_left(torch.zeros(1, 1, 4)) == 1.0


# --- learning from an expert -----------------------------------------------------------------------------------------
def test_labels_are_uniform_over_ties() -> None:
    env = bandit(64, horizon=8)
    expert = Expert("gittins", env)
    expert.begin(0)
    observation, starts = torch.tensor(env.reset()), torch.ones(64, dtype=torch.bool)
    shown, clicks = np.zeros((64, 3)), np.zeros((64, 3))
    for t in range(8):
        label = expert.label(observation, starts)
        torch.testing.assert_close(label.sum(dim=-1), torch.ones(64))
        support = label > 0
        torch.testing.assert_close(label, support / support.sum(dim=-1, keepdim=True))
        for a, b in itertools.combinations(range(3), 2):  # what was shown and clicked alike is labelled alike
            alike = (shown[:, a] == shown[:, b]) & (clicks[:, a] == clicks[:, b])
            assert torch.equal(label[alike, a], label[alike, b])
        if t == 0:
            torch.testing.assert_close(label, torch.full((64, 3), 1 / 3))
        action = torch.randint(3, (64,), generator=torch.Generator().manual_seed(t)).numpy()
        new, reward, _, _ = env.step(action)
        shown[np.arange(64), action] += 1
        clicks[np.arange(64), action] += reward
        observation, starts = torch.tensor(new), torch.zeros(64, dtype=torch.bool)


def test_the_number_of_a_rollout_decides_what_an_expert_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    env = bandit(64)
    expert, observation, starts = Expert("thompson", env), torch.tensor(env.reset()), torch.ones(64, dtype=torch.bool)

    def labels(seed: list[int]) -> Tensor:
        expert.begin(seed)
        return torch.stack([expert.label(observation, starts), expert.label(observation, ~starts)])

    first = labels([0, 1])
    assert torch.equal(first, labels([0, 1])) and not torch.equal(first, labels([0, 2]))
    seeds: list[Any] = []
    monkeypatch.setattr(Expert, "begin", lambda _, seed: seeds.append(tuple(seed)))
    meta(bandit(), expert="thompson", pretrain_steps=20, expert_coef=0.1).learn(60)
    meta(bandit(), expert="thompson", pretrain_steps=20, seed=1).learn(1)
    assert len(set(seeds)) == 4


def test_imitation_loss_is_the_cross_entropy() -> None:
    logits = torch.tensor([[[1.0, 0.0, -1.0], [0.0, 0.5, 2.0]]])
    labels = torch.tensor([[[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]])
    loss, agreement = imitation_loss(PlackettLuce(logits, None), labels)
    logs = logits.log_softmax(dim=-1)[0]
    assert float(loss) == pytest.approx(float(-(0.5 * (logs[0, 0] + logs[0, 1]) + logs[1, 0]) / 2))
    assert float(agreement) == 0.5
    slate = torch.tensor([[[0, 2], [2, 1]]])
    distribution = PlackettLuce(logits, 2)
    loss, agreement = imitation_loss(distribution, slate)
    assert float(loss) == pytest.approx(float(-distribution.log_prob(slate).mean()))
    assert float(agreement) == 0.5


@pytest.mark.parametrize("env", [bandit, lambda *a, **k: bandit(*a, device="torch", **k)])
def test_an_expert_is_imitated_and_then_left(env: Callable[..., Any]) -> None:
    rows = 64 * 8
    arguments = {"expert": "gittins", "pretrain_steps": 8 * rows, "pretrain_mix": 0.3, "pretrain_epochs": 2.0}
    model, log = meta(env(64, horizon=8), pretrain_learning_rate=0.02, **arguments), Log()
    model.learn(10 * rows, log)
    assert ["imitation/loss" in update for update in log.updates] == [True] * 8 + [False] * 2
    assert ["train/loss" in update for update in log.updates] == [False] * 8 + [True] * 2
    assert log["imitation/loss"][-1] < log["imitation/loss"][0] - 0.1
    assert log["imitation/agreement"][-1] > max(0.9, log["imitation/agreement"][0])
    rates = [0.02 * max(1.0 - i / 8, 0.01) for i in range(1, 9)]
    assert log["imitation/learning_rate"] == pytest.approx(rates)
    assert model.training_counters() == {"rollouts": 10, "pretrained": 8 * rows, "seed": 0}
    states = model.policy.optimizer.state.values()
    assert {float(state["step"]) for state in states} == {2.0 * 4}  # minibatches of PPO, with which it began anew


def test_who_acts_while_imitating() -> None:
    labels = torch.tensor([[0.0, 1.0, 0.0], [0.5, 0.0, 0.5]]).repeat(2000, 1)
    actions = torch.full((4000,), 2)
    assert torch.equal(mixed(actions, labels, 0.0), actions)
    experts = mixed(actions, labels, 1.0)
    assert (labels.gather(1, experts[:, None]) > 0).all() and (experts[1::2] == 0).float().mean() == pytest.approx(
        0.5, abs=0.05
    )
    share = (mixed(actions, labels, 0.25)[::2] == 1).float().mean()
    assert share == pytest.approx(0.25, abs=4 * math.sqrt(0.25 * 0.75 / 2000))
    slate, own = torch.tensor([[0, 1]]).repeat(100, 1), torch.tensor([[2, 3]]).repeat(100, 1)
    assert torch.equal(mixed(own, slate, 0.0), own) and torch.equal(mixed(own, slate, 1.0), slate)
    assert set(map(tuple, mixed(own, slate, 0.5).tolist())) == {(0, 1), (2, 3)}


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_rollout_of_the_expert_or_of_the_learner(share: float) -> None:
    model = meta(bandit(32, horizon=8), expert="gittins", pretrain_steps=100, pretrain_mix=share)
    model.learn(1)
    buffer = model.rollout_buffer
    chosen = buffer.labels.gather(-1, buffer.actions[..., None])[..., 0]
    assert bool((chosen > 0).all()) == (share == 1.0)
    np.testing.assert_allclose(buffer.log_probs, math.log(1 / 3), rtol=1e-6)  # the learner's, which is uniform yet


@pytest.mark.parametrize("device", ["cpu", "torch"])
def test_an_expert_that_knows_the_task(device: str) -> None:
    env = bandit(16, device=device)
    model = meta(env, expert="informed", pretrain_steps=80, pretrain_mix=1.0)
    model.learn(1)
    assert torch.equal(model.rollout_buffer.labels[0], model.rollout_buffer.labels[-1])  # of one trial
    assert torch.equal(model.rollout_buffer.labels.argmax(dim=-1), model.rollout_buffer.actions)
    slate = RecVecEnv(Shelf(), 4, device=device)
    model = meta(slate, expert="informed", pretrain_steps=32, pretrain_mix=1.0, expert_coef=0.1)
    model.learn(64)
    assert torch.equal(model.rollout_buffer.labels[0], model.rollout_buffer.labels[-1])


def test_staying_near_the_expert() -> None:
    log = Log()
    meta(bandit(32), expert="gittins", expert_coef=50.0, learning_rate=0.01, n_epochs=4).learn(3 * 160, log)
    assert log["train/expert_agreement"][1] > log["train/expert_agreement"][0]
    assert log["train/expert_divergence"][1] < log["train/expert_divergence"][0]
    assert log["train/expert_coef"] == pytest.approx([50.0 * 2 / 3, 50.0 / 3, 0.0])
    alone = meta(bandit(32), expert="gittins", expert_coef=0.0)
    assert alone._courses[0].expert is None


def test_what_is_read_from_a_file_does_not_begin_again(tmp_path: Path) -> None:
    model = meta(bandit(), expert="ucb1", pretrain_steps=40)
    for steps, phases in ((20, [True, False]), (60, [False])):
        model.learn(steps).save(tmp_path / "agent")
        log = Log()
        MetaPPO.load(tmp_path / "agent", device="cpu").learn(20 * len(phases), log)
        assert ["imitation/loss" in update for update in log.updates] == phases


def test_experts_that_are_none() -> None:
    with pytest.raises(ValueError, match=r"no baseline 'gitins' for Bandit; did you mean 'gittins'\?"):
        meta(bandit(), expert="gitins", pretrain_steps=10)
    with pytest.raises(
        ValueError, match=r"expert 'gittins' is a baseline of recgym's scenarios; this environment has n"
    ):
        meta(cart_pole(), expert="gittins", pretrain_steps=10)
    with pytest.raises(ValueError, match="pretrain_steps 10 needs an expert"):
        meta(bandit(), pretrain_steps=10)
    with pytest.raises(ValueError, match="'informed' looks at the task, which only a RecVecEnv shows"):
        meta(singles(2), expert="informed", pretrain_steps=10)
    with pytest.raises(ValueError, match="batch_decisions must be a whole number of at least 1"):
        meta(bandit(), expert="ucb1", pretrain_steps=10, batch_decisions=0)


# --- staying on the device -------------------------------------------------------------------------------------------
class Guard:
    """Makes tensors refuse to be looked at by the host, from the start of a rollout to the check after it."""

    looks = ("numpy", "cpu", "item", "tolist", "__bool__", "__int__", "__float__", "__index__", "__array__", "nonzero")

    def __init__(self, model: MetaPPO, monkeypatch: pytest.MonkeyPatch) -> None:
        self.on, self.rollouts = False, 0
        for name in self.looks:
            monkeypatch.setattr(Tensor, name, self._refusing(name, getattr(Tensor, name)))
        # on the CPU the runner looks at the actions, on a GPU it does not
        monkeypatch.setattr(Runner, "check_action", lambda _, action: action)
        check = model._check_rollout

        def checked(*arguments: Any) -> None:
            self.on = False
            self.rollouts += 1
            check(*arguments)

        monkeypatch.setattr(model, "_check_rollout", checked)

    def _refusing(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def looked(tensor: Tensor, *arguments: Any, **keywords: Any) -> Any:
            if self.on:
                raise AssertionError(f"Tensor.{name} within the loop")
            return original(tensor, *arguments, **keywords)

        return looked

    def callback(self) -> BaseCallback:
        guard = self

        class Watch(BaseCallback):
            def _on_rollout_start(self) -> None:
                guard.on = True

            def _on_step(self) -> bool:
                return True

        return Watch()


@pytest.mark.parametrize(
    "scenario, policy",
    [
        (recgym.make_scenario("RecBandit-v0", arms=3, horizon=5), {"history_layers": 1}),
        (recgym.make_scenario("RecBandit-v0", arms=3, horizon=5), {"init_policy": "softmax"}),
        (recgym.make_scenario("RecBanditContextual-v0", arms=3, horizon=5, features=2), {"feature_memory": True}),
        (Shelf(), {}),
    ],
)
def test_a_rollout_stays_on_the_device(scenario: Any, policy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    env = RecVecEnv(scenario, 4, device="torch")
    model = meta(env, policy)
    monkeypatch.setattr(torch.linalg, "cholesky", None)  # on a GPU it waits for the host

    def step(*_: Any) -> Any:
        raise AssertionError("step copies to NumPy")

    monkeypatch.setattr(RecVecEnv, "step", step)
    monkeypatch.setattr(RecVecEnv, "step_wait", step)
    guard = Guard(model, monkeypatch)
    model.learn(2 * 4 * scenario.horizon, guard.callback())
    assert guard.rollouts == 2
    returns = model.rollout_buffer.rewards.sum(dim=0)
    infos = list(model.ep_info_buffer)
    assert len(infos) == 8 and {info["l"] for info in infos} == {scenario.horizon}
    assert [info["r"] for info in infos[4:]] == pytest.approx(returns.tolist())


def test_rewards_are_scaled_for_learning_alone() -> None:
    found = []
    for device in ("cpu", "torch"):
        model = meta(bandit(device=device, prior=(1e6, 1.0)), reward_scale=4.0, n_steps=10)
        model.learn(1)
        assert set(model.rollout_buffer.rewards.flatten().tolist()) == {0.25}
        found.append([info["r"] for info in model.ep_info_buffer])
    assert found == [[5.0] * 8] * 2


@pytest.mark.parametrize("device", ["cpu", "torch"])
def test_what_is_learned_from(device: str) -> None:
    for name in ("expected_reward", "regret"):
        env = bandit(device=device, tasks={"rates": [0.75, 0.5, 0.125]})
        model = meta(env, learn_from=name, reward_scale=2.0, n_steps=10)
        model.learn(1)
        rates = torch.tensor([0.75, 0.5, 0.125])[model.rollout_buffer.actions]
        expected = rates / 2 if name == "expected_reward" else (rates - 0.75) / 2
        torch.testing.assert_close(model.rollout_buffer.rewards, expected)
        clicks = env.layout.get(model.rollout_buffer.observations.reshape(40, -1), "last_reward").reshape(2, 5, 4)
        earned = np.array([info["r"] for info in model.ep_info_buffer]).reshape(2, 4)
        assert np.array_equal(earned, earned.round())  # clicks, whatever was learned from
        assert ((earned - clicks.sum(dim=1).numpy() >= 0) & (earned - clicks.sum(dim=1).numpy() <= 1)).all()
    with pytest.raises(ValueError, match="learn_from must be one of reward, expected_reward, regret, got 'clicks'"):
        meta(bandit(device=device), learn_from="clicks")
    with pytest.raises(ValueError, match="the environment's infos do not tell it"):
        meta(cart_pole(), learn_from="regret").learn(1)


@pytest.mark.parametrize("device", ["cpu", "torch"])
def test_a_trivial_environment_is_solved_on_either_path(device: str) -> None:
    """Two items that are clicked always or never: keep the one that is clicked, leave the other."""
    scenario = recgym.make_scenario("RecBandit-v0", arms=2, horizon=6, prior=(0.01, 0.01))
    model = meta(RecVecEnv(scenario, 64, device=device), learning_rate=2e-2, n_epochs=4)
    model.learn(12 * 64 * 6)
    names = {"random": make_baseline("random", scenario), "informed": make_baseline("informed", scenario)}
    results = {n: rollout(p, scenario, trials=500, seed=VALIDATION_SEED) for n, p in {**names, "agent": model}.items()}
    assert summarise(results, scenario)["agent"].normalised.low > 0.5


# --- several sizes in one run ----------------------------------------------------------------------------------------
VARIANTS = [{"arms": 2, "horizon": 4}, {"arms": 6, "horizon": 7}, {}]


@pytest.mark.parametrize("device", ["cpu", "torch"])
def test_numbers_of_candidates_and_horizons_are_learned_together(device: str) -> None:
    sizes: list[tuple[int, ...]] = []

    class Sizes(BaseCallback):
        def _on_rollout_end(self) -> None:
            sizes.append((self.num_timesteps, *self.locals["rollout_buffer"].observations.shape))

        def _on_step(self) -> bool:
            return True

    model = shaken(meta(bandit(device=device), NETWORKS["both"], variants=VARIANTS, expert="ucb1", pretrain_steps=30))
    found = log_ratios(model)
    model.learn(2 * 4 * (4 + 7 + 5), Sizes())
    widths = {arms: 3 + 3 * arms for arms in (2, 6, 3)}
    played_ = [(4, 4, widths[2]), (7, 4, widths[6]), (5, 4, widths[3])] * 2
    assert [size[1:] for size in sizes] == played_
    assert [size[0] for size in sizes] == list(itertools.accumulate(4 * steps for steps, *_ in played_))
    assert all(torch.isfinite(tensor).all() for tensor in model.policy.state_dict().values())
    assert found[0].abs().max() < 1e-4
    assert model.predict(model.env.reset())[0].shape == (4,)


def tasks_of(model: MetaPPO, rollouts: int, rows: int) -> list[np.ndarray]:
    found: list[np.ndarray] = []

    class Tasks(BaseCallback):
        def _on_rollout_start(self) -> None:
            course = self.model._courses[self.model._rollouts % len(self.model._courses)]
            found.append(np.array(course.env.runner.state.task.rates))

        def _on_step(self) -> bool:
            return True

    model.learn(rollouts * rows, Tasks(), reset_num_timesteps=False)
    return found[:rollouts]


def test_the_number_of_a_rollout_decides_its_tasks() -> None:
    variants = [{"arms": 2}, {"arms": 4}]
    ours = tasks_of(meta(bandit(), variants=variants), 4, 20)
    late = meta(bandit(seed=9), variants=variants, n_epochs=1)
    late.restore_counters({"rollouts": 2, "pretrained": 0, "seed": 0})
    theirs = tasks_of(late, 2, 20)
    assert all(np.array_equal(a, b) for a, b in zip(ours[2:], theirs, strict=True))
    assert not np.array_equal(ours[0], ours[2])
    other = tasks_of(meta(bandit(), variants=variants, seed=1), 1, 20)
    assert not np.array_equal(ours[0], other[0])


@pytest.mark.parametrize(
    "variants, message",
    [
        ([{"armz": 2}], "variant {'armz': 2}: .*armz"),
        ([{"arms": 0}], "arms must be a whole number"),
        (
            [{}, {"statistics": False}],
            "variant {'statistics': False} shows .*'chosen': 1}, the environment .*'average': 1",
        ),
        ([{"expert": 1.0}], "variant {'expert': 1.0} shows .*'expert': 1"),
    ],
)
def test_bad_variants(variants: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        meta(bandit(), variants=variants)


def test_variants_need_an_environment_that_can_be_varied() -> None:
    with pytest.raises(ValueError, match="variants need a RecVecEnv"):
        meta(singles(2), variants=VARIANTS)
    with pytest.raises(ValueError, match="leave out the environment's fixed tasks"):
        meta(bandit(tasks=3), variants=VARIANTS)


# --- what is refused, and what is not --------------------------------------------------------------------------------
class Spaces(gymnasium.Env):
    """Of any spaces."""

    def __init__(self, observation: spaces.Space, action: spaces.Space) -> None:
        self.observation_space, self.action_space = observation, action

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.observation_space.sample(), 0.0, False, False, {}


BOX = spaces.Box(-1.0, 1.0, (3,), np.float32)


@pytest.mark.parametrize(
    "observation, action, error, message",
    [
        (BOX, BOX, AssertionError, "only supports .*Discrete.* Box"),
        (spaces.Dict({"a": BOX}), spaces.Discrete(2), ValueError, "needs a Box of observations, got Dict"),
        (spaces.Discrete(4), spaces.Discrete(2), ValueError, "needs a Box of observations, got Discrete"),
        (BOX, spaces.MultiDiscrete([3, 3]), ValueError, "a slate .* needs an environment with a Layout"),
    ],
)
def test_spaces_that_are_refused(observation: Any, action: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        meta(DummyVecEnv([lambda: Spaces(observation, action)]))


def test_actions_that_do_not_choose_among_the_candidates() -> None:
    env = bandit(arms=3)
    for action in (spaces.Discrete(4), spaces.MultiDiscrete([3, 4]), spaces.MultiDiscrete([3] * 4)):
        env.action_space = action
        with pytest.raises(ValueError, match="does not choose among the 3 candidates shown"):
            meta(env)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"n_steps": 7}, "n_steps 7 does not hold whole trials of 5 decisions"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
        ({"n_steps": -10}, "n_steps must be a whole number of at least 1, got -10"),
        ({"n_epochs": 1.5}, "n_epochs must be a whole number of at least 1, got 1.5"),
        ({"gamma": 2.0}, "gamma must be a number of at least 0 and at most 1, got 2.0"),
        ({"target_kl": "abc"}, "target_kl must be a number above 0, got 'abc'"),
        ({"policy": {"width": "64"}}, "width must be a whole number of at least 1, got '64'"),
        ({"policy": {"history_layers": -1}}, "history_layers must be a whole number of at least 0, got -1"),
        ({"reward_scale": 0}, "reward_scale must be a number above 0, got 0"),
        ({"policy": {"heads": 0}}, "heads must be a whole number of at least 1, got 0"),
        ({"policy": {"width": 9}}, "width 9 must be a multiple of heads 2"),
        ({"policy": {"init_policy": "best"}}, "init_policy must be one of uniform, expert, softmax, got 'best'"),
        ({"policy": {"init_policy": "expert"}}, "needs a candidate field 'expert' .* or expert_prior"),
        ({"policy": {"init_policy": "expert", "expert_prior": (0.5, 0.5)}}, "must have 3 probabilities, got 2"),
        ({"policy": {"init_policy": "expert", "expert_prior": (0.5, 0.5, 0.5)}}, "positive and sum to 1"),
        ({"policy": {"init_policy": "expert", "expert_prior": (0.5, 0.5, 0.0)}}, "positive and sum to 1"),
        ({"policy": {"init_policy": "softmax", "candidate_memory": False}}, "'softmax' needs a running estimate"),
        ({"policy": {"init_policy": "softmax", "memory_scales": (0.9,)}}, "'softmax' needs a running estimate"),
        ({"policy": {"memory_scales": (1.5,)}}, r"memory_scales must be numbers in \(0, 1\]"),
        ({"policy": {"memory_scales": ()}}, r"memory_scales must be numbers in \(0, 1\]"),
        ({"policy": {"feature_memory": True}}, "a memory of features needs candidates with features"),
    ],
)
def test_arguments_that_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        meta(bandit(), **arguments)


def test_what_needs_a_layout_is_refused_without() -> None:
    with pytest.raises(ValueError, match="init_policy 'softmax' needs an environment with a Layout"):
        meta(cart_pole(), {"init_policy": "softmax"})


def test_observations_of_any_shape() -> None:
    env = DummyVecEnv([lambda: Spaces(spaces.Box(0, 9, (2, 3), np.int64), spaces.Discrete(4))] * 2)
    model = meta(env).learn(1)
    observation = env.reset()
    action, _ = model.predict(observation, deterministic=True)
    assert action.shape == (2,) and model.predict(observation[0])[0].shape == ()
    assert model.predict(observation.astype(float), deterministic=True)[0].tolist() == action.tolist()
    with pytest.raises(ValueError, match=r"must have shape \(2, 3\) or \(rows, \*\(2, 3\)\), got \(2, 2, 2\)"):
        model.predict(observation[..., :2])


def test_observations_must_not_be_normalised() -> None:
    refused = "VecNormalize changes the rewards and candidates .*norm_obs=False"
    with pytest.raises(ValueError, match=refused):
        meta(VecNormalize(bandit()))
    model = meta(bandit())
    model.set_env(VecNormalize(bandit()))
    with pytest.raises(ValueError, match=refused):
        model.learn(1)


class Spoilt(VecEnvWrapper):
    """Rewards that are not finite from some step on."""

    def __init__(self, venv: Any, good: int) -> None:
        super().__init__(venv)
        self.good = good

    def reset(self) -> Any:
        return self.venv.reset()

    def step_wait(self) -> Any:
        observations, rewards, dones, infos = self.venv.step_wait()
        self.good -= 1
        if self.good < 0:
            rewards = rewards.copy()
            rewards[1] = np.nan
        return observations, rewards, dones, infos


@pytest.mark.parametrize("env", [bandit, cart_pole])
def test_rewards_that_are_not_finite_stop_before_an_update(env: Callable[[], Any]) -> None:
    model = meta(Spoilt(env(), 10**9), n_epochs=3)
    model.learn(1)
    before = weights(model)
    model.env.good = 2
    with pytest.raises(ValueError, match="update 4: reward 2 of environment 1 is not finite"):
        model.learn(1, reset_num_timesteps=False)
    assert same(before, weights(model))
    model.env.good = 10**9
    model.learn(1, reset_num_timesteps=False)
    assert not same(before, weights(model))


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


def test_trials_must_begin_together() -> None:
    env = DummyVecEnv([lambda n=n: gymnasium.make("RecBandit-v0", arms=3, horizon=n) for n in (5, 10)])
    with pytest.raises(ValueError, match="trials do not all begin and end together every 5 decisions"):
        meta(env).learn(1)


def test_memories_and_observations_that_do_not_fit(actor: MetaPPO) -> None:
    observation = actor.env.reset()
    _, memory = actor.predict(observation)
    with pytest.raises(ValueError, match="the memory is of 3 rows, the observations are 2"):
        actor.predict(observation[:2], state=memory)
    for wrong in (observation[:, 1:], observation[0, 1:], observation[None], np.float32(0.0)):
        with pytest.raises(ValueError, match="observations must have shape"):
            actor.predict(wrong)


def test_fine_tuning_a_loaded_agent_does_not_imitate_again(tmp_path: Path) -> None:
    log, model = Log(), meta(bandit(), expert="gittins", pretrain_steps=40)
    model.learn(40)
    model.learn(20)  # counts timesteps from 0 again
    model.save(tmp_path / "agent")
    loaded = MetaPPO.load(tmp_path / "agent", env=bandit(), device="cpu")
    loaded.learn(20, log)
    assert ["train/loss" in update for update in log.updates] == [True]
    assert loaded.training_counters() == {"rollouts": 4, "pretrained": 40, "seed": 0}


def test_what_is_not_a_number_ends_with_its_trial(actor: MetaPPO) -> None:
    observation = actor.env.reset()
    _, memory = actor.predict(observation)
    spoiled = memory._replace(**{name: leaf * np.nan for name, leaf in memory._asdict().items() if name != "length"})
    begins = np.ones(len(observation), dtype=bool)
    torch.manual_seed(0)
    ours, after = actor.predict(observation, spoiled, begins)
    torch.manual_seed(0)
    theirs, fresh = actor.predict(observation, memory, begins)
    assert (ours == theirs).all() and all(np.array_equal(a, b) for a, b in zip(after, fresh, strict=True))
    if np.issubdtype(observation.dtype, np.floating):
        observation[1] = np.nan
        with pytest.raises(ValueError, match="observation 1 holds numbers that are not finite"):
            actor.predict(observation)


def test_rows_and_memories_that_do_not_fit(actor: MetaPPO) -> None:
    observation = actor.env.reset()
    _, memory = actor.predict(observation)
    with pytest.raises(ValueError, match="no observations to act on"):
        actor.predict(observation[:0])
    with pytest.raises(ValueError, match="episode_start is of 1 rows"):
        actor.predict(observation, memory, np.array([True]))
    with pytest.raises(ValueError, match=r"state must be the Memory .* got a tuple"):
        actor.predict(observation, (1, 2))
    assert actor.predict(observation, type(memory)(*map(torch.from_numpy, memory)))[0].shape == (len(observation),)


def test_the_expert_is_asked_only_where_its_answer_is_used() -> None:
    model = meta(bandit(), expert="gittins", pretrain_steps=20)
    model.learn(20)
    model._courses[0].expert.label = lambda *_: pytest.fail("nobody listens")
    model.learn(20, reset_num_timesteps=False)


def test_a_rollout_of_many_trials_remembers_one_at_a_time() -> None:
    model = shaken(meta(bandit(), {"history_layers": 1}, n_steps=20))
    longest, step = [], model.policy.step
    model.policy.step = lambda *given: (found := step(*given), longest.append(found[2].cache.shape[1]))[0]
    model.learn(1)
    assert max(longest) == 5


def test_truncation_without_a_last_observation_counts_as_an_end() -> None:
    env = cart_pole()
    step = env.step_wait

    def silent() -> Any:
        observation, reward, done, infos = step()
        for info in infos:
            info.pop("terminal_observation", None)
            info["TimeLimit.truncated"] = True
        return observation, reward, done, infos

    env.step_wait = silent
    assert meta(env, n_steps=64).learn(64).num_timesteps >= 64


def test_images_enter_between_zero_and_one() -> None:
    env = DummyVecEnv([lambda: Spaces(spaces.Box(0, 255, (3, 12, 12), np.uint8), spaces.Discrete(4))])
    policy = meta(env).policy
    white = torch.full((1, 3, 12, 12), 255, dtype=torch.uint8)
    assert policy._flat(white, 1).shape == (1, 432) and policy._flat(white, 1).max() == 1.0


def test_layouts_that_lack_what_learning_reads() -> None:
    layout = bandit().get_attr("layout")[0].to_json()
    layout["candidate"] = [[f"x{name}", *rest] for name, *rest in layout["candidate"]]
    with pytest.raises(ValueError, match="the layout lacks chosen"):
        TransformerPolicy(**{**meta(bandit()).policy._get_constructor_parameters(), "layout": layout})
    with pytest.raises(ValueError, match="actions must count from 0"):
        meta(DummyVecEnv([lambda: Spaces(BOX, spaces.Discrete(3, start=1))]))


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


class Fragile(VecEnvWrapper):
    """As a SubprocVecEnv, whose worker dies when asked for an attribute that its environment lacks."""

    def reset(self) -> Any:
        return self.venv.reset()

    def step_wait(self) -> Any:
        return self.venv.step_wait()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        assert self.has_attr(attr_name), f"asked for {attr_name}"
        return self.venv.get_attr(attr_name, indices)


def test_environments_are_not_asked_for_what_they_lack() -> None:
    meta(Fragile(cart_pole())).learn(1)
    meta(Fragile(singles(2)), expert="ucb1", pretrain_steps=10).learn(1)
    with pytest.raises(ValueError, match="this environment has none"):
        meta(Fragile(cart_pole()), expert="ucb1", pretrain_steps=10)
