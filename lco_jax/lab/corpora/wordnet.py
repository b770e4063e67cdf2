"""The quickstart's text: WordNet examples and definitions, from files in this repository."""

from collections.abc import Iterator

import tensorflow_datasets as tfds

from lco_jax.data.sources.builder import refuse_config
from lco_jax.data.sources.pairs import Pair, PairsBuilder
from lco_jax.lab.corpora import committed, splits

_FILES = committed.split_files(committed.DATA / "quickstart", "wordnet")


class Wordnet(PairsBuilder):
    """WordNet triplets (`train`) and held-out pairs (`test`); of `train` also pairs to measure
    choices on (`dev`), and triplets to train on meanwhile (`fit`).

    Raises:
        ValueError: a config was asked for; there is none to choose.
        FileNotFoundError: the package was installed without the repository's data folder.
    """

    VERSION = tfds.core.Version("1.1.0")
    language = "en"
    is_shipped = True

    def __init__(self, *, config_name: str, data_dir: str):
        refuse_config(self.name, config_name)
        super().__init__(config_name=committed.content_name(_FILES.values()), data_dir=data_dir)

    def _split_generators(self, dl_manager: object) -> dict[str, Iterator]:
        found = {split: list(committed.read_lines(path)) for split, path in _FILES.items()}
        found |= splits.split_texts(found["train"])
        return {
            split: self._generate_examples(map(_pair, records)) for split, records in found.items()
        }


def _pair(record: dict) -> Pair:
    negative = [record["negative"]["text"]] if "negative" in record else []
    return Pair(
        id=record["id"],
        anchor=record["anchor"]["text"],
        positive=record["positive"]["text"],
        negatives=negative,
    )
