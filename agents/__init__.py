"""Agents for recgym, used like any Stable-Baselines3 algorithm, and their checkpoints."""

from agents.checkpoint import load, load_pretrained, save

__all__ = ["load", "load_pretrained", "save"]
