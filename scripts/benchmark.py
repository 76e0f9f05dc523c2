"""Measure speed and memory: single environment, batches on NumPy and torch, the SB3 interface, the import, learners.

Every timing covers whole trials, resets included. Each figure is the median of several repeats, shown with the
smallest and the largest; other processes slow a machine down, so its load is reported beside them.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, TypeVar

import gymnasium
import torch
from evaluate import FIGURES, check_writable, write_json
from gymnasium.vector.utils import batch_space
from headroom import headrooms, percents_of_bound
from rich.console import Console
from rich.table import Table
from stable_baselines3.common.vec_env import DummyVecEnv

import recgym
from recgym.arrays import tree_items
from recgym.rng import make_rng
from recgym.sb3 import make_vec_env

EXAMPLES = """examples:
  python scripts/benchmark.py --json benchmark.json
  python scripts/benchmark.py --only single
  python scripts/benchmark.py --headroom
  python scripts/benchmark.py --only batch --device torch --threads 8
  python scripts/benchmark.py --learners --budget 900 --json learners.json --figure learners.png
  python scripts/benchmark.py --learners --only latency
  python scripts/benchmark.py --overfitting --timesteps 1000000 --figure overfitting.png
torch on the CPU runs in one thread unless told otherwise: where other processes use the same cores, several threads
wait for each other far longer than they compute (OMP_WAIT_POLICY=PASSIVE shortens that).
"""
ENV, PRICING = "RecBandit-v0", "DynamicPricing-v0"
SB3_ENVS, NUMPY_ROWS, TORCH_ROWS, GPU_ROWS, GPU_FEW_ROWS = 256, 4_096, 65_536, 1_048_576, 1_024
ACTION_SETS = 8  # batches of actions drawn beforehand, used in turn
LIBRARIES = ("gymnasium", "numpy", "array-api-compat", "torch", "stable-baselines3", "sb3-contrib")
BUDGET, QUICK_BUDGET = 600.0, 0.5  # seconds of training per learner
TIMESTEPS, QUICK_TIMESTEPS = 500_000, 320  # of each agent that may overfit
MEMORY_PROBE = """
import contextlib, sys
if sys.argv[1] != "cpu":
    import torch
import gymnasium, recgym

def megabytes(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(field)) * 1024 / 1e6

with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # forget the peak of the imports; where that is refused, the growth is an upper bound
before = megabytes("VmRSS")
env = gymnasium.make_vec(sys.argv[3], num_envs=int(sys.argv[2]), device=sys.argv[1])
actions = env.action_space.sample()
env.reset(seed=0)
for _ in range(env.scenario.horizon + 20):
    env.step(actions)
