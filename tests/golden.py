"""Play golden trials, and write them to tests/golden/*.npz: what every environment and every shipped agent once did.

    PYTHONPATH=. python tests/golden.py [ID ... | agents]     (default: all of them)

`test_golden.py` plays the same again. Write the data anew only where behaviour is to change, which is a new version of
an id; data of a new id or of a new agent is added by naming it. A file holds one record per case: a structured array
whose fields are named, floats in float32, with a leading axis over three seeds, each of which plays in another way.

Processors differ in the last bits of a float, and where one stands at a threshold, another bit is another click or
sale. So a seed is only recorded if all that is discrete stays as it is while every draw is moved by a millionth, up
and down; the first three such seeds are taken. Cases in which millions buy have none: a millionth of their number is a
sale.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import recgym
from recgym.arrays import to_numpy, tree_items
from recgym.rng import make_rng
from recgym.runner import Runner

__all__ = ["AGENTS", "CASES", "DEVICES", "Arrays", "agent_files", "file_of", "play_agent", "play_case", "seeds_of"]

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "tests/golden"
AGENTS = "agents"  # the group of the shipped agents; the others are ids
DEVICES = ("cpu", "torch")
WAYS = (("SameStep", None), ("NextStep", None), ("SameStep", 3))  # of each seed: what follows a trial, fixed tasks
NUDGE = 1e-6
MAX_TRIES = 20

Arrays = dict[str, np.ndarray]

BANDIT: dict[str, dict[str, Any]] = {
    "default": {},
    "one decision": {"horizon": 1},
    "one arm": {"arms": 1, "horizon": 3},
    "many arms": {"arms": 30, "horizon": 3},
    "extreme prior": {"prior": (0.05, 0.05), "horizon": 4},
    "rare clicks": {"prior": (1.0, 30.0), "alpha": 0.0, "horizon": 4},
    "average of all": {"alpha": 1.0, "horizon": 4},
    "no statistics": {"statistics": False, "horizon": 4},
    "expert": {"expert": 1.0, "horizon": 4},
    "expert alone": {"expert": 0.0, "statistics": False, "horizon": 4},
}
DRIFT: dict[str, dict[str, Any]] = {
    "fast drift": {"drift": 10.0, "change_rate": 0.0, "horizon": 4},
    "always another rate": {"drift": 0.0, "change_rate": 1.0, "prior": (0.05, 0.1), "horizon": 4},
    "nothing changes": {"drift": 0.0, "change_rate": 0.0, "horizon": 4},
}
CONTEXTUAL: dict[str, dict[str, Any]] = {
    "default": {},
    "one decision": {"horizon": 1},
    "one arm": {"arms": 1, "horizon": 3},
    "average of all": {"alpha": 1.0, "horizon": 4},
    "no statistics": {"statistics": False, "horizon": 4},
    "strong taste": {"taste": 10.0, "bias": 5.0, "horizon": 4},
    "no taste": {"taste": 0.0, "bias": -20.0, "horizon": 4},
    "one feature": {"features": 1, "horizon": 4},
    "fixed features": {"features": [[0.5, -2.0, 1.0], [3.0, 0.0, 0.1]], "arms": 2, "horizon": 4},
}
PRICING: dict[str, dict[str, Any]] = {
    "default": {},
    "one decision": {"horizon": 1},
    "one in stock": {"stock": 1, "horizon": 4},
    "no stock, low prices": {"stock": None, "base_price": 1e-3, "prices": (1e-3, 1.0), "horizon": 3},
    "hardly anybody": {"stock": (1e-6, 1e-6), "customers": 0.001, "horizon": 3},
    "choke price": {"prices": (1.0, 2.0), "choke": True, "stock": 3, "horizon": 3},
    "strong promotions": {
        "promotions": ((0.999, 1.0), (0.0, 1.0), (0.5, 0.0)), "lift": (10.0, 10.0), "prices": (0.9, 1.1), "horizon": 3,
    },
    "bare": {"forecast": None, "embedding": 0, "rivals": (), "statistics": False, "horizon": 3},
    "poor forecast": {"forecast": 2.0, "embedding": 1, "horizon": 3},
    "linear": {"families": ("linear",), "elasticity": (20.0, 0.0, 20.0, 20.0), "horizon": 3},
    "steep and flat": {
        "families": ("exponential", "constant"), "elasticity": (1e-3, 10.0, 1e-3, 20.0), "horizon": 3,
    },
    "logit": {
        "families": ("logit",), "purchase": (0.7, 0.7), "cross": (3.0, 3.0), "rivals": ("static",), "horizon": 3,
    },
    "table": {"families": "table", "purchase": (0.01, 0.01), "alpha": 0.3, "horizon": 3},
    "season of one": {"season": (1.0, 1.0), "period": 1, "horizon": 3},
    "season of two": {
        "season": (1.0, 1.0), "period": 2, "poisson": False, "rivals": ("follower", "undercutter"), "horizon": 4,
    },
    "no memory": {
        "gain": (20.0, 20.0), "aversion": (10.0, 10.0), "memory": (0.0, 0.0), "dip": (10.0, 10.0), "horizon": 3,
    },
    "long memory": {
        "gain": (2.0, 2.0), "aversion": (0.0, 0.0), "memory": (0.99, 0.99), "cross": (3.0, 3.0), "rivals": ("ar1",),
        "horizon": 4,
    },
    "nothing is worth": {"cost": (0.0, 0.0), "w_rev": (0.0, 0.0), "w_vol": (0.0, 0.0), "horizon": 3},
    "two weights": {"w_rev": (0.5, 2.0), "w_vol": (0.0, 3.0), "horizon": 3},
}  # fmt: skip
FERREIRA: dict[str, dict[str, Any]] = {
    "default": {},
    "one decision": {"horizon": 1},
    "one in stock": {"stock": 1, "horizon": 4},
    "table of the task": {"table": None, "horizon": 4},
    "no stock": {"stock": None, "horizon": 4},
}
SLATE: dict[str, dict[str, Any]] = {
    "default": {"horizon": 6, "candidates": 6},
    "one decision": {"horizon": 1, "candidates": 4},
    "one place": {"places": 1, "horizon": 3, "candidates": 5},
    "position": {"choice": "position", "horizon": 3, "candidates": 5},
    "cascade": {"choice": "cascade", "horizon": 3, "candidates": 5},
    "no statistics": {"statistics": False, "horizon": 3, "candidates": 5},
    "all that is": {
        "fresh": False, "drift": 0.3, "redraw": 0.2, "alpha": 0.5, "outside": (-4.0, -4.0), "horizon": 4,
        "candidates": 5, "places": 2,
    },
    "nothing happens": {
        **dict.fromkeys(("sensitivity", "satiation", "leaving"), (0.0, 0.0)), "attention": (1.0, 1.0), "horizon": 3,
        "candidates": 5,
    },
    "leaves at once": {"leaving": (1.0, 1.0), "outside": (8.0, 8.0), "away": 2.0, "horizon": 5, "candidates": 4},
    "small catalog": {"catalog_size": 7, "topics": 3, "width": 4, "candidates": 7, "horizon": 3, "cold": 1.0},
    "two weights": {"weights": {"value": [0.5, 2.0], "excess": 0.5}, "horizon": 3, "candidates": 5},
}  # fmt: skip
SMALL: dict[str, Any] = {"creatives": 1, "embedding": 1, "profile": (1.0,)}
PLACEMENT: dict[str, dict[str, Any]] = {
    "default": {**SMALL, "horizon": 2},
    "nothing happens": {
        **SMALL, **dict.fromkeys(("fatigue", "reaction"), (0.0, 0.0)), "conversion_value": 0.0, "horizon": 1,
        **dict.fromkeys(("drift", "change", "launch", "price_walk", "day_factor"), 0.0), "prediction": None,
        "campaign": "2997",
    },
    "all that is": {
        **SMALL, "creatives": 2, "fatigue": (0.1, 0.5), "reaction": (0.1, 0.5), "drift": 0.2, "change": 1.0,
        "launch": 0.5, "horizon": 2, "delays": ((0.2, 0.5), (0.3, 2.0), (0.5, 9.0)), "profile": (1.0,),
        "weights": {"value": [0.5, 2.0]},
    },
}  # fmt: skip
LEVELS: dict[str, Any] = {"creatives": 1, "embedding": 1, "levels": (0.0, 0.5), "parts": 2}
BIDDING: dict[str, dict[str, Any]] = {
    "default": {**LEVELS, "horizon": 2},
    "all that is": {**LEVELS, "reaction": (2.0, 3.0), "price_walk": 0.3, "traffic": 1.0, "horizon": 2},
}
CASES: dict[str, dict[str, dict[str, Any]]] = {  # id -> case -> parameters
    "RecBandit-v0": BANDIT,
    "RecBanditDrift-v0": BANDIT | DRIFT,
    "RecBanditContextual-v0": CONTEXTUAL,
    "RecSlate-v0": SLATE,
    "RecSlateShop-v0": {name: SLATE[name] for name in ("default", "position")},
    "RecSlateSocial-v0": {name: SLATE[name] for name in ("default", "cascade")},
    "AdPlacement-v0": PLACEMENT,
    "AdBidding-v0": BIDDING,
    "DynamicPricing-v0": PRICING,
    "DynamicPricingFerreira-v0": FERREIRA,
}


def file_of(group: str) -> Path:
    """Name the file of an id or of the agents."""
    return FOLDER / f"{group}.npz"


# --- environments ----------------------------------------------------------------------------------------------------
class Nudged:
    """Draws as another source of luck does, but every float a millionth further on.

    Args:
        rng: see `recgym.rng.make_rng`.
        size: by how much; negative moves down.
    """

    def __init__(self, rng: Any, size: float) -> None:
        self._rng = rng
        self._size = size

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rng, name)

    def uniform(self, shape: tuple[int, ...]) -> Any:
        return (self._rng.uniform(shape) + self._size).clip(0.0, 1.0 - 2.0**-24)

    def normal(self, shape: tuple[int, ...]) -> Any:
        return self._rng.normal(shape) * (1.0 + self._size)

    def poisson(self, rate: Any) -> Any:
        return self._rng.poisson(rate * (1.0 + self._size))

    def binomial(self, count: Any, probability: Any) -> Any:
        return self._rng.binomial(count, (probability * (1.0 + self._size)).clip(0.0, 1.0))

    def gamma(self, shape: Any) -> Any:
        return self._rng.gamma(shape) * (1.0 + self._size)


class Size(NamedTuple):
    """How much of a case is played."""

    rows: int
    decisions: int


def play_case(id: str, case: str, device: str, seeds: list[int], *, nudge: float = 0.0) -> Arrays:
    """Play one case with three seeds, each in its own of the `WAYS`.

    Args:
        id: of the environment.
        case: a key of `CASES[id]`.
        device: one of `DEVICES`.
        seeds: three.
        nudge: by how much every draw is moved.

    Returns:
        Arrays [3, ...] by name: tasks and bounds at the start, then what each decision led to, [3, T, B, ...].
    """
    scenario = recgym.make_scenario(id, **CASES[id][case])
    size = Size(3, 12) if case == "default" else Size(2, scenario.horizon + 2)
    records = []
    for seed, (mode, tasks) in zip(seeds, WAYS, strict=True):
        rng = make_rng(device)
        runner = Runner(scenario, size.rows, Nudged(rng, nudge) if nudge else rng, autoreset_mode=mode, tasks=tasks)
        records.append(_play_trials(runner, seed, size.decisions))
    names = dict.fromkeys(name for record in records for name in record)
    return {"seed": np.asarray(seeds)} | {name: np.stack([record[name] for record in records]) for name in names}


def _play_trials(runner: Runner, seed: int, decisions: int) -> Arrays:
    scenario = runner.scenario
    luck = np.random.default_rng(seed)
    record: Arrays = {"first_observation": np.array(to_numpy(runner.reset(seed=seed)))}
    record |= _task_of(runner, "first_task")
    bound = scenario.bound(runner.state) if hasattr(scenario, "bound") else None
    if bound is not None:
        record["bound"] = np.asarray(bound)
    lines = []
    for _ in range(decisions):
        line = {
            "best_reward": np.array(to_numpy(scenario.best_reward(runner.state))),
            "informed_action": np.array(to_numpy(scenario.informed_action(runner.state))),
        }
        step = runner.step(_any_action(scenario, luck, runner.rows))
        line |= {"observation": step.observation, "reward": step.reward, "ended": step.ended}
        last = step.final_observation
        line["final_observation"] = np.full_like(to_numpy(step.observation), np.nan) if last is None else last
        line |= {f"info.{name}": value for name, value in step.info.items()}
        lines.append({name: np.array(to_numpy(value)) for name, value in line.items()})
    record |= {name: np.stack([line[name] for line in lines]) for name in lines[0]}
    record["now_observed"] = np.array(to_numpy(runner.observation()))
    return record | _task_of(runner, "last_task")


def _task_of(runner: Runner, name: str) -> Arrays:
    return {f"{name}.{field}": np.array(to_numpy(leaf)) for field, leaf in tree_items(runner.state.task)}


def _any_action(scenario: Any, luck: np.random.Generator, rows: int) -> np.ndarray:
    """[B] candidates, or [B, k] different ones."""
    places = scenario.action_space.shape
    if not places:
        return luck.integers(0, scenario.layout.candidates, rows)
    return np.stack([luck.permutation(scenario.layout.candidates)[: places[0]] for _ in range(rows)])


def seeds_of(id: str, case: str, device: str) -> list[int]:
    """Find three seeds that play the same trials where every draw is moved by a millionth."""
    seeds = [0, 1, 2]
    for _ in range(MAX_TRIES):
        here = play_case(id, case, device, seeds)
        fragile = np.zeros(len(seeds), dtype=np.bool_)
        for nudge in (NUDGE, -NUDGE):
            there = play_case(id, case, device, seeds, nudge=nudge)
            for name, array in here.items():
                if array.dtype.kind != "f":
                    fragile |= (array != there[name]).reshape(len(seeds), -1).any(axis=1)
        if not fragile.any():
            return seeds
        seeds = [seed + 3 * int(move) for seed, move in zip(seeds, fragile, strict=True)]
    raise RuntimeError(f"{id}, {case} on {device}: all that is played hinges on the last bits of a float")


# --- agents ----------------------------------------------------------------------------------------------------------
def agent_files() -> dict[str, Path]:
    """Find the weights that ship, by the name of their file below agents/."""
    folder = ROOT / "agents"
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*.safetensors"))}


def play_agent(path: Path, decisions: int = 20) -> Arrays:
    """Ask an agent for its most probable actions along trials that others play.

    Arms of which nothing is known yet are equally probable, and the last bits decide between them: what is asked of the
    agent after that must not hinge on it.

    Returns:
        Logits [T, B, K], values [T, B] and actions [T, B] by name.
    """
    import torch

    from recgym.agents import load

    model = load(path, device="cpu")
    runner = Runner(model.env.unwrapped.scenario, 2, make_rng("cpu"))
    observation = runner.reset(seed=0)
    luck = np.random.default_rng(0)
    start = np.ones(runner.rows, dtype=np.bool_)
    memory, inner = None, None
    lines = []
    for _ in range(decisions):
        with torch.no_grad():
            distribution, values, inner = model.policy.step(torch.as_tensor(observation), inner, torch.as_tensor(start))
        action, memory = model.predict(observation, state=memory, episode_start=start, deterministic=True)
        line = {"logits": distribution.logits, "values": values, "actions": action}
        lines.append({name: np.array(to_numpy(value)) for name, value in line.items()})
        observation = runner.step(_any_action(runner.scenario, luck, runner.rows)).observation
        start = np.zeros(runner.rows, dtype=np.bool_)
    return {name: np.stack([line[name] for line in lines]) for name in lines[0]}


# --- files -----------------------------------------------------------------------------------------------------------
def packed(arrays: Arrays) -> np.ndarray:
    """One record with the arrays as its fields, floats in float32."""
    small = {name: array.astype(np.float32) if array.dtype.kind == "f" else array for name, array in arrays.items()}
    record = np.zeros((), dtype=[(name, array.dtype, array.shape) for name, array in small.items()])
    for name, array in small.items():
        record[name] = array
    return record


def record_environment(id: str) -> Arrays:
    """Play all cases of an environment."""
    return {
        f"{case}|{device}": packed(play_case(id, case, device, seeds_of(id, case, device)))
        for case in CASES[id]
        for device in DEVICES
    }


def record_agents(files: Callable[[], dict[str, Path]] = agent_files) -> Arrays:
    """Play all agents that ship."""
    return {name: packed(play_agent(path)) for name, path in files().items()}


def main(groups: list[str]) -> None:
    """Write the data of the groups, or of all."""
    for group in groups or [*CASES, AGENTS]:
        np.savez_compressed(file_of(group), **(record_agents() if group == AGENTS else record_environment(group)))
        print(f"{file_of(group).name}: {file_of(group).stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
