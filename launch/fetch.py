"""Fetch the small real models of the quickstart: `python launch/fetch.py --omni`."""

import sys

from lco_jax.cli.fetch import main

if __name__ == "__main__":
    sys.exit(main())
