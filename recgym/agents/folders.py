"""Folders of runs: a new one for each, and the run that people mean by a folder or by `logs/latest`."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["CHECKPOINT", "LATEST", "checkpoint_of", "make_folder", "short_name"]

CHECKPOINT = "checkpoint.safetensors"
LATEST = "latest"  # in a folder of runs, the newest of them


def make_folder(root: Path, algo: str, env: str) -> Path:
    """Make ROOT/<algo>/<env>_<n>, n counting up; at once, so that an unwritable place is noticed before the work.

    What is not a letter, a digit or one of `_.+-` in the name of an environment becomes a point. Runs that begin at the
    same moment get folders of their own: who makes a folder has it.
    """
    parent = root / algo
    parent.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^\w.+-]+", ".", env)
    pattern = re.compile(re.escape(name) + r"_(\d+)")
    while True:
        numbers = [int(m[1]) for m in map(pattern.fullmatch, (path.name for path in parent.glob("*"))) if m]
        folder = parent / f"{name}_{max(numbers, default=0) + 1}"
        try:
            folder.mkdir()
            return folder
        except FileExistsError:  # another run was faster
            continue


def checkpoint_of(path: Path) -> Path:
    """The checkpoint that a path means: a file, the folder of a run, or `latest` in a folder of runs.

    Raises:
        FileNotFoundError: there is no run, or it has not saved anything yet (says where).
    """
    if path.name == LATEST and not path.exists():
        newest = _newest(path.parent)
        if newest is None:
            raise FileNotFoundError(f"{path}: no run has saved a checkpoint in {path.parent}")
        return newest
    if path.is_dir():
        if not (path / CHECKPOINT).is_file():
            raise FileNotFoundError(f"{path}: this run has not saved a checkpoint")
        return path / CHECKPOINT
    return path


def short_name(checkpoint: Path) -> str:
    """What to call a run's checkpoint in a command: `ROOT/latest` where it is the newest, else its folder."""
    root = checkpoint.parent.parent.parent
    shown = root / LATEST if _newest(root) == checkpoint else checkpoint.parent
    return str(shown.relative_to(Path.cwd()) if shown.is_relative_to(Path.cwd()) else shown)


def _newest(root: Path) -> Path | None:
    """The checkpoint written last among the runs of a folder."""
    return max(root.glob(f"*/*/{CHECKPOINT}"), key=lambda path: path.stat().st_mtime_ns, default=None)
