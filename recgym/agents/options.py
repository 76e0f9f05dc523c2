"""Options of MetaPPO and of its policy: each with its default, range and effect, checked wherever it comes from.

Constructors, checkpoints, recipes and tuning read these two classes; nothing else lists the options.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from stable_baselines3.common.type_aliases import Schedule

from recgym.parameters import check_parameters, numbers, param, refuse

__all__ = [
    "INIT_POLICIES",
    "LEARN_FROM",
    "SCHEDULES",
    "MetaPPOOptions",
    "Option",
    "TransformerOptions",
    "takes_options",
]

INIT_POLICIES = ("uniform", "expert", "softmax")
LEARN_FROM = ("reward", "expected_reward", "regret")
SCHEDULES = ("learning_rate", "clip_range", "ent_coef")  # options that may be one
SCHEDULE = "a number of at least 0, or a schedule of the remaining progress, which falls from 1 to 0"
PRIOR_TOLERANCE = 1e-3  # by which the sum of probabilities may differ from 1


@dataclass(frozen=True)
class MetaPPOOptions:
    """How MetaPPO learns.

    Raises:
        ValueError: an option is out of range (says what it may be).
    """

    learning_rate: float | Schedule = param(
        3e-4, unit=SCHEDULE, kind="other", effect="of PPO; the progress is over all timesteps of `learn`, imitation too"
    )
    n_steps: int | None = param(
        None,
        1,
        kind="whole",
        unit="decisions",
        effect="per environment and update; None: one trial (without a Layout: 128)",
        optional=True,
    )
    batch_size: int | None = param(
        None,
        1,
        kind="whole",
        unit="decisions",
        effect="per minibatch, rounded down to whole trials (without a Layout: whole sequences of `n_steps`), at least "
        "one; the last takes what is left over. None: a quarter of the rollout",
        optional=True,
    )
    n_epochs: int = param(4, 1, effect="passes over the trials of a rollout")
    gamma: float = param(
        1.0, 0.0, 1.0, effect="discount; at 1, which a fixed length allows, late decisions count like early ones"
    )
    gae_lambda: float = param(0.9, 0.0, 1.0, effect="lambda of the advantage estimate")
    clip_range: float | Schedule = param(0.2, unit=SCHEDULE, kind="other", effect="of the probability ratio")
    batch_decisions: int | None = param(
        None,
        1,
        kind="whole",
        unit="decisions",
        effect="that a minibatch looks at in each of its trials, drawn anew every time; None: all. Neighbours have "
        "much in common, and a part of them is faster",
        optional=True,
    )
    normalize_advantage: bool = param(True, effect="to mean 0 and standard deviation 1 per minibatch")
    ent_coef: float | Schedule = param(0.0, unit=SCHEDULE, kind="other", effect="weight of the entropy bonus")
    vf_coef: float = param(0.5, effect="weight of the value loss")
    max_grad_norm: float = param(0.5, above=True, effect="gradients are clipped to it")
    target_kl: float | None = param(
        None,
        kind="number",
        above=True,
        effect="an update ends early where the policy has moved by more than 1.5 times that; None: never",
        optional=True,
    )
    weight_decay: float = param(0.0, effect="of AdamW")
    auxiliary_coef: float = param(
        1.0, effect="weight of the squared error of the policy's auxiliary head, if it has one"
    )
    reward_scale: float = param(1.0, above=True, effect="rewards are divided by it")
    learn_from: str = param(
        "reward",
        unit=f"one of {', '.join(LEARN_FROM)}",
        effect='"reward"; or, where the environment tells in its infos, "expected_reward", the mean given state and '
        'action, which has the same gradient and less noise; or "regret", the expected reward less that of the best '
        "action, which has still less, and the same gradient where what is best does not depend on what was done "
        'before (a baseline that depends on the task; Mao et al. 2019, "Variance reduction for RL in input-driven '
        'environments"). The policy sees the same observations in any case',
    )
    expert: str | None = param(None, unit="name of a baseline", effect="to imitate first and to stay near later")
    expert_draws: int = param(
        1, 1, effect="that a label averages, of an expert that decides by chance (Thompson sampling, a mixed plan)"
    )
    expert_coef: float = param(
        0.0, effect="weight of the divergence from the expert during PPO, times the remaining progress"
    )
    pretrain_steps: int = param(
        0, unit="decisions", effect="of the beginning, summed over environments, that imitate the expert"
    )
    pretrain_learning_rate: float = param(4e-3, above=True, effect="of that phase, falling to 0")
    pretrain_mix: float = param(0.3, 0.0, 1.0, effect="share of that phase's decisions that the expert takes itself")
    pretrain_epochs: float = param(
        0.3,
        above=True,
        effect="how often a decision of that phase is looked at, on average; every trial is at least once",
    )
    variants: Sequence[Mapping[str, Any]] = param(
        (),
        kind="other",
        unit="mappings",
        effect="parameters of the scenario that differ from rollout to rollout, taken in turn: one set of weights "
        "learns numbers of candidates and horizons together. Needs a RecVecEnv",
    )

    def __post_init__(self) -> None:
        check_parameters(self)
        for name in SCHEDULES:
            value = getattr(self, name)
            number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
            if not (callable(value) or (number and 0.0 <= value < math.inf)):
                refuse(self, name, SCHEDULE)
        if self.learn_from not in LEARN_FROM:
            refuse(self, "learn_from", f"one of {', '.join(LEARN_FROM)}")
        if not isinstance(self.expert, str | None):
            refuse(self, "expert", "the name of a baseline, or None")
        object.__setattr__(self, "variants", tuple(dict(variant) for variant in self.variants))


@dataclass(frozen=True)
class TransformerOptions:
    """What the policy's network is made of. Without a Layout, `width` to `layers` and `context_length` count alone.

    Raises:
        ValueError: an option is out of range, or some do not go together (says which).
    """

    width: int = param(32, 1, unit="numbers", effect="of a token; a multiple of `heads`")
    heads: int = param(2, 1, effect="of the attention")
    layers: int = param(2, 1, effect="blocks across the candidates (without a layout: over the steps)")
    candidate_memory: bool = param(True, effect="whether each candidate has a memory of its own")
    feature_memory: bool | None = param(
        None,
        kind="flag",
        effect="whether there is a memory of features. None: where candidates have features of their own, so that "
        "feedback on one says something about others",
        optional=True,
    )
    memory_scales: Sequence[float] = param(
        (1.0, 0.95), kind="other", unit="numbers in (0, 1]", effect="initial time scales of these memories"
    )
    group_attention: bool | None = param(
        None,
        kind="flag",
        effect="whether heads look in turn at all candidates, and at those of the same group alone, where a layout has "
        "fields of the role group. None: where there is a head for each of these",
        optional=True,
    )
    auxiliary: int = param(
        0,
        unit="numbers",
        effect="of each candidate, hidden, that a head is trained to tell beside its score, as many as the scenario's "
        "`targets` has per candidate; 0: none",
    )
    asymmetric_critic: bool = param(
        False,
        effect="whether the value is told, in training, the true mean reward of each candidate, which a simulator "
        "knows (`Scenario.candidate_rewards`). The score never is",
    )
    history_layers: int = param(0, effect="of the Transformer over the trial; 0: none")
    context_length: int = param(
        1000, 1, unit="decisions", effect="that the history can look back; a longer memory forgets the oldest ones"
    )
    init_policy: str = param(
        "uniform",
        unit=f"one of {', '.join(INIT_POLICIES)}",
        effect='what a fresh policy does: "uniform"; "expert" (the candidate field of role prior, or `expert_prior`); '
        '"softmax" (running mean feedback over `temperature`)',
    )
    temperature: float = param(0.1, above=True, unit="of the reward", effect="of that softmax")
    expert_prior: Sequence[float] | None = param(
        None,
        kind="other",
        unit="K probabilities",
        effect='for "expert", where the layout has no candidate field of role prior',
        optional=True,
    )

    def __post_init__(self) -> None:
        check_parameters(self)
        if self.width % self.heads:
            raise ValueError(f"width {self.width} must be a multiple of heads {self.heads}")
        if self.init_policy not in INIT_POLICIES:
            refuse(self, "init_policy", f"one of {', '.join(INIT_POLICIES)}")
        scales = numbers(self.memory_scales)
        if scales.ndim != 1 or not scales.size or not ((scales > 0) & (scales <= 1)).all():
            refuse(self, "memory_scales", "numbers in (0, 1], at least one")
        object.__setattr__(self, "memory_scales", tuple(scales.tolist()))
        if self.init_policy == "softmax" and not (self.candidate_memory and 1.0 in self.memory_scales):
            raise ValueError("init_policy 'softmax' needs a running estimate: a candidate_memory with a scale of 1")
        if self.expert_prior is not None:
            prior = numbers(self.expert_prior)
            right = prior.ndim == 1 and (prior > 0).all() and math.isclose(prior.sum(), 1.0, abs_tol=PRIOR_TOLERANCE)
            if not right:
                refuse(self, "expert_prior", "positive and sum to 1")
            object.__setattr__(self, "expert_prior", tuple(prior.tolist()))


# --- constructors that take them -------------------------------------------------------------------------------------
class Option:
    """An attribute of a model that is a field of its `options`: setting it checks it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, model: Any, owner: type) -> Any:
        return self if model is None else getattr(model.options, self.name)

    def __set__(self, model: Any, value: Any) -> None:
        model.options = replace(model.options, **{self.name: value})


