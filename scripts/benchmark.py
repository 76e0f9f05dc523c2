"""Measure speed and memory: single environment, batches on NumPy and torch, the SB3 interface, the import.

Resets are included everywhere: every timing covers whole trials. Each figure is the median of several repeats, shown
with the smallest and the largest. Other processes slow the machine down, so its load is reported beside the figures.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
from evaluate import write_json
from gymnasium.vector.utils import batch_space
from rich.console import Console
from rich.table import Table

import recgym
from recgym.core import make_rng, tree_items

EXAMPLES = """examples:
  python scripts/benchmark.py --json benchmark.json
  python scripts/benchmark.py --only single
  python scripts/benchmark.py --only batch --device cuda:0
  python scripts/benchmark.py --quick
"""
ENV = "RecBandit-v0"
SB3_ENVS, NUMPY_ROWS, TORCH_ROWS, GPU_ROWS, GPU_FEW_ROWS = 256, 4_096, 65_536, 1_048_576, 1_024
ACTION_SETS = 8  # batches of actions drawn beforehand, used in turn
LIBRARIES = ("recgym", "gymnasium", "numpy", "array-api-compat", "torch", "stable-baselines3")
MEMORY_PROBE = """
import sys
device, rows = sys.argv[1], int(sys.argv[2])
if device != "cpu":
    import torch
import gymnasium, recgym

def kilobytes(field):
    with open("/proc/self/status") as status:
        return int(next(line.split()[1] for line in status if line.startswith(field)))

space = gymnasium.spaces.MultiDiscrete([recgym.make_scenario(sys.argv[3]).action_space.n] * rows)
actions = space.sample()
try:
    with open("/proc/self/clear_refs", "w") as peak:
        peak.write("5")  # the peak of the imports is forgotten
except OSError:
    pass  # then the growth is an upper bound
before = kilobytes("VmRSS")
env = gymnasium.make_vec(sys.argv[3], num_envs=rows, device=device)
env.reset(seed=0)
for _ in range(env.scenario.horizon + 20):
    env.step(actions)
