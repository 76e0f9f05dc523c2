"""Rollouts: staying on the device, what is learned from, variants, what breaks off or is refused."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import (
    BaseCallback,
)
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnvWrapper, VecMonitor
from torch import Tensor

import recgym
from recgym.agents import rollout as rollouts
from recgym.agents.meta_ppo import MetaPPO
from recgym.baselines import make_baseline
from recgym.evaluation import VALIDATION_SEED, rollout, summarise
from recgym.runner import Runner
from recgym.sb3 import RecVecEnv
from tests.small_agents import (
    NETWORKS,
    Log,
    StopAt,
    bandit,
    cart_pole,
    log_ratios,
    meta,
    same,
    shaken,
    singles,
    weights,
)
from tests.toys import Shelf

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("ignore:imitation of")]


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


class Guard:
    """Makes tensors refuse to be looked at by the host, from the start of a rollout to the check after it."""

    looks = ("numpy", "cpu", "item", "tolist", "__bool__", "__int__", "__float__", "__index__", "__array__", "nonzero")

    def __init__(self, model: MetaPPO, monkeypatch: pytest.MonkeyPatch) -> None:
        self.on, self.rollouts = False, 0
        for name in self.looks:
            monkeypatch.setattr(Tensor, name, self._refusing(name, getattr(Tensor, name)))
        # on the CPU the runner looks at the actions, on a GPU it does not
        monkeypatch.setattr(Runner, "check_action", lambda _, action: action)
        check = rollouts.check_rewards

        def checked(*arguments: Any) -> None:
            self.on = False
            self.rollouts += 1
            check(*arguments)

        monkeypatch.setattr(rollouts, "check_rewards", checked)

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
@pytest.mark.parametrize("name", ["expected_reward", "regret"])
def test_what_nobody_knows_is_not_learned_from(name: str, device: str) -> None:
    """Weights that the optimum does not cover are refused at once, those of a variant too, and the reward is not."""
    charged = {"weights": {"value": 1.0, "over_cap": 0.5}}
    size = {"creatives": 2, "horizon": 3, "profile": (1.0,)}
    env = RecVecEnv(recgym.make_scenario("AdPlacement-v0", **size, **charged), 2, device=device)
    for inner in (env, VecMonitor(env)):
        with pytest.raises(ValueError, match=f"learn_from='{name}': no expected reward is known for these weights"):
            meta(inner, learn_from=name)
    plain = RecVecEnv(recgym.make_scenario("AdPlacement-v0", **size), 2, device=device)
    with pytest.raises(ValueError, match=f"learn_from='{name}': no expected reward is known for these weights"):
        meta(plain, learn_from=name, variants=[{}, charged])
    meta(env, n_steps=3, learn_from="reward")
    meta(plain, n_steps=3, learn_from=name)


@pytest.mark.parametrize("device", ["cpu", "torch"])
def test_a_trivial_environment_is_solved_on_either_path(device: str) -> None:
    """Two items that are clicked always or never: keep the one that is clicked, leave the other."""
    scenario = recgym.make_scenario("RecBandit-v0", arms=2, horizon=6, prior=(0.01, 0.01))
    model = meta(RecVecEnv(scenario, 64, device=device), learning_rate=2e-2, n_epochs=4)
    model.learn(12 * 64 * 6)
    names = {"random": make_baseline("random", scenario), "informed": make_baseline("informed", scenario)}
    results = {n: rollout(p, scenario, trials=500, seed=VALIDATION_SEED) for n, p in {**names, "agent": model}.items()}
    assert summarise(results, scenario)["agent"].normalised.low > 0.5


VARIANTS = [{"arms": 2, "horizon": 4}, {"arms": 6, "horizon": 7}, {}]


@pytest.mark.parametrize("device", ["cpu", "torch"])
def test_numbers_of_candidates_and_horizons_are_learned_together(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[tuple[int, ...]] = []

    class Sizes(BaseCallback):
        def _on_rollout_end(self) -> None:
            sizes.append((self.num_timesteps, *self.locals["rollout_buffer"].observations.shape))

        def _on_step(self) -> bool:
            return True

    model = shaken(meta(bandit(device=device), NETWORKS["both"], variants=VARIANTS, expert="ucb1", pretrain_steps=30))
    found = log_ratios(monkeypatch)
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
            arena = self.model._arenas[self.model._rollouts % len(self.model._arenas)]
            found.append(np.array(arena.env.runner.state.task.rates))

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
        ([{"armz": 2}], "variant {'armz': 2}: Bandit got an unexpected keyword argument 'armz'; did you mean 'arms'"),
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


def test_trials_must_begin_together() -> None:
    env = DummyVecEnv([lambda n=n: gymnasium.make("RecBandit-v0", arms=3, horizon=n) for n in (5, 10)])
    with pytest.raises(ValueError, match="trials do not all begin and end together every 5 decisions"):
        meta(env).learn(1)


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
