"""The held-out data of the lab as files and items that anybody may open: something to search in."""

import itertools
import json
import os
from collections.abc import Collection, Iterator
from pathlib import Path

from lco_jax.lab.corpora import committed, emoji_source, spoken_source
from lco_jax.runtime.disks import replace_bytes, replace_text

ITEMS_FILE = "items.jsonl"
KINDS = ("image", "audio", "text")
_MOST_OF_A_KIND = 60
"""So that a search takes seconds."""


def write_held_out(folder: Path, kinds: Collection[str] = KINDS) -> Path:
    """Write images with their names, recordings with their transcripts (both as labels, which no
    model reads) and glosses of words, none of which the quickstart trains on; the JSON Lines file
    of all of them. Files that are there already stay as they are.

    Args:
        kinds: what to write of `image`, `audio` and `text`.

    Raises:
        FileNotFoundError: the package was installed without the repository's data folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    items: list[dict[str, str]] = []
    if "image" in kinds:
        items += _media(folder, "emoji")
    if "audio" in kinds:
        items += _media(folder, "spoken")
    if "text" in kinds:
        items += _texts()
    file = folder / ITEMS_FILE
    lines = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items)
    replace_text(file, lines)
    return file


def _media(folder: Path, name: str) -> Iterator[dict[str, str]]:
    data = committed.DATA / name
    kind, archive, suffix = {
        "emoji": ("image", emoji_source.ARCHIVE, ".png"),
        "spoken": ("audio", spoken_source.ARCHIVE, ".ogg"),
    }[name]
    lines = committed.split_files(data, name)["test"]
    committed.require((lines, data / archive))
    (folder / kind).mkdir(parents=True, exist_ok=True)
    described = committed.read_described(lines, data / archive, suffix)
    for record, content in itertools.islice(described, _MOST_OF_A_KIND):
        label = record["names"]["en"] if kind == "image" else record["transcript"]
        path = Path(kind, record["id"].replace("/", "_") + suffix)
        if not (folder / path).exists():
            replace_bytes(folder / path, content)
        yield {f"{kind}_path": os.fspath(path), "id": label}


def _texts() -> Iterator[dict[str, str]]:
    file = committed.DATA / "quickstart" / "wordnet_test.jsonl"
    committed.require((file,))
    for record in itertools.islice(committed.read_lines(file), _MOST_OF_A_KIND):
        yield {"text": record["positive"]["text"]}
