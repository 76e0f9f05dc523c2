"""Experts: their labels, the loss that follows them, and who acts meanwhile."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from recgym.agents.distribution import PlackettLuce
from recgym.agents.imitation import Expert, follow_expert, imitation_loss
from recgym.agents.meta_ppo import MetaPPO
from recgym.sb3 import RecVecEnv
from tests.small_agents import Log, bandit, cart_pole, meta, singles
from tests.toys import Shelf

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("ignore:imitation of")]


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
    rates = [0.02 * (1.0 - i / 8) for i in range(8)]
    assert log["imitation/learning_rate"] == pytest.approx(rates)
    assert model.training_counters() == {"rollouts": 10, "pretrained": 8 * rows, "seed": 0}
    states = model.policy.optimizer.state.values()
    assert {float(state["step"]) for state in states} == {2.0 * 4}  # minibatches of PPO, with which it began anew


def test_who_acts_while_imitating() -> None:
    labels = torch.tensor([[0.0, 1.0, 0.0], [0.5, 0.0, 0.5]]).repeat(2000, 1)
    actions = torch.full((4000,), 2)
    assert torch.equal(follow_expert(actions, labels, 0.0), actions)
    experts = follow_expert(actions, labels, 1.0)
    assert (labels.gather(1, experts[:, None]) > 0).all() and (experts[1::2] == 0).float().mean() == pytest.approx(
        0.5, abs=0.05
    )
    share = (follow_expert(actions, labels, 0.25)[::2] == 1).float().mean()
    assert share == pytest.approx(0.25, abs=4 * math.sqrt(0.25 * 0.75 / 2000))
    slate, own = torch.tensor([[0, 1]]).repeat(100, 1), torch.tensor([[2, 3]]).repeat(100, 1)
    assert torch.equal(follow_expert(own, slate, 0.0), own) and torch.equal(follow_expert(own, slate, 1.0), slate)
    assert set(map(tuple, follow_expert(own, slate, 0.5).tolist())) == {(0, 1), (2, 3)}


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
    assert log["train/expert_coef"] == pytest.approx([50.0, 50.0 * 2 / 3, 50.0 / 3])
    alone = meta(bandit(32), expert="gittins", expert_coef=0.0)
    assert alone._arenas[0].expert is None


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


def test_fine_tuning_a_loaded_agent_does_not_imitate_again(tmp_path: Path) -> None:
    log, model = Log(), meta(bandit(), expert="gittins", pretrain_steps=40)
    model.learn(40)
    model.learn(20)  # counts timesteps from 0 again
    model.save(tmp_path / "agent")
    loaded = MetaPPO.load(tmp_path / "agent", env=bandit(), device="cpu")
    loaded.learn(20, log)
    assert ["train/loss" in update for update in log.updates] == [True]
    assert loaded.training_counters() == {"rollouts": 4, "pretrained": 40, "seed": 0}


def test_the_expert_is_asked_only_where_its_answer_is_used() -> None:
    model = meta(bandit(), expert="gittins", pretrain_steps=20)
    model.learn(20)
    model._arenas[0].expert.label = lambda *_: pytest.fail("nobody listens")
    model.learn(20, reset_num_timesteps=False)


@pytest.mark.filterwarnings("error:imitation of")
def test_imitation_of_few_rollouts_has_the_rate_that_was_asked_for_and_a_warning() -> None:
    """The rate falls from rollout to rollout; one that were read at their end would be 0 where there is one alone."""
    for rollouts, falls in ((1, [1.0]), (2, [1.0, 0.5]), (4, [1.0, 0.75, 0.5, 0.25])):
        log, steps = Log(), 160 * rollouts
        model = meta(bandit(32), expert="gittins", pretrain_steps=steps, pretrain_learning_rate=0.02)
        if rollouts < 2:
            with pytest.warns(UserWarning, match="imitation of 160 decisions is less than 2 rollouts of 160"):
                model.learn(steps, log)
        else:
            model.learn(steps, log)
        assert log["imitation/learning_rate"] == pytest.approx([0.02 * share for share in falls])


def test_what_is_planned_is_what_is_played() -> None:
    for steps, total in ((0, 161), (1, 500), (200, 100), (330, 1000)):
        model = meta(bandit(32), expert="gittins", pretrain_steps=steps)
        played, imitated = model.plan(total)
        model.learn(total)
        assert (played, imitated) == (model.num_timesteps, model.training_counters()["pretrained"])
