"""Stages: each starts from what the one before has left, and a killed run goes on in its stage."""

import dataclasses
import json
import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from lco_jax.cli.train import main
from lco_jax.config import (
    PREVIOUS_STAGE,
    CheckpointConfig,
    Contrastive,
    DataConfig,
    Evaluation,
    Full,
    Generative,
    JsonlSource,
    Lora,
    Memory,
    MeshConfig,
    ModelRef,
    Stage,
    Stages,
)
from lco_jax.config.io import ScienceChangedError, to_json
from lco_jax.embed.embedder import Embedder
from lco_jax.export.folders import export_model
from lco_jax.train.manifest import base_folder, read_manifest
from lco_jax.train.metrics import read_metrics
from lco_jax.train.stages import train_stages
from tests import meshes, runs, tiny
from tests.meshes import one_device as one_device

pytestmark = pytest.mark.usefixtures("one_device")

TEXTS = ["a fox", "two women watch a busy market"]


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    """All weights on exchanges, then low-rank factors on triplets."""
    folder = tmp_path_factory.mktemp("checkpoint")
    tiny.write(folder, num_layers=2, tied=False)
    triplets = runs.write_triplets(folder / "triplets.jsonl")
    exchanges = folder / "exchanges.jsonl"
    with exchanges.open("w") as file:
        for line in map(json.loads, triplets.read_text().splitlines()):
            pair = {"prompt": line["anchor"], "response": line["positive"]["text"]}
            file.write(json.dumps(pair) + "\n")
    base = runs.make_config(
        folder,
        triplets,
        data=DataConfig((JsonlSource(str(triplets)),), batch_size=8),
        memory=Memory(row_tokens=(128,)),
        checkpoint=CheckpointConfig(every_steps=2),
        num_steps=4,
    )
    align = dataclasses.replace(
        base,
        model=ModelRef(str(folder), trainable=Full(), dtype="float32"),
        data=DataConfig((JsonlSource(str(exchanges)),), batch_size=8),
        objective=Generative(),
        num_steps=2,
    )
    refine = dataclasses.replace(
        base,
        model=ModelRef(PREVIOUS_STAGE, trainable=Lora(rank=4, alpha=8), dtype="float32"),
        objective=Contrastive(),
        evaluation=Evaluation(base.data.sources[0], every_steps=3, num_pairs=4),
    )
    return Stages((Stage("align", align), Stage("refine", refine)))


class Killed(Exception):
    """Ends a run in the middle of a stage, unsaved."""


def watch(config, workdir):
    return (lambda snapshot: {"mrr": 0.0}) if config.evaluation else None


def die_after_three_steps(config, workdir):
    def evaluate(snapshot):
        if snapshot.step == 3:
            while not os.path.isdir(f"{workdir}/checkpoints/2"):  # saved in the background
                time.sleep(0.05)
            raise Killed
        return {"mrr": 0.0}

    return evaluate if config.evaluation else None


