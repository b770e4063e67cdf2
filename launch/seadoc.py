"""SeaDoc in small, three arms and one table: `python launch/seadoc.py`."""

import sys

from lco_jax.cli.seadoc import main

if __name__ == "__main__":
    sys.exit(main())
