"""Agents for recgym, used like any Stable-Baselines3 algorithm, and their checkpoints."""

try:
    import safetensors  # noqa: F401 - tried here, so that what lacks is named with its extra
    import stable_baselines3  # noqa: F401 - as above
    import torch  # noqa: F401 - as above
except ImportError as error:
    raise ImportError(f"recgym.agents needs {error.name}: pip install 'recgym[agents]'") from error

from recgym.agents.checkpoint import export, load, save
from recgym.agents.memory import Memory
from recgym.agents.meta_ppo import MetaPPO
from recgym.agents.pretrained import load_pretrained

__all__ = ["Memory", "MetaPPO", "export", "load", "load_pretrained", "save"]
