"""What pictures show of a trial's course."""

from __future__ import annotations

from typing import Literal, NamedTuple

__all__ = ["Panel", "Series"]


class Series(NamedTuple):
    """Numbers over the decisions of a trial, as pictures show them.

    A "line" and an "area" are levels, known before the first decision and after each. The others belong to a decision:
    "step" is held while it lasts, "bars" stand on zero, and "band" is a share, 0 to 1, that shades the panel. A "map"
    has several levels at once, a stripe for each of `rows`, and a panel of its own.
    """

    name: str  # of the values in `Scenario.trace`
    label: str
    kind: Literal["line", "area", "step", "bars", "band", "map"]
    rows: tuple[str, ...] = ()  # names of what a map shows


class Panel(NamedTuple):
    """Series that share an axis; the first is drawn over the others."""

    title: str  # of the axis, with its unit
    series: tuple[Series, ...]
