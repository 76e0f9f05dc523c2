"""Exported agents: their logits are torch's over whole trials, for any rows and candidates; acting from the file."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import recgym
from recgym.agents import load, onnx_file
from recgym.agents.onnx_file import OnnxAgent, export_onnx, measure_latency
from recgym.evaluation import TEST_SEED, rollout
from recgym.rng import make_rng
from recgym.runner import Runner
from recgym.sb3 import RecVecEnv
from tests.small_agents import NETWORKS, Answer, bandit, meta, played, shaken, slates
from tests.small_checkpoints import make
from tests.toys import Shelf

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytestmark = pytest.mark.usefixtures("one_thread")

ROOT = Path(__file__).parent.parent
AGENTS = ROOT / "agents"
LIMIT = 1e-4  # of logits that go up to 17, at the sizes that the agents ship for
WIDE = 3e-4  # at 30 candidates or thousands of decisions, where torch itself is off by as much (see `test_wide`)
# One of each kind of network; the others are slow: most of the time is torch's own export.
QUICK = [f"{id}/agent" for id in ("RecBandit-v0", "RecBanditContextual-v0", "DynamicPricing-v0")]
SHIPPED = sorted(f"{path.parent.name}/{path.stem}" for path in AGENTS.rglob("*.safetensors"))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Any, Path]]:
    """A shipped model and the file that was exported of it, by name."""
    folder = tmp_path_factory.mktemp("exported")

    @cache
    def export(name: str) -> tuple[Any, Path]:
        model = load(AGENTS / f"{name}.safetensors", device="cpu")
        return model, export_onnx(model, folder / name.replace("/", "-"))

    return export


def differences(model: Any, agent: OnnxAgent, scenario: Any, rows: int, steps: int) -> np.ndarray:
    """[T] greatest difference of logits over the first decisions of trials, each with a memory of its own."""
    runner = Runner(scenario, rows, make_rng("cpu"))
    observation = runner.reset(seed=TEST_SEED)
    memory, ours = agent.initial(observation), None
    starts = torch.ones(rows, dtype=torch.bool)
    largest, spread = [], 0.0
    torch.manual_seed(0)
    for _ in range(steps):
        with torch.no_grad():
            distribution, _, ours = model.policy.step(torch.as_tensor(observation), ours, starts)
        logits, memory = agent.step(observation, memory)
        largest.append(np.abs(logits - distribution.logits.numpy()).max())
        spread = max(spread, float(logits.std()))
        observation = runner.advance(distribution.sample().numpy()).observation
        starts = torch.zeros_like(starts)
    assert spread > 0.5 or scenario.layout.candidates == 1
    return np.array(largest)


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in SHIPPED]
)
def test_logits_of_whole_trials(name: str, exported: Callable[[str], tuple[Any, Path]]) -> None:
    model, path = exported(name)
    scenario = model.env.unwrapped.scenario
    assert differences(model, OnnxAgent(path), scenario, 6, scenario.horizon).max() < LIMIT


@pytest.mark.parametrize("name", [name for name in QUICK if name.startswith("RecBandit")])
def test_any_number_of_rows_and_candidates(name: str, exported: Callable[[str], tuple[Any, Path]]) -> None:
    _, path = exported(name)
    agent = OnnxAgent(path)
    for rows, arms, steps in ((1, 1, 8), (1, 2, 8), (5, 30, 20)):
        scenario = recgym.make_scenario(name.split("/")[0], arms=arms)
        model = load(AGENTS / f"{name}.safetensors", env=RecVecEnv(scenario, 1), device="cpu")
        assert differences(model, agent, scenario, rows, steps).max() < LIMIT


@pytest.mark.slow
@pytest.mark.parametrize("parameters", [{"arms": 30}, {"horizon": 5000}])
def test_wide(parameters: dict[str, int], exported: Callable[[str], tuple[Any, Path]]) -> None:
    """The memory of features, whose sums grow with the trial, is the least exact in 32 bits, in torch as well as here.

    Measured over whole trials at 30 candidates: torch is off 64 bits by 0.9e-4, the file off torch by 0.8e-4; at 5,000
    decisions 6.2e-4 and 1.2e-4.
    """
    name = "RecBanditContextual-v0/agent"
    scenario = recgym.make_scenario("RecBanditContextual-v0", **parameters)
    model = load(AGENTS / f"{name}.safetensors", env=RecVecEnv(scenario, 1), device="cpu")
    _, path = exported(name)
    assert differences(model, OnnxAgent(path), scenario, 4, scenario.horizon).max() < WIDE


def no_layout() -> Any:
    from stable_baselines3.common.vec_env import DummyVecEnv

    return DummyVecEnv([lambda length=n: Answer(length) for n in (3, 4, 7)])


NETWORK_CASES: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "both": (lambda: bandit(3, horizon=8), {**NETWORKS["both"], "layers": 1, "context_length": 8}),
    "no layout": (no_layout, {"layers": 2, "context_length": 16}),
    "history": (lambda: bandit(3, horizon=8), {**NETWORKS["history"], "context_length": 8}),
    "slate": (lambda: RecVecEnv(Shelf(), 3), {}),
    "softmax": (lambda: bandit(3, horizon=8), {"init_policy": "softmax"}),
    "expert": (lambda: bandit(3, horizon=8, expert=1.0), {"init_policy": "expert"}),
    "prior": (lambda: bandit(3, horizon=8), {"init_policy": "expert", "expert_prior": (0.5, 0.3, 0.2)}),
}


@pytest.mark.parametrize(
    "name",
    [name if name == "no layout" else pytest.param(name, marks=pytest.mark.slow) for name in NETWORK_CASES],
)
def test_every_kind_of_network(name: str, tmp_path: Path) -> None:
    """Beyond its context too, and where rows begin trials at different times."""
    make_env, network = NETWORK_CASES[name]
    env = make_env()
    model = shaken(meta(env, network))
    agent = OnnxAgent(export_onnx(model, tmp_path / "agent"))
    observations, starts = (slates if name == "slate" else played)(env, 8 if name != "no layout" else 25)
    ours: Any = None
    memory: Any = None
    for t in range(observations.shape[1]):
        with torch.no_grad():
            distribution, _, ours = model.policy.step(observations[:, t], ours, starts[:, t])
        observation = observations[:, t].numpy()
        memory = agent.restarted(memory, observation, starts[:, t].numpy())
        logits, memory = agent.step(observation, memory)
        np.testing.assert_allclose(logits, distribution.logits.numpy(), rtol=0.0, atol=1e-5)
    assert set(memory) <= set(ours._fields) and {len(leaf) for leaf in memory.values()} == {3}
    for leaf, theirs in ((memory[name], getattr(ours, name)) for name in memory):
        np.testing.assert_allclose(leaf, theirs.numpy(), rtol=1e-4, atol=1e-4)


def test_acting_from_a_file(exported: Callable[[str], tuple[Any, Path]]) -> None:
    model, path = exported("RecBandit-v0/agent")
    agent, scenario = OnnxAgent(path, seed=1), model.env.unwrapped.scenario
    observation = Runner(scenario, 2000, make_rng("cpu")).reset(seed=3)
    mode, memory = agent.predict(observation, deterministic=True)
    assert np.array_equal(mode, model.predict(observation, deterministic=True)[0])
    drawn, _ = agent.predict(observation)
    agent.reseed(1)
    assert np.array_equal(agent.predict(observation)[0], drawn)
    agent.reseed(2)
    assert not np.array_equal(agent.predict(observation)[0], drawn)
    logits, _ = agent.step(observation, agent.initial(observation))
    expected = torch.as_tensor(logits).softmax(dim=-1).mean(dim=0).numpy()
    share = np.bincount(drawn, minlength=10) / len(drawn)
    assert (np.abs(share - expected) < 4 * np.sqrt(expected / len(drawn)) + 1e-3).all()
    single, one = agent.predict(observation[0], deterministic=True)
    assert np.shape(single) == () and single == mode[0] and {len(leaf) for leaf in one.values()} == {1}
    copy = {name: leaf.copy() for name, leaf in memory.items()}
    starts = np.arange(2000) == 5
    _, after = agent.predict(observation, memory, starts)
    assert all(np.array_equal(memory[name], copy[name]) for name in memory)
    fresh = agent.step(observation, agent.initial(observation))[1]
    assert np.array_equal(after["candidates"][5], fresh["candidates"][5])
    trials = rollout(agent, scenario, trials=300, seed=TEST_SEED)
    theirs = rollout(model, scenario, trials=300, seed=TEST_SEED)
    difference = trials.returns - theirs.returns  # drawn from other streams
    assert abs(difference.mean()) < 4 * difference.std() / np.sqrt(300)


def test_slates_from_a_file(tmp_path: Path) -> None:
    env = RecVecEnv(Shelf(), 3)
    model = shaken(meta(env))
    model.policy.set_training_mode(True)
    agent = OnnxAgent(export_onnx(model.policy, tmp_path / "agent.onnx"))
    assert model.policy.training and [path.name for path in tmp_path.iterdir()] == ["agent.onnx"]
    observation = slates(env, 2)[0][:, 1].numpy()
    slate, _ = agent.predict(observation, deterministic=True)
    logits, _ = agent.step(observation, agent.initial(observation))
    best = -np.sort(-logits, axis=-1)[:, :2]
    assert np.array_equal(np.take_along_axis(logits, slate, axis=-1), best) and (best[:, 0] > best[:, 1]).any()
    theirs, _ = model.predict(observation, deterministic=True)  # of alike candidates it may take others
    np.testing.assert_allclose(np.take_along_axis(logits, theirs, axis=-1), best, rtol=0.0, atol=1e-5)
    drawn, _ = agent.predict(observation)
    assert drawn.shape == (3, 2) and (drawn[:, 0] != drawn[:, 1]).all()


def test_a_file_says_nothing_of_where_it_was_made(exported: Callable[[str], tuple[Any, Path]]) -> None:
    _, path = exported("RecBandit-v0/agent")
    content = path.read_bytes()
    assert str(ROOT).encode() not in content and b".py" not in content
    assert len(content) < 200_000


def test_how_long_a_decision_takes(exported: Callable[[str], tuple[Any, Path]]) -> None:
    model, path = exported("RecBandit-v0/agent")
    latency = measure_latency(model, path, decisions=60)
    assert 0.0 < latency.onnxruntime < latency.torch < 1e6


def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnx

    with pytest.raises(ValueError, match="a TransformerPolicy to export, not a ActorCriticPolicy"):
        export_onnx(make("ppo"), tmp_path / "agent")
    value = onnx.helper.make_tensor_value_info("x", 1, [1])
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["x"], ["y"])],
        "g",
        [value],
        [onnx.helper.make_tensor_value_info("y", 1, [1])],
    )
    other = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    (tmp_path / "other.onnx").write_bytes(other.SerializeToString())
    with pytest.raises(ValueError, match=r"other\.onnx: not a file that export_onnx wrote"):
        OnnxAgent(tmp_path / "other.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"acting from an ONNX file needs .*: pip install 'recgym\[export\]'"):
        OnnxAgent(tmp_path / "other.onnx")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r"exporting needs .*: pip install 'recgym\[export\]'"):
        export_onnx(meta(bandit()), tmp_path / "agent")


@pytest.mark.parametrize("content", [b"", b"abc", b"\x08\x0a" * 400], ids=["empty", "garbage", "long"])
def test_files_that_are_none_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bad.onnx"
    with pytest.raises(FileNotFoundError, match=r"bad\.onnx: no such file; export_onnx writes one"):
        OnnxAgent(path)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"bad\.onnx: not a file that export_onnx wrote.*; export the agent anew"):
        OnnxAgent(path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        OnnxAgent(tmp_path)


def test_damaged_files_are_refused(exported: Callable[[str], tuple[Any, Path]], tmp_path: Path) -> None:
    import onnx

    path = exported("RecBandit-v0/agent")[1]
    content = path.read_bytes()
    (tmp_path / "half.onnx").write_bytes(content[: len(content) // 2])
    damaged = []
    for text in ("{", "[]", "{}", '{"context": 3}'):
        proto = onnx.load_model_from_string(content)
        proto.metadata_props[0].value = text
        damaged.append(tmp_path / f"damaged_{len(damaged)}.onnx")
        damaged[-1].write_bytes(proto.SerializeToString())
    for file in (tmp_path / "half.onnx", *damaged):
        with pytest.raises(ValueError, match=rf"{file.name}: not a file that export_onnx wrote"):
            OnnxAgent(file)


def test_observations_that_are_none_are_refused_as_in_torch(exported: Callable[[str], tuple[Any, Path]]) -> None:
    model, path = exported("RecBandit-v0/agent")
    agent = OnnxAgent(path)
    scenario = model.env.unwrapped.scenario
    good = Runner(scenario, 3, make_rng("cpu")).reset(seed=3)
    worse = good.copy()
    worse[1, 2] = np.nan
    state = {player: player.predict(good)[1] for player in (agent, model)}
    wrong = [
        worse,
        np.where(worse == worse, good, np.inf),
        worse[1],
        good[:0],
        good[:, :-1],
        good[None],
        np.float32(1.0),
    ]
    for player in (agent, model):
        for observation, message in zip(
            wrong, (*["observation . holds"] * 3, "no obs", *["must have"] * 3), strict=True
        ):
            with pytest.raises(ValueError, match=message):
                player.predict(observation)
        with pytest.raises(ValueError, match="episode_start is of 2 rows, the observations are 3"):
            player.predict(good, state[player], np.zeros(2, dtype=bool))
        with pytest.raises(ValueError, match="the memory is of 3 rows, the observations are 2"):
            player.predict(good[:2], state[player])
        with pytest.raises(ValueError, match=r"state must be the [mM]emory that the last call returned"):
            player.predict(good, {"nothing": np.zeros(3)})
    texts = []
    for player in (agent, model):
        with pytest.raises(ValueError, match="must have") as caught:
            player.predict(good[:, :-1])
        texts.append(str(caught.value))
    assert texts[0] == texts[1]
    with pytest.raises(ValueError, match="not finite"):
        agent.predict(good.astype(np.float64) + 1e300)
    candidate = scenario.layout.sizes[1]
    assert agent.predict(np.pad(good, ((0, 0), (0, 5 * candidate))))[0].shape == (3,)  # of more candidates


def test_the_extra_is_imported_within_functions_alone() -> None:
    tree = ast.parse(Path(onnx_file.__file__).read_text(encoding="utf-8"))
    names = [alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names]
    names += [str(node.module) for node in tree.body if isinstance(node, ast.ImportFrom)]
    assert not [name for name in names if name.startswith("onnx")]
