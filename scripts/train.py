"""Train an agent, evaluate it on held-out trials, and leave everything about the run in one folder."""

from __future__ import annotations

import argparse
import json
import math
import platform
import re
import shlex
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from dataclasses import asdict
from inspect import signature
from itertools import product
from pathlib import Path
from typing import Any

import torch
from evaluate import choose_device, compare, parameter, write_json
from logs_of import log_kind, read_log
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.logger import configure
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

import recgym
from recgym.agents.algorithms import ALGORITHMS, algorithm, build
from recgym.agents.archive import versions
from recgym.agents.checkpoint import load, read, save
from recgym.agents.options import INIT_POLICIES
from recgym.baselines import baselines_for, left_out
from recgym.evaluation.report import action_figure, curves_figure
from recgym.sb3 import EvaluationCallback, RecVecEnv

HYPERPARAMETERS = Path(__file__).with_name("hyperparams.toml")
CHECKPOINT = "checkpoint.safetensors"
# beside the agent, in TensorBoard
SHOWN = ("greedy", "ucb1_tuned", "thompson", "gittins", "discounted_ucb", "linucb", "glm_ts", "meta_dp")
DEFAULTS = {
    "env": "RecBandit-v0",
    "algo": "meta_ppo",
    "seed": 0,
    "tensorboard_log": Path("logs"),
    "eval_trials": 1000,
    "trials": 4000,
}
LOG = ("log", "log_column")
KEPT = ("n_timesteps", "eval_freq", "eval_trials", "save_freq", "trials", *LOG)  # what a resumed run takes over
PRETRAIN = ("pretrain_expert", "pretrain_steps", "init_policy")  # options of MetaPPO that are hyperparameters of it
FROM_ONE = ("n_epochs", "batch_size", "n_steps", "train_freq", "gradient_steps", "buffer_size", "n_envs", "n_timesteps")
EXAMPLES = """examples:
  python scripts/train.py --env RecBandit-v0 --progress
  python scripts/train.py --env RecBanditDrift-v0 --pretrain-expert discounted_ucb --pretrain-steps 1000000
  python scripts/train.py --vary arms=[5,10,50] --vary horizon=[10,100,500] --n-envs 64    # one agent for nine sizes
  python scripts/train.py --env RecBandit-v0 --param arms=20 -n 1000000 --pretrain-steps 700000 --seed 1
  python scripts/train.py -i logs/ppo/RecBandit-v0_1/checkpoint.safetensors       # go on where that run stopped
  python scripts/train.py --env RecBandit-v0 --log open_bandit/random/men.csv.gz   # arms and prior from a log
  python scripts/train.py --env DynamicPricing-v0 --log orange_juice.csv.gz    # demand from a log of sales
  tensorboard --logdir logs
"""


class CheckpointCallback(BaseCallback):
    """Saves between an update and the next rollout, every `every` timesteps, at the end, and when asked to stop."""

    def __init__(
        self, path: Path, *, every: int, evaluation: EvaluationCallback, kept: dict[str, Any], **described: Any
    ) -> None:
        super().__init__()
        self.path, self.every, self.evaluation, self.described = path, every, evaluation, described
        self.kept = kept  # what resuming needs to know of the run
        self.last_save: int | None = None  # timesteps in the file; None before it is written
        self.stop = False  # asked to
        self.halted = False  # before the end, with everything saved

    def _on_rollout_start(self) -> None:
        steps = self.model.num_timesteps
        due = self.every and steps - (self.last_save or self._num_timesteps_at_start) >= self.every
        if self.stop or due:
            self.save()
            self.halted = self.stop

    def _on_training_start(self) -> None:
        self._num_timesteps_at_start = self.model.num_timesteps

    def _on_step(self) -> bool:
        return not self.halted

    def _on_training_end(self) -> None:
        if not self.halted:
            self.save()

    def save(self) -> None:
        counters = {"last_evaluation": self.evaluation.last_evaluation, "options": self.kept}
        save(self.path, self.model, training=True, counters=counters, **self.described)
        self.last_save = self.model.num_timesteps


