"""Policies for campaigns: what clicks is learned from counts and predictions; the fluid program spends the budget.

All are index policies: whatever chance they take belongs to the index, and they ignore `deterministic`.
"""

from __future__ import annotations

from functools import partial

from recgym.baselines import Baseline, Family
from recgym.baselines.ads.beliefs import belief_lp, lints_lp, too_many_cells
from recgym.baselines.ads.policies import adaptive_pacing, greedy_lp, pd_bwk, pid_pacing, round_robin, ts_lp
from recgym.baselines.bandit import counting, epsilon_greedy, ucb1

__all__ = ["FAMILY"]

_SCALE = (0.25, 0.5)  # of draws
_FIRST = (0.0, 1.0, 2.0, 3.0)  # logarithms of multipliers, the prices of money

FAMILY = Family(
    page="Advertising",
    baselines={
        "round_robin": Baseline(round_robin, "prior-free", "the candidates bought least"),
        "epsilon_greedy": Baseline(
            lambda scenario, epsilon=0.1: counting(scenario, partial(epsilon_greedy, epsilon=epsilon)),
            "prior-free",
            "highest mean reward, now and then uniform, ignoring the budget; epsilon tuned",
            {"epsilon": (0.1, 0.3, 0.5)},
            {"AdPlacement-v0": {"epsilon": 0.5}, "AdBidding-v0": {"epsilon": 0.1}},
        ),
        "ucb1": Baseline(
            lambda scenario, bonus=3.0, pseudo=1.0: counting(scenario, partial(ucb1, bonus=bonus, pseudo=pseudo)),
            "prior-free",
            "UCB1 on the reward, ignoring the budget; bonus and pseudo-counts tuned",
            {"bonus": (0.3, 1.0, 3.0, 10.0), "pseudo": (0.0, 0.5, 1.0)},
            {"AdPlacement-v0": {"bonus": 3.0, "pseudo": 1.0}, "AdBidding-v0": {"bonus": 1.0, "pseudo": 0.5}},
        ),
        "pd_bwk": Baseline(
            pd_bwk,
            "prior-free",
            "primal-dual bandit with knapsacks, width tuned",
            {"bonus": (0.001, 0.01, 0.1, 1.0)},
            {"AdPlacement-v0": {"bonus": 0.001}, "AdBidding-v0": {"bonus": 0.001}},
        ),
        "greedy_lp": Baseline(
            greedy_lp,
            "prior-free",
            "the fluid program of the predictions, their temper tuned",
            {"temper": (0.1, 0.2, 0.3, 0.6, 1.0)},
            {"AdPlacement-v0": {"temper": 0.3}, "AdBidding-v0": {"temper": 0.3}},
        ),
        "adaptive_pacing": Baseline(
            adaptive_pacing,
            "prior-free",
            "adaptive pacing of a price of money, around the predictions, tuned",
            {"step": (0.1, 0.2, 0.4, 0.8), "first": _FIRST, "scale": _SCALE},
            {
                "AdPlacement-v0": {"step": 0.1, "first": 0.0, "scale": 0.5},
                "AdBidding-v0": {"step": 0.4, "first": 2.0, "scale": 0.25},
            },
        ),
        "pid_pacing": Baseline(
            pid_pacing,
            "prior-free",
            "proportional-integral pacing of a price of money, around the predictions, tuned",
            {"proportional": (0.03, 0.1, 0.3), "integral": (0.1, 0.4, 0.8), "first": _FIRST, "scale": _SCALE},
            {
                "AdPlacement-v0": {"proportional": 0.3, "integral": 0.1, "first": 0.0, "scale": 0.25},
                "AdBidding-v0": {"proportional": 0.1, "integral": 0.4, "first": 2.0, "scale": 0.25},
            },
        ),
        "ts_lp": Baseline(
            ts_lp,
            "prior-free",
            "Thompson sampling around the predictions and the fluid program, tuned",
            {"strength": (2.0, 5.0, 10.0), "temper": (0.0, 0.7, 0.85), "scale": (0.0, 0.25, 0.5)},
            {
                "AdPlacement-v0": {"strength": 2.0, "temper": 0.85, "scale": 0.25},
                "AdBidding-v0": {"strength": 2.0, "temper": 0.7, "scale": 0.0},
            },
        ),
        "lints_lp": Baseline(
            lints_lp,
            "prior-free",
            "linear Thompson sampling that forgets and the fluid program, tuned",
            {
                "scale": _SCALE,
                "temper": (0.35, 0.5),
                "spread": (0.3, 0.5),
                "forget": (0.0, 0.05),
            },
            {
                "AdPlacement-v0": {"scale": 0.5, "temper": 0.35, "spread": 0.5, "forget": 0.05},
                "AdBidding-v0": {"scale": 0.25, "temper": 0.35, "spread": 0.5, "forget": 0.05},
            },
            unfit=too_many_cells,
        ),
        "belief_lp": Baseline(
            belief_lp,
            "prior-aware",
            "Bayes' rule for all click rates and the fluid program of a draw, its scale tuned",
            {"scale": (0.0, 0.25, 0.5, 0.75, 1.0)},
            {"AdPlacement-v0": {"scale": 0.5}, "AdBidding-v0": {"scale": 0.25}},
            unfit=too_many_cells,
        ),
    },
    shown=("greedy_lp", "lints_lp", "belief_lp"),
    expert="belief_lp",
    guide="ads",
    bound="`informed` knows click and conversion rates and plans as if prices and rates stayed as they are: a good "
    "planner, not the optimum. The bound gives money and days a price, and knows the whole path of prices, drift and "
    "traffic in advance, as nobody does: so it lies above `informed`, and holds on average over trials.",
    reader="recgym.data.ads:impressions",
)
