"""A model by name: hub folder, hub id or run folder, ready to embed or export."""

import json
from pathlib import Path

import jax

from lco_jax.config import MediaConfig
from lco_jax.config.io import from_json
from lco_jax.data.encode.processor import Processor
from lco_jax.models.build import build
from lco_jax.models.config import read_config
from lco_jax.models.omni import available_towers
from lco_jax.train.manifest import is_run_folder
from lco_jax.train.restore import PROFILE_FILE, OpenedModel, open_run
from lco_jax.weights.hub import load_params, resolve_folder


def open_model(
    path: str,
    *,
    checkpoint: int | None = None,
    profile: str | None = None,
    max_text_tokens: int | None = None,
    media: MediaConfig | None = None,
    dtype: str | None = None,
    with_head: bool = False,
) -> OpenedModel:
    """Load a model for inference.

    Args:
        checkpoint: step of a run folder (None: the best evaluated one, else the last).
        profile: prompt recipe (None: that of the run or export, else `lco`).
        media: sizes and rates of images and videos (None: those of the run or export; if the
            profile `mteb` is asked for, those of mteb's wrapper).
        dtype: of the weights (None: as trained; for hub folders bfloat16 on accelerators and
            float32 on CPU).
        with_head: load the output head, for generation; a run that trained it has it anyway.

    Raises:
        FileNotFoundError: no such model or checkpoint.
        ValueError: the weights do not fit a supported family.
    """
    if is_run_folder(path):
        return open_run(
            path,
            checkpoint=checkpoint,
            profile=profile,
            max_text_tokens=max_text_tokens,
            media=media,
            dtype=dtype,
            with_head=with_head,
        )
    if checkpoint is not None:
        raise ValueError(f"checkpoint={checkpoint} was asked for, but {path} is not a run folder")
    folder = resolve_folder(path)
    config = read_config(folder)
    dtype = dtype or ("float32" if jax.default_backend() == "cpu" else "bfloat16")
    towers = available_towers(config)
    graph, _, shapes = build(config, None, dtype, towers=towers, with_head=with_head)
    recipe = _stored_recipe(folder)
    processor = Processor(
        folder,
        config,
        media=media or (None if profile == "mteb" else _stored_media(recipe)),
        profile=profile or recipe.get("profile", "lco"),
        max_text_tokens=max_text_tokens or (None if profile else recipe.get("max_text_tokens")),
    )
    params = load_params(folder, config, shapes)
    return OpenedModel(config, graph, params, None, None, processor, folder, path, dtype, step=None)


def _stored_recipe(folder: Path) -> dict:
    file = folder / PROFILE_FILE
    return json.loads(file.read_text()) if file.exists() else {}


def _stored_media(recipe: dict) -> MediaConfig | None:
    return from_json(recipe["media"]) if "media" in recipe else None
