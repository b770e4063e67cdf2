"""What datasets out of Debian packages have in common."""

from pathlib import Path
from typing import ClassVar

from lco_jax.data.sources.builder import ArrayRecordBuilder
from lco_jax.data.sources.datasets import CACHE
from lco_jax.lab.corpora.debian import fetch_packages


class PackagedBuilder(ArrayRecordBuilder, skip_registration=True):
    """Base of the builders.

    Args:
        source_dir: unpacked Debian packages; None downloads them.
        work_dir: of downloads and what is made of them (None: the dataset's own in the cache
            folder).
    """

    packages: ClassVar[tuple[str, ...]]
    """As apt-get takes them."""

    def __init__(
        self,
        *,
        config_name: str,
        data_dir: str,
        source_dir: str | None = None,
        work_dir: str | None = None,
    ):
        self._work = CACHE / self.name if work_dir is None else Path(work_dir)
        self._source = None if source_dir is None else Path(source_dir)
        super().__init__(config_name=config_name, data_dir=data_dir)

    def _unpacked(self) -> Path:
        """The folder of the packages, downloaded if nobody gave one.

        Raises:
            FileNotFoundError, ConnectionError: as `fetch_packages`.
        """
        return self._source or fetch_packages(self.packages, self._work)
