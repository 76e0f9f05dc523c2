"""Learning from an expert in context: its labels on the learner's own rollouts, and the loss that follows them.

States come from the learner mixed with the expert (DAgger, Ross et al. 2011), so that it learns what to do after its
own mistakes; targets are the actions of an index or planner. The best arm in hindsight would be no such target:
imitating it gives Thompson sampling (Lee et al. 2023, "Supervised pretraining can learn in-context RL").
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from recgym.agents.auxiliary import simulator_of
from recgym.agents.distribution import PlackettLuce
from recgym.agents.losses import mean_present
from recgym.arrays import to_numpy
from recgym.baselines import make_baseline
from recgym.baselines.policy import IndexPolicy
from recgym.sb3 import RecVecEnv

__all__ = ["Expert", "follow_expert", "imitation_loss", "label_entropy", "warn_of_short_imitation"]

FEW = 2  # rollouts


class Expert:
    """A baseline of the environment's scenario that says what it would do in the learner's place.

    Args:
        name: of a baseline.
        env: what the learner plays; its scenario decides which baselines there are.
        draws: that a label averages.

    Raises:
        ValueError: no such baseline, or the environment has no scenario of recgym, or hides what the expert sees.
    """

    def __init__(self, name: str, env: VecEnv, draws: int = 1) -> None:
        if not env.has_attr("scenario"):
            raise ValueError(f"expert {name!r} is a baseline of recgym's scenarios; this environment has none")
        scenario = env.get_attr("scenario")[0]
        self.policy = make_baseline(name, scenario)
        if env.observation_space.shape != (scenario.layout.sizes[2],):
            raise ValueError(f"expert {name!r} cannot read observations that a wrapper changed the shape of")
        if getattr(self.policy, "sees_state", False) and not isinstance(env.unwrapped, RecVecEnv):
            raise ValueError(f"expert {name!r} looks at the task, which only a RecVecEnv shows it")
        self._env = env
        self._draws = {} if draws == 1 else {"draws": draws}
        if self._draws and not isinstance(self.policy, IndexPolicy):
            raise ValueError(f"expert_draws={draws}: expert {name!r} tells its distribution at once; use 1")
        self.slate = len(scenario.action_space.shape) > 0
        self.width = scenario.action_space.shape[0] if self.slate else scenario.layout.candidates
        self._memory: Any = None

    def begin(self, seed: Any) -> None:
        """Forget the last rollout; `seed` decides the expert's own draws in the next."""
        self._memory = None
        if hasattr(self.policy, "reseed"):
            self.policy.reseed(seed)

    def label(self, observation: Tensor, starts: Tensor) -> Tensor:
        """What the expert would do: probabilities [B, K], or a slate [B, k] int64."""
        seen: Any = to_numpy(observation)
        if getattr(self.policy, "sees_state", False):
            seen = simulator_of(self._env)[1]
        arguments = {"state": self._memory, "episode_start": to_numpy(starts)}
        if hasattr(self.policy, "distribution") and not self.slate:
            label, self._memory = self.policy.distribution(seen, **arguments, **self._draws)
        else:
            label, self._memory = self.policy.predict(seen, **arguments, deterministic=True)
            label = label if self.slate else np.eye(self.width, dtype=np.float32)[label]
        dtype = torch.int64 if self.slate else torch.float32
        return torch.as_tensor(label, dtype=dtype, device=observation.device)


def follow_expert(actions: Tensor, labels: Tensor, share: float) -> Tensor:
    """Replace a random `share` of the rows of `actions` [B] or [B, k] by the expert's."""
    slate = actions.ndim > 1
    expert = labels if slate else torch.multinomial(labels, 1)[:, 0]
    rows = torch.rand(len(actions), device=actions.device) < share
    return torch.where(rows[:, None] if slate else rows, expert, actions)


def imitation_loss(distribution: PlackettLuce, labels: Tensor, present: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Cross-entropy to the expert, and the share of decisions in which the most probable action is one of its own.

    Less the expert's own entropy (`label_entropy`) the loss is the divergence KL(expert || policy).

    Args:
        distribution: over actions [..., K].
        labels: probabilities [..., K], or slates [..., k] int64.
        present: [...] bool, where something is decided; None: everywhere.
    """
    mode = distribution.mode()
    if distribution.k is not None:
        agreement = (mode == labels).all(dim=-1).float()
        return -mean_present(distribution.log_prob(labels), present), mean_present(agreement, present)
    cross_entropy = (labels * distribution.log_probabilities()).sum(dim=-1)
    agreement = (labels.gather(-1, mode[..., None])[..., 0] > 0).float()
    return -mean_present(cross_entropy, present), mean_present(agreement, present)


def label_entropy(labels: Tensor, present: Tensor | None = None) -> Tensor:
    """Mean entropy of the expert in nats: of its ties; 0 for slates, of which it names one."""
    if not labels.is_floating_point():
        return torch.zeros((), device=labels.device)
    return mean_present(torch.special.entr(labels).sum(dim=-1), present)


def warn_of_short_imitation(imitated: int, rollout: int) -> None:
    """Warn where imitation ends before there is much of it: each rollout is one update.

    Args:
        imitated: decisions that imitate.
        rollout: decisions of one.
    """
    if 0 < imitated < FEW * rollout:
        warnings.warn(
            f"imitation of {imitated:,} decisions is less than {FEW} rollouts of {rollout:,}, and each is one update: "
            "give more pretrain_steps and timesteps, or fewer environments",
            stacklevel=3,
        )
