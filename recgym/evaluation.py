"""How good is a policy? The same tasks and luck for everybody, regrets, normalised scores, intervals, pictures."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import numpy as np

from recgym.core import Array, Runner, make_rng, to_numpy

__all__ = [
    "CHUNK",
    "TEST_SEED",
    "VALIDATION_SEED",
    "Interval",
    "Policy",
    "Summary",
    "Trials",
    "action_figure",
    "interval",
    "print_table",
    "regret_figure",
    "report_json",
    "rollout",
    "summarise",
]

CHUNK = 4096  # trials played at once: a part of the random key, so it must not depend on the machine
VALIDATION_SEED = 1_000_000  # task seeds: training below, validation from here, test from TEST_SEED
TEST_SEED = 2_000_000
RESAMPLES = 1000  # of the bootstrap
BOOTSTRAP_SEED = 20_240_131
Z95 = 1.959963984540054


class Policy(Protocol):
    """Whatever has SB3's `predict`: a baseline, an SB3 algorithm, your own object.

    A policy with an attribute `sees_state = True` is handed the scenario's state in place of the observation; one with
    a method `reseed(seed)` is told the chunk's seed before it acts.
    """

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, Any]: ...


class Trials(NamedTuple):
    """Result of N trials of one policy."""

    returns: np.ndarray  # [N] float64 sum of rewards
    expected: np.ndarray  # [N] float64 sum of the expected rewards of what was chosen
    regret: np.ndarray  # [N, T] float32 per decision
    objectives: np.ndarray  # [N, M] sums
    costs: np.ndarray  # [N, C] sums
    actions: np.ndarray  # [T, A] share of the trials that chose action (or slate position's item) a at each decision


class Interval(NamedTuple):
    """A mean with its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


class Summary(NamedTuple):
    """A policy's figures per trial."""

    returns: Interval
    regret: Interval
    normalised: Interval  # (R - R_random) / (R_informed - R_random)
    difference: Interval  # paired difference of the return to that of the best baseline
    objectives: dict[str, Interval]
    costs: dict[str, Interval]


