"""Which price, which promotion? Train an agent for a moment, then play the one that ships.

python agents/DynamicPricing-v0/example.py            # about two minutes on one core
python agents/DynamicPricing-v0/example.py 2000 50    # decisions of training, trials of the comparison
"""

from __future__ import annotations

import sys

from recgym.agents import MetaPPO, load_pretrained
from recgym.agents.algorithms import build
from recgym.agents.tuned import tuned_values
from recgym.evaluation import TEST_SEED, evaluate
from recgym.sb3 import make_vec_env

ID = "DynamicPricing-v0"
BESIDE = ("glm_ts",)  # the best baseline that starts from nothing


def train(decisions: int) -> MetaPPO:
    """Train with the values of the recipe, but for a moment: three quarters imitate the expert, then PPO."""
    values = tuned_values("meta_ppo", ID)
    del values["n_timesteps"], values["n_envs"]
    values["pretrain_steps"] = 3 * decisions // 4
    agent = build("meta_ppo", make_vec_env(ID, n_envs=64, seed=0), values, seed=0)
    return agent.learn(decisions)


def play(agent: MetaPPO) -> None:
    """One product of the simulator, drawn: prices and sales of its season."""
    env = make_vec_env(ID, n_envs=1, seed=TEST_SEED)
    scenario = env.scenario
    observation, memory, line = env.reset(), None, []
    for _ in range(scenario.horizon):
        action, memory = agent.predict(observation, state=memory)
        observation, _, _, infos = env.step(action)
        line.append(f"{scenario.candidate_names[int(action[0])]}: {infos[0]['volume']:.0f}")
    print(f"one product, price and units sold: {', '.join(line[:20])}, ...")


def main(decisions: int = 96000, trials: int = 500) -> None:
    """Train, compare on held-out trials, play one."""
    agents = {"trained for a moment": train(decisions), "shipped": load_pretrained(ID)}
    comparison = evaluate(ID, {**agents, **dict.fromkeys(BESIDE)}, trials=trials, seed=TEST_SEED)
    for name, summary in sorted(comparison.summaries.items(), key=lambda item: -item[1].returns.mean):
        mean, low, high = summary.returns
        print(f"{name:22} {mean:6.2f} ({low:.2f} to {high:.2f}) reward per trial")
    play(agents["shipped"])


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
