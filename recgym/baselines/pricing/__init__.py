"""Pricing policies: what sells is learned from prices, sales and stock as observed; the fluid program decides.

All are index policies: whatever chance they take belongs to the index, and they ignore `deterministic`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from recgym.baselines import Baseline, Family
from recgym.baselines.bandit import counting, epsilon_greedy, ucb1
from recgym.baselines.pricing.curves import glm_ts, meta_dp
from recgym.baselines.pricing.particles import particle_mean, particle_ts
from recgym.baselines.pricing.policies import (
    besbes_zeevi,
    best_fixed,
    exact,
    linear_demand,
    not_tabular,
    pd_bwk,
    thompson,
    ts_fixed,
    ts_update,
)

__all__ = ["FAMILY"]


def on_both(constants: Mapping[str, float]) -> dict[str, Mapping[str, float]]:
    """Constants that are tuned on the first preset, and used on the reference problem as well."""
    return {"DynamicPricing-v0": constants, "DynamicPricingFerreira-v0": constants}


BASELINES = {
    "best_fixed": Baseline(best_fixed, "informed", "the best candidate held for the whole trial, in hindsight"),
    "exact": Baseline(exact, "informed", "backward induction over the stock", unfit=not_tabular),
    "epsilon_greedy": Baseline(
        lambda scenario, epsilon=0.05: counting(scenario, partial(epsilon_greedy, epsilon=epsilon)),
        "prior-free",
        "highest mean reward, now and then uniform, ignoring the stock; epsilon tuned",
        {"epsilon": (0.05, 0.1, 0.2, 0.3, 0.5)},
        on_both({"epsilon": 0.3}),
    ),
    "ucb1": Baseline(
        lambda scenario, bonus=0.3, pseudo=1.0: counting(scenario, partial(ucb1, bonus=bonus, pseudo=pseudo)),
        "prior-free",
        "UCB1 on the reward, ignoring the stock; bonus and pseudo-counts tuned",
        {"bonus": (0.0, 0.01, 0.03, 0.1, 0.3), "pseudo": (0.0, 0.5, 1.0)},
        on_both({"bonus": 0.0, "pseudo": 0.0}),
    ),
    "thompson": Baseline(thompson, "prior-free", "Thompson sampling, ignoring the stock"),
    "ts_fixed": Baseline(ts_fixed, "prior-free", "Thompson sampling and the fluid program, first supply"),
    "ts_update": Baseline(ts_update, "prior-free", "Thompson sampling and the fluid program, supply left"),
    "besbes_zeevi": Baseline(
        besbes_zeevi,
        "prior-free",
        "explore each candidate, then the fluid program",
        {"explore": (1.0, 2.0, 3.0)},
        on_both({"explore": 1.0}),
    ),
    "pd_bwk": Baseline(
        pd_bwk,
        "prior-free",
        "primal-dual bandit with knapsacks, width tuned",
        {"bonus": (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)},
        on_both({"bonus": 0.001}),
    ),
    "linear_demand": Baseline(
        linear_demand,
        "prior-free",
        "certainty equivalence with linear demand after random decisions, their number tuned",
        {"explore": (2.0, 4.0, 8.0, 12.0, 16.0, 24.0)},
        on_both({"explore": 8.0}),
    ),
    "glm_ts": Baseline(
        glm_ts,
        "prior-free",
        "Thompson sampling with a Poisson regression, scale of the draw tuned",
        {"scale": (0.0, 0.1, 0.25, 0.5, 1.0)},
        on_both({"scale": 0.25}),
    ),
    "meta_dp": Baseline(
        meta_dp,
        "prior-aware",
        "the same with a prior learned over products (Meta-DP), scale tuned",
        {"scale": (0.0, 0.1, 0.25, 0.5, 1.0)},
        on_both({"scale": 0.25}),
    ),
    "particle_ts": Baseline(particle_ts, "prior-aware", "Thompson sampling on the true task distribution"),
    "particle_mean": Baseline(particle_mean, "prior-aware", "posterior mean of the true task distribution"),
}

FAMILY = Family(
    page="Dynamic pricing",
    baselines=BASELINES,
    shown=("thompson", "glm_ts", "meta_dp"),
    expert="particle_mean",
    reader="recgym.data.pricing:transactions",
)