def takes_options(kind: type, *, by_position: int = 0) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate an `__init__` so that it takes each field of `kind` as an argument, and is handed them as `options`.

    `inspect.signature` shows the fields in its place. An unknown argument is a TypeError that names the nearest.

    Args:
        kind: a dataclass.
        by_position: how many of its fields may be given by position, after the constructor's own.
    """

    def decorate(init: Callable[..., None]) -> Callable[..., None]:
        signature = _signature(init, kind, by_position)
        names = [field.name for field in fields(kind)]

        @functools.wraps(init)
        def construct(self: Any, *arguments: Any, **keywords: Any) -> None:
            for name in keywords:
                if name not in signature.parameters:
                    nearest = difflib.get_close_matches(name, signature.parameters, 1, 0.5)
                    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
                    raise TypeError(f"{type(self).__name__} has no argument {name!r}{hint}")
            values = signature.bind(self, *arguments, **keywords).arguments
            options = kind(**{name: values.pop(name) for name in names if name in values})
            init(**values, options=options)

        construct.__signature__ = signature  # type: ignore[attr-defined] # what inspect looks for
        return construct

    return decorate


def _signature(init: Callable[..., None], kind: type, by_position: int) -> inspect.Signature:
    """Of `init`, with the fields of `kind` in the place of `options`."""
    parameter = inspect.Parameter
    listed = [
        parameter(
            field.name,
            parameter.POSITIONAL_OR_KEYWORD if i < by_position else parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=field.type,
        )
        for i, field in enumerate(fields(kind))
    ]
    own = [each for each in inspect.signature(init).parameters.values() if each.name != "options"]
    first = [each for each in own if each.kind is parameter.POSITIONAL_OR_KEYWORD]
    rest = [each for each in own if each.kind is parameter.KEYWORD_ONLY]
    return inspect.Signature([*first, *listed, *rest])
