"""Export: `python launch/export.py --model M --format merged --output DIR`."""

import sys

from lco_jax.cli.export import main

if __name__ == "__main__":
    sys.exit(main())
