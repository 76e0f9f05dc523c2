"""Advantages by hand, and what a rollout leaves."""

from __future__ import annotations

import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv

from recgym.agents.buffer import TrialBuffer, generalised_advantages
from tests.small_agents import (
    Answer,
    meta,
    shaken,
)

pytestmark = pytest.mark.usefixtures("one_thread")


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


def test_advantages_where_nothing_is_decided_by_hand() -> None:
    """What comes in between two decisions belongs to the first, discounted; lambda counts decisions, not steps."""
    rewards = torch.tensor([[1.0], [2.0], [4.0], [8.0], [16.0]])
    values = torch.tensor([[3.0], [99.0], [5.0], [99.0], [99.0]])  # those of absent steps mean nothing
    starts = torch.tensor([[True], [False], [False], [False], [False]])
    present = torch.tensor([[True], [False], [True], [False], [False]])
    last, gamma, lam = torch.tensor([7.0]), 0.5, 0.25
    later = 4.0 + gamma * 8.0 + gamma**2 * 16.0 - 5.0  # the trial ends: nothing follows
    first = 1.0 + gamma * 2.0 + gamma**2 * 5.0 - 3.0 + lam * gamma**2 * later
    ended = {"gamma": gamma, "lam": lam, "present": present}
    advantages = generalised_advantages(rewards, values, starts, last, torch.tensor([True]), **ended)
    torch.testing.assert_close(advantages[:, 0], torch.tensor([first, 0.0, later, 0.0, 0.0]))
    later += gamma**3 * 7.0  # the rollout cuts it: the value of what follows
    first += lam * gamma**2 * gamma**3 * 7.0
    advantages = generalised_advantages(rewards, values, starts, last, torch.tensor([False]), **ended)
    torch.testing.assert_close(advantages[:, 0], torch.tensor([first, 0.0, later, 0.0, 0.0]))


def test_where_everything_is_decided_the_mask_changes_no_bit() -> None:
    generator = torch.Generator().manual_seed(0)
    rewards, values = torch.randn(6, 2, generator=generator), torch.randn(6, 2, generator=generator)
    starts = torch.zeros(6, 2, dtype=torch.bool)
    starts[0], starts[4, 0] = True, True
    parts = rewards, values, starts, torch.randn(2, generator=generator), torch.tensor([True, False])
    every = torch.ones(6, 2, dtype=torch.bool)
    ours = generalised_advantages(*parts, gamma=0.9, lam=0.7, present=every)
    assert torch.equal(ours, generalised_advantages(*parts, gamma=0.9, lam=0.7))


def test_the_variance_that_values_explain_where_something_is_decided() -> None:
    buffer = TrialBuffer(4, spaces.Box(-1, 1, (1,)), spaces.Discrete(2), "cpu", 1)
    buffer.values[:, 0] = torch.tensor([1.0, 50.0, 2.0, -9.0])
    buffer.advantages[:, 0] = torch.tensor([1.0, 3.0, -1.0, 8.0])  # returns 2, 53, 1, -1
    present = torch.tensor([[True], [False], [True], [False]])
    assert buffer.explained_variance(present) == pytest.approx(1.0 - 1.0 / 0.25)
    assert buffer.explained_variance() != pytest.approx(1.0 - 1.0 / 0.25)
