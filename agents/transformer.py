"""The networks: candidates as tokens that share weights, each with a memory, and a causal Transformer over the trial.

Read from top to bottom: attention, a block, the memory per candidate, the history, then the two networks that put them
together. Every network has one `forward` for whole trials (learning) and one `step` for a single decision (acting) that
takes the memory in and hands a new one out; both give the same logits to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recgym.core import LOG_SCALE, Layout

__all__ = ["INIT_POLICIES", "CandidateNetwork", "Memory", "SequenceNetwork"]

INIT_POLICIES = ("uniform", "expert", "softmax")
RESIDUAL = 0.5  # gain of what a fresh block adds: a deep stack starts near the identity


class Memory(NamedTuple):
    """What a policy carries from one decision to the next: a value, never kept on the policy. B rows."""

    events: Tensor  # [B, K, H, E] decayed sums of each candidate's feedback, per time scale; E = 0 without them
    offered: Tensor  # [B, K, Di] candidate rows of the last observation, to which the next `chosen` refers
    cache: Tensor  # [B, S, C] keys and values of the last S decisions, the newest last; C = 0 without a history
    length: Tensor  # [B] int64, how many of them belong to this trial


# --- attention -------------------------------------------------------------------------------------------------------
class Attention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017, section 3.2)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.output = nn.Linear(width, width)
        with torch.no_grad():
            self.output.weight *= RESIDUAL
        self.recorded: list[Tensor] | None = None  # a list here collects the weights [N, heads, Q, S], for pictures

    def forward(self, queries: Tensor, key_value: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend from queries [N, Q, d] to keys and values [N, S, 2 d]; `mask` (True: look) like [N, 1, Q, S]."""
        rows, length, width = queries.shape
        query = self.query(queries).view(rows, length, self.heads, -1).transpose(1, 2)
        key, value = key_value.view(rows, key_value.shape[1], 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        if self.recorded is not None:
            scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
            scores = scores if mask is None else scores.masked_fill(~mask, -math.inf)
            self.recorded.append(scores.softmax(dim=-1))
        seen = F.scaled_dot_product_attention(query, key, value, mask)
        return self.output(seen.transpose(1, 2).reshape(rows, length, width))


def feed_forward(width: int) -> nn.Sequential:
    last = nn.Linear(2 * width, width)
    with torch.no_grad():
        last.weight *= RESIDUAL
    return nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), last)


# --- a memory per candidate ------------------------------------------------------------------------------------------
class CandidateMemory(nn.Module):
    """z_i(t) = sum_{tau <= t} rho_h^(t - tau) [i shown before tau] (1, feedback_tau), for a few time scales rho_h.

    Linear attention whose key is the candidate's identity: a running sum when acting, a matrix product when learning.
    A scale of 1 stays at 1 and gives sufficient statistics of candidates that do not change; the others are learned and
    follow those that do.
    """

    fixed: Tensor  # [H] bool

    def __init__(self, scales: Sequence[float], feedback: int) -> None:
        super().__init__()
        values = torch.tensor(list(scales), dtype=torch.float32)
        if not len(values) or not bool(((values > 0) & (values <= 1)).all()):
            raise ValueError(f"memory_scales must be numbers in (0, 1], got {list(scales)}")
        self.register_buffer("fixed", values == 1.0)
        self.logit = nn.Parameter(torch.logit(values.clamp(max=1.0 - 1e-6)))
        self.width = len(values) * (2 + feedback)  # of `features`

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
        sums = decay.view(-1, time) @ events.view(batch, time, arms * width)  # [B, H S, K E]
        return sums.view(batch, len(scales), len(at), arms, width).permute(0, 2, 3, 1, 4)

    def features(self, sums: Tensor) -> Tensor:
        """[..., K, width] of sums [..., K, H, E]: log count, width of an interval, mean feedback, per scale."""
        count, rest = sums[..., :1], sums[..., 1:]
        parts = (torch.log1p(count) * (1.0 / LOG_SCALE), torch.rsqrt(count + 1.0), rest / (count + 1.0))
        return torch.cat(parts, dim=-1).flatten(-2)


