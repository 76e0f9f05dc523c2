"""The terminal: text is text, narrow and plain terminals lose columns and characters but never the run."""

from __future__ import annotations

import ast
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Mapping
from fcntl import ioctl
from pathlib import Path

import pytest

from recgym import terminal
from recgym.terminal import Table
from tests.test_imports import MODULES, tree_of

ROOT = Path(__file__).parent.parent
ODD = "Milk [/1L] [bold]x[/bold] :smile: \u2615 [link=http://x]"


def run_in_terminal(code: str, folder: Path, *, columns: int = 80, **environment: str) -> str:
    """What a program prints in a terminal of so many columns, without the codes for colours."""
    program = folder / "program.py"
    program.write_text(code, encoding="utf-8")
    main, other = pty.openpty()
    ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    settings = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TERM": "xterm", **environment}
    settings.pop("COLUMNS", None)
    process = subprocess.Popen([sys.executable, str(program)], cwd=folder, env=settings, stdout=other, stderr=other)
    os.close(other)
    printed = b""
    while select.select([main], [], [], 120)[0]:
        try:
            printed += os.read(main, 65536)
        except OSError:  # the other end is closed
            break
    os.close(main)
    assert process.wait(timeout=60) == 0, printed.decode(errors="replace")
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", printed.decode(errors="replace")).replace("\r\n", "\n")


@pytest.mark.parametrize("name", MODULES)
def test_one_module_prints(name: str) -> None:
    """Programs that are themselves run as text may: benchmarks measure in fresh processes."""
    if name == "recgym.terminal":
        return
    for node in ast.walk(tree_of(name)):
        called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
        assert not called, f"{name}:{getattr(node, 'lineno', 0)} prints: say() of recgym.terminal does"
        if isinstance(node, ast.Import | ast.ImportFrom):
            named = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            assert not {each.split(".")[0] for each in named} & {"rich", "tqdm"}, name


def test_text_is_never_markup(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rich")
    table = Table(ODD, (ODD, "figure"))
    table.caption = ODD
    table.add(ODD, "[red]1", bold=True)
    table.show()
    terminal.say(ODD)
    printed = capsys.readouterr().out
    assert printed.count(ODD) == 5 and "[red]1" in printed


@pytest.mark.parametrize("settings", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}])
def test_what_cannot_be_written_is_lost_alone(settings: Mapping[str, str], tmp_path: Path) -> None:
    pytest.importorskip("rich")
    code = (
        "from recgym.terminal import Table, progress, say\n"
        f"table = Table('prices', ({ODD!r}, '\u00b1'))\n"
        "table.add('\u00e9clair', '1'); table.show(); say('\u2615 ready')\n"
        "with progress('\u20ac', 3) as advance: advance(3, 3, '\u2615')\n"
    )
    printed = run_in_terminal(code, tmp_path, **{"PYTHONCOERCECLOCALE": "0", **settings})
    assert "clair" in printed and " ready" in printed and "Milk [/1L]" in printed
    if "PYTHONIOENCODING" in settings:
        assert "?clair" in printed and printed.isascii()


def test_a_narrow_terminal_loses_columns_and_says_which(tmp_path: Path) -> None:
    pytest.importorskip("rich")
    code = (
        "from recgym.terminal import Table\n"
        "table = Table('t', ['policy', 'knows', *(f'figure {i}' for i in range(8))], spare=('knows', 'figure 0'))\n"
        "for row in range(3): table.add(f'policy {row}', 'nothing at all', *(f'{i}.00 +- {row}' for i in range(8)))\n"
        "table.show()"
    )
    for columns in (60, 80, 100, 200):
        printed = run_in_terminal(code, tmp_path, columns=columns)
        lines = printed.splitlines()
        assert max(map(len, lines)) <= columns
        assert sum("policy 1" in line for line in lines) == 1  # no row wraps
        assert ("characters across: without knows" in printed) == (columns < 200)
        assert ("figure 7" in printed.split("without")[0]) == (columns >= 100)


def test_without_a_terminal_nothing_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rich")
    table = Table("t", [f"heading number {i}" for i in range(30)])
    table.add(*(f"cell number {i}" for i in range(30)))
    table.show()
    with terminal.progress("things", 3) as advance:
        advance(2)
    printed = capsys.readouterr()
    assert "cell number 29" in printed.out and "without" not in printed.out and not printed.err


def test_training_in_a_terminal_shows_a_bar_and_fits_into_it(tmp_path: Path) -> None:
    pytest.importorskip("stable_baselines3")
    code = (
        "from recgym.cli import main\n"
        "words = 'train --algo ppo -n 4000 --n-envs 20 --param horizon=10 --trials 60 --eval-trials 20 --eval-freq 0'\n"
        "words += ' --hyperparam n_steps=10 --hyperparam batch_size=100'\n"
        "main(words.split())\n"
        "main('evaluate --policies baselines,mine=logs/latest --trials 60'.split())\n"
    )
    printed = run_in_terminal(code, tmp_path)
    assert re.search(r"\d+%\|.*timesteps", printed) and re.search(r"\d+%\|.*decisions", printed)
    shown = [line.split("\r")[-1] for line in printed.splitlines()]
    pasted = [line for line in shown if re.match("(evaluate|inspect|resume|report): ", line)]
    assert len(pasted) == 4 and "--policies baselines,ppo=logs/latest" in pasted[0] and "-i logs/latest" in pasted[2]
    tables = [line for line in shown if line[:1] in "┏┃┡│└"]
    assert len(tables) > 20 and max(map(len, tables)) <= 80
    assert "without knows" in printed


def test_runs_that_begin_together_have_folders_of_their_own(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from recgym.agents.folders import make_folder

    folders: list[Path] = []
    start = threading.Barrier(12)

    def begin() -> None:
        start.wait()
        folders.extend(make_folder(tmp_path, "ppo", "RecBandit-v0") for _ in range(5))

    threads = [threading.Thread(target=begin) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(path.name for path in folders) == sorted(f"RecBandit-v0_{n}" for n in range(1, 61))


def test_the_latest_run_is_found_by_what_it_saved_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    from recgym.agents.folders import CHECKPOINT, checkpoint_of, make_folder, short_name

    monkeypatch.chdir(tmp_path)
    one, other, empty = (make_folder(Path("logs"), "ppo", "X") for _ in range(3))
    with pytest.raises(FileNotFoundError, match="logs/latest: no run has saved a checkpoint in logs"):
        checkpoint_of(Path("logs/latest"))
    for age, folder in ((5, one), (9, other)):
        (folder / CHECKPOINT).write_bytes(b"x")
        os.utime(folder / CHECKPOINT, (1e9 - age, 1e9 - age))
    assert checkpoint_of(Path("logs/latest")) == one / CHECKPOINT == checkpoint_of(one)
    assert short_name(one / CHECKPOINT) == "logs/latest" and short_name(other / CHECKPOINT) == str(other)
    assert checkpoint_of(Path("some.safetensors")) == Path("some.safetensors")
    with pytest.raises(FileNotFoundError, match="has not saved"):
        checkpoint_of(empty)
