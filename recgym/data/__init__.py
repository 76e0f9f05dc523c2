"""Readers of public logs, and task distributions fitted to them."""

from __future__ import annotations

from recgym.data.bandit import OpenBanditLog, fit_beta, open_bandit
from recgym.data.pricing import HeldOut, ProductFit, TransactionLog, transactions

__all__ = ["HeldOut", "OpenBanditLog", "ProductFit", "TransactionLog", "fit_beta", "open_bandit", "transactions"]
