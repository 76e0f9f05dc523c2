"""The observation: which number stands where, what it means, and the fields that every scenario has."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from recgym.arrays import Array, namespace, to_numpy

__all__ = [
    "CHOSEN",
    "LOG_SCALE",
    "ROLES",
    "Field",
    "Layout",
    "clock",
    "clock_fields",
    "decisions_left",
    "log_bound",
    "log_scaled",
    "role_of",
]

LOG_SCALE = math.log(1001.0)  # 1,000 decisions map to 1, whatever the horizon: policies carry over between horizons

ROLES = {  # what a field is to a policy, and what a policy may do with it
    "clock": "the share of the trial that has passed, or another position in time: an input",
    "remaining": "decisions left, log-scaled: an input; values grow with it (see `decisions_left`)",
    "outcome": "what the last decision led to: what memories add up, of the context for all that was chosen, of a "
    "candidate for itself",
    "statistic": "a running summary of outcomes, which memory could replace: an input",
    "feature": "what is known of a candidate or of the trial's subject: an input, and what a memory of features "
    "generalises over",
    "preference": "a weight of an objective or a price of a cost in the reward: an input",
    "prior": "log-probability that someone else gives a candidate: the initial policy b_i, or an input",
    "market": "the state of the surroundings (stock, season, rivals, budget): an input",
    "action": "above 0 for the candidates chosen last, in the rows of the previous observation: which of them the "
    "outcomes belong to",
    "presence": "1 where a decision counts, 0 where nothing is decided: a mask of every loss",
    "availability": "1 for a candidate that can be had now: choosing another does nothing",
    "group": "which candidates belong together (one creative, one slot): those of one value can attend to each other",
}


class Field(NamedTuple):
    """One named part of the observation: `width` numbers in [low, high], and what they are to a policy."""

    name: str
    low: float
    high: float
    meaning: str
    width: int = 1
    role: str = "feature"  # a key of `ROLES`


@dataclass(frozen=True)
class Layout:
    """Names the numbers of an observation: the context fields, then one row of candidate fields per candidate.

    Attributes:
        context: fields that belong to no candidate, Dc numbers together.
        candidate: fields of each candidate, Di numbers together.
        candidates: number of candidates K.
    """

    context: tuple[Field, ...]
    candidate: tuple[Field, ...]
    candidates: int

    def __post_init__(self) -> None:
        names = [field.name for field in (*self.context, *self.candidate)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"observation has several fields named {', '.join(twice)}: name each differently")
        for field in (*self.context, *self.candidate):
            if field.role not in ROLES:
                known = ", ".join(ROLES)
                raise ValueError(f"field {field.name!r} has the role {field.role!r}; there are {known}")

    @cached_property
    def sizes(self) -> tuple[int, int, int]:
        """(Dc, Di, D): numbers of the context, of one candidate, of the whole observation."""
        context = sum(field.width for field in self.context)
        candidate = sum(field.width for field in self.candidate)
        return context, candidate, context + self.candidates * candidate

    def split(self, observation: Array) -> tuple[Array, Array]:
        """Observation [..., D] -> context [..., Dc] and candidates [..., K, Di]."""
        context, candidate, _ = self.sizes
        rows = observation[..., context:]
        return observation[..., :context], rows.reshape((*rows.shape[:-1], self.candidates, candidate))

    @cached_property
    def places(self) -> dict[str, tuple[int, int, int]]:
        """Of each field, by name: block (0 context, 1 candidate), first column within the block, width."""
        places = {}
        for block, fields_ in enumerate((self.context, self.candidate)):
            start = 0
            for field in fields_:
                places[field.name] = block, start, field.width
                start += field.width
        return places

    def _place(self, name: str) -> tuple[int, int, int]:
        if name not in self.places:
            raise KeyError(f"observation has no field {name!r}; its fields are {list(self.places)}")
        return self.places[name]

    def get(self, observation: Array, name: str) -> Array:
        """One field of an observation [B, D]: context [B], candidate [B, K]; plus an axis where its width is > 1."""
        block, start, width = self._place(name)
        numbers_ = self.split(observation)[block]
        return numbers_[..., start] if width == 1 else numbers_[..., start : start + width]

    def field(self, name: str) -> Field:
        """The field of this name."""
        self._place(name)
        return next(field for field in self if field.name == name)

    def named(self, *roles: str, block: int | None = None) -> list[str]:
        """Names of the fields of these roles, in order; `block` 0: of the context alone, 1: of the candidates."""
        blocks = (self.context, self.candidate) if block is None else ((self.context, self.candidate)[block],)
        return [field.name for fields_ in blocks for field in fields_ if field.role in roles]

    def columns(self, name: str) -> list[int]:
        """Where the numbers of one field stand in an observation, all candidates' together."""
        block, start, width = self._place(name)
        context, step, _ = self.sizes
        firsts = [context + i * step + start for i in range(self.candidates)] if block else [start]
        return [first + j for first in firsts for j in range(width)]

    def join(
        self, context: Mapping[str, Array], candidate: Mapping[str, Array], grid: tuple[int, ...] | None = None
    ) -> Array:
        """The inverse of `get`: arrays per field, [B(, width)] and [B, K(, width)], to one float32 array [B, D].

        The last axis of a field of width 1 may be there or not; K (and after the first field B) may be 1: all alike.
        Where candidates are the cells of a `grid`, the last axis the fastest, its axes stand in the place of K.
        """
        start, step, total = self.sizes
        first = context[self.context[0].name]
        if isinstance(first, np.ndarray):
            observation = np.empty((first.shape[0], total), dtype=np.float32)
        else:
            xp = namespace(first)
            observation = xp.empty((first.shape[0], total), dtype=xp.float32, device=first.device)
        column = 0
        for field in self.context:
            value = context[field.name]
            if field.width == 1 and value.ndim == 1:
                observation[:, column] = value
            else:
                observation[:, column : column + field.width] = value
            column += field.width
        axes = (self.candidates,) if grid is None else grid
        block = observation[:, start:].reshape((-1, *axes, step))  # a view: its last axis is split
        column = 0
        for field in self.candidate:
            value = candidate[field.name]
            if field.width == 1:
                block[..., column] = value if value.ndim == 1 + len(axes) else value[..., 0]
            else:
                block[..., column : column + field.width] = value
            column += field.width
        return observation

    def __iter__(self) -> Iterator[Field]:
        return iter((*self.context, *self.candidate))

    def box(self) -> gymnasium.spaces.Box:
        """The observation space: float32 [D]."""
        bounds = [(f.low, f.high) for f in self.context for _ in range(f.width)]
        bounds += [(f.low, f.high) for f in self.candidate for _ in range(f.width)] * self.candidates
        low, high = np.asarray(bounds, dtype=np.float32).T
        return gymnasium.spaces.Box(low.copy(), high.copy(), dtype=np.float32)

    def outside(self, observation: Array) -> str:
        """Say which fields of observations [..., D] hold numbers outside their ranges; empty: none does."""
        wrong = []
        for field in self:
            value = to_numpy(self.get(observation, field.name))
            if not ((value >= np.float32(field.low)) & (value <= np.float32(field.high))).all():
                wrong.append(
                    f"{field.name} from {value.min():g} to {value.max():g}, not in [{field.low:g}, {field.high:g}]"
                )
        return "; ".join(wrong)

    def to_json(self) -> dict[str, Any]:
        """Plain lists and numbers, read back by `from_json`."""
        return {
            "context": [list(f) for f in self.context],
            "candidate": [list(f) for f in self.candidate],
            "candidates": self.candidates,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Layout:
        """Read what `to_json` wrote; fields written before there were roles get them by their names."""
        return cls(
            tuple(_read_field(f) for f in value["context"]),
            tuple(_read_field(f) for f in value["candidate"]),
            int(value["candidates"]),
        )


def _read_field(value: Sequence[Any]) -> Field:
    name, low, high, meaning, width, *roles = value
    return Field(name, low, high, meaning, width, roles[0] if roles else role_of(name))


def role_of(name: str) -> str:
    """The role of a field in files of the first format, which names fields alone."""
    return _OLD_ROLES.get(name, "outcome" if name.startswith("last_") else "feature")


_OLD_ROLES = {
    "time": "clock",
    "remaining": "remaining",
    "chosen": "action",
    "clicked": "outcome",
    "expert": "prior",
    **dict.fromkeys(("average", "exposure", "feedback"), "statistic"),
    **dict.fromkeys(("stock", "pace", "reference", "rival", "season_sin", "season_cos"), "market"),
    **dict.fromkeys(("w_rev", "w_vol"), "preference"),
}


# --- fields that every scenario has ----------------------------------------------------------------------------------
def log_scaled(count: Array) -> Array:
    """log(1 + count) of float32 counts, in units that do not depend on the horizon."""
    return namespace(count).log(count + 1.0) * (1.0 / LOG_SCALE)


def log_bound(horizon: int) -> float:
    """Upper bound of `log_scaled(n)` for n <= horizon, with room for rounding."""
    return math.log1p(horizon) / LOG_SCALE * 1.0001


def clock_fields(horizon: int, *, reward: tuple[float, float] = (0.0, 1.0)) -> tuple[Field, ...]:
    """The context fields that every scenario has, with the range of its reward; `clock` fills them."""
    meaning = "log(1 + decisions left) / log(1001), alike at every horizon"
    return (
        Field("time", 0.0, 1.0, "share of the trial's decisions already made", role="clock"),
        Field("remaining", 0.0, log_bound(horizon), meaning, role="remaining"),
        Field("last_reward", *reward, "reward of the last decision; 0 before the first", role="outcome"),
    )


def clock(seen: Any, horizon: int) -> dict[str, Array]:
    """Values [B] of the fields that every scenario has."""
    remaining = log_scaled(horizon - seen.time)
    return {"time": seen.time * (1.0 / horizon), "remaining": remaining, "last_reward": seen.reward}


def decisions_left(remaining: Array) -> Array:
    """The number of decisions left, the coming one included, of values of the field with the role `remaining`."""
    return namespace(remaining).expm1(remaining * LOG_SCALE)


CHOSEN = Field(
    "chosen",
    0.0,
    1.0,
    "1 for the candidate shown last; it refers to the rows of the previous observation",
    role="action",
)
