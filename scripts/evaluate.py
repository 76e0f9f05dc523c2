"""Compare policies on held-out trials: the same tasks and the same luck for all of them."""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tqdm import tqdm

import recgym
from recgym.baselines import baselines_for
from recgym.evaluation import TEST_SEED, Shuffled, Trials, evaluate, ratio, rl2
from recgym.evaluation.report import curves_figure, print_table, report_json
from recgym.files import write_atomically
from recgym.layout import Layout

FIGURES = (".png", ".pdf", ".svg")
ENV = "RecBandit-v0"
EXAMPLES = """examples:
  python scripts/evaluate.py --env RecBandit-v0 --policies ucb1,thompson,gittins --trials 4000
  python scripts/evaluate.py --env RecBandit-v0 --policies thompson,mine=logs/ppo/RecBandit-v0_1/checkpoint.safetensors
  python scripts/evaluate.py --env RecBandit-v0 --param arms=20 --param prior=[1,3] --policies greedy --json report.json
  python scripts/evaluate.py --env RecBanditDrift-v0 --list-policies
  python scripts/evaluate.py --suite rl2 --policies meta-0=A.safetensors,meta-1=B.safetensors --markdown table.md
A checkpoint plays as it was trained, sampling its actions; LABEL:argmax=PATH takes the most probable ones.
A suite is a published table, played whole; labels that end in -0, -1, ... are seeds, whose mean it shows as well.
"""


