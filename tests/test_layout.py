"""The layout of observations, trees of arrays, and files that are written whole."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from recgym.arrays import batch_size, tree_items, tree_map
from recgym.files import write_atomically
from recgym.layout import LOG_SCALE, Field, Layout, log_scaled


# --- small things ----------------------------------------------------------------------------------------------------
def test_log_scaled_maps_a_thousand_to_one() -> None:
    np.testing.assert_allclose(log_scaled(np.float32([0, 1, 9, 1000])), np.log([1, 2, 10, 1001]) / LOG_SCALE, rtol=1e-6)
    assert math.log(1001) == LOG_SCALE


class Leaf(NamedTuple):
    a: Any
    b: Any


def test_trees() -> None:
    tree = Leaf(np.ones((4, 2)), Leaf(np.zeros(4), np.full(4, 2.0)))
    assert [name for name, _ in tree_items(tree)] == ["a", "b.a", "b.b"]
    doubled = tree_map(lambda x, y: x + y, tree, tree)
    assert isinstance(doubled, Leaf) and isinstance(doubled.b, Leaf)
    for (_, one), (_, two) in zip(tree_items(tree), tree_items(doubled), strict=True):
        np.testing.assert_array_equal(2 * one, two)
    assert batch_size(tree) == batch_size(tree.b) == 4


def test_layout_by_hand() -> None:
    layout = Layout(
        (Field("c", 0, 1, "c"), Field("w", -1, 2, "w", 2)), (Field("i", 0, 3, "i"), Field("v", 4, 5, "v", 2)), 2
    )
    assert layout.sizes == (3, 3, 9)
    observation = np.arange(18, dtype=np.float32).reshape(2, 9)
    np.testing.assert_array_equal(layout.get(observation, "c"), [0, 9])
    np.testing.assert_array_equal(layout.get(observation, "w"), [[1, 2], [10, 11]])
    np.testing.assert_array_equal(layout.get(observation, "i"), [[3, 6], [12, 15]])
    np.testing.assert_array_equal(layout.get(observation, "v"), [[[4, 5], [7, 8]], [[13, 14], [16, 17]]])
    context, candidates = layout.split(observation)
    np.testing.assert_array_equal(context, [[0, 1, 2], [9, 10, 11]])
    np.testing.assert_array_equal(candidates[1], [[12, 13, 14], [15, 16, 17]])
    one_context, one = layout.split(observation[0])  # any leading axes
    assert one_context.shape == (3,) and one.shape == (2, 3)
    fields = {field.name: layout.get(observation, field.name) for field in layout}
    np.testing.assert_array_equal(layout.join(fields, fields), observation)
    assert layout.box().low.tolist() == [0, -1, -1, 0, 4, 4, 0, 4, 4]
    assert layout.box().high.tolist() == [1, 2, 2, 3, 5, 5, 3, 5, 5]
    assert layout.box().dtype == np.float32


def test_a_name_stands_for_one_field() -> None:
    x = Field("x", 0, 1, "x")
    with pytest.raises(ValueError, match="several fields named x: name each differently"):
        Layout((Field("t", 0, 1, "t"), x), (x,), 2)


def test_write_atomically(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a" / "b.bin"
    write_atomically(target, b"one")
    write_atomically(target, b"two")
    assert target.read_bytes() == b"two" and [p.name for p in target.parent.iterdir()] == ["b.bin"]
    plain = tmp_path / "plain"
    plain.write_bytes(b"")
    assert target.stat().st_mode == plain.stat().st_mode

    def fail(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(target, b"three")
    assert target.read_bytes() == b"two" and [p.name for p in target.parent.iterdir()] == ["b.bin"]
