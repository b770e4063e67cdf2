"""What the clouds call a slice of TPUs."""

from dataclasses import dataclass

from lco_jax.config.topology import TopologyName, parse_topology


@dataclass(frozen=True)
class _Family:
    accelerator: str
    """Prefix of Cloud TPU accelerator types."""
    counts_cores: bool
    """Accelerator types count two cores a chip instead of chips."""
    runtime: str
    """TPU VM image."""
    gke_accelerator: str
    """Node label of GKE."""


# Source: Cloud TPU documentation, "TPU software versions" and "Plan TPUs in GKE".
_FAMILIES = {
    "v4": _Family("v4", True, "tpu-ubuntu2204-base", "tpu-v4-podslice"),
    "v5e": _Family("v5litepod", False, "v2-alpha-tpuv5-lite", "tpu-v5-lite-podslice"),
    "v5p": _Family("v5p", True, "v2-alpha-tpuv5", "tpu-v5p-slice"),
    "v6e": _Family("v6e", False, "v2-alpha-tpuv6e", "tpu-v6e-slice"),
}
_CHIPS_PER_HOST = 4
"""Of every slice with several hosts."""


@dataclass(frozen=True)
class Slice:
    """A slice by all its names."""

    name: TopologyName

    @property
    def shape(self) -> str:
        """Chips along each axis: `4x4x4`."""
        return "x".join(map(str, self.name.shape))

    @property
    def chips(self) -> int:
        """In the slice."""
        return self.name.chips

    @property
    def hosts(self) -> int:
        """Machines of the slice; each runs one process."""
        return max(1, self.chips // _CHIPS_PER_HOST)

    @property
    def chips_per_host(self) -> int:
        """Of each machine."""
        return self.chips // self.hosts

    @property
    def accelerator_type(self) -> str:
        """Of Cloud TPU, xpk and SkyPilot: `v5p-128`, `v5litepod-256`, `v6e-64`."""
        family = _FAMILIES[self.name.generation]
        return f"{family.accelerator}-{self.chips * (2 if family.counts_cores else 1)}"

    @property
    def runtime_version(self) -> str:
        """Image of the TPU VMs."""
        return _FAMILIES[self.name.generation].runtime

    @property
    def gke_accelerator(self) -> str:
        """Value of the node label `cloud.google.com/gke-tpu-accelerator`."""
        return _FAMILIES[self.name.generation].gke_accelerator


def find_slice(topology: str) -> Slice:
    """The slice that `v5p:4x4x4` names.

    Raises:
        ValueError: no such generation, or not as many axes as its network has.
    """
    return Slice(parse_topology(topology))
