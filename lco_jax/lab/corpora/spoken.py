"""Speech of the lab: spoken English prompts with transcripts, from files in this repository."""

from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

from lco_jax.config import Columns
from lco_jax.data.sources.builder import ArrayRecordBuilder
from lco_jax.lab.corpora import committed, splits
from lco_jax.lab.corpora.spoken_source import ARCHIVE

_FOLDER = committed.DATA / "spoken"
_RECORDINGS = _FOLDER / ARCHIVE
_FILES = committed.split_files(_FOLDER, "spoken")

_FOLDS = {f"fold{number}": number for number in range(1, splits.NUM_FOLDS + 1)}

COLUMNS = Columns("transcript", audio="audio", id="id")


class Spoken(ArrayRecordBuilder, skip_registration=True):
    """Recordings to train on (`train`) and held-out ones (`test`), with different transcripts each;
    of `train` also `dev`, to measure choices on, and `fit`, to train on meanwhile.

    Records are `id`, `audio` (Ogg Opus) and `transcript`. The configs `fold1` to `fold5` hold the
    same recordings apart in another way: every transcript of four words or more is in the `test` of
    one fold, and nothing like it in `train` there. `dev` is the same in all.

    Raises:
        ValueError: there is no such config.
        FileNotFoundError: the package was installed without the repository's data folder.
    """

    VERSION = tfds.core.Version("1.1.0")
    language = "en"
    columns = COLUMNS
    is_shipped = True

    def __init__(self, *, config_name: str, data_dir: str):
        if config_name not in ("", *_FOLDS):
            raise ValueError(
                f"spoken has no config {config_name!r}; choose one of {list(_FOLDS)}, or use the "
                "name 'spoken' for its own train and test"
            )
        self._fold = _FOLDS.get(config_name)
        content = committed.content_name((*_FILES.values(), _RECORDINGS))
        name = "-".join(filter(None, (content, config_name)))
        super().__init__(config_name=name, data_dir=data_dir)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(builder=self, features=spoken_features())

    def _split_generators(self, dl_manager: object) -> dict[str, Iterator]:
        found = {split: list(committed.read_lines(path)) for split, path in _FILES.items()}
        if self._fold is not None:
            everything = [record for records in found.values() for record in records]
            found = splits.fold_of_spoken(everything, self._fold)
        found |= splits.split_spoken(found["train"])
        return {split: self._generate_examples(records) for split, records in found.items()}

    def _generate_examples(self, records: list[dict]) -> Iterator[tuple[str, dict]]:
        for record, audio in committed.describe(records, _RECORDINGS, ".ogg"):
            yield record["id"], {**record, "audio": audio}


def spoken_features() -> tfds.features.FeaturesDict:
    """How TFDS stores recordings with transcripts."""
    text = tfds.features.Text()
    # TFDS's own feature for audio needs TensorFlow; this one holds any bytes.
    audio = tfds.features.Scalar(np.str_)
    return tfds.features.FeaturesDict({"id": text, "audio": audio, "transcript": text})
