"""How models are fetched from the hub."""

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
