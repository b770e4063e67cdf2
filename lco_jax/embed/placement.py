"""Devices by the names that torch gives them."""

import re
from typing import Any

import jax

from lco_jax.config import MeshConfig
from lco_jax.runtime.mesh import make_mesh

_PLATFORMS = {"cuda": "gpu", "gpu": "gpu", "cpu": "cpu", "tpu": "tpu", "xla": "tpu"}


def devices_named(name: Any) -> list[jax.Device]:
    """The devices that a name such as `cpu`, `cuda` or `tpu:1` means: one of that number, or all
    of a platform.

    Raises:
        ValueError: no such device, or a list of devices.
    """
    if isinstance(name, list | tuple):
        raise ValueError(
            f"device={name}: one process drives all devices of its mesh; leave device out, or give "
            "mesh=MeshConfig(...)"
        )
    if isinstance(name, jax.Device):
        return [name]
    found = re.fullmatch(r"([a-z]+)(?::(\d+))?", str(name).lower())
    platform = _PLATFORMS.get(found[1]) if found else None
    try:
        devices = jax.devices(platform) if platform else []
    except RuntimeError:
        devices = []
    if found and found[2]:
        devices = [device for number, device in enumerate(devices) if number == int(found[2])]
    if not devices:
        here = {f"{device.platform}:{number}" for number, device in enumerate(jax.devices())}
        raise ValueError(f"device={str(name)!r} is not here; JAX has {sorted(here)}")
    return devices


def check_placed(name: Any, mesh: jax.sharding.Mesh) -> None:
    """Refuse to move a model that lies elsewhere.

    Raises:
        ValueError: the devices of that name are not those of the mesh.
    """
    placed = set(mesh.devices.flat)
    if name is not None and not placed <= set(devices_named(name)):
        raise ValueError(
            f"device={str(name)!r}: the weights lie on {sorted(map(str, placed))} and stay there; "
            f"open another Embedder(..., device={str(name)!r})"
        )


def choose_mesh(
    mesh: MeshConfig | jax.sharding.Mesh | None, device: Any = None
) -> jax.sharding.Mesh:
    """The mesh that is given, or one of all devices, or of those of a name.

    Raises:
        ValueError: both a mesh and a name, or no such device.
    """
    if isinstance(mesh, jax.sharding.Mesh) and device is None:
        return mesh
    if mesh is not None and device is not None:
        raise ValueError(f"device={device!r} and mesh= both say where; give one of them")
    if device is not None:
        return make_mesh(MeshConfig(), devices_named(device))
    return make_mesh(mesh or MeshConfig())
