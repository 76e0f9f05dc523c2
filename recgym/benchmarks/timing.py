"""Time things fairly: whole trials, in turns, several repeats; and the table of what came out.

Every timing covers whole trials, resets included. Each figure is the median of several repeats, with the smallest and
the largest.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple, TypeVar

import torch

import recgym
from recgym.rng import make_rng
from recgym.terminal import Table, say

__all__ = [
    "BANDIT",
    "Benchmark",
    "Measurement",
    "Play",
    "Workload",
    "choose_names",
    "gather",
    "measure",
    "print_measurements",
    "run_benchmarks",
    "run_probe",
]

BANDIT = "RecBandit-v0"
Play = Callable[[], int]  # plays a trial in every row, waits for the device, returns the number of steps
Item = TypeVar("Item")


class Workload(NamedTuple):
    """How much is measured."""

    seconds: float  # a repeat lasts about this long, and at least one trial
    repeats: int
    shrink: int  # batches have this many times fewer rows
    processes: int  # fresh ones for each figure that needs them
    gpu: str | None
    budget: float  # seconds of training until a learner has to reach a score


class Measurement(NamedTuple):
    """One line of the report; the figures are None where nothing could be measured."""

    name: str
    value: float | None  # median
    low: float | None
    high: float | None
    unit: str
    target: str
    met: bool | None
    note: str

    @classmethod
    def of(
        cls, name: str, figures: Sequence[float], unit: str, note: str, *, least: float = 0.0, most: float = 0.0
    ) -> Measurement:
        """Sum up the figures of the repeats, and judge them by the least or the most that they should be."""
        value = median(figures) if figures else None
        target = f">= {least:,.0f}" if least else f"< {most:.3g}" if most else ""
        met = None if value is None or not target else value >= least if least else value < most
        return cls(name, value, min(figures, default=None), max(figures, default=None), unit, target, met, note)


class Benchmark(NamedTuple):
    """Something that can be measured."""

    device: str  # "cpu" (NumPy), "torch" (on the CPU) or "cuda"
    run: Callable[[str, Workload], Iterator[Measurement]]  # (name, how much) -> lines of the report


# --- timing ----------------------------------------------------------------------------------------------------------
def measure(workload: Workload, *plays: Play) -> list[tuple[float, ...]]:
    """Time the steps per second of each play, repeat by repeat; they take turns, so that a busy moment hits all."""

    def rate(play: Play, trials: int) -> float:
        start = time.perf_counter()
        steps = sum(play() for _ in range(trials))
        return steps / (time.perf_counter() - start)

    trials = []
    for play in plays:
        steps = play()  # warm-up
        trials.append(max(1, round(workload.seconds * rate(play, 1) / steps)))
    repeats = [[rate(play, n) for play, n in zip(plays, trials, strict=True)] for _ in range(workload.repeats)]
    return list(zip(*repeats, strict=True))


def run_probe(code: str, *arguments: str) -> list[float]:
    """Run code in a fresh process and read the numbers that it prints."""
    paths = [str(Path(recgym.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, "-c", code, *arguments]
    process = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    if process.returncode:
        raise ChildProcessError(f"a process of the benchmark failed: {process.stderr.strip()[-500:]}")
    return [float(number) for number in process.stdout.split()]


# --- running and reporting -------------------------------------------------------------------------------------------
def choose_names(known: Mapping[str, Benchmark], only: str, device: str) -> list[str]:
    """Choose what has `only` in its name and runs on a device.

    Raises:
        ValueError: that is nothing, or there is no such device.
    """
    if device:
        make_rng(device)  # refuses what is not here
    candidates = [name for name, each in known.items() if device.split(":")[0] in ("", each.device)]
    names = [name for name in candidates if only.lower() in name.lower()]
    if not names:
        raise ValueError(f"nothing is called {only!r}; there are: {'; '.join(candidates)}")
    return names


def run_benchmarks(
    known: Mapping[str, Benchmark], names: Sequence[str], workload: Workload, *, judged: bool
) -> Iterator[Measurement]:
    """Measure, and say on stderr what is being measured and what came out."""
    for number, name in enumerate(names, 1):
        say(f"[{number}/{len(names)}] {name} ...", error=True)
        for line in known[name].run(name, workload):
            say(f"    {line.name}: {figure_text(line.value)} {line.unit}", error=True)
            yield line if judged else line._replace(met=None)


def gather(items: Iterable[Item]) -> tuple[list[Item], int]:
    """Collect what comes until the end, an error or Ctrl-C; returns it and the exit status."""
    collection: list[Item] = []
    try:
        for item in items:
            collection.append(item)
    except KeyboardInterrupt:
        say("\nstopped; what was measured so far:", error=True)
        return collection, 130
    except Exception as error:
        say(f"\nerror: {error}; what was measured so far:", error=True)
        return collection, 2
    return collection, 0


def figure_text(value: float | None) -> str:
    """Write a figure in about three digits."""
    return "-" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def print_measurements(lines: Sequence[Measurement], caption: str) -> None:
    """Print the report as a table."""
    headings = ("measured", "median", "range", "unit", "target", "met", "how")
    title, left = "recgym: median (smallest to largest) of the repeats", ("unit", "met", "how")
    table = Table(title, headings, left=left, spare=("how", "target", "met"))
    table.caption = caption
    for line in lines:
        span = f"{figure_text(line.low)} to {figure_text(line.high)}" if line.low != line.high else ""
        met = {True: "yes", False: "no", None: ""}[line.met]
        table.add(line.name, figure_text(line.value), span, line.unit, line.target, met, line.note)
    table.show()
