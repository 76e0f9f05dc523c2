"""Decisions for users and products that nobody simulates: a scenario's bookkeeping and a policy, without its world."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

import recgym
from recgym.arrays import to_numpy, tree_items, tree_map, where_rows
from recgym.scenario import Account, Scenario, Seen, rows_from

__all__ = ["LiveSession"]

MAGIC = b"recgym live session 1\n"  # begins its bytes; then SHA-256 of the NumPy archive, and the archive
MAX_ROWS = 1 << 20  # a forged file would fill the memory before anything refuses it


class LiveSession:
    """Trials of B users (or products) at a time: what the policy is shown, its memory, and what waits for an answer.

    Args:
        policy: anything with SB3's `predict`; it must not see the task.
        scenario: as `recgym.make_scenario` takes it; it says what is kept of a trial and how it is observed, and its
            world is not asked.
        rows: number of users B.
        deterministic: whether the policy takes its most probable actions instead of drawing them.

    Raises:
        ValueError: the policy looks at the task, or `rows` is no such number.
    """

    def __init__(self, policy: Any, scenario: Any, *, rows: int = 1, deterministic: bool = False) -> None:
        if getattr(policy, "sees_state", False):
            raise ValueError(f"a {type(policy).__name__} looks at the task, which nobody knows of live users")
        if isinstance(rows, bool) or not isinstance(rows, int) or not 1 <= rows <= MAX_ROWS:
            raise ValueError(f"rows must be a whole number from 1 to {MAX_ROWS}, got {rows!r}")
        self.policy = policy
        self.scenario: Scenario = recgym.make_scenario(scenario)
        self.rows = rows
        self.deterministic = deterministic
        self.seen: Seen | None = None  # None before the first offer
        self.memory: Any = None  # the policy's
        self.action: np.ndarray | None = None  # [B] or [B, k] that waits for its feedback

    def choose(self, offer: Any = None) -> np.ndarray:
        """Decide for every row.

        Args:
            offer: what can be chosen now, and what is known of it: an offer of the scenario, or a mapping of its
                fields, for all rows or one per row; None: the same as before.

        Returns:
            Actions [B] or [B, k].

        Raises:
            ValueError: the offer is missing or refused (names the field), what would be observed of it is out of range,
                the last choice waits for its feedback, or a trial has no decision left. Nothing has changed.
        """
        if self.action is not None:
            raise ValueError("the last choice waits for its feedback: call learn(feedback) first")
        seen = self._before_choice(offer)
        over = np.flatnonzero(seen.time >= self.scenario.horizon)
        if len(over):
            horizon = self.scenario.horizon
            raise ValueError(f"all {horizon} decisions are made in rows {over[:8].tolist()}: call begin(rows=...)")
        action, memory = self.policy.predict(
            self._shown(seen),
            state=self.memory,
            episode_start=seen.time == 0,
            deterministic=self.deterministic,
        )
        self.seen = seen
        self.memory = memory
        self.action = np.asarray(action, dtype=np.int64)
        return self.action.copy()

    def learn(self, feedback: Any) -> Account:
        """Take in what the last choice led to.

        Args:
            feedback: of the scenario's `feedback_type`, or a mapping of its fields, for all rows or one per row.

        Returns:
            What it is worth: reward [B], objectives [B, M], costs [B, C].

        Raises:
            ValueError: the feedback is refused (names the field), it cannot follow that choice (more sold than
                was in stock, say), or nothing was chosen since the last one. Nothing has changed.
        """
        if self.action is None or self.seen is None:
            raise ValueError("there is no choice that this could be the feedback of: call choose() first")
        scenario = self.scenario
        kind, space = scenario.feedback_type, scenario.feedback_space
        answer = rows_from(kind, space, feedback, self.rows, "feedback", scenario)
        if wrong := scenario.impossible(self.seen, self.action, answer):
            raise ValueError(f"feedback that cannot follow this choice: {wrong}")
        seen, account = scenario.learn(self.seen, self.action, answer)
        if wrong := scenario.layout.outside(scenario.observe(seen)):
            raise ValueError(f"feedback that cannot follow this choice: it leads to {wrong}")
        self.seen = seen
        self.action = None
        return account

    def begin(self, offer: Any = None, rows: Any = None) -> None:
        """Start new trials, with new users, in the rows [B] where `rows` is true; None: in all.

        Raises:
            ValueError: the offer is missing or refused, or `rows` is no bool [B]. Nothing has changed.
        """
        mask = np.ones(self.rows, dtype=bool) if rows is None else np.asarray(rows)
        if mask.shape != (self.rows,) or mask.dtype != np.bool_:
            raise ValueError(f"rows must be bool [{self.rows}], got {mask.dtype} {mask.shape}")
        fresh = self.scenario.start(self._offer(offer))
        self._shown(fresh)
        if self.seen is None:
            if not mask.all():
                raise ValueError("the first trials begin in all rows: leave rows out")
            self.seen = fresh
            return
        if self.action is not None and not mask.all():
            raise ValueError("some rows wait for feedback: call learn(feedback) first")
        self.seen = tree_map(lambda new, old: where_rows(mask, new, old), fresh, self.seen)
        self.action = None

    def observation(self) -> np.ndarray:
        """[B, D] what is known now, as the policy sees it.

        Raises:
            ValueError: there was no offer yet.
        """
        if self.seen is None:
            raise ValueError("nothing is known before the first offer: call choose(offer)")
        return self.scenario.observe(self.seen)

    def _shown(self, seen: Seen) -> np.ndarray:
        """[B, D] what the policy is shown; refused where it is out of range, as no trial would go on from there."""
        observation = self.scenario.observe(seen)
        if wrong := self.scenario.layout.outside(observation):
            raise ValueError(f"an offer that cannot be: it leads to {wrong}")
        return observation

    def _before_choice(self, offer: Any) -> Seen:
        if self.seen is None:
            return self.scenario.start(self._offer(offer))
        return self.seen if offer is None else self.seen._replace(offer=self._offer(offer))

    def _offer(self, offer: Any) -> Any:
        scenario = self.scenario
        if offer is None:
            offer = scenario.plain_offer(self.rows)
            if offer is None:
                fields = sorted(scenario.offer_space.spaces)
                raise ValueError(f"an offer of {type(scenario).__name__} has the fields {fields}, and none was given")
        return rows_from(scenario.offer_type, scenario.offer_space, offer, self.rows, "offer", scenario)

    # --- state ---
    def to_bytes(self) -> bytes:
        """Everything that the next decisions depend on but the policy and its own luck: a NumPy archive, no pickle.

        Raises:
            ValueError: the policy has a memory and no `start(rows)` that tells its structure.
        """
        arrays = {"owner": np.asarray(_owner(self.policy, self.scenario)), "rows": np.asarray(self.rows)}
        if self.seen is not None:
            arrays |= {name: to_numpy(leaf) for name, leaf in tree_items(self.seen, "seen")}
        if self.memory is not None:
            _memory_like(self.policy, self.rows)
            arrays |= {name: to_numpy(leaf) for name, leaf in tree_items(self.memory, "memory")}
        if self.action is not None:
            arrays["action"] = self.action
        file = io.BytesIO()
        np.savez(file, **arrays)  # type: ignore[arg-type] # arrays by name
        content = file.getvalue()
        return MAGIC + hashlib.sha256(content).digest() + content

    @classmethod
    def from_bytes(cls, content: bytes, policy: Any, scenario: Any, *, deterministic: bool = False) -> LiveSession:
        """A session as it was when `to_bytes` was called.

        Args:
            content: what that returned. A digest tells whether it is damaged, not who wrote it.
            policy: the same. Its class and the structure of its memory are compared, not its weights.
            scenario: an equal one.
            deterministic: see the class.

        Raises:
            ValueError: it is damaged, or of another scenario or policy (says what differs).
        """
        scenario = recgym.make_scenario(scenario)
        start = len(MAGIC) + hashlib.sha256().digest_size
        if content[: len(MAGIC)] != MAGIC:
            raise ValueError(f"this is no live session: it should begin with {MAGIC!r}, not {content[: len(MAGIC)]!r}")
        if content[len(MAGIC) : start] != hashlib.sha256(content[start:]).digest():
            raise ValueError("this live session is damaged: its content does not match its digest")
        with np.load(io.BytesIO(content[start:]), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        if (owner := str(arrays.pop("owner"))) != _owner(policy, scenario):
            raise ValueError(f"the live session is one of {owner}, not of {_owner(policy, scenario)}")
        session = cls(policy, scenario, rows=int(arrays.pop("rows")), deterministic=deterministic)
        names = {name.partition(".")[0] for name in arrays}
        if "seen" in names:
            kind: Any = scenario.offer_type
            boxes: Any = scenario.offer_space.spaces
            blank = (np.zeros((session.rows, *boxes[name].shape), boxes[name].dtype) for name in kind._fields)
            session.seen = _filled(scenario.start(kind(*blank)), "seen", arrays)
        if "memory" in names:
            session.memory = _filled(_memory_like(policy, session.rows), "memory", arrays)
        session.action = arrays.get("action")
        return session


def _owner(policy: Any, scenario: Scenario) -> str:
    """Classes of policy and scenario, and the scenario's parameters, as text."""
    parameters = json.dumps(asdict(scenario), sort_keys=True)  # type: ignore[call-overload] # a dataclass
    return f"{_name_of(policy)} in {_name_of(scenario)} {parameters}"


