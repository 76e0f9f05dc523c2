"""Readers of public logs and tables of items, and task distributions fitted to them."""

from __future__ import annotations

from recgym.data.adaptation import AdaptationGain, adapt, adaptation_gain
from recgym.data.ads import impressions
from recgym.data.bandit import OpenBanditLog, fit_beta, open_bandit
from recgym.data.factors import item_vectors
from recgym.data.impression_log import ImpressionLog
from recgym.data.items import clothing_items, item_table, movielens_items
from recgym.data.pricing import HeldOut, ProductFit, TransactionLog, transactions
from recgym.data.slate import RatingLog, ratings

__all__ = [
    "AdaptationGain",
    "HeldOut",
    "ImpressionLog",
    "OpenBanditLog",
    "ProductFit",
    "RatingLog",
    "TransactionLog",
    "adapt",
    "adaptation_gain",
    "clothing_items",
    "fit_beta",
    "impressions",
    "item_table",
    "item_vectors",
    "movielens_items",
    "open_bandit",
    "ratings",
    "transactions",
]
