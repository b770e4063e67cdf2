"""A model as a static graph and dictionaries of arrays: what trains and what is frozen."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import PRNGKeyArray

from lco_jax.config import Full, Lora, Tower
from lco_jax.models.config import ModelConfig
from lco_jax.models.omni import OmniModel

Params = dict[str, Any]
"""Nested dictionary of arrays or of their shapes."""


def build(
    config: ModelConfig,
    trainable: Lora | Full | None,
    dtype: str,
    *,
    towers: Sequence[Tower] = (),
    with_head: bool = False,
) -> tuple[nnx.GraphDef, Params, Params]:
    """The graph of a model and the shapes of its trainable and frozen parameters.

    Nothing is allocated. `trainable=None` freezes everything (embedding, export). Frozen weights
    are stored in `dtype`, trainable ones in float32. The shapes carry shardings of the mesh that
    is set.
    """
    model = jax.eval_shape(
        lambda: _make(config, trainable, dtype, towers, with_head, jax.random.key(0))
    )
    graph, train, frozen = nnx.split(model, _filter(trainable), ...)
    return graph, on_mesh(nnx.to_pure_dict(train)), on_mesh(nnx.to_pure_dict(frozen))


def init_trainable(
    config: ModelConfig, trainable: Lora | Full, dtype: str, key: PRNGKeyArray
) -> Params:
    """Random values of what trains, computed in place on the mesh that is set."""

    def init(key: PRNGKeyArray) -> Params:
        model = _make(config, trainable, dtype, (), False, key)
        return nnx.to_pure_dict(nnx.state(model, _filter(trainable)))

    return jax.jit(init)(key)


def join(first: Params, second: Params) -> Params:
    """One dictionary of two whose leaves are apart."""
    joined = dict(first)
    for name, value in second.items():
        joined[name] = join(first[name], value) if name in first else value
    return joined


def on_mesh(shapes: Any) -> Any:
    """Shapes on the devices of the mesh that is set, where tracing left an abstract mesh."""
    mesh = jax.sharding.get_mesh()

    def place(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        spec = x.sharding.spec if x.sharding else jax.P()
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=jax.NamedSharding(mesh, spec))

    return jax.tree.map(place, shapes)


def _make(config, trainable, dtype, towers, with_head, key) -> OmniModel:
    return OmniModel(
        config,
        towers=towers,
        lora=trainable if isinstance(trainable, Lora) else None,
        with_head=with_head,
        dtype=jnp.dtype(dtype),
        weight_dtype=jnp.dtype(jnp.float32 if isinstance(trainable, Full) else dtype),
        rngs=nnx.Rngs(params=key),
    )


def _filter(trainable: Lora | Full | None) -> Any:
    match trainable:
        case Lora():
            return nnx.LoRAParam
        case Full():
            towers = nnx.Any(nnx.PathContains("vision"), nnx.PathContains("audio"))
            return nnx.All(nnx.Param, nnx.Not(towers))
    return nnx.Nothing()
