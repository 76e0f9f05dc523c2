"""Policies as people name them: a checkpoint, or a trained agent that ships with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recgym.agents.checkpoint import load, read
from recgym.agents.environments import know_catalog
from recgym.agents.folders import checkpoint_of
from recgym.agents.pretrained import agent_file
from recgym.evaluation import PRETRAINED, rl2
from recgym.layout import Layout
from recgym.sb3 import RecVecEnv

__all__ = ["home_of", "load_player", "suite_player", "weights_file"]


def weights_file(source: str) -> Path:
    """Find the file that a policy is loaded from.

    Args:
        source: "pretrained:" before a name of `recgym.agents.pretrained.agent_files`, or a path: of a file, of the
            folder of a run, or `latest` in a folder of runs.

    Raises:
        ValueError: no such agent ships (names the nearest).
        FileNotFoundError: the folder holds no checkpoint.
    """
    if not source.startswith(PRETRAINED):
        return checkpoint_of(Path(source))
    return agent_file(source.removeprefix(PRETRAINED))


def home_of(source: str) -> tuple[str, dict[str, Any]] | None:
    """The registered environment that a policy was trained in, and its parameters; None: it was another."""
    path = weights_file(source)
    env = read(path)[0]["env"]
    know_catalog(path, env["parameters"])
    return None if env["id"] is None else (env["id"], dict(env["parameters"]))


def load_player(source: str, scenario: Any, *, device: str) -> Any:
    """Load a policy to play a scenario; see `weights_file` and `recgym.agents.load`."""
    return load(weights_file(source), env=RecVecEnv(scenario, 1), device=device)


def suite_player(source: str, *, deterministic: bool, device: str) -> rl2.SuiteAgent:
    """Take a checkpoint as a suite does, in the observation mode that it was trained in; errors as in `read`."""
    path = weights_file(source)
    header, _ = read(path)
    if header["layout"] is None:
        raise ValueError(f"{path}: was trained on observations without named fields, which no suite has")
    layout = Layout.from_json(header["layout"])
    names = [field.name for field in layout]

    def build(scenario: Any) -> Any:
        try:
            return load(path, env=RecVecEnv(scenario, 1), device=device)
        except ValueError:
            if layout.candidates != scenario.arms and names == [field.name for field in scenario.layout]:
                raise ValueError(f"trained on {layout.candidates} candidates") from None
            raise

    about = {"path": source, **{key: header[key] for key in ("algo", "env", "num_timesteps", "versions")}}
    return rl2.SuiteAgent(build, "average" in names, deterministic, about)
