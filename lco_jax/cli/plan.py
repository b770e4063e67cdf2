"""The command line of `launch/plan.py`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import jax
import tyro

from lco_jax.cli.exits import DONE, FAILED, program
from lco_jax.cli.train import load_config
from lco_jax.config import TrainConfig


@dataclass(frozen=True)
class _Front:
    config: Path
    """Python file with `get_config()`."""
    topology: str
    """Generation and chips along each axis: `v5e:16x16`, `v5p:4x4x4`, `v6e:8x8`."""
    num_slices: int = 1
    """Slices of this shape, joined by the data centre's network."""
    json: Path | None = None
    """Also write the plan to this file."""


@dataclass(frozen=True)
class _Arguments(_Front):
    """Compile a config's training step for TPUs that are not there, and say what it takes.

    Exits with 1 if it does not fit. Needs the extra `tpu` (libtpu), but no TPU.
    """

    run: Annotated[TrainConfig, tyro.conf.arg(name="")] = tyro.MISSING


@program
def main() -> int:
    """Parse, compile, print."""
    front, _ = tyro.cli(_Front, return_unknown_args=True, add_help=False)
    default = _Arguments(
        front.config, front.topology, front.num_slices, front.json, run=load_config(front.config)
    )
    arguments = tyro.cli(_Arguments, default=default, config=(tyro.conf.AvoidSubcommands,))
    # The host must not look for a TPU of its own.
    jax.config.update("jax_platforms", "cpu")

    from lco_jax.train.plan import describe, make_plan
    from lco_jax.train.topologies import find_topology

    plan = make_plan(arguments.run, find_topology(arguments.topology, arguments.num_slices))
    print(describe(plan))
    if arguments.json:
        arguments.json.write_text(json.dumps(plan.to_json(), indent=2) + "\n")
    return DONE if plan.fits else FAILED
