"""How good is a policy? The same tasks and luck for everybody, regrets, normalised scores, intervals."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple, Protocol

import numpy as np

from recgym.baselines import ConstantPolicy, baselines_for, make_baseline
from recgym.core import Array, Layout, to_numpy, tree_map
from recgym.rng import make_rng
from recgym.runner import Runner

__all__ = [
    "CHUNK",
    "TEST_SEED",
    "VALIDATION_SEED",
    "Headroom",
    "Interval",
    "Policy",
    "Shuffled",
    "Summary",
    "Trials",
    "evaluate",
    "headroom",
    "interval",
    "own_luck",
    "ratio",
    "rollout",
    "summarise",
    "tune",
    "upper_bounds",
]

CHUNK = 4096  # trials played at once: a part of the random key, so it must not depend on the machine
VALIDATION_SEED = 1_000_000  # task seeds: training below, validation from here, test from TEST_SEED
TEST_SEED = 2_000_000
RESAMPLES = 1000  # of the bootstrap
BOOTSTRAP_SEED = 20_240_131


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


class Shuffled:
    """A policy that is shown some fields of the observation from another trial: what they are worth to it.

    Each trial gets those of the one before it among the trials that are played together (`CHUNK`), for all of its
    decisions.

    Args:
        policy: see `Policy`.
        layout: of the observations.
        fields: names of what is shuffled.

    Raises:
        ValueError: the observation has no such field.
    """

    def __init__(self, policy: Any, layout: Layout, fields: Sequence[str]) -> None:
        known = [field.name for field in layout]
        if unknown := [name for name in fields if name not in known]:
            raise ValueError(f"the observation has no field {unknown[0]!r}; there are {', '.join(known)}")
        self._policy, self._columns = policy, [column for name in fields for column in layout.columns(name)]
        self.action_space = getattr(policy, "action_space", None)  # has luck of its own; see `own_luck`

    def reseed(self, seed: Any) -> None:
        if hasattr(self._policy, "reseed"):
            self._policy.reseed(seed)

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, Any]:
        """As the policy's, on observations [B, D]."""
        shown = np.array(to_numpy(observation))
        shown[:, self._columns] = np.roll(shown[:, self._columns], 1, axis=0)
        return self._policy.predict(shown, state=state, episode_start=episode_start, deterministic=deterministic)


class Trials(NamedTuple):
    """Result of N trials of one policy."""

    returns: np.ndarray  # [N] float64 sum of rewards
    expected: np.ndarray  # [N] float64 sum of the expected rewards of what was chosen
    regret: np.ndarray  # [N, T] float32 per decision
    rewards: np.ndarray  # [N, T] float32 per decision
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
    of_bound: Interval | None  # R as a share of the upper bound on any policy's; None where the scenario has none
    versus: dict[str, Interval]  # paired difference of the return to that of every policy
    objectives: dict[str, Interval]
    costs: dict[str, Interval]


