"""PPO's losses on whole trials. Decisions at which nothing is decided count in none of them.

`present` [b, S] bool says where something is decided; None: everywhere.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["auxiliary_loss", "mean_present", "measure_change", "normalise", "note", "policy_loss", "value_loss"]

MIN_DEVIATION = 1e-8  # advantages that are all alike stay finite


def mean_present(values: Tensor, present: Tensor | None) -> Tensor:
    """Average values [b, S] over the decisions that count; 0 where none does."""
    if present is None:
        return values.mean()
    return torch.where(present, values, 0.0).sum() / present.sum().clamp(min=1)


def normalise(advantages: Tensor, present: Tensor | None) -> Tensor:
    """Bring advantages [b, S] to mean 0 and standard deviation 1 over the decisions that count."""
    if present is None:
        return (advantages - advantages.mean()) / (advantages.std() + MIN_DEVIATION)
    centred = advantages - mean_present(advantages, present)
    squares = torch.where(present, centred.square(), 0.0).sum()
    deviation = (squares / (present.sum() - 1).clamp(min=1)).sqrt()
    return centred / (deviation + MIN_DEVIATION)


def policy_loss(
    log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, clip_range: float, present: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """-E min(r A, clip(r) A) (Schulman et al. 2017, eq. 7), and log r [b, S]."""
    log_ratio = log_probs - old_log_probs
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1.0 - clip_range, 1.0 + clip_range)
    return -mean_present(torch.min(ratio * advantages, clipped * advantages), present), log_ratio


def measure_change(log_ratio: Tensor, clip_range: float, present: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Estimate KL(old || new), and the share of decisions whose ratio is clipped, of log r [b, S].

    The estimate (r - 1) - log r is unbiased and never negative (Schulman 2020, "Approximating KL divergence").
    """
    with torch.no_grad():
        change = log_ratio.exp() - 1.0
        clipped = (change.abs() > clip_range).float()
        return mean_present(change - log_ratio, present), mean_present(clipped, present)


def value_loss(
    values: Tensor, returns: Tensor, decisions_left: Tensor | float, present: Tensor | None = None
) -> Tensor:
    """Mean squared error, in units of one decision's reward where the decisions left are known."""
    return mean_present(((values - returns) / decisions_left).square(), present)


def auxiliary_loss(told: Tensor | None, hidden: Tensor, present: Tensor | None = None) -> Tensor | float:
    """Mean squared error of an auxiliary head that tells [b, S, K, n]; 0 without one."""
    if told is None:
        return 0.0
    return mean_present((told - hidden).square().mean(dim=(2, 3)), present)


def note(logs: dict[str, list[float]], **values: Tensor) -> None:
    """Keep the figures of a minibatch, by name, for the mean over an update."""
    for name, value in values.items():
        logs.setdefault(name, []).append(float(value.detach()))
