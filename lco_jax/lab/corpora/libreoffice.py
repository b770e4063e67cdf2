"""Pages of the lab: LibreOffice's help as pictures, with English titles and the text on them."""

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import tensorflow_datasets as tfds
from rich.console import Console
from rich.progress import track

from lco_jax.config import Columns
from lco_jax.lab.corpora.libreoffice_source import (
    LANGUAGES,
    PACKAGES,
    Page,
    check_packages,
    font_files,
    read_pages,
)
from lco_jax.lab.corpora.packaged import PackagedBuilder
from lco_jax.lab.corpora.page_picture import SIDE_PX, STYLE, PagePainter

_TEXTS = ("id", "name", "text")
_logger = logging.getLogger(__name__)


class Libreoffice(PackagedBuilder, skip_registration=True):
    """Pages to train on (`train`) and held-out ones (`test`); the config is their language.

    Records are `id`, `image` (PNG, grey, square), `name` (the English title) and `text` (all that
    can be read on the picture, in the language of the page).

    A page is held out in all languages or in none. Pictures are kept until all are drawn, so that
    an interrupted preparation goes on where it was.

    Raises:
        ValueError: there are no pages in that language, or other ones than expected.
    """

    columns = Columns("name", image="image", id="id")
    packages = PACKAGES

    def __init__(self, *, config_name: str, data_dir: str, **folders: str | None):
        if config_name not in LANGUAGES:
            raise ValueError(
                f"libreoffice has no pages in {config_name!r}; choose one of {LANGUAGES}, e.g. "
                "'libreoffice/id'"
            )
        super().__init__(config_name=config_name, data_dir=data_dir, **folders)

    def _info(self) -> tfds.core.DatasetInfo:
        image = tfds.features.Image(shape=(SIDE_PX, SIDE_PX, 1), encoding_format="png")
        features = {"image": image, **dict.fromkeys(_TEXTS, tfds.features.Text())}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager: object) -> dict[str, Iterator]:
        language = self.builder_config.name
        packages = self._unpacked()
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
    ) -> Iterator[tuple[str, dict]]:
        for page in pages:
            png, text = _files(pictures, page)
            shown = json.loads(text.read_text(encoding="utf-8"))
            record = {"id": page.id, "name": page.title, "text": shown}
            yield page.id, record | {"image": png.read_bytes()}


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
