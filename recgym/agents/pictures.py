"""What a policy does within a trial, as figures: how sure it is over the decisions, and what it looks at."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch

from recgym.agents.policy import TransformerPolicy
from recgym.agents.transformer import Attention, CandidateNetwork
from recgym.arrays import to_numpy
from recgym.evaluation.drawing import new_figure
from recgym.rng import make_rng
from recgym.runner import Runner

__all__ = ["TrialRecord", "policy_figures", "sample_trials"]

MOMENTS = (0.05, 0.3, 1.0)  # shares of the trial after which attention is drawn


class TrialRecord(NamedTuple):
    """Trials of a policy, sampled, and what the first one attended to at its last decision of each of `moments`."""

    entropy: np.ndarray  # [T, B] nats of the (first) choice
    best: np.ndarray  # [T, B] whether the choice was the best one
    moments: list[int]  # decisions, from 0
    across: list[np.ndarray]  # per moment [K, K]: last block, mean over heads; a row looks at the columns
    history: list[np.ndarray]  # per moment [K, S]: from the candidates to the decisions so far; empty without a history
    actions: np.ndarray  # [T] of the first trial
    rewards: np.ndarray  # [T]
    lasting: bool  # candidates outlast a decision, so that there is something to say of each


def sample_trials(policy: TransformerPolicy, scenario: Any, *, trials: int, seed: int) -> TrialRecord:
    """Play `trials` trials; see `TrialRecord`."""
    if not isinstance(policy.network, CandidateNetwork):
        raise ValueError("there is a picture of candidates only where the environment has a Layout")
    runner = Runner(scenario, trials, make_rng("cpu", seed))
    moments = sorted({max(0, round(scenario.horizon * part) - 1) for part in MOMENTS})
    last = policy.network.blocks[-1]
    looked: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    entropy, best, actions, rewards = [], [], [], []
    observation, memory = runner.reset(), None
    starts = torch.ones(trials, dtype=torch.bool, device=policy.device)
    for t in range(scenario.horizon):
        recorders = [(last.across, looked[0]), (last.history, looked[1])] if t in moments else []
        for attention, _ in recorders:
            if isinstance(attention, Attention):
                attention.recorded = []
        with torch.no_grad():
            batch = torch.as_tensor(observation, device=policy.device)
            distribution, _, memory = policy.step(batch, memory, starts)
            action = distribution.sample()
        for attention, maps in recorders:
            if isinstance(attention, Attention):
                assert attention.recorded is not None
                maps.append(to_numpy(attention.recorded[0][0].mean(dim=0)))
                attention.recorded = None
        entropy.append(to_numpy(distribution.first_entropy()))
        step = runner.advance(to_numpy(action))
        best.append(step.info["regret"] <= 1e-6)
        actions.append(int(to_numpy(action)[0].flat[0]))
        rewards.append(float(step.reward[0]))
        observation, starts = step.observation, torch.zeros_like(starts)
    arrays = np.array(entropy), np.array(best), moments, looked[0], looked[1], np.array(actions), np.array(rewards)
    return TrialRecord(*arrays, lasting=scenario.candidate_rewards(runner.state)[1] is not None)


def policy_figures(
    policy: TransformerPolicy, scenario: Any, *, trials: int, seed: int, title: str = ""
) -> dict[str, Any]:
    """Matplotlib figures: `certainty` (entropy and share of best choices over the decisions) and `attention`."""
    record = sample_trials(policy, scenario, trials=trials, seed=seed)
    decisions = np.arange(1, scenario.horizon + 1)
    certainty, axes = new_figure()
    candidates = scenario.layout.candidates
    axes.plot(decisions, record.entropy.mean(axis=1) / math.log(max(candidates, 2)), label="entropy / log K")
    axes.plot(decisions, record.best.mean(axis=1), color="black", label="share of best choices")
    axes.set(xlabel="decision", ylabel="mean over trials", ylim=(0, 1), title=title)
    axes.legend(frameon=False)

    rows = 2 if record.history else 1
    columns = len(record.moments)
    attention, grid = new_figure(4 * columns, 3.6 * rows, (rows, columns))
    for column, moment in enumerate(record.moments):
        known = [
            f"{k}: {int(record.rewards[:moment][record.actions[:moment] == k].sum())}/"
            f"{int((record.actions[:moment] == k).sum())}"
            for k in range(candidates)
        ]
        axes = grid[0, column]
        axes.imshow(record.across[column], vmin=0, cmap="viridis", aspect="auto")
        axes.set(title=f"decision {moment + 1}: shows {record.actions[moment]}", xlabel="candidate looked at")
        if candidates <= 20 and record.lasting:
            axes.set_yticks(range(candidates), known, fontsize=7)
        if column == 0:
            axes.set_ylabel("candidate: reward / times shown" if record.lasting else "candidate")
        if record.history:
            below = grid[1, column]
            below.imshow(record.history[column], vmin=0, cmap="viridis", aspect="auto")
            below.set(xlabel="decision looked at", ylabel="candidate" if column == 0 else "")
    attention.suptitle(f"attention of the last block, one trial{', ' + title if title else ''}", fontsize=10)
    return {"certainty": certainty, "attention": attention}
