"""Make learners of one size or another: MetaPPO beside SB3's RecurrentPPO and PPO, with their tuned values."""

from __future__ import annotations

from typing import Any, NamedTuple

from recgym.agents.algorithms import build
from recgym.agents.tuned import tuned_values
from recgym.benchmarks.timing import BANDIT, Workload
from recgym.sb3 import RecVecEnv

__all__ = [
    "FULL_SIZE",
    "LEARNERS",
    "NO_EXPERT",
    "OURS",
    "QUICK_SIZE",
    "Size",
    "make_learner",
    "make_training_env",
    "size_of",
]

LEARNERS = {"MetaPPO": "meta_ppo", "RecurrentPPO": "recurrent_ppo", "PPO": "ppo"}
OURS = "MetaPPO"
NO_EXPERT: dict[str, Any] = {"expert": None, "expert_coef": 0.0, "pretrain_steps": 0}  # PPO alone


class Size(NamedTuple):
    """How large everything is."""

    parameters: dict[str, Any]  # of the environment
    long_horizon: int  # decisions of the trials in which a history grows
    n_envs: int  # of every algorithm
    trials: int  # per evaluation
    every: float  # seconds of training from one evaluation to the next, at least
    hyperparameters: dict[str, dict[str, Any]]  # by algorithm, in place of the tuned ones


FULL_SIZE = Size({}, 500, 256, 2_000, 3.0, {})
SMALL = {"n_steps": 10, "batch_size": 40, "n_epochs": 2}
QUICK_SIZE = Size(
    {"arms": 3, "horizon": 10},
    30,
    16,
    50,
    0.1,
    {
        "meta_ppo": {**SMALL, "pretrain_steps": 800, "policy_kwargs": {"width": 8, "layers": 1}},
        "recurrent_ppo": {**SMALL, "policy_kwargs": {"lstm_hidden_size": 8, "net_arch": [8]}},
        "ppo": {**SMALL, "policy_kwargs": {"net_arch": [8]}},
    },
)


def size_of(workload: Workload) -> Size:
    """Choose the size of a workload."""
    return QUICK_SIZE if workload.shrink > 1 else FULL_SIZE


def make_learner(algo: str, env: RecVecEnv, size: Size, *, device: str = "cpu", **values: Any) -> Any:
    """Make an algorithm with its tuned values, and `values` instead of some."""
    arguments = {**tuned_values(algo, BANDIT), **size.hyperparameters.get(algo, {}), **values}
    for name in ("n_timesteps", "n_envs"):  # of a run
        del arguments[name]
    return build(algo, env, arguments, device=device, seed=0)


def make_training_env(scenario: Any, n_envs: int, **arguments: Any) -> RecVecEnv:
    """Make the environment that a learner learns in."""
    env = RecVecEnv(scenario, n_envs, **arguments)
    env.seed(0)
    return env
