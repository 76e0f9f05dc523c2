# # The price of a new product
#
# A shop has a stock, a season of sixty decisions, and no idea how demand answers to the price. What is that worth
# knowing?

import matplotlib.pyplot as plt
import numpy as np

import recgym
from recgym.agents import load_pretrained
from recgym.baselines import make_baseline
from recgym.evaluation import evaluate
from recgym.live import LiveSession

scenario = recgym.make_scenario("DynamicPricing-v0")
print(scenario.layout.candidates, "pairs of price and promotion,", scenario.horizon, "decisions")

# ## How well can one do?
#
# The bound is above what any policy can expect to earn on a product, so the percent of it is a scale that needs no
# other policy. `glm_ts` is Thompson sampling with a Poisson regression and a plan for the stock, the best of the
# baselines that know nothing before.

agent = load_pretrained("DynamicPricing-v0")
comparison = evaluate(scenario, {"agent": agent, "glm_ts": None, "constant": None}, trials=200, seed=2_000_000)
for name, summary in sorted(comparison.summaries.items(), key=lambda pair: -pair[1].returns.mean):
    mean, low, high = (100 * share for share in summary.of_bound)
    print(f"{name:10} {summary.returns.mean:6.2f} per season, {mean:.1f} % of the bound ({low:.1f} to {high:.1f})")

# ## When does it know?
#
# What is earned up to each decision, on average over the products, as a share of what the informed policy has earned
# by then.

figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
informed = comparison.trials["informed"].rewards.mean(axis=0).cumsum()
for name in ("agent", "glm_ts", "constant"):
    earned = comparison.trials[name].rewards.mean(axis=0).cumsum()
    axes.plot(np.arange(1, scenario.horizon + 1), 100 * earned / informed, label=name)
axes.set(xlabel="decision", ylabel="% of the informed policy's earnings", xlim=(1, scenario.horizon))
axes.legend(frameon=False)
plt.show()

# ## In the shop
#
# Outside of the simulator there is only what the shop sees: units sold, and whether somebody went away for want of
# stock. Nobody has forecast the demand here, which the shipped agent expects, so the baseline decides. The customers
# are made up: each of 40 buys at price 1 with probability .2, and far less so at a higher price.

small = recgym.make_scenario("DynamicPricing-v0", horizon=20, embedding=0, forecast=None)
rng = np.random.default_rng(0)
session = LiveSession(make_baseline("glm_ts", small), small)
start = {
    "embedding": [],
    "forecast": np.zeros(21),
    "phase": 0.0,
    "cost": 0.4,
    "supply": 120,
    "w_rev": 1.0,
    "w_vol": 0.0,
}
reference, left = 1.0, 120
for decision in range(small.horizon):
    action = int(session.choose({**start, "reference": reference, "rival_seen": 1.0})[0])
    price = float(small.ladder.paid[action])
    wanted = rng.binomial(40, min(0.2 * price**-2.5, 1.0))
    sold = min(wanted, left)
    session.learn({"sold": sold, "short": wanted > left})
    left -= sold
    reference = 0.75 * reference + 0.25 * price
    if decision % 4 == 0:
        print(f"decision {decision:2}: price {price:.2f}, {sold} sold, {left} left")
