"""Agents for recgym, used like any Stable-Baselines3 algorithm, and their checkpoints."""

from agents.checkpoint import load, save

__all__ = ["load", "save"]
