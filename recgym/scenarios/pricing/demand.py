"""Demand for one product: what customers buy at which price, promotion, reference price and rival's price.

Sources: Bijmolt, van Heerde & Pieters 2005 (elasticities), Wittink et al. 1988 (SCAN*PRO: effects multiply demand),
Guadagni & Little 1983 (logit), Hardie, Johnson & Fader 1993 (reference price, loss aversion), van Heerde, Leeflang &
Wittink 2000 (the dip after a promotion).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from recgym.arrays import Array, clip, namespace

__all__ = ["CURVES", "FAMILIES", "RIVALS", "Ladder", "PricingTask", "bounded_exp", "pull", "rival_price", "shares"]

CURVES = ("linear", "exponential", "constant", "logit")
FAMILIES = (*CURVES, "table")
RIVALS = ("static", "ar1", "follower", "undercutter")
LINEAR, EXPONENTIAL, CONSTANT, LOGIT, TABLE = range(len(FAMILIES))
STATIC, AR1, FOLLOWER, UNDERCUTTER = range(len(RIVALS))

MAX_EXPONENT = 30.0  # keeps exp finite in float32, whatever the task
MAX_SHARE = 0.9  # of the customers that do not buy from us at base price, the rival's at most
UNDERCUT = 0.95  # of the price level that customers remember


class PricingTask(NamedTuple):
    """A product and its market, hidden but for the last five; prices are in base prices."""

    family: Array  # [B] int64 index into FAMILIES
    elasticity: Array  # [B] of demand, at base price, as a positive number
    purchase: Array  # [B] share of customers that buy at base price
    table: Array  # [B, K] factor on the family's demand: 1 on its curve; of the family "table" the demand itself
    lift: Array  # [B] share by which a full display raises demand
    memory: Array  # [B] weight of the old reference price
    gain: Array  # [B] log demand per base price that the price is below the reference
    loss: Array  # [B] the same above it
    dip: Array  # [B] log demand lost in the decision after a promotion
    rival: Array  # [B] int64 index into RIVALS
    rival_price: Array  # [B] its usual price
    cross: Array  # [B] elasticity of our demand with respect to its price, at base price; 0: no rival
    season: Array  # [B] amplitude of the number of customers, as a share of it
    phase: Array  # [B] share of a season that has passed at the start
    cost: Array  # [B] of a unit
    stock: Array  # [B] int64 units
    w_rev: Array  # [B] weight of the profit in the reward
    w_vol: Array  # [B] weight of the units sold, in base prices


class Ladder(NamedTuple):
    """The candidates: pairs of a list price and a promotion."""

    price: Array  # [K] list price, in base prices
    depth: Array  # [K] share that the promotion takes off it
    display: Array  # [K] how loudly it is announced, 0 to 1
    paid: Array  # [K] price times (1 - depth)
    promoted: Array  # [K] bool

    @classmethod
    def build(cls, prices: Any, promotions: Any) -> Ladder:
        """float32 columns of all pairs of `prices` [N] and `promotions` [P, 2]; promotions vary fastest."""
        price: Any = np.repeat(np.asarray(prices, dtype=np.float64), len(promotions))
        depth, display = np.tile(np.asarray(promotions, dtype=np.float64), (len(prices), 1)).T
        promoted = (depth > 0) | (display > 0)
        price, depth, display, paid = (c.astype(np.float32) for c in (price, depth, display, price * (1.0 - depth)))
        return cls(price, depth, display, paid, promoted)


def bounded_exp(exponent: Array) -> Array:
    """exp that stays finite, and above 0, in float32 products."""
    xp = namespace(exponent)
    return xp.exp(clip(exponent, -MAX_EXPONENT, MAX_EXPONENT))


def pull(task: PricingTask, ladder: Ladder) -> Array:
    """[B, K] demand without memory: its share of the customers; of the logit the odds against buying nowhere.

    With x the price paid, e the elasticity and q the demand at base price: linear q (1 - e (x - 1)), exponential
    q exp(-e (x - 1)), constant elasticity q x^-e, logit odds exp(-e (x - 1) / (1 - q)), whose own elasticity at base
    price is e as well; a display multiplies it by (1 + lift)^display.
    """
    xp, paid = namespace(task.elasticity), ladder.paid
    e, family, level = task.elasticity[:, None], task.family[:, None], task.purchase[:, None]
    above = paid - 1.0
    curve = clip(1.0 - e * above, 0.0, None)
    curve = xp.where(family == EXPONENTIAL, bounded_exp(-e * above), curve)
    curve = xp.where(family == CONSTANT, bounded_exp(-e * xp.log(paid)), curve)
    curve = xp.where(family == LOGIT, bounded_exp(-e / (1.0 - level) * above), curve)
    level = xp.where(family == LOGIT, level / (1.0 - level - _rival_share(task)[:, None]), level)
    curve = xp.where(family == TABLE, xp.ones_like(curve), level * curve)
    return curve * task.table * xp.exp(xp.log(1.0 + task.lift)[:, None] * ladder.display)


def shares(task: PricingTask, pull: Array, ladder: Ladder, reference: Array, rival: Array, promoted: Array) -> Array:
    """[B, K] share of the customers that would buy each candidate: `uncut_shares`, at most all of them."""
    return clip(uncut_shares(task, pull, ladder, reference, rival, promoted), None, 1.0)


def uncut_shares(
    task: PricingTask, pull: Array, ladder: Ladder, reference: Array, rival: Array, promoted: Array
) -> Array:
    """[B, K] demand of each candidate as a share of the customers, which may be above 1.

    log demand, or of the logit the utility, moves by gain (reference - x) below and by -loss (x - reference) above the
    reference price, by -dip after a promotion, and by cross log(rival's price). In the logit the rival's own utility
    moves instead.

    Args:
        task: [B, ...].
        pull: [B, K] of `pull`.
        ladder: the candidates.
        reference: [B, 1] or [B, K] price that customers remember.
        rival: [B, 1] or [B, K] the rival's price.
        promoted: [B, 1], [K] or [B, K] whether the decision before was a promotion.
    """
    xp = namespace(pull)
    gap = reference - ladder.paid
    logit = xp.astype(task.family == LOGIT, pull.dtype)[:, None]
    moved = (1.0 - logit) * task.cross[:, None] * xp.log(rival) - task.dip[:, None] * promoted
    moved = task.gain[:, None] * clip(gap, 0.0, None) + task.loss[:, None] * clip(gap, None, 0.0) + moved
    pulled = pull * bounded_exp(moved)
    left, share = 1.0 - task.purchase, _rival_share(task)
    odds = (share / (left - share))[:, None] * bounded_exp((task.elasticity / left)[:, None] * (1.0 - rival))
    return pulled / (1.0 + logit * odds + logit * pulled)  # the first, or pulled itself


def rival_price(task: PricingTask, reference: Array, drift: Array) -> Array:
    """[B, N] price of the rival where the reference price is [B, N] and an AR(1) rival is off by `drift` [B, 1].

    Static: usual. AR(1): usual exp(drift). Follower: usual times the reference price. Undercutter: usual, but at most
    `UNDERCUT` of the reference price.
    """
    xp = namespace(reference)
    usual, kind = task.rival_price[:, None], task.rival[:, None]
    price = xp.where(kind == AR1, usual * xp.exp(drift), usual)
    price = xp.where(kind == FOLLOWER, usual * reference, price)
    return xp.where(kind == UNDERCUTTER, xp.minimum(usual, UNDERCUT * reference), price)


def _rival_share(task: PricingTask) -> Array:
    """[B] share of the customers that a logit's rival has at base prices: cross = elasticity share / (1 - purchase)."""
    left = 1.0 - task.purchase
    return left * clip(task.cross / task.elasticity, 0.0, MAX_SHARE)
