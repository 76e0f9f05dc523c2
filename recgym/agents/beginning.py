"""A new run that begins with the weights of a trained agent, on another problem of the same fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from stable_baselines3.common.vec_env import VecEnv

from recgym.agents.algorithms import algorithm
from recgym.agents.checkpoint import read
from recgym.agents.environments import check_shown
from recgym.agents.players import weights_file
from recgym.agents.run_options import RunOptions
from recgym.agents.training_state import check_tensors
from recgym.layout import Layout

__all__ = ["Beginning"]


class Beginning(NamedTuple):
    """The agent whose weights a run begins with; optimizer, counters and schedules are new."""

    source: str
    header: dict[str, Any]
    weights: dict[str, torch.Tensor]

    @classmethod
    def of(cls, source: str, algo: str) -> Beginning:
        """Read it.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: no such agent ships, the file is damaged, or holds another algorithm.
        """
        header, tensors = read(weights_file(source))
        if header["algo"] != algo:
            raise ValueError(f"--from {source}: holds a {header['algo']}, not a {algo}: add --algo {header['algo']}")
        weights = {name.removeprefix("policy."): part for name, part in tensors.items() if name.startswith("policy.")}
        return cls(source, header, weights)

    def arguments(self, tuned: Mapping[str, Any], *, asked: RunOptions) -> dict[str, Any]:
        """The arguments of the run: the network is the agent's, and it imitates nobody again unless it is asked to.

        Raises:
            ValueError: another network is asked for.
        """
        if "policy_kwargs" in asked.hyperparam or asked.init_policy is not None:
            raise ValueError(f"--from {self.source}: the network is that of its weights: leave policy_kwargs out")
        own = {"policy_kwargs": self.header["arguments"].get("policy_kwargs")}
        if asked.pretrain_steps is None and "pretrain_steps" in tuned:
            own["pretrain_steps"] = 0
        return {**tuned, **own}

    def check(self, env: VecEnv) -> None:
        """Refuse an environment that shows other fields than the agent was trained on.

        Raises:
            ValueError: names what differs.
        """
        layout = None if self.header["layout"] is None else Layout.from_json(self.header["layout"])
        kind = algorithm(self.header["algo"])
        try:
            check_shown(env, layout, self.header["spaces"], any_candidates=getattr(kind, "any_candidates", False))
        except ValueError as error:
            raise ValueError(f"--from {self.source}: {error}") from None

    def give(self, model: Any) -> None:
        """Put the weights into a fresh model.

        Raises:
            ValueError: they are of another network.
        """
        try:
            check_tensors(model.policy.state_dict(), self.weights)
        except ValueError as error:
            raise ValueError(f"--from {self.source}: its weights do not fit: {error}") from None
        model.policy.load_state_dict(self.weights)
