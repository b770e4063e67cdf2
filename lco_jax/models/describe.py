"""A model as a run sees it: from the reference in a config to sizes, towers and parameters."""

from dataclasses import dataclass

from flax import nnx

from lco_jax.config import ModelRef, Tower
from lco_jax.models.build import Params, build
from lco_jax.models.config import ModelConfig
from lco_jax.models.omni import available_towers


@dataclass(frozen=True)
class DescribedModel:
    """What of a checkpoint a run loads, and what of that trains."""

    config: ModelConfig
    """Sizes of the layers that are kept, and of all towers of the checkpoint."""
    towers: tuple[Tower, ...]
    """Those that are loaded."""
    graph: nnx.GraphDef
    trainable: Params
    """Shapes, on the mesh that was set."""
    frozen: Params

    @property
    def read(self) -> ModelConfig:
        """The sizes without the towers that are not loaded: whose media can be read."""
        return self.config.with_towers(self.towers)


def describe_model(ref: ModelRef, sizes: ModelConfig, *, with_head: bool) -> DescribedModel:
    """What a run with `ref` loads of a checkpoint of these sizes; nothing is allocated.

    Raises:
        ValueError: the checkpoint lacks a tower or layers, or nothing of it would train.
    """
    config = sizes.first_layers(ref.num_layers)
    towers = available_towers(config) if ref.towers is None else ref.towers
    graph, trainable, frozen = build(
        config, ref.trainable, ref.dtype, towers=towers, with_head=with_head
    )
    return DescribedModel(config, towers, graph, trainable, frozen)
