"""The best policy of a small Bernoulli bandit, by backward induction, and what each decision of others loses to it."""

from __future__ import annotations

from functools import cache

import numpy as np

__all__ = ["Optimum"]

ArmCounts = tuple[int, int]  # clicks and misses of an arm
MAX_PULLS = 12  # states grow by half with each pull


class Optimum:
    """Backward induction over the counts of all arms, whose click rates are drawn from one Beta prior.

    Arms with the same counts are the same, so a state is a sorted tuple of the counts of those that were pulled.

    Args:
        pulls: decisions of a trial.
        arms: number of arms.
        prior: (a, b) of the Beta distribution.

    Raises:
        ValueError: more than `MAX_PULLS` pulls.
    """

    def __init__(self, pulls: int, arms: int, prior: tuple[float, float] = (1.0, 1.0)) -> None:
        if pulls > MAX_PULLS:
            raise ValueError(f"backward induction is for at most {MAX_PULLS} pulls, got {pulls}")
        a, b = prior
        self.pulls = pulls

        @cache
        def action_values(state: tuple[ArmCounts, ...], remaining: int) -> dict[ArmCounts, float]:
            """Value a pull of an arm with these counts: the expected reward of it, and of the best policy after it."""
            values = {}
            for counts in {*state, *([(0, 0)] if len(state) < arms else [])}:
                clicks, misses = counts
                rest = list(state)
                if counts != (0, 0):
                    rest.remove(counts)
                rate = (a + clicks) / (a + b + clicks + misses)
                values[counts] = rate
                if remaining > 1:
                    after_click = tuple(sorted([*rest, (clicks + 1, misses)]))
                    after_miss = tuple(sorted([*rest, (clicks, misses + 1)]))
                    values[counts] += rate * max(action_values(after_click, remaining - 1).values())
                    values[counts] += (1.0 - rate) * max(action_values(after_miss, remaining - 1).values())
            return values

        self._action_values = action_values
        self.value = max(action_values((), pulls).values())  # expected total reward of the best policy

    def losses(self, actions: np.ndarray, clicks: np.ndarray) -> np.ndarray:
        """Sum what the decisions of each trial lose: [N], of V(history) - Q(history, action).

        `value` minus their mean is the policy's value, without the luck of rates and clicks: what is left out, the
        differences between V and its expectation one decision before, has mean 0 for every policy (Burch et al. 2018,
        "AIVAT: a new variance reduction technique for agent evaluation in imperfect information games").

        Args:
            actions: [N, pulls] arms.
            clicks: [N, pulls - 1] or more; that of the last decision does not matter.
        """
        losses = np.zeros(len(actions))
        for row, (arms, rewards) in enumerate(zip(actions.tolist(), clicks.tolist(), strict=True)):
            counts: dict[int, ArmCounts] = {}
            for t, arm in enumerate(arms):
                values = self._action_values(tuple(sorted(counts.values())), self.pulls - t)
                hits, misses = counts.get(arm, (0, 0))
                losses[row] += max(values.values()) - values[hits, misses]
                if t + 1 < self.pulls:
                    counts[arm] = (hits + 1, misses) if rewards[t] else (hits, misses + 1)
        return losses
