"""The expert on observables: what a user may be, by Bayes' rule from clicks and rewards, and the page that pays then.

It knows the distribution of users and of the catalog's hidden columns, never a user or an item. Beliefs are two: a
Gaussian of the multinomial logit's weights, which extended Kalman steps move (one linearisation of the likelihood per
page), and a grid of sensitivities and memories, which the rewards of clicks weigh. An item has full burden or none,
with the chance that its hint gives. What is to come is the table of `recgym.scenarios.slate.foresight`, of users who
are drawn for each cell of the grid.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from recgym.arrays import MAX_LOGIT, tree_map
from recgym.baselines.policy import Floats, IndexPolicy, Reading
from recgym.baselines.regression import linear_scores, spread, unwieldy
from recgym.baselines.slate.pages import clicks_by_place, shown_by_place
from recgym.rng import NumpyRng
from recgym.scenarios.slate.choice import attention_by_place, best_page
from recgym.scenarios.slate.foresight import interpolated, plan_of
from recgym.scenarios.slate.observation import RECENT
from recgym.scenarios.slate.worth import mean_worth

__all__ = ["not_gaussian", "posterior"]

SENSITIVITIES, MEMORIES = 9, 3  # cells of the grid
USERS = 8  # drawn for each of them
DRAWS = 4_000  # users from whom the prior is computed
SEED = 20_261_129
KERNEL = 0.05  # of the hint, in which items are alike
NOISE = 0.01  # variance of a share watched beyond its own
RARE = 0.005  # no chance of a sale is thought smaller, nor nearer to 1


class Belief(NamedTuple):
    x: Floats  # [B, C, F] of the candidates: features, and what else the weights count
    offset: Floats  # [B, C] logit of an item that is not the user's
    burden: Floats  # [B, C] chance of full burden
    price: Floats  # [B, C]
    mean: Floats  # [B, F] of the weights
    covariance: Floats  # [B, F, F]
    log_mass: Floats  # [B, G] of the grid's cells
    level: Floats  # [B, G] average burden consumed, were the cell true


class Knowledge(NamedTuple):
    """What is known before a trial begins."""

    mean: Floats  # [F]
    covariance: Floats  # [F, F]
    attention: float
    leaving: float
    price_sensitivity: float
    sensitivity: Floats  # [G]
    memory: Floats  # [G]
    here: Floats  # [G, T + 1, nodes] what users are worth
    away: Floats  # [G, T + 1, nodes]
    appeal: Floats  # [4] appeal by 1, popularity, hint of warm items, and of cold ones
    hints: Floats  # [H] hints, and
    burdens: Floats  # [H] the mean burden of items with such a hint


def cells_of(scenario: Any) -> tuple[Floats, Floats]:
    """Sensitivities [G] and memories [G] of the grid's cells."""
    (least, most), (short, long) = scenario.sensitivity, scenario.memory
    one = np.unique(np.linspace(least, most, SENSITIVITIES))
    other = np.unique(np.linspace(short, long, MEMORIES))
    return np.repeat(one, len(other)), np.tile(other, len(one))


@lru_cache(maxsize=4)
def known_of(scenario: Any) -> Knowledge:
    """What the distribution of users and the catalog's columns say."""
    rng = NumpyRng(SEED)
    users = scenario.sample_task(rng, DRAWS)
    slow = np.clip((users.retention - RECENT[0]) / (RECENT[1] - RECENT[0]), 0.0, 1.2)
    bored = users.satiation[:, None] * np.stack([1.0 - slow, slow], axis=1)
    weights = np.concatenate([scenario.beta * users.taste, users.outside[:, None], bored], axis=1).astype(np.float64)
    sensitivity, memory = cells_of(scenario)
    cells = tree_map(lambda leaf: np.resize(leaf[:USERS], (len(memory) * USERS, *leaf.shape[1:])), users)
    each = {"sensitivity": sensitivity, "memory": memory}
    cells = cells._replace(**{name: np.repeat(axis, USERS).astype(np.float32) for name, axis in each.items()})
    plan = plan_of(scenario, cells)
    here, away = (table.reshape(len(memory), USERS, *table.shape[1:]).mean(axis=1) for table in (plan.here, plan.away))
    stock = scenario.inventory
    warm = 1.0 - stock.cold
    columns = np.stack([warm, warm * stock.popularity, warm * stock.hint, stock.cold], axis=1)
    hints = np.linspace(stock.hint.min(), stock.hint.max() + 1e-6, 101)
    near = np.exp(np.maximum(-0.5 * ((hints[:, None] - stock.hint) / KERNEL) ** 2, -MAX_LOGIT)) * warm + 1e-12
    return Knowledge(
        mean=weights.mean(axis=0),
        covariance=np.cov(weights.T) + 1e-6 * np.eye(weights.shape[1]),
        attention=float(users.attention.mean()),
        leaving=float(users.leaving.mean()),
        price_sensitivity=float(users.price_sensitivity.mean()),
        sensitivity=sensitivity,
        memory=memory,
        here=here,
        away=away,
        appeal=np.linalg.lstsq(columns, stock.appeal, rcond=None)[0],
        hints=hints,
        burdens=np.clip(near @ stock.burden / near.sum(axis=1), 0.0, 1.0),
    )


