"""The file of a checkpoint: one `.safetensors` with a JSON header, without pickle, checked before anything uses it.

It is written at once or not at all, and never what would be refused when read.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

import recgym
from recgym.agents.limits import check_arguments, check_run
from recgym.agents.training_state import is_whole
from recgym.files import write_atomically
from recgym.layout import ROLES

__all__ = ["FORMAT", "find_archive", "read_archive", "target", "versions", "write_archive"]

FORMAT = 2  # a newer number is refused; fields of a layout have roles since 2
MAX_HEADER = 4 << 20  # bytes
MAX_ENVS = 1 << 16  # a forged number would fill the memory before anything refuses it
MOST_TIMESTEPS = 2**53
HEADER: dict[str, tuple[type, ...]] = {  # what a header must have
    "algo": (str,),
    "arguments": (dict,),
    "env": (dict,),
    "layout": (dict, type(None)),
    "spaces": (dict, type(None)),
    "versions": (dict,),
    "threads": (int,),
    "num_timesteps": (int,),
    "exploration_rate": (float, int, type(None)),
    "counters": (dict,),
    "own": (dict, type(None)),
    "training": (dict, type(None)),
}
LATER: dict[str, Any] = {"spaces": None, "own": None}  # what the first files lack
LIBRARIES = ("gymnasium", "numpy", "stable_baselines3", "sb3_contrib", "torch", "safetensors")
IS_SB3 = (
    "looks like a file of Stable-Baselines3, which holds pickles and is not read here: load it with the algorithm that "
    "saved it, such as PPO.load, and keep it with recgym.agents.save"
)
DTYPES = (
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
    *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
)


def versions() -> dict[str, str]:
    """Name the versions of what decides a training run."""
    return {"recgym": recgym.__version__, **{name: version(name) for name in LIBRARIES}}


def _is_layout(value: Mapping[str, Any], version: int) -> bool:
    """Whether `Layout.from_json`, which takes what it is given, makes a layout of it."""
    if set(value) != {"context", "candidate", "candidates"} or not is_whole(value["candidates"], 1):
        return False
    blocks = value["context"], value["candidate"]
    if not all(isinstance(block, list) and all(_is_field(field, version) for field in block) for block in blocks):
        return False
    names = [field[0] for block in blocks for field in block]
    return len(set(names)) == len(names)


def _is_field(value: Any, version: int) -> bool:
    """Whether it is [name, low, high, meaning, width], and from the second version on a role after these."""
    if not isinstance(value, list) or len(value) != (5 if version < 2 else 6):
        return False
    name, low, high, meaning, width = value[:5]
    role_stands = version < 2 or (isinstance(value[5], str) and value[5] in ROLES)
    numbers = isinstance(low, int | float) and isinstance(high, int | float)
    return isinstance(name, str) and numbers and isinstance(meaning, str) and is_whole(width, 1) and role_stands


def _check_header(header: Mapping[str, Any]) -> None:
    for key, kinds in HEADER.items():
        value = header.get(key, ...)
        if not isinstance(value, kinds) or isinstance(value, bool):  # True is an int
            raise ValueError(f"the header's {key!r} is missing or no {'/'.join(k.__name__ for k in kinds)}")
    for key, least in (("num_timesteps", 0), ("threads", 1)):
        if header[key] < least:
            raise ValueError(f"the header's {key!r} must be at least {least}, is {header[key]}")
    if header["num_timesteps"] > MOST_TIMESTEPS:
        raise ValueError(f"the header's 'num_timesteps' must be at most {MOST_TIMESTEPS}, is {header['num_timesteps']}")
    check_arguments(header["arguments"])
    check_run(header["counters"])
    rate = header["exploration_rate"]
    if rate is not None and not 0.0 <= rate <= 1.0:
        raise ValueError(f"the header's 'exploration_rate' must be in [0, 1], is {rate}")
    env, layout, spaces = header["env"], header["layout"], header["spaces"]
    if set(env) != {"id", "parameters", "n_envs"}:
        raise ValueError(f"the header's 'env' must have id, parameters and n_envs, has {sorted(env)}")
    if not isinstance(env["id"], str | None) or not isinstance(env["parameters"], dict):
        raise ValueError(f"the header's 'env' must have a text as id and a mapping as parameters, has {env}")
    if not is_whole(env["n_envs"], 1) or env["n_envs"] > MAX_ENVS:
        raise ValueError(f"n_envs in the header must be a whole number in [1, {MAX_ENVS}], is {env['n_envs']!r}")
    if (env["id"] is None) != (spaces is not None) or (layout is None and spaces is None):
        raise ValueError("the header must have a layout and no spaces for an environment with an id, else spaces")
    if layout is not None and not _is_layout(layout, header["format"]):
        role = "" if header["format"] < 2 else ", role"
        raise ValueError(
            "the header's 'layout' must have context and candidate, lists of "
            f"[name, low, high, meaning, width{role}] with each name once, and candidates, a number"
        )
    if spaces is not None:
        lists = set(spaces) == {"observation", "action"} and all(isinstance(v, list) for v in spaces.values())
        if not lists or not all(is_whole(size) for sizes in spaces.values() for size in sizes):
            raise ValueError(f"the header's 'spaces' must have observation and action, lists of sizes, is {spaces}")


def _check_values(tensors: Mapping[str, torch.Tensor]) -> None:
    for name, tensor in tensors.items():
        if tensor.dtype not in DTYPES:
            raise ValueError(f"tensor {name!r} is of {tensor.dtype}, which no checkpoint holds")
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ValueError(f"tensor {name!r} holds NaN or infinite numbers")


def _digest(tensors: Mapping[str, torch.Tensor], header: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()


def target(path: str | Path) -> Path:
    """Name the file of a checkpoint: SB3's callbacks and users end names in ".zip", or in nothing."""
    path = Path(path)
    return path if path.suffix == ".safetensors" else path.with_name(path.name.removesuffix(".zip") + ".safetensors")