def _name_of(thing: Any) -> str:
    return f"{type(thing).__module__}:{type(thing).__qualname__}"


def _memory_like(policy: Any, rows: int) -> Any:
    """A memory of the structure that the policy's has."""
    start = getattr(policy, "start", None) or getattr(getattr(policy, "policy", None), "start", None)
    if start is None:
        raise ValueError(f"a {type(policy).__name__} has a memory, but no start(rows) that tells what it is made of")
    return start(rows)


def _filled(like: Any, prefix: str, arrays: Mapping[str, np.ndarray]) -> Any:
    """`arrays` in the structure of `like`; the second of three axes or more (candidates, a history) may be longer."""
    leaves = []
    for name, leaf in tree_items(like, prefix):
        leaf, array = to_numpy(leaf), arrays.get(name)
        found = "nothing" if array is None else f"{array.dtype} {array.shape}"
        if array is None or array.dtype != leaf.dtype or _fixed(array.shape) != _fixed(leaf.shape):
            raise ValueError(f"live session: {name!r} should be {leaf.dtype} {leaf.shape}, found {found}")
        leaves.append(array)
    remaining = iter(leaves)
    return tree_map(lambda _: next(remaining), like)


def _fixed(shape: tuple[int, ...]) -> tuple[int | None, ...]:
    return (shape[0], None, *shape[2:]) if len(shape) > 2 else shape
