"""The chips and hosts of a TPU slice as plain data, for machines without the TPU compiler."""

import importlib.util
import itertools
from dataclasses import dataclass

import jax

from lco_jax.config.topology import TopologyName, parse_topology
from lco_jax.plan.topologies import find_topology

_KINDS = {"v4": "TPU v4", "v5e": "TPU v5 lite", "v5p": "TPU v5", "v6e": "TPU v6 lite"}
"""What JAX calls the devices of a generation; the order of a mesh depends on it."""
_HOST = (2, 2, 1)
"""Chips of a host along x, y and z, in every slice of more than one chip."""
_SLICE_IDS = 100_000
"""Ids of devices of several slices count from a multiple of this."""


@dataclass(frozen=True)
class TorusChip:
    """A device as a mesh needs it: where it is, and whose; nothing can be run or compiled on it."""

    id: int
    process_index: int
    coords: tuple[int, int, int]
    device_kind: str
    slice_index: int = 0
    core_on_chip: int = 0
    platform: str = "tpu"


def slice_devices(name: str, num_slices: int = 1) -> list[jax.Device] | list[TorusChip]:
    """The devices of a slice, or of several equal ones, as the compiler describes them, or plain
    ones if it is not installed.

    The compiler counts the two cores of a v4 chip as devices, which JAX joins: those are plain.

    Raises:
        ValueError: no such slice.
    """
    if importlib.util.find_spec("libtpu") is None or parse_topology(name).generation == "v4":
        return torus_devices(name, num_slices)
    return find_topology(name, num_slices).devices


def torus_devices(name: str, num_slices: int = 1) -> list[TorusChip]:
    """What the compiler's descriptions say, in their order: a host has 2 x 2 x 1 neighbouring
    chips; hosts, and the chips of each, are numbered along x, then y, then z, slice after slice.

    Raises:
        ValueError: no such slice.
    """
    parsed = parse_topology(name)
    shape = (*parsed.shape, 1)[:3]
    host = (1, 1, 1) if parsed.chips == 1 else _HOST
    if any(size % part for size, part in zip(shape, host, strict=True)):
        raise ValueError(f"there is no slice {name}: hosts have 2 x 2 chips, sizes must be even")
    hosts = tuple(size // part for size, part in zip(shape, host, strict=True))
    devices = []
    for number, (index, corner) in itertools.product(range(num_slices), enumerate(_cells(hosts))):
        process = number * _size(hosts) + index
        first_id = (number + 1) * _SLICE_IDS if num_slices > 1 else 0
        for inner in _cells(host):
            x, y, z = (c * part + i for c, part, i in zip(corner, host, inner, strict=True))
            own = first_id + x + shape[0] * (y + shape[1] * z)
            devices.append(TorusChip(own, process, (x, y, z), _kind(parsed), number))
    return devices


def _cells(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """All places of a grid, the first coordinate running fastest."""
    return [place[::-1] for place in itertools.product(*map(range, reversed(shape)))]


def _size(shape: tuple[int, ...]) -> int:
    return len(_cells(shape))


def _kind(name: TopologyName) -> str:
    return _KINDS[name.generation]
