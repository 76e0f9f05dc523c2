"""How good is a policy? The same tasks and luck for everybody, regrets, normalised scores, intervals."""

from recgym.evaluation.comparison import Comparison, evaluate, tune
from recgym.evaluation.groups import Cut, cut_figure, cut_json, print_cut
from recgym.evaluation.headroom import Headroom, headroom
from recgym.evaluation.luck import own_luck
from recgym.evaluation.statistics import Interval, interval, ratio
from recgym.evaluation.summary import Summary, summarise
from recgym.evaluation.trials import (
    ARGMAX,
    CHUNK,
    PRETRAINED,
    TEST_SEED,
    VALIDATION_SEED,
    Policy,
    Shuffled,
    Trials,
    action_shares,
    rollout,
    upper_bounds,
)

__all__ = [
    "ARGMAX",
    "CHUNK",
    "PRETRAINED",
    "TEST_SEED",
    "VALIDATION_SEED",
    "Comparison",
    "Cut",
    "Headroom",
    "Interval",
    "Policy",
    "Shuffled",
    "Summary",
    "Trials",
    "action_shares",
    "cut_figure",
    "cut_json",
    "evaluate",
    "headroom",
    "interval",
    "own_luck",
    "print_cut",
    "ratio",
    "rollout",
    "summarise",
    "tune",
    "upper_bounds",
]
