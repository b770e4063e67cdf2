"""The model of a run folder: base weights and those of a checkpoint, merged."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import jax
from etils import epath
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict

from lco_jax.config import RUN_FOLDER, ControlTokensRead, Lora, MediaConfig, ModelRef
from lco_jax.config.io import to_json
from lco_jax.data.encode.processor import Processor
from lco_jax.models.build import Params, build, join, lora_of
from lco_jax.models.config import ModelConfig, read_config
from lco_jax.models.describe import describe_model
from lco_jax.models.omni import available_towers
from lco_jax.objectives.traits import traits_of
from lco_jax.train.manifest import BASE_FOLDER, base_folder, read_manifest
from lco_jax.weights.access import HubAccess
from lco_jax.weights.adapter import merge_lora
from lco_jax.weights.hub import load_params
from lco_jax.weights.identity import Contents, contents_of, folder_files

PROFILE_FILE = "lco_jax.json"
"""In an export: the prompt recipe that its vectors are made with."""


@dataclass(frozen=True)
class OpenedModel:
    """Merged weights of a model on the mesh that is set, and how it reads items."""

    config: ModelConfig
    graph: nnx.GraphDef
    params: Params
    """Without low-rank factors: they are merged."""
    lora_params: Params | None
    """The factors of a run, for export as an adapter."""
    lora: Lora | None
    processor: Processor
    base_folder: Path
    base_name: str
    dtype: str
    step: int | None
    """Of the run's checkpoint."""
    contents: Contents
    """All files that it was read from."""


def open_run(
    path: str,
    *,
    checkpoint: int | None = None,
    profile: str | None = None,
    max_text_tokens: int | None = None,
    control_tokens: ControlTokensRead | None = None,
    media: MediaConfig | None = None,
    dtype: str | None = None,
    with_head: bool = False,
    access: HubAccess | None = None,
) -> OpenedModel:
    """Load the model of a run; arguments and errors are those of `open_model`."""
    run = read_manifest(path).config
    ref = run.model
    folder = base_folder(ref, path, access)
    dtype = dtype or ref.dtype
    needs_head = traits_of(run.objective).needs_head
    # What trained decides what the checkpoint holds; a run may have left towers out.
    trained_as = dataclasses.replace(ref, dtype=dtype)
    model = describe_model(trained_as, read_config(folder), with_head=needs_head)
    config = model.config
    metric = run.evaluation.metric if run.evaluation else None
    # Orbax takes a part of a second of every start, and hub folders have no use for it.
    from lco_jax.train.checkpoint import Checkpoints

    checkpoints = Checkpoints(path, run.checkpoint, metric, writes=False)
    try:
        step = checkpoints.best() if checkpoint is None else checkpoint
        if step is None or step not in checkpoints.steps():
            raise FileNotFoundError(
                f"run folder {path} has no checkpoint {'' if step is None else step}; it has "
                f"{checkpoints.steps() or 'none yet'}"
            )
        contents = _contents_of(ref, folder, checkpoints.state_folder(step))
        trainable = checkpoints.restore_trained(model.trainable, step)
    finally:
        checkpoints.close()
    lora = lora_of(ref.trainable)
    is_ours = ref.path.startswith(RUN_FOLDER) or folder.name == BASE_FOLDER
    graph, _, plain = build(
        config,
        None,
        dtype,
        towers=available_towers(config),
        with_head=with_head or needs_head,
    )
    trained = flatten_dict(trainable, sep="/")
    rest = {path: x for path, x in flatten_dict(plain, sep="/").items() if path not in trained}
    wanted = unflatten_dict(rest, sep="/")
    params = join(load_params(folder, config, wanted, elsewhere=trained), trainable)
    if lora:
        params = merge_lora(params, lora.alpha / lora.rank)
    params = jax.tree.map(lambda x, shape: x.astype(shape.dtype), params, plain)
    return OpenedModel(
        config=config,
        graph=graph,
        params=params,
        lora_params=trainable if isinstance(ref.trainable, Lora) else None,
        lora=ref.trainable if isinstance(ref.trainable, Lora) else None,
        processor=Processor(
            folder,
            config,
            media=media or (None if profile == "mteb" else run.data.media),
            profile=profile or run.data.profile,
            max_text_tokens=(
                run.data.max_text_tokens
                if max_text_tokens is None and profile is None
                else max_text_tokens
            ),
            control_tokens=control_tokens or run.data.control_tokens,
        ),
        base_folder=folder,
        base_name=str(folder) if is_ours else ref.path,
        dtype=dtype,
        step=step,
        contents=contents,
    )


def _contents_of(ref: ModelRef, base: Path, checkpoint: epath.Path) -> Contents:
    """The files of a run's model; they are merged as its settings say."""
    settings = dataclasses.replace(ref, path="", revision=None)
    files = folder_files(checkpoint, "checkpoint")
    return contents_of(base, files, json.dumps(to_json(settings), sort_keys=True))
