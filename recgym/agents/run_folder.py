"""What a run keeps in its folder of how it was made."""

from __future__ import annotations

import json
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from recgym.agents.archive import versions
from recgym.agents.run_options import RunOptions
from recgym.files import write_json
from recgym.sb3 import RecVecEnv

__all__ = ["commit", "describe_device", "write_record"]

RECORD = "args.json"


def commit() -> str | None:
    """Ask git for the commit of the checkout this runs from, where there is one."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():  # an installed package may lie in somebody else's checkout
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def describe_device(device: str) -> str:
    """Name a device of torch, with the threads and the version that results depend on."""
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.machine()
    return f"{device} ({name}, {torch.get_num_threads()} threads), torch {torch.__version__}"


def write_record(
    folder: Path, options: RunOptions, env: RecVecEnv, hyperparameters: Mapping[str, Any], device: str
) -> None:
    """Write all that decides the run; a resumed run adds to what is there."""
    path = folder / RECORD
    texts = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(options).items()}
    session = {
        "command": shlex.join(sys.argv),
        "options": texts,
        "environment": {"id": options.env, "parameters": asdict(env.scenario), "n_envs": env.num_envs},
        "hyperparameters": dict(hyperparameters),
        "versions": {"python": platform.python_version(), **versions()},
        "platform": platform.platform(),
        "device": describe_device(device),
        "threads": torch.get_num_threads(),
        "commit": commit(),
    }
    if options.trained_agent and path.is_file():
        first = json.loads(path.read_text())
        session = {**first, "resumed": [*first.get("resumed", []), session]}
    write_json(path, session)
