"""What is measured of a model of the grid: generation, representation, the terms of the bound."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from lco_jax.analysis.bound import (
    captured_information,
    lora_factors,
    lora_kl,
)
from lco_jax.config import Lora, TrainConfig
from lco_jax.data.records import Triplet
from lco_jax.data.sources.open import open_source, read_pairs
from lco_jax.embed.open import open_model
from lco_jax.lab.grid_config import Ability, ScalingGrid
from lco_jax.lab.info_nce import Encode, batch_losses
from lco_jax.lab.likelihood import response_loss
from lco_jax.metrics.anisotropy import mean_cosine
from lco_jax.metrics.retrieval import retrieval_metrics
from lco_jax.runtime.mesh import make_mesh

_NUM_EMPIRICAL = 512
"""Training triplets from which the empirical loss is estimated."""


def generation(path: str, grid: ScalingGrid) -> dict[str, Any]:
    """By ability the losses of a model's held-out responses; of the first one without prompts,
    too (`alone`)."""
    found: dict[str, Any] = {}
    with jax.set_mesh(make_mesh(grid.generate.mesh)):
        data = grid.generate.data
        opened = open_model(path, with_head=True, media=data.media, profile=data.profile)
        for ability in grid.abilities:
            record = dataclasses.asdict(response_loss(opened, ability.exchanges, data))
            if ability.alone is not None:
                record["alone"] = dataclasses.asdict(response_loss(opened, ability.alone, data))
            found[ability.name] = record
    return found


def representation(encode: Encode, abilities: Sequence[Ability]) -> dict[str, dict[str, float]]:
    """By ability the retrieval of held-out pairs (means of both ways) and the mean cosine of the
    vectors of each side."""
    found = {}
    for ability in abilities:
        pairs = read_pairs(ability.pairs, None)
        count = len(pairs)
        vectors = encode([p.anchor for p in pairs] + [p.positive for p in pairs])
        vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        anchors, positives = vectors[:count], vectors[count:]
        own = np.arange(count)
        ways = [
            retrieval_metrics(anchors, positives, own),
            retrieval_metrics(positives, anchors, own),
        ]
        found[ability.name] = {
            **{name: (ways[0][name] + ways[1][name]) / 2 for name in ways[0]},
            "mean_cosine_anchors": mean_cosine(anchors),
            "mean_cosine_positives": mean_cosine(positives),
            "num_pairs": count,
        }
    return found


def bound_terms(
    encode: Encode,
    refined: str,
    config: TrainConfig,
    grid: ScalingGrid,
    generation: dict[str, Any],
) -> dict[str, Any]:
    """A line of the file that `bound_runs.read_runs` reads, without its name.

    Args:
        encode: of the refined model.
        refined: its run folder.
        config: of that run.
        generation: of the model before refinement.

    Raises:
        ValueError: the run has no low-rank factors, or is too small for its batch.
    """
    if not isinstance(config.model.trainable, Lora):
        raise ValueError(
            f"{refined} trained {config.model.trainable}; KL(Q||P) is computed from the low-rank "
            "factors of a run, refine with Lora"
        )
    first = grid.abilities[0]
    held_out, seen = read_pairs(first.pairs, None), _first_triplets(config)
    # Both losses have as many candidates, which is what the least triplet can give.
    there = min(len(triplet.negatives) for triplet in (*held_out, *seen))
    options = {
        "batch_size": config.data.batch_size,
        "num_negatives": min(there, config.data.num_negatives),
        "temperature": config.objective.temperature,
    }
    with jax.set_mesh(make_mesh(config.mesh)):
        opened = open_model(refined, media=grid.generate.data.media)
        lora = opened.lora
        kl = lora_kl(lora_factors(opened.lora_params), lora.alpha / lora.rank, grid.prior_std)
        population = batch_losses(encode, held_out, **options)
        empirical = batch_losses(encode, seen, **options)
    count = options["batch_size"] * (1 + options["num_negatives"])
    own = generation[first.name]
    return {
        "num_candidates": count,
        "information": captured_information(
            own["alone"]["nats_per_response"], own["nats_per_response"]
        ),
        "kl": kl,
        "num_samples": _num_samples(config),
        "temperature": config.objective.temperature,
        "measured_loss": float(population.mean()),
        "empirical_loss": float(empirical.mean()),
        "measured_losses_std": float(population.std()),
    }


def _first_triplets(config: TrainConfig) -> list[Triplet]:
    triplets = [t for source in config.data.sources for t in read_pairs(source, _NUM_EMPIRICAL)]
    return triplets[:_NUM_EMPIRICAL]


def _num_samples(config: TrainConfig) -> int:
    """Different triplets that a run has seen."""
    there = sum(len(open_source(source)) for source in config.data.sources)
    if config.num_steps is None:
        return there
    return min(there, config.num_steps * config.data.batch_size)
