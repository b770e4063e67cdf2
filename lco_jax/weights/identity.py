"""What tells one model from another: the contents of its files, wherever they lie."""

import hashlib
import math
import os
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from etils import epath
from jaxtyping import Shaped

from lco_jax.weights.adapted import open_weights
from lco_jax.weights.companions import COMPANIONS, SPEECH_FILES
from lco_jax.weights.digests import file_digest, state_of
from lco_jax.weights.joined import is_joined, settings_of

KIND = "contents "
"""With which digests of contents begin."""

_FILES = ("config.json", *COMPANIONS)


class ChangedFilesError(RuntimeError):
    """Files of a model are not those any more that were opened."""


class Contents:
    """The files that make up a model, as they are now; they are read when the digest is asked for.

    Args:
        files: by the names under which they count, local or in a bucket. Those of a bucket count by
            name, size and time, since to read them costs as much as to fetch them.
        more: what else decides.

    Raises:
        FileNotFoundError: one of them is gone.
    """

    def __init__(self, files: Mapping[str, os.PathLike], more: str = ""):
        self._files = {name: epath.Path(files[name]) for name in sorted(files)}
        self._more = more
        self._seen = {name: _seen(path) for name, path in self._files.items()}
        self._digest: str | None = None

    @property
    def digest(self) -> str:
        """A hash of all of them.

        Raises:
            ChangedFilesError: one has changed since this was made, or is gone.
        """
        if self._digest is None:
            found = hashlib.sha256(self._more.encode())
            for name, path in self._files.items():
                self._check(name)
                content = repr(self._seen[name]) if _is_remote(path) else file_digest(Path(path))
                self._check(name)
                found.update(f"\n{name} {content}".encode())
            self._digest = f"{KIND}{found.hexdigest()[:40]}"
        return self._digest

    def _check(self, name: str) -> None:
        path = self._files[name]
        try:
            same = _seen(path) == self._seen[name]
        except OSError:
            same = False
        if not same:
            raise ChangedFilesError(
                f"{path} has changed since the model was opened, or is gone: which weights are in "
                "memory cannot be told any more; start again"
            )


def _is_remote(path: epath.Path) -> bool:
    return "://" in str(path)


def _seen(path: epath.Path) -> tuple[int, ...]:
    """What is compared of a file: links to it and its rights may change."""
    if _is_remote(path):
        stat = path.stat()
        return stat.length, int(stat.mtime)
    return state_of(Path(path))[:-1]


def model_files(folder: Path) -> dict[str, Path]:
    """The files of a model folder that vectors depend on: settings, tokenizer, template, media
    settings and weights.

    Raises:
        FileNotFoundError: the folder holds no weights.
        ValueError: they are damaged.
    """
    names = [name for name in _FILES if name not in SPEECH_FILES and (folder / name).exists()]
    return {name: folder / name for name in names} | {
        path.name: path for path in open_weights(folder).paths
    }


def contents_of(
    folder: Path, more_files: Mapping[str, os.PathLike] | None = None, more: str = ""
) -> Contents:
    """What makes up the model in a folder. Of an adapter its settings count as they are read, and
    not where its base model is.

    Args:
        more_files, more: what else decides.

    Raises:
        FileNotFoundError: the folder holds no weights.
        ValueError: they are damaged.
    """
    adapted = settings_of(folder).describe() if is_joined(folder) else ""
    return Contents(model_files(folder) | dict(more_files or {}), adapted + more)


def folder_files(folder: epath.Path, name: str) -> dict[str, epath.Path]:
    """All files in a folder, counting under `name` and their path there."""
    return {f"{name}/{path.relative_to(folder).as_posix()}": path for path in _walk(folder)}


def _walk(folder: epath.Path) -> Iterable[epath.Path]:
    for path in folder.iterdir():
        if path.is_dir():
            yield from _walk(path)
        else:
            yield path


def base_digest(folder: Path, known: str | None = None) -> str:
    """What the manifest of a run says of the model folder that it starts from.

    Args:
        known: what it says already; earlier revisions took samples of the weights.
    """
    if known is not None and not known.startswith(KIND):
        return _sampled_digest(folder)
    return contents_of(folder).digest


# ----------------------------------------------------------------- runs of earlier revisions

_SAMPLE_VALUES = 64
_SAMPLED_WITH = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "chat_template.json",
    "chat_template.jinja",
    "preprocessor_config.json",
)


def _sampled_digest(folder: Path) -> str:
    """A hash of settings and tokenizer, and of every tensor the name, shape, dtype and the first,
    middle and last values.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name in _SAMPLED_WITH:
        if (folder / name).exists():
            digest.update(name.encode() + (folder / name).read_bytes())
    source = open_weights(folder)
    specs = source.specs
    for name in sorted(specs):
        size = math.prod(specs[name].shape)
        digest.update(f"{name} {specs[name]}".encode())
        for start in (0, size // 2, max(size - _SAMPLE_VALUES, 0)):
            (sample,) = source.read(name, [partial(_sample, start=start)])
            digest.update(sample.tobytes())
    return digest.hexdigest()


def _sample(tensor: Shaped[np.ndarray, "..."], start: int) -> Shaped[np.ndarray, "n"]:
    return tensor.reshape(-1)[start : start + _SAMPLE_VALUES]
