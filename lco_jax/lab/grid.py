"""Trains and measures a grid of generative budgets, cell by cell, and the arms at its end.

    OUTPUT/models/seed0/                  where the cells of a seed start, if weights are random
    OUTPUT/cells/steps00400-seed0/        generate/ and refine/ (runs), cell.json
    OUTPUT/arms/NAME/                     refine/ (a run) or model/ (a soup), arm.json

A folder with its JSON file is complete and not run again; a run that was stopped goes on.
"""

import dataclasses
import json
import logging
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from lco_jax.config import PREVIOUS_STAGE, SCIENCE, Soup, Stage, Stages, TrainConfig
from lco_jax.config.io import to_json, with_names_of_today
from lco_jax.data.records import Triplet
from lco_jax.data.sources.open import open_source
from lco_jax.embed.embedder import Embedder
from lco_jax.lab.abilities import bound_terms, generation, representation
from lco_jax.lab.fresh import write_fresh
from lco_jax.lab.grid_config import Arm, FreshModel, ScalingGrid
from lco_jax.lab.info_nce import Encode
from lco_jax.lab.projection import train_projection
from lco_jax.report.page import write_whole
from lco_jax.report.wording import trainable_in_words
from lco_jax.runtime.mesh import make_mesh
from lco_jax.train.loop import train
from lco_jax.train.manifest import base_folder
from lco_jax.train.soup import write_soup
from lco_jax.train.stages import MODEL_FOLDER, train_stages

log = logging.getLogger(__name__)

Record = dict[str, Any]


def run_cells(grid: ScalingGrid, folder: Path) -> list[Record]:
    """The records of all cells, trained and measured where they are not yet.

    Raises:
        ValueError: the folder holds a cell with other settings.
        InterruptedError: a signal stopped a run; it is saved, and the same call goes on.
    """
    cells = [(budget, seed) for seed in grid.seeds for budget in grid.budgets]
    records = [_run_cell(grid, folder, budget, seed) for budget, seed in cells]
    return sorted(records, key=lambda record: (record["budget"], record["seed"]))


def run_arms(grid: ScalingGrid, folder: Path) -> list[Record]:
    """The records of all arms, each from the model of the largest budget and the first seed.

    Raises:
        ValueError, InterruptedError: as `run_cells`.
        FileNotFoundError: that cell has not been run.
    """
    cell = folder / "cells" / cell_name(max(grid.budgets), grid.seeds[0])
    start = cell / "generate" / MODEL_FOLDER
    if grid.arms and not start.exists():
        raise FileNotFoundError(f"{start} is absent; run the cells first")
    return [_run_arm(grid, arm, folder / "arms", start) for arm in grid.arms]


def cell_name(budget: int, seed: int) -> str:
    """The folder of a cell."""
    return f"steps{budget:05d}-seed{seed}"


def _run_cell(grid: ScalingGrid, folder: Path, budget: int, seed: int) -> Record:
    own = folder / "cells" / cell_name(budget, seed)
    stages = _stages(grid, _start(grid, folder, seed), budget, seed)
    settings = to_json((stages, grid.abilities, grid.prior_std))
    done = _read(own / "cell.json", settings)
    if done is not None:
        return done
    started = time.process_time()
    results = train_stages(stages, str(own))
    _check_complete(results[-1].result)
    last = results[-1].config
    refined = str(own / "refine")
    before = str(base_folder(last.model, refined))
    generated = generation(before, grid)
    encode = _encoder(refined, grid)
    record = {
        "name": own.name,
        "budget": budget,
        "seed": seed,
        "generation": generated,
        "before": representation(_encoder(before, grid), grid.abilities),
        "after": representation(encode, grid.abilities),
        "bound": bound_terms(encode, refined, last, grid, generated),
        "cpu_seconds": time.process_time() - started,
    }
    _write(own / "cell.json", record, settings)
    log.info("%s: %s", own.name, _describe(record, grid))
    return record


def _start(grid: ScalingGrid, folder: Path, seed: int) -> str:
    """The model that the cells of a seed start from."""
    if isinstance(grid.model, str):
        return grid.model
    target = folder / "models" / f"seed{seed}"
    if not target.exists():
        draft = target.with_name(f".{target.name}.partial")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        write_fresh(draft, grid.model, _texts(grid.model), seed=seed)
        draft.rename(target)
    return str(target)


