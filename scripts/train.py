"""Train an agent, evaluate it, leave everything about the run in one folder: `recgym train`."""

import sys

from recgym.cli.train import main

if __name__ == "__main__":
    sys.exit(main())