def parameter(text: str) -> tuple[str, Any]:
    """name=value, the value as JSON where it is JSON, else as text; None, True and False are Python's."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not name=value")
    try:
        return name, json.loads({"None": "null", "True": "true", "False": "false"}.get(value, value))
    except json.JSONDecodeError as error:
        if value[:1] in ("[", "{"):
            advice = """write 0.2 for .2, null for None, and quote the whole: 'families=["linear"]'"""
            raise argparse.ArgumentTypeError(f"{name}: {value} is not JSON ({error}): {advice}") from error
        return name, value


def parse_policies(text: str) -> dict[str, str | None]:
    """Labels to paths, baselines to None: ucb1,label=PATH,PATH.safetensors."""
    policies: dict[str, str | None] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        label, equals, path = item.partition("=")
        if not equals and item.removesuffix(":argmax").endswith(".safetensors"):
            path = item.removesuffix(":argmax")
            label = Path(path).stem + item[len(path) :]
        if label in policies:
            raise ValueError(f"two policies are called {label!r}; name them apart: label=PATH")
        policies[label] = path or None
    if not policies:
        raise ValueError("--policies names none; try --list-policies")
    return policies


def choose_device(wanted: str) -> str:
    """The device of an agent; "auto" is a GPU where torch finds one.

    Raises:
        ValueError: there is no such device here.
    """
    import torch

    found = torch.cuda.is_available()
    if wanted not in ("auto", "cpu", "cuda") and not re.fullmatch(r"cuda:\d+", wanted):
        raise ValueError(f"--device {wanted}: use auto, cpu, cuda or cuda:N")
    if wanted.startswith("cuda") and not found:
        raise ValueError(
            f"--device {wanted}: torch {torch.__version__} finds no GPU here; use --device cpu, or install a CUDA "
            "build (make train DEVICE=cuda TORCH_INDEX=<index of CUDA builds>)"
        )
    return ("cuda" if found else "cpu") if wanted == "auto" else wanted


def check_writable(path: Path) -> None:
    """Fail before the work rather than after it."""
    try:
        if path.is_dir():
            raise IsADirectoryError("it is a folder")
        if path.exists() and not path.is_file():
            raise OSError("it is no regular file")
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise OSError(f"cannot write {path}: {error}") from None


def check_drawable(*, figure: bool) -> None:
    """Fail before the work rather than after it where what draws tables, or figures, is not installed."""
    for needed, extra, what in (("rich", "agents", "tables"), ("matplotlib", "plot", "figures")):
        if (figure or needed == "rich") and find_spec(needed) is None:
            raise ImportError(f"{what} are drawn with {needed}: pip install 'recgym[{extra}]'")


def write_json(path: Path, value: Any) -> None:
    """All or nothing, indented; what is undefined (0/0) becomes null."""

    def defined(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: defined(item) for key, item in part.items()}
        if isinstance(part, list | tuple):
            return [defined(item) for item in part]
        return None if isinstance(part, float) and not math.isfinite(part) else part

    write_atomically(path, (json.dumps(defined(value), indent=2, allow_nan=False) + "\n").encode())


def compare(
    env_id: str, parameters: Mapping[str, Any], policies: Mapping[str, Any], *, trials: int, seed: int
) -> tuple[dict[str, Trials], dict[str, Any]]:
    """Evaluate with a progress bar and print the table; returns trials and report."""
    scenario = recgym.make_scenario(env_id, **parameters)
    known = baselines_for(scenario)  # no agent can have the name of one
    with tqdm(unit=" decisions", disable=not sys.stderr.isatty(), leave=False) as bar:

        def show(name: str, decisions: int) -> None:
            bar.set_description(name, refresh=False)
            bar.update(decisions - bar.n if decisions > bar.n else 0)
            if decisions == scenario.horizon * -(-trials // 4096):
                bar.reset()

        results, summaries, reference, _ = evaluate(
            scenario, policies, trials=trials, seed=TEST_SEED + seed, on_step=show
        )
    report = report_json(
        summaries,
        env=env_id,
        parameters=parameters,
        trials=trials,
        seed=seed,
        reference=reference,
        kinds={name: b.kind for name in results if (b := known.get(name.removesuffix(":argmax"))) is not None},
    )
    print_table(report)
    aware = [name for name in results if name in known and known[name].kind == "prior-aware"]
    free = results[reference].returns
    for agent in (name for name, policy in report["policies"].items() if policy["kind"] == "agent"):
        closed = {name: ratio(results[agent].returns - free, results[name].returns - free) for name in aware}
        closed = {name: share for name, share in closed.items() if math.isfinite(share.mean)}
        report["policies"][agent]["gap_closed"] = {name: share._asdict() for name, share in closed.items()}
        for name, (mean, low, high) in closed.items():
            if mean > 0:  # who is below the reference is said to be so above
                print(f"{agent} closes {mean:.0%} ({low:.0%} to {high:.0%}) of the gap from {reference} to {name}")
    return results, report


def suite_agent(label: str, path: str, device: str) -> rl2.Agent:
    """A checkpoint as a suite takes it, in the observation mode that it was trained in; errors as in `read`."""
    from recgym.agents.checkpoint import load, read
    from recgym.sb3 import RecVecEnv

    header, _ = read(path)
    if header["layout"] is None:
        raise ValueError(f"{path}: was trained on observations without named fields, which no suite has")
    layout = Layout.from_json(header["layout"])
    fields = [field.name for field in layout]

    def build(scenario: Any) -> Any:
        try:
            return load(path, env=RecVecEnv(scenario, 1), device=device)
        except ValueError:
            if layout.candidates != scenario.arms and fields == [field.name for field in scenario.layout]:
                raise ValueError(f"trained on {layout.candidates} candidates") from None
            raise

    about = {"path": path, **{key: header[key] for key in ("algo", "env", "num_timesteps", "versions")}}
    return rl2.Agent(build, "average" in fields, label.endswith(":argmax"), about)


def play_suite(policies: Mapping[str, str | None], *, trials: int, seed: int, device: str) -> dict[str, Any]:
    """Play the suite with a progress bar; returns the report."""
    agents = {label: suite_agent(label, path, device) for label, path in policies.items() if path is not None}
    baselines = [label for label, path in policies.items() if path is None]
    with tqdm(unit=" decisions", disable=not sys.stderr.isatty(), leave=False) as bar:

        def show(what: str, done: int, total: int) -> None:
            bar.total = total
            bar.set_description(what, refresh=False)
            bar.update(done - bar.n)

        report = rl2.play(agents, baselines, cells=rl2.RL2, trials=trials, seed=seed, on_step=show)
    if agents:
        from recgym.agents.archive import versions

        report["versions"] |= versions()
        report["device"] = device
    return report


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--env", metavar="ID", help=f"environment (default: {ENV})")
    parser.add_argument(
        "--param", type=parameter, action="append", default=[], metavar="NAME=VALUE", help="of the environment, as JSON"
    )
    parser.add_argument("--suite", choices=("rl2",), help="a published table instead of one environment")
    parser.add_argument("--policies", default="", help="comma-separated: baselines, label=PATH, label:argmax=PATH")
    parser.add_argument("--trials", type=int, default=4000, help="per policy (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="which held-out tasks (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="write curves of what is lost (png, pdf, svg)")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the suite's tables")
    parser.add_argument(
        "--shuffle",
        default="",
        metavar="FIELDS",
        help="play agents also with these from another trial: their worth",
    )
    parser.add_argument("--device", default="auto", help="of checkpoints: auto, cpu, cuda (default: %(default)s)")
    parser.add_argument("--list-policies", action="store_true", help="list the environment's baselines and stop")
    options = parser.parse_args(arguments)
    try:
        if options.suite and (options.env or options.param):
            raise ValueError(f"--suite {options.suite} has environments of its own: leave --env and --param out")
        if options.suite and options.figure:
            raise ValueError("--figure shows the regret in one environment: leave it out, or --suite")
        if options.markdown and not options.suite:
            raise ValueError("--markdown writes the tables of a suite: add --suite")
        env_id, parameters = options.env or ENV, dict(options.param)
        scenario = recgym.make_scenario(env_id, **parameters)
        if options.list_policies:
            for name, baseline in baselines_for(scenario).items():
                print(f"{name:24} {baseline.kind:12} {baseline.meaning}")
            return 0
        if options.seed < 0 or options.trials < 2:
            raise ValueError("--seed must be at least 0 and --trials at least 2")
        if options.suite and not options.policies:
            policies: dict[str, Any] = {}  # its own baselines
        else:
            policies = dict(parse_policies(options.policies))
        if options.shuffle and (options.suite or not any(policies.values())):
            raise ValueError("--shuffle is for agents in one environment: name a checkpoint in --policies")
        if options.figure and options.figure.suffix not in FIGURES:
            raise ValueError(f"--figure {options.figure}: the ending must be one of {', '.join(FIGURES)}")
        for path in filter(None, (options.json, options.figure, options.markdown)):
            check_writable(path)
        check_drawable(figure=options.figure is not None)
        device = choose_device(options.device) if any(policies.values()) else "cpu"
        if options.suite:
            report = play_suite(policies, trials=options.trials, seed=options.seed, device=device)
            if options.json:
                write_json(options.json, report)
            if options.markdown:
                write_atomically(options.markdown, rl2.markdown(report).encode())
            rl2.print_tables(report)
            return 0
        for label, path in policies.items():
            if path is not None:
                from recgym.agents.checkpoint import load
                from recgym.sb3 import RecVecEnv

                policies[label] = load(path, env=RecVecEnv(scenario, 1), device=device)
        fields = [name.strip() for name in options.shuffle.split(",") if name.strip()]
        if fields:
            for label in [label for label, policy in policies.items() if policy is not None]:
                name, argmax = label.removesuffix(":argmax"), ":argmax" if label.endswith(":argmax") else ""
                policies[f"{name}:shuffled{argmax}"] = Shuffled(policies[label], scenario.layout, fields)
        results, report = compare(env_id, parameters, policies, trials=options.trials, seed=options.seed)
        if options.json:
            write_json(options.json, report | ({"shuffled": fields} if fields else {}))
        if options.figure:
            agents = [name for name, path in policies.items() if path is not None]
            title = f"{env_id}, {options.trials:,} held-out trials"
            curves_figure(results, scenario, title=title, emphasise=agents).savefig(options.figure)
    except (ValueError, OSError, ImportError, MemoryError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
