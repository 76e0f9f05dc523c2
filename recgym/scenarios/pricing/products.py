"""Products: what a task of pricing may be, and how products are drawn."""

from __future__ import annotations

import math
from typing import Any

from recgym.arrays import Array, Rng, clip
from recgym.rng import beta
from recgym.scenarios.pricing.demand import FAMILIES, RIVALS, PricingTask

__all__ = ["MAX_NUMBER", "TASK_LIMITS", "UNLIMITED", "sample_products"]

MAX_NUMBER = 100.0  # of an observed number; what is larger is cut
UNLIMITED = 2**40  # units: more than can be sold
RIVAL_SPREAD = 0.1  # sd of the log of the rival's usual price
MAX_RIVAL_LOG = 0.5  # at which that is cut

TASK_LIMITS: dict[str, tuple[float, float] | tuple[int, int]] = {
    "family": (0, len(FAMILIES) - 1),
    "elasticity": (1e-3, 20.0),
    "purchase": (1e-6, 0.95),
    "table": (0.0, 1000.0),
    "lift": (0.0, 10.0),
    "memory": (0.0, 0.99),
    "gain": (0.0, 20.0),
    "loss": (0.0, 200.0),
    "dip": (0.0, 10.0),
    "rival": (0, len(RIVALS) - 1),
    "rival_price": (0.01, MAX_NUMBER),
    "cross": (0.0, 10.0),
    "season": (0.0, 1.0),
    "phase": (0.0, 1.0),
    "cost": (0.0, MAX_NUMBER),
    "stock": (1, UNLIMITED),
    "w_rev": (0.0, MAX_NUMBER),
    "w_vol": (0.0, MAX_NUMBER),
}


def between(rng: Rng, limits: tuple[float, float], batch: int) -> Array:
    """[batch] uniform draws; they are made even where there is only one value, so that others stay as they are."""
    return limits[0] + (limits[1] - limits[0]) * rng.uniform((batch,))


def kind_of(rng: Rng, kinds: tuple[str, ...], known: tuple[str, ...], batch: int) -> Array:
    """[batch] int64 indices into `known` of uniformly drawn `kinds`; 0 where there are none."""
    xp = rng.xp
    luck = rng.uniform((batch,))
    index = xp.asarray([known.index(name) for name in kinds] or [0], dtype=xp.int64, device=rng.device)
    return index[xp.astype(luck * max(len(kinds), 1), xp.int64)]


def sample_products(market: Any, rng: Rng, batch: int) -> PricingTask:
    """Draw products [batch, ...] as the parameters of a `DynamicPricing` say; the order of the draws is part of it."""
    xp = rng.xp
    median, spread, least, most = market.elasticity
    elasticity = clip(xp.exp(math.log(median) + spread * rng.normal((batch,))), least, most)
    usual = xp.exp(clip(RIVAL_SPREAD * rng.normal((batch,)), -MAX_RIVAL_LOG, MAX_RIVAL_LOG))
    family = kind_of(rng, market.families, FAMILIES, batch)
    rival = kind_of(rng, market.rivals, RIVALS, batch)
    purchase = between(rng, market.purchase, batch)
    lift = between(rng, market.lift, batch)
    memory = between(rng, market.memory, batch)
    gain = between(rng, market.gain, batch)
    aversion = between(rng, market.aversion, batch)
    dip = between(rng, market.dip, batch)
    cross = between(rng, market.cross, batch)
    season = between(rng, market.season, batch)
    phase = between(rng, (0.0, float(market.season[1] > 0)), batch)  # without a season it would be noise to see
    cost = between(rng, market.cost, batch)
    w_rev = between(rng, market.w_rev, batch)
    w_vol = between(rng, market.w_vol, batch)
    share = between(rng, market.stock if isinstance(market.stock, tuple) else (0.0, 0.0), batch)
    table = _tables(market, rng, batch)
    if not market.rivals:
        usual = xp.ones_like(usual)
        cross = xp.zeros_like(cross)
    units = UNLIMITED if market.stock is None else 1 if isinstance(market.stock, tuple) else int(market.stock)
    task = PricingTask(
        family=family,
        elasticity=elasticity,
        purchase=purchase,
        table=table,
        lift=lift,
        memory=memory,
        gain=gain,
        loss=gain * aversion,
        dip=dip,
        rival=rival,
        rival_price=usual,
        cross=cross,
        season=season,
        phase=phase,
        cost=cost,
        stock=xp.full((batch,), units, dtype=xp.int64, device=rng.device),
        w_rev=w_rev,
        w_vol=w_vol,
    )
    if isinstance(market.stock, tuple):
        return task._replace(stock=_stock(market, task, share, rng))
    return task


def _tables(market: Any, rng: Rng, batch: int) -> Array:
    """[batch, K] factors on the family's demand; see `PricingTask`."""
    xp = rng.xp
    shape = (batch, len(market.ladder.paid))
    if market.table is not None:
        row = xp.asarray(market.table, dtype=xp.float32, device=rng.device)
        return xp.broadcast_to(row, shape) + 0.0
    if market.families == ("table",):
        return beta(rng, 1.0, 1.0, shape)
    return xp.ones(shape, dtype=xp.float32, device=rng.device)


def _stock(market: Any, task: PricingTask, share: Array, rng: Rng) -> Array:
    """[B] int64 units: a share [B] of what the best price would sell, held for the whole trial."""
    xp = rng.xp
    start = xp.zeros_like(task.cost)
    held = market.held(task, market.base(task), start + 1.0, start, start)
    best = xp.argmax(market.margin(task) * held, axis=1)
    rows = xp.arange(share.shape[0], device=rng.device)
    sales = share * held[rows, best] * market.customers_left(task, start)
    return clip(xp.astype(xp.round(sales), xp.int64), 1, UNLIMITED)
