"""Draw docs/trial.png: what a trial is. One user, ten items, a hundred decisions of the shipped agent.

python docs/trial.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import recgym  # noqa: F401
from recgym.agents import load_pretrained

SEED = 19
BLUE, GREY, DARK = "#0072B2", "#B8C4CE", "#333333"


def play(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The hidden click rates [K], the items shown [T] and the clicks [T] of one trial."""
    env: Any = gym.make("RecBandit-v0")
    agent = load_pretrained("RecBandit-v0")
    agent.set_random_seed(seed)
    observation, info = env.reset(seed=seed)
    rates, shown, clicks, memory, ended = np.asarray(info["task"]["rates"]), [], [], None, False
    while not ended:
        action, memory = agent.predict(observation, state=memory)
        observation, click, ended, _, _ = env.step(action)
        shown.append(int(action))
        clicks.append(click)
    return rates, np.asarray(shown), np.asarray(clicks)


def draw(rates: np.ndarray, shown: np.ndarray, clicks: np.ndarray) -> Figure:
    """The rates on the left, hidden from the agent; on the right what it shows, and what comes of it."""
    order = np.argsort(rates)
    place = np.argsort(order)
    figure = Figure(figsize=(10, 3.4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1, 4.2))
    best = [BLUE if item == order[-1] else GREY for item in order]
    left.barh(range(len(rates)), rates[order], color=best, height=0.7)
    left.set(title="hidden: how often this\nuser would click", xlim=(1, 0), yticks=range(len(rates)))
    left.set_yticklabels([f"item {item}" for item in order])
    time = np.arange(1, len(shown) + 1)
    for clicked, face, label in ((True, BLUE, "click"), (False, "white", "no click")):
        here = (clicks > 0) == clicked
        right.scatter(time[here], place[shown[here]], s=26, facecolor=face, edgecolor=BLUE, linewidth=0.9, label=label)
    right.set(
        title="one trial: what the agent shows, decision by decision", xlabel="decision", xlim=(0, len(shown) + 1)
    )
    right.legend(loc="lower right", frameon=False)
    right.grid(axis="y", color=GREY, alpha=0.4)
    for axes in (left, right):
        axes.title.set_fontsize(10)
        axes.title.set_color(DARK)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(length=0)
    return figure


if __name__ == "__main__":
    draw(*play(SEED)).savefig(Path(__file__).with_name("trial.png"))
