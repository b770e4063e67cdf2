"""Layers: `python launch/analyze.py --model M --before M0 --pairs pairs.jsonl --output DIR`."""

import sys

from lco_jax.cli.analyze import main

if __name__ == "__main__":
    sys.exit(main())
