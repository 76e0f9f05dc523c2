"""Arrays of NumPy or torch through the array API, nested tuples of them, and the randomness that the API leaves out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from types import SimpleNamespace
from typing import Any, Protocol, cast

import array_api_compat
import array_api_compat.numpy
import numpy as np

__all__ = [
    "LONG",
    "MAX_LOGIT",
    "NUMPY",
    "Array",
    "Rng",
    "Seed",
    "arange_like",
    "batch_size",
    "clip",
    "columns",
    "constant",
    "logistic",
    "namespace",
    "one_hot",
    "row_sum",
    "rows_of",
    "take_at",
    "take_rows",
    "to_numpy",
    "tree_items",
    "tree_map",
    "unit_rows",
    "where_rows",
]

Array = Any  # np.ndarray or torch.Tensor: float32, bool or int64
Seed = int | Sequence[int] | None
# What NumPy has as the array API wants it, from 2.1 on: their wrappers take a tenth of a small environment's step.
OWN = ("arange", "cumulative_sum", "empty", "full", "full_like", "ones", "ones_like", "zeros", "zeros_like")
METHODS = ("argmax", "astype", "max", "mean", "min", "reshape", "sum")  # of arrays: NumPy's functions wrap these
NUMPY: Any = SimpleNamespace(**vars(array_api_compat.numpy))
if hasattr(np, "cumulative_sum"):
    vars(NUMPY).update((name, getattr(np, name)) for name in OWN)
    vars(NUMPY).update((name, getattr(np.ndarray, name)) for name in METHODS)
MAX_LOGIT = 30.0  # e^30 to one is as sure as float32 can tell
SHORT = 4  # numbers in a row that are better added column by column
LONG = 4096  # numbers in an array: from here on a pass over it costs more than a call


def namespace(array: Array) -> Any:
    """Array API namespace of `array`; a shortcut for NumPy, where a look-up would cost as much as the operation."""
    return NUMPY if isinstance(array, np.ndarray) else array_api_compat.array_namespace(array)


def tree_map(function: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """Apply `function` to the leaves of (nested) NamedTuples of one type."""
    if isinstance(tree, tuple):
        return type(tree)(*(tree_map(function, *leaves) for leaves in zip(tree, *others, strict=True)))
    return function(tree, *others)


def tree_items(tree: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """(dotted name, leaf) pairs of (nested) NamedTuples."""
    if not isinstance(tree, tuple):
        return [(prefix, tree)]
    names = cast(Any, tree)._fields
    return [
        item for n, leaf in zip(names, tree, strict=True) for item in tree_items(leaf, f"{prefix}.{n}" if prefix else n)
    ]


def batch_size(tree: Any) -> int:
    """Number of rows B of (nested) NamedTuples of arrays [B, ...]."""
    return batch_size(tree[0]) if isinstance(tree, tuple) else int(tree.shape[0])


def rows_of(array: Array) -> Array:
    """[B] int64 indices of the rows of `array` [B, ...], on its device; shared, so not to be written to."""
    return arange_like(array.shape[0], array)


def one_hot(index: Array, count: int) -> Array:
    """[B, k, count] float32, 1 at each of the indices [B, k]."""
    xp = namespace(index)
    return xp.astype(index[:, :, None] == arange_like(count, index), xp.float32)


def arange_like(count: int, like: Array) -> Array:
    """[count] int64 0, 1, ... on the device of `like`; shared, so not to be written to."""
    if isinstance(like, np.ndarray):
        return _row_numbers(count, None, None)
    return _row_numbers(count, namespace(like), like.device)


@lru_cache(maxsize=64)
def _row_numbers(count: int, xp: Any, device: Any) -> Array:
    if xp is not None:
        return xp.arange(count, device=device)
    numbers = np.arange(count)
    numbers.flags.writeable = False
    return numbers


@lru_cache(maxsize=256)
def _constant(values: tuple[float, ...], xp: Any, device: Any) -> Array:
    if xp is not None:
        return xp.asarray(values, dtype=xp.float32, device=device)
    array = np.asarray(values, dtype=np.float32)
    array.flags.writeable = False
    return array


def constant(values: tuple[float, ...], like: Array) -> Array:
    """[n] float32 of the `values`, in the library and on the device of `like`; shared, so not to be written to."""
    if isinstance(like, np.ndarray):
        return _constant(values, None, None)
    return _constant(values, namespace(like), like.device)


def columns(*parts: Array) -> Array:
    """[B, n] of n arrays [B] of one type; NumPy's stack costs four times as much for small arrays."""
    if isinstance(parts[0], np.ndarray):
        return np.array(parts).T
    return namespace(parts[0]).stack(parts, axis=1)


