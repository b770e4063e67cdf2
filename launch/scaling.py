"""Scaling law: `python launch/scaling.py --published --output DIR`."""

import sys

from lco_jax.cli.scaling import main

if __name__ == "__main__":
    sys.exit(main())
