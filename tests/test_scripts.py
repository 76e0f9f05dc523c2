"""The scripts and the console command, each in a process of its own: they start, and say how they are called."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CONSOLE = "import sys; sys.argv[0] = '/somewhere/bin/recgym'; from recgym.cli import main; sys.exit(main())"


def start(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run Python with the package on its path."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, text=True, capture_output=True, timeout=120
    )


def test_scripts_only_call_the_command() -> None:
    for path in (ROOT / "scripts").glob("*.py"):
        lines = path.read_text().splitlines()
        assert len(lines) < 12 and f"from recgym.cli.{path.stem} import main" in lines


@pytest.mark.parametrize("name", [path.stem for path in sorted((ROOT / "scripts").glob("*.py"))])
def test_script_runs_and_shows_its_examples_as_called(name: str) -> None:
    process = start(f"scripts/{name}.py", "--help")
    assert process.returncode == 0 and not process.stderr, process.stderr
    assert f"usage: python scripts/{name}.py" in process.stdout
    assert f"\n  python scripts/{name}.py --" in process.stdout and "recgym " + name not in process.stdout


def test_the_console_command_is_the_same_code(tmp_path: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    module, _, name = project["scripts"]["recgym"].partition(":")
    assert callable(getattr(import_module(module), name))
    process = start("-c", CONSOLE, "evaluate", "--help", folder=tmp_path)
    assert "usage: recgym evaluate" in process.stdout and "\n  recgym evaluate --" in process.stdout
    process = start("-m", "recgym", "list", folder=tmp_path)
    assert process.returncode == 0 and "RecBanditDrift-v0" in process.stdout, process.stderr


def test_modules_of_the_current_folder_are_found_after_what_is_installed(tmp_path: Path) -> None:
    """As a console command has it, whose own folder is first on the path and the current one is not there."""
    (tmp_path / "my_shop.py").write_text("SOLD = 3")
    (tmp_path / "statistics.py").write_text("raise AssertionError('the library was meant')")
    code = """
import sys
sys.path.remove("")
sys.argv[0] = "recgym"
from recgym.cli.options import guarded
def work():
    import my_shop, statistics
    print(my_shop.SOLD)
    return 0
sys.exit(guarded(work))
"""
    process = start("-c", code, folder=tmp_path)
    assert process.returncode == 0 and process.stdout == "3\n", process.stderr


def test_the_command_is_light_until_it_works() -> None:
    code = """
import sys
from importlib import import_module
for name in ("", ".options", ".train", ".evaluate", ".benchmark", ".list_"):
    import_module("recgym.cli" + name)
print([name for name in ("torch", "stable_baselines3", "matplotlib", "rich", "tqdm") if name in sys.modules])
"""
    process = start("-c", code)
    assert process.stdout.strip() == "[]", process.stdout + process.stderr


def test_a_run_prints_commands_that_can_be_pasted() -> None:
    code = (
        "import sys; sys.argv[0] = {!r}; from recgym.cli.options import call_of; print(*call_of('evaluate'), sep='|')"
    )
    for called, words in {
        "/a/bin/recgym": ["/a/bin/recgym", "evaluate"],
        "scripts/train.py": [sys.executable, "scripts/evaluate.py"],
        "/x/recgym/__main__.py": [sys.executable, "-m", "recgym", "evaluate"],
    }.items():
        assert start("-c", code.format(called)).stdout.strip().split("|") == words
    paste = "import sys; sys.argv[0] = {!r}; from recgym.cli.options import to_paste; print(to_paste('evaluate', '-x'))"
    assert start("-c", paste.format("/a/bin/recgym")).stdout == "/a/bin/recgym evaluate -x\n"
    assert start("-c", paste.format(str(ROOT / "env/bin/recgym"))).stdout == "env/bin/recgym evaluate -x\n"
    assert re.search(r"^recgym = ", (ROOT / "pyproject.toml").read_text(), flags=re.M)
