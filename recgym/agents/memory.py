"""What a policy remembers: decayed sums over the trial, per candidate and of features, and the value that carries them.

Each memory makes an event of a decision, adds events up (`DecayedSums`), and reads the sums for every candidate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from recgym.layout import LOG_SCALE

__all__ = ["CandidateMemory", "DecayedSums", "FeatureMemory", "Memory", "invert_root"]

MIN_LOG_RIDGE = -7.0  # with less, sums of 32 bits are not positive definite


class Memory(NamedTuple):
    """What a policy carries from one decision to the next: a value, never kept on the policy. B rows."""

    candidates: Tensor  # [B, K, H, E] sums of the memory per candidate; E = 0 without it
    features: Tensor  # [B, 1, H, E] sums of the memory of features; E = 0 without it
    offered: Tensor  # [B, K, Di] candidate rows of the last observation, to which the next `chosen` refers
    cache: Tensor  # [B, S, C] keys and values of the last S decisions, the newest last; C = 0 without a history
    length: Tensor  # [B] int64, how many of them belong to this trial


class DecayedSums(nn.Module):
    """z(t) = sum_{tau <= t} rho_h^(t - tau) event_tau, for a few time scales rho_h: a running sum when acting, a matrix
    product when learning.

    A scale of 1 stays at 1 and gives sufficient statistics of what does not change; the others are learned and follow
    what does.
    """

    fixed: Tensor  # [H] bool

    def __init__(self, scales: Sequence[float]) -> None:
        super().__init__()
        values = torch.tensor(list(scales), dtype=torch.float32)
        self.register_buffer("fixed", values == 1.0)
        self.logit = nn.Parameter(torch.logit(values.clamp(max=1.0 - 1e-6)))

    def scales(self) -> Tensor:
        """[H] rho_h."""
        return torch.where(self.fixed, 1.0, torch.sigmoid(self.logit))

    def step(self, sums: Tensor, event: Tensor) -> Tensor:
        """Sums [B, K, H, E] after one more event [B, K, E]."""
        return self.scales()[:, None] * sums + event[:, :, None, :]

    def scan(self, events: Tensor, at: Tensor) -> Tensor:
        """Sums [B, S, K, H, E] at the decisions `at` [S] of events [B, T, K, E]."""
        batch, time, arms, width = events.shape
        age = at[:, None] - torch.arange(time, device=at.device)  # [S, T]
        scales = self.scales()[:, None, None]
        decay = torch.where(age >= 0, scales ** age.clamp(min=0), torch.zeros((), device=at.device))  # [H, S, T]
        sums = decay.view(-1, time) @ events.reshape(batch, time, arms * width)  # [B, H S, K E]
        return sums.view(batch, len(scales), len(at), arms, width).permute(0, 2, 3, 1, 4)


class CandidateMemory(nn.Module):
    """What each candidate brought: sums of (1, feedback) over the decisions that chose it.

    Linear attention whose key is the candidate's identity.
    """

    def __init__(self, scales: Sequence[float], feedback: int) -> None:
        super().__init__()
        self.sums = DecayedSums(scales)
        self.event_width = 1 + feedback
        self.width = len(scales) * (2 + feedback)  # of `read`

    def event(self, chosen: Tensor, feedback: Tensor) -> Tensor:
        """[..., K, E] of what was chosen [..., K] and its feedback [..., K, V]."""
        return chosen[..., None] * torch.cat([torch.ones_like(chosen)[..., None], feedback], dim=-1)

    def read(self, sums: Tensor) -> Tensor:
        """[..., K, width] of sums [..., K, H, E]: log count, width of an interval, mean feedback, per scale."""
        count, rest = sums[..., :1], sums[..., 1:]
        parts = (torch.log1p(count) * (1.0 / LOG_SCALE), torch.rsqrt(count + 1.0), rest / (count + 1.0))
        return torch.cat(parts, dim=-1).flatten(-2)


class FeatureMemory(nn.Module):
    """What feedback on some candidates says about others: least squares of the feedback on their features.

    Attention whose keys are the features and that solves for the values instead of averaging them (the mesa layer of
    von Oswald et al. 2023, "Uncovering mesa-optimization algorithms in Transformers"). With x the features and a 1, the
    sums of x x^T and x feedback^T are all it keeps; reading them for a candidate gives the prediction
    x^T (A + ridge I)^-1 b and its width sqrt(x^T (A + ridge I)^-1 x).
    """

    def __init__(self, scales: Sequence[float], features: int, feedback: int) -> None:
        super().__init__()
        self.sums = DecayedSums(scales)
        self.log_ridge = nn.Parameter(torch.zeros(len(scales)))
        self.features, self.feedback = features + 1, feedback
        self.event_width = self.features * (self.features + feedback)
        self.width = len(scales) * (feedback + 1)  # of `read`

    def event(self, chosen: Tensor, offered: Tensor, feedback: Tensor) -> Tensor:
        """[..., 1, E] of what was chosen [..., K], its features [..., K, F] and its feedback [..., K, V]."""
        x = self._with_one(offered)
        both = torch.cat([x, feedback], dim=-1)
        return ((chosen[..., None] * x).transpose(-1, -2) @ both).flatten(-2)[..., None, :]

    def read(self, sums: Tensor, features: Tensor) -> Tensor:
        """[..., K, width] of sums [..., 1, H, E] for candidates with features [..., K, F]: predictions and widths."""
        both = sums[..., 0, :, :].unflatten(-1, (self.features, -1))  # [..., H, F, F + V]
        identity = torch.eye(self.features, dtype=both.dtype, device=both.device)
        matrix = both[..., : self.features] + self.log_ridge.clamp(min=MIN_LOG_RIDGE).exp()[:, None, None] * identity
        x = self._with_one(features).transpose(-1, -2)[..., None, :, :].expand(*both.shape[:-1], -1)  # [..., H, F, K]
        moments = both[..., self.features :]
        solved = _solve_root(matrix, torch.cat([x, moments], dim=-1))
        spread, moment = solved[..., : -self.feedback], solved[..., -self.feedback :]
        predicted = spread.transpose(-1, -2) @ moment  # [..., H, K, V]
        width = spread.square().sum(dim=-2).sqrt()[..., None]
        return torch.cat([predicted, width], dim=-1).transpose(-2, -3).flatten(-2)

    def _with_one(self, features: Tensor) -> Tensor:
        return torch.cat([features, torch.ones_like(features[..., :1])], dim=-1)


def _solve_root(matrix: Tensor, right: Tensor) -> Tensor:
    """L^-1 right [..., F, N] for a matrix L L^T [..., F, F]; NaN where it is not positive definite."""
    if torch.compiler.is_exporting():  # ONNX knows no factorisation
        return invert_root(matrix) @ right
    root, failed = torch.linalg.cholesky_ex(matrix)  # unlike `cholesky` it does not wait for a GPU
    root = torch.where(failed[..., None, None] > 0, torch.nan, root)
    return torch.linalg.solve_triangular(root, right, upper=False)


def invert_root(matrix: Tensor) -> Tensor:
    """L^-1 [..., F, F] for a matrix L L^T, column by column; NaN where it is not positive definite.

    Cholesky's factorisation in its outer-product form (Golub and Van Loan 2013, "Matrix Computations", section 4.2.6)
    on the matrix and an identity beside it: each step divides the first row by the root of its first number, and takes
    its outer product away from the rows below, which leaves the rows of L^-1.
    """
    size = matrix.shape[-1]
    identity = torch.eye(size, dtype=matrix.dtype, device=matrix.device).expand(matrix.shape)
    below = torch.cat([matrix, identity], dim=-1)  # [..., F - i, 2 F - i] after i steps
    rows = []
    for i in range(size):
        row = below[..., 0, :] / below[..., 0, :1].sqrt()
        rows.append(row[..., size - i :])
        column = row[..., 1 : size - i]  # the matrix is symmetric: its column is its row
        below = below[..., 1:, 1:] - column[..., :, None] * row[..., None, 1:]
    return torch.stack(rows, dim=-2)
