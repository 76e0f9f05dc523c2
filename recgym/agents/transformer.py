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

from recgym.layout import LOG_SCALE, Layout

__all__ = ["INIT_POLICIES", "CandidateNetwork", "Memory", "SequenceNetwork", "own_features"]

INIT_POLICIES = ("uniform", "expert", "softmax")
STATISTICS = ("chosen", "clicked", "average", "exposure", "expert")  # candidate fields that are no features
NEEDED = ("chosen", "last_reward", "remaining")  # fields that every layout must have
LEAST_RIDGE = -7.0  # its logarithm: with less, sums of 32 bits are not positive definite
RESIDUAL = 0.5  # gain of what a fresh block adds: a deep stack starts near the identity


class Memory(NamedTuple):
    """What a policy carries from one decision to the next: a value, never kept on the policy. B rows."""

    candidates: Tensor  # [B, K, H, E] sums of the memory per candidate; E = 0 without it
    features: Tensor  # [B, 1, H, E] sums of the memory of features; E = 0 without it
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


# --- sums over the trial ---------------------------------------------------------------------------------------------
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
        if not len(values) or not bool(((values > 0) & (values <= 1)).all()):
            raise ValueError(f"memory_scales must be numbers in (0, 1], got {list(scales)}")
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
    """What each candidate brought: sums of (1, feedback) over the decisions that showed it.

    Linear attention whose key is the candidate's identity.
    """

    def __init__(self, scales: Sequence[float], feedback: int) -> None:
        super().__init__()
        self.sums = DecayedSums(scales)
        self.event_width = 1 + feedback
        self.width = len(scales) * (2 + feedback)  # of `read`

    def event(self, chosen: Tensor, feedback: Tensor) -> Tensor:
        """[..., K, E] of what was shown [..., K] and its feedback [..., K, V]."""
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
        """[..., 1, E] of what was shown [..., K], its features [..., K, F] and its feedback [..., K, V]."""
        x = self._with_one(offered)
        both = torch.cat([x, feedback], dim=-1)
        return ((chosen[..., None] * x).transpose(-1, -2) @ both).flatten(-2)[..., None, :]

    def read(self, sums: Tensor, features: Tensor) -> Tensor:
        """[..., K, width] of sums [..., 1, H, E] for candidates with features [..., K, F]: predictions and widths."""
        both = sums[..., 0, :, :].unflatten(-1, (self.features, -1))  # [..., H, F, F + V]
        identity = torch.eye(self.features, device=both.device)
        matrix = both[..., : self.features] + self.log_ridge.clamp(min=LEAST_RIDGE).exp()[:, None, None] * identity
        root, failed = torch.linalg.cholesky_ex(matrix)  # unlike `cholesky` it does not wait for a GPU
        root = torch.where(failed[..., None, None] > 0, torch.nan, root)
        x = self._with_one(features).transpose(-1, -2)[..., None, :, :].expand(*both.shape[:-1], -1)  # [..., H, F, K]
        solved = torch.linalg.solve_triangular(root, torch.cat([x, both[..., self.features :]], dim=-1), upper=False)
        spread, moment = solved.split([x.shape[-1], self.feedback], dim=-1)
        predicted = spread.transpose(-1, -2) @ moment  # [..., H, K, V]
        width = spread.square().sum(dim=-2).sqrt()[..., None]
        return torch.cat([predicted, width], dim=-1).transpose(-2, -3).flatten(-2)

    def _with_one(self, features: Tensor) -> Tensor:
        return torch.cat([features, torch.ones_like(features[..., :1])], dim=-1)


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
        candidate_memory: whether there is a memory per candidate.
        feature_memory: whether there is a memory of features.
        memory_scales: initial time scales of the two.
        history_layers: of the Transformer over the trial; 0: none.
        context_length: decisions that it can look back.
        init_policy: "uniform", "expert" (the candidate field `expert`, or `expert_prior`) or "softmax" (running mean
            feedback over `temperature`).
        temperature: of that softmax, in units of the reward.
        expert_prior: [K] probabilities.

    Raises:
        ValueError: arguments and layout do not go together (says which).
    """

    log_prior: Tensor  # [K]

    def __init__(
        self,
        layout: Layout,
        *,
        width: int,
        heads: int,
        layers: int,
        candidate_memory: bool,
        feature_memory: bool,
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
        self.column = {name: start for name, (_, start, _) in layout.places.items()}
        if missing := [name for name in NEEDED if name not in self.column]:
            raise ValueError(f"the layout lacks {', '.join(missing)}, from which the policy learns what happened")
        outcomes = [field.name for field in layout.context if field.name.startswith("last_") and field.width == 1]
        outcomes.remove("last_reward")
        self.outcomes = ["last_reward", *outcomes]  # of what was chosen
        self.feedback = [name for name in ("clicked",) if name in self.column]  # of each candidate
        own = (layout.places[name] for name in own_features(layout))
        self.own = [column for _, start, n in own for column in range(start, start + n)]
        if feature_memory and not self.own:
            raise ValueError("a memory of features needs candidates with features of their own; this layout has none")
        told = len(self.outcomes) + len(self.feedback)
        self.candidate_memory = CandidateMemory(memory_scales, told) if candidate_memory else None
        self.feature_memory = FeatureMemory(memory_scales, len(self.own), told) if feature_memory else None
        inputs = self.context_width + self.candidate_width
        inputs += sum(memory.width for memory in (self.candidate_memory, self.feature_memory) if memory)
        self.embed = nn.Sequential(nn.Linear(inputs, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.history = None
        if history_layers:
            shown = (1 + len(self.feedback)) * self.candidate_width + len(self.feedback) + self.context_width
            self.history = History(shown, width, heads, history_layers, layers, context_length)
        self.blocks = nn.ModuleList(CandidateBlock(width, heads, history=bool(history_layers)) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.score = nn.Linear(width, 1, bias=False)  # a bias shared by all candidates cancels
        nn.init.zeros_(self.score.weight)  # a fresh policy is the initial policy, exactly
        self.value = nn.Sequential(nn.Linear(width + self.context_width, width), nn.GELU(), nn.Linear(width, 1))
        self.init_policy, self.temperature = init_policy, temperature
        if init_policy == "softmax" and not (candidate_memory and 1.0 in memory_scales):
            raise ValueError("init_policy 'softmax' needs a running estimate: a candidate_memory with a scale of 1")
        self.lasting = [*memory_scales, 1.0].index(1.0)  # the scale that forgets nothing
        if init_policy == "expert" and "expert" not in self.column:
            if expert_prior is None:
                raise ValueError(
                    "init_policy 'expert' needs a candidate field 'expert' (bandits: --param expert=NOISE), or "
                    "expert_prior, the probabilities of the candidates"
                )
            prior = torch.tensor(list(expert_prior), dtype=torch.float32)
            if len(prior) != layout.candidates:
                raise ValueError(f"expert_prior must have {layout.candidates} probabilities, got {len(prior)}")
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
        chosen, feedback = self._feedback(context, candidates)
        sums, moments, read, mask = None, None, None, None
        if self.candidate_memory is not None:
            sums = self.candidate_memory.sums.scan(self.candidate_memory.event(chosen, feedback), at)
        if self.feature_memory is not None:
            events = self.feature_memory.event(chosen, offered[..., self.own], feedback)
            moments = self.feature_memory.sums.scan(events, at)
        if self.history is not None:
            past = torch.ones(time, time, dtype=torch.bool, device=observation.device).tril()[None, None]
            read = self.history(self._token(context, chosen, feedback, offered), past)[1]
            mask = past[:, :, at]
        return self._decide(context[:, at], candidates[:, at], sums, moments, read, mask)

    # --- one decision ---
    def initial(self, observation: Tensor) -> Memory:
        """Memory of trials that begin with observations [B, D]."""
        new, (rows, arms) = self.score.weight.new_zeros, self._split(observation)[1].shape[:2]
        widths = [
            (len(memory.sums.logit), memory.event_width) if memory else (0, 0)
            for memory in (self.candidate_memory, self.feature_memory)
        ]
        return Memory(
            candidates=new(rows, arms, *widths[0]),
            features=new(rows, 1, *widths[1]),
            offered=new(rows, arms if self.history or self.feature_memory else 0, self.candidate_width),
            cache=new(rows, 0, self.history.cached if self.history else 0),
            length=new(rows, dtype=torch.int64),
        )

    def step(self, observation: Tensor, memory: Memory) -> tuple[Tensor, Tensor, Memory]:
        """Logits [B, K], values [B] and the memory after observations [B, D]."""
        context, candidates = self._split(observation)
        chosen, feedback = self._feedback(context, candidates)
        sums, moments, read, mask = None, None, None, None
        if self.candidate_memory is not None:
            sums = self.candidate_memory.sums.step(memory.candidates, self.candidate_memory.event(chosen, feedback))
            memory = memory._replace(candidates=sums)
        if self.feature_memory is not None:
            event = self.feature_memory.event(chosen, memory.offered[..., self.own], feedback)
            moments = self.feature_memory.sums.step(memory.features, event)
            memory = memory._replace(features=moments)
        if self.history is not None:
            token = self._token(context, chosen, feedback, memory.offered)
            _, read, mask, memory = self.history.step(token, memory)
        if memory.offered.shape[1]:
            memory = memory._replace(offered=candidates)
        sums, moments = (None if part is None else part[:, None] for part in (sums, moments))
        logits, values = self._decide(context[:, None], candidates[:, None], sums, moments, read, mask)
        return logits[:, 0], values[:, 0], memory

    # --- parts ---
    def _split(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Context [..., Dc] and candidates [..., K, Di]; K is whatever the observation holds."""
        rows = observation[..., self.context_width :]
        return observation[..., : self.context_width], rows.reshape(*rows.shape[:-1], -1, self.candidate_width)

    def _feedback(self, context: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
        """What was shown before each observation, [..., K], and each candidate's feedback [..., K, V]."""
        chosen = candidates[..., self.column["chosen"]]
        shared = [context[..., self.column[name]][..., None].expand_as(chosen) for name in self.outcomes]
        own = [candidates[..., self.column[name]] for name in self.feedback]
        return chosen, torch.stack([*shared, *own], dim=-1)

    def _token(self, context: Tensor, chosen: Tensor, feedback: Tensor, offered: Tensor) -> Tensor:
        """[..., I] what the history is told: mean features and feedback of what was shown, and the context.

        Of a slate also the features weighted with each candidate's own feedback: which of them was clicked.
        """
        single = feedback[..., len(self.outcomes) :]
        own = [offered * single[..., i, None] for i in range(len(self.feedback))]
        shown = torch.cat([offered, single, *own], dim=-1)
        weight = chosen / chosen.sum(dim=-1, keepdim=True).clamp(min=1.0)
        return torch.cat([(weight[..., None, :] @ shown)[..., 0, :], context], dim=-1)

    def _decide(
        self,
        context: Tensor,
        candidates: Tensor,
        sums: Tensor | None,
        moments: Tensor | None,
        read: list[Tensor] | None,
        mask: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Logits [B, S, K] and values [B, S]."""
        shape = candidates.shape[:3]
        parts = [candidates, context[:, :, None].expand(*shape, -1)]
        if self.candidate_memory is not None and sums is not None:
            parts.append(self.candidate_memory.read(sums))
        if self.feature_memory is not None and moments is not None:
            parts.append(self.feature_memory.read(moments, candidates[..., self.own]))
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
        assert self.candidate_memory is not None and sums is not None
        count, total = sums[..., self.lasting, :2].unbind(dim=-1)
        mean = total.sum(dim=-1, keepdim=True) / (count.sum(dim=-1, keepdim=True) + 1.0)
        return (total + mean) / (count + 1.0) / self.temperature


def own_features(layout: Layout) -> list[str]:
    """Candidate fields that describe the candidate, and not what happened to it in the trial."""
    return [field.name for field in layout.candidate if field.name not in STATISTICS]


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
        new, rows = self.score.weight.new_zeros, len(observation)
        none = new(rows, 0, 0, 0)
        return Memory(none, none, new(rows, 0, 0), new(rows, 0, self.history.cached), new(rows, dtype=torch.int64))

    def step(self, observation: Tensor, memory: Memory) -> tuple[Tensor, Tensor, Memory]:
        """Logits [B, actions], values [B] and the memory after observations [B, D]."""
        x, _, _, memory = self.history.step(observation, memory)
        return self.score(x)[:, 0], self.value(x)[:, 0, 0], memory