@contextmanager
def own_luck(policy: Any, seed: Sequence[int]) -> Iterator[None]:
    """Streams of its own for a policy, and the caller's back afterwards.

    Baselines are told a seed. SB3's algorithms draw from the global generators of torch and NumPy, DQN also from its
    action space.
    """
    if hasattr(policy, "reseed"):
        policy.reseed(seed)
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    words = np.random.SeedSequence([*seed, 1]).generate_state(3)
    state = np.random.get_state()  # noqa: NPY002 - see above
    space = getattr(getattr(policy, "action_space", None), "np_random", None)
    space_state = None if space is None else space.bit_generator.state
    with torch.random.fork_rng():
        torch.manual_seed(int(words[0]))
        np.random.seed(words[1])  # noqa: NPY002
        if space is not None:
            space.bit_generator.state = np.random.PCG64(int(words[2])).state
        try:
            yield
        finally:
            np.random.set_state(state)  # noqa: NPY002
            if space is not None:
                space.bit_generator.state = space_state


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
        task: play this task in every trial instead of drawn ones, or one per trial: a Task [N, ...], or a mapping of
            its fields. The luck is that of drawn tasks.
        on_step: called with the number of decisions made so far, summed over chunks.

    Raises:
        ValueError: there are no trials, or the task is refused (see `Runner.make_task`).
    """
    if trials < 1:
        raise ValueError(f"trials must be at least 1, got {trials}")
    tasks = None if task is None else Runner(scenario, trials, make_rng("cpu", seed)).make_task(task)
    sizes = [min(CHUNK, trials - start) for start in range(0, trials, CHUNK)]
    parts: list[tuple[np.ndarray, ...]] = []
    actions = np.zeros((scenario.horizon, int(np.max(_action_limits(scenario)))))
    for chunk, size in enumerate(sizes):
        key = [seed, chunk]
        runner = Runner(scenario, size, make_rng("cpu", key))
        part = None if tasks is None else tree_map(itemgetter(slice(chunk * CHUNK, chunk * CHUNK + size)), tasks)
        with own_luck(policy, key):
            parts.append(_play(policy, runner, actions, deterministic, part, on_step, chunk))
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    returns, expected, regret, rewards, objectives, costs = columns
    return Trials(returns, expected, regret, rewards, objectives, costs, actions / trials)


def upper_bounds(scenario: Any, *, trials: int, seed: int) -> np.ndarray | None:
    """[N] upper bounds on the expected return in the trials that `rollout` plays; None where the scenario has none."""
    if not hasattr(scenario, "bound"):
        return None
    parts = []
    for chunk, start in enumerate(range(0, trials, CHUNK)):
        runner = Runner(scenario, min(CHUNK, trials - start), make_rng("cpu", [seed, chunk]))
        runner.restart()
        parts.append(scenario.bound(runner.state))
    return np.concatenate(parts)


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
    regret, rewards = np.zeros((2, size, horizon), dtype=np.float32)
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
        rewards[:, t] = to_numpy(step.reward)
        sums["reward"] += rewards[:, t]
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
        rewards,
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


def summarise(results: Mapping[str, Trials], scenario: Any, bounds: np.ndarray | None = None) -> dict[str, Summary]:
    """Figures per policy, all from the same resamples of the common trials.

    Args:
        results: by name; "random" and "informed" must be among them.
        scenario: names objectives and costs.
        bounds: [N] upper bounds on the return; see `upper_bounds`.
    """
    names, fields = list(results), ("return", "regret", *scenario.objectives, *scenario.costs)
    table = np.stack([_per_trial(trials) for trials in results.values()], axis=1)  # [N, P, F]
    means = table.mean(axis=0)
    resampled = _resampled_means(table.reshape(len(table), -1)).reshape(-1, *means.shape)  # [R, P, F]
    random, informed = names.index("random"), names.index("informed")

    def normalise(returns: np.ndarray, i: int) -> np.ndarray:
        span = returns[..., informed] - returns[..., random]
        return (returns[..., i] - returns[..., random]) / np.where(np.abs(span) > 1e-12, span, np.nan)

    summaries = {}
    for i, name in enumerate(names):
        figures = {f: _percentiles(means[i, j], resampled[:, i, j]) for j, f in enumerate(fields)}
        gains = means[i, 0] - means[:, 0], resampled[:, i, :1] - resampled[:, :, 0]  # [P], [R, P]
        summaries[name] = Summary(
            returns=figures["return"],
            regret=figures["regret"],
            normalised=_percentiles(float(normalise(means[:, 0], i)), normalise(resampled[:, :, 0], i)),
            of_bound=None if bounds is None else ratio(results[name].returns, bounds),
            versus={other: _percentiles(gains[0][j], gains[1][:, j]) for j, other in enumerate(names)},
            objectives={key: figures[key] for key in scenario.objectives},
            costs={key: figures[key] for key in scenario.costs},
        )
    return summaries


def ratio(part: np.ndarray, whole: np.ndarray) -> Interval:
    """Mean of `part` [N] over the mean of `whole` [N], of the same trials; the interval resamples them together.

    NaN where the latter, resampled, is not above 0 throughout: there may be nothing to have a share of.
    """
    both = np.column_stack([part, whole])
    means, resampled = both.mean(axis=0), _resampled_means(both)
    if not resampled[:, 1].min() > 0:
        return Interval(np.nan, np.nan, np.nan)
    return _percentiles(means[0] / means[1], resampled[:, 0] / resampled[:, 1])


def _per_trial(trials: Trials) -> np.ndarray:
    """[N, 2 + M + C]: return, regret, objectives and costs of each trial."""
    regret = trials.regret.sum(axis=1, dtype=np.float64)
    return np.column_stack([trials.returns, regret, trials.objectives, trials.costs])


def evaluate(
    scenario: Any,
    policies: Mapping[str, Any],
    *,
    trials: int,
    seed: int,
    on_step: Callable[[str, int], None] | None = None,
) -> tuple[dict[str, Trials], dict[str, Summary], str]:
    """Play the same trials with every policy and compare them.

    Args:
        scenario: what is played.
        policies: by name; None takes the baseline of that name. A name that ends in ":argmax" plays deterministically.
            "random" and "informed", which scores are normalised by, are added where they are missing.
        trials: number of trials.
        seed: of tasks and luck.
        on_step: called with the policy's name and the decisions made so far (see `rollout`).

    Returns:
        Trials and figures by name, and the name of the reference: the best prior-free baseline among them.

    Raises:
        TypeError: `policies` is no mapping.
        ValueError: a name is no baseline of this scenario (names the nearest).
    """
    if not isinstance(policies, Mapping):
        given = type(policies).__name__
        raise TypeError(f"evaluate(scenario, policies, ...): policies must map names to policies, got {given}")
    known = baselines_for(scenario)
    for name, policy in policies.items():
        if policy is not None and name.removesuffix(":argmax") in known:
            raise ValueError(f"{name!r} is the name of a baseline: give your policy another")
    names = list(dict.fromkeys([*policies, "random", "informed"]))
    built = {
        name: make_baseline(name.removesuffix(":argmax"), scenario) if policies.get(name) is None else policies[name]
        for name in names
    }
    results = {}
    for name, policy in built.items():
        results[name] = rollout(
            policy,
            scenario,
            trials=trials,
            seed=seed,
            deterministic=name.endswith(":argmax"),
            on_step=None if on_step is None else partial(on_step, name),
        )
    free = [name for name in names if policies.get(name) is None and known[name.split(":")[0]].kind == "prior-free"]
    reference = max(free, key=lambda name: results[name].returns.mean())
    return results, summarise(results, scenario, upper_bounds(scenario, trials=trials, seed=seed)), reference


def tune(name: str, scenario: Any, *, trials: int = 2000, seed: int = VALIDATION_SEED) -> dict[str, float]:
    """Constants of a baseline's grid with the highest mean return on validation tasks; {} where it has none."""
    grid = baselines_for(scenario)[name].grid
    choices = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]

    def score(constants: Mapping[str, float]) -> float:
        policy = make_baseline(name, scenario, **constants)
        return float(rollout(policy, scenario, trials=trials, seed=seed).returns.mean())

    return max(choices, key=score)


