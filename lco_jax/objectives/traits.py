"""What follows from the objective of a stage: one record for each, read by all that must know."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

from lco_jax.config import Alignment, Contrastive, Generative, Objective, TrainConfig
from lco_jax.data.encode.processor import Processor
from lco_jax.data.loader import Loader
from lco_jax.data.records import Exchange, Record, Triplet
from lco_jax.objectives.alignment import alignment_objective
from lco_jax.objectives.contrastive import contrastive_objective
from lco_jax.objectives.generative import generative_gradient, generative_objective
from lco_jax.objectives.loaders import AlignmentLoader, ContrastiveLoader, GenerativeLoader
from lco_jax.runtime import processes

LossFn = Callable[..., tuple[jax.Array, dict[str, jax.Array]]]
"""`(trainable, frozen, dropout key, batch, preamble) -> (loss, metrics)`."""
GradientFn = Callable[..., tuple[tuple[jax.Array, dict[str, jax.Array]], Any]]
"""The same arguments to `((loss, metrics), gradient of what trains)`."""


@dataclass(frozen=True)
class Assumed:
    """Items of an example, and their mean size, where no data are read."""

    roles: int
    item_tokens: int
    """Mean, beside media."""
    image_share: float
    """Of items with an image of the largest size."""


ITEM_TOKENS = 32
"""Assumed mean length of an item behind the preamble: an NLI sentence and its prompt."""
_IMAGE_SHARE = 0.25
"""Assumed share of items with an image. Source: LCO-Emb, variant M (a quarter of the triplets)."""


@dataclass(frozen=True)
class Traits:
    """What the rest of the program asks of an objective."""

    record_kind: type[Record]
    """What its sources give."""
    make_loader: Callable[..., Loader]
    """`(data config, memory, processor, objective, **options of Loader)`."""
    make_loss: Callable[..., LossFn]
    """`(graph, objective, memory)`: of as much of a batch as is differentiated at a time."""
    make_gradient: Callable[..., GradientFn]
    """`(graph, objective, memory)`: of a whole batch."""
    assume: Callable[[TrainConfig], Assumed]
    describe: Callable[[TrainConfig], dict[str, str]]
    """Rows of a dry run's table."""
    needs_head: bool = False
    """Whether the model's output head is used."""
    has_targets: bool = False
    """Whether its batches say which token comes next."""
    has_vocabulary: bool = False
    """Whether its batches hold the tokens that any response may have."""
    num_negatives: Callable[[TrainConfig], int] = lambda config: 0
    """Candidates that an anchor is told apart from."""
    has_report: bool = False
    """Whether a run of it alone ends with a report of what finds what."""


def traits_of(objective: Objective) -> Traits:
    """The record of an objective."""
    return _TRAITS[type(objective)]


def make_loader(config: TrainConfig, processor: Processor, mesh: jax.sharding.Mesh) -> Loader:
    """The batches of a stage, of which this process reads its share."""
    share = processes.data_share(mesh)
    return traits_of(config.objective).make_loader(
        config.data,
        config.memory,
        processor,
        config.objective,
        seed=config.seed,
        num_shards=share.num_shards,
        shards=share.shards,
        groups=share.groups,
        agree=processes.agree_max,
    )


def _differentiated(make_loss: Callable[..., LossFn]) -> Callable[..., GradientFn]:
    return lambda *args: jax.value_and_grad(make_loss(*args), has_aux=True)


def _count_negatives(config: TrainConfig) -> int:
    return config.data.batch_size * (1 + config.data.num_negatives) - 1


def _num_targets(config: TrainConfig) -> str:
    return f"up to {config.data.batch_size * config.objective.max_response_tokens:,}"


def _assume_responses(config: TrainConfig) -> Assumed:
    return Assumed(1, ITEM_TOKENS + config.objective.max_response_tokens, 1.0)


_TRAITS = {
    Contrastive: Traits(
        record_kind=Triplet,
        make_loader=lambda data, memory, processor, _, **options: ContrastiveLoader(
            data, memory, processor, **options
        ),
        make_loss=contrastive_objective,
        make_gradient=_differentiated(contrastive_objective),
        assume=lambda config: Assumed(2 + config.data.num_negatives, ITEM_TOKENS, _IMAGE_SHARE),
        describe=lambda config: {"negatives per anchor": f"{_count_negatives(config):,}"},
        num_negatives=_count_negatives,
        has_report=True,
    ),
    Generative: Traits(
        record_kind=Exchange,
        make_loader=GenerativeLoader,
        make_loss=lambda graph, _, memory: generative_objective(graph, memory),
        make_gradient=lambda graph, _, memory: generative_gradient(graph, memory),
        assume=_assume_responses,
        describe=lambda config: {
            "target tokens": f"{_num_targets(config)}; logits of about "
            f"{config.memory.head_tokens} tokens of a device at a time"
        },
        needs_head=True,
        has_targets=True,
    ),
    Alignment: Traits(
        record_kind=Exchange,
        make_loader=AlignmentLoader,
        make_loss=alignment_objective,
        make_gradient=_differentiated(alignment_objective),
        assume=_assume_responses,
        describe=lambda config: {"target tokens": _num_targets(config)},
        has_targets=True,
        has_vocabulary=True,
    ),
}
