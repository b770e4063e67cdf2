"""Published tables, and results beside them: `python launch/compare.py --results DIR`."""

import sys

from lco_jax.cli.compare import main

if __name__ == "__main__":
    sys.exit(main())
