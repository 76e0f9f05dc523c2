"""What a click is worth: the share of a video that is watched, the price of what is bought, or a person followed.

The constants were searched so that looking ahead pays.
"""

from __future__ import annotations

from recgym.arrays import Array, logistic, namespace

__all__ = ["REWARDS", "earned", "mean_worth"]

REWARDS = ("video", "shop", "social")
WATCHED = (0.0, 2.0, 1.5)  # logit of the share watched: base, per match, per burden above a half
BOUGHT = (1.0, 2.0)  # logit of a sale: base, per match; the price counts by the user's own sensitivity
FOLLOWED = (-1.0, 3.0)  # logit of a follow: base, per match
CONTENT = 0.1  # what content is worth where follows are counted
ASKS = 0.5  # burden above which an item asks to be followed


def mean_worth(kind: str, match: Array, burden: Array, price: Array, price_sensitivity: Array) -> Array:
    """Mean reward of a click while trust is full.

    Args:
        kind: one of `REWARDS`.
        match: cosine of taste and item; all arrays have shapes that go together.
        burden: of the items, in [0, 1].
        price: of the items.
        price_sensitivity: of the users, logits per unit of price.
    """
    if kind == "video":
        base, slope, thrill = WATCHED
        return logistic(base + slope * match + thrill * (burden - 0.5))
    if kind == "shop":
        base, slope = BOUGHT
        return price * logistic(base + slope * match - price_sensitivity * price)
    base, slope = FOLLOWED
    xp = namespace(match)
    return xp.where(burden > ASKS, logistic(base + slope * match), xp.zeros_like(match) + CONTENT)


def earned(kind: str, mean: Array, price: Array, luck: Array) -> Array:
    """Reward of a click whose mean is `mean`, by uniform `luck`; `video` varies evenly around it, within [0, 1]."""
    xp = namespace(mean)
    if kind == "video":
        return mean + xp.minimum(mean, 1.0 - mean) * (2.0 * luck - 1.0)
    if kind == "shop":
        return price * xp.astype(luck * price < mean, mean.dtype)
    return xp.astype(luck < mean, mean.dtype)
