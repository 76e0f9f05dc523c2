"""Logs of ratings and clicks: the fit against what made the data, every layout, what is refused, and a run on one."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs_for_tests import DEFAULT

import recgym
from recgym.catalog import Catalog, known_catalog
from recgym.data import ratings
from recgym.data.slate import HELD_OUT, ORIGINS
from recgym.data.tastes import Likes, TasteFit, auc_by_user, compare_models, fit_tastes, newton_steps, unseen_items
from recgym.rng import make_rng
from recgym.scenarios.slate import Slate

USERS, ITEMS, WIDTH = 400, 120, 4
MEAN = np.array([2.0, 0.0, -1.0, 0.0])
SD = np.array([1.0, 2.0, 0.5, 0.0])


def made_log(seed: int = 0, rows: int = 60) -> tuple[Likes, np.ndarray, np.ndarray]:
    """Rows of users whose tastes are N(MEAN, SD^2), on items of appeal N(0, .7^2); features and appeal of the items."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(ITEMS, WIDTH))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    appeal = 0.7 * rng.normal(size=ITEMS)
    taste = MEAN + SD * rng.normal(size=(USERS, WIDTH))
    user = np.repeat(np.arange(USERS), rows)
    item = np.concatenate([rng.permutation(ITEMS)[:rows] for _ in range(USERS)])
    logit = (taste[user] * features[item]).sum(axis=1) + appeal[item] + 0.3
    return Likes(user, item, (rng.random(len(user)) < 1 / (1 + np.exp(-logit))).astype(float)), features, appeal


@pytest.fixture(scope="module")
def made() -> tuple[Likes, np.ndarray, np.ndarray, TasteFit]:
    likes, features, appeal = made_log()
    return likes, features, appeal, fit_tastes(*likes, features, USERS)


# --- the fit ---------------------------------------------------------------------------------------------------------
def test_the_fit_finds_what_made_the_log(made: Any) -> None:
    """Means within four standard errors over 400 users; spreads within a quarter, as Laplace steps shrink them."""
    _, features, appeal, fit = made
    table = np.column_stack([features, np.ones(ITEMS)])
    common = np.linalg.lstsq(table, appeal, rcond=None)[0]  # appeal that features tell is taste of all
    rest = appeal - table @ common
    np.testing.assert_allclose(fit.mean, np.array([*MEAN, 0.3]) + common, atol=4 * SD.max() / np.sqrt(USERS))
    np.testing.assert_allclose(np.sqrt(np.diag(fit.covariance))[:2], SD[:2], rtol=0.25)
    assert np.sqrt(fit.covariance[3, 3]) < 0.5
    assert np.corrcoef(fit.appeal, rest)[0, 1] > 0.95 and fit.appeal_sd == pytest.approx(0.7, rel=0.25)
    assert np.sqrt((fit.appeal_error**2).mean()) == pytest.approx((fit.appeal - rest).std(), rel=0.3)
    assert fit.strength == pytest.approx(np.sqrt((MEAN**2 + SD**2).sum()), rel=0.15)


def test_newton_steps_end_where_the_gradient_is_zero() -> None:
    rng = np.random.default_rng(1)
    owner = np.sort(rng.integers(3, size=50))
    x, liked, offset = rng.normal(size=(50, 2)), rng.integers(2, size=50).astype(float), rng.normal(size=50)
    mean, precision = np.array([0.5, -1.0]), np.array([[2.0, 0.3], [0.3, 1.0]])
    weights = np.zeros((4, 2))  # the last has no rows: the prior
    for _ in range(30):
        weights, covariance = newton_steps(owner, x, liked, offset, weights, mean, precision)
    np.testing.assert_allclose(weights[3], mean, atol=1e-12)
    np.testing.assert_allclose(covariance[3], np.linalg.inv(precision), atol=1e-12)
    for each in range(3):
        mine = owner == each
        chance = 1 / (1 + np.exp(-x[mine] @ weights[each] - offset[mine]))
        gradient = x[mine].T @ (liked[mine] - chance) + precision @ (mean - weights[each])
        np.testing.assert_allclose(gradient, 0.0, atol=1e-9)
        curvature = (x[mine].T * chance * (1 - chance)) @ x[mine] + precision
        np.testing.assert_allclose(covariance[each], np.linalg.inv(curvature), atol=1e-9)