print((kilobytes("VmHWM") - before) * 1024 / 1e6)
"""
IMPORT_PROBE = """
import time
start = time.perf_counter()
import gymnasium
between = time.perf_counter()
import recgym
print(time.perf_counter() - start, between - start)
"""
Play = Callable[[], int]  # plays one trial in every row, waits for the device, returns the number of steps


class Plan(NamedTuple):
    """How much is measured."""

    seconds: float  # a repeat lasts about this long, and one trial at least
    repeats: int
    processes: int  # repeats of what needs a process of its own
    shrink: int  # batches have this many times fewer rows
    gpu: str | None


class Row(NamedTuple):
    """One line of the report."""

    name: str
    value: float | None  # median of `repeats`; None where nothing could be measured
    unit: str
    repeats: list[float]
    target: str
    met: bool | None
    note: str


class Benchmark(NamedTuple):
    """What --only and --device choose from."""

    name: str
    device: str
    run: Callable[[str, Plan], Iterator[Row]]


def row(name: str, repeats: list[float], unit: str, *, least: float = 0.0, most: float = 0.0, note: str = "") -> Row:
    value = statistics.median(repeats) if repeats else None
    target = f">= {least:,.0f}" if least else f"< {most:g}" if most else ""
    met = None if value is None or not target else value >= least if least else value < most
    return Row(name, value, unit, repeats, target, met, note)


# --- timing ----------------------------------------------------------------------------------------------------------
def measure(plan: Plan, *plays: Play) -> list[list[float]]:
    """Steps per second of each play, repeat by repeat; several plays take turns, so that a busy moment hits all."""

    def rate(play: Play, trials: int) -> float:
        start = time.perf_counter()
        steps = sum(play() for _ in range(trials))
        return steps / (time.perf_counter() - start)

    trials = []
    for play in plays:
        steps = play()  # warm-up
        trials.append(max(1, round(plan.seconds * rate(play, 1) / steps)))
    repeats = [[rate(play, n) for play, n in zip(plays, trials, strict=True)] for _ in range(plan.repeats)]
    return [list(rates) for rates in zip(*repeats, strict=True)]


def draw_actions(space: Any, rows: int) -> list[Any]:
    """Random actions [rows] or [rows, k], a few sets of them."""
    batch = batch_space(space, rows)
    batch.seed(0)
    return [batch.sample() for _ in range(ACTION_SETS)]


def batch_play(env_id: str, rows: int, device: str) -> tuple[Play, Any, list[Any]]:
    """The play of a native batch, the batch and its actions."""
    env: Any = gymnasium.make_vec(env_id, num_envs=rows, device=device)
    env.reset(seed=0)
    rng = env.runner.rng
    actions = [rng.xp.asarray(action, device=rng.device) for action in draw_actions(env.single_action_space, rows)]

    def play() -> int:
        for step in range(env.scenario.horizon):
            env.step(actions[step % ACTION_SETS])
        if device.startswith("cuda"):
            import torch

            torch.cuda.synchronize(device)
        return rows * env.scenario.horizon

    return play, env, actions


def run_probe(code: str, *arguments: str) -> list[float]:
    """The numbers that `code` prints in a fresh interpreter."""
    root = str(Path(recgym.__file__).parents[1])
    paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths})
    if done.returncode:
        raise ChildProcessError(f"a process of the benchmark failed: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
    return [float(number) for number in done.stdout.split()]


# --- what is measured ------------------------------------------------------------------------------------------------
def single_env(name: str, plan: Plan) -> Iterator[Row]:
    env = gymnasium.make(ENV)
    env.reset(seed=0)
    env.action_space.seed(0)
    drawn = draw_actions(env.action_space, recgym.make_scenario(ENV).horizon)[0]

    def play_drawn() -> int:
        env.reset()
        for action in drawn:
            env.step(action)
        return len(drawn)

    def play_sampled() -> int:
        env.reset()
        steps, ended = 0, False
        while not ended:
            _, _, ended, _, _ = env.step(env.action_space.sample())
            steps += 1
        return steps

    sampled, beforehand = measure(plan, play_sampled, play_drawn)
    yield row(name, sampled, "steps/s", least=12_000, note="with env.action_space.sample() at each step")
    yield row(f"{name}, without sampling", beforehand, "steps/s", note="actions drawn beforehand")


def batch(name: str, plan: Plan, *, env_id: str, rows: int, device: str, least: float = 0.0) -> Iterator[Row]:
    rows //= plan.shrink
    (rates,) = measure(plan, batch_play(env_id, rows, device)[0])
    yield row(name, rates, "steps/s", least=least, note=f"{rows:,} rows, actions drawn beforehand")


def gpu_batch(name: str, plan: Plan) -> Iterator[Row]:
    """Throughput, and what limits it: the host that launches kernels, or the device that runs them."""
    if plan.gpu is None:
        yield row(name, [], "steps/s", note="no GPU here")
        return
    rows = GPU_ROWS // plan.shrink
    play, env, actions = batch_play(ENV, rows, plan.gpu)
    few, many = measure(plan, batch_play(ENV, GPU_FEW_ROWS, plan.gpu)[0], play)
    yield row(name, many, "steps/s", note=f"{rows:,} rows on {plan.gpu}, synchronised at the end of each trial")
    few_time, time_ = ([1e6 * n / rate for rate in rates] for n, rates in ((GPU_FEW_ROWS, few), (rows, many)))
    share = statistics.median(few_time) / statistics.median(time_)
    yield row(f"{name}: time per step, {GPU_FEW_ROWS:,} rows", few_time, "µs", note="mostly launching kernels (host)")
    yield row(f"{name}: time per step, {rows:,} rows", time_, "µs", note=f"launching alone is about {share:.0%} of it")
    kernels, busy = kernel_profile(play, env.scenario.horizon)
    if kernels:
        note = f"device busy for {busy / statistics.median(time_):.0%} of the time per step"
        yield row(f"{name}: device time per step", [busy], "µs", note=note)
        yield row(f"{name}: kernels per step", [kernels], "", note="restarts included")
    moved = step_bytes(env, actions[0])
    note = f"{moved / rows:,.0f} bytes per row and step if each array moved once; kernels move more"
    yield row(f"{name}: useful memory traffic", [moved / t / 1e3 for t in time_], "GB/s", note=note)


def kernel_profile(play: Play, steps: int) -> tuple[float, float]:
    """Kernels (and copies) per step, and the microseconds per step in which the device runs them."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        play()
    events = [event for event in profiler.events() or () if event.device_type.name == "CUDA"]
    return len(events) / steps, sum(event.time_range.elapsed_us() for event in events) / steps


