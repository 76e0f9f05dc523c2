"""Catalogs from tables: any table of items by the names of its columns, films of MovieLens, reviews of clothes.

The layouts of films are those of GroupLens' README files (Harper & Konstan 2015, doi:10.1145/2827872): `movies.csv`,
the older `u.item`, and the `.item` file into which RecBole turns them. Those of clothes are the public Women's
E-Commerce Clothing Reviews, and ModCloth's and RentTheRunway's (Misra, Wan & McAuley 2018, "Decomposing fit semantics
for product size recommendation in metric spaces").
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from recgym.catalog import Catalog
from recgym.data.reading import Column, number, read_columns
from recgym.data.sources import MAX_LINE, find_file, is_json_lines, json_lines, label_of, shortened
from recgym.encoders import Encoder

__all__ = ["clothing_items", "item_table", "movielens_items"]

MAX_CATEGORIES = 1_000  # of a column: more are names rather than categories
UNKNOWN = "unknown"  # the topic or provider of an item without one
NO_GENRES = ("(no genres listed)", "unknown", "")
YEAR = re.compile(r"\((\d{4})\)\s*$")  # as titles end in these files
# u.item has no header; its README lists the 19 genres in this order, each a flag after id, title, two dates and a link.
GENRES = (
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama"),
    *("Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)
FLAGS_FROM = 5
PATTERNS = ("movies.csv*", "u.item", "*.item")
CLOTHES = ("*lothing*eviews.csv*", "modcloth*.json*", "renttherunway*.json*")
REVIEW_COLUMNS = {"division": "Division Name", "department": "Department Name", "class": "Class Name"}
REVIEW_FIELDS = {"category": "category", "occasion": "rented for"}  # of the layouts of an object per line
REVIEW_TEXTS = ("review_summary", "review_text")


# --- any table -------------------------------------------------------------------------------------------------------
def item_table(
    source: Any,
    *,
    text: str | Sequence[str] = (),
    categorical: str | Sequence[str] = (),
    numeric: str | Sequence[str] = (),
    id: str | None = None,
    title: str | None = None,
    topic: str | None = None,
    group: str | None = None,
    burden: str | None = None,
    appeal: str | None = None,
    price: str | None = None,
    length: str | None = None,
    flagged: str | None = None,
    encoder: Encoder | None = None,
    cache: str | Path | None = None,
    width: int = 16,
    weights: Mapping[str, float] | None = None,
) -> Catalog:
    """Make a catalog from a table with a row per item.

    Features are fused from the columns of `text`, `categorical` and `numeric`; an empty entry there is missing, marked
    and filled. The other arguments each name the column of what a catalog knows, where there is one.

    Args:
        source: a path (CSV and its like, compressed or not, parquet) or a pandas DataFrame.
        text: columns that are joined and encoded.
        categorical: columns of categories; several in one entry are separated by `|`.
        numeric: columns of numbers.
        id: column of different texts.
        title: column of texts.
        topic: column of categories, of which the first of an entry counts; numbered in the order of the alphabet.
        group: the same, for providers.
        burden: column of numbers in [0, 1].
        appeal: column of logits.
        price: column of numbers.
        length: column of minutes.
        flagged: column of 0 and 1.
        encoder: for `text`; see `recgym.encoders`.
        cache: folder that keeps the encoded texts.
        width: number of features at most.
        weights: share of variance by modality (`text`, or the name of a column), relative to 1.

    Raises:
        ValueError: what is wrong, with file, line and column.
    """
    texts, categories, numbers = (
        _names(n, v) for n, v in (("text", text), ("categorical", categorical), ("numeric", numeric))
    )
    if not (texts or categories or numbers):
        raise ValueError(
            "item_table: name at least one column of text, categorical or numeric: features come from these"
        )
    if texts and encoder is None:
        raise ValueError("item_table: text needs an encoder, such as recgym.encoders.MiniLM()")
    named = {"burden": burden, "appeal": appeal, "price": price, "length": length, "flagged": flagged}
    words = {"id": id, "title": title, "topic": topic, "group": group}
    wanted = {f"text {name}": _word(name) for name in texts}
    wanted |= {f"categorical {name}": _word(name) for name in categories}
    wanted |= {f"numeric {name}": _number(name, optional=True) for name in numbers}
    wanted |= {key: _word(name) for key, name in words.items() if name is not None}
    wanted |= {key: _number(name) for key, name in named.items() if name is not None}
    read = read_columns(source, wanted, record="item")
    modalities = {name: _one_hot(label_of(source), name, read[f"categorical {name}"]) for name in categories}
    modalities |= {name: read[f"numeric {name}"] for name in numbers}
    columns: dict[str, Any] = {key: read[key] for key, name in named.items() if name is not None}
    columns |= {key: tuple(read[at]) for key, at in (("ids", "id"), ("title", "title")) if at in read}
    if "topic" in read:
        columns["topic"], columns["topic_names"] = _numbered(read["topic"])
    if "group" in read:
        columns["group"], _ = _numbered(read["group"])
    joined = [". ".join(filter(None, row)) for row in zip(*(read[f"text {name}"] for name in texts), strict=True)]
    options = {"cache": cache, "width": width, "weights": weights}
    return _made(label_of(source), joined, encoder if texts else None, modalities, columns, options)


def _made(
    label: str,
    texts: list[str],
    encoder: Encoder | None,
    modalities: Mapping[str, Any],
    columns: Mapping[str, Any],
    options: Mapping[str, Any],
) -> Catalog:
    """The catalog of what was read, with the texts where there is an encoder."""
    try:
        if encoder is None:
            kept = {name: value for name, value in options.items() if name != "cache"}
            return Catalog.from_modalities(modalities, **kept, **columns)
        return Catalog.from_texts(texts, encoder, modalities=modalities, **options, **columns)
    except ValueError as error:
        raise ValueError(f"{label}: {error}") from error


def _names(key: str, value: str | Sequence[str]) -> tuple[str, ...]:
    names = (value,) if isinstance(value, str) else tuple(value)
    if not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
        raise ValueError(f"item_table: {key} must be different names of columns, got {value!r}")
    return names


def _word(name: str) -> Column:
    return Column((name,), str.strip, np.object_, lambda texts: np.ones(len(texts), dtype=bool), "a text")


def _number(name: str, *, optional: bool = False) -> Column:
    if not optional:
        return Column((name,), number, np.float64, np.isfinite, "a number")
    rule = "a number, or empty where it is unknown"
    return Column(
        (name,), lambda text: number(text) if text.strip() else np.nan, np.float64, lambda x: ~np.isinf(x), rule
    )


def _categories(entry: str) -> list[str]:
    return [part.strip() for part in entry.split("|") if part.strip()]


def _one_hot(path: str, name: str, entries: Iterable[str]) -> np.ndarray:
    """[N, categories] 0 and 1, NaN for an item without any."""
    sets = [_categories(entry) for entry in entries]
    known = sorted({each for categories in sets for each in categories})
    if not 1 <= len(known) <= MAX_CATEGORIES:
        advice = "leave it out" if not known else "read it as text"
        raise ValueError(
            f"{path}, column {name!r}: {len(known)} categories, 1 to {MAX_CATEGORIES} can be read: {advice}"
        )
    place = {each: i for i, each in enumerate(known)}
    table = np.zeros((len(sets), len(known)))
    for row, categories in zip(table, sets, strict=True):
        row[[place[each] for each in categories]] = 1.0
        if not categories:
            row[:] = np.nan
    return table


def _numbered(entries: Iterable[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """[N] the number of the first category of each entry, and the names by number."""
    first = [next(iter(_categories(entry)), UNKNOWN) for entry in entries]
    names, at = np.unique(np.array(first), return_inverse=True)
    return at.astype(np.int64), tuple(names.tolist())


# --- MovieLens -------------------------------------------------------------------------------------------------------
class _Movie(NamedTuple):
    id: str
    title: str
    year: float  # NaN where unknown
    genres: list[str]


def movielens_items(
    path: str | Path,
    *,
    encoder: Encoder | None = None,
    cache: str | Path | None = None,
    width: int = 16,
    weights: Mapping[str, float] | None = None,
) -> Catalog:
    """Make a catalog from the films of MovieLens: genres, year and, with an encoder, title and genres as text.

    Topics are first genres. Prices, burdens and providers are not in these files, and the catalog lacks them.

    Args:
        path: `movies.csv`, `u.item`, a RecBole `.item` file, or a folder with one of them.
        encoder: see `recgym.encoders`; without one, features are of genres and year alone.
        cache: folder that keeps the encoded texts.
        width: number of features at most.
        weights: share of variance by modality (`text`, `genres`, `year`), relative to 1.

    Raises:
        FileNotFoundError: no such file, or a folder without one.
        ValueError: what is wrong, with file and line.
    """
    path = find_file(Path(path), PATTERNS, "a table of films")
    reader = _old_layout if path.name == "u.item" else _recbole if path.suffix == ".item" else _new_layout
    movies = list(reader(path))
    if not movies:
        raise ValueError(f"{path}: no films: the file needs one row per film")
    genres = ["|".join(movie.genres) for movie in movies]
    modalities: dict[str, Any] = {"genres": _one_hot(str(path), "genres", genres)}
    years = np.array([movie.year for movie in movies])
    if not np.isnan(years).all():
        modalities["year"] = years
    topic, names = _numbered(genres)
    columns: Mapping[str, Any] = {
        "topic": topic,
        "topic_names": names,
        "title": [movie.title for movie in movies],
        "ids": [movie.id for movie in movies],
    }
    texts = [f"{movie.title} ({', '.join(movie.genres)})" if movie.genres else movie.title for movie in movies]
    options = {"cache": cache, "width": width, "weights": weights}
    return _made(str(path), texts, encoder, modalities, columns, options)


def _year(title: str) -> float:
    found = YEAR.search(title)
    return float(found[1]) if found else np.nan


def _new_layout(path: Path) -> Iterator[_Movie]:
    read = read_columns(path, {name: _word(name) for name in ("movieId", "title", "genres")}, record="film")
    for key, title, entry in zip(*read.values(), strict=True):
        yield _Movie(key, title, _year(title), [each for each in _categories(entry) if each not in NO_GENRES])


def _old_layout(path: Path) -> Iterator[_Movie]:
    for line, row in _split_lines(path, "|", "latin-1"):
        if len(row) != FLAGS_FROM + len(GENRES) or set(row[FLAGS_FROM:]) - {"0", "1"}:
            wanted = f"{FLAGS_FROM} fields and {len(GENRES)} genres as 0 or 1"
            raise ValueError(
                f"{path}, line {line}: {len(row)} fields, {wanted} are wanted, separated by |: mend this row"
            )
        genres = [name for name, flag in zip(GENRES, row[FLAGS_FROM:], strict=True) if flag == "1"]
        yield _Movie(row[0], row[1], _year(row[1]), [name for name in genres if name not in NO_GENRES])


def _recbole(path: Path) -> Iterator[_Movie]:
    rows = _split_lines(path, "\t", "utf-8")
    _, header = next(rows, (0, []))
    names = [name.partition(":")[0] for name in header]
    missing = {"item_id", "movie_title", "class"} - set(names)
    if missing:
        raise ValueError(
            f"{path}, line 1: no column {', '.join(sorted(missing))} (it has: {shortened(', '.join(names))})"
        )
    for line, row in rows:
        if len(row) != len(names):
            raise ValueError(f"{path}, line {line}: {len(row)} fields, {len(names)} in the header: mend this row")
        film = dict(zip(names, row, strict=True))
        year = film.get("release_year", "")
        known = float(year) if year.isdecimal() else _year(film["movie_title"])
        yield _Movie(
            film["item_id"], film["movie_title"], known, [g for g in film["class"].split() if g not in NO_GENRES]
        )


def _split_lines(path: Path, separator: str, encoding: str) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of each line that is not blank; these files quote nothing."""
    with path.open("rb") as stream:
        line = 0
        while raw := stream.readline(MAX_LINE + 1):
            line += 1
            if len(raw) > MAX_LINE:
                raise ValueError(f"{path}, line {line}: longer than {MAX_LINE:,} bytes: this is no list of films")
            try:
                text = raw.decode(encoding).rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise ValueError(f"{path}, line {line}: not {encoding} text ({error.reason}): save it so") from error
            if text:
                yield line, [part.strip() for part in text.split(separator)]


