"""Logs of recommendations: reader, the prior fitted to them and off-policy values of policies.

The log format is that of the Open Bandit Dataset (Saito, Aihara, Matsutani & Narita 2021, arXiv:2008.07146): one row
per item shown, with the probability with which it was chosen and whether it was clicked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from recgym.data.reading import Column, number, read_columns, seconds, spellings, whole
from recgym.data.sources import ENDINGS, label_of
from recgym.scenarios.bandit import MAX_PRIOR, MIN_PRIOR

__all__ = ["OpenBanditLog", "fit_beta", "open_bandit"]


# --- reading ---------------------------------------------------------------------------------------------------------
MIN_PROPENSITY = 1e-9  # of an item that was shown; below, weights of 1 / propensity drown everything else

# The published files say `click`, `propensity_score`, `user-item_affinity_*`; their description (obd/README.md of
# st-tech/zr-obp) says `action_prob`, `user_item_affinity`, and the paper calls the click "click indicator".
OPEN_BANDIT = {
    "timestamp": Column(("timestamp",), seconds, np.float64, np.isfinite, "an ISO 8601 time (2019-11-24 00:03:13)"),
    "item": Column(("item_id",), whole, np.int64, np.isfinite, "a whole number"),
    "position": Column(("position",), whole, np.int64, np.isfinite, "a whole number"),
    "click": Column(("click", "click_indicator"), number, np.float32, lambda x: (x == 0) | (x == 1), "0 or 1"),
    "propensity": Column(
        ("propensity_score", "action_prob"),
        number,
        np.float64,
        lambda x: (x >= MIN_PROPENSITY) & (x <= 1),
        f"in (0, 1], at least {MIN_PROPENSITY:g}",
    ),
}


def _find_log(folder: Path) -> Path:
    """The one log of a folder: in its subfolder `random` (the uniform policy, which shows every item) or directly."""
    for pattern in ("random/*", "*", "random/*/*"):  # the last is the layout of the full data: random/men/men.csv
        logs = sorted(path for path in folder.glob(pattern) if path.name.lower().endswith(ENDINGS))
        logs = [path for path in logs if not path.name.startswith("item_context")]  # features of the items, no log
        if len(logs) == 1:
            return logs[0]
        if logs:
            raise ValueError(f"{folder} holds {len(logs)} logs ({', '.join(map(str, logs))}): name the one to read")
    raise FileNotFoundError(f"{folder} holds no log *.csv or *.csv.gz, nor does {folder / 'random'}: name the file")


# --- Open Bandit log -------------------------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class OpenBanditLog:
    """Impressions of one log in the order of time; N rows, K items seen."""

    action: np.ndarray  # [N] int64, index into `items`
    position: np.ndarray  # [N] int64, as logged (1 = left, 2 = centre, 3 = right)
    click: np.ndarray  # [N] float32, 0 or 1
    propensity: np.ndarray  # [N] float64, probability with which the logging policy chose the item at this position
    items: np.ndarray  # [K] int64, sorted item ids
    path: str

    @property
    def arms(self) -> int:
        """K, the number of items seen in the log."""
        return len(self.items)

    @property
    def ctr(self) -> float:
        """Clicks per impression."""
        return float(self.click.mean(dtype=np.float64))

    @cached_property
    def impressions(self) -> np.ndarray:
        """[K] int64, rows of each item."""
        return np.bincount(self.action, minlength=self.arms)

    @cached_property
    def clicks(self) -> np.ndarray:
        """[K] int64, clicks on each item."""
        return np.bincount(self.action[self.click > 0], minlength=self.arms)

    @cached_property
    def prior(self) -> tuple[float, float]:
        """(a, b) of the Beta fitted to the items' click rates; see `fit_beta`."""
        return fit_beta(self.impressions, self.clicks)

    @property
    def parameters(self) -> dict[str, Any]:
        """Parameters of `Bandit`: as many arms as items, and the prior of their click rates."""
        return self.parameters_beside({})

    def parameters_beside(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The same where some are given: a prior that is given is not fitted, which takes clicks."""
        prior = given["prior"] if "prior" in given else [min(max(x, MIN_PRIOR), MAX_PRIOR) for x in self.prior]
        return {"arms": self.arms, "prior": prior, **given}

    def item_rates(self, prior: tuple[float, float] | None = None) -> np.ndarray:
        """[K] posterior mean click rate of each item under the Beta `prior` (default: the fitted one)."""
        a, b = self.prior if prior is None else prior
        return (self.clicks + a) / (self.impressions + a + b)


def open_bandit(
    path: Any,
    *,
    timestamp: str | Sequence[str] = OPEN_BANDIT["timestamp"].names,
    item: str | Sequence[str] = OPEN_BANDIT["item"].names,
    position: str | Sequence[str] = OPEN_BANDIT["position"].names,
    click: str | Sequence[str] = OPEN_BANDIT["click"].names,
    propensity: str | Sequence[str] = OPEN_BANDIT["propensity"].names,
) -> OpenBanditLog:
    """Read a log in the Open Bandit layout, with either spelling of its columns, or with others.

    Args:
        path: a table (see `recgym.data.sources.table_rows`), or a folder that holds one directly or in its subfolder
            `random` (preferred).
        timestamp: name of the column of ISO 8601 times; or several names, of which the table has one. As below.
        item: of whole numbers that stand for items.
        position: of whole numbers, the place where the item was shown.
        click: of flags, 0 or 1.
        propensity: of the probability with which the item was chosen.

    Raises:
        FileNotFoundError: no such file, or no log in the folder.
        ValueError: several logs in the folder, or a malformed file; the message names file, line and column.
    """
    source = path
    if isinstance(path, str | Path):
        source = Path(path)
        if source.is_dir():
            source = _find_log(source)
        elif not source.exists():
            raise FileNotFoundError(f"{source} does not exist: name a log (.csv, .csv.gz) or the folder that holds it")
    given = {"timestamp": timestamp, "item": item, "position": position, "click": click, "propensity": propensity}
    read = {key: OPEN_BANDIT[key]._replace(names=names) for key, names in spellings("open_bandit", given).items()}
    columns = read_columns(source, read, record="impression")
    order = np.argsort(columns.pop("timestamp"), kind="stable")  # the items of one page share a time: keep their order
    items, action = np.unique(columns.pop("item"), return_inverse=True)
    rest = {key: array[order] for key, array in columns.items()}
    return OpenBanditLog(action=action[order].astype(np.int64), items=items, path=label_of(source), **rest)


def fit_beta(impressions: np.ndarray, clicks: np.ndarray) -> tuple[float, float]:
    """Beta(a, b) of the items' click rates by maximum likelihood of the beta-binomial (empirical Bayes).

    Item i has clicks k_i ~ Binomial(n_i, p_i), p_i ~ Beta(a, b), so that the log-likelihood is, up to a constant,
    sum_i ln B(k_i + a, n_i - k_i + b) - ln B(a, b); it is maximised over logit(a / (a + b)) and ln(a + b).
    The concentration a + b is kept in [.01, N], N all impressions of the log. Items whose counts vary no more than
    binomial ones give N: the fit then says that the items are alike, as surely as N impressions can tell.

    Args:
        impressions: [K] n_i.
        clicks: [K] k_i, 0 <= k_i <= n_i.

    Raises:
        ValueError: no click at all, or nothing but clicks: the likelihood then has no maximum inside (0, 1).
        ImportError: SciPy is missing.
    """
    try:
        from scipy import optimize, special
    except ImportError as error:
        raise ImportError("fitting a prior needs SciPy: pip install recgym[data]") from error
    n, k = np.asarray(impressions, np.float64), np.asarray(clicks, np.float64)
    if n.shape != k.shape or n.ndim != 1 or not ((k >= 0) & (k <= n)).all():
        raise ValueError(f"impressions {n.shape} and clicks {k.shape} must be two [K] arrays with 0 <= clicks <= n")
    if not 0 < k.sum() < n.sum():
        raise ValueError(f"{k.sum():.0f} clicks in {n.sum():.0f} impressions fit no prior: give one, or a longer log")

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:  # and its gradient: differences would drown in rounding
        mean, size = special.expit(x[0]), np.exp(x[1])
        a, b = mean * size, (1.0 - mean) * size
        value = special.betaln(k + a, n - k + b) - special.betaln(a, b)
        total = special.psi(n + size) - special.psi(size)
        da = (special.psi(k + a) - special.psi(a) - total).sum()
        db = (special.psi(n - k + b) - special.psi(b) - total).sum()
        return -value.sum(), -np.array([a * (1.0 - mean) * (da - db), a * da + b * db])

    bounds = (np.log(0.01), np.log(n.sum()))
    start = np.array([special.logit(k.sum() / n.sum()), np.mean(bounds)])
    fit = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(None, None), bounds])
    mean, size = float(special.expit(fit.x[0])), float(np.exp(fit.x[1]))
    return mean * size, (1.0 - mean) * size
