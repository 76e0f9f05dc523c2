"""Settings of the whole process do not leak in: precision, floating-point errors, kinds of whole numbers, wrappers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import recgym
from recgym.agents import MetaPPO, load_pretrained
from recgym.agents.algorithms import ALGORITHMS, build
from recgym.agents.checkpoint import load, save
from recgym.agents.model_file import plain_weights
from recgym.agents.pretrained import agent_ids
from recgym.baselines import baselines_for, make_baseline
from recgym.evaluation import rollout
from recgym.sb3 import make_vec_env
from tests.registry import CASES, every_id, vector
from tests.small_checkpoints import PARAMETERS, SMALL, make

every_algorithm = pytest.mark.parametrize("algo", ALGORITHMS)


@pytest.fixture
def doubles() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@every_algorithm
def test_learning_does_not_depend_on_the_default_precision(algo: str, doubles: None, tmp_path: Path) -> None:
    weights = []
    for default in (torch.float64, torch.float32):
        torch.set_default_dtype(default)
        model = build(algo, make_vec_env("RecBandit-v0", 4, 0, **PARAMETERS), SMALL[algo], device="cpu", seed=3)
        model.learn(80)
        assert torch.get_default_dtype() == default
        weights.append(model.policy.state_dict())
        path = save(tmp_path / "agent", model, arguments=SMALL[algo])
        torch.set_default_dtype(torch.float64)
        assert load(path).policy.state_dict().keys() == weights[0].keys()
    for name, value in weights[0].items():
        assert value.dtype != torch.float64 and torch.equal(value, weights[1][name]), name


@pytest.mark.parametrize("id", agent_ids())
def test_shipped_agents_act_under_any_default_precision(id: str, doubles: None) -> None:
    agent, env = load_pretrained(id), make_vec_env(id, 3, 0)
    observation, state = env.reset(), None
    for _ in range(3):
        action, state = agent.predict(observation, state=state)
        observation = env.step(action)[0]
    assert len(action) == 3


@every_algorithm
def test_whole_numbers_of_numpy_are_seeds(algo: str) -> None:
    env = make_vec_env("RecBandit-v0", 4, np.int64(0), **PARAMETERS)  # type: ignore[arg-type]
    one, other = (build(algo, env, SMALL[algo], device="cpu", seed=seed) for seed in (np.int64(5), 5))
    for name, value in one.policy.state_dict().items():
        assert torch.equal(value, other.policy.state_dict()[name])
    assert MetaPPO("TransformerPolicy", env, seed=np.uint8(7)).seed == 7  # type: ignore[arg-type]


@every_id
def test_no_baseline_minds_strict_floating_point(id: str) -> None:
    scenario = recgym.make_scenario(id, horizon=12)
    with np.errstate(all="raise"):
        for name in baselines_for(scenario):
            rollout(make_baseline(name, scenario), scenario, trials=30, seed=0)


def test_no_environment_minds_strict_floating_point() -> None:
    with np.errstate(all="raise"):
        for id, parameters in CASES:
            env = vector(id, 3, **{"horizon": 4, **parameters})
            env.reset(seed=0)
            for _ in range(6):
                env.step(env.action_space.sample())


@every_algorithm
def test_a_compiled_policy_is_saved_as_a_plain_one(algo: str, tmp_path: Path) -> None:
    """So is a part that is compiled. "eager" only wraps, and needs no compiler."""
    model = make(algo)
    plain = {name: value.clone() for name, value in model.policy.state_dict().items()}
    part = next(name for name, child in model.policy.named_children() if child.state_dict())
    setattr(model.policy, part, torch.compile(getattr(model.policy, part), backend="eager"))
    model.policy = torch.compile(model.policy, backend="eager")
    assert plain_weights(model.policy).keys() == plain.keys()
    loaded = load(save(tmp_path / "agent", model, arguments=SMALL[algo])).policy.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in plain.items())
