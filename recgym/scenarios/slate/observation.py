"""What is kept and observed in slates: the bookkeeping, the layout of the numbers, and the numbers."""

from __future__ import annotations

from typing import Any, NamedTuple

from recgym.arrays import Array, arange_like, clip, namespace, one_hot, row_sum, rows_of, take_at, take_rows
from recgym.layout import CHOSEN, Field, Layout, clock, clock_fields
from recgym.scenario import Seen
from recgym.scenarios.slate.advice import UNLIKELY, advice
from recgym.scenarios.slate.choice import first_places

__all__ = ["AVERAGES", "SlateKept", "groups_shown", "kept_after", "slate_layout", "slate_observation"]

AVERAGES = {  # moving averages: weight of the old value, and the meaning; all but the first are per click
    "click_rate": (0.9, "moving average of pages with a click"),
    "worth_fast": (0.7, "moving average of the reward per click"),
    "worth_slow": (0.95, "the same, slower"),
    "burden_fast": (0.7, "moving average of the hint of burden of what was clicked"),
    "burden_slow": (0.9, "the same, slower"),
    "strain": (0.9, "moving average of reward x hint of burden of what was clicked"),
}
RECENT = (0.8, 0.93)  # weights of the old value in the clicks on each topic
IGNORED = 0.3  # how far a page without a click moves the taste away from what it showed
ROOM = 1.001  # for rounding
SHOWN = (
    "1 for the candidate at the first place of the last page, 1/k at the last; 0: not shown. It refers to the rows of "
    "the previous observation"
)


class SlateKept(NamedTuple):
    """What is kept of a user's trial."""

    chosen: Array  # [B, C] 1 for the candidate at the first place, falling to 1/k at the last; 0: not shown
    clicked: Array  # [B, C] 1 for what was clicked
    taste: Array  # [B, D] moving average that points towards the taste
    averages: Array  # [B, 6] see `AVERAGES`
    recent: Array  # [B, 2, Z] clicks on each topic, at two decays
    gone: Array  # [B] bool: away at the decision before
    liked: Array  # [B, F] sum of the vectors clicked, see `recgym.scenarios.slate.advice`
    balance: Array  # [B, G] exposure of each group beyond its share of the candidates so far, in pages


def groups_shown(scenario: Any, seen: Seen, action: Array, first: Array) -> Array:
    """[B, G] share of the page's places that each provider group has, less its share of the candidates.

    Args:
        scenario: a Slate.
        seen: before the page.
        action: [B, k].
        first: [B, k] 1 for places that are not empty.
    """
    xp = namespace(seen.reward)
    if scenario.groups == 1:
        return xp.zeros_like(seen.kept.balance)
    member = take_rows(scenario.inventory_like(seen.reward).member, seen.offer.item)
    candidates = member.shape[1]
    even = xp.full((1, candidates), 1.0 / candidates, dtype=xp.float32, device=member.device)
    shown = first[:, None, :] @ (member[rows_of(action)[:, None], action] - even @ member)
    return shown[:, 0] * (1.0 / scenario.places)


def kept_after(scenario: Any, seen: Seen, action: Array, feedback: Any) -> SlateKept:
    """What is kept after `feedback` to `action`."""
    kept, offer = seen.kept, seen.offer
    xp = namespace(seen.reward)
    inventory = scenario.inventory_like(seen.reward)
    places = action.shape[1]
    here = xp.astype(offer.present, xp.float32)
    first = xp.astype(first_places(action), xp.float32) * here[:, None]
    clicks = xp.astype(feedback.click, xp.float32) * first
    count = row_sum(clicks)
    item = take_at(offer.item, action)
    fall = 1.0 - arange_like(places, action) * (1.0 / places)
    marks = xp.stack([first * xp.astype(fall, xp.float32), clicks], axis=1) @ one_hot(action, kept.chosen.shape[1])
    news = clicks[:, None, :] @ one_hot(take_rows(inventory.topic, item), kept.recent.shape[2])
    taste = kept.taste
    per_click = clicks / clip(count, 1.0, None)[:, None]
    if scenario.statistics:
        taste = _taste_after(scenario, kept.taste, inventory.features[item], first, per_click, count)
    return SlateKept(
        chosen=marks[:, 0],
        clicked=marks[:, 1],
        taste=taste,
        averages=_averages_after(kept.averages, feedback.value, inventory.hint[item], per_click, count, here),
        recent=kept.recent * _column(xp, RECENT, kept.recent)[:, None] + news,
        gone=~offer.present,
        liked=kept.liked if scenario.advice is None else kept.liked + _sum_of(inventory.vectors[item], clicks),
        balance=kept.balance + groups_shown(scenario, seen, action, first),
    )


def _sum_of(vectors: Array, weights: Array) -> Array:
    """[B, F] of vectors [B, k, F]."""
    return (weights[:, None, :] @ vectors)[:, 0]


def _taste_after(scenario: Any, taste: Array, features: Array, first: Array, per_click: Array, count: Array) -> Array:
    """Towards the features clicked, less the mean of those shown: the multinomial logit's score; frozen while away."""
    xp = namespace(taste)
    shown = first / clip(row_sum(first), 1.0, None)[:, None]
    any_click = xp.astype(count > 0.0, xp.float32)
    weight = per_click - shown * (IGNORED + (1.0 - IGNORED) * any_click)[:, None]
    pull = _sum_of(features, weight)
    step = (1.0 - scenario.alpha) * first[:, :1]
    return taste + step * (pull - taste)


