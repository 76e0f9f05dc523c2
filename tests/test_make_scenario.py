"""From names to scenarios: every way to name one, and one clear error for what names none."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import pytest

import recgym
from recgym.envs import RecEnv, RecVectorEnv
from recgym.parameters import class_of
from recgym.scenario import Scenario
from recgym.scenarios.bandit import Bandit


@pytest.fixture
def register() -> Iterator[Callable[..., None]]:
    """`gymnasium.register` for one test."""
    before = dict(gymnasium.registry)
    yield gymnasium.register
    gymnasium.registry.clear()
    gymnasium.registry.update(before)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Write a module that can be imported."""
    monkeypatch.syspath_prepend(tmp_path)
    return lambda name, text: (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")


class Undecorated(Scenario):
    """Lacks its decorator."""

    horizon: int = 3


@dataclass(frozen=True)
class Bare(Scenario):
    """A field of it has no default."""

    horizon: int


def refused(problem: Any, *parts: str, **parameters: Any) -> None:
    """One line that has all the parts."""
    with pytest.raises(ValueError, match=re.escape(parts[0])) as caught:
        recgym.make_scenario(problem, **parameters)
    assert type(caught.value) is ValueError and "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


def test_every_way_to_name_a_scenario(register: Callable[..., None]) -> None:
    vector = {"vector_entry_point": RecVectorEnv, "kwargs": {"scenario": "RecBandit-v0", "arms": 4}}
    register("OwnBandit-v0", entry_point="recgym.envs:RecEnv", **vector)
    register("ClassBandit-v0", entry_point=RecEnv, **vector)
    register("LongBandit-v0", entry_point=RecEnv, kwargs={"scenario": "ClassBandit-v0", "horizon": 9})
    scenario = recgym.make_scenario("RecBandit-v0", arms=4)
    for name in ("OwnBandit-v0", "ClassBandit-v0"):
        assert recgym.make_scenario(name) == scenario == gymnasium.make(name).unwrapped.scenario  # type: ignore[attr-defined]
    for problem in ("RecBandit-v0", "recgym:RecBandit-v0", "recgym.scenarios.bandit:Bandit", Bandit(horizon=3)):
        assert recgym.make_scenario(problem, arms=4, horizon=9) == recgym.make_scenario("LongBandit-v0")


def test_names_of_nothing() -> None:
    refused("RecBandit-v9", "no environment 'RecBandit-v9'; did you mean 'RecBandit-v0'?")
    refused("CartPole-v1", "is an environment, but not of recgym's")
    refused(["RecBandit-v0"], "a scenario is no list")
    refused("recgym.scenario:Scenario", "'recgym.scenario:Scenario' is no scenario class: there are RecBandit-v0,")
    refused("recgym.envs:RecEnv", "'recgym.envs:RecEnv' is no scenario class")


@pytest.mark.parametrize("name", ["..foo:Bar", ":Bar", "recgym:", "no_such_module:Bar", "recgym.scenarios.bandit:Bar"])
def test_what_cannot_be_imported(name: str) -> None:
    refused(name, f"{name!r} cannot be imported (", "there are RecBandit-v0,")


@pytest.mark.parametrize(
    "text, what, line",
    [
        ("def (:\n", "SyntaxError: ", r"line 1\)"),
        ("x = 1\nraise RuntimeError('boom')\n", "RuntimeError: boom, ", r"broken_2\.py:2\)"),
        ("import sys\nsys.exit(3)\n", "SystemExit: 3, ", r"broken_3\.py:2\)"),
    ],
)
def test_a_module_that_is_broken(text: str, what: str, line: str, module: Callable[[str, str], None]) -> None:
    name = {"def": "broken_1", "x =": "broken_2", "imp": "broken_3"}[text[:3]]
    module(name, text)
    refused(f"{name}:Bar", f"'{name}:Bar' cannot be imported ({what}")
    with pytest.raises(ValueError, match=line) as caught:
        class_of(f"{name}:Bar")
    assert type(caught.value.__cause__).__name__ == what.partition(":")[0]


def test_classes_that_are_not_finished() -> None:
    here = __name__
    refused(f"{here}:Undecorated", f"{here}:Undecorated is no dataclass: write @dataclass(frozen=True) above it")
    refused(Undecorated(), "Undecorated is no dataclass", horizon=4)
    refused(f"{here}:Bare", "Bare needs horizon, which has no default: give it, or its field one")
    assert recgym.make_scenario(f"{here}:Bare", horizon=5) == Bare(5)


def test_ids_that_name_themselves(register: Callable[..., None]) -> None:
    register("Loop-v0", entry_point="recgym.envs:RecEnv", kwargs={"scenario": "Loop-v0"})
    register("Ping-v0", entry_point="recgym.envs:RecEnv", kwargs={"scenario": "Pong-v0"})
    register("Pong-v0", entry_point="recgym.envs:RecEnv", kwargs={"scenario": "Ping-v0"})
    refused("Loop-v0", "'Loop-v0' is registered with itself as its scenario (Loop-v0 -> Loop-v0)")
    refused("Ping-v0", "(Ping-v0 -> Pong-v0 -> Ping-v0)")
    with pytest.raises(ValueError, match=re.escape("(Loop-v0 -> Loop-v0)")):
        gymnasium.make("Loop-v0")
