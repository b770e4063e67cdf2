"""Runs offline tasks with our own metrics: no mteb, no torch; results in mteb's file format."""

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np
from jaxtyping import Float

from lco_jax.embed.embedder import Embedder
from lco_jax.evaluate.tasks import ChoiceTask, RetrievalTask, StsTask, Task, chance, needs
from lco_jax.metrics.comparison import bootstrap_interval
from lco_jax.metrics.retrieval import choice_metrics, query_scores, relevant_ranks
from lco_jax.metrics.sts import sts_metrics
from lco_jax.runtime.disks import replace_text

log = logging.getLogger(__name__)


class Reader(Protocol):
    """Who offline tasks are for: an `Embedder`, or a model that other code runs."""

    revision: str
    """What its vectors depend on."""
    modalities: tuple[str, ...]


def score(embedder: Embedder, task: Task) -> dict[str, float]:
    """The metrics of one task."""
    if isinstance(task, StsTask):
        # Names occur in many pairs and are encoded once.
        distinct = list(dict.fromkeys(task.items))
        place = {item: index for index, item in enumerate(distinct)}
        vectors = embedder.encode(distinct)[[place[item] for item in task.items]]
    else:
        vectors = embedder.encode(task.items)
    return task_metrics(task, vectors)


def task_metrics(task: Task, vectors: Float[np.ndarray, "N E"]) -> dict[str, float]:
    """The metrics of one task, from the unit vectors of its items in order; of a retrieval also the
    95 % bootstrap interval of its main score, over queries."""
    match task:
        case RetrievalTask():
            count = len(task.queries)
            ranks = relevant_ranks(vectors[:count], vectors[count:], task.answers)
            scores = query_scores(ranks)
            low, high = bootstrap_interval(scores[task.main_score])
            means = {name: float(values.mean()) for name, values in scores.items()}
            return {**means, "main_score_low": float(low), "main_score_high": float(high)}
        case StsTask():
            first, second = np.split(vectors, [len(task.first)])
            return sts_metrics(first, second, task.gold)
        case ChoiceTask():
            count = len(task.queries)
            return choice_metrics(*np.split(vectors, [count, 2 * count]))


def run_offline(
    reader: Reader,
    tasks: Iterable[Task],
    folder: Path,
    *,
    score: Callable[[Any, Task], dict[str, float]] = score,
    versions: Mapping[str, str] | None = None,
) -> dict[str, float]:
    """Main scores by task. A task whose result in `folder` has the same model, recipe and items is
    not run again; one that needs a modality that the model does not take is left out.

    Args:
        score: how the reader's metrics of a task are found.
        versions: of what they depend on (None: those of our own code).
    """
    scores = {}
    tasks = list(tasks)
    left_out = unread(reader, tasks)
    for task in tasks:
        if task.name in left_out:
            continue
        file = folder / f"{task.name}.json"
        record = _stored(file, _fingerprint(reader, task))
        if record is None:
            start = time.monotonic()
            metrics = score(reader, task)
            log.info("%s: %s %.4f", task.name, task.main_score, metrics[task.main_score])
            record = _record(reader, task, metrics) | {
                "evaluation_time": time.monotonic() - start,
                "versions": dict(own_versions() if versions is None else versions),
            }
            if jax.process_index() == 0:
                folder.mkdir(parents=True, exist_ok=True)
                replace_text(file, json.dumps(record, indent=1) + "\n")
        scores[task.name] = record["scores"]["test"][0]["main_score"]
    return scores


def unread(reader: Reader, tasks: Iterable[Task]) -> dict[str, str]:
    """Of the tasks that need what the model does not read: which media that is."""
    missing = {task.name: needs(task) - set(reader.modalities) for task in tasks}
    return {name: ", ".join(sorted(kinds)) for name, kinds in missing.items() if kinds}


@functools.cache
def own_versions() -> dict[str, str]:
    """Of what the scores depend on."""
    names = ("jax", "flax", "numpy", "transformers", "tokenizers", "lco_jax")
    return {name: importlib.metadata.version(name) for name in names}


def _record(reader: Reader, task: Task, metrics: dict[str, float]) -> dict[str, Any]:
    return {
        "task_name": task.name,
        "dataset_revision": _content(task),
        "scores": {
            "test": [
                {
                    **metrics,
                    "main_score": metrics[task.main_score],
                    "chance": chance(task),
                    "hf_subset": "default",
                    "languages": list(task.languages),
                }
            ]
        },
        "fingerprint": _fingerprint(reader, task),
    }


def _stored(file: Path, fingerprint: str) -> dict[str, Any] | None:
    record = json.loads(file.read_text()) if file.exists() else {}
    return record if record.get("fingerprint") == fingerprint else None


def _fingerprint(reader: Reader, task: Task) -> str:
    identity = repr((reader.revision, _content(task)))
    return hashlib.blake2b(identity.encode(), digest_size=16).hexdigest()


def _content(task: Task) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for item in task.items:
        # By the names of media, not the folder that they were unpacked to.
        media = (*item.images, *item.audios, *item.videos)
        digest.update(repr((item.text, [Path(path).name for path in media])).encode())
    if isinstance(task, StsTask):
        digest.update(task.gold.tobytes())
    elif isinstance(task, RetrievalTask) and task.relevant is not None:
        digest.update(repr(task.relevant).encode())
    digest.update(repr(sorted(field.name for field in dataclasses.fields(task))).encode())
    return digest.hexdigest()
