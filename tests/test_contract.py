"""The contract of every registered scenario: a new one is tested by being registered."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import numpy as np
import pytest

import recgym
from recgym.arrays import to_numpy, tree_items
from recgym.envs import RecVectorEnv
from recgym.layout import Layout
from recgym.testing import check_scenario
from tests.registry import (
    IDS,
    draw,
    every_case,
    every_device,
    every_id,
    parameters_of,
    play,
    same,
    vector,
)


# --- the scenario itself ---------------------------------------------------------------------------------------------
@every_case
def test_the_scenario_keeps_its_contract(id: str, parameters: dict[str, Any]) -> None:
    """Means are compared over 32 trials: a difference of five standard errors or more is found."""
    check_scenario(recgym.make_scenario(id, **{"horizon": 8, **parameters}), trials=32)


# --- layout ----------------------------------------------------------------------------------------------------------
@every_case
@every_device
def test_layout(id: str, parameters: dict[str, Any], device: str) -> None:
    env = vector(id, 3, device=device, **parameters)
    layout = env.layout
    observation, _ = env.reset(seed=1)
    observation = env.step(draw(env.single_action_space, np.random.default_rng(0), 3))[0]
    assert Layout.from_json(json.loads(json.dumps(layout.to_json()))) == layout
    context, candidates = layout.split(observation)
    width, row, total = layout.sizes
    assert tuple(context.shape) == (3, width) and tuple(candidates.shape) == (3, layout.candidates, row)
    assert total == observation.shape[1] == width + layout.candidates * row
    same(np.concatenate([to_numpy(context), to_numpy(candidates).reshape(3, -1)], axis=1), observation)
    got = {field.name: layout.get(observation, field.name) for field in layout}
    for field in layout.context:
        assert tuple(got[field.name].shape) == ((3,) if field.width == 1 else (3, field.width))
    for field in layout.candidate:
        assert tuple(got[field.name].shape[:2]) == (3, layout.candidates)
    same(layout.join(got, got), observation)
    with pytest.raises(KeyError, match=r"no field 'nothing'.*time"):
        layout.get(observation, "nothing")
    assert {"time", "remaining", "last_reward"} <= {field.name for field in layout.context}
    assert "chosen" in {field.name for field in layout.candidate}
    assert len({field.name for field in layout}) == len(list(layout)) and all(field.meaning for field in layout)
    assert env.get_attr("layout") == (layout,) * 3 and env.call("horizon") == (env.scenario.horizon,) * 3


# --- the registry ----------------------------------------------------------------------------------------------------
@every_id
def test_shifted_parameters_build_and_differ(id: str) -> None:
    preset = recgym.SCENARIOS[id]
    assert preset.shifted
    for shifted in preset.shifted:
        assert set(shifted) <= parameters_of(id)
        assert recgym.make_scenario(id, **shifted) != recgym.make_scenario(id)
        play(vector(id, 2, **shifted), 1, 3, np.random.default_rng(0), (2,))


@every_id
def test_parameters_are_json(id: str) -> None:
    preset, scenario = recgym.SCENARIOS[id], recgym.make_scenario(id)
    for values in (preset.parameters, *preset.shifted, {f.name: getattr(scenario, f.name) for f in fields(scenario)}):
        again = json.loads(json.dumps(values))
        recgym.make_scenario(id, **again)
    given = json.loads(json.dumps({f.name: getattr(scenario, f.name) for f in fields(scenario)}))
    assert recgym.make_scenario(id, **given) == scenario
    assert hash(scenario) == hash(recgym.make_scenario(id))


@pytest.mark.parametrize("id", [id for id in IDS if recgym.SCENARIOS[id].scenario.startswith("recgym.")])  # they check
def test_numpys_numbers_are_as_good_as_pythons(id: str) -> None:
    """A float64 of NumPy must not turn the state into float64."""
    scenario = recgym.make_scenario(id)
    values = {f.name: getattr(scenario, f.name) for f in fields(scenario)}
    kinds = {int: np.int64, float: np.float64}
    numpys = {name: kinds[type(value)](value) for name, value in values.items() if type(value) in kinds}
    assert {int, float} == {type(values[name]) for name in numpys} and "horizon" in numpys
    env, other = vector(id, 3, **numpys), vector(id, 3)
    assert env.scenario == scenario
    assert all(type(getattr(env.scenario, name)) in (int, float) for name in numpys)
    same(play(env, 1, 3, np.random.default_rng(0), (3,)), play(other, 1, 3, np.random.default_rng(0), (3,)))
    assert all(leaf.dtype in (np.float32, np.int64, np.bool_) for _, leaf in tree_items(env.runner.state))


@every_id
def test_a_built_scenario_will_do_in_place_of_its_name(id: str) -> None:
    scenario = recgym.make_scenario(id, horizon=5)
    assert RecVectorEnv(scenario, num_envs=5).scenario is scenario
    assert RecVectorEnv(scenario, num_envs=5, horizon=3).scenario == recgym.make_scenario(id, horizon=3)


@pytest.mark.parametrize("rows", [0, -1, 2.0, True, "3", None])
def test_numbers_of_environments_are_checked(rows: Any) -> None:
    with pytest.raises(ValueError, match="number of environments"):
        RecVectorEnv(recgym.SCENARIOS[IDS[0]].scenario, num_envs=rows)


def test_autoreset_modes_are_checked() -> None:
    with pytest.raises(ValueError, match="AutoresetMode"):
        vector(IDS[0], 2, autoreset_mode="Sometimes")
