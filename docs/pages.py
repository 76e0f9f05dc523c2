"""Write the pages of the environments, one for each id of the registry, from the code and the results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym

import recgym
from recgym.agents import load_pretrained
from recgym.agents.pretrained import agent_ids
from recgym.baselines import family_of, make_baseline
from recgym.cli.pages import environment_page, environments_table

SEED = 10  # of the trial that is drawn
HEAD = """# Environments

Each id is a preset: a scenario class with parameters. Any of them can be changed: `gym.make("RecBandit-v0", arms=20)`,
`recgym train --env RecBandit-v0 --param arms=20`. `recgym list ID` prints what these pages say.

"""


def write_pages(source: Path) -> None:
    """Write `environments/` below the folder of the documentation.

    Args:
        source: where `conf.py` lies; `equations/CLASS.md` and `results/ID.md` are taken up where they exist.
    """
    folder = source / "environments"
    folder.mkdir(exist_ok=True)
    contents = "\n".join(["", "", "```{toctree}", ":hidden:", "", *recgym.SCENARIOS, "```", ""])
    write_changed(folder / "index.md", HEAD + environments_table(linked=True) + contents)
    for env_id in recgym.SCENARIOS:
        page = environment_page(env_id, source)
        write_changed(folder / f"{env_id}.md", page)
        picture = folder / f"{env_id}.png"
        if not picture.exists():
            write_picture(env_id, picture)


def write_changed(path: Path, text: str) -> None:
    """Leave a file alone that says this already, so that Sphinx need not read it again."""
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def write_picture(env_id: str, path: Path) -> None:
    """Draw a trial: of the shipped agent, or of the best known baseline.

    After its last decision but one; of a campaign half-way, as its budget may be gone at the end.
    """
    from PIL import Image

    env: Any = gym.make(env_id, render_mode="rgb_array")
    scenario = env.unwrapped.scenario
    policy = (
        load_pretrained(env_id) if env_id in agent_ids() else make_baseline(family_of(scenario).shown[-1], scenario)
    )
    observation, _ = env.reset(seed=SEED)
    policy_state = None
    for _ in range(scenario.horizon - 1 if scenario.candidate_grid is None else scenario.horizon // 2):
        action, policy_state = policy.predict(observation, state=policy_state, deterministic=True)
        observation, *_ = env.step(action)
    Image.fromarray(env.render()).save(path)
