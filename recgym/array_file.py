"""Arrays and texts in one `.safetensors` file: with a digest, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recgym.files import write_atomically

__all__ = ["digest_of", "pack_texts", "read_arrays", "safetensors_numpy", "unpack_texts", "write_arrays"]

FORMAT = 1  # a newer number is refused
MAX_HEADER = 1 << 20  # bytes


def safetensors_numpy() -> Any:
    """The library, or an ImportError that names the extra."""
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError("this file is kept with safetensors: pip install 'recgym[text]'") from error
    return safetensors.numpy


def digest_of(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of names, types, shapes and content, as hexadecimal digits."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape};".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def write_arrays(path: Path, kind: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays with their digest.

    Args:
        path: must end in `.safetensors`.
        kind: what the file holds, in one word; it is asked for when the file is read.
        arrays: by name.

    Raises:
        ValueError: another ending.
        ImportError: safetensors is missing (names the extra).
    """
    if path.suffix != ".safetensors":
        raise ValueError(f"{path}: a {kind} is kept in a .safetensors file: end the name so")
    header = json.dumps({"format": FORMAT, "digest": digest_of(arrays)})
    write_atomically(path, safetensors_numpy().save(dict(arrays), metadata={f"recgym_{kind}": header}))


def read_arrays(path: Path, kind: str) -> tuple[dict[str, np.ndarray], str]:
    """Arrays of a file and the digest it had when it was written, which is not compared here.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it does not hold such a thing, is damaged, or of a newer format (says which).
        ImportError: safetensors is missing (names the extra).
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such {kind}: name a file that was saved as one")
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0] if len(content) > 8 else MAX_HEADER + 1
    if length > MAX_HEADER:
        raise ValueError(
            f"{path}: this is no safetensors file, or a damaged one: name a file that was saved as a {kind}"
        )
    try:
        header = json.loads(json.loads(content[8 : 8 + length])["__metadata__"][f"recgym_{kind}"])
        known, digest = header["format"], str(header["digest"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(f"{path}: a file without a {kind}'s header: name a file that was saved as one") from None
    if not isinstance(known, int) or not 1 <= known <= FORMAT:
        raise ValueError(f"{path}: format {known!r} is not the {FORMAT} read here: upgrade recgym")
    try:
        return safetensors_numpy().load(content), digest
    except ImportError:
        raise
    except Exception as error:  # its error class is the library's own, and a forged type a KeyError
        raise ValueError(f"{path}: not a whole safetensors file ({error}): save it again") from None


def pack_texts(name: str, texts: Sequence[str]) -> dict[str, np.ndarray]:
    """Texts as arrays: their UTF-8 bytes, and where each ends."""
    raw = [text.encode() for text in texts]
    ends = np.cumsum([len(text) for text in raw], dtype=np.int64)
    return {name: np.frombuffer(b"".join(raw), np.uint8), f"{name}_ends": ends}


def unpack_texts(name: str, text: np.ndarray | None, ends: np.ndarray | None) -> tuple[str, ...]:
    """The texts that `pack_texts` was given.

    Raises:
        ValueError: the arrays are none of its.
    """
    if text is None or ends is None:
        raise ValueError(f"{name} needs both {name} and {name}_ends")
    ordered = ends.ndim == 1 and ends.size > 0 and ends.dtype == np.int64 and np.all(np.diff(ends, prepend=0) >= 0)
    if not ordered or text.dtype != np.uint8 or text.shape != (int(ends[-1]),):
        raise ValueError(f"{name}_ends must say where each {name} ends, in order")
    starts, raw = [0, *ends[:-1].tolist()], text.tobytes()
    return tuple(raw[start:end].decode() for start, end in zip(starts, ends.tolist(), strict=True))
