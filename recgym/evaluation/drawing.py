"""Tables on the terminal and figures: the libraries that draw them, and what to install where they are missing."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["WIDE", "new_figure", "open_table"]

WIDE = 180  # characters, of tables with many columns


def open_table(title: str, *, width: int = 120) -> tuple[Any, Any]:
    """Give where to print, and an empty table; `width` is that of what is no terminal.

    Raises:
        ImportError: rich is not installed (names the extra).
    """
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError as error:
        raise ImportError("tables are drawn with rich: pip install 'recgym[agents]'") from error
    return Console(width=None if sys.stdout.isatty() else width), Table(title=title)


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
