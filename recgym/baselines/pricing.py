"""Pricing policies: what sells is learned from prices, sales and stock as observed; the fluid program decides.

All are index policies: whatever chance they take belongs to the index, and they ignore `deterministic`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np

from recgym import fluid
from recgym.baselines import Baseline
from recgym.baselines.bandit import Floats, IndexPolicy, Seen, counting, epsilon_greedy, restarted, ucb1
from recgym.baselines.contextual import draw
from recgym.core import tree_map
from recgym.rng import NumpyRng, make_rng
from recgym.runner import Runner
from recgym.scenarios.demand import AR1, Ladder, shares
from recgym.scenarios.pricing import EMBEDDING_NOISE, RIVAL_MEMORY, SPECK, TILT

__all__ = ["BASELINES"]

PARTICLES = 1000
LEAST_NOISE = 0.02  # of a forecast, to particles, of which none is the product itself
PARTICLE_SEED = 999_983  # of training tasks
PRIOR_TRIALS = 500  # of training tasks, from which Meta-DP learns its prior
PRIOR_SEED = 999_979


# --- what is seen ----------------------------------------------------------------------------------------------------
class Market(NamedTuple):
    """An observation in units."""

    margin: Floats  # [B, K] reward per unit sold, in base prices
    sold: Floats  # [B] units in the last decision
    stock: Floats  # [B] units left
    supply: Floats  # [B] units left per decision left
    open: Any  # [B] bool, whether the last sales were demand: there was a decision, and stock is left


def market(scenario: Any, seen: Seen) -> Market:
    paid = scenario.ladder.paid.astype(np.float64)
    margin = seen.field("w_rev")[:, None] * (paid - seen.field("cost")) + seen.field("w_vol")[:, None]
    supply = np.expm1(seen.field("pace")) * scenario.sales_unit
    stock = supply * np.maximum(seen.remaining, 1.0)
    demanded = seen.chosen.any(axis=1) & (stock > 0.5)
    return Market(margin, seen.field("last_sales") * scenario.sales_unit, stock, supply, demanded)


def mixed(margin: Floats, demand: Floats, supply: Floats, seen: Seen) -> Floats:
    """Scores [B, K] of an action drawn from the fluid program's mix."""
    mix = fluid.solve(margin * demand, demand, supply)
    second = seen.rng.random(len(margin)) < mix.weight
    return one_hot(fluid.action_of(mix, second, margin * demand), margin.shape[1])


def one_hot(action: np.ndarray, count: int) -> Floats:
    scores = np.zeros((len(action), count))
    scores[np.arange(len(action)), action] = 1.0
    return scores


# --- a demand per candidate ------------------------------------------------------------------------------------------
class Tally(NamedTuple):
    shown: Floats  # [B, K] how often each candidate was chosen while there was stock
    sold: Floats  # [B, K] units it sold then
    supply: Floats  # [B] units per decision at the start
    time: Floats  # [B] decisions made
    price: Floats  # [B] dual price of stock, used by PD-BwK alone


def tallying(scenario: Any, index: Callable[[Tally, Seen, Market], Floats], until: float = np.inf) -> IndexPolicy:
    """Counts and sales of each candidate, whatever its price, over the first `until` decisions."""
    count = scenario.layout.candidates

    def learn(memory: Tally, seen: Seen) -> Tally:
        now = market(scenario, seen)
        counted = seen.chosen * (now.open & (memory.time < until))[:, None]
        first = ~seen.chosen.any(axis=1)
        return memory._replace(
            shown=memory.shown + counted,
            sold=memory.sold + counted * now.sold[:, None],
            supply=np.where(first, now.supply, memory.supply),
            time=memory.time + ~first,
        )

    def start(rows: int) -> Tally:
        shown, sold = np.zeros((2, rows, count))
        return Tally(shown, sold, np.zeros(rows), np.zeros(rows), np.ones(rows))

    return IndexPolicy(scenario, start, learn, lambda memory, seen: index(memory, seen, market(scenario, seen)))


def drawn_demand(scenario: Any, memory: Tally, rng: np.random.Generator) -> Floats:
    """[B, K] a draw of each candidate's demand in a decision.

    From Beta(1 + buyers, 1 + others) where one customer comes (Ferreira et al. 2018), else from a Gamma whose prior is
    exponential with the mean of one sales unit.
    """
    if scenario.customers == 1 and not scenario.poisson:
        drawn = rng.beta(1.0 + memory.sold, 1.0 + np.maximum(memory.shown - memory.sold, 0.0))
    else:
        drawn = rng.gamma(1.0 + memory.sold) / (1.0 / scenario.sales_unit + memory.shown)
    return drawn * scenario.sells


