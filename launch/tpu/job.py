"""Job files: `python launch/tpu/job.py --kind jobset --topology v5p:4x4x4 --workdir gs://… …`."""

import sys

from lco_jax.cli.job import main

if __name__ == "__main__":
    sys.exit(main())