def posterior(scenario: Any, bonus: float = 0.0, future: float = 1.0) -> IndexPolicy:
    """The page that is best at the beliefs, as if they were to stay.

    Args:
        scenario: a Slate with the choice `mnl`.
        bonus: standard deviations that are added to an item's logit, so that its user is learned.
        future: share of the table's value that counts; it is that of who knows the user.
    """
    known = known_of(scenario)
    width = scenario.items.width
    weight = attention_by_place(np.array([known.attention]), scenario.places)

    def start(rows: int) -> Belief:
        per_candidate = np.zeros((rows, scenario.candidates))
        per_cell = np.zeros((rows, len(known.memory)))
        mean = np.broadcast_to(known.mean, (rows, width + 3)).copy()
        covariance = np.broadcast_to(known.covariance, (rows, *known.covariance.shape)).copy()
        x = np.zeros((rows, scenario.candidates, width + 3))
        return Belief(x, per_candidate, per_candidate, per_candidate, mean, covariance, per_cell, per_cell)

    def learn(memory: Belief, reading: Reading) -> Belief:
        shown = shown_by_place(reading, scenario.places)
        clicks = clicks_by_place(reading, shown)
        mean, covariance = kalman_step(memory, shown, clicks, weight)
        beliefs = weighed(memory._replace(mean=mean), shown, clicks, reading.reward)
        return Belief(*offered(reading), mean, covariance, *beliefs)

    def offered(reading: Reading) -> tuple[Floats, Floats, Floats, Floats]:
        """x, offset, burden and price of the candidates on offer now."""
        assert reading.features is not None
        hint, cold = reading.field("hint"), reading.field("cold")
        others = [-np.ones_like(hint), -reading.field("topic_fast"), -reading.field("topic_slow")]
        x = np.concatenate([reading.features, np.stack(others, axis=2)], axis=2)
        base, slope, burdened, fresh = known.appeal
        offset = np.where(cold > 0.0, fresh, base + slope * reading.field("popularity") + burdened * hint)
        burden = np.where(cold > 0.0, scenario.inventory.burden.mean(), np.interp(hint, known.hints, known.burdens))
        price = reading.field("price") if scenario.reward == "shop" else np.zeros_like(hint)
        return x, offset, burden, price

    def worths(memory: Belief) -> tuple[Floats, Floats]:
        """[B, C] mean worth of a click while trust is full, without burden and with it."""
        match = linear_scores(memory.x[..., :width], memory.mean[:, :width]) / max(scenario.beta, 1e-9)
        match, none = np.clip(match, -1.0, 1.0), np.zeros_like(memory.price)
        free, full = (
            mean_worth(scenario.reward, match, none + burden, memory.price, known.price_sensitivity)
            for burden in (0.0, 1.0)
        )
        return free, full

    def weighed(memory: Belief, shown: Floats, clicks: Floats, reward: Floats) -> tuple[Floats, Floats]:
        """log_mass and level after what the clicks brought."""
        free, full = worths(memory)
        clicked = (clicks[:, None, :] @ shown)[:, 0]
        burden, price, worth = (
            (clicked * column).sum(axis=1)[:, None]
            for column in (memory.burden, memory.price, memory.burden * full + (1.0 - memory.burden) * free)
        )
        mean = worth * np.exp(-known.sensitivity * memory.level)
        if scenario.reward == "video":
            variance = np.minimum(mean, 1.0 - mean) ** 2 / 3.0 + NOISE
            news = -0.5 * (reward[:, None] - mean) ** 2 / variance - 0.5 * np.log(variance)
        else:
            chance = np.clip(mean / (np.maximum(price, 1e-9) if scenario.reward == "shop" else 1.0), RARE, 1.0 - RARE)
            news = np.log(np.where(reward[:, None] > 0.0, chance, 1.0 - chance))
        any_click = clicks.sum(axis=1)[:, None] > 0.0
        level = known.memory * memory.level + (1.0 - known.memory) * burden
        return np.where(any_click, memory.log_mass + news, memory.log_mass), np.where(any_click, level, memory.level)

    def index(memory: Belief, reading: Reading) -> Floats:
        mass = np.exp(memory.log_mass - memory.log_mass.max(axis=1, keepdims=True))
        mass /= mass.sum(axis=1, keepdims=True)
        rows, cells = memory.level.shape
        step = np.clip(scenario.horizon + 1 - reading.remaining.astype(np.int64), 0, scenario.horizon)
        after, gone = (
            table[:, step].transpose(1, 0, 2).reshape(rows * cells, -1) for table in (known.here, known.away)
        )

        def at(table: Floats, level: Floats) -> Floats:
            return interpolated(table, level.reshape(-1, 1)).reshape(rows, cells)

        kept = known.memory * memory.level
        stays = at(after, memory.level)
        free, full = (
            future * (mass * (at(after, level) - stays)).sum(axis=1, keepdims=True)
            for level in (kept, kept + 1.0 - known.memory)
        )
        trust = (mass * np.exp(-known.sensitivity * memory.level)).sum(axis=1, keepdims=True)
        now = worths(memory)
        worth = memory.burden * (now[1] * trust + full) + (1.0 - memory.burden) * (now[0] * trust + free)
        outside = -future * known.leaving * (mass * (stays - at(gone, memory.level))).sum(axis=1)
        logit = linear_scores(memory.x, memory.mean) + memory.offset
        if bonus > 0.0:
            logit = logit + bonus * spread(memory.x, memory.covariance)
        attention = np.full(rows, known.attention)
        _, value = best_page("mnl", logit, worth, outside, attention, scenario.places)
        return np.exp(np.clip(logit, -MAX_LOGIT, MAX_LOGIT)) * (worth - value[:, None])

    return IndexPolicy(scenario, start, learn, index)


