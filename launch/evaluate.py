"""Evaluate: `python launch/evaluate.py --model M --tasks offline "MIEB(lite)"`."""

import sys

from lco_jax.cli.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
