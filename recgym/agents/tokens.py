"""Read an observation by role: where a layout has what tokens and memories are made of, whatever it is called."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from recgym.layout import Layout, decisions_left

__all__ = ["RoleReader"]

NEEDED = (("remaining", 0), ("outcome", 0), ("action", 1))  # roles that every layout must have, and in which block
BLOCKS = ("context", "candidate")


class RoleReader(NamedTuple):
    """Columns of an observation by the role of their fields; `RoleReader.of` makes it. Context [Dc], candidates [Di].

    Every method takes any number of leading axes, and any number of candidates K.
    """

    context: int  # Dc, numbers of the context
    candidate: int  # Di, numbers of one candidate
    remaining: int  # context column of the decisions left
    outcomes: tuple[int, ...]  # context columns of what the last decision led to, the reward first
    presence: int | None  # context column that is 0 where nothing is decided
    action: int  # candidate column that is above 0 for those chosen last
    feedback: tuple[int, ...]  # candidate columns of a candidate's own outcome
    features: tuple[int, ...]  # candidate columns of what is known of a candidate
    prior: int | None  # candidate column of the log-probabilities that someone else gives
    groups: tuple[int, ...]  # candidate columns of group numbers: those of one value belong together
    availability: int | None  # candidate column that is 0 where choosing it does nothing

    @classmethod
    def of(cls, layout: Layout) -> RoleReader:
        """Find the columns of a layout.

        Of the context, outcomes of width 1 alone are read: they say of what was chosen how it went, and the first is
        the reward (`recgym.layout.clock_fields` puts it there).

        Raises:
            ValueError: a role that learning needs is missing, or one that says a single thing has several numbers.
        """
        widths = {field.name: field.width for field in layout}

        def columns(role: str, block: int, *, widest: int | None = None) -> tuple[int, ...]:
            names = [name for name in layout.named(role, block=block) if widest is None or widths[name] <= widest]
            starts = [layout.places[name][1] for name in names]
            return tuple(s + i for s, name in zip(starts, names, strict=True) for i in range(widths[name]))

        def single(role: str, block: int) -> int | None:
            places = columns(role, block)
            if len(places) > 1:
                raise ValueError(
                    f"the layout has {len(places)} {BLOCKS[block]} numbers of role {role}; there may be one"
                )
            return places[0] if places else None

        missing = [f"{role} ({BLOCKS[block]})" for role, block in NEEDED if not columns(role, block, widest=1)]
        if missing:
            raise ValueError(f"the layout has no field of role {', '.join(missing)}, which the policy learns from")
        remaining, action = single("remaining", 0), single("action", 1)
        assert remaining is not None and action is not None
        context, candidate, _ = layout.sizes
        return cls(
            context=context,
            candidate=candidate,
            remaining=remaining,
            outcomes=columns("outcome", 0, widest=1),
            presence=single("presence", 0),
            action=action,
            feedback=columns("outcome", 1),
            features=columns("feature", 1),
            prior=single("prior", 1),
            groups=columns("group", 1),
            availability=single("availability", 1),
        )

    def split(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Context [..., Dc] and candidates [..., K, Di]; K is whatever the observation holds."""
        rows = observation[..., self.context :]
        return observation[..., : self.context], rows.reshape(*rows.shape[:-1], -1, self.candidate)

    def decisions_left(self, context: Tensor) -> Tensor:
        """[...] of contexts [..., Dc] or whole observations, the coming decision included."""
        return decisions_left(context[..., self.remaining])

    def present(self, context: Tensor) -> Tensor | None:
        """[...] bool, where something is decided, of contexts [..., Dc] or whole observations; None: everywhere."""
        return None if self.presence is None else context[..., self.presence] > 0

    def last_decision(self, context: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
        """What was chosen before each observation, [..., K] 0 or 1, and each candidate's feedback [..., K, V].

        The feedback is the context's outcomes, alike for all, then the candidate's own.
        """
        chosen = (candidates[..., self.action] > 0).to(candidates.dtype)
        shared = [context[..., column][..., None].expand_as(chosen) for column in self.outcomes]
        own = [candidates[..., column] for column in self.feedback]
        return chosen, torch.stack([*shared, *own], dim=-1)

    def summary(self, context: Tensor, chosen: Tensor, feedback: Tensor, offered: Tensor) -> Tensor:
        """[..., I] what a history is told: mean features and feedback of what was chosen, and the context.

        Of a slate also the features weighted with each candidate's own feedback: which of them was clicked.
        """
        own = feedback[..., len(self.outcomes) :]
        weighted = [offered * own[..., i, None] for i in range(len(self.feedback))]
        rows = torch.cat([offered, own, *weighted], dim=-1)
        weight = chosen / chosen.sum(dim=-1, keepdim=True).clamp(min=1.0)
        return torch.cat([(weight[..., None, :] @ rows)[..., 0, :], context], dim=-1)

    @property
    def summary_width(self) -> int:
        """I, the numbers of a `summary`."""
        return (1 + len(self.feedback)) * self.candidate + len(self.feedback) + self.context
