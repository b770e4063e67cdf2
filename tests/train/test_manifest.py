"""What a run may go on with, by its manifest alone: nothing is trained."""

import dataclasses
import json

import pytest

from lco_jax.config import DataConfig, Evaluation, TableSource, TrainConfig
from lco_jax.config.io import ScienceChangedError
from lco_jax.data.sources.mixture import ExampleStream
from lco_jax.train.earlier import earlier_on_error
from lco_jax.train.held_out import held_out_of
from lco_jax.train.manifest import read_manifest, start_or_resume
from tests import runs

PAIRS = "anchor,positive\na,b\nc,d\n"


@pytest.fixture
def config(tmp_path, monkeypatch) -> TrainConfig:
    """Of a run whose held-out pairs are in `held_out.csv`, in the present folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "held_out.csv").write_text(PAIRS)
    runs.write_triplets(tmp_path / "triplets.jsonl")
    config = runs.make_config(tmp_path / "model", tmp_path / "triplets.jsonl")
    return dataclasses.replace(config, evaluation=Evaluation(TableSource(("held_out.csv",))))


def go_on(config, **changes):
    """Start the run in `run`, or go on with it."""
    given = {"data_fingerprint": "a", "prompt": {}, "held_out": held_out_of(config.evaluation)}
    start_or_resume("run", config, **given | changes)


def measured_on(config, *paths, **changes):
    evaluation = dataclasses.replace(config.evaluation, source=TableSource(paths), **changes)
    return dataclasses.replace(config, evaluation=evaluation)


def test_other_held_out_data_are_refused(config, tmp_path):
    go_on(config)
    (tmp_path / "other.csv").write_text(PAIRS.replace("d", "e"))
    other = r"evaluation\.source \(\['other.csv'\]\): '2 pairs .*--eval-data.*new --workdir"
    with pytest.raises(ScienceChangedError, match=f"(?s){other}"):
        go_on(measured_on(config, "other.csv"))
    go_on(dataclasses.replace(config, evaluation=None))  # not measured for a while
    with pytest.raises(ScienceChangedError, match=f"(?s){other}"):
        go_on(measured_on(config, "other.csv"))
    with pytest.raises(ScienceChangedError, match="now"):
        go_on(measured_on(config, "held_out.csv", num_pairs=1))
    turned = TableSource(("held_out.csv",), (("positive", "anchor"), ("anchor", "positive")))
    evaluation = dataclasses.replace(config.evaluation, source=turned)
    with pytest.raises(ScienceChangedError, match=r"evaluation\.source\.columns"):
        go_on(dataclasses.replace(config, evaluation=evaluation))
    (tmp_path / "held_out.csv").write_text(PAIRS.replace("d", "e"))
    with pytest.raises(ScienceChangedError, match=r"evaluation\.source"):
        go_on(config)


def test_held_out_data_may_be_evaluated_at_other_times_and_found_elsewhere(config, tmp_path):
    go_on(dataclasses.replace(config, evaluation=None))
    go_on(config)
    go_on(measured_on(config, "held_out.csv", every_steps=3, metric="recall@1", num_pairs=100))
    (tmp_path / "moved.csv").write_text(PAIRS)
    go_on(measured_on(config, "moved.csv"))


def test_the_same_data_by_another_path(config, tmp_path):
    (tmp_path / "tr; order ").mkdir()
    (tmp_path / "my.csv").write_text(PAIRS)
    (tmp_path / "tr; order " / "mine.csv").write_text(PAIRS)

    def go_on_with(*paths, **settings):
        data = DataConfig((TableSource(paths, **settings),), batch_size=2)
        fingerprint = ExampleStream(data, 0).fingerprint
        go_on(dataclasses.replace(config, data=data), data_fingerprint=fingerprint)

    go_on_with("my.csv")
    go_on_with("tr; order /mine.csv")
    go_on_with("m?.csv")
    with pytest.raises(ScienceChangedError, match=r"data\.sources\.0\.media_root: None"):
        go_on_with("my.csv", media_root="photos")
    (tmp_path / "my.csv").write_text(PAIRS.replace("d", "e"))
    with pytest.raises(ScienceChangedError, match="the data of the run in run has changed"):
        go_on_with("my.csv")


def test_an_older_run_is_compared_by_its_settings(config, tmp_path):
    go_on(config)
    file = tmp_path / "run" / "config.json"
    content = json.loads(file.read_text())
    del content["held_out"]
    file.write_text(json.dumps(content))
    (tmp_path / "other.csv").write_text(PAIRS)
    with pytest.raises(ScienceChangedError, match=r"evaluation\.source\.paths.0: 'held_out.csv'"):
        go_on(measured_on(config, "other.csv"))
    go_on(config)
    assert "contents" in json.loads(file.read_text())["held_out"]


def test_damaged_files_may_be_skipped_from_some_step_on(config):
    go_on(config)
    media = dataclasses.replace(config.data.media, on_error="skip")
    skipping = dataclasses.replace(config, data=dataclasses.replace(config.data, media=media))
    go_on(skipping, on_error=earlier_on_error("run", skipping, lambda: 4))
    assert read_manifest("run").earlier_on_error == ((4, "raise"),)
    go_on(skipping, on_error=earlier_on_error("run", skipping, lambda: 5))
    go_on(config, on_error=earlier_on_error("run", config, lambda: 6))
    assert read_manifest("run").earlier_on_error == ((4, "raise"), (6, "skip"))
    media = dataclasses.replace(media, image_min_pixels=1)
    with pytest.raises(ScienceChangedError, match=r"data\.media\.image_min_pixels"):
        go_on(dataclasses.replace(config, data=dataclasses.replace(config.data, media=media)))