def step_bytes(env: Any, action: Any) -> int:
    """Bytes of the arrays that one step reads and writes: the state before, what is new of it after, the results."""
    before = {leaf.data_ptr(): leaf.nbytes for _, leaf in tree_items(env.runner.state)}
    observation, reward, _, _, info = env.step(action)
    results = [observation, reward, info["regret"], info["expected_reward"]]
    after = {leaf.data_ptr(): leaf.nbytes for leaf in [leaf for _, leaf in tree_items(env.runner.state)] + results}
    return sum(before.values()) + sum(size for place, size in after.items() if place not in before)


def sb3_envs(name: str, plan: Plan) -> Iterator[Row]:
    from stable_baselines3.common.vec_env import DummyVecEnv

    from recgym.sb3 import make_vec_env

    n_envs = SB3_ENVS // plan.shrink
    ours, theirs = make_vec_env(ENV, n_envs, seed=0), DummyVecEnv([partial(gymnasium.make, ENV)] * n_envs)
    actions = draw_actions(ours.action_space, n_envs)

    def play(env: Any) -> int:
        for step in range(ours.scenario.horizon):
            env.step(actions[step % ACTION_SETS])
        return n_envs * ours.scenario.horizon

    ours.reset()
    theirs.reset()
    fast, slow = measure(plan, partial(play, ours), partial(play, theirs))
    yield row("SB3 RecVecEnv", fast, "steps/s", note=f"{n_envs} environments, actions drawn beforehand")
    yield row("SB3 DummyVecEnv", slow, "steps/s", note=f"{n_envs} gymnasium.make environments, without Monitor")
    ratios = [a / b for a, b in zip(fast, slow, strict=True)]
    yield row(name, ratios, "times", note="both in turn within one run")


def memory(name: str, plan: Plan, *, device: str) -> Iterator[Row]:
    if not Path("/proc/self/status").exists():
        yield row(name, [], "MB", note="needs /proc, which Linux has")
        return
    if device != "cpu":
        import torch  # noqa: F401  (where it is missing, say so here)
    rows = TORCH_ROWS // plan.shrink
    growth = [run_probe(MEMORY_PROBE, device, str(rows), ENV)[0] for _ in range(plan.processes)]
    note = f"{rows:,} rows, growth from after the imports to the peak of one trial and 20 steps of the next"
    yield row(name, growth, "MB", most=300, note=note)


def import_time(name: str, plan: Plan) -> Iterator[Row]:
    run_probe(IMPORT_PROBE)  # reads the files into memory
    total, library = zip(*(run_probe(IMPORT_PROBE) for _ in range(max(plan.processes, 5))), strict=True)
    note = f"of which gymnasium {statistics.median(library):.2f} s; fresh process, without the interpreter's start"
    yield row(name, list(total), "s", most=0.5, note=note)


def benchmarks() -> list[Benchmark]:
    numpy_batch = partial(batch, rows=NUMPY_ROWS, device="cpu")
    torch_batch = partial(batch, rows=TORCH_ROWS, device="torch", env_id=ENV, least=5e6)
    return [
        Benchmark(f"{ENV} single env", "cpu", single_env),
        Benchmark(f"{ENV} batch, NumPy", "cpu", partial(numpy_batch, env_id=ENV, least=5e6)),
        Benchmark(f"{ENV} batch, torch CPU", "torch", torch_batch),
        Benchmark(f"{ENV} batch, torch GPU", "cuda", gpu_batch),
        *(Benchmark(f"{i} batch, NumPy", "cpu", partial(numpy_batch, env_id=i)) for i in recgym.SCENARIOS if i != ENV),
        Benchmark("SB3 RecVecEnv / DummyVecEnv", "cpu", sb3_envs),
        Benchmark("memory growth, NumPy", "cpu", partial(memory, device="cpu")),
        Benchmark("memory growth, torch CPU", "torch", partial(memory, device="torch")),
        Benchmark("import recgym", "cpu", import_time),
    ]


