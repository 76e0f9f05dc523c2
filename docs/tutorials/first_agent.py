# # A first agent
#
# Train an agent for half a minute, see how it explores, and compare it with what is known to be good.

import matplotlib.pyplot as plt
import numpy as np

import recgym
from recgym.agents import MetaPPO, load_pretrained
from recgym.evaluation import evaluate
from recgym.sb3 import make_vec_env

# A *trial* is one user: ten items, a hundred decisions, click rates that nobody tells. Many trials are computed as
# one batch.

scenario = recgym.make_scenario("RecBandit-v0")
env = make_vec_env("RecBandit-v0", n_envs=64, seed=0)
print(env.num_envs, "users at a time,", scenario.horizon, "decisions each,", scenario.layout.candidates, "items")

# ## Train
#
# `MetaPPO` first imitates an expert, here the Gittins index, which plays nearly as well as is possible; then it goes
# on by itself.

agent = MetaPPO(
    "TransformerPolicy",
    env,
    expert="gittins",
    pretrain_steps=96_000,
    learning_rate=1e-3,
    batch_size=1600,
    pretrain_epochs=2,
    batch_decisions=32,
    seed=0,
).learn(102_400)

# ## Compare
#
# Everybody meets the same users, with the same luck. `None` stands for a baseline of that name.

policies = {
    "trained here": agent,
    "shipped": load_pretrained("RecBandit-v0"),
    "gittins": None,
    "thompson": None,
    "greedy": None,
}
comparison = evaluate(scenario, policies, trials=500, seed=2_000_000)
for name, summary in sorted(comparison.summaries.items(), key=lambda pair: -pair[1].returns.mean):
    mean, low, high = summary.returns
    print(f"{name:14} {mean:6.2f} ({low:.2f} to {high:.2f}) clicks, normalised score {summary.normalised.mean:.2f}")

# ## Look
#
# Regret is what was lost to a policy that knows the user. A curve that bends is one of a policy that learns within
# the trial.

figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
for name, trials in comparison.trials.items():
    if name not in ("informed", "random"):
        axes.plot(np.arange(1, scenario.horizon + 1), trials.regret.mean(axis=0).cumsum(), label=name)
axes.set(xlabel="decision", ylabel="regret so far (clicks)", xlim=(1, scenario.horizon), ylim=(0, None))
axes.legend(frameon=False)
plt.show()

# ## Keep
#
# One file without pickles, which plays any number of items and decisions.

agent.save("first_agent")
larger = MetaPPO.load("first_agent", env=make_vec_env("RecBandit-v0", n_envs=1, arms=30, horizon=50, seed=1))
action, memory = larger.predict(larger.env.reset())
print("of 30 items it shows", action[0])
