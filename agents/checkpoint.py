"""Checkpoints without pickle: one `.safetensors` file with a JSON header, checked before anything is built from it.

A file holds the policy's weights and, where `training` is asked for, all that decides how training goes on (see
`agents.training_state`). It is written at once or not at all, and never what would be refused when read.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
import sys
import warnings
from collections.abc import Mapping
from dataclasses import fields
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import safetensors.torch
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule, LinearSchedule
from stable_baselines3.common.vec_env import VecEnv

import recgym
from agents import training_state
from agents.training_state import check_tensors, is_whole
from recgym.core import Layout, write_atomically
from recgym.sb3 import RecVecEnv

__all__ = [
    "ALGORITHMS",
    "algorithm",
    "build",
    "check_shown",
    "describe",
    "export",
    "is_whole",
    "layout_of",
    "load",
    "load_pretrained",
    "plain_schedule",
    "read",
    "save",
    "spaces_of",
    "versions",
]

FORMAT = 1  # a newer number is refused
LONGEST_HEADER = 4 << 20  # bytes
MOST_ENVS = 1 << 20  # a forged number would fill the memory before anything refuses it
ALGORITHMS = {  # the classes that a file may name
    "ppo": "stable_baselines3:PPO",
    "a2c": "stable_baselines3:A2C",
    "dqn": "stable_baselines3:DQN",
    "recurrent_ppo": "sb3_contrib:RecurrentPPO",
    "meta_ppo": "agents.meta_ppo:MetaPPO",
}
PRETRAINED = Path(__file__).with_name("pretrained")
ACTIVATIONS = ("ReLU", "Tanh", "GELU", "SiLU")
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
DTYPES = (
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
    *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
)


# --- building --------------------------------------------------------------------------------------------------------
def algorithm(algo: str) -> Any:
    """The class of a key of `ALGORITHMS`."""
    module, _, name = ALGORITHMS[algo].partition(":")
    return getattr(import_module(module), name)


def _schedule(name: str, value: Any) -> Any:
    """ "lin_X" is RL Zoo's way to write a value that falls linearly from X to 0."""
    if not (isinstance(value, str) and value.startswith("lin_")):
        return value
    try:
        start = float(value.removeprefix("lin_"))
    except ValueError:
        start = math.nan
    if not math.isfinite(start):
        raise ValueError(f"{name} = {value!r}: there must be a number after lin_")
    return LinearSchedule(start, 0.0, 1.0)


def plain_schedule(value: Any, *, name: str = "schedule") -> float | str | None:
    """A schedule as `build` takes it, and JSON can carry it; numbers, "lin_X" and None stay as they are.

    Args:
        value: a number, or a schedule of `stable_baselines3.common.utils`.
        name: of the argument, for the error.

    Raises:
        ValueError: JSON cannot carry it.
    """
    plain = value.value_schedule if isinstance(value, FloatSchedule) else value
    if isinstance(plain, LinearSchedule) and (plain.end, plain.end_fraction) == (0.0, 1.0):
        return f"lin_{float(plain.start)!r}"
    plain = plain.val if isinstance(plain, ConstantSchedule) else plain
    plain = plain.item() if isinstance(plain, np.number) else plain
    if plain is None or (isinstance(plain, int | float) and not isinstance(plain, bool)):
        return plain
    if isinstance(plain, str) and isinstance(_schedule(name, plain), LinearSchedule):
        return plain
    raise ValueError(
        f"{name} = {value!r} cannot be kept in a checkpoint: give a number, or 'lin_X' for a fall from X to 0 "
        "(as a schedule: LinearSchedule(X, 0, 1))"
    )


def build(
    algo: str, env: VecEnv, arguments: Mapping[str, Any], *, device: str = "auto", seed: int | None = None
) -> Any:
    """An algorithm from plain values.

    Args:
        algo: a key of `ALGORITHMS`.
        env: what it learns in.
        arguments: of its constructor, as JSON or TOML can carry them: "lin_X" stands for a schedule that falls linearly
            from X to 0; `policy_kwargs.activation_fn` is a name.
        device: "auto", "cpu" or "cuda".
        seed: of the algorithm; None leaves the global generators as they are.

    Raises:
        ValueError: unknown algorithm, policy or activation, or "lin_" without a number.
    """
    if algo not in ALGORITHMS:
        raise ValueError(f"no algorithm {algo!r}; there are {', '.join(ALGORITHMS)}")
    if "policy" not in arguments:
        raise ValueError("the arguments name no policy")
    values = {key: _schedule(key, value) for key, value in arguments.items()}
    policy_kwargs = dict(values.pop("policy_kwargs", None) or {})
    if "activation_fn" in policy_kwargs:
        activation = policy_kwargs["activation_fn"]
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation_fn {activation!r} is not one of {', '.join(ACTIVATIONS)}")
        policy_kwargs["activation_fn"] = getattr(torch.nn, activation)
    return algorithm(algo)(values.pop("policy"), env, policy_kwargs=policy_kwargs, device=device, seed=seed, **values)


