"""Compare policies on held-out trials: `recgym evaluate`."""

import sys

from recgym.cli.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
