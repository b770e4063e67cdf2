"""Pictures of the lab beside emoji: Open Clip Art with names and keywords, from Debian packages."""

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar, TypedDict

import tensorflow_datasets as tfds

from lco_jax.lab.corpora import CACHE
from lco_jax.lab.corpora.debian import fetch_packages
from lco_jax.lab.corpora.emoji import held_out_names
from lco_jax.lab.corpora.openclipart_source import (
    PACKAGES,
    ClipArt,
    check_packages,
    read_clip_art,
    require_lxml,
)
from lco_jax.lab.corpora.square import SIDE_PX

_logger = logging.getLogger(__name__)


class ClipArtRecord(TypedDict):
    """A picture and what it is called."""

    id: str
    image: bytes
    """PNG."""
    name: str
    keywords: list[str]


class Openclipart(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Clip art to train on, 1,713 pictures (`train`); none has the name of a held-out emoji.

    Args:
        source_dir: unpacked Debian packages; None downloads them (156 MB).
        work_dir: of downloads (None: `openclipart` in the cache folder).

    Raises:
        ValueError: a config was asked for; there is none to choose.
        FileNotFoundError: the package was installed without the repository's data folder.
    """

    VERSION = tfds.core.Version("1.1.0")
    # TFDS downloads nothing here, so there are no checksums for it to look up beside the code.
    url_infos: ClassVar[dict] = {}

    def __init__(
        self,
        *,
        config_name: str,
        data_dir: str,
        source_dir: str | None = None,
        work_dir: str | None = None,
    ):
        if config_name:
            raise ValueError(f"openclipart has no config {config_name!r}; use 'openclipart'")
        self._work = CACHE / "openclipart" if work_dir is None else Path(work_dir)
        self._packages = None if source_dir is None else Path(source_dir)
        super().__init__(data_dir=data_dir, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        text = tfds.features.Text()
        features = {
            "id": text,
            "image": tfds.features.Image(shape=(SIDE_PX, SIDE_PX, 3), encoding_format="png"),
            "name": text,
            "keywords": tfds.features.Sequence(text),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager: object) -> dict[str, Iterator]:
        require_lxml()
        held_out = held_out_names()
        packages = self._packages or fetch_packages(PACKAGES, self._work)
        check_packages(packages)
        found = list(read_clip_art(packages, held_out))
        _logger.info("scaling %d pictures down", len(found))
        return {"train": self._generate_examples(found)}

    def _generate_examples(self, found: Sequence[ClipArt]) -> Iterator[tuple[str, ClipArtRecord]]:
        with ThreadPoolExecutor() as threads:
            for one, picture in zip(found, threads.map(ClipArt.picture, found), strict=True):
                yield (
                    one.id,
                    ClipArtRecord(
                        id=one.id, image=picture, name=one.name, keywords=list(one.keywords)
                    ),
                )


def read_openclipart(builder: Openclipart, split: str) -> "ClipArtSource":
    """The pictures of a split that `builder` has prepared."""
    # TFDS pickles a builder along with its source, and can rebuild only its own kinds.
    reader = tfds.builder_from_directory(builder.data_path)
    decoders = {"image": tfds.decode.SkipDecoding()}
    return ClipArtSource(reader.as_data_source(split, decoders=decoders))


class ClipArtSource(Sequence[ClipArtRecord]):
    """A split of the prepared pictures; pickles, so loader processes can share it."""

    def __init__(self, source: Sequence[dict]):
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> ClipArtRecord:
        if not 0 <= index < len(self):
            raise IndexError(f"picture {index} of {len(self)}")
        record = self._source[index]
        return ClipArtRecord(
            id=record["id"].decode(),
            image=record["image"],
            name=record["name"].decode(),
            keywords=[word.decode() for word in record["keywords"]],
        )
