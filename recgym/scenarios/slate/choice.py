"""How a user chooses from a page: three models of clicks by name, and the best page under each.

Sources: multinomial logit with an outside option (McFadden 1974), attention that falls with the place, and the best
page by Dinkelbach's iteration (Dinkelbach 1967; Rusmevichientong, Shen & Shmoys 2010); the position-based model
(Richardson, Dominowska & Ragno 2007); the cascade (Craswell et al. 2008), here with a user who may stop looking.

A candidate that stands on a page already leaves its later place empty: nobody can click there, and places below it stay
where they are. So a page may be shorter than it has places.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from recgym.arrays import LONG, MAX_LOGIT, Array, arange_like, clip, logistic, namespace, row_sum, rows_of, take_rows

__all__ = ["CHOICES", "attention_by_place", "best_page", "chances", "clicked", "first_places"]

CHOICES = ("mnl", "position", "cascade")
ROUNDS = 5  # of Dinkelbach's iteration, which gains digits as Newton's method does


def attention_by_place(attention: Array, places: int) -> Array:
    """[B, k] attention^place of a user's `attention` [B]."""
    return attention[:, None] ** namespace(attention).astype(arange_like(places, attention), attention.dtype)


def first_places(slate: Array) -> Array:
    """[B, k] bool, where a candidate of `slate` [B, k] stands for the first time: the places that are not empty."""
    if not isinstance(slate, np.ndarray) or slate.size <= LONG:
        place = arange_like(slate.shape[1], slate)
        return ~((slate[:, :, None] == slate[:, None, :]) & (place[:, None] > place)).any(axis=2)
    first = np.ones(slate.shape, dtype=bool)  # many rows: pair by pair takes a ninth of the time
    for place in range(1, slate.shape[1]):
        for above in range(place):
            first[:, place] &= slate[:, above] != slate[:, place]
    return first


def chances(model: str, logit: Array, first: Array, weight: Array) -> Array:
    """[B, k] probability of a click at each place.

    Args:
        model: one of `CHOICES`. `mnl`: y_j / (1 + sum y), y_j = weight_j e^logit_j. `position`: weight_j sigmoid_j,
            each place for itself. `cascade`: sigmoid_j, if the user comes so far: from each place without a click on
            with probability `attention`.
        logit: [B, k] of the candidates at the places.
        first: [B, k] bool, see `first_places`.
        weight: [B, k], see `attention_by_place`.
    """
    xp = namespace(logit)
    shown = xp.astype(first, logit.dtype)
    if model == "mnl":
        odds = xp.exp(clip(logit, -MAX_LOGIT, MAX_LOGIT)) * weight * shown
        return odds / (1.0 + row_sum(odds)[:, None])
    click = logistic(logit) * shown
    if model == "position":
        return click * weight
    passed = xp.ones_like(click)
    for place in range(1, click.shape[1]):
        passed[:, place] = passed[:, place - 1] * (1.0 - click[:, place - 1])
    return click * weight * passed


def clicked(model: str, chance: Array, luck: Array) -> Array:
    """[B, k] bool: where it is clicked, by uniform `luck` [B, k]; at most one place but for `position`."""
    if model == "position":
        return luck < chance
    xp = namespace(chance)
    above = xp.cumulative_sum(chance, axis=1)
    one = luck[:, :1]
    return (one < above) & (one >= above - chance)


def best_page(
    model: str, logit: Array, worth: Array, outside: Array, attention: Array, places: int
) -> tuple[Array, Array]:
    """Find the page of the highest sum of chances x worth, and of `outside` where nothing is clicked; it is not empty.

    Exact, but for `position` with an `outside` that is not 0, where several clicks are counted as if no click were as
    much rarer.

    Args:
        model: one of `CHOICES`.
        logit: [B, C].
        worth: [B, C] of a click; may be below 0.
        outside: [B] what no click is worth.
        attention: [B].
        places: k.

    Returns:
        Slates [B, k] int64, which repeat their first candidate where a place is better left empty, and values [B].
    """
    if model == "cascade":
        return _best_cascade(logistic(logit), worth - outside[:, None], outside, attention, places)
    xp = namespace(logit)
    weight = attention_by_place(attention, places)
    if model == "position":
        score = logistic(logit) * (worth - outside[:, None])
        order, _, kept = _highest(score, weight)
        return _shortened(order, kept), outside + row_sum(kept * xp.take_along_axis(score, order, axis=1))
    odds = xp.exp(clip(logit, -MAX_LOGIT, MAX_LOGIT))
    value = outside
    for _ in range(ROUNDS):
        order, at, kept = _highest(odds * (worth - value[:, None]), weight)
        share = take_rows(odds.reshape(-1), at) * kept
        last, value = value, (outside + row_sum(share * take_rows(worth.reshape(-1), at))) / (1.0 + row_sum(share))
        if isinstance(value, np.ndarray) and (value == last).all():
            break
    return _shortened(order, kept), value


def _highest(score: Array, weight: Array) -> tuple[Array, Array, Array]:
    """The candidates [B, k] of the highest scores, where they stand in all scores one after the other, and weights.

    Weights [B, k] are 0 where a score is not above 0, but for the first place, which cannot be empty.
    """
    xp = namespace(score)
    order = xp.argsort(-score, axis=1, stable=False)[:, : weight.shape[1]]
    at = order + rows_of(score)[:, None] * score.shape[1]
    kept = weight * xp.astype(take_rows(score.reshape(-1), at) > 0.0, weight.dtype)
    kept[:, 0] = weight[:, 0]
    return order, at, kept


def _shortened(order: Array, kept: Array) -> Array:
    """Slates that repeat their first candidate where nothing is kept."""
    return namespace(order).where(kept > 0.0, order, order[:, :1])


def _best_cascade(click: Array, gain: Array, outside: Array, attention: Array, places: int) -> tuple[Array, Array]:
    """The same for the cascade: by exchange, a best page is sorted by click gain / (1 - attention (1 - click)).

    Which of the sorted candidates stand on it is found backwards: best[n] is the most that n places bring.
    """
    xp = namespace(click)
    step = attention[:, None]
    order = xp.argsort(-click * gain / (1.0 - step * (1.0 - click) + 1e-9), axis=1)
    rows = rows_of(click)
    p, g = (column[rows[:, None], order] for column in (click, gain))
    count = click.shape[1]
    best = [xp.zeros_like(outside) for _ in range(places + 1)]
    taken: list[list[Any]] = [[] for _ in range(count)]
    for i in range(count - 1, -1, -1):
        take = [p[:, i] * g[:, i] + attention * (1.0 - p[:, i]) * best[n - 1] for n in range(1, places + 1)]
        taken[i] = [take[n - 1] > best[n] for n in range(1, places + 1)]
        best = [best[0], *(xp.where(taken[i][n - 1], take[n - 1], best[n]) for n in range(1, places + 1))]
    single = xp.argmax(click * gain, axis=1)
    slate = xp.stack([single] * places, axis=1)
    place = xp.zeros_like(single)
    for i in range(count):
        here = xp.stack([place == n for n in range(places)], axis=1)
        can = xp.stack([taken[i][places - 1 - n] for n in range(places)], axis=1)
        takes = xp.any(here & can, axis=1)
        slate = xp.where(here & takes[:, None], order[:, i : i + 1], slate)
        place = place + xp.astype(takes, place.dtype)
    slate = xp.where(xp.stack([place > n for n in range(places)], axis=1), slate, slate[:, :1])
    least = click[rows, single] * gain[rows, single]
    return slate, outside + xp.where(place > 0, best[places], least)
