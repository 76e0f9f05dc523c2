"""Modalities fused to one width: known answers, what is missing, items that come later."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from recgym.fusion import Projection, fuse

NAN = float("nan")


def test_two_columns_by_hand() -> None:
    """The columns are uncorrelated: two directions, each with half of the variance."""
    a, b = np.array([-1.0, 1.0, -1.0, 1.0]), np.array([-5.0, -5.0, 15.0, 15.0])
    features, missing, projection = fuse({"a": a, "b": b})
    assert features.shape == (4, 2) and not missing.any() and projection.names == ("a", "b")
    np.testing.assert_allclose(projection.mean, [0, 5])
    np.testing.assert_allclose(projection.scale, [1, 10])
    np.testing.assert_allclose(np.abs(features), np.sqrt(0.5), atol=1e-6)  # mean squared length 1
    one, _, _ = fuse({"a": a})
    np.testing.assert_allclose(one[:, 0], a, atol=1e-6)


def test_each_modality_has_the_same_weight_whatever_its_width() -> None:
    rng = np.random.default_rng(0)
    wide, narrow = rng.normal(size=(4_000, 50)), rng.normal(size=(4_000, 1))
    features, _, projection = fuse({"wide": wide, "narrow": narrow}, width=1)
    loads = np.abs(projection.components[:, 0])
    assert loads.argmax() == 50 and features.shape == (4_000, 1)  # one column of all its weight
    assert abs(np.corrcoef(features[:, 0], narrow[:, 0])[0, 1]) > 0.99
    ratio = (projection.scale[:50] / wide.std(axis=0)).mean()
    assert abs(ratio - np.sqrt(50)) < 1e-4


def test_directions_are_those_of_the_singular_value_decomposition() -> None:
    rng = np.random.default_rng(1)
    table = rng.normal(size=(300, 6)) @ rng.normal(size=(6, 6))
    features, _, _ = fuse({"x": table}, width=3)
    standard = (table - table.mean(0)) / table.std(0)
    left, values, _ = np.linalg.svd(standard, full_matrices=False)
    expected = left[:, :3] * values[:3]
    expected /= np.sqrt((expected**2).sum(1).mean())
    np.testing.assert_allclose(np.abs(features), np.abs(expected), atol=1e-4)


def test_features_are_those_of_scikit_learns_pca() -> None:
    """Of several modalities with weights and gaps, standardised and filled as `fuse` says."""
    decomposition = pytest.importorskip("sklearn.decomposition", reason="scikit-learn, which recgym does not need")
    rng = np.random.default_rng(5)
    text, price = rng.normal(size=(200, 8)) @ rng.normal(size=(8, 8)), rng.normal(size=200)
    text[3], price[7] = NAN, NAN
    features, _, _ = fuse({"text": text, "price": price}, width=4, weights={"text": 3.0})
    columns = np.column_stack([text, price])
    standard = np.nan_to_num((columns - np.nanmean(columns, axis=0)) / np.nanstd(columns, axis=0))
    standard *= np.sqrt([3.0 / 8] * 8 + [1.0])
    expected = decomposition.PCA(n_components=4, svd_solver="full").fit_transform(standard)
    expected /= np.sqrt((expected**2).sum(axis=1).mean())
    expected *= np.sign((expected * features).sum(axis=0))  # a direction has no sign of its own
    np.testing.assert_allclose(features, expected, atol=1e-4)


def test_what_is_missing_is_marked_and_filled_with_the_mean() -> None:
    features, missing, projection = fuse({"a": [1.0, 3.0, NAN], "b": [[0.0, 1.0], [1.0, 0.0], [1.0, NAN]]})
    np.testing.assert_array_equal(missing, [[False, False], [False, False], [True, True]])
    assert np.isfinite(features).all()
    mean, _ = projection({"a": [NAN], "b": [[NAN, NAN]]})
    np.testing.assert_allclose(mean, 0, atol=1e-7)
    np.testing.assert_allclose(projection({"a": [2.0]})[0], 0, atol=1e-7)  # the mean of a; b is left out
    np.testing.assert_array_equal(projection({"a": [2.0]})[1], [[False, True]])


def test_items_that_come_later_lie_where_the_same_item_lay() -> None:
    rng = np.random.default_rng(2)
    tables = {"text": rng.normal(size=(40, 9)), "price": rng.normal(size=40)}
    tables["text"][3] = NAN
    features, missing, projection = fuse(tables, width=5)
    some = {"price": tables["price"][2:5], "text": tables["text"][2:5]}  # in another order too
    again, marks = projection(some)
    np.testing.assert_allclose(again, features[2:5], atol=1e-6)
    np.testing.assert_array_equal(marks, missing[2:5])


def test_columns_that_do_not_vary_give_nothing() -> None:
    features, _, projection = fuse({"a": [[1.0, 7.0], [2.0, 7.0], [3.0, 7.0]]}, width=4)
    assert features.shape == (3, 1)
    np.testing.assert_allclose(projection({"a": [[2.0, 900.0]]})[0], 0, atol=1e-6)


WRONG: list[tuple[Any, str]] = [
    ({}, "no modality"),
    ({"a": []}, r"modality 'a' must be \[N, w\] numbers of one item at least"),
    ({"a": ["x", "y"]}, "modality 'a' must be an array of numbers"),
    ({"a": [1.0, np.inf]}, "modality 'a': column 0 of item 1 is inf, which is beyond"),
    ({"a": [[1.0, NAN], [2.0, NAN]]}, "modality 'a': no item has column 1: leave it out"),
    ({"a": [1.0, 1.0]}, "the 2 items do not differ in a"),
    ({"a": [1.0, 2.0], "b": [1.0]}, r"different numbers of items, \{'a': 2, 'b': 1\}"),
    ({"a": np.zeros((2, 5_000))}, "5000 columns in all: give at most 4096"),
]


@pytest.mark.parametrize("modalities, message", WRONG)
def test_what_cannot_be_fused_is_named(modalities: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fuse(modalities)


def test_other_columns_than_those_of_the_fit_are_refused() -> None:
    _, _, projection = fuse({"a": [1.0, 2.0]})
    with pytest.raises(ValueError, match=r"modalities \['b'\] are not among a"):
        projection({"b": [1.0]})
    with pytest.raises(ValueError, match="modality 'a' has 2 columns, 1 when it was fitted"):
        projection({"a": [[1.0, 2.0]]})
    with pytest.raises(ValueError, match="scale must be above 0"):
        Projection(("a",), (1,), np.zeros(1), np.zeros(1), np.ones((1, 1)))
    with pytest.raises(ValueError, match="components must have 1 rows"):
        Projection(("a",), (1,), np.zeros(1), np.ones(1), np.ones((2, 1)))
    with pytest.raises(ValueError, match="width must be a whole number"):
        fuse({"a": [1.0, 2.0]}, width=0)


def test_a_weight_shifts_the_balance() -> None:
    a, b = np.array([-1.0, 1.0, -1.0, 1.0]), np.array([-1.0, -1.0, 1.0, 1.0])  # uncorrelated
    features, _, _ = fuse({"a": a, "b": b}, weights={"a": 3.0})
    np.testing.assert_allclose((features**2).mean(axis=0), [0.75, 0.25], atol=1e-6)
    for weights in ({"c": 1.0}, {"a": 0.0}, {"a": NAN}):
        with pytest.raises(ValueError, match=r"weights must have a number in \[0.001, 1000\] for some of a, b"):
            fuse({"a": a, "b": b}, weights=weights)