def test_rows_are_added_up_over_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    likes, features, _ = made_log(rows=7)
    arguments = likes.user, features[likes.item], likes.liked, np.zeros(len(likes.user))
    whole = newton_steps(*arguments, np.zeros((USERS, WIDTH)), np.zeros(WIDTH), np.eye(WIDTH))
    monkeypatch.setattr("recgym.data.tastes.CHUNK", 10)
    parts = newton_steps(*arguments, np.zeros((USERS, WIDTH)), np.zeros(WIDTH), np.eye(WIDTH))
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)


def test_models_are_told_apart_on_rows_they_have_not_seen(made: Any) -> None:
    """Taste beats the item's mean, that the constant, by more than five standard errors; the truth is hardly better."""
    likes, features, _, _ = made
    test = np.random.default_rng(2).random(len(likes.user)) < 0.2
    scores = compare_models(likes.at(~test), likes.at(test), features, USERS)
    assert list(scores) == ["constant", "popularity", "item mean", "collaborative", "taste"]
    loss = {name: each.log_loss for name, each in scores.items()}
    error = scores["taste"].error
    assert loss["taste"] + 5 * error < loss["item mean"] and loss["item mean"] + 5 * error < loss["constant"]
    assert loss["taste"] < loss["collaborative"] < loss["item mean"]
    assert scores["constant"].auc == 0.5 and abs(scores["popularity"].auc - 0.5) < 0.1
    assert loss["constant"] == pytest.approx(-np.log(0.5), abs=0.05)
    known = unseen_items(likes, features, USERS, HELD_OUT)
    blind = unseen_items(likes, features[np.random.default_rng(3).permutation(ITEMS)], USERS, HELD_OUT)
    assert known.auc > 0.65 and blind.auc == pytest.approx(0.5, abs=0.04)


def test_the_area_under_the_curve_counts_pairs() -> None:
    user = np.array([0, 0, 0, 1, 1, 2])
    liked = np.array([1.0, 0.0, 0.0, 1.0, 0.0, 1.0])
    score = np.array([2.0, 1.0, 2.0, 0.0, 1.0, 5.0])
    users, found = auc_by_user(Likes(user, np.zeros(6, dtype=np.int64), liked), score)
    assert users.tolist() == [0, 1]
    np.testing.assert_allclose(found, [0.75, 0.0])  # one pair won and one even; one lost; the third user has no pair


# --- layouts ---------------------------------------------------------------------------------------------------------
FILMS = [("1", "Storm (1990)", "Action|Drama"), ("2", "Rain (1991)", "Comedy"), ("3", "Wind (1992)", "Drama")]


def rated(seed: int = 0) -> list[tuple[str, str, int, int]]:
    """User, film, rating and time: 60 users, who rate all films."""
    rng = np.random.default_rng(seed)
    return [(f"u{u}", film, int(rng.integers(1, 6)), 1_000 + 10 * u + i)
            for u in range(60) for i, (film, *_) in enumerate(FILMS)]  # fmt: skip


def new_layout(folder: Path) -> None:
    (folder / "movies.csv").write_text("movieId,title,genres\n" + "".join(f"{i},{t},{g}\n" for i, t, g in FILMS))
    rows = "".join(f"{u},{i},{r}.0,{t}\n" for u, i, r, t in rated())
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + rows)


def old_layout(folder: Path) -> None:
    from recgym.data.items import GENRES

    flags = {i: "|".join("1" if name in g.split("|") else "0" for name in GENRES) for i, _, g in FILMS}
    (folder / "u.item").write_text("".join(f"{i}|{t}|01-Jan-1990||x|{flags[i]}\n" for i, t, _ in FILMS))
    (folder / "u.data").write_text("".join(f"{u}\t{i}\t{r}\t{t}\n" for u, i, r, t in rated()))


def recbole_layout(folder: Path) -> None:
    rows = "".join(f"{i}\t{t}\t\t{g.replace('|', ' ')}\n" for i, t, g in FILMS)
    header = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    (folder / "a.item").write_text(header + rows)
    rows = "".join(f"{u}\t{i}\t{r}\t{t}\n" for u, i, r, t in rated())
    (folder / "a.inter").write_text("user_id:token\titem_id:token\trating:float\ttimestamp:float\n" + rows)


