"""Replay: a policy plays trials against a log, and sees what the log has where it chooses what was shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from recgym.data.bandit import OpenBanditLog
from recgym.evaluation.luck import own_luck
from recgym.evaluation.statistics import Interval, interval
from recgym.evaluation.trials import TEST_SEED
from recgym.scenarios.bandit import BanditOffer, Clicks

__all__ = ["Replay", "kept_events", "replay"]


class Replay(NamedTuple):
    """Result of `replay`."""

    events: int  # impressions of the log that were looked at
    matched: int  # those where the policy chose what had been shown
    clicks: int  # on the matched ones
    trials: float  # matched / horizon
    ctr: Interval  # clicks per matched impression


def replay(
    policy: Any,
    scenario: Any,
    log: OpenBanditLog,
    *,
    thinned: bool = False,
    seed: int = TEST_SEED,
    on_event: Callable[[int], None] | None = None,
) -> Replay:
    """Play trials of `horizon` decisions against a uniformly random log (Li et al. 2011, algorithm 2).

    For each logged impression in turn the policy chooses; where it chooses the item that was shown, it sees the logged
    click, else the event is passed over and the policy's memory stays as it was. Of a log that was not uniform, an
    event is looked at with a probability inverse to its propensity, so that what is left is uniform (von Neumann 1951).

    Args:
        policy: see `recgym.evaluation.Policy`; it must not see the state.
        scenario: a `Bandit` with as many arms as the log has items.
        log: of a policy that showed items uniformly at random, or any whose propensities are right, `thinned`.
        thinned: whether events are left out so that the rest is uniform.
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
    events = np.flatnonzero(kept_events(log, seed)) if thinned else np.arange(len(log.action))
    with own_luck(policy, [seed]):
        for done, event in enumerate(events.tolist(), 1):
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
                on_event(done)
    values = np.asarray(clicks)
    ctr = interval(values) if len(values) else Interval(np.nan, np.nan, np.nan)
    return Replay(len(events), len(values), int(values.sum()), len(values) / scenario.horizon, ctr)


def kept_events(log: OpenBanditLog, seed: int) -> np.ndarray:
    """[N] bool, rows that are left where those with a high propensity are looked at less often."""
    share = log.propensity.min() / log.propensity
    return np.asarray(np.random.default_rng(seed).random(len(share)) < share)
