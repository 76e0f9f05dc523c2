"""An agent as an ONNX file, and acting with it: one decision takes observation and memory, and gives logits and memory.

What a policy remembers goes in and out by the names of `recgym.agents.Memory`'s fields, without those that it does not
use; all zeros begin a trial. Numbers of rows and of candidates may be any. Acting needs NumPy and onnxruntime alone.
"""

from __future__ import annotations

import json
import logging
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from recgym.agents.memory import Memory
from recgym.agents.policy import TransformerPolicy, observation_rows, starting_rows
from recgym.agents.transformer import CandidateNetwork
from recgym.files import write_atomically

__all__ = ["Latency", "OnnxAgent", "export_onnx", "measure_latency"]

MISSING = "{} needs onnx, onnxscript and onnxruntime: pip install 'recgym[export]'"
KEY = "recgym"  # of the file's metadata: JSON, see `_describe_file`
DESCRIBED = {"layout", "context", "candidate", "observation", "context_length", "places", "memory"}  # there, by name
SPLIT = ("context", "rows")  # an observation with a layout: [B, Dc], and a row for each candidate [B, K, Di]
VARIABLE = ("rows", "candidates", "offered", "cache")  # tensors whose second axis may have another size
EXAMPLE_ROWS = (
    3  # any number of rows, candidates and earlier decisions will do; these are all different, and not 0 or 1
)
EXAMPLE_PAST = 5
MIN_NOISE = 1e-30  # its logarithm is finite


# --- writing ---------------------------------------------------------------------------------------------------------
def export_onnx(model: Any, path: str | Path) -> Path:
    """Write one decision of a model's policy as an ONNX file, whole or not at all.

    Args:
        model: a `MetaPPO`, or its `TransformerPolicy`.
        path: of the file; ".onnx" is added where it is missing.

    Returns:
        The file's path.

    Raises:
        ImportError: the extra `export` is not installed.
        ValueError: there is no Transformer in it.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401 - torch's exporter needs it
    except ImportError as error:
        raise ImportError(MISSING.format("exporting")) from error
    policy = getattr(model, "policy", model)
    if not isinstance(policy, TransformerPolicy):
        raise ValueError(f"there is a TransformerPolicy to export, not a {type(policy).__name__}")
    path = Path(path)
    path = path if path.suffix == ".onnx" else path.with_name(path.name + ".onnx")
    step = _Step(policy)
    example = step.example()
    names = list(example)
    dynamic = {name: step.axes(name) for name in names}
    with _quietly(policy):
        program = torch.export.export(step, (example,), dynamic_shapes=(dynamic,), strict=False)
        outputs = ["logits", *(f"next_{name}" for name in step.used)]
        exported = torch.onnx.export(program, dynamo=True, input_names=names, output_names=outputs, verbose=False)
    assert exported is not None
    proto = exported.model_proto
    for node in [*proto.graph.node, *(node for function in proto.functions for node in function.node)]:
        del node.metadata_props[:]  # where in the exporting machine's files it comes from
    entry = proto.metadata_props.add()
    entry.key, entry.value = KEY, json.dumps(_describe_file(policy, step))
    onnx.checker.check_model(proto)
    write_atomically(path, proto.SerializeToString())
    return path


class _Step(nn.Module):
    """One decision: tensors by name in; logits, and of the memory what is used, out."""

    def __init__(self, policy: TransformerPolicy) -> None:
        super().__init__()
        self.policy = policy
        self.network = policy.network
        self.rows, self.candidates, self.past = map(torch.export.Dim, ("number", "alternatives", "decisions"))
        numbers = torch.zeros(EXAMPLE_ROWS, *policy.observation_space.shape, device=policy.device)  # type: ignore[misc]
        self.inputs = {"observation": numbers}
        if isinstance(self.network, CandidateNetwork):
            parts = self.network.reading.split(numbers)
            self.inputs = {name: part.clone() for name, part in zip(SPLIT, parts, strict=True)}  # views specialise
        initial = self.network.initial(policy._flat(numbers, 1))
        self.memory = initial
        if initial.cache.shape[2]:
            past = initial.cache.new_zeros(EXAMPLE_ROWS, EXAMPLE_PAST, initial.cache.shape[2])
            self.memory = initial._replace(cache=past, length=torch.full_like(initial.length, EXAMPLE_PAST))
        leaves = self.memory._asdict()
        self.used = [name for name, leaf in leaves.items() if leaf.numel() and (name != "length" or leaf.any())]

    def example(self) -> dict[str, Tensor]:
        """Inputs by name, in order: the observation, then the memory."""
        return {**self.inputs, **{name: getattr(self.memory, name) for name in self.used}}

    def axes(self, name: str) -> dict[int, Any]:
        """Axes of an input whose sizes may be others: rows, and of some candidates, or decisions looked back on."""
        if name == "cache":
            return {0: self.rows, 1: self.past}
        fixed = hasattr(self.network, "log_prior")  # the policy that it begins with is of so many candidates
        return {0: self.rows, 1: self.candidates} if name in VARIABLE and not fixed else {0: self.rows}

    def forward(self, tensors: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        memory = Memory(**{name: tensors.get(name, torch.zeros(0)) for name in Memory._fields})
        if isinstance(self.network, CandidateNetwork):
            logits, _, memory = self.network.step_parts(tensors["context"], tensors["rows"], memory)
        else:
            logits, _, memory = self.network.step(self.policy._flat(tensors["observation"], 1), memory)
        return logits, *(getattr(memory, name) for name in self.used)


@contextmanager
def _quietly(policy: TransformerPolicy) -> Iterator[None]:
    """For torch's exporter, whose own libraries warn; and as the policy acts, whatever it did before."""
    logger = logging.getLogger("torch")
    level, training = logger.level, policy.training
    policy.set_training_mode(False)
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
        policy.set_training_mode(training)


