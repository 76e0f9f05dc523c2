"""Logs of impressions that were bought: the reader. What is fitted to them: `recgym.data.impression_log`.

A row is an impression that an auction was won for: what it cost, whether it was clicked, and what else is known of it.
Layouts: a table with a header, or four columns without one (clicked, price paid, predicted click rate, price of the
highest rival), as bid landscapes are published.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recgym.data.impression_log import MIN_CLICKS, ImpressionLog
from recgym.data.landscape import PER_THOUSAND
from recgym.data.reading import Column, moment, number, read_columns, spellings
from recgym.data.sources import label_of, table_rows

__all__ = ["impressions"]

MAX_PARTS = 24  # of the day
ENDLESS = 1e11  # seconds: beyond are milliseconds, or digits of a date
ABOVE = 1e-6  # share by which rounding may put a price above its bid
BARE = ("clicked", "price", "prediction", "rival")  # columns of a file without a header
NOTHING = ("", "-1")  # how a log writes that a click did not convert; -1 as Criteo's log of attribution has it


def _paid(text: str) -> float:
    """A price or bid; 0 where there is none."""
    return number(text) if text.strip() else 0.0


def _stamp(text: str) -> float:
    """A time; NaN where there is none."""
    return math.nan if text.strip() in NOTHING else moment(text)


def _possible(x: np.ndarray) -> np.ndarray:
    return np.isfinite(x) & (x >= 0.0)


COLUMNS = {  # their names are arguments of `impressions`
    "clicked": Column(
        ("clicked", "click", "clk", "is_click"), number, np.float64, lambda x: (x == 0) | (x == 1), "0 or 1"
    ),
    "price": Column(
        ("price", "price_paid", "paying_price", "payprice", "win_price", "cost"),
        _paid,
        np.float64,
        _possible,
        "a number of at least 0",
    ),
    "prediction": Column(
        ("prediction", "predicted", "pctr", "predicted_ctr", "predicted_click_rate"),
        number,
        np.float64,
        lambda x: (x > 0.0) & (x < 1.0),
        "a probability in (0, 1)",
        "predicted click rates of exactly 0 or 1 cannot be: correct it or remove the row",
        optional=True,
    ),
    "creative": Column(
        ("creative", "creative_id", "ad", "ad_id"),
        str.strip,
        np.object_,
        lambda x: x != "",
        "the name of a creative",
        optional=True,
    ),
    "time": Column(
        ("time", "timestamp", "datetime"),
        moment,
        np.float64,
        lambda x: np.abs(x) < ENDLESS,
        "seconds, or an ISO 8601 time",
        optional=True,
    ),
    "bid": Column(
        ("bid", "bid_price", "bidding_price"), _paid, np.float64, _possible, "a number of at least 0", optional=True
    ),
    "converted": Column(
        ("converted", "converted_at", "conversion_time", "conversion_timestamp"),
        _stamp,
        np.float64,
        lambda x: np.isnan(x) | (np.abs(x) < ENDLESS),
        "seconds, an ISO 8601 time, or empty",
        optional=True,
    ),
    "rival": Column(
        ("rival", "rival_price", "market_price", "highest_rival"),
        _paid,
        np.float64,
        _possible,
        "a number of at least 0",
        optional=True,
    ),
}
OPTIONAL = tuple(name for name, column in COLUMNS.items() if column.optional)


def impressions(
    path: Any,
    *,
    clicked: str | Sequence[str] = COLUMNS["clicked"].names,
    price: str | Sequence[str] = COLUMNS["price"].names,
    prediction: str | Sequence[str] | None = COLUMNS["prediction"].names,
    creative: str | Sequence[str] | None = COLUMNS["creative"].names,
    time: str | Sequence[str] | None = COLUMNS["time"].names,
    bid: str | Sequence[str] | None = COLUMNS["bid"].names,
    converted: str | Sequence[str] | None = COLUMNS["converted"].names,
    rival: str | Sequence[str] | None = COLUMNS["rival"].names,
    per: float = PER_THOUSAND,
    parts: int = 6,
) -> ImpressionLog:
    """Read a log of impressions that were won, and fit what it says of a campaign.

    A column that is named by the caller has to be there; of the usual names, those but `clicked` and `price` need not.

    Args:
        path: a table with a header (see `recgym.data.sources.table_rows`), or a file of four columns without one:
            clicked, price, prediction and the price of the highest rival, which may be the price again.
        clicked: name of the column of clicks, 0 or 1; or several names, of which the table has one. As below.
        price: of the price paid; empty or 0 in a row whose bid lost, which takes the bids to be logged.
        prediction: of the click rate that was predicted, in (0, 1); None: not read. As below.
        creative: of the name of the creative.
        time: of the impression, seconds or ISO 8601; the days and their parts are those of UTC.
        bid: of the campaign's own bid, not below the price.
        converted: of the time at which the click converted; empty or -1 where it did not.
        rival: of the highest rival's price, where it is another than the price paid.
        per: impressions that prices and bids are for; 1: each has its own.
        parts: S, equal parts of the day.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a malformed file, named with line and column; clicks that were not won, prices above the bid,
            conversions of what was not clicked; too few clicks, or prices that are all the same.
    """
    if not isinstance(per, int | float) or isinstance(per, bool) or not 0.0 < per < math.inf:
        raise ValueError(f"impressions: per must be a number above 0, impressions that a price is for, got {per!r}")
    if not isinstance(parts, int) or isinstance(parts, bool) or not 1 <= parts <= MAX_PARTS:
        raise ValueError(f"impressions: parts must be a whole number in [1, {MAX_PARTS}], got {parts!r}")
    source = path
    if isinstance(path, str | Path):
        source = Path(path)
        if source.is_dir():
            raise FileNotFoundError(f"{source} is a folder: name the file of impressions in it (.csv, .csv.gz)")
        if not source.exists():
            raise FileNotFoundError(f"{source} does not exist: name a file of impressions (.csv, .csv.gz)")
    given = {"clicked": clicked, "price": price, "prediction": prediction, "creative": creative, "time": time}
    given |= {"bid": bid, "converted": converted, "rival": rival}
    wanted = {
        key: COLUMNS[key]._replace(names=names, optional=COLUMNS[key].optional and names == COLUMNS[key].names)
        for key, names in spellings("impressions", given, OPTIONAL).items()
    }
    header = BARE if _is_bare(source) else ()
    columns = read_columns(source, wanted, record="impression that was won", header=header)
    won = _check_rows(columns, label_of(source), first=1 if header else 2)
    kept = won | (columns["bid"] > 0.0 if "bid" in columns else False)
    dropped = int((~kept).sum())
    columns, won = {key: column[kept] for key, column in columns.items()}, won[kept]
    clicks = int(columns["clicked"].sum())
    if clicks < MIN_CLICKS:
        raise ValueError(f"{label_of(source)}: {clicks} clicks, at least {MIN_CLICKS} are needed: bring a longer log")
    if columns["clicked"][won].all():
        raise ValueError(f"{label_of(source)}: every impression is clicked: give those without a click too")
    market = np.where(won, columns.get("rival", columns["price"]), 1.0)
    _check_prices(market[won], columns["bid"][won] if "bid" in columns else None, label_of(source))
    names, index = (
        np.unique(columns["creative"].astype(str), return_inverse=True) if "creative" in columns else _one(won)
    )
    predicted = columns.get("prediction")
    unit = math.log(PER_THOUSAND / per)
    return ImpressionLog(
        clicked=columns["clicked"],
        won=won,
        log_price=np.where(won, np.log(market) + unit, np.nan),
        creative=index.astype(np.int64),
        names=tuple(names.tolist()),
        path=label_of(source),
        log_bid=np.log(columns["bid"]) + unit if "bid" in columns else None,
        logit=None if predicted is None else np.log(predicted) - np.log1p(-predicted),
        time=columns.get("time"),
        converted=columns.get("converted"),
        parts=parts if "time" in columns else 1,
        left_out={"neither a price nor a bid": dropped} if dropped else {},
    )


def _one(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One creative without a name."""
    return np.array([""]), np.zeros(len(rows), dtype=np.int64)


