"""Logs: known answers on the Open Bandit sample, made files, the error table, the fitted prior, IPS and SNIPS."""

from __future__ import annotations

import gzip
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recgym.data import OpenBanditLog, fit_beta, open_bandit
from recgym.evaluation.offpolicy import Estimate, off_policy, propensities, uniform
from recgym.evaluation.offpolicy.assumptions import MIN_CLICKS, enough_clicks

SAMPLE = Path(os.environ.get("RECGYM_DATA", Path(__file__).parents[1] / ".." / "shared" / "data")) / "open_bandit"
needs_sample = pytest.mark.skipif(
    not SAMPLE.is_dir(), reason=f"no Open Bandit sample at {SAMPLE}: set RECGYM_DATA to the folder that holds it"
)

PUBLISHED = ",timestamp,item_id,position,click,propensity_score,user_feature_0,user-item_affinity_0"
DESCRIBED = ",timestamp,item_id,position,click,action_prob,user_feature_0,user_item_affinity_0"
PAPER = "timestamp,item_id,position,click_indicator,action_prob"
ROWS = [  # out of order in time; the first and the last row are one second apart, the third has no fraction
    "0,2019-11-24 00:00:02.500000+00:00,70,3,0,0.25,ab,0.0",
    "1,2019-11-24 00:00:01.250000+00:00,5,1,1,0.5,ab,0.0",
    "2,2019-11-24 00:00:02+00:00,70,2,1,0.125,cd,1.0",
    "3,2019-11-24 00:00:03.500000+00:00,-4,1,0,1.0,cd,0.0",
]


def write(path: Path, header: str, rows: list[str], end: str = "\n") -> Path:
    """A log file, compressed if its name says so."""
    content = end.join([header, *rows, ""]).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def make_log(action: Any, click: Any, propensity: Any, items: int) -> OpenBanditLog:
    """A log without a file."""
    action = np.asarray(action, np.int64)
    position, ids = np.ones_like(action), np.arange(items)
    return OpenBanditLog(
        action, position, np.asarray(click, np.float32), np.asarray(propensity, np.float64), ids, "made"
    )


# --- known answers on the sample -------------------------------------------------------------------------------------
@needs_sample
@pytest.mark.parametrize(("policy", "clicks"), [("random", 46), ("bts", 69)])
def test_sample(policy: str, clicks: int) -> None:
    log = open_bandit(SAMPLE / policy)
    assert len(log.action) == log.impressions.sum() == 10_000
    assert log.arms == 34
    assert log.items.tolist() == list(range(34))
    assert log.clicks.sum() == clicks
    assert log.ctr == pytest.approx(clicks / 10_000)
    assert set(log.position.tolist()) == {1, 2, 3}
    assert Path(log.path).name == "men.csv.gz"


@needs_sample
def test_sample_folder_prefers_the_uniform_log() -> None:
    log = open_bandit(SAMPLE)
    assert Path(log.path) == SAMPLE / "random" / "men.csv.gz"
    np.testing.assert_allclose(log.propensity, 1 / 34)


@needs_sample
def test_sample_priors() -> None:
    random, bts = open_bandit(SAMPLE / "random"), open_bandit(SAMPLE / "bts")
    # 46 clicks over 34 items vary no more than binomial ones: the concentration is at its bound, all impressions
    assert sum(random.prior) == pytest.approx(10_000)
    assert random.prior[0] == pytest.approx(46, rel=0.02)
    assert 500 < sum(bts.prior) < 9_000
    for log in (random, bts):
        assert log.prior[0] / sum(log.prior) == pytest.approx(log.ctr, rel=0.1)
        assert 0 < log.item_rates().min() < log.ctr < log.item_rates().max() < 0.02


