"""Fixtures of the tests of `recgym.agents`. What they need is imported within: the core is tested without it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


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
