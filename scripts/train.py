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
from pathlib import Path
from typing import Any

import torch
from evaluate import compare, parameter, write_json
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.logger import configure
from tqdm import tqdm

import recgym
from agents.checkpoint import ALGORITHMS, build, load, read, save, versions
from recgym.baselines import baselines_for, make_baseline
from recgym.data import open_bandit
from recgym.offpolicy import from_log, off_policy_report, print_off_policy
from recgym.report import action_figure, regret_figure
from recgym.sb3 import EvaluationCallback, make_vec_env

HYPERPARAMETERS = Path(__file__).with_name("hyperparams.toml")
CHECKPOINT = "checkpoint.safetensors"
EXAMPLES = """examples:
  python scripts/train.py --env RecBandit-v0 --algo ppo --progress
  python scripts/train.py --env RecBandit-v0 --param arms=20 --param prior=[1,3] -n 1000000 --seed 1
  python scripts/train.py -i logs/ppo/RecBandit-v0_1/checkpoint.safetensors       # go on where that run stopped
  python scripts/train.py --env RecBandit-v0 --log open_bandit/random/men.csv.gz   # arms and prior from a log
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
        self.last_save = 0
        self.stop = False

    def _init_callback(self) -> None:
        self.last_save = self.num_timesteps or self.model.num_timesteps

    def _on_rollout_start(self) -> None:
        if self.stop or (self.every and self.model.num_timesteps - self.last_save >= self.every):
            self.save()

    def _on_step(self) -> bool:
        return not (self.stop and self.saved_now)

    @property
    def saved_now(self) -> bool:
        """Whether the file holds this rollout's beginning."""
        return self.model.num_timesteps - self.last_save <= self.model.n_envs

    def _on_training_end(self) -> None:
        if not self.stop:
            self.save()

    def save(self) -> None:
        self.last_save = self.model.num_timesteps
        counters = {"last_evaluation": self.evaluation.last_evaluation, **self.kept}
        save(self.path, self.model, training=True, counters=counters, **self.described)


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


def choose_device(wanted: str) -> str:
    """ "auto" is a GPU where torch finds one."""
    found = torch.cuda.is_available()
    if wanted.startswith("cuda") and not found:
        raise ValueError(
            f"--device {wanted}: torch {torch.__version__} finds no GPU here; use --device cpu, or install a CUDA "
            "build (make train DEVICE=cuda TORCH_INDEX=<index of CUDA builds>)"
        )
    return ("cuda" if found else "cpu") if wanted == "auto" else wanted


def describe(device: str) -> str:
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.machine()
    return f"{device} ({name}, {torch.get_num_threads()} threads), torch {torch.__version__}"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--env", default="RecBandit-v0", metavar="ID", help="environment (default: %(default)s)")
    add("--param", type=parameter, action="append", default=[], metavar="NAME=VALUE", help="of the environment")
    add("--algo", choices=list(ALGORITHMS), default="ppo", help="(default: %(default)s)")
    add("-n", "--n-timesteps", type=int, metavar="N", help="in total (default: tuned)")
    add("--n-envs", type=int, metavar="N", help="trials played at once (default: tuned)")
    add("--hyperparam", type=parameter, action="append", default=[], metavar="NAME=VALUE", help="of the algorithm")
    add("--seed", type=int, default=0, help="of tasks, luck and weights, below 1,000,000 (default: %(default)s)")
    add("--device", default="auto", help="auto, cpu, cuda (default: %(default)s)")
    add("--num-threads", type=int, metavar="N", help="of torch; another number gives other weights")
    add("-i", "--trained-agent", type=Path, metavar="FILE", help="checkpoint to go on from, in its own folder")
    add("--log", type=Path, metavar="PATH", help="Open Bandit log: sets arms and prior, adds an off-policy report")
    add("--tensorboard-log", type=Path, default=Path("logs"), metavar="DIR", help="folder of runs (default: logs)")
    add("--eval-freq", type=int, metavar="N", help="timesteps between evaluations (default: 10 in a run; 0: none)")
    add("--eval-trials", type=int, default=1000, metavar="N", help="of those evaluations (default: %(default)s)")
    add("--save-freq", type=int, metavar="N", help="timesteps between checkpoints (default: 10 in a run; 0: last only)")
    add("--trials", type=int, default=4000, help="held-out trials of the final evaluation (default: %(default)s)")
    add("-P", "--progress", action="store_true", help="show a progress bar")
    add("--list-envs", action="store_true", help="list the environments and stop")
    options = parser.parse_args(arguments)
    for name in ("n_timesteps", "n_envs", "num_threads", "trials", "eval_trials"):
        value = getattr(options, name)
        if value is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    if not 0 <= options.seed < 1_000_000:
        parser.error(f"--seed must be in [0, 999999] (above are validation and test tasks), got {options.seed}")
    return options