def where_rows(mask: Array, new: Array, old: Array) -> Array:
    """Rows [B, ...] of `new` where `mask` [B] is true, else of `old`."""
    return namespace(mask).where(mask.reshape((-1,) + (1,) * (new.ndim - 1)), new, old)


def clip(array: Array, low: float | None, high: float | None) -> Array:
    """`array` cut at the bounds that are not None; the array API's own costs ten times as much for small arrays.

    NumPy's method takes one pass over the array, but a while to begin.
    """
    if not isinstance(array, np.ndarray) or array.size > LONG:
        return array.clip(low, high)
    array = array if low is None else np.maximum(array, low)
    return array if high is None else np.minimum(array, high)


def logistic(logit: Array) -> Array:
    """1 / (1 + e^-logit), of logits cut at +-`MAX_LOGIT`."""
    return 1.0 / (1.0 + namespace(logit).exp(-clip(logit, -MAX_LOGIT, MAX_LOGIT)))


def unit_rows(table: np.ndarray) -> np.ndarray:
    """`table` [N, D] with rows of length 1; those that are 0 stay so."""
    length = np.linalg.norm(table, axis=1, keepdims=True)
    return table / np.where(length > 0.0, length, 1.0)


def row_sum(array: Array) -> Array:
    """[B] sums of the rows of `array` [B, n]; the array API's own costs three times as much for small arrays.

    Many short rows are added up column by column, in NumPy's own order and a third of its time.
    """
    if isinstance(array, np.ndarray) and 1 < array.shape[1] <= SHORT and array.size > LONG:
        total = array[:, 0] + array[:, 1]
        for column in range(2, array.shape[1]):
            total += array[:, column]
        return total
    return array.sum(axis=1)


def take_rows(table: Array, index: Array) -> Array:
    """`table[index]` along the first axis, for an index of any shape; NumPy's own take is several times as fast."""
    return table.take(index, axis=0) if isinstance(table, np.ndarray) else table[index]


def take_at(table: Array, index: Array) -> Array:
    """[B, k] numbers of `table` [B, n] at the columns `index` [B, k] of the same row; see `take_rows`."""
    return take_rows(table.reshape(-1), index + rows_of(table)[:, None] * table.shape[1])


def to_numpy(array: Array) -> np.ndarray:
    """`array`, or any nested sequence, as a NumPy array on the host."""
    return np.asarray(array.detach().cpu() if hasattr(array, "detach") else array)


class Rng(Protocol):
    """What the array API leaves out. Draws are float32 (counts int64), on one device, from a stream set by `rekey`.

    Within one step the draws of fixed width (uniform, normal) come first and do not depend on the action, so that
    one seed gives every policy the same luck. Where one draw of counts follows another, `branch` between them keeps
    a row's luck from what the first took for other rows. `binomial` broadcasts probabilities to the shape of counts.
    """

    xp: Any
    device: Any

    def seed(self, seed: Seed) -> None: ...
    def rekey(self, stream: int, step: int) -> None: ...
    def branch(self, number: int) -> None: ...
    def uniform(self, shape: tuple[int, ...]) -> Array: ...
    def normal(self, shape: tuple[int, ...]) -> Array: ...
    def poisson(self, rate: Array) -> Array: ...
    def binomial(self, count: Array, probability: Array) -> Array: ...
    def gamma(self, shape: Array) -> Array: ...
