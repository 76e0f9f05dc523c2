"""Whose turn it is to draw from the random generators that a whole process shares: torch's and NumPy's global ones."""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import numpy as np

__all__ = ["LUCK", "alone", "own_luck"]

LUCK = threading.RLock()  # held by whoever draws from them: threads would take each other's numbers
Work = TypeVar("Work", bound=Callable[..., Any])


def alone(work: Work) -> Work:
    """Let no other thread draw from the global generators while this works."""

    @functools.wraps(work)
    def locked(*args: Any, **kwargs: Any) -> Any:
        with LUCK:
            return work(*args, **kwargs)

    return cast(Work, locked)


@contextmanager
def own_luck(policy: Any, seed: Sequence[int]) -> Iterator[None]:
    """Streams of its own for a policy, and the caller's back afterwards.

    Baselines are told a seed. SB3's algorithms draw from the global generators of torch and NumPy, DQN also from its
    action space.
    """
    if hasattr(policy, "reseed"):
        policy.reseed(seed)
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    words = np.random.SeedSequence([*seed, 1]).generate_state(3)
    space = getattr(getattr(policy, "action_space", None), "np_random", None)
    space_state = None if space is None else space.bit_generator.state
    with LUCK, torch.random.fork_rng():
        state = np.random.get_state()  # noqa: NPY002 - SB3's algorithms draw from it; put back below
        torch.manual_seed(int(words[0]))
        np.random.seed(words[1])  # noqa: NPY002 - as above
        if space is not None:
            space.bit_generator.state = np.random.PCG64(int(words[2])).state
        try:
            yield
        finally:
            np.random.set_state(state)  # noqa: NPY002 - as above
            if space is not None:
                space.bit_generator.state = space_state