@needs_sample
def test_sample_value_of_the_other_policy() -> None:
    """IPS and SNIPS of the bts policy on the random log are .57 %; its own log says .69 %, inside the interval."""
    random, bts = open_bandit(SAMPLE / "random"), open_bandit(SAMPLE / "bts")
    shares = np.zeros((3, 34))  # of each item at each position
    np.add.at(shares, (bts.position - 1, bts.action), 1.0)
    shares /= shares.sum(1, keepdims=True)
    report = off_policy(random, shares[random.position - 1])
    assert report["ips"].value == pytest.approx(0.005656, abs=1e-6)
    assert report["snips"].value == pytest.approx(0.005740, abs=1e-6)
    for estimate in (report["ips"], report["snips"]):
        assert estimate.low < bts.ctr < estimate.high
        assert estimate.low == pytest.approx(0.0032, abs=4e-4)
        assert estimate.high == pytest.approx(0.0083, abs=6e-4)
        assert estimate.effective_sample_size == pytest.approx(2869, abs=1)
        assert estimate.clicks == 46
        assert estimate.enough.says == "too few clicks to compare"


@needs_sample
def test_sample_agrees_with_its_propensities() -> None:
    random, bts = open_bandit(SAMPLE / "random"), open_bandit(SAMPLE / "bts")
    assert uniform(random).holds and not uniform(bts).holds
    assert propensities(random).holds and propensities(bts).holds  # 7,814 distinct ones, from .000165 to .725
    assert not propensities(replace(bts, propensity=random.propensity)).holds


# --- the reader ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["men.csv", "men.csv.gz"])
@pytest.mark.parametrize("header", [PUBLISHED, DESCRIBED, PAPER])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_reads_every_spelling(tmp_path: Path, name: str, header: str, end: str) -> None:
    rows = [",".join(row.split(",")[1:6]) for row in ROWS] if header == PAPER else ROWS
    log = open_bandit(write(tmp_path / name, header, rows, end))
    assert log.items.tolist() == [-4, 5, 70]
    assert log.arms == 3
    assert log.action.tolist() == [1, 2, 2, 0]
    assert log.position.tolist() == [1, 2, 3, 1]
    assert log.click.tolist() == [1, 1, 0, 0]
    assert log.propensity.tolist() == [0.5, 0.125, 0.25, 1.0]
    assert (log.action.dtype, log.position.dtype, log.items.dtype) == (np.int64, np.int64, np.int64)
    assert (log.click.dtype, log.propensity.dtype) == (np.float32, np.float64)
    assert log.ctr == 0.5
    assert log.impressions.tolist() == [1, 1, 2]
    assert log.clicks.tolist() == [0, 1, 1]
    assert log.path == str(tmp_path / name)


