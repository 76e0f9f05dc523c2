"""Tastes of users and appeal of items from what was liked: a hierarchical logistic regression, and what it is worth.

The logit that user u likes item i is w_u . x_i + a_i: x_i are the item's features and 1, w_u ~ N(mean, covariance) the
user's weights, a_i ~ N(0, variance) the item's appeal (Gelman & Hill 2007, chapter 14). Mean, covariance and variance
are found by expectation maximisation, with a Laplace step for each user and each item in turn. What features say of
appeal goes to the mean, which leaves every logit as it is and saves many rounds (Liu, Rubin & Wu 1998).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recgym.arrays import logistic
from recgym.data.factors import Floats

__all__ = [
    "LikeScores",
    "Likes",
    "TasteFit",
    "auc_by_user",
    "compare_models",
    "fit_tastes",
    "newton_steps",
    "unseen_items",
]

Ints = NDArray[np.int64]

ROUNDS = 20  # of expectation maximisation
CHUNK = 20_000  # rows at a time: each has a matrix of its own
RIDGE = 1e-6  # of a covariance: directions in which users do not differ
FACTORS = 8  # of the collaborative model
FACTOR_SD = 0.3  # of them, a priori
SEED = 0
LEAST = 1e-6  # no chance is thought smaller


class Likes(NamedTuple):
    """R rows of who liked what."""

    user: Ints  # [R]
    item: Ints  # [R]
    liked: Floats  # [R] 0 or 1

    def at(self, rows: Any) -> Likes:
        """Some of them, by index or mask."""
        return Likes(self.user[rows], self.item[rows], self.liked[rows])


class TasteFit(NamedTuple):
    """The model; F features and the constant 1 make W = F + 1 weights."""

    mean: Floats  # [W] of the users' weights
    covariance: Floats  # [W, W] of them
    users: Floats  # [U, W] the weights of each, most probable
    appeal: Floats  # [N] of each item, logits
    appeal_error: Floats  # [N] standard deviation of what is not known of it
    appeal_sd: float  # over items

    @property
    def strength(self) -> float:
        """Root mean square length of the users' weights without the constant: logits between match 0 and 1."""
        width = len(self.mean) - 1
        return float(np.sqrt(self.mean[:width] @ self.mean[:width] + np.trace(self.covariance[:width, :width])))

    def logits(self, features: Floats, user: Ints, item: Ints) -> Floats:
        """[R] of rows, from features [N, F]."""
        return (self.users[user] * _with_one(features)[item]).sum(axis=1) + self.appeal[item]


class LikeScores(NamedTuple):
    """How well a model tells what was liked, on rows that it has not seen."""

    log_loss: float  # nats per row
    error: float  # its standard error
    auc: float  # chance that what a user liked is scored above what they did not, mean over users
    auc_error: float


def _with_one(features: Floats) -> Floats:
    return np.concatenate([features, np.ones((len(features), 1))], axis=1)


def newton_steps(
    owner: Ints, x: Floats, liked: Floats, offset: Floats, start: Floats, mean: Floats, precision: Floats
) -> tuple[Floats, Floats]:
    """One Newton step of each owner's logistic regression, with a Gaussian prior.

    Args:
        owner: [R] whose row it is, 0 to U - 1, in ascending order.
        x: [R, W].
        liked: [R] 0 or 1.
        offset: [R] logit that is given.
        start: [U, W] where they stand.
        mean: [W] of the prior.
        precision: [W, W] of it.

    Returns:
        Weights [U, W], and covariances [U, W, W] at `start`.
    """
    count, width = start.shape
    gradient = (mean - start) @ precision
    curvature = np.repeat(precision[None], count, axis=0)
    for low in range(0, len(owner), CHUNK):
        part = slice(low, low + CHUNK)
        rows, mine = x[part], owner[part]
        chance = logistic((start[mine] * rows).sum(axis=1) + offset[part])
        first = np.flatnonzero(np.diff(mine, prepend=-1))
        gradient[mine[first]] += np.add.reduceat((liked[part] - chance)[:, None] * rows, first, axis=0)
        outer = (chance * (1.0 - chance))[:, None, None] * (rows[:, :, None] * rows[:, None, :])
        curvature[mine[first]] += np.add.reduceat(outer.reshape(len(rows), -1), first, axis=0).reshape(-1, width, width)
    covariance: Floats = np.linalg.inv(curvature)
    step = (covariance @ gradient[..., None])[..., 0]
    longest = np.abs(step).max(axis=1, keepdims=True)
    return start + step / np.maximum(1.0, longest / 3.0), covariance  # a long step from far away overshoots


def fit_tastes(user: Ints, item: Ints, liked: Floats, features: Floats, users: int) -> TasteFit:
    """Fit the model.

    Args:
        user: [R] of 0 to `users` - 1.
        item: [R] rows of `features`.
        liked: [R] 0 or 1.
        features: [N, F].
        users: U.
    """
    order, back = np.argsort(user, kind="stable"), np.argsort(item, kind="stable")
    table = _with_one(features)
    width, items = table.shape[1], len(table)
    weights, mean, covariance = np.zeros((users, width)), np.zeros(width), np.eye(width)
    appeal, variance = np.zeros(items), 1.0
    one = np.ones((len(user), 1))
    for _ in range(ROUNDS):
        x = table[item[order]]
        precision: Floats = np.linalg.inv(covariance)
        weights, each = newton_steps(user[order], x, liked[order], appeal[item[order]], weights, mean, precision)
        mean = weights.mean(axis=0)
        covariance = np.cov(weights.T, bias=True).reshape(width, width) + each.mean(axis=0) + RIDGE * np.eye(width)
        given = (weights[user[back]] * table[item[back]]).sum(axis=1)
        moved, spread = newton_steps(
            item[back], one, liked[back], given, appeal[:, None], np.zeros(1), np.eye(1) / variance
        )
        appeal = moved[:, 0]
        common = np.linalg.lstsq(table, appeal, rcond=None)[0]  # what the features say of appeal is taste of all
        appeal, weights, mean = appeal - table @ common, weights + common, mean + common
        variance = float((appeal**2 + spread[:, 0, 0]).mean())
    return TasteFit(mean, covariance, weights, appeal, np.sqrt(spread[:, 0, 0]), variance**0.5)


