"""A model as a static graph and dictionaries of arrays: what trains and what is frozen."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import PRNGKeyArray

from lco_jax.config import Full, Lora, Tower, Towers, Trainable
from lco_jax.models.config import ModelConfig
from lco_jax.models.omni import OmniModel

Params = dict[str, Any]
"""Nested dictionary of arrays or of their shapes."""
Group = Literal["vision", "audio", "projectors", "decoder"]
"""A part of the model that may have its own learning rate."""

_PROJECTORS = (
    *(("vision", name) for name in ("merger", "deep_mergers", "projector", "newline")),
    *(("audio", "final_norm"), ("audio", "output")),
)


def group_of(path: Sequence[str]) -> Group:
    """The part of the model that a parameter belongs to."""
    if tuple(path[:2]) in _PROJECTORS:
        return "projectors"
    return path[0] if path[0] in ("vision", "audio") else "decoder"


def lora_of(trainable: Trainable | None) -> Lora | None:
    """The low-rank factors among what trains."""
    decoder = trainable.decoder if isinstance(trainable, Towers) else trainable
    return decoder if isinstance(decoder, Lora) else None


def trains_weights_of_layers(trainable: Params) -> bool:
    """Whether more than low-rank factors train in the layers of the decoder."""
    paths = jax.tree_util.tree_leaves_with_path(trainable.get("layers", {}))
    return any(path[-1].key not in ("lora_a", "lora_b") for path, _ in paths)


def build(
    config: ModelConfig,
    trainable: Trainable | None,
    dtype: str,
    *,
    towers: Sequence[Tower] = (),
    with_head: bool = False,
) -> tuple[nnx.GraphDef, Params, Params]:
    """The graph of a model and the shapes of its trainable and frozen parameters.

    Nothing is allocated. `trainable=None` freezes everything (embedding, export). Frozen weights
    are stored in `dtype`, trainable ones in float32. The shapes carry shardings of the mesh that
    is set.

    Raises:
        ValueError: nothing of the model trains although something should, or the mesh that is set
            does not divide it.
    """
    check_divides(config.with_towers(towers), jax.sharding.get_mesh().shape)
    model = jax.eval_shape(lambda: _make(config, trainable, dtype, towers, with_head, None))
    graph, train, frozen = nnx.split(model, _filter(trainable), ...)
    train = _in_float32(on_mesh(nnx.to_pure_dict(train)))
    if trainable is not None and not jax.tree.leaves(train):
        raise ValueError(
            f"{trainable} trains nothing of a {config.family} model with the towers "
            f"{list(towers)}; give a part that it has a multiplier above 0"
        )
    return graph, train, on_mesh(nnx.to_pure_dict(frozen))


def check_divides(model: ModelConfig, mesh: Mapping[str, int]) -> None:
    """Look whether a mesh divides what a model has of everything; it may have no such axes.

    Raises:
        ValueError: it does not; the axis and the size are named.
    """
    text, tensor, fsdp = model.text, mesh.get("tensor", 1), mesh.get("fsdp", 1)
    sizes = {
        ("tensor", tensor, "attention heads"): text.num_heads,
        ("tensor", tensor, "key-value heads"): text.num_kv_heads,
        ("tensor", tensor, "the feed-forward width"): text.intermediate_size,
        ("tensor", tensor, "the vocabulary"): text.vocab_size,
        ("fsdp", fsdp, "the model width"): text.hidden_size,
    }
    for name, tower in (("vision", model.vision), ("audio", model.audio)):
        if tower is not None:
            sizes["tensor", tensor, f"heads of the {name} tower"] = tower.num_heads
            width = f"the feed-forward width of the {name} tower"
            sizes["tensor", tensor, width] = tower.intermediate_size
            sizes["fsdp", fsdp, f"the width of the {name} tower"] = tower.hidden_size
    for (axis, parts, name), size in sizes.items():
        if size % parts:
            fits = [str(n) for n in (1, 2, 4, 8, 16) if size % n == 0]
            raise ValueError(
                f"mesh.{axis}={parts} does not divide {name} ({size}); use {', '.join(fits)}"
            )


def init_lora(config: ModelConfig, trainable: Trainable, dtype: str, key: PRNGKeyArray) -> Params:
    """Random low-rank factors, computed in place on the mesh that is set; empty if none train."""
    if lora_of(trainable) is None:
        return {}

    def init(key: PRNGKeyArray) -> Params:
        model = _make(config, trainable, dtype, (), False, nnx.Rngs(params=key))
        return nnx.to_pure_dict(nnx.state(model, nnx.LoRAParam))

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


def _make(config, trainable, dtype, towers, with_head, rngs) -> OmniModel:
    return OmniModel(
        config,
        towers=towers,
        lora=lora_of(trainable),
        with_head=with_head,
        dtype=jnp.dtype(dtype),
        rngs=rngs,
    )


def _in_float32(shapes: Params) -> Params:
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, jnp.float32, sharding=x.sharding), shapes
    )


def _filter(trainable: Trainable | None) -> Any:
    match trainable:
        case Lora():
            return nnx.LoRAParam
        case Full():
            return nnx.All(nnx.Param, lambda path, _: group_of(path) == "decoder")
        case Towers(decoder=decoder):
            parts = [name for name in ("vision", "audio", "projectors") if getattr(trainable, name)]
            return nnx.Any(lambda path, _: group_of(path) in parts, _filter(decoder))
    return nnx.Nothing()
