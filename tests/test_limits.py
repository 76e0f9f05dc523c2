"""Files that are whole and signed, and ask for what no training ever asked for: refused before anything is built."""

from __future__ import annotations

import copy
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import recgym
from recgym.agents import archive, load
from recgym.agents.algorithms import ALGORITHMS
from recgym.agents.checkpoint import read, save
from recgym.agents.limits import check_arguments
from recgym.runner import Runner
from tests.registry import every_id, rng_on
from tests.small_checkpoints import SMALL, make


def forged(path: Path, monkeypatch: pytest.MonkeyPatch, header: dict[str, Any], tensors: dict[str, Any]) -> Path:
    """Write what our own writer would refuse."""
    with monkeypatch.context() as patch:
        patch.setattr(archive, "_check_header", lambda header: None)
        return archive.write_archive(path, header, tensors)


WRONG: dict[str, tuple[tuple[str, ...], Any, str]] = {
    "a place to write to": (("arguments", "tensorboard_log"), "/tmp/elsewhere", "tensorboard_log in the header's"),
    "a device": (("arguments", "device"), "cuda", "device in the header's 'arguments' is not for a file to decide"),
    "what is private": (("arguments", "_init_setup_model"), False, "not for a file to decide"),
    "20,000 layers": (("arguments", "policy_kwargs", "layers"), 20_000, r"layers .* must be in \[1, 256\], is 20000"),
    "a wide network": (("arguments", "policy_kwargs", "width"), 10**7, "width .* must be in"),
    "a wide network of SB3": (
        ("arguments", "policy_kwargs", "net_arch"),
        {"pi": [10**6], "vf": [8]},
        "net_arch .* must be",
    ),
    "many layers of SB3": (("arguments", "policy_kwargs", "net_arch"), [8] * 20_000, "net_arch .* has 20,000 parts"),
    "a million environments": (("env", "n_envs"), 2**20, "n_envs in the header must be a whole number in"),
    "a buffer": (("arguments", "buffer_size"), 10**12, "buffer_size .* must be in"),
    "a rollout": (("arguments", "n_steps"), 10**9, "n_steps .* must be in"),
    "passes": (("arguments", "n_epochs"), 10**9, "n_epochs .* must be in"),
    "a negative rate": (("arguments", "learning_rate"), -1.0, "learning_rate .* must be in"),
    "a schedule of nonsense": (("arguments", "learning_rate"), "lin_-3", "learning_rate .* must be in"),
    "a schedule of nothing": (("arguments", "clip_range"), "lin_much", "clip_range .* must be in"),
    "a schedule without end": (("arguments", "learning_rate"), "lin_1e400", "learning_rate .* must be in"),
    "a discount of 7": (("arguments", "gamma"), 7.0, r"gamma .* must be in \[0, 1\], is 7"),
    "nesting": (
        ("arguments", "policy_kwargs"),
        {"a": {"b": {"c": {"d": {"e": {"f": {"g": {"h": {}}}}}}}}},
        "nested more",
    ),
    "too many timesteps": (("num_timesteps",), 2**70, "'num_timesteps' must be at most"),
    "negative timesteps": (("num_timesteps",), -4, "'num_timesteps' must be at least 0"),
    "an evaluation before the beginning": (("counters", "last_evaluation"), -9, "last_evaluation .* must be in"),
    "trials that are none": (("counters", "options"), {"eval_trials": -5}, "eval_trials .* must be in"),
}


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("algo", ALGORITHMS)
def test_what_is_beyond_all_bounds_is_refused_at_once(
    algo: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, value, message = WRONG[kind]
    header, tensors = read(save(tmp_path / "good", make(algo), arguments=SMALL[algo]))
    header = copy.deepcopy({key: part for key, part in header.items() if key != "digest"})
    place: Any = header
    for key in keys[:-1]:
        place = place.setdefault(key, {})
    place[keys[-1]] = value
    with pytest.raises(ValueError, match=message):  # what is refused when read is not written
        archive.write_archive(tmp_path / "forged", header, tensors)
    path = forged(tmp_path / "forged", monkeypatch, header, tensors)
    started = time.monotonic()
    with pytest.raises(ValueError, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value) and time.monotonic() - started < 2.0


def test_tuned_values_are_within_bounds() -> None:
    for algo, arguments in SMALL.items():
        check_arguments(arguments)
        assert algo in ALGORITHMS


def test_where_logs_go_is_never_written(tmp_path: Path) -> None:
    arguments = {**SMALL["ppo"], "tensorboard_log": str(tmp_path), "verbose": 1}
    header = read(save(tmp_path / "agent", make("ppo"), arguments=arguments))[0]
    assert not {"tensorboard_log", "verbose"} & set(header["arguments"])
    assert load(tmp_path / "agent").tensorboard_log is None
    assert load(tmp_path / "agent", tensorboard_log="here").tensorboard_log == "here"


@every_id
def test_states_that_no_trial_is_in_are_refused(id: str) -> None:
    """Click rates of 7, a clock beyond the end, tasks outside of their space: by name, and nothing has changed."""
    scenario = recgym.make_scenario(id, horizon=6)
    runner = Runner(scenario, 3, rng_on("cpu", 1), autoreset_mode="SameStep")
    runner.reset()
    good = runner.snapshot()
    runner.restore(good)
    for name, values in good.items():
        field = name.rpartition(".")[2]
        space = scenario.task_space.spaces.get(field) if name.startswith("state.task") else None
        wrong = [("not finite", np.nan)] if values.dtype.kind == "f" and values.size else []
        if space is not None and values.size and np.isfinite(space.high).all() and values.dtype.kind == "f":
            wrong.append(("numbers outside of", 1.001 * float(np.max(space.high)) + 7.0))
        if name == "state.seen.time":
            wrong += [("numbers outside of", 7.0), ("numbers outside of", -1.0)]
        if name == "counters":
            wrong.append(("counters", -5))
        for message, value in wrong:
            bad = {**good, name: np.full_like(values, value)}
            with pytest.raises(ValueError, match=message):
                runner.restore(bad)
    for name, values in runner.snapshot().items():
        np.testing.assert_array_equal(values, good[name])


@pytest.mark.parametrize("name", ["env.state.hidden.rates", "env.state.task.rates", "last.observation"])
def test_a_training_checkpoint_with_click_rates_of_seven(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make("ppo")
    model.learn(60)
    header, tensors = read(save(tmp_path / "good", model, arguments=SMALL["ppo"], training=True))
    tensors = {**tensors, name: torch.full_like(tensors[name], 7.0)}
    path = archive.write_archive(tmp_path / "bad", {k: v for k, v in header.items() if k != "digest"}, tensors)
    with pytest.raises(ValueError, match="outside of") as caught:
        load(path, resume=True)
    assert str(path) in str(caught.value)
