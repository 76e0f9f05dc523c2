"""Train an agent, evaluate it on held-out trials, and leave everything about the run in one folder."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recgym.cli.list_ import print_environments
from recgym.cli.options import (
    add_parameters,
    choose_device,
    guarded,
    make_parser,
    named_value,
    python_to_paste,
    to_paste,
)
from recgym.terminal import say

if TYPE_CHECKING:
    from recgym.agents.runs import RunResult

__all__ = ["main"]

EXAMPLES = """examples:
  recgym train --env RecBandit-v0
  recgym train --env RecBandit-v0 --quick    # a look in about a minute
  recgym train --env RecBanditDrift-v0 --pretrain-expert discounted_ucb --pretrain-steps 1000000
  recgym train --without-expert    # nothing but the reward to learn from
  recgym train --vary arms=[5,10,50] --vary horizon=[10,100,500] --n-envs 64    # one agent for nine sizes
  recgym train --env RecBandit-v0 --param arms=20 -n 1000000 --pretrain-steps 700000 --seed 1
  recgym train -i logs/latest       # go on where the last run stopped
  recgym train --from pretrained:RecBandit-v0 --param prior=[1,3] -n 400000    # go on from a shipped agent elsewhere
  recgym train --env RecBandit-v0 --log open_bandit/random/men.csv.gz   # arms and prior from a log
  recgym train --env DynamicPricing-v0 --log orange_juice.csv.gz    # demand from a log of sales
  recgym train --env RecSlate-v0 --log ml-100k    # users and items from ratings
  recgym train --env AdPlacement-v0 --log impressions.csv.gz    # a campaign from impressions that were won
  recgym train --env AdPlacement-v0 --log impressions.csv.gz --param catalog=ads.safetensors    # and from their texts
  recgym train --env my_module:MyScenario    # a scenario of your own, from the current folder
  tensorboard --logdir logs