print(megabytes("VmHWM") - before)
"""
IMPORT_PROBE = """
import time
start = time.perf_counter()
import gymnasium
between = time.perf_counter()
import recgym
print(time.perf_counter() - start, between - start)
"""
Play = Callable[[], int]  # plays a trial in every row, waits for the device, returns the number of steps
Benchmarks = Mapping[str, tuple[str, Callable[[str, "Plan"], Iterator["Row"]]]]
Item = TypeVar("Item")


class Plan(NamedTuple):
    """How much is measured."""

    seconds: float  # a repeat lasts about this long, and at least one trial
    repeats: int
    shrink: int  # batches have this many times fewer rows
    gpu: str | None
    budget: float = BUDGET  # seconds of training until a learner has to reach a score


class Row(NamedTuple):
    """One line of the report; the figures are None where nothing could be measured."""

    name: str
    value: float | None  # median
    low: float | None
    high: float | None
    unit: str
    target: str
    met: bool | None
    note: str


def row(name: str, figures: Sequence[float], unit: str, note: str, *, least: float = 0.0, most: float = 0.0) -> Row:
    value = median(figures) if figures else None
    target = f">= {least:,.0f}" if least else f"< {most:.3g}" if most else ""
    met = None if value is None or not target else value >= least if least else value < most
    return Row(name, value, min(figures, default=None), max(figures, default=None), unit, target, met, note)


# --- timing ----------------------------------------------------------------------------------------------------------
def measure(plan: Plan, *plays: Play) -> list[tuple[float, ...]]:
    """Steps per second of each play, repeat by repeat; the plays take turns, so that a busy moment hits all."""

    def rate(play: Play, trials: int) -> float:
        start = time.perf_counter()
        steps = sum(play() for _ in range(trials))
        return steps / (time.perf_counter() - start)

    trials = []
    for play in plays:
        steps = play()  # warm-up
        trials.append(max(1, round(plan.seconds * rate(play, 1) / steps)))
    repeats = [[rate(play, n) for play, n in zip(plays, trials, strict=True)] for _ in range(plan.repeats)]
    return list(zip(*repeats, strict=True))


def draw_actions(space: Any, rows: int) -> list[Any]:
    """A few sets of random actions [rows] or [rows, k]."""
    batch = batch_space(space, rows)
    batch.seed(0)
    return [batch.sample() for _ in range(ACTION_SETS)]


def play_trial(step: Callable[[Any], Any], actions: Sequence[Any], horizon: int) -> int:
    """One trial in every row; returns the number of steps once the device has done them."""
    for i in range(horizon):
        step(actions[i % ACTION_SETS])
    if getattr(actions[0], "is_cuda", False):
        torch.cuda.synchronize(actions[0].device)
    return horizon * len(actions[0])


def batch_play(env_id: str, rows: int, device: str) -> tuple[Play, Any]:
    """The play of a native batch, and the batch."""
    env: Any = gymnasium.make_vec(env_id, num_envs=rows, device=device)
    env.reset(seed=0)
    rng = env.runner.rng
    actions = [rng.xp.asarray(action, device=rng.device) for action in draw_actions(env.single_action_space, rows)]
    return partial(play_trial, env.step, actions, env.scenario.horizon), env


def run_probe(code: str, *arguments: str) -> list[float]:
    """The numbers that `code` prints in a fresh process."""
    paths = [str(Path(recgym.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    if done.returncode:
        raise ChildProcessError(f"a process of the benchmark failed: {done.stderr.strip()[-500:]}")
    return [float(number) for number in done.stdout.split()]


# --- what is measured ------------------------------------------------------------------------------------------------
def single_env(name: str, plan: Plan, *, env_id: str, least: float) -> Iterator[Row]:
    env = gymnasium.make(env_id)
    env.reset(seed=0)
    env.action_space.seed(0)
    horizon = recgym.make_scenario(env_id).horizon
    drawn = draw_actions(env.action_space, horizon)[0]

    def play(sampled: bool) -> int:
        env.reset()
        for step in range(horizon):
            env.step(env.action_space.sample() if sampled else drawn[step])
        return horizon

    sampled, beforehand = measure(plan, partial(play, True), partial(play, False))
    yield row(name, sampled, "steps/s", "gymnasium.make, env.action_space.sample() at each step", least=least)
    yield row(f"{name}, without sampling", beforehand, "steps/s", "actions drawn beforehand")


def batch(name: str, plan: Plan, *, env_id: str, rows: int, device: str, least: float = 0.0) -> Iterator[Row]:
    rows //= plan.shrink
    (rates,) = measure(plan, batch_play(env_id, rows, device)[0])
    threads = f", {torch.get_num_threads()} thread(s)" if device == "torch" else ""
    yield row(name, rates, "steps/s", f"{rows:,} rows, actions drawn beforehand{threads}", least=least)


def gpu_batch(name: str, plan: Plan) -> Iterator[Row]:
    """Throughput, and what limits it: the host that launches kernels, or the device that runs them."""
    if plan.gpu is None:
        yield row(name, [], "steps/s", "no GPU here")
        return
    rows = GPU_ROWS // plan.shrink
    play, env = batch_play(ENV, rows, plan.gpu)
    few, many = measure(plan, batch_play(ENV, GPU_FEW_ROWS, plan.gpu)[0], play)
    few_times, times = [1e6 * GPU_FEW_ROWS / rate for rate in few], [1e6 * rows / rate for rate in many]
    yield row(name, many, "steps/s", f"{rows:,} rows, actions drawn beforehand, one synchronisation per trial")
    yield row(f"{name}: step of {GPU_FEW_ROWS:,} rows", few_times, "µs", "mostly the host, which launches kernels")
    share = f"{median(few_times) / median(times):.0%} of it spent at {GPU_FEW_ROWS:,} rows already"
    yield row(f"{name}: step of {rows:,} rows", times, "µs", share)
    kernels, busy = kernel_profile(play, env.scenario.horizon)
    yield row(f"{name}: kernels per step", [kernels] if kernels else [], "", "restarts included")
    share = f"{busy / median(times):.0%} of the step"
    yield row(f"{name}: kernel time per step", [busy] if kernels else [], "µs", share)
    moved = step_bytes(env)
    note = f"{moved / rows:,.0f} bytes per row and step if every array moved once; in fact more move"
    yield row(f"{name}: useful memory traffic", [moved / t / 1e3 for t in times], "GB/s", note)


def kernel_profile(play: Play, steps: int) -> tuple[float, float]:
    """Kernels and copies per step, and the microseconds per step during which the device runs them."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        play()
    events = [event for event in profiler.events() or () if event.device_type.name == "CUDA"]
    return len(events) / steps, sum(event.time_range.elapsed_us() for event in events) / steps


