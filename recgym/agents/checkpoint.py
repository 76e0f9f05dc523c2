"""Checkpoints without pickle: save an algorithm, load it, resume its training, export what acting needs.

A file holds the policy's weights and, where `training` is asked for, all that decides how training goes on (see
`recgym.agents.training_state`). Nothing in it is run, and nothing in it chooses a class that is not in `ALGORITHMS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from recgym.agents import archive
from recgym.agents.algorithms import ALGORITHMS, algorithm, name_of
from recgym.agents.folders import checkpoint_of
from recgym.agents.model_file import load_model, save_model

__all__ = ["export", "load", "read", "save"]


def save(
    path: str | Path,
    model: Any,
    *,
    algo: str | None = None,
    arguments: Mapping[str, Any],
    env_id: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    training: bool = False,
    counters: Mapping[str, Any] | None = None,
) -> Path:
    """Write a checkpoint: to a temporary file beside it, flushed to disk, then renamed.

    Args:
        path: of the file; ".safetensors" is added where it is missing, and takes the place of ".zip".
        model: the algorithm.
        algo: its key in `ALGORITHMS`; None finds it.
        arguments: those it was built with (see `recgym.agents.algorithms.build`).
        env_id: a key of `recgym.SCENARIOS`; None finds it. One that is not registered is kept by its spaces alone, for
            algorithms that play `any_candidates`.
        parameters: of the environment.
        training: whether the file can be resumed from.
        counters: JSON values of the caller, handed back by `read`.

    Returns:
        The file's path.

    Raises:
        ValueError: the model is not of `algo`, its environment is not the one described, weights are not finite, JSON
            cannot carry a value, or there is no training to keep. What was there under this path stays.
        OSError: the folder cannot be written to.
    """
    name = name_of(model)
    if name is None or algo not in (None, name):
        raise ValueError(f"the model is a {type(model).__name__}, not {algo or 'one of ' + ', '.join(ALGORITHMS)}")
    return save_model(
        path,
        model,
        algo=name,
        arguments=arguments,
        env_id=env_id,
        parameters=parameters,
        training=training,
        counters=counters,
    )


def read(path: str | Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Header and tensors of a checkpoint, checked; nothing is built or run.

    Args:
        path: of the file; as `save` was given it will do.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no checkpoint, is damaged, or was written by a newer version (says which).
    """
    header, tensors = archive.read_archive(checkpoint_of(Path(path)))
    if header["algo"] not in ALGORITHMS:
        allowed = ", ".join(ALGORITHMS)
        raise ValueError(
            f"{archive.find_archive(path)}: algorithm {header['algo']!r} is not allowed; there are {allowed}"
        )
    return header, tensors


def load(path: str | Path, *, env: Any = None, device: str = "auto", resume: bool = False, **arguments: Any) -> Any:
    """Load the algorithm of a checkpoint, ready to `predict` or, with `resume`, to go on learning where it stopped.

    Args:
        path: of the file, as `save` was given it will do; of the folder of a run, or `latest` in a folder of runs.
        env: what to act in: a `VecEnv`, or a Gymnasium environment, which is wrapped as SB3 does; None makes the
            environment that the file names.
        device: "auto", "cpu" or "cuda".
        resume: also take up optimizer, counters, random states and environment.
        arguments: of the constructor, in place of the file's.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: see `read`; or weights, arguments, layout, spaces, environment or training state do not fit (says
            what differs).
    """
    path = checkpoint_of(Path(path))
    header, tensors = read(path)
    kind = algorithm(header["algo"])
    return load_model(path, kind, header, tensors, env=env, device=device, resume=resume, **arguments)


def export(source: str | Path, target: str | Path) -> Path:
    """Copy a checkpoint without what only training needs; errors as in `read` and `save`."""
    header, tensors = read(source)
    weights = {name: tensor for name, tensor in tensors.items() if name.startswith("policy.")}
    return archive.write_archive(target, {**header, "training": None, "counters": {}}, weights)
