"""Measure speed and memory of environments: single ones, batches on NumPy and torch, SB3's interface, the import."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import gymnasium
import torch
from gymnasium.vector.utils import batch_space
from stable_baselines3.common.vec_env import DummyVecEnv

import recgym
from recgym.arrays import tree_items
from recgym.benchmarks.timing import BANDIT, Benchmark, Measurement, Play, Workload, measure, run_probe
from recgym.sb3 import make_vec_env

__all__ = ["environment_benchmarks"]

PRICING = "DynamicPricing-v0"
SLATE, ONE_ITEM = "RecSlate-v0", "RecBanditContextual-v0"  # pages of items with features, and one such item
PLACEMENT, BIDDING = "AdPlacement-v0", "AdBidding-v0"
SB3_ENVS = 256
NUMPY_ROWS = 4_096
TORCH_ROWS = 65_536
GPU_ROWS = 1_048_576
GPU_FEW_ROWS = 1_024
ACTION_SETS = 8  # batches of actions drawn beforehand, used in turn
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


def draw_actions(space: Any, rows: int) -> list[Any]:
    """Draw a few sets of random actions [rows] or [rows, k]."""
    batch = batch_space(space, rows)
    batch.seed(0)
    return [batch.sample() for _ in range(ACTION_SETS)]


def play_trial(step: Callable[[Any], Any], actions: Sequence[Any], horizon: int) -> int:
    """Play one trial in every row; returns the number of steps once the device has done them."""
    for i in range(horizon):
        step(actions[i % ACTION_SETS])
    if getattr(actions[0], "is_cuda", False):
        torch.cuda.synchronize(actions[0].device)
    return horizon * len(actions[0])


def batch_play(env_id: str, rows: int, device: str) -> tuple[Play, Any]:
    """Give the play of a native batch, and the batch."""
    env: Any = gymnasium.make_vec(env_id, num_envs=rows, device=device)
    env.reset(seed=0)
    rng = env.runner.rng
    actions = [rng.xp.asarray(action, device=rng.device) for action in draw_actions(env.single_action_space, rows)]
    return partial(play_trial, env.step, actions, env.scenario.horizon), env


# --- what is measured ------------------------------------------------------------------------------------------------
def single_speed(name: str, workload: Workload, *, env_id: str, least: float) -> Iterator[Measurement]:
    """Measure a single environment, with and without drawing actions."""
    env = gymnasium.make(env_id)
    env.reset(seed=0)
    env.action_space.seed(0)
    horizon = recgym.make_scenario(env_id).horizon
    actions = draw_actions(env.action_space, horizon)[0]

    def play(sampling: bool) -> int:
        env.reset()
        for step in range(horizon):
            env.step(env.action_space.sample() if sampling else actions[step])
        return horizon

    rates, rates_beforehand = measure(workload, partial(play, True), partial(play, False))
    note = "gymnasium.make, env.action_space.sample() at each step"
    yield Measurement.of(name, rates, "steps/s", note, least=least)
    yield Measurement.of(f"{name}, without sampling", rates_beforehand, "steps/s", "actions drawn beforehand")


def batch_speed(
    name: str, workload: Workload, *, env_id: str, rows: int, device: str, least: float = 0.0
) -> Iterator[Measurement]:
    """Measure a batch."""
    rows //= workload.shrink
    (rates,) = measure(workload, batch_play(env_id, rows, device)[0])
    threads = f", {torch.get_num_threads()} thread(s)" if device == "torch" else ""
    yield Measurement.of(name, rates, "steps/s", f"{rows:,} rows, actions drawn beforehand{threads}", least=least)


def gpu_speed(name: str, workload: Workload) -> Iterator[Measurement]:
    """Measure throughput, and what limits it: the host that launches kernels, or the device that runs them."""
    if workload.gpu is None:
        yield Measurement.of(name, [], "steps/s", "no GPU here")
        return
    rows = GPU_ROWS // workload.shrink
    play, env = batch_play(BANDIT, rows, workload.gpu)
    few, many = measure(workload, batch_play(BANDIT, GPU_FEW_ROWS, workload.gpu)[0], play)
    few_times = [1e6 * GPU_FEW_ROWS / rate for rate in few]
    times = [1e6 * rows / rate for rate in many]
    note = f"{rows:,} rows, actions drawn beforehand, one synchronisation per trial"
    yield Measurement.of(name, many, "steps/s", note)
    note = "mostly the host, which launches kernels"
    yield Measurement.of(f"{name}: step of {GPU_FEW_ROWS:,} rows", few_times, "µs", note)
    share = f"{median(few_times) / median(times):.0%} of it spent at {GPU_FEW_ROWS:,} rows already"
    yield Measurement.of(f"{name}: step of {rows:,} rows", times, "µs", share)
    kernels, busy = kernel_profile(play, env.scenario.horizon)
    yield Measurement.of(f"{name}: kernels per step", [kernels] if kernels else [], "", "restarts included")
    share = f"{busy / median(times):.0%} of the step"
    yield Measurement.of(f"{name}: kernel time per step", [busy] if kernels else [], "µs", share)
    traffic = step_bytes(env)
    note = f"{traffic / rows:,.0f} bytes per row and step if every array moved once; in fact more move"
    yield Measurement.of(f"{name}: useful memory traffic", [traffic / t / 1e3 for t in times], "GB/s", note)


def kernel_profile(play: Play, steps: int) -> tuple[float, float]:
    """Count kernels and copies per step, and the microseconds per step during which the device runs them."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        play()
    events = [event for event in profiler.events() or () if event.device_type.name == "CUDA"]
    return len(events) / steps, sum(event.time_range.elapsed_us() for event in events) / steps


