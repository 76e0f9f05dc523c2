"""RoleReader observations by role: names do not matter, roles do, and what nothing is decided at counts in no loss."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import Tensor

import recgym
from recgym.agents.meta_ppo import MetaPPO
from recgym.agents.policy import TransformerPolicy
from recgym.agents.tokens import RoleReader
from recgym.layout import LOG_SCALE, Field, Layout
from recgym.sb3 import RecVecEnv
from tests.small_agents import NETWORKS, bandit, meta, played, shaken, slates, stepped
from tests.toys import Shelf

pytestmark = pytest.mark.usefixtures("one_thread")


# --- columns ---------------------------------------------------------------------------------------------------------
LAYOUT = Layout(
    (
        Field("a", 0.0, 1.0, "", role="clock"),
        Field("b", 0.0, 9.0, "", role="outcome"),
        Field("c", 0.0, 1.0, "", role="presence"),
        Field("d", 0.0, 9.0, "", width=2, role="outcome"),  # of several numbers: no feedback of what was chosen
        Field("e", 0.0, 1.0, "", role="remaining"),
        Field("f", 0.0, 9.0, "", role="outcome"),
        Field("g", 0.0, 1.0, ""),
    ),
    (
        Field("h", 0.0, 1.0, "", width=2),
        Field("i", -9.0, 0.0, "", role="prior"),
        Field("j", 0.0, 1.0, "", role="outcome"),
        Field("k", 0.0, 1.0, "", role="action"),
        Field("l", 0.0, 1.0, "", role="statistic"),
        Field("m", 0.0, 1.0, ""),
        Field("n", 0.0, 1.0, "", role="market"),
    ),
    3,
)


def test_columns_by_hand() -> None:
    assert RoleReader.of(LAYOUT) == RoleReader(
        context=8,
        candidate=8,
        remaining=5,
        outcomes=(1, 6),
        presence=2,
        action=4,
        feedback=(3,),
        features=(0, 1, 6),
        prior=2,
        groups=(),
        availability=None,
    )


def test_what_was_chosen_and_what_came_of_it() -> None:
    reading = RoleReader.of(LAYOUT)
    context, candidates = torch.arange(8.0)[None], torch.arange(24.0).view(1, 3, 8)
    candidates[..., 4] = torch.tensor([0.0, 0.5, 1.0])  # above 0: chosen
    observation = torch.cat([context, candidates.flatten(1)], dim=1)
    assert all(map(torch.equal, reading.split(observation), (context, candidates)))
    chosen, feedback = reading.last_decision(context, candidates)
    assert chosen.tolist() == [[0.0, 1.0, 1.0]]
    assert feedback.tolist() == [[[1.0, 6.0, 3.0], [1.0, 6.0, 11.0], [1.0, 6.0, 19.0]]]
    summary = reading.summary(context, chosen, feedback, candidates)
    mean = candidates[0, 1:].mean(dim=0)
    clicked = (candidates[0, 1:] * torch.tensor([[11.0], [19.0]])).mean(dim=0)
    torch.testing.assert_close(summary[0], torch.cat([mean, torch.tensor([15.0]), clicked, context[0]]))
    assert summary.shape == (1, reading.summary_width)
    observation[0, 5] = np.log(1 + 7) / LOG_SCALE
    torch.testing.assert_close(reading.decisions_left(observation), torch.tensor([7.0]))
    assert reading.present(observation).tolist() == [True]
    observation[0, 2] = 0.0
    assert reading.present(observation).tolist() == [False]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"e": "clock"}, r"no field of role remaining \(context\), which the policy learns from"),
        ({"k": "feature"}, r"no field of role action \(candidate\)"),
        ({"b": "market", "f": "market"}, r"no field of role outcome \(context\)"),
        ({"h": "action"}, "the layout has 3 candidate numbers of role action; there may be one"),
        ({"a": "presence"}, "the layout has 2 context numbers of role presence; there may be one"),
        ({"l": "prior"}, "the layout has 2 candidate numbers of role prior; there may be one"),
    ],
)
def test_layouts_that_lack_what_learning_reads(change: dict[str, str], message: str) -> None:
    def change_roles(block: tuple[Field, ...]) -> tuple[Field, ...]:
        return tuple(field._replace(role=change.get(field.name, field.role)) for field in block)

    layout = replace(LAYOUT, context=change_roles(LAYOUT.context), candidate=change_roles(LAYOUT.candidate))
    with pytest.raises(ValueError, match=message):
        RoleReader.of(layout)


# --- names do not matter ---------------------------------------------------------------------------------------------
def rename(layout: Layout) -> Layout:
    """The same fields under other names: each has that of the one after it."""
    names = [field.name for field in layout]
    others = iter(names[1:] + names[:1])
    return replace(
        layout,
        context=tuple(field._replace(name=next(others)) for field in layout.context),
        candidate=tuple(field._replace(name=next(others)) for field in layout.candidate),
    )


def scenarios() -> dict[str, Any]:
    small = {id: recgym.make_scenario(id, horizon=6) for id in recgym.SCENARIOS}
    return {**small, "expert": recgym.make_scenario("RecBandit-v0", arms=3, horizon=6, expert=1.0), "slate": Shelf()}


@pytest.mark.parametrize("network", [*NETWORKS.values(), {"init_policy": "softmax"}, {"init_policy": "expert"}])
@pytest.mark.parametrize("name", scenarios())
def test_renaming_every_field_changes_nothing(name: str, network: dict[str, Any]) -> None:
    if (network.get("init_policy") == "expert") != (name == "expert"):
        network = {}
    env = RecVecEnv(scenarios()[name], 3)
    policy = shaken(meta(env, network)).policy
    renamed = rename(env.layout)
    assert not {field.name for field in renamed} - {field.name for field in env.layout}
    assert all(mine.name != other.name for mine, other in zip(env.layout, renamed, strict=True))
    other = TransformerPolicy(**{**policy._get_constructor_parameters(), "layout": renamed.to_json()})
    other.load_state_dict(policy.state_dict())
    observations, starts = (slates if name == "slate" else played)(env, 6)
    for ours, theirs in zip(stepped(policy, observations, starts), stepped(other, observations, starts), strict=True):
        assert torch.equal(ours, theirs) and ours.std() > 0


def test_a_role_that_differs_is_refused_where_an_agent_is_loaded(tmp_path: Any) -> None:
    model = meta(bandit())
    model.save(tmp_path / "agent")
    env = bandit()
    average = next(field for field in env.layout.candidate if field.name == "average")
    others = tuple(field._replace(role="feature") if field is average else field for field in env.layout.candidate)
    env.layout = replace(env.layout, candidate=others)
    with pytest.raises(ValueError, match=r"than here: average \(statistic there, feature here\)"):
        MetaPPO.load(tmp_path / "agent", env=env)


# --- decisions at which nothing is decided ---------------------------------------------------------------------------
class Turns(gymnasium.Env):
    """Two candidates over six steps; at odd steps nothing is decided, and what is done then changes nothing."""

    horizon = 6
    layout = Layout(
        (
            Field("remaining", 0.0, 1.0, "", role="remaining"),
            Field("last_reward", 0.0, 9.0, "", role="outcome"),
            Field("decides", 0.0, 1.0, "", role="presence"),
        ),
        (Field("chosen", 0.0, 1.0, "", role="action"), Field("quality", 0.0, 1.0, "")),
        2,
    )
    observation_space = layout.box()
    action_space = gymnasium.spaces.Discrete(2)

    def _observation(self) -> np.ndarray:
        left = np.log(1 + self.horizon - self.time) / LOG_SCALE
        context = [left, self.reward, float(self.time % 2 == 0)]
        return np.array([*context, *np.c_[self.chosen, (0.3, 0.7)].ravel()], dtype=np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        self.time, self.reward, self.chosen = 0, 0.0, np.zeros(2)
        return self._observation(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        counts = self.time % 2 == 0
        self.chosen = np.eye(2)[action] if counts else np.zeros(2)
        self.reward = 1.0 + action if counts else 0.5
        self.time += 1
        return self._observation(), self.reward, self.time == self.horizon, False, {}


@pytest.mark.parametrize("arguments", [{}, {"batch_decisions": 4}, {"target_kl": 0.5, "ent_coef": 0.1}])
def test_what_nothing_is_decided_at_counts_in_no_loss(
    arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever stands in the columns of such steps, learning is the same bit for bit."""
    weights: list[dict[str, Tensor]] = []
    for spoil in (False, True):
        torch.manual_seed(0)
        model = meta(DummyVecEnv([Turns]), n_steps=12, **arguments)
        finish = model.rollout_buffer.compute_returns_and_advantage

        def spoiled(*parts: Any, model: MetaPPO = model, finish: Any = finish, spoil: bool = spoil) -> None:
            finish(*parts)
            if spoil:
                buffer = model.rollout_buffer
                absent = ~model.policy.present(buffer.observations)
                assert absent[:, 0].tolist() == [False, True] * 6
                buffer.advantages[absent] = 100.0
                buffer.values[absent] = -77.0
                buffer.log_probs[absent] = -9.0
                buffer.actions[absent] = 1 - buffer.actions[absent]

        monkeypatch.setattr(model.rollout_buffer, "compute_returns_and_advantage", spoiled)
        before = {name: tensor.clone() for name, tensor in model.policy.state_dict().items()}
        model.learn(24)
        weights.append({name: tensor.clone() for name, tensor in model.policy.state_dict().items()})
        assert any(not torch.equal(before[name], tensor) for name, tensor in weights[-1].items())
    for name, tensor in weights[0].items():
        assert torch.equal(tensor, weights[1][name]), name


def test_a_field_that_says_that_everything_counts_is_as_none() -> None:
    """To rounding: the means are then over the same decisions."""

    class Always(Turns):
        def _observation(self) -> np.ndarray:
            observation = super()._observation()
            observation[2] = 1.0
            return observation

    class Never(Always):  # has no such field: the column is of another role
        layout = replace(
            Turns.layout, context=(*Turns.layout.context[:2], Turns.layout.context[2]._replace(role="market"))
        )

    ours, theirs = (meta(DummyVecEnv([kind]), n_steps=12).learn(24).policy.state_dict() for kind in (Always, Never))
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-4, atol=1e-6)
