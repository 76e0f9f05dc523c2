"""The published results: every shipped agent beside every baseline, at home and where its problem is shifted.

Each cell, an environment with parameters, is measured once and kept as JSON. It says what it was made from, so that a
run that was cut off goes on, and a cell whose agent or scenario has changed is measured again.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import recgym
from recgym.agents.players import load_player
from recgym.agents.pretrained import agent_file, agent_ids
from recgym.baselines import baselines_for, family_of
from recgym.evaluation.report import compare, curves_figure
from recgym.evaluation.trials import ARGMAX, PRETRAINED
from recgym.files import write_json

__all__ = [
    "AGENT",
    "FORMAT",
    "Cell",
    "Disagreement",
    "cells",
    "check_cell",
    "data_file",
    "is_current",
    "measure_cell",
    "read_cell",
]

AGENT = "MetaPPO"  # what tables call a shipped agent, which samples its actions
FORMAT = 1  # of a cell's file
SEED = 0  # of the held-out tasks
Z = 4.5  # standard errors: of some hundred comparisons none is further off by chance in 99 of 100 checks
Z95 = 1.959963984540054


class Cell(NamedTuple):
    """What is measured at once."""

    env: str
    parameters: Mapping[str, Any]  # {}: the preset as it is, where its agent was trained

    @property
    def name(self) -> str:
        """As files and messages call it."""
        values = (f"{key}={json.dumps(value)}" for key, value in self.parameters.items())
        return re.sub(r"[^\w.=,-]", "", "-".join((self.env, *values)))


class Disagreement(NamedTuple):
    """A published figure that a check does not find again."""

    cell: str
    policy: str
    figure: str  # return, normalised
    published: float
    found: float
    errors: float  # standard errors of the difference between them


def cells(only: str = "") -> list[Cell]:
    """Every registered environment, each followed by its shifted forms; those of a reference problem are left out.

    Args:
        only: of environments that have this in their id.

    Raises:
        ValueError: none has (says what there is).
    """
    chosen = []
    for env, preset in recgym.SCENARIOS.items():
        if only in env:
            chosen += [Cell(env, parameters) for parameters in ({}, *(() if preset.reference else preset.shifted))]
    if not chosen:
        raise ValueError(f"no environment has {only!r} in its id; there are {', '.join(recgym.SCENARIOS)}")
    return chosen


def data_file(folder: Path, cell: Cell) -> Path:
    return folder / "data" / f"{cell.name}.json"


def source_of(cell: Cell, trials: int) -> dict[str, Any]:
    """What a cell's figures depend on, as JSON holds it: another value of any of it is another result."""
    scenario = recgym.make_scenario(cell.env, **cell.parameters)
    weights = agent_file(cell.env).read_bytes() if cell.env in agent_ids() else b""
    source = {
        "format": FORMAT,
        "scenario": asdict(scenario),  # type: ignore[call-overload]
        "baselines": [name for name in baselines_for(scenario) if name != "informed"],
        "agent": hashlib.sha256(weights).hexdigest() if weights else None,
        "trials": trials,
        "seed": SEED,
    }
    held: dict[str, Any] = json.loads(json.dumps(source))
    return held


def is_current(folder: Path, cell: Cell, trials: int) -> bool:
    """Whether the cell's file is there, and made from what is there now."""
    path = data_file(folder, cell)
    return path.exists() and read_cell(path)["made_from"] == source_of(cell, trials)


def read_cell(path: Path) -> dict[str, Any]:
    """Read a cell's file.

    Raises:
        ValueError: it is none (says which file, and what to do).
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        if content["made_from"]["format"] == FORMAT and content["report"]["policies"]:
            return content
    except (KeyError, TypeError, ValueError):
        pass
    raise ValueError(f"{path} holds no results of this version: delete it, and `make results` measures it again")


def measure_cell(folder: Path, cell: Cell, *, trials: int, device: str = "cpu") -> None:
    """Play every baseline and the shipped agent; write the cell's JSON, and at home its figure.

    Args:
        folder: where results lie.
        cell: what is measured.
        trials: per policy.
        device: of the agent.
    """
    scenario = recgym.make_scenario(cell.env, **cell.parameters)
    source = source_of(cell, trials)
    comparison, report = _play(cell, scenario, trials, device)
    if not cell.parameters:
        shown = {name: trials for name, trials in comparison.trials.items() if name in _drawn(cell.env, scenario)}
        title = f"{cell.env}, {trials:,} held-out trials"
        figure = curves_figure(shown, scenario, title=title, emphasise=[AGENT])
        folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(folder / f"{cell.env}.png", dpi=110)
    write_json(data_file(folder, cell), {"made_from": source, "report": report})


def _play(cell: Cell, scenario: Any, trials: int, device: str) -> tuple[Any, dict[str, Any]]:
    players: dict[str, Any] = {name: None for name, each in baselines_for(scenario).items() if each.kind != "informed"}
    if cell.env in agent_ids():
        for ending in ("", ARGMAX):
            players[AGENT + ending] = load_player(PRETRAINED + cell.env, scenario, device=device)
    parameters = dict(cell.parameters)
    comparison, report = compare(scenario, players, env=cell.env, parameters=parameters, trials=trials, seed=SEED)
    for policy in report["policies"].values():
        if policy["kind"] != "agent":  # what is published are the agents' differences to the others
            del policy["versus"]
    return comparison, report


def _drawn(env: str, scenario: Any) -> set[str]:
    """Policies that the figure shows, so that it can be read: the random and the informed ones are its ends."""
    return {*family_of(scenario).shown, "informed", "random", AGENT}


def check_cell(folder: Path, cell: Cell, *, trials: int, device: str = "cpu") -> Iterator[Disagreement]:
    """Play a cell in fewer trials; yields what is further from the published figures than chance would have it.

    Args:
        folder: where results lie.
        cell: one that is there.
        trials: per policy.
        device: of the agent.
    """
    published = read_cell(data_file(folder, cell))["report"]["policies"]
    found = _play(cell, recgym.make_scenario(cell.env, **cell.parameters), trials, device)[1]["policies"]
    for policy, figures in found.items():
        for name in ("return", "normalised"):
            there, here = published.get(policy, {}).get(name), figures.get(name)
            if here is None and there is None:
                continue
            if here is None or there is None:
                yield Disagreement(cell.name, policy, name, math.nan, math.nan, math.inf)
                continue
            error = math.hypot(_error(there), _error(here))
            distance = abs(here["mean"] - there["mean"])
            if distance > Z * error + 1e-9:
                errors = distance / error if error else math.inf
                yield Disagreement(cell.name, policy, name, there["mean"], here["mean"], errors)


def _error(figure: Mapping[str, float]) -> float:
    """Standard error of a figure with a 95 % interval."""
    return (figure["high"] - figure["low"]) / (2 * Z95)