# --- a history of the trial ------------------------------------------------------------------------------------------
class HistoryBlock(nn.Module):
    """Causal attention over the decisions, then a feed-forward network."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm_attention, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.norm_feed, self.feed = nn.LayerNorm(width), feed_forward(width)

    def forward(self, x: Tensor, extended: Callable[[Tensor], Tensor], mask: Tensor) -> Tensor:
        """Tokens [B, T, d]; `extended` puts the keys and values of earlier decisions before theirs."""
        normed = self.norm_attention(x)
        x = x + self.attention(normed, extended(self.attention.key_value(normed)), mask)
        return x + self.feed(self.norm_feed(x))


class History(nn.Module):
    """A causal Transformer with one token per decision: what was shown, what came of it, and when.

    There are no positions: time is a feature, and what begins a trial has no past.
    """

    def __init__(self, inputs: int, width: int, heads: int, layers: int, readers: int, context_length: int) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(inputs, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.blocks = nn.ModuleList(HistoryBlock(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.readers = nn.ModuleList(nn.Linear(width, 2 * width) for _ in range(readers))  # keys and values for others
        self.context_length = context_length
        self.cached = 2 * width * (layers + readers)  # numbers kept per decision

    def forward(self, inputs: Tensor, mask: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Tokens [B, T, d], and keys and values [B, T, 2 d] for each reader; `mask` [B or 1, 1, T, T]."""
        return self._run(self.embed(inputs), lambda key_value: key_value, mask)

    def step(self, inputs: Tensor, memory: Memory) -> tuple[Tensor, list[Tensor], Tensor, Memory]:
        """One more decision [B, I]: token [B, 1, d], readers' keys and values [B, S, 2 d], mask [B, 1, 1, S], memory.

        A memory that has reached `context_length` forgets its oldest decision.
        """
        kept = min(memory.cache.shape[1], self.context_length - 1)
        old = memory.cache[:, memory.cache.shape[1] - kept :]
        length = memory.length.clamp(max=kept) + 1
        mask = (torch.arange(kept, -1, -1, device=length.device) < length[:, None])[:, None, None, :]
        x = self.embed(inputs)[:, None]
        before, new = old.split(2 * x.shape[-1], dim=-1), []

        def extended(key_value: Tensor) -> Tensor:
            new.append(key_value)
            return torch.cat([before[len(new) - 1], key_value], dim=1)

        x, read = self._run(x, extended, mask)
        cache = torch.cat([old, torch.cat(new, dim=-1)], dim=1)
        return x, read, mask, memory._replace(cache=cache, length=length)

    def _run(self, x: Tensor, extended: Callable[[Tensor], Tensor], mask: Tensor) -> tuple[Tensor, list[Tensor]]:
        for block in self.blocks:
            x = block(x, extended, mask)
        x = self.norm(x)
        return x, [extended(reader(x)) for reader in self.readers]


def causal_mask(starts: Tensor) -> Tensor:
    """[B, 1, T, T] True where a decision may look: at itself and the past of its own trial; `starts` [B, T] bool."""
    trial = starts.long().cumsum(dim=1)
    same = trial[:, :, None] == trial[:, None, :]
    return (same & torch.ones_like(same).tril())[:, None]


