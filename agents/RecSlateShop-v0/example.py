"""A page of a shop: what does this user buy? Train an agent for a moment, then play the one that ships.

python agents/RecSlateShop-v0/example.py            # about two minutes on one core
python agents/RecSlateShop-v0/example.py 2000 50    # decisions of training, trials of the comparison
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

ID = "RecSlateShop-v0"
# starts from nothing; knows the user, not the future
BESIDE = ("linucb_burden", "myopic")


def train(decisions: int) -> MetaPPO:
    """Train with the values of the recipe, but for a moment: all of it imitates the expert."""
    values = tuned_values("meta_ppo", ID)
    del values["n_timesteps"], values["n_envs"]
    values["pretrain_steps"] = decisions
    agent = build("meta_ppo", make_vec_env(ID, n_envs=64, seed=0), values, seed=0)
    return agent.learn(decisions)


def play(agent: MetaPPO) -> None:
    """One user, who buys what is cheap whatever it is: the mean price of what the agent shows, over the decisions."""
    scenario = recgym.make_scenario(ID)
    session = LiveSession(agent, scenario)
    rng = np.random.default_rng(0)
    price = scenario.items.price
    means = []
    for _ in range(scenario.horizon):
        items = rng.choice(len(price), 20, replace=False)
        page = items[session.choose({"item": items, "present": True, "preference": []})[0]]
        click = np.arange(4) == price[page].argmin()
        bought = click & (rng.random() < 0.5) & (price[page] < 0.25)
        session.learn({"click": click, "value": price[page] * bought})
        means.append(price[page].mean())
    tenths = [f"{part.mean():.2f}" for part in np.array_split(means, 10)]
    print(
        f"one user, who clicks on what is cheapest and buys below .25: mean price shown, by tenths: {', '.join(tenths)}"
    )


def main(decisions: int = 128000, trials: int = 500) -> None:
    """Train, compare on held-out trials, play one."""
    agents = {"trained for a moment": train(decisions), "shipped": load_pretrained(ID)}
    comparison = evaluate(ID, {**agents, **dict.fromkeys(BESIDE)}, trials=trials, seed=TEST_SEED)
    for name, summary in sorted(comparison.summaries.items(), key=lambda item: -item[1].returns.mean):
        mean, low, high = summary.returns
        print(f"{name:22} {mean:6.2f} ({low:.2f} to {high:.2f}) spent per trial")
    play(agents["shipped"])


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
