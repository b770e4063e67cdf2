"""Offline tasks and their items, as mteb hands tasks to the models of its registry."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import soundfile

from lco_jax.data.records import Item
from lco_jax.evaluate.tasks import StsTask, Task, needs

if TYPE_CHECKING:
    from mteb.abstasks.task_metadata import TaskMetadata

GIVEN = {"text", "image", "audio"}
"""What models are handed; of videos, mteb's code wants decoders of its own."""


def task_metadata(task: Task) -> "TaskMetadata":
    """What mteb is told of an offline task."""
    from mteb.abstasks import AbsTaskRetrieval, AbsTaskSTS
    from mteb.abstasks.task_metadata import TaskMetadata

    if isinstance(task, StsTask):
        kind, category, prompt = "STS", "t2t", AbsTaskSTS.abstask_prompt
    else:
        count = len(task.queries)
        sides = (task.items[:count], task.items[count:])
        category = "2".join(_letters(side) for side in sides)
        kind = "Retrieval" if category == "t2t" else "Any2AnyRetrieval"
        prompt = AbsTaskRetrieval.abstask_prompt
    return TaskMetadata(
        name=task.name,
        description=task.description,
        dataset={"path": "lco_jax", "revision": "local"},
        type=kind,
        category=category,
        modalities=sorted(needs(task)),
        eval_splits=["test"],
        eval_langs=list(task.languages),
        main_score=task.main_score,
        prompt=prompt,
    )


def data_loader(items: Sequence[Item], batch_size: int) -> Any:
    """Items that hold the same kinds of media, as mteb hands them to models: a torch DataLoader.

    Raises:
        ValueError: an item has several media of a kind, or a video.
    """
    from datasets import Dataset, Image
    from torch.utils.data import DataLoader

    kinds = kinds_of(items[0])
    if "video" in kinds or any(len(media) > 1 for i in items for media in i.media.values()):
        raise ValueError("models of mteb are handed a text, an image and an audio of each item")
    columns: dict[str, list] = {}
    if "text" in kinds:
        columns["text"] = [item.text for item in items]
    if "image" in kinds:
        columns["image"] = [str(item.images[0]) for item in items]
    if "audio" in kinds:
        read = (soundfile.read(item.audios[0], dtype="float32", always_2d=True) for item in items)
        columns["audio"] = [
            {"array": samples.mean(axis=1), "sampling_rate": rate_hz} for samples, rate_hz in read
        ]
    dataset = Dataset.from_dict(columns)
    if "image" in kinds:  # files, which are opened when they are read
        dataset = dataset.cast_column("image", Image(mode="RGB"))
    return DataLoader(dataset, batch_size=batch_size, collate_fn=_collate)


def _collate(rows: Sequence[dict[str, Any]]) -> dict[str, list]:
    return {key: [row[key] for row in rows] for key in rows[0]}


def kinds_of(item: Item) -> tuple[str, ...]:
    """The modalities of an item; an empty one is a text."""
    media = tuple(kind for kind, sources in item.media.items() if sources)
    return ("text", *media) if item.text.strip() or not media else media


def _letters(items: Sequence[Item]) -> str:
    """The modalities of one side in mteb's category of a task, as `it` in `it2i`."""
    kinds = {kind for item in items for kind in kinds_of(item)}
    return "".join(kind[0] for kind in ("image", "video", "audio", "text") if kind in kinds)
