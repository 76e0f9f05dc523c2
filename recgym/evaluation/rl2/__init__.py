"""The published table of RL^2 and SNAIL: nine sizes of Bernoulli bandit, their numbers beside those measured here."""

from recgym.evaluation.rl2.playing import SuiteAgent, play_suite, seeds_of
from recgym.evaluation.rl2.published import BASELINES, RL2, PublishedCell, make_cell
from recgym.evaluation.rl2.tables import markdown, print_tables

__all__ = [
    "BASELINES",
    "RL2",
    "PublishedCell",
    "SuiteAgent",
    "make_cell",
    "markdown",
    "play_suite",
    "print_tables",
    "seeds_of",
]