# --- candidates that share weights -----------------------------------------------------------------------------------
class CandidateBlock(nn.Module):
    """Attention across the candidates, from them to the history where there is one, then a feed-forward network."""

    def __init__(self, width: int, heads: int, *, history: bool) -> None:
        super().__init__()
        self.norm_across, self.across = nn.LayerNorm(width), Attention(width, heads)
        self.norm_history = nn.LayerNorm(width) if history else None
        self.history = Attention(width, heads) if history else None
        if self.history is not None:
            self.history.key_value = None  # type: ignore[assignment] # computed once per decision, by the history
        self.norm_feed, self.feed = nn.LayerNorm(width), feed_forward(width)

    def forward(self, x: Tensor, read: Tensor | None, mask: Tensor | None) -> Tensor:
        """Tokens [B, S, K, d]; `read` [B, T, 2 d] with `mask` [B or 1, 1, S, T]."""
        batch, time, arms, width = x.shape
        normed = self.norm_across(x).view(batch * time, arms, width)
        x = x + self.across(normed, self.across.key_value(normed)).view(x.shape)
        if self.history is not None and self.norm_history is not None:
            assert read is not None and mask is not None
            queries = self.norm_history(x).view(batch, time * arms, width)
            x = x + self.history(queries, read, mask.repeat_interleave(arms, dim=2)).view(x.shape)
        return x + self.feed(self.norm_feed(x))


