"""Figures: the library that draws them, and what to install where it is missing."""

from __future__ import annotations

from typing import Any

__all__ = ["new_figure"]


def new_figure(width: float = 8.0, height: float = 5.0, grid: tuple[int, int] | None = None) -> tuple[Any, Any]:
    """Make a matplotlib Figure, `width` x `height` in inches, and its axes: one, or an array [rows, columns] of them.

    Raises:
        ImportError: matplotlib is not installed (names the extra).
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("figures are drawn with matplotlib: pip install 'recgym[plot]'") from error
    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    return figure, figure.subplots(*(grid or (1, 1)), squeeze=grid is None)
