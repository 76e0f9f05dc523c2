"""Features adapted to what users like: gains that are known to be there or not, and what a projection has to be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recgym.catalog import Catalog
from recgym.data import adapt, adaptation, adaptation_gain
from recgym.data.adaptation import PENALTIES, _ridge, _table
from recgym.data.tastes import Likes

ITEMS, USERS, SHOWN, WIDTH = 400, 300, 60, 30
CARED = 3  # directions that users care about, in which vectors differ least


def vectors() -> np.ndarray:
    """[ITEMS, WIDTH], the first columns of which hold what users care about, with a hundredth of the variance."""
    table = np.random.default_rng(0).normal(size=(ITEMS, WIDTH))
    table[:, :CARED] /= 10.0
    return table


def log(about: np.ndarray) -> Likes:
    """Users who saw items at random and like them by a taste for `about` [ITEMS, F]."""
    rng = np.random.default_rng(1)
    user = np.repeat(np.arange(USERS), SHOWN)
    item = np.concatenate([rng.permutation(ITEMS)[:SHOWN] for _ in range(USERS)])
    logit = (rng.normal(size=(USERS, about.shape[1]))[user] * about[item]).sum(axis=1)
    return Likes(user, item, (rng.random(len(user)) < 1.0 / (1.0 + np.exp(-2.0 * logit))).astype(float))


def cared_for() -> Likes:
    return log(10.0 * vectors()[:, :CARED])


def test_features_gain_where_users_care_about_what_a_pca_leaves_out() -> None:
    catalog = Catalog(vectors())
    found = adaptation_gain(catalog, cared_for(), width=CARED)
    assert found.users == USERS
    assert abs(found.pca - 0.5) < 0.03  # the widest directions say nothing of tastes
    assert found.adapted > 0.75 and found.gain > 20 * found.gain_error
    assert found.gain == pytest.approx(found.adapted - found.pca)
    # The directions themselves: nearly all of a projected vector is of what users care about.
    projection = adapt(catalog, cared_for(), width=CARED).projection
    assert projection is not None
    told = (projection.components.T * vectors().std(axis=0)) ** 2
    assert told[:, :CARED].sum() / told.sum() > 0.8


def test_nothing_is_gained_where_vectors_say_nothing_of_likes() -> None:
    about = np.random.default_rng(2).normal(size=(ITEMS, CARED))  # of items, but of nothing that vectors hold
    found = adaptation_gain(Catalog(vectors()), log(about), width=CARED)
    assert abs(found.gain) < 2 * found.gain_error
    assert abs(found.pca - 0.5) < 0.02 and abs(found.adapted - 0.5) < 0.02


def test_no_row_of_a_held_out_item_is_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted, tables = adaptation._fitted, []

    def watched(features: np.ndarray, table: np.ndarray, width: int) -> np.ndarray:
        tables.append(table)
        return fitted(features, table, width)

    monkeypatch.setattr(adaptation, "_fitted", watched)
    adaptation_gain(Catalog(vectors()), cared_for(), width=CARED)
    hidden = np.stack([~table.any(axis=0) for table in tables])  # [folds, ITEMS]
    np.testing.assert_array_equal(hidden.sum(axis=1), ITEMS // adaptation.FOLDS)
    np.testing.assert_array_equal(hidden.sum(axis=0), 1)  # each item once


def test_a_user_is_what_they_liked_less_what_they_did_not() -> None:
    table = np.array([[1.0, 0.0], [3.0, 0.0], [0.0, 4.0], [1.0, 1.0]])
    seen = Likes(np.array([0, 0, 0, 1]), np.array([0, 1, 2, 2]), np.array([1.0, 1.0, 0.0, 1.0]))
    test = Likes(np.array([0, 1]), np.array([3, 3]), np.ones(2))
    np.testing.assert_allclose(adaptation._scores(table, seen, test, 2), [2.0 - 4.0, 4.0])


def test_later_items_get_features_from_their_modalities(tmp_path: Path) -> None:
    pytest.importorskip("safetensors", reason="the extra text")
    price = np.random.default_rng(3).random(ITEMS)
    tables = {"text": vectors(), "price": price}
    wide = Catalog.from_modalities(tables, width=1_000, topic=np.arange(ITEMS) % 5, title=("a",) * ITEMS)
    wide = replace(wide, centroids=np.stack([wide.features[wide.topic == z].mean(axis=0) for z in range(5)]))
    adapted = adapt(wide, cared_for(), width=4)
    assert adapted.width == 4 and adapted.title == wide.title and wide.width == WIDTH + 1
    np.testing.assert_allclose((adapted.features**2).sum(axis=1).mean(), 1.0, rtol=1e-4)
    again = Catalog.load(adapted.save(tmp_path / "items.safetensors"))
    assert again == adapted and again.projection is not None
    some = {name: table[5:8] for name, table in tables.items()}
    np.testing.assert_allclose(again.projection(some)[0], adapted.features[5:8], atol=1e-5)
    for topic in range(5):  # where the items of a topic lie, still
        mean = adapted.features[adapted.topic == topic].mean(axis=0)
        np.testing.assert_allclose(adapted.centroids[topic], mean, atol=1e-5)  # type: ignore[index]


def test_features_that_were_given_are_a_modality() -> None:
    given = vectors() + 5.0
    catalog = Catalog(given, topic=np.zeros(ITEMS), centroids=given[:1], tastes=np.ones((2, WIDTH)))
    adapted = adapt(catalog, cared_for(), width=4)
    assert adapted.projection is not None and adapted.projection.names == ("features",)
    np.testing.assert_allclose(adapted.projection({"features": given[:3]})[0], adapted.features[:3], atol=1e-4)
    np.testing.assert_allclose(adapted.features.mean(axis=0), 0.0, atol=1e-4)
    np.testing.assert_allclose(adapted.centroids, adapted.features[:1], atol=1e-4)  # type: ignore[arg-type]
    assert adapted.tastes is None  # they were of other features


@pytest.mark.parametrize("seed", range(8))
def test_the_penalty_is_that_of_leaving_one_item_out(seed: int) -> None:
    """Against the fits themselves, with each item left out in turn; means are fitted too."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(12, 4)) + 3.0
    y = x[:, :2] + 2.0 * rng.normal(size=(12, 2))

    def fit(x: np.ndarray, y: np.ndarray, penalty: float) -> np.ndarray:
        centred = x - x.mean(axis=0)
        return np.linalg.solve(centred.T @ centred + penalty * np.eye(4), centred.T @ (y - y.mean(axis=0)))

    penalties = PENALTIES * np.mean(np.linalg.svd(x - x.mean(axis=0), compute_uv=False) ** 2)
    errors = np.zeros(len(penalties))
    for i in range(len(x)):
        rest, level = np.delete(x, i, axis=0), np.delete(y, i, axis=0)
        for at, penalty in enumerate(penalties):
            told = level.mean(axis=0) + (x[i] - rest.mean(axis=0)) @ fit(rest, level, penalty)
            errors[at] += ((y[i] - told) ** 2).sum()
    np.testing.assert_allclose(_ridge(x, y), fit(x, y, penalties[errors.argmin()]), atol=1e-8)


