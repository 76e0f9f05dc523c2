"""Features adapted to a domain: the projection of items' vectors that tells best what the users of a log like.

A PCA keeps the directions in which vectors differ most, which need not be those that users care about. Here the log is
factorised first, and ridge regression maps vectors to the factors, so that items that nobody has seen get them too
(Gantner et al. 2010, "Learning attribute-to-feature mappings for cold-start recommendations").
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from recgym.catalog import Catalog
from recgym.data.factors import CONFIDENCE, MAX_CELLS, Floats, factorise
from recgym.data.tastes import Likes, auc_by_user
from recgym.fusion import Projection

__all__ = ["AdaptationGain", "adapt", "adaptation_gain"]

MAX_ADAPTED = 64  # features: each user has a matrix of their square
MIN_LIKED = 20  # items that anyone liked: fewer say nothing of a direction
RIDGE = 1.0  # of the factors
PENALTIES = 10.0 ** np.arange(-3, 5)  # of the regression, times the mean variance of a direction
FOLDS = 5  # parts of the items, each of which is held out once
SEED = 0


class AdaptationGain(NamedTuple):
    """How well features tell what users like among items of whose rows nothing was fitted.

    Chance that an item that a user liked is scored above one that they did not (area under the curve), mean over users.
    Standard errors are over users, who are judged on the same items: a gain of another split of the items may differ
    by more.
    """

    pca: float  # of the leading directions of the catalog's features
    pca_error: float
    adapted: float  # of as many adapted features
    adapted_error: float
    gain: float  # their difference, user by user
    gain_error: float
    users: int  # who could be judged


def adapt(catalog: Catalog, rows: Likes, *, width: int = 16) -> Catalog:
    """Project the features of a catalog to fewer, by what users of a log liked.

    Make the catalog wide first (`width=1000` keeps all that its texts say), since what a PCA left out is lost. The
    factors are those of implicit feedback (`recgym.data.factors.factorise`) of what was liked; the penalty of the
    regression is that of the least squared error of leaving one item out (Allen 1974). Features are scaled by one
    number, so that their mean squared length is 1.

    Args:
        catalog: W features of N items.
        rows: who liked which item, 0 or 1, such as `RatingLog.likes`. Of more users than `MAX_CELLS` allows some are
            drawn.
        width: D, at most W and `MAX_ADAPTED`.

    Returns:
        The catalog with D features and the projection that makes them, so that later items get theirs: from the
        modalities where the catalog has a projection, else from its features, as the modality `features`. Centroids
        are projected, tastes left out: those of other features are none of these.

    Raises:
        ValueError: a width out of range, rows that are none of this catalog's, or too few liked items (says which).
    """
    _check(catalog, rows, width)
    features = catalog.features.astype(np.float64)
    mean = features.mean(axis=0)
    components = _fitted(features - mean, _table(rows, catalog.items), width)
    old = catalog.projection
    if old is None:
        one = np.ones(catalog.width)
        projection = Projection(("features",), (catalog.width,), mean, one, components)
    else:
        mean = np.zeros(catalog.width)
        projection = replace(old, components=old.components @ components)
    return replace(
        catalog,
        features=(features - mean) @ components,
        centroids=None if catalog.centroids is None else (catalog.centroids - mean) @ components,
        tastes=None,
        projection=projection,
    )


def adaptation_gain(catalog: Catalog, rows: Likes, *, width: int = 16) -> AdaptationGain:
    """Measure what `adapt` is worth on items that it has not seen, beside a PCA of the same width.

    Items are split into `FOLDS` parts; for each, features are fitted without its rows. A user is the mean of the
    features they liked less the mean of those they did not (Rocchio 1971), and scores an item by the product.

    Args:
        catalog: as for `adapt`.
        rows: of both kinds, liked and not. `RatingLog.likes` draws the latter where a log has clicks alone.
        width: D of both.

    Raises:
        ValueError: as `adapt`, or no user has rows of both kinds in one part of the items.
    """
    _check(catalog, rows, width)
    features = catalog.features.astype(np.float64)
    features -= features.mean(axis=0)
    leading = np.linalg.eigh(features.T @ features)[1][:, : -width - 1 : -1]
    part = np.random.default_rng(SEED).permutation(catalog.items) % FOLDS
    users = int(rows.user.max()) + 1
    found = np.full((2, FOLDS, users), np.nan)
    for fold in range(FOLDS):
        held = (part == fold)[rows.item]
        seen, test = rows.at(~held), rows.at(held)
        _check(catalog, seen, width)
        fitted = _fitted(features, _table(seen, catalog.items), width)
        for row, table in enumerate((features @ leading, features @ fitted)):
            who, auc = auc_by_user(test, _scores(table, seen, test, users))
            found[row, fold, who] = auc
    judged = np.isfinite(found[0]).any(axis=0)
    if judged.sum() < 2:
        raise ValueError(
            "adaptation_gain: fewer than 2 users have both liked and not liked items in one part of them: give "
            "rows of both kinds, as RatingLog.likes has them"
        )
    pca, adapted = np.nanmean(found[:, :, judged], axis=1)
    return AdaptationGain(
        *_mean_and_error(pca), *_mean_and_error(adapted), *_mean_and_error(adapted - pca), users=int(judged.sum())
    )


def _mean_and_error(values: Floats) -> tuple[float, float]:
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


def _check(catalog: Catalog, rows: Likes, width: int) -> None:
    most = min(catalog.width, MAX_ADAPTED)
    if isinstance(width, bool) or not isinstance(width, int) or not 1 <= width <= most:
        raise ValueError(f"adapt: width must be a whole number in [1, {most}], got {width!r}")
    user, item, liked = map(np.asarray, rows)
    if not user.ndim == item.ndim == liked.ndim == 1 or not len(user) == len(item) == len(liked):
        raise ValueError("adapt: user, item and liked must be of one length, a number per row of the log")
    if user.dtype.kind not in "iu" or item.dtype.kind not in "iu":
        raise ValueError(f"adapt: user and item must be whole numbers, not {user.dtype} and {item.dtype}")
    for name, wrong, wanted in (
        ("user", user < 0, "a number of at least 0"),
        ("item", (item < 0) | (item >= catalog.items), f"a row of the catalog, 0 to {catalog.items - 1},"),
        ("liked", (liked != 0) & (liked != 1), "0 or 1"),
    ):
        if wrong.any():
            row = int(wrong.argmax())
            value = {"user": user, "item": item, "liked": liked}[name][row]
            raise ValueError(f"adapt: {name} of row {row} is {value}: {wanted} is wanted")
    known = len(np.unique(item[liked == 1]))
    if known < MIN_LIKED:
        raise ValueError(f"adapt: {known} different items were liked: give a log of at least {MIN_LIKED}")


def _table(rows: Likes, items: int) -> Floats:
    """[U, N] how often users liked items; of users who liked any, and at most `MAX_CELLS` numbers."""
    liked = rows.at(rows.liked == 1)
    names, user = np.unique(liked.user, return_inverse=True)
    most = max(1, MAX_CELLS // items)
    place = np.random.default_rng(SEED).permutation(len(names))[user] if len(names) > most else user
    kept = place < most
    table = np.zeros((min(len(names), most), items))
    np.add.at(table, (place[kept], liked.item[kept]), 1.0)
    return table


def _fitted(features: Floats, table: Floats, width: int) -> Floats:
    """[W, D] from centred features [N, W] to factors of the table [U, N], by a regression over the liked items."""
    seen = table.any(axis=0)
    factors = factorise(table[:, seen], width, CONFIDENCE, RIDGE)
    components = _ridge(features[seen], factors)
    length = np.sqrt(((features @ components) ** 2).sum(axis=1).mean())
    return components / (length or 1.0)


def _ridge(x: Floats, y: Floats) -> Floats:
    """[W, D] of y [n, D] on x [n, W] and a free 1, with the penalty of the least leave-one-out error."""
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    left, size, right = np.linalg.svd(x, full_matrices=False)
    moment = left.T @ y
    errors = []
    for penalty in PENALTIES * np.mean(size**2):
        shrink = size**2 / (size**2 + penalty)
        leverage = (left**2 * shrink).sum(axis=1) + 1.0 / len(x)  # the mean has its share
        residual = (y - left @ (shrink[:, None] * moment)) / np.maximum(1.0 - leverage, 1e-9)[:, None]
        errors.append((residual**2).sum())
    penalty = PENALTIES[np.argmin(errors)] * np.mean(size**2)
    return right.T @ ((size / (size**2 + penalty))[:, None] * moment)


def _scores(table: Floats, seen: Likes, test: Likes, users: int) -> Floats:
    """[R] products of users and items of the rows of `test`."""
    profile = np.zeros((users, table.shape[1]))
    for sign, kind in ((1.0, 1), (-1.0, 0)):
        mine = seen.at(seen.liked == kind)
        total = np.zeros_like(profile)
        np.add.at(total, mine.user, table[mine.item])
        profile += sign * total / np.maximum(np.bincount(mine.user, minlength=users), 1)[:, None]
    return (profile[test.user] * table[test.item]).sum(axis=1)