def step_bytes(env: Any) -> int:
    """Bytes that a step reads and writes at least: the state, what is new in the state after, what it returns."""
    before = {leaf.data_ptr(): leaf.nbytes for _, leaf in tree_items(env.runner.state)}
    result = env.runner.step(env.runner.scenario.informed_action(env.runner.state))
    leaves = [leaf for _, leaf in tree_items(env.runner.state)] + [result.observation, *result.info.values()]
    after = {leaf.data_ptr(): leaf.nbytes for leaf in leaves}
    return sum(before.values()) + sum(size for place, size in after.items() if place not in before)


def sb3_envs(name: str, plan: Plan) -> Iterator[Row]:
    n_envs = SB3_ENVS // plan.shrink
    ours, theirs = make_vec_env(ENV, n_envs, seed=0), DummyVecEnv([partial(gymnasium.make, ENV)] * n_envs)
    actions = draw_actions(ours.action_space, n_envs)
    ours.reset()
    theirs.reset()
    fast, slow = measure(plan, *(partial(play_trial, e.step, actions, ours.scenario.horizon) for e in (ours, theirs)))
    yield row("SB3 RecVecEnv", fast, "steps/s", f"{n_envs} environments, actions drawn beforehand")
    yield row("SB3 DummyVecEnv", slow, "steps/s", f"{n_envs} gymnasium.make environments, without Monitor")
    yield row(name, [a / b for a, b in zip(fast, slow, strict=True)], "times", "the two in turn, repeat by repeat")


def memory(name: str, plan: Plan, *, device: str) -> Iterator[Row]:
    rows, growth = TORCH_ROWS // plan.shrink, []
    if Path("/proc/self/status").exists():
        growth = [run_probe(MEMORY_PROBE, device, str(rows), ENV)[0] for _ in range(plan.repeats)]
    note = f"{rows:,} rows, from after the imports to the peak of 120 steps" if growth else "needs Linux's /proc"
    yield row(name, growth, "MB", note, most=300)


def import_time(name: str, plan: Plan) -> Iterator[Row]:
    run_probe(IMPORT_PROBE)  # brings the files into memory
    total, library = zip(*(run_probe(IMPORT_PROBE) for _ in range(plan.repeats)), strict=True)
    note = f"fresh process, after the interpreter's start; of it gymnasium {median(library):.2f} s"
    yield row(name, total, "s", note, most=0.5)


