"""A log of impressions that were bought, and campaigns of `Placement` fitted to it; `recgym.data.ads` reads it.

What is fitted is what such logs tell: prices of the market, click rates by creative and part of the day, how good
predictions are, how late conversions come. Nobody drew creatives or hours at random, so that how click rates differ is
what they went with; wear, drift, launches and how rivals react are assumed, as they are in the scenario itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from recgym.catalog import Catalog
from recgym.data.campaign_parameters import ORIGINS, REPLACED, campaign_parameters, rounded
from recgym.data.creative_rates import KnownCreatives, known_creatives
from recgym.data.landscape import (
    MAX_RATE,
    MIN_RATE,
    PER_THOUSAND,
    ClickEffects,
    ClickScores,
    ClickTable,
    DelayFit,
    MarketFit,
    PredictionFit,
    Spread,
    WinError,
    fit_clicks,
    fit_delays,
    fit_market,
    fit_prediction,
    plain_numbers,
    spreads_of,
)
from recgym.scenarios.ads.placement import Placement

__all__ = ["DAY", "MIN_CLICKS", "ImpressionLog"]

DAY = 86_400.0  # seconds; a decision of the scenario is a day
HELD_OUT = 0.2  # of the days, the last; where there is but one, or no time, of the rows
SEED = 0
MIN_CLICKS = 30  # fewer leave the click rate itself uncertain by a fifth
MIN_CONVERSIONS = 30
MIN_DAYS = 7  # of which the first and the last, which may not be whole, are left out
MIN_SHARE = 0.01  # of a part of the day in which nothing was bought
MIN_CHANCE = 0.01  # of winning, by which an impression counts for the auctions lost
DECILES = np.arange(1, 10) / 10
LAWS = {"all": "of prices paid", "truncated": "prices cut at the bid", "censored": "beside bids that lost"}


@dataclass(frozen=True, eq=False)
class ImpressionLog:
    """Impressions of one log, N rows; where bids that lost are logged, rows of them too."""

    clicked: np.ndarray  # [N] float64, 0 or 1
    won: np.ndarray  # [N] bool
    log_price: np.ndarray  # [N] float64 logarithm of the highest rival's price per thousand; NaN where lost
    creative: np.ndarray  # [N] int64, index into `names`; zeros where the log has none
    names: tuple[str, ...]  # K creatives, sorted
    path: str
    log_bid: np.ndarray | None = None  # [N] float64, per thousand
    logit: np.ndarray | None = None  # [N] float64 of the predicted click rate
    time: np.ndarray | None = None  # [N] float64 seconds since 1970, or since whatever the log counts from
    converted: np.ndarray | None = None  # [N] float64 the same, of the conversion; NaN where there was none
    parts: int = 1  # S, of the day
    left_out: Mapping[str, int] = field(default_factory=dict)  # rows by reason
    items: Catalog | None = None  # that tell what the creatives are, by their names; see `with_catalog`

    # --- how rows are cut ---
    @cached_property
    def slot(self) -> np.ndarray:
        """[N] int64 part of the day (UTC) of each row."""
        if self.time is None:
            return np.zeros(len(self.clicked), dtype=np.int64)
        return np.minimum((self.time % DAY) / DAY * self.parts, self.parts - 1).astype(np.int64)

    @cached_property
    def days(self) -> np.ndarray:
        """[N] int64 day of each row, the first is 0; zeros where there is no time."""
        if self.time is None:
            return np.zeros(len(self.clicked), dtype=np.int64)
        day = np.floor(self.time / DAY).astype(np.int64)
        return day - day.min()

    @cached_property
    def late(self) -> np.ndarray:
        """[N] bool rows that are held out: of the last days, or any where one day is all or clicks are on one side."""
        days = np.unique(self.days)
        rows = self.days >= days[-max(1, round(HELD_OUT * len(days)))]
        sides = (self.clicked[rows].sum(), self.clicked[~rows].sum())
        if min(sides) >= 1.0 and (self.won & ~rows).sum() > 1:
            return rows
        order = np.random.default_rng(SEED).permutation(len(self.clicked))
        return order < HELD_OUT * len(order)

    @property
    def split(self) -> str:
        """What is held out, in words."""
        days = np.unique(self.days[self.late])
        by_day = not np.isin(days, self.days[~self.late]).any()
        return f"the last {len(days)} of {len(np.unique(self.days))} days" if by_day else f"{HELD_OUT:.0%} of the rows"

    @property
    def has_creatives(self) -> bool:
        """Whether there are several, whose click rates can differ."""
        return len(self.names) > 1

    @cached_property
    def has_slots(self) -> bool:
        """Whether impressions are of several parts of the day."""
        return len(np.unique(self.slot[self.won])) > 1

    def market_of(self, rows: np.ndarray) -> MarketFit:
        """The law of market prices in some rows [N] bool."""
        won, lost = rows & self.won, rows & ~self.won
        bid = None if self.log_bid is None else self.log_bid[won]
        lost_bid = np.zeros(0) if self.log_bid is None else self.log_bid[lost]
        return fit_market(self.log_price[won], self.slot[won], bid, lost_bid, self.slot[lost], self.parts)

    def table_of(self, rows: np.ndarray) -> ClickTable:
        """Counts by creative and part of the day in some rows [N] bool."""
        at = rows & self.won
        return ClickTable.of(self.creative[at], self.slot[at], self.clicked[at], (len(self.names), self.parts))

    def with_catalog(self, catalog: Catalog) -> ImpressionLog:
        """The same log, whose creatives are items of a catalog, so that click rates are fitted to their features.

        Raises:
            ValueError: creatives that are no ids of the catalog, or too few for a fit.
        """
        log = replace(self, items=catalog)
        _ = log.by_features
        return log

    # --- the fits ---
    @cached_property
    def market(self) -> MarketFit:
        """Prices; see `recgym.data.landscape.fit_market`."""
        return self.market_of(np.ones(len(self.clicked), dtype=bool))

    @cached_property
    def price_by_slot(self) -> Spread:
        """How the mean logarithm of prices differs between parts of the day, net of sampling noise."""
        seen = np.isfinite(self.market.errors)
        means, count = self.market.means[seen], int(seen.sum())
        if count < 2:
            return Spread(0.0, math.inf)
        sd = math.sqrt(max(means.var(ddof=1) - (self.market.errors[seen] ** 2).mean(), 0.0))
        return Spread(sd, means.std(ddof=1) / math.sqrt(2.0 * (count - 1)))

    @cached_property
    def effects(self) -> ClickEffects:
        """Click rates; see `recgym.data.landscape.fit_clicks`."""
        return fit_clicks(self.table_of(self.won))

    @cached_property
    def by_features(self) -> KnownCreatives | None:
        """Click rates by what creatives are; None: no catalog tells."""
        if self.items is None:
            return None
        return known_creatives(self.names, self.items, self.table_of(self.won), self.effects, self.path)

    @property
    def catalog(self) -> Catalog | None:
        """The items with the campaign's tastes; None: there are no items. See `Catalog.tastes`."""
        return None if self.by_features is None else self.by_features.catalog

    @cached_property
    def calibration(self) -> PredictionFit | None:
        """Of predictions; None: there are none."""
        return None if self.logit is None else fit_prediction(self.logit[self.won], self.clicked[self.won])

    @cached_property
    def delays(self) -> DelayFit | None:
        """Of conversions, in days; None: none are logged, or fewer than `MIN_CONVERSIONS`."""
        if self.converted is None or np.isfinite(self.converted).sum() < MIN_CONVERSIONS:
            return None
        delay, waited, came = self._clicks
        return fit_delays(delay, waited[~came])

    @property
    def _clicks(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Days from click to conversion, of those that converted; of all clicks to the end; and which converted."""
        assert self.time is not None and self.converted is not None
        at = self.clicked > 0
        came = np.isfinite(self.converted[at])
        end = max(self.time.max(), float(np.nanmax(self.converted)))
        time = self.time[at]
        return (self.converted[at][came] - time[came]) / DAY, (end - time) / DAY, came

    @cached_property
    def conversions(self) -> tuple[float, float] | None:
        """Conversions per click at the middle of their logits, and how creatives differ in them; None: see `delays`."""
        if self.delays is None:
            return None
        rate, spread = self.delays.rate, Placement.conversion_spread
        if not self.has_creatives:
            return rate * math.exp(-0.5 * (spread * (1.0 - rate)) ** 2), spread
        _, waited, came = self._clicks
        creative, count = self.creative[self.clicked > 0], len(self.names)
        mature = np.bincount(creative, np.where(came, 1.0, self.delays.matured(waited)), minlength=count)
        variance = spreads_of(ClickTable(mature[:, None], np.bincount(creative, came, minlength=count)[:, None]))[1]
        return rate * math.exp(-0.5 * variance * (1.0 - rate) ** 2), math.sqrt(variance)

    @cached_property
    def profile(self) -> list[float]:
        """Auctions in each part of the day, 1 on average: an impression counts for those lost at the same bid."""
        weight = np.ones(len(self.clicked))
        if self.market.kind == "truncated":
            assert self.log_bid is not None
            weight /= np.clip(self.market.win_rate(self.log_bid, self.slot), MIN_CHANCE, None)
        count = np.bincount(self.slot, weight, minlength=self.parts)
        share = np.maximum(count / count.mean(), MIN_SHARE)
        return rounded(share / share.mean())

    @cached_property
    def day_factor(self) -> Spread | None:
        """How the logarithm of a day's traffic differs, net of the noise of counts; None: fewer than `MIN_DAYS`."""
        count = np.bincount(self.days)[1:-1]
        count = count[count > 0]
        if len(count) < MIN_DAYS - 2:
            return None
        variance = float(np.log(count).var(ddof=1) - (1.0 / count).mean())
        error = float(np.log(count).std(ddof=1)) / math.sqrt(2.0 * (len(count) - 1))
        return Spread(math.sqrt(max(variance, 0.0)), error)

    # --- what they are worth ---
    @cached_property
    def held_out(self) -> dict[str, ClickScores]:
        """Score click rates fitted to the other rows on those that are `late`.

        By name: "constant", the share of clicks; "creative", by creative alone, shrunk; "creative x slot", the fit;
        "prediction", as it is logged; "prediction, calibrated".
        """
        at, train = self.late & self.won, ~self.late & self.won
        table = self.table_of(train)
        rate = float(np.clip(table.clicks.sum() / table.shown.sum(), MIN_RATE, MAX_RATE))
        rates = {"constant": np.full(int(at.sum()), rate)}
        effects = fit_clicks(table)
        if self.has_creatives:
            rates["creative"] = effects.rates_by_creative[self.creative[at]]
        if self.has_slots:
            rates["creative x slot"] = effects.rates[self.creative[at], self.slot[at]]
        if self.logit is not None:
            rates["prediction"] = np.clip(1.0 / (1.0 + np.exp(-self.logit[at])), MIN_RATE, 1.0 - MIN_RATE)
            rates["prediction, calibrated"] = fit_prediction(self.logit[train], self.clicked[train]).rates(
                self.logit[at]
            )
        clicked = self.clicked[at]
        losses = {name: -PER_THOUSAND * np.where(clicked > 0, np.log(p), np.log1p(-p)) for name, p in rates.items()}
        scores, root = {}, math.sqrt(len(clicked))
        for name, loss in losses.items():
            gain = losses["constant"] - loss
            error, gain_error = loss.std() / root, gain.std() / root
            scores[name] = ClickScores(float(loss.mean()), float(error), float(gain.mean()), float(gain_error))
        return scores

    @cached_property
    def win_error(self) -> WinError:
        """Error of win rates fitted to the other rows, on those that are `late`.

        Where bids that lost are logged: share won in each tenth of the bids, against the chance to win. Else the share
        of prices below each tenth of their fitted distribution, among what was won.
        """
        market, late = self.market_of(~self.late), self.late
        if market.kind == "censored":
            assert self.log_bid is not None
            chance, bid = market.win_rate(self.log_bid[late], self.slot[late]), self.log_bid[late]
            group = np.searchsorted(np.quantile(bid, DECILES), bid)
            size = np.maximum(np.bincount(group), 1)
            wrong = np.abs(np.bincount(group, self.won[late]) - np.bincount(group, chance)) / size
            return WinError(float(wrong.mean()), float(wrong.max()), "share won, by tenths of the bids")
        at = late & self.won
        below = market.quantile(self.log_price[at], self.slot[at], None if self.log_bid is None else self.log_bid[at])
        wrong = np.abs((below[:, None] <= DECILES).mean(axis=0) - DECILES)
        return WinError(float(wrong.mean()), float(wrong.max()), "share of prices, at tenths of their law")

    @property
    def estimates(self) -> list[tuple[str, float, float, str]]:
        """What is printed of the fits: name, value, its standard error (infinite: none) and unit."""
        market, price, none = self.market, self.price_by_slot, math.inf
        rate, clicks = self.clicked.sum() / self.won.sum(), self.clicked.sum()
        found = [("clicks per thousand impressions", PER_THOUSAND * rate, PER_THOUSAND * rate / math.sqrt(clicks), "")]
        error = market.errors[np.isfinite(market.errors)]
        at = float(market.means[np.isfinite(market.errors)].mean())
        found.append(("market price per thousand, log", at, float(np.sqrt((error**2).sum())) / len(error), ""))
        found.append((f"spread of it ({LAWS[market.kind]})", market.sigma, market.sigma_error, ""))
        if self.has_slots:
            found.append(("of its parts of the day", *price, ""))
        if self.has_creatives:
            found.append((f"{len(self.names)} creatives", *self.effects.creative, "logits"))
            if self.has_slots:
                found.append((f"{self.parts} parts of the day", *self.effects.slot, "logits"))
                found.append(("creative in a part of the day", *self.effects.cell, "logits"))
        if self.by_features is not None:
            found += self.by_features.estimates
        if self.calibration is not None:
            fit = self.calibration
            found.append(("prediction, slope", fit.slope, fit.slope_error, ""))
            found.append(("prediction, level", fit.level, fit.level_error, "logits too high"))
            found.append(("prediction, its error", *fit.error, "logits"))
            found.append(("prediction, area under the curve", fit.auc, none, ""))
        if self.delays is not None:
            fit_ = self.delays
            found.append(("conversions per click", fit_.rate, fit_.rate_error, ""))
            for weight, mean in zip(fit_.weights, fit_.means, strict=True):
                found.append((f"delay of {weight:.0%} of them", mean, none, "days"))
        if self.day_factor is not None:
            found.append(("days, log traffic", *self.day_factor, ""))
        return found

    # --- the task distribution ---
    @property
    def parameters(self) -> dict[str, Any]:
        """Parameters of `Placement` that differ from its defaults: campaigns like that of the log. JSON-able."""
        return self.parameters_beside({})

    def parameters_beside(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The same where some are given.

        One log is one campaign: click rate, price and its spread have the range of two standard errors to either side.
        Where no catalog tells what creatives are, what they differ by is fitted, and how much of it embeddings tell is
        in the proportion of the defaults. Predictions have the level by which they are off, as that is all that one
        campaign says of how levels differ.

        Args:
            given: parameters that stand as they are.

        Raises:
            ValueError: prices or click rates that no campaign of the scenario has, or parameters that it refuses.
        """
        return campaign_parameters(self, given)

    @property
    def origins(self) -> dict[str, str]:
        """Where each parameter of `Placement` comes from: "fitted", "fixed", "assumed" or "unused"."""
        unused = {} if self.by_features is None else dict.fromkeys(REPLACED, "unused")
        return {**ORIGINS, **unused, **dict.fromkeys(self.parameters, "fitted")}

    def to_json(self) -> dict[str, Any]:
        """The report: plain numbers and text."""
        market, effects, calibration, delays = self.market, self.effects, self.calibration, self.delays
        return {
            "log": self.path,
            "rows": len(self.clicked),
            "won": int(self.won.sum()),
            "clicks": int(self.clicked.sum()),
            "creatives": len(self.names),
            "days": len(np.unique(self.days)),
            "left_out": dict(self.left_out),
            "market": {**market._asdict(), "means": market.means.tolist(), "errors": plain_numbers(market.errors)},
            "effects": {name: getattr(effects, name)._asdict() for name in ("creative", "slot", "cell")},
            "calibration": None
            if calibration is None
            else {**calibration._asdict(), "error": calibration.error._asdict()},
            "known_creatives": None if self.by_features is None else self.by_features.to_json(),
            "delays": None if delays is None else delays._asdict(),
            "held_out": {name: scores._asdict() for name, scores in self.held_out.items()},
            "win_error": self.win_error._asdict(),
            "split": self.split,
            "origins": self.origins,
            "note": "click rates are what creatives and hours went with: nobody drew them at random",
        }
