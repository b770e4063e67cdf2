"""Several stages one after another: each starts from the model that the one before has left."""

import contextlib
import dataclasses
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax

from lco_jax.config import PREVIOUS_STAGE, RUN_FOLDER, Stages, TrainConfig
from lco_jax.config.io import ScienceChangedError, check_resumable
from lco_jax.config.run import SOUP_FOLDER
from lco_jax.data.sources.mixture import ExampleStream
from lco_jax.objectives.traits import traits_of
from lco_jax.runtime import mesh as meshes
from lco_jax.runtime import processes
from lco_jax.runtime.locks import only_writer
from lco_jax.train.base import write_merged
from lco_jax.train.loop import Evaluate, TrainResult, train
from lco_jax.train.manifest import base_folder, check_same_run, read_manifest
from lco_jax.train.soup import SOUP_NOTE, write_soup
from lco_jax.weights.identity import base_digest

log = logging.getLogger(__name__)

MODEL_FOLDER = "model"
"""In the run folder of a finished stage: its merged model, a hub folder."""


@dataclass(frozen=True)
class StageResult:
    """How a stage ended."""

    name: str
    workdir: str
    """Its run folder."""
    config: TrainConfig
    """With the path of the model that it started from."""
    result: TrainResult | None
    """None if the stage was complete before."""


def train_stages(
    stages: Stages,
    workdir: str,
    *,
    make_evaluate: Callable[[TrainConfig, str], Evaluate | None] | None = None,
) -> list[StageResult]:
    """Run the stages, or go on where `workdir` stopped.

    Stage NAME is a run of its own in `WORKDIR/NAME`; when it is complete, `WORKDIR/NAME/model`
    holds its merged weights. Complete stages are left as they are. A soup of stages is a model in
    `WORKDIR/soup`.

    Args:
        workdir: a folder that all processes see.
        make_evaluate: gives the evaluation of a stage, from its config and run folder.

    Returns:
        The stages up to the last one, or to the one that a signal stopped.

    Raises:
        ScienceChangedError: a stage was run, or begun, with other settings, data or base weights,
            or the soup is of other stages.
        LockedError: another process trains in `workdir`.
    """
    check_folder(workdir)
    with only_writer(workdir):
        return _train_stages(stages, workdir, make_evaluate)


def _train_stages(
    stages: Stages,
    workdir: str,
    make_evaluate: Callable[[TrainConfig, str], Evaluate | None] | None,
) -> list[StageResult]:
    results = []
    previous = ""
    for stage in stages.stages:
        folder = Path(workdir) / stage.name
        config = start_from(stage.config, previous)
        model = folder / MODEL_FOLDER
        result = None
        if model.exists():
            with processes.all_or_none("complete stage"):
                check_complete(str(folder), config)
            log.info("stage %s is complete: %s", stage.name, model)
        else:
            log.info("stage %s: %s", stage.name, folder)
            with processes.all_or_none("evaluation pairs"):
                evaluate = make_evaluate(config, str(folder)) if make_evaluate else None
            result = train(config, str(folder), evaluate=evaluate)
        results.append(StageResult(stage.name, str(folder), config, result))
        if result is not None:
            if result.stopped_by is not None:
                break
            leave_model(str(folder), config)
        previous = f"{RUN_FOLDER}/../{stage.name}/{MODEL_FOLDER}"
    else:
        if stages.soup is not None:
            _leave_soup(stages, Path(workdir))
    return results


def _leave_soup(stages: Stages, workdir: Path) -> None:
    """Write the soup of complete stages, unless it is there."""
    target = workdir / SOUP_FOLDER
    names = list(stages.soup.of)
    if not target.exists():
        with jax.set_mesh(meshes.make_mesh(stages.stages[0].config.mesh)):
            write_soup([str(workdir / name) for name in names], target)
    there = list(json.loads((target / SOUP_NOTE).read_text())["of"])
    if there != names:
        raise ScienceChangedError(
            f"{target} is the soup of {', '.join(there)}, and the config asks for that of "
            f"{', '.join(names)}; remove it, or choose a new --workdir"
        )
    log.info("soup of %s: %s", ", ".join(names), target)


def check_complete(workdir: str, config: TrainConfig) -> None:
    """Check that a stage is complete with these settings, this base model and these data, as far as
    they are still there.

    Raises:
        ScienceChangedError: one of them is another now.
    """
    old = read_manifest(workdir)
    check_resumable(old.config, config, may_move_model=True)
    fingerprint = base_weights = None
    with contextlib.suppress(FileNotFoundError):
        base_weights = base_digest(base_folder(config.model, workdir), old.base_weights)
    with contextlib.suppress(FileNotFoundError):
        kind = traits_of(config.objective).record_kind
        fingerprint = ExampleStream(config.data, config.seed, kind).fingerprint
    check_same_run(workdir, config, fingerprint, base_weights, old.held_out)


def check_folder(workdir: str) -> None:
    """Raise ValueError unless stages can hand over models in `workdir`."""
    if "://" in workdir:
        raise ValueError(
            f"workdir={workdir} is remote; stages hand over models in a folder of the file system, "
            "mount the bucket and give its path"
        )


def start_from(config: TrainConfig, model: str) -> TrainConfig:
    """The config with `model` in the place of what the stage before leaves."""
    if config.model.path != PREVIOUS_STAGE:
        return config
    return dataclasses.replace(config, model=dataclasses.replace(config.model, path=model))


def leave_model(workdir: str, config: TrainConfig) -> Path:
    """Write the merged model of a complete run beside its checkpoints: the best evaluated one, else
    the last. The folder appears when it is complete.
    """
    target = Path(workdir) / MODEL_FOLDER
    with jax.set_mesh(meshes.make_mesh(config.mesh)):
        write_merged(workdir, target)
    return target
