"""Dynamic pricing: demand, what is said of a product, the scenario, and the bound on any policy."""

from recgym.scenarios.pricing.dynamic import DynamicPricing

__all__ = ["DynamicPricing"]
