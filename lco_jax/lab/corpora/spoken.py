"""Speech of the lab: spoken English prompts with transcripts, from files in this repository."""

import hashlib
import json
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, TypedDict

import numpy as np
import tensorflow_datasets as tfds

_FOLDER = Path(__file__).parents[3] / "data" / "spoken"
_CLIPS = _FOLDER / "clips.zip"
_FILES = {split: _FOLDER / f"spoken_{split}.jsonl" for split in ("train", "test")}


class SpokenRecord(TypedDict):
    """A clip and what is said in it."""

    id: str
    audio: bytes
    """Content of a sound file: Ogg Opus here, FLAC of `synthetic_speech`."""
    transcript: str


class Spoken(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Clips to train on (`train`) and held-out ones (`test`), whose transcripts are all different.

    Raises:
        ValueError: a config was asked for; there is none to choose.
        FileNotFoundError: the package was installed without the repository's data folder.
    """

    VERSION = tfds.core.Version("1.0.0")
    # TFDS downloads nothing here, so there are no checksums for it to look up beside the code.
    url_infos: ClassVar[dict] = {}

    def __init__(self, *, config_name: str, data_dir: str):
        if config_name:
            raise ValueError(f"spoken has no config {config_name!r}; use the name 'spoken'")
        files = [*_FILES.values(), _CLIPS]
        missing = [str(path) for path in files if not path.exists()]
        if missing:
            raise FileNotFoundError(f"{missing} not found; run from a checkout of the repository")
        content = b"".join(path.read_bytes() for path in files)
        # The folder is named after the content, so a changed file is never read from an old copy.
        config = tfds.core.BuilderConfig(name=hashlib.sha256(content).hexdigest()[:8])
        super().__init__(config=config, data_dir=data_dir, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(builder=self, features=spoken_features())

    def _split_generators(self, dl_manager: object) -> dict[str, Iterator]:
        return {split: self._generate_examples(path) for split, path in _FILES.items()}

    def _generate_examples(self, path: Path) -> Iterator[tuple[str, SpokenRecord]]:
        with zipfile.ZipFile(_CLIPS) as clips, path.open(encoding="utf-8") as lines:
            for line in lines:
                record = json.loads(line)
                yield record["id"], SpokenRecord(**record, audio=clips.read(f"{record['id']}.ogg"))


def spoken_features() -> tfds.features.FeaturesDict:
    """How TFDS stores clips with transcripts."""
    text = tfds.features.Text()
    # TFDS's own feature for sound needs TensorFlow; this one holds any bytes.
    audio = tfds.features.Scalar(np.str_)
    return tfds.features.FeaturesDict({"id": text, "audio": audio, "transcript": text})


def read_spoken(builder: tfds.core.DatasetBuilder, split: str) -> "SpokenSource":
    """The clips of a split that `builder` has prepared."""
    # TFDS pickles a builder along with its source, and can rebuild only its own kinds.
    reader = tfds.builder_from_directory(builder.data_path)
    return SpokenSource(reader.as_data_source(split))


class SpokenSource(Sequence[SpokenRecord]):
    """A split of the prepared clips; pickles, so loader processes can share it."""

    def __init__(self, source: Sequence[dict]):
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> SpokenRecord:
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        record = self._source[index]
        return SpokenRecord(
            id=record["id"].decode(),
            audio=record["audio"],
            transcript=record["transcript"].decode(),
        )
