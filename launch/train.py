"""Train: `python launch/train.py [--config configs/X.py] [--workdir DIR] [--tpu] [overrides]`."""

import sys

from lco_jax.cli.train import main

if __name__ == "__main__":
    sys.exit(main())
