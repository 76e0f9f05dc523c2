"""The command `recgym`: train, evaluate, benchmark and list, the same code as the scripts of a checkout."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

import recgym
from recgym.cli.options import COMMANDS, called_as

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status.

    Args:
        arguments: the command and its own; None takes those of the process.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and words[0] in COMMANDS:
        status: int = import_module(f"recgym.cli.{COMMANDS[words[0]].module}").main(words[1:])
        return status
    lines = [f"  {name:10} {command.meaning}" for name, command in COMMANDS.items()]
    name = called_as()
    parser = argparse.ArgumentParser(
        prog=name,
        description=recgym.__doc__,
        epilog="\n".join(["commands:", *lines, "", f"{name} COMMAND --help says more of each."]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"recgym {recgym.__version__}")
    parser.add_argument("command", metavar="COMMAND", choices=list(COMMANDS), help=", ".join(COMMANDS))
    parser.parse_args(words)  # helps, or says what is wrong, and exits
    return 2
