"""Pages of the lab: LibreOffice's help as pictures, with English titles and the text on them."""

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, TypedDict

import tensorflow_datasets as tfds
from rich.console import Console
from rich.progress import track

from lco_jax.lab.corpora import CACHE
from lco_jax.lab.corpora.debian import fetch_packages
from lco_jax.lab.corpora.libreoffice_source import (
    LANGUAGES,
    PACKAGES,
    Page,
    check_packages,
    font_files,
    read_pages,
)
from lco_jax.lab.corpora.page_picture import SIDE_PX, STYLE, PagePainter

_TEXTS = ("id", "name", "text")
_logger = logging.getLogger(__name__)


class PageRecord(TypedDict):
    """A page, what asks for it and what stands on it."""

    id: str
    image: bytes
    """PNG, grey, square."""
    name: str
    """The English title."""
    text: str
    """All that can be read on the picture, in the language of the page."""


class Libreoffice(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Pages to train on (`train`) and held-out ones (`test`); the config is their language.

    A page is held out in all languages or in none. Pictures are kept until all are drawn, so that
    an interrupted preparation goes on where it was.

    Args:
        source_dir: unpacked Debian packages; None downloads them.
        work_dir: of downloads and pictures (None: `libreoffice` in the cache folder).

    Raises:
        ValueError: there are no pages in that language, or other ones than expected.
    """

    VERSION = tfds.core.Version("1.0.0")
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
        if config_name not in LANGUAGES:
            raise ValueError(
                f"libreoffice has no pages in {config_name!r}; choose one of {LANGUAGES}, e.g. "
                "'libreoffice/id'"
            )
        self._work = CACHE / "libreoffice" if work_dir is None else Path(work_dir)
        self._packages = None if source_dir is None else Path(source_dir)
        config = tfds.core.BuilderConfig(name=config_name)
        super().__init__(config=config, data_dir=data_dir, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        image = tfds.features.Image(shape=(SIDE_PX, SIDE_PX, 1), encoding_format="png")
        features = {"image": image, **dict.fromkeys(_TEXTS, tfds.features.Text())}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager: object) -> dict[str, Iterator]:
        language = self.builder_config.name
        packages = self._packages or fetch_packages(PACKAGES, self._work)
        check_packages(packages, language)
        pages = list(read_pages(packages, language))
        pictures = self._work / "pictures" / STYLE / language
        paint_pages(pages, language, font_files(packages), pictures)
        held_out = [page for page in pages if page.is_held_out]
        kept = [page for page in pages if not page.is_held_out]
        return {
            "train": self._generate_examples(kept, pictures),
            "test": self._generate_examples(held_out, pictures),
        }

    def _generate_examples(
        self, pages: Sequence[Page], pictures: Path
    ) -> Iterator[tuple[str, PageRecord]]:
        for page in pages:
            png, text = _files(pictures, page)
            yield (
                page.id,
                PageRecord(
                    id=page.id,
                    image=png.read_bytes(),
                    name=page.title,
                    text=json.loads(text.read_text(encoding="utf-8")),
                ),
            )


def paint_pages(pages: Sequence[Page], language: str, fonts: Sequence[Path], folder: Path) -> None:
    """Draw the pages whose pictures are not yet in `folder`."""
    missing = [page for page in pages if not _files(folder, page)[0].exists()]
    if not missing:
        return
    painter = PagePainter(fonts)
    _logger.info("drawing %d of %d pages (%s)", len(missing), len(pages), language)
    console = Console(stderr=True)
    for page in track(missing, f"pages ({language})", console=console, transient=True):
        picture, shown = painter.paint(page.blocks, language)
        png, text = _files(folder, page)
        png.parent.mkdir(parents=True, exist_ok=True)
        text.write_text(json.dumps(shown, ensure_ascii=False), encoding="utf-8")
        draft = png.with_suffix(".partial")
        draft.write_bytes(picture)
        draft.rename(png)  # last, and at once: what has a picture is complete


def _files(folder: Path, page: Page) -> tuple[Path, Path]:
    return folder / f"{page.id}.png", folder / f"{page.id}.json"


def read_libreoffice(builder: Libreoffice, split: str) -> "LibreofficeSource":
    """The pages of a split that `builder` has prepared."""
    # TFDS pickles a builder along with its source, and can rebuild only its own kinds.
    reader = tfds.builder_from_directory(builder.data_path)
    decoders = {"image": tfds.decode.SkipDecoding()}
    return LibreofficeSource(reader.as_data_source(split, decoders=decoders))


class LibreofficeSource(Sequence[PageRecord]):
    """A split of the prepared pages; pickles, so loader processes can share it."""

    def __init__(self, source: Sequence[dict]):
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> PageRecord:
        if not 0 <= index < len(self):
            raise IndexError(f"page {index} of {len(self)}")
        record = self._source[index]
        texts = {name: record[name].decode() for name in _TEXTS}
        return PageRecord(image=record["image"], **texts)
