"""Datasets by name: those that packages make known, and prepared ones that are on the disk.

`wordnet`, `all_nli` and `parallel_pairs` hold pairs of texts, the last optionally of one pair of
languages (`parallel_pairs/en-id`). `emoji` holds images with their names in five languages,
`openclipart` more images with names, `spoken` spoken prompts with their transcripts,
`synthetic_speech` texts spoken by a program, and `libreoffice/id` (`vi`, `km`) images of pages with
English titles and the text on them. Any other name is that of a folder.
"""

import contextlib
import io
import json
import logging
import re
import shutil
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from filelock import FileLock

from lco_jax.config import Columns
from lco_jax.runtime.caches import cache_folder
from lco_jax.runtime.disks import writing

# TFDS takes a second to import, so that is done when a dataset is asked for.
if TYPE_CHECKING:
    from lco_jax.data.sources.builder import ArrayRecordBuilder
    from lco_jax.data.sources.prepared import PreparedRecords

CACHE = cache_folder()
"""Where fetched weights and prepared datasets are kept unless a caller says otherwise."""
GROUP = "lco_jax.datasets"
"""Of the entry points by which packages make datasets known: `NAME = "MODULE:CLASS"`, the class an
`ArrayRecordBuilder`."""

_LANGUAGES = re.compile(r"[a-z]{2,3}(-[a-z]{2,3})*")
"""The name of a config that says which languages are paired."""

_DESCRIPTIONS = ("dataset_info.json", "features.json")
"""Beside the records of a prepared dataset."""

_logger = logging.getLogger(__name__)


def open_dataset(
    name: str,
    split: str = "train",
    data_dir: str | None = None,
    columns: Columns | None = None,
) -> "PreparedRecords":
    """The records of a prepared dataset, by index; shipped ones are prepared on first use.

    Args:
        name: known dataset with optional config, e.g. `"parallel_pairs/en-id"`, or a folder
            `NAME[/CONFIG][/VERSION]` within `data_dir`.
        split: name of a split, or a slice of one (`"train[:10%]"`).
        data_dir: where datasets are prepared (None: `tfds` in the cache folder).
        columns: what is what in the records (None: as the builder or the features say).

    Raises:
        ValueError: unknown dataset, config or split, or columns that do not fit.
        FileNotFoundError: the dataset is not prepared.
    """
    from lco_jax.data.sources.prepared import find_prepared, open_prepared

    folder = _data_dir(data_dir)
    with _quiet_tfds():
        if _find_entry(name) is None:
            found = find_prepared(name, folder)
            if found is None:
                raise _unknown(name, folder)
            return open_prepared(found, split, columns)
        _drop_damaged(name, folder)
        builder = _make_builder(name, folder)
        if getattr(builder, "is_shipped", False) and not builder.is_prepared():
            prepare(name, folder)
            builder = _make_builder(name, folder)
        if not builder.is_prepared():
            raise FileNotFoundError(
                f"dataset {name!r} is not prepared in {builder.data_path}; "
                f"{builder.how_to_prepare(name)}"
            )
        return open_prepared(builder.data_path, split, columns or builder.columns)


def prepare(name: str, data_dir: str | None = None, **options: str | int | None) -> str:
    """Write a known dataset once and return its folder; several processes may ask at the same time.

    Args:
        name: dataset with optional config.
        data_dir: as in `open_dataset`.
        options: what the builder's constructor takes, e.g. `source_dir`.

    Raises:
        ValueError: unknown dataset or config, or a malformed row (`FILE:ROW` is named).
        FileNotFoundError: nothing to read.
    """
    folder = _data_dir(data_dir)
    with _lock(name, folder), _quiet_tfds():
        builder = _make_builder(name, folder, **options)
        path = str(builder.data_path)
        if builder.is_prepared():
            _logger.info("%s is already prepared; remove %s to do it again", name, path)
            return path
        with writing(path):
            builder.download_and_prepare()
    sizes = {split: info.num_examples for split, info in builder.info.splits.items()}
    _logger.info("%s is ready in %s: %s", name, path, sizes)
    return path


class Description(NamedTuple):
    """What a model card says of a dataset."""

    name: str
    """On the hub, if it is there."""
    languages: tuple[str, ...]
    """Of its texts, as far as they are known."""


def describe_dataset(name: str) -> Description:
    """What is known of a dataset by its name, prepared or not."""
    entry = _find_entry(name)
    if entry is None:
        return Description(name, ())
    builder = entry.load()
    config = name.partition("/")[2]
    if _LANGUAGES.fullmatch(config):
        languages = tuple(config.split("-"))
    else:
        languages = (builder.language,) if builder.language else ()
    return Description(builder.hub_id or name, languages)


def _drop_damaged(name: str, folder: str) -> None:
    """Remove what is left of a dataset that is made in no time and whose description is lost.

    Raises:
        ValueError: it takes longer to make.
    """
    root = Path(folder) / name.partition("/")[0]
    if "://" in folder or not root.is_dir():
        return
    is_shipped = getattr(_find_entry(name).load(), "is_shipped", False)
    for version in sorted({file.parent for file in root.rglob("*.array_record*")}):
        lost = next((file for file in _DESCRIPTIONS if not _is_object(version / file)), None)
        if lost is None or version.name.startswith("incomplete"):  # that is being made
            continue
        if not is_shipped:
            raise ValueError(
                f"{version / lost}: is lost or damaged; remove {version} and prepare {name} again "
                f"(python launch/prepare_data.py {name.replace('/', ' --config ')})"
            )
        _logger.warning("%s is lost or damaged: %s is made again", version / lost, name)
        with _lock(name, folder):
            shutil.rmtree(version, ignore_errors=True)


def _is_object(file: Path) -> bool:
    try:
        return isinstance(json.loads(file.read_bytes()), dict)
    except (OSError, ValueError):
        return False


def _data_dir(given: str | None) -> str:
    return given or str(CACHE / "tfds")


def _find_entry(name: str) -> EntryPoint | None:
    found = entry_points(group=GROUP, name=name.partition("/")[0])
    return next(iter(found), None)


def _make_builder(name: str, folder: str, **options: str | int | None) -> "ArrayRecordBuilder":
    entry = _find_entry(name)
    if entry is None:
        raise _unknown(name, folder)
    return entry.load()(config_name=name.partition("/")[2], data_dir=folder, **options)


def _unknown(name: str, folder: str) -> ValueError:
    known = sorted(entry_points(group=GROUP).names)
    hint = "" if known else " (install lco_jax again, it has some: pip install --no-deps -e .)"
    return ValueError(
        f"unknown dataset {name!r}; known are {known}{hint}, and no prepared one is in "
        f"{folder}/{name}"
    )


def _lock(name: str, folder: str) -> contextlib.AbstractContextManager:
    """Keeps other processes of this machine from preparing the same dataset meanwhile."""
    if "://" in folder:  # remote folders have no locks; TFDS renames into place
        return contextlib.nullcontext()
    Path(folder).mkdir(parents=True, exist_ok=True)
    return FileLock(Path(folder) / f"{name.replace('/', '-')}.lock")


@contextlib.contextmanager
def _quiet_tfds() -> Iterator[None]:
    """Without what TFDS prints and its warnings of configs made at run time; errors still show."""
    absl_logger = logging.getLogger("absl")
    level = absl_logger.level
    absl_logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        absl_logger.setLevel(level)
