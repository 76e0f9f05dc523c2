"""What a log says of a policy that did not write it: replay, importance weighting, and what they rest on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from recgym.data.bandit import OpenBanditLog
from recgym.evaluation.statistics import Interval, interval
from recgym.evaluation.trials import TEST_SEED, action_shares, own_luck, rollout
from recgym.scenarios.bandit import BanditOffer, Clicks
from recgym.terminal import Table, say

__all__ = [
    "MIN_CLICKS",
    "Estimate",
    "Replay",
    "off_policy",
    "off_policy_report",
    "print_off_policy",
    "replay",
    "verdict",
]

# A rate measured by n clicks has relative standard error 1/sqrt(n) (Poisson), the difference of two such rates
# sqrt(2/n): at 100 clicks 10 % and 14 %, so that a 95 % interval resolves differences from 28 % up. The two policies
# of the Open Bandit Dataset differ by about 50 %; what is worth a comparison is seldom larger.
MIN_CLICKS = 100


def verdict(clicks: float) -> str:
    """Whether a value that rests on so many clicks may be compared with another; see `MIN_CLICKS`."""
    return "enough clicks to compare" if clicks >= MIN_CLICKS else "too few clicks to compare"


class Estimate(NamedTuple):
    """Clicks per impression that a policy would have got, with a 95 % bootstrap interval."""

    value: float
    low: float
    high: float
    effective_sample_size: float  # rows; (sum w)^2 / sum w^2
    clicks: int  # with positive weight

    @property
    def verdict(self) -> str:
        """By the clicks seen or, if fewer, those that as many on-policy rows as the effective sample would hold."""
        return verdict(min(self.clicks, self.effective_sample_size * self.value))


def off_policy(log: OpenBanditLog, probabilities: Any, *, resamples: int = 1000, seed: int = 0) -> dict[str, Estimate]:
    """Value of a policy on a log of another one, by "ips" and "snips".

    With w = pi(a | x) / propensity, IPS is mean(w r): unbiased wherever the logging policy gives every choice of pi
    a positive probability (Li et al. 2011 for uniform logs; Saito et al. 2021, sec. 4). SNIPS is sum(w r) / sum(w)
    (Swaminathan & Joachims 2015): biased by O(1/N), but steadier, and indifferent to the scale of the propensities.
    The interval is the 2.5 to 97.5 percentile range over resampled rows; with few clicks it is too narrow.

    Args:
        log: the log, N rows and K items.
        probabilities: [K] or [N, K] pi(item) in the order of `log.items`; each row sums to 1.
        resamples: bootstrap samples.
        seed: of the bootstrap.

    Raises:
        ValueError: wrong shape, no distribution, or a policy that never chooses what was logged.
    """
    policy, rows = np.asarray(probabilities, np.float64), len(log.action)
    if policy.shape not in ((log.arms,), (rows, log.arms)):
        raise ValueError(f"probabilities have shape {policy.shape}, not ({log.arms},) or ({rows}, {log.arms})")
    if not ((policy >= 0).all() and np.allclose(policy.sum(-1), 1.0, rtol=0, atol=1e-4)):  # 1e-4: a float32 softmax
        raise ValueError("probabilities must be non-negative and sum to 1 over the items")
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}, not at least 1")
    chosen = policy[log.action] if policy.ndim == 1 else policy[np.arange(rows), log.action]
    weight, click = chosen / log.propensity, log.click.astype(np.float64)  # [N]
    if not weight.any():
        raise ValueError(f"the policy never chooses an item logged in {log.path}: its value cannot be estimated")

    # Equal rows are exchangeable: resampling the counts of the G distinct (w, r) is the same bootstrap, and cheaper.
    groups, counts = np.unique(weight + 1j * click, return_counts=True)
    terms = np.stack([groups.real * groups.imag, groups.real], axis=1)  # [G, 2] w r, w
    rng = np.random.default_rng(seed)
    sums = np.stack([rng.multinomial(rows, counts / rows) @ terms for _ in range(resamples)])  # [resamples, 2]
    sums = np.concatenate([[counts @ terms], sums])  # the sample itself, then the resamples
    weights = np.maximum(sums[:, 1], np.finfo(float).tiny)  # a resample without weight has no clicks either: value 0
    effective, clicks = sums[0, 1] ** 2 / (weight**2).sum(), int((weight * click > 0).sum())
    report = {}
    for key, (value, *samples) in {"ips": sums[:, 0] / rows, "snips": sums[:, 0] / weights}.items():
        low, high = np.quantile(samples, (0.025, 0.975))
        report[key] = Estimate(float(value), float(low), float(high), float(effective), clicks)
    return report


SIMULATED_TRIALS = 4096


class Replay(NamedTuple):
    """Result of `replay`."""

    events: int  # impressions of the log
    matched: int  # those where the policy chose what had been shown
    clicks: int  # on the matched ones
    trials: float  # matched / horizon
    ctr: Interval  # clicks per matched impression


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
    offer = BanditOffer(np.zeros((1, log.arms), dtype=np.float32))  # nobody says anything of the items beforehand
    clicks: list[float] = []
    memory: Any = None
    seen = scenario.start(offer)
    start = np.ones(1, dtype=bool)
    with own_luck(policy, [seed]):
        for event in range(len(log.action)):
            observation = scenario.observe(seen)
            action, after = policy.predict(observation, state=memory, episode_start=start, deterministic=False)
            if int(np.asarray(action).reshape(-1)[0]) == int(log.action[event]):
                row = slice(event, event + 1)
                seen, _ = scenario.learn(seen, log.action[row], Clicks(log.click[row]))
                clicks.append(float(log.click[event]))
                memory = after
                start = seen.time >= scenario.horizon
                if start[0]:
                    seen = scenario.start(offer)
                    memory = None
            if on_event is not None:
                on_event(event + 1)
    values = np.asarray(clicks)
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

    Replay as in `replay`; IPS and SNIPS (`off_policy`) of the policy's mean distribution over the items at
    the end of trials that are simulated on the log's own click rates. Those rates come from the clicks that the
    distribution is then scored on: what a policy learned from chance in the log counts in its favour.
    """
    rates = log.item_rates(scenario.prior).astype(np.float32)
    rows = {}
    for name, policy in policies.items():
        report = None if on_event is None else _named(on_event, name)
        played = replay(policy, scenario, log, seed=seed, on_event=report)
        simulated = rollout(policy, scenario, trials=SIMULATED_TRIALS, seed=seed, task={"rates": rates})
        estimates = off_policy(log, action_shares(simulated, log.arms)[-1])
        rows[name] = {
            "replay": {**played._asdict(), "ctr": played.ctr._asdict(), "verdict": verdict(played.clicks)},
            **{kind: {**estimate._asdict(), "verdict": estimate.verdict} for kind, estimate in estimates.items()},
        }
    return {"log": log.path, "events": len(log.action), "items": log.arms, "ctr": log.ctr, "policies": rows}


def _named(on_event: Callable[[str, int], None], name: str) -> Callable[[int], None]:
    return lambda event: on_event(name, event)


def print_off_policy(report: Mapping[str, Any]) -> None:
    """The off-policy report as a table on the terminal."""
    title = f"off-policy, {report['events']:,} events, {report['items']} items, click rate {report['ctr']:.2%}"
    table = Table(title, ("policy", "matched", "clicks", "replay", "IPS", "SNIPS", "effective sample"))
    table.caption = (
        "percent, 95 % bootstrap intervals; IPS and SNIPS use the log's clicks twice and flatter what learns"
    )

    def rate(mean: float, low: float, high: float) -> str:
        return f"{100 * mean:.2f} ({100 * low:.2f}-{100 * high:.2f})"

    few: dict[str, list[str]] = {}
    for name, row in report["policies"].items():
        played, ips, snips = row["replay"], row["ips"], row["snips"]
        table.add(
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
    table.show()
    for finding, names in few.items():
        say(f"{finding} ({', '.join(names)})")
