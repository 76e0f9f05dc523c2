"""What tests of the command share: a command run in the test's own process, which spares the imports."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
Command = Callable[..., str]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    """`command("train", "-n", "400", code=0)` gives what is printed; where there is an error, on the error stream."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("stable_baselines3")
    threads = torch.get_num_threads()
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def run(name: str, *arguments: str, code: int = 0) -> str:
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            try:
                status = import_module("recgym.cli").main([name, *arguments])
            except SystemExit as exit:  # of argparse
                status = exit.code
        printed = out.getvalue() + err.getvalue()
        assert (status or 0) == code, printed
        return err.getvalue() if code == 2 else printed

    yield run
    torch.set_num_threads(threads)


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorBoard gets none: they take half the time of a small run, and the tests of whole runs look at them."""
    pytest.importorskip("tensorboard")
    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter.add_figure", lambda *_, **__: None)
