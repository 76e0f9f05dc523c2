"""Logs of ratings, clicks, plays or purchases: reader, and users and items of `Slate` fitted to them.

Layouts: those of MovieLens (GroupLens; Harper & Konstan 2015, doi:10.1145/2827872), the atomic files into which RecBole
turns public logs (`.inter`, `.item`), and two tables of one's own, `interactions.csv` and `items.csv`.

What is fitted is what such logs tell: whom an item appeals to, and how much to all. Nobody drew at random what users
got to see, and what else was on the page is not logged: so how a page is read, when users tire or leave, and how they
take to clickbait are assumed, as they are in the scenario itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from recgym.arrays import unit_rows
from recgym.catalog import Catalog, known_catalog
from recgym.data.factors import MAX_CELLS, item_vectors
from recgym.data.items import item_table, movielens_items
from recgym.data.reading import Column, moment, number, read_columns, spellings
from recgym.data.sources import find_file, shortened, table_rows
from recgym.data.tastes import Likes, LikeScores, TasteFit, compare_models, fit_tastes, unseen_items
from recgym.encoders import Encoder, encoder_named

__all__ = ["RatingLog", "ratings"]

HELD_OUT = 0.2  # of the rows of each user: the last, or where there is no time any
SEED = 0
MIN_ROWS = 100  # fewer say nothing of how users differ
SIGNIFICANT = 5  # digits of what is printed and used
COLUMNS = {  # their names are arguments of `ratings`
    "user": Column((), str.strip, np.object_, lambda x: x != "", "the name of a user"),
    "item": Column((), str.strip, np.object_, lambda x: x != "", "the name of an item"),
    "rating": Column((), number, np.float64, np.isfinite, "a number", optional=True),
    "time": Column((), moment, np.float64, np.isfinite, "seconds, or an ISO 8601 time", optional=True),
}
OLD_LAYOUT = ("user_id", "item_id", "rating", "timestamp")  # of u.data, which has no header
PATTERNS = ("ratings.csv*", "u.data", "*.inter", "interactions.csv*")
ITEMS = "items.csv*"  # beside interactions.csv
ITEM_NAMES = ("item", "item_id", "movieId")
OWN_COLUMNS = ("title", "topic", "group", "price", "length", "burden", "flagged")  # of it, as `Catalog` has them

# Where each parameter of the scenario comes from. fitted: estimated from the log. fixed: a choice of how the problem is
# posed. assumed: a fact about users that such a log does not hold. unused: of what the catalog takes the place of.
ORIGINS = {
    **dict.fromkeys(("catalog", "beta", "popularity_noise"), "fitted"),
    **dict.fromkeys(("candidates", "places", "horizon", "choice", "reward", "fresh", "alpha", "statistics"), "fixed"),
    **dict.fromkeys(("weights", "advice"), "fixed"),
    **dict.fromkeys(("outside", "attention", "satiation", "retention", "sensitivity", "memory", "leaving"), "assumed"),
    **dict.fromkeys(("away", "price_sensitivity", "drift", "redraw", "cold", "hint_noise"), "assumed"),
    **dict.fromkeys(("catalog_size", "width", "topics", "bait", "breadth"), "unused"),
}
NEED_BURDEN = ("sensitivity", "memory", "hint_noise")


@dataclass(frozen=True, eq=False)
class RatingLog:
    """What users thought of items: R rows of U users on the N items of a catalog.

    Without ratings every row is liked, and as many rows are added of items that the same user did not touch, drawn
    evenly: the fit then tells them apart.
    """

    user: np.ndarray  # [R] int64, 0 to U - 1
    item: np.ndarray  # [R] int64, rows of `items`
    rating: np.ndarray | None  # [R] float64; None: no ratings
    time: np.ndarray | None  # [R] float64 seconds
    users: int
    items: Catalog  # as the table of items has them
    path: str
    like: float | None = None  # least rating that counts as liked; None: the mean

    @cached_property
    def threshold(self) -> float | None:
        """Least rating that counts as liked; None without ratings."""
        if self.rating is None:
            return None
        return float(self.rating.mean()) if self.like is None else self.like

    @cached_property
    def likes(self) -> Likes:
        """The rows, and where there are no ratings as many drawn ones.

        Raises:
            ValueError: too few rows, or all of one kind.
        """
        if len(self.user) < MIN_ROWS:
            raise ValueError(f"{self.path}: {len(self.user)} rows, at least {MIN_ROWS} are needed: bring more")
        if self.rating is None:
            user, item = _untouched(self.user, self.item, self.items.items)
            if not len(user):
                raise ValueError(
                    f"{self.path}: every user has every item, so that nothing tells them apart: give ratings"
                )
            liked = np.concatenate([np.ones(len(self.user)), np.zeros(len(user))])
            return Likes(np.concatenate([self.user, user]), np.concatenate([self.item, item]), liked)
        liked = (self.rating >= self.threshold).astype(np.float64)
        if not 0.0 < liked.mean() < 1.0:
            what = f"ratings of at least {self.threshold:g} are {liked.mean():.0%} of all"
            raise ValueError(f"{self.path}: {what}: name another bound, --log-column like=RATING")
        return Likes(self.user, self.item, liked)

    @cached_property
    def features(self) -> np.ndarray:
        """[N, D] float64 features of the items, of length 1 as the scenario has them."""
        return unit_rows(self.items.features).astype(np.float64)

    @cached_property
    def fit(self) -> TasteFit:
        """Tastes and appeal; see `recgym.data.tastes`."""
        return fit_tastes(*self.likes, self.features, self.users)

    @cached_property
    def held_out(self) -> dict[str, LikeScores]:
        """Score models that have seen the other rows on the last `HELD_OUT` of each user's."""
        rows = self.likes
        order = np.random.default_rng(SEED).permutation(len(rows.user)).astype(np.float64)
        if self.time is not None and self.rating is not None:
            order = self.time
        by_user = np.lexsort((order, rows.user))
        count = np.bincount(rows.user, minlength=self.users)
        place = np.empty(len(order))
        place[by_user] = np.arange(len(order)) - np.repeat(np.cumsum(count) - count, count)
        late = place >= (1.0 - HELD_OUT) * count[rows.user]
        return compare_models(rows.at(~late), rows.at(late), self.features, self.users)

    @cached_property
    def cold_start(self) -> LikeScores:
        """Score the model on `HELD_OUT` of the items, of which it has seen nothing but the features."""
        return unseen_items(self.likes, self.features, self.users, HELD_OUT)

    @cached_property
    def catalog(self) -> Catalog:
        """The items with their appeal, and the tastes of users; see `Catalog.tastes`."""
        width = self.items.width
        spread = np.linalg.cholesky(self.fit.covariance[:width, :width]).T
        tastes = np.concatenate([self.fit.mean[None, :width], spread])
        return replace(self.items, appeal=self.fit.appeal, tastes=tastes, vectors=self.vectors)

    @cached_property
    def vectors(self) -> np.ndarray | None:
        """[N, F] of the items by who liked them, see `recgym.data.item_vectors`; None: too many to tell."""
        if self.users * self.items.items > MAX_CELLS:
            return None
        table = np.zeros((self.users, self.items.items))
        np.add.at(table, (self.likes.user, self.likes.item), self.likes.liked)
        return item_vectors(table)

    @property
    def parameters(self) -> dict[str, Any]:
        """Parameters of `Slate` that differ from its defaults. JSON-able: the catalog is named by its digest."""
        return self.parameters_beside({})

    def parameters_beside(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The same where some are given."""
        found = {
            "catalog": known_catalog(self.catalog).digest,
            "beta": _rounded(self.fit.strength),
            "popularity_noise": _rounded(float(np.sqrt((self.fit.appeal_error**2).mean()))),
        }
        return {**found, **given}

    @property
    def origins(self) -> dict[str, str]:
        """Where each parameter of `Slate` comes from: "fitted", "fixed", "assumed" or "unused"."""
        unused = dict.fromkeys(NEED_BURDEN, "unused") if self.items.burden is None else {}
        return {**ORIGINS, **unused}

    def to_json(self) -> dict[str, Any]:
        """The report: plain numbers and text."""
        return {
            "log": self.path,
            "rows": len(self.user),
            "users": self.users,
            "items": self.items.items,
            "liked_from": self.threshold,
            "liked": float(self.likes.liked.mean()),
            "taste": self.fit.strength,
            "appeal": self.fit.appeal_sd,
            "held_out": {name: scores._asdict() for name, scores in self.held_out.items()},
            "cold_start": self.cold_start._asdict(),
            "origins": self.origins,
        }


def _untouched(user: np.ndarray, item: np.ndarray, items: int) -> tuple[np.ndarray, np.ndarray]:
    """A row for each row: the same user, and an item drawn evenly of those that are not theirs."""
    rng = np.random.default_rng(SEED)
    theirs = np.unique(user * items + item)
    pending = user[np.bincount(user)[user] < items]  # who touched everything has none
    users, found = [pending[:0]], [pending[:0]]
    while len(pending):
        drawn = rng.integers(items, size=len(pending))
        key = pending * items + drawn
        place = np.minimum(np.searchsorted(theirs, key), len(theirs) - 1)
        new = theirs[place] != key
        users.append(pending[new])
        found.append(drawn[new])
        pending = pending[~new]
    return np.concatenate(users), np.concatenate(found)


def _rounded(value: float) -> float:
    return float(f"{value:.{SIGNIFICANT}g}")


# --- reading ---------------------------------------------------------------------------------------------------------
def ratings(
    path: str | Path,
    *,
    user: str | Sequence[str] = ("user", "userId", "user_id", "user_id:token"),
    item: str | Sequence[str] = ("item", "movieId", "item_id", "item_id:token"),
    rating: str | Sequence[str] = ("rating", "rating:float", "stars"),
    time: str | Sequence[str] = ("time", "timestamp", "timestamp:float"),
    like: float | None = None,
    encoder: Encoder | str = "auto",
    cache: str | Path | None = None,
    width: int = 16,
    weights: Mapping[str, float] | None = None,
) -> RatingLog:
    """Read a log of what users thought of items, and the table of items that lies beside it.

    Args:
        path: a folder, or the file of ratings in it: `ratings.csv` (beside `movies.csv`), `u.data` (beside `u.item`), a
            RecBole `.inter` (beside `.item`), or `interactions.csv` beside `items.csv`. Of these two the first has a
            row per click, play, purchase or rating; the second one per item, its name in `item`, and what there is of
            `title`, `topic` (several with `|` between them; the first counts), `group`, `price`, `length`, `burden`,
            `flagged`.
        user: name of the column of users; or several names, of which the table has one. As below.
        item: of items.
        rating: of ratings; a table without it is of clicks.
        time: of seconds or ISO 8601 times; need not be there.
        like: least rating that counts as liked; None: the mean of all.
        encoder: of titles; see `recgym.encoders.encoder_named`.
        cache: folder that keeps encoded texts.
        width: number of features of an item at most.
        weights: share of variance by modality of the items; see `recgym.fusion.fuse`.

    Raises:
        FileNotFoundError: no such file, or one of the two is missing.
        ValueError: what is wrong, with file, line and column.
        ImportError: the encoder that is asked for is missing.
    """
    source = find_file(Path(path), PATTERNS, "a file of ratings or clicks")
    chosen = encoder_named(encoder) if isinstance(encoder, str) else encoder
    given = {"user": user, "item": item, "rating": rating, "time": time}
    names = spellings("ratings", given)
    header = OLD_LAYOUT if source.name == "u.data" else ()
    wanted = {key: COLUMNS[key]._replace(names=names[key]) for key in COLUMNS}
    read = read_columns(source, wanted, record="rating, or click", header=header)
    known, rows = np.unique(read["user"].astype(str), return_inverse=True)
    items = _items_beside(source, chosen, cache=cache, width=width, weights=weights)
    touched, at = np.unique(read["item"].astype(str), return_inverse=True)
    unknown = [name for name in touched.tolist() if name not in items.rows]
    if unknown:
        line = int(np.argmax(read["item"] == unknown[0])) + (1 if header else 2)
        what = f"{len(unknown):,} items are not in the table of items, such as {shortened(unknown[0])} (row {line})"
        raise ValueError(f"{source}: {what}: add them to it, or remove these rows")
    item_rows = np.array([items.rows[name] for name in touched.tolist()], dtype=np.int64)[at]
    stars, when = read.get("rating"), read.get("time")
    kept = _last_of_each(rows.astype(np.int64), item_rows, when)
    return RatingLog(
        user=rows.astype(np.int64)[kept],
        item=item_rows[kept],
        rating=None if stars is None else stars[kept],
        time=None if when is None else when[kept],
        users=len(known),
        items=items,
        path=str(source),
        like=like,
    )


def _last_of_each(user: np.ndarray, item: np.ndarray, time: np.ndarray | None) -> np.ndarray:
    """Rows of the last word of each user on each item, in the order of the log."""
    order = np.arange(len(user)) if time is None else np.argsort(time, kind="stable")
    key = (user * (item.max() + 1) + item)[order]
    _, last = np.unique(key[::-1], return_index=True)
    return np.sort(order[len(key) - 1 - last])


def _items_beside(source: Path, encoder: Encoder | None, **options: Any) -> Catalog:
    """The catalog of the items' table in the folder of the ratings."""
    own = sorted(source.parent.glob(ITEMS))
    if len(own) != 1:
        return movielens_items(source.parent, encoder=encoder, **options)
    header = next(iter(table_rows(own[0])), (0, []))[1]
    there = [name for name in (each.strip() for each in header) if name]
    name = next((each for each in ITEM_NAMES if each in there), None)
    if name is None or "topic" not in there:
        raise ValueError(f"{own[0]}, line 1: columns item and topic are needed (it has: {', '.join(there)})")
    columns: dict[str, Any] = {column: column for column in OWN_COLUMNS if column in there}
    text = [column for column in ("title", "text") if column in there] if encoder is not None else []
    numeric = [column for column in ("price", "length") if column in there]
    return item_table(
        own[0], id=name, text=text, categorical="topic", numeric=numeric, encoder=encoder, **columns, **options
    )
