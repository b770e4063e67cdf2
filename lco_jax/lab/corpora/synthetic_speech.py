"""Synthetic speech of the lab: English texts spoken by eSpeak NG, made when it is prepared."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import soundfile
import tensorflow_datasets as tfds

from lco_jax.data.sources.builder import ArrayRecordBuilder, refuse_config
from lco_jax.data.sources.datasets import CACHE
from lco_jax.lab.corpora.spoken import COLUMNS, spoken_features
from lco_jax.lab.corpora.synthetic_speech_source import (
    Utterance,
    choose_utterances,
    digest_utterances,
    find_synthesizer,
    recording_file,
    synthesize,
)


class SyntheticSpeech(ArrayRecordBuilder, skip_registration=True):
    """Synthesised speech to train on (`train`), in several voices; records are those of `spoken`,
    with FLAC for `audio`.

    Recordings stay in `work_dir`, so an interrupted preparation goes on where it was. Versions of
    program and encoder are in the metadata of the dataset, as `synthesizer` and `encoder`; one that
    is there is not made again because they changed.

    Args:
        work_dir: of the recordings (None: `synthetic_speech` in the cache folder).
        max_recordings: at most so many; None takes all.

    Raises:
        ValueError: a config was asked for; there is none to choose.
        FileNotFoundError: the package was installed without the repository's data folder.
    """

    language = "en"
    columns = COLUMNS

    def __init__(
        self,
        *,
        config_name: str,
        data_dir: str,
        work_dir: str | None = None,
        max_recordings: int | None = None,
    ):
        refuse_config(self.name, config_name)
        self._utterances = choose_utterances()[:max_recordings]
        self._work = CACHE / self.name if work_dir is None else Path(work_dir)
        # The folder is named after texts, voices and rates, so other ones are never read from it.
        super().__init__(config_name=digest_utterances(self._utterances), data_dir=data_dir)

    def how_to_prepare(self, name: str) -> str:
        """The command: a program speaks the texts, so there is nothing to download."""
        return f"run `python launch/prepare_data.py {name}` first"

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self, features=spoken_features(), metadata=tfds.core.MetadataDict()
        )

    def _split_generators(self, dl_manager: object) -> dict[str, Iterator]:
        version = find_synthesizer()
        self.info.metadata["synthesizer"] = f"eSpeak NG {version}"
        self.info.metadata["encoder"] = soundfile.__libsndfile_version__
        folder = self._work / self.builder_config.name / version
        synthesize(self._utterances, folder)
        return {"train": self._generate_examples(self._utterances, folder)}

    def _generate_examples(
        self, utterances: Sequence[Utterance], folder: Path
    ) -> Iterator[tuple[str, dict]]:
        for one in utterances:
            audio = recording_file(folder, one).read_bytes()
            yield one.id, {"id": one.id, "audio": audio, "transcript": one.text}
