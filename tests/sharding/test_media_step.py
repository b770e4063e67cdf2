"""A training step with pictures is the same on every mesh, with any chunking, on two processes."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from lco_jax.config import DataConfig, JsonlSource, MediaConfig, Memory
from tests import meshes, runs, tiny
from tests.sharding.test_step import run_processes, same

EVEN_TILES = tiny.TILES | {"num_attention_heads": 4, "hidden_size": 32}
MEDIA = MediaConfig(image_min_pixels=28 * 28, image_max_pixels=16 * 28 * 28)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("qwen2_5_vl", marks=pytest.mark.slow),
        "qwen2_5_omni_thinker",
        pytest.param("llava_next", marks=pytest.mark.slow),
        pytest.param("qwen3_vl", marks=pytest.mark.slow),
    ],
)
def config(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    vision = {"llava_next": EVEN_TILES, "qwen3_vl": tiny.EVEN_FRAMES}
    vision = vision.get(request.param, tiny.DEEP_TOWER)
    longest = 256 if request.param == "llava_next" else 128
    tiny.write(folder, request.param, num_kv_heads=4, vision=vision)
    with_sounds = "omni" in request.param
    triplets = runs.write_media_triplets(folder / "triplets.jsonl", with_sounds=with_sounds)
    source = JsonlSource(str(triplets))
    return runs.make_config(
        folder,
        triplets,
        data=DataConfig(sources=(source,), batch_size=16, media=MEDIA),
        memory=Memory(row_tokens=(64, longest), frame_rows=(256, 512)),
    )


@pytest.fixture(scope="module")
def plain(config):
    return runs.run_steps(config, meshes.make((1, 1, 1)))


@pytest.mark.parametrize("sizes", meshes.ALL_AXES, ids=str)
def test_meshes(config, plain, sizes):
    same(runs.run_steps(config, meshes.make(sizes)), plain)


@pytest.mark.slow
@pytest.mark.parametrize("chunks", [2, 4])
def test_encode_chunks(config, plain, chunks):
    memory = dataclasses.replace(config.memory, encode_chunks=chunks)
    chunked = dataclasses.replace(config, memory=memory)
    same(runs.run_steps(chunked, meshes.make((2, 2, 1))), plain)


@pytest.mark.slow
def test_pictures_matter(config, plain):
    """Were pictures ignored, the tests above would pass."""
    if "image_grid_pinpoints" in (Path(config.model.path) / "config.json").read_text():
        pytest.skip("tiles are of the model's sizes")
    small = dataclasses.replace(MEDIA, image_max_pixels=4 * 28 * 28)
    data = dataclasses.replace(config.data, media=small)
    other = runs.run_steps(dataclasses.replace(config, data=data), meshes.make((1, 1, 1)))
    assert other[0]["loss"] != pytest.approx(plain[0]["loss"], rel=1e-4)


def test_towers_stay_as_they_are(config):
    before, after = runs.frozen_before_and_after(config, meshes.make((2, 2, 1)))
    assert "vision" in before
    for one, other in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_two_processes_of_which_one_may_have_no_picture(config, plain, free_port):
    for said in run_processes(config, (2, 4, 1), free_port):
        same(json.loads(said["RESULT"]), plain)
