"""Compare policies on held-out trials: the same tasks and the same luck for all of them."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import recgym
from recgym.baselines import baselines_for
from recgym.cli.list_ import print_baselines
from recgym.cli.options import add_parameters, choose_device, guarded, make_parser
from recgym.evaluation import ARGMAX, PRETRAINED, Shuffled, cut_figure, rl2
from recgym.evaluation.exploration import (
    check_explored,
    exploration_figure,
    exploration_json,
    explore,
    print_exploration,
)
from recgym.evaluation.report import FIGURE_ENDINGS, check_drawable, compare, curves_figure, print_comparison
from recgym.files import check_writable, write_atomically, write_json
from recgym.terminal import progress, say

__all__ = ["main"]

DEFAULT_ENV = "RecBandit-v0"
ALL = "baselines"  # in --policies
TRIALS, QUICK_TRIALS = 4000, 400
EXAMPLES = """examples:
  recgym evaluate --env RecBandit-v0 --policies pretrained:RecBandit-v0,ucb1,thompson,gittins --trials 4000
  recgym evaluate --param statistics=false --policies raw=pretrained:rl2/raw-0,ucb1_tuned
  recgym evaluate --policies baselines,mine=logs/latest    # the last run, where it was trained, beside all baselines
  recgym evaluate --env RecBandit-v0 --param arms=20 --param prior=[1,3] --policies greedy --json report.json
  recgym evaluate --env DynamicPricing-v0 --policies glm_ts,pretrained:DynamicPricing-v0 --by family --figure by.png
  recgym evaluate --policies gittins,thompson,pretrained:RecBandit-v0 --exploration how.png
  recgym evaluate --env RecBanditDrift-v0 --list-policies
  recgym evaluate --suite rl2 --policies meta-0=A.safetensors,meta-1=B.safetensors --markdown table.md
A path is a checkpoint, the folder of a run, or logs/latest. Without --env and --param policies play where the first
agent among them was trained.
A checkpoint plays as it was trained, sampling its actions; LABEL:argmax=PATH takes the most probable ones.
pretrained:ID is the trained agent that ships for an environment; pretrained:ID:argmax and LABEL=pretrained:ID work too.
A suite is a published table, played whole; labels that end in -0, -1, ... are seeds, whose mean it shows as well.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = make_parser("evaluate", __doc__ or "", EXAMPLES)
    add_parameters(parser, default=DEFAULT_ENV)
    add = parser.add_argument
    add("--suite", choices=("rl2",), help="a published table instead of one environment")
    add(
        "--policies",
        default="",
        help="comma-separated: names of baselines, or baselines for all; pretrained:ID, label=PATH, label:argmax=PATH",
    )
    add("--trials", type=int, help=f"per policy (default: {TRIALS})")
    add("--quick", action="store_true", help=f"{QUICK_TRIALS} trials unless told otherwise: a look in about a minute")
    add("--seed", type=int, default=0, help="which held-out tasks (default: %(default)s)")
    add("--json", type=Path, metavar="FILE", help="write the report")
    add("--figure", type=Path, metavar="FILE", help="draw what is lost, or with --by scores by group (png, pdf, svg)")
    add("--markdown", type=Path, metavar="FILE", help="write the suite's tables")
    add("--by", metavar="FIELD", help="also cut the report by a field of the task, or by difficulty")
    add("--exploration", type=Path, metavar="FILE", help="draw how policies explore, and print their first decisions")
    add("--shuffle", default="", metavar="FIELDS", help="play agents also with these from another trial: their worth")
    add("--device", default="auto", help="of checkpoints: auto, cpu, cuda (default: %(default)s)")
    add("--list-policies", action="store_true", help="list the environment's baselines and stop")
    options = parser.parse_args(arguments)
    return guarded(lambda: run_evaluation(options))


