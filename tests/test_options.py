"""Options: ranges, names, signatures."""

from __future__ import annotations

import inspect
import json
import math
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from stable_baselines3.common.utils import LinearSchedule

from recgym.agents.algorithms import build
from recgym.agents.meta_ppo import MetaPPO
from recgym.agents.options import MetaPPOOptions, TransformerOptions
from recgym.agents.policy import TransformerPolicy
from recgym.parameters import parameter_lines, parameters_of
from tests.small_agents import POLICY, bandit, cart_pole, meta

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"n_steps": 7}, "n_steps 7 does not hold whole trials of 5 decisions"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, or None, got 0"),
        ({"n_steps": -10}, "n_steps must be a whole number of at least 1, or None, got -10"),
        ({"n_epochs": 1.5}, "n_epochs must be a whole number of at least 1, got 1.5"),
        ({"gamma": 2.0}, "gamma must be a number in \\[0.0, 1.0\\], got 2.0"),
        ({"target_kl": "abc"}, "target_kl must be a number above 0, or None, got 'abc'"),
        ({"policy": {"width": "64"}}, "width must be a whole number of at least 1, got '64'"),
        ({"policy": {"history_layers": -1}}, "history_layers must be a whole number of at least 0, got -1"),
        ({"reward_scale": 0}, "reward_scale must be a number above 0, got 0"),
        ({"policy": {"heads": 0}}, "heads must be a whole number of at least 1, got 0"),
        ({"policy": {"width": 9}}, "width 9 must be a multiple of heads 2"),
        ({"policy": {"init_policy": "best"}}, "init_policy must be one of uniform, expert, softmax, got 'best'"),
        ({"policy": {"init_policy": "expert"}}, "needs a candidate field of role prior .* or expert_prior"),
        ({"policy": {"init_policy": "expert", "expert_prior": (0.5, 0.5)}}, "must have 3 probabilities, got 2"),
        ({"policy": {"init_policy": "expert", "expert_prior": (0.5, 0.5, 0.5)}}, "positive and sum to 1"),
        ({"policy": {"init_policy": "expert", "expert_prior": (0.5, 0.5, 0.0)}}, "positive and sum to 1"),
        ({"policy": {"init_policy": "softmax", "candidate_memory": False}}, "'softmax' needs a running estimate"),
        ({"policy": {"init_policy": "softmax", "memory_scales": (0.9,)}}, "'softmax' needs a running estimate"),
        ({"policy": {"memory_scales": (1.5,)}}, r"memory_scales must be numbers in \(0, 1\]"),
        ({"policy": {"memory_scales": ()}}, r"memory_scales must be numbers in \(0, 1\]"),
        ({"policy": {"feature_memory": True}}, "a memory of features needs candidates with features"),
    ],
)
def test_arguments_that_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        meta(bandit(), **arguments)


def test_what_needs_a_layout_is_refused_without() -> None:
    with pytest.raises(ValueError, match="init_policy 'softmax' needs an environment with a Layout"):
        meta(cart_pole(), {"init_policy": "softmax"})


# --- one list of options ---------------------------------------------------------------------------------------------
def test_the_signature_shows_the_options() -> None:
    shown = inspect.signature(MetaPPO).parameters
    assert list(shown)[:9] == ["policy", "env", *[field.name for field in fields(MetaPPOOptions)[:7]]]
    for field in fields(MetaPPOOptions):
        assert shown[field.name].default is field.default
        early = shown[field.name].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        assert early == (field.name in list(shown)[:9])
    assert "options" not in shown and shown["stats_window_size"].default == 100
    assert {field.name for field in fields(TransformerOptions)} < set(inspect.signature(TransformerPolicy).parameters)


def test_every_option_says_what_it_does() -> None:
    for kind in (MetaPPOOptions, TransformerOptions):
        kind()  # the defaults are in range
        for field, known in parameters_of(kind):
            assert known is not None and known.effect, field.name
            assert known.kind != "other" or known.unit, field.name
        assert len(parameter_lines(kind)) == len(fields(kind))


