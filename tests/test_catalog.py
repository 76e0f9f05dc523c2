"""Catalogs: what is checked and what is said of what they lack, the synthetic one, the file."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode

from recgym import make_scenario
from recgym.catalog import Catalog, known_catalog

TABLE = [[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]
FULL: dict[str, Any] = {
    "features": TABLE,
    "topic": [0, 1, 1],
    "burden": [0.0, 0.5, 1.0],
    "appeal": [-1.0, 0.0, 1.0],
    "price": [0.0, 2.5, 9.99],
    "length": [3, 90, 120],
    "group": [0, 0, 2],
    "flagged": [0, 1, True],
    "title": ("Tea", "", "Thé 茶"),
    "ids": ("7", "12", "3"),
    "topic_names": ("Green", "Black"),
    "centroids": [[1.0, 0.0], [0.0, 1.0]],
}


# --- the value -------------------------------------------------------------------------------------------------------
def test_a_catalog_knows_what_it_has_and_what_it_lacks() -> None:
    catalog = Catalog(**FULL)
    assert (catalog.items, catalog.width) == (3, 2)
    assert catalog.features.dtype == np.float32 and catalog.topic.dtype == np.int64  # type: ignore[union-attr]
    assert catalog.flagged.tolist() == [False, True, True]  # type: ignore[union-attr]
    np.testing.assert_allclose(catalog.shares, [2 / 3, 0, 1 / 3])
    assert catalog.rows["12"] == 1
    bare = Catalog(TABLE)  # type: ignore[arg-type]
    assert bare.burden is None and bare.title is None
    with pytest.raises(ValueError, match=r"trust needs the burden of every item, .* lacks: .* or switch off trust"):
        bare.require("burden", of="trust")
    with pytest.raises(ValueError, match="RecSlateShop needs the price of every item"):
        bare.require("price", of="RecSlateShop")


def test_a_catalog_is_never_changed() -> None:
    table = np.array(TABLE, dtype=np.float32)
    catalog = Catalog(table)
    table[0, 0] = 9.0
    assert catalog.features[0, 0] == 1.0
    with pytest.raises(ValueError, match="read-only"):
        catalog.features[0, 0] = 9.0
    with pytest.raises(FrozenInstanceError):
        catalog.features = table  # type: ignore[misc]


def test_catalogs_are_equal_where_their_content_is() -> None:
    assert Catalog(**FULL) == Catalog(**FULL) and len({Catalog(**FULL), Catalog(**FULL)}) == 1
    for name, value in FULL.items():
        if name not in ("features", "topic"):
            assert Catalog(**{**FULL, name: None}) != Catalog(**FULL), name
        changed: Any = ("Te", "a", "Thé 茶") if name == "title" else list(reversed(value))
        assert Catalog(**{**FULL, name: changed}) != Catalog(**FULL), name


WRONG = [
    ({"features": np.zeros((0, 4))}, r"empty catalog, 0 items with 4 features: give 1 to"),
    ({"features": np.zeros((4, 0))}, r"empty catalog, 4 items with 0 features"),
    ({"features": []}, r"features must be a table \[N, D\]"),
    ({"features": [1.0, 2.0]}, r"features must be a table \[N, D\]"),
    ({"features": [[1.0], [2.0, 3.0]]}, r"features must be an array of numbers"),
    ({"features": [["a"], ["b"]]}, r"features must be an array of numbers"),
    ({"features": [[1.0, 2.0], [0.0, np.nan]]}, r"features of item 1, column 1 is nan: numbers in \[-1e\+06, 1e\+06\]"),
    ({"features": [[1.0], [1e300]]}, r"features of item 1, column 0 is inf"),
    ({"features": np.zeros((1, 1001))}, r"1 items with 1001 features: give"),
    ({"price": [1.0, 2.0]}, r"price has shape \[2\], features 3 rows: one entry per item"),
    ({"price": [[1.0], [2.0], [3.0]]}, r"price has shape \[3, 1\], features 3 rows"),
    ({"price": [1.0, -2.0, 3.0]}, r"price of item 1 is -2.0: numbers in \[0, 1e\+06\] are wanted: correct it or leave"),
    ({"burden": [0.0, 1.5, 0.0]}, r"burden of item 1 is 1.5: numbers in \[0, 1\]"),
    ({"appeal": [0.0, 0.0, np.nan]}, r"appeal of item 2 is nan"),
    ({"topic": [0, 1.5, 1]}, r"topic of item 1 is 1.5: whole numbers"),
    ({"topic": [0, -1, 1]}, r"topic of item 1 is -1: numbers in \[0, 9999\]"),
    ({"topic": [0, 1, 2], "topic_names": None}, r"topic 2 of item 2 has no row among 2 centroids"),
    ({"group": [0, np.nan, 1]}, r"group of item 1 is nan: whole numbers"),
    ({"flagged": [0, 2, 0]}, r"flagged of item 1 is 2.0: numbers in \[0, 1\]"),
    ({"title": ["a", "b"]}, r"title has 2 texts, features 3 rows"),
    ({"title": ["a", None, "c"]}, r"title must be a sequence of texts, one per item \(item 1 has none\)"),
    ({"title": "abc"}, r"title must be a sequence of texts"),
    ({"centroids": [[1.0], [0.0]]}, "centroids must have rows of 2 numbers"),
    ({"ids": ["7", "12", "7"]}, r"ids has '7' more than once: keep one"),
    ({"ids": [7, 12, 3]}, r"ids must be a sequence of texts"),
    ({"topic_names": ["Green"]}, r"topic_names has 1 names, fewer than there are topics"),
    ({"topic": None, "topic_names": None}, r"centroids needs the topic of every item"),
]


@pytest.mark.parametrize("change, message", WRONG)
def test_what_is_wrong_is_named_with_its_place(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Catalog(**{**FULL, **change})


# --- synthetic -------------------------------------------------------------------------------------------------------
def test_the_synthetic_catalog_is_what_its_description_says() -> None:
    catalog = Catalog.synthetic(items=20_000, seed=1)
    assert catalog.features.shape == (20_000, 16) and catalog.length is None
    np.testing.assert_allclose(catalog.centroids @ catalog.centroids.T, np.eye(12), atol=1e-6)  # type: ignore[union-attr]
    np.testing.assert_allclose(np.linalg.norm(catalog.features, axis=1), 1, atol=1e-6)
    # Cosine to its own centroid: (1 + .7 g / 4) / |c + .7 g / 4|, and |.|^2 has the mean 1 + .49.
    near = np.sum(catalog.features * catalog.centroids[catalog.topic], axis=1)  # type: ignore[index]
    assert abs(near.mean() - 1 / np.sqrt(1.49)) < 0.01
    np.testing.assert_array_equal(catalog.shares, [0.4, 0.3, 0.2, 0.1])
    flagged, burden, appeal = catalog.flagged, catalog.burden, catalog.appeal
    assert flagged.sum() == 2_000  # type: ignore[union-attr]
    assert abs(burden.mean() - 0.5) < 0.01 and abs(burden.var() - 0.125) < 0.003  # type: ignore[union-attr] # Beta(.5, .5)
    rest = appeal - 1.5 * (burden - 0.5)  # type: ignore[operator]
    assert abs(rest[flagged].mean() - 0.5) < 0.04 and abs(rest[~flagged].mean()) < 0.02  # type: ignore[operator]
    assert abs(rest[~flagged].std() - 0.5) < 0.01  # type: ignore[operator]
    assert catalog.price.min() >= 0.1 and catalog.price.max() == 1.0  # type: ignore[union-attr]
    assert abs(np.median(catalog.price) - np.exp(-1)) < 0.01  # type: ignore[arg-type]
    assert np.bincount(catalog.topic, minlength=12).min() > 1_500  # type: ignore[arg-type]


def test_the_synthetic_catalog_by_its_arguments() -> None:
    assert Catalog.synthetic(seed=3) == Catalog.synthetic(seed=3) != Catalog.synthetic(seed=4)
    small = Catalog.synthetic(items=7, width=3, topics=3, binary=True, bait=0.0)
    assert small.features.shape == (7, 3) and set(small.burden.tolist()) <= {0.0, 1.0}  # type: ignore[union-attr]
    ones = [Catalog.synthetic(items=1, width=1, topics=1, seed=seed).centroids for seed in range(20)]
    assert {one.item() for one in ones} == {-1.0, 1.0}  # type: ignore[union-attr] # no direction is preferred
    with pytest.raises(ValueError, match=r"topics must be a whole number in \[1, 8\], since topics are orthogonal"):
        Catalog.synthetic(width=8)
    with pytest.raises(ValueError, match=r"items must be a whole number in \[1, 10000000\], got 0"):
        Catalog.synthetic(items=0)


# --- the file --------------------------------------------------------------------------------------------------------
def test_a_file_gives_back_the_same_catalog(tmp_path: Path) -> None:
    pytest.importorskip("safetensors", reason="the extra text")
    for catalog in (Catalog(**FULL), Catalog(TABLE), Catalog.synthetic(items=50)):  # type: ignore[arg-type]
        path = catalog.save(tmp_path / "folder" / "items.safetensors")
        again = Catalog.load(path)
        assert again == catalog and again.digest == catalog.digest and again.title == catalog.title
        assert [p.name for p in path.parent.iterdir()] == ["items.safetensors"]
    with pytest.raises(ValueError, match=r"kept in a .safetensors file"):
        catalog.save(tmp_path / "items.pkl")


def test_a_file_that_is_no_catalog_is_refused(tmp_path: Path) -> None:
    numpy = pytest.importorskip("safetensors.numpy", reason="the extra text")
    path = Catalog(**FULL).save(tmp_path / "items.safetensors")
    whole = path.read_bytes()

    def refused(content: bytes, message: str) -> None:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message) as caught:
            Catalog.load(path)
        assert str(path) in str(caught.value)

    with pytest.raises(FileNotFoundError, match="no such catalog"):
        Catalog.load(tmp_path / "none.safetensors")
    refused(b"", "no safetensors file")
    refused(b"\x80\x04pickle of some kind", "no safetensors file")
    refused(whole[:-1], "not a whole safetensors file")
    refused(whole[:-1] + bytes([whole[-1] ^ 1]), "does not match its digest|Catalog: |title_ends|no catalog")
    refused(whole.replace(b"Tea", b"Sea"), "damaged: the content does not match its digest")
    arrays = numpy.load(whole)

    def written(header: Any, **arrays: np.ndarray) -> bytes:
        return numpy.save(arrays, metadata={"recgym_catalog": json.dumps(header)})

    known = {"format": 1, "digest": Catalog(**FULL).digest}
    refused(numpy.save(arrays), "without a catalog's header")
    refused(written([], **arrays), "without a catalog's header")
    refused(written({**known, "format": 2}, **arrays), "format 2 is not the 1 read here: upgrade recgym")
    refused(written(known, **{**arrays, "other": np.zeros(3)}), "a catalog has features and no more than its own")
    refused(written(known, topic=np.zeros(3, np.int64)), "holds topic: a catalog has features")
    refused(written(known, **{**arrays, "features": np.full((3, 2), np.nan, np.float32)}), "features of item 0")
    refused(written(known, **{**arrays, "title_ends": np.array([3, 2, 11])}), "title_ends must say where")
    refused(written(known, **{**arrays, "title_ends": np.array([3, 3, 99])}), "title_ends must say where")
    refused(
        written(known, **{k: v for k, v in arrays.items() if k != "title"}), "title needs both title and title_ends"
    )
    refused(written({**known, "digest": "0"}, **arrays), "does not match its digest")


def test_without_safetensors_the_extra_is_named() -> None:
    code = """
