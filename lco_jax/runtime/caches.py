"""Where programs keep what they can make again."""

import functools
import logging
import os
import tempfile
from pathlib import Path

_log = logging.getLogger(__name__)

_FOLDER = "~/.cache/lco_jax"


def cache_folder() -> Path:
    """`~/.cache/lco_jax`; where there is no home, or none that can be written to, a folder among
    the temporary files, which is then said.
    """
    return _folder_in(os.environ.get("HOME"))


@functools.cache
def _folder_in(home: str | None) -> Path:
    """The same; it is looked for, and said, once for each home."""
    try:
        folder = Path(_FOLDER).expanduser()
        reason = "cannot be written to"
    except RuntimeError:  # no HOME, and nobody knows the user
        folder, reason = None, "there is no home"
    if folder is not None and _is_usable(folder):
        return folder
    instead = Path(tempfile.gettempdir()) / f"lco_jax-{os.getuid()}"
    _log.warning("%s: %s; caches are in %s", folder or _FOLDER, reason, instead)
    return instead


def _is_usable(folder: Path) -> bool:
    """Whether it can be made, or written to if it is there."""
    try:
        there = next(path for path in (folder, *folder.parents) if path.exists())
        return there.is_dir() and os.access(there, os.W_OK | os.X_OK)
    except OSError:
        return False


def expand(path: str | os.PathLike[str]) -> Path:
    """A path whose `~` is the home, and whose `~/.cache/lco_jax` is `cache_folder`."""
    rest = os.fspath(path).removeprefix(_FOLDER)
    if rest != os.fspath(path) and rest[:1] in ("", "/"):
        return cache_folder() / rest.lstrip("/")
    return Path(os.path.expanduser(path))
