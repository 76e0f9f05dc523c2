"""The policy that SB3's loops see: a Transformer with a memory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.preprocessing import preprocess_obs
from torch import Tensor

from recgym.agents.arguments import json_values
from recgym.agents.distribution import PlackettLuce
from recgym.agents.memory import Memory
from recgym.agents.options import TransformerOptions, takes_options
from recgym.agents.transformer import CandidateNetwork, SequenceNetwork
from recgym.arrays import to_numpy, tree_map
from recgym.layout import Layout

__all__ = ["TransformerPolicy", "observation_rows", "starting_rows"]

OTHER_SIZES = (
    "; the same weights play other numbers of candidates and decisions: load them for these, as in "
    "load_pretrained(id, arms=20) or load(path, env=...)"
)


class TransformerPolicy(ActorCriticPolicy):
    """Scores candidates in context and remembers the trial; `MetaPPO` trains it.

    Args:
        observation_space: Box.
        action_space: Discrete, or with a layout also MultiDiscrete (an ordered slate without replacement).
        lr_schedule: learning rate over the remaining progress.
        layout: `Layout.to_json()` of the environment, or None: one token per step, from any Box.
        options: of the network; as arguments each field of `TransformerOptions` by its name.
        use_sde: always False; SB3 passes it.
        optimizer_class: of torch.
        optimizer_kwargs: of it, without the learning rate.

    Raises:
        ValueError: spaces or arguments that do not go together (says which).
        TypeError: an argument is unknown (names the nearest).
    """

    @takes_options(TransformerOptions)
    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Any,
        *,
        options: TransformerOptions,
        layout: Mapping[str, Any] | None = None,
        use_sde: bool = False,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.AdamW,
        optimizer_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        _check_spaces(observation_space, action_space, layout)
        if layout is None and options.init_policy != "uniform":
            raise ValueError(f"init_policy {options.init_policy!r} needs an environment with a Layout")
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            use_sde=use_sde,
            optimizer_class=optimizer_class,
            optimizer_kwargs=dict(optimizer_kwargs or {}),
        )
        self.options = options
        self.layout = None if layout is None else Layout.from_json(layout)
        self.places = int(action_space.shape[0]) if isinstance(action_space, spaces.MultiDiscrete) else None
        self.context_length = options.context_length if options.history_layers or self.layout is None else None
        self.network: CandidateNetwork | SequenceNetwork
        if self.layout is None:
            inputs = math.prod(observation_space.shape or ())
            actions = int(action_space.n)  # type: ignore[attr-defined]
            self.network = SequenceNetwork(inputs, actions, options)
        else:
            self.network = CandidateNetwork(self.layout, options)
        weights = list(self.parameters())
        groups: list[dict[str, Any]] = [
            {"params": [weight for weight in weights if weight.ndim > 1]},
            {"params": [weight for weight in weights if weight.ndim < 2], "weight_decay": 0.0},  # biases, time scales
        ]
        optimizer: Any = self.optimizer_class  # the base class has no lr, all others do
        self.optimizer = optimizer(groups, lr=lr_schedule(1), **self.optimizer_kwargs)

    def _build(self, lr_schedule: Any) -> None:
        """Nothing of what `ActorCriticPolicy` builds is needed; SB3 calls this in its constructor."""

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {
            "observation_space": self.observation_space,
            "action_space": self.action_space,
            "lr_schedule": self._dummy_schedule,
            "layout": None if self.layout is None else self.layout.to_json(),
            **json_values(asdict(self.options)),
            "optimizer_class": self.optimizer_class,
            "optimizer_kwargs": self.optimizer_kwargs,
        }

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
    def start(self, rows: int) -> Memory:
        """The memory, NumPy arrays [rows, ...], of trials that begin: of the structure that `predict` hands on."""
        observation = torch.zeros((rows, *(self.observation_space.shape or ())), device=self.device)
        return tree_map(to_numpy, self.network.initial(self._flat(observation, 1)))

    def restarted(self, memory: Memory | None, observation: Tensor, starts: Tensor) -> Memory:
        """The memory with the rows of `starts` [B] as new; all of them where there is none yet."""
        if memory is None:
            return self.network.initial(observation)

        def restart(leaf: Tensor) -> Tensor:  # not a product: what is not a number ends with its trial
            return torch.where(starts.view(-1, *[1] * (leaf.ndim - 1)), torch.zeros_like(leaf), leaf)

        return Memory(*map(restart, memory))

    # --- one decision: acting ---
    def step(
        self, observation: Tensor, memory: Memory | None, starts: Tensor, truth: Tensor | None = None
    ) -> tuple[PlackettLuce, Tensor, Memory]:
        """Distribution, values [B] and memory after observations [B, D].

        `starts` [B] bool begins trials; `truth` [B, K, 1] is what an asymmetric critic is told.
        """
        observation = self._flat(observation, 1)
        logits, values, memory = self.network.step(observation, self.restarted(memory, observation, starts), truth)
        return PlackettLuce(logits, self.places), values, memory

    def forward(  # type: ignore[override] # the memory goes in and out
        self, obs: Tensor, memory: Memory | None, starts: Tensor, deterministic: bool = False
    ) -> tuple[Tensor, Tensor, Tensor, Memory]:
        """Actions [B] or [B, k], values [B], log-probabilities [B] and the memory for the next call."""
        distribution, values, memory = self.step(obs, memory, starts)
        actions = distribution.mode() if deterministic else distribution.sample()
        return actions, values, distribution.log_prob(actions), memory

    def get_distribution(  # type: ignore[override] # as above
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
        array, shape = to_numpy(observation), self.observation_space.shape or ()
        other_size = self.layout is not None and array.ndim and not (array.shape[-1] - shape[-1]) % self.layout.sizes[1]
        array, single = observation_rows(array, shape, OTHER_SIZES if other_size else "")
        batch = torch.tensor(array, device=self.device)  # a copy: the memory may keep a part of it
        starts = self._starts(len(array), state, episode_start)
        with torch.no_grad():
            actions, _, _, memory = self.forward(batch, self._memory(state, starts), starts, deterministic)
        action = to_numpy(actions)
        return (action[0] if single else action), tree_map(to_numpy, memory)

    def _starts(self, rows: int, state: Memory | None, episode_start: Any) -> Tensor:
        """[B] bool, rows that begin a trial."""
        starts = torch.full((rows,), state is None, device=self.device)
        begins = starting_rows(episode_start, rows)
        return starts if begins is None else starts | torch.as_tensor(begins, device=self.device)

    def _memory(self, state: Any, starts: Tensor) -> Memory | None:
        """What `predict` was given, as tensors on the policy's device."""
        if state is None:
            return None
        if not isinstance(state, Memory):
            raise ValueError(f"state must be the Memory that the last call returned, got a {type(state).__name__}")
        memory = tree_map(to_numpy, state)
        if len(memory.length) != len(starts):
            raise ValueError(f"the memory is of {len(memory.length)} rows, the observations are {len(starts)}")
        longest = int((memory.length * ~to_numpy(starts)).max(initial=0))  # what no row looks at is let go
        memory = memory._replace(cache=memory.cache[:, memory.cache.shape[1] - longest :])
        return tree_map(lambda leaf: torch.as_tensor(leaf, device=self.device), memory)

    # --- whole trials: learning ---
    def evaluate_trials(
        self, observation: Tensor, starts: Tensor, at: Tensor | None = None
    ) -> tuple[PlackettLuce, Tensor]:
        """Distributions and values [B, S] at the decisions `at` [S] (None: all) of trials [B, T, D]."""
        return self.tell_trials(observation, starts, at)[:2]

    def tell_trials(
        self, observation: Tensor, starts: Tensor, at: Tensor | None = None, truth: Tensor | None = None
    ) -> tuple[PlackettLuce, Tensor, Tensor | None]:
        """As `evaluate_trials`, and what the auxiliary head tells [B, S, K, n], if there is one.

        `truth` [B, S, K, 1] is what an asymmetric critic is told at these decisions.
        """
        logits, values, told = self.network.told(self._flat(observation, 2), starts, at, truth)
        return PlackettLuce(logits, self.places), values, told

    def evaluate_actions(  # type: ignore[override]
        self, obs: Tensor, actions: Tensor, episode_starts: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Values, log-probabilities and entropies [B, T] of actions [B, T] or [B, T, k] taken in trials [B, T, D]."""
        distribution, values = self.evaluate_trials(obs, episode_starts)
        return values, distribution.log_prob(actions), distribution.entropy(actions)

    def decisions_left(self, observation: Tensor) -> Tensor | float:
        """[B, S] of observations [B, S, D], the next one included; 1 where the environment does not tell."""
        return 1.0 if isinstance(self.network, SequenceNetwork) else self.network.reading.decisions_left(observation)

    def present(self, observation: Tensor) -> Tensor | None:
        """[B, S] bool, where something is decided, of observations [B, S, D]; None: everywhere."""
        return None if isinstance(self.network, SequenceNetwork) else self.network.reading.present(observation)

    def _flat(self, observation: Tensor, axes: int) -> Tensor:
        numbers = preprocess_obs(observation, self.observation_space)  # images: from 0 to 1
        assert isinstance(numbers, Tensor)
        return numbers.reshape(*observation.shape[:axes], -1)  # of any number of candidates


# --- what `predict` is given -----------------------------------------------------------------------------------------
def observation_rows(array: np.ndarray, shape: tuple[int, ...], advice: str = "") -> tuple[np.ndarray, bool]:
    """Observations [B, ...] that can be acted on, and whether a single one was given.

    Args:
        array: one observation, or one for each row.
        shape: of one.
        advice: what to do about another shape, for the error.

    Raises:
        ValueError: another shape, no rows, or numbers that are not finite (says which row).
    """
    if array.shape[-len(shape) :] != shape or array.ndim > len(shape) + 1:
        raise ValueError(f"observations must have shape {shape} or (rows, *{shape}), got {array.shape}{advice}")
    single = array.ndim == len(shape)
    array = array[None] if single else array
    if not len(array):
        raise ValueError("there are no observations to act on")
    wrong = ~np.isfinite(array.reshape(len(array), math.prod(shape))).all(axis=1)
    if wrong.any():
        raise ValueError(f"observation {int(wrong.argmax())} holds numbers that are not finite")
    return array, single


def starting_rows(episode_start: Any, rows: int) -> np.ndarray | None:
    """[B] bool, the rows that begin a trial; None where nothing is said of them.

    Raises:
        ValueError: it is of another number of rows.
    """
    if episode_start is None:
        return None
    begins = np.array(episode_start, dtype=bool).reshape(-1)
    if len(begins) != rows:
        raise ValueError(f"episode_start is of {len(begins)} rows, the observations are {rows}")
    return begins


def _check_spaces(observation: spaces.Space, action: spaces.Space, layout: Mapping[str, Any] | None) -> None:
    """Refuse spaces that the policy cannot act in.

    Raises:
        ValueError: says which, and why.
    """
    if not isinstance(observation, spaces.Box):
        raise ValueError(f"TransformerPolicy needs a Box of observations, got {observation}")
    if isinstance(action, spaces.MultiDiscrete) and layout is None:
        raise ValueError(f"a slate ({action}) needs an environment with a Layout")
    if np.any(np.asarray(getattr(action, "start", 0))):
        raise ValueError(f"{action}: actions must count from 0")
    if layout is not None:
        choices = {int(n) for n in np.ravel(getattr(action, "n", getattr(action, "nvec", ())))}
        if choices != {layout["candidates"]} or sum(action.shape or ()) > layout["candidates"]:
            raise ValueError(f"{action} does not choose among the {layout['candidates']} candidates shown")
