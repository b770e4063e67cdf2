"""Images of the lab: emoji and their names in five languages, from files in this repository."""

import hashlib
import json
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, TypedDict

import tensorflow_datasets as tfds

from lco_jax.lab.corpora.emoji_source import LANGUAGES
from lco_jax.lab.corpora.square import SIDE_PX

_FOLDER = Path(__file__).parents[3] / "data" / "emoji"
_PICTURES = _FOLDER / "pictures.zip"
_FILES = {split: _FOLDER / f"emoji_{split}.jsonl" for split in ("train", "test")}


def held_out_names() -> set[str]:
    """English names of the emoji of `test`, in lower case.

    Raises:
        FileNotFoundError: the package was installed without the repository's data folder.
    """
    _require_files()
    with _FILES["test"].open(encoding="utf-8") as lines:
        return {json.loads(line)["names"]["en"].lower() for line in lines}


class EmojiRecord(TypedDict):
    """A picture and what it is called."""

    id: str
    image: bytes
    """PNG."""
    name: str
    """In the language of the source."""
    names: dict[str, str]
    """By language: en, id, th, vi, ms."""
    keywords: list[str]
    """In English."""


class Emoji(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Emoji to train on (`train`) and held-out ones (`test`), without flags and skin tones.

    The config is the language of `name` (none: English); all languages are one dataset on disk.

    Raises:
        ValueError: there are no names in that language.
        FileNotFoundError: the package was installed without the repository's data folder.
    """

    VERSION = tfds.core.Version("1.0.0")
    # TFDS downloads nothing here, so there are no checksums for it to look up beside the code.
    url_infos: ClassVar[dict] = {}

    def __init__(self, *, config_name: str, data_dir: str):
        if config_name not in ("", *LANGUAGES):
            raise ValueError(f"emoji has no names in {config_name!r}; choose one of {LANGUAGES}")
        self.language = config_name or LANGUAGES[0]
        content = b"".join(path.read_bytes() for path in _require_files())
        # The folder is named after the content, so a changed file is never read from an old copy.
        config = tfds.core.BuilderConfig(name=hashlib.sha256(content).hexdigest()[:8])
        super().__init__(config=config, data_dir=data_dir, file_format="array_record")

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
        return {split: self._generate_examples(path) for split, path in _FILES.items()}

    def _generate_examples(self, path: Path) -> Iterator[tuple[str, dict]]:
        with zipfile.ZipFile(_PICTURES) as pictures, path.open(encoding="utf-8") as lines:
            for line in lines:
                record = json.loads(line)
                image = pictures.read(f"{record['id']}.png")
                yield record["id"], {**record, "image": image}


def _require_files() -> list[Path]:
    files = [*_FILES.values(), _PICTURES]
    missing = [str(path) for path in files if not path.exists()]
    if missing:
        raise FileNotFoundError(f"{missing} not found; run from a checkout of the repository")
    return files


def read_emoji(builder: Emoji, split: str) -> "EmojiSource":
    """The emoji of a split that `builder` has prepared."""
    # TFDS pickles a builder along with its source, and can rebuild only its own kinds.
    reader = tfds.builder_from_directory(builder.data_path)
    decoders = {"image": tfds.decode.SkipDecoding()}
    return EmojiSource(reader.as_data_source(split, decoders=decoders), builder.language)


class EmojiSource(Sequence[EmojiRecord]):
    """A split of the prepared emoji; pickles, so loader processes can share it."""

    def __init__(self, source: Sequence[dict], language: str):
        self._source, self._language = source, language

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> EmojiRecord:
        if not 0 <= index < len(self):
            raise IndexError(f"emoji {index} of {len(self)}")
        record = self._source[index]
        names = {language: name.decode() for language, name in record["names"].items()}
        return EmojiRecord(
            id=record["id"].decode(),
            image=record["image"],
            name=names[self._language],
            names=names,
            keywords=[word.decode() for word in record["keywords"]],
        )
