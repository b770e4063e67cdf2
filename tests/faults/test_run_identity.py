"""A run goes on with the weights, data and code that it was begun with, or says with which not."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from lco_jax.config import MeshConfig
from lco_jax.config.io import ScienceChangedError
from lco_jax.data.sources.mixture import ExampleStream
from lco_jax.objectives.traits import traits_of
from lco_jax.runtime.code_digest import code_digest
from lco_jax.train import earlier
from lco_jax.train.earlier import earlier_code
from lco_jax.train.loop import train
from lco_jax.train.manifest import read_manifest, start_or_resume
from lco_jax.train.stages import check_complete
from lco_jax.weights.identity import base_digest
from tests import runs, tiny
from tests.faults.test_identity import flip


@pytest.fixture
def begun(tmp_path):
    """The config of a run that was begun, and its folder."""
    tiny.write(tmp_path / "model", num_layers=1)
    triplets = runs.write_triplets(tmp_path / "triplets.jsonl")
    config = runs.make_config(tmp_path / "model", triplets, mesh=MeshConfig(data=-1))
    workdir = str(tmp_path / "run")
    begin(config, workdir)
    return config, workdir


def begin(config, workdir, **options):
    """What a start writes before its first step."""
    kind = traits_of(config.objective).record_kind
    start_or_resume(
        workdir,
        config,
        data_fingerprint=ExampleStream(config.data, config.seed, kind).fingerprint,
        prompt={},
        base_weights=base_digest(Path(config.model.path)),
        **options,
    )


def with_model(config, path):
    return dataclasses.replace(config, model=dataclasses.replace(config.model, path=str(path)))


def test_other_weights_at_the_same_path_are_refused(begun, tmp_path):
    config, workdir = begun
    flip(tmp_path / "model" / "model.safetensors", -100)
    said = r"model is not the model that the run in .*run started from: its digest was contents "
    for resume in (train, lambda config, workdir: check_complete(workdir, config)):
        with pytest.raises(ScienceChangedError, match=said):
            resume(config, workdir)


def test_the_same_model_at_another_path_goes_on(begun, tmp_path):
    config, workdir = begun
    moved = with_model(config, (tmp_path / "model").rename(tmp_path / "moved"))
    begin(moved, workdir)
    check_complete(workdir, moved)
    assert read_manifest(workdir).config.model.path == str(tmp_path / "moved")
    other = with_model(config, tiny.write(tmp_path / "other", num_layers=1, seed=1).folder)
    for resume in (begin, train, lambda config, workdir: check_complete(workdir, config)):
        with pytest.raises(ScienceChangedError, match="other is not the model that the run in"):
            resume(other, workdir)


def test_a_model_that_is_not_compared_must_be_at_its_place(begun, tmp_path):
    """As of run folders of earlier revisions, which do not say what its contents were."""
    config, workdir = begun
    file = tmp_path / "run" / "config.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"base_weights": None}))
    copy = shutil.copytree(tmp_path / "model", tmp_path / "copy")
    with pytest.raises(ScienceChangedError, match=r"model\.path: "):
        begin(with_model(config, copy), workdir)
    begin(config, workdir)
    assert read_manifest(workdir).base_weights == base_digest(copy)


def test_samples_of_earlier_revisions_are_still_compared(begun, tmp_path):
    config, workdir = begun
    file = tmp_path / "run" / "config.json"
    content = json.loads(file.read_text())
    content["base_weights"] = base_digest(tmp_path / "model", "of a sample")
    file.write_text(json.dumps(content))
    check_complete(workdir, config)
    with (tmp_path / "model" / "tokenizer.json").open("a") as opened:
        opened.write(" ")
    with pytest.raises(ScienceChangedError, match="is not the model that the run in"):
        train(config, workdir)


def test_a_complete_stage_knows_its_data(begun, tmp_path):
    config, workdir = begun
    check_complete(workdir, config)
    data = tmp_path / "triplets.jsonl"
    content = data.read_text()
    data.unlink()
    check_complete(workdir, config)  # nothing to compare with
    data.write_text(content.replace("fox", "dog"))
    with pytest.raises(ScienceChangedError, match=r"the data of the run in .* has changed"):
        check_complete(workdir, config)


def test_other_code_is_told_and_noted(begun, monkeypatch, caplog):
    config, workdir = begun
    first = code_digest()
    assert earlier_code(workdir, lambda: 5) == () and not caplog.text
    monkeypatch.setattr(earlier, "code_digest", lambda: "another")
    assert earlier_code(workdir, lambda: 0) == ()  # no step was taken with it
    found = earlier_code(workdir, lambda: 5)
    assert found == ((5, first),)
    said = f"the first 5 steps of the run in {workdir} were taken by other code (digest {first}, "
    assert said in caplog.text and "go on with revision" in caplog.text
    begin(config, workdir, code=found)
    assert read_manifest(workdir).earlier_code == found
    assert earlier_code(workdir, lambda: 7) == ((5, first), (7, first))


def test_other_libraries_are_named(begun, tmp_path, monkeypatch, caplog):
    _, workdir = begun
    file = tmp_path / "run" / "config.json"
    content = json.loads(file.read_text())
    content["versions"]["tokenizers"] = "0.0.1"
    file.write_text(json.dumps(content | {"code": "of those versions"}))
    assert earlier_code(workdir, lambda: 3) == ((3, "of those versions"),)
    assert "tokenizers 0.0.1 (now " in caplog.text
