"""Advertising: creatives, budgets, auctions, and conversions that come late."""

from recgym.scenarios.ads.bidding import Bidding
from recgym.scenarios.ads.placement import Placement

__all__ = ["Bidding", "Placement"]
