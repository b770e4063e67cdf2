"""Plan: `python launch/plan.py --config configs/X.py --topology v5p:4x4x4 [overrides]`."""

import sys

from lco_jax.cli.plan import main

if __name__ == "__main__":
    sys.exit(main())
