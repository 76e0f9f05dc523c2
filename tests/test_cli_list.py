"""The command that lists environments, baselines and parameters."""

from __future__ import annotations

from typing import Any

import pytest

import recgym
from recgym.baselines import baselines_for
from recgym.parameters import parameter_lines


def test_lists_every_environment(command: Any) -> None:
    lines = command("list").splitlines()
    assert [line.split()[0] for line in lines] == list(recgym.SCENARIOS)
    assert all(len(line.split(maxsplit=1)[1]) > 20 for line in lines)


@pytest.mark.parametrize("env_id", recgym.SCENARIOS)
def test_says_all_there_is_to_know_of_one(env_id: str, command: Any) -> None:
    words = command("list", env_id).split()
    printed = " ".join(words)
    scenario = recgym.make_scenario(env_id)
    for name, baseline in baselines_for(scenario).items():
        assert f"{name} {baseline.kind} {baseline.meaning}" in printed
    for line in parameter_lines(type(scenario)):
        assert " ".join(line.split()) in printed
    for name, value in recgym.SCENARIOS[env_id].parameters.items():
        assert f"{name}={value!r}".replace(" ", "") in "".join(words)


def test_says_who_cannot_play(command: Any) -> None:
    assert "\nwithout gittins: " in command("list", "RecBandit-v0", "--param", "horizon=4000")
    assert "\nwithout " not in command("list", "RecBandit-v0")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["RecBandid-v0"], "did you mean 'RecBandit-v0'"),
        (["RecBandit-v0", "--param", "armz=3"], "did you mean 'arms'"),
        (["RecBandit-v0", "--markdown", "--param", "arms=3"], "leave --param out"),
        (["--param", "arms=3"], "name it"),
    ],
)
def test_bad_input_gets_one_error(arguments: list[str], message: str, command: Any) -> None:
    error = command("list", *arguments, code=2)
    assert error.startswith("error: ") and message in error


def test_the_command_helps_and_has_a_version(command: Any) -> None:
    assert command("--version") == f"recgym {recgym.__version__}\n"
    printed = command("--help")
    for name in ("train", "evaluate", "benchmark", "list"):
        assert f"\n  {name} " in printed
    assert "invalid choice: 'trane'" in command("trane", code=2)
