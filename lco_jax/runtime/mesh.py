"""The mesh of all devices, and how functions are compiled for it."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils

from lco_jax.config import MeshConfig
from lco_jax.runtime.axes import BATCH_AXES, MESH_AXES, mesh_platform
from lco_jax.runtime.start import skip_absent_tpu


def make_mesh(config: MeshConfig, devices: list[jax.Device] | None = None) -> jax.sharding.Mesh:
    """The mesh of all devices, with axes data, fsdp and tensor.

    Several slices divide the data axis between them, so that only gradients and embeddings cross
    the slower network.

    Raises:
        ValueError: the sizes do not fit the devices.
    """
    if devices is None:
        skip_absent_tpu()
        devices = jax.devices()
    sizes = config.resolve(len(devices))
    if devices[0].platform != "tpu":
        return jax.make_mesh(sizes, MESH_AXES, devices=devices)
    # Devices of a single slice need not say which one it is.
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if sizes[0] % slices:
        raise ValueError(
            f"mesh.data={sizes[0]} is not a multiple of the number of slices, {slices}; make it "
            "one, so that fsdp and tensor stay within a slice"
        )
    within, across = (sizes[0] // slices, *sizes[1:]), (slices, 1, 1)
    # A torus of 4 x 4 x 4 as 32 x 1 x 2: an axis of the mesh may take half an axis of the torus.
    options = {"allow_split_physical_axes": True}
    if slices == 1:
        grid = mesh_utils.create_device_mesh(within, devices, **options)
    else:
        grid = mesh_utils.create_hybrid_device_mesh(within, across, devices, **options)
    return jax.sharding.Mesh(grid, MESH_AXES, axis_types=(jax.sharding.AxisType.Explicit,) * 3)


def compile_for_mesh(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """`jax.jit` with what suits the devices of the current mesh.

    On CPU that leaves out a library whose fused products are a seventh slower than XLA's own, and
    a pass that cuts reductions into trees, with which the maxima of a softmax take longer than its
    exponentials.
    """
    if mesh_platform() == "cpu":
        options["compiler_options"] = {
            "xla_cpu_experimental_ynn_fusion_type": "",
            "xla_disable_hlo_passes": "tree_reduction_rewriter",
        }
    return jax.jit(function, **options)


def num_shards(mesh: jax.sharding.Mesh) -> int:
    """Into how many parts the batch is cut."""
    return int(np.prod([mesh.shape[axis] for axis in BATCH_AXES]))
