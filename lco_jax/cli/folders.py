"""Folders that programs keep things in; where that is not possible, they go on without."""

import os
from pathlib import Path


def usable(path: Path) -> bool:
    """Whether a folder is there, or can be made, and can be written to."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(path, os.W_OK)
