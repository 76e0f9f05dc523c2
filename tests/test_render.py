"""Pictures of trials, of every registered environment."""

from __future__ import annotations

import itertools
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

import recgym
from recgym.arrays import to_numpy
from recgym.envs import RecEnv
from tests.registry import (
    CASES,
    IDS,
    draw,
    every_device,
    every_id,
    every_mode,
    single,
    vector,
)


# --- pictures --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("id, parameters", [c for c in CASES if not c[1] or {"arms", "prices"} & set(c[1])], ids=str)
def test_pictures_of_a_single_environment(id: str, parameters: dict[str, Any]) -> None:
    pytest.importorskip("matplotlib")
    for mode, kind in (("rgb_array", np.ndarray), ("ansi", str)):
        env = single(id, render_mode=mode, **parameters)
        with pytest.raises(gym.error.ResetNeeded):
            env.render()
        env.reset(seed=1)
        pictures = [env.render()]
        env.step(draw(env.action_space, np.random.default_rng(0)))
        pictures.append(env.render())
        assert all(isinstance(picture, kind) for picture in pictures)
        if mode == "rgb_array":
            assert all(p.dtype == np.uint8 and p.shape == pictures[0].shape and p.shape[2] == 3 for p in pictures)
            assert (pictures[0] != pictures[1]).any()
        else:
            assert "decision 0 of" in pictures[0] and "decision 1 of" in pictures[1]
            scenario = env.unwrapped.scenario
            marked = scenario.panels or scenario.candidate_rewards(env.unwrapped.runner.state)[1] is not None
            assert ">" not in pictures[0] and (">" in pictures[1]) == bool(marked) and "best" in pictures[0]


@every_id
@every_device
def test_pictures_of_a_batch(id: str, device: str) -> None:
    pytest.importorskip("matplotlib")
    for mode, rows in (("rgb_array", 1), ("ansi", 6)):
        env = vector(id, rows, render_mode=mode, horizon=3, device=device, autoreset_mode="SameStep")
        env.reset(seed=1)
        for t in range(5):
            env.step(np.zeros(env.action_space.shape, dtype=np.int64))
            if mode == "rgb_array" and t % 3:
                continue  # a picture is drawn in one trial and in the next
            pictures = env.render()
            assert isinstance(pictures, tuple) and len(pictures) == min(rows, 4)
            if mode == "ansi":
                assert all(f"decision {(t + 1) % 3} of 3" in picture for picture in pictures)
    env.reset(options={"reset_mask": np.arange(rows) == 1})
    assert [f"decision {2 * (row != 1)} of 3" in picture for row, picture in enumerate(env.render())] == [True] * 4
    assert vector(id, 2).render_mode is None


@every_id
@every_device
@every_mode
def test_pictures_follow_the_trial_however_it_is_restarted(id: str, device: str, mode: str) -> None:
    """The number of decisions is the observation's; what is drawn of a trial is what happened in it, and no more."""
    env = vector(id, 5, render_mode="ansi", horizon=3, device=device, autoreset_mode=mode)
    observation, _ = env.reset(seed=1)
    actions = np.random.default_rng(0)
    rewards: list[list[float]] = [[] for _ in range(4)]
    over = np.zeros(5, dtype=bool)
    for call in range(10):
        if call == 2:  # from here on rows differ
            mask = np.arange(5) == 1
            observation, _ = env.reset(options={"reset_mask": mask})
        elif over.any() and mode == AutoresetMode.DISABLED.value:
            observation, _ = env.reset(options={"reset_mask": over})
            over = ~over & False
        else:
            observation, reward, ended, _, _ = env.step(draw(env.single_action_space, actions, 5))
            over = to_numpy(ended).copy()
            for row in range(4):
                rewards[row].append(float(reward[row]))
        made = np.round(3 * to_numpy(env.layout.get(observation, "time"))).astype(int)
        for row, picture in enumerate(env.render()):
            rewards[row] = rewards[row][-made[row] :] if made[row] else []
            assert f"decision {made[row]} of 3" in picture
            path = env._recorder.paths[row]
            assert [moment["decision"] for moment in path] == list(range(made[row] + 1))
            assert [moment["reward"] for moment in path] == [0.0, *rewards[row]]


