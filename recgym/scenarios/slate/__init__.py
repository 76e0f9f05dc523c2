"""Content recommendation in slates: users, how they choose and what it is worth, the scenario, and its optimum."""

from recgym.scenarios.slate.slate import Slate

__all__ = ["Slate"]
