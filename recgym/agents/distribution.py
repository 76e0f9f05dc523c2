"""The distribution over actions: a single choice, or an ordered slate without replacement."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["PlackettLuce"]

MIN_LOGIT = -1e9  # in place of minus infinity, which 0 does not cancel
MIN_NOISE = 1e-30  # its logarithm is finite


class PlackettLuce(NamedTuple):
    """Ordered top-k without replacement: each place is a softmax over what is left (Luce 1959; Plackett 1975).

    With k = 1 it is the categorical distribution, and actions have no last axis.
    """

    logits: Tensor  # [..., K]
    k: int | None  # places of the slate; None: a single choice

    def sample(self) -> Tensor:
        """Draw [...] or [..., k] int64: the highest of the logits with Gumbel noise (Yellott 1977)."""
        noise = -torch.empty_like(self.logits).exponential_().clamp(min=MIN_NOISE).log()
        return self._top(self.logits + noise)

    def mode(self) -> Tensor:
        """Take the most probable slate, [...] or [..., k]."""
        return self._top(self.logits)

    def log_prob(self, action: Tensor) -> Tensor:
        """[...] log-probability of `action` [...] or [..., k]."""
        return self._places(action)[0]

    def entropy(self, action: Tensor) -> Tensor:
        """[...] entropy of each place given the ones before it in `action`, summed; its mean is that of the slate.

        Of a slate's gradient it has the part for given places; how their probabilities change is left out.
        """
        return self._places(action)[1]

    def log_probabilities(self) -> Tensor:
        """[..., K] of the first place."""
        return self.logits.log_softmax(dim=-1)

    def first_entropy(self) -> Tensor:
        """[...] entropy of the first place, in nats."""
        return _entropy(self.log_probabilities())

    def _top(self, scores: Tensor) -> Tensor:
        return scores.argmax(dim=-1) if self.k is None else scores.topk(self.k, dim=-1).indices

    def _places(self, action: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.logits
        log_prob = torch.zeros(())
        entropy = torch.zeros(())
        places = action[..., None] if self.k is None else action
        for place in range(places.shape[-1]):
            item = places[..., place : place + 1]
            logs = logits.log_softmax(dim=-1)
            log_prob = log_prob + logs.gather(-1, item)[..., 0]
            entropy = entropy + _entropy(logs)
            logits = logits.scatter(-1, item, -torch.inf)
        return log_prob, entropy


def _entropy(logs: Tensor) -> Tensor:
    """[...] of log-probabilities [..., K], of which some may be minus infinity."""
    return -(logs.exp() * logs.clamp(min=MIN_LOGIT)).sum(dim=-1)