@pytest.mark.parametrize("id", [id for id in IDS if recgym.make_scenario(id).panels])
@every_device
def test_what_a_scenario_traces_can_be_drawn(id: str, device: str) -> None:
    pytest.importorskip("matplotlib")
    env = vector(id, 1, render_mode="rgb_array", device=device, autoreset_mode="Disabled")
    scenario, actions = env.scenario, np.random.default_rng(0)
    shapes = {series.name: (1, *([len(series.rows)] if series.kind == "map" else []))
              for panel in scenario.panels for series in panel.series}  # fmt: skip
    assert len(scenario.candidate_names or ()) in (0, scenario.layout.candidates)
    env.reset(seed=1)
    pictures = []
    for t in range(scenario.horizon + 1):
        if t in (0, 1, scenario.horizon // 2, scenario.horizon):
            pictures.append(env.render()[0])
            traced = {name: to_numpy(values) for name, values in scenario.trace(env.runner.state).items()}
            assert shapes == {name: traced[name].shape for name in shapes}
            assert all(np.isfinite(values).all() for values in traced.values())
        if t < scenario.horizon:
            env.step(draw(env.single_action_space, actions, 1))
    assert all(picture.shape == pictures[0].shape for picture in pictures)
    assert all((one != other).any() for one, other in itertools.combinations(pictures, 2))
    env.reset(seed=1)
    np.testing.assert_array_equal(env.render()[0], pictures[0])  # nothing is left of the trial before


def test_the_page_that_was_shown_is_seen_as_a_person_sees_it() -> None:
    """Titles in order, what was clicked, and nobody where the user was away."""
    env = vector("RecSlate-v0", 4, render_mode="ansi", leaving=[1, 1], outside=[0, 0])
    env.reset(seed=0)
    page = np.array([[5, 2, 5, 9]] * 4)
    seen = set()
    for _ in range(12):
        offer = env.runner.state.seen.offer
        env.step(page)
        clicks = env.layout.get(env.runner.observation(), "clicked")
        for row, picture in enumerate(env.render()):
            titles = [env.scenario.items.title[offer.item[row, i]] for i in (5, 2, 9)]
            if not offer.present[row]:
                assert "nobody there" in picture
            else:
                lines = picture.splitlines()[-4:-1]
                assert [title in line for title, line in zip(titles, lines, strict=True)] == [True] * 3
                assert ["clicked" in line for line in lines] == [clicks[row, i] > 0 for i in (5, 2, 9)]
            seen.add((bool(offer.present[row]), bool(clicks[row].any())))
    assert seen == {(True, True), (True, False), (False, False)}


@pytest.mark.parametrize("id", [id for id in IDS if recgym.make_scenario(id).candidate_grid is not None])
def test_a_grid_shows_what_was_chosen_and_what_is_best(id: str) -> None:
    """A frame and a dot in the map, each in its colour; no dot where nothing can be had any more."""
    pytest.importorskip("matplotlib")
    env = single(id, render_mode="rgb_array", horizon=4, budget=(0.02, 0.02))
    text = single(id, render_mode="ansi", horizon=4, budget=(0.02, 0.02))
    frame, dot = ((0xE6, 0x9F, 0x00), (0xD5, 0x5E, 0x00))

    def drawn() -> list[bool]:
        picture: Any = env.render()
        maps = picture[:, 3 * picture.shape[1] // 4 :]
        first = maps[: maps.shape[0] // (2 if id == "AdPlacement-v0" else 1)]  # above that of predictions
        return [bool((np.abs(first.astype(int) - color) < 20).all(axis=2).any()) for color in (frame, dot)]

    env.reset(seed=0)
    text.reset(seed=0)
    assert drawn() == [False, True]
    assert "best now" in str(text.render())
    highest = env.unwrapped.scenario.layout.candidates - 1
    for t in range(3):
        for each in (env, text):
            each.step(highest if t else 1)
        left = env.unwrapped.layout.get(env.unwrapped.runner.observation(), "budget")[0]
        assert drawn() == [True, left > 0.0]
        assert ("budget gone" in str(text.render())) == (left == 0.0)
    assert left == 0.0


@every_id
def test_rendering_without_a_mode_warns(id: str) -> None:
    for env in (single(id), vector(id, 2)):
        env.reset(seed=1)
        with pytest.warns(UserWarning, match="render_mode"):
            assert env.render() is None
    with pytest.raises(ValueError, match="render_mode"):
        RecEnv(recgym.SCENARIOS[id].scenario, render_mode="human")
    with pytest.raises(ValueError, match="render_mode"):
        vector(id, 2, render_mode="human")