def kalman_step(memory: Belief, shown: Floats, clicks: Floats, weight: Floats) -> tuple[Floats, Floats]:
    """Mean and covariance after a page: S' = (S^-1 + X' H X)^-1, m' = m + S' X' (clicks - P), H = diag(P) - P P'.

    Args:
        memory: before.
        shown: [B, k, C] the candidate at each place.
        clicks: [B, k].
        weight: [1, k] attention.
    """
    x = shown @ memory.x
    filled = shown.sum(axis=2)
    logit = linear_scores(x, memory.mean) + (shown @ memory.offset[..., None])[..., 0]
    odds = np.exp(np.clip(logit, -MAX_LOGIT, MAX_LOGIT)) * weight * filled
    chance = odds / (1.0 + odds.sum(axis=1, keepdims=True))
    curvature = chance[:, :, None] * (np.eye(chance.shape[1]) - chance[:, None, :])
    moved = x @ memory.covariance
    inner = np.eye(chance.shape[1]) + curvature @ moved @ x.transpose(0, 2, 1)
    covariance = memory.covariance - moved.transpose(0, 2, 1) @ np.linalg.solve(inner, curvature @ moved)
    covariance = 0.5 * (covariance + covariance.transpose(0, 2, 1))
    pull = ((clicks - chance)[:, None, :] @ x)[:, 0]
    return memory.mean + (covariance @ pull[..., None])[..., 0], covariance


def not_gaussian(scenario: Any) -> str:
    """Why the beliefs do not fit."""
    if scenario.choice != "mnl":
        return "its beliefs are those of choice='mnl'"
    if too_wide := unwieldy(scenario.items.width + 3):
        return too_wide
    if not scenario.statistics:
        return "it reads the moving averages"
    return "" if scenario.weights is None else "it takes the reward for what a click is worth"