def _describe_file(policy: TransformerPolicy, step: _Step) -> dict[str, Any]:
    """What acting needs to know beside the graph."""
    sizes = None if policy.layout is None else policy.layout.sizes
    return {
        "layout": None if policy.layout is None else policy.layout.to_json(),
        "context": None if sizes is None else sizes[0],  # numbers of the context
        "candidate": None if sizes is None else sizes[1],  # numbers of a candidate
        "observation": list(policy.observation_space.shape or ()),
        "context_length": policy.context_length,  # decisions that are looked back on; None: there is no history
        "places": policy.places,  # of a slate; None: a single choice
        "memory": {name: list(getattr(step.memory, name).shape[1:]) for name in step.used},
    }


# --- acting ----------------------------------------------------------------------------------------------------------
class OnnxAgent:
    """Acts from an exported file, with SB3's `predict`; the memory is an argument and a result, as a dict of arrays.

    Args:
        path: of the file.
        threads: of onnxruntime.
        seed: of the sampled actions.

    Raises:
        ImportError: the extra `export` is not installed.
        FileNotFoundError: there is no such file.
        ValueError: the file is none of `export_onnx`'s, or damaged.
    """

    def __init__(self, path: str | Path, *, threads: int = 1, seed: Any = None) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise ImportError(MISSING.format("acting from an ONNX file")) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path}: no such file; export_onnx writes one of a trained agent")
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            metadata = self.session.get_modelmeta().custom_metadata_map
            description = json.loads(metadata.get(KEY, "null"))
        except Exception as error:  # onnxruntime's own have nothing else in common
            raise ValueError(
                f"{path}: not a file that export_onnx wrote, or damaged ({error}); export the agent anew"
            ) from error
        if not isinstance(description, dict) or not description.keys() >= DESCRIBED:
            raise ValueError(f"{path}: not a file that export_onnx wrote; export the agent anew")
        self.description: dict[str, Any] = description
        sizes = {each.name: each.shape for each in self.session.get_inputs()}
        self._fixed = isinstance(sizes.get("rows", (0, 0))[1], int)  # the number of candidates, or there are none
        self.reseed(seed)

    def reseed(self, seed: Any) -> None:
        """Begin the stream of sampled actions anew."""
        self._rng = np.random.default_rng(seed)

    def initial(self, observation: np.ndarray) -> dict[str, np.ndarray]:
        """Memory of trials that begin with observations [B, ...]: zeros."""
        memory = {}
        for name, sizes in self.description["memory"].items():
            shape = [len(observation), *sizes]
            if name == "cache":
                shape[1] = 0
            elif name in VARIABLE:
                shape[1] = self._split(observation)["rows"].shape[1]
            memory[name] = np.zeros(shape, dtype=np.int64 if name == "length" else np.float32)
        return memory

    def restarted(
        self, memory: Mapping[str, np.ndarray] | None, observation: np.ndarray, starts: Any
    ) -> dict[str, np.ndarray]:
        """The memory with the rows of `starts` [B] (None: none) as new; all of them where there is none yet."""
        if memory is None:
            return self.initial(observation)
        if starts is None:
            return dict(memory)
        rows = np.asarray(starts, dtype=bool).reshape(-1)
        return {
            name: np.where(rows.reshape(-1, *[1] * (leaf.ndim - 1)), np.zeros_like(leaf), leaf)
            for name, leaf in memory.items()
        }

    def step(
        self, observation: np.ndarray, memory: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Logits [B, K] and the memory after observations [B, ...]; the memory given stays as it is."""
        if "cache" in memory:
            cache = memory["cache"]
            memory = {**memory, "cache": cache[:, max(0, cache.shape[1] - self.description["context_length"] + 1) :]}
        logits, *leaves = self.session.run(None, {**self._split(observation), **memory})
        return logits, dict(zip(memory, leaves, strict=True))

    def _shape(self, array: np.ndarray) -> tuple[int, ...]:
        """What the shape of an observation has to be: with a layout, of as many candidates as are given."""
        context, candidate = self.description["context"], self.description["candidate"]
        if context is not None and array.ndim and not self._fixed:
            more = array.shape[-1] - context
            if more > 0 and more % candidate == 0:
                return (array.shape[-1],)
        return tuple(self.description["observation"])

    def _memory(self, state: Any, rows: int) -> Mapping[str, np.ndarray] | None:
        """What `predict` was given, checked."""
        if state is None:
            return None
        names = set(self.description["memory"])
        if not isinstance(state, Mapping) or set(state) != names:
            given = sorted(state) if isinstance(state, Mapping) else f"a {type(state).__name__}"
            raise ValueError(f"state must be the memory that the last call returned, of {sorted(names)}, got {given}")
        for leaf in state.values():
            if len(leaf) != rows:
                raise ValueError(f"the memory is of {len(leaf)} rows, the observations are {rows}")
        return state

    def _split(self, observation: np.ndarray) -> dict[str, np.ndarray]:
        """The graph's inputs: observations [B, D] split as the layout says, others as they are."""
        context = self.description["context"]
        if context is None:
            return {"observation": observation}
        rows = observation[:, context:].reshape(len(observation), -1, self.description["candidate"])
        return dict(zip(SPLIT, (observation[:, :context], rows), strict=True))

    def predict(
        self,
        observation: Any,
        state: Mapping[str, np.ndarray] | None = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Act on a batch of observations or on a single one; see `TransformerPolicy.predict`.

        Returns:
            Actions [B] or [B, k] (one action for a single observation), and the memory.

        Raises:
            ValueError: observation or memory of another shape than expected, or an observation that is not finite.
        """
        with np.errstate(over="ignore"):  # becomes infinite, which is refused
            batch = np.asarray(observation, dtype=np.float32)
        batch, single = observation_rows(batch, self._shape(batch))
        starts = starting_rows(episode_start, len(batch))
        memory = self.restarted(self._memory(state, len(batch)), batch, starts)
        logits, memory = self.step(batch, memory)
        if not deterministic:  # the highest with Gumbel noise is a sample (Yellott 1977)
            noise = self._rng.standard_exponential(logits.shape, dtype=np.float32)
            logits = logits - np.log(np.maximum(noise, MIN_NOISE))
        places = self.description["places"]
        actions = logits.argmax(axis=-1) if places is None else np.argsort(-logits, axis=-1)[:, :places]
        return (actions[0] if single else actions), memory


# --- how fast --------------------------------------------------------------------------------------------------------
class Latency(NamedTuple):
    """Median microseconds of one decision of one user, memory in and out, on one thread."""

    torch: float
    onnxruntime: float


def measure_latency(model: Any, path: str | Path, *, decisions: int = 1000, seed: int = 0) -> Latency:
    """Measure how long one user's decision takes in torch and in onnxruntime, on one thread, trial after trial.

    Args:
        model: a `MetaPPO` with its environment.
        path: of the file that `export_onnx` wrote of it.
        decisions: that are measured, after a tenth as many that are not.
        seed: of the environment.

    Raises:
        ImportError: the extra `export` is not installed.
    """
    agents = model.policy, OnnxAgent(path, seed=seed)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        env = model.get_env()
        env.seed(seed)
        observation = env.reset()
        starts = np.ones(env.num_envs, dtype=bool)
        states: list[Any] = [None, None]
        seconds: list[tuple[float, float]] = []
        for _ in range(decisions // 10 + decisions):
            pair = []
            for i, agent in enumerate(agents):
                begin = time.perf_counter()
                action, states[i] = agent.predict(observation[:1], states[i], starts[:1])
                pair.append(time.perf_counter() - begin)
            seconds.append((pair[0], pair[1]))
            observation, _, starts, _ = env.step(np.repeat(action, env.num_envs, axis=0))
    finally:
        torch.set_num_threads(threads)
    medians = 1e6 * np.median(seconds[decisions // 10 :], axis=0)
    return Latency(float(medians[0]), float(medians[1]))
