"""What is measured behind a refinement: baselines that its evaluations lack, and what a decoder
that was cut is to be compared with, all its layers, untouched.
"""

import logging
from pathlib import Path

import jax
import numpy as np
from etils import epath

from lco_jax.config import TrainConfig
from lco_jax.data.records import Item
from lco_jax.data.sources.open import read_pairs
from lco_jax.embed.embedder import Embedder
from lco_jax.embed.open import open_model
from lco_jax.evaluate.hook import FOLDER, keep_vectors, name_of
from lco_jax.lab.conditions import WHOLE
from lco_jax.lab.lexical import baselines_of
from lco_jax.lab.media_texts import make_reader
from lco_jax.runtime.mesh import make_mesh
from lco_jax.train.loop import Snapshot

log = logging.getLogger(__name__)

_Pairs = tuple[list[Item], list[Item]]


def keep_baselines(config: TrainConfig, workdir: Path, model: Path) -> None:
    """Keep the vectors of those baselines that the evaluations of a run have not kept.

    Args:
        config: of the run.
        workdir: its folder.
        model: the hub folder of the model that it started from, which has the same towers.
    """
    baselines = baselines_of(config.data.media)
    found = _held_out(config, workdir)
    for folder, (shown, named) in list(found.items())[1:]:  # the first are texts alone
        missing = [name for name in baselines.names if not (folder / f"{name}.npz").exists()]
        if not missing:
            continue
        log.info("measuring %s on %s", ", ".join(missing), folder.name)
        mesh = make_mesh(config.mesh)
        with jax.set_mesh(mesh):
            opened = open_model(str(model), media=config.data.media, dtype=config.model.dtype)
        parts = (opened.config, opened.graph, opened.params, opened.processor, mesh)
        vectors = baselines.find(shown, named, Snapshot(0, *parts))
        for name in missing:
            keep_vectors(folder / f"{name}.npz", *vectors[name])


def keep_whole_decoder(config: TrainConfig, workdir: Path, model: Path) -> None:
    """Embed the held-out pairs of a run with the model that it started from, all layers of its
    decoder and none of them trained, and keep the vectors beside those of the run's evaluations.
    What is there stays; a run that trained on all layers needs none.

    Args:
        config: of the run.
        workdir: its folder.
        model: the hub folder of the model.
    """
    if config.model.num_layers is None:
        return
    found = _held_out(config, workdir)
    missing = [folder for folder in found if not (folder / f"{WHOLE}.npz").exists()]
    if not missing:
        return
    log.info("embedding held-out pairs with all layers of the untouched decoder")
    embedder = Embedder(
        model, media=config.data.media, dtype=config.model.dtype, make_reader=make_reader
    )
    for folder in missing:
        anchors, positives = found[folder]
        vectors = np.asarray(embedder.encode([*anchors, *positives]))
        keep_vectors(folder / f"{WHOLE}.npz", *np.split(vectors, 2))


def _held_out(config: TrainConfig, workdir: Path) -> dict[epath.Path, _Pairs]:
    """What a run is evaluated on, by the folder of its vectors; the texts come first."""
    if config.evaluation is None:
        return {}
    root = epath.Path(workdir) / FOLDER
    sources = {root: config.evaluation.source}
    sources |= {root / name_of(source): source for source in config.evaluation.others}
    found = {}
    for folder, source in sources.items():
        pairs = read_pairs(source, config.evaluation.num_pairs)
        found[folder] = [pair.anchor for pair in pairs], [pair.positive for pair in pairs]
    return found