# --- reviews of clothes ----------------------------------------------------------------------------------------------
class _Review(NamedTuple):
    item: str
    text: str
    helpful: float  # how many customers found it so
    categories: tuple[str, ...]  # "" where unknown


def clothing_items(
    source: Any,
    *,
    encoder: Encoder | None = None,
    cache: str | Path | None = None,
    width: int = 16,
    weights: Mapping[str, float] | None = None,
) -> Catalog:
    """Make a catalog from reviews of clothes, one row per item: categories and, with an encoder, what reviews say.

    Topics are departments, or categories where there are none: the most frequent of an item's reviews. An item has no
    name here and is called by its class and number. The reviews of an item are joined, those that most customers found
    helpful first, since encoders may read the beginning alone. Ratings are left out, and with them appeal: it is what
    an item has beyond its features, and fitted to logs (`recgym.data.ratings`).

    Args:
        source: the CSV of the Women's E-Commerce Clothing Reviews or a DataFrame of it, `modcloth_final_data.json` or
            `renttherunway_final_data.json`, compressed or not, or a folder with one of them.
        encoder: see `recgym.encoders`; without one, features are of categories alone.
        cache: folder that keeps the encoded texts.
        width: number of features at most.
        weights: share of variance by modality (`text`, and `division`, `department` and `class`, or `category` and
            `occasion`), relative to 1.

    Raises:
        FileNotFoundError: no such file, or a folder without one.
        ValueError: what is wrong, with file, line and column.
    """
    if isinstance(source, str | Path):
        source = find_file(Path(source), CLOTHES, "a file of reviews")
    one_per_line = is_json_lines(source)
    reviews = _reviews_per_line(source) if one_per_line else _reviews_of_table(source)
    by_item: dict[str, list[_Review]] = {}
    for review in reviews:
        by_item.setdefault(review.item, []).append(review)
    kinds = tuple(REVIEW_FIELDS if one_per_line else REVIEW_COLUMNS)
    entries = {kind: [_most_frequent(mine, at) for mine in by_item.values()] for at, kind in enumerate(kinds)}
    label, topic, called = label_of(source), *(("category", "category") if one_per_line else ("department", "class"))
    modalities = {kind: _one_hot(label, kind, entry) for kind, entry in entries.items() if any(entry)}
    columns = dict(zip(("topic", "topic_names"), _numbered(entries[topic]), strict=True))
    names = [next(iter(_categories(entry)), "Item") for entry in entries[called]]
    columns |= {"title": [f"{n} {i}" for n, i in zip(names, by_item, strict=True)], "ids": list(by_item)}
    first = [sorted(mine, key=lambda review: -review.helpful) for mine in by_item.values()]
    texts = [" ".join(review.text for review in mine if review.text) for mine in first]
    return _made(label, texts, encoder, modalities, columns, {"cache": cache, "width": width, "weights": weights})


