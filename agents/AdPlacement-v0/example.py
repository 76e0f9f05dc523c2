"""Which creative in which part of the day, for the budget? Train an agent for a moment, then play the one that ships.

python agents/AdPlacement-v0/example.py            # about two minutes on one core
python agents/AdPlacement-v0/example.py 2000 50    # decisions of training, trials of the comparison
"""

from __future__ import annotations

import sys

from recgym.agents import MetaPPO, load_pretrained
from recgym.agents.algorithms import build
from recgym.agents.tuned import tuned_values
from recgym.evaluation import TEST_SEED, evaluate
from recgym.sb3 import make_vec_env

ID = "AdPlacement-v0"
BESIDE = ("greedy_lp", "lints_lp")  # who believes the predictions, and the best baseline that starts from nothing


def train(decisions: int) -> MetaPPO:
    """Train with the values of the recipe, but for a moment: all of it imitates the expert."""
    values = tuned_values("meta_ppo", ID)
    del values["n_timesteps"], values["n_envs"]
    values["pretrain_steps"] = decisions
    agent = build("meta_ppo", make_vec_env(ID, n_envs=64, seed=0), values, seed=0)
    return agent.learn(decisions)


def play(agent: MetaPPO) -> None:
    """One campaign of the simulator, drawn: what is shown where, day by day."""
    env = make_vec_env(ID, n_envs=1, seed=TEST_SEED)
    scenario = env.scenario
    observation, memory, line = env.reset(), None, []
    for _ in range(scenario.horizon):
        action, memory = agent.predict(observation, state=memory)
        observation, _, _, infos = env.step(action)
        line.append(f"{scenario.candidate_names[int(action[0])]}: {infos[0]['clicks']:.0f}")
    print(f"one campaign, creative and slot, clicks: {', '.join(line[:20])}, ...")


def main(decisions: int = 61440, trials: int = 500) -> None:
    """Train, compare on held-out trials, play one."""
    agents = {"trained for a moment": train(decisions), "shipped": load_pretrained(ID)}
    comparison = evaluate(ID, {**agents, **dict.fromkeys(BESIDE)}, trials=trials, seed=TEST_SEED)
    for name, summary in sorted(comparison.summaries.items(), key=lambda item: -item[1].returns.mean):
        mean, low, high = summary.returns
        print(f"{name:22} {mean:6.2f} ({low:.2f} to {high:.2f}) base packets per trial")
    play(agents["shipped"])


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
