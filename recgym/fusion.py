"""Features from several modalities: standardised, filled where they are missing, projected to one width by a PCA.

The PCA is fitted once and kept with the catalog, so that items that come later get features in the same coordinates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Projection", "fuse"]

MAX_COLUMNS = 4_096  # of all modalities together: the PCA takes time with the cube of it
MAX_VALUE = 1e6
MIN_WEIGHT = 1e-3  # of a modality: below, leave it out
NONE_LEFT = 1e-10  # share of the variance below which a direction holds rounding alone


@dataclass(frozen=True, eq=False)
class Projection:
    """From the raw columns of M modalities, W in all, to D features: (column - mean) / scale, times components."""

    names: tuple[str, ...]  # M modalities, in the order of their columns
    widths: tuple[int, ...]  # M numbers of columns, W in all
    mean: np.ndarray  # [W] float32
    scale: np.ndarray  # [W] float32, above 0
    components: np.ndarray  # [W, D] float32

    def __post_init__(self) -> None:
        total = sum(self.widths)
        if len(self.names) != len(self.widths) or len(set(self.names)) != len(self.names) or min(self.widths) < 1:
            raise ValueError(f"Projection: each modality needs a name and a width, got {self.names} and {self.widths}")
        for name, shape in (("mean", (total,)), ("scale", (total,)), ("components", (total, -1))):
            array: np.ndarray = np.array(getattr(self, name), dtype=np.float32, order="C")
            if array.ndim != len(shape) or len(array) != total or not np.isfinite(array).all():
                raise ValueError(f"Projection: {name} must have {total} rows of finite numbers, one per column")
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        if not (self.scale > 0).all():
            raise ValueError("Projection: scale must be above 0")

    def __call__(self, modalities: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """Give items features, new ones too.

        Args:
            modalities: by name, [N, width] numbers, NaN where an item lacks them; one that is left out is missing.

        Returns:
            [N, D] float32 features, and [N, M] bool marks where any number of a modality was missing. What is missing
            is filled with its mean over the items of the fit.

        Raises:
            ValueError: an unknown modality, widths or lengths that differ, infinite numbers.
        """
        unknown = sorted(set(modalities) - set(self.names))
        if unknown or not modalities:
            raise ValueError(f"modalities {unknown} are not among {', '.join(self.names)}: name one of these at least")
        tables = _tables(modalities)
        items = len(next(iter(tables.values())))
        parts = []
        for name, width in zip(self.names, self.widths, strict=True):
            part = tables.get(name, np.full((items, width), np.nan))
            if part.shape[1] != width:
                raise ValueError(f"modality {name!r} has {part.shape[1]} columns, {width} when it was fitted")
            parts.append(part)
        standard = np.nan_to_num((np.concatenate(parts, axis=1) - self.mean) / self.scale)
        return (standard @ self.components).astype(np.float32), _marks(parts)


def fuse(
    modalities: Mapping[str, Any], *, width: int = 16, weights: Mapping[str, float] | None = None
) -> tuple[np.ndarray, np.ndarray, Projection]:
    """Fit a projection of several modalities and give the items their features.

    Columns are standardised, and each modality is given the same weight whatever its width: its columns are divided
    by the root of their number. Where few features are kept, a modality whose variance lies in few directions (genres)
    still crowds out one that spreads it (vectors of texts): `weights` shifts the balance. A PCA keeps the directions
    of most variance, and the features are scaled by one number so that their mean squared length is 1.

    Args:
        modalities: by name, [N, w] or [N] numbers, NaN where an item lacks them.
        width: D at most; there are no more features than directions in which the items differ.
        weights: share of variance by modality, relative to 1 for each that is not named.

    Returns:
        [N, D] float32 features, [N, M] bool marks of what was missing, and the projection.

    Raises:
        ValueError: no modality or no item, lengths that differ, infinite numbers, a column that no item has, or items
            that do not differ (says which).
    """
    if isinstance(width, bool) or not isinstance(width, int) or width < 1:
        raise ValueError(f"fuse: width must be a whole number of at least 1, got {width!r}")
    if not modalities:
        raise ValueError("fuse: no modality: give texts, categories, numbers or vectors of the items")
    tables = _tables(modalities)
    shares = {**dict.fromkeys(tables, 1.0), **(weights or {})}
    if len(shares) > len(tables) or not all(MIN_WEIGHT <= share <= 1 / MIN_WEIGHT for share in shares.values()):
        wanted = f"a number in [{MIN_WEIGHT:g}, {1 / MIN_WEIGHT:g}] for some of {', '.join(tables)}"
        raise ValueError(f"fuse: weights must have {wanted}, got {dict(weights or {})}")
    parts = list(tables.values())
    columns = np.concatenate(parts, axis=1)
    if columns.shape[1] > MAX_COLUMNS:
        raise ValueError(f"fuse: {columns.shape[1]} columns in all: give at most {MAX_COLUMNS}")
    for name, part in tables.items():
        empty = np.flatnonzero(np.isnan(part).all(axis=0))
        if empty.size:
            raise ValueError(f"modality {name!r}: no item has column {empty[0]}: leave it out")
    mean, deviation = np.nanmean(columns, axis=0), np.nanstd(columns, axis=0)
    varies = deviation > 1e-6 * np.maximum(1.0, np.abs(mean))  # below is rounding
    if not varies.any():
        raise ValueError(
            f"fuse: the {len(columns)} items do not differ in {', '.join(tables)}: give something that does"
        )
    counts = [
        np.full(w, max(int(v.sum()), 1) / shares[n]) for n, (w, v) in zip(tables, _split(varies, parts), strict=True)
    ]
    scale = np.where(varies, deviation * np.sqrt(np.concatenate(counts)), 1.0)
    standard = np.where(varies, np.nan_to_num((columns - mean) / scale), 0.0)
    variance, directions = np.linalg.eigh(standard.T @ standard / len(standard))
    most = np.flatnonzero(variance > NONE_LEFT * variance.max())[::-1][:width]
    components = directions[:, most]
    largest = np.abs(components).argmax(axis=0)
    components *= np.sign(components[largest, np.arange(len(most))])  # a direction has no sign of its own
    components /= np.sqrt(variance[most].sum())
    projection = Projection(tuple(tables), tuple(part.shape[1] for part in parts), mean, scale, components)
    return *projection(tables), projection


def _split(varies: np.ndarray, parts: list[np.ndarray]) -> list[tuple[int, np.ndarray]]:
    """Width of each modality and [w] which of its columns vary."""
    ends = np.cumsum([part.shape[1] for part in parts])
    return [(len(each), each) for each in np.split(varies, ends[:-1])]


def _marks(parts: list[np.ndarray]) -> np.ndarray:
    return np.stack([np.isnan(part).any(axis=1) for part in parts], axis=1)


def _tables(modalities: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Each modality as float64 [N, w]; NaN stays."""
    tables: dict[str, np.ndarray] = {}
    for name, values in modalities.items():
        try:
            table: np.ndarray = np.asarray(values, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"modality {name!r} must be an array of numbers [N, w]: {error}") from None
        table = table[:, None] if table.ndim == 1 else table
        if table.ndim != 2 or table.size == 0:
            raise ValueError(f"modality {name!r} must be [N, w] numbers of one item at least, got {list(table.shape)}")
        wrong = np.argwhere(np.abs(table) > MAX_VALUE)  # NaN is not
        if wrong.size:
            item, column = wrong[0]
            what = f"{table[item, column]:g}, which is beyond +-{MAX_VALUE:g}"
            raise ValueError(
                f"modality {name!r}: column {column} of item {item} is {what}: correct it, or NaN if unknown"
            )
        tables[name] = table
    lengths = {name: len(table) for name, table in tables.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"modalities have different numbers of items, {lengths}: one row per item in each")
    return tables
