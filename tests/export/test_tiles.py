"""Exports of models that read images in tiles: every format gives our vectors in its library."""

import json

import pytest
from transformers import LlavaNextProcessor

from lco_jax.data.encode.processor import Processor
from lco_jax.data.records import Item
from lco_jax.export.folders import export_model
from lco_jax.export.processors import write_processor
from lco_jax.models.config import read_config
from lco_jax.train.restore import PROFILE_FILE
from tests import tiny
from tests.data.media_files import encode, random_image
from tests.export import runs

KINDS = ("text", "image", "image+text")


@pytest.fixture(scope="module", params=["lco", pytest.param("e5-v", marks=pytest.mark.slow)])
def run(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiles")
    base = tiny.write(folder / "base", "llava_next", num_layers=2, tied=False).folder
    return runs.write(folder / "run", base, profile=request.param)


def compared(folder):
    """The lowest cosine by reader and modality."""
    verification = json.loads((folder / PROFILE_FILE).read_text())["verification"]
    assert verification["not_compared"] is None
    return {
        (row["reader"], row["modality"]): row["min_cosine"] for row in verification["comparisons"]
    }


@pytest.mark.parametrize(
    "form", [pytest.param("merged", marks=pytest.mark.slow), "peft", "sentence-transformers"]
)
def test_every_format(run, form):
    out = run.parent / form
    export_model(str(run), out, form)
    readers = {"merged": ("transformers",), "peft": ("peft",)}
    readers = readers.get(form, ("transformers", "sentence-transformers"))
    found = compared(out)
    assert found.keys() == {(reader, kind) for reader in readers for kind in KINDS}
    assert min(found.values()) >= 0.99999


def test_older_folders_get_the_settings_that_their_processor_needs(tmp_path):
    base = tiny.write(tmp_path, "llava_next", num_layers=1).folder
    (base / "processor_config.json").unlink()
    ours = Processor(base, read_config(base))
    write_processor(base, ours)
    theirs = LlavaNextProcessor.from_pretrained(base)
    sizes = [(30, 61), (100, 7)]
    images = [random_image(0, size) for size in sizes]
    found = ours.encode([Item(images=(encode(image, "PNG"),)) for image in images])
    # Heights come first there.
    counts = theirs._get_num_multimodal_tokens([size[::-1] for size in sizes]).num_image_tokens
    assert [len(item.media[0].places) for item in found] == counts