# --- what it is worth ------------------------------------------------------------------------------------------------
def compare_models(train: Likes, test: Likes, features: Floats, users: int) -> dict[str, LikeScores]:
    """Score the model and what it has to be better than, on rows that none of them has seen.

    By name: "constant", the share liked; "popularity", by how often an item occurs; "item mean", by the user's mean and
    the item's; "collaborative", the same with free factors of users and items (logistic matrix factorisation, Johnson
    2014); "taste", the model of `fit_tastes`.

    Args:
        train: what they learn from.
        test: what they are judged by.
        features: [N, F].
        users: U.
    """
    share = np.clip(train.liked.mean(), LEAST, 1.0 - LEAST)
    often = np.log1p(np.bincount(train.item, minlength=len(features)).astype(float))
    nothing = np.zeros((len(features), 0))
    means = fit_tastes(*train, nothing, users)
    taste = fit_tastes(*train, features, users)
    logits = {
        "constant": np.full(len(test.user), np.log(share / (1.0 - share))),
        "popularity": _calibrated(often[train.item], train.liked, often[test.item]),
        "item mean": means.logits(nothing, test.user, test.item),
        "collaborative": _factorised(train, test, means),
        "taste": taste.logits(features, test.user, test.item),
    }
    return {name: _scored(test, logit) for name, logit in logits.items()}


def unseen_items(rows: Likes, features: Floats, users: int, share: float) -> LikeScores:
    """Score the model on items that it has not seen, of which it has the features alone.

    Args:
        rows: of all items.
        features: [N, F].
        users: U.
        share: of the items, drawn with a fixed seed, whose rows are kept from the fit.
    """
    unseen = (np.random.default_rng(SEED).random(len(features)) < share)[rows.item]
    fit = fit_tastes(*rows.at(~unseen), features, users)
    test = rows.at(unseen)
    return _scored(test, fit.logits(features, test.user, test.item))


def _calibrated(x: Floats, liked: Floats, new: Floats) -> Floats:
    """Logits at `new` of a logistic regression on one column `x`."""
    table, weights = _with_one(x[:, None]), np.zeros((1, 2))
    owner, prior = np.zeros(len(x), dtype=np.int64), np.eye(2) * RIDGE
    for _ in range(ROUNDS):
        weights, _ = newton_steps(owner, table, liked, np.zeros(len(x)), weights, np.zeros(2), prior)
    return _with_one(new[:, None]) @ weights[0]


def _factorised(train: Likes, test: Likes, means: TasteFit) -> Floats:
    """Logits of `test`: the means of users and items, and a product of factors, found by Newton steps in turn."""
    rng = np.random.default_rng(SEED)
    user = FACTOR_SD * rng.standard_normal((len(means.users), FACTORS))
    item = FACTOR_SD * rng.standard_normal((len(means.appeal), FACTORS))
    order, back = np.argsort(train.user, kind="stable"), np.argsort(train.item, kind="stable")
    offset = means.users[train.user, -1] + means.appeal[train.item]
    none, prior = np.zeros(FACTORS), np.eye(FACTORS) / FACTOR_SD**2
    for _ in range(ROUNDS):
        for rows, mine, theirs in ((order, user, item), (back, item, user)):
            owner, other = (train.user, train.item) if mine is user else (train.item, train.user)
            moved, _ = newton_steps(
                owner[rows], theirs[other[rows]], train.liked[rows], offset[rows], mine, none, prior
            )
            mine[:] = moved
    return means.users[test.user, -1] + means.appeal[test.item] + (user[test.user] * item[test.item]).sum(axis=1)


def _scored(rows: Likes, logit: Floats) -> LikeScores:
    chance = np.clip(logistic(logit), LEAST, 1.0 - LEAST)
    loss = -np.where(rows.liked > 0.0, np.log(chance), np.log(1.0 - chance))
    _, auc = auc_by_user(rows, logit)
    return LikeScores(
        float(loss.mean()),
        float(loss.std(ddof=1) / np.sqrt(len(loss))),
        float(auc.mean()) if auc.size else float("nan"),
        float(auc.std(ddof=1) / np.sqrt(auc.size)) if auc.size > 1 else float("nan"),
    )


def auc_by_user(rows: Likes, score: Floats) -> tuple[Ints, Floats]:
    """Users with rows of both kinds, ascending, and the chance that what each liked is scored above what they did not.

    Equal scores count half (Mann & Whitney 1947).
    """
    order = np.argsort(rows.user, kind="stable")
    users, found = [], []
    for mine in np.split(order, np.flatnonzero(np.diff(rows.user[order])) + 1):
        good, bad = score[mine][rows.liked[mine] > 0.0], score[mine][rows.liked[mine] == 0.0]
        if len(good) and len(bad):
            gap = good[:, None] - bad
            users.append(rows.user[mine[0]])
            found.append(((gap > 0.0) + 0.5 * (gap == 0.0)).mean())
    return np.array(users, dtype=np.int64), np.array(found)
