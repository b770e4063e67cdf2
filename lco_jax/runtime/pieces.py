"""What each device finds in its own pieces of arrays.

The program has no collectives: nothing waits for another device or process, and what they found is
put together on the hosts.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped, UInt32

from lco_jax.runtime.axes import MESH_AXES
from lco_jax.runtime.mesh import compile_for_mesh

Look = Callable[[Shaped[Array, "..."], UInt32[Array, "..."]], UInt32[Array, ""]]
"""A number of a piece, given the piece and the place of each element in the whole array."""


@dataclass(frozen=True)
class Found:
    """What was found in a piece."""

    copy: int
    """Of several equal pieces on different devices, which one it is; they count from 0."""
    value: int


def look(function: Look, arrays: Sequence[Array]) -> list[list[Found]]:
    """For every array what `function` finds in those of its pieces that this process holds.

    It returns when all its devices are done.

    Args:
        function: of a module, so that it is compiled once.
        arrays: of 1, 2 or 4 bytes an element, on the mesh that is set.
    """
    mesh = jax.sharding.get_mesh()
    specs = tuple(jax.typeof(x).sharding.spec for x in arrays)
    numbers = _compiled(function, specs, mesh)(*arrays)  # (devices, arrays)
    rows = {shard.device: np.asarray(shard.data)[0] for shard in numbers.addressable_shards}
    return [
        [Found(x.replica_id, int(rows[x.device][index])) for x in array.addressable_shards]
        for index, array in enumerate(arrays)
    ]


@functools.lru_cache(maxsize=16)
def _compiled(
    function: Look, specs: tuple[jax.P, ...], mesh: jax.sharding.Mesh
) -> Callable[..., UInt32[Array, "devices arrays"]]:
    def on_device(*pieces: Array) -> UInt32[Array, "1 arrays"]:
        found = [
            function(piece, _places(piece.shape, spec, mesh))
            for piece, spec in zip(pieces, specs, strict=True)
        ]
        return jnp.stack(found)[None]

    rows = jax.P(MESH_AXES, None)
    program = jax.shard_map(on_device, mesh=mesh, in_specs=specs, out_specs=rows, check_vma=False)
    return compile_for_mesh(program)


def _places(shape: tuple[int, ...], spec: jax.P, mesh: jax.sharding.Mesh) -> UInt32[Array, "..."]:
    """The places of the elements of this device's piece in the whole array, modulo 2^32."""
    places = jnp.zeros(shape, jnp.uint32)
    for dimension, length in enumerate(shape):
        axes = spec[dimension] if dimension < len(spec) else None
        axes = () if axes is None else axes if isinstance(axes, tuple) else (axes,)
        parts, own = 1, jnp.uint32(0)
        for axis in axes:
            own = own * mesh.shape[axis] + jax.lax.axis_index(axis).astype(jnp.uint32)
            parts *= mesh.shape[axis]
        index = jax.lax.broadcasted_iota(jnp.uint32, shape, dimension) + own * jnp.uint32(length)
        places = places * jnp.uint32(parts * length % 2**32) + index
    return places
