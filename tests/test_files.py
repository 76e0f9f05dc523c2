"""Files: what JSON cannot carry, and places that cannot be written to. Whole or not at all is in test_archive.py."""

from __future__ import annotations

import json
import os
import time
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


def test_what_a_killed_writer_left_is_swept_by_the_next(tmp_path: Path) -> None:
    left, young, foreign = (tmp_path / name for name in (".report-abc.tmp", ".report-def.tmp", ".other-abc.tmp"))
    for path in (left, young, foreign):
        path.write_text("half")
    for path in (left, foreign):
        os.utime(path, (time.time() - 100,) * 2)
    write_json(tmp_path / "report.json", {})
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other-abc.tmp", ".report-def.tmp", "report.json"]
