"""The networks: candidates as tokens that share weights, each with a memory, and a causal Transformer over the trial.

Read from top to bottom: attention, the history, a block across the candidates, then the two networks that put them
together with the memories (`recgym.agents.memory`). Every network has one `forward` for whole trials (learning) and one
`step` for a single decision (acting) that takes the memory in and hands a new one out; both give the same logits to
rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recgym.agents.memory import CandidateMemory, FeatureMemory, Memory
from recgym.agents.options import TransformerOptions
from recgym.agents.tokens import RoleReader
from recgym.layout import Layout

__all__ = ["Attention", "CandidateNetwork", "SequenceNetwork"]

UNAVAILABLE = -1e4  # logit of what does nothing: finite, so that entropies are
RESIDUAL = 0.5  # gain of what a fresh block adds: a deep stack starts near the identity


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

    def __init__(self, inputs: int, width: int, heads: int, *, layers: int, readers: int, context_length: int) -> None:
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
        old = memory.cache
        if not torch.compiler.is_exporting():  # else whoever carries the memory forgets: see `OnnxAgent`
            old = old[:, max(0, old.shape[1] - self.context_length + 1) :]
        past = old.shape[1]
        length = memory.length.clamp(max=past) + 1
        mask = (torch.arange(past, -1, -1, device=length.device) < length[:, None])[:, None, None, :]
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

    def forward(self, x: Tensor, read: Tensor | None, mask: Tensor | None, groups: Tensor | None = None) -> Tensor:
        """Tokens [B, S, K, d]; `read` [B, T, 2 d] with `mask` [B or 1, 1, S, T]; `groups` [B S, heads, K, K]."""
        batch, time, arms, width = x.shape
        normed = self.norm_across(x).view(batch * time, arms, width)
        x = x + self.across(normed, self.across.key_value(normed), groups).view(x.shape)
        if self.history is not None and self.norm_history is not None:
            assert read is not None and mask is not None
            queries = self.norm_history(x).view(batch, time * arms, width)
            x = x + self.history(queries, read, mask.repeat_interleave(arms, dim=2)).view(x.shape)
        return x + self.feed(self.norm_feed(x))


class CandidateNetwork(nn.Module):
    """Scores each candidate in context: logit_i = W h_i + b_i, where b_i is the log of the initial policy.

    The weights are shared by all candidates: permuting them permutes the logits, and any number can be scored.

    Args:
        layout: says what the numbers of an observation are, by role.
        options: of the network.

    Raises:
        ValueError: options and layout do not go together (says which).
    """

    log_prior: Tensor  # [K]

    def __init__(self, layout: Layout, options: TransformerOptions) -> None:
        super().__init__()
        width, heads, scales = options.width, options.heads, options.memory_scales
        self.reading = RoleReader.of(layout)
        features, outcomes = len(self.reading.features), len(self.reading.outcomes) + len(self.reading.feedback)
        if options.feature_memory and not features:
            raise ValueError("a memory of features needs candidates with features of their own; this layout has none")
        with_features = bool(features) if options.feature_memory is None else options.feature_memory
        self.candidate_memory = CandidateMemory(scales, outcomes) if options.candidate_memory else None
        self.feature_memory = FeatureMemory(scales, features, outcomes) if with_features else None
        inputs = self.reading.context + self.reading.candidate
        inputs += sum(memory.width for memory in (self.candidate_memory, self.feature_memory) if memory)
        self.embed = nn.Sequential(nn.Linear(inputs, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.history = None
        if options.history_layers:
            self.history = History(
                self.reading.summary_width,
                width,
                heads,
                layers=options.history_layers,
                readers=options.layers,
                context_length=options.context_length,
            )
        with_history = self.history is not None
        self.blocks = nn.ModuleList(CandidateBlock(width, heads, history=with_history) for _ in range(options.layers))
        self.norm = nn.LayerNorm(width)
        self.heads = heads
        self.groups = self.reading.groups if options.group_attention is not False else ()
        if len(self.groups) >= heads:
            if options.group_attention and self.groups:
                raise ValueError(f"group_attention needs {len(self.groups) + 1} heads here, there are {heads}")
            self.groups = ()
        self.auxiliary = nn.Linear(width, options.auxiliary) if options.auxiliary else None
        self.score = nn.Linear(width, 1, bias=False)  # a bias shared by all candidates cancels
        nn.init.zeros_(self.score.weight)  # a fresh policy is the initial policy, exactly
        self.critic = nn.Sequential(nn.Linear(width + 1, width), nn.GELU()) if options.asymmetric_critic else None
        pooled = width + self.reading.context + (width if self.critic else 0)
        self.value = nn.Sequential(nn.Linear(pooled, width), nn.GELU(), nn.Linear(width, 1))
        self.init_policy, self.temperature = options.init_policy, options.temperature
        self.lasting = [*scales, 1.0].index(1.0)  # the scale that forgets nothing
        if options.init_policy == "expert" and self.reading.prior is None:
            self.register_buffer("log_prior", _log_prior(options, layout.candidates))

    # --- whole trials ---
    def forward(self, observation: Tensor, starts: Tensor, at: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits [B, S, K] and values [B, S]; see `told`."""
        return self.told(observation, starts, at)[:2]

    def told(
        self, observation: Tensor, starts: Tensor, at: Tensor | None = None, truth: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Logits [B, S, K], values [B, S] and what the auxiliary head tells [B, S, K, n], if there is one.

        Args:
            observation: [B, T, D], each row one trial from its beginning.
            starts: [B, T] bool; only the first decision starts.
            at: int64 [S], the decisions that are looked at; None: all.
            truth: [B, S, K, 1] what an asymmetric critic is told of them; None: zeros.
        """
        context, candidates = self.reading.split(observation)
        time = observation.shape[1]
        at = torch.arange(time, device=observation.device) if at is None else at
        offered = torch.cat([torch.zeros_like(candidates[:, :1]), candidates[:, :-1]], dim=1)
        chosen, feedback = self.reading.last_decision(context, candidates)
        sums, moments, read, mask = None, None, None, None
        if self.candidate_memory is not None:
            sums = self.candidate_memory.sums.scan(self.candidate_memory.event(chosen, feedback), at)
        if self.feature_memory is not None:
            events = self.feature_memory.event(chosen, self._features(offered), feedback)
            moments = self.feature_memory.sums.scan(events, at)
        if self.history is not None:
            past = torch.ones(time, time, dtype=torch.bool, device=observation.device).tril()[None, None]
            read = self.history(self.reading.summary(context, chosen, feedback, offered), past)[1]
            mask = past[:, :, at]
        return self._decide(context[:, at], candidates[:, at], sums, moments, read, mask, truth)

    # --- one decision ---
    def initial(self, observation: Tensor) -> Memory:
        """Memory of trials that begin with observations [B, D]."""
        new = self.score.weight.new_zeros
        rows, arms = self.reading.split(observation)[1].shape[:2]
        widths = [
            (len(memory.sums.logit), memory.event_width) if memory else (0, 0)
            for memory in (self.candidate_memory, self.feature_memory)
        ]
        return Memory(
            candidates=new(rows, arms, *widths[0]),
            features=new(rows, 1, *widths[1]),
            offered=new(rows, arms if self.history or self.feature_memory else 0, self.reading.candidate),
            cache=new(rows, 0, self.history.cached if self.history else 0),
            length=new(rows, dtype=torch.int64),
        )

    def step(self, observation: Tensor, memory: Memory, truth: Tensor | None = None) -> tuple[Tensor, Tensor, Memory]:
        """Logits [B, K], values [B] and the memory after observations [B, D]; `truth` [B, K, 1] as in `told`."""
        return self.step_parts(*self.reading.split(observation), memory, truth)

    def step_parts(
        self, context: Tensor, candidates: Tensor, memory: Memory, truth: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Memory]:
        """As `step`, for observations that are split: context [B, Dc] and candidates [B, K, Di]."""
        chosen, feedback = self.reading.last_decision(context, candidates)
        sums, moments, read, mask = None, None, None, None
        if self.candidate_memory is not None:
            sums = self.candidate_memory.sums.step(memory.candidates, self.candidate_memory.event(chosen, feedback))
            memory = memory._replace(candidates=sums)
        if self.feature_memory is not None:
            event = self.feature_memory.event(chosen, self._features(memory.offered), feedback)
            moments = self.feature_memory.sums.step(memory.features, event)
            memory = memory._replace(features=moments)
        if self.history is not None:
            token = self.reading.summary(context, chosen, feedback, memory.offered)
            _, read, mask, memory = self.history.step(token, memory)
        if self.history is not None or self.feature_memory is not None:
            memory = memory._replace(offered=candidates)
        sums, moments = (None if part is None else part[:, None] for part in (sums, moments))
        truth = None if truth is None else truth[:, None]
        logits, values, _ = self._decide(context[:, None], candidates[:, None], sums, moments, read, mask, truth)
        return logits[:, 0], values[:, 0], memory

    # --- parts ---
    def _features(self, candidates: Tensor) -> Tensor:
        return candidates[..., list(self.reading.features)]

    def _decide(
        self,
        context: Tensor,
        candidates: Tensor,
        sums: Tensor | None,
        moments: Tensor | None,
        read: list[Tensor] | None,
        mask: Tensor | None,
        truth: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Logits [B, S, K], values [B, S] and what the auxiliary head tells [B, S, K, n]."""
        shape = candidates.shape[:3]
        parts = [candidates, context[:, :, None].expand(*shape, -1)]
        if self.candidate_memory is not None and sums is not None:
            parts.append(self.candidate_memory.read(sums))
        if self.feature_memory is not None and moments is not None:
            parts.append(self.feature_memory.read(moments, self._features(candidates)))
        x = self.embed(torch.cat(parts, dim=-1))
        groups = self._group_mask(candidates)
        for i, block in enumerate(self.blocks):
            x = block(x, None if read is None else read[i], mask, groups)
        x = self.norm(x)
        logits = self.score(x)[..., 0] + self._log_initial(candidates, sums)
        if self.reading.availability is not None:
            logits = torch.where(candidates[..., self.reading.availability] > 0, logits, UNAVAILABLE)
        # The value of a trial grows with the decisions left, so the network tells the value of one.
        pooled = [x.mean(dim=2), context]
        if self.critic is not None:
            known = x.new_zeros(*shape, 1) if truth is None else truth
            y = self.critic(torch.cat([x, known], dim=-1))
            pooled = [y.mean(dim=2), y.amax(dim=2), context]
        value = self.value(torch.cat(pooled, dim=-1))[..., 0]
        told = None if self.auxiliary is None else self.auxiliary(x)
        return logits, self.reading.decisions_left(context) * value, told

    def _group_mask(self, candidates: Tensor) -> Tensor | None:
        """[B S, heads, K, K] True where a head looks: heads in turn at all candidates, and at each kind of group."""
        if not self.groups:
            return None
        rows = candidates.reshape(-1, *candidates.shape[2:])
        same = [rows[:, :, None, group] == rows[:, None, :, group] for group in self.groups]
        views = [torch.ones_like(same[0]), *same]
        return torch.stack([views[head % len(views)] for head in range(self.heads)], dim=1)

    def _log_initial(self, candidates: Tensor, sums: Tensor | None) -> Tensor | float:
        """b_i [B, S, K], up to a number shared by all candidates."""
        if self.init_policy == "uniform":
            return 0.0
        if self.init_policy == "expert":
            return self.log_prior if self.reading.prior is None else candidates[..., self.reading.prior]
        assert sums is not None
        count, total = sums[..., self.lasting, :2].unbind(dim=-1)
        mean = total.sum(dim=-1, keepdim=True) / (count.sum(dim=-1, keepdim=True) + 1.0)
        return (total + mean) / (count + 1.0) / self.temperature


def _log_prior(options: TransformerOptions, candidates: int) -> Tensor:
    """[K] of `expert_prior`, which must have a probability for each candidate."""
    if options.expert_prior is None:
        raise ValueError(
            "init_policy 'expert' needs a candidate field of role prior (bandits: --param expert=NOISE), or "
            "expert_prior, the probabilities of the candidates"
        )
    if len(options.expert_prior) != candidates:
        raise ValueError(f"expert_prior must have {candidates} probabilities, got {len(options.expert_prior)}")
    return torch.tensor(options.expert_prior, dtype=torch.float32).log()


# --- any observation -------------------------------------------------------------------------------------------------
class SequenceNetwork(nn.Module):
    """For environments without a Layout: one token per step, a causal Transformer, one logit per action.

    Args:
        inputs: numbers of an observation.
        actions: number of actions.
        options: of the network: width, heads, layers, context_length.
    """

    def __init__(self, inputs: int, actions: int, options: TransformerOptions) -> None:
        super().__init__()
        self.history = History(
            inputs,
            options.width,
            options.heads,
            layers=options.layers,
            readers=0,
            context_length=options.context_length,
        )
        self.score = nn.Linear(options.width, actions)
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)
        self.value = nn.Linear(options.width, 1)

    def forward(self, observation: Tensor, starts: Tensor, at: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As `CandidateNetwork.forward`, for observations [B, T, D]; trials start where `starts` [B, T] says."""
        x, _ = self.history(observation, causal_mask(starts))
        x = x if at is None else x[:, at]
        return self.score(x), self.value(x)[..., 0]

    def told(
        self, observation: Tensor, starts: Tensor, at: Tensor | None = None, truth: Tensor | None = None
    ) -> tuple[Tensor, Tensor, None]:
        """As `forward`; there is neither an auxiliary head nor a critic that is told anything."""
        return *self.forward(observation, starts, at), None

    def initial(self, observation: Tensor) -> Memory:
        """Memory of trials that begin with observations [B, D]."""
        new, rows = self.score.weight.new_zeros, len(observation)
        none = new(rows, 0, 0, 0)
        return Memory(none, none, new(rows, 0, 0), new(rows, 0, self.history.cached), new(rows, dtype=torch.int64))

    def step(self, observation: Tensor, memory: Memory, truth: Tensor | None = None) -> tuple[Tensor, Tensor, Memory]:
        """Logits [B, actions], values [B] and the memory after observations [B, D]."""
        x, _, _, memory = self.history.step(observation, memory)
        return self.score(x)[:, 0], self.value(x)[:, 0, 0], memory
