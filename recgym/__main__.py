"""Run the command as `python -m recgym`."""

import sys

from recgym.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
