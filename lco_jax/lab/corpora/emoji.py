"""Images of the lab: emoji and their names in five languages, from files in this repository."""

from collections.abc import Iterator

import tensorflow_datasets as tfds

from lco_jax.config import Columns
from lco_jax.data.sources.builder import ArrayRecordBuilder
from lco_jax.lab.corpora import committed, splits
from lco_jax.lab.corpora.emoji_source import ARCHIVE, LANGUAGES
from lco_jax.lab.corpora.square import SIDE_PX

_FOLDER = committed.DATA / "emoji"
_IMAGES = _FOLDER / ARCHIVE
_FILES = committed.split_files(_FOLDER, "emoji")


def held_out_names() -> set[str]:
    """English names of the emoji of `test`, in lower case.

    Raises:
        FileNotFoundError: the package was installed without the repository's data folder.
    """
    committed.require(_FILES.values())
    return {line["names"]["en"].lower() for line in committed.read_lines(_FILES["test"])}


class Emoji(ArrayRecordBuilder, skip_registration=True):
    """Emoji to train on (`train`) and held-out ones (`test`), without flags and skin tones; of
    `train` also `dev`, to measure choices on, and `fit`, to train on meanwhile.

    Records are `id`, `image` (PNG), `names` (by language), `keywords` (in English) and `name`, in
    the language of the config (none: English); all languages are one dataset on disk.

    Raises:
        ValueError: there are no names in that language.
        FileNotFoundError: the package was installed without the repository's data folder.
    """

    VERSION = tfds.core.Version("1.1.0")
    language = "en"
    is_shipped = True

    def __init__(self, *, config_name: str, data_dir: str):
        if config_name not in ("", *LANGUAGES):
            raise ValueError(f"emoji has no names in {config_name!r}; choose one of {LANGUAGES}")
        name = f"names/{config_name or LANGUAGES[0]}"
        self.columns = Columns("name", image="image", id="id", aliases=(("name", name),))
        content = committed.content_name((*_FILES.values(), _IMAGES))
        super().__init__(config_name=content, data_dir=data_dir)

    def _info(self) -> tfds.core.DatasetInfo:
        text = tfds.features.Text()
        features = {
            "id": text,
            "image": tfds.features.Image(shape=(SIDE_PX, SIDE_PX, 3), encoding_format="png"),
            "names": dict.fromkeys(LANGUAGES, text),
            "keywords": tfds.features.Sequence(text),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager: object) -> dict[str, Iterator]:
        found = {split: list(committed.read_lines(path)) for split, path in _FILES.items()}
        found |= splits.split_images(found["train"])
        return {split: self._generate_examples(records) for split, records in found.items()}

    def _generate_examples(self, records: list[dict]) -> Iterator[tuple[str, dict]]:
        for record, image in committed.describe(records, _IMAGES, ".png"):
            yield record["id"], {**record, "image": image}
