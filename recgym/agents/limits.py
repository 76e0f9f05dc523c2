"""How large what a checkpoint asks for may be: looked at before anything is built from it, and before it is written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

__all__ = ["OF_A_PLACE", "check_arguments", "check_run"]

OF_A_PLACE = ("tensorboard_log", "verbose", "device", "env")  # arguments that a file never decides: where, and how loud
MOST = 2**53  # of any number: above, floats are no longer whole
SIZES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("layers", "n_lstm_layers", "heads"), (1, 256)),
    "history_layers": (0, 256),
    **dict.fromkeys(("width", "lstm_hidden_size"), (1, 8192)),
    **dict.fromkeys(("context_length", "n_steps", "batch_decisions"), (1, 2**20)),
    **dict.fromkeys(("batch_size", "train_freq", "target_update_interval"), (1, 2**30)),
    "n_epochs": (1, 10_000),
    "gradient_steps": (-1, 10**6),
    "buffer_size": (1, 10**7),
    **dict.fromkeys(("learning_starts", "pretrain_steps", "stats_window_size"), (0, 2**40)),
    **dict.fromkeys(("gamma", "gae_lambda", "exploration_fraction", "exploration_final_eps"), (0, 1)),
    **dict.fromkeys(("learning_rate", "clip_range", "pretrain_learning_rate", "max_grad_norm"), (0, 10**6)),
}
NETWORK = (1, 8192)  # of a layer of Stable-Baselines3's networks
MOST_PARTS = 10_000  # of a list or a mapping
MOST_DEPTH = 8  # of lists and mappings in each other


def check_arguments(arguments: Mapping[str, Any]) -> None:
    """Refuse arguments of an algorithm that no file decides, or that are beyond all bounds.

    Raises:
        ValueError: names the argument and what it may be.
    """
    wrong = sorted(name for name in arguments if name.startswith("_") or name in OF_A_PLACE)
    if wrong:
        raise ValueError(f"{', '.join(wrong)} in the header's 'arguments' is not for a file to decide")
    _check(arguments, "arguments", 0)


def check_run(counters: Mapping[str, Any]) -> None:
    """Refuse what no run counts: numbers below -1, which stands for none yet, or beyond all bounds.

    Raises:
        ValueError: names it.
    """
    options = counters.get("options", {})
    for name, value in {**counters, **(options if isinstance(options, Mapping) else {})}.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if number and not -1 <= value <= MOST:
            raise ValueError(f"{name} in the header's 'counters' must be in [-1, {MOST}], is {value!r}")


def _check(value: Any, name: str, depth: int) -> None:
    """Look at a value, and into it; `name` is that of the argument that it is or is in."""
    if depth > MOST_DEPTH:
        raise ValueError(f"{name} in the header's 'arguments' is nested more than {MOST_DEPTH} deep")
    if isinstance(value, Mapping | list | tuple):
        if len(value) > MOST_PARTS:
            raise ValueError(f"{name} in the header's 'arguments' has {len(value):,} parts, {MOST_PARTS:,} at most")
        parts = value.items() if isinstance(value, Mapping) else ((name, part) for part in value)
        for inner, part in parts:
            of_network = name == "net_arch" or inner == "net_arch"
            _check(part, "net_arch" if of_network else str(inner), depth + 1)
        return
    text = value.removeprefix("lin_") if isinstance(value, str) and value.startswith("lin_") else None
    try:
        number = float(value if text is None else text) if text is not None or _is_number(value) else None
    except ValueError:
        number = math.nan
    if number is None:
        return
    low, high = NETWORK if name == "net_arch" else SIZES.get(name, (-MOST, MOST))
    if not low <= number <= high:
        raise ValueError(f"{name} in the header's 'arguments' must be in [{low:g}, {high:g}], is {value!r}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