def own_layout(folder: Path) -> None:
    rows = "".join(f"{i},{t},{g},{p}\n" for (i, t, g), p in zip(FILMS, (1.5, 2.5, 3.5), strict=True))
    (folder / "items.csv").write_text("item,title,topic,price\n" + rows)
    rows = "".join(f"{u};{i};{r};1970-01-01T00:{t // 60:02d}:{t % 60:02d}\n" for u, i, r, t in rated())
    (folder / "interactions.csv").write_text("user;item;rating;time\n" + rows)


LAYOUTS: dict[str, Callable[[Path], None]] = {
    "movies.csv": new_layout,
    "u.item": old_layout,
    "recbole": recbole_layout,
    "own": own_layout,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_says_the_same(layout: str, tmp_path: Path) -> None:
    LAYOUTS[layout](tmp_path)
    log = ratings(tmp_path, encoder="none")
    expected = rated()
    assert log.users == 60 and log.items.items == 3 and log.items.topic_names == ("Action", "Comedy", "Drama")
    assert log.items.ids == ("1", "2", "3") and log.items.title[1] == "Rain (1991)"
    names = sorted({row[0] for row in expected})
    assert [names[u] for u in log.user] == [row[0] for row in expected]
    assert [log.items.ids[i] for i in log.item] == [row[1] for row in expected]
    assert log.rating.tolist() == [row[2] for row in expected] and log.time.tolist() == [row[3] for row in expected]
    mean = np.mean([row[2] for row in expected])
    assert log.threshold == mean and log.likes.liked.tolist() == [float(row[2] >= mean) for row in expected]
    assert (log.items.price is not None) == (layout == "own")
    assert ratings(next(tmp_path.glob(log.path.rpartition("/")[2])), encoder="none").items == log.items


def test_the_last_word_of_a_user_counts(tmp_path: Path) -> None:
    new_layout(tmp_path)
    with (tmp_path / "ratings.csv").open("a") as file:
        file.write("u0,1,5.0,5000\nu1,1,5.0,5\n")  # later than what stands above, and earlier
    log = ratings(tmp_path, encoder="none")
    first = {(r[0], r[1]): r[2] for r in rated()}
    found = {(u, i): r for u, i, r in zip(log.user, log.item, log.rating, strict=True)}
    assert len(found) == len(log.user) == 180 and found[0, 0] == 5.0 and found[1, 0] == first["u1", "1"]


def test_clicks_are_told_from_items_not_touched(tmp_path: Path) -> None:
    new_layout(tmp_path)
    rows = [f"{u},{i}" for u, i, r, _ in rated() if r > 2]
    (tmp_path / "ratings.csv").write_text("user,item\n" + "\n".join(rows) + "\n")
    log = ratings(tmp_path, encoder="none")
    assert log.rating is None and log.time is None and log.threshold is None
    count = len(log.user)
    likes = log.likes
    assert likes.liked.tolist() == [1.0] * count + [0.0] * (len(likes.liked) - count)
    touched = set(zip(log.user.tolist(), log.item.tolist(), strict=True))
    added = list(zip(likes.user[count:].tolist(), likes.item[count:].tolist(), strict=True))
    assert added and not touched & set(added)
    everything = np.bincount(log.user) == 3
    assert len(added) == sum(~everything[log.user])


def test_who_has_everything_tells_nothing_apart(tmp_path: Path) -> None:
    new_layout(tmp_path)
    rows = [f"{u},{i}" for u, i, *_ in rated()]
    (tmp_path / "ratings.csv").write_text("user,item\n" + "\n".join(rows) + "\n")
    with pytest.raises(ValueError, match="every user has every item, so that nothing tells them apart: give ratings"):
        ratings(tmp_path, encoder="none").likes  # noqa: B018


# --- what is refused -------------------------------------------------------------------------------------------------
def without(folder: Path, name: str) -> None:
    (folder / name).unlink()


def extended(folder: Path, row: str) -> None:
    with (folder / "ratings.csv").open("a") as file:
        file.write(row + "\n")


REFUSED: list[tuple[Callable[[Path], None], type[Exception], str]] = [
    (lambda folder: without(folder, "ratings.csv"), FileNotFoundError, r"holds none of ratings.csv"),
    (lambda folder: without(folder, "movies.csv"), FileNotFoundError, r"holds none of movies.csv"),
    (lambda folder: extended(folder, "u1,9,3,4"), ValueError, r"1 items are not in .*'9' \(row 182\): add them"),
    (lambda folder: extended(folder, "u1,1,much,4"), ValueError, r"line 182, column 'rating': 'much' is not a number"),
    (lambda folder: extended(folder, "u1,1,3,soon"), ValueError, r"line 182, column 'timestamp': 'soon' is not sec"),
    (lambda folder: extended(folder, ",1,3,4"), ValueError, r"line 182, column 'userId': '' is not the name of a user"),
    (lambda folder: (folder / "u.data").write_text("") or without(folder, "ratings.csv"), ValueError, "no rows"),
    (lambda folder: (folder / "ratings.csv.gz").write_text(""), ValueError, "holds 2 files"),
]  # fmt: skip


@pytest.mark.parametrize("change,kind,message", REFUSED)
def test_broken_folders_are_refused(change: Any, kind: Any, message: str, tmp_path: Path) -> None:
    new_layout(tmp_path)
    change(tmp_path)
    with pytest.raises(kind, match=message):
        ratings(tmp_path, encoder="none")


def test_logs_that_say_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        ratings(tmp_path / "nowhere")
    new_layout(tmp_path)
    with pytest.raises(ValueError, match=r"ratings of at least 9 are 0% of all: name another bound"):
        ratings(tmp_path, encoder="none", like=9.0).likes  # noqa: B018
    lines = (tmp_path / "ratings.csv").read_text().splitlines()[:60]
    (tmp_path / "ratings.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match=r"59 rows, at least 100 are needed"):
        ratings(tmp_path, encoder="none").likes  # noqa: B018
    own = tmp_path / "own"
    own.mkdir()
    own_layout(own)
    (own / "items.csv").write_text("item,title\n1,x\n")
    with pytest.raises(ValueError, match=r"items.csv, line 1: columns item and topic are needed \(it has: item, title"):
        ratings(own, encoder="none")


# --- the scenario ----------------------------------------------------------------------------------------------------
def test_users_are_drawn_as_the_log_has_them(tmp_path: Path) -> None:
    """u = normalise(m + g A): mean and spread of 20,000 drawn users as those of the formula, NumPy and torch."""
    tastes = np.array([[1.0, 0.0], [0.5, 0.0], [0.2, 0.4]], dtype=np.float32)
    features = np.random.default_rng(0).normal(size=(30, 2))
    catalog = Catalog(features, topic=np.arange(30) % 3, appeal=np.zeros(30), tastes=tastes)
    assert Catalog.load(catalog.save(tmp_path / "a.safetensors")) == catalog
    assert catalog != Catalog(features, topic=np.arange(30) % 3, appeal=np.zeros(30))
    scenario = Slate(catalog=catalog)
    normal = np.random.default_rng(1).normal(size=(200_000, 2))
    wanted = tastes[0] + normal @ tastes[1:]
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    for device in ("cpu", torch.device("cpu")):
        found = np.asarray(scenario.sample_task(make_rng(device, 0), 20_000).taste)
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-5)
        np.testing.assert_allclose(found.mean(axis=0), wanted.mean(axis=0), atol=0.02)
        np.testing.assert_allclose(np.cov(found.T), np.cov(wanted.T), atol=0.02)
    with pytest.raises(ValueError, match="tastes must have rows of 2 numbers"):
        Catalog(features, tastes=np.zeros((3, 4)))


def test_parameters_of_a_log_make_the_scenario(tmp_path: Path) -> None:
    own_layout(tmp_path)
    log = ratings(tmp_path, encoder="none")
    given = log.parameters_beside({"candidates": 3, "places": 2})
    assert json.loads(json.dumps(given)) == given
    scenario = recgym.make_scenario("RecSlateShop-v0", **given)
    assert scenario.beta == pytest.approx(log.fit.strength, rel=1e-4)
    np.testing.assert_allclose(scenario.items.appeal, log.fit.appeal, rtol=1e-5)
    width = log.items.width
    tastes = scenario.items.tastes
    np.testing.assert_allclose(tastes[1:].T @ tastes[1:], log.fit.covariance[:width, :width], atol=1e-5)
    assert set(ORIGINS) == {field.name for field in fields(Slate)}
    assert scenario.items.vectors.shape[0] == 3
    advised = recgym.make_scenario("RecSlateShop-v0", **given, advice="collaborative")
    assert "prior" in {field.name for field in advised.layout.candidate}
    assert log.origins["sensitivity"] == log.origins["hint_noise"] == "unused"


def write_log(folder: Path, users: int = 50) -> Path:
    """A folder of 40 films and users who like one genre or the other."""
    rng = np.random.default_rng(5)
    genres = ["Drama", "Comedy", "Drama|Comedy", "Western"]
    films = "".join(f"{i},Film {i} ({1980 + i % 30}),{genres[i % 4]}\n" for i in range(40))
    (folder / "movies.csv").write_text("movieId,title,genres\n" + films)
    rows = "".join(f"{u},{i},{1 + 2 * ((u % 2 == i % 2) + int(rng.integers(2)))},{rng.integers(1000)}\n"
                   for u, i in itertools.product(range(users), range(40)) if rng.random() < 0.5)  # fmt: skip
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + rows)
    return folder


