"""Retrieval on held-out pairs while a model trains."""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import jax
import numpy as np
from etils import epath
from jaxtyping import Float

from lco_jax.config import Evaluation, Source, TableSource, TfdsSource, TrainConfig
from lco_jax.data.records import Item, MediaSource, Triplet
from lco_jax.data.sources.files import stem_of
from lco_jax.data.sources.open import read_pairs
from lco_jax.embed.encoder import Encoder, MakeReader
from lco_jax.metrics.anisotropy import mean_cosine
from lco_jax.metrics.retrieval import retrieval_metrics
from lco_jax.nn.norm import l2_normalize
from lco_jax.runtime.disks import replace_bytes, replace_text
from lco_jax.train.loop import Evaluate, Snapshot

FOLDER = "evaluations"
"""In a run folder: the pairs, and the vectors of each evaluation, for the report."""


@dataclass(frozen=True)
class Baselines:
    """Vectors of pairs, found in other ways than by the whole model."""

    names: tuple[str, ...]
    """Of those of pairs whose anchors have media."""
    find: Callable[
        [Sequence[Item], Sequence[Item], Snapshot],
        Mapping[str, tuple[Float[np.ndarray, "N E"], Float[np.ndarray, "N E"]]],
    ]
    """Of each name the vectors of anchors and positives; their products are scores."""
    of_texts: tuple[str, ...] = ()
    """The names of those of pairs of texts."""


@dataclass(frozen=True)
class HeldOut:
    """Held-out pairs and the folder of their vectors."""

    folder: epath.Path
    anchors: Sequence[Item]
    positives: Sequence[Item]


def retrieval_hook(
    config: TrainConfig,
    workdir: str,
    *,
    baselines: Baselines | None = None,
    make_reader: MakeReader | None = None,
) -> Evaluate | None:
    """What `config.evaluation` asks for: anchors against all positives, and the mean cosine of
    random positives (anisotropy); of other pairs both directions. None if it asks for nothing.

    Args:
        baselines: what to measure other pairs with as well, once; vectors are kept in `NAME.npz`.
        make_reader: as of `Encoder`.

    Raises:
        ValueError: the pairs cannot be read, or several processes cannot do what is asked for.
    """
    if config.evaluation is None:
        return None
    _check_processes(config, baselines)
    main, others = held_out(config.evaluation, workdir)

    def evaluate(snapshot: Snapshot) -> dict[str, float]:
        model = (snapshot.graph, snapshot.params, snapshot.processor, snapshot.mesh)
        encoder = Encoder(*model, memory=config.memory, make_reader=make_reader)
        queries, documents = _encode(encoder, main, snapshot.step)
        metrics = _both_ways(queries, documents)[0]
        metrics["mean_cosine"] = float(mean_cosine(documents))
        for name, pairs in others.items():
            shown, named = _encode(encoder, pairs, snapshot.step)
            for direction, found in zip(("", "_back"), _both_ways(shown, named), strict=True):
                metrics[f"{name}{direction}/mrr"] = found["mrr"]
            metrics[f"{name}/mean_cosine"] = float(mean_cosine(shown))
            if baselines is not None:
                keep_baselines(pairs, snapshot, baselines)
        return metrics

    return evaluate


def _check_processes(config: TrainConfig, baselines: Baselines | None) -> None:
    """Refuse before training what one process does alone."""
    count = jax.process_count()
    if count > 1 and config.evaluation.others and baselines is not None:
        raise ValueError(
            f"evaluation.others is measured against {', '.join(baselines.names)}, which one "
            f"process computes, and this run has {count}; leave evaluation.others out, or start on "
            "one host"
        )
    media = config.data.media
    for setting in ("audio_features", "image_features"):
        if count > 1 and getattr(media, setting) == "tokens":
            raise ValueError(
                f"data.media.{setting}=tokens is for one process, and this run has {count}; leave "
                f"evaluation out, set data.media.{setting} to all, or start on one host"
            )


