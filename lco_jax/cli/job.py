"""The command line of `launch/tpu/job.py`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from lco_jax.cli.exits import DONE, program
from lco_jax.jobs.files import Job, Kind, job_files


@dataclass(frozen=True)
class _Arguments:
    """Write the files that start a training job on Cloud TPU; starts nothing."""

    kind: Kind
    """How: Cloud TPU queued resources, a GKE JobSet, xpk, or SkyPilot."""
    job: Annotated[Job, tyro.conf.arg(name="")]
    output: Path = Path("job")
    """Folder to write to."""


@program
def main() -> int:
    """Parse and write."""
    arguments = tyro.cli(_Arguments)
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name, text in job_files(arguments.job, arguments.kind).items():
        file = arguments.output / name
        file.write_text(text)
        print(file)
    return DONE
