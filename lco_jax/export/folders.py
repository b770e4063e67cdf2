"""Exports: a folder that other programs read, checked before it appears under its name."""

import importlib.metadata
import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax

from lco_jax.config import MediaConfig, MeshConfig
from lco_jax.embed.open import open_model
from lco_jax.export.card_data import training_record
from lco_jax.export.model_card import write_card
from lco_jax.export.probes import Probes, encode_probes
from lco_jax.export.processors import write_processor
from lco_jax.export.sentence_transformers import prompts_of, update_tokenizer, write_modules
from lco_jax.export.torch_models import quiet
from lco_jax.export.verify import Format, Verification, check_libraries, verify
from lco_jax.models.config import read_config
from lco_jax.models.families import Family
from lco_jax.runtime.disks import replace_text, writing
from lco_jax.runtime.locks import only_writer_of
from lco_jax.runtime.mesh import make_mesh
from lco_jax.train.manifest import is_run_folder, read_manifest
from lco_jax.train.restore import PROFILE_FILE, OpenedModel
from lco_jax.train.soup import average_models
from lco_jax.weights.adapter import save_peft
from lco_jax.weights.hub import save_folder
from lco_jax.weights.joined import is_joined
from lco_jax.weights.tables import TABLES

log = logging.getLogger(__name__)

_PACKAGES = ("jax", "flax", "transformers", "safetensors")


class VerificationError(RuntimeError):
    """torch computes other vectors from an export, or leaves some of its tensors unread."""


def export_model(
    model: str,
    output: str | Path,
    format: Format,
    *,
    soup: Sequence[str] = (),
    checkpoint: int | None = None,
    dtype: str | None = None,
    verified: bool = True,
    mesh: MeshConfig | None = None,
    base_model: str | None = None,
) -> Verification | None:
    """Write a model as a folder that transformers, peft or sentence-transformers loads.

    The folder appears when it is complete and torch has given our vectors from it; one that
    fails is kept as `OUTPUT.failed`.

    Args:
        model: hub folder, hub id, adapter folder or run folder.
        soup: more models, whose weights are averaged with those of `model`.
        checkpoint: step of a run folder (None: the best evaluated one, else the last).
        dtype: of the weights (None: as the run was trained, else bfloat16 on accelerators and
            float32 on CPU). An adapter is always float32.
        verified: whether to reload the folder in torch and compare.
        base_model: hub id of the base model, for the model card (None: its name).

    Returns:
        What was compared, if anything.

    Raises:
        FileNotFoundError: no such model or checkpoint.
        ValueError: the output exists, the model has no such format, or a library is missing.
        DiskError: the disk is full or fails.
        VerificationError: torch reads the folder differently.
        LockedError: another process exports to that place.
    """
    output = Path(output).absolute()
    with only_writer_of(output):
        return _export(model, output, format, soup, checkpoint, dtype, verified, mesh, base_model)


def _export(
    model: str,
    output: Path,
    format: Format,
    soup: Sequence[str],
    checkpoint: int | None,
    dtype: str | None,
    verified: bool,
    mesh: MeshConfig | None,
    base_model: str | None,
) -> Verification | None:
    failed = output.with_name(f"{output.name}.failed")
    for folder in (output, failed):
        if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
            raise ValueError(f"{folder} exists; remove it or choose another --output")
    if verified:
        check_libraries(format)
    draft = output.with_name(f".{output.name}.partial")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        with writing(output):
            draft.mkdir(parents=True)
            written = _write(draft, model, soup, format, checkpoint, dtype, mesh, base_model)
        verification = None
        if verified:
            count = len(written.probes.probes)
            log.info("%s written; encoding %d probes with torch", format, count)
            verification = written.verify(draft)
            if verification.not_compared:
                log.warning("not compared: %s", verification.not_compared)
        with writing(output):
            written.finish(draft, verification)
        failures = verification.failures if verification else []
        draft.rename(failed if failures else output)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    if failures:
        raise VerificationError("\n".join([*failures, f"the export is kept in {failed}"]))
    return verification