def held_out(evaluation: Evaluation, workdir: str) -> tuple[HeldOut, dict[str, HeldOut]]:
    """What a run is evaluated on, with the folders of its vectors: the main pairs, and the others
    by name.

    Raises:
        ValueError: they cannot be read.
    """
    root = epath.Path(workdir) / FOLDER
    main = _read(root, evaluation.source, evaluation.num_pairs)
    others = {
        _name_of(source): _read(root / _name_of(source), source, evaluation.num_pairs)
        for source in evaluation.others
    }
    return main, others


def _name_of(source: Source) -> str:
    """What a source of pairs is called in a run folder."""
    match source:
        case TfdsSource():
            return source.name.replace("/", "-")
        case TableSource():
            return stem_of(source.paths[0])
        case _:
            return epath.Path(source.path).stem


def _read(folder: epath.Path, source: Source, num_pairs: int | None) -> HeldOut:
    pairs: list[Triplet] = read_pairs(source, num_pairs)
    return HeldOut(folder, [pair.anchor for pair in pairs], [pair.positive for pair in pairs])


def _encode(encoder: Encoder, pairs: HeldOut, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors of anchors and positives; they are kept for the report."""
    vectors = np.asarray(l2_normalize(encoder.encode([*pairs.anchors, *pairs.positives])))
    anchors, positives = np.split(vectors, [len(pairs.anchors)])
    if jax.process_index() == 0:
        _save(pairs, step, anchors, positives)
    return anchors, positives


def _both_ways(
    anchors: Float[np.ndarray, "N E"], positives: Float[np.ndarray, "N E"]
) -> tuple[dict[str, float], dict[str, float]]:
    numbers = np.arange(len(anchors))
    return (
        retrieval_metrics(anchors, positives, numbers),
        retrieval_metrics(positives, anchors, numbers),
    )


def missing_baselines(pairs: HeldOut, baselines: Baselines) -> list[str]:
    """The names of those whose vectors are not kept yet."""
    has_media = any(item.has_media for item in pairs.anchors)
    names = baselines.names if has_media else baselines.of_texts
    return [name for name in names if not (pairs.folder / f"{name}.npz").exists()]


def keep_baselines(pairs: HeldOut, snapshot: Snapshot, baselines: Baselines) -> None:
    """Keep the vectors of baselines, which do not change while the decoder is refined."""
    missing = missing_baselines(pairs, baselines)
    if missing:
        found = baselines.find(pairs.anchors, pairs.positives, snapshot)
        for name in missing:
            keep_vectors(pairs.folder / f"{name}.npz", *found[name])


def _save(pairs: HeldOut, step: int, anchors: np.ndarray, positives: np.ndarray) -> None:
    folder = pairs.folder
    folder.mkdir(parents=True, exist_ok=True)
    lines = (
        json.dumps(_line(folder, number, anchor, positive), ensure_ascii=False) + "\n"
        for number, (anchor, positive) in enumerate(
            zip(pairs.anchors, pairs.positives, strict=True)
        )
    )
    replace_text(folder / "pairs.jsonl", "".join(lines))
    keep_vectors(folder / f"{step:06d}.npz", anchors, positives)


def keep_vectors(
    file: epath.Path, anchors: Float[np.ndarray, "N E"], positives: Float[np.ndarray, "N E"]
) -> None:
    """Write the vectors of pairs as evaluations keep them."""
    content = io.BytesIO()
    np.savez(content, anchors=anchors, positives=positives)
    replace_bytes(file, content.getvalue())


def _line(folder: epath.Path, number: int, anchor: Item, positive: Item) -> dict[str, str]:
    """The texts of a pair, and the name of the copy of its medium."""
    line = {"anchor": anchor.text, "positive": positive.text}
    for kind, sources in (("image", anchor.images), ("audio", anchor.audios)):
        if sources:
            content, suffix = _content(sources[0], kind)
            line[kind] = f"{number:04d}{suffix}"
            replace_bytes(folder / line[kind], content)
    return line


def _content(source: MediaSource, kind: str) -> tuple[bytes, str]:
    if isinstance(source, bytes):
        return source, {"image": ".png", "audio": ".ogg"}[kind]  # of prepared datasets
    path = epath.Path(source)
    return path.read_bytes(), path.suffix
