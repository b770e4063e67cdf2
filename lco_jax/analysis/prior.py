"""Whether the prior of the bound is independent of the sample: what the model was trained on that a
run starts from.

Manifests are followed from run to run. What a model of the hub was trained on, nobody knows, and a
file under another name is another source.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from lco_jax.config import RUN_FOLDER, JsonlSource, Source, TfdsSource
from lco_jax.train.base import base_run_of
from lco_jax.train.manifest import BASE_FOLDER, is_run_folder, read_manifest


def reasons_against(workdir: str) -> tuple[str, ...]:
    """Why Theorem 1 does not cover a run: one reason for each earlier run on the same sources.

    Raises:
        ValueError: `workdir` is no run folder.
    """
    if not is_run_folder(workdir):
        raise ValueError(f"{workdir} is no run folder; its prior cannot be looked up")
    own = read_manifest(workdir).config.data.sources
    reasons = []
    for earlier in _runs_before(workdir):
        shared = shared_sources(own, read_manifest(earlier).config.data.sources)
        if shared:
            names = ", ".join(shared)
            reasons.append(f"the prior was trained on {names} (run {Path(earlier).name})")
    return tuple(reasons)


def shared_sources(first: Iterable[Source], second: Iterable[Source]) -> list[str]:
    """The sources that are in both by name, whatever is asked about them and how much is read."""
    others = {name for source in second for name in _names(source)}
    return sorted({name for source in first for name in _names(source)} & others)


def _runs_before(workdir: str) -> Iterable[str]:
    """The runs whose merged models a run starts from, one after another."""
    while True:
        path = read_manifest(workdir).config.model.path
        note = base_run_of(Path(workdir) / BASE_FOLDER)
        if note is not None:
            workdir = note["run"]
        elif path.startswith(RUN_FOLDER):
            # The folder of the model lies in that of its run.
            model = os.path.normpath(f"{workdir}{path.removeprefix(RUN_FOLDER)}")
            workdir = str(Path(model).parent)
        else:
            workdir = path
        if not is_run_folder(workdir):
            return
        yield workdir


def _names(source: Source) -> tuple[str, ...]:
    if isinstance(source, TfdsSource):
        return (f"{source.name}:{source.split}",)
    if isinstance(source, JsonlSource):
        return (os.path.abspath(source.path),)
    return tuple(map(os.path.abspath, source.paths))
