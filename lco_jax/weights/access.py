"""What names of models look like, and how models are fetched from the hub."""

import re
from pathlib import Path
from typing import Any, NamedTuple


class HubAccess(NamedTuple):
    """What `huggingface_hub` is told beside the name (None: its own settings count)."""

    token: str | bool | None = None
    cache_folder: str | None = None
    local_files_only: bool = False

    def options(self) -> dict[str, Any]:
        """Of `snapshot_download`."""
        options = {"token": self.token, "cache_dir": self.cache_folder}
        options["local_files_only"] = self.local_files_only or None
        return {name: value for name, value in options.items() if value is not None}


def check_name(model: str | Path) -> None:
    """Refuse what can be no model, without asking the hub.

    Raises:
        FileNotFoundError: it is neither a folder nor written like an id of the hub.
    """
    if Path(model).is_dir():
        return
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", str(model)) or str(model).startswith("."):
        raise FileNotFoundError(f"model {str(model)!r} is neither a folder nor a hub id 'ORG/NAME'")