def versions() -> dict[str, str]:
    """Of what decides a training run."""
    return {"recgym": recgym.__version__, **{name: version(name) for name in LIBRARIES}}


# --- describing ------------------------------------------------------------------------------------------------------
def _is(kind: type, name: str) -> bool:
    """Whether "module:Name" stands for exactly this class; a module never imported cannot have made it."""
    module, _, attribute = name.partition(":")
    return getattr(sys.modules.get(module), attribute, None) is kind


def describe(scenario: Any) -> tuple[str | None, dict[str, Any]]:
    """The registered environment that a scenario is: the id that it differs least from, and the parameters that differ.

    `recgym.make_scenario(id, **parameters)` gives an equal scenario. Where none does, because no id has this class or
    JSON cannot carry a parameter, this is (None, {}).
    """
    found = []
    for env_id in (key for key, preset in recgym.SCENARIOS.items() if _is(type(scenario), preset.scenario)):
        values = {field.name: getattr(scenario, field.name) for field in fields(scenario)}
        preset = recgym.make_scenario(env_id)
        differ = {name: value for name, value in values.items() if value != getattr(preset, name)}
        try:
            parameters = json.loads(json.dumps(differ, default=np.generic.item))
            same = recgym.make_scenario(env_id, **parameters) == scenario
        except (TypeError, ValueError):
            same = False
        if same:
            found.append((env_id, parameters))
    return min(found, key=lambda described: len(described[1]), default=(None, {}))


def _scenario(env: VecEnv) -> Any:
    """Of a `RecVecEnv`; None where a wrapper changes what the policy sees or does, or for any other environment."""
    inner = env.unwrapped
    same = (env.observation_space, env.action_space) == (inner.observation_space, inner.action_space)
    return inner.scenario if isinstance(inner, RecVecEnv) and same else None


def layout_of(env: VecEnv) -> Layout | None:
    """Of what the policy sees, where the environment has one; a wrapper may show something else than it describes.

    Raises:
        ValueError: the rows of the environment have different ones.
    """
    layouts = env.get_attr("layout") if env.has_attr("layout") else [None]
    layout = layouts[0]
    if not isinstance(layout, Layout) or env.observation_space.shape != (layout.sizes[2],):
        return None
    for row, other in enumerate(layouts):
        if not isinstance(other, Layout) or list(_widths(other).items()) != list(_widths(layout).items()):
            raise ValueError(f"environment {row} has another layout than environment 0")
    return layout


def spaces_of(env: VecEnv) -> dict[str, list[int]]:
    space = env.action_space
    discrete = isinstance(space, gymnasium.spaces.Discrete)
    action = [int(space.n)] if discrete else np.ravel(getattr(space, "nvec", ())).tolist()  # type: ignore[attr-defined]
    return {"observation": list(env.observation_space.shape or ()), "action": action}


def _describe(
    model: Any, algo: str | None, env_id: str | None, parameters: Mapping[str, Any] | None, *, training: bool
) -> dict[str, Any]:
    """The header's algo, env, layout and spaces, once model and environment are known to be what they say."""
    found = next((key for key, name in ALGORITHMS.items() if _is(type(model), name)), None)
    if found is None or algo not in (None, found):
        raise ValueError(f"the model is a {type(model).__name__}, not {algo or 'one of ' + ', '.join(ALGORITHMS)}")
    if model.env is None:
        raise ValueError("the model has no environment that the file could describe: see its set_env")
    scenario, given = _scenario(model.env), dict(parameters or {})
    normalised = model.get_vec_normalize_env()
    if normalised is not None and (training or normalised.norm_obs):
        what = "the model's VecNormalize keeps statistics that a checkpoint does not hold"
        if training or scenario is not None:
            raise ValueError(f"{what}: train without it")
        warnings.warn(f"{what}: save them with env.save(path)", stacklevel=4)
    if env_id is not None:
        expected = recgym.make_scenario(env_id, **given)
        if scenario is None or scenario != expected:
            raise ValueError(
                f"the model's environment is not {expected}: see recgym.sb3.make_vec_env, or name its parameters"
            )
    else:
        if given:
            raise ValueError(f"parameters {sorted(given)} without the id of the environment that has them")
        if scenario is not None:
            env_id, given = describe(scenario)
        if env_id is None and not getattr(model, "any_candidates", False):
            raise ValueError(
                f"the model's environment is not one of {', '.join(recgym.SCENARIOS)}: see recgym.sb3.make_vec_env"
            )
    layout = layout_of(model.env)
    return {
        "algo": found,
        "env": {"id": env_id, "parameters": given, "n_envs": model.n_envs},
        "layout": None if layout is None else layout.to_json(),
        "spaces": spaces_of(model.env) if env_id is None else None,
    }


