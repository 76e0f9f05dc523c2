"""recgym: Gymnasium environments for recommendation, advertising and pricing, with a known optimum for every task."""

from __future__ import annotations

import difflib
from dataclasses import fields
from typing import Any, NamedTuple

import gymnasium

from recgym.parameters import class_of, instantiate, parameter_names, stands_for
from recgym.scenario import Scenario

__version__ = "0.1.0"
__all__ = ["SCENARIOS", "Preset", "make_scenario", "preset_of"]


class Preset(NamedTuple):
    """A registered environment: a scenario with parameters."""

    scenario: str  # module:Name of the scenario class
    parameters: dict[str, Any]  # what differs from the class's defaults
    shifted: tuple[dict[str, Any], ...]  # parameters of out-of-distribution tests
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

SIZES: tuple[dict[str, Any], ...] = ({"arms": 5}, {"arms": 20}, {"horizon": 200})
SLATES: tuple[dict[str, Any], ...] = ({"candidates": 40},)
CLICK_RATES: tuple[dict[str, Any], ...] = ({"prior": (1.0, 3.0)}, {"prior": (3.0, 1.0)})

SCENARIOS: dict[str, Preset] = {
    "RecBandit-v0": Preset("recgym.scenarios.bandit:Bandit", {}, (*SIZES, *CLICK_RATES)),
    "RecBanditDrift-v0": Preset(
        "recgym.scenarios.bandit:DriftBandit", {}, (*SIZES, *CLICK_RATES, {"drift": 0.1, "change_rate": 0.05})
    ),
    "RecBanditContextual-v0": Preset(
        "recgym.scenarios.contextual:ContextualBandit", {}, (*SIZES, {"taste": 0.35}, {"taste": 1.0})
    ),
    "RecSlate-v0": Preset("recgym.scenarios.slate:Slate", {}, SLATES),
    "RecSlateShop-v0": Preset(
        "recgym.scenarios.slate:Slate",
        {"reward": "shop", "sensitivity": (0.0, 5.0), "attention": (0.6, 0.85)},
        SLATES,
        about="Slates in a shop: the reward is the price of what is bought, and clickbait costs trust.",
    ),
    "RecSlateSocial-v0": Preset(
        "recgym.scenarios.slate:Slate",
        {"reward": "social", "bait": 0.0, "sensitivity": (0.0, 6.0)},
        SLATES,
        about="Slates in a social network: content builds trust, and asking to follow people harvests it.",
    ),
    "AdPlacement-v0": Preset(
        "recgym.scenarios.ads:Placement",
        {},
        (
            {"base_rate": (0.0001, 0.0015)},
            {"price_spread": (1.5, 2.0)},
            {"change": 1.0},
            {"budget": (0.2, 0.5)},
        ),
    ),
    "AdBidding-v0": Preset(
        "recgym.scenarios.ads:Bidding",
        {},
        (
            {"base_rate": (0.0001, 0.0015)},
            {"budget": (0.05, 0.3)},
        ),
    ),
    "DynamicPricing-v0": Preset(
        "recgym.scenarios.pricing:DynamicPricing",
        {},
        ({"elasticity": (3.93, 0.4, 1.65, 9.0)}, {"horizon": 120}, {"families": ("logit",)}),
    ),
    "DynamicPricingFerreira-v0": Preset(
        "recgym.scenarios.pricing:DynamicPricing",
        FERREIRA,
        ({"table": (0.6, 0.5, 0.4, 0.3, 0.0)},),
        reference=True,
        about="The published problem of Ferreira et al. (2018): one product with a fixed demand table, the same in "
        "every trial, to compare policies that start from nothing; its stock goes with its horizon.",
    ),
}


ENTRY_POINT = "recgym.envs:RecEnv"


def make_scenario(problem: Any, /, **parameters: Any) -> Scenario:
    """Build the scenario of a problem, without the Gymnasium interface around it: the one way from a name to it.

    Args:
        problem: a key of `SCENARIOS`, "recgym:" and such a key, the id of any environment registered with Gymnasium
            whose entry point is recgym's, "module:Class" of a scenario class, or a built scenario.
        parameters: fields of the scenario, as `gym.make` takes them; they go before those of the preset.

    Raises:
        ValueError: unknown problem (says what there is) or parameter (names the nearest), or a parameter out of range.
    """
    if isinstance(problem, Scenario) and not parameters:
        return problem
    kind, preset = _kind_of(problem)
    return instantiate(kind, {**preset, **parameters})


def preset_of(scenario: Any) -> str | None:
    """The id that a scenario differs least from, in the number of its parameters; None: no id has its class."""
    differences = {}
    for env_id, preset in SCENARIOS.items():
        if stands_for(preset.scenario, type(scenario)):
            values = vars(make_scenario(env_id))
            differ = [field.name for field in fields(scenario) if values[field.name] != getattr(scenario, field.name)]
            differences[env_id] = len(differ)
    return min(differences, key=lambda env_id: differences[env_id], default=None)


def _kind_of(problem: Any, named_by: tuple[str, ...] = ()) -> tuple[type[Scenario], dict[str, Any]]:
    """The class of a problem's scenario, and the parameters that the problem sets.

    Args:
        problem: see `make_scenario`.
        named_by: ids of Gymnasium's that led to it, each as the scenario of the one before.
    """
    if isinstance(problem, Scenario):
        return type(problem), {name: getattr(problem, name) for name in parameter_names(type(problem))}
    if not isinstance(problem, str):
        raise ValueError(f"a scenario is no {type(problem).__name__}: {_choices()}")
    if problem.removeprefix("recgym:") in SCENARIOS:
        preset = SCENARIOS[problem.removeprefix("recgym:")]
        return class_of(preset.scenario), dict(preset.parameters)
    spec = gymnasium.registry.get(problem)
    if spec is not None:
        parameters = dict(spec.kwargs)
        ours = spec.entry_point == ENTRY_POINT or stands_for(ENTRY_POINT, spec.entry_point)
        if not ours or "scenario" not in parameters:
            raise ValueError(f"{problem!r} is an environment, but not of recgym's: {_choices()}")
        if problem in named_by:
            circle = " -> ".join((*named_by, problem))
            raise ValueError(f"{problem!r} is registered with itself as its scenario ({circle}): {_choices()}")
        kind, preset_parameters = _kind_of(parameters.pop("scenario"), (*named_by, problem))
        return kind, {**preset_parameters, **parameters}
    if ":" not in problem:
        near = difflib.get_close_matches(problem, SCENARIOS, 1, 0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"no environment {problem!r}; {hint}{_choices()}")
    try:
        kind = class_of(problem)
    except ValueError as error:
        raise ValueError(f"{error}: {_choices()}") from error
    if not (isinstance(kind, type) and issubclass(kind, Scenario)) or kind is Scenario:
        raise ValueError(f"{problem!r} is no scenario class: {_choices()}")
    return kind, {}


def _choices() -> str:
    others = "the id of another environment of recgym's, 'module:Class' of a scenario, or a built scenario"
    return f"there are {', '.join(SCENARIOS)}; {others} will do too"


for _id, _preset in SCENARIOS.items():
    gymnasium.register(
        _id,
        entry_point=ENTRY_POINT,
        vector_entry_point="recgym.envs:RecVectorEnv",
        kwargs={"scenario": _preset.scenario, **_preset.parameters},
    )