def test_a_large_log_is_drawn_from(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = cared_for()
    whole = _table(rows, ITEMS)
    monkeypatch.setattr(adaptation, "MAX_CELLS", 50 * ITEMS + 1)
    some = _table(rows, ITEMS)
    assert some.shape == (50, ITEMS) and whole.shape == (USERS, ITEMS)
    known = {row.tobytes() for row in whole}
    assert all(row.tobytes() in known for row in some)
    assert adaptation_gain(Catalog(vectors()), rows, width=CARED).gain > 0.1


FEW = Likes(np.zeros(5, dtype=np.int64), np.arange(5), np.ones(5))
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"width": 0}, r"width must be a whole number in \[1, 30\], got 0"),
    ({"width": 31}, r"width must be a whole number in \[1, 30\], got 31"),
    ({"width": True}, "width must be a whole number"),
    ({"rows": FEW}, "5 different items were liked: give a log of at least 20"),
    (
        {"rows": FEW._replace(item=np.arange(5) + 397)},
        "item of row 3 is 400: a row of the catalog, 0 to 399, is wanted",
    ),
    ({"rows": FEW._replace(user=np.arange(5) - 1)}, "user of row 0 is -1: a number of at least 0 is wanted"),
    ({"rows": FEW._replace(liked=np.array([1, 0, 3, 1, 1]))}, "liked of row 2 is 3: 0 or 1 is wanted"),
    ({"rows": FEW._replace(liked=np.full(5, np.nan))}, "liked of row 0 is nan"),
    ({"rows": FEW._replace(liked=np.ones(4))}, "must be of one length"),
    ({"rows": FEW._replace(item=np.ones(5))}, "must be whole numbers, not int64 and float64"),
]


@pytest.mark.parametrize("changes, message", WRONG)
def test_what_cannot_be_adapted_to_is_named(changes: dict[str, Any], message: str) -> None:
    given = {"rows": cared_for(), "width": 4, **changes}
    for function in (adapt, adaptation_gain):
        with pytest.raises(ValueError, match=message):
            function(Catalog(vectors()), given["rows"], width=given["width"])


def test_a_gain_needs_what_was_not_liked() -> None:
    rows = cared_for()
    with pytest.raises(ValueError, match=r"fewer than 2 users have both .*: give rows of both kinds, as RatingLog"):
        adaptation_gain(Catalog(vectors()), rows.at(rows.liked == 1), width=4)