@pytest.mark.usefixtures("no_pictures")
def test_log_of_ratings_trains_and_reports(command: Any, tmp_path: Path) -> None:
    """From the folder to an agent, which is evaluated where its run lies, with the catalog of the run, and resumed."""
    folder = tmp_path / "films"
    folder.mkdir()
    logs = tmp_path / "logs"
    small = ["--env", "RecSlate-v0", "--log", str(write_log(folder)), "--encoder", "none", "--param", "horizon=5"]
    small += ["--n-envs", "8", "-n", "120", "--pretrain-steps", "80", "--trials", "20", "--eval-trials", "20"]
    small += [
        "--eval-freq",
        "0",
        "--tensorboard-log",
        str(logs),
        '--hyperparam=policy_kwargs={"width": 8, "layers": 1}',
    ]
    printed = command("train", *small)
    for expected in (
        "fitting 50 users and 40 items to ",
        "taste, items not seen",
        "fitted: catalog",
        "assumed: outside",
        "given: horizon",
        "percent of the informed",
    ):
        assert expected in printed, printed
    run = logs / DEFAULT / "RecSlate-v0_1"
    report = json.loads((run / "report.json").read_text())
    held_out = report["ratings"]["held_out"]
    assert held_out["taste"]["log_loss"] < held_out["item mean"]["log_loss"] and report["ratings"]["liked_from"] > 1
    catalog = Catalog.load(run / "catalog.safetensors")
    assert report["parameters"]["catalog"] == catalog.digest and catalog.title[3] == "Film 3 (1983)"
    moved = run.rename(tmp_path / "elsewhere")
    from recgym import catalog as module

    module._KNOWN.clear()  # as in another process
    assert "elsewhere" in command("evaluate", "--policies", f"elsewhere={moved}", "--trials", "4")
    module._KNOWN.clear()
    assert "percent of the informed" in command("train", "-i", str(moved), "-n", "160", "--trials", "4")
    module._KNOWN.clear()
    lost = (moved / "catalog.safetensors").rename(tmp_path / "lost.safetensors")
    refused = command("evaluate", "--policies", f"a={moved}", "--trials", "4", code=2)
    assert f"{catalog.digest} is not known here: give its file, as catalog=PATH" in refused
    known_catalog(lost)
    assert "a" in command("evaluate", "--policies", f"a={moved}", "--trials", "4")


def test_the_published_ratings_are_told_by_taste() -> None:
    """MovieLens-100k from the package that has it as text; none of it is kept here."""
    found = find_spec("recbole")
    if found is None or found.origin is None:
        pytest.skip("the package recbole, which has MovieLens-100k as text")
    log = ratings(Path(found.origin).parent / "dataset_example" / "ml-100k", encoder="none")
    assert (len(log.user), log.users, log.items.items) == (100_000, 943, 1_682)
    scores = log.held_out
    assert scores["taste"].log_loss < scores["item mean"].log_loss - 2 * scores["taste"].error
    assert scores["taste"].auc > scores["collaborative"].auc > scores["item mean"].auc > scores["popularity"].auc
    assert log.cold_start.auc > 0.6
