"""The merged model of a run, as a hub folder: what a stage leaves, and what a run starts from."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from lco_jax.config import ModelRef
from lco_jax.runtime import processes
from lco_jax.runtime.disks import replace_text, writing
from lco_jax.train.manifest import BASE_FOLDER, BASE_NOTE, is_run_folder, read_manifest
from lco_jax.train.restore import PROFILE_FILE, OpenedModel, open_run
from lco_jax.weights.hub import save_folder


def merge_base(ref: ModelRef, workdir: str) -> None:
    """If the model of the run in `workdir` is another run, write what that has trained (its best
    evaluated checkpoint, else its last) into `workdir`: the other run may go on, or go. On the
    mesh that is set; all processes call it.

    Raises:
        FileNotFoundError: the other run has no checkpoint, or not the one that this one started
            from.
        ValueError: `workdir` is remote.
    """
    if not is_run_folder(ref.path) or (Path(workdir) / BASE_FOLDER / BASE_NOTE).exists():
        return
    if "://" in workdir:
        raise ValueError(
            f"workdir={workdir} is remote, and the merged model of the run {ref.path} is kept in a "
            "folder of the file system; mount the bucket and give its path, or export the run and "
            "give the export as --model.path"
        )
    known = read_manifest(workdir).base_run if is_run_folder(workdir) else None
    write_merged(
        ref.path, Path(workdir) / BASE_FOLDER, checkpoint=known and known["step"], noted=True
    )


def base_run_of(folder: Path) -> dict[str, Any] | None:
    """Which run and step a model folder was merged from (None: it was not)."""
    note = folder / BASE_NOTE
    return json.loads(note.read_text()) if note.exists() else None


def write_merged(
    run: str, target: Path, *, checkpoint: int | None = None, noted: bool = False
) -> None:
    """Write the merged model of a run, which appears when it is complete; all processes call it.

    Args:
        checkpoint: step (None: the best evaluated one, else the last).
        noted: write beside it which run and step it is.
    """
    opened = open_run(run, checkpoint=checkpoint)
    note = {BASE_NOTE: {"run": run, "step": opened.step}}
    write_model(opened, target, note if noted else {})


def write_model(
    opened: OpenedModel, target: Path, notes: Mapping[str, dict[str, Any]] | None = None
) -> None:
    """Write a model with its recipe as a hub folder, which appears when it is complete; all
    processes call it, on the mesh that is set.

    Args:
        notes: what else is written beside it, as JSON by file name.
    """
    draft = target.with_name(f".{target.name}.partial")
    writes = jax.process_index() == 0
    if writes:
        shutil.rmtree(draft, ignore_errors=True)
    num_bytes = sum(x.nbytes for x in jax.tree.leaves(opened.params))
    with writing(target, num_bytes):
        save_folder(draft, opened.params, opened.config, opened.base_folder, dtype=opened.dtype)
        if writes:
            recipe = json.dumps(opened.processor.describe(), indent=2, ensure_ascii=False)
            replace_text(draft / PROFILE_FILE, recipe + "\n")
            for name, note in (notes or {}).items():
                replace_text(draft / name, json.dumps(note) + "\n")
            draft.rename(target)
    processes.wait_for_all(str(target))
