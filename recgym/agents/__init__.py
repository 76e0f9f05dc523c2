"""Agents for recgym, used like any Stable-Baselines3 algorithm, and their checkpoints."""

try:
    import safetensors  # noqa: F401
    import stable_baselines3  # noqa: F401
    import torch  # noqa: F401
except ImportError as error:
    raise ImportError(f"recgym.agents needs {error.name}: pip install 'recgym[agents]'") from error

from recgym.agents.checkpoint import export, load, save
from recgym.agents.memory import Memory
from recgym.agents.meta_ppo import MetaPPO
from recgym.agents.pretrained import load_pretrained

__all__ = ["Memory", "MetaPPO", "export", "load", "load_pretrained", "save"]
