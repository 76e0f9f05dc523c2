"""Feedback that comes from outside: what cannot be."""

from __future__ import annotations

from typing import Any

import numpy as np

from recgym.scenario import Seen
from recgym.scenarios.slate.choice import first_places

__all__ = ["impossible_feedback"]


def impossible_feedback(choice: str, seen: Seen, action: np.ndarray, feedback: Any) -> str:
    """Why `feedback` cannot follow the page `action` [B, k]; "" where it can.

    Args:
        choice: name of the choice model.
        seen: before the page.
        action: [B, k].
        feedback: clicks and values [B, k], NumPy.
    """
    click = np.asarray(feedback.click)
    several = click.sum(axis=1) > 1
    wrong = {
        "a click while the user is away": click.any(axis=1) & ~np.asarray(seen.offer.present),
        "a click at a place that is empty, as its item stands above": (click & ~first_places(action)).any(axis=1),
        "a value where nothing was clicked": ((np.asarray(feedback.value) != 0.0) & ~click).any(axis=1),
        f"several clicks, of which choice={choice!r} has one at most": several & (choice != "position"),
    }
    for what, rows in wrong.items():
        if rows.any():
            return f"row {int(rows.argmax())} has {what}"
    return ""
