"""Known answers of the bandit scenarios: by hand, in closed form, or by counting.

Seeds are fixed, so nothing here fails by chance. Means are held to 4 standard errors, shares to chi-square limits that
a right simulator exceeds once in 1,000 seeds; each test says what defect it would find.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import recgym
from recgym.arrays import to_numpy
from recgym.baselines import InformedPolicy, RandomPolicy, make_baseline
from recgym.evaluation import rollout
from recgym.layout import LOG_SCALE
from recgym.rng import NumpyRng, make_rng
from recgym.runner import Runner
from recgym.scenarios.bandit import Bandit, DriftBandit
from recgym.scenarios.contextual import ContextualBandit

IDS = ["RecBandit-v0", "RecBanditDrift-v0", "RecBanditContextual-v0"]
every_id = pytest.mark.parametrize("id", IDS)


class Luck(NumpyRng):
    """Uniform draws [B] are given; the others are drawn."""

    def __init__(self, luck: Sequence[float]) -> None:
        super().__init__(0)
        self._luck = iter(luck)

    def uniform(self, shape: tuple[int, ...]) -> Any:
        return np.full(shape, next(self._luck), dtype=np.float32) if len(shape) == 1 else super().uniform(shape)


def within(values: np.ndarray, mean: float) -> None:
    """The mean of independent values is `mean`, within 4 standard errors."""
    error = values.std(ddof=1) / math.sqrt(values.size)
    assert abs(values.mean() - mean) < 4 * error, (values.mean(), mean, error)


def logit(rate: np.ndarray) -> np.ndarray:
    rate = rate.astype(np.float64)
    return np.log(rate / (1 - rate))


# --- the plain bandit ------------------------------------------------------------------------------------------------
def test_worked_example() -> None:
    """Three items, a uniform policy that showed item 2, then item 1, which the user clicked at t = 2."""
    scenario = Bandit(arms=3, horizon=4, alpha=0.9)
    runner = Runner(scenario, 1, Luck([0.9, 0.1]))
    runner.restart(task={"rates": [0.2, 0.5, 0.8]})

    def get(observation: np.ndarray, name: str) -> list[Any]:
        value = scenario.layout.get(observation, name)[0].tolist()
        return value if isinstance(value, list) else [value]

    start = runner.observation()
    assert (
        get(start, "average") == [0.5] * 3 and get(start, "exposure") == [0.0] * 3 and get(start, "chosen") == [0.0] * 3
    )
    assert get(start, "time") == [0.0] and get(start, "last_reward") == [0.0]
    assert get(start, "remaining") == pytest.approx([math.log(5) / math.log(1001)])

    first = runner.step(np.array([1]))  # luck .9 is above r_2 = .5: no click
    assert first.reward.tolist() == [0.0] and first.info["clicks"].tolist() == [0.0]
    assert get(first.observation, "average") == pytest.approx([0.5, 0.45, 0.5])  # .9 x .5 + .1 x 0
    assert get(first.observation, "chosen") == [0.0, 1.0, 0.0]

    second = runner.step(np.array([0]))  # luck .1 is below r_1 = .2: a click
    assert second.reward.tolist() == [1.0] and second.info["clicks"].tolist() == [1.0]
    assert get(second.observation, "average") == pytest.approx([0.55, 0.45, 0.5])  # .9 x .5 + .1 x 1
    shown_once = math.log(2) / math.log(1001)
    assert get(second.observation, "exposure") == pytest.approx([shown_once, shown_once, 0.0])
    assert get(second.observation, "chosen") == [1.0, 0.0, 0.0]
    assert get(second.observation, "time") == [0.5] and get(second.observation, "last_reward") == [1.0]
    assert get(second.observation, "remaining") == pytest.approx([math.log(3) / math.log(1001)])
    assert not second.ended.any()

    policy = np.full(3, 1 / 3)
    rates = runner.state.hidden.rates[0].astype(np.float64)
    assert float(policy @ rates) == pytest.approx((0.2 + 0.5 + 0.8) / 3)  # the policy's expected click rate
    assert float(scenario.best_reward(runner.state)[0] - policy @ rates) == pytest.approx(0.8 - 0.5)
    assert scenario.informed_action(runner.state).tolist() == [2]
    assert [float(step.info["expected_reward"][0]) for step in (first, second)] == pytest.approx([0.5, 0.2])
    assert [float(step.info["regret"][0]) for step in (first, second)] == pytest.approx([0.3, 0.6])


def test_the_moving_average_by_hand() -> None:
    """s <- alpha s + (1 - alpha) click where shown, from the prior mean; the others keep theirs."""
    scenario = Bandit(arms=2, horizon=50, alpha=0.7, prior=(1.0, 3.0))
    runner = Runner(scenario, 1, make_rng(seed=4))
    runner.restart(task={"rates": [0.4, 0.6]})
    average, counts = [0.25, 0.25], [0, 0]
    for action in np.random.default_rng(0).integers(0, 2, 50).tolist():
        state_before = runner.state
        step = runner.advance(np.array([action]))
        average[action] = 0.7 * average[action] + 0.3 * float(step.reward[0])
        counts[action] += 1
        np.testing.assert_allclose(scenario.layout.get(step.observation, "average")[0], average, atol=1e-6)
        np.testing.assert_allclose(
            scenario.layout.get(step.observation, "exposure")[0], np.log1p(counts) / LOG_SCALE, atol=1e-6
        )
        assert state_before.seen.kept.counts.sum() == sum(counts) - 1  # the old state is left as it was
    assert 5 < sum(counts[:1]) < 45


@pytest.mark.parametrize("kind", [Bandit, DriftBandit])
def test_the_moving_average_starts_where_it_is_told(kind: type[Bandit]) -> None:
    """So that nothing shown tells the prior."""
    shown = []
    for prior in ((1.0, 99.0), (50.0, 1.0)):
        scenario = kind(arms=3, horizon=5, prior=prior, initial_average=0.5)
        runner = Runner(scenario, 4, make_rng(seed=4))
        runner.restart()
        shown.append(runner.observation())
    assert (scenario.layout.get(shown[0], "average") == 0.5).all()
    np.testing.assert_array_equal(*shown)


@pytest.mark.parametrize("arms, horizon", [(3, 20), (10, 100)])
def test_uniform_play_loses_what_theory_says(arms: int, horizon: int) -> None:
    """T (K / (K + 1) - 1/2): finds a defect of .02 per decision (s.e. .003 at K = 10)."""
    scenario = Bandit(arms=arms, horizon=horizon)
    trials = rollout(RandomPolicy(scenario), scenario, trials=4000, seed=3)
    within(trials.regret.sum(axis=1, dtype=np.float64), horizon * (arms / (arms + 1) - 0.5))
    within(trials.returns, horizon / 2)
    np.testing.assert_array_equal(trials.objectives[:, 0], trials.returns)


@every_id
def test_the_informed_policy_has_no_regret(id: str) -> None:
    scenario = recgym.make_scenario(id, horizon=20)
    trials = rollout(InformedPolicy(scenario), scenario, trials=500, seed=3)
    assert (trials.regret == 0).all()
    within(trials.returns - trials.expected, 0.0)
    best = rollout(InformedPolicy(Bandit(arms=10, horizon=20)), Bandit(arms=10, horizon=20), trials=2000, seed=3)
    within(best.expected, 20 * 10 / 11)  # the highest of ten uniforms


def test_clicks_follow_the_rates() -> None:
    """Every arm of one task, 20,000 decisions each: finds a defect of .015 in any rate."""
    rates = [0.0, 0.003, 0.2, 0.5, 0.97, 1.0]
    scenario = Bandit(arms=6, horizon=10)
    runner = Runner(scenario, 12_000, make_rng(seed=1))
    runner.restart(task={"rates": rates})
    action = np.arange(12_000) % 6
    clicks = np.stack([runner.advance(action).reward for _ in range(10)])
    for arm, rate in enumerate(rates):
        drawn = clicks[:, action == arm]
        assert abs(drawn.mean() - rate) <= 4 * math.sqrt(rate * (1 - rate) / drawn.size)


@every_id
@pytest.mark.parametrize("device", ["cpu", "torch"])
def test_noise_is_independent_across_steps_and_rows(id: str, device: str) -> None:
    """Standardised residuals of 100 x 1,000 clicks, at several lags: finds a correlation of .02."""
    if device == "torch":
        pytest.importorskip("torch")
    scenario = recgym.make_scenario(id, horizon=100)
    runner = Runner(scenario, 1000, make_rng(device, 2))
    runner.restart()
    residuals = np.empty((100, 1000))
    rng = np.random.default_rng(0)
    for t in range(100):
        step = runner.advance(rng.integers(0, 10, 1000))
        rate = to_numpy(step.info["expected_reward"]).astype(np.float64)
        spread = np.sqrt(np.maximum(rate * (1 - rate), 1e-3))
        residuals[t] = (to_numpy(step.reward) - rate) / spread
    limit = 4 / math.sqrt(residuals.size)
    assert abs(residuals.mean()) < limit
    for lag in (1, 2, 3):
        assert abs(np.mean(residuals[lag:] * residuals[:-lag])) < limit * 1.1
        assert abs(np.mean(residuals[:, lag:] * residuals[:, :-lag])) < limit * 1.1


def test_tasks_follow_the_prior() -> None:
    for prior in ((1.0, 1.0), (2.0, 5.0), (0.3, 4.0)):
        task = Bandit(prior=prior).sample_task(make_rng(seed=6), 5000)
        a, b = prior
        mean = a / (a + b)
        within(task.rates.astype(np.float64), mean)
        within((task.rates.astype(np.float64) - mean) ** 2, mean * (1 - mean) / (a + b + 1))


@every_id
@pytest.mark.parametrize("actions", ["alike", "different"])
def test_all_policies_draw_the_same_uniform(id: str, actions: str) -> None:
    """The luck of a decision is one number per row, whatever is chosen, and what the world does is the same too."""
    scenario = recgym.make_scenario(id, horizon=6)
    used: list[list[np.ndarray]] = []
    worlds: list[list[np.ndarray]] = []
    for policy in range(2):

        class Spy(NumpyRng):
            def uniform(self, shape: tuple[int, ...]) -> Any:
                used[-1].append(super().uniform(shape))
                return used[-1][-1]

        used.append([])
        worlds.append([])
        runner = Runner(scenario, 4, Spy(5))
        runner.reset()
        for t in range(14):
            worlds[-1].append(runner.state.hidden.rates)
            runner.step(np.full(4, (t + policy * (actions == "different")) % 10))
    for one, other in zip(used[0] + worlds[0], used[1] + worlds[1], strict=True):
        np.testing.assert_array_equal(one, other)


@every_id
def test_without_statistics_fields_go_and_nothing_else(id: str) -> None:
    plain, bare = (recgym.make_scenario(id, horizon=8, statistics=value) for value in (True, False))
    runners = [Runner(scenario, 5, make_rng(seed=3)) for scenario in (plain, bare)]
    observations = [runner.reset() for runner in runners]
    rng = np.random.default_rng(0)
    names = [{field.name for field in scenario.layout} for scenario in (plain, bare)]
    assert names[0] - names[1] == ({"feedback"} if "Contextual" in id else {"average", "exposure"})
    assert names[1] - {"features"} == {"time", "remaining", "last_reward", "chosen"}
    for _ in range(20):
        for name in names[1]:
            left, right = (s.layout.get(o, name) for s, o in zip((plain, bare), observations, strict=True))
            np.testing.assert_array_equal(left, right)
        action = rng.integers(0, 10, 5)
        steps = [runner.step(action) for runner in runners]
        np.testing.assert_array_equal(steps[0].reward, steps[1].reward)
        np.testing.assert_array_equal(steps[0].info["regret"], steps[1].info["regret"])
        observations = [step.observation for step in steps]


# --- an expert's judgement --------------------------------------------------------------------------------------------
JUDGED = pytest.mark.parametrize("kind", [Bandit, DriftBandit])


@JUDGED
@pytest.mark.parametrize("device", ["cpu", "torch"])
def test_an_expert_without_error_knows_the_rates(kind: Any, device: str) -> None:
    """log softmax of the true logits, also where a click is certain or impossible."""
    if device == "torch":
        pytest.importorskip("torch")
    for rates in ([0.2, 0.5, 0.8, 0.01], [0.0, 1.0, 0.3, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 1.0], [0.7]):
        scenario = kind(arms=len(rates), expert=0.0)
        runner = Runner(scenario, 2, make_rng(device, 1))
        runner.restart(task={"rates": rates})
        logits = logit(np.clip(np.array(rates), 1e-6, 1 - 1e-6))
        known = logits - np.log(np.exp(logits).sum())
        shown = to_numpy(scenario.layout.get(runner.observation(), "expert"))
        assert shown.dtype == np.float32
        np.testing.assert_allclose(shown, [known] * 2, rtol=0, atol=0.02)  # 1 - 1e-6 is 1 % off in float32
        if 0.0 not in rates and 1.0 not in rates:
            np.testing.assert_allclose(shown, [known] * 2, rtol=0, atol=1e-5)
        np.testing.assert_array_equal(shown, to_numpy(runner.state.seen.offer.expert))
    by_hand = Bandit(arms=2, expert=0.0)
    state = by_hand.reset(by_hand.task_type(np.float32([[0.8, 0.5]])), make_rng(seed=1))
    np.testing.assert_allclose(np.exp(state.seen.offer.expert), [[0.8, 0.2]], rtol=1e-5)  # odds 4 and 1


def test_an_experts_error_has_the_stated_spread() -> None:
    """40,000 errors, less the mean of each row, which the softmax hides: finds a sd wrong by 3 %."""
    scenario = Bandit(expert=1.5)
    runner = Runner(scenario, 4000, make_rng(seed=5))
    runner.restart()
    error = runner.state.seen.offer.expert - logit(runner.state.hidden.rates)
    error -= error.mean(axis=1, keepdims=True)
    within((error**2).sum(axis=1) / 9, 1.5**2)
    within(error * (logit(runner.state.hidden.rates) - logit(runner.state.hidden.rates).mean()), 0.0)


def test_what_an_expert_is_worth() -> None:
    """Click rate of his favourite of ten: the best without error, that of any with a huge one (4,000 trials)."""
    favourite = {}
    for noise in (0.0, 1.0, 100.0):
        runner = Runner(Bandit(expert=noise), 4000, make_rng(seed=6))
        runner.restart()
        rates, rows = runner.state.hidden.rates.astype(np.float64), np.arange(4000)
        favourite[noise] = rates[rows, runner.state.seen.offer.expert.argmax(axis=1)]
        if noise == 0.0:
            np.testing.assert_array_equal(favourite[noise], rates.max(axis=1))
    within(favourite[100.0], 0.5)
    assert 0.8 < favourite[1.0].mean() < 10 / 11 - 0.03


@JUDGED
@pytest.mark.parametrize("device", ["cpu", "torch"])
@pytest.mark.parametrize("noise", [0, 0.3, 100.0])
@pytest.mark.parametrize("arms, prior", [(1, (1.0, 1.0)), (2, (0.001, 0.001)), (300, (0.05, 0.05))])
def test_judgements_are_probabilities_inside_the_space(
    kind: Any, device: str, noise: float, arms: int, prior: tuple[float, float]
) -> None:
    if device == "torch":
        pytest.importorskip("torch")
    scenario = kind(arms=arms, prior=prior, horizon=3, expert=noise)
    runner = Runner(scenario, 200, make_rng(device, 2))
    observation, rng = runner.reset(), np.random.default_rng(0)
    low, high = scenario.observation_space.low, scenario.observation_space.high
    for _ in range(5):
        seen = to_numpy(observation)
        assert seen.dtype == np.float32 and ((seen >= low) & (seen <= high)).all()
        np.testing.assert_allclose(np.exp(scenario.layout.get(seen, "expert")).sum(axis=1), 1.0, atol=1e-5)
        observation = runner.step(rng.integers(0, arms, 200)).observation


@JUDGED
@pytest.mark.parametrize("device", ["cpu", "torch"])
def test_an_expert_changes_nothing_else(kind: Any, device: str) -> None:
    """Tasks, luck and the other fields are those of the bandit without one, through restarts of some rows and all."""
    if device == "torch":
        pytest.importorskip("torch")
    plain, judged = kind(horizon=5), kind(horizon=5, expert=0.7)
    runners = [Runner(scenario, 4, make_rng(device, 3)) for scenario in (plain, judged)]
    names = [field.name for field in plain.layout]
    assert [field.name for field in judged.layout] == [*names, "expert"]
    observations, rng = [runner.reset() for runner in runners], np.random.default_rng(0)
    for t in range(14):
        for name in names:
            one, other = (s.layout.get(o, name) for s, o in zip((plain, judged), observations, strict=True))
            np.testing.assert_array_equal(to_numpy(one), to_numpy(other))
        snapshots = [runner.snapshot() for runner in runners]
        assert snapshots[0].keys() == snapshots[1].keys()
        assert not snapshots[0]["state.seen.offer.expert"].any()
        for name in snapshots[0].keys() - {"state.seen.offer.expert"}:
            np.testing.assert_array_equal(snapshots[0][name], snapshots[1][name])
        if t == 7:
            mask = runners[0].rng.xp.asarray([True, False, False, True])
            observations = [runner.reset(mask) for runner in runners]
            continue
        action = rng.integers(0, 10, 4)
        steps = [runner.step(action) for runner in runners]
        for left, right in zip([*steps[0][1:3], *steps[0].info.values()],
                               [*steps[1][1:3], *steps[1].info.values()], strict=True):  # fmt: skip
            np.testing.assert_array_equal(to_numpy(left), to_numpy(right))
        observations = [step.observation for step in steps]


@JUDGED
def test_an_expert_judges_once_a_trial(kind: Any) -> None:
    scenario = kind(horizon=4, expert=1.0, statistics=False)
    assert [field.name for field in scenario.layout.candidate] == ["chosen", "expert"]
    runner = Runner(scenario, 3, make_rng(seed=7))
    runner.restart(task={"rates": [0.3] * 10})
    first = scenario.layout.get(runner.observation(), "expert").copy()
    assert len(np.unique(first)) == first.size  # a judgement for each row
    for _ in range(3):
        step = runner.step(np.array([0, 1, 2]))
        np.testing.assert_array_equal(scenario.layout.get(step.observation, "expert"), first)
    runner.restart(np.array([False, True, False]), task={"rates": [0.3] * 10})
    again = scenario.layout.get(runner.observation(), "expert")
    np.testing.assert_array_equal(again[[0, 2]], first[[0, 2]])
    assert (again[1] != first[1]).all()  # the same task, judged anew


def test_policies_need_no_expert() -> None:
    """Baselines read fields by name: that an expert is shown changes nothing for them."""
    for kind in (Bandit, DriftBandit):
        returns = [
            rollout(make_baseline("ucb1_tuned", scenario), scenario, trials=200, seed=3).regret
            for scenario in (kind(horizon=20), kind(horizon=20, expert=0.5))
        ]
        np.testing.assert_array_equal(*returns)


def test_an_experts_spread_is_plain_data() -> None:
    env = gym.make("RecBandit-v0", expert=np.float64(0.5))
    assert type(env.unwrapped.scenario.expert) is float and Bandit(expert=2) == Bandit(expert=2.0)  # type: ignore[attr-defined]
    assert env.observation_space.shape == (3 + 10 * 4,)
    assert env.observation_space.contains(env.reset(seed=1)[0])


# --- drift -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("device", ["cpu", "torch"])
@pytest.mark.parametrize("prior", [(1.0, 1.0), (2.0, 3.0)])
def test_without_its_mechanisms_drift_is_the_plain_bandit(prior: tuple[float, float], device: str) -> None:
    if device == "torch":
        pytest.importorskip("torch")
    parameters: dict[str, Any] = {"arms": 4, "horizon": 6, "prior": prior}
    plain = Runner(Bandit(**parameters), 5, make_rng(device, 3))
    still = Runner(DriftBandit(**parameters, drift=0.0, change_rate=0.0), 5, make_rng(device, 3))
    np.testing.assert_array_equal(plain.reset(), still.reset())
    rng = np.random.default_rng(0)
    for _ in range(20):
        action = rng.integers(0, 4, 5)
        one, other = plain.step(action), still.step(action)
        for left, right in zip([*one[:3], *one.info.values()], [*other[:3], *other.info.values()], strict=True):
            np.testing.assert_array_equal(to_numpy(left), to_numpy(right))


def moved(scenario: DriftBandit, rates: list[float], steps: int, rows: int) -> tuple[Runner, np.ndarray]:
    """Click rates [B, K] after some decisions that all show candidate 0."""
    runner = Runner(scenario, rows, make_rng(seed=11))
    runner.restart(task={"rates": rates})
    for _ in range(steps):
        runner.advance(np.zeros(rows, dtype=np.int64))
    return runner, runner.state.hidden.rates


@pytest.mark.parametrize("drift, steps", [(0.3, 1), (0.3, 12), (1.0, 3)])
def test_logits_walk_at_random(drift: float, steps: int) -> None:
    """From the middle, variance steps x drift^2, whether shown or not: finds a sd wrong by 3 % (20,000 walks)."""
    scenario = DriftBandit(arms=5, drift=drift, change_rate=0.0)
    runner, rates = moved(scenario, [0.5, 0.5, 0.3, 0.7, 0.5], steps, 4000)
    walk = logit(rates) - logit(np.array([0.5, 0.5, 0.3, 0.7, 0.5]))
    for candidate in (slice(0, 1), slice(1, 5)):
        within(walk[:, candidate], 0.0)
        within(walk[:, candidate] ** 2, steps * drift**2)
    correlation = np.corrcoef(walk.T)[np.triu_indices(5, 1)]
    assert np.abs(correlation).max() < 4.5 / math.sqrt(4000)  # each candidate walks for itself
    np.testing.assert_array_equal(runner.state.hidden.best, rates.max(axis=1))
    np.testing.assert_array_equal(runner.state.task.rates[0], np.float32([0.5, 0.5, 0.3, 0.7, 0.5]))  # the task stays


@pytest.mark.parametrize("change_rate", [0.1, 0.6, 1.0])
def test_candidates_are_replaced_by_fresh_ones(change_rate: float) -> None:
    """The share replaced, over one step and several, and the distribution they are drawn from."""
    scenario = DriftBandit(arms=5, drift=0.0, change_rate=change_rate, prior=(2.0, 5.0))
    for steps in (1, 4):
        _, rates = moved(scenario, [0.5, 0.4, 0.3, 0.2, 0.1], steps, 4000)
        replaced = rates != np.float32([0.5, 0.4, 0.3, 0.2, 0.1])
        share = 1 - (1 - change_rate) ** steps
        assert abs(replaced.mean() - share) <= 4 * math.sqrt(share * (1 - share) / replaced.size)
        fresh = rates[replaced].astype(np.float64)
        within(fresh, 2 / 7)
        within((fresh - 2 / 7) ** 2, 2 * 5 / (7**2 * 8))


def test_rewards_come_before_the_change() -> None:
    """`expected` and regret refer to the rates at the time of the decision."""
    scenario = DriftBandit(arms=3, horizon=10, drift=1.0, change_rate=0.5)
    runner = Runner(scenario, 200, make_rng(seed=1))
    runner.restart()
    for _ in range(10):
        rates = runner.state.hidden.rates
        action = np.full(200, 2)
        step = runner.advance(action)
        np.testing.assert_array_equal(step.info["expected_reward"], rates[:, 2])
        np.testing.assert_array_equal(step.info["regret"], rates.max(axis=1) - rates[:, 2])
        assert (runner.state.hidden.rates != rates).all()


# --- features --------------------------------------------------------------------------------------------------------
def test_click_probability_is_logistic_in_the_features() -> None:
    scenario = ContextualBandit(arms=4, features=3, bias=-0.5, taste=0.8, horizon=30)
    runner = Runner(scenario, 50, make_rng(seed=2))
    runner.restart()
    for _ in range(5):
        state = runner.state
        logits = -0.5 + np.einsum(
            "bkd,bd->bk", state.seen.offer.features.astype(np.float64), state.task.theta.astype(np.float64)
        )
        np.testing.assert_allclose(state.hidden.rates, 1 / (1 + np.exp(-logits)), rtol=0, atol=1e-6)
        shown = np.random.default_rng(0).integers(0, 4, 50)
        step = runner.advance(shown)
        np.testing.assert_array_equal(step.info["expected_reward"], state.hidden.rates[np.arange(50), shown])
        np.testing.assert_array_equal(
            step.info["regret"], state.hidden.rates.max(axis=1) - state.hidden.rates[np.arange(50), shown]
        )
        assert (
            runner.state.seen.offer.features != state.seen.offer.features
        ).mean() > 0.98  # fresh candidates, but for those cut at +-3
        np.testing.assert_array_equal(
            scenario.layout.get(step.observation, "features"), runner.state.seen.offer.features
        )
        np.testing.assert_array_equal(runner.state.task.theta, state.task.theta)


def test_feedback_by_hand() -> None:
    """f <- alpha f + (1 - alpha) (click - sigmoid(bias)) x_shown."""
    scenario = ContextualBandit(arms=2, features=[[1.0, -2.0], [0.5, 4.0]], bias=1.2, alpha=0.6, horizon=12)
    runner = Runner(scenario, 1, make_rng(seed=5))
    runner.restart(task={"theta": [0.3, -0.4]})
    base, feedback = 1 / (1 + math.exp(-1.2)), np.zeros(2)
    clicks = []
    for t in range(12):
        shown = runner.state.seen.offer.features[0, t % 2].astype(np.float64)
        assert shown.tolist() in ([1.0, -2.0], [0.5, 4.0])
        step = runner.advance(np.array([t % 2]))
        feedback = 0.6 * feedback + 0.4 * (float(step.reward[0]) - base) * shown
        np.testing.assert_allclose(scenario.layout.get(step.observation, "feedback")[0], feedback, rtol=0, atol=1e-5)
        clicks.append(float(step.reward[0]))
    assert 0 < sum(clicks) < 12


def test_features_and_tastes_have_the_stated_moments() -> None:
    scenario = ContextualBandit(arms=20, features=5, taste=0.35)
    runner = Runner(scenario, 4000, make_rng(seed=8))
    runner.restart()
    theta, x = (leaf.astype(np.float64) for leaf in (runner.state.task.theta, runner.state.seen.offer.features))
    within(theta, 0.0)
    within(theta**2, 0.35**2)
    tail, density = math.erfc(3 / math.sqrt(2)), math.exp(-4.5) / math.sqrt(2 * math.pi)
    within(x, 0.0)
    within(x**2, (1 - tail) - 6 * density + 9 * tail)  # a normal cut at +-3 (not redrawn)
    assert np.abs(x).max() == 3.0
    within(x[:, :-1] * x[:, 1:], 0.0)
    within(theta[:, :-1] * theta[:, 1:], 0.0)


def test_rows_of_a_table_are_drawn_alike() -> None:
    """7 rows, 40,000 draws at the start and after a step: chi-square, 6 degrees of freedom, 22.5 is 1 in 1,000."""
    table = [[float(i), float(-i * i)] for i in range(7)]
    scenario = ContextualBandit(arms=20, features=table, taste=0.01)
    runner = Runner(scenario, 2000, make_rng(seed=8))
    runner.restart()
    for _ in range(2):
        x = runner.state.seen.offer.features
        np.testing.assert_array_equal(x[..., 1], -(x[..., 0] ** 2))
        counts = np.bincount(x[..., 0].astype(int).ravel(), minlength=7)
        assert np.sum((counts - 40_000 / 7) ** 2 / (40_000 / 7)) < 22.5
        runner.advance(np.zeros(2000, dtype=np.int64))


def test_one_feature_is_enough() -> None:
    """A width of 1 has no last axis in the layout."""
    for features in (1, [[0.5], [-1.0]]):
        scenario = ContextualBandit(arms=3, features=features)
        runner = Runner(scenario, 2, make_rng(seed=1))
        runner.reset()
        step = runner.advance(np.array([0, 2]))
        np.testing.assert_array_equal(
            scenario.layout.get(step.observation, "features"), runner.state.seen.offer.features[..., 0]
        )
        np.testing.assert_array_equal(
            scenario.layout.get(step.observation, "feedback"), runner.state.seen.kept.feedback[..., 0]
        )


# --- parameters ------------------------------------------------------------------------------------------------------
NAN = float("nan")
BAD: dict[str, list[Any]] = {
    "arms": [0, -1, 10_001, 2.0, "3", True, None, NAN, [3]],
    "horizon": [0, -5, 100_001, 10.0, "3", False, None, NAN],
    "alpha": [-0.1, 1.1, NAN, float("inf"), "0.5", True, None, 1j, np.complex64(1), [0.5]],
    "initial_average": [-0.1, 1.1, NAN, "0.5", True, [0.5]],
    "statistics": [0, 1, "yes", None, 0.5, np.bool_(True)],
    "prior": [
        (NAN, 1.0), (1.0, NAN), (0.0, 1.0), (1.0, -2.0), (1.0, 2e6), (1e-300, 1.0), (1.0,), (1.0, 1.0, 1.0), 1.0, None,
        "12", ("1", "2"), (True, True), (1j, 1.0), ((1.0, 2.0),), {}, (float("inf"), 1.0), [[1.0], [1.0, 2.0]],
    ],
    "expert": [-0.1, 100.1, NAN, float("inf"), "1", True, 1j, [0.5]],
    "drift": [-0.1, 10.1, NAN, float("inf"), "0.1", True, None],
    "change_rate": [-0.1, 1.1, NAN, "0.1", True, None],
    "taste": [-0.1, 100.1, NAN, "1", True, None],
    "bias": [-20.1, 21, NAN, "1", False, None],
    "features": [
        0, -1, 1001, 2.5, True, "3", None, NAN, [], [[]], [1.0, 2.0], [[1.0], [1.0, 2.0]], [[NAN]], [[float("inf")]],
        [["1", "2"]], [[True, False]], [[1e300]], [[1j]], [[[1.0]]], {},
    ],
}  # fmt: skip


def parameter_cases() -> list[tuple[str, str, Any]]:
    cases = []
    for id in IDS:
        known = {field for field in BAD if hasattr(recgym.make_scenario(id), field)}
        cases += [(id, name, value) for name in BAD if name in known for value in BAD[name]]
    return cases


@pytest.mark.parametrize("id, name, value", parameter_cases(), ids=repr)
def test_parameters_out_of_range_are_refused(id: str, name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"Bandit: {name} must be"):
        recgym.make_scenario(id, **{name: value})


@every_id
def test_refusals_come_through_gymnasium(id: str) -> None:
    for make in (gym.make, gym.make_vec):
        with pytest.raises(ValueError, match=r"horizon must be a whole number in \[1, 100000\], got -1"):
            make(id, horizon=-1)
        for kind in (ValueError, TypeError):  # as other bad values, and as Python's own error, which programs probe for
            with pytest.raises(kind, match=r"unexpected keyword argument 'horizn'; did you mean 'horizon'"):
                make(id, horizn=5)
    with pytest.raises(ValueError, match="did you mean 'alpha'"):
        recgym.make_scenario(id, alhpa=0.5)
    with pytest.raises(ValueError, match="unexpected keyword argument 'zzz'; its parameters are arms"):
        recgym.make_scenario(id, zzz=0.5)


@pytest.mark.parametrize("id, name", [(IDS[0], "drift"), (IDS[0], "features"), (IDS[1], "taste"), (IDS[2], "prior")])
def test_parameters_of_another_preset_are_refused(id: str, name: str) -> None:
    for make in (recgym.make_scenario, gym.make, gym.make_vec):
        with pytest.raises(ValueError, match=f"unexpected keyword argument {name!r}"):
            make(id, **{name: 1})


def test_unknown_ids_name_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"did you mean 'RecBandit-v0'.*RecBanditDrift-v0"):
        recgym.make_scenario("RecBandt-v0")
    with pytest.raises(ValueError, match="there are RecBandit-v0"):
        recgym.make_scenario("")
    with pytest.raises(gym.error.NameNotFound, match="Did you mean: `RecBandit`"):
        gym.make("RecBandt-v0")
    with pytest.raises(gym.error.VersionNotFound, match="RecBandit"):
        gym.make("RecBandit-v77")


def test_whole_numbers_and_lists_are_taken() -> None:
    """What JSON, a command line or NumPy hands over."""
    same = Bandit(arms=3, horizon=5, prior=(1.0, 2.0), alpha=1.0)
    assert Bandit(arms=np.int64(3), horizon=np.int32(5), prior=[1, 2], alpha=1) == same  # type: ignore[arg-type]
    assert Bandit(3, 5, np.array([1, 2]), np.float64(1)) == same  # type: ignore[arg-type]
    table = np.array([[1, 2], [3, 4]], dtype=np.float32)
    assert ContextualBandit(features=table).features == ((1.0, 2.0), (3.0, 4.0))  # type: ignore[arg-type]
    assert ContextualBandit(features=table).width == 2  # type: ignore[arg-type]
    assert all(type(value) is float for value in same.prior)
