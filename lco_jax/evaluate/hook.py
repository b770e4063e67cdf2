"""Retrieval on held-out pairs while a model trains."""

import json

import jax
import numpy as np
from etils import epath

from lco_jax.analysis.anisotropy import mean_cosine
from lco_jax.config import TrainConfig
from lco_jax.data.records import Item
from lco_jax.data.sources import read_pairs
from lco_jax.evaluate.encoder import Encoder
from lco_jax.evaluate.retrieval import retrieval_metrics
from lco_jax.nn.norm import l2_normalize
from lco_jax.train.loop import Evaluate, Snapshot

FOLDER = "evaluations"
"""In a run folder: the pairs, and the vectors of each evaluation, for the report."""


def retrieval_hook(config: TrainConfig, workdir: str) -> Evaluate | None:
    """What `config.evaluation` asks for: anchors against all positives, and the mean cosine of
    random positives (anisotropy). None if it asks for nothing.

    Raises:
        ValueError: the pairs cannot be read.
    """
    if config.evaluation is None:
        return None
    pairs = read_pairs(config.evaluation.source, config.evaluation.num_pairs)
    anchors = [pair.anchor for pair in pairs]
    positives = [pair.positive for pair in pairs]
    folder = epath.Path(workdir) / FOLDER

    def evaluate(snapshot: Snapshot) -> dict[str, float]:
        encoder = Encoder(
            snapshot.graph,
            snapshot.params,
            snapshot.processor,
            snapshot.mesh,
            memory=config.memory,
        )
        vectors = np.asarray(l2_normalize(encoder.encode([*anchors, *positives])))
        queries, documents = np.split(vectors, [len(anchors)])
        if jax.process_index() == 0:
            _save(folder, anchors, positives, snapshot.step, queries, documents)
        metrics = retrieval_metrics(queries, documents, np.arange(len(pairs)))
        return {**metrics, "mean_cosine": float(mean_cosine(documents))}

    return evaluate


def _save(
    folder: epath.Path,
    anchors: list[Item],
    positives: list[Item],
    step: int,
    queries: np.ndarray,
    documents: np.ndarray,
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = (
        json.dumps({"anchor": anchor.text, "positive": positive.text}, ensure_ascii=False) + "\n"
        for anchor, positive in zip(anchors, positives, strict=True)
    )
    (folder / "pairs.jsonl").write_text("".join(lines))
    with (folder / f"{step:06d}.npz").open("wb") as file:
        np.savez(file, anchors=queries, positives=documents)