def benchmarks() -> Benchmarks:
    """Name to device and function: what --only and --device choose from."""
    on_numpy = partial(batch, rows=NUMPY_ROWS, device="cpu")
    on_torch = partial(batch, device="torch")
    least = {ENV: 5e6, PRICING: 1e6}  # steps per second of a batch
    return {
        f"{ENV} single env": ("cpu", partial(single_env, env_id=ENV, least=12_000)),
        f"{PRICING} single env": ("cpu", partial(single_env, env_id=PRICING, least=4_000)),
        **{
            f"{i} batch, NumPy": ("cpu", partial(on_numpy, env_id=i, least=least.get(i, 0.0))) for i in recgym.SCENARIOS
        },
        f"{ENV} batch, torch CPU": ("torch", partial(on_torch, rows=TORCH_ROWS, env_id=ENV, least=5e6)),
        f"{PRICING} batch, torch CPU": ("torch", partial(on_torch, rows=NUMPY_ROWS, env_id=PRICING)),
        f"{ENV} batch, torch GPU": ("cuda", gpu_batch),
        "SB3 RecVecEnv / DummyVecEnv": ("cpu", sb3_envs),
        "memory growth, NumPy": ("cpu", partial(memory, device="cpu")),
        "memory growth, torch CPU": ("torch", partial(memory, device="torch")),
        "import recgym": ("cpu", import_time),
    }


# --- the report ------------------------------------------------------------------------------------------------------
def run(known: Benchmarks, names: Sequence[str], plan: Plan, *, judged: bool) -> Iterator[Row]:
    """Measure, and say on stderr what is being measured and what came out."""
    for number, name in enumerate(names, 1):
        print(f"[{number}/{len(names)}] {name} ...", file=sys.stderr, flush=True)
        for line in known[name][1](name, plan):
            print(f"    {line.name}: {shown(line.value)} {line.unit}", file=sys.stderr, flush=True)
            yield line if judged else line._replace(met=None)


def gather(items: Iterable[Item]) -> tuple[list[Item], int]:
    """What comes until the end, an error or Ctrl-C, and the exit status."""
    found: list[Item] = []
    try:
        for item in items:
            found.append(item)
    except KeyboardInterrupt:
        print("\nstopped; what was measured so far:", file=sys.stderr)
        return found, 130
    except Exception as error:
        print(f"\nerror: {error}; what was measured so far:", file=sys.stderr)
        return found, 2
    return found, 0


def shown(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def print_rows(rows: Sequence[Row], caption: str) -> None:
    table = Table(title="recgym: median (smallest to largest) of the repeats", caption=caption)
    for heading in ("measured", "median", "range", "unit", "target", "met", "how"):
        table.add_column(heading, justify="right" if heading in ("median", "range", "target") else "left")
    for line in rows:
        span = f"{shown(line.low)} to {shown(line.high)}" if line.low != line.high else ""
        met = {True: "yes", False: "no", None: ""}[line.met]
        table.add_row(line.name, shown(line.value), span, line.unit, line.target, met, line.note)
    Console(width=None if sys.stdout.isatty() else 180).print(table)


def choose(known: Benchmarks, only: str, device: str) -> list[str]:
    """Names of what is asked for; ValueError where that is nothing, or there is no such device."""
    if device:
        make_rng(device)  # refuses what is not here
    fitting = [name for name, (kind, _) in known.items() if device.split(":")[0] in ("", kind)]
    chosen = [name for name in fitting if only.lower() in name.lower()]
    if not chosen:
        raise ValueError(f"nothing is called {only!r}; there are: {'; '.join(fitting)}")
    return chosen


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small batches, few repeats: does everything still run?")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report")
    parser.add_argument("--only", default="", metavar="NAME", help="what has NAME in its name")
    parser.add_argument("--device", default="", metavar="D", help="only what runs on cpu (NumPy), torch, cuda, cuda:N")
    parser.add_argument("--threads", type=int, default=1, help="of torch on the CPU (default: %(default)s)")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--headroom", action="store_true", help="check instead what the environments leave to learn")
    instead.add_argument("--learners", action="store_true", help="measure instead MetaPPO beside RecurrentPPO and PPO")
    instead.add_argument("--overfitting", action="store_true", help="train instead on fixed numbers of tasks")
    budget = f"of training per learner (default: {BUDGET:.0f})"
    parser.add_argument("--budget", type=float, metavar="SECONDS", help=f"with --learners: {budget}")
    timesteps = f"of each training (default: {TIMESTEPS:,})"
    parser.add_argument("--timesteps", type=int, metavar="N", help=f"with --overfitting: {timesteps}")
    parser.add_argument(
        "--figure", type=Path, metavar="FILE", help="with these two: draw scores over time or tasks (png, pdf, svg)"
    )
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
    if options.figure and options.figure.suffix not in FIGURES:
        raise ValueError(f"--figure {options.figure}: the ending must be one of {', '.join(FIGURES)}")
    if (options.overfitting or options.headroom) and (options.only or options.device):
        raise ValueError("--only and --device choose what is timed: leave them out, or --overfitting and --headroom")
    for path in filter(None, (options.json, options.figure)):
        check_writable(path)


