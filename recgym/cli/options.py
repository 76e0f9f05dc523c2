"""What the commands share: how they are called, their options, and how they end."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import recgym
from recgym.terminal import say

__all__ = [
    "COMMANDS",
    "Command",
    "add_parameters",
    "call_of",
    "called_as",
    "choose_device",
    "guarded",
    "make_parser",
    "named_value",
    "python_to_paste",
    "to_paste",
]


class Command(NamedTuple):
    """A command of `recgym`."""

    module: str  # of recgym.cli, that has its main
    meaning: str
    script: str = ""  # of a checkout that does the same


COMMANDS = {
    "train": Command("train", "train an agent, then evaluate it on held-out trials", "train.py"),
    "evaluate": Command("evaluate", "compare policies on held-out trials", "evaluate.py"),
    "benchmark": Command("benchmark", "measure speed, headroom, learners, overfitting", "benchmark.py"),
    "results": Command("results", "make or check the published results"),
    "list": Command("list_", "list environments, or the baselines and parameters of one"),
}


# --- how a command is called -----------------------------------------------------------------------------------------
def call_of(command: str = "") -> list[str]:
    """Give the words that call a command the way this process was called: `recgym`, `python -m recgym` or a script."""
    called = Path(sys.argv[0])
    scripts = {each.script for each in COMMANDS.values() if each.script}
    script = COMMANDS[command].script if command else ""
    if called.name in scripts and script:
        return [sys.executable, str(called.with_name(script))]
    if called.name in scripts or called.name == "__main__.py":
        start = [sys.executable, "-m", "recgym"]
    else:
        start = [str(called) if called.stem == "recgym" else "recgym"]
    return [*start, command] if command else start


def called_as(command: str = "") -> str:
    """Write `call_of` as people say it."""
    first, *rest = call_of(command)
    plain = "python" if first == sys.executable else Path(first).stem
    return shlex.join([plain, *rest])


def to_paste(command: str, *arguments: str) -> str:
    """Write a call of a command as short as it can be pasted into the shell that this process was called from."""
    return shlex.join([*(_shorter(word) for word in call_of(command)), *arguments])


def python_to_paste(*arguments: str) -> str:
    """Write a call of this Python so."""
    return shlex.join([_shorter(sys.executable), *arguments])


def _shorter(word: str) -> str:
    """A program by its name where the shell finds this very one, a path below the current folder from there on."""
    path = Path(word)
    if not path.is_absolute():
        return word
    found = shutil.which(path.name)
    if found is not None and Path(found).absolute() == path:
        return path.name
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else word


def make_parser(command: str, description: str, examples: str) -> argparse.ArgumentParser:
    """Make the parser of a command; the examples say `recgym COMMAND` and show it as it was called."""
    for name in COMMANDS:
        examples = examples.replace(f"recgym {name} ", f"{called_as(name)} ")
    return argparse.ArgumentParser(
        prog=called_as(command),
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


# --- options ---------------------------------------------------------------------------------------------------------
def named_value(text: str) -> tuple[str, Any]:
    """Read name=value, the value as JSON where it is JSON, else as text; None, True and False are Python's."""
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


def problem(text: str) -> str:
    """Read an environment: an id, which Gymnasium's module prefix changes nothing about, or what else there is."""
    name = text.removeprefix("recgym:")
    return name if name in recgym.SCENARIOS else text


def add_parameters(parser: argparse.ArgumentParser, *, default: str) -> None:
    """Add --env and --param; `default` is shown."""
    parser.add_argument(
        "--env",
        type=problem,
        metavar="ID",
        help=f"environment: an id, or MODULE:CLASS of a scenario (default: {default})",
    )
    parser.add_argument(
        "--param",
        type=named_value,
        action="append",
        metavar="NAME=VALUE",
        help=f"of the environment, as JSON; {called_as('list')} ID lists them",
    )


def choose_device(wanted: str) -> str:
    """Choose the device of an agent; "auto" is a GPU where torch finds one.

    Raises:
        ValueError: there is no such device here.
    """
    import torch

    gpu = torch.cuda.is_available()
    if wanted not in ("auto", "cpu", "cuda") and not re.fullmatch(r"cuda:\d+", wanted):
        raise ValueError(f"--device {wanted}: use auto, cpu, cuda or cuda:N")
    if wanted.startswith("cuda") and not gpu:
        raise ValueError(
            f"--device {wanted}: torch {torch.__version__} finds no GPU here; use --device cpu, or install a CUDA "
            "build (make train DEVICE=cuda TORCH_INDEX=<index of CUDA builds>)"
        )
    return ("cuda" if gpu else "cpu") if wanted == "auto" else wanted


# --- how a command ends ----------------------------------------------------------------------------------------------
def guarded(work: Callable[[], int], *, stopped: str = "stopped") -> int:
    """Do the work of a command; what goes wrong becomes one line on the error stream and an exit status.

    Modules in the current folder are found too, so that `--env my_module:Class` works, but after all that is
    installed: a file there takes the place of no library.

    Args:
        work: returns the exit status.
        stopped: what an interrupt says.
    """
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())
    shown = warnings.showwarning
    warnings.showwarning = lambda message, *_, **__: say(f"warning: {message}", error=True)
    try:
        return work()
    except (ValueError, OSError, ImportError, MemoryError) as error:
        say(f"error: {error}", error=True)
        return 2
    except KeyboardInterrupt:
        say(f"\n{stopped}", error=True)
        return 130
    finally:
        warnings.showwarning = shown
