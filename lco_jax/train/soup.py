"""Model soup: the mean of the weights of several runs from one model."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp

from lco_jax.config import Lora
from lco_jax.models.build import Params
from lco_jax.train.base import write_model
from lco_jax.train.restore import OpenedModel, open_run

SOUP_NOTE = "soup.json"
"""In the folder of a soup: of which runs it is, and of which step of each."""


def average_models(models: Sequence[OpenedModel]) -> OpenedModel:
    """The model whose weights are the means of the merged weights, in float32.

    If all are runs with low-rank factors on the same layers of one base, the factors that give the
    same mean are kept: those of all runs side by side, of a rank that is the sum of the ranks.

    Raises:
        ValueError: fewer than two models, or models of different sizes or recipes.

    Source: LCO-Emb §4 (checkpoints of two sets of text pairs are averaged).
    """
    if len(models) < 2:
        raise ValueError(f"a soup needs two models or more, got {len(models)}")
    first = models[0]
    for other in models[1:]:
        if other.config != first.config:
            raise ValueError(
                f"{other.base_name} and {first.base_name} have different sizes; a soup averages "
                "models of one architecture"
            )
        if other.processor.describe() != first.processor.describe():
            raise ValueError(
                "the models read items with different recipes (profile, text length, media); "
                "a soup averages models of one recipe"
            )
    params = jax.tree.map(_mean, *(model.params for model in models))
    lora, factors = _join_factors(models)
    return dataclasses.replace(first, params=params, lora=lora, lora_params=factors, step=None)


def write_soup(runs: Sequence[str], target: Path) -> None:
    """Write the soup of several runs (their best evaluated checkpoints, else the last) as a hub
    folder, on the mesh that is set; all processes call it.

    Raises:
        ValueError: see `average_models`.
    """
    models = [open_run(run) for run in runs]
    of = {Path(run).name: model.step for run, model in zip(runs, models, strict=True)}
    write_model(average_models(models), target, {SOUP_NOTE: {"of": of}})


def _mean(*leaves: jax.Array) -> jax.Array:
    total = sum(leaf.astype(jnp.float32) for leaf in leaves)
    return (total / len(leaves)).astype(leaves[0].dtype)


def _join_factors(models: Sequence[OpenedModel]) -> tuple[Lora | None, Params | None]:
    """Factors of the mean of the updates: Σ (s_i / n) A_i B_i is one product of stacked ranks."""
    loras = [model.lora for model in models]
    one_base = len({(model.base_name, model.config) for model in models}) == 1
    if not one_base or None in loras or len({lora.targets for lora in loras}) != 1:
        return None, None
    rank = sum(lora.rank for lora in loras)
    shares = [lora.alpha / lora.rank / len(models) for lora in loras]

    def join(path: tuple, *leaves: jax.Array) -> jax.Array:
        # A lies rank first (L R ...), and B as well; the shares go into B, so alpha is the rank.
        if path[-1].key == "lora_b":
            leaves = [share * leaf for share, leaf in zip(shares, leaves, strict=True)]
        return jnp.concatenate(leaves, axis=1)

    factors = jax.tree_util.tree_map_with_path(join, *(model.lora_params for model in models))
    return dataclasses.replace(loras[0], rank=rank, alpha=float(rank)), factors
