"""Exports of models that read the times of frames: every format gives our vectors."""

import json

import pytest

from lco_jax.config import MediaConfig
from lco_jax.export.folders import export_model
from lco_jax.train.restore import PROFILE_FILE
from tests import tiny
from tests.export import runs

MEDIA = MediaConfig(
    image_min_pixels=4 * 32 * 32,
    image_max_pixels=8 * 32 * 32,
    video_min_pixels=4 * 32 * 32,
    video_max_pixels=8 * 32 * 32,
)
KINDS = ("text", "image", "image+text", "video", "video+text", "image+video+text")


@pytest.fixture(
    scope="module", params=["lco", pytest.param("qwen3-vl-embedding", marks=pytest.mark.slow)]
)
def run(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("deep")
    base = tiny.write(folder / "base", "qwen3_vl", num_layers=2, tied=False).folder
    return runs.write(folder / "run", base, profile=request.param, media=MEDIA)


@pytest.mark.parametrize("form", ["merged", "peft", "sentence-transformers"])
def test_every_format(run, form):
    out = run.parent / form
    export_model(str(run), out, form)
    verification = json.loads((out / PROFILE_FILE).read_text())["verification"]
    found = {
        (row["reader"], row["modality"]): row["min_cosine"] for row in verification["comparisons"]
    }
    reader = "peft" if form == "peft" else "transformers"
    expected = {(reader, kind) for kind in KINDS}
    if form == "sentence-transformers":
        expected |= {(form, kind) for kind in KINDS if "video" not in kind}
        assert (
            "videos, because transformers reads them at other sizes"
            in (verification["not_compared"])
        )
    else:
        assert verification["not_compared"] is None
    assert found.keys() == expected
    assert min(found.values()) >= 0.99999
