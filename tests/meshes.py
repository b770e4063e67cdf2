"""Meshes of simulated devices that tests compare."""

from collections.abc import Iterator

import jax
import pytest

from lco_jax.runtime.axes import MESH_AXES

SIZES = ((1, 1, 1), (1, 4, 1), (2, 2, 2), (1, 2, 4))
ALL_AXES = [
    pytest.param(sizes, marks=() if min(sizes) > 1 else pytest.mark.slow) for sizes in SIZES[1:]
]
"""For steps that take long to compile: with all axes at once, and if slow tests run, the others."""


def make(sizes: tuple[int, int, int]) -> jax.sharding.Mesh:
    """A mesh of the first simulated devices."""
    count = sizes[0] * sizes[1] * sizes[2]
    return jax.make_mesh(sizes, MESH_AXES, devices=jax.devices()[:count])


@pytest.fixture(scope="module")
def one_device() -> Iterator[None]:
    """Runs take a single device, whatever their config says: for tests that are not of meshes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "lco_jax.runtime.mesh.make_mesh", lambda config, devices=None: make((1, 1, 1))
        )
        yield
