"""From beliefs to an action where something is scarce: the fluid program's mix, as several families draw from it."""

from __future__ import annotations

import numpy as np

from recgym import fluid
from recgym.baselines.policy import Floats, Reading

__all__ = ["indicators", "mixture"]


def mixture(reward: Floats, use: Floats, supply: Floats, reading: Reading) -> Floats:
    """Scores [B, K] of an action drawn from the fluid program's mix.

    Args:
        reward: [B, K] per decision.
        use: [B, K] of the resource per decision.
        supply: [B] of it per decision left.
        reading: gives the chance.
    """
    mix = fluid.solve(reward, use, supply)
    second = reading.rng.random(len(reward)) < mix.weight
    return indicators(fluid.action_of(mix, second, reward), reward.shape[1])


def indicators(action: np.ndarray, count: int) -> Floats:
    """Scores [B, count], 1 for the action [B] and else 0."""
    scores = np.zeros((len(action), count))
    scores[np.arange(len(action)), action] = 1.0
    return scores
