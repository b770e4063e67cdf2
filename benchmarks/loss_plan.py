"""The contrastive loss alone, compiled for chips that are not there."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from lco_jax.config import Contrastive, Memory, MeshConfig
from lco_jax.objectives.contrastive import contrastive_loss
from lco_jax.runtime import mesh as meshes
from lco_jax.runtime.axes import act_spec

WIDTH = 3584
"""Of the embeddings of a 7B model."""


def compile_loss(memory: Memory, triplets: int, devices: Sequence[jax.Device]):
    """Value and gradient for embeddings as wide as a 7B model's, one data shard a chip.

    Raises:
        ValueError: the triplets do not divide among the devices.
    """
    if triplets % len(devices):
        raise ValueError(f"{triplets} triplets do not divide among {len(devices)} devices")
    mesh = meshes.make_mesh(MeshConfig(len(devices), 1, 1), devices)

    def array(letters: str, shape: tuple[int, ...], dtype: type) -> jax.ShapeDtypeStruct:
        sharding = jax.NamedSharding(mesh, act_spec(letters))
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    def loss(pooled, valid, content):
        return contrastive_loss(pooled, valid, content, Contrastive(), memory)[0]

    with jax.set_mesh(mesh):
        arrays = (
            array("C J I D", (1, 3, triplets, WIDTH), jnp.float32),
            array("C J I", (1, 3, triplets), jnp.bool_),
            array("C J I X", (1, 3, triplets, 2), jnp.uint32),
        )
        return jax.jit(jax.value_and_grad(loss)).lower(*arrays).compile()
