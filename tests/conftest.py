"""What tests share. What the fixtures need is imported within: the core is tested without it."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: on small arrays threads wait for each other

ROOT = Path(__file__).parent.parent
Command = Callable[..., str]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    """`command("train", "-n", "400", code=0)` gives what is printed; where there is an error, on the error stream.

    It runs in the test's own process, which spares the imports.
    """
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


@pytest.fixture
def one_thread() -> Iterator[None]:
    """One thread of torch: another number of them gives other weights."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small PPO checkpoint."""
    from tests.small_checkpoints import make, write

    return write(tmp_path_factory.mktemp("checkpoint") / "small", make("ppo"))


@pytest.fixture(params=["memory", "history", "both", "features", "no layout"])
def actor(request: pytest.FixtureRequest) -> Any:
    """A model of each kind of network, with weights that make everything matter."""
    from tests.small_agents import NETWORKS, bandit, cart_pole, contextual, meta, shaken

    if request.param == "no layout":
        return shaken(meta(cart_pole(3), {"layers": 2}))
    env = contextual(3, horizon=8) if request.param == "features" else bandit(3, horizon=8)
    return shaken(meta(env, NETWORKS.get(request.param, {"feature_memory": True})))