@pytest.fixture(scope="module")
def uninterrupted(stages, one_device, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("stages")
    results = train_stages(stages, str(workdir), make_evaluate=watch)
    assert [stage.result.step for stage in results] == [2, 4]
    return workdir


def losses(workdir):
    return {
        stage: [x["loss"] for x in read_metrics(workdir / stage / "metrics.jsonl") if "loss" in x]
        for stage in ("align", "refine")
    }


@pytest.mark.slow
def test_killed_in_the_second_stage(stages, uninterrupted, tmp_path):
    with pytest.raises(Killed):
        train_stages(stages, str(tmp_path), make_evaluate=die_after_three_steps)
    assert not (tmp_path / "refine" / "model").exists()
    results = train_stages(stages, str(tmp_path), make_evaluate=watch)
    assert results[0].result is None  # it was complete
    assert losses(tmp_path) == losses(uninterrupted)
    assert len(losses(tmp_path)["refine"]) == 4


def embed(model):
    return Embedder(model, dtype="float32", mesh=meshes.make((1, 1, 1))).encode(TEXTS)


def test_each_stage_leaves_a_model(stages, uninterrupted, tmp_path):
    """What the next stage starts from embeds as the run does, and transformers agrees with it."""
    model, first = uninterrupted / "align" / "model", stages.stages[0].config
    run = str(uninterrupted / "refine")
    assert base_folder(read_manifest(run).config.model, run) == model
    base = embed(first.model.path)
    vectors = {}
    for stage in ("align", "refine"):
        run, left = (embed(uninterrupted / stage), embed(uninterrupted / stage / "model"))
        np.testing.assert_allclose(left, run, atol=1e-5)
        vectors[stage] = left
    assert np.abs(vectors["align"] - base).max() > 1e-3
    assert np.abs(vectors["refine"] - vectors["align"]).max() > 1e-3
    for stage in ("align", "refine"):  # the head that the first one trained is handed on
        weights = load_file(uninterrupted / stage / "model" / "model.safetensors")
        head = load_file(Path(first.model.path) / "model.safetensors")["lm_head.weight"]
        assert (weights["lm_head.weight"] != head).any()
    export_model(str(uninterrupted / "refine" / "model"), tmp_path / "merged", "merged")
    with pytest.raises(ValueError, match="no low-rank factors"):
        export_model(str(uninterrupted / "align"), tmp_path / "peft", "peft")


def test_stages_can_be_moved_and_opened_from_anywhere(stages, uninterrupted, tmp_path, monkeypatch):
    expected = embed(uninterrupted / "refine")
    moved = shutil.copytree(uninterrupted, tmp_path / "moved")
    shutil.rmtree(moved / "refine" / "model")
    monkeypatch.chdir(tmp_path)
    # Others of this name lie where they were; what is opened belongs together.
    np.testing.assert_array_equal(embed(Path("moved/refine")), expected)
    results = train_stages(stages, "moved", make_evaluate=watch)
    assert results[1].result.step == 4  # it was complete, and nothing has changed
    assert (moved / "refine" / "model" / "model.safetensors").exists()
    shutil.rmtree(moved / "align")
    with pytest.raises(FileNotFoundError, match="keep the folders of stages together"):
        embed(moved / "refine")


def test_changed_science_of_a_complete_stage_is_refused(stages, uninterrupted):
    first, second = stages.stages
    optimizer = dataclasses.replace(first.config.optimizer, peak_lr=0.5)
    changed = Stage("align", dataclasses.replace(first.config, optimizer=optimizer))
    with pytest.raises(ScienceChangedError, match=r"optimizer\.peak_lr"):
        train_stages(Stages((changed, second)), str(uninterrupted))


def test_the_program_runs_stages_with_overrides(stages, tmp_path, monkeypatch):
    file = tmp_path / "two.py"
    file.write_text(
        "import json\nfrom lco_jax.config.io import from_json\n"
        f"get_config = lambda: from_json(json.loads({json.dumps(to_json(stages))!r}))\n"
    )
    options = ["--align.num-steps", "1", "--refine.num-steps", "1"]
    options += ["--align.optimizer.warmup-steps", "0", "--refine.optimizer.warmup-steps", "0.5"]
    arguments = ["launch/train.py", "--config", str(file), "--workdir", str(tmp_path / "run")]
    monkeypatch.setattr(sys, "argv", [*arguments, *options, "--refine.logging.no-report"])
    assert main() == 0
    assert read_manifest(str(tmp_path / "run" / "refine")).config.num_steps == 1
    assert (tmp_path / "run" / "refine" / "model" / "model.safetensors").exists()
    monkeypatch.setattr(sys, "argv", [*arguments, *options, "--align.optimizer.peak-lr", "0.5"])
    assert main() == 2


def test_bad_stages_are_named(stages):
    first, second = stages.stages
    with pytest.raises(ValueError, match="'refine' is the first"):
        Stages((second,))
    with pytest.raises(ValueError, match="must have different names"):
        Stages((first, first))
    moved = dataclasses.replace(second.config, mesh=MeshConfig(1, -1, 1))
    with pytest.raises(ValueError, match="share one mesh"):
        Stages((first, Stage("refine", moved)))
    with pytest.raises(ValueError, match="lower-case word"):
        Stage("a/b", first.config)
