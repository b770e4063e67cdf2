"""Synthetic speech of the lab: English texts spoken by eSpeak NG, made when it is prepared."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import soundfile
import tensorflow_datasets as tfds

from lco_jax.lab.corpora import CACHE
from lco_jax.lab.corpora.spoken import SpokenRecord, SpokenSource, read_spoken, spoken_features
from lco_jax.lab.corpora.synthetic_speech_source import (
    Utterance,
    choose_utterances,
    clip_file,
    digest_utterances,
    find_synthesizer,
    synthesize,
)


class SyntheticSpeech(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Synthesised clips to train on (`train`), in several voices; records are those of `spoken`.

    Clips stay in `work_dir`, so an interrupted preparation goes on where it was. The versions of
    program and encoder are in the metadata of the dataset, as `synthesizer` and `encoder`; one that
    is there is not made again because they changed.

    Args:
        work_dir: of the clips (None: `synthetic_speech` in the cache folder).
        max_clips: at most so many; None takes all.

    Raises:
        ValueError: a config was asked for; there is none to choose.
        FileNotFoundError: the package was installed without the repository's data folder.
    """

    VERSION = tfds.core.Version("1.0.0")
    # TFDS downloads nothing here, so there are no checksums for it to look up beside the code.
    url_infos: ClassVar[dict] = {}

    def __init__(
        self,
        *,
        config_name: str,
        data_dir: str,
        work_dir: str | None = None,
        max_clips: int | None = None,
    ):
        if config_name:
            raise ValueError(
                f"synthetic_speech has no config {config_name!r}; use the name 'synthetic_speech'"
            )
        self._utterances = choose_utterances()[:max_clips]
        self._work = CACHE / "synthetic_speech" if work_dir is None else Path(work_dir)
        # The folder is named after texts, voices and rates, so other ones are never read from it.
        config = tfds.core.BuilderConfig(name=digest_utterances(self._utterances))
        super().__init__(config=config, data_dir=data_dir, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self, features=spoken_features(), metadata=tfds.core.MetadataDict()
        )

    def _split_generators(self, dl_manager: object) -> dict[str, Iterator]:
        version = find_synthesizer()
        self.info.metadata["synthesizer"] = f"eSpeak NG {version}"
        self.info.metadata["encoder"] = soundfile.__libsndfile_version__
        clips = self._work / self.builder_config.name / version
        synthesize(self._utterances, clips)
        return {"train": self._generate_examples(self._utterances, clips)}

    def _generate_examples(
        self, utterances: Sequence[Utterance], clips: Path
    ) -> Iterator[tuple[str, SpokenRecord]]:
        for one in utterances:
            audio = clip_file(clips, one).read_bytes()
            yield one.id, SpokenRecord(id=one.id, audio=audio, transcript=one.text)


def read_synthetic_speech(builder: SyntheticSpeech, split: str) -> SpokenSource:
    """The clips of a split that `builder` has prepared."""
    return read_spoken(builder, split)
