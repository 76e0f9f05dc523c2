"""Agents for recgym, used like any Stable-Baselines3 algorithm, and their checkpoints."""

from recgym.agents.checkpoint import export, load, save
from recgym.agents.memory import Memory
from recgym.agents.meta_ppo import MetaPPO
from recgym.agents.pretrained import load_pretrained

__all__ = ["Memory", "MetaPPO", "export", "load", "load_pretrained", "save"]