def test_options_by_position_as_sb3_takes_them() -> None:
    model = MetaPPO("TransformerPolicy", bandit(), 2e-3, 10, 20, 3, 0.9, 0.8, 0.1, policy_kwargs=POLICY)
    values = (2e-3, 10, 20, 3, 0.9, 0.8, 0.1)
    assert tuple(getattr(model.options, field.name) for field in fields(MetaPPOOptions)[:7]) == values
    assert (model.learning_rate, model.n_steps, model.gamma, model.clip_range) == (2e-3, 10, 0.9, 0.1)
    with pytest.raises(TypeError, match="too many positional arguments"):
        MetaPPO("TransformerPolicy", bandit(), *values, None)
    with pytest.raises(TypeError, match="multiple values for argument 'learning_rate'"):
        MetaPPO("TransformerPolicy", bandit(), 2e-3, learning_rate=1e-3)


@pytest.mark.parametrize(
    "name, nearest", [("n_epoch", "n_epochs"), ("expert_coeff", "expert_coef"), ("policy_kwarg", "policy_kwargs")]
)
def test_an_unknown_argument_is_refused_with_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(TypeError, match=f"MetaPPO has no argument '{name}'; did you mean '{nearest}'\\?"):
        MetaPPO("TransformerPolicy", bandit(), **{name: 1})
    with pytest.raises(
        TypeError, match="TransformerPolicy has no argument 'history_layer'; did you mean 'history_layers'"
    ):
        meta(bandit(), {"history_layer": 1})
    with pytest.raises(TypeError, match=r"MetaPPO has no argument 'zzzzzz'$"):
        MetaPPO("TransformerPolicy", bandit(), zzzzzz=1)


def test_options_are_attributes_that_are_checked_when_set() -> None:
    model = meta(bandit(), n_epochs=np.int64(2))
    assert model.n_epochs == model.options.n_epochs == 2 and type(model.n_epochs) is int
    model.n_epochs = 3
    model.gamma = 0.5
    assert (model.options.n_epochs, model.options.gamma) == (3, 0.5)
    assert model.arguments()["n_epochs"] == 3 and model.arguments()["gamma"] == 0.5
    with pytest.raises(ValueError, match="n_epochs must be a whole number of at least 1, got 0"):
        model.n_epochs = 0
    assert model.n_epochs == 3
    assert model.learn(20)._n_updates == 3
    assert (model.n_steps, model.options.n_steps) == (5, None)  # the number in use, and what was asked for


def test_what_a_file_keeps_builds_the_same_options() -> None:
    given = {"learning_rate": LinearSchedule(1e-3, 0.0, 1.0), "expert": "ucb1", "expert_coef": 0.1, "n_steps": 10}
    model = meta(bandit(), {"memory_scales": np.array([1.0, 0.5])}, variants=[{"arms": 2}, {}], **given)
    arguments = json.loads(json.dumps(model.arguments()))
    assert set(arguments) == {f.name for f in fields(MetaPPOOptions)} | {"policy", "policy_kwargs", "stats_window_size"}
    again = build("meta_ppo", bandit(), arguments, device="cpu", seed=0)
    assert again.arguments() == arguments
    assert again.policy.options == model.policy.options
    assert replace(again.options, learning_rate=1.0) == replace(model.options, learning_rate=1.0)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"learning_rate": -1e-3}, "learning_rate must be a number of at least 0, or a schedule"),
        ({"learning_rate": "lin_1e-3"}, "learning_rate must be a number of at least 0, or a schedule"),
        ({"clip_range": math.nan}, "clip_range must be a number of at least 0, or a schedule"),
        ({"expert": 3}, "expert must be the name of a baseline, or None, got 3"),
        ({"normalize_advantage": 1}, "normalize_advantage must be true or false, got 1"),
        ({"pretrain_mix": 1.5}, r"pretrain_mix must be a number in \[0.0, 1.0\], got 1.5"),
        ({"max_grad_norm": 0.0}, "max_grad_norm must be a number above 0, got 0.0"),
    ],
)
def test_options_out_of_range(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MetaPPOOptions(**arguments)
