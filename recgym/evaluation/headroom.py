"""Is there something to learn in a scenario, and do the known policies leave something to win?"""

from __future__ import annotations

from typing import Any, NamedTuple

from recgym.baselines import ConstantPolicy, baselines_for
from recgym.evaluation.comparison import evaluate
from recgym.evaluation.statistics import Interval
from recgym.evaluation.trials import TEST_SEED, rollout

__all__ = ["Headroom", "headroom"]


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
    results, summaries, best, _ = evaluate(scenario, dict.fromkeys(free), trials=trials, seed=seed)
    score = summaries[best].normalised
    if score is None:
        raise ValueError(f"no optimum of this {type(scenario).__name__} is known for its weights: nothing to be left")
    constants = [
        rollout(ConstantPolicy(scenario, action), scenario, trials=trials, seed=seed).returns.mean()
        for action in range(scenario.layout.candidates)
    ]
    gain, gap = summaries[best].versus["random"], summaries["informed"].versus[best]
    left = 1.0 - score.mean
    constant = float(max(constants) / summaries["informed"].returns.mean)
    of_bound, shares = summaries["informed"].of_bound, [summary.of_bound for summary in summaries.values()]
    bounded = all(trials_.regret.min() >= -1e-6 for trials_ in results.values())
    bounded = bounded and all(share is None or share.low <= 1.0 for share in shares)
    passed = gain.low > 0 and gap.low > 0 and left > 0.1 and constant < 0.9 and bounded
    return Headroom(best, gain, gap, left, constant, of_bound, passed)
