"""Readers of public logs, and task distributions fitted to them."""

from __future__ import annotations

from recgym.data.bandit import MIN_CLICKS, Estimate, OpenBanditLog, fit_beta, off_policy, open_bandit, verdict
from recgym.data.pricing import HeldOut, ProductFit, TransactionLog, transactions

__all__ = [
    "MIN_CLICKS",
    "Estimate",
    "HeldOut",
    "OpenBanditLog",
    "ProductFit",
    "TransactionLog",
    "fit_beta",
    "off_policy",
    "open_bandit",
    "transactions",
    "verdict",
]
