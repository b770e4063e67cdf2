"""The quickstart's text: WordNet examples and definitions, from files in this repository."""

from collections.abc import Iterator
from pathlib import Path

from lco_jax.data.records import parse_triplet
from lco_jax.data.sources.builder import refuse_config
from lco_jax.data.sources.jsonl import JsonlRecords
from lco_jax.data.sources.pairs import Pair, PairsBuilder
from lco_jax.lab.corpora import committed

_FILES = committed.split_files(committed.DATA / "quickstart", "wordnet")


class Wordnet(PairsBuilder):
    """WordNet triplets (`train`) and held-out pairs (`test`).

    Raises:
        ValueError: a config was asked for; there is none to choose.
        FileNotFoundError: the package was installed without the repository's data folder.
    """

    language = "en"
    is_shipped = True

    def __init__(self, *, config_name: str, data_dir: str):
        refuse_config(self.name, config_name)
        super().__init__(config_name=committed.content_name(_FILES.values()), data_dir=data_dir)

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
