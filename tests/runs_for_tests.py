"""Small runs of training, and what they leave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from recgym.agents.checkpoint import read

DEFAULT = "meta_ppo"
PPO = {"n_steps": 10, "batch_size": 40}
BRIEF = ["--eval-trials", "50", "--trials", "200", "--eval-freq", "0"]  # first and last: pictures take most of the time
SMALL = ["--param", "arms=3", "--param", "horizon=10", "--n-envs", "8", *BRIEF]  # a rollout is 80 timesteps
TINY = [*SMALL, *(f"--hyperparam={name}={value}" for name, value in PPO.items())]
TINY += ['--hyperparam=policy_kwargs={"width": 8, "layers": 1}']
TINY += ["--pretrain-steps", "240"]  # of the default algorithm, which then goes on with PPO


def checkpoint_in(logs: Path, env: str = "RecBandit-v0", algo: str = DEFAULT) -> Path:
    """The checkpoint of the first run."""
    return logs / algo / f"{env}_1" / "checkpoint.safetensors"


def weights(path: Path) -> tuple[int, dict[str, Any]]:
    """Timesteps and tensors of a checkpoint."""
    header, tensors = read(path)
    return header["num_timesteps"], tensors


def assert_same(left: Path, right: Path) -> None:
    """Two checkpoints hold the same, bit for bit."""
    (steps, ours), (other_steps, theirs) = weights(left), weights(right)
    assert steps == other_steps and set(ours) == set(theirs)
    assert not [name for name in ours if not torch.equal(ours[name], theirs[name])]


def events_in(folder: Path) -> Any:
    """TensorBoard's view of a run."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return events


def steps_of(folder: Path, tag: str) -> list[int]:
    """Timesteps at which a run logged a scalar, in the order of writing: files of one second are read in any order."""
    return [event.step for event in sorted(events_in(folder).Scalars(tag), key=lambda event: event.wall_time)]
