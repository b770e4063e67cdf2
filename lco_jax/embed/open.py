"""A model by name: hub folder, hub id, adapter or run folder, ready to embed or export."""

import json
import logging
from pathlib import Path

import jax

from lco_jax.config import ControlTokensRead, MediaConfig
from lco_jax.config.io import from_json
from lco_jax.data.encode.processor import Processor
from lco_jax.data.encode.profiles import check_profile
from lco_jax.embed.arguments import check_positive
from lco_jax.models.build import build
from lco_jax.models.config import read_config
from lco_jax.models.omni import available_towers
from lco_jax.train.manifest import is_run_folder
from lco_jax.train.restore import PROFILE_FILE, OpenedModel, open_run
from lco_jax.weights.access import HubAccess
from lco_jax.weights.hub import load_params
from lco_jax.weights.identity import contents_of
from lco_jax.weights.resolve import resolve_folder

_log = logging.getLogger(__name__)


def open_model(
    path: str,
    *,
    checkpoint: int | None = None,
    profile: str | None = None,
    max_text_tokens: int | None = None,
    control_tokens: ControlTokensRead | None = None,
    media: MediaConfig | None = None,
    dtype: str | None = None,
    with_head: bool = False,
    revision: str | None = None,
    access: HubAccess | None = None,
) -> OpenedModel:
    """Load a model for inference.

    Args:
        checkpoint: step of a run folder (None: the best evaluated one, else the last).
        profile: prompt recipe (None: that of the run or export, else `lco`).
        media: sizes and rates of images and videos (None: those of the run or export; if the
            profile `mteb` is asked for, those of mteb's wrapper).
        control_tokens: how control tokens in texts are read (None: as the run or export does).
        dtype: of the weights (None: as trained; for hub folders bfloat16 on accelerators and
            float32 on CPU).
        with_head: load the output head, for generation; a run that trained it has it anyway.
        revision: branch, tag or commit of a hub id.
        access: how the hub is asked.

    Raises:
        FileNotFoundError: no such model or checkpoint.
        ValueError: the weights do not fit a supported family, a folder is asked for by revision,
            or there is no such profile.
    """
    check_positive("max_text_tokens", max_text_tokens)
    if profile is not None:
        check_profile(profile)
    is_run = is_run_folder(path)
    if revision is not None and (is_run or Path(path).is_dir()):
        raise ValueError(f"revision={revision!r} is for hub ids, and {path} is a folder")
    if is_run:
        return open_run(
            path,
            checkpoint=checkpoint,
            profile=profile,
            max_text_tokens=max_text_tokens,
            control_tokens=control_tokens,
            media=media,
            dtype=dtype,
            with_head=with_head,
            access=access,
        )
    if checkpoint is not None:
        raise ValueError(f"checkpoint={checkpoint} was asked for, but {path} is not a run folder")
    folder = resolve_folder(path, revision, access)
    _refuse_folder_of_runs(folder)
    config = read_config(folder)
    dtype = dtype or ("float32" if jax.default_backend() == "cpu" else "bfloat16")
    towers = available_towers(config)
    graph, _, shapes = build(config, None, dtype, towers=towers, with_head=with_head)
    recipe = _stored_recipe(folder)
    if profile is None and not recipe and (folder / "modules.json").exists():
        _log.warning(
            "%s was made for sentence-transformers, with a recipe of its own, and is read with the "
            "profile lco; if there is a profile for it, such as qwen3-embedding, ask for it",
            folder,
        )
    processor = Processor(
        folder,
        config,
        media=media or (None if profile == "mteb" else _stored_media(recipe)),
        profile=profile or recipe.get("profile", "lco"),
        max_text_tokens=(
            recipe.get("max_text_tokens")
            if max_text_tokens is None and profile is None
            else max_text_tokens
        ),
        control_tokens=control_tokens or recipe.get("control_tokens", "characters"),
    )
    contents = contents_of(folder)
    params = load_params(folder, config, shapes)
    opened = (config, graph, params, None, None, processor, folder, path, dtype)
    return OpenedModel(*opened, step=None, contents=contents)


def _refuse_folder_of_runs(folder: Path) -> None:
    if (folder / "config.json").exists():
        return
    runs = [str(own) for own in sorted(folder.iterdir()) if is_run_folder(str(own))]
    if runs:
        raise FileNotFoundError(
            f"{folder} is no model but a folder of runs; open {' or '.join(runs)}"
        )


def _stored_recipe(folder: Path) -> dict:
    file = folder / PROFILE_FILE
    return json.loads(file.read_text()) if file.exists() else {}


def _stored_media(recipe: dict) -> MediaConfig | None:
    return from_json(recipe["media"]) if "media" in recipe else None
