"""Measure speed and memory: single environment, batches on NumPy and torch, the SB3 interface, the import, learners.

Every timing covers whole trials, resets included. Each figure is the median of several repeats, shown with the
smallest and the largest; other processes slow a machine down, so its load is reported beside them.
"""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import recgym
from recgym.cli.options import guarded, make_parser
from recgym.evaluation.drawing import new_figure
from recgym.evaluation.headroom import bound_shares, headrooms, print_bound_shares, print_headrooms
from recgym.evaluation.report import FIGURE_ENDINGS
from recgym.files import check_writable, write_json

__all__ = ["main"]

EXAMPLES = """examples:
  recgym benchmark --json benchmark.json
  recgym benchmark --only single
  recgym benchmark --headroom
  recgym benchmark --only batch --device torch --threads 8
  recgym benchmark --learners --budget 900 --json learners.json --figure learners.png
  recgym benchmark --learners --only latency
  recgym benchmark --overfitting --timesteps 1000000 --figure overfitting.png
torch on the CPU runs in one thread unless told otherwise: where other processes use the same cores, several threads
wait for each other far longer than they compute (OMP_WAIT_POLICY=PASSIVE shortens that).
"""
PACKAGES = ("gymnasium", "numpy", "array-api-compat", "torch", "stable-baselines3", "sb3-contrib")
BUDGET = 600.0  # seconds of training per learner
QUICK_BUDGET = 0.5
TIMESTEPS = 500_000  # of each agent that may overfit
QUICK_TIMESTEPS = 320
TRIALS = 4000  # per policy of the headroom check
QUICK_TRIALS = 200


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    options = benchmark_options(arguments)
    return guarded(lambda: run_benchmark(options))


