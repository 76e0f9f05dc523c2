"""Measure speed, memory, headroom, learners and overfitting: `recgym benchmark`."""

import sys

from recgym.cli.benchmark import main

if __name__ == "__main__":
    sys.exit(main())