class CandidateNetwork(nn.Module):
    """Scores each candidate in context: logit_i = W h_i + b_i, where b_i is the log of the initial policy.

    The weights are shared by all candidates: permuting them permutes the logits, and any number can be scored.

    Args:
        layout: names the numbers of an observation.
        width: of a token, d.
        heads: of the attention.
        layers: blocks across the candidates.
        memory_scales: initial time scales of the memory per candidate; empty: none.
        history_layers: of the Transformer over the trial; 0: none.
        context_length: decisions that it can look back.
        init_policy: "uniform", "expert" (the candidate field `expert`, or `expert_prior`) or "softmax" (running mean
            feedback over `temperature`).
        temperature: of that softmax, in units of the reward.
        expert_prior: [K] probabilities.
    """

    log_prior: Tensor  # [K]

    def __init__(
        self,
        layout: Layout,
        *,
        width: int,
        heads: int,
        layers: int,
        memory_scales: Sequence[float],
        history_layers: int,
        context_length: int,
        init_policy: str,
        temperature: float,
        expert_prior: Sequence[float] | None,
    ) -> None:
        super().__init__()
        self.layout = layout
        self.context_width, self.candidate_width, _ = layout.sizes
        self.column = {name: start for name, start, _ in _columns(layout)}
        self.feedback = [name for name in ("clicked",) if name in self.column]  # of each candidate; the reward is all's
        event = 2 + len(self.feedback)
        self.memory = CandidateMemory(memory_scales, event - 1) if memory_scales else None
        self.event_width = event if memory_scales else 0
        inputs = self.context_width + self.candidate_width + (self.memory.width if self.memory else 0)
        self.embed = nn.Sequential(nn.Linear(inputs, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.history = None
        if history_layers:
            shown = self.candidate_width + len(self.feedback) + self.context_width
            self.history = History(shown, width, heads, history_layers, layers, context_length)
        self.blocks = nn.ModuleList(CandidateBlock(width, heads, history=bool(history_layers)) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.score = nn.Linear(width, 1, bias=False)  # a bias shared by all candidates cancels
        nn.init.zeros_(self.score.weight)  # a fresh policy is the initial policy, exactly
        self.value = nn.Sequential(nn.Linear(width + self.context_width, width), nn.GELU(), nn.Linear(width, 1))
        self.init_policy, self.temperature = init_policy, temperature
        if init_policy == "softmax" and not (memory_scales and 1.0 in memory_scales):
            raise ValueError("init_policy 'softmax' needs a running estimate: put 1.0 among memory_scales")
        if init_policy == "expert" and "expert" not in self.column:
            if expert_prior is None:
                raise ValueError(
                    "init_policy 'expert' needs a candidate field 'expert' (bandits: --param expert=NOISE), or "
                    "expert_prior, the probabilities of the candidates"
                )
            prior = torch.tensor(list(expert_prior), dtype=torch.float32)
            if not bool((prior > 0).all()) or not math.isclose(float(prior.sum()), 1.0, abs_tol=1e-3):
                raise ValueError(f"expert_prior must be positive and sum to 1, got {list(expert_prior)}")
            self.register_buffer("log_prior", prior.log())

    # --- whole trials ---
    def forward(self, observation: Tensor, starts: Tensor, at: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits [B, S, K] and values [B, S] at the decisions `at` [S] (None: at all) of whole trials.

        Args:
            observation: [B, T, D], each row one trial from its beginning.
            starts: [B, T] bool; only the first decision starts.
            at: int64 [S].
        """
        context, candidates = self._split(observation)
        time = observation.shape[1]
        at = torch.arange(time, device=observation.device) if at is None else at
        offered = torch.cat([torch.zeros_like(candidates[:, :1]), candidates[:, :-1]], dim=1)
        chosen, feedback = self._feedback(context, candidates, offered)
        sums = None if self.memory is None else self.memory.scan(self._event(chosen, feedback), at)
        read, mask = None, None
        if self.history is not None:
            past = torch.ones(time, time, dtype=torch.bool, device=observation.device).tril()[None, None]
            read = self.history(self._token(context, chosen, feedback, offered), past)[1]
            mask = past[:, :, at]
        return self._decide(context[:, at], candidates[:, at], sums, read, mask)

    # --- one decision ---
    def initial(self, observation: Tensor) -> Memory:
        """Memory of trials that begin with observations [B, D]."""
        weight, scales = self.score.weight, len(self.memory.logit) if self.memory else 0
        rows, candidates = self._split(observation)[1].shape[:2]
        cached = self.history.cached if self.history else 0
        return Memory(
            weight.new_zeros(rows, candidates, scales, self.event_width),
            weight.new_zeros(rows, candidates if self.history else 0, self.candidate_width),
            weight.new_zeros(rows, 0, cached),
            torch.zeros(rows, dtype=torch.int64, device=weight.device),
        )

    def step(self, observation: Tensor, memory: Memory) -> tuple[Tensor, Tensor, Memory]:
        """Logits [B, K], values [B] and the memory after observations [B, D]."""
        context, candidates = self._split(observation[:, None])
        offered = memory.offered[:, None]
        chosen, feedback = self._feedback(context, candidates, offered)
        sums = None
        if self.memory is not None:
            events = self.memory.step(memory.events, self._event(chosen, feedback)[:, 0])
            memory, sums = memory._replace(events=events), events[:, None]
        read, mask = None, None
        if self.history is not None:
            token = self._token(context, chosen, feedback, offered)[:, 0]
            _, read, mask, memory = self.history.step(token, memory._replace(offered=candidates[:, 0]))
        logits, values = self._decide(context, candidates, sums, read, mask)
        return logits[:, 0], values[:, 0], memory

    # --- parts ---
    def _split(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Context [B, T, Dc] and candidates [B, T, K, Di]; K is whatever the observation holds."""
        rows = observation[..., self.context_width :]
        return observation[..., : self.context_width], rows.reshape(*rows.shape[:-1], -1, self.candidate_width)

    def _feedback(self, context: Tensor, candidates: Tensor, offered: Tensor) -> tuple[Tensor, Tensor]:
        """What was shown before each observation, [B, T, K], and each candidate's feedback [B, T, K, E - 1]."""
        chosen = candidates[..., self.column["chosen"]]
        reward = context[..., self.column["last_reward"]][..., None].expand_as(chosen)
        own = [candidates[..., self.column[name]] for name in self.feedback]
        return chosen, torch.stack([reward, *own], dim=-1)

    def _event(self, chosen: Tensor, feedback: Tensor) -> Tensor:
        """[B, T, K, E] that the memory per candidate adds up."""
        return chosen[..., None] * torch.cat([torch.ones_like(chosen)[..., None], feedback], dim=-1)

    def _token(self, context: Tensor, chosen: Tensor, feedback: Tensor, offered: Tensor) -> Tensor:
        """[B, T, I] what the history is told: mean features and feedback of what was shown, and the context."""
        shown = torch.cat([offered, feedback[..., 1:]], dim=-1)
        weight = chosen / chosen.sum(dim=-1, keepdim=True).clamp(min=1.0)
        return torch.cat([(weight[..., None, :] @ shown)[..., 0, :], context], dim=-1)

    def _decide(
        self,
        context: Tensor,
        candidates: Tensor,
        sums: Tensor | None,
        read: list[Tensor] | None,
        mask: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Logits [B, S, K] and values [B, S]."""
        shape = candidates.shape[:3]
        parts = [candidates, context[:, :, None].expand(*shape, -1)]
        if self.memory is not None and sums is not None:
            parts.append(self.memory.features(sums))
        x = self.embed(torch.cat(parts, dim=-1))
        for i, block in enumerate(self.blocks):
            x = block(x, None if read is None else read[i], mask)
        x = self.norm(x)
        logits = self.score(x)[..., 0] + self._log_initial(candidates, sums)
        # The value of a trial grows with the decisions left, so the network tells the value of one.
        left = torch.expm1(context[..., self.column["remaining"]] * LOG_SCALE)
        return logits, left * self.value(torch.cat([x.mean(dim=2), context], dim=-1))[..., 0]

    def _log_initial(self, candidates: Tensor, sums: Tensor | None) -> Tensor | float:
        """b_i [B, S, K], up to a number shared by all candidates."""
        if self.init_policy == "uniform":
            return 0.0
        if self.init_policy == "expert":
            return candidates[..., self.column["expert"]] if "expert" in self.column else self.log_prior
        assert self.memory is not None and sums is not None
        count, total = sums[..., int(self.memory.fixed.nonzero()[0, 0]), :2].unbind(dim=-1)
        mean = total.sum(dim=-1, keepdim=True) / (count.sum(dim=-1, keepdim=True) + 1.0)
        return (total + mean) / (count + 1.0) / self.temperature


def _columns(layout: Layout) -> list[tuple[str, int, int]]:
    """(name, first column, width) of every field, within its block."""
    found = []
    for fields in (layout.context, layout.candidate):
        start = 0
        for field in fields:
            found.append((field.name, start, field.width))
            start += field.width
    return found


# --- any observation -------------------------------------------------------------------------------------------------
class SequenceNetwork(nn.Module):
    """For environments without a Layout: one token per step, a causal Transformer, one logit per action.

    Args:
        inputs: numbers of an observation.
        actions: number of actions.
        width: of a token.
        heads: of the attention.
        layers: of the Transformer.
        context_length: steps that it can look back.
    """

    def __init__(self, inputs: int, actions: int, *, width: int, heads: int, layers: int, context_length: int) -> None:
        super().__init__()
        self.history = History(inputs, width, heads, layers, 0, context_length)
        self.score = nn.Linear(width, actions)
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)
        self.value = nn.Linear(width, 1)

    def forward(self, observation: Tensor, starts: Tensor, at: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As `CandidateNetwork.forward`, for observations [B, T, D]; trials start where `starts` [B, T] says."""
        x, _ = self.history(observation, causal_mask(starts))
        x = x if at is None else x[:, at]
        return self.score(x), self.value(x)[..., 0]

    def initial(self, observation: Tensor) -> Memory:
        """Memory of trials that begin with observations [B, D]."""
        weight, rows = self.score.weight, len(observation)
        none = weight.new_zeros(rows, 0, 0, 0)
        length = torch.zeros(rows, dtype=torch.int64, device=weight.device)
        return Memory(none, none[..., 0], weight.new_zeros(rows, 0, self.history.cached), length)

    def step(self, observation: Tensor, memory: Memory) -> tuple[Tensor, Tensor, Memory]:
        """Logits [B, actions], values [B] and the memory after observations [B, D]."""
        x, _, _, memory = self.history.step(observation, memory)
        return self.score(x)[:, 0], self.value(x)[:, 0, 0], memory
