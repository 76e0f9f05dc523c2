"""Slates of content for users who get bored, lose trust, leave and come back: which page now, and at what cost later?

Sources: RecSim's long-term satisfaction and interest evolution (Ie et al. 2019, arXiv:1909.04847) for the problem; the
multinomial logit with an outside option (McFadden 1974) for the choice; `recgym.scenarios.slate.bound` for the optimum.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import gymnasium
import numpy as np

from recgym.arrays import Array, Rng, columns, logistic, namespace, one_hot, row_sum, take_at, take_rows, to_numpy
from recgym.catalog import MAX_ITEMS, MAX_WIDTH, Catalog, known_catalog
from recgym.layout import Layout
from recgym.panels import Panel
from recgym.parameters import param, refuse
from recgym.scenario import Account, Response, Scenario, Seen, State, weights_param
from recgym.scenarios.slate import pictures
from recgym.scenarios.slate.advice import ADVISERS
from recgym.scenarios.slate.bound import upper_bound
from recgym.scenarios.slate.checks import impossible_feedback
from recgym.scenarios.slate.choice import (
    CHOICES,
    attention_by_place,
    best_page,
    chances,
    clicked,
    first_places,
)
from recgym.scenarios.slate.foresight import Foresight, foresighted_page, plan_of
from recgym.scenarios.slate.inventory import Inventory, draw_pool, inventory_of
from recgym.scenarios.slate.observation import (
    AVERAGES,
    SlateKept,
    groups_shown,
    kept_after,
    slate_layout,
    slate_observation,
)
from recgym.scenarios.slate.users import (
    SlateTask,
    next_taste,
    sample_users,
    task_space,
    uniform_param,
)
from recgym.scenarios.slate.worth import REWARDS, earned, mean_worth

__all__ = ["Slate", "SlateFeedback", "SlateOffer"]

MAX_HORIZON = 100_000
MAX_CANDIDATES = 10_000
MAX_PLACES = 100
UNIFORM = "[least, most] of a uniform distribution over users"


class SlateHidden(NamedTuple):
    taste: Array  # [B, D] what the user likes now
    interest: Array  # [B, Z] x, recent clicks on each topic, which satiate
    burden: Array  # [B] m, average burden of what was consumed
    logit: Array  # [B, C] of a click on each candidate, alone on a page
    worth: Array  # [B, C] mean reward of a click on each, were trust full


class SlateOffer(NamedTuple):
    item: Array  # [B, C] int64 rows of the catalog
    present: Array  # [B] bool; where the user is away nothing is decided
    preference: Array  # [B, P] weights that are drawn


class SlateFeedback(NamedTuple):
    click: Array  # [B, k] bool at each place
    value: Array  # [B, k] what it brought: share watched, price paid, 1 for a follow


@dataclass(frozen=True)
class Slate(Scenario):
    """Show a page of items to a user who chooses one or none, gets bored, loses trust, leaves and returns.

    ## Description
    Each trial is one user. Each decision brings fresh candidates from a catalog; the page shows `places` of them. Under
    the multinomial logit the item at place j is clicked with probability y_j / (1 + sum y),
    y_j = attention^j exp(beta u.e + appeal - satiation x_z - outside): u is the user's taste, e the item's features,
    x_z how much of its topic z was clicked lately (x <- retention x + clicks, at every step). With `position` each
    place is clicked for itself, with `cascade` the user goes down the page and stops at a click; see
    `recgym.scenarios.slate.choice`. A click brings the mean r(u.e, item) (`recgym.scenarios.slate.worth`) times the
    user's trust exp(-sensitivity m), where m is an average of the burden of what was consumed:
    m <- memory m + (1 - memory) burden after a click, else it stays. Burdened items appeal more, so that a page that
    is best now costs trust for the rest of the trial: looking ahead pays. After a page without a click the user leaves
    with probability `leaving`, and returns at each step with 1 / `away`; while away nothing is decided or earned.

    ## Action Space
    `MultiDiscrete([candidates] * places)`: which candidate at which place, the first the most seen. A candidate that
    stands above already leaves its later place empty.

    ## Observation Space
    The fields of `layout`. Of an item its features are seen, a noisy popularity and a noisy hint of its burden; of cold
    items neither. `chosen` and `clicked` refer to the rows of the previous observation. `taste` is the state vector's
    moving average of the features clicked less those shown, which points towards u; `match` is its product with each
    candidate. `present` is 0 while the user is away. Without `statistics` the moving averages are left out. With a
    `advice` each candidate shows the log-probability that a simple recommender gives it after the clicks so far.

    ## Rewards
    `value`: the share watched, the price paid, or 1 for a follow (or its weight); 0 without a click. `expected` is its
    mean given the state, and the best page's is that of the moment: the informed policy looks ahead and gives some of
    it up.

    ## Info
    `value` and `clicks`; of costs `flagged`, the share of places with flagged items, and `excess`, what the page adds
    to the exposure of provider groups beyond their share of the candidates, in pages, over the trial so far.

    ## Starting State
    A user who is there, not satiated, with full trust.

    ## Episode End
    Terminates after `horizon` steps, those away included; never truncated.

    ## Version History
    * v0: first version.
    """

    catalog: Any = param(
        None,
        unit="a Catalog, the path of its file, its digest once it was given, or None: a synthetic one",
        effect="the items; kept as their digest. Without burden trust is full; with `tastes` these are the users'",
        kind="other",
    )
    catalog_size: int = param(1_000, 1, MAX_ITEMS, "items", "of the synthetic catalog")
    width: int = param(16, 1, MAX_WIDTH, "numbers", "features of an item of the synthetic catalog")
    topics: int = param(12, 1, MAX_WIDTH, "topics", "of the synthetic catalog, at most `width`")
    bait: float = param(1.5, -20.0, 20.0, "logits", "appeal of the synthetic catalog's items by burden, 0 to 1")
    candidates: int = param(20, 1, MAX_CANDIDATES, "items", "number of candidates C on offer at each decision")
    places: int = param(4, 1, MAX_PLACES, "items", "number of places k of a page")
    horizon: int = param(100, 1, MAX_HORIZON, "decisions", "length of a trial")
    choice: str = param("mnl", unit=f"one of {', '.join(CHOICES)}", effect="how the user chooses from a page")
    reward: str = param(
        "video",
        unit=f"one of {', '.join(REWARDS)}",
        effect="what a click is worth. With social the synthetic catalog's burden is 0 or 1",
    )
    beta: float = param(5.0, 0.0, 100.0, "logits", "of a click by the match of taste and item, -1 to 1")
    breadth: float = param(0.7, 0.01, 100.0, "shape of a gamma", "topics that a taste mixes; unused with `tastes`")
    outside: tuple[float, float] = uniform_param(
        "outside", (1.5, 2.5), "logits", f"of no click; {UNIFORM}, as all ranges"
    )
    attention: tuple[float, float] = uniform_param(
        "attention", (0.7, 0.95), "share", "of the attention that a place has relative to the one above; ones: off"
    )
    satiation: tuple[float, float] = uniform_param(
        "satiation", (0.2, 2.0), "logits", "lost per recent click on the topic; uniform in the logarithm; zeros: off"
    )
    retention: tuple[float, float] = uniform_param("retention", (0.8, 0.95), "share", "of satiation kept at each step")
    sensitivity: tuple[float, float] = uniform_param(
        "sensitivity", (0.0, 4.0), "log trust", "lost at the full average burden; zeros: off"
    )
    memory: tuple[float, float] = uniform_param("memory", (0.6, 0.9), "share", "weight of the old average burden")
    leaving: tuple[float, float] = uniform_param(
        "leaving", (0.1, 0.5), "probability", "to leave after a page without a click; zeros: off"
    )
    away: float = param(4.0, 1.0, 1e6, "steps", "mean time away")
    price_sensitivity: tuple[float, float] = uniform_param(
        "price_sensitivity", (1.0, 4.0), "logits per unit of price", "of a sale"
    )
    fresh: bool = param(True, effect="whether candidates are new at each decision; if not, they stay for the trial")
    drift: float = param(0.0, 0.0, 1.0, "share", "of the way to an item that a click moves the taste; 0: off")
    redraw: float = param(0.0, 0.0, 1.0, "probability", "at each step that the taste is drawn anew; 0: off")
    cold: float = param(0.2, 0.0, 1.0, "share", "of the items without popularity and hint")
    hint_noise: float = param(0.1, 0.0, 10.0, "of burden", "standard deviation of the hint")
    popularity_noise: float = param(0.2, 0.0, 10.0, "logits", "standard deviation of the popularity")
    alpha: float = param(0.9, 0.0, 1.0, "share", "weight of the old value in the moving average of taste")
    statistics: bool = param(True, effect="show the moving averages")
    advice: str | None = param(
        None,
        unit=f"one of {', '.join(ADVISERS)}, or None",
        effect="recommender whose log-probabilities of the candidates are shown: by features, or by `vectors`",
        kind="other",
    )
    weights: Mapping[str, Any] | None = weights_param()

    family: ClassVar[str] = "recgym.baselines.slate:FAMILY"
    task_type: ClassVar[type] = SlateTask
    offer_type: ClassVar[type] = SlateOffer
    feedback_type: ClassVar[type] = SlateFeedback
    objectives: ClassVar[tuple[str, ...]] = ("value", "clicks")
    costs: ClassVar[tuple[str, ...]] = ("flagged", "excess")
    covered: ClassVar[tuple[str, ...] | None] = ("value",)
    myopic: ClassVar[bool] = False
    credited: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, known in (("choice", CHOICES), ("reward", REWARDS)):
            if getattr(self, name) not in known:
                refuse(self, name, f"one of {', '.join(known)}")
        if self.advice is not None and self.advice not in ADVISERS:
            refuse(self, "advice", f"one of {', '.join(ADVISERS)}, or None")
        if self.satiation[0] == 0.0 < self.satiation[1]:
            refuse(self, "satiation", "two numbers above 0 (it is uniform in the logarithm), or two zeros: off")
        if self.catalog is not None:
            found = known_catalog(self.catalog)
            object.__setattr__(self, "catalog", found.digest)
            object.__setattr__(self, "items", found)
            for name in ("topic", "price") if self.reward == "shop" else ("topic",):
                found.require(name, of=f"Slate with reward={self.reward!r}")
        elif self.topics > self.width:
            refuse(self, "topics", f"at most the width, {self.width}, since topics are orthogonal")
        count = self.catalog_size if self.catalog is None else self.items.items
        if self.candidates > count:
            refuse(self, "candidates", f"at most the number of items, {count}")
        if self.places > self.candidates:
            refuse(self, "places", f"at most the number of candidates, {self.candidates}")

    # --- the items ---
    @cached_property
    def items(self) -> Catalog:
        """The catalog."""
        sizes = {"items": self.catalog_size, "width": self.width, "topics": self.topics}
        social = self.reward == "social"
        return Catalog.synthetic(**sizes, bait=self.bait, binary=social)

    @cached_property
    def inventory(self) -> Inventory:
        """Its columns, NumPy."""
        noise = {"hint_noise": self.hint_noise, "popularity_noise": self.popularity_noise}
        return inventory_of(self.items, cold=self.cold, advice=self.advice, **noise)

    def inventory_like(self, like: Array) -> Inventory:
        """The columns in the array library and on the device of `like`."""
        if isinstance(like, np.ndarray):
            return self.inventory
        device = str(like.device)
        if device not in self._inventories:
            copies = (namespace(like).asarray(column.copy(), device=like.device) for column in self.inventory)
            self._inventories[device] = Inventory(*copies)
        return self._inventories[device]

    @cached_property
    def _inventories(self) -> dict[str, Inventory]:
        """By device, of torch: copied there once."""
        return {}

    @cached_property
    def groups(self) -> int:
        """Number of provider groups."""
        return self.inventory.member.shape[1]

    # --- the world ---
    def sample_task(self, rng: Rng, batch: int) -> SlateTask:
        return sample_users(self, rng, batch)

    def begin(self, task: SlateTask, rng: Rng) -> tuple[SlateHidden, SlateOffer]:
        xp = rng.xp
        inventory = self.inventory_like(task.outside)
        batch = task.outside.shape[0]
        item = draw_pool(rng, inventory.shuffled, (batch, self.candidates))
        interest = xp.zeros((batch, inventory.centroids.shape[0]), dtype=xp.float32, device=rng.device)
        present = xp.ones((batch,), dtype=xp.bool, device=rng.device)
        hidden = self._meet(task, task.taste, interest, interest[:, 0], item)
        return hidden, SlateOffer(item, present, task.preference)

    def respond(self, state: State, action: Array, rng: Rng) -> tuple[SlateHidden, Response]:
        xp = rng.xp
        task, hidden, seen = state
        offer = seen.offer
        batch, places = action.shape
        inventory = self.inventory_like(seen.reward)
        luck = rng.uniform((batch, 2 * places + 2))
        item = draw_pool(rng, inventory.shuffled, (batch, self.candidates)) if self.fresh else offer.item
        shown = take_at(offer.item, action)
        weight = attention_by_place(task.attention, places)
        chance = chances(self.choice, take_at(hidden.logit, action), first_places(action), weight)
        chance = chance * xp.astype(offer.present, xp.float32)[:, None]
        mean = take_at(hidden.worth, action) * self.trust(task, hidden)[:, None]
        click = clicked(self.choice, chance, luck[:, :places])
        clicks = xp.astype(click, xp.float32)
        value = clicks * earned(self.reward, mean, inventory.price[shown], luck[:, places : 2 * places])
        count = row_sum(clicks)
        any_click = count > 0.0
        interest = self._clicked_topics(task, hidden, inventory.topic[shown], clicks)
        consumed = row_sum(clicks * inventory.burden[shown]) / xp.maximum(count, xp.ones_like(count))
        burden = xp.where(any_click, task.memory * hidden.burden + (1.0 - task.memory) * consumed, hidden.burden)
        leaves = offer.present & ~any_click & (luck[:, -2] < task.leaving)
        present = (offer.present & ~leaves) | (~offer.present & (luck[:, -1] * self.away < 1.0))
        taste = next_taste(self, hidden.taste, inventory.features[shown], clicks, count, rng)
        after = self._meet(task, taste, interest, burden, item)
        expected = self.weighed(row_sum(chance * mean), task.preference)
        response = Response(SlateFeedback(click, value), SlateOffer(item, present, task.preference), expected)
        return after, response

    def _meet(self, task: SlateTask, taste: Array, interest: Array, burden: Array, item: Array) -> SlateHidden:
        """The user before the next page, and what they make of its candidates."""
        inventory = self.inventory_like(taste)
        match = (take_rows(inventory.features, item) @ taste[:, :, None])[:, :, 0]
        bored = task.satiation[:, None] * take_at(interest, take_rows(inventory.topic, item))
        logit = self.beta * match + take_rows(inventory.appeal, item) - bored - task.outside[:, None]
        known = (take_rows(column, item) for column in (inventory.burden, inventory.price))
        columns = *known, task.price_sensitivity[:, None]
        return SlateHidden(taste, interest, burden, logit, mean_worth(self.reward, match, *columns))

    def _clicked_topics(self, task: SlateTask, hidden: SlateHidden, topic: Array, clicks: Array) -> Array:
        """[B, Z] recent clicks of each topic after clicks [B, k] on topics [B, k]."""
        news = clicks[:, None, :] @ one_hot(topic, hidden.interest.shape[1])
        return task.retention[:, None] * hidden.interest + news[:, 0]

    def trust(self, task: SlateTask, hidden: SlateHidden) -> Array:
        """[B] what rewards are multiplied by."""
        return namespace(hidden.burden).exp(-task.sensitivity * hidden.burden)

    # --- the bookkeeping ---
    def open(self, offer: SlateOffer) -> SlateKept:
        xp = namespace(offer.item)

        def none(*shape: int) -> Array:
            return xp.zeros((offer.item.shape[0], *shape), dtype=xp.float32, device=offer.item.device)

        topics = len(self.inventory.centroids)
        return SlateKept(
            chosen=none(self.candidates),
            clicked=none(self.candidates),
            taste=none(self.items.width),
            averages=none(len(AVERAGES)),
            recent=none(2, topics),
            gone=xp.zeros_like(offer.present),
            liked=none(self.inventory.vectors.shape[1]),
            balance=none(self.groups),
        )

    def account(self, seen: Seen, action: Array, feedback: SlateFeedback) -> Account:
        xp = namespace(feedback.value)
        inventory = self.inventory_like(feedback.value)
        clicks = xp.astype(feedback.click, xp.float32)
        objectives = columns(row_sum(feedback.value), row_sum(clicks))
        shown = xp.astype(first_places(action) & seen.offer.present[:, None], xp.float32)
        flagged = inventory.flagged[take_at(seen.offer.item, action)]
        before, after = seen.kept.balance, seen.kept.balance + groups_shown(self, seen, action, shown)
        none = xp.zeros_like(before)
        excess = row_sum(xp.maximum(after, none) - xp.maximum(before, none))
        costs = columns(row_sum(shown * flagged) / self.places, excess)
        return Account(self.worth(objectives, costs, seen.offer.preference), objectives, costs)

    def update(self, seen: Seen, action: Array, feedback: SlateFeedback) -> SlateKept:
        return kept_after(self, seen, action, feedback)

    def impossible(self, seen: Seen, action: Array, feedback: SlateFeedback) -> str:
        return impossible_feedback(self.choice, seen, action, feedback)

    def observe(self, seen: Seen) -> Array:
        return slate_observation(self, seen)

    # --- the optimum ---
    def best_reward(self, state: State) -> Array:
        value = self.myopic_page(state)[1]
        present = namespace(value).astype(state.seen.offer.present, value.dtype)
        return self.weighed(value * present, state.task.preference)

    def myopic_page(self, state: State) -> tuple[Array, Array]:
        """The page [B, k] that is best now, and its mean value [B], were the user there."""
        task, hidden, _ = state
        worth = hidden.worth * self.trust(task, hidden)[:, None]
        none = namespace(worth).zeros_like(task.attention)
        return best_page(self.choice, hidden.logit, worth, none, task.attention, self.places)

    def informed_action(self, state: State) -> Array:
        """The page that is best where value to come counts too, which a table per task says: see `foresight`."""
        page = foresighted_page(self, state)
        like = state.task.attention
        return page if isinstance(like, np.ndarray) else namespace(like).asarray(page, device=like.device)

    def plan(self, task: SlateTask) -> Foresight:
        """Tables of what is to come, per task; those of the last tasks are kept."""
        kept = self.__dict__.get("_plan")
        if kept is None or kept[0] is not task.taste:
            kept = task.taste, plan_of(self, type(task)(*(to_numpy(leaf) for leaf in task)), kept and kept[1])
            self.__dict__["_plan"] = kept
        return kept[1]

    def bound(self, state: State) -> np.ndarray | None:
        """It holds on average over trials, for the multinomial logit with fresh candidates and a taste that stays."""
        if self.choice != "mnl" or not self.fresh or self.drift > 0.0 or self.redraw > 0.0:
            return None
        return self.weighed(upper_bound(self, state), to_numpy(state.task.preference))

    def candidate_rewards(self, state: State) -> tuple[Array, Array | None]:
        task, hidden, _ = state
        alone = logistic(hidden.logit) * hidden.worth * self.trust(task, hidden)[:, None]
        return self.weighed(alone, task.preference), self.weighed(pictures.predicted(self, state.seen), task.preference)

    # --- pictures ---
    @cached_property
    def panels(self) -> tuple[Panel, ...]:
        return pictures.panels_of(self)

    def trace(self, state: State) -> Mapping[str, Array]:
        return pictures.trace(self, state)

    def names_of(self, state: State) -> list[tuple[str, ...]]:
        return pictures.titles(self.items, to_numpy(state.seen.offer.item))

    # --- spaces ---
    @cached_property
    def layout(self) -> Layout:
        return slate_layout(self)

    @cached_property
    def action_space(self) -> gymnasium.spaces.MultiDiscrete:
        return gymnasium.spaces.MultiDiscrete(np.full(self.places, self.candidates))

    @cached_property
    def task_space(self) -> gymnasium.spaces.Dict:
        return task_space(self)

    @cached_property
    def offer_space(self) -> gymnasium.spaces.Dict:
        return gymnasium.spaces.Dict(
            {
                "item": gymnasium.spaces.Box(0, self.items.items - 1, (self.candidates,), np.int64),
                "present": gymnasium.spaces.Box(0, 1, (), np.bool_),
                "preference": self.preference_space,
            }
        )

    @cached_property
    def feedback_space(self) -> gymnasium.spaces.Dict:
        return gymnasium.spaces.Dict(
            {
                "click": gymnasium.spaces.Box(0, 1, (self.places,), np.bool_),
                "value": gymnasium.spaces.Box(0.0, self.most, (self.places,), np.float32),
            }
        )

    @cached_property
    def most(self) -> float:
        """The most that a click can bring."""
        return max(float(self.inventory.price.max()), 1e-6) if self.reward == "shop" else 1.0
