"""Prepare data: `python launch/prepare_data.py all_nli`."""

import sys

from lco_jax.cli.prepare import main

if __name__ == "__main__":
    sys.exit(main())
