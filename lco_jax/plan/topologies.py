"""TPU generations and slices as data, and the devices of a slice that is not there."""

import importlib.util
import os
from dataclasses import dataclass

import jax
from jax.experimental import topologies

from lco_jax.config.topology import parse_topology


@dataclass(frozen=True)
class Chip:
    """What one chip can do at most."""

    bf16_flops: float
    """A second."""
    hbm_bytes: float
    """That a program can use, as the compiler says; a little less than is built in."""
    hbm_bytes_per_s: float
    ici_bytes_per_s: float
    """Out of the chip over all its links to other chips of the slice."""
    dcn_bytes_per_s: float
    """Out of the chip to other slices: its share of the host's network card."""


CHIPS = {
    "v4": Chip(275e12, 30.75 * 2**30, 1.23e12, 6 * 45e9, 6.25e9),
    "v5e": Chip(197e12, 15.75 * 2**30, 0.82e12, 4 * 45e9, 3.125e9),
    "v5p": Chip(459e12, 95.74 * 2**30, 2.77e12, 6 * 90e9, 6.25e9),
    "v6e": Chip(918e12, 31.25 * 2**30, 1.64e12, 4 * 90e9, 6.25e9),
}
"""Source: the Cloud TPU system architecture pages, and for links and networks the scaling book."""


class NoTpuCompilerError(RuntimeError):
    """libtpu is not installed."""


@dataclass(frozen=True)
class Topology:
    """A slice, or several equal ones."""

    name: str
    """Such as `v5p:4x4x4`."""
    num_slices: int
    chip: Chip
    devices: list[jax.Device]


def find_topology(name: str, num_slices: int = 1) -> Topology:
    """Devices to compile for; nothing can be run on them.

    Raises:
        ValueError: no such slice.
        NoTpuCompilerError: libtpu is not installed.
    """
    parsed = parse_topology(name)
    # For compilation alone there is no machine to ask, and nothing to lock.
    quiet = {
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": "v5litepod-1",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "true",
    }
    for variable, value in quiet.items():
        os.environ.setdefault(variable, value)
    options = {"num_slices": num_slices} if num_slices > 1 else {}
    if parsed.chips == 1:
        options["chips_per_host_bounds"] = (1, 1, 1)
    if importlib.util.find_spec("libtpu") is None:
        raise NoTpuCompilerError(
            "plans need the TPU compiler: pip install -e '.[tpu]' (it runs on any Linux machine)"
        )
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=name, **options)
    except RuntimeError as error:
        raise ValueError(f"there is no slice {name}: {error}") from error
    return Topology(name, num_slices, CHIPS[parsed.generation], list(found.devices))
