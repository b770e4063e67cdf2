"""Text pairs and triplets as TFDS datasets (array_record, no TensorFlow).

Datasets are named `wordnet`, `all_nli` and `parallel_pairs`, the last optionally with a config
(`parallel_pairs/en-id`); their features are `id`, `anchor`, `positive`, `negatives`. `emoji` holds
pictures with their names in five languages, `openclipart` more pictures with names, `spoken` spoken
prompts with their transcripts, `synthetic_speech` texts spoken by a program, and `libreoffice/id`
(`vi`, `km`) pictures of pages with English titles and the text on them.
"""

import contextlib
import importlib
import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

if TYPE_CHECKING:
    from lco_jax.data.sources.pairs import PairsBuilder, PairsSource

CACHE = Path("~/.cache/lco_jax").expanduser()
"""Where fetched weights and prepared datasets are kept unless a caller says otherwise."""

_CLASSES = {
    "wordnet": "Wordnet",
    "all_nli": "AllNli",
    "parallel_pairs": "ParallelPairs",
    "emoji": "Emoji",
    "spoken": "Spoken",
    "synthetic_speech": "SyntheticSpeech",
    "libreoffice": "Libreoffice",
    "openclipart": "Openclipart",
}
_READERS = {
    "emoji": "read_emoji",
    "spoken": "read_spoken",
    "synthetic_speech": "read_synthetic_speech",
    "libreoffice": "read_libreoffice",
    "openclipart": "read_openclipart",
}
"""Of datasets whose examples are no pairs of texts."""
_SHIPPED = ("wordnet", "emoji", "spoken")
"""Made from files of the repository, so they are prepared on first use."""
_SYNTHESIZED = ("synthetic_speech",)
"""Made by a program of the machine, so there is nothing to download."""
_logger = logging.getLogger(__name__)


def open_source(name: str, split: str = "train", data_dir: str | None = None) -> "PairsSource":
    """The examples of a prepared dataset, by index; shipped ones are prepared on first use.

    Args:
        name: dataset with optional config, e.g. `"parallel_pairs/en-id"`.
        split: name of a split, or a slice of one (`"train[:10%]"`).
        data_dir: where datasets are prepared (None: `tfds` in the cache folder).

    Raises:
        ValueError: unknown dataset, config or split.
        FileNotFoundError: the dataset is not prepared.
    """
    from lco_jax.data.sources.pairs import read_split

    with _quiet_tfds():
        builder = _make_builder(name, data_dir)
        if not builder.is_prepared() and builder.name in _SHIPPED:
            prepare(name, data_dir)
            builder = _make_builder(name, data_dir)
        if not builder.is_prepared():
            command = f"python launch/prepare_data.py {name.replace('/', ' --config ')}"
            hint = f"`{command} --source-dir FOLDER` first (without --source-dir it is downloaded)"
            if builder.name in _SYNTHESIZED:
                hint = f"`{command}` first"
            raise FileNotFoundError(
                f"dataset {name!r} is not prepared in {builder.data_path}; run {hint}"
            )
        if split.partition("[")[0] not in builder.info.splits:
            raise ValueError(f"{name!r} has no split {split!r}; use {sorted(builder.info.splits)}")
        if builder.name in _READERS:
            module = importlib.import_module(f"{__name__}.{builder.name}")
            return getattr(module, _READERS[builder.name])(builder, split)
        return read_split(builder, split)


def prepare(name: str, data_dir: str | None = None, **options: str | int | None) -> str:
    """Write a dataset once and return its folder; several processes may ask at the same time.

    Args:
        name: dataset with optional config.
        data_dir: as in `open_source`.
        options: what the builder's constructor takes, e.g. `source_dir`.

    Raises:
        ValueError: unknown dataset or config, or a malformed row (`FILE:ROW` is named).
        FileNotFoundError: nothing to read.
    """
    with _lock(name, data_dir), _quiet_tfds():
        builder = _make_builder(name, data_dir, **options)
        folder = str(builder.data_path)
        if builder.is_prepared():
            _logger.info("%s is already prepared; remove %s to do it again", name, folder)
            return folder
        builder.download_and_prepare()
    sizes = {split: info.num_examples for split, info in builder.info.splits.items()}
    _logger.info("%s is ready in %s: %s", name, folder, sizes)
    return folder


def _make_builder(name: str, data_dir: str | None, **options: str | int | None) -> "PairsBuilder":
    """The TFDS builder of `name`. TFDS is imported here, on first use."""
    base, _, config = name.partition("/")
    if base not in _CLASSES:
        raise ValueError(f"unknown dataset {name!r}; known are {sorted(_CLASSES)}")
    module = importlib.import_module(f"{__name__}.{base}")
    return getattr(module, _CLASSES[base])(
        config_name=config, data_dir=data_dir or str(CACHE / "tfds"), **options
    )


def _lock(name: str, data_dir: str | None) -> contextlib.AbstractContextManager:
    """Keeps other processes of this machine from preparing the same dataset meanwhile."""
    folder = data_dir or str(CACHE / "tfds")
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
