"""Write files whole or not at all, and say beforehand where that will fail."""

from __future__ import annotations

import contextlib
import glob
import json
import math
import os
import tempfile
import time
from pathlib import Path
from typing import Any

__all__ = ["check_writable", "write_atomically", "write_json"]

ABANDONED = 60.0  # seconds since anybody wrote to a temporary file


def write_atomically(path: Path, content: bytes) -> None:
    """Write the whole file or nothing: to one beside it, flushed to disk, then renamed. Makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.umask(mask := os.umask(0))
        os.chmod(temporary, 0o666 & ~mask)  # as any other new file; mkstemp's are private
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _sweep(path: Path) -> None:
    """Remove what killed writers of this file have left beside it; a younger file may still be being written."""
    for left in path.parent.glob(f".{glob.escape(path.stem)}-*.tmp"):
        with contextlib.suppress(OSError):  # another writer was faster
            if time.time() - left.stat().st_mtime > ABANDONED:
                left.unlink()


def write_json(path: Path, value: Any) -> None:
    """Write JSON, all or nothing, indented; what is undefined (0/0) becomes null."""

    def defined(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: defined(item) for key, item in part.items()}
        if isinstance(part, list | tuple):
            return [defined(item) for item in part]
        return None if isinstance(part, float) and not math.isfinite(part) else part

    write_atomically(path, (json.dumps(defined(value), indent=2, allow_nan=False) + "\n").encode())


def check_writable(path: Path) -> None:
    """Fail before the work rather than after it; makes the folder.

    Raises:
        OSError: the file cannot be written (says why).
    """
    try:
        if path.is_dir():
            raise IsADirectoryError("it is a folder")
        if path.exists() and not path.is_file():
            raise OSError("it is no regular file")
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise OSError(f"cannot write {path}: {error}") from None
