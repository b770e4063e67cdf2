"""`python -m lco_jax` is the console command `lco`."""

import sys

from lco_jax.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
