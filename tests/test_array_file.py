"""Arrays and texts in one file: what is read is what was written, and for the same purpose."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recgym.array_file import digest_of, pack_texts, read_arrays, unpack_texts, write_arrays


def test_a_file_is_read_for_the_purpose_it_was_written_for(tmp_path: Path) -> None:
    pytest.importorskip("safetensors", reason="the extra text")
    path, arrays = tmp_path / "a.safetensors", {"x": np.arange(3), "y": np.ones((2, 2), np.float32)}
    write_arrays(path, "list", arrays)
    again, digest = read_arrays(path, "list")
    assert digest == digest_of(again) == digest_of(arrays)
    np.testing.assert_array_equal(again["x"], [0, 1, 2])
    with pytest.raises(ValueError, match="a file without a catalog's header"):
        read_arrays(path, "catalog")


def test_the_digest_sees_names_types_shapes_and_content() -> None:
    x = np.arange(4)
    others = [{"y": x}, {"x": x.astype(np.int32)}, {"x": x.reshape(2, 2)}, {"x": x + 1}, {}]
    assert len({digest_of(arrays) for arrays in [{"x": x}, *others]}) == 6


def test_texts_are_packed_and_unpacked() -> None:
    for texts in [("a", "", "Thé 茶"), ("",), ("", "b")]:
        assert unpack_texts("t", *pack_texts("t", texts).values()) == texts
