"""Tables as they come: rows of text from a file in any usual form, compressed or not, or from a DataFrame.

What is no table is named for what it is, and nothing is read into memory before it is known to be of bounded size.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import re
import zipfile
import zlib
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["ENDINGS", "MAX_LINE", "find_file", "is_json_lines", "json_lines", "label_of", "shortened", "table_rows"]

ENDINGS = (".csv", ".tsv", ".txt", ".csv.gz", ".csv.xz", ".csv.bz2", ".csv.zip", ".parquet")
MAX_LINE = 1 << 20  # bytes of a line: one that never ends would fill the memory
MAX_SHOWN = 60  # characters of a value that an error quotes
SEPARATORS = (",", ";", "\t", "|")
PACKED = (gzip.BadGzipFile, lzma.LZMAError, zipfile.BadZipFile, EOFError, zlib.error)
HEAD = 16  # bytes that tell what a file is
QUOTED = re.compile(r'"[^"]*"')  # in which a separator separates nothing
MARK = b"\xef\xbb\xbf"  # the byte order mark that some spreadsheets write


def shortened(text: str) -> str:
    """Quote a value for an error, cut where it is long."""
    return repr(text) if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]!r}... ({len(text):,} characters)"


def label_of(source: Any) -> str:
    """What to call a source in errors."""
    return str(source) if isinstance(source, str | Path) else type(source).__name__


def find_file(path: Path, patterns: Sequence[str], what: str) -> Path:
    """Return the file that a path means: itself, or the one in a folder that fits the first pattern any file fits.

    Args:
        path: of a file or a folder.
        patterns: of names, in order.
        what: is sought, for errors.

    Raises:
        FileNotFoundError: there is none.
        ValueError: there are several.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such file or folder")
    for pattern in patterns:
        found = sorted(path.glob(pattern))
        if len(found) == 1:
            return found[0]
        if found:
            raise ValueError(f"{path} holds {len(found)} files {pattern}: name the one to read")
    raise FileNotFoundError(f"{path} holds none of {', '.join(patterns)}: name {what}")


def table_rows(source: Any) -> Generator[tuple[int, list[str]]]:
    """Line number and fields of each row that is not blank, the header first.

    Args:
        source: a path of a file in one of the forms of `ENDINGS`, whatever its name ends with, or a pandas DataFrame,
            whose rows count from 2, as if its header were a line.

    Raises:
        ValueError: what is wrong, with file and line.
        ImportError: pandas is missing (names the extra).
    """
    if not isinstance(source, str | Path):
        yield from _frame_rows(source)
        return
    path = Path(source)
    with path.open("rb") as file:
        head = file.read(HEAD)
    if head[:4] == b"PAR1":
        yield from _frame_rows(_pandas().read_parquet(path))
        return
    line = 0  # the last line read in full
    try:
        with _opened(path, head) as stream:
            first = stream.readline(MAX_LINE + 1)
            _check_text(path, first)
            text = _decoded(path, 1, first.removeprefix(MARK))
            separator = max(SEPARATORS, key=QUOTED.sub("", text).count)
            reader = csv.reader(_lines(path, stream, text), delimiter=separator, strict=True)
            for row in reader:
                line = reader.line_num
                if row:
                    yield line, row
    except csv.Error as error:
        if "new-line character" in str(error):
            advice = "save the file with the line ends of Unix or Windows"
            raise ValueError(f"{path}, line {line + 1}: a carriage return alone ends no line: {advice}") from error
        raise ValueError(f"{path}, line {line + 1}: not valid CSV ({error}): quote or mend this line") from error
    except PACKED as error:
        raise ValueError(f"{path}, after line {line}: not a whole compressed file ({error}): fetch it again") from error


def is_json_lines(source: Any) -> bool:
    """Whether a source is a file, compressed or not, that begins with an object of JSON; a damaged one is not."""
    if not isinstance(source, str | Path):
        return False
    try:
        with _unpacked(Path(source)) as stream:
            return bool(stream.peek(1)[:1] == b"{")
    except PACKED:
        return False