class Headroom(NamedTuple):
    """Is there something to learn in a scenario, and do the known policies leave something to win?"""

    best: str  # the best prior-free baseline
    gain: Interval  # its return above random's
    gap: Interval  # the informed policy's return above its
    left: float  # share of the random-to-informed range that it leaves
    constant: float  # return of the best constant action, as a share of the informed policy's
    of_bound: Interval | None  # the informed policy's return as a share of the upper bound, where there is one
    passed: bool


def headroom(scenario: Any, *, trials: int = 4000, seed: int = TEST_SEED) -> Headroom:
    """Check that random < best prior-free baseline < informed, outside the paired intervals, with room between them.

    The best prior-free baseline must leave a tenth of the range from random to informed, no constant action may reach
    nine tenths of the informed policy's return, and no policy may do better than the best action of the moment, nor in
    the mean than the upper bound where there is one.
    """
    free = (name for name, baseline in baselines_for(scenario).items() if baseline.kind == "prior-free")
    results, summaries, best = evaluate(scenario, dict.fromkeys(free), trials=trials, seed=seed)
    constants = [
        rollout(ConstantPolicy(scenario, action), scenario, trials=trials, seed=seed).returns.mean()
        for action in range(scenario.layout.candidates)
    ]
    gain, gap = summaries[best].versus["random"], summaries["informed"].versus[best]
    left = 1.0 - summaries[best].normalised.mean
    constant = float(max(constants) / summaries["informed"].returns.mean)
    of_bound, shares = summaries["informed"].of_bound, [summary.of_bound for summary in summaries.values()]
    bounded = all(trials_.regret.min() >= -1e-6 for trials_ in results.values())
    bounded = bounded and all(share is None or share.low <= 1.0 for share in shares)
    passed = gain.low > 0 and gap.low > 0 and left > 0.1 and constant < 0.9 and bounded
    return Headroom(best, gain, gap, left, constant, of_bound, passed)
