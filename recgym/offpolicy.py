"""What a log says of a policy that did not write it: replay, and importance weighting of what it converges to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from recgym.data import OpenBanditLog, off_policy, open_bandit, verdict
from recgym.evaluation import TEST_SEED, Interval, interval, own_luck, rollout
from recgym.rng import NumpyRng

__all__ = ["Replay", "from_log", "off_policy_report", "print_off_policy", "replay"]

SIMULATED_TRIALS = 4096


class Replay(NamedTuple):
    """Result of `replay`."""

    events: int  # impressions of the log
    matched: int  # those where the policy chose what had been shown
    clicks: int  # on the matched ones
    trials: float  # matched / horizon
    ctr: Interval  # clicks per matched impression


class _LoggedRng(NumpyRng):
    """Luck that makes the scenario's own `step` return the logged click, whatever the click probability."""

    click = False

    def uniform(self, shape: tuple[int, ...]) -> np.ndarray:
        return np.full(shape, 0.0 if self.click else 1.0, dtype=np.float32)  # clicked if uniform < probability


def from_log(path: str | Path) -> dict[str, Any]:
    """Parameters of `RecBandit-v0` from an Open Bandit log: as many arms as items, and the prior of their click rates.

    Raises:
        FileNotFoundError, ValueError: see `recgym.data.open_bandit`.
    """
    return open_bandit(path).parameters


def replay(
    policy: Any,
    scenario: Any,
    log: OpenBanditLog,
    *,
    seed: int = TEST_SEED,
    on_event: Callable[[int], None] | None = None,
) -> Replay:
    """Play trials of `horizon` decisions against a uniformly random log (Li et al. 2011, algorithm 2).

    For each logged impression in turn the policy chooses; where it chooses the item that was shown, it sees the logged
    click, else the event is passed over and the policy's memory stays as it was.

    Args:
        policy: see `recgym.evaluation.Policy`; it must not see the state.
        scenario: a `Bandit` with as many arms as the log has items.
        log: of a policy that showed items uniformly at random.
        seed: of the policy's own draws.
        on_event: called with the number of events done.

    Raises:
        ValueError: the scenario and the log do not have the same number of items.
    """
    if scenario.action_space.n != log.arms:
        raise ValueError(f"the scenario has {scenario.action_space.n} arms, the log {log.path} {log.arms} items")
    rng = _LoggedRng(seed)
    task = scenario.task_type(np.full((1, log.arms), 0.5, dtype=np.float32))
    clicked: list[float] = []
    memory: Any = None
    state = scenario.reset(task, rng)
    observation, start = scenario.observe(state), np.ones(1, dtype=bool)
    with own_luck(policy, [seed]):
        for event in range(len(log.action)):
            action, after = policy.predict(observation, state=memory, episode_start=start, deterministic=False)
            if int(np.asarray(action).reshape(-1)[0]) == int(log.action[event]):
                rng.click = bool(log.click[event])
                outcome = scenario.step(state, log.action[event : event + 1], rng)
                clicked.append(float(outcome.reward[0]))
                over = bool(outcome.ended[0])
                state, memory = (scenario.reset(task, rng), None) if over else (outcome.state, after)
                observation, start = scenario.observe(state), np.array([over])
            if on_event is not None:
                on_event(event + 1)
    values = np.asarray(clicked)
    ctr = interval(values) if len(values) else Interval(np.nan, np.nan, np.nan)
    return Replay(len(log.action), len(values), int(values.sum()), len(values) / scenario.horizon, ctr)


def off_policy_report(
    policies: Mapping[str, Any],
    scenario: Any,
    log: OpenBanditLog,
    *,
    seed: int = TEST_SEED,
    on_event: Callable[[str, int], None] | None = None,
) -> dict[str, Any]:
    """What the log says of each policy, as JSON can carry it.

    Replay as in `replay`; IPS and SNIPS (`recgym.data.off_policy`) of the policy's mean distribution over the items at
    the end of trials that are simulated on the log's own click rates. Those rates come from the clicks that the
    distribution is then scored on: what a policy learned from chance in the log counts in its favour.
    """
    rates = log.item_rates().astype(np.float32)
    rows = {}
    for name, policy in policies.items():
        report = None if on_event is None else _named(on_event, name)
        played = replay(policy, scenario, log, seed=seed, on_event=report)
        simulated = rollout(policy, scenario, trials=SIMULATED_TRIALS, seed=seed, task={"rates": rates})
        estimates = off_policy(log, simulated.actions[-1])
        rows[name] = {
            "replay": {**played._asdict(), "ctr": played.ctr._asdict(), "verdict": verdict(played.clicks)},
            **{kind: {**estimate._asdict(), "verdict": estimate.verdict} for kind, estimate in estimates.items()},
        }
    return {"log": log.path, "events": len(log.action), "items": log.arms, "ctr": log.ctr, "policies": rows}


def _named(on_event: Callable[[str, int], None], name: str) -> Callable[[int], None]:
    return lambda event: on_event(name, event)


def print_off_policy(report: Mapping[str, Any]) -> None:
    """The off-policy report as a table on the terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=f"off-policy, {report['events']:,} events, {report['items']} items, click rate {report['ctr']:.2%}",
        caption="percent, 95 % bootstrap intervals; IPS and SNIPS use the log's clicks twice and flatter what learns",
    )
    for heading in ("policy", "matched", "clicks", "replay", "IPS", "SNIPS", "effective sample"):
        table.add_column(heading, justify="left" if heading == "policy" else "right")

    def rate(mean: float, low: float, high: float) -> str:
        return f"{100 * mean:.2f} ({100 * low:.2f}-{100 * high:.2f})"

    few: dict[str, list[str]] = {}
    for name, row in report["policies"].items():
        played, ips, snips = row["replay"], row["ips"], row["snips"]
        table.add_row(
            name,
            f"{played['matched']:,}",
            str(played["clicks"]),
            rate(**played["ctr"]),
            rate(ips["value"], ips["low"], ips["high"]),
            rate(snips["value"], snips["low"], snips["high"]),
            f"{ips['effective_sample_size']:,.0f}",
        )
        for kind in ("replay", "ips"):
            few.setdefault(f"{kind}: {row[kind]['verdict']}", []).append(name)
    console = Console(width=120)
    console.print(table)
    for finding, names in few.items():
        console.print(f"{finding} ({', '.join(names)})", highlight=False)
