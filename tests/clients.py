"""Run the recipes of docs/guides/clients.md, each as a file of its own in an empty folder: `make test-clients`.

python tests/clients.py            # all of them
python tests/clients.py torchrl    # those whose heading has the word
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

GUIDE = Path(__file__).parent.parent / "docs" / "guides" / "clients.md"


def recipes() -> dict[str, str]:
    """The programs of the guide by their headings."""
    parts = re.split(r"^## (.+)$", GUIDE.read_text(), flags=re.MULTILINE)
    programs = {}
    for title, text in zip(parts[1::2], parts[2::2], strict=True):
        (programs[title],) = re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    return programs


def main() -> int:
    failed = []
    word = sys.argv[1].lower() if len(sys.argv) > 1 else ""
    for title, program in recipes().items():
        if word not in title.lower():
            continue
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "recipe.py"
            path.write_text(program)
            environment = {
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "RAY_DISABLE_IMPORT_WARNING": "1",
                "RAY_TMPDIR": folder,
            }
            started = time.monotonic()
            done = subprocess.run(
                [sys.executable, path.name], cwd=folder, env=environment, capture_output=True, text=True, timeout=600
            )
        print(f"{title:40} {'ok' if not done.returncode else 'FAILED'}, {time.monotonic() - started:.0f} s", flush=True)
        if done.returncode:
            failed.append(title)
            print(done.stdout[-1000:], done.stderr[-4000:])
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
