"""`config.json` of a run folder: what was run, with which data, prompt, versions and code."""

import importlib.metadata
import json
import logging
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
from etils import epath

from lco_jax.config import RUN_FOLDER, ModelRef, TrainConfig
from lco_jax.config.io import ScienceChangedError, check_resumable, from_json, to_json
from lco_jax.data.sources.mixture import is_same_sequence
from lco_jax.models.adapter_config import is_adapter, local_base, read_adapter_config
from lco_jax.models.json_files import read_object
from lco_jax.runtime.code_digest import code_digest
from lco_jax.runtime.code_digest import versions as library_versions
from lco_jax.runtime.disks import replace_text, writing
from lco_jax.train.held_out import check_same_held_out, settings_of
from lco_jax.weights.access import HubAccess
from lco_jax.weights.resolve import resolve_folder

BASE_FOLDER = "base_model"
"""In a run folder: the merged model of the run that this one starts from."""
BASE_NOTE = "base_run.json"
"""In that folder: which run and step it is."""

log = logging.getLogger(__name__)

_FORMAT = "lco_jax run 1"


@dataclass(frozen=True)
class Manifest:
    """What a run folder says about itself."""

    config: TrainConfig
    data_fingerprint: str
    prompt: dict[str, Any]
    git_revision: str | None
    """None where the code was in no repository."""
    base_weights: str | None = None
    """Digest of the model that the run starts from; None in run folders of earlier revisions."""
    base_run: dict[str, Any] | None = None
    """The run whose merged model it starts from, and the step of that (None: it is no run)."""
    held_out: dict[str, Any] | None = None
    """What it was measured on, also where it no longer is (see `held_out.held_out_of`)."""
    earlier: tuple[tuple[int, int], ...] = ()
    """What lengths it had before: until which step, and of how many steps."""
    earlier_on_error: tuple[tuple[int, str], ...] = ()
    """What `data.media.on_error` was before: until which step, and the value."""
    code: str | None = None
    """Digest of the code that goes on with it; None in run folders of earlier revisions."""
    earlier_code: tuple[tuple[int, str], ...] = ()
    """The code that took steps before: until which one, and its digest."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of libraries."""

    def num_steps(self, steps_per_epoch: int) -> int:
        """Of the whole run."""
        return self.config.num_steps or self.config.num_epochs * steps_per_epoch


def versions() -> dict[str, str]:
    """Of libraries that a run depends on."""
    others = {name: importlib.metadata.version(name) for name in ("orbax-checkpoint", "grain")}
    return library_versions() | others


def is_run_folder(path: str) -> bool:
    """Whether `path` holds a run of ours (and not a hub folder)."""
    file = epath.Path(path) / "config.json"
    return file.exists() and read_object(file).get("format") == _FORMAT


def read_manifest(workdir: str) -> Manifest:
    """The manifest of a run folder."""
    content = read_object(epath.Path(workdir) / "config.json")
    config = from_json(content["config"])
    return Manifest(
        config,
        content["data_fingerprint"],
        content["prompt"],
        content["git_revision"],
        content.get("base_weights"),
        content.get("base_run"),
        content.get("held_out") or settings_of(config.evaluation),
        tuple((until, length) for until, length in content.get("earlier_lengths", ())),
        tuple((until, value) for until, value in content.get("earlier_on_error", ())),
        content.get("code"),
        tuple((until, code) for until, code in content.get("earlier_code", ())),
        content.get("versions", {}),
    )


def base_folder(ref: ModelRef, workdir: str, access: HubAccess | None = None) -> Path:
    """The folder of the model that the run in `workdir` starts from.

    Raises:
        FileNotFoundError: neither a folder nor a model that the hub (or its cache) gives.
    """
    merged = Path(workdir) / BASE_FOLDER
    if (merged / BASE_NOTE).exists():
        return merged
    if is_run_folder(ref.path):
        raise FileNotFoundError(
            f"the run in {workdir} starts from the run {ref.path}, whose merged model is not in "
            f"{merged}; start the training again, which writes it"
        )
    if not ref.path.startswith(RUN_FOLDER):
        return resolve_folder(ref.path, ref.revision, access)
    folder = Path(os.path.normpath(f"{workdir}{ref.path.removeprefix(RUN_FOLDER)}"))
    if not folder.is_dir():
        raise FileNotFoundError(
            f"the run in {workdir} starts from {folder}, which is gone; keep the folders of stages "
            "together"
        )
    return folder


