"""Help pages as evaluation tasks: an English title finds the image of a translated page.

Data of `launch/prepare_data.py libreoffice`, which is not in the repository.
"""

import logging
from pathlib import Path

from lco_jax.data.records import Item
from lco_jax.data.sources.datasets import open_dataset
from lco_jax.evaluate.tasks import RetrievalTask
from lco_jax.runtime.disks import replace_bytes

LANGUAGES = {"id": "ind-Latn", "vi": "vie-Latn", "km": "khm-Khmr"}
PAGE_TASKS = {f"LibreOfficePages-{code}": code for code in LANGUAGES}
"""The language of each task."""
_LICENCE = "https://www.mozilla.org/en-US/MPL/2.0/"

log = logging.getLogger(__name__)


def page_tasks(media_folder: str | Path, data_dir: str | None = None) -> dict[str, RetrievalTask]:
    """The tasks whose pages are prepared, by name.

    Args:
        media_folder: where images are unpacked to.
        data_dir: where datasets are prepared (None: `tfds` in the cache folder).
    """
    tasks = {}
    for name in PAGE_TASKS:
        try:
            tasks[name] = page_task(name, media_folder, data_dir)
        except FileNotFoundError:
            log.debug("%s: launch/prepare_data.py libreoffice makes its pages", name)
    return tasks


def page_task(
    name: str,
    media_folder: str | Path,
    data_dir: str | None = None,
    *,
    max_pages: int | None = None,
    as_text: bool = False,
) -> RetrievalTask:
    """The held-out pages of a language.

    Args:
        max_pages: take only so many of them.
        as_text: in place of a page's image, the text on it: what reading could reach.

    Raises:
        FileNotFoundError: the pages are not prepared.
    """
    language = PAGE_TASKS[name]
    pages = open_dataset(f"libreoffice/{language}", "test", data_dir)
    records = [pages[index] for index in range(len(pages))[:max_pages]]
    if as_text:
        documents = tuple(Item(record["text"]) for record in records)
    else:
        folder = Path(media_folder) / "libreoffice" / language
        documents = tuple(Item(images=(_unpack(record, folder),)) for record in records)
    return RetrievalTask(
        name=f"{name}-text" if as_text else name,
        description="An English title finds the translated page of LibreOffice's help.",
        languages=("eng-Latn", LANGUAGES[language]),
        queries=tuple(Item(record["name"]) for record in records),
        documents=documents,
        licence=_LICENCE,
    )


def _unpack(record: dict, folder: Path) -> str:
    path = folder / f"{record['id'].replace('/', '-')}.png"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        replace_bytes(path, record["image"])
    return str(path)
