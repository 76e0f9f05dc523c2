"""The policy that SB3's loops see: a Transformer with a memory, and a distribution over ordered slates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.preprocessing import preprocess_obs
from torch import Tensor

from recgym.agents.arguments import check_numbers
from recgym.agents.transformer import INIT_POLICIES, CandidateNetwork, Memory, SequenceNetwork, own_features
from recgym.arrays import to_numpy, tree_map
from recgym.layout import LOG_SCALE, Layout

__all__ = ["CONTEXT_LENGTH", "PlackettLuce", "TransformerPolicy"]

CONTEXT_LENGTH = 1000


class PlackettLuce(NamedTuple):
    """Ordered top-k without replacement: each place is a softmax over what is left (Luce 1959; Plackett 1975).

    With k = 1 it is the categorical distribution, and actions have no last axis.
    """

    logits: Tensor  # [..., K]
    k: int | None  # places of the slate; None: a single choice

    def sample(self) -> Tensor:
        """[...] or [..., k] int64: the highest of the logits with Gumbel noise (Yellott 1977)."""
        return self._top(self.logits - torch.empty_like(self.logits).exponential_().clamp(min=1e-30).log())

    def mode(self) -> Tensor:
        """[...] or [..., k] the most probable slate."""
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

    def _top(self, scores: Tensor) -> Tensor:
        return scores.argmax(dim=-1) if self.k is None else scores.topk(self.k, dim=-1).indices

    def _places(self, action: Tensor) -> tuple[Tensor, Tensor]:
        logits, log_prob, entropy = self.logits, torch.zeros(()), torch.zeros(())
        places = action[..., None] if self.k is None else action
        for place in range(places.shape[-1]):
            shown = places[..., place : place + 1]
            logs = logits.log_softmax(dim=-1)
            log_prob = log_prob + logs.gather(-1, shown)[..., 0]
            entropy = entropy - (logs.exp() * logs.clamp(min=-1e9)).sum(dim=-1)
            logits = logits.scatter(-1, shown, -torch.inf)
        return log_prob, entropy


class TransformerPolicy(ActorCriticPolicy):
    """Scores candidates in context and remembers the trial; `MetaPPO` trains it.

    Args:
        observation_space: Box.
        action_space: Discrete, or with a layout also MultiDiscrete (an ordered slate without replacement).
        lr_schedule: learning rate over the remaining progress.
        layout: `Layout.to_json()` of the environment, or None: one token per step, from any Box.
        width: of a token.
        heads: of the attention.
        layers: blocks across the candidates (without a layout: of the Transformer over the steps).
        candidate_memory: whether each candidate has a memory of its own.
        feature_memory: whether there is a memory of features. None: where candidates have features of their own, so
            that feedback on one says something about others.
        memory_scales: initial time scales of these memories.
        history_layers: of the Transformer over the trial; 0: none.
        context_length: decisions that the history can look back; a longer memory forgets the oldest ones.
        init_policy: "uniform", "expert" or "softmax"; see `CandidateNetwork`.
        temperature: of the softmax.
        expert_prior: [K] probabilities for "expert", where the layout has no field of that name.
        use_sde: always False; SB3 passes it.
        optimizer_class: of torch.
        optimizer_kwargs: of it, without the learning rate.

    Raises:
        ValueError: spaces or arguments that do not go together (says which).
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Any,
        *,
        layout: Mapping[str, Any] | None = None,
        width: int = 32,
        heads: int = 2,
        layers: int = 2,
        candidate_memory: bool = True,
        feature_memory: bool | None = None,
        memory_scales: Sequence[float] = (1.0, 0.95),
        history_layers: int = 0,
        context_length: int = CONTEXT_LENGTH,
        init_policy: str = "uniform",
        temperature: float = 0.1,
        expert_prior: Sequence[float] | None = None,
        use_sde: bool = False,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.AdamW,
        optimizer_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        if not isinstance(observation_space, spaces.Box):
            raise ValueError(f"TransformerPolicy needs a Box of observations, got {observation_space}")
        if isinstance(action_space, spaces.MultiDiscrete) and layout is None:
            raise ValueError(f"a slate ({action_space}) needs an environment with a Layout")
        if init_policy not in INIT_POLICIES:
            raise ValueError(f"init_policy must be one of {', '.join(INIT_POLICIES)}, got {init_policy!r}")
        check_numbers(locals())
        if width % heads:
            raise ValueError(f"width {width} must be a multiple of heads {heads}")
        if np.any(np.asarray(getattr(action_space, "start", 0))):
            raise ValueError(f"{action_space}: actions must count from 0")
        if layout is not None:
            choices = {int(n) for n in np.ravel(getattr(action_space, "n", getattr(action_space, "nvec", ())))}
            if choices != {layout["candidates"]} or sum(action_space.shape or ()) > layout["candidates"]:
                raise ValueError(f"{action_space} does not choose among the {layout['candidates']} candidates shown")
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            use_sde=use_sde,
            optimizer_class=optimizer_class,
            optimizer_kwargs=dict(optimizer_kwargs or {}),
        )
        self.layout = None if layout is None else Layout.from_json(layout)
        self.places = int(action_space.shape[0]) if isinstance(action_space, spaces.MultiDiscrete) else None
        if feature_memory is None:
            feature_memory = self.layout is not None and bool(own_features(self.layout))
        self.context_length = context_length if history_layers or self.layout is None else None
        self.arguments = {
            "layout": layout,
            "width": width,
            "heads": heads,
            "layers": layers,
            "candidate_memory": candidate_memory,
            "feature_memory": feature_memory,
            "memory_scales": list(memory_scales),
            "history_layers": history_layers,
            "context_length": context_length,
            "init_policy": init_policy,
            "temperature": temperature,
            "expert_prior": None if expert_prior is None else list(expert_prior),
        }
        if self.layout is None:
            if init_policy != "uniform":
                raise ValueError(f"init_policy {init_policy!r} needs an environment with a Layout")
            inputs, actions = int(np.prod(observation_space.shape)), int(action_space.n)  # type: ignore[attr-defined]
            self.network: CandidateNetwork | SequenceNetwork = SequenceNetwork(
                inputs, actions, width=width, heads=heads, layers=layers, context_length=context_length
            )
        else:
            self.network = CandidateNetwork(
                self.layout,
                width=width,
                heads=heads,
                layers=layers,
                candidate_memory=candidate_memory,
                feature_memory=feature_memory,
                memory_scales=tuple(memory_scales),
                history_layers=history_layers,
                context_length=context_length,
                init_policy=init_policy,
                temperature=temperature,
                expert_prior=expert_prior,
            )
        weights = list(self.parameters())
        groups: list[dict[str, Any]] = [
            {"params": [weight for weight in weights if weight.ndim > 1]},
            {"params": [weight for weight in weights if weight.ndim < 2], "weight_decay": 0.0},  # biases, time scales
        ]
        self.optimizer = self.optimizer_class(groups, lr=lr_schedule(1), **self.optimizer_kwargs)  # type: ignore[call-arg]

    def _build(self, lr_schedule: Any) -> None:
        """Nothing of what `ActorCriticPolicy` builds is needed; SB3 calls this in its constructor."""

    def _get_constructor_parameters(self) -> dict[str, Any]:
        spaces_ = {"observation_space": self.observation_space, "action_space": self.action_space}
        optimizer = {"optimizer_class": self.optimizer_class, "optimizer_kwargs": self.optimizer_kwargs}
        return {**spaces_, "lr_schedule": self._dummy_schedule, **self.arguments, **optimizer}

    def save(self, path: Any) -> None:
        """Refused: SB3 would write a pickle."""
        raise NotImplementedError(
            "a policy alone is not saved: save the algorithm (MetaPPO.save), which uses safetensors"
        )

    @classmethod
    def load(cls, path: Any, device: Any = "auto") -> Any:
        """Refused: SB3 would read a pickle."""
        raise NotImplementedError("a policy alone is not loaded: use MetaPPO.load(path).policy")

    # --- memory ---
    def restarted(self, memory: Memory | None, observation: Tensor, starts: Tensor) -> Memory:
        """The memory with the rows of `starts` [B] as new; all of them where there is none yet."""
        if memory is None:
            return self.network.initial(observation)

        def kept(leaf: Tensor) -> Tensor:  # not a product: what is not a number ends with its trial
            return torch.where(starts.view(-1, *[1] * (leaf.ndim - 1)), torch.zeros_like(leaf), leaf)

        return Memory(*map(kept, memory))

    # --- one decision: acting ---
    def step(self, observation: Tensor, memory: Memory | None, starts: Tensor) -> tuple[PlackettLuce, Tensor, Memory]:
        """Distribution, values [B] and memory after observations [B, D]; `starts` [B] bool begins trials."""
        observation = self._flat(observation, 1)
        logits, values, memory = self.network.step(observation, self.restarted(memory, observation, starts))
        return PlackettLuce(logits, self.places), values, memory

    def forward(  # type: ignore[override]
        self, obs: Tensor, memory: Memory | None, starts: Tensor, deterministic: bool = False
    ) -> tuple[Tensor, Tensor, Tensor, Memory]:
        """Actions [B] or [B, k], values [B], log-probabilities [B] and the memory for the next call."""
        distribution, values, memory = self.step(obs, memory, starts)
        actions = distribution.mode() if deterministic else distribution.sample()
        return actions, values, distribution.log_prob(actions), memory

    def get_distribution(  # type: ignore[override]
        self, obs: Tensor, memory: Memory | None, starts: Tensor
    ) -> tuple[PlackettLuce, Memory]:
        """The action distribution and the memory for the next call."""
        distribution, _, memory = self.step(obs, memory, starts)
        return distribution, memory

    def predict_values(self, obs: Tensor, memory: Memory | None, starts: Tensor) -> Tensor:  # type: ignore[override]
        """Values [B]; the memory given stays as it is."""
        return self.step(obs, memory, starts)[1]

    def _predict(self, observation: Any, deterministic: bool = False) -> Tensor:
        """For SB3's single calls: as if every observation began a trial."""
        starts = torch.ones(len(observation), dtype=torch.bool, device=self.device)
        return self.forward(observation, None, starts, deterministic)[0]

    def predict(  # type: ignore[override]
        self,
        observation: Any,
        state: Memory | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, Memory]:
        """Act on a batch of observations or on a single one.

        Args:
            observation: [B, D], or [D].
            state: memory that the last call returned; None begins a trial in every row. It is not changed.
            episode_start: [B] bool, rows that begin a trial; None: no row does, unless there is no memory yet.
            deterministic: take the most probable action.

        Returns:
            Actions [B] or [B, k] (one action for a single observation), and the memory: NumPy arrays [B, ...].

        Raises:
            ValueError: observation or memory of another shape than expected, or an observation that is not finite.
        """
        self.set_training_mode(False)
        array = to_numpy(observation)
        shape = self.observation_space.shape
        if array.shape[-len(shape) :] != shape or array.ndim > len(shape) + 1:  # type: ignore[arg-type]
            raise ValueError(f"observations must have shape {shape} or (rows, *{shape}), got {array.shape}")
        single = array.ndim == len(shape)
        array = array[None] if single else array
        rows = len(array)
        if not rows:
            raise ValueError("there are no observations to act on")
        wrong = ~np.isfinite(array.reshape(rows, math.prod(shape))).all(axis=1)
        if wrong.any():
            raise ValueError(f"observation {int(wrong.argmax())} holds numbers that are not finite")
        batch = torch.tensor(array, device=self.device)  # a copy: the memory may keep a part of it
        starts = torch.full((rows,), state is None, device=self.device)
        if episode_start is not None:
            begins = np.array(episode_start, dtype=bool).reshape(-1)
            if len(begins) != rows:
                raise ValueError(f"episode_start is of {len(begins)} rows, the observations are {rows}")
            starts = starts | torch.as_tensor(begins, device=self.device)
        memory = None
        if state is not None:
            if not isinstance(state, Memory):
                raise ValueError(f"state must be the Memory that the last call returned, got a {type(state).__name__}")
            state = tree_map(to_numpy, state)
            if len(state.length) != rows:
                raise ValueError(f"the memory is of {len(state.length)} rows, the observations are {rows}")
            longest = int((state.length * ~to_numpy(starts)).max(initial=0))  # what no row looks at is let go
            state = state._replace(cache=state.cache[:, state.cache.shape[1] - longest :])
            memory = tree_map(lambda leaf: torch.as_tensor(leaf, device=self.device), state)
        with torch.no_grad():
            actions, _, _, memory = self.forward(batch, memory, starts, deterministic)
        chosen = to_numpy(actions)
        return (chosen[0] if single else chosen), tree_map(to_numpy, memory)

    # --- whole trials: learning ---
    def evaluate_trials(
        self, observation: Tensor, starts: Tensor, at: Tensor | None = None
    ) -> tuple[PlackettLuce, Tensor]:
        """Distributions and values [B, S] at the decisions `at` [S] (None: all) of trials [B, T, D]."""
        logits, values = self.network(self._flat(observation, 2), starts, at)
        return PlackettLuce(logits, self.places), values

    def evaluate_actions(  # type: ignore[override]
        self, obs: Tensor, actions: Tensor, episode_starts: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Values, log-probabilities and entropies [B, T] of actions [B, T] or [B, T, k] taken in trials [B, T, D]."""
        distribution, values = self.evaluate_trials(obs, episode_starts)
        return values, distribution.log_prob(actions), distribution.entropy(actions)

    def decisions_left(self, observation: Tensor) -> Tensor | float:
        """[B, S] of observations [B, S, D], the next one included; 1 where the environment does not tell."""
        if isinstance(self.network, SequenceNetwork):
            return 1.0
        return torch.expm1(observation[..., self.network.column["remaining"]] * LOG_SCALE)

    def _flat(self, observation: Tensor, axes: int) -> Tensor:
        numbers = preprocess_obs(observation, self.observation_space)  # images: from 0 to 1
        assert isinstance(numbers, Tensor)
        return numbers.reshape(*observation.shape[:axes], -1)  # of any number of candidates
