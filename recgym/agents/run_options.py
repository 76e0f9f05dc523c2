"""What a run is asked to do: options with their defaults, the values that come of them, and those of a resumed run."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from inspect import signature
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import recgym
from recgym.agents.algorithms import algorithm
from recgym.agents.checkpoint import read
from recgym.agents.environments import know_catalog
from recgym.agents.tuned import tuned_values
from recgym.baselines import family_of
from recgym.terminal import say

__all__ = ["Resumption", "RunOptions", "arguments_of", "log_digest", "options_to_keep", "resume"]

# a resumed run may change these, and takes over the others
LENGTHS = ("n_timesteps", "eval_freq", "eval_trials", "save_freq", "trials")
PRETRAIN = ("pretrain_expert", "pretrain_steps", "init_policy")  # options of MetaPPO that are hyperparameters of it
FIXED = (
    *("param", "hyperparam", "n_envs", "seed", "tensorboard_log", "vary", "tasks", "start_from", "without_expert"),
    *PRETRAIN,
)
FROM_ONE = ("n_epochs", "batch_size", "n_steps", "train_freq", "gradient_steps", "buffer_size", "n_envs", "n_timesteps")


@dataclass(frozen=True)
class RunOptions:
    """Options of a run, with their defaults; None leaves one to the tuned values, or to a tenth of the run."""

    env: str = "RecBandit-v0"  # as `recgym.make_scenario` takes it
    param: dict[str, Any] = field(default_factory=dict)  # of the environment
    algo: str = "meta_ppo"
    n_timesteps: int | None = None  # in total
    n_envs: int | None = None  # trials played at once
    hyperparam: dict[str, Any] = field(default_factory=dict)  # of the algorithm
    pretrain_expert: str | None = None
    pretrain_steps: int | None = None
    init_policy: str | None = None
    without_expert: bool = False  # the values of MetaPPO that learn from the reward alone
    vary: tuple[tuple[str, Any], ...] = ()  # parameters that differ from rollout to rollout, and their values
    tasks: int | None = None  # None: a new task for every trial
    seed: int = 0
    device: str = "auto"
    num_threads: int | None = None
    trained_agent: Path | None = None  # checkpoint to go on from
    start_from: str | None = None  # whose weights a new run begins with; see `recgym.agents.players.weights_file`
    log: Path | None = None
    log_column: dict[str, Any] = field(default_factory=dict)
    tensorboard_log: Path = Path("logs")
    eval_freq: int | None = None  # timesteps; 0: first and last
    eval_trials: int = 1000
    save_freq: int | None = None  # timesteps; 0: last only
    trials: int = 4000  # held-out, of the last evaluation


# --- a new run -------------------------------------------------------------------------------------------------------
def arguments_of(options: RunOptions) -> dict[str, Any]:
    """Take the tuned values, and what the options say instead.

    Raises:
        ValueError: an option that the algorithm does not have, or a value that it does not take.
    """
    tuned = tuned_values(options.algo, options.env, expert=not options.without_expert)
    values = {**tuned, **options.hyperparam}
    _check_hyperparameters(options.algo, values, tuned)
    own = [name for name in (*PRETRAIN, "vary", "without_expert") if getattr(options, name) not in (None, (), False)]
    if own and options.algo != "meta_ppo":
        raise ValueError(f"--{own[0].replace('_', '-')} is an option of meta_ppo, not of {options.algo}")
    if options.without_expert and (options.pretrain_expert is not None or options.pretrain_steps):
        raise ValueError("--without-expert imitates nobody: leave it out, or --pretrain-expert and --pretrain-steps")
    if options.pretrain_expert is not None:
        values["expert"] = options.pretrain_expert
    if options.pretrain_steps is not None:
        values["pretrain_steps"] = options.pretrain_steps
    if values.get("pretrain_steps") and not values.get("expert"):
        values["expert"] = family_of(recgym.make_scenario(options.env)).expert or None
    if options.init_policy is not None:
        values["policy_kwargs"] = {**values.get("policy_kwargs", {}), "init_policy": options.init_policy}
    if options.vary:
        values["variants"] = _variants(options.vary)
    return {
        name: int(value) if name in FROM_ONE and isinstance(value, float) else value for name, value in values.items()
    }


def _check_hyperparameters(algo: str, values: Mapping[str, Any], tuned: Mapping[str, Any]) -> None:
    """Refuse numbers that no algorithm takes, and text where the tuned value, or else the default, is a number."""
    defaults = {name: argument.default for name, argument in signature(algorithm(algo)).parameters.items()}
    usual = {**defaults, **tuned}
    for name, value in values.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        least = 1 if name in FROM_ONE else 0
        if number and not (math.isfinite(value) and value >= least):
            raise ValueError(f"--hyperparam {name} must be a number of at least {least}, got {value}")
        if value is None and name in defaults and defaults[name] is None:
            continue
        schedule = isinstance(value, str) and value.startswith("lin_")
        if isinstance(usual.get(name), int | float) and not (number or schedule):
            raise ValueError(f"--hyperparam {name} must be a number or lin_X, got {value!r}")
        if number and name in FROM_ONE and value != int(value):
            raise ValueError(f"--hyperparam {name} must be a whole number, got {value}")
        if name == "policy_kwargs" and not isinstance(value, dict):
            raise ValueError(f'--hyperparam policy_kwargs must be a mapping, such as {{"width": 64}}, got {value!r}')


def _variants(vary: tuple[tuple[str, Any], ...]) -> list[dict[str, Any]]:
    """List all combinations of the values of parameters."""
    for name, choices in vary:
        if not isinstance(choices, list) or not choices:
            raise ValueError(f"--vary {name} must be a list of values, such as {name}=[5,10,50], got {choices!r}")
    names = [name for name, _ in vary]
    if len(set(names)) < len(names):
        raise ValueError(f"--vary names {', '.join(sorted({n for n in names if names.count(n) > 1}))} twice")
    return [dict(zip(names, values, strict=True)) for values in product(*(choices for _, choices in vary))]


# --- a run that goes on ----------------------------------------------------------------------------------------------
class Resumption(NamedTuple):
    """A run to go on with."""

    options: RunOptions
    header: dict[str, Any]  # of its checkpoint

    @property
    def last_evaluation(self) -> int:
        """Timesteps at which it was evaluated last; -1 where that is not known."""
        return int(self.header["counters"].get("last_evaluation", -1))

    @property
    def log_record(self) -> dict[str, str | None]:
        """Where the log of the run lay when it was read, and its digest."""
        memory = _memory_of(self.header)
        return {"log": str(memory["log"]) if "log" in memory else None, "log_digest": memory.get("log_digest")}


def options_to_keep(options: RunOptions, *, total: int, registered: bool) -> dict[str, Any]:
    """Give what a checkpoint tells the run that goes on from it, as JSON can carry it.

    Args:
        options: of the run.
        total: timesteps of the run.
        registered: whether the checkpoint names environment and parameters by itself.
    """
    values = {name: getattr(options, name) for name in (*LENGTHS, "log_column")} | {"n_timesteps": total}
    return values if registered else {**values, "env": options.env, "param": options.param}


def resume(options: Mapping[str, Any]) -> Resumption:
    """Take up the run of the checkpoint `options["trained_agent"]`, whose settings fill what the options leave open.

    Args:
        options: those of `RunOptions` that somebody chose, and no others.

    Raises:
        ValueError: the file cannot be resumed from, or an option contradicts it.
    """
    path = Path(options["trained_agent"])
    header, _ = read(path)
    if header["training"] is None:
        raise ValueError(f"{path}: holds weights only; go on from a checkpoint that training wrote")
    memory = _memory_of(header)
    env = header["env"]["id"]
    parameters = header["env"]["parameters"]
    know_catalog(path, parameters)
    if env is None:  # no id that says what to import; what a file names is never imported
        env = memory.get("env", options.get("env"))
        parameters = memory.get("param", {})
        if "env" not in options:
            where = f"{path}: was trained in {env or 'an environment'}, which is not registered"
            raise ValueError(f"{where}: name it beside -i, with --env MODULE:CLASS")
    for name, value in (("env", env), ("algo", header["algo"])):
        if options.get(name, value) not in (value, memory.get(name)):
            raise ValueError(f"{path} was trained with --{name} {value}, not {options[name]}")
    for name in FIXED:
        if name in options:
            raise ValueError(f"--{name.replace('_', '-')} cannot be changed in a run that is resumed (-i)")
    settings = {**memory, **options, "env": env, "param": parameters, "algo": header["algo"]}
    if settings.get("n_timesteps") is None:
        raise ValueError(f"{path} does not say how long its run is: give -n, in total")
    if settings["n_timesteps"] < header["num_timesteps"]:
        over = f"-n {settings['n_timesteps']} is over"
        raise ValueError(f"{over}: the run has had {header['num_timesteps']:,} timesteps: give a larger -n, in total")
    settings.setdefault("num_threads", header["threads"])
    if settings["num_threads"] != header["threads"]:
        say(f"note: the run began with {header['threads']} threads, not {settings['num_threads']}: weights will differ")
    settings |= _log_here(path, memory, options)
    names = {each.name for each in fields(RunOptions)}
    return Resumption(RunOptions(**{name: value for name, value in settings.items() if name in names}), header)


def _log_here(path: Path, memory: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The log that a resumed run reports on: where it is said to lie now, or lay then; none where it is not here.

    What was fitted to it is in the checkpoint, so that training goes on without it.

    Raises:
        ValueError: what is given is no such log, or another one.
    """
    then, digest = memory.get("log"), memory.get("log_digest")
    if "log" in options:
        if then is None:
            raise ValueError(f"--log {options['log']}: {path} was not trained on a log, so leave it out")
        if digest is not None and log_digest(options["log"]) not in (digest, None):
            raise ValueError(f"--log {options['log']} is another log than {then}, which {path} was trained on")
        return {}
    if then is not None and not (then.exists() and (digest is None or log_digest(then) in (digest, None))):
        say(f"note: {then} is not here as it was: the run goes on without a report on it; --log PATH says where it is")
        return {"log": None}
    return {}


def log_digest(path: Path) -> str | None:
    """SHA-256 of a log; None where it is a folder, which names a file in it."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _memory_of(header: Mapping[str, Any]) -> dict[str, Any]:
    """Read what `options_to_keep` gave the checkpoint; what is of another type, or not there, is left open."""
    kept = header["counters"].get("options", {})
    kept = kept if isinstance(kept, dict) else {}
    memory = {name: kept[name] for name in LENGTHS if isinstance(kept.get(name), int)}
    if isinstance(kept.get("log"), str):
        memory["log"] = Path(kept["log"])
        memory["log_digest"] = kept["log_digest"] if isinstance(kept.get("log_digest"), str) else None
    if kept.get("log_column"):
        memory["log_column"] = dict(kept["log_column"])  # the first checkpoints have pairs
    if isinstance(kept.get("env"), str) and isinstance(kept.get("param"), dict):
        memory |= {"env": kept["env"], "param": kept["param"]}
    return memory
