"""Catalogs: the items that can be recommended, as one checked value that knows what it lacks, and its file.

A scenario draws its candidates from a catalog; arrays have a row per item and are never written to.
Source of the synthetic one: topic mixtures as in RecSim (Ie et al. 2019, arXiv:1909.04847), with burden in tension with
appeal as in its choc/kale problem.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from recgym.array_file import digest_of, pack_texts, read_arrays, unpack_texts, write_arrays
from recgym.encoders import Encoder, encode
from recgym.fusion import Projection, fuse

__all__ = ["Catalog", "is_digest", "known_catalog"]

MAX_ITEMS = 10_000_000
MAX_WIDTH = 1_000  # features of an item
MAX_VALUE = 1e6  # of a number: keeps products and sums finite in float32
MAX_TOPICS = 10_000  # topics and groups are numbered from 0
ADVICE = {  # how to come by what a catalog lacks
    "topic": "give each item a topic, or switch off what rests on topics",
    "burden": "give a burden in [0, 1], or switch off trust",
    "group": "give each item the number of its provider, or leave out the cost of exposure",
    "flagged": "give a flag per item, or leave out the cost of flagged items",
    "vectors": "fit them to a log, with recgym.data.item_vectors",
}

# Constants of the synthetic catalog, searched so that looking ahead pays.
SPREAD = 0.7  # of an item around its topic, as a length
APPEAL_SD = 0.5
FLAGGED_SHARE, FLAGGED_APPEAL = 0.1, 0.5
GROUP_SHARES = (0.4, 0.3, 0.2, 0.1)
PRICE_LOG_MEAN, PRICE_LOG_SD, PRICE_RANGE = -1.0, 0.5, (0.1, 1.0)


@dataclass(frozen=True, eq=False)
class Catalog:
    """N items with D features each; whatever else is known of them, else None.

    Two catalogs are equal where their content is. Arrays are copied once, when the catalog is made, and are read-only.

    Raises:
        ValueError: no items, numbers that are not finite or out of range, lengths that differ (says which and where).
    """

    features: np.ndarray  # [N, D] float32, of about unit length
    topic: np.ndarray | None = None  # [N] int64, numbered from 0
    burden: np.ndarray | None = None  # [N] float32 in [0, 1], what consuming it costs in trust
    appeal: np.ndarray | None = None  # [N] float32, logits: how much likelier a click is whoever looks
    price: np.ndarray | None = None  # [N] float32, at least 0, in one currency
    length: np.ndarray | None = None  # [N] float32, at least 0, minutes
    group: np.ndarray | None = None  # [N] int64, the item's provider, numbered from 0
    flagged: np.ndarray | None = None  # [N] bool, items that should not be shown too often
    title: tuple[str, ...] | None = None  # N texts
    ids: tuple[str, ...] | None = None  # N different texts, what logs call the items
    topic_names: tuple[str, ...] | None = None  # a text per topic
    centroids: np.ndarray | None = None  # [Z, D] float32, where each topic lies
    tastes: np.ndarray | None = None  # [1 + F, D] float32 what a log's users like: mean and factor of their weights
    vectors: np.ndarray | None = None  # [N, F] float32, close for items that the same users clicked in a log
    missing: np.ndarray | None = None  # [N, M] bool, modalities that an item lacked and that were filled
    projection: Projection | None = None  # what made features of M modalities, for items that come later

    def __post_init__(self) -> None:
        table = _array("features", self.features, np.float32)
        if table.ndim != 2:
            raise ValueError(
                f"Catalog: features must be a table [N, D], one row per item, not {table.ndim}-dimensional"
            )
        if not 1 <= len(table) <= MAX_ITEMS or not 1 <= table.shape[1] <= MAX_WIDTH:
            counts = f"{len(table)} items with {table.shape[1]} features"
            wanted = f"give 1 to {MAX_ITEMS:,} items with 1 to {MAX_WIDTH:,} features each"
            raise ValueError(f"Catalog: {'empty catalog, ' if table.size == 0 else ''}{counts}: {wanted}")
        _check_range("features", table, -MAX_VALUE, MAX_VALUE)
        object.__setattr__(self, "features", table)
        for name, (dtype, low, high) in COLUMNS.items():
            value = getattr(self, name)
            if value is None:
                continue
            column = _array(name, value, dtype)
            if column.shape != (len(table),):
                raise ValueError(
                    f"Catalog: {name} has shape {list(column.shape)}, features {len(table)} rows: {ONE_EACH}"
                )
            _check_range(name, column, low, high)
            object.__setattr__(self, name, column)
        if self.title is not None:
            object.__setattr__(self, "title", _checked_texts("title", self.title, len(table)))
        if self.ids is not None:
            object.__setattr__(self, "ids", _checked_texts("ids", self.ids, len(table)))
            if len(self.rows) < len(table):
                twice = next(text for i, text in enumerate(self.ids) if self.rows[text] != i)
                raise ValueError(f"Catalog: ids has {twice!r} more than once: keep one item of each id")
        if self.topic_names is not None:
            names = _checked_texts("topic_names", self.topic_names, len(self.topic_names))
            if int(self.require("topic", of="topic_names").max()) >= len(names):
                raise ValueError(f"Catalog: topic_names has {len(names)} names, fewer than there are topics: name each")
            object.__setattr__(self, "topic_names", names)
        if self.vectors is not None:
            vectors = _array("vectors", self.vectors, np.float32)
            if vectors.ndim != 2 or len(vectors) != self.items or not 1 <= vectors.shape[1] <= MAX_WIDTH:
                raise ValueError(f"Catalog: vectors must be [{self.items}, F], {ONE_EACH}, got {list(vectors.shape)}")
            _check_range("vectors", vectors, -MAX_VALUE, MAX_VALUE)
            object.__setattr__(self, "vectors", vectors)
        if self.tastes is not None:
            object.__setattr__(self, "tastes", self._as_wide("tastes", self.tastes))
        if self.centroids is not None:
            self._set_centroids()
        if self.projection is not None and self.projection.components.shape[1] != self.width:
            made = self.projection.components.shape[1]
            raise ValueError(
                f"Catalog: projection gives {made} features, features has {self.width}: they must be of one fit"
            )
        if self.missing is not None:
            marks = _array("missing", self.missing, np.bool_)
            shape = [self.items, 0 if self.projection is None else len(self.projection.names)]
            if list(marks.shape) != shape:
                raise ValueError(f"Catalog: missing has shape {list(marks.shape)}, not {shape}: one mark per modality")
            object.__setattr__(self, "missing", marks)

    def _as_wide(self, name: str, value: Any) -> np.ndarray:
        """A table as wide as the features."""
        table = _array(name, value, np.float32)
        if table.ndim != 2 or table.shape[1] != self.width or not len(table):
            raise ValueError(f"Catalog: {name} must have rows of {self.width} numbers, as wide as features")
        _check_range(name, table, -MAX_VALUE, MAX_VALUE)
        return table

    def _set_centroids(self) -> None:
        centroids = self._as_wide("centroids", self.centroids)
        topic = self.require("topic", of="centroids")
        if int(topic.max()) >= len(centroids):
            raise ValueError(
                f"Catalog: topic {topic.max()} of item {topic.argmax()} has no row among {len(centroids)} centroids"
            )
        object.__setattr__(self, "centroids", centroids)

    @property
    def items(self) -> int:
        """N, the number of items."""
        return len(self.features)

    @property
    def width(self) -> int:
        """D, the number of features of an item."""
        return self.features.shape[1]

    @cached_property
    def rows(self) -> dict[str, int]:
        """Row of each item by its id."""
        return {text: row for row, text in enumerate(self.require("ids", of="rows"))}

    @cached_property
    def shares(self) -> np.ndarray:
        """[G] the share of the catalog that each provider group has, which is its fair share of exposure."""
        return np.bincount(self.require("group", of="shares")) / self.items

    def require(self, name: str, *, of: str) -> Any:
        """Return a column that may be lacking.

        Args:
            name: of the column.
            of: what needs it, for the error.

        Raises:
            ValueError: the catalog lacks it; says what to do.
        """
        value = getattr(self, name)
        if value is None:
            advice = ADVICE.get(name, f"give {name}, {ONE_EACH}")
            raise ValueError(f"{of} needs the {name} of every item, which this catalog lacks: {advice}")
        return value

    @classmethod
    def from_modalities(
        cls,
        modalities: Mapping[str, Any],
        *,
        width: int = 16,
        weights: Mapping[str, float] | None = None,
        **columns: Any,
    ) -> Catalog:
        """Make a catalog whose features are fused from several modalities; see `recgym.fusion.fuse`.

        Args:
            modalities: by name, [N, w] numbers, NaN where an item lacks them: vectors of texts or images, categories as
                0 and 1, numbers.
            width: D at most.
            weights: share of variance by modality, relative to 1.
            columns: what else is known, as arguments of `Catalog`.

        Raises:
            ValueError: what is wrong with a modality or a column.
        """
        features, missing, projection = fuse(modalities, width=width, weights=weights)
        return cls(features, missing=missing, projection=projection, **columns)

    @classmethod
    def from_texts(
        cls,
        texts: Sequence[str],
        encoder: Encoder,
        *,
        cache: str | Path | None = None,
        width: int = 16,
        weights: Mapping[str, float] | None = None,
        modalities: Mapping[str, Any] | None = None,
        **columns: Any,
    ) -> Catalog:
        """Make a catalog from a text per item, an empty one where there is none, and other modalities.

        Args:
            texts: N of them.
            encoder: such as `recgym.encoders.MiniLM()`, or any callable from a list of texts to numbers [n, d].
            cache: folder that keeps the vectors; see `recgym.encoders.encode`.
            width: D at most.
            weights: share of variance by modality, that of the texts being `text`, relative to 1.
            modalities: beside the texts; see `from_modalities`.
            columns: what else is known, as arguments of `Catalog`.

        Raises:
            ValueError: a text that is no string, or what is wrong with another modality or column.
        """
        vectors = encode(texts, encoder, cache=cache)
        absent = np.array([not text.strip() for text in texts])
        vectors[absent] = np.nan
        tables = {"text": vectors, **(modalities or {})}
        return cls.from_modalities(tables, width=width, weights=weights, **columns)

    @classmethod
    def synthetic(
        cls,
        *,
        items: int = 1_000,
        width: int = 16,
        topics: int = 12,
        bait: float = 1.5,
        binary: bool = False,
        seed: int = 0,
    ) -> Catalog:
        """Draw a catalog of items around orthonormal topics, whose burden makes them appealing.

        Item i of topic z has features normalise(c_z + .7 g / sqrt(width)) with g ~ N(0, I), burden b ~ Beta(.5, .5),
        appeal `bait` (b - .5) + N(0, .5), price exp N(-1, .5) cut to [.1, 1]. Providers have exactly .4, .3, .2 and .1
        of the items (rounded), and a tenth are flagged, whose appeal is .5 higher. It has no lengths.

        Args:
            items: N.
            width: D, at least `topics`.
            topics: Z.
            bait: logits of appeal between no burden and the whole.
            binary: burden is 0 or 1 with equal probability.
            seed: equal seeds give equal catalogs.

        Raises:
            ValueError: a size out of range, or more topics than features.
        """
        for name, value, high in (("items", items, MAX_ITEMS), ("width", width, MAX_WIDTH), ("topics", topics, width)):
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= high:
                why = ", since topics are orthogonal: lower topics or raise width" if name == "topics" else ""
                raise ValueError(f"Catalog.synthetic: {name} must be a whole number in [1, {high}]{why}, got {value!r}")
        rng = np.random.default_rng(seed)
        square, triangle = np.linalg.qr(rng.normal(size=(width, topics)))
        centroids = (square * np.sign(np.diag(triangle))).T  # without the signs the draw would not be uniform
        topic = rng.integers(topics, size=items)
        features = centroids[topic] + SPREAD * rng.normal(size=(items, width)) / math.sqrt(width)
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        burden = rng.integers(2, size=items).astype(float) if binary else rng.beta(0.5, 0.5, size=items)
        flagged = rng.permutation(items) < round(FLAGGED_SHARE * items)
        appeal = bait * (burden - 0.5) + APPEAL_SD * rng.normal(size=items) + FLAGGED_APPEAL * flagged
        price = np.clip(np.exp(PRICE_LOG_MEAN + PRICE_LOG_SD * rng.normal(size=items)), *PRICE_RANGE)
        ends = np.round(np.cumsum(GROUP_SHARES[:-1]) * items)
        group = np.searchsorted(ends, rng.permutation(items), side="right")
        title = tuple(f"Item {i} of topic {z}" for i, z in enumerate(topic.tolist()))
        return cls(features, topic, burden, appeal, price, None, group, flagged, title, centroids=centroids)

    # --- the file ---
    @cached_property
    def digest(self) -> str:
        """SHA-256 of the content, as hexadecimal digits."""
        return digest_of(self._arrays())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Catalog) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def _arrays(self) -> dict[str, np.ndarray]:
        """The content as plain arrays."""
        arrays = {each.name: getattr(self, each.name) for each in fields(self)}
        arrays = {name: value for name, value in arrays.items() if isinstance(value, np.ndarray)}
        for name in TEXTS:
            if (texts := getattr(self, name)) is not None:
                arrays |= pack_texts(name, texts)
        if self.projection is not None:
            arrays |= pack_texts("names", self.projection.names)
            arrays["widths"] = np.array(self.projection.widths, dtype=np.int64)
            arrays |= {name: getattr(self.projection, name) for name in PROJECTION}
        return arrays

    def save(self, path: str | Path) -> Path:
        """Write one `.safetensors` file, whole or not at all; returns its path.

        Raises:
            ValueError: the name does not end in `.safetensors`.
            ImportError: safetensors is missing (names the extra).
        """
        path = Path(path)
        write_arrays(path, "catalog", self._arrays())
        return path

    @classmethod
    def load(cls, path: str | Path) -> Catalog:
        """Read a file that `save` wrote; it is checked whole before anything is built from it.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is no catalog, is damaged, or of a newer format (says which).
            ImportError: safetensors is missing (names the extra).
        """
        path = Path(path)
        arrays, digest = read_arrays(path, "catalog")
        try:
            catalog = cls(**_columns(arrays))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        if catalog.digest != digest:
            raise ValueError(f"{path}: damaged: the content does not match its digest: save the catalog again")
        return catalog


_KNOWN: dict[str, Catalog] = {}  # by digest: what was given in this process


def known_catalog(given: Catalog | str | Path) -> Catalog:
    """Return a catalog by what names it, and remember it by its digest.

    Args:
        given: a catalog, the path of its file, or the digest of one that was given before in this process.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a digest that was not given before, or what is wrong with the file.
    """
    if is_digest(given) and not Path(given).exists():
        if given not in _KNOWN:
            raise ValueError(f"the catalog with the digest {given} is not known here: give its file, as catalog=PATH")
        return _KNOWN[given]
    if not isinstance(given, Catalog | str | Path):
        raise ValueError(f"a catalog is a Catalog, the path of its file or its digest, not {given!r}")
    catalog = given if isinstance(given, Catalog) else Catalog.load(given)
    return _KNOWN.setdefault(catalog.digest, catalog)


def is_digest(given: Any) -> TypeGuard[str]:
    """Whether this is the digest of a catalog."""
    return isinstance(given, str) and DIGEST.fullmatch(given) is not None


DIGEST = re.compile("[0-9a-f]{64}")
COLUMNS: dict[str, tuple[type, float, float]] = {  # type, least, most
    "topic": (np.int64, 0, MAX_TOPICS - 1),
    "burden": (np.float32, 0.0, 1.0),
    "appeal": (np.float32, -MAX_VALUE, MAX_VALUE),
    "price": (np.float32, 0.0, MAX_VALUE),
    "length": (np.float32, 0.0, MAX_VALUE),
    "group": (np.int64, 0, MAX_TOPICS - 1),
    "flagged": (np.bool_, 0, 1),
}
ONE_EACH = "one entry per item"


# --- checks ----------------------------------------------------------------------------------------------------------
def _array(name: str, value: Any, dtype: type) -> np.ndarray:
    """A read-only copy of this type; what would lose its meaning in it is refused."""
    try:
        given = np.asarray(value)
        numeric = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Catalog: {name} must be an array of numbers: {error}") from None
    if given.dtype.kind not in "biuf":
        raise ValueError(f"Catalog: {name} must be an array of numbers, not of {given.dtype}")
    if dtype is not np.float32 and not np.all(np.isfinite(numeric) & (numeric == np.floor(numeric))):
        at = int(np.argmin(np.isfinite(numeric) & (numeric == np.floor(numeric))))
        raise ValueError(f"Catalog: {name} of item {at} is {numeric.flat[at]:g}: whole numbers are wanted")
    if dtype is np.bool_:
        _check_range(name, numeric, 0, 1)
    with np.errstate(over="ignore"):  # to infinity, which is refused by its place
        array: np.ndarray = np.array(given, dtype=dtype, order="C")
    array.flags.writeable = False
    return array


def _check_range(name: str, array: np.ndarray, low: float, high: float) -> None:
    """Refuse what is not in [low, high], NaN included, by its place."""
    good = (array >= low) & (array <= high)
    if good.all():
        return
    item, *column = (int(i) for i in np.argwhere(~good)[0])
    where = f"item {item}" + "".join(f", column {i}" for i in column)
    wanted = f"numbers in [{low:g}, {high:g}] are wanted: correct it or leave the item out"
    raise ValueError(f"Catalog: {name} of {where} is {array[(item, *column)]}: {wanted}")


def _checked_texts(name: str, texts: Any, count: int) -> tuple[str, ...]:
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        at = 0 if isinstance(texts, str) else next(i for i, text in enumerate(texts) if not isinstance(text, str))
        raise ValueError(f"Catalog: {name} must be a sequence of texts, one per item (item {at} has none)")
    if len(texts) != count:
        raise ValueError(f"Catalog: {name} has {len(texts)} texts, features {count} rows: {ONE_EACH}")
    return tuple(texts)


# --- reading ---------------------------------------------------------------------------------------------------------
def _columns(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Arguments of `Catalog` from the arrays of a file."""
    columns: dict[str, Any] = dict(arrays)
    names = {each.name for each in fields(Catalog)} - {"projection"}
    ends = {f"{name}_ends" for name in (*TEXTS, "names")}
    if "features" not in columns or not columns.keys() <= names | ends | {"names", "widths", *PROJECTION}:
        raise ValueError(f"holds {', '.join(sorted(columns))}: a catalog has features and no more than its own columns")
    for name in (*TEXTS, "names"):
        if name in columns or f"{name}_ends" in columns:
            columns[name] = unpack_texts(name, columns.pop(name, None), columns.pop(f"{name}_ends", None))
    parts = {name: columns.pop(name) for name in ("names", "widths", *PROJECTION) if name in columns}
    if parts:
        if len(parts) != 2 + len(PROJECTION) or parts["widths"].shape != (len(parts["names"]),):
            raise ValueError("a projection needs names, widths, mean, scale and components")
        columns["projection"] = Projection(**{**parts, "widths": tuple(parts["widths"].tolist())})
    return columns


TEXTS = ("title", "ids", "topic_names")
PROJECTION = ("mean", "scale", "components")