# --- checking --------------------------------------------------------------------------------------------------------
def _is_layout(value: Mapping[str, Any]) -> bool:
    """Whether `Layout.from_json`, which takes what it is given, makes a layout of it."""
    if set(value) != {"context", "candidate", "candidates"} or not is_whole(value["candidates"], 1):
        return False
    blocks = value["context"], value["candidate"]
    return all(isinstance(block, list) and all(map(_is_field, block)) for block in blocks)


def _is_field(value: Any) -> bool:
    if not isinstance(value, list) or len(value) != 5:
        return False
    name, low, high, meaning, width = value
    numbers = isinstance(low, int | float) and isinstance(high, int | float)
    return isinstance(name, str) and numbers and isinstance(meaning, str) and is_whole(width, 1)


def _check_header(header: Mapping[str, Any]) -> None:
    for key, kinds in HEADER.items():
        value = header.get(key, ...)
        if not isinstance(value, kinds) or isinstance(value, bool):  # True is an int
            raise ValueError(f"the header's {key!r} is missing or no {'/'.join(k.__name__ for k in kinds)}")
    if header["algo"] not in ALGORITHMS:
        raise ValueError(f"algorithm {header['algo']!r} is not allowed; there are {', '.join(ALGORITHMS)}")
    for key, least in (("num_timesteps", 0), ("threads", 1)):
        if header[key] < least:
            raise ValueError(f"the header's {key!r} must be at least {least}, is {header[key]}")
    rate = header["exploration_rate"]
    if rate is not None and not 0.0 <= rate <= 1.0:
        raise ValueError(f"the header's 'exploration_rate' must be in [0, 1], is {rate}")
    env, layout, spaces = header["env"], header["layout"], header["spaces"]
    if set(env) != {"id", "parameters", "n_envs"}:
        raise ValueError(f"the header's 'env' must have id, parameters and n_envs, has {sorted(env)}")
    if not isinstance(env["id"], str | None) or not isinstance(env["parameters"], dict):
        raise ValueError(f"the header's 'env' must have a text as id and a mapping as parameters, has {env}")
    if not is_whole(env["n_envs"], 1) or env["n_envs"] > MOST_ENVS:
        raise ValueError(f"n_envs in the header must be a whole number in [1, {MOST_ENVS}], is {env['n_envs']!r}")
    if (env["id"] is None) != (spaces is not None) or (layout is None and spaces is None):
        raise ValueError("the header must have a layout and no spaces for an environment with an id, else spaces")
    if layout is not None and not _is_layout(layout):
        raise ValueError(
            "the header's 'layout' must have context and candidate, lists of [name, low, high, meaning, width], and "
            "candidates, a number"
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


# --- writing ---------------------------------------------------------------------------------------------------------
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
        arguments: those it was built with (see `build`); schedules as `plain_schedule` takes them.
        env_id: a key of `recgym.SCENARIOS`; None describes the model's environment (see `describe`). One that is not
            registered is kept by its spaces alone, for algorithms that play `any_candidates`.
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
    header: dict[str, Any] = {
        "format": FORMAT,
        **_describe(model, algo, env_id, parameters, training=training),
        "arguments": _plain_arguments(arguments),
        "versions": versions(),
        "threads": torch.get_num_threads(),
        "num_timesteps": model.num_timesteps,
        "exploration_rate": getattr(model, "exploration_rate", None),  # with which DQN samples
        "counters": dict(counters or {}),
        "own": dict(model.training_counters()) if hasattr(model, "training_counters") else None,
        "training": None,
    }
    tensors = {f"policy.{name}": value for name, value in model.policy.state_dict().items()}
    if training:
        arrays, header["training"] = training_state.capture(model)
        tensors |= arrays
    return _write(path, header, tensors)


def _plain_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    plain = {}
    for name, value in arguments.items():
        schedule = callable(value) and not isinstance(value, type)
        plain[name] = plain_schedule(value, name=name) if schedule else value
        try:
            json.dumps(plain[name])
        except (TypeError, ValueError) as error:
            raise ValueError(f"argument {name!r} cannot be kept in a checkpoint: {error}") from None
    return plain


def _target(path: str | Path) -> Path:
    """Where a checkpoint of this name lies: SB3's callbacks and users end names in ".zip", or in nothing."""
    path = Path(path)
    return path if path.suffix == ".safetensors" else path.with_name(path.name.removesuffix(".zip") + ".safetensors")


def _write(path: str | Path, header: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> Path:
    """Adds the suffix and the digest; all or nothing."""
    path = _target(path)
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    try:
        _check_header(header)
        _check_values(tensors)
        text = json.dumps({**header, "digest": _digest(tensors, header)})
        content = safetensors.torch.save(tensors, metadata={"recgym": text})
        (length,) = struct.unpack("<Q", content[:8])
        if length > LONGEST_HEADER:
            raise ValueError(f"a header of {length} bytes is longer than {LONGEST_HEADER}")
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: nothing was written: {error}") from None
    write_atomically(path, content)
    return path


def export(source: str | Path, target: str | Path) -> Path:
    """Copy a checkpoint without what only training needs; errors as in `read` and `save`."""
    header, tensors = read(source)
    weights = {name: tensor for name, tensor in tensors.items() if name.startswith("policy.")}
    return _write(target, {**header, "training": None, "counters": {}}, weights)


# --- reading ---------------------------------------------------------------------------------------------------------
def _find(path: str | Path) -> Path:
    """The file that `save` wrote under this name."""
    return Path(path) if Path(path).is_file() else _target(path)


def read(path: str | Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Header and tensors of a checkpoint, checked; nothing is built or run.

    Args:
        path: of the file; as `save` was given it will do.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no checkpoint, is damaged, or was written by a newer version (says which).
    """
    given, path = path, _find(path)
    if not path.is_file():
        raise FileNotFoundError(f"{given}: no such checkpoint; a run keeps its own in its folder under logs/")
    content = path.read_bytes()
    if len(content) < 9:
        raise ValueError(f"{path}: {len(content)} bytes are too short for a checkpoint")
    (length,) = struct.unpack("<Q", content[:8])
    if content[8:9] != b"{" and (content[:2] == b"PK" or content[:1] == b"\x80"):  # a length may begin so too
        raise ValueError(f"{path}: this is a zip or pickle file, which can run code when loaded; it was not opened")
    if length > LONGEST_HEADER:
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


def load(path: str | Path, *, env: Any = None, device: str = "auto", resume: bool = False, **arguments: Any) -> Any:
    """The algorithm of a checkpoint, ready to `predict` or, with `resume`, to go on learning where it stopped.

    Args:
        path: of the file; as `save` was given it will do.
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
    header, tensors = read(path)
    path = _find(path)
    if resume and header["training"] is None:
        raise ValueError(f"{path}: holds weights only; resume from a checkpoint that training wrote")
    if resume and arguments:
        raise ValueError(
            f"{path}: a resumed run keeps its arguments; load it without resume to change {sorted(arguments)}"
        )
    if env is None:
        env = _make_env(path, header["env"])
    elif not isinstance(env, VecEnv):
        env = BaseAlgorithm._wrap_env(env)
    any_candidates = getattr(algorithm(header["algo"]), "any_candidates", False)
    theirs = None if header["layout"] is None else Layout.from_json(header["layout"])
    try:
        check_shown(env, theirs, header["spaces"], any_candidates=any_candidates)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    with warnings.catch_warnings():
        if not resume:  # batch sizes that do not fit this number of environments matter to learning alone
            warnings.filterwarnings("ignore", message="You have specified a mini-batch size", category=UserWarning)
        try:
            if private := [name for name in header["arguments"] if name.startswith("_")]:
                raise ValueError(f"{private} are not for a file to decide")
            # An agent that acts needs nothing that only learning does, which need not fit this environment.
            values = {**header["arguments"], **arguments, "_init_setup_model": resume}
            model = build(header["algo"], env, values, device=device, seed=values.pop("seed", None))
            if not resume:
                model._setup_model()
            expected = model.policy.state_dict()
        except Exception as error:  # SB3 checks little: what a wrong argument raises depends on how far it gets
            why = str(error) or type(error).__name__
            given = f" and {sorted(arguments)}" if arguments else ""
            raise ValueError(
                f"{path}: {header['algo']} cannot be built from the header's arguments{given}: {why}"
            ) from error
    weights = {n.removeprefix("policy."): t for n, t in tensors.items() if n.startswith("policy.")}
    try:
        check_tensors(expected, weights)
    except ValueError as error:
        raise ValueError(f"{path}: tensors do not fit the policy: {error}") from None
    model.policy.load_state_dict(weights)
    model.num_timesteps = header["num_timesteps"]
    if header["exploration_rate"] is not None:
        model.exploration_rate = header["exploration_rate"]
    if hasattr(model, "restore_counters"):
        try:
            own = header["own"]
            if own is None and not resume:  # of an earlier version: its decisions were those of the beginning
                own = {"rollouts": 0, "pretrained": header["num_timesteps"], "seed": None}
            model.restore_counters({**(own or {}), **({"seed": model.seed} if "seed" in arguments else {})})
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    if resume:
        try:
            training_state.restore(model, header["training"], tensors)
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: the training state does not fit: {error}; load it without resume") from None
    return model


def _make_env(path: Path, described: Mapping[str, Any]) -> RecVecEnv:
    if described["id"] is None:
        raise ValueError(f"{path}: was trained in an environment that is not registered, so pass one: load(..., env=)")
    try:
        return RecVecEnv(recgym.make_scenario(described["id"], **described["parameters"]), described["n_envs"])
    except (ArithmeticError, LookupError, MemoryError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: its environment cannot be made: {error}") from error


def check_shown(env: VecEnv, theirs: Layout | None, spaces: Any, *, any_candidates: bool) -> None:
    """Refuse an environment that shows other things than the one of training.

    Args:
        env: of now.
        theirs: layout in training.
        spaces: in training, see `spaces_of`; looked at where there is no layout.
        any_candidates: whether their number may differ.

    Raises:
        ValueError: names what differs.
    """
    ours = layout_of(env)
    if theirs is None and ours is None:
        sizes = spaces_of(env).items()
        differ = [f"{name} ({spaces[name]} there, {size} here)" for name, size in sizes]
        differ = differ if spaces != dict(sizes) else []
    elif theirs is None or ours is None:
        names = ["no named fields" if layout is None else ", ".join(_widths(layout)) for layout in (theirs, ours)]
        differ = [f"{names[0]} there, {names[1]} here"]
    else:
        there, here = _widths(theirs), _widths(ours)
        if not any_candidates:
            there["candidates"], here["candidates"] = theirs.candidates, ours.candidates
        names = sorted({name for name, _ in there.items() ^ here.items()})
        differ = [f"{name} ({there.get(name, 0)} there, {here.get(name, 0)} here)" for name in names]
        if not differ and list(there) != list(here):
            differ = [f"the order {', '.join(there)} there, {', '.join(here)} here"]
    if differ:
        raise ValueError(f"trained on other observations or actions than here: {', '.join(differ)}")


def _widths(layout: Layout) -> dict[str, int]:
    """Names and widths in order: what must agree between training and use. Bounds may differ, with the horizon."""
    return {field.name: field.width for field in layout}


def load_pretrained(env_id: str, *, env: Any = None, device: str = "auto", **parameters: Any) -> Any:
    """The trained agent that ships for an environment; see `load`.

    Args:
        env_id: a key of `recgym.SCENARIOS`.
        env: what to act in; None makes it.
        device: "auto", "cpu" or "cuda".
        parameters: of the environment that is made: another number of candidates, another horizon.

    Raises:
        ValueError: none ships for it (names those that do), or parameters come with an environment.
    """
    path = PRETRAINED / f"{env_id}.safetensors"
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in PRETRAINED.glob("*.safetensors"))) or "none"
        raise ValueError(f"no trained agent ships for {env_id!r}; there are: {there}")
    if parameters:
        if env is not None:
            raise ValueError(
                f"parameters {sorted(parameters)} are of an environment to be made: give them or env, not both"
            )
        env = RecVecEnv(recgym.make_scenario(env_id, **parameters), 1)
    return load(path, env=env, device=device)
