"""The published results: every shipped agent beside every baseline, at home and where its problem is shifted.

Each cell, an environment with parameters or a size of the published table, is measured once and kept as JSON. It says
what it was made from, so that a run that was cut off goes on, and a cell is measured again when its agent or scenario
has changed.
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
from recgym.agents.players import load_player, suite_player
from recgym.agents.pretrained import agent_file, agent_files, agent_ids
from recgym.baselines import baselines_for, family_of
from recgym.evaluation import rl2
from recgym.evaluation.report import compare, curves_figure
from recgym.evaluation.statistics import Z95
from recgym.evaluation.trials import ARGMAX, PRETRAINED
from recgym.files import write_json
from recgym.terminal import progress

__all__ = [
    "AGENT",
    "FORMAT",
    "SUITE",
    "Cell",
    "Disagreement",
    "PublishedSize",
    "cells",
    "check_cell",
    "data_file",
    "env_cells",
    "is_current",
    "measure_cell",
    "read_cell",
    "sizes",
]

AGENT = "MetaPPO"  # what tables call a shipped agent, which samples its actions
SUITE = "rl2"  # the published table
FORMAT = 1  # of a cell's file
SEED = 0  # of the held-out tasks
Z = 4.5  # standard errors: of some hundred comparisons none is further off by chance in 99 of 100 checks


class Cell(NamedTuple):
    """An environment in which all policies play."""

    env: str
    parameters: Mapping[str, Any]  # {}: the preset as it is, where its agent was trained

    @property
    def name(self) -> str:
        """As files and messages call it."""
        values = (f"{key}={json.dumps(value)}" for key, value in self.parameters.items())
        return re.sub(r"[^\w.=,-]", "", "-".join((self.env, *values)))

    def depends_on(self) -> dict[str, Any]:
        """What its figures are made from."""
        scenario = recgym.make_scenario(self.env, **self.parameters)
        return {
            "scenario": asdict(scenario),  # type: ignore[call-overload]
            "baselines": [name for name in baselines_for(scenario) if name != "informed"],
            "agent": _digest(self.env) if self.env in agent_ids() else None,
        }

    def play(self, trials: int, device: str) -> tuple[dict[str, Any], Any]:
        """Play every baseline and the shipped agent; returns the report, and at home a figure, else None."""
        scenario = recgym.make_scenario(self.env, **self.parameters)
        known = baselines_for(scenario)
        players: dict[str, Any] = dict.fromkeys(name for name in known if name != "informed")
        if self.env in agent_ids():
            for ending in ("", ARGMAX):
                players[AGENT + ending] = load_player(PRETRAINED + self.env, scenario, device=device)
        parameters = dict(self.parameters)
        comparison, report = compare(scenario, players, env=self.env, parameters=parameters, trials=trials, seed=SEED)
        for policy in report["policies"].values():
            if policy["kind"] != "agent":  # what is published are the agents' differences to the others
                del policy["versus"]
        if self.parameters:
            return report, None
        drawn = {*family_of(scenario).shown, "informed", "random", AGENT}  # few enough to be read
        shown = {name: played for name, played in comparison.trials.items() if name in drawn}
        return report, curves_figure(
            shown, scenario, title=f"{self.env}, {trials:,} held-out trials", emphasise=[AGENT]
        )

    def figures(self, report: Mapping[str, Any]) -> dict[tuple[str, str], Mapping[str, float]]:
        """What a check compares, by policy and figure."""
        return {
            (policy, name): figures[name]
            for policy, figures in report["policies"].items()
            for name in ("return", "normalised")
            if figures.get(name)
        }


class PublishedSize(NamedTuple):
    """A size of the published table of RL^2 and SNAIL."""

    cell: rl2.PublishedCell

    @property
    def name(self) -> str:
        return f"{SUITE}-{self.cell.pulls},{self.cell.arms}"

    def depends_on(self) -> dict[str, Any]:
        return {"cell": self.cell._asdict(), "agents": {name: _digest(name) for name in suite_agents()}}

    def play(self, trials: int, device: str) -> tuple[dict[str, Any], Any]:
        agents = {
            name.removeprefix(f"{SUITE}/"): suite_player(PRETRAINED + name, deterministic=False, device=device)
            for name in suite_agents()
        }
        with progress("decisions") as advance:

            def show(what: str, done: int, total: int) -> None:
                advance(done, total, what)

            return rl2.play_suite(agents, cells=[self.cell], trials=trials, seed=SEED, on_step=show), None

    def figures(self, report: Mapping[str, Any]) -> dict[tuple[str, str], Mapping[str, float]]:
        return {
            (policy, "return"): figures["value"]
            for policy, figures in report["cells"][0]["policies"].items()
            if figures.get("value")
        }


class Disagreement(NamedTuple):
    """A published figure that a check does not find again."""

    cell: str
    policy: str
    figure: str  # return, normalised
    published: float
    found: float
    errors: float  # standard errors of the difference between them


def env_cells(only: str = "") -> list[Cell]:
    """Every registered environment, each followed by its shifted forms; those of a reference problem are left out.

    Args:
        only: of environments that have this in their id.
    """
    return [
        Cell(env, parameters)
        for env, preset in recgym.SCENARIOS.items()
        if only in env
        for parameters in ({}, *(() if preset.reference else preset.shifted))
    ]


def sizes() -> list[PublishedSize]:
    """Those of the published table."""
    return [PublishedSize(cell) for cell in rl2.RL2]


def suite_agents() -> list[str]:
    """Names under which the agents of the published table ship."""
    return [name for name in agent_files() if name.startswith(f"{SUITE}/")]


def cells(only: str = "") -> list[Cell | PublishedSize]:
    """Everything that is measured.

    Args:
        only: of environments that have this in their id; "rl2" is the published table.

    Raises:
        ValueError: none has (says what there is).
    """
    chosen = [*env_cells(only), *(sizes() if only in SUITE else ())]
    if not chosen:
        raise ValueError(f"no environment has {only!r} in its id; there are {', '.join(recgym.SCENARIOS)}, {SUITE}")
    return chosen


def data_file(folder: Path, cell: Cell | PublishedSize) -> Path:
    return folder / "data" / f"{cell.name}.json"


def source_of(cell: Cell | PublishedSize, trials: int) -> dict[str, Any]:
    """What a cell's figures depend on, as JSON holds it: another value of any of it is another result."""
    source = {"format": FORMAT, "trials": trials, "seed": SEED, **cell.depends_on()}
    held: dict[str, Any] = json.loads(json.dumps(source))
    return held


