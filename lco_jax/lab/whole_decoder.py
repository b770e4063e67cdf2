"""What a refined decoder that was cut is to be compared with: all layers, untouched."""

import logging
from pathlib import Path

import numpy as np
from etils import epath

from lco_jax.config import Source, TrainConfig
from lco_jax.data.sources.open import read_pairs
from lco_jax.embed.embedder import Embedder
from lco_jax.evaluate.hook import FOLDER, keep_vectors, name_of
from lco_jax.lab.media_texts import make_reader

WHOLE = "whole"
"""Name of its vectors in the folders of evaluations."""

log = logging.getLogger(__name__)


def keep_whole_decoder(config: TrainConfig, workdir: str, model: Path) -> None:
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
    main, others = config.evaluation.source, config.evaluation.others
    root = epath.Path(workdir) / FOLDER
    places = [(root, main), *((root / name_of(source), source) for source in others)]
    missing = [place for place in places if not (place[0] / f"{WHOLE}.npz").exists()]
    if not missing:
        return
    log.info("embedding held-out pairs with all layers of the untouched decoder")
    embedder = Embedder(
        model, media=config.data.media, dtype=config.model.dtype, make_reader=make_reader
    )
    for folder, source in missing:
        anchors, positives = _embed(embedder, source, config.evaluation.num_pairs)
        keep_vectors(folder / f"{WHOLE}.npz", anchors, positives)


def _embed(
    embedder: Embedder, source: Source, num_pairs: int | None
) -> tuple[np.ndarray, np.ndarray]:
    pairs = read_pairs(source, num_pairs)
    items = [pair.anchor for pair in pairs] + [pair.positive for pair in pairs]
    return np.split(np.asarray(embedder.encode(items)), 2)
