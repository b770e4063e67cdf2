"""The command line of `launch/tpu/job.py`."""

import logging
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from lco_jax.cli.exits import DONE, program
from lco_jax.cli.parse import parse
from lco_jax.jobs.files import Job, Kind, job_files
from lco_jax.runtime.disks import replace_text

log = logging.getLogger(__name__)

_COMMANDS = ("--train", "--prepare")
"""Options whose values have options of their own."""


@dataclass(frozen=True)
class _Arguments:
    """Write the files that start a training job on Cloud TPU; starts nothing."""

    kind: Kind
    """How: Cloud TPU queued resources, a GKE JobSet, xpk, or SkyPilot."""
    job: Annotated[Job, tyro.conf.arg(name="")]
    output: Path = Path("job")
    """Folder to write to."""


_EXAMPLES = (
    "--kind queued-resource --topology v5p:4x4x4 --workdir gs://BUCKET/run --repository URL "
    "--train '--config lco_omni_7b_text'",
    "--kind jobset --topology v6e:8x8 --num-slices 2 --spot --workdir gs://BUCKET/run "
    "--repository URL",
)


@program
def main() -> int:
    """Parse and write."""
    arguments = parse(_Arguments, examples=_EXAMPLES, args=_attached(sys.argv[1:]))
    _check_train(arguments.job)
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name, text in job_files(arguments.job, arguments.kind).items():
        file = arguments.output / name
        replace_text(file, text)
        print(file)
    return DONE


def _check_train(job: Job) -> None:
    """Read the command of every host as the training program will, before any machine costs.

    Raises:
        ValueError: settings do not fit each other.
        SystemExit: the training program has no such option.
    """
    from lco_jax.cli.train import read_command

    try:
        read_command(["--tpu", "--workdir", job.workdir, *shlex.split(job.train)])
    except FileNotFoundError as error:
        log.warning("--train was not checked: %s; the hosts may have it", error)
    except SystemExit:
        sys.stderr.write(f"--train is not understood by the training program: {job.train}\n")
        raise


def _attached(arguments: Sequence[str]) -> list[str]:
    """The command line with commands attached to their options: `--train=--config x`.

    What follows an option is taken for another one otherwise if it begins with a dash.
    """
    attached, rest = [], iter(arguments)
    for argument in rest:
        if argument in _COMMANDS and (value := next(rest, None)) is not None:
            argument = f"{argument}={value}"
        attached.append(argument)
    return attached
