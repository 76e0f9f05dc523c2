"""Install a wheel outside of the checkout, and do there what the README says: `make test-wheel`.

python tests/wheel.py            # builds a wheel, makes an empty environment in an empty folder, some minutes
python tests/wheel.py --keep     # and leaves the folder
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
CONSTRAINTS = ROOT / "constraints.txt"


def run(folder: Path, *command: str | Path) -> str:
    """Run a command in a folder, and end with what it printed where it fails."""
    print("$", *(str(word) if len(str(word)) < 100 else "..." for word in command), flush=True)
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment |= {"PIP_CONSTRAINT": str(CONSTRAINTS), "PIP_BUILD_CONSTRAINT": str(CONSTRAINTS), "COLUMNS": "80"}
    done = subprocess.run([str(word) for word in command], cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}\nfailed: {command}")
    return done.stdout + done.stderr


def install(folder: Path) -> Path:
    """Build the wheel and install it, with everything it may want, into a new environment; returns its programs."""
    programs = folder / ".venv" / "bin"
    run(folder, sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder / "wheels", ROOT)
    (wheel,) = (folder / "wheels").glob("recgym-*.whl")
    run(folder, sys.executable, "-m", "venv", ".venv")
    torch = next(line for line in CONSTRAINTS.read_text().splitlines() if line.startswith("torch=="))
    run(folder, programs / "python", "-m", "pip", "install", "-q", "--no-deps", torch)
    run(folder, programs / "python", "-m", "pip", "install", "-q", f"recgym[all] @ {wheel.as_uri()}")
    return programs


def shop_log(path: Path) -> None:
    """A log of sales as a shop has it: eight products, 60 weeks, days without a sale among them."""
    import numpy as np

    rng = np.random.default_rng(0)
    lines = ["week,product,price,promotion,sales"]
    for number in range(8):
        for week in range(60):
            price = round(float(rng.choice([2.49, 2.99, 3.49, 3.99])), 2)
            promoted = int(rng.random() < 0.2)
            sales = rng.poisson(np.exp(2.0 - 2.0 * np.log(price / 3) + 0.4 * promoted) * (0.5 + number / 4))
            lines.append(f"{week},Milk [/{number}L],{price},{promoted},{sales}")
    path.write_text("\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--keep", action="store_true", help="leave the folder, and say where it is")
    keep = parser.parse_args().keep
    folder = Path(tempfile.mkdtemp(prefix="recgym-wheel-"))
    try:
        programs = install(folder)
        where = run(folder, programs / "python", "-c", "import recgym; print(recgym.__file__)")
        assert str(folder) in where, where
        blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), flags=re.M | re.S)
        for number, block in enumerate(blocks):
            (folder / f"block_{number}.py").write_text(block)
            run(folder, programs / "python", f"block_{number}.py")
        recgym = programs / "recgym"
        assert "RecBandit-v0" in run(folder, recgym, "list")
        run(folder, recgym, "evaluate", "--policies", "greedy,pretrained:RecBandit-v0", "--trials", "100")
        shop_log(folder / "shop.csv")
        size = ("-n", "20000", "--pretrain-steps", "10000", "--trials", "200")
        trained = run(folder, recgym, "train", "--env", "DynamicPricing-v0", "--log", "shop.csv", *size)
        assert "informed" in trained, trained
        (checkpoint,) = folder.glob("logs/meta_ppo/*_1/checkpoint.safetensors")
        (folder / "shop.csv").unlink()  # a trained agent is evaluated where its log no longer lies
        run(
            folder,
            recgym,
            "evaluate",
            "--env",
            "DynamicPricing-v0",
            "--policies",
            f"mine={checkpoint}",
            "--trials",
            "100",
        )
    finally:
        if not keep:
            shutil.rmtree(folder)
    print(f"the wheel works outside of the checkout{f': {folder}' if keep else ''}")


if __name__ == "__main__":
    main()
