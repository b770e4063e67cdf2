"""What all processes of a run must have in common before its first step."""

import socket
import time
import uuid
from typing import Any

import jax
from etils import epath

from lco_jax.config import TrainConfig
from lco_jax.config.io import to_json
from lco_jax.runtime import processes
from lco_jax.runtime.disks import writing
from lco_jax.runtime.processes import DisagreementError

_VISIBLE_AFTER_S = 10.0
"""In which a file that one host has written is seen by another, on a network file system."""


def check_same(config: TrainConfig, *, data: str, base_weights: str) -> None:
    """Check that all processes have the same settings, data and base weights.

    Raises:
        DisagreementError: names a host that differs, and both values.
    """
    facts = {"data": data, "base weights": base_weights}
    processes.agree_same(facts | dict(_leaves("", to_json(config))))


def _leaves(path: str, value: Any) -> list[tuple[str, str]]:
    """Every setting of a config and its value, as on the command line."""
    items: Any = value.items() if isinstance(value, dict) else ()
    if isinstance(value, list):
        items = enumerate(value)
    found = [leaf for name, part in items for leaf in _leaves(f"{path}.{name}".strip("."), part)]
    return found or [(path, repr(value))]


def check_shared(workdir: str) -> None:
    """Check that all processes see the same run folder: process 0 writes a file with a name of its
    own, and the others look for it.

    Raises:
        DisagreementError: names a host that does not see it.
    """
    if jax.process_count() == 1:
        return
    folder = epath.Path(workdir)
    name, writer, written = _describe(folder)
    name = processes.gather("run folder name", name)[0]
    file = folder / name
    with processes.all_or_none("run folder"):
        if jax.process_index() == 0:
            with writing(file):
                folder.mkdir(parents=True, exist_ok=True)
                file.write_text(writer)
    seen = _appears(file)
    places = processes.gather("run folder seen", "" if seen else f"{writer} in {written}")
    if jax.process_index() == 0:
        file.unlink()
    origin = processes.gather("run folder origin", f"{writer} wrote into {written}")[0]
    for number, place in enumerate(places):
        if place:
            raise DisagreementError(
                f"workdir={workdir} is not one folder for all processes: process 0 on host "
                f"{origin}, and process {number} on host {place} does not see it; give a folder "
                "that all hosts share, e.g. gs://BUCKET/RUN or one of a network file system"
            )


def _describe(folder: epath.Path) -> tuple[str, str, str]:
    """A name for a file, this host, and the folder in full."""
    whole = str(folder) if "://" in str(folder) else str(folder.resolve())
    return f".start-{uuid.uuid4().hex}", socket.gethostname(), whole


def _appears(file: epath.Path) -> bool:
    deadline = time.monotonic() + _VISIBLE_AFTER_S
    while not file.exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True
