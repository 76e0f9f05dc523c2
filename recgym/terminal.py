"""What people see on the terminal: lines, tables, progress. Everything that is printed comes through here.

Text from outside (labels, products, columns, paths) is text and never markup, and a terminal that cannot write a
character loses that character and nothing else.
"""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

__all__ = ["Table", "check_tables", "progress", "say", "show_table", "width_of"]

MISSING = "tables are drawn with rich: pip install 'recgym[agents]'"
UNBOUNDED = 10_000  # characters, of what is no terminal: nothing wraps there


def say(text: str = "", *, error: bool = False, end: str = "\n") -> None:
    """Write text; on the error stream where it is about how the work goes rather than what it gives."""
    stream = sys.stderr if error else sys.stdout
    encoding = getattr(stream, "encoding", None) or "utf-8"
    stream.write(text.encode(encoding, errors="replace").decode(encoding) + end)
    stream.flush()


def width_of(stream: TextIO) -> int | None:
    """Characters across a terminal; None where the stream is none."""
    return shutil.get_terminal_size().columns if stream.isatty() else None


class Table:
    """A table: a title, headings, rows of text, and what stands below it.

    Args:
        title: above it.
        headings: of its columns.
        left: of them, those whose text begins at the left, beside the first; numbers end at the right.
        spare: of them, those that a narrow terminal does without, the first first; then from the right. The first
            column always stays.
    """

    def __init__(
        self, title: str, headings: Sequence[str], *, left: Collection[str] = (), spare: Sequence[str] = ()
    ) -> None:
        self.title = title
        self.headings = list(headings)
        self.left = {headings[0], *left}
        self.spare = list(spare)
        self.caption = ""
        self.rows: list[tuple[tuple[str, ...], bool, bool]] = []  # cells, whether bold, whether a line follows

    def add(self, *cells: str, bold: bool = False, last: bool = False) -> None:
        """Add a row.

        Args:
            cells: one for each heading; a cell may have several lines.
            bold: whether it is to be seen first.
            last: whether a line follows, as after a group.
        """
        self.rows.append((cells, bold, last))

    def columns(self, width: int | None) -> list[int]:
        """The columns that fit into `width` characters (None: all), as indices."""
        kept = list(range(len(self.headings)))
        if width is None:
            return kept
        cells = [self.headings, *(row[0] for row in self.rows)]
        widths = [max(len(line) for row in cells for line in (row[i].split("\n") or [""])) for i in kept]
        names = [*self.spare, *reversed([name for name in self.headings[1:] if name not in self.spare])]
        for name in names:
            if sum(widths[i] + 3 for i in kept) + 1 <= width or len(kept) <= 2:
                break
            kept.remove(self.headings.index(name))
        return kept

    def show(self) -> None:
        """Print it.

        Raises:
            ImportError: rich is not installed (names the extra).
        """
        check_tables()
        from rich import box
        from rich.console import Console
        from rich.table import Table as RichTable
        from rich.text import Text

        width = width_of(sys.stdout)
        kept = self.columns(width)
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        lines = box.HEAVY_HEAD if _can_write(encoding, "┏┃│") else box.ASCII
        drawn = RichTable(title=Text(self.title), box=lines, safe_box=False)
        for i in kept:
            drawn.add_column(Text(self.headings[i]), justify="left" if self.headings[i] in self.left else "right")
        for cells, bold, last in self.rows:
            drawn.add_row(*(Text(cells[i], style="bold" if bold else "") for i in kept), end_section=last)
        without = [name for i, name in enumerate(self.headings) if i not in kept]
        notes = [self.caption] if self.caption else []
        if without:
            notes.append(f"{width} characters across: without {', '.join(without)}")
        drawn.caption = Text("\n".join(notes)) if notes else None
        page = io.StringIO()
        console = Console(file=page, width=width or UNBOUNDED, force_terminal=width is not None, highlight=False)
        console.print(drawn, crop=False)
        say("\n".join(line.rstrip() for line in page.getvalue().rstrip("\n").split("\n")))


def show_table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> None:
    """Print rows that need nothing else; see `Table`."""
    table = Table(title, headings)
    table.caption = caption
    for row in rows:
        table.add(*row)
    table.show()


def check_tables() -> None:
    """Fail before the work rather than after it.

    Raises:
        ImportError: rich is not installed (names the extra).
    """
    try:
        import rich  # noqa: F401
    except ImportError as error:
        raise ImportError(MISSING) from error


def _can_write(encoding: str, text: str) -> bool:
    try:
        text.encode(encoding)
    except (LookupError, UnicodeEncodeError):
        return False
    return True


@contextmanager
def progress(unit: str, total: int | None = None) -> Iterator[Callable[..., None]]:
    """A progress bar on the error stream, where that is a terminal; it goes when the work ends.

    Args:
        unit: of what is counted.
        total: of them, where it is known.

    Yields:
        `advance(done, total=None, what="")`: how many are done now, of how many, and of what.
    """
    try:
        from tqdm import tqdm
    except ImportError:
        yield lambda *_, **__: None
        return
    ascii_only = not _can_write(getattr(sys.stderr, "encoding", None) or "utf-8", "█")
    with tqdm(
        unit=f" {unit}", total=total, disable=not sys.stderr.isatty(), leave=False, ascii=ascii_only, unit_scale=True
    ) as bar:

        def advance(done: int, total: int | None = None, what: str = "") -> None:
            if total is not None:
                bar.total = total
            if what:
                bar.set_description(what.encode("ascii", "replace").decode() if ascii_only else what, refresh=False)
            bar.update(done - bar.n)

        yield advance
