"""Policies for campaigns. The table of their names."""

from __future__ import annotations

from recgym.baselines import Family

__all__ = ["FAMILY"]

FAMILY = Family(page="Advertising")
