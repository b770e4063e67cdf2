"""The alphabet of dimensions, and where each letter lives on the mesh.

    B  rows of the global batch     S, T  query and key positions    D  model width
    N  query heads   K  key-value heads   H  head width              F  feed-forward width
    V  vocabulary    L  stacked layers    R  LoRA rank               C  encode chunks
    J  roles of an example (anchor, positive, negatives)             I  examples of a chunk
    E  embedding width              G  shard groups, one per data shard
    P  patches of a group

Weights and activations name their dimensions with these letters in annotations, einsums,
shardings and the weight table. The mesh always has the same three axes, any of which may have
size 1, and the two maps below are all there is to say about sharding: a strategy is changed by
changing the size of an axis.
"""

import jax

MESH_AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")

_WEIGHTS = {"D": "fsdp", "N": "tensor", "K": "tensor", "F": "tensor", "V": "tensor"}
_ACTIVATIONS = {
    "B": BATCH_AXES,
    "I": BATCH_AXES,
    "G": BATCH_AXES,
    "N": "tensor",
    "K": "tensor",
    "F": "tensor",
    "V": "tensor",
}


def weight_spec(letters: str) -> jax.P:
    """The sharding of a weight whose dimensions are `letters`, e.g. `"D N H"`."""
    return jax.P(*(_WEIGHTS.get(letter) for letter in letters.split()))


def act_spec(letters: str) -> jax.P:
    """The sharding of an activation whose dimensions are `letters`, e.g. `"B S D"`."""
    return jax.P(*(_ACTIVATIONS.get(letter) for letter in letters.split()))


def mesh_platform() -> str | None:
    """What the devices of the current mesh are: `cpu`, `gpu` or `tpu` (None: no devices known)."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return device and device.platform
