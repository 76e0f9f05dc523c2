"""Pages of items for users who get bored, lose trust, leave and come back."""

from __future__ import annotations

from typing import Any

from recgym.scenarios.slate.slate import Slate, SlateFeedback, SlateOffer
from recgym.scenarios.slate.users import SlateTask

__all__ = ["LONG_TERM_SATISFACTION", "Slate", "SlateFeedback", "SlateOffer", "SlateTask"]

# RecSim's long-term satisfaction (Ie et al. 2019): one item a decision, always consumed; the more it is clickbait, the
# more it earns now and the less later. Its users differ in how much: `sensitivity` decides which policy is best.
LONG_TERM_SATISFACTION: dict[str, Any] = {
    "places": 1,
    "candidates": 10,
    "outside": (-12.0, -12.0),
    "beta": 0.0,
    "leaving": (0.0, 0.0),
    "satiation": (0.0, 0.0),
    "memory": (0.9, 0.9),
    "sensitivity": (0.0, 0.2),
    "hint_noise": 0.0,
    "cold": 0.0,
}