@dataclass(frozen=True)
class _Written:
    """What remains known of a model whose weights are on disk and no longer in memory."""

    record: dict[str, Any]
    probes: Probes
    family: Family
    base_folder: Path

    def verify(self, folder: Path) -> Verification:
        """Encode the probes with torch, from the folder alone."""
        with quiet():
            return verify(
                folder,
                self.record,
                family=self.family,
                probes=self.probes,
                base_folder=self.base_folder,
            )

    def finish(self, folder: Path, verification: Verification | None) -> None:
        """Write the export's record and model card."""
        record = {
            **self.record,
            "verification": verification.describe() if verification else None,
        }
        text = json.dumps(record, indent=2, ensure_ascii=False)
        replace_text(folder / PROFILE_FILE, text + "\n")
        write_card(
            folder,
            record,
            family=self.family,
            base_folder=self.base_folder,
        )


def _as_transformers_reads(media: MediaConfig) -> MediaConfig:
    """Of a run; exports that were made of runs are so already."""
    for setting, kinds in (("audio_features", "audio"), ("image_features", "images")):
        if getattr(media, setting) != "all":
            log.warning(
                "transformers reads all features of %s, and so does the export; with "
                "data.media.%s=%s this run's vectors of them are others",
                *(kinds, setting, getattr(media, setting)),
            )
    return replace(media, audio_features="all", image_features="all")


def _write(
    folder: Path,
    model: str,
    soup: Sequence[str],
    format: Format,
    checkpoint: int | None,
    dtype: str | None,
    mesh: MeshConfig | None,
    base_model: str | None,
) -> _Written:
    devices = make_mesh(mesh or MeshConfig())
    with jax.set_mesh(devices):
        run = read_manifest(model).config if is_run_folder(model) else None
        media = _as_transformers_reads(run.data.media) if run else None
        opened = open_model(model, checkpoint=checkpoint, dtype=dtype, media=media)
        if soup:
            others = [open_model(other, dtype=dtype) for other in soup]
            opened = average_models([opened, *others])
        revision = run.model.revision if run else None
        if format == "peft":
            _check_adapter(opened, model)
        probes = encode_probes(opened, devices)
        if format == "peft":
            table = TABLES[opened.config.family]
            base = opened.base_name
            save_peft(folder, opened.lora_params, table, opened.lora, base, revision)
        else:
            save_folder(
                folder,
                opened.params,
                opened.config,
                opened.base_folder,
                dtype=opened.dtype,
                # sentence-transformers has no class for a whole Omni checkpoint.
                thinker_only=format == "sentence-transformers",
            )
            update_tokenizer(folder, padding_side="left")
            if opened.processor.kinds:
                write_processor(folder, opened.processor)
    width = opened.config.text.hidden_size
    if format == "sentence-transformers":
        write_modules(folder, opened.processor, width)
    probes.write_golden(folder)
    record = {
        **opened.processor.describe(),
        "modalities": ["text", *opened.processor.kinds],
        "prompts": prompts_of(opened.processor.prompter, opened.processor.kinds),
        "dimension": width,
        "format": format,
        "dtype": opened.dtype,
        "base_model": base_model or _public_name(opened.base_name),
        "base_revision": revision,
        "run": None if opened.step is None else Path(model).resolve().name,
        "step": opened.step,
        "soup": [Path(name).resolve().name for name in (model, *soup)] if soup else None,
        "lora": asdict(opened.lora) if opened.lora else None,
        "training": training_record(model, run, opened.step) if run else None,
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
    }
    return _Written(record, probes, opened.processor.family, opened.base_folder)


def _public_name(name: str) -> str:
    """The name of a model without the path to it on this machine."""
    return Path(name).resolve().name if Path(name).exists() else name


def _check_adapter(opened: OpenedModel, model: str) -> None:
    if opened.lora is None:
        raise ValueError(
            f"{model} has no low-rank factors to export as an adapter; use --format merged"
        )
    if is_joined(opened.base_folder):
        raise ValueError(
            f"{model} goes on training the adapter {opened.base_name}; an adapter of its own would "
            "need that one, too: use --format merged"
        )
    num_layers = opened.config.text.num_layers
    of_base = read_config(opened.base_folder).text.num_layers
    if num_layers != of_base:
        raise ValueError(
            f"{model} keeps the first {num_layers} of the {of_base} layers of {opened.base_name}; "
            "an adapter would be loaded onto all of them and give other vectors; "
            "use --format merged"
        )
