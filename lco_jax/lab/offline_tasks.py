"""Evaluation tasks on the real data of this repository; nothing is downloaded.

WordNet: an example sentence finds the definition of its word (held-out words). Emoji: names find
their translations, keywords find names, and names of emoji with common keywords are similar.
Pictures of emoji and their names find each other in five languages, spoken prompts and their
transcripts too, and clips of moving emoji their captions, for models that read such media.
"""

import itertools
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from lco_jax.data.records import Item
from lco_jax.evaluate.tasks import ENGLISH, LANGUAGES, RetrievalTask, StsTask, Task
from lco_jax.lab.corpora import committed
from lco_jax.lab.moving_emoji import moving_emoji_tasks


def offline_tasks(media_folder: str | Path, data: Path = committed.DATA) -> dict[str, Task]:
    """All offline tasks by name.

    Args:
        media_folder: where pictures, sounds and clips are unpacked to.

    Raises:
        FileNotFoundError: the data folder of the repository is absent.
    """
    folders = {"wordnet": "quickstart", "emoji": "emoji", "spoken": "spoken"}
    files = [committed.split_files(data / folder, name)["test"] for name, folder in folders.items()]
    committed.require(files)
    pairs, records, prompts = (list(committed.read_lines(file)) for file in files)
    media = Path(media_folder)
    archive = data / "emoji" / "pictures.zip"
    pictures = _unpack(archive, records, media / "emoji", ".png")
    sounds = _unpack(data / "spoken" / "clips.zip", prompts, media / "spoken", ".ogg")
    tasks = [
        _examples(pairs),
        *_emoji_tasks(records, pictures),
        *_spoken_tasks(prompts, sounds),
        *moving_emoji_tasks(records, archive, media / "moving"),
    ]
    return {task.name: task for task in tasks}


def _examples(lines: list[dict]) -> RetrievalTask:
    return RetrievalTask(
        name="WordNetExamples",
        description="An example sentence finds the definition of the word that it shows.",
        languages=(ENGLISH,),
        queries=tuple(Item(line["anchor"]["text"]) for line in lines),
        documents=tuple(Item(line["positive"]["text"]) for line in lines),
        licence="https://wordnet.princeton.edu/license-and-commercial-use",
    )


def _emoji_tasks(records: list[dict], pictures: Path) -> Iterable[Task]:
    licence = "https://www.unicode.org/license.txt"
    for code in list(LANGUAGES)[1:]:
        kept = _distinct(records, lambda record, code=code: record["names"][code])
        yield RetrievalTask(
            name=f"EmojiNames-{code}",
            description=f"The English name of an emoji finds its name in {code}.",
            languages=(ENGLISH, LANGUAGES[code]),
            queries=tuple(Item(record["names"]["en"]) for record in kept),
            documents=tuple(Item(record["names"][code]) for record in kept),
            licence=licence,
        )
    kept = _distinct(records, lambda record: ", ".join(record["keywords"]))
    yield RetrievalTask(
        name="EmojiKeywords",
        description="The English keywords of an emoji find its name.",
        languages=(ENGLISH,),
        queries=tuple(Item(", ".join(record["keywords"])) for record in kept),
        documents=tuple(Item(record["names"]["en"]) for record in kept),
        licence=licence,
    )
    yield _similar_names(records, licence)
    for code, language in LANGUAGES.items():
        kept = _distinct(records, lambda record, code=code: record["names"][code])
        images = tuple(Item(images=(str(pictures / f"{r['id']}.png"),)) for r in kept)
        names = tuple(Item(record["names"][code]) for record in kept)
        for kind, queries, documents, what in (
            ("I2T", images, names, "The picture of an emoji finds its name"),
            ("T2I", names, images, "The name of an emoji finds its picture"),
        ):
            yield RetrievalTask(
                name=f"EmojiPictures{kind}-{code}",
                description=f"{what} in {code}.",
                languages=(language,),
                queries=queries,
                documents=documents,
                licence=licence,
            )


def _spoken_tasks(records: list[dict], sounds: Path) -> Iterable[Task]:
    heard = tuple(Item(audios=(str(sounds / f"{record['id']}.ogg"),)) for record in records)
    transcripts = tuple(Item(record["transcript"]) for record in records)
    for kind, queries, documents, what in (
        ("A2T", heard, transcripts, "A spoken prompt finds its transcript."),
        ("T2A", transcripts, heard, "The transcript of a prompt finds its sound."),
    ):
        yield RetrievalTask(
            name=f"SpokenPrompts{kind}",
            description=what,
            languages=(ENGLISH,),
            queries=queries,
            documents=documents,
            licence="https://creativecommons.org/licenses/by-sa/3.0/",
        )


def _similar_names(records: list[dict], licence: str) -> StsTask:
    """Pairs of names by the share of common keywords; as many unrelated pairs as related ones."""
    keywords = [{word.casefold() for word in record["keywords"]} for record in records]
    related, unrelated = [], []
    for i, j in itertools.combinations(range(len(records)), 2):
        common = len(keywords[i] & keywords[j])
        (related if common else unrelated).append((i, j, common / len(keywords[i] | keywords[j])))
    picks = np.random.default_rng(0).permutation(len(unrelated))[: len(related)]
    pairs = related + [unrelated[index] for index in picks]
    return StsTask(
        name="EmojiSimilarity",
        description="Names of two emoji; the score is the share of their keywords in common.",
        languages=(ENGLISH,),
        first=tuple(Item(records[i]["names"]["en"]) for i, _, _ in pairs),
        second=tuple(Item(records[j]["names"]["en"]) for _, j, _ in pairs),
        gold=np.array([score for _, _, score in pairs]),
        licence=licence,
    )


def _distinct(records: list[dict], key) -> list[dict]:
    """The records whose key and English name nobody shares: each query has one right answer."""
    keys = [(key(record).casefold(), record["names"]["en"].casefold()) for record in records]
    counts = [
        {value: column.count(value) for value in column} for column in zip(*keys, strict=True)
    ]
    return [
        record
        for record, own in zip(records, keys, strict=True)
        if all(count[value] == 1 for count, value in zip(counts, own, strict=True))
    ]


def _unpack(archive: Path, records: list[dict], folder: Path, suffix: str) -> Path:
    with zipfile.ZipFile(archive) as files:
        folder.mkdir(parents=True, exist_ok=True)
        for record in records:
            if not (folder / f"{record['id']}{suffix}").exists():
                files.extract(f"{record['id']}{suffix}", folder)
    return folder
