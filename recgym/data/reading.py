"""Columns of CSV files, plain or compressed, with errors that say where the file is wrong."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Column", "read_columns"]

MOST_NAMED = 12  # columns of a header that an error lists
BLOCK = 8192  # rows converted at a time: 44 columns as strings take about 20 MB


class Column(NamedTuple):
    """One column to read."""

    names: tuple[str, ...]  # the spellings accepted
    convert: Callable[[str], Any]
    dtype: type
    valid: Callable[[np.ndarray], np.ndarray]  # [N] -> [N] bool; NaN must give False
    rule: str
    advice: str = "correct it or remove the row"


def _rows(path: Path) -> Generator[tuple[int, list[str]]]:
    """Line number and fields of each row that is not blank; ValueError where the text cannot be read."""
    line = 0  # the last line read in full
    try:
        # a second buffer makes the lines of a gzip file as cheap as plain ones; each is decoded alone to locate errors
        with io.BufferedReader(gzip.open(path)) if path.suffix == ".gz" else path.open("rb") as stream:
            reader = csv.reader((text.decode() for text in stream), strict=True)
            for row in reader:
                line = reader.line_num
                if row:
                    yield line, row
    except UnicodeDecodeError as error:
        advice = "save the file as UTF-8; a compressed file must be named .csv.gz"
        raise ValueError(f"{path}, line {line + 1}: not UTF-8 text ({error.reason}): {advice}") from error
    except csv.Error as error:
        if "new-line character" in str(error):
            advice = "save the file with the line ends of Unix or Windows"
            raise ValueError(f"{path}, line {line + 1}: a carriage return alone ends no line: {advice}") from error
        raise ValueError(f"{path}, line {line + 1}: not valid CSV ({error}): quote or mend this line") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:  # not gzip at all, cut off, damaged
        advice = "fetch it again, or drop the ending .gz if it is plain text"
        raise ValueError(f"{path}, after line {line}: not a whole gzip file ({error}): {advice}") from error


def _find_columns(path: Path, header: list[str], columns: Mapping[str, Column]) -> dict[str, int]:
    """Index of each column in the header; ValueError for those that are missing or there twice."""
    names = [name.strip() for name in header]
    found = {key: [i for i, name in enumerate(names) if name in column.names] for key, column in columns.items()}
    missing = [" or ".join(map(repr, columns[key].names)) for key, at in found.items() if not at]
    if missing:
        there = ", ".join(names[:MOST_NAMED]) + (", ..." if len(names) > MOST_NAMED else "")
        what = f"no column {'; no column '.join(missing)}: name these columns in the header, separated by commas"
        raise ValueError(f"{path}, line 1: {what} (it has: {there})")
    for at in found.values():
        if len(at) > 1:
            twice = ", ".join(f"{names[i]!r} (column {i + 1})" for i in at)
            raise ValueError(f"{path}, line 1: the same column is there {len(at)} times, {twice}: keep one of them")
    return {key: at[0] for key, at in found.items()}


def read_columns(path: Path, columns: Mapping[str, Column], *, record: str) -> dict[str, np.ndarray]:
    """Arrays [N] of the named columns of one CSV file, converted by blocks; only a bad block is searched by row.

    Args:
        path: a .csv or .csv.gz file.
        columns: by the name under which they are returned.
        record: what a row stands for, for error messages.

    Raises:
        ValueError: a malformed file; the message names file, line and column.
    """
    with closing(_rows(path)) as rows:
        _, header = next(rows, (0, []))
        header = [name.removeprefix("\ufeff") for name in header]  # the byte order mark some spreadsheets write
        if not any(header):
            raise ValueError(f"{path}, line 1: the file is empty: it needs a header line and one row per {record}")
        index = _find_columns(path, header, columns)
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
                    raise ValueError(f"{where}: {texts[bad]!r} is not {column.rule}: {column.advice}")
                arrays.append(array)
            blocks.append(arrays)
    if not blocks:
        raise ValueError(f"{path}, line 2: a header but no rows: the log needs one row per {record}")
    return {key: np.concatenate(parts) for key, parts in zip(columns, zip(*blocks, strict=True), strict=True)}


def _convert(texts: tuple[str, ...], column: Column) -> np.ndarray | None:
    """The texts as an array [N], or None if any of them is no valid value; digits in groups (1_000) are none."""
    if column.convert in (int, float) and "_" in "".join(texts):
        return None
    try:
        array: np.ndarray = np.fromiter(map(column.convert, texts), column.dtype, len(texts))
    except (ValueError, OverflowError):
        return None
    return array if column.valid(array).all() else None
