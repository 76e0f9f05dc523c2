"""What makes a log of sales doubtful though it can be read: units, and rows that repeat. Warned of, never refused."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from recgym.data.reading import Column
from recgym.data.sources import shortened

__all__ = ["ROW_OF", "doubt_repeated", "doubt_units"]

LOG_LIKE = 25.0  # e^25 units are more than anybody sells
MIXED = 50.0  # times the usual price, or less than that part of it
MOST_NAMED = 5  # products that a message lists
MOST_REPEATED = 0.01  # share of the rows
PERIODS = ("date", "day", "week", "month", "year", "period")
SHOPS = ("store", "shop")
CALLER = 3  # whose line a warning shows: who reads the log


def _text(name: str) -> Column:
    """A column of any text, where a table has it; the same text is kept once."""
    anything = Column((name, name.capitalize()), lambda text: sys.intern(text.strip()), np.object_, _all, "text")
    return anything._replace(optional=True)


def _all(column: np.ndarray) -> np.ndarray:
    return np.ones(len(column), dtype=bool)


ROW_OF = {name: _text(name) for name in (*PERIODS, *SHOPS)}  # columns that say of which period and shop a row is


def doubt_units(
    path: str, products: Sequence[str], places: Sequence[np.ndarray], sales: np.ndarray, price: np.ndarray
) -> None:
    """Warn of sales and prices that look as if they were in other units than they should be.

    Args:
        path: of the log.
        products: names.
        places: the rows of each, indices.
        sales: [N] units.
        price: [N] money.
    """
    fractions = sales % 1.0
    if sales.max() < LOG_LIKE and np.mean((fractions > 0.01) & (fractions < 0.99)) > 0.5:
        said = f"sales are fractions up to {sales.max():.3g}, as logarithms are: units sold are wanted"
        warnings.warn(f"{path}: {said}", stacklevel=CALLER)
    mixed = []
    for name, at in zip(products, places, strict=True):
        usual = np.median(price[at])
        if price[at].max() > MIXED * usual or usual > MIXED * price[at].min():
            mixed.append(shortened(name))
    if mixed:
        more = f" and {len(mixed) - MOST_NAMED:,} more" if len(mixed) > MOST_NAMED else ""
        named = f"{', '.join(mixed[:MOST_NAMED])}{more}"
        said = f"prices of {named} differ by a factor of {MIXED:g} and more, as if some were in hundredths"
        warnings.warn(f"{path}: {said}", stacklevel=CALLER)


def doubt_repeated(path: str, product: np.ndarray, row_of: Mapping[str, np.ndarray]) -> None:
    """Warn of several rows of one product and period, each of which is taken for the sales of a period.

    Args:
        path: of the log.
        product: [N] int64.
        row_of: [N] text of those of `ROW_OF` that the log has.
    """
    if not set(row_of) - set(SHOPS):
        return
    place = product
    for column in row_of.values():
        codes = np.unique(column, return_inverse=True)[1]
        place = np.unique(place * (codes.max() + 1) + codes, return_inverse=True)[1]
    repeated = len(place) - len(np.unique(place))
    if repeated > MOST_REPEATED * len(place):
        said = f"{repeated:,} of {len(place):,} rows repeat product, {', '.join(row_of)}"
        what = "each is taken for the sales of a period: add them up, or tell shops apart in a column 'store' or 'shop'"
        warnings.warn(f"{path}: {said}: {what}", stacklevel=CALLER)