def benchmark_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the options; exits where one is none."""
    parser = make_parser("benchmark", __doc__ or "", EXAMPLES)
    add = parser.add_argument
    add("--quick", action="store_true", help="small batches, few repeats: does everything still run?")
    add("--json", type=Path, metavar="FILE", help="write the report")
    add("--only", default="", metavar="NAME", help="what has NAME in its name")
    add("--device", default="", metavar="D", help="only what runs on cpu (NumPy), torch, cuda, cuda:N")
    add("--threads", type=int, default=1, help="of torch on the CPU (default: %(default)s)")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--headroom", action="store_true", help="check instead what the environments leave to learn")
    instead.add_argument("--learners", action="store_true", help="measure instead MetaPPO beside RecurrentPPO and PPO")
    instead.add_argument("--overfitting", action="store_true", help="train instead on fixed numbers of tasks")
    budget = f"of training per learner (default: {BUDGET:.0f})"
    add("--budget", type=float, metavar="SECONDS", help=f"with --learners: {budget}")
    timesteps = f"of each training (default: {TIMESTEPS:,})"
    add("--timesteps", type=int, metavar="N", help=f"with --overfitting: {timesteps}")
    add("--figure", type=Path, metavar="FILE", help="with these two: draw scores over time or tasks (png, pdf, svg)")
    return parser.parse_args(arguments)


def check(options: argparse.Namespace) -> None:
    """Refuse what does not go together, and places that cannot be written to, before the work rather than after it."""
    if options.threads < 1:
        raise ValueError("--threads must be at least 1")
    if options.budget is not None and not (options.learners and 0 < options.budget < float("inf")):
        raise ValueError("--budget is the time of --learners, above 0 seconds")
    if options.timesteps is not None and not (options.overfitting and options.timesteps >= 1):
        raise ValueError("--timesteps is the length of each training of --overfitting, at least 1")
    if options.figure and not (options.learners or options.overfitting):
        raise ValueError("--figure shows what --learners or --overfitting find")
    if options.figure and options.figure.suffix not in FIGURE_ENDINGS:
        raise ValueError(f"--figure {options.figure}: the ending must be one of {', '.join(FIGURE_ENDINGS)}")
    if (options.overfitting or options.headroom) and (options.only or options.device):
        raise ValueError("--only and --device choose what is timed: leave them out, or --overfitting and --headroom")
    for path in filter(None, (options.json, options.figure)):
        check_writable(path)
    if options.figure:
        new_figure()  # refused now, where it cannot be drawn, rather than after the work


def run_benchmark(options: argparse.Namespace) -> int:
    """Measure what is asked for, print it, write it; returns the exit status."""
    check(options)
    if options.headroom:
        trials = QUICK_TRIALS if options.quick else TRIALS
        report = {"headroom": headrooms(trials), "percent of bound": bound_shares(trials)}
        if options.json:
            write_json(options.json, report)
        print_headrooms(report["headroom"], trials)
        print_bound_shares(report["percent of bound"], trials)
        return 0
    try:
        import torch
    except ImportError as error:
        raise ImportError("measuring needs torch: pip install 'recgym[agents]'") from error
    torch.set_num_threads(options.threads)
    return measure_overfitting(options) if options.overfitting else measure_speed(options)


def measure_speed(options: argparse.Namespace) -> int:
    """Time environments or learners; returns the exit status."""
    from recgym.benchmarks.environments import environment_benchmarks
    from recgym.benchmarks.learners import learner_benchmarks
    from recgym.benchmarks.race import time_figure
    from recgym.benchmarks.timing import Workload, choose_names, gather, print_measurements, run_benchmarks

    curves: dict[str, Any] = {}
    known = learner_benchmarks(curves) if options.learners else environment_benchmarks()
    names = choose_names(known, options.only, options.device)
    gpu = gpu_for(options.device)
    budget = options.budget or (QUICK_BUDGET if options.quick else BUDGET)
    workload = Workload(0.02, 2, 16, 1, gpu, budget) if options.quick else Workload(0.6, 5, 1, 5, gpu, budget)
    start = load_average()
    lines, status = gather(run_benchmarks(known, names, workload, judged=not options.quick))
    results = {"rows": [line._asdict() for line in lines], **({"time to a score": curves} if curves else {})}
    report, caption = report_of(options, results, gpu=gpu, start=start, complete=status == 0)
    if options.json:
        write_json(options.json, report)
    if options.figure:
        time_figure(curves).savefig(options.figure)
    print_measurements(lines, caption)
    return status


def measure_overfitting(options: argparse.Namespace) -> int:
    """Train on fixed numbers of tasks; returns the exit status."""
    from recgym.benchmarks.overfitting import overfitting_figure, print_overfitting, train_on_fixed_tasks
    from recgym.benchmarks.timing import gather

    timesteps = options.timesteps or (QUICK_TIMESTEPS if options.quick else TIMESTEPS)
    gpu = gpu_for(options.device)
    start = load_average()
    agents, status = gather(train_on_fixed_tasks(timesteps=timesteps, quick=options.quick))
    results = {"overfitting": [agent.to_json() for agent in agents]}
    report, caption = report_of(options, results, gpu=gpu, start=start, complete=status == 0)
    if options.json:
        write_json(options.json, report)
    if options.figure:
        overfitting_figure(agents).savefig(options.figure)
    print_overfitting(agents, caption)
    return status


def gpu_for(device: str) -> str | None:
    """Name the GPU that is measured, where there is one."""
    import torch

    if device.startswith("cuda"):
        return device
    return "cuda" if torch.cuda.is_available() else None


def load_average() -> tuple[float, float, float]:
    """Ask how busy the machine is; zeros where the system does not say."""
    return os.getloadavg() if hasattr(os, "getloadavg") else (0.0, 0.0, 0.0)  # Windows does not


def report_of(
    options: argparse.Namespace, results: dict[str, Any], *, gpu: str | None, start: tuple[float, ...], complete: bool
) -> tuple[dict[str, Any], str]:
    """Put results beside where they were measured; returns the report, and the caption of its table.

    Args:
        options: of the command.
        results: what was measured.
        gpu: that was measured.
        start: load average at the start.
        complete: whether everything was measured.
    """
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    end = load_average()
    report = {
        "quick": options.quick,
        "complete": complete,
        "versions": {"recgym": recgym.__version__, **{name: version(name) for name in PACKAGES}},
        "platform": f"{platform.platform()}, Python {platform.python_version()}",
        "gpu": torch.cuda.get_device_name(gpu) if gpu else None,
        "cores": cores,
        "torch_threads": options.threads,
        "load_average": {"start": start, "end": end},
        **results,
    }
    caption = f"{cores} cores, load average {start[0]:.1f} at the start and {end[0]:.1f} at the end"
    return report, caption + ("; a quick run of small batches, not judged" if options.quick else "")