def _is_bare(source: Any) -> bool:
    """Whether a file begins with a row of `BARE` instead of a header."""
    if not isinstance(source, Path):
        return False
    row = next(table_rows(source), (0, []))[1]
    try:
        values = [float(text) for text in row]
    except ValueError:
        return False
    return len(values) == len(BARE) and values[0] in (0.0, 1.0)


def _check_rows(columns: dict[str, np.ndarray], label: str, *, first: int) -> np.ndarray:
    """[N] bool which rows were won; ValueError for the first row that contradicts itself.

    Args:
        columns: [N] each.
        label: of the log, for errors.
        first: number of the first row.
    """
    clicked, price = columns["clicked"] > 0.0, columns["price"]
    nothing = np.zeros(len(price), dtype=bool)
    won, bid, time, converted = price > 0.0, columns.get("bid"), columns.get("time"), columns.get("converted")
    market = columns.get("rival", price)
    faults = {
        "clicked, but no price was paid: what is clicked was won: give its price, or remove the row": clicked & ~won,
    }
    if bid is None:
        faults["no price, so that it was not won: remove such rows, or name the bids by which they lost as bid"] = ~won
    else:
        faults["a price but no bid: give its bid, or leave out the bids (bid=None)"] = won & (bid <= 0.0)
        above = won & (np.maximum(market, price) > bid * (1.0 + ABOVE))
        faults["a price above the bid, which cannot have won: see that both are in the same units"] = above
    if "rival" in columns:
        faults["won, but the price of the highest rival is 0: give it, or leave it out (rival=None)"] = won & (
            market <= 0
        )
    if converted is not None:
        came = np.isfinite(converted)
        faults["converted without a click: give the click, or remove the row"] = came & ~clicked
        if time is None and came.any():
            raise ValueError(f"{label}: times of conversion but none of impressions: name them as time")
        early = nothing if time is None else came & (converted < time)
        faults["converted before the impression: see that both times are of one clock"] = early
    for what, rows in faults.items():
        if rows.any():
            raise ValueError(f"{label}, row {int(rows.argmax()) + first}: {what} ({int(rows.sum()):,} such rows)")
    return won


def _check_prices(market: np.ndarray, bid: np.ndarray | None, path: str) -> None:
    """ValueError for prices [n] of the market that have no law to be fitted."""
    if np.ptp(np.log(market)) < 1e-9:
        raise ValueError(f"{path}: every price is {market[0]:g}: the law of prices needs some that differ")
    if bid is not None and np.allclose(market, bid, rtol=ABOVE, atol=0.0):
        what = "every price is the bid, as in first-price auctions, which says nothing of rivals"
        raise ValueError(f"{path}: {what}: give the highest rival's as rival, or leave out the bids (bid=None)")
