"""Images of the lab beside emoji: Open Clip Art with names and keywords, from Debian packages."""

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import tensorflow_datasets as tfds

from lco_jax.config import Columns
from lco_jax.data.sources.builder import refuse_config
from lco_jax.lab.corpora.emoji import held_out_names
from lco_jax.lab.corpora.openclipart_source import (
    PACKAGES,
    ClipArt,
    check_packages,
    read_clip_art,
    require_lxml,
)
from lco_jax.lab.corpora.packaged import PackagedBuilder
from lco_jax.lab.corpora.square import SIDE_PX

_logger = logging.getLogger(__name__)


class Openclipart(PackagedBuilder, skip_registration=True):
    """Clip art to train on, 1,713 images (`train`); none has the name of a held-out emoji.

    Records are `id`, `image` (PNG), `name` and `keywords`. Downloads are 156 MB.

    Raises:
        ValueError: a config was asked for; there is none to choose.
        FileNotFoundError: the package was installed without the repository's data folder.
    """

    VERSION = tfds.core.Version("1.1.0")
    language = "en"
    columns = Columns("name", image="image", id="id")
    packages = PACKAGES

    def __init__(self, *, config_name: str, data_dir: str, **folders: str | None):
        refuse_config(self.name, config_name)
        super().__init__(config_name=config_name, data_dir=data_dir, **folders)

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
        packages = self._unpacked()
        check_packages(packages)
        found = list(read_clip_art(packages, held_out))
        _logger.info("scaling %d images down", len(found))
        return {"train": self._generate_examples(found)}

    def _generate_examples(self, found: Sequence[ClipArt]) -> Iterator[tuple[str, dict]]:
        with ThreadPoolExecutor() as threads:
            for one, image in zip(found, threads.map(ClipArt.image, found), strict=True):
                record = {"id": one.id, "name": one.name, "keywords": list(one.keywords)}
                yield one.id, record | {"image": image}
