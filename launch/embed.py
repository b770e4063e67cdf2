"""Embed: `python launch/embed.py --model M --input items.jsonl --output vectors.npy`."""

import sys

from lco_jax.cli.embed import main

if __name__ == "__main__":
    sys.exit(main())
