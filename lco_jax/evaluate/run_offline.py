"""Runs offline tasks with our own metrics: no mteb, no torch; results in mteb's file format."""

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import logging
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lco_jax.embed.embedder import Embedder
from lco_jax.evaluate.tasks import ChoiceTask, RetrievalTask, StsTask, Task, needs
from lco_jax.metrics.retrieval import choice_metrics, retrieval_metrics
from lco_jax.metrics.sts import sts_metrics
from lco_jax.runtime.disks import replace_text

log = logging.getLogger(__name__)


def run_offline(embedder: Embedder, tasks: Iterable[Task], folder: Path) -> dict[str, float]:
    """Main scores by task. A task whose result in `folder` has the same model, recipe and items is
    not run again; one that needs a modality that the model does not take is left out."""
    scores = {}
    tasks = list(tasks)
    left_out = unread(embedder, tasks)
    for task in tasks:
        if task.name in left_out:
            continue
        file = folder / f"{task.name}.json"
        record = _stored(file, _fingerprint(embedder, task))
        if record is None:
            record = _run(embedder, task)
            if jax.process_index() == 0:
                folder.mkdir(parents=True, exist_ok=True)
                replace_text(file, json.dumps(record, indent=1) + "\n")
        scores[task.name] = record["scores"]["test"][0]["main_score"]
    return scores


def unread(embedder: Embedder, tasks: Iterable[Task]) -> dict[str, str]:
    """Of the tasks that need what the model does not read: which media that is."""
    missing = {task.name: needs(task) - set(embedder.modalities) for task in tasks}
    return {name: ", ".join(sorted(kinds)) for name, kinds in missing.items() if kinds}


def score(embedder: Embedder, task: Task) -> dict[str, float]:
    """The metrics of one task."""
    match task:
        case RetrievalTask():
            count = len(task.queries)
            vectors = embedder.encode(task.items)
            return retrieval_metrics(vectors[:count], vectors[count:], task.answers)
        case StsTask():
            # Names occur in many pairs and are encoded once.
            distinct = list(dict.fromkeys(task.items))
            place = {item: index for index, item in enumerate(distinct)}
            vectors = embedder.encode(distinct)
            first, second = (
                vectors[[place[item] for item in side]] for side in (task.first, task.second)
            )
            return sts_metrics(first, second, task.gold)
        case ChoiceTask():
            count = len(task.queries)
            queries, right, wrong = np.split(embedder.encode(task.items), [count, 2 * count])
            return choice_metrics(queries, right, wrong)


@functools.cache
def versions() -> dict[str, str]:
    """Of what the scores depend on."""
    names = ("jax", "flax", "numpy", "transformers", "tokenizers", "lco_jax")
    return {name: importlib.metadata.version(name) for name in names}


def _run(embedder: Embedder, task: Task) -> dict[str, Any]:
    start = time.monotonic()
    metrics = score(embedder, task)
    log.info("%s: %s %.4f", task.name, task.main_score, metrics[task.main_score])
    return {
        "task_name": task.name,
        "dataset_revision": _content(task),
        "scores": {
            "test": [
                {
                    **metrics,
                    "main_score": metrics[task.main_score],
                    "hf_subset": "default",
                    "languages": list(task.languages),
                }
            ]
        },
        "evaluation_time": time.monotonic() - start,
        "fingerprint": _fingerprint(embedder, task),
        "versions": versions(),
    }


def _stored(file: Path, fingerprint: str) -> dict[str, Any] | None:
    record = json.loads(file.read_text()) if file.exists() else {}
    return record if record.get("fingerprint") == fingerprint else None


def _fingerprint(embedder: Embedder, task: Task) -> str:
    identity = repr((embedder.revision, _content(task)))
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
