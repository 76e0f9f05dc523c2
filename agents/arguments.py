"""What MetaPPO's numbers may be, and arguments as a checkpoint can carry them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["RANGES", "check_numbers", "plain"]

POSITIVE, ANY = 1e-12, float("inf")
RANGES: dict[str, tuple[float, float, bool]] = {  # least and greatest number, and whether it must be whole
    **dict.fromkeys(("n_steps", "batch_size", "n_epochs", "batch_decisions"), (1, ANY, True)),
    **dict.fromkeys(("width", "heads", "layers", "context_length"), (1, ANY, True)),
    **dict.fromkeys(("pretrain_steps", "history_layers"), (0, ANY, True)),
    **dict.fromkeys(("gamma", "gae_lambda", "pretrain_mix"), (0.0, 1.0, False)),
    **dict.fromkeys(("ent_coef", "vf_coef", "weight_decay", "expert_coef"), (0.0, ANY, False)),
    **dict.fromkeys(("max_grad_norm", "target_kl", "reward_scale", "temperature"), (POSITIVE, ANY, False)),
    **dict.fromkeys(("pretrain_learning_rate", "pretrain_epochs"), (POSITIVE, ANY, False)),
}
OPTIONAL = ("n_steps", "batch_size", "batch_decisions", "target_kl")  # None is a value of theirs


def check_numbers(values: Mapping[str, Any]) -> None:
    """Refuse what is outside `RANGES`; names that are not there are passed over.

    Raises:
        ValueError: says which, and what it may be.
    """
    for name, given in values.items():
        if name not in RANGES or (given is None and name in OPTIONAL):
            continue
        (low, high, whole), value = RANGES[name], plain(given)
        number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        if not (number and low <= value <= high):
            least = "above 0" if low == POSITIVE else f"of at least {low:g}"
            most = f" and at most {high:g}" if high < ANY else ""
            raise ValueError(f"{name} must be a {'whole ' if whole else ''}number {least}{most}, got {given!r}")


def plain(value: Any) -> Any:
    """NumPy's numbers and arrays as Python's, in mappings and sequences too, as JSON can carry them."""
    if isinstance(value, Mapping):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