@contextmanager
def _own_torch_luck(seed: Sequence[int]) -> Iterator[None]:
    """Agents draw from torch's global generator: give them a stream of their own, and the caller's back afterwards."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    with torch.random.fork_rng():
        torch.manual_seed(int(np.random.SeedSequence(list(seed)).generate_state(1, np.uint64)[0] >> 1))
        yield


def rollout(
    policy: Any,
    scenario: Any,
    *,
    trials: int,
    seed: int,
    deterministic: bool = False,
    task: Any = None,
    on_step: Callable[[int], None] | None = None,
) -> Trials:
    """Play `trials` trials, one per row, without restarts; the seed alone decides tasks and luck.

    Args:
        policy: see `Policy`.
        scenario: what is played.
        trials: number of trials N; they run in chunks of `CHUNK`.
        seed: of the tasks and the luck; chunk i uses the key [seed, i].
        deterministic: passed to `predict`.
        task: play this task in every trial instead of drawn ones.
        on_step: called with the number of decisions made so far, summed over chunks.
    """
    if trials < 1:
        raise ValueError(f"trials must be at least 1, got {trials}")
    sizes = [min(CHUNK, trials - start) for start in range(0, trials, CHUNK)]
    parts: list[tuple[np.ndarray, ...]] = []
    actions = np.zeros((scenario.horizon, int(np.max(_action_limits(scenario)))))
    for chunk, size in enumerate(sizes):
        key = [seed, chunk]
        runner = Runner(scenario, size, make_rng("cpu", key))
        if hasattr(policy, "reseed"):
            policy.reseed(key)
        with _own_torch_luck(key):
            parts.append(_play(policy, runner, actions, deterministic, task, on_step, chunk))
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return Trials(*columns, actions / trials)


def _action_limits(scenario: Any) -> np.ndarray:
    space = scenario.action_space
    return np.asarray([space.n] if hasattr(space, "n") else space.nvec)


def _play(
    policy: Any,
    runner: Runner,
    actions: np.ndarray,
    deterministic: bool,
    task: Any,
    on_step: Callable[[int], None] | None,
    chunk: int,
) -> tuple[np.ndarray, ...]:
    """One chunk; adds to `actions` [T, A] and returns the columns of its `Trials`."""
    horizon, size = runner.scenario.horizon, runner.rows
    names = (*runner.scenario.objectives, *runner.scenario.costs)
    sums = {name: np.zeros(size) for name in ("reward", "expected_reward", *names)}
    regret = np.zeros((size, horizon), dtype=np.float32)
    sees_state = getattr(policy, "sees_state", False)
    runner.restart(task=task)
    observation = runner.observation()
    memory, start = None, np.ones(size, dtype=bool)
    for t in range(horizon):
        seen: Array = runner.state if sees_state else observation
        action, memory = policy.predict(seen, state=memory, episode_start=start, deterministic=deterministic)
        start = np.zeros(size, dtype=bool)
        step = runner.advance(action)
        observation = step.observation
        regret[:, t] = to_numpy(step.info["regret"])
        sums["reward"] += to_numpy(step.reward)
        for name in ("expected_reward", *names):
            sums[name] += to_numpy(step.info[name])
        shown = np.asarray(action).reshape(-1)
        actions[t] += np.bincount(shown, minlength=actions.shape[1])
        if on_step is not None:
            on_step(chunk * horizon + t + 1)
    objectives = [sums[name] for name in runner.scenario.objectives]
    costs = [sums[name] for name in runner.scenario.costs]
    stack = np.zeros((size, 0))
    return (
        sums["reward"],
        sums["expected_reward"],
        regret,
        np.stack(objectives, axis=1) if objectives else stack,
        np.stack(costs, axis=1) if costs else stack,
    )


# --- figures ---------------------------------------------------------------------------------------------------------
def _resampled_means(columns: np.ndarray) -> np.ndarray:
    """Means [RESAMPLES, P] of bootstrap resamples of the rows of `columns` [N, P]; a resample takes whole rows."""
    rng, trials = np.random.default_rng(BOOTSTRAP_SEED), len(columns)
    blocks = []
    for _ in range(0, RESAMPLES, 50):  # bounds memory: 50 x N counts at a time
        counts = rng.multinomial(trials, np.full(trials, 1.0 / trials), size=50)
        blocks.append(counts.astype(np.float64) @ columns / trials)
    return np.concatenate(blocks)


def _percentiles(mean: float, resampled: np.ndarray) -> Interval:
    low, high = np.percentile(resampled, (2.5, 97.5))
    return Interval(float(mean), float(low), float(high))


def interval(values: np.ndarray) -> Interval:
    """Mean of `values` [N] with its 95 % bootstrap interval (percentiles, fixed seed)."""
    return _percentiles(values.mean(), _resampled_means(values[:, None])[:, 0])


def summarise(results: Mapping[str, Trials], scenario: Any, *, reference: str) -> dict[str, Summary]:
    """Figures per policy, all from the same resamples of the common trials.

    Args:
        results: by name; "random" and "informed" must be among them.
        scenario: names objectives and costs.
        reference: the policy that `difference` compares with.
    """
    returns = np.stack([r.returns for r in results.values()], axis=1)
    names = list(results)
    means, resampled = returns.mean(axis=0), _resampled_means(returns)
    random, informed, base = (names.index(name) for name in ("random", "informed", reference))

    def normalise(rows: np.ndarray, i: int) -> np.ndarray:
        span = rows[..., informed] - rows[..., random]
        return (rows[..., i] - rows[..., random]) / np.where(np.abs(span) > 1e-12, span, np.nan)

    summaries = {}
    for i, (name, trials) in enumerate(results.items()):
        summaries[name] = Summary(
            returns=_percentiles(means[i], resampled[:, i]),
            regret=interval(trials.regret.sum(axis=1, dtype=np.float64)),
            normalised=_percentiles(float(normalise(means, i)), normalise(resampled, i)),
            difference=_percentiles(means[i] - means[base], resampled[:, i] - resampled[:, base]),
            objectives={key: interval(trials.objectives[:, j]) for j, key in enumerate(scenario.objectives)},
            costs={key: interval(trials.costs[:, j]) for j, key in enumerate(scenario.costs)},
        )
    return summaries


# --- reports ---------------------------------------------------------------------------------------------------------
def report_json(
    summaries: Mapping[str, Summary],
    *,
    env: str,
    parameters: Mapping[str, Any],
    trials: int,
    seed: int,
    reference: str,
    kinds: Mapping[str, str],
) -> dict[str, Any]:
    """The report as JSON can carry it."""

    def plain(value: Any) -> Any:
        return {key: item._asdict() for key, item in value.items()} if isinstance(value, dict) else value._asdict()

    policies = {}
    for name, summary in summaries.items():
        figures = {key: plain(value) for key, value in summary._asdict().items()}
        policies[name] = {"kind": kinds.get(name, "agent"), "return": figures.pop("returns"), **figures}
    return {
        "env": env,
        "parameters": dict(parameters),
        "trials": trials,
        "seed": seed,
        "reference": reference,
        "policies": policies,
    }


def print_table(report: Mapping[str, Any], *, title: str = "") -> None:
    """The report as a table on the terminal, best return first."""
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError as error:
        raise ImportError("tables are drawn with rich: pip install 'recgym[agents]'") from error

    def figure(value: Mapping[str, float], digits: int) -> str:
        half = max(value["high"] - value["mean"], value["mean"] - value["low"])
        return f"{value['mean']:.{digits}f} ± {half:.{digits}f}"

    table = Table(title=title or f"{report['env']}: {report['trials']:,} held-out trials, seed {report['seed']}")
    table.add_column("policy")
    for heading in ("knows", "return", "regret", "normalised", f"minus {report['reference']}"):
        table.add_column(heading, justify="right")
    knows = {"prior-free": "nothing", "prior-aware": "task distribution", "informed": "the task", "agent": "its training"}
    rows = sorted(report["policies"].items(), key=lambda item: -item[1]["return"]["mean"])
    for name, policy in rows:
        low, high = policy["difference"]["low"], policy["difference"]["high"]
        mark = "  " if low <= 0 <= high else (" +" if low > 0 else " -")
        table.add_row(
            name,
            knows[policy["kind"]],
            figure(policy["return"], 2),
            figure(policy["regret"], 2),
            figure(policy["normalised"], 3),
            figure(policy["difference"], 2) + mark,
            style="bold" if policy["kind"] == "agent" else None,
        )
    table.caption = "± 95 % bootstrap interval; + / -: the whole paired interval is above / below 0"
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def regret_figure(results: Mapping[str, Trials], *, title: str = "", emphasise: Sequence[str] = ()) -> Any:
    """Regret so far over the decisions of a trial, mean per policy with a 95 % band. A matplotlib Figure."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("figures are drawn with matplotlib: pip install 'recgym[plot]'") from error
    figure = Figure(figsize=(8, 5), dpi=110, layout="constrained")
    axes = figure.subplots()
    ranked = sorted(results.items(), key=lambda item: float(item[1].regret.sum()))
    for name, trials in ranked:
        curve = np.cumsum(trials.regret.astype(np.float64), axis=1)
        mean, half = curve.mean(axis=0), Z95 * curve.std(axis=0) / np.sqrt(len(curve))
        decisions = np.arange(1, curve.shape[1] + 1)
        strong = name in emphasise
        (line,) = axes.plot(
            decisions, mean, label=f"{name}  {mean[-1]:.1f}", linewidth=2.6 if strong else 1.3, zorder=3 if strong else 2
        )
        axes.fill_between(decisions, mean - half, mean + half, color=line.get_color(), alpha=0.2, linewidth=0)
    axes.set(xlabel="decision", ylabel="regret so far (reward), lower is better", title=title)
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=9, frameon=False, title="policy, regret at the end")
    return figure


def action_figure(trials: Trials, *, title: str = "") -> Any:
    """What was chosen, and how often it was the best, over the decisions of a trial. A matplotlib Figure."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("figures are drawn with matplotlib: pip install 'recgym[plot]'") from error
    figure = Figure(figsize=(8, 5), dpi=110, layout="constrained")
    axes = figure.subplots()
    decisions = np.arange(1, len(trials.actions) + 1)
    shares = trials.actions / trials.actions.sum(axis=1, keepdims=True)
    axes.stackplot(decisions, shares.T, alpha=0.6)
    best = (trials.regret <= 1e-6).mean(axis=0)
    axes.plot(decisions, best, color="black", linewidth=2, label="share of best choices")
    axes.set(xlabel="decision", ylabel="share of trials", ylim=(0, 1), title=title)
    axes.set_xlim(decisions[0], max(decisions[-1], decisions[0] + 1))
    axes.legend(loc="upper left", fontsize=9)
    return figure