def run_evaluation(options: argparse.Namespace) -> int:
    """Evaluate as the options say; returns the exit status."""
    if options.suite and (options.env or options.param):
        raise ValueError(f"--suite {options.suite} has environments of its own: leave --env and --param out")
    if options.suite and options.by:
        raise ValueError("--by cuts the report of one environment: leave it out, or --suite")
    if options.suite and options.figure:
        raise ValueError("--figure shows the regret in one environment: leave it out, or --suite")
    if options.suite and options.exploration:
        raise ValueError("--exploration shows how policies explore in one environment: leave it out, or --suite")
    if options.markdown and not options.suite:
        raise ValueError("--markdown writes the tables of a suite: add --suite")
    if options.trials is None:
        options.trials = QUICK_TRIALS if options.quick else TRIALS
    policies = (
        read_policies(options.policies) if options.policies or not (options.suite or options.list_policies) else {}
    )
    env, parameters = options.env or DEFAULT_ENV, dict(options.param or ())
    if not (options.env or options.param or options.suite):
        env, parameters = home_of_first(policies) or (env, parameters)
    scenario = recgym.make_scenario(env, **parameters)
    if options.list_policies:
        print_baselines(scenario)
        return 0
    if options.seed < 0 or options.trials < 2:
        raise ValueError("--seed must be at least 0 and --trials at least 2")
    if ALL in policies:
        if options.suite:
            raise ValueError(f"--suite {options.suite} brings baselines of its own: leave {ALL!r} out of --policies")
        del policies[ALL]
        names = (name for name, each in baselines_for(scenario).items() if each.kind != "informed")
        policies = {**dict.fromkeys(names), **policies}
    agents = {label: source for label, source in policies.items() if source is not None}
    if options.shuffle and (options.suite or not agents):
        raise ValueError("--shuffle is for agents in one environment: name a checkpoint in --policies")
    for option in ("figure", "exploration"):
        path = getattr(options, option)
        if path and path.suffix not in FIGURE_ENDINGS:
            raise ValueError(f"--{option} {path}: the ending must be one of {', '.join(FIGURE_ENDINGS)}")
    if options.exploration:
        check_explored(scenario)
    for path in filter(None, (options.json, options.figure, options.exploration, options.markdown)):
        check_writable(path)
    check_drawable(figure=bool(options.figure or options.exploration))
    device = choose_device(options.device) if agents else "cpu"
    if options.suite:
        evaluate_suite(options, policies, device=device)
        return 0
    players: dict[str, Any] = dict(policies)
    if agents:
        from recgym.agents.players import load_player

        players |= {label: load_player(source, scenario, device=device) for label, source in agents.items()}
    fields = [name.strip() for name in options.shuffle.split(",") if name.strip()]
    if fields:
        for label in agents:
            ending = ARGMAX if label.endswith(ARGMAX) else ""
            name = f"{label.removesuffix(ARGMAX)}:shuffled{ending}"
            players[name] = Shuffled(players[label], scenario.layout, fields)
    comparison, report = compare(
        scenario, players, env=env, parameters=parameters, trials=options.trials, seed=options.seed, by=options.by
    )
    if options.quick:
        say(f"a quick look at {options.trials:,} trials")
    if fields:
        report["shuffled"] = fields
    if options.exploration:
        explored = {name: explore(trials, scenario) for name, trials in comparison.trials.items()}
        report["exploration"] = exploration_json(explored)
    if options.json:
        write_json(options.json, report)
    title = f"{env}, {options.trials:,} held-out trials"
    emphasis = [name for name, player in players.items() if player is not None]
    if options.exploration:
        exploration_figure(explored, title=title, emphasise=emphasis).savefig(options.exploration)
    if options.figure:
        if comparison.cut is not None:
            figure = cut_figure(comparison.cut, title=title, emphasise=emphasis)
        else:
            figure = curves_figure(comparison.trials, scenario, title=title, emphasise=emphasis)
        figure.savefig(options.figure)
    print_comparison(report)
    if options.exploration:
        print_exploration(report["exploration"])
    return 0


def home_of_first(policies: Mapping[str, str | None]) -> tuple[str, dict[str, Any]] | None:
    """The environment and parameters that the first agent among policies was trained in; None: there is none."""
    sources = [source for source in policies.values() if source is not None]
    if not sources:
        return None
    from recgym.agents.players import home_of

    return home_of(sources[0].removesuffix(ARGMAX))


def read_policies(text: str) -> dict[str, str | None]:
    """Read labels and where their policies come from: ucb1,pretrained:ID,label=PATH,PATH.safetensors.

    A baseline comes from nowhere, None.

    Raises:
        ValueError: two have one label, or there is none.
    """
    policies: dict[str, str | None] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        label, _, source = item.partition("=")
        name = item.removesuffix(ARGMAX)
        if not source and name.startswith(PRETRAINED):
            source = name
        elif not source and name.endswith(".safetensors"):
            source = name
            label = Path(name).stem + item[len(name) :]
        if label in policies:
            raise ValueError(f"two policies are called {label!r}; name them apart: label=PATH")
        policies[label] = source or None
    if not policies:
        raise ValueError("--policies names none; try --list-policies")
    return policies


def evaluate_suite(options: argparse.Namespace, policies: Mapping[str, str | None], *, device: str) -> None:
    """Play a suite with a progress bar, write its report and print it."""
    agents: dict[str, rl2.SuiteAgent] = {}
    extra: dict[str, str] = {}  # versions that agents depend on
    if any(policies.values()):
        from recgym.agents.archive import versions
        from recgym.agents.players import suite_player

        extra = versions()
        for label, source in policies.items():
            if source is not None:
                agents[label] = suite_player(source, deterministic=label.endswith(ARGMAX), device=device)
    baselines = [label for label, source in policies.items() if source is None]
    with progress("decisions") as advance:

        def show(what: str, done: int, total: int) -> None:
            advance(done, total, what)

        report = rl2.play_suite(
            agents, baselines, cells=rl2.RL2, trials=options.trials, seed=options.seed, on_step=show
        )
    if agents:
        report["versions"] |= extra
        report["device"] = device
    if options.json:
        write_json(options.json, report)
    if options.markdown:
        write_atomically(options.markdown, rl2.markdown(report).encode())
    rl2.print_tables(report)
