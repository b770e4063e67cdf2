"""Folders that programs keep things in; where that is not possible, they go on without."""

import logging
import os
from pathlib import Path

from lco_jax.runtime.caches import expand

log = logging.getLogger(__name__)


def usable(path: Path, otherwise: str, option: str) -> Path | None:
    """A folder that is there, or can be made, and can be written to; a warning where it cannot.

    Args:
        otherwise: what the program then goes on without.
        option: of the command line, which names another folder.
    """
    path = expand(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        writable = os.access(path, os.W_OK)
    except OSError:
        writable = False
    if writable:
        return path
    log.warning(
        "%s cannot be written to: %s; choose another folder with %s", path, otherwise, option
    )
    return None


def kept_vectors(path: Path) -> Path | None:
    """The folder of known vectors of a search, if it can be used."""
    return usable(path, "vectors are not kept, and another search encodes all again", "--cache")
