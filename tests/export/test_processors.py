"""Settings of processors in exports: those by which the model read images, wherever they stand."""

import json

import pytest
from transformers import Qwen2VLImageProcessorPil

from lco_jax.data.encode.processor import Processor
from lco_jax.export.processors import write_processor
from lco_jax.models.config import read_config
from tests import tiny

OWN = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
OTHER = {"image_mean": [0.7, 0.7, 0.7]}


@pytest.mark.parametrize(
    "files",
    [
        {"preprocessor_config.json": OWN},
        {"processor_config.json": OWN},
        {"processor_config.json": {"image_processor": OWN}},
        {"processor_config.json": {"image_processor": OWN}, "preprocessor_config.json": OTHER},
        {
            "processor_config.json": {"feature_extractor": {"feature_size": 128, "n_fft": 400}},
            "preprocessor_config.json": OWN | {"chunk_length": 30},
        },
    ],
    ids=["old", "flat", "nested", "both", "audio in the joint file"],
)
def test_statistics_are_those_of_the_model(tmp_path, files):
    folder = tiny.write(tmp_path, "qwen2_5_omni_thinker", num_layers=1).folder
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    processor = Processor(folder, read_config(folder))
    image = processor._tower_media.settings[0]
    assert [list(image.mean), list(image.std)] == [OWN["image_mean"], OWN["image_std"]]
    write_processor(folder, processor)
    again = Processor(folder, read_config(folder))._tower_media.settings[0]
    assert (again.mean, again.std) == (image.mean, image.std)
    theirs = Qwen2VLImageProcessorPil.from_pretrained(folder)
    assert {name: list(getattr(theirs, name)) for name in OWN} == OWN
    for name in ("preprocessor_config.json", "video_preprocessor_config.json"):
        written = json.loads((folder / name).read_text())
        assert {key: written[key] for key in OWN} == OWN
    assert not (folder / "processor_config.json").exists()


def test_statistics_that_only_the_unread_file_has_are_not_written(tmp_path):
    """Where the joint file speaks of images, transformers does not look into the other."""
    folder = tiny.write(tmp_path, "qwen2_5_omni_thinker", num_layers=1).folder
    (folder / "processor_config.json").write_text(
        json.dumps({"image_processor": {"patch_size": 14}})
    )
    (folder / "preprocessor_config.json").write_text(json.dumps(OTHER | {"chunk_length": 30}))
    before = Processor(folder, read_config(folder))
    write_processor(folder, before)
    after = Processor(folder, read_config(folder))
    assert after._tower_media.settings == before._tower_media.settings
    written = json.loads((folder / "preprocessor_config.json").read_text())
    assert "image_mean" not in written and written["chunk_length"] == 30
