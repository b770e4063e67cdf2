"""Run folders of earlier revisions: the new code reads their settings, and goes on with them."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from lco_jax.config import RUN_FOLDER
from lco_jax.config.io import check_resumable
from lco_jax.data.sources.mixture import ExampleStream
from lco_jax.lab.recipes import lab_alignment, lab_refinement
from lco_jax.objectives.traits import traits_of
from lco_jax.train.manifest import is_run_folder, read_manifest
from lco_jax.train.stages import start_from

OLDER = Path(__file__).parent / "older"
"""`config.json` of the quickstart's two stages, written before the rooms were moved (a390c38)."""
STAGES = ("align", "refine")


@pytest.fixture(params=STAGES)
def stage(request, tmp_path):
    """A stage's name, its run folder and the config that the same settings are today."""
    shutil.copy(OLDER / f"quickstart_{request.param}.json", tmp_path / "config.json")
    refine = lab_refinement(num_layers=8, num_steps=60, seed=42)
    media = replace(refine.data.media, image_features="all")
    stages = {
        "align": lab_alignment(num_steps=200),
        "refine": replace(refine, data=replace(refine.data, media=media)),
    }
    config = start_from(stages[request.param], f"{RUN_FOLDER}/../align/model")
    return request.param, str(tmp_path), config


def test_settings_are_read_and_are_todays(stage):
    name, folder, config = stage
    assert is_run_folder(folder)
    found = read_manifest(folder).config
    if name == "align":  # its model lies in the home of whoever ran it
        assert Path(found.model.path).name == Path(config.model.path).name
        object.__setattr__(found.model, "path", config.model.path)
    check_resumable(found, config)


def test_the_data_are_the_same(stage):
    _, folder, config = stage
    kind = traits_of(config.objective).record_kind
    manifest = read_manifest(folder)
    found = ExampleStream(config.data, config.seed, kind).fingerprint
    assert found == manifest.data_fingerprint


def test_every_setting_survives(stage):
    _, folder, _ = stage
    content = json.loads((Path(folder) / "config.json").read_text())
    found = read_manifest(folder)
    assert found.prompt == content["prompt"]
    assert found.config.seed == content["config"]["seed"]
    assert (
        found.config.data.media.audio_features
        == (content["config"]["data"]["media"]["sound_features"])
    )
