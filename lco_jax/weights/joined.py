"""An adapter and its base as one model folder: links to the files of both."""

import contextlib
import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from lco_jax.models.adapter_config import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    MERGE,
    AdapterConfig,
    read_adapter_config,
)
from lco_jax.runtime.caches import cache_folder
from lco_jax.runtime.disks import writing
from lco_jax.weights.companions import PROCESSOR_FILES, SPEECH_FILES, TOKENIZER_FILES
from lco_jax.weights.files import INDEX_NAME, SINGLE_NAME

_ADAPTER, _BASE = "lco_jax_adapter", "lco_jax_base"
"""Links to the two folders."""
_OF_BASE = ("config.json", *SPEECH_FILES)
_GROUPS = (TOKENIZER_FILES, PROCESSOR_FILES, ("lco_jax.json",), ("modules.json",), ("README.md",))
"""Files that go together: those of the adapter if it has one of them, else those of the base."""


def join(adapter: Path, base: Path) -> Path:
    """A folder that reads as a model, whose tensors `weights.adapted` makes of both.

    It holds links alone, and is named for where they lead, so that it is made once.

    Raises:
        DiskError: it cannot be made.
    """
    links = {_ADAPTER: adapter, _BASE: base}
    links |= {name: base / name for name in _OF_BASE}
    for group in _GROUPS:
        own = any((adapter / name).exists() for name in group)
        links |= {name: (adapter if own else base) / name for name in group}
    leads = {name: os.path.abspath(path) for name, path in links.items() if path.exists()}
    digest = hashlib.sha256(repr(sorted(leads.items())).encode()).hexdigest()[:20]
    place = cache_folder() / "adapted" / f"{adapter.absolute().name}-{digest}"
    if not place.is_dir():
        with writing(place):
            _make(place, leads)
    return place


def check_files(adapter: Path) -> None:
    """Raise ValueError if an adapter's folder holds no weights that are read, or also those of a
    model.
    """
    own = [name for name in (SINGLE_NAME, INDEX_NAME) if (adapter / name).exists()]
    if own:
        raise ValueError(
            f"{adapter} holds an adapter ({ADAPTER_CONFIG}) and a model ({own[0]}); which of them "
            "is meant cannot be told: move one into a folder of its own"
        )
    if not (adapter / ADAPTER_WEIGHTS).exists():
        raise ValueError(
            f"{adapter} has no {ADAPTER_WEIGHTS}; save the adapter with save_pretrained of peft, "
            f"which writes it, or {MERGE}"
        )


def _make(place: Path, leads: dict[str, str]) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{place.name}", dir=place.parent))
    try:
        for name, target in leads.items():
            (draft / name).symlink_to(target)
        # Another process may have made the same.
        with contextlib.suppress(FileExistsError):
            try:
                draft.rename(place)
            except OSError:
                if not place.is_dir():
                    raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def is_joined(folder: Path) -> bool:
    """Whether a folder was made by `join`."""
    return (folder / _ADAPTER).is_symlink()


def parts_of(folder: Path) -> tuple[Path, Path]:
    """The folders of the adapter and of the base of a folder that was made by `join`."""
    return Path(os.readlink(folder / _ADAPTER)), Path(os.readlink(folder / _BASE))


def settings_of(folder: Path) -> AdapterConfig:
    """Of the adapter in a folder that was made by `join`."""
    return read_adapter_config(parts_of(folder)[0])
