"""The policy: actions, memories that go in and out, what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import Tensor

from recgym.agents.losses import value_loss
from recgym.agents.meta_ppo import MetaPPO
from recgym.agents.policy import TransformerPolicy
from tests.small_agents import (
    BOX,
    NETWORKS,
    Answer,
    Spaces,
    bandit,
    cart_pole,
    meta,
    played,
    shaken,
    stepped,
)

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_single_observation_gives_a_single_action(actor: MetaPPO) -> None:
    observation = actor.env.reset()
    actions, _ = actor.predict(observation, deterministic=True)
    action, single = actor.predict(observation[0], deterministic=True)
    assert np.shape(action) == () and action == actions[0] and actor.action_space.contains(action)
    again, single = actor.predict(observation[0], state=single, episode_start=np.zeros(1, dtype=bool))
    assert np.shape(again) == () and len(single.length) == 1
    for leaf, row in zip(actor.predict(observation[:1])[1], actor.predict(observation[0])[1], strict=True):
        assert np.array_equal(leaf, row)


def test_actions_are_the_most_probable_or_drawn(actor: MetaPPO) -> None:
    observation = np.repeat(actor.env.reset()[:1], 2000, axis=0)
    with torch.no_grad():
        logits = actor.policy.step(torch.tensor(observation[:1]), None, torch.ones(1, dtype=torch.bool))[0].logits[0]
    torch.manual_seed(0)
    mode, _ = actor.predict(observation, deterministic=True)
    assert torch.equal(torch.get_rng_state(), torch.Generator().manual_seed(0).get_state())
    assert set(mode) == {int(logits.argmax())}
    drawn, _ = actor.predict(observation)
    torch.manual_seed(0)
    assert np.array_equal(actor.predict(observation)[0], drawn)
    probabilities = logits.softmax(-1).numpy()
    share = np.bincount(drawn, minlength=len(probabilities)) / len(drawn)
    assert np.all(np.abs(share - probabilities) < 4 * np.sqrt(probabilities * (1 - probabilities) / len(drawn)) + 1e-4)


def test_memory_goes_in_and_out_and_is_never_changed(actor: MetaPPO) -> None:
    """Two continuations of one memory are what they are when nothing else happens."""
    observations = played(actor.env, 6)[0].numpy()
    other = played(actor.env, 6, seed=5)[0].numpy()

    def run(sequence: list[np.ndarray], memory: Any = None) -> tuple[list[Any], Any]:
        actions = []
        for observation in sequence:
            action, memory = actor.predict(observation, state=memory, deterministic=True)
            actions.append(action)
        return actions, memory

    common = list(observations.swapaxes(0, 1)[:3])
    ours, theirs = list(observations.swapaxes(0, 1)[3:]), list(other.swapaxes(0, 1)[3:])
    _, middle = run(common)
    kept = [leaf.copy() for leaf in middle]
    branches = run(ours, middle), run(theirs, middle)
    assert all(np.array_equal(leaf, copy) for leaf, copy in zip(middle, kept, strict=True))
    for tail, (actions, memory) in zip((ours, theirs), branches, strict=True):
        whole, end = run(common + tail)
        assert np.array_equal(whole[3:], actions)
        assert all(np.array_equal(leaf, other) for leaf, other in zip(memory, end, strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(branches[0][1], branches[1][1], strict=True))


def test_the_memory_holds_no_part_of_the_observation_given(actor: MetaPPO) -> None:
    observation = actor.env.reset()
    observation.flags.writeable = False
    _, memory = actor.predict(observation)
    kept = [leaf.copy() for leaf in memory]
    observation.flags.writeable = True
    observation += 1.0  # environments may write the next one into the same array
    assert all(np.array_equal(leaf, copy) for leaf, copy in zip(memory, kept, strict=True))


def memories(actor: MetaPPO, observations: Tensor, starts: list[Any]) -> Any:
    memory = None
    for t, start in enumerate(starts):
        _, memory = actor.predict(observations[:, t].numpy(), state=memory, episode_start=start)
    return memory


def what_counts(memory: Any, row: int) -> list[np.ndarray]:
    """Of one row, without what its length masks."""
    length = int(memory.length[row])
    rest = [leaf[row] for name, leaf in memory._asdict().items() if name != "cache"]
    return [*rest, memory.cache[row, memory.cache.shape[1] - length :]]


def test_episode_starts(actor: MetaPPO) -> None:
    observations, _ = played(actor.env, 5)
    none, all_, some = np.zeros(3, dtype=bool), np.ones(3, dtype=bool), np.array([False, True, False])
    first = memories(actor, observations, [None] * 5)
    for starts in ([all_] + [none] * 4, [none] * 5, [None] + [none] * 4):  # a first call begins, whatever it says
        found = memories(actor, observations, starts)
        assert all(np.array_equal(a, b) for a, b in zip(first, found, strict=True))
    late = memories(actor, observations[:, 3:], [None] * 2)
    mixture = memories(actor, observations, [None, None, None, some, None])
    for row, expected in enumerate((first, late, first)):
        for ours, theirs in zip(what_counts(mixture, row), what_counts(expected, row), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    assert not all(np.allclose(a, b) for a, b in zip(what_counts(mixture, 1), what_counts(first, 1), strict=True))


def test_rows_of_different_length_are_evaluated_as_alone() -> None:
    lengths = (3, 5, 13)
    together = DummyVecEnv([lambda length=n: Monitor(Answer(length)) for n in lengths])
    model = shaken(meta(together, {"layers": 2, "context_length": 20}), 1.0)
    rewards, found = evaluate_policy(model, together, n_eval_episodes=6, return_episode_rewards=True)
    assert sorted(found) == [3, 3, 5, 5, 13, 13]
    for length in lengths:
        alone, _ = evaluate_policy(model, Monitor(Answer(length)), n_eval_episodes=2, return_episode_rewards=True)
        assert [r for r, n in zip(rewards, found, strict=True) if n == length] == alone
    assert len({r / n for r, n in zip(rewards, found, strict=True)}) > 1


@pytest.mark.parametrize("policy", [*NETWORKS.values(), {"init_policy": "expert", "expert_prior": (0.5, 0.3, 0.2)}])
def test_a_policy_alone_is_made_again_and_never_pickled(policy: dict[str, Any], tmp_path: Path) -> None:
    ours = shaken(meta(bandit(), policy)).policy
    theirs = TransformerPolicy(**ours._get_constructor_parameters())
    theirs.load_state_dict(ours.state_dict())
    observations, starts = played(bandit(), 5)
    assert theirs.options == ours.options and theirs.context_length == ours.context_length
    for a, b in zip(stepped(ours, observations, starts), stepped(theirs, observations, starts), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(NotImplementedError, match="save the algorithm"):
        ours.save(str(tmp_path / "policy"))
    with pytest.raises(NotImplementedError, match=r"use MetaPPO.load"):
        TransformerPolicy.load(str(tmp_path / "policy"))
    assert not list(tmp_path.iterdir())


def test_values_are_fitted_in_units_of_one_decision() -> None:
    model = shaken(meta(bandit(horizon=5)))
    observations, starts = played(bandit(horizon=5), 5)
    torch.testing.assert_close(model.policy.decisions_left(observations)[0], torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0]))
    with torch.no_grad():
        _, values = model.policy.evaluate_trials(observations, starts)
    off = values + model.policy.decisions_left(observations)
    assert float(value_loss(values, off, model.policy.decisions_left(observations))) == pytest.approx(1.0, rel=1e-4)
    assert shaken(meta(cart_pole())).policy.decisions_left(torch.zeros(1, 1, 4)) == 1.0


@pytest.mark.parametrize(
    "observation, action, error, message",
    [
        (BOX, BOX, AssertionError, "only supports .*Discrete.* Box"),
        (spaces.Dict({"a": BOX}), spaces.Discrete(2), ValueError, "needs a Box of observations, got Dict"),
        (spaces.Discrete(4), spaces.Discrete(2), ValueError, "needs a Box of observations, got Discrete"),
        (BOX, spaces.MultiDiscrete([3, 3]), ValueError, "a slate .* needs an environment with a Layout"),
    ],
)
def test_spaces_that_are_refused(observation: Any, action: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        meta(DummyVecEnv([lambda: Spaces(observation, action)]))


def test_actions_that_do_not_choose_among_the_candidates() -> None:
    env = bandit(arms=3)
    for action in (spaces.Discrete(4), spaces.MultiDiscrete([3, 4]), spaces.MultiDiscrete([3] * 4)):
        env.action_space = action
        with pytest.raises(ValueError, match="does not choose among the 3 candidates shown"):
            meta(env)


def test_observations_of_any_shape() -> None:
    env = DummyVecEnv([lambda: Spaces(spaces.Box(0, 9, (2, 3), np.int64), spaces.Discrete(4))] * 2)
    model = meta(env).learn(1)
    observation = env.reset()
    action, _ = model.predict(observation, deterministic=True)
    assert action.shape == (2,) and model.predict(observation[0])[0].shape == ()
    assert model.predict(observation.astype(float), deterministic=True)[0].tolist() == action.tolist()
    with pytest.raises(ValueError, match=r"must have shape \(2, 3\) or \(rows, \*\(2, 3\)\), got \(2, 2, 2\)"):
        model.predict(observation[..., :2])


def test_memories_and_observations_that_do_not_fit(actor: MetaPPO) -> None:
    observation = actor.env.reset()
    _, memory = actor.predict(observation)
    with pytest.raises(ValueError, match="the memory is of 3 rows, the observations are 2"):
        actor.predict(observation[:2], state=memory)
    for wrong in (observation[:, 1:], observation[0, 1:], observation[None], np.float32(0.0)):
        with pytest.raises(ValueError, match="observations must have shape"):
            actor.predict(wrong)


def test_what_is_not_a_number_ends_with_its_trial(actor: MetaPPO) -> None:
    observation = actor.env.reset()
    _, memory = actor.predict(observation)
    spoiled = memory._replace(**{name: leaf * np.nan for name, leaf in memory._asdict().items() if name != "length"})
    begins = np.ones(len(observation), dtype=bool)
    torch.manual_seed(0)
    ours, after = actor.predict(observation, spoiled, begins)
    torch.manual_seed(0)
    theirs, fresh = actor.predict(observation, memory, begins)
    assert (ours == theirs).all() and all(np.array_equal(a, b) for a, b in zip(after, fresh, strict=True))
    if np.issubdtype(observation.dtype, np.floating):
        observation[1] = np.nan
        with pytest.raises(ValueError, match="observation 1 holds numbers that are not finite"):
            actor.predict(observation)


def test_rows_and_memories_that_do_not_fit(actor: MetaPPO) -> None:
    observation = actor.env.reset()
    _, memory = actor.predict(observation)
    with pytest.raises(ValueError, match="no observations to act on"):
        actor.predict(observation[:0])
    with pytest.raises(ValueError, match="episode_start is of 1 rows"):
        actor.predict(observation, memory, np.array([True]))
    with pytest.raises(ValueError, match=r"state must be the Memory .* got a tuple"):
        actor.predict(observation, (1, 2))
    assert actor.predict(observation, type(memory)(*map(torch.from_numpy, memory)))[0].shape == (len(observation),)


def test_images_enter_between_zero_and_one() -> None:
    env = DummyVecEnv([lambda: Spaces(spaces.Box(0, 255, (3, 12, 12), np.uint8), spaces.Discrete(4))])
    policy = meta(env).policy
    white = torch.full((1, 3, 12, 12), 255, dtype=torch.uint8)
    assert policy._flat(white, 1).shape == (1, 432) and policy._flat(white, 1).max() == 1.0


def test_actions_must_count_from_zero() -> None:
    with pytest.raises(ValueError, match="actions must count from 0"):
        meta(DummyVecEnv([lambda: Spaces(BOX, spaces.Discrete(3, start=1))]))