def hyperparameters(algo: str, env_id: str) -> dict[str, Any]:
    """The tuned values of an algorithm for an environment."""
    tables = tomllib.loads(HYPERPARAMETERS.read_text())[algo]
    return {**tables["default"], **tables.get(env_id, {})}


def new_folder(root: Path, algo: str, env_id: str) -> Path:
    """logs/<algo>/<env id>_<n>, n counting up; created here, so that an unwritable place is noticed at once."""
    parent = root / algo
    pattern = re.compile(re.escape(env_id) + r"_(\d+)")
    taken = [int(m[1]) for m in map(pattern.fullmatch, (p.name for p in parent.glob("*"))) if m]
    folder = parent / f"{env_id}_{max(taken, default=0) + 1}"
    folder.mkdir(parents=True)
    return folder


def commit() -> str | None:
    """The commit of the checkout this runs from, where there is one."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def describe(device: str) -> str:
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.machine()
    return f"{device} ({name}, {torch.get_num_threads()} threads), torch {torch.__version__}"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--env", metavar="ID", help=f"environment (default: {DEFAULTS['env']})")
    add("--param", type=parameter, action="append", default=[], metavar="NAME=VALUE", help="of the environment")
    add("--algo", choices=list(ALGORITHMS), help=f"(default: {DEFAULTS['algo']})")
    add("-n", "--n-timesteps", type=int, metavar="N", help="in total (default: tuned)")
    add("--n-envs", type=int, metavar="N", help="trials played at once (default: tuned)")
    add("--hyperparam", type=parameter, action="append", default=[], metavar="NAME=VALUE", help="of the algorithm")
    add("--pretrain-expert", metavar="NAME", help="baseline that MetaPPO imitates first (default: tuned)")
    add("--pretrain-steps", type=int, metavar="N", help="decisions that imitate it; 0: none (default: tuned)")
    add("--init-policy", choices=INIT_POLICIES, help="what a fresh MetaPPO does (default: uniform)")
    add(
        "--vary",
        type=parameter,
        action="append",
        default=[],
        metavar="NAME=[V,...]",
        help="MetaPPO: parameters of the environment that differ from rollout to rollout, all combinations in turn",
    )
    add("--tasks", type=int, metavar="N", help="train on N fixed tasks (default: a new task every trial)")
    add("--seed", type=int, help=f"of tasks, luck and weights, below 1,000,000 (default: {DEFAULTS['seed']})")
    add("--device", default="auto", help="auto, cpu, cuda (default: %(default)s)")
    add("--num-threads", type=int, metavar="N", help="of torch; another number gives other weights")
    add("-i", "--trained-agent", type=Path, metavar="FILE", help="checkpoint to go on from, in its own folder")
    add(
        "--log",
        type=Path,
        metavar="PATH",
        help="log that sets the task distribution and is reported on: "
        "Open Bandit for RecBandit-v0, transactions for DynamicPricing-v0",
    )
    add(
        "--log-column",
        type=parameter,
        action="append",
        metavar="NAME=COLUMN",
        help="of a log of transactions: what sales, price, product or promotion is called there; promotion=null: none",
    )
    add("--tensorboard-log", type=Path, metavar="DIR", help=f"of runs (default: {DEFAULTS['tensorboard_log']})")
    add(
        "--eval-freq",
        type=int,
        metavar="N",
        help="timesteps between evaluations (default: 10 a run; 0: first and last)",
    )
    add("--eval-trials", type=int, metavar="N", help=f"of those (default: {DEFAULTS['eval_trials']})")
    add("--save-freq", type=int, metavar="N", help="timesteps between checkpoints (default: 10 a run; 0: last only)")
    add("--trials", type=int, metavar="N", help=f"held-out, of the last evaluation (default: {DEFAULTS['trials']})")
    add("-P", "--progress", action="store_true", help="show a progress bar")
    add("--list-envs", action="store_true", help="list the environments and stop")
    options = parser.parse_args(arguments)
    counts = ("n_timesteps", "n_envs", "num_threads", "trials", "eval_trials", "eval_freq", "save_freq", "tasks")
    for name in (*counts, "pretrain_steps"):
        value, least = getattr(options, name), 0 if name.endswith("_freq") or name == "pretrain_steps" else 1
        if value is not None and value < least:
            parser.error(f"--{name.replace('_', '-')} must be at least {least}, got {value}")
    if options.log_column and not options.log:
        parser.error("--log-column names a column of a log: add --log PATH")
    if not 0 <= (options.seed or 0) < 1_000_000:
        parser.error(f"--seed must be in [0, 999999] (above are validation and test tasks), got {options.seed}")
    return options


def resume(options: argparse.Namespace) -> dict[str, Any]:
    """Header of the checkpoint to go on from; its run's settings fill what `options` leaves open.

    Raises:
        ValueError: the file cannot be resumed from, or an option contradicts it.
    """
    header, _ = read(options.trained_agent)
    if header["training"] is None:
        raise ValueError(f"{options.trained_agent}: holds weights only; go on from a checkpoint that training wrote")
    if header["env"]["id"] is None:
        raise ValueError(
            f"{options.trained_agent}: was trained in an environment that is not registered: use recgym.agents.load"
        )
    for name, found in (("env", header["env"]["id"]), ("algo", header["algo"])):
        if getattr(options, name) not in (None, found):
            raise ValueError(f"{options.trained_agent} was trained with --{name} {found}, not {getattr(options, name)}")
        setattr(options, name, found)
    for name in ("param", "hyperparam", "n_envs", "seed", *LOG, "tensorboard_log", "vary", "tasks", *PRETRAIN):
        if getattr(options, name) not in (None, []):
            raise ValueError(f"--{name.replace('_', '-')} cannot be changed in a run that is resumed (-i)")
    kept = header["counters"].get("options", {})
    for name in KEPT:
        if getattr(options, name) is None:
            setattr(options, name, kept.get(name))
    if options.n_timesteps is None:
        raise ValueError(f"{options.trained_agent} does not say how long its run is: give -n, in total")
    if options.n_timesteps < header["num_timesteps"]:
        raise ValueError(f"-n {options.n_timesteps} is over: the run has had {header['num_timesteps']:,} timesteps")
    options.num_threads = options.num_threads or header["threads"]
    if options.num_threads != header["threads"]:
        print(f"note: the run began with {header['threads']} threads, not {options.num_threads}: weights will differ")
    return header


def check_hyperparameters(algo: str, values: dict[str, Any], tuned: dict[str, Any]) -> None:
    """Refuse numbers that no algorithm takes, and text where the tuned value, or else the default, is a number."""
    defaults = {name: argument.default for name, argument in signature(algorithm(algo)).parameters.items()}
    usual = defaults | tuned
    for name, value in values.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        least = 1 if name in FROM_ONE else 0
        if number and not (math.isfinite(value) and value >= least):
            raise ValueError(f"--hyperparam {name} must be a number of at least {least}, got {value}")
        if value is None and name in defaults and defaults[name] is None:
            continue
        falling = isinstance(value, str) and value.startswith("lin_")
        if isinstance(usual.get(name), int | float) and not (number or falling):
            raise ValueError(f"--hyperparam {name} must be a number or lin_X, got {value!r}")
        if number and name in FROM_ONE and value != int(value):
            raise ValueError(f"--hyperparam {name} must be a whole number, got {value}")
        if name == "policy_kwargs" and not isinstance(value, dict):
            raise ValueError(f'--hyperparam policy_kwargs must be a mapping, such as {{"width": 64}}, got {value!r}')


def chosen_hyperparameters(options: argparse.Namespace, tuned: dict[str, Any]) -> dict[str, Any]:
    """The tuned values, and what the options say instead.

    Raises:
        ValueError: an option that the algorithm does not have, or a value that it does not take.
    """
    values = {**tuned, **dict(options.hyperparam)}
    check_hyperparameters(options.algo, values, tuned)
    given = [name for name in (*PRETRAIN, "vary") if getattr(options, name) not in (None, [])]
    if given and options.algo != "meta_ppo":
        raise ValueError(f"--{given[0].replace('_', '-')} is an option of meta_ppo, not of {options.algo}")
    if options.pretrain_expert is not None:
        values["expert"] = options.pretrain_expert
    if options.pretrain_steps is not None:
        values["pretrain_steps"] = options.pretrain_steps
    if options.init_policy is not None:
        values["policy_kwargs"] = {**values.get("policy_kwargs", {}), "init_policy": options.init_policy}
    if options.vary:
        for name, choices in options.vary:
            if not isinstance(choices, list) or not choices:
                raise ValueError(f"--vary {name} must be a list of values, such as {name}=[5,10,50], got {choices!r}")
        names, choices = zip(*options.vary, strict=True)
        if len(set(names)) < len(names):
            raise ValueError(f"--vary names {', '.join(sorted({n for n in names if names.count(n) > 1}))} twice")
        values["variants"] = [dict(zip(names, combination, strict=True)) for combination in product(*choices)]
    return {
        name: int(value) if name in FROM_ONE and isinstance(value, float) else value for name, value in values.items()
    }


def train(options: argparse.Namespace) -> int:
    device = choose_device(options.device)
    header = resume(options) if options.trained_agent else None
    for name, value in DEFAULTS.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    if options.num_threads:
        torch.set_num_threads(options.num_threads)
    options.log = Path(options.log).resolve() if options.log else None
    if header:
        parameters, values, n_envs = header["env"]["parameters"], header["arguments"], header["env"]["n_envs"]
        total, folder = options.n_timesteps, options.trained_agent.parent
        if options.log:
            read_log(options)  # needed at the end: missed now rather than then
    else:
        parameters = dict(options.param)
        if options.log:
            parameters = log_kind(options.env).begin(read_log(options), options.env, parameters)
        tuned = hyperparameters(options.algo, options.env)
        values = chosen_hyperparameters(options, tuned)
        total, n_envs = options.n_timesteps or values["n_timesteps"], options.n_envs or values["n_envs"]
        if total < values.get("pretrain_steps", 0):
            print(
                f"note: all of -n {total:,} is imitation, and ends before its {values['pretrain_steps']:,} decisions "
                "and the fall of its learning rate: see --pretrain-steps"
            )
        values = {key: value for key, value in values.items() if key not in ("n_timesteps", "n_envs")}
    env = RecVecEnv(recgym.make_scenario(options.env, **parameters), n_envs, tasks=options.tasks)
    env.seed(options.seed)
    if header:
        model = load(options.trained_agent, env=env, device=device, resume=True)
    else:
        try:
            model = build(options.algo, env, values, device=device, seed=options.seed)
        except (TypeError, AssertionError) as error:
            raise ValueError(f"hyperparameters of {options.algo}: {error}") from None
        folder = new_folder(options.tensorboard_log, options.algo, options.env)  # nothing is left behind before this
    record(folder / "args.json", options, env, {**values, "n_timesteps": total}, device)
    print(f"training {options.algo} on {options.env} for {total:,} timesteps on {describe(device)}")
    print(f"run folder: {folder}")
    model.set_logger(configure(str(folder), ["tensorboard"]))

    evaluation = EvaluationCallback(
        env.scenario,
        every=total // 10 if options.eval_freq is None else options.eval_freq,
        trials=options.eval_trials,
        baselines=[name for name in SHOWN if name in baselines_for(env.scenario)],
        hyperparameters={"algo": options.algo, "env": options.env, "n_envs": n_envs, "seed": options.seed, **values},
    )
    checkpoints = CheckpointCallback(
        folder / CHECKPOINT,
        every=total // 10 if options.save_freq is None else options.save_freq,
        evaluation=evaluation,
        algo=options.algo,
        arguments=values,
        env_id=options.env,
        parameters=parameters,
        kept={**plain({name: getattr(options, name) for name in KEPT}), "n_timesteps": total},
    )
    if header:
        evaluation.last_evaluation = header["counters"].get("last_evaluation", -1)

    def stop(signum: int, frame: Any) -> None:
        if checkpoints.stop:
            raise KeyboardInterrupt
        checkpoints.stop = True
        print("\nstopping after this update; once more stops at once and keeps the last checkpoint", file=sys.stderr)

    previous = signal.signal(signal.SIGINT, stop)
    started = time.monotonic()
    try:
        left = total - model.num_timesteps
        if left > 0:
            callbacks = CallbackList([evaluation, checkpoints])
            interval = n_envs if isinstance(model, OffPolicyAlgorithm) else 1  # trials there, rollouts here
            model.learn(left, callbacks, interval, reset_num_timesteps=not header, progress_bar=options.progress)
    finally:
        signal.signal(signal.SIGINT, previous)
        env.close()
    if checkpoints.stop:
        print(f"interrupted; saved after {checkpoints.last_save:,} timesteps in {checkpoints.path}")
        print("resume:  ", shlex.join([sys.executable, sys.argv[0], "-i", str(checkpoints.path)]))
        return 130
    print(f"trained in {time.monotonic() - started:.0f} s")
    finish(options, parameters, model, folder, env.scenario)
    return 0


def plain(options: dict[str, Any]) -> dict[str, Any]:
    return {key: str(value) if isinstance(value, Path) else value for key, value in options.items()}


def record(path: Path, options: argparse.Namespace, env: RecVecEnv, values: dict[str, Any], device: str) -> None:
    """args.json: all that decides the run; a resumed run adds to what is there."""
    session = {
        "command": shlex.join(sys.argv),
        "options": plain(vars(options)),
        "environment": {"id": options.env, "parameters": asdict(env.scenario), "n_envs": env.num_envs},
        "hyperparameters": values,
        "versions": {"python": platform.python_version(), **versions()},
        "platform": platform.platform(),
        "device": describe(device),
        "threads": torch.get_num_threads(),
        "commit": commit(),
    }
    if options.trained_agent and path.is_file():
        first = json.loads(path.read_text())
        session = {**first, "resumed": [*first.get("resumed", []), session]}
    write_json(path, session)


def finish(options: argparse.Namespace, parameters: dict[str, Any], model: Any, folder: Path, scenario: Any) -> None:
    """Evaluate on held-out tasks, write the report and the figures, and say how to go on."""
    baselines = dict.fromkeys(n for n, b in baselines_for(scenario).items() if b.kind != "informed")
    agents = {options.algo: model, f"{options.algo}:argmax": model}
    for name, reason in left_out(scenario).items():
        print(f"without {name}: {reason}")
    results, report = compare(options.env, parameters, {**baselines, **agents}, trials=options.trials, seed=0)
    write_json(folder / "report.json", report)
    if options.log:
        report |= log_kind(options.env).finish(options, model, scenario, results)
        write_json(folder / "report.json", report)
    title = f"{options.env}, {options.trials:,} held-out trials"
    curves_figure(results, scenario, title=title, emphasise=[options.algo]).savefig(folder / "regret.png")
    action_figure(results[options.algo], scenario, title=title).savefig(folder / "actions.png")
    python, scripts, file = sys.executable, Path(sys.argv[0]).parent, folder / CHECKPOINT
    given = [part for key, value in parameters.items() for part in ("--param", f"{key}={json.dumps(value)}")]
    names = ",".join([*baselines, f"{options.algo}={file}"])
    evaluate = [python, str(scripts / "evaluate.py"), "--env", options.env, *given, "--policies", names]
    print("evaluate:", shlex.join(evaluate))
    print("inspect: ", shlex.join([python, "-m", "tensorboard.main", "--logdir", str(folder.parent.parent)]))
    print(
        "resume:  ",
        shlex.join([python, str(scripts / "train.py"), "-i", str(file), "-n", str(2 * model.num_timesteps)]),
    )
    print("report:  ", folder / "report.json")


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    if options.list_envs:
        for env_id in recgym.SCENARIOS:
            print(f"{env_id:24} {recgym.make_scenario(env_id).__doc__.strip().splitlines()[0]}")
        return 0
    try:
        return train(options)
    except (ValueError, OSError, ImportError, MemoryError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; what was saved before is kept", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
