"""The quickstart's text: WordNet examples and definitions, from files in this repository."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from lco_jax.data.records import parse_triplet
from lco_jax.data.sources.jsonl import JsonlRecords
from lco_jax.data.sources.pairs import Pair, PairsBuilder

_FOLDER = Path(__file__).parents[3] / "data" / "quickstart"
_FILES = {split: _FOLDER / f"wordnet_{split}.jsonl" for split in ("train", "test")}


class Wordnet(PairsBuilder):
    """WordNet triplets (`train`) and held-out pairs (`test`).

    Raises:
        ValueError: a config was asked for; there is none to choose.
        FileNotFoundError: the package was installed without the repository's data folder.
    """

    def __init__(self, *, config_name: str, data_dir: str):
        if config_name:
            raise ValueError(f"wordnet has no config {config_name!r}; use the name 'wordnet'")
        missing = [str(path) for path in _FILES.values() if not path.exists()]
        if missing:
            raise FileNotFoundError(f"{missing} not found; run from a checkout of the repository")
        content = b"".join(path.read_bytes() for path in _FILES.values())
        # The folder is named after the content, so a changed file is never read from an old copy.
        super().__init__(config_name=hashlib.sha256(content).hexdigest()[:8], data_dir=data_dir)

    def _split_generators(self, dl_manager: object) -> dict[str, Iterator]:
        return {split: self._generate_examples(_read(path)) for split, path in _FILES.items()}


def _read(path: Path) -> Iterator[Pair]:
    for triplet in JsonlRecords(str(path), parse_triplet):
        yield Pair(
            id=triplet.id,
            anchor=triplet.anchor.text,
            positive=triplet.positive.text,
            negatives=[item.text for item in triplet.negatives],
        )