def measured(options: argparse.Namespace) -> int:
    """Measure what is asked for, print it, write it; returns the exit status."""
    curves: dict[str, Any] = {}
    known = benchmarks()
    if options.learners or options.overfitting:
        import learners  # here: they take the report's parts from this module
        import overfitting

        known = learners.benchmarks(curves)
        if options.figure:
            learners.new_figure()  # refused now, where it cannot be drawn, rather than after the work
    names = choose(known, options.only, options.device)
    gpu = "cuda" if torch.cuda.is_available() else None
    gpu = options.device if options.device.startswith("cuda") else gpu
    budget = options.budget or (QUICK_BUDGET if options.quick else BUDGET)
    plan = Plan(0.02, 2, 16, gpu, budget) if options.quick else Plan(0.6, 5, 1, gpu, budget)
    versions = {"recgym": recgym.__version__, **{name: version(name) for name in LIBRARIES}}
    load = os.getloadavg if hasattr(os, "getloadavg") else lambda: (0.0, 0.0, 0.0)  # Windows has none
    start = load()
    if options.overfitting:
        timesteps = options.timesteps or (QUICK_TIMESTEPS if options.quick else TIMESTEPS)
        found, status = gather(overfitting.train_on_fixed_tasks(timesteps=timesteps, quick=options.quick))
        results: dict[str, Any] = {"overfitting": [line.to_json() for line in found]}
    else:
        rows, status = gather(run(known, names, plan, judged=not options.quick))
        results = {"rows": [line._asdict() for line in rows], **({"time to a score": curves} if curves else {})}
    report = {
        "quick": options.quick,
        "complete": status == 0,
        "versions": versions,
        "platform": f"{platform.platform()}, Python {platform.python_version()}",
        "gpu": torch.cuda.get_device_name(gpu) if gpu else None,
        "cores": (cores := len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "torch_threads": options.threads,
        "load_average": {"start": start, "end": (end := load())},
        **results,
    }
    caption = f"{cores} cores, load average {start[0]:.1f} at the start and {end[0]:.1f} at the end"
    caption += "; a quick run of small batches, not judged" if options.quick else ""
    if options.overfitting:
        overfitting.print_overfitting(found, caption)
    else:
        print_rows(rows, caption)
    if options.json:
        write_json(options.json, report)
    if options.figure:
        figure = overfitting.overfitting_figure(found) if options.overfitting else learners.time_figure(curves)
        figure.savefig(options.figure)
    return status


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    try:
        check(options)
        torch.set_num_threads(options.threads)
        if options.headroom:
            trials = 200 if options.quick else 4000
            found = {"headroom": headrooms(trials), "percent of bound": percents_of_bound(trials)}
            if options.json:
                write_json(options.json, found)
            return 0
        return measured(options)
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
