"""What a log says of a policy that did not write it: estimators, what they assume, and whether the log agrees."""

from recgym.evaluation.offpolicy.assumptions import Finding, enough_clicks, overlap, propensities, steady, uniform
from recgym.evaluation.offpolicy.estimators import (
    ESTIMATORS,
    Estimate,
    counted_propensity,
    importance_weights,
    off_policy,
)
from recgym.evaluation.offpolicy.replaying import Replay, replay
from recgym.evaluation.offpolicy.report import off_policy_report, print_off_policy

__all__ = [
    "ESTIMATORS",
    "Estimate",
    "Finding",
    "Replay",
    "counted_propensity",
    "enough_clicks",
    "importance_weights",
    "off_policy",
    "off_policy_report",
    "overlap",
    "print_off_policy",
    "propensities",
    "replay",
    "steady",
    "uniform",
]
