"""Known answers of the finite-horizon Gittins index and of the two-arm Bayes value; the cache of index tables."""

import re
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from recgym.baselines import gittins
from recgym.baselines.gittins import GittinsTable, bayes_value, index_table, load_table

UNIFORM = (1.0, 1.0)


@pytest.fixture(scope="module")
def table() -> GittinsTable:
    return index_table(UNIFORM, 100)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "recgym"


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """List the horizons computed, rather than read."""
    horizons: list[int] = []

    def recorded(prior: tuple[float, float], horizon: int, *, progress: bool = False) -> GittinsTable:
        horizons.append(horizon)
        return index_table(prior, horizon, progress=progress)

    monkeypatch.setattr(gittins, "index_table", recorded)
    return horizons


def all_states(horizon: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    s, f, m = np.indices((horizon + 1,) * 3).reshape(3, -1)
    inside = (m >= 1) & (s + f + m <= horizon)
    return s[inside], f[inside], m[inside]


def bisected_index(a: float, b: float, m: int) -> float:
    """Apply the definition to one state, in plain Python."""

    def gain(price: float) -> float:  # of the first pull, over stopping at once
        @cache
        def pull(s: int, f: int) -> float:
            p = (a + s) / (a + b + s + f)
            if s + f == m - 1:
                return p - price
            return p - price + p * max(0.0, pull(s + 1, f)) + (1 - p) * max(0.0, pull(s, f + 1))

        return pull(0, 0)

    low, high = 0.0, 1.0
    for _ in range(26):  # to 2e-8
        price = (low + high) / 2
        low, high = (price, high) if gain(price) > 0 else (low, price)
    return low


# By exact rational arithmetic up to 20, beyond by a second program in 64-bit mantissas.
@pytest.mark.parametrize(
    ("horizon", "value"),
    [(1, 0.5), (2, 1.08333), (5, 2.88889), (10, 6.02179), (20, 12.43126), (50, 31.99671), (100, 64.91842)],
)
def test_bayes_value_of_two_uniform_arms(horizon: int, value: float) -> None:
    assert bayes_value(UNIFORM, horizon) == pytest.approx(value, abs=6e-6)


def test_bayes_value_by_hand_for_another_prior() -> None:
    # Beta(2, 1): the first pull pays 2/3; after a success stay (3/4), after a failure change (2/3 against 2/4).
    assert bayes_value((2, 1), 2) == pytest.approx(2 / 3 + 2 / 3 * 3 / 4 + 1 / 3 * 2 / 3)


@pytest.mark.parametrize("prior", [UNIFORM, (0.1, 0.1), (30.0, 10.0), (1.3, 250.0), (2.0, 5000.0), (4e5, 6e5)])
def test_one_and_two_decisions_left_have_closed_forms(prior: tuple[float, float]) -> None:
    table, (s, f, _) = index_table(prior, 40), all_states(40)
    a, b = prior[0] + s, prior[1] + f
    mean, after_success = a / (a + b), (a + 1) / (a + b + 1)
    np.testing.assert_allclose(table.lookup(s, f, 1), mean, rtol=1e-5)
    # Q_2 vanishes between the mean and the mean after a success: 0 = p - x + p (p+ - x).
    two, deviation = mean * (1 + after_success) / (1 + mean), np.sqrt(mean * (1 - mean) / (a + b + 1))
    inside = s + f <= 38
    error = table.lookup(s[inside], f[inside], 2) - two[inside]
    assert np.max(np.abs(error) / deviation[inside]) < 5e-3


@pytest.mark.parametrize(("prior", "error"), [(UNIFORM, 2e-5), ((0.5, 2.0), 2e-5), ((1.3, 250.0), 1e-6)])
def test_index_agrees_with_bisection(prior: tuple[float, float], error: float) -> None:
    s, f, m = all_states(12)
    expected = [bisected_index(prior[0] + i, prior[1] + j, k) for i, j, k in zip(s, f, m.tolist(), strict=True)]
    np.testing.assert_allclose(index_table(prior, 12).lookup(s, f, m), expected, rtol=0, atol=error)


def test_small_click_rates_are_resolved() -> None:
    table = index_table((1.3, 250.0), 100)  # mean .0052, standard deviation .0045
    for s, f, m in ((0, 0, 100), (0, 30, 70), (1, 20, 60), (2, 40, 58)):
        assert table.lookup(s, f, m) == pytest.approx(bisected_index(1.3 + s, 250.0 + f, m), abs=1e-5)


def test_index_grows_with_decisions_left_and_successes(table: GittinsTable) -> None:
    s, f, m = all_states(100)
    index = table.lookup(s, f, m)
    assert np.all((index > (s + 1) / (s + f + 2) - 1e-6) & (index < 1))
    longer = s + f + m < 100
    assert np.all(table.lookup(s[longer], f[longer], m[longer] + 1) > index[longer] - 1e-4)
    assert np.all(table.lookup(s[longer] + 1, f[longer], m[longer]) > index[longer])
    assert table.lookup(0, 0, 100) > table.lookup(0, 0, 2) + 0.2


def test_a_longer_table_serves_shorter_horizons(table: GittinsTable) -> None:
    s, f, m = all_states(30)
    np.testing.assert_allclose(table.lookup(s, f, m), index_table(UNIFORM, 30).lookup(s, f, m), rtol=0, atol=5e-5)


def test_lookup_broadcasts_any_integers(table: GittinsTable) -> None:
    counts = np.random.default_rng(0).integers(0, 30, (2, 64, 10))
    found = table.lookup(counts[0].astype(np.int8), counts[1].astype(np.uint64), np.full((64, 1), 40, np.uint8))
    assert found.shape == (64, 10) and found.dtype == np.float32
    assert found[5, 3] == table.lookup(int(counts[0, 5, 3]), int(counts[1, 5, 3]), 40)


def test_policy_reaches_the_known_value_on_ten_arms(table: GittinsTable) -> None:
    # 83.75 (standard error below .1) by a separate compiled program with 1,500 uniform prices and no interpolation.
    # Crediting the mean of the arm pulled, and subtracting regret from n k / (k + 1), lowers the variance.
    rng, batch = np.random.default_rng(2), 4000
    rates, counts, rows = rng.random((batch, 10)), np.zeros((2, batch, 10), np.int64), np.arange(batch)
    regret = np.zeros(batch)
    for remaining in range(100, 0, -1):
        index = table.lookup(*counts, remaining)
        ties = index == index.max(axis=1, keepdims=True)
        arm = (ties * rng.random(ties.shape)).argmax(axis=1)
        rate = rates[rows, arm]
        regret += rates.max(axis=1) - rate
        counts[(rng.random(batch) >= rate).astype(int), rows, arm] += 1
    value, error = 100 * 10 / 11 - regret.mean(), regret.std() / batch**0.5
    assert abs(value - 83.75) < 3 * error


def test_policy_on_two_arms_is_near_but_not_above_the_optimum(table: GittinsTable) -> None:
    @cache
    def value(s1: int, f1: int, s2: int, f2: int) -> float:
        left = 10 - s1 - f1 - s2 - f2
        if left == 0:
            return 0.0
        if table.lookup(s1, f1, left) < table.lookup(s2, f2, left):
            s1, f1, s2, f2 = s2, f2, s1, f1
        p = (1 + s1) / (2 + s1 + f1)
        return p * (1 + value(s1 + 1, f1, s2, f2)) + (1 - p) * value(s1, f1 + 1, s2, f2)

    best = bayes_value(UNIFORM, 10)
    assert 0.998 * best < value(0, 0, 0, 0) <= best + 1e-12


@pytest.mark.parametrize("prior", [(0, 1), (1, -2), (np.nan, 1), (np.inf, 1), (1e6, 1), (1e-3, 1), (1,), "ab", None])
def test_bad_prior_is_named(prior: object) -> None:
    for function in (index_table, load_table, bayes_value):
        with pytest.raises(ValueError, match=r"prior must be .* got"):
            function(prior, 5)


@pytest.mark.parametrize("horizon", [0, -1, 2.5, np.nan, "5"])
def test_bad_horizon_is_named(horizon: object) -> None:
    for function in (index_table, load_table, bayes_value):
        with pytest.raises(ValueError, match=r"horizon must be .* got"):
            function(UNIFORM, horizon)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ((-1, 0, 1), "successes must be >= 0, got -1"),
        ((0, [3, -2], 1), "failures must be >= 0, got -2"),
        ((0, 0, 0), "remaining must be >= 1, got 0"),
        ((0.5, 0, 1), "successes must be integers, got float64"),
        ((50, [10, 40], 20), "must be <= 100, got 110"),
    ],
)
def test_bad_counts_are_named(table: GittinsTable, counts: tuple[object, object, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        table.lookup(*counts)


@pytest.mark.parametrize("prior", [(0.01, 0.01), (0.1, 0.1), (1.0, 0.01), (0.01, 999999.0), (5e5, 5e5)])
def test_extreme_priors_stay_within_bounds(prior: tuple[float, float]) -> None:
    # Float32 meets its limits first in the states of the longest horizon; computing all of those takes too long here.
    (a, b), total = prior, 500
    index = gittins._indices(prior, gittins._prices(prior, total), total)
    s, pulls = np.tril_indices(total)[::-1]
    assert np.all(index >= (a + s) / (a + b + pulls) - 1e-9)
    assert np.all(index <= (a + total - 1 - (pulls - s)) / (a + b + total - 1) + 1e-4)  # nothing but successes to come
    for horizon in (1, 2):
        np.testing.assert_allclose(index_table(prior, horizon).lookup(0, 0, 1), a / (a + b), rtol=1e-6)


def test_progress_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    index_table(UNIFORM, 3, progress=True)
    assert not capsys.readouterr().err  # no terminal
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    index_table(UNIFORM, 3, progress=True)
    assert re.search(r"\d+%\|.* states/s", capsys.readouterr().err)


def test_second_load_reads_the_file(folder: Path, computed: list[int]) -> None:
    first, second = load_table((2, 3), 20), load_table((np.float64(2), 3.0), 15)
    assert computed == [20] and second.horizon == 20 and second.prior == first.prior == (2.0, 3.0)
    np.testing.assert_array_equal(first.values, second.values)
    load_table((2, 4), 20)
    assert computed == [20, 20]
    assert sorted(path.name for path in folder.iterdir()) == ["gittins-2.0-3.0.npz", "gittins-2.0-4.0.npz"]


def test_longer_horizon_replaces_a_shorter_one(folder: Path, computed: list[int]) -> None:
    assert [load_table(UNIFORM, horizon).horizon for horizon in (10, 25, 10)] == [10, 25, 25]
    assert computed == [10, 25] and len(list(folder.iterdir())) == 1


@pytest.mark.parametrize("damage", ["bit", "cut", "text", "empty", "nan", "length", "dtype", "prior", "pickle"])
def test_damaged_or_foreign_file_is_replaced(folder: Path, computed: list[int], damage: str) -> None:
    good = load_table(UNIFORM, 12)
    (path,) = folder.iterdir()
    content, fields = bytearray(path.read_bytes()), dict(np.load(path))
    if damage == "bit":
        content[len(content) // 2] ^= 1
    path.write_bytes({"cut": content[:-100], "text": b"not a table", "empty": b""}.get(damage, content))
    values = fields["values"]
    foreign = {
        "nan": {"values": np.where(values > 0.5, values, np.float32(np.nan))},
        "length": {"values": values[:-1]},
        "dtype": {"values": values.astype(np.float64)},
        "prior": {"prior": np.array([2.0, 1.0])},
        "pickle": {"values": np.array([{}])},
    }
    if damage in foreign:
        np.savez(path, **{**fields, **foreign[damage]})
    np.testing.assert_array_equal(load_table(UNIFORM, 12).values, good.values)
    load_table(UNIFORM, 12)
    assert computed == [12, 12] and list(folder.iterdir()) == [path]


def test_unwritable_folder_warns_and_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.warns(RuntimeWarning, match="cannot write") as warned:
        table = load_table(UNIFORM, 5)
    assert len(warned) == 1 and table.horizon == 5


def test_failed_write_leaves_nothing_behind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(gittins.os, "fsync", full)
    with pytest.warns(RuntimeWarning, match="no space left"):
        load_table(UNIFORM, 5)
    assert list(folder.iterdir()) == []


def test_cache_folder_without_xdg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    load_table(UNIFORM, 3)
    assert (tmp_path / ".cache" / "recgym" / "gittins-1.0-1.0.npz").is_file()
