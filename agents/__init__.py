"""Agents for recgym, used like any Stable-Baselines3 algorithm, and their checkpoints."""

from agents.checkpoint import load, load_pretrained, save
from agents.meta_ppo import MetaPPO
from agents.transformer import Memory

__all__ = ["Memory", "MetaPPO", "load", "load_pretrained", "save"]