def underlying(ref: ModelRef) -> ModelRef:
    """The hub model that has the sizes and the tokenizer of a model: itself, what a run trains, or
    what an adapter refines.

    Raises:
        FileNotFoundError: what the run trains is gone.
        ValueError: an adapter that is not supported.
    """
    while is_run_folder(ref.path):
        workdir, own = ref.path, read_manifest(ref.path).config.model
        layers = [n for n in (own.num_layers, ref.num_layers) if n is not None]
        merged = Path(workdir) / BASE_FOLDER
        path = own.path
        if path.startswith(RUN_FOLDER) or (merged / BASE_NOTE).exists():
            path = str(base_folder(own, workdir))
        least = min(layers, default=None)
        ref = replace(ref, path=path, revision=own.revision, num_layers=least)
    if is_adapter(Path(ref.path)):
        settings = read_adapter_config(Path(ref.path))
        base = local_base(Path(ref.path), settings) or settings.base_model_name_or_path
        ref = replace(ref, path=str(base), revision=settings.revision)
    return ref


def start_or_resume(
    workdir: str,
    config: TrainConfig,
    *,
    data_fingerprint: str,
    prompt: dict[str, Any],
    base_weights: str | None = None,
    base_run: dict[str, Any] | None = None,
    held_out: dict[str, Any] | None = None,
    earlier: Sequence[tuple[int, int]] = (),
    on_error: Sequence[tuple[int, str]] = (),
    code: Sequence[tuple[int, str]] = (),
) -> None:
    """Write the manifest of a new run, or check that this is the run that the folder holds.

    Args:
        base_run: the run that it starts from, and the step of that.
        held_out: what it is measured on (see `held_out.held_out_of`).
        earlier: the lengths that the run had before.
        on_error: what `data.media.on_error` was before.
        code: what took steps before.

    Raises:
        ScienceChangedError: the folder's run has other settings, data or base weights.
    """
    file = epath.Path(workdir) / "config.json"
    resumes = check_same_run(workdir, config, data_fingerprint, base_weights, held_out)
    if jax.process_index() != 0:
        return
    if held_out is None and resumes:
        held_out = read_manifest(workdir).held_out
    content = {
        "format": _FORMAT,
        "config": to_json(config),
        "data_fingerprint": data_fingerprint,
        "base_weights": base_weights,
        "base_run": base_run,
        "held_out": held_out,
        "earlier_lengths": [list(pair) for pair in earlier],
        "earlier_on_error": [list(pair) for pair in on_error],
        "prompt": prompt,
        "code": code_digest(),
        "earlier_code": [list(pair) for pair in code],
        "versions": versions(),
        "git_revision": git_revision(),
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
    }
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    replace_text(file, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def check_same_run(
    workdir: str,
    config: TrainConfig,
    data_fingerprint: str | None,
    base_weights: str | None = None,
    held_out: dict[str, Any] | None = None,
    *,
    places_vary: bool = False,
) -> bool:
    """Whether the folder holds a run, which then must be this one, of any length.

    Args:
        data_fingerprint: None if the data are not known.
        base_weights: digest of the model that it starts from (None: not known).
        held_out: what it is measured on (None: by the settings of `config` alone).
        places_vary: leave it to a later call with `base_weights` whether the model is the same.

    Raises:
        ScienceChangedError: it has other settings, data, base weights or held-out data.
    """
    file = epath.Path(workdir) / "config.json"
    if not file.exists():
        return False
    if not is_run_folder(workdir):
        raise ValueError(f"{file} is not of a run; choose another --workdir")
    old = read_manifest(workdir)
    moved = places_vary or None not in (old.base_weights, base_weights)
    if (epath.Path(workdir) / BASE_FOLDER / BASE_NOTE).exists():
        moved = False  # of another run, whose model is kept here whatever the path says
    check_resumable(old.config, config, may_change_length=True, may_move_model=moved)
    check_same_held_out(workdir, old.held_out, held_out or settings_of(config.evaluation))
    if data_fingerprint is not None and not is_same_sequence(
        old.data_fingerprint, data_fingerprint
    ):
        raise ScienceChangedError(
            f"the data of the run in {workdir} has changed: its fingerprint was "
            f"{old.data_fingerprint} and is {data_fingerprint} now; restore the data or choose "
            "a new --workdir"
        )
    if None not in (old.base_weights, base_weights) and old.base_weights != base_weights:
        raise ScienceChangedError(
            f"{config.model.path} is not the model that the run in {workdir} started from: its "
            f"digest was {old.base_weights} and is {base_weights} now; restore it or choose a "
            "new --workdir"
        )
    return True


def git_revision() -> str | None:
    """The commit of this code, with `-dirty` if files differ from it; None outside a repository."""
    folder = epath.Path(__file__).parent
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()