"""
AT_LEAST_ZERO = ("eval_freq", "save_freq", "pretrain_steps")
AT_LEAST_ONE = ("n_timesteps", "n_envs", "num_threads", "trials", "eval_trials", "tasks")
MAPPINGS = ("param", "hyperparam", "log_column")
QUICK = {"n_timesteps": 100_000, "n_envs": 64, "trials": 400, "eval_trials": 100, "eval_freq": 0}
QUICK_IMITATION = 80_000  # of these timesteps
MAX_SEED = 999_999  # above are validation and test tasks


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if "--list-envs" in words:
        print_environments()
        return 0
    return guarded(lambda: run_training(train_options(words)), stopped="stopped; what was saved before is kept")


def run_training(options: dict[str, Any]) -> int:
    """Train, and say how to evaluate, inspect and resume; returns the exit status."""
    from recgym.agents.run_options import RunOptions, resume
    from recgym.agents.runs import train

    device = choose_device(options.get("device", RunOptions.device))
    resumption = resume(options) if "trained_agent" in options else None
    result = train(resumption.options if resumption else RunOptions(**options), device=device, resumption=resumption)
    if result.interrupted:
        say(f"resume:   {to_paste('train', *_resuming(result))}")
        return 130
    for line in next_steps(result):
        say(line)
    return 0


def _resuming(result: RunResult) -> list[str]:
    """Give the options that go on with a run; what is not registered has to be named each time."""
    from recgym import SCENARIOS
    from recgym.agents.folders import short_name

    name = [] if result.options.env in SCENARIOS else ["--env", result.options.env]
    return ["-i", short_name(result.checkpoint), *name]


def next_steps(result: RunResult) -> list[str]:
    """Write the commands that evaluate, inspect and resume a run, and where its report is."""
    from recgym import SCENARIOS
    from recgym.agents.folders import short_name

    env, algo = result.options.env, result.options.algo
    problem: list[str] = []
    if env not in SCENARIOS:  # elsewhere the run itself says where it was trained
        parameters = (f"{key}={json.dumps(value)}" for key, value in result.parameters.items())
        problem = ["--env", env, *(part for given in parameters for part in ("--param", given))]
    evaluation = [*problem, "--policies", f"baselines,{algo}={short_name(result.checkpoint)}"]
    root = result.folder.parent.parent
    return [
        f"evaluate: {to_paste('evaluate', *evaluation)}",
        f"inspect:  {python_to_paste('-m', 'tensorboard.main', '--logdir', str(root))}",
        f"resume:   {to_paste('train', *_resuming(result), '-n', str(2 * result.timesteps))}",
        f"report:   {result.folder / 'report.json'}",
    ]


def train_options(arguments: Sequence[str]) -> dict[str, Any]:
    """Read the options that were chosen, and no others, by the names of `RunOptions`; exits where one is wrong."""
    from recgym.agents.algorithms import ALGORITHMS
    from recgym.agents.folders import checkpoint_of
    from recgym.agents.options import INIT_POLICIES, TransformerOptions
    from recgym.agents.run_options import RunOptions
    from recgym.agents.runs import EVALUATIONS

    default = RunOptions()
    parser = make_parser("train", __doc__ or "", EXAMPLES)
    parser.argument_default = argparse.SUPPRESS
    add = parser.add_argument
    add_parameters(parser, default=default.env)
    add("--algo", choices=list(ALGORITHMS), help=f"(default: {default.algo})")
    add("-n", "--n-timesteps", type=int, metavar="N", help="in total (default: tuned)")
    add("--n-envs", type=int, metavar="N", help="trials played at once (default: tuned)")
    add("--hyperparam", type=named_value, action="append", metavar="NAME=VALUE", help="of the algorithm")
    add("--without-expert", action="store_true", help="MetaPPO from the reward alone: its values for that")
    add("--pretrain-expert", metavar="NAME", help="baseline that MetaPPO imitates first (default: tuned)")
    add("--pretrain-steps", type=int, metavar="N", help="decisions that imitate it; 0: none (default: tuned)")
    add(
        "--init-policy",
        choices=INIT_POLICIES,
        help=f"what a fresh MetaPPO does (default: {TransformerOptions().init_policy})",
    )
    add(
        "--vary",
        type=named_value,
        action="append",
        metavar="NAME=[V,...]",
        help="MetaPPO: parameters of the environment that differ from rollout to rollout, all combinations in turn",
    )
    add("--tasks", type=int, metavar="N", help="train on N fixed tasks (default: a new task every trial)")
    add("--seed", type=int, help=f"of tasks, luck and weights, below {MAX_SEED + 1:,} (default: {default.seed})")
    add("--device", help=f"auto, cpu, cuda (default: {default.device})")
    add("--num-threads", type=int, metavar="N", help="of torch; another number gives other weights")
    add(
        "-i",
        "--trained-agent",
        type=Path,
        metavar="RUN",
        help="run to go on with: its folder, its checkpoint, or logs/latest; with --env MODULE:CLASS where it was "
        "trained in such a one",
    )
    add(
        "--from",
        dest="start_from",
        metavar="POLICY",
        help="begin with the weights of pretrained:ID, a checkpoint or a run, on another problem of the same fields",
    )
    add(
        "--log",
        type=Path,
        metavar="PATH",
        help="log that sets the task distribution and is reported on: "
        "Open Bandit for RecBandit-v0, transactions for DynamicPricing-v0, ratings or clicks for RecSlate-v0, "
        "impressions that were won for AdPlacement-v0",
    )
    add(
        "--log-column",
        type=named_value,
        action="append",
        metavar="NAME=COLUMN",
        help="of a log: what its columns (sales, price, user, rating, ...) are called there; promotion=null: none; "
        "like=4: least rating that is liked; per=1: impressions that a price is for",
    )
    add("--missing", choices=("drop",), help="of a log of sales: leave out rows without a number")
    add("--returns", choices=("drop",), help="of a log of sales: leave out rows of negative sales")
    add("--few-rows", choices=("drop", "pool"), help="of a log of sales: products without a fit")
    add("--encoder", metavar="NAME", help="of a log of ratings: for titles; minilm, none, or a model's folder")
    add("--tensorboard-log", type=Path, metavar="DIR", help=f"of runs (default: {default.tensorboard_log})")
    add(
        "--eval-freq",
        type=int,
        metavar="N",
        help=f"timesteps between evaluations (default: {EVALUATIONS} a run; 0: first and last)",
    )
    add("--eval-trials", type=int, metavar="N", help=f"of those (default: {default.eval_trials})")
    add(
        "--save-freq",
        type=int,
        metavar="N",
        help=f"timesteps between checkpoints (default: {EVALUATIONS} a run; 0: last only)",
    )
    add("--trials", type=int, metavar="N", help=f"held-out, of the last evaluation (default: {default.trials})")
    add("--quick", action="store_true", help="a look in about a minute: little training, few trials")
    add("--list-envs", action="store_true", help="list the environments and stop")
    options = vars(parser.parse_args(arguments))
    for name in (*AT_LEAST_ONE, *AT_LEAST_ZERO):
        least = 1 if name in AT_LEAST_ONE else 0
        if options.get(name, least) < least:
            parser.error(f"--{name.replace('_', '-')} must be at least {least}, got {options[name]}")
    if "start_from" in options and "trained_agent" in options:
        parser.error("--from begins a new run and -i goes on with one: choose")
    if "log_column" in options and "log" not in options:
        parser.error("--log-column names a column of a log: add --log PATH")
    if not 0 <= options.get("seed", 0) <= MAX_SEED:
        what = f"--seed must be in [0, {MAX_SEED}] (above are validation and test tasks)"
        parser.error(f"{what}, got {options['seed']}")
    ways = {name: options.pop(name) for name in ("missing", "returns", "few_rows", "encoder") if name in options}
    if ways:
        if "log" not in options:
            parser.error(f"--{next(iter(ways)).replace('_', '-')} is for a log: add --log PATH")
        options["log_column"] = [*options.get("log_column", []), *ways.items()]
    options |= {name: dict(options[name]) for name in MAPPINGS if name in options}
    if "vary" in options:
        options["vary"] = tuple(options["vary"])
    if "trained_agent" in options:
        options["trained_agent"] = checkpoint_of(options["trained_agent"])
    if options.pop("quick", False):
        if "trained_agent" in options:
            parser.error("--quick is for a new run: leave it out, or -i")
        algo, env = options.get("algo", default.algo), options.get("env", default.env)
        options = {**quick_look(algo, env, expert="without_expert" not in options), **options}
        length, trials = options["n_timesteps"], options["trials"]
        say(f"a quick look: {length:,} timesteps and {trials:,} trials; leave --quick out for more")
    return options


def quick_look(algo: str, env: str, *, expert: bool) -> dict[str, Any]:
    """The options of a run of about a minute."""
    from recgym.agents.tuned import tuned_values

    look = dict(QUICK)
    if algo == "dqn":  # whose environments are few, and whose decisions are dear
        del look["n_envs"]
    elif algo == "meta_ppo" and tuned_values(algo, env, expert=expert).get("pretrain_steps"):
        look["pretrain_steps"] = QUICK_IMITATION
    return look
