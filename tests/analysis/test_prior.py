"""A prior that was trained on the sample is found by the manifests of the runs."""

import dataclasses
import json

import pytest

from lco_jax.analysis.prior import reasons_against, shared_sources
from lco_jax.config import (
    PREVIOUS_STAGE,
    Contrastive,
    JsonlSource,
    TableSource,
    TfdsSource,
    TrainConfig,
)
from lco_jax.config.io import to_json
from lco_jax.train.stages import start_from
from tests import runs


def _write_run(folder, config: TrainConfig):
    folder.mkdir(parents=True)
    content = {"format": "lco_jax run 1", "config": to_json(config), "data_fingerprint": ""}
    content |= {"prompt": {}, "git_revision": None}
    (folder / "config.json").write_text(json.dumps(content))
    return str(folder)


def _config(path: str, *sources) -> TrainConfig:
    config = runs.make_config(path, "unused", objective=Contrastive())
    data = dataclasses.replace(config.data, sources=sources)
    return dataclasses.replace(config, data=data)


def test_earlier_stages_are_followed(tmp_path):
    words, other = TfdsSource("wordnet"), TfdsSource("emoji")
    _write_run(
        tmp_path / "read", _config("Qwen/none", TfdsSource("wordnet", prompt="What?"), other)
    )
    between = start_from(_config(PREVIOUS_STAGE, other), "<run folder>/../read/model")
    _write_run(tmp_path / "name", between)
    last = start_from(_config(PREVIOUS_STAGE, words), "<run folder>/../name/model")
    run = _write_run(tmp_path / "refine", last)
    assert reasons_against(run) == ("the prior was trained on wordnet:train (run read)",)
    assert reasons_against(str(tmp_path / "name")) == (
        "the prior was trained on emoji:train (run read)",
    )
    assert reasons_against(str(tmp_path / "read")) == ()


def test_a_run_that_starts_from_a_run(tmp_path):
    first = _write_run(tmp_path / "first", _config("Qwen/none", TfdsSource("wordnet")))
    second = _write_run(tmp_path / "second", _config("elsewhere", TfdsSource("wordnet")))
    assert reasons_against(second) == ()
    note = tmp_path / "second" / "base_model" / "base_run.json"
    note.parent.mkdir()
    note.write_text(json.dumps({"run": first, "step": 4}))
    assert reasons_against(second) == ("the prior was trained on wordnet:train (run first)",)
    with pytest.raises(ValueError, match="is no run folder"):
        reasons_against(str(tmp_path))


def test_sources_are_the_same_by_name_and_split(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    same = [
        (TfdsSource("wordnet", max_examples=3), TfdsSource("wordnet", weight=2.0)),
        (JsonlSource("a.jsonl"), JsonlSource(str(tmp_path / "a.jsonl"))),
        (TableSource(("b.csv", "a.jsonl")), JsonlSource("a.jsonl")),
    ]
    assert all(len(shared_sources([one], [other])) == 1 for one, other in same)
    assert shared_sources([TfdsSource("wordnet", split="test")], [TfdsSource("wordnet")]) == []
