"""Policies for slates."""

from recgym.baselines import Family

__all__ = ["FAMILY"]

FAMILY = Family(page="Recommendation in slates")