import sys
sys.modules["safetensors"] = None
from recgym.catalog import Catalog
try:
    Catalog.synthetic(items=5).save("items.safetensors")
except ImportError as error:
    assert "pip install 'recgym[text]'" in str(error), error
else:
    raise AssertionError("safetensors was to be missed")
"""
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent.parent, check=True, timeout=60)


# --- modalities ------------------------------------------------------------------------------------------------------
def test_a_catalog_from_texts_and_numbers_is_kept_with_its_projection(tmp_path: Path) -> None:
    pytest.importorskip("safetensors", reason="the extra text")
    texts, years = ["aab", "", "bb", "a"], [1990.0, 1995.0, np.nan, 2000.0]
    catalog = Catalog.from_texts(texts, count_letters, modalities={"year": years}, width=2, price=[1, 2, 3, 4])
    assert catalog.projection is not None and catalog.projection.names == ("text", "year")
    assert catalog.missing.tolist() == [[0, 0], [1, 0], [0, 1], [0, 0]]  # type: ignore[union-attr]
    again = Catalog.load(catalog.save(tmp_path / "items.safetensors"))
    assert again == catalog and again.projection is not None
    assert again.projection.names == ("text", "year") and again.projection.widths == (2, 1)
    new = {"text": count_letters(["aab"]), "year": [1990.0]}
    np.testing.assert_allclose(again.projection(new)[0], catalog.features[:1], atol=1e-6)
    assert Catalog(catalog.features, price=[1, 2, 3, 4]) != catalog  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"text 1 is 7, a int: give a string"):
        Catalog.from_texts(["a", 7], count_letters)  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"price has shape \[1\], features 4 rows"):
        Catalog.from_texts(texts, count_letters, price=[1])
    with pytest.raises(ValueError, match=r"projection gives 2 features, features has 1"):
        Catalog(catalog.features[:, :1], projection=catalog.projection)
    with pytest.raises(ValueError, match=r"missing has shape \[4, 1\], not \[4, 2\]"):
        Catalog(catalog.features, projection=catalog.projection, missing=np.zeros((4, 1)))


def count_letters(texts: list[str]) -> list[list[float]]:
    return [[text.count("a"), text.count("b")] for text in texts]


def test_the_items_of_a_catalog_are_those_of_the_contextual_bandit(tmp_path: Path) -> None:
    """By object, path and digest, scaled by one number; every candidate is one of them."""
    catalog = Catalog.synthetic(items=30)
    catalog.save(tmp_path / "items.safetensors")
    one, *others = (
        make_scenario("RecBanditContextual-v0", catalog=given)
        for given in (catalog, tmp_path / "items.safetensors", str(tmp_path / "items.safetensors"), catalog.digest)
    )
    assert all(other == one and hash(other) == hash(one) for other in others) and one.catalog == catalog.digest
    scale = one.table / catalog.features
    np.testing.assert_allclose(scale, scale[0, 0], rtol=1e-5)
    np.testing.assert_allclose(np.mean(one.table**2), 1.0, rtol=1e-5)
    env = gym.make("RecBanditContextual-v0", catalog=catalog)
    observation, _ = env.reset(seed=0)
    offered = env.unwrapped.layout.get(observation[None], "features")[0]
    assert all((row == one.table).all(axis=1).any() for row in offered)
    with pytest.raises(ValueError, match="features must be a number where a catalog"):
        make_scenario("RecBanditContextual-v0", catalog=catalog, features=[[1.0], [2.0]])


# --- the spec of an environment --------------------------------------------------------------------------------------
@pytest.mark.parametrize("id", ["RecSlate-v0", "RecBanditContextual-v0"])
@pytest.mark.parametrize("form", ["text", "path", "object", "digest"])
def test_an_environment_of_a_catalog_is_made_again_from_its_spec(id: str, form: str, tmp_path: Path) -> None:
    """From the spec and from its JSON, alone and in a batch, whatever names the catalog."""
    pytest.importorskip("safetensors", reason="the extra text")
    catalog = Catalog.synthetic(items=40, seed=8)
    path = catalog.save(tmp_path / "items.safetensors")
    given = {"text": str(path), "path": path, "object": catalog, "digest": known_catalog(catalog).digest}[form]
    named = str(path) if form in ("text", "path") else catalog.digest
    for env in (gym.make(id, catalog=given, horizon=3), gym.make_vec(id, 2, catalog=given, horizon=3)):
        make: Any = gym.make_vec if isinstance(env, gym.vector.VectorEnv) else gym.make
        assert env.spec.kwargs["catalog"] == named
        read = EnvSpec.from_json(env.spec.to_json())
        assert read.kwargs["catalog"] == named
        for again in (make(env.spec), make(read)):
            assert again.unwrapped.scenario == env.unwrapped.scenario
            np.testing.assert_array_equal(again.reset(seed=4)[0], env.reset(seed=4)[0])


def test_the_spec_of_a_catalog_that_is_not_there_says_what_to_do() -> None:
    """As where another process reads the JSON: a digest is no catalog."""
    catalog = Catalog.synthetic(items=40, seed=9)
    text = gym.make("RecSlate-v0", catalog=catalog).spec.to_json()  # type: ignore[union-attr]
    unknown = EnvSpec.from_json(text.replace(catalog.digest, "0" * 64))
    with pytest.raises(ValueError, match=r"digest 0{64} is not known here: give its file, as catalog=PATH"):
        gym.make(unknown)


def test_arrays_in_a_spec_are_what_the_scenario_keeps_of_them() -> None:
    env = gym.make("RecBanditContextual-v0", features=np.eye(3), taste=np.float64(0.5))
    again = gym.make(EnvSpec.from_json(env.spec.to_json()))  # type: ignore[union-attr]
    assert again.unwrapped.scenario == env.unwrapped.scenario and again.unwrapped.scenario.width == 3
    batch = gym.make_vec("RecBandit-v0", 2, autoreset_mode=AutoresetMode.SAME_STEP)
    other = gym.make_vec(EnvSpec.from_json(batch.spec.to_json()))  # type: ignore[union-attr]
    assert other.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
