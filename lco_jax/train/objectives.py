"""What follows from the objective of a stage: how it reads, what it loads, which step it takes."""

from collections.abc import Callable

import jax
import optax
from flax import nnx

from lco_jax.config import Alignment, Contrastive, Generative, Objective, TrainConfig
from lco_jax.data.alignment import AlignmentLoader
from lco_jax.data.loader import ContrastiveLoader, GenerativeLoader, Loader
from lco_jax.data.processor import Processor
from lco_jax.data.records import Exchange, Record, Triplet
from lco_jax.train import mesh as meshes
from lco_jax.train.alignment import alignment_objective, alignment_step
from lco_jax.train.generative import generative_objective, generative_step
from lco_jax.train.steps import Step, contrastive_objective, contrastive_step


def needs_head(objective: Objective) -> bool:
    """Whether the model's output head is used."""
    return isinstance(objective, Generative)


def record_kind(objective: Objective) -> type[Record]:
    """What the sources of a stage give."""
    return Triplet if isinstance(objective, Contrastive) else Exchange


def make_loader(config: TrainConfig, processor: Processor, mesh: jax.sharding.Mesh) -> Loader:
    """The batches of a stage, of which this process reads its share."""
    share, num_shares = meshes.data_share(mesh)
    options = {
        "seed": config.seed,
        "num_shards": meshes.num_shards(mesh),
        "process_index": share,
        "process_count": num_shares,
        "agree": meshes.agree_max,
    }
    match config.objective:
        case Contrastive():
            return ContrastiveLoader(config.data, config.memory, processor, **options)
        case Generative() as objective:
            return GenerativeLoader(config.data, config.memory, processor, objective, **options)
        case Alignment() as objective:
            return AlignmentLoader(config.data, config.memory, processor, objective, **options)


def make_step(
    config: TrainConfig, graph: nnx.GraphDef, optimizer: optax.GradientTransformation
) -> Step:
    """The compiled training step of a stage."""
    match config.objective:
        case Contrastive() as objective:
            return contrastive_step(graph, optimizer, objective, config.memory, config.seed)
        case Generative():
            return generative_step(graph, optimizer, config.memory, config.seed)
        case Alignment() as objective:
            return alignment_step(graph, optimizer, objective, config.memory, config.seed)


def make_loss(config: TrainConfig, graph: nnx.GraphDef) -> Callable:
    """The function `(trainable, frozen, dropout key, batch, prefix) -> (loss, metrics)`, for as
    much of a batch as is differentiated at a time.
    """
    match config.objective:
        case Contrastive() as objective:
            return contrastive_objective(graph, objective, config.memory)
        case Generative():
            return generative_objective(graph, config.memory)
        case Alignment() as objective:
            return alignment_objective(graph, objective, config.memory)
