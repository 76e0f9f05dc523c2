"""Which of ten items does this user click? Train an agent for a moment, then play the one that ships.

python agents/RecBandit-v0/example.py            # about a minute on one core
python agents/RecBandit-v0/example.py 2000 50    # decisions of training, trials of the comparison
"""

from __future__ import annotations

import sys

import numpy as np

import recgym
from recgym.agents import MetaPPO, load_pretrained
from recgym.agents.algorithms import build
from recgym.agents.tuned import tuned_values
from recgym.evaluation import TEST_SEED, evaluate
from recgym.live import LiveSession
from recgym.sb3 import make_vec_env

ID = "RecBandit-v0"
BESIDE = ("ucb1_tuned",)  # the best baseline that starts from nothing


def train(decisions: int) -> MetaPPO:
    """Train with the values of the recipe, but for a moment: three quarters imitate the expert, then PPO."""
    values = tuned_values("meta_ppo", ID)
    del values["n_timesteps"], values["n_envs"]
    values["pretrain_steps"] = 3 * decisions // 4
    agent = build("meta_ppo", make_vec_env(ID, n_envs=64, seed=0), values, seed=0)
    return agent.learn(decisions)


def play(agent: MetaPPO) -> None:
    """One user, who likes item 7: what the agent shows."""
    scenario = recgym.make_scenario(ID)
    session = LiveSession(agent, scenario)
    rng = np.random.default_rng(0)
    shows = ""
    for _ in range(scenario.horizon):
        item = int(session.choose()[0])
        session.learn({"click": float(rng.random() < (0.8 if item == 7 else 0.3))})
        shows += str(item)
    print(f"one user, who likes item 7, is shown {shows}")


def main(decisions: int = 128000, trials: int = 500) -> None:
    """Train, compare on held-out trials, play one."""
    agents = {"trained for a moment": train(decisions), "shipped": load_pretrained(ID)}
    comparison = evaluate(ID, {**agents, **dict.fromkeys(BESIDE)}, trials=trials, seed=TEST_SEED)
    for name, summary in sorted(comparison.summaries.items(), key=lambda item: -item[1].returns.mean):
        mean, low, high = summary.returns
        print(f"{name:22} {mean:6.2f} ({low:.2f} to {high:.2f}) clicks per trial")
    play(agents["shipped"])


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