def write_archive(path: str | Path, header: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> Path:
    """Write header and tensors with a digest, all or nothing; adds the suffix."""
    path = target(path)
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    try:
        _check_header(header)
        _check_values(tensors)
        text = json.dumps({**header, "digest": _digest(tensors, header)})
        content = safetensors.torch.save(tensors, metadata={"recgym": text})
        (length,) = struct.unpack("<Q", content[:8])
        if length > MAX_HEADER:
            raise ValueError(f"a header of {length} bytes is longer than {MAX_HEADER}")
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: nothing was written: {error}") from None
    write_atomically(path, content)
    return path


def find_archive(path: str | Path) -> Path:
    """Find the file that `save` wrote under this name."""
    return Path(path) if Path(path).is_file() else target(path)


def read_archive(path: str | Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Header and tensors of a checkpoint, checked; nothing is built or run.

    Args:
        path: of the file; as `save` was given it will do.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no checkpoint, is damaged, or was written by a newer version (says which).
    """
    name = path
    path = find_archive(path)
    if not path.is_file():
        zipped = Path(f"{name}.zip")
        if zipped.is_file():
            raise ValueError(f"{name}: no such checkpoint, but {zipped} {IS_SB3}")
        raise FileNotFoundError(f"{name}: no such checkpoint; a run keeps its own in its folder under logs/")
    content = path.read_bytes()
    if len(content) < 9:
        raise ValueError(f"{path}: {len(content)} bytes are too short for a checkpoint")
    (length,) = struct.unpack("<Q", content[:8])
    if content[8:9] != b"{" and (content[:2] == b"PK" or content[:1] == b"\x80"):  # a length may begin so too
        raise ValueError(f"{path}: this is a zip or pickle file, which can run code when loaded; it was not opened")
    if length > MAX_HEADER:
        raise ValueError(f"{path}: not a checkpoint, or damaged: its header would take {length} bytes")
    try:
        metadata = json.loads(content[8 : 8 + length]).get("__metadata__", {})
        header = json.loads(metadata["recgym"])
        tensors = safetensors.torch.load(content)
    except KeyError:
        raise ValueError(f"{path}: a safetensors file without recgym's header: not one of its checkpoints") from None
    except (ValueError, AttributeError, TypeError, RecursionError, safetensors.SafetensorError) as error:
        raise ValueError(f"{path}: not a checkpoint, or truncated: {error}") from None
    if not isinstance(header, dict) or not is_whole(header.get("format"), 1):
        raise ValueError(f"{path}: the header has no format version")
    if header["format"] > FORMAT:
        raise ValueError(f"{path}: format {header['format']} is newer than the {FORMAT} read here; upgrade recgym")
    digest = header.pop("digest", None)
    try:
        if digest != _digest(tensors, header):
            raise ValueError("damaged: the content does not match its digest")
        header = {**LATER, **header}
        _check_values(tensors)
        _check_header(header)
    except (ValueError, RecursionError, RuntimeError) as error:
        raise ValueError(f"{path}: {error}") from None
    return header, tensors
