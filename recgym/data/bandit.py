"""Logs of recommendations: reader, the prior fitted to them and off-policy values of policies.

The log format is that of the Open Bandit Dataset (Saito, Aihara, Matsutani & Narita 2021, arXiv:2008.07146): one row
per item shown, with the probability with which it was chosen and whether it was clicked.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from recgym.data.reading import Column, read_columns
from recgym.scenarios.bandit import LARGEST_PRIOR, SMALLEST_PRIOR

__all__ = ["MIN_CLICKS", "Estimate", "OpenBanditLog", "fit_beta", "off_policy", "open_bandit", "verdict"]

# A rate measured by n clicks has relative standard error 1/sqrt(n) (Poisson), the difference of two such rates
# sqrt(2/n): at 100 clicks 10 % and 14 %, so that a 95 % interval resolves differences from 28 % up. The two policies
# of the Open Bandit Dataset differ by about 50 %; what is worth a comparison is seldom larger.
MIN_CLICKS = 100


# --- reading ---------------------------------------------------------------------------------------------------------
def _seconds(text: str) -> float:
    """Seconds since 1970 of an ISO 8601 time; without an offset it is UTC."""
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


# The published files say `click`, `propensity_score`, `user-item_affinity_*`; their description (obd/README.md of
# st-tech/zr-obp) says `action_prob`, `user_item_affinity`, and the paper calls the click "click indicator".
OPEN_BANDIT = {
    "timestamp": Column(("timestamp",), _seconds, np.float64, np.isfinite, "an ISO 8601 time (2019-11-24 00:03:13)"),
    "item": Column(("item_id",), int, np.int64, np.isfinite, "a whole number"),
    "position": Column(("position",), int, np.int64, np.isfinite, "a whole number"),
    "click": Column(("click", "click_indicator"), float, np.float32, lambda x: (x == 0) | (x == 1), "0 or 1"),
    "propensity": Column(
        ("propensity_score", "action_prob"), float, np.float64, lambda x: (x > 0) & (x <= 1), "in (0, 1]"
    ),
}


def _find_log(folder: Path) -> Path:
    """The one log of a folder: in its subfolder `random` (the uniform policy, which shows every item) or directly."""
    for pattern in ("random/*", "*", "random/*/*"):  # the last is the layout of the full data: random/men/men.csv
        logs = sorted(path for path in folder.glob(pattern) if path.name.endswith((".csv", ".csv.gz")))
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
        return {
            "arms": self.arms,
            "prior": [min(max(x, SMALLEST_PRIOR), LARGEST_PRIOR) for x in self.prior],
        }  # it takes these

    def item_rates(self, prior: tuple[float, float] | None = None) -> np.ndarray:
        """[K] posterior mean click rate of each item under the Beta `prior` (default: the fitted one)."""
        a, b = self.prior if prior is None else prior
        return (self.clicks + a) / (self.impressions + a + b)


def open_bandit(path: str | Path) -> OpenBanditLog:
    """Read a log in the Open Bandit layout, with either spelling of its columns.

    Args:
        path: a .csv or .csv.gz file, or a folder that holds one log directly or in its subfolder `random` (preferred).

    Raises:
        FileNotFoundError: no such file, or no log in the folder.
        ValueError: several logs in the folder, or a malformed file; the message names file, line and column.
    """
    source = Path(path)
    if source.is_dir():
        source = _find_log(source)
    elif not source.exists():
        raise FileNotFoundError(f"{source} does not exist: name a log (.csv, .csv.gz) or the folder that holds it")
    columns = read_columns(source, OPEN_BANDIT, record="impression")
    order = np.argsort(columns.pop("timestamp"), kind="stable")  # the items of one page share a time: keep their order
    items, action = np.unique(columns.pop("item"), return_inverse=True)
    rest = {key: array[order] for key, array in columns.items()}
    return OpenBanditLog(action=action[order].astype(np.int64), items=items, path=str(source), **rest)


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


# --- off-policy values -----------------------------------------------------------------------------------------------
def verdict(clicks: float) -> str:
    """Whether a value that rests on so many clicks may be compared with another; see `MIN_CLICKS`."""
    return "enough clicks to compare" if clicks >= MIN_CLICKS else "too few clicks to compare"


class Estimate(NamedTuple):
    """Clicks per impression that a policy would have got, with a 95 % bootstrap interval."""

    value: float
    low: float
    high: float
    effective_sample_size: float  # rows; (sum w)^2 / sum w^2
    clicks: int  # with positive weight

    @property
    def verdict(self) -> str:
        """By the clicks seen or, if fewer, those that as many on-policy rows as the effective sample would hold."""
        return verdict(min(self.clicks, self.effective_sample_size * self.value))


def off_policy(log: OpenBanditLog, probabilities: Any, *, resamples: int = 1000, seed: int = 0) -> dict[str, Estimate]:
    """Value of a policy on a log of another one, by "ips" and "snips".

    With w = pi(a | x) / propensity, IPS is mean(w r): unbiased wherever the logging policy gives every choice of pi
    a positive probability (Li et al. 2011 for uniform logs; Saito et al. 2021, sec. 4). SNIPS is sum(w r) / sum(w)
    (Swaminathan & Joachims 2015): biased by O(1/N), but steadier, and indifferent to the scale of the propensities.
    The interval is the 2.5 to 97.5 percentile range over resampled rows; with few clicks it is too narrow.

    Args:
        log: the log, N rows and K items.
        probabilities: [K] or [N, K] pi(item) in the order of `log.items`; each row sums to 1.
        resamples: bootstrap samples.
        seed: of the bootstrap.

    Raises:
        ValueError: wrong shape, no distribution, or a policy that never chooses what was logged.
    """
    policy, rows = np.asarray(probabilities, np.float64), len(log.action)
    if policy.shape not in ((log.arms,), (rows, log.arms)):
        raise ValueError(f"probabilities have shape {policy.shape}, not ({log.arms},) or ({rows}, {log.arms})")
    if not ((policy >= 0).all() and np.allclose(policy.sum(-1), 1.0, rtol=0, atol=1e-4)):  # 1e-4: a float32 softmax
        raise ValueError("probabilities must be non-negative and sum to 1 over the items")
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}, not at least 1")
    chosen = policy[log.action] if policy.ndim == 1 else policy[np.arange(rows), log.action]
    weight, click = chosen / log.propensity, log.click.astype(np.float64)  # [N]
    if not weight.any():
        raise ValueError(f"the policy never chooses an item logged in {log.path}: its value cannot be estimated")

    # Equal rows are exchangeable: resampling the counts of the G distinct (w, r) is the same bootstrap, and cheaper.
    groups, counts = np.unique(weight + 1j * click, return_counts=True)
    terms = np.stack([groups.real * groups.imag, groups.real], axis=1)  # [G, 2] w r, w
    rng = np.random.default_rng(seed)
    sums = np.stack([rng.multinomial(rows, counts / rows) @ terms for _ in range(resamples)])  # [resamples, 2]
    sums = np.concatenate([[counts @ terms], sums])  # the sample itself, then the resamples
    weights = np.maximum(sums[:, 1], np.finfo(float).tiny)  # a resample without weight has no clicks either: value 0
    effective, clicks = sums[0, 1] ** 2 / (weight**2).sum(), int((weight * click > 0).sum())
    report = {}
    for key, (value, *samples) in {"ips": sums[:, 0] / rows, "snips": sums[:, 0] / weights}.items():
        low, high = np.quantile(samples, (0.025, 0.975))
        report[key] = Estimate(float(value), float(low), float(high), float(effective), clicks)
    return report