def train(options: argparse.Namespace) -> int:
    device = choose_device(options.device)
    if options.num_threads:
        torch.set_num_threads(options.num_threads)
    header: dict[str, Any] = {}
    if options.trained_agent:
        header, _ = read(options.trained_agent)
        if header["training"] is None:
            raise ValueError(
                f"{options.trained_agent}: holds weights only; go on from a checkpoint that training wrote"
            )
        options.algo, options.env = header["algo"], header["env"]["id"]
        parameters, values, n_envs = header["env"]["parameters"], header["arguments"], header["env"]["n_envs"]
        folder = options.trained_agent.parent
        total = options.n_timesteps or header["counters"]["n_timesteps"]
        options.log = Path(header["counters"]["log"]) if header["counters"]["log"] else None
        if (threads := header["threads"]) != torch.get_num_threads():
            print(f"note: the run began with {threads} threads, not {torch.get_num_threads()}: weights will differ")
    else:
        parameters = dict(options.param)
        if options.log:
            found = from_log(options.log)
            a, b = found["prior"]
            spread = math.sqrt(a * b / (a + b + 1)) / (a + b)
            print(f"{options.log}: {found['arms']} items, click rates Beta({a:.1f}, {b:.1f}): ", end="")
            print(f"mean {a / (a + b):.2%}, standard deviation {spread:.2%}")
            parameters = {**found, **parameters}
        values = {**hyperparameters(options.algo, options.env), **dict(options.hyperparam)}
        total, n_envs = options.n_timesteps or values["n_timesteps"], options.n_envs or values["n_envs"]
        values = {key: value for key, value in values.items() if key not in ("n_timesteps", "n_envs")}
    env = make_vec_env(options.env, n_envs, options.seed, **parameters)
    if header:
        model = load(options.trained_agent, env=env, device=device, resume=True)
    else:
        try:
            model = build(options.algo, env, values, device=device, seed=options.seed)
        except TypeError as error:
            raise ValueError(f"hyperparameters of {options.algo}: {error}") from None
        folder = new_folder(options.tensorboard_log, options.algo, options.env)  # nothing is left behind before this
        arguments = {
            "command": shlex.join(sys.argv),
            "options": {key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items()},
            "environment": {"id": options.env, "parameters": asdict(env.scenario), "n_envs": n_envs},
            "hyperparameters": {**values, "n_timesteps": total},
            "versions": {"python": platform.python_version(), **versions()},
            "platform": platform.platform(),
            "device": describe(device),
            "threads": torch.get_num_threads(),
            "commit": commit(),
        }
        write_json(folder / "args.json", arguments)
    print(f"training {options.algo} on {options.env} for {total:,} timesteps on {describe(device)}")
    print(f"run folder: {folder}")
    model.set_logger(configure(str(folder), ["tensorboard"]))

    evaluation = EvaluationCallback(
        env.scenario,
        every=total // 10 if options.eval_freq is None else options.eval_freq,
        trials=options.eval_trials,
        baselines=[n for n in ("greedy", "ucb1_tuned", "thompson", "linucb") if n in baselines_for(env.scenario)],
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
        kept={"n_timesteps": total, "log": str(options.log) if options.log else None},
    )
    if header:
        evaluation.last_evaluation = header["counters"]["last_evaluation"]

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
            model.learn(left, callbacks, reset_num_timesteps=not header, progress_bar=options.progress, log_interval=1)
    finally:
        signal.signal(signal.SIGINT, previous)
        env.close()
    script = shlex.join([sys.executable, sys.argv[0]])
    if checkpoints.stop:
        print(f"interrupted; saved after {checkpoints.last_save:,} timesteps in {checkpoints.path}")
        print(f"resume:   {script} -i {checkpoints.path}")
        return 130
    print(f"trained in {time.monotonic() - started:.0f} s")
    finish(options, parameters, model, folder, env.scenario)
    return 0


def off_policy(options: argparse.Namespace, model: Any, scenario: Any) -> dict[str, Any]:
    """What the log says of the agent, beside a few baselines; prints the table."""
    log = open_bandit(options.log)
    built = {name: make_baseline(name, scenario) for name in ("random", "greedy", "thompson_prior", "gittins")}
    built[options.algo] = model
    with tqdm(unit=" events", disable=not options.progress, leave=False, total=len(built) * len(log.action)) as bar:
        report = off_policy_report(built, scenario, log, on_event=lambda *_: bar.update())
    print_off_policy(report)
    return report


def finish(options: argparse.Namespace, parameters: dict[str, Any], model: Any, folder: Path, scenario: Any) -> None:
    """Evaluate on held-out tasks, write the report and the figures, and say how to go on."""
    baselines = dict.fromkeys(n for n, b in baselines_for(scenario).items() if b.kind != "informed")
    agents = {options.algo: model, f"{options.algo}:argmax": model}
    results, report = compare(options.env, parameters, {**baselines, **agents}, trials=options.trials, seed=0)
    if options.log:
        report["off_policy"] = off_policy(options, model, scenario)
    write_json(folder / "report.json", report)
    title = f"{options.env}, {options.trials:,} held-out trials"
    regret_figure(results, title=title, emphasise=[options.algo]).savefig(folder / "regret.png")
    action_figure(results[options.algo], title=title).savefig(folder / "actions.png")
    python, scripts, file = sys.executable, Path(sys.argv[0]).parent, folder / CHECKPOINT
    given = [part for key, value in parameters.items() for part in ("--param", f"{key}={json.dumps(value)}")]
    names = ",".join([*baselines, f"{options.algo}={file}"])
    evaluate = [python, str(scripts / "evaluate.py"), "--env", options.env, *given, "--policies", names]
    print("evaluate:", shlex.join(evaluate))
    print("inspect: ", shlex.join([python, "-m", "tensorboard.main", "--logdir", str(options.tensorboard_log)]))
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
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
