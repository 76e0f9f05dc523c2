"""Tables as they come: compressed, in other separators, from pandas; what is none, and what has no bounds."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from recgym.data import open_bandit, transactions
from recgym.data.sources import MAX_LINE, shortened

HEADER = "brand,price,feat,sales"
PRICES = np.random.default_rng(0).choice([2.0, 2.5, 3.0], 60)
ROWS = [f"Tea,{price:g},{week % 3 == 0:d},{round(200 * price**-2)}.0" for week, price in enumerate(PRICES)]
TEXT = "\n".join([HEADER, *ROWS]) + "\n"


def zipped(text: bytes, *names: str) -> bytes:
    page = io.BytesIO()
    with zipfile.ZipFile(page, "w") as archive:
        for name in names or ("shop.csv",):
            archive.writestr(name, text)
    return page.getvalue()


FORMS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "plain": ("shop.csv", lambda text: text),
    "capitals": ("SHOP.CSV.GZ", gzip.compress),
    "xz": ("shop.csv.xz", lzma.compress),
    "bz2": ("shop.csv.bz2", bz2.compress),
    "zip": ("shop.Csv.Zip", zipped),
    "gzip without its name": ("shop.csv", gzip.compress),
    "semicolons": ("shop.csv", lambda text: text.replace(b",", b";")),
    "tabs": ("shop.tsv", lambda text: text.replace(b",", b"\t")),
    "bars": ("shop.txt", lambda text: text.replace(b",", b"|")),
    "byte order mark": ("shop.csv", lambda text: b"\xef\xbb\xbf" + text),
    "flags of pandas": ("shop.csv", lambda text: text.replace(b",1,", b",True,").replace(b",0,", b",False,")),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_same_table_in_any_form(form: str, tmp_path: Path) -> None:
    name, pack = FORMS[form]
    (tmp_path / name).write_bytes(pack(TEXT.encode()))
    log = transactions(tmp_path / name)
    np.testing.assert_array_equal(log.price, PRICES)
    assert log.promoted.sum() == 20 and log.products == ("Tea",)


def test_pandas_gives_tables_too(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_csv(io.StringIO(TEXT)).assign(feat=lambda table: table["feat"] > 0)
    log = transactions(frame)
    np.testing.assert_array_equal(log.price, PRICES)
    assert log.path == "DataFrame" and log.promoted.sum() == 20
    pytest.importorskip("pyarrow")
    frame.to_parquet(tmp_path / "shop.parquet")
    np.testing.assert_array_equal(transactions(tmp_path / "shop.parquet").sales, log.sales)
    frame.loc[3, "price"] = np.nan
    with pytest.raises(ValueError, match=r"DataFrame, line 5, column 'price': '' is not a number above 0"):
        transactions(frame)
    with pytest.raises(ValueError, match="a table is a path or a pandas DataFrame, not a list"):
        transactions([1, 2])


def test_columns_of_clicks_can_be_named(tmp_path: Path) -> None:
    lines = [f"2019-11-24 00:00:{i:02},{i % 3}.0,1,{i % 2 == 0},0.333" for i in range(30)]
    (tmp_path / "log.csv").write_text("\n".join(["when,what,where,clicked,p", *lines]) + "\n")
    log = open_bandit(
        tmp_path / "log.csv", timestamp="when", item="what", position="where", click="clicked", propensity=["q", "p"]
    )
    assert log.arms == 3 and log.click.sum() == 15
    with pytest.raises(ValueError, match="click and propensity both name the column 'p'"):
        open_bandit(tmp_path / "log.csv", click="p", propensity="p")


NONE: dict[str, tuple[str, bytes, str]] = {
    "spreadsheet": ("shop.csv", zipped(b"x", "[Content_Types].xml", "xl/a.xml"), "this is a spreadsheet (.xlsx)"),
    "old spreadsheet": ("shop.csv", b"\xd0\xcf\x11\xe0" + bytes(99), "this is an old spreadsheet (.xls)"),
    "json lines": ("shop.csv", b'{"sales": 1}\n', "this is JSON"),
    "utf-16": ("shop.csv", TEXT.encode("utf-16"), "this is UTF-16: save it as UTF-8"),
    "utf-16 without a mark": ("shop.csv", TEXT.encode("utf-16-le"), "this is UTF-16: save it as UTF-8"),
    "two in one": ("shop.zip", zipped(TEXT.encode(), "a.csv", "b.csv"), "holds 2 files (a.csv, b.csv)"),
    "cut off": ("shop.csv.xz", lzma.compress(TEXT.encode())[:-20], "not a whole compressed file"),
    "not compressed": ("shop.csv.gz", TEXT.encode(), "not a compressed file"),
    "long value": ("shop.csv", f"{HEADER}\nTea,{'9' * 5000}x,1,1\n".encode(), "... (5,001 characters) is not a number"),
}


@pytest.mark.parametrize("kind", NONE)
def test_what_is_no_table_is_named_for_what_it_is(kind: str, tmp_path: Path) -> None:
    name, content, message = NONE[kind]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is looked at below
        transactions(tmp_path / name)
    assert message in str(caught.value) and name in str(caught.value) and len(str(caught.value)) < 600


def test_values_are_quoted_in_short() -> None:
    assert shortened("abc") == "'abc'" and len(shortened("x" * 5000)) < 100


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells how much memory was used")
def test_a_line_without_an_end_is_refused_before_it_is_read(tmp_path: Path) -> None:
    """500 MB of one line, packed into half a megabyte, cost no more than a small table does."""
    path = tmp_path / "bomb.csv.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(f"{HEADER}\nTea,".encode())
        for _ in range(500):
            file.write(b"9" * (1 << 20))
    code = (
        "import sys\n"
        "from recgym.data import transactions\n"
        "try: transactions(sys.argv[1])\n"
        "except ValueError as error: print(error)\n"
        "print(*(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60, cwd=".")
    message, used = done.stdout.strip().splitlines()
    assert f"line 2: longer than {MAX_LINE:,} bytes" in message, done.stderr
    assert int(used) < 250_000  # kB; 90,000 of them are Python with what is imported


def test_one_long_name_does_not_cost_all_rows(tmp_path: Path) -> None:
    """As text of fixed width, 20,000 rows with one name of 1,500 characters took 120 MB."""
    import tracemalloc

    name = "x" * 1500
    rows = [f"{name if week == 7 else 'Tea'},{1 + week % 3},{week % 2},{5 + week % 4}" for week in range(20_000)]
    rows += [f"{name},{1 + week % 3},{week % 2},{5 + week % 4}" for week in range(60)]
    (tmp_path / "shop.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    tracemalloc.start()
    log = transactions(tmp_path / "shop.csv")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert log.products == ("Tea", name) and peak < 40e6


def test_propensities_near_zero_are_refused(tmp_path: Path) -> None:
    lines = ["timestamp,item_id,position,click,propensity_score", "2019-11-24,1,1,0,0.5", "2019-11-24,0,1,1,1e-300"]
    (tmp_path / "log.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match=r"line 3, .*: '1e-300' is not in \(0, 1\], at least 1e-09"):
        open_bandit(tmp_path / "log.csv")