def is_current(folder: Path, cell: Cell | PublishedSize, trials: int) -> bool:
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


def measure_cell(folder: Path, cell: Cell | PublishedSize, *, trials: int, device: str = "cpu") -> None:
    """Play a cell; write its JSON, and its figure where it has one.

    Args:
        folder: where results lie.
        cell: what is measured.
        trials: per policy.
        device: of the agents.
    """
    source = source_of(cell, trials)
    report, figure = cell.play(trials, device)
    if figure is not None:
        folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(folder / f"{cell.name}.png", dpi=110)
    write_json(data_file(folder, cell), {"made_from": source, "report": report})


def check_cell(folder: Path, cell: Cell | PublishedSize, *, trials: int, device: str = "cpu") -> Iterator[Disagreement]:
    """Play a cell in fewer trials; yields what is further from the published figures than chance would have it.

    Args:
        folder: where results lie.
        cell: one that is there.
        trials: per policy.
        device: of the agents.
    """
    published = cell.figures(read_cell(data_file(folder, cell))["report"])
    found = cell.figures(cell.play(trials, device)[0])
    for key in dict.fromkeys((*published, *found)):
        there, here = published.get(key), found.get(key)
        if here is None or there is None:
            was, now = (each["mean"] if each else math.nan for each in (there, here))
            yield Disagreement(cell.name, *key, was, now, math.inf)
            continue
        error = math.hypot(_error(there), _error(here))
        distance = abs(here["mean"] - there["mean"])
        if distance > Z * error + 1e-9:
            yield Disagreement(cell.name, *key, there["mean"], here["mean"], distance / error if error else math.inf)


def _error(figure: Mapping[str, float]) -> float:
    """Standard error of a figure with a 95 % interval."""
    return (figure["high"] - figure["low"]) / (2 * Z95)


def _digest(agent: str) -> str:
    """Of the weights that ship under a name."""
    return hashlib.sha256(agent_file(agent).read_bytes()).hexdigest()
