"""Live sessions: fed the simulator's own feedback they see what it shows, bit for bit, and they survive the process."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import recgym
from recgym.agents.pretrained import agent_ids, load_pretrained
from recgym.baselines import RandomPolicy, baselines_for, make_baseline
from recgym.live import LiveSession
from recgym.rng import make_rng

IDS = list(recgym.SCENARIOS)
POLICIES = {
    "RecBandit-v0": ("thompson", "gittins"),
    "RecBanditDrift-v0": ("sliding_window_ucb", "bayes_ucb_drift"),
    "RecBanditContextual-v0": ("linucb", "bayes_logistic"),
    "DynamicPricing-v0": ("glm_ts", "thompson", "pd_bwk"),
    "DynamicPricingFerreira-v0": ("ts_update", "exact"),
}
CASES = [(id, name) for id in IDS for name in POLICIES.get(id, ("random",))]
HORIZON = 6


def simulate(id: str, rows: int, seed: int = 3, **parameters: Any) -> tuple[Any, Any, Any]:
    """A scenario, the state that a trial begins in, and its luck."""
    scenario = recgym.make_scenario(id, **{"horizon": HORIZON, **parameters})
    rng = make_rng("cpu", seed)
    rng.rekey(0, 0)
    state = scenario.reset(scenario.sample_task(rng, rows), rng)
    return scenario, state, rng


@pytest.mark.parametrize("id, name", CASES)
@pytest.mark.parametrize("rows", [1, 3])
def test_a_session_sees_what_the_simulator_shows(id: str, name: str, rows: int) -> None:
    """At every decision the process may end, and the session goes on from its bytes."""
    scenario, state, rng = simulate(id, rows)
    policy, other = make_baseline(name, scenario), make_baseline(name, scenario)
    session = LiveSession(policy, scenario, rows=rows)
    memory = None
    for t in range(HORIZON):
        observation = scenario.observe(state.seen)
        for player in (policy, other):
            player.reseed(t)
        expected, memory = other.predict(observation, state=memory, episode_start=state.seen.time == 0)
        action = session.choose(state.seen.offer)
        np.testing.assert_array_equal(action, expected)
        np.testing.assert_array_equal(session.observation(), observation)
        session = LiveSession.from_bytes(session.to_bytes(), policy, scenario)
        rng.rekey(1, t)
        hidden, response = scenario.respond(state, action, rng)
        seen, account = scenario.learn(state.seen, action, response.feedback, response.offer)
        state = type(state)(state.task, hidden, seen)
        for ours, theirs in zip(session.learn(response.feedback._asdict()), account, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        session = LiveSession.from_bytes(session.to_bytes(), policy, scenario)
    with pytest.raises(ValueError, match="all 6 decisions are made in rows"):
        session.choose(state.seen.offer)


BASELINES = [
    (id, name)
    for id in IDS
    for name, baseline in baselines_for(recgym.make_scenario(id, horizon=HORIZON)).items()
    if baseline.kind != "informed"
]


@pytest.mark.parametrize("id, name", BASELINES)
def test_every_baseline_goes_on_from_its_bytes(id: str, name: str) -> None:
    """After a choice and after what came of it: a memory keeps the types and shapes that it starts with."""
    scenario, state, rng = simulate(id, 2)
    policy = make_baseline(name, scenario)
    session = LiveSession(policy, scenario, rows=2)
    for t in range(2):
        action = session.choose(state.seen.offer)
        content = session.to_bytes()
        session = LiveSession.from_bytes(content, policy, scenario)
        assert session.to_bytes() == content
        rng.rekey(1, t)
        hidden, response = scenario.respond(state, action, rng)
        session.learn(response.feedback)
        seen = scenario.learn(state.seen, action, response.feedback, response.offer)[0]
        state = state._replace(hidden=hidden, seen=seen)


def test_rows_begin_anew_each_for_itself() -> None:
    scenario = recgym.make_scenario("RecBandit-v0", arms=3, horizon=2)
    session = LiveSession(make_baseline("greedy", scenario), scenario, rows=2)
    for click in ([1.0, 0.0], [0.0, 1.0]):
        session.choose()
        session.learn({"click": click})
    session.begin(rows=np.array([True, False]))
    time = scenario.layout.get(session.observation(), "time")
    np.testing.assert_array_equal(time, [0.0, 1.0])
    with pytest.raises(ValueError, match=r"rows \[1\]"):
        session.choose()
    session.begin()
    assert session.choose().shape == (2,)


def test_one_feedback_for_all_rows_and_what_it_is_worth() -> None:
    scenario = recgym.make_scenario("RecBandit-v0", arms=2, horizon=3)
    session = LiveSession(make_baseline("greedy", scenario), scenario, rows=4)
    session.choose()
    account = session.learn({"click": np.float64(1.0)})  # float64 from outside, float32 inside
    assert account.reward.dtype == np.float32 and account.reward.tolist() == [1.0] * 4
    assert session.seen is not None and session.seen.kept.average.dtype == np.float32


def test_what_is_refused_changes_nothing() -> None:
    scenario = recgym.make_scenario("DynamicPricing-v0", horizon=3)
    _, state, _ = simulate("DynamicPricing-v0", 2)
    offer = state.seen.offer._asdict()
    session = LiveSession(make_baseline("glm_ts", scenario), scenario, rows=2)
    with pytest.raises(ValueError, match=r"an offer of DynamicPricing has the fields .*'cost'.*, and none was given"):
        session.choose()
    with pytest.raises(ValueError, match="call choose"):
        session.learn({"sold": 1, "short": False})
    with pytest.raises(ValueError, match="nothing is known"):
        session.observation()
    for wrong, message in (
        ({**offer, "cost": [np.nan, 0.5]}, "offer field 'cost' must be within"),
        ({**offer, "cost": [0.1, 0.2, 0.3]}, r"offer field 'cost' must have shape \(\) or \(2,\)"),
        ({**offer, "supply": 0.5}, "offer field 'supply' must hold int64"),
        (
            {name: value for name, value in offer.items() if name != "phase"},
            "an offer of DynamicPricing has the fields",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            session.choose(wrong)
        assert session.seen is None and session.memory is None
    action = session.choose(offer)
    with pytest.raises(ValueError, match="waits for its feedback"):
        session.choose(offer)
    before = session.to_bytes()
    for feedback, message in (
        ({"sold": -1, "short": False}, "feedback field 'sold' must be within"),
        ({"sold": 1}, "feedback of DynamicPricing has the fields"),
        ({"sold": 1, "short": 0.5}, "feedback field 'short' must hold flags"),
    ):
        with pytest.raises(ValueError, match=message):
            session.learn(feedback)
        assert session.to_bytes() == before
    session.learn({"sold": [1, 0], "short": [False, False]})
    assert action.shape == (2,)


def test_what_cannot_be_a_session() -> None:
    scenario = recgym.make_scenario("RecBandit-v0")
    with pytest.raises(ValueError, match="looks at the task"):
        LiveSession(make_baseline("informed", scenario), scenario)
    for rows in (0, -1, True, 1.0, 1 << 30):
        with pytest.raises(ValueError, match="rows must be a whole number"):
            LiveSession(make_baseline("greedy", scenario), scenario, rows=rows)  # type: ignore[arg-type]


def test_bytes_of_something_else_are_refused() -> None:
    scenario = recgym.make_scenario("RecBandit-v0", arms=3, horizon=4)
    policy = make_baseline("greedy", scenario)
    session = LiveSession(policy, scenario, rows=2)
    session.choose()
    content = session.to_bytes()
    assert LiveSession.from_bytes(content, policy, scenario).to_bytes() == content
    with pytest.raises(ValueError, match=r"is one of recgym\.\S+:IndexPolicy in \S+:Bandit .*\"arms\": 3.* not of .*4"):
        LiveSession.from_bytes(content, policy, recgym.make_scenario("RecBandit-v0", arms=4, horizon=4))
    with pytest.raises(ValueError, match=r"not of recgym.*RandomPolicy"):
        LiveSession.from_bytes(content, RandomPolicy(scenario), scenario)
    with pytest.raises(ValueError, match=r"'memory\.average' should be float64 \(2, 3\), found"):
        LiveSession.from_bytes(content, make_baseline("greedy_average", scenario), scenario)
    for other in (b"", b"x", content[5:]):
        with pytest.raises(ValueError, match="no live session: it should begin with"):
            LiveSession.from_bytes(other, policy, scenario)


def test_a_flipped_bit_is_noticed() -> None:
    scenario = recgym.make_scenario("RecBandit-v0", arms=3, horizon=4)
    policy = make_baseline("greedy", scenario)
    session = LiveSession(policy, scenario)
    session.choose()
    content = session.to_bytes()
    for place in range(0, len(content), 7):
        for bit in (1, 128):
            damaged = bytearray(content)
            damaged[place] ^= bit
            with pytest.raises(ValueError, match=r"no live session|damaged"):
                LiveSession.from_bytes(bytes(damaged), policy, scenario)
    with pytest.raises(ValueError, match="damaged"):
        LiveSession.from_bytes(content[:-1], policy, scenario)


def test_an_offer_that_cannot_be_shown_changes_nothing() -> None:
    """Each field is within its space, and what is observed of them together is not."""
    scenario, state, _ = simulate("AdPlacement-v0", 2)
    good = state.seen.offer
    none, most = np.full_like(good.budget, 1e-8), np.full_like(good.price, 1e12)
    dear = good._replace(budget=none, price=most, volume=most)
    session = LiveSession(make_baseline("ts_lp", scenario), scenario, rows=2)
    named = "an offer that cannot be: it leads to .*cost from .* to .*, not in"
    for act in (session.choose, session.begin):
        with pytest.raises(ValueError, match=named):
            act(dear)
        assert session.seen is None and session.memory is None
    poor = good._replace(budget=none)
    session.choose(poor)
    session.learn({"wins": 0, "spend": 0.0, "clicks": 0, "conversions": np.zeros(8, dtype=np.int64)})
    before = session.to_bytes()
    for act in (session.choose, session.begin):
        with pytest.raises(ValueError, match=named):
            act(dear)
        assert session.to_bytes() == before
    session.choose(poor)


def test_feedback_that_cannot_follow_a_choice_changes_nothing() -> None:
    scenario, state, _ = simulate("DynamicPricing-v0", 2)
    session = LiveSession(make_baseline("glm_ts", scenario), scenario, rows=2)
    session.choose(state.seen.offer)
    before = session.to_bytes()
    stock = state.seen.offer.supply
    with pytest.raises(ValueError, match=r"cannot follow this choice: it leads to stock from -"):
        session.learn({"sold": stock + 1, "short": True})
    with pytest.raises(ValueError, match="row 0 ran short with stock left"):
        session.learn({"sold": stock - 1, "short": True})
    assert session.to_bytes() == before
    session.learn({"sold": stock, "short": True})


class Remembers:
    """A policy with a memory of which nobody knows the structure."""

    def predict(self, observation: Any, state: Any = None, **_: Any) -> tuple[np.ndarray, Any]:
        return np.zeros(len(observation), dtype=np.int64), (np.zeros(2),)


CLICK = {"click": [1, 0, 0, 0], "value": [0.5, 0, 0, 0]}


@pytest.mark.parametrize(
    ("offer", "feedback", "named"),
    [
        (
            {},
            {"click": [1, 1, 0, 0], "value": [0.5, 0.5, 0, 0]},
            "row 0 has several clicks, of which choice='mnl'",
        ),
        ({}, {"click": [0, 0, 0, 0], "value": [0.8, 0, 0, 0]}, "row 0 has a value where nothing was clicked"),
        ({"present": False}, CLICK, "row 0 has a click while the user is away"),
        ({}, {"click": [0.5, 0, 0, 0], "value": [0, 0, 0, 0]}, "must hold flags, True and False or 1 and 0"),
    ],
)
def test_clicks_that_cannot_be_are_refused(offer: dict[str, Any], feedback: dict[str, Any], named: str) -> None:
    session = LiveSession(make_baseline("popularity", "RecSlate-v0"), "RecSlate-v0")
    session.choose({"item": np.arange(20), "present": True, "preference": [], **offer})
    with pytest.raises(ValueError, match=named):
        session.learn(feedback)
    if not offer:
        assert session.learn(CLICK).reward == pytest.approx(0.5)


def test_a_click_at_an_empty_place_is_refused() -> None:
    class Twice:
        def predict(self, observation: Any, state: Any = None, **_: Any) -> tuple[np.ndarray, Any]:
            return np.array([[3, 3, 1, 2]]), None

    session = LiveSession(Twice(), "RecSlate-v0")
    session.choose({"item": np.arange(20), "present": True, "preference": []})
    with pytest.raises(ValueError, match="a place that is empty, as its item stands above"):
        session.learn({"click": [0, 1, 0, 0], "value": [0, 0.5, 0, 0]})


def test_a_memory_without_a_structure_is_not_kept() -> None:
    session = LiveSession(Remembers(), recgym.make_scenario("RecBandit-v0"))
    session.choose()
    with pytest.raises(ValueError, match=r"no start\(rows\)"):
        session.to_bytes()


@pytest.mark.parametrize("id", agent_ids())
def test_a_shipped_agent_goes_on_from_its_bytes(id: str) -> None:
    """Most probable actions of a session that is kept and taken up at every decision, and of one that is not."""

    agent = load_pretrained(id, horizon=HORIZON)
    scenario, state, rng = simulate(id, 2)
    sessions = [LiveSession(agent, scenario, rows=2, deterministic=True) for _ in range(2)]
    for t in range(HORIZON):
        actions = [session.choose(state.seen.offer) for session in sessions]
        np.testing.assert_array_equal(*actions)
        rng.rekey(1, t)
        hidden, response = scenario.respond(state, actions[0], rng)
        state = type(state)(
            state.task, hidden, scenario.learn(state.seen, actions[0], response.feedback, response.offer)[0]
        )
        for session in sessions:
            session.learn(response.feedback)
        sessions[1] = LiveSession.from_bytes(sessions[1].to_bytes(), agent, scenario, deterministic=True)