def thompson(scenario: Any) -> IndexPolicy:
    """Thompson sampling that ignores the stock."""
    return tallying(scenario, lambda memory, seen, now: now.margin * drawn_demand(scenario, memory, seen.rng))


def ts_fixed(scenario: Any) -> IndexPolicy:
    """Ferreira, Simchi-Levi & Wang 2018, algorithm 1: the fluid program of a drawn demand, with the first supply."""

    def index(memory: Tally, seen: Seen, now: Market) -> Floats:
        return mixed(now.margin, drawn_demand(scenario, memory, seen.rng), memory.supply, seen)

    return tallying(scenario, index)


def ts_update(scenario: Any) -> IndexPolicy:
    """Their algorithm 2: with the supply that is left."""

    def index(memory: Tally, seen: Seen, now: Market) -> Floats:
        return mixed(now.margin, drawn_demand(scenario, memory, seen.rng), now.supply, seen)

    return tallying(scenario, index)


def besbes_zeevi(scenario: Any, explore: float = 1.0) -> IndexPolicy:
    """Besbes & Zeevi 2012, algorithm 1: each candidate in turn for explore T^(2/3) decisions together, then the fluid
    program of their mean sales with the first supply, its two candidates one after the other, the cheaper first.
    """
    order = np.flatnonzero(scenario.sells)
    each = max(1, int(explore * scenario.horizon ** (2.0 / 3.0) / len(order)))
    length, count = each * len(order), scenario.layout.candidates

    def index(memory: Tally, seen: Seen, now: Market) -> Floats:
        demand = memory.sold / np.maximum(memory.shown, 1.0)
        mix = fluid.solve(now.margin * demand, demand, memory.supply)
        passed = (memory.time - length + 0.5) / max(scenario.horizon - length, 1)
        later = fluid.action_of(mix, passed < mix.weight, now.margin * demand)  # `second` sells faster
        turn = order[np.minimum(memory.time // each, len(order) - 1).astype(np.int64)]
        return one_hot(np.where(memory.time < length, turn, later), count)

    return tallying(scenario, index, until=length)


def pd_bwk(scenario: Any, bonus: float = 0.3) -> IndexPolicy:
    """Badanidiyuru, Kleinberg & Slivkins 2013, PrimalDualBwK: optimistic reward per dual price of what it uses up.

    Stock and time are the resources, each scaled to last for the horizon T; the dual price of time is 1 at the start
    and that of stock grows by the factor 1 + epsilon per unit of pessimistic use, epsilon = sqrt(ln 2 / T). The width
    of the intervals is tuned, as its constant is made for the proof.
    """
    epsilon = np.sqrt(np.log(2.0) / scenario.horizon)
    scale = 1.0 if scenario.customers == 1 else 3.0 * scenario.sales_unit  # of a decision's sales

    def bounds(memory: Tally) -> tuple[Floats, Floats]:
        mean = memory.sold / np.maximum(memory.shown, 1.0) / scale
        level = bonus * np.log(1.0 + memory.time)[:, None] / np.maximum(memory.shown, 1.0)
        width = level + np.sqrt(level * mean)
        high = np.where(memory.shown > 0, np.minimum(mean + width, 1.0), 1.0)
        return np.maximum(mean - width, 0.0) * scale * scenario.sells, high * scale * scenario.sells

    def index(memory: Tally, seen: Seen, now: Market) -> Floats:
        low, high = bounds(memory)
        use = memory.price[:, None] * low / np.maximum(memory.supply, 1e-9)[:, None]
        return now.margin * high / (1.0 + use) + np.where(now.margin > 0, 0.0, now.margin)

    policy = tallying(scenario, index)
    plain = policy._learn

    def learn(memory: Tally, seen: Seen) -> Tally:
        after = plain(memory, seen)
        low, _ = bounds(after)
        used = (seen.chosen * low).sum(axis=1) / np.maximum(after.supply, 1e-9) - 1.0
        return after._replace(price=after.price * (1.0 + epsilon) ** np.clip(used, -1.0, 20.0))

    return IndexPolicy(scenario, policy._start, learn, policy._index)


# --- a demand curve --------------------------------------------------------------------------------------------------
class Curve(NamedTuple):
    offered: Floats  # [B, K, F] features of the previous observation
    mean: Floats  # [B, F] of the coefficients
    covariance: Floats  # [B, F, F]


def curve_features(scenario: Any, seen: Seen) -> Floats:
    """[B, K, F] 1, log price paid, display, price below and above the reference, after a promotion, log rival's price.

    What the demand model's equation is linear in for the family of constant elasticity; the others come close.
    """
    ladder, shape = scenario.ladder, seen.chosen.shape
    gap = seen.field("reference")[:, None] - ladder.paid
    after = (seen.chosen @ ladder.promoted)[:, None]
    rival = np.log(np.maximum(seen.field("rival"), 1e-3))[:, None]
    columns = [1.0, np.log(ladder.paid), ladder.display, np.maximum(gap, 0.0), np.minimum(gap, 0.0), after, rival]
    if scenario.forecast is not None:
        columns.append(seen.field("forecast"))
    return np.stack([np.broadcast_to(c, shape) for c in columns], axis=2).astype(np.float64)


class Prior(NamedTuple):
    """Gaussian of a curve's coefficients, with a mean that is linear in what is known of the product."""

    weights: Floats  # [P, F] mean is [1, embedding][:P] . weights
    covariance: Floats  # [F, F]

    def mean(self, embedding: Floats) -> Floats:
        """[B, F] of products with embeddings [B, E]."""
        return self.design(embedding)[:, : len(self.weights)] @ self.weights

    @staticmethod
    def design(embedding: Floats) -> Floats:
        """[B, 1 + E]"""
        return np.column_stack([np.ones(len(embedding)), embedding])


def known_of(scenario: Any, seen: Seen) -> Floats:
    """[B, E] the embedding, where there is one."""
    return seen.field("embedding").reshape(len(seen.chosen), -1) if scenario.embedding else seen.chosen[:, :0]


def poisson_curve(scenario: Any, prior: Prior, decide: Callable[[Curve, Seen, Market], Floats]) -> IndexPolicy:
    """Poisson regression of the sales on `curve_features`, in sales units: a Gaussian posterior of the coefficients.

    One Laplace approximation per decision (see `recgym.baselines.contextual.logistic`): with v = x^T S x the mode is
    m + g S x, where g = sales - rate and rate = unit exp(m . x + g v); S -= rate / (1 + rate v) S x (S x)^T.
    """

    def start(rows: int) -> Curve:
        width = len(prior.covariance)
        covariance = np.broadcast_to(prior.covariance, (rows, width, width)).copy()
        return Curve(np.zeros((rows, scenario.layout.candidates, width)), np.zeros((rows, width)), covariance)

    def learn(memory: Curve, seen: Seen) -> Curve:
        now, played = market(scenario, seen), seen.chosen.any(axis=1, keepdims=True)
        memory = memory._replace(mean=np.where(played, memory.mean, prior.mean(known_of(scenario, seen))))
        x = ((seen.chosen * now.open[:, None])[:, None, :] @ memory.offered)[:, 0]
        moved = (memory.covariance @ x[..., None])[..., 0]  # S x; zero where nothing is learned
        before, variance = (memory.mean * x).sum(axis=1), (x * moved).sum(axis=1)
        sold = now.sold * (variance > 0)
        low, high = np.full(len(x), -1e4), sold + 1e-9  # g + rate(g) - sold rises in g, and is >= 0 at g = sold
        for _ in range(40):
            middle = 0.5 * (low + high)
            above = middle + scenario.sales_unit * np.exp(np.clip(before + middle * variance, -30.0, 30.0)) > sold
            low, high = np.where(above, low, middle), np.where(above, middle, high)
        rate = scenario.sales_unit * np.exp(np.clip(before + middle * variance, -30.0, 30.0))
        shrink = rate / (1.0 + rate * variance)
        covariance = memory.covariance - (shrink[:, None] * moved)[:, :, None] * moved[:, None, :]
        return Curve(curve_features(scenario, seen), memory.mean + middle[:, None] * moved, covariance)

    return IndexPolicy(scenario, start, learn, lambda memory, seen: decide(memory, seen, market(scenario, seen)))


def curve_demand(scenario: Any, memory: Curve, weights: Floats) -> Floats:
    """[B, K] units per decision, at most all customers."""
    expected = np.exp(np.clip((memory.offered @ weights[..., None])[..., 0], -30.0, 30.0)) * scenario.sales_unit
    return np.minimum(expected, scenario.customers) * scenario.sells


def curve_thompson(scenario: Any, prior: Prior, scale: float) -> IndexPolicy:
    """The fluid program of a demand curve drawn from the posterior, whose covariance is multiplied by scale^2."""

    def decide(memory: Curve, seen: Seen, now: Market) -> Floats:
        weights = draw(memory.mean, scale**2 * memory.covariance, seen.rng) if scale > 0 else memory.mean
        return mixed(now.margin, curve_demand(scenario, memory, weights), now.supply, seen)

    return poisson_curve(scenario, prior, decide)


def vague(scenario: Any) -> Prior:
    """Of one who knows nothing but what a forecast is."""
    mean, spread = [0.0] * 7, [1.0, 4.0, 0.5, 1.0, 1.0, 0.3, 1.0]
    if scenario.forecast is not None:
        mean, spread = [*mean, 1.0], [*spread, 0.5]
    return Prior(np.asarray([mean]), np.diag(np.square(spread)))


def glm_ts(scenario: Any, scale: float = 0.5) -> IndexPolicy:
    """Thompson sampling with a Poisson regression (generalised linear model) and a vague prior."""
    return curve_thompson(scenario, vague(scenario), scale)


@cache
def learned_prior(scenario: Any) -> Prior:
    """Of the coefficients over products, from trials on training tasks.

    Trials are played by `glm_ts` from the vague prior N(v, V). Of the posterior N(m_n, S_n) of trial n the data alone
    have the precision R_n = S_n^-1 - V^-1 and the moment S_n^-1 m_n - V^-1 v. The prior that makes all of them most
    likely is found by expectation maximisation: empirical Bayes of a Gaussian random-effects model, where Bastani et
    al. (2022) average the estimates; its mean is regressed on the embedding.
    """
    policy = glm_ts(scenario)
    policy.reseed(PRIOR_SEED)
    runner = Runner(scenario, PRIOR_TRIALS, make_rng("cpu", PRIOR_SEED))
    runner.restart()
    design = Prior.design(runner.state.embedding.astype(np.float64))
    memory: Any = None
    for _ in range(scenario.horizon):
        action, memory = policy.predict(runner.observation(), memory)
        runner.advance(action)
    first, wide = vague(scenario)
    inside = np.linalg.inv(memory.covariance)
    precision = inside - np.linalg.inv(wide)  # [N, F, F]
    moment = (inside @ memory.mean[..., None])[..., 0] - np.linalg.solve(wide, first[0])
    mean, covariance = np.repeat(first, len(design), axis=0), wide  # [N, F], [F, F]
    for _ in range(200):
        each_covariance = np.linalg.inv(precision + np.linalg.inv(covariance))
        each = (each_covariance @ (moment + np.linalg.solve(covariance, mean.T).T)[..., None])[..., 0]
        weights = np.linalg.lstsq(design, each)[0]
        mean = design @ weights
        spread = each - mean
        covariance = each_covariance.mean(axis=0) + spread.T @ spread / len(each) + 1e-6 * np.eye(len(wide))
    return Prior(weights, covariance)


def meta_dp(scenario: Any, scale: float = 1.0) -> IndexPolicy:
    """Meta dynamic pricing (Bastani, Simchi-Levi & Zhu 2022): Thompson sampling with a prior learned over products."""
    return curve_thompson(scenario, learned_prior(scenario), scale)


def linear_demand(scenario: Any, explore: float = 8.0) -> IndexPolicy:
    """Certainty equivalence: the fluid program of demand that is linear in price and display, by ridge regression.

    The first `explore` candidates are random; without them it may never learn (den Boer & Zwart 2014).
    """
    ladder = scenario.ladder
    x = np.stack([np.ones_like(ladder.paid), ladder.paid - 1.0, ladder.display], axis=1).astype(np.float64)  # [K, 3]

    def index(memory: Tally, seen: Seen, now: Market) -> Floats:
        matrix = np.einsum("bk,kf,kg->bfg", memory.shown, x, x) + 0.1 * np.eye(3)
        first = np.asarray([scenario.sales_unit, 0.0, 0.0])  # what the regression is shrunk to
        weights = first + np.linalg.solve(matrix, ((memory.sold - memory.shown * (x @ first)) @ x)[..., None])[..., 0]
        demand = np.maximum(weights @ x.T, 0.0) * scenario.sells
        planned = mixed(now.margin, demand, now.supply, seen)
        return np.where((memory.time < explore)[:, None], 0.0, planned)

    return tallying(scenario, index)


# --- the task distribution -------------------------------------------------------------------------------------------
class Belief(NamedTuple):
    weight: Floats  # [B, N] log-likelihood of each product of `Particles`
    reference: Floats  # [B] reference price at the last decision
    after: Floats  # [B] whether a promotion came before it
    sine: Floats  # [B] of the season at it


class Particles:
    """Products drawn from the task distribution, and how likely the observations of a trial make each of them.

    Args:
        scenario: gives the distribution.
        count: number of products N.
    """

    def __init__(self, scenario: Any, count: int) -> None:
        self.scenario, rng = scenario, NumpyRng(PARTICLE_SEED)
        rng.rekey(0, 0)
        self.task = scenario.sample_task(rng, count)
        self.pull = scenario.base(self.task)
        start = np.zeros(count, dtype=np.float32)
        held = scenario.held(self.task, self.pull, start + 1.0, start, start)
        self._told = scenario.log_sales(held)  # [N, K]
        best = held[np.arange(count), (scenario.margin(self.task) * held).argmax(axis=1)]
        self._unconstrained = 1e-6 + best * scenario.customers_left(
            self.task, start
        )  # [N] units sold if there were no limit

    def start(self, rows: int) -> Belief:
        return Belief(np.zeros((rows, len(self.pull)), dtype=np.float32), *np.zeros((3, rows)))

    def learn(self, memory: Belief, seen: Seen) -> Belief:
        """What was sold, and at the start what is told of the product."""
        played: Any = seen.chosen.any(axis=1)
        weight = memory.weight
        if not played.all():
            weight = np.where(played[:, None], weight, self._at_start(seen))
        if played.any():
            weight = weight + self._of_sales(memory, seen).T
        after = seen.chosen @ self.scenario.ladder.promoted
        return Belief(weight, seen.field("reference"), after, seen.field("season_sin"))

    def _of_sales(self, memory: Belief, seen: Seen) -> Floats:
        """[N, B] log-likelihood of the last decision's sales; 0 where they were not demand."""
        scenario, now, action = self.scenario, market(self.scenario, seen), seen.chosen.argmax(axis=1)
        shown = Ladder(*(column[action] for column in scenario.ladder))
        columns = (memory.reference, seen.field("rival"), memory.after)
        reference, rival, after = (column[None].astype(np.float32) for column in columns)
        share = shares(self.task, self.pull[:, action], shown, reference, rival, after)
        come = scenario.customers * (1.0 + self.task.season[:, None] * memory.sine.astype(np.float32))
        share, sold = np.clip(share, 1e-7, 1.0 - 1e-6), now.sold.astype(np.float32)
        if scenario.poisson:
            fit = sold * np.log(share * come) - share * come
        else:
            fit = sold * np.log(share) + np.maximum(come - sold, 0.0) * np.log1p(-share)
        return np.where(now.open, fit, 0.0)

    def _at_start(self, seen: Seen) -> Floats:
        """[B, N] log-likelihood of embedding, forecast and stock."""
        scenario = self.scenario
        fit = np.zeros((len(seen.chosen), len(self.pull)))
        if scenario.embedding:
            told = scenario.traits(self.task)
            given = seen.field("embedding").reshape(len(fit), -1)
            fit -= 0.5 * _squares(given, told, np.eye(scenario.embedding) / EMBEDDING_NOISE**2)
        if scenario.forecast is not None:
            paid = np.log(scenario.ladder.paid.astype(np.float64))
            error = 1.0 + TILT**2 * np.outer(paid, paid) + SPECK**2 * np.eye(len(paid))
            given = seen.field("forecast")
            fit -= 0.5 * _squares(given, self._told, np.linalg.inv(max(scenario.forecast, LEAST_NOISE) ** 2 * error))
        if isinstance(scenario.stock, tuple):  # uniform share of what is sold without limit
            share = market(scenario, seen).stock[:, None] / self._unconstrained
            inside = (share > 0.98 * scenario.stock[0]) & (share < 1.02 * scenario.stock[1])
            fit += np.where(inside, -np.log(self._unconstrained), -50.0)
        return fit

    def draw(self, memory: Belief, seen: Seen, count: int) -> Any:
        """`count` products [B] drawn from the posterior, their index [B] each."""
        chance = np.exp(memory.weight - memory.weight.max(axis=1, keepdims=True))
        total = np.cumsum(chance, axis=1, dtype=np.float64)
        for _ in range(count):
            yield (total < (1.0 - seen.rng.random((len(total), 1))) * total[:, -1:]).sum(axis=1)

    def product(self, index: np.ndarray, seen: Seen) -> tuple[Floats, Floats]:
        """Of products `index` [B]: share [B, K] that buys each candidate, if held, and customers [B] to come."""
        scenario, time = self.scenario, self.scenario.horizon - seen.remaining
        task = tree_map(lambda leaf: leaf[index], self.task)
        turn = np.arctan2(seen.field("season_sin"), seen.field("season_cos")) / (2.0 * np.pi)
        phase = (turn - time / scenario.period) % 1.0
        task = task._replace(phase=phase)
        drift = RIVAL_MEMORY * np.log(np.maximum(seen.field("rival"), 1e-3) / task.rival_price)
        started = np.where(seen.chosen.any(axis=1) & (task.rival == AR1), drift, 0.0)
        held = scenario.held(task, self.pull[index], seen.field("reference"), started, time)
        return held, np.maximum(scenario.customers_left(task, time), 1e-6)  # none come after the last decision


def _squares(one: Floats, other: Floats, precision: Floats) -> Floats:
    """(x - y)^T P (x - y) [B, N] of rows x [B, F] and y [N, F]."""
    own: list[Any] = [((rows @ precision) * rows).sum(axis=1) for rows in (one, other)]
    return own[0][:, None] - 2.0 * (one @ precision) @ other.T + own[1]


def particle_policy(scenario: Any, particles: int, draws: int) -> IndexPolicy:
    """The fluid program of the mean demand of `draws` products drawn from the posterior."""
    belief = Particles(scenario, particles)

    def index(memory: Belief, seen: Seen) -> Floats:
        now = market(scenario, seen)
        products = [belief.product(each, seen) for each in belief.draw(memory, seen, draws)]
        demand = np.mean([held * left[:, None] for held, left in products], axis=0)
        left = np.mean([left for _, left in products], axis=0)
        return one_hot(scenario.plan(now.margin, demand / left[:, None], now.stock / left), scenario.layout.candidates)

    return IndexPolicy(scenario, belief.start, belief.learn, index)


def particle_ts(scenario: Any, particles: int = PARTICLES) -> IndexPolicy:
    """Thompson sampling on the true task distribution: what the informed policy would do for a product drawn."""
    return particle_policy(scenario, int(particles), 1)


def particle_mean(scenario: Any, particles: int = PARTICLES, draws: int = 16) -> IndexPolicy:
    """Certainty equivalence on the true task distribution: for the posterior's mean demand."""
    return particle_policy(scenario, int(particles), int(draws))


# --- policies that know the task -------------------------------------------------------------------------------------
class FixedPrice:
    """The best candidate to hold for the whole trial, of one that knows the task."""

    sees_state = True

    def __init__(self, scenario: Any) -> None:
        self._scenario = scenario

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, Any]:
        """Actions [B] for the scenario's state, and themselves as the memory for the next call."""
        best = restarted(state, lambda: Held(self._best(observation)), episode_start)
        return best.action, best

    def _best(self, state: Any) -> np.ndarray:
        task, start = state.task, 0.0 * state.time
        held = self._scenario.held(task, state.pull, start + 1.0, start, start)
        sold = np.minimum(held * self._scenario.customers_left(task, start)[:, None], task.stock[:, None])
        return (self._scenario.margin(task) * sold).argmax(axis=1)


class Held(NamedTuple):
    action: np.ndarray  # [B]


def exact(scenario: Any) -> Any:
    """Backward induction over the stock: the optimum where demand has no memory."""
    task = scenario.sample_task(NumpyRng(0), 1)
    margin, share = scenario.margin(task)[0], scenario.base(task)[0].astype(np.float64)
    demand, stock = np.stack([1.0 - share, share], axis=1), int(task.stock[0])
    plan = cache(lambda: fluid.exact_plan(margin, demand, stock, scenario.horizon))

    def index(memory: Any, seen: Seen) -> Floats:
        stock = np.rint(market(scenario, seen).stock).astype(np.int64)
        return one_hot(plan().actions[seen.remaining.astype(np.int64), stock], scenario.layout.candidates)

    return IndexPolicy(scenario, lambda rows: Held(np.zeros(rows)), lambda memory, seen: memory, index)


def not_tabular(scenario: Any) -> str:
    """Why backward induction cannot be done once and for all trials."""
    off = not scenario.rivals and all(getattr(scenario, name)[1] == 0 for name in ("gain", "dip", "season"))
    points = (getattr(scenario, name) for name in ("cost", "lift", "w_rev", "w_vol"))
    fixed = scenario.table is not None and isinstance(scenario.stock, int) and all(low == high for low, high in points)
    if fixed and off and scenario.customers == 1 and not scenario.poisson:
        return ""
    return "it needs one product: a table and a stock that are given, one customer per decision, nothing remembered"


# --- the table -------------------------------------------------------------------------------------------------------
BASELINES: dict[str, dict[str, Baseline]] = {
    "DynamicPricing": {
        "best_fixed": Baseline(FixedPrice, "informed", "the best candidate held for the whole trial, in hindsight"),
        "exact": Baseline(exact, "informed", "backward induction over the stock", unfit=not_tabular),
        "epsilon_greedy": Baseline(
            lambda scenario, epsilon=0.05: counting(scenario, partial(epsilon_greedy, epsilon=epsilon)),
            "prior-free",
            "highest mean reward, now and then uniform, ignoring the stock; epsilon tuned",
            {"epsilon": (0.05, 0.1, 0.2, 0.3, 0.5)},
            {"DynamicPricing": {"epsilon": 0.3}},
        ),
        "ucb1": Baseline(
            lambda scenario, bonus=0.3, pseudo=1.0: counting(scenario, partial(ucb1, bonus=bonus, pseudo=pseudo)),
            "prior-free",
            "UCB1 on the reward, ignoring the stock; bonus and pseudo-counts tuned",
            {"bonus": (0.0, 0.01, 0.03, 0.1, 0.3), "pseudo": (0.0, 0.5, 1.0)},
            {"DynamicPricing": {"bonus": 0.0, "pseudo": 0.0}},
        ),
        "thompson": Baseline(thompson, "prior-free", "Thompson sampling, ignoring the stock"),
        "ts_fixed": Baseline(ts_fixed, "prior-free", "Thompson sampling and the fluid program, first supply"),
        "ts_update": Baseline(ts_update, "prior-free", "Thompson sampling and the fluid program, supply left"),
        "besbes_zeevi": Baseline(
            besbes_zeevi,
            "prior-free",
            "explore each candidate, then the fluid program",
            {"explore": (1.0, 2.0, 3.0)},
            {"DynamicPricing": {"explore": 1.0}},
        ),
        "pd_bwk": Baseline(
            pd_bwk,
            "prior-free",
            "primal-dual bandit with knapsacks, width tuned",
            {"bonus": (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)},
            {"DynamicPricing": {"bonus": 0.001}},
        ),
        "linear_demand": Baseline(
            linear_demand,
            "prior-free",
            "certainty equivalence with linear demand after random decisions, their number tuned",
            {"explore": (2.0, 4.0, 8.0, 12.0, 16.0, 24.0)},
            {"DynamicPricing": {"explore": 8.0}},
        ),
        "glm_ts": Baseline(
            glm_ts,
            "prior-free",
            "Thompson sampling with a Poisson regression, scale of the draw tuned",
            {"scale": (0.0, 0.1, 0.25, 0.5, 1.0)},
            {"DynamicPricing": {"scale": 0.25}},
        ),
        "meta_dp": Baseline(
            meta_dp,
            "prior-aware",
            "the same with a prior learned over products (Meta-DP), scale tuned",
            {"scale": (0.0, 0.1, 0.25, 0.5, 1.0)},
            {"DynamicPricing": {"scale": 0.25}},
        ),
        "particle_ts": Baseline(particle_ts, "prior-aware", "Thompson sampling on the true task distribution"),
        "particle_mean": Baseline(particle_mean, "prior-aware", "posterior mean of the true task distribution"),
    }
}