def json_lines(path: Path) -> Generator[tuple[int, dict[str, Any]]]:
    """Line number and content of each line that is not blank: an object of JSON, with names as it has them.

    Raises:
        ValueError: what is wrong, with file and line.
    """
    line = 0
    try:
        with _unpacked(path) as stream:
            while raw := stream.readline(MAX_LINE + 1):
                line += 1
                text = _decoded(path, line, raw)
                if not text.strip():
                    continue
                try:
                    row = json.loads(text)
                except (ValueError, RecursionError) as error:
                    raise ValueError(
                        f"{path}, line {line}: not JSON ({error}): one object per line is wanted"
                    ) from None
                if not isinstance(row, dict):
                    raise ValueError(f"{path}, line {line}: not an object of JSON: one per line is wanted")
                yield line, row
    except PACKED as error:
        raise ValueError(f"{path}, after line {line}: not a whole compressed file ({error}): fetch it again") from error


@contextmanager
def _unpacked(path: Path) -> Iterator[Any]:
    with path.open("rb") as file:
        head = file.read(HEAD)
    with _opened(path, head) as stream:
        yield stream


@contextmanager
def _opened(path: Path, head: bytes) -> Iterator[Any]:
    """The bytes of a file, unpacked by what it begins with rather than by its name."""
    if head[:2] == b"PK":
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
            if "[Content_Types].xml" in names:
                raise ValueError(f"{path}: this is a spreadsheet (.xlsx): save its sheet as CSV")
            if len(names) != 1:
                raise ValueError(
                    f"{path}: holds {len(names)} files ({', '.join(names[:3])}): put one table alone into it"
                )
            with archive.open(names[0]) as stream:
                yield io.BufferedReader(stream)
        return
    kinds = {b"\x1f\x8b": gzip.open, b"\xfd7": lzma.open, b"BZ": bz2.open}
    unpack: Any = kinds.get(head[:2], open)
    if head and unpack is open and path.suffix.lower() in (".gz", ".xz", ".bz2", ".zip"):
        raise ValueError(f"{path}: not a compressed file: fetch it again, or drop the ending if it is plain text")
    with unpack(path, "rb") as stream:
        yield io.BufferedReader(stream)  # makes the lines of a packed file as cheap as plain ones


def _check_text(path: Path, line: bytes) -> None:
    """Refuse what is no table of text, by its first line."""
    if line[:2] in (b"\xff\xfe", b"\xfe\xff") or line[1:2] == b"\x00":
        raise ValueError(f"{path}: this is UTF-16: save it as UTF-8")
    if line[:1] == b"{":
        raise ValueError(f"{path}: this is JSON, an object per line perhaps: save it as CSV or parquet")
    if line[:4] == b"\xd0\xcf\x11\xe0":
        raise ValueError(f"{path}: this is an old spreadsheet (.xls): save its sheet as CSV")


def _lines(path: Path, stream: Any, first: str) -> Iterator[str]:
    """Lines of text, each of bounded length and decoded alone to locate errors."""
    yield first
    line = 1
    while raw := stream.readline(MAX_LINE + 1):
        line += 1
        yield _decoded(path, line, raw)


def _decoded(path: Path, line: int, raw: bytes) -> str:
    if len(raw) > MAX_LINE:
        raise ValueError(
            f"{path}, line {line}: longer than {MAX_LINE:,} bytes: this is no table, or its lines have no end"
        )
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}, line {line}: not UTF-8 text ({error.reason}): save the file as UTF-8") from error


def _pandas() -> Any:
    try:
        import pandas
    except ImportError as error:
        raise ImportError("parquet is read with pandas and pyarrow: pip install 'recgym[data]'") from error
    return pandas


def _frame_rows(frame: Any) -> Generator[tuple[int, list[str]]]:
    """The rows of a DataFrame as text; what is missing is empty."""
    if not hasattr(frame, "itertuples"):
        raise ValueError(f"a table is a path or a pandas DataFrame, not a {type(frame).__name__}")
    yield 1, [str(name) for name in frame.columns]
    known = frame.astype(object).where(frame.notna(), None)  # whatever a column has for a missing entry
    for line, row in enumerate(known.itertuples(index=False, name=None), 2):
        yield line, ["" if value is None else str(value) for value in row]
