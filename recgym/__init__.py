"""recgym: Gymnasium environments for recommendation, advertising and pricing, with a known optimum for every task."""

from __future__ import annotations

import difflib
from typing import Any, NamedTuple

import gymnasium

from recgym import parameters

__version__ = "0.1.0"
__all__ = ["SCENARIOS", "Preset", "make_scenario"]


class Preset(NamedTuple):
    """A registered environment: a scenario with parameters."""

    scenario: str  # module:Name of the scenario class
    parameters: dict[str, Any]  # what differs from the class's defaults
    shifted: dict[str, Any]  # parameters of an out-of-distribution test
    reference: bool = False  # a fixed problem from the literature: nothing to be learned over tasks
    about: str = ""  # what it is, where it is not what its class says in its first line


FERREIRA: dict[str, Any] = {  # Ferreira, Simchi-Levi & Wang 2018, section 4.1: one product, one customer a period
    "prices": (29.9, 34.9, 39.9, 44.9, 49.9),
    "choke": True,
    "base_price": 44.9,
    "promotions": ((0.0, 0.0),),
    "families": ("table",),
    "table": (0.8, 0.6, 0.3, 0.1, 0.0),
    "horizon": 100,
    "stock": 25,
    "customers": 1.0,
    "poisson": False,
    "embedding": 0,
    "forecast": None,
    "rivals": (),
    "elasticity": (1.0, 0.0, 1.0, 1.0),  # this, `purchase` and `memory` do nothing here: there is one task alone
    "purchase": (0.5, 0.5),
    **dict.fromkeys(("cost", "lift", "memory", "gain", "dip", "season", "w_vol"), (0.0, 0.0)),
}

SCENARIOS: dict[str, Preset] = {
    "RecBandit-v0": Preset("recgym.scenarios.bandit:Bandit", {}, {"prior": (1.0, 3.0)}),
    "RecBanditDrift-v0": Preset("recgym.scenarios.bandit:DriftBandit", {}, {"drift": 0.1, "change_rate": 0.05}),
    "RecBanditContextual-v0": Preset("recgym.scenarios.contextual:ContextualBandit", {}, {"taste": 0.35}),
    "DynamicPricing-v0": Preset("recgym.scenarios.pricing:DynamicPricing", {}, {"elasticity": (3.93, 0.4, 1.65, 9.0)}),
    "DynamicPricingFerreira-v0": Preset(
        "recgym.scenarios.pricing:DynamicPricing",
        FERREIRA,
        {"table": (0.6, 0.5, 0.4, 0.3, 0.0)},
        reference=True,
        about="The published problem of Ferreira et al. (2018): one product with a fixed demand table, the same in "
        "every trial, to compare policies that start from nothing; its stock goes with its horizon.",
    ),
}


def make_scenario(id: str, /, **given: Any) -> Any:
    """The scenario of a registered environment, without the Gymnasium interface around it.

    Args:
        id: a key of `SCENARIOS`.
        given: fields of the scenario, as `gym.make` takes them.

    Raises:
        ValueError: unknown id or parameter (names the nearest), or a parameter out of range.
    """
    if id not in SCENARIOS:
        near = difflib.get_close_matches(str(id), SCENARIOS, 1, 0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"no environment {id!r}; {hint}there are {', '.join(SCENARIOS)}")
    preset = SCENARIOS[id]
    return parameters.make_scenario(preset.scenario, {**preset.parameters, **given})


for _id, _preset in SCENARIOS.items():
    gymnasium.register(
        _id,
        entry_point="recgym.envs:RecEnv",
        vector_entry_point="recgym.envs:RecVectorEnv",
        kwargs={"scenario": _preset.scenario, **_preset.parameters},
    )