# --- the report ------------------------------------------------------------------------------------------------------
def load_average() -> list[float] | None:
    return list(os.getloadavg()) if hasattr(os, "getloadavg") else None


def surroundings() -> dict[str, Any]:
    """What the figures depend on."""

    def installed(name: str) -> str | None:
        try:
            return version(name)
        except PackageNotFoundError:
            return recgym.__version__ if name == "recgym" else None

    torch = sys.modules.get("torch")
    return {
        "versions": {"python": platform.python_version(), **{name: installed(name) for name in LIBRARIES}},
        "platform": platform.platform(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "torch_threads": torch.get_num_threads() if torch else None,
        "gpu": torch.cuda.get_device_name() if torch and torch.cuda.is_available() else None,
    }


def shown(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def print_rows(report: dict[str, Any]) -> None:
    """The report as a table on the terminal."""
    load = [("?" if load is None else f"{load[0]:.1f}") for load in report["load_average"].values()]
    caption = f"{report['cores']} cores, load average {load[0]} at the start and {load[1]} at the end"
    if report["quick"]:
        caption += "; a quick run with small batches, whose figures are not judged"
    table = Table(title="recgym benchmark: median (smallest to largest) of the repeats", caption=caption)
    for heading in ("measured", "median", "range", "unit", "target", "met", "how"):
        table.add_column(heading, justify="right" if heading in ("median", "range", "target") else "left")
    for line in report["rows"]:
        span = f"{shown(line['low'])} to {shown(line['high'])}" if len(line["repeats"]) > 1 else ""
        met = {True: "yes", False: "no", None: ""}[line["met"]]
        cells = (line["name"], shown(line["value"]), span, line["unit"], line["target"], met, line["note"])
        table.add_row(*cells)
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def run(chosen: Sequence[Benchmark], plan: Plan, *, judged: bool) -> list[dict[str, Any]]:
    """The rows as JSON can carry them; says on stderr what is being measured and what came out."""
    lines = []
    for number, benchmark in enumerate(chosen, 1):
        print(f"[{number}/{len(chosen)}] {benchmark.name} ...", file=sys.stderr, flush=True)
        try:
            rows = list(benchmark.run(benchmark.name, plan))
        except ImportError as error:
            rows = [row(benchmark.name, [], "", note=str(error))]
        for line in rows:
            print(f"    {line.name}: {shown(line.value)} {line.unit}", file=sys.stderr, flush=True)
            span = {"low": min(line.repeats, default=None), "high": max(line.repeats, default=None)}
            lines.append({**line._asdict(), **span, "met": line.met if judged else None})
    return lines


def check_writable(path: Path) -> None:
    """Fail before the work rather than after it."""
    try:
        if path.is_dir():
            raise IsADirectoryError("it is a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise OSError(f"cannot write {path}: {error}") from None


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small batches, few repeats: does everything still run?")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report")
    parser.add_argument("--only", default="", metavar="NAME", help="what has NAME in its name")
    parser.add_argument("--device", metavar="D", help="only what runs on cpu (NumPy), torch, cuda or cuda:N")
    options = parser.parse_args(arguments)
    try:
        if options.device:
            make_rng(options.device)  # refuses a device that is not here
        kind = (options.device or "").split(":")[0]
        known = [benchmark for benchmark in benchmarks() if kind in ("", benchmark.device)]
        chosen = [benchmark for benchmark in known if options.only.lower() in benchmark.name.lower()]
        if not chosen:
            raise ValueError(f"nothing is called {options.only!r}; there are: {'; '.join(b.name for b in known)}")
        if options.json:
            check_writable(options.json)
        gpu = options.device if kind == "cuda" else find_gpu() if any(b.device == "cuda" for b in chosen) else None
        plan = Plan(0.02, 2, 1, 16, gpu) if options.quick else Plan(0.6, 5, 3, 1, gpu)
        load = {"start": load_average()}
        rows = run(chosen, plan, judged=not options.quick)
        load["end"] = load_average()
        report = {"quick": options.quick, **surroundings(), "load_average": load, "rows": rows}
        if options.json:
            write_json(options.json, report)
        print_rows(report)
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def find_gpu() -> str | None:
    try:
        import torch
    except ImportError:
        return None
    return "cuda" if torch.cuda.is_available() else None


if __name__ == "__main__":
    sys.exit(main())