def step_bytes(env: Any) -> int:
    """Count the bytes that a step reads and writes at least: state, what is new in the state after, what it returns."""
    before = {leaf.data_ptr(): leaf.nbytes for _, leaf in tree_items(env.runner.state)}
    result = env.runner.step(env.runner.scenario.informed_action(env.runner.state))
    leaves = [leaf for _, leaf in tree_items(env.runner.state)] + [result.observation, *result.info.values()]
    after = {leaf.data_ptr(): leaf.nbytes for leaf in leaves}
    return sum(before.values()) + sum(size for place, size in after.items() if place not in before)


def sb3_speed(name: str, workload: Workload) -> Iterator[Measurement]:
    """Measure SB3's two interfaces to as many environments."""
    n_envs = SB3_ENVS // workload.shrink
    ours = make_vec_env(BANDIT, n_envs, seed=0)
    theirs = DummyVecEnv([partial(gymnasium.make, BANDIT)] * n_envs)
    actions = draw_actions(ours.action_space, n_envs)
    ours.reset()
    theirs.reset()
    plays = [partial(play_trial, env.step, actions, ours.scenario.horizon) for env in (ours, theirs)]
    fast, slow = measure(workload, *plays)
    yield Measurement.of("SB3 RecVecEnv", fast, "steps/s", f"{n_envs} environments, actions drawn beforehand")
    yield Measurement.of("SB3 DummyVecEnv", slow, "steps/s", f"{n_envs} gymnasium.make environments, without Monitor")
    ratios = [a / b for a, b in zip(fast, slow, strict=True)]
    yield Measurement.of(name, ratios, "times", "the two in turn, repeat by repeat")


def batch_ratio(name: str, workload: Workload, *, env_id: str, least: float) -> Iterator[Measurement]:
    """Measure a batch beside a batch of single items with features."""
    rows = NUMPY_ROWS // workload.shrink
    own, items = measure(workload, *(batch_play(each, rows, "cpu")[0] for each in (env_id, ONE_ITEM)))
    ratios = [a / b for a, b in zip(own, items, strict=True)]
    note = f"{rows:,} rows on NumPy, the two in turn, repeat by repeat"
    yield Measurement.of(name, ratios, "times", note, least=least)


def memory_growth(name: str, workload: Workload, *, device: str) -> Iterator[Measurement]:
    """Measure by how much a process grows that plays a large batch."""
    rows = TORCH_ROWS // workload.shrink
    growth = []
    if Path("/proc/self/status").exists():
        growth = [run_probe(MEMORY_PROBE, device, str(rows), BANDIT)[0] for _ in range(workload.processes)]
    note = f"{rows:,} rows, from after the imports to the peak of 120 steps" if growth else "needs Linux's /proc"
    yield Measurement.of(name, growth, "MB", note, most=300)


def import_time(name: str, workload: Workload) -> Iterator[Measurement]:
    """Measure the import of the package in a fresh process."""
    times = [run_probe(IMPORT_PROBE) for _ in range(1 + workload.processes)]
    total, library = zip(*times[1:], strict=True)  # the first brings the files into memory
    note = f"fresh process, after the interpreter's start; of it gymnasium {median(library):.2f} s"
    yield Measurement.of(name, total, "s", note, most=0.5)


def environment_benchmarks() -> dict[str, Benchmark]:
    """List what can be measured, by name."""
    on_numpy = partial(batch_speed, rows=NUMPY_ROWS, device="cpu")
    on_torch = partial(batch_speed, device="torch")
    least = {BANDIT: 5e6, PRICING: 1e6}  # steps per second of a batch
    batches = {i: partial(on_numpy, env_id=i, least=least.get(i, 0.0)) for i in recgym.SCENARIOS}
    return {
        f"{BANDIT} single env": Benchmark("cpu", partial(single_speed, env_id=BANDIT, least=12_000)),
        f"{PRICING} single env": Benchmark("cpu", partial(single_speed, env_id=PRICING, least=4_000)),
        f"{SLATE} single env": Benchmark("cpu", partial(single_speed, env_id=SLATE, least=5_000)),
        f"{PLACEMENT} single env": Benchmark("cpu", partial(single_speed, env_id=PLACEMENT, least=3_000)),
        f"{BIDDING} single env": Benchmark("cpu", partial(single_speed, env_id=BIDDING, least=3_000)),
        **{f"{env_id} batch, NumPy": Benchmark("cpu", play) for env_id, play in batches.items()},
        f"{BANDIT} batch, torch CPU": Benchmark("torch", partial(on_torch, rows=TORCH_ROWS, env_id=BANDIT, least=5e6)),
        f"{PRICING} batch, torch CPU": Benchmark("torch", partial(on_torch, rows=NUMPY_ROWS, env_id=PRICING)),
        f"{SLATE} batch, torch CPU": Benchmark("torch", partial(on_torch, rows=NUMPY_ROWS, env_id=SLATE)),
        f"{PLACEMENT} batch, torch CPU": Benchmark("torch", partial(on_torch, rows=NUMPY_ROWS, env_id=PLACEMENT)),
        **{
            f"{env_id} / {ONE_ITEM} batch": Benchmark("cpu", partial(batch_ratio, env_id=env_id, least=share))
            for env_id, share in ((SLATE, 0.4), (PLACEMENT, 0.2), (BIDDING, 0.2))
        },
        f"{BANDIT} batch, torch GPU": Benchmark("cuda", gpu_speed),
        "SB3 RecVecEnv / DummyVecEnv": Benchmark("cpu", sb3_speed),
        "memory growth, NumPy": Benchmark("cpu", partial(memory_growth, device="cpu")),
        "memory growth, torch CPU": Benchmark("torch", partial(memory_growth, device="torch")),
        "import recgym": Benchmark("cpu", import_time),
    }
