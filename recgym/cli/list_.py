"""List the environments, or what there is to know of one: its baselines and its parameters."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

import recgym
from recgym.baselines import baselines_for, left_out
from recgym.cli.options import guarded, make_parser, named_value, problem
from recgym.parameters import parameter_lines

__all__ = ["environments_markdown", "main", "print_baselines", "print_environments"]

EXAMPLES = """examples:
  recgym list
  recgym list DynamicPricing-v0
  recgym list RecBandit-v0 --param horizon=4000    # which baselines cannot play that, and why
  recgym list --markdown    # as the README shows them
"""
FILE_WIDTH = 120  # of what is no terminal


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = make_parser("list", __doc__ or "", EXAMPLES)
    parser.add_argument("env", nargs="?", type=problem, metavar="ID", help="an id, or MODULE:CLASS of a scenario")
    parser.add_argument(
        "--param", type=named_value, action="append", default=[], metavar="NAME=VALUE", help="of the environment"
    )
    parser.add_argument("--markdown", action="store_true", help="all environments and their observations, as Markdown")
    options = parser.parse_args(arguments)

    def work() -> int:
        if options.markdown and options.env:
            raise ValueError("--markdown writes all environments: leave the id out")
        if options.param and not options.env:
            raise ValueError("--param is of one environment: name it")
        if options.markdown:
            print(environments_markdown())
        elif options.env:
            print_environment(options.env, dict(options.param))
        else:
            print_environments()
        return 0

    return guarded(work)


def meaning_of(env: str, scenario: Any) -> str:
    """Say what an environment is, in a sentence."""
    preset = recgym.SCENARIOS.get(env)
    if preset is not None and preset.about:
        return preset.about
    lines = (type(scenario).__doc__ or "").strip().splitlines()
    return lines[0] if lines else type(scenario).__name__


def print_environments() -> None:
    """Print the registered environments, a line each."""
    for env_id in recgym.SCENARIOS:
        print(f"{env_id:26} {meaning_of(env_id, recgym.make_scenario(env_id))}")


def print_baselines(scenario: Any) -> None:
    """Print the baselines of a scenario, a line each, and why others of its kind do not fit it."""
    for name, baseline in baselines_for(scenario).items():
        print(f"{name:24} {baseline.kind:12} {baseline.meaning}")
    for name, reason in left_out(scenario).items():
        print(f"without {name}: {reason}")


def print_environment(env: str, parameters: dict[str, Any]) -> None:
    """Print what an environment is, its baselines, and its parameters with default, unit, range and effect."""
    scenario = recgym.make_scenario(env, **parameters)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else FILE_WIDTH
    print(textwrap.fill(f"{env}: {meaning_of(env, scenario)}", width))
    print("\nbaselines (--policies NAME,NAME)")
    print_baselines(scenario)
    print("\nparameters (--param NAME=VALUE)")
    for line in parameter_lines(type(scenario)):
        print(textwrap.fill(line, width, subsequent_indent="    "))
    preset = recgym.SCENARIOS.get(env)
    if preset is not None and preset.parameters:
        print(f"\nof which {env} sets")
        for name, value in preset.parameters.items():
            print(f"{name}={value!r}")


def environments_markdown() -> str:
    """Write the registered environments and the fields of their observations, as the README shows them."""
    lines = ["| id | what it is | candidates | decisions |", "|---|---|---|---|"]
    built = {env_id: recgym.make_scenario(env_id) for env_id in recgym.SCENARIOS}
    for env_id, scenario in built.items():
        what = meaning_of(env_id, scenario)
        lines.append(f"| `{env_id}` | {what} | {scenario.layout.candidates} | {scenario.horizon} |")
    for env_id, scenario in built.items():
        layout, (start, step, total) = scenario.layout, scenario.layout.sizes
        lines += ["", f"`{env_id}` observes {total} numbers; i counts candidates from 0.", ""]
        lines += ["| index | name | range | meaning |", "|---|---|---|---|"]
        column = 0
        for field in layout.context:
            index = str(column) if field.width == 1 else f"{column} to {column + field.width - 1}"
            lines.append(f"| {index} | `{field.name}` | {field.low:.3g} to {field.high:.3g} | {field.meaning} |")
            column += field.width
        for field in layout.candidate:
            index = f"{start} + {step} i" if field.width == 1 else f"{start} to {start + field.width - 1}, + {step} i"
            lines.append(f"| {index} | `{field.name}` | {field.low:.3g} to {field.high:.3g} | {field.meaning} |")
            start += field.width
    return "\n".join(lines)
