"""Files: what JSON cannot carry, and places that cannot be written to. Whole or not at all is in test_archive.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recgym.files import check_writable, write_json


def test_json_has_null_for_what_is_undefined(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.json"
    write_json(path, {"a": float("nan"), "b": [1.5, (float("inf"), 2)], "c": {"d": -float("inf")}})
    assert json.loads(path.read_text()) == {"a": None, "b": [1.5, [None, 2]], "c": {"d": None}}
    before = path.read_bytes()
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert path.read_bytes() == before


def test_places_that_cannot_be_written_are_refused_beforehand(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("kept")
    check_writable(file)
    check_writable(tmp_path / "new" / "report.json")
    assert (tmp_path / "new").is_dir() and not list((tmp_path / "new").iterdir()) and file.read_text() == "kept"
    for path, reason in (
        (tmp_path, "it is a folder"),
        (file / "x.json", "cannot write"),
        (Path("/dev/null"), "regular"),
    ):
        with pytest.raises(OSError, match=reason):
            check_writable(path)
