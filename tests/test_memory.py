"""Memories: least squares by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from recgym.agents.memory import invert_root
from tests.small_agents import (
    contextual,
    meta,
    played,
)

pytestmark = pytest.mark.usefixtures("one_thread")


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


@pytest.mark.parametrize("size", [1, 2, 7, 9])
def test_elimination_inverts_the_root_of_cholesky(size: int) -> None:
    generator = torch.Generator().manual_seed(size)
    rows = torch.randn(5, 3, size, 2 * size, generator=generator, dtype=torch.float64)
    matrix = rows @ rows.transpose(-1, -2) + torch.eye(size, dtype=torch.float64)
    inverse = invert_root(matrix)
    identity = torch.eye(size, dtype=torch.float64).expand_as(matrix)
    torch.testing.assert_close(inverse @ torch.linalg.cholesky(matrix), identity)
    torch.testing.assert_close(inverse, inverse.tril())
    assert invert_root(-matrix).isnan().any()