def test_rows_of_one_time_keep_their_order_and_blocks_join(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    item, position, click = rng.integers(100, 200, 20_000), rng.integers(1, 4, 20_000), rng.integers(0, 2, 20_000)
    second = rng.integers(10, 40, 20_000)
    rows = [f"2019-11-24 00:00:{s},{i},{p},{c},.5" for s, i, p, c in zip(second, item, position, click, strict=True)]
    order = sorted(range(20_000), key=second.__getitem__)  # a stable sort
    log = open_bandit(str(write(tmp_path / "log.csv", PAPER, rows)))  # three blocks
    np.testing.assert_array_equal(log.items[log.action], item[order])
    np.testing.assert_array_equal(log.position, position[order])
    np.testing.assert_array_equal(log.click, click[order])


@pytest.fixture
def far_east(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose local time is not UTC."""
    if not hasattr(time, "tzset"):
        pytest.skip("this system cannot change its time zone")
    with monkeypatch.context() as context:
        context.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("far_east")
def test_offsets_mark_blank_lines_and_quotes(tmp_path: Path) -> None:
    rows = [
        '"2019-11-24 01:00:00+02:00",1,1,0,1',
        "",
        "2019-11-24T00:30:00Z,2,1,1.0,1e-3",
        "2019-11-23 23:30,3,1,0,1",
        "",
    ]
    log = open_bandit(write(tmp_path / "log.csv", "\ufeff" + PAPER.replace("item_id", " item_id "), rows))
    assert log.items[log.action].tolist() == [1, 3, 2]  # 23:00, 23:30 and 00:30 UTC


def test_finds_the_log_of_a_folder(tmp_path: Path) -> None:
    write(tmp_path / "item_context.csv", "item_id,item_feature_0", ["0,1.5"])
    with pytest.raises(FileNotFoundError, match=r"holds no log \*\.csv .* name the file"):
        open_bandit(tmp_path)
    write(tmp_path / "bts" / "men.csv", PUBLISHED, ROWS)
    nested = write(tmp_path / "random" / "men" / "men.csv", PUBLISHED, ROWS)
    assert open_bandit(tmp_path).path == str(nested)  # the layout of the full data
    direct = write(tmp_path / "women.csv", PUBLISHED, ROWS)
    assert open_bandit(tmp_path).path == str(direct)
    uniform = write(tmp_path / "random" / "men.csv.gz", PUBLISHED, ROWS)
    assert open_bandit(tmp_path).path == str(uniform)
    write(tmp_path / "random" / "all.csv", PUBLISHED, ROWS)
    with pytest.raises(ValueError, match=r"2 logs \(.*all\.csv, .*men\.csv\.gz\): name the one to read"):
        open_bandit(tmp_path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.csv does not exist: name a log"):
        open_bandit(tmp_path / "none.csv")


GOOD = "2019-11-24,1,1,0,0.5"
BAD_ROWS = {  # the second row of three, so line 3: row, message
    "timestamp": ("noon,1,1,0,0.5", "line 3, column 'timestamp': 'noon' is not an ISO 8601 time"),
    "no timestamp": (",1,1,0,0.5", "line 3, column 'timestamp': '' is not an ISO 8601 time"),
    "item": ("2019-11-24,shoe,1,0,0.5", "line 3, column 'item_id': 'shoe' is not a whole number"),
    "item too large": ("2019-11-24,9223372036854775808,1,0,0.5", "column 'item_id': '9223372036854775808' is not"),
    "fractional position": ("2019-11-24,1,1.5,0,0.5", "line 3, column 'position': '1.5' is not a whole number"),
    "two clicks": ("2019-11-24,1,1,2,0.5", "line 3, column 'click_indicator': '2' is not 0 or 1"),
    "click NaN": ("2019-11-24,1,1,nan,0.5", "line 3, column 'click_indicator': 'nan' is not 0 or 1"),
    "click empty": ("2019-11-24,1,1,,0.5", "line 3, column 'click_indicator': '' is not 0 or 1"),
    "propensity 0": ("2019-11-24,1,1,0,0", "line 3, column 'action_prob': '0' is not in (0, 1]"),
    "propensity above 1": ("2019-11-24,1,1,0,1.5", "line 3, column 'action_prob': '1.5' is not in (0, 1]"),
    "propensity NaN": ("2019-11-24,1,1,0,NaN", "line 3, column 'action_prob': 'NaN' is not in (0, 1]"),
    "propensity text": ("2019-11-24,1,1,0,half", "line 3, column 'action_prob': 'half' is not in (0, 1]"),
    "short row": ("2019-11-24,1,1", "line 3, column 'click_indicator': 3 fields, 5 in the header: mend the row"),
    "long row": (
        "2019-11-24,1,1,0,0.5,7",
        "line 3, after column 'action_prob': 6 fields, 5 in the header: mend the row",
    ),
    "open quote": ('2019-11-24,1,1,0,"0.5', "line 3: not valid CSV (unexpected end of data): quote or mend"),
}


@pytest.mark.parametrize(("row", "message"), BAD_ROWS.values(), ids=BAD_ROWS.keys())
@pytest.mark.parametrize("name", ["log.csv", "log.csv.gz"])
def test_bad_row(tmp_path: Path, name: str, row: str, message: str) -> None:
    path = write(tmp_path / name, PAPER, [GOOD, row, GOOD])
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}, .*{re.escape(message)}"):
        open_bandit(path)


def test_bad_row_far_down(tmp_path: Path) -> None:
    rows = [GOOD] * 20_000
    rows[10], rows[17_000] = "", "2019-11-24,1,1,no,0.5"  # a blank line counts as a line
    with pytest.raises(
        ValueError, match=r"log\.csv, line 17002, column 'click_indicator': 'no' is not 0 or 1: correct"
    ):
        open_bandit(write(tmp_path / "log.csv", PAPER, rows))


TEXT = "\n".join([PAPER, *[GOOD] * 5_000, ""]).encode()
BAD_FILES: dict[str, tuple[str, Callable[[], bytes], str]] = {  # name, content, message
    "empty": ("log.csv", lambda: b"", "line 1: the file is empty: it needs a header"),
    "empty gzip": ("log.csv.gz", lambda: b"", "line 1: the file is empty: it needs a header"),
    "header only": ("log.csv", lambda: PAPER.encode(), "line 2: a header but no rows"),
    "byte order mark only": ("log.csv", lambda: b"\xef\xbb\xbf\n", "line 1: the file is empty: it needs a header"),
    "line ends of old": ("log.csv", lambda: TEXT.replace(b"\n", b"\r"), "line 1: a carriage return alone ends no line"),
    "no header": ("log.csv", lambda: f"{GOOD}\n{GOOD}\n".encode(), "no column 'item_id'; no column 'position'"),
    "missing columns": (
        "log.csv",
        lambda: b"timestamp,item_id,position\n2019-11-24,1,1\n",
        "line 1: no column 'click' or 'click_indicator'; no column 'propensity_score' or 'action_prob': name these",
    ),
    "column twice": (
        "log.csv",
        lambda: f"{PAPER},item_id\n{GOOD},1\n".encode(),
        "line 1: the same column is there 2 times, 'item_id' (column 2), 'item_id' (column 6): keep one",
    ),
    "both spellings": (
        "log.csv",
        lambda: f"{PAPER},click\n{GOOD},1\n".encode(),
        "line 1: the same column is there 2 times, 'click_indicator' (column 4), 'click' (column 6): keep one",
    ),
    "cut off": ("log.csv.gz", lambda: gzip.compress(TEXT)[:-40], "not a whole compressed file"),
    "damaged": ("log.csv.gz", lambda: gzip.compress(TEXT)[:20] + b"\xff" * 60, "not a whole compressed file"),
    "checksum": (
        "log.csv.gz",
        lambda: gzip.compress(TEXT)[:-8] + bytes(8),
        "not a whole compressed file (CRC check failed",
    ),
    "latin-1": ("log.csv", lambda: TEXT + b"2019-11-24,1,1,0,\xbd\n", "line 5002: not UTF-8 text (invalid start byte)"),
}


@pytest.mark.parametrize(("name", "content", "message"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_bad_file(tmp_path: Path, name: str, content: Callable[[], bytes], message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content())
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}, .*{re.escape(message)}"):
        open_bandit(path)


# --- the fitted prior ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("a", "b"), [(2.0, 98.0), (1.0, 1.0), (0.5, 200.0)])
def test_fit_recovers_the_prior(a: float, b: float) -> None:
    """600 items: mean within 4 s.e. of the items' rates, concentration within 40 % (some 4 s.e.)."""
    rng = np.random.default_rng(1)
    n = rng.integers(500, 4_000, 600)
    fitted = fit_beta(n, rng.binomial(n, rng.beta(a, b, 600)))
    mean, sd = a / (a + b), np.sqrt(a * b / (a + b) ** 2 / (a + b + 1))
    assert sum(fitted) == pytest.approx(a + b, rel=0.4)
    assert fitted[0] / sum(fitted) == pytest.approx(mean, abs=4 * sd / np.sqrt(600))


def test_fit_is_the_maximum() -> None:
    """Against a grid of the likelihood of a few items, written by the gamma function."""
    special = pytest.importorskip("scipy.special")
    n, k = np.array([10, 20, 30, 40]), np.array([1, 8, 3, 20])

    def likelihood(a: Any, b: Any) -> Any:
        terms = 0.0
        for ni, ki in zip(n, k, strict=True):
            terms += special.gammaln(ki + a) + special.gammaln(ni - ki + b) - special.gammaln(ni + a + b)
        return terms + 4 * (special.gammaln(a + b) - special.gammaln(a) - special.gammaln(b))

    a, b = fit_beta(n, k)
    grid = likelihood(*np.meshgrid(np.geomspace(a / 5, a * 5, 401), np.geomspace(b / 5, b * 5, 401)))
    assert grid.max() - 1e-9 <= likelihood(a, b) <= grid.max() + 1e-3


def test_fit_of_items_that_are_alike_is_at_the_bound() -> None:
    a, b = fit_beta(np.full(20, 1_000), np.full(20, 50))
    assert a + b == pytest.approx(20_000)
    assert a / (a + b) == pytest.approx(0.05, rel=1e-3)
    assert sum(fit_beta(np.array([100]), np.array([7]))) == pytest.approx(100)  # one item alone: nothing to compare


def test_fit_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"0 clicks in 30 impressions fit no prior: give one, or a longer log"):
        fit_beta(np.array([10, 20]), np.array([0, 0]))
    with pytest.raises(ValueError, match="30 clicks in 30 impressions"):
        fit_beta(np.array([10, 20]), np.array([10, 20]))
    with pytest.raises(ValueError, match=r"\(2,\) and clicks \(2,\) must be two \[K\] arrays with 0 <= clicks <= n"):
        fit_beta(np.array([10, 20]), np.array([11, 0]))
    log = open_bandit(write(tmp_path / "log.csv", PAPER, [GOOD]))
    with pytest.raises(ValueError, match=r"0 clicks in 1 impressions"):
        _ = log.prior
    np.testing.assert_allclose(log.item_rates((1.0, 2.0)), [1 / 4])

    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(ImportError, match=r"pip install recgym\[data\]"):
        fit_beta(np.array([10, 20]), np.array([1, 2]))


# --- off-policy values -----------------------------------------------------------------------------------------------
def test_three_rows_by_hand() -> None:
    """Weights 1, 1, 2 and clicks 1, 0, 1: (1 + 2) / 3, (1 + 2) / 4, and (1 + 1 + 2)^2 / (1 + 1 + 4) rows."""
    log = make_log([0, 1, 0], [1, 0, 1], [0.5, 0.5, 0.25], 2)
    for probabilities in ([0.5, 0.5], np.full((3, 2), 0.5)):
        report = off_policy(log, probabilities)
        assert report["ips"].value == pytest.approx(1.0)
        assert report["snips"].value == pytest.approx(0.75)
        for estimate in (report["ips"], report["snips"], report["doubly robust"]):
            assert estimate.effective_sample_size == pytest.approx(16 / 6)
            assert estimate.clicks == 2
    # a policy of its own for each row: weights 0, 2, 4, and the click without weight does not count
    report = off_policy(log, [[0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    assert report["ips"].value == pytest.approx(4 / 3)
    assert report["snips"].value == pytest.approx(4 / 6)
    assert report["ips"].effective_sample_size == pytest.approx(36 / 20)
    assert report["ips"].clicks == 1


def test_the_logging_policy_has_its_own_value() -> None:
    rng = np.random.default_rng(2)
    share = np.array([0.5, 0.3, 0.2])
    action = rng.choice(3, 5_000, p=share)
    log = make_log(action, rng.random(5_000) < 0.1, share[action], 3)
    half = 1.96 * np.sqrt(log.ctr * (1 - log.ctr) / 5_000)  # normal interval of a share
    for estimate in off_policy(log, share).values():
        assert estimate.value == pytest.approx(log.ctr, rel=1e-3)
        assert estimate.effective_sample_size == pytest.approx(5_000)
        assert estimate.low == pytest.approx(log.ctr - half, abs=half / 5)
        assert estimate.high == pytest.approx(log.ctr + half, abs=half / 5)
        assert estimate.enough.says == "enough clicks to compare"


def test_ips_is_unbiased_and_snips_nearly() -> None:
    """Mean over 400 logs of 500 rows within 4 s.e. of the truth (SNIPS: its bias is of order 1/500)."""
    rng = np.random.default_rng(3)
    logging, policy, rate = np.array([0.6, 0.3, 0.1]), np.array([0.1, 0.2, 0.7]), np.array([0.05, 0.1, 0.3])
    values = []
    for _ in range(400):
        action = rng.choice(3, 500, p=logging)
        log = make_log(action, rng.random(500) < rate[action], logging[action], 3)
        values.append([estimate.value for estimate in off_policy(log, policy, resamples=1).values()])
    mean, error = np.mean(values, 0), np.std(values, 0, ddof=1) / np.sqrt(400)
    assert abs(mean[0] - policy @ rate) < 4 * error[0]
    assert error[0] < 0.01
    assert abs(mean[1] - policy @ rate) < 4 * error[1] + 0.002
    assert error[1] < error[0]


def test_snips_ignores_the_scale_of_the_propensities() -> None:
    rng = np.random.default_rng(4)
    action, propensity = rng.integers(0, 4, 300), rng.choice([0.25, 0.5, 1.0], 300)
    log = make_log(action, rng.random(300) < 0.2, propensity, 4)
    before, after = (
        off_policy(each, [0.1, 0.2, 0.3, 0.4]) for each in (log, replace(log, propensity=log.propensity / 2))
    )
    assert after["snips"][:4] == pytest.approx(before["snips"][:4], rel=1e-12)
    assert after["ips"][:3] == pytest.approx([2 * x for x in before["ips"][:3]], rel=1e-12)
    assert after["ips"].effective_sample_size == pytest.approx(before["ips"].effective_sample_size)


def test_interval_covers_and_depends_on_the_seed_alone() -> None:
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(200):  # 1,000 rows with some 100 clicks
        action = rng.integers(0, 2, 1_000)
        log = make_log(action, rng.random(1_000) < np.where(action == 0, 0.05, 0.15), np.full(1_000, 0.5), 2)
        low, high = off_policy(log, [0.2, 0.8], resamples=200)["snips"][1:3]
        covered += low < 0.2 * 0.05 + 0.8 * 0.15 < high
    assert 0.95 - 4 * np.sqrt(0.95 * 0.05 / 200) < covered / 200
    assert off_policy(log, [0.2, 0.8]) == off_policy(log, [0.2, 0.8], seed=0) != off_policy(log, [0.2, 0.8], seed=1)


def test_verdict() -> None:
    assert enough_clicks(MIN_CLICKS) == (True, "enough clicks to compare")
    for few in (MIN_CLICKS - 1, float("nan"), float("inf"), -1.0):
        assert enough_clicks(few) == (False, "too few clicks to compare")
    many = Estimate(0.01, 0.0, 0.02, effective_sample_size=50_000.0, clicks=900)
    assert many.enough.says == "enough clicks to compare"
    assert many._replace(clicks=99).enough.says == "too few clicks to compare"
    # 900 clicks, most of them of next to no weight: worth no more than 5,000 rows of the policy itself, 50 clicks
    assert not many._replace(effective_sample_size=float("nan")).enough.holds
    assert many._replace(effective_sample_size=5_000.0).enough.says == "too few clicks to compare"


@pytest.mark.parametrize(
    ("probabilities", "resamples", "message"),
    [
        ([0.5, 0.5], 10, r"shape \(2,\), not \(3,\) or \(4, 3\)"),
        (np.full((3, 3), 1 / 3), 10, r"shape \(3, 3\), not"),
        ([0.5, 0.6, -0.1], 10, "non-negative and sum to 1"),
        ([0.5, 0.6, 0.1], 10, "non-negative and sum to 1"),
        ([0.5, 0.5, float("nan")], 10, "non-negative and sum to 1"),
        ([0.0, 0.0, 1.0], 10, "never chooses an item logged in made"),
        ([0.5, 0.5, 0.0], 0, "resamples is 0, not at least 1"),
    ],
)
def test_off_policy_errors(probabilities: Any, resamples: int, message: str) -> None:
    log = make_log([0, 1, 0, 1], [1, 0, 0, 0], [0.5] * 4, 3)
    with pytest.raises(ValueError, match=message):
        off_policy(log, probabilities, resamples=resamples)
