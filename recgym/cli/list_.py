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
from recgym.cli.pages import environment_page, environments_table, meaning_of
from recgym.parameters import parameter_lines
from recgym.terminal import say

__all__ = ["main", "print_baselines", "print_environments"]

EXAMPLES = """examples:
  recgym list
  recgym list DynamicPricing-v0
  recgym list RecBandit-v0 --param horizon=4000    # which baselines cannot play that, and why
  recgym list --markdown    # the table of the README
  recgym list RecBandit-v0 --markdown    # the environment's page in the documentation
"""
FILE_WIDTH = 120  # of what is no terminal


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = make_parser("list", __doc__ or "", EXAMPLES)
    parser.add_argument("env", nargs="?", type=problem, metavar="ID", help="an id, or MODULE:CLASS of a scenario")
    parser.add_argument(
        "--param", type=named_value, action="append", default=[], metavar="NAME=VALUE", help="of the environment"
    )
    parser.add_argument("--markdown", action="store_true", help="as Markdown: the table of all, or the page of one")
    options = parser.parse_args(arguments)

    def work() -> int:
        if options.markdown and options.param:
            raise ValueError("--markdown writes an environment as it is registered: leave --param out")
        if options.param and not options.env:
            raise ValueError("--param is of one environment: name it")
        if options.markdown:
            say(environment_page(options.env) if options.env else environments_table())
        elif options.env:
            print_environment(options.env, dict(options.param))
        else:
            print_environments()
        return 0

    return guarded(work)


def print_environments() -> None:
    """Print the registered environments, a line each."""
    for env_id in recgym.SCENARIOS:
        say(f"{env_id:26} {meaning_of(env_id, recgym.make_scenario(env_id))}")


def print_baselines(scenario: Any) -> None:
    """Print the baselines of a scenario, a line each, and why others of its kind do not fit it."""
    for name, baseline in baselines_for(scenario).items():
        say(f"{name:24} {baseline.kind:12} {baseline.meaning}")
    for name, reason in left_out(scenario).items():
        say(f"without {name}: {reason}")


def print_environment(env: str, parameters: dict[str, Any]) -> None:
    """Print what an environment is, its baselines, and its parameters with default, unit, range and effect."""
    scenario = recgym.make_scenario(env, **parameters)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else FILE_WIDTH
    say(textwrap.fill(f"{env}: {meaning_of(env, scenario)}", width))
    say("\nbaselines (--policies NAME,NAME)")
    print_baselines(scenario)
    say("\nparameters (--param NAME=VALUE)")
    for line in parameter_lines(type(scenario)):
        say(textwrap.fill(line, width, subsequent_indent="    "))
    preset = recgym.SCENARIOS.get(env)
    if preset is not None and preset.parameters:
        say(f"\nof which {env} sets")
        for name, value in preset.parameters.items():
            say(f"{name}={value!r}")
