"""Speech of the lab: spoken English prompts with transcripts, from files in this repository."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from lco_jax.config import Columns
from lco_jax.data.sources.builder import ArrayRecordBuilder, refuse_config
from lco_jax.lab.corpora import committed
from lco_jax.lab.corpora.spoken_source import ARCHIVE

_FOLDER = committed.DATA / "spoken"
_RECORDINGS = _FOLDER / ARCHIVE
_FILES = committed.split_files(_FOLDER, "spoken")

COLUMNS = Columns("transcript", audio="audio", id="id")


class Spoken(ArrayRecordBuilder, skip_registration=True):
    """Recordings to train on (`train`) and held-out ones (`test`), with different transcripts each.

    Records are `id`, `audio` (Ogg Opus) and `transcript`.

    Raises:
        ValueError: a config was asked for; there is none to choose.
        FileNotFoundError: the package was installed without the repository's data folder.
    """

    language = "en"
    columns = COLUMNS
    is_shipped = True

    def __init__(self, *, config_name: str, data_dir: str):
        refuse_config(self.name, config_name)
        content = committed.content_name((*_FILES.values(), _RECORDINGS))
        super().__init__(config_name=content, data_dir=data_dir)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(builder=self, features=spoken_features())

    def _split_generators(self, dl_manager: object) -> dict[str, Iterator]:
        return {split: self._generate_examples(path) for split, path in _FILES.items()}

    def _generate_examples(self, path: Path) -> Iterator[tuple[str, dict]]:
        for record, audio in committed.read_described(path, _RECORDINGS, ".ogg"):
            yield record["id"], {**record, "audio": audio}


def spoken_features() -> tfds.features.FeaturesDict:
    """How TFDS stores recordings with transcripts."""
    text = tfds.features.Text()
    # TFDS's own feature for audio needs TensorFlow; this one holds any bytes.
    audio = tfds.features.Scalar(np.str_)
    return tfds.features.FeaturesDict({"id": text, "audio": audio, "transcript": text})
