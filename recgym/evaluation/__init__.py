"""How good is a policy? The same tasks and luck for everybody, regrets, normalised scores, intervals."""

from recgym.evaluation.comparison import Summary, evaluate, summarise, tune
from recgym.evaluation.headroom import Headroom, headroom
from recgym.evaluation.statistics import Interval, interval, ratio
from recgym.evaluation.trials import (
    CHUNK,
    TEST_SEED,
    VALIDATION_SEED,
    Policy,
    Shuffled,
    Trials,
    own_luck,
    rollout,
    upper_bounds,
)

__all__ = [
    "CHUNK",
    "TEST_SEED",
    "VALIDATION_SEED",
    "Headroom",
    "Interval",
    "Policy",
    "Shuffled",
    "Summary",
    "Trials",
    "evaluate",
    "headroom",
    "interval",
    "own_luck",
    "ratio",
    "rollout",
    "summarise",
    "tune",
    "upper_bounds",
]
