"""Search: `python launch/search.py --model M FOLDER "a red kangaroo"`."""

import sys

from lco_jax.cli.search import main

if __name__ == "__main__":
    sys.exit(main())