def _texts(model: FreshModel) -> list[str]:
    texts = []
    for source in model.texts:
        triplets: Sequence[Triplet] = open_source(source).records
        for index in range(len(triplets)):
            triplet = triplets[index]
            items = (triplet.anchor, triplet.positive, *triplet.negatives)
            texts += [item.text for item in items if item.text]
    return texts


def _stages(grid: ScalingGrid, start: str, budget: int, seed: int) -> Stages:
    refine = _at(grid.refine, PREVIOUS_STAGE if budget else start, seed)
    if not budget:
        return Stages((Stage("refine", refine),))
    generate = dataclasses.replace(_at(grid.generate, start, seed), num_steps=budget)
    return Stages((Stage("generate", generate), Stage("refine", refine)))


def _at(config: TrainConfig, path: str, seed: int | None = None) -> TrainConfig:
    model = dataclasses.replace(config.model, path=path)
    return dataclasses.replace(config, model=model, seed=config.seed if seed is None else seed)


# --------------------------------------------------------------------------------------- arms


def _run_arm(grid: ScalingGrid, arm: Arm, folder: Path, start: Path) -> Record:
    own = folder / _slug(arm.name)
    settings = to_json((arm, str(start), grid.abilities))
    done = _read(own / "arm.json", settings)
    if done is not None:
        return done
    started = time.process_time()
    encode = _train_arm(grid, arm, own, folder, str(start))
    record = {
        "name": arm.name,
        "what": _what(arm),
        "after": representation(encode, grid.abilities),
        "cpu_seconds": time.process_time() - started,
    }
    _write(own / "arm.json", record, settings)
    log.info("arm %s is done", arm.name)
    return record


def _slug(name: str) -> str:
    return name.replace(" ", "-")


def _train_arm(grid: ScalingGrid, arm: Arm, own: Path, folder: Path, start: str) -> Encode:
    if isinstance(arm.refine, Soup):
        if not (own / MODEL_FOLDER).exists():
            runs = [str(folder / _slug(name) / "refine") for name in arm.refine.of]
            with jax.set_mesh(make_mesh(grid.refine.mesh)):
                write_soup(runs, own / MODEL_FOLDER)
        return _encoder(str(own / MODEL_FOLDER), grid)
    config = _at(arm.refine, start)
    if arm.projection is not None:
        encode = _encoder(start, grid)
        with jax.set_mesh(make_mesh(config.mesh)):
            matrix = train_projection(encode, config)
        return lambda items: encode(items) @ matrix
    _check_complete(train(config, str(own / "refine")))
    return _encoder(str(own / "refine"), grid)


def _what(arm: Arm) -> str:
    """An arm in words, for its row of the table."""
    if isinstance(arm.refine, Soup):
        return f"mean weights of {' and '.join(arm.refine.of)}"
    if arm.projection is not None:
        return "a matrix behind frozen vectors"
    return trainable_in_words(arm.refine.model.trainable)


# ------------------------------------------------------------------------------------- common


def _encoder(model: str, grid: ScalingGrid) -> Encode:
    embedder = Embedder(
        model, media=grid.generate.data.media, dtype="float32", mesh=grid.refine.mesh
    )
    return embedder.encode


def _check_complete(result: Any) -> None:
    if result is not None and result.stopped_by is not None:
        raise InterruptedError(f"saved after step {result.step}; run again to go on")


def _read(file: Path, settings: Any) -> Record | None:
    if not file.exists():
        return None
    content = json.loads(file.read_text())
    if _science(with_names_of_today(content.pop("settings"))) != _science(settings):
        raise ValueError(
            f"{file} was measured with other settings; set them back, or choose another --output"
        )
    return content


def _science(settings: Any) -> Any:
    """Settings without those fields of runs that change no number, and without what is not set:
    records stay valid when a setting is added that is off unless asked for."""
    if isinstance(settings, list):
        return [_science(member) for member in settings]
    if not isinstance(settings, dict):
        return settings
    names = ("type", *SCIENCE) if settings.get("type") == "TrainConfig" else tuple(settings)
    return {name: _science(settings[name]) for name in names if settings.get(name) is not None}


def _write(file: Path, record: Record, settings: Any) -> None:
    content = {**record, "settings": _science(settings)}
    write_whole(file, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _describe(record: Record, grid: ScalingGrid) -> str:
    return ", ".join(
        f"{ability.name} {record['generation'][ability.name]['nats_per_token']:.3f} nats a token, "
        f"MRR {record['after'][ability.name]['mrr']:.3f}"
        for ability in grid.abilities
    )
