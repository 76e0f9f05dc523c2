"""Columns of tables, with errors that say where the table is wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from itertools import islice
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

from recgym.data.sources import label_of, shortened, table_rows

__all__ = ["Column", "moment", "number", "read_columns", "seconds", "spellings", "whole"]

MOST_NAMED = 12  # columns of a header that an error lists
MOST_EXACT = 2**53  # whole number in a float
BLOCK = 8192  # rows converted at a time: 44 columns as strings take about 20 MB


class Column(NamedTuple):
    """One column to read."""

    names: tuple[str, ...]  # the spellings accepted
    convert: Callable[[str], Any]
    dtype: type
    valid: Callable[[np.ndarray], np.ndarray]  # [N] -> [N] bool; NaN must give False
    rule: str
    advice: str = "correct it or remove the row"
    optional: bool = False  # read where the table has it


def whole(text: str) -> int:
    """A whole number as people and pandas write it: 7, 7.0."""
    try:
        return int(text)
    except ValueError:
        value = float(text)
    if not value.is_integer() or abs(value) > MOST_EXACT:  # two neighbours may be one float beyond
        raise ValueError(text)
    return int(value)


def number(text: str) -> float:
    """A number, or a flag as pandas writes it: True, False."""
    flag = {"true": 1.0, "false": 0.0}.get(text.strip().lower())
    return float(text) if flag is None else flag


def seconds(text: str) -> float:
    """Seconds since 1970 of an ISO 8601 time; without an offset it is UTC."""
    time = datetime.fromisoformat(text)
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()


def moment(text: str) -> float:
    """The same, or seconds as they are."""
    try:
        return float(text)
    except ValueError:
        return seconds(text)


def spellings(
    owner: str, given: Mapping[str, str | Sequence[str] | None], optional: Sequence[str] = ()
) -> dict[str, tuple[str, ...]]:
    """The names that arguments give to columns, of which a table has one each.

    Args:
        owner: function whose arguments they are, for errors.
        given: by argument: a name, or several.
        optional: arguments that may be None: no such column is read.

    Raises:
        ValueError: an argument names no column, or one that another names as well.
    """
    found: dict[str, tuple[str, ...]] = {}
    taken: dict[str, str] = {}
    for key, value in given.items():
        if value is None and key in optional:
            continue
        names = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list | tuple) else ()
        if not names or not all(isinstance(name, str) and name.strip() for name in names):
            raise ValueError(f"{owner}: {key} must be the name of a column, or a list of names, got {value!r}")
        found[key] = tuple(name.strip() for name in names)
        for name in found[key]:
            if taken.setdefault(name, key) != key:
                raise ValueError(f"{owner}: {taken[name]} and {key} both name the column {name!r}")
    return found


def _find_columns(path: str, header: list[str], columns: Mapping[str, Column]) -> dict[str, int]:
    """Index of each column in the header, without optional ones that are missing; ValueError for others, or doubles."""
    names = [name.strip() for name in header]
    found = {key: [i for i, name in enumerate(names) if name in column.names] for key, column in columns.items()}
    found = {key: at for key, at in found.items() if at or not columns[key].optional}
    missing = [" or ".join(map(repr, columns[key].names)) for key, at in found.items() if not at]
    if missing:
        there = ", ".join(map(shortened, names[:MOST_NAMED])) + (", ..." if len(names) > MOST_NAMED else "")
        what = f"no column {'; no column '.join(missing)}: name these columns in the header"
        raise ValueError(f"{path}, line 1: {what} (it has: {there})")
    for at in found.values():
        if len(at) > 1:
            twice = ", ".join(f"{names[i]!r} (column {i + 1})" for i in at)
            raise ValueError(f"{path}, line 1: the same column is there {len(at)} times, {twice}: keep one of them")
    return {key: at[0] for key, at in found.items()}


def read_columns(
    source: Any, columns: Mapping[str, Column], *, record: str, header: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """Arrays [N] of the named columns of one table, converted by blocks; only a bad block is searched by row.

    Args:
        source: see `recgym.data.sources.table_rows`.
        columns: by the name under which they are returned.
        record: what a row stands for, for error messages.
        header: names of the columns of a file whose first line is a row already.

    Raises:
        ValueError: a malformed file; the message names file, line and column.
    """
    path = label_of(source)
    with closing(table_rows(source)) as rows:
        header = list(header) or next(rows, (0, []))[1]
        if not any(header):
            raise ValueError(f"{path}, line 1: the file is empty: it needs a header line and one row per {record}")
        index = _find_columns(path, header, columns)
        columns = {key: columns[key] for key in index}
        pick: Callable[[list[str]], tuple[str, ...]] = itemgetter(*index.values())
        blocks: list[list[np.ndarray]] = []
        while True:
            lines, picked, arrays = [], [], []
            for line, row in islice(rows, BLOCK):
                if (width := len(row)) != len(header):
                    ends = f"column {header[width]!r}" if width < len(header) else f"after column {header[-1]!r}"
                    what = f"{width} fields, {len(header)} in the header: mend the row or remove it"
                    raise ValueError(f"{path}, line {line}, {ends}: {what}")
                lines.append(line)
                picked.append(pick(row))
            if not lines:
                break
            for (key, column), texts in zip(columns.items(), zip(*picked, strict=True), strict=True):
                array = _convert(texts, column)
                if array is None:
                    bad = next(i for i, text in enumerate(texts) if _convert((text,), column) is None)
                    where = f"{path}, line {lines[bad]}, column {header[index[key]].strip()!r}"
                    raise ValueError(f"{where}: {shortened(texts[bad])} is not {column.rule}: {column.advice}")
                arrays.append(array)
            blocks.append(arrays)
    if not blocks:
        raise ValueError(f"{path}, line 2: a header but no rows: the log needs one row per {record}")
    return {key: np.concatenate(parts) for key, parts in zip(columns, zip(*blocks, strict=True), strict=True)}


def _convert(texts: tuple[str, ...], column: Column) -> np.ndarray | None:
    """The texts as an array [N], or None if any of them is no valid value; digits in groups (1_000) are none."""
    if column.dtype is not np.object_ and "_" in "".join(texts):
        return None
    try:
        array: np.ndarray = np.fromiter(map(column.convert, texts), column.dtype, len(texts))
    except (ValueError, OverflowError):
        return None
    return array if column.valid(array).all() else None
