"""What is published of the table: total rewards of nine sizes of Bernoulli bandit, and how the scenario of one is made.

The numbers and their sources are in `published.toml`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import recgym
from recgym.scenario import Scenario

__all__ = ["BASELINES", "LEARNERS", "PRIOR", "REFERENCE_BASELINE", "RL2", "SOURCES", "PublishedCell", "make_cell"]

ENV = "RecBandit-v0"
PRIOR = (1.0, 1.0)  # all click rates are uniform on [0, 1]: the best of k has mean k / (k + 1)
BASELINES = {  # that always play, and how tables call them
    "random": "random",
    "greedy": "greedy",
    "epsilon_greedy": "ε-greedy",
    "ucb1_tuned": "UCB1",
    "thompson": "TS",
    "ots": "OTS",
    "gittins": "FHGI",
}
REFERENCE_BASELINE = "gittins"  # differences are to it
LEARNERS = {"rl2": "RL²", "snail": "SNAIL"}  # of which only published numbers are known


class PublishedCell(NamedTuple):
    """One size of bandit, and what is known of it."""

    pulls: int  # decisions n
    arms: int  # k
    published: Mapping[str, float]  # total reward, by a name of `BASELINES` or `LEARNERS`
    bound: float | None  # no policy's value is higher; None where only n k / (k + 1) is known
    exact: bool  # the best policy's value is that number

    @property
    def informed(self) -> float:
        """Value of a policy that knows the task: no policy's is higher."""
        return self.pulls * self.arms / (self.arms + 1)

    @property
    def name(self) -> str:
        """Call the cell by its size."""
        return f"n={self.pulls} k={self.arms}"


def make_cell(cell: PublishedCell, *, statistics: bool) -> Scenario:
    """Make the scenario of a cell. Tasks and luck of a seed do not depend on `statistics`."""
    return recgym.make_scenario(ENV, arms=cell.arms, horizon=cell.pulls, prior=PRIOR, statistics=statistics)


def _read_cell(size: Mapping[str, Any], policies: list[str]) -> PublishedCell:
    rewards = dict(zip(policies, size["rewards"], strict=True))
    return PublishedCell(size["pulls"], size["arms"], rewards, size.get("bound"), size.get("exact", False))


_FILE = tomllib.loads(Path(__file__).with_name("published.toml").read_text(encoding="utf-8"))
SOURCES: str = _FILE["sources"]
RL2 = tuple(_read_cell(size, _FILE["policies"]) for size in _FILE["sizes"])
