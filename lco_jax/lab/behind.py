"""What is measured behind a refinement: baselines that its evaluations lack, and what a decoder
that was cut is to be compared with, all its layers, untouched.
"""

import logging
from pathlib import Path

import jax
import numpy as np

from lco_jax.config import TrainConfig
from lco_jax.embed.embedder import Embedder
from lco_jax.embed.open import open_model
from lco_jax.evaluate.hook import held_out, keep_baselines, keep_vectors, missing_baselines
from lco_jax.lab.conditions import WHOLE
from lco_jax.lab.lexical import baselines_of
from lco_jax.runtime import mesh as meshes
from lco_jax.train.loop import Snapshot

log = logging.getLogger(__name__)


def keep_lacking_baselines(config: TrainConfig, workdir: Path, model: Path) -> None:
    """Keep the vectors of those baselines that the evaluations of a run have not kept.

    Args:
        config: of the run.
        workdir: its folder.
        model: the hub folder of the model that it started from, which has the same towers.
    """
    if config.evaluation is None:
        return
    baselines = baselines_of(config.data.media)
    main, others = held_out(config.evaluation, str(workdir))
    measured = [main, *others.values()]
    lacking = [missing_baselines(pairs, baselines) for pairs in measured]
    if not any(lacking):
        return
    mesh = meshes.make_mesh(config.mesh)
    with jax.set_mesh(mesh):
        opened = open_model(str(model), media=config.data.media, dtype=config.model.dtype)
    parts = (opened.config, opened.graph, opened.params, opened.processor, mesh)
    for pairs, missing in zip(measured, lacking, strict=True):
        if missing:
            log.info("measuring %s in %s", ", ".join(missing), pairs.folder)
            keep_baselines(pairs, Snapshot(0, *parts), baselines)


def keep_whole_decoder(config: TrainConfig, workdir: Path, model: Path) -> None:
    """Embed the held-out pairs of a run with the model that it started from, all layers of its
    decoder and none of them trained, and keep the vectors beside those of the run's evaluations.
    What is there stays; a run that trained on all layers needs none.

    Args:
        config: of the run.
        workdir: its folder.
        model: the hub folder of the model.
    """
    if config.evaluation is None or config.model.num_layers is None:
        return
    main, others = held_out(config.evaluation, str(workdir))
    files = {pairs.folder / f"{WHOLE}.npz": pairs for pairs in (main, *others.values())}
    missing = [file for file in files if not file.exists()]
    if not missing:
        return
    log.info("embedding held-out pairs with all layers of the untouched decoder")
    embedder = Embedder(model, media=config.data.media, dtype=config.model.dtype)
    for file in missing:
        pairs = files[file]
        vectors = np.asarray(embedder.encode([*pairs.anchors, *pairs.positives]))
        keep_vectors(file, *np.split(vectors, 2))