def _averages_after(averages: Array, value: Array, hint: Array, per_click: Array, count: Array, here: Array) -> Array:
    """[B, 6] after a page; what is per click stays where there is none."""
    xp = namespace(averages)
    any_click = xp.astype(count > 0.0, xp.float32)
    worth = row_sum(value * per_click)
    burden = row_sum(hint * per_click)
    news = xp.stack([any_click, worth, worth, burden, burden, worth * burden], axis=1)
    step = xp.stack([here, *[any_click] * (len(AVERAGES) - 1)], axis=1)
    return averages + step * (1.0 - _column(xp, [old for old, _ in AVERAGES.values()], averages)) * (news - averages)


def _column(xp: Any, values: Any, like: Array) -> Array:
    return xp.asarray(values, dtype=xp.float32, device=like.device)


def slate_layout(scenario: Any) -> Layout:
    """The layout of a `Slate`."""
    inventory = scenario.inventory
    most = scenario.most * ROOM
    hint = float(abs(inventory.hint).max()) * ROOM + 1e-6
    popularity = float(abs(inventory.popularity).max()) * ROOM + 1e-6
    clicks = scenario.places if scenario.choice == "position" else 1
    context = [
        *clock_fields(scenario.horizon, reward=_reward_range(scenario, clicks)),
        Field("present", 0.0, 1.0, "1 where the user is there; else nothing is decided", role="presence"),
        Field("returned", 0.0, 1.0, "1 where the user has just come back", role="market"),
        *scenario.preference_fields(),
    ]
    candidate = [
        CHOSEN._replace(meaning=SHOWN),
        Field("clicked", 0.0, ROOM, "1 for what was clicked, in the rows of the previous observation", role="outcome"),
        Field("features", -ROOM, ROOM, "what is known of the item's content, of length 1", scenario.items.width),
        Field("popularity", -popularity, popularity, "appeal as a log tells it; 0 for cold items"),
        Field("hint", -hint, hint, "burden as a log tells it; the mean for cold items"),
        Field("cold", 0.0, 1.0, "1 for an item of which nothing has been logged"),
    ]
    if scenario.advice is not None:
        meaning = f"log-probability that a recommender of the kind {scenario.advice} gives the candidate"
        candidate.append(Field("prior", UNLIKELY, 0.0, meaning, role="prior"))
    if scenario.reward == "shop":
        candidate.append(Field("price", 0.0, most, "of the item"))
    if scenario.statistics:
        meaning = "moving average of features clicked less shown"
        context.append(Field("taste", -2.0, 2.0, meaning, scenario.items.width, role="statistic"))
        spans = {"click_rate": (0.0, ROOM), "strain": (-most * hint, most * hint)}
        spans |= dict.fromkeys(("worth_fast", "worth_slow"), (0.0, most))
        for name, (_, meaning) in AVERAGES.items():
            context.append(Field(name, *spans.get(name, (-hint, hint)), meaning, role="statistic"))
        for name, old in zip(("topic_fast", "topic_slow"), RECENT, strict=True):
            high = ROOM * clicks / (1.0 - old)
            candidate.append(
                Field(name, 0.0, high, f"clicks on its topic, each counting {old} of the later", role="statistic")
            )
        candidate.append(
            Field("match", -2.0, 2.0, "product of its features and the moving average of taste", role="statistic")
        )
    return Layout(tuple(context), tuple(candidate), scenario.candidates)


def _reward_range(scenario: Any, clicks: int) -> tuple[float, float]:
    """Least and greatest reward of a page."""
    spans = {
        "value": (0.0, scenario.most * clicks),
        "clicks": (0.0, clicks),
        "flagged": (-1.0, 0.0),
        "excess": (-1.0, 1.0),
    }
    low, high = 0.0, 0.0
    for name, (_, weight) in scenario.weight_ranges.items():
        low += weight * spans[name][0]
        high += weight * spans[name][1]
    return low * ROOM, max(high, low + 1e-6) * ROOM


def slate_observation(scenario: Any, seen: Seen) -> Array:
    """The state vector [B, D] of a `Slate`."""
    xp = namespace(seen.reward)
    kept, offer = seen.kept, seen.offer
    inventory = scenario.inventory_like(seen.reward)
    features = take_rows(inventory.features, offer.item)
    context = clock(seen, scenario.horizon)
    context["present"] = xp.astype(offer.present, xp.float32)
    context["returned"] = xp.astype(offer.present & kept.gone, xp.float32)
    for place, name in enumerate(scenario.preferences):
        context[f"weight_{name}"] = offer.preference[:, place]
    candidate = {"chosen": kept.chosen, "clicked": kept.clicked, "features": features}
    names = ("popularity", "hint", "cold", *(("price",) if scenario.reward == "shop" else ()))
    candidate |= {name: take_rows(getattr(inventory, name), offer.item) for name in names}
    if scenario.advice is not None:
        vectors = take_rows(inventory.vectors, offer.item)
        candidate["prior"] = advice(scenario.beta, vectors, kept.liked, candidate["popularity"])
    if scenario.statistics:
        context["taste"] = kept.taste
        context |= {name: kept.averages[:, place] for place, name in enumerate(AVERAGES)}
        topic = take_rows(inventory.topic, offer.item)
        recent = (kept.recent[:, place] for place in range(len(RECENT)))
        candidate |= {f"topic_{n}": take_at(each, topic) for n, each in zip(("fast", "slow"), recent, strict=True)}
        candidate["match"] = (features @ kept.taste[:, :, None])[:, :, 0]
    return scenario.layout.join(context, candidate)