def _most_frequent(reviews: list[_Review], at: int) -> str:
    """The categories that reviews of an item name, the most frequent first."""
    counts = Counter(name for review in reviews if (name := review.categories[at].replace("|", "/")))
    return "|".join(sorted(counts, key=lambda name: (-counts[name], name)))


def _reviews_of_table(source: Any) -> Iterator[_Review]:
    words = {name: _word(name) for name in ("Title", "Review Text", *REVIEW_COLUMNS.values())}
    key = Column(("Clothing ID",), str.strip, np.object_, lambda x: x != "", "the number of an item")
    helpful = _number("Positive Feedback Count")
    read = read_columns(source, {"key": key, "helpful": helpful, **words}, record="review")
    for item, count, title, text, *categories in zip(*read.values(), strict=True):
        yield _Review(item, ". ".join(filter(None, (title, text))), count, tuple(categories))


def _reviews_per_line(path: Path) -> Iterator[_Review]:
    for line, row in json_lines(path):
        found = {}
        for name in ("item_id", *REVIEW_TEXTS, *REVIEW_FIELDS.values()):
            value = row.get(name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, str | int)):
                raise ValueError(f"{path}, line {line}, {name!r}: {shortened(str(value))} is no text: mend this line")
            found[name] = "" if value is None else str(value).strip()
        if not found["item_id"]:
            raise ValueError(f"{path}, line {line}: no 'item_id' (it has: {', '.join(list(row)[:12])}): add it")
        text = ". ".join(filter(None, (found[name] for name in REVIEW_TEXTS)))
        yield _Review(found["item_id"], text, 0.0, tuple(found[name] for name in REVIEW_FIELDS.values()))
