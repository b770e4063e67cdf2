"""Features from the cache are those of the towers, and a run with them has the same losses."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from lco_jax.config import DataConfig, JsonlSource, MediaConfig, Memory, Towers
from lco_jax.data.encode.encoded import Known
from lco_jax.data.encode.feature_cache import FeatureCache
from lco_jax.data.encode.positions import Grid
from lco_jax.data.encode.processor import Processor
from lco_jax.models.config import read_config
from lco_jax.train.known_features import open_cache
from lco_jax.train.loop import train
from tests import runs, tiny

MEDIA = MediaConfig(image_min_pixels=28 * 28, image_max_pixels=16 * 28 * 28)


@pytest.fixture(
    scope="module",
    params=[
        "qwen2_5_omni_thinker",
        pytest.param("llava_next", marks=pytest.mark.slow),
        pytest.param("qwen3_vl", marks=pytest.mark.slow),
    ],
)
def config(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    is_tiled = request.param == "llava_next"
    has_sounds = "omni" in request.param
    vision = tiny.DEEP_TOWER if has_sounds else None
    tiny.write(folder, request.param, num_kv_heads=4, vision=vision)
    triplets = runs.write_media_triplets(folder / "triplets.jsonl", with_sounds=has_sounds)
    return runs.make_config(
        folder,
        triplets,
        data=DataConfig(sources=(JsonlSource(str(triplets)),), batch_size=16, media=MEDIA),
        memory=Memory(row_tokens=(64, 256 if is_tiled else 128), frame_rows=(256, 512)),
        num_steps=3,
    )


def losses(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [entry["loss"] for entry in map(json.loads, lines) if "loss" in entry]


@pytest.mark.slow
def test_a_run_with_known_features_has_the_same_losses(config, tmp_path, monkeypatch):
    # The suite's eight devices: features come back from all of their shards.
    mesh = dataclasses.replace(config.mesh, data=-1)
    config = dataclasses.replace(config, mesh=mesh)
    train(config, str(tmp_path / "plain"))
    folder = tmp_path / "cache"
    memory = dataclasses.replace(config.memory, feature_cache=str(folder))
    cached = dataclasses.replace(config, memory=memory)
    train(cached, str(tmp_path / "first"))
    files = sorted(folder.rglob("*.npz"))
    num_media = 6 + 5 * ("omni" in read_config(Path(config.model.path)).family)  # pictures, sounds
    assert len(files) >= num_media and not list(folder.rglob("*.tmp"))

    def refuse(*_):
        raise AssertionError("a medium was read although its features are known")

    monkeypatch.setattr(Processor, "read_medium", refuse)
    train(cached, str(tmp_path / "second"))
    assert sorted(folder.rglob("*.npz")) == files
    expected = losses(tmp_path / "plain")
    assert len(expected) == 3
    for name in ("first", "second"):
        np.testing.assert_allclose(losses(tmp_path / name), expected, rtol=1e-5)


def test_what_features_depend_on_is_in_their_name(config, tmp_path):
    base = tiny.write(tmp_path / "other", "qwen2_5_omni_thinker", vision=tiny.DEEP_TOWER, seed=1)
    own = Path(config.model.path)

    def cache(folder, media=MEDIA, dtype="float32"):
        processor = Processor(folder, read_config(folder), media=media)
        return open_cache(str(tmp_path), folder, processor, dtype)

    caches = [
        cache(own),
        cache(base.folder),
        cache(own, MediaConfig()),
        cache(own, dtype="bfloat16"),
    ]
    keys = {cache.key(kind, b"content") for cache in caches for kind in ("image", "video")}
    assert len(keys) == 8
    assert caches[0].key("image", b"content") in keys
    assert caches[0].key("image", b"other") not in keys


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_kept_as_given_and_damage_counts_as_unknown(tmp_path, dtype):
    cache = FeatureCache(tmp_path, "tower", dtype)
    features = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    timed = Grid(2, 2, 2, 0.5, (0.25, 0.75))
    parts = (
        *(Known(features, Grid(1, 4, 6, 0.25)), Known(features[:3], None)),
        Known(features, timed),
    )
    cache.save("ab12", parts)
    found = cache.load("ab12")
    assert "ab12" in cache and cache.load("ab13") is None
    assert [part.grid for part in found] == [Grid(1, 4, 6, 0.25), None, timed]
    tolerance = {"float32": 0, "bfloat16": 2**-8}[dtype]
    for part, expected in zip(found, parts, strict=True):
        np.testing.assert_allclose(part.features, expected.features, rtol=tolerance)
    (file,) = tmp_path.rglob("*.npz")
    file.write_bytes(file.read_bytes()[:50])
    assert cache.load("ab12") is None


def test_towers_that_train_have_no_cache(config, tmp_path):
    memory = dataclasses.replace(config.memory, feature_cache=str(tmp_path))
    model = dataclasses.replace(config.model, trainable=Towers())
    with pytest.raises(ValueError, match="frozen towers compute, and these train"):
        dataclasses.replace(config, memory=memory, model=model)
