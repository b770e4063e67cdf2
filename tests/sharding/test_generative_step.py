"""A generative step is the same on every mesh, with any chunking and blocks."""

import dataclasses

import jax
import numpy as np
import pytest

from lco_jax.config import (
    DataConfig,
    Full,
    Generative,
    JsonlSource,
    Lora,
    MediaConfig,
    Memory,
    Towers,
)
from tests import meshes, runs, tiny

MEDIA = MediaConfig(image_min_pixels=28 * 28, image_max_pixels=9 * 28 * 28)
TRAINABLE = Towers(vision=0.5, projectors=2.0, decoder=Lora(rank=4, alpha=8))


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return make_config(tmp_path_factory.mktemp("checkpoint"), tied=True)


def make_config(folder, tied):
    tower = {**tiny.SMALL_TOWER, "num_heads": 4}
    tiny.write(folder, "qwen2_5_vl", num_kv_heads=4, num_layers=2, tied=tied, vision=tower)
    lines = runs.write_exchanges(folder / "exchanges.jsonl")
    config = runs.make_config(
        folder,
        lines,
        data=DataConfig(sources=(JsonlSource(str(lines)),), batch_size=16, media=MEDIA),
        memory=Memory(row_tokens=(64, 128), frame_rows=(256,), head_tokens=100),
        objective=Generative(),
    )
    return with_trainable(config, TRAINABLE)


def with_trainable(config, trainable):
    return dataclasses.replace(config, model=dataclasses.replace(config.model, trainable=trainable))


@pytest.fixture(scope="module")
def plain(config):
    memory = dataclasses.replace(config.memory, head_tokens=10_000)
    return run(dataclasses.replace(config, memory=memory), (1, 1, 1))


def run(config, sizes):
    return runs.run_steps(config, meshes.make(sizes), count=1)


def same(results, expected, tolerance=1e-5):
    for one, other in zip(results, expected, strict=True):
        for name in ("loss", "gradient_norm", "perplexity", "accuracy@1", "target_tokens"):
            assert one[name] == pytest.approx(other[name], rel=tolerance), name


@pytest.mark.parametrize("sizes", meshes.ALL_AXES, ids=str)
def test_meshes(config, plain, sizes):
    same(run(config, sizes), plain)


def test_gradients_of_chunks_add_up(config, plain):
    memory = dataclasses.replace(config.memory, encode_chunks=4, remat="full")
    chunked = dataclasses.replace(config, memory=memory)
    same(run(chunked, (1, 1, 1)), plain)


@pytest.mark.slow
def test_full_training_reaches_an_untied_head(tmp_path):
    towers = Towers(vision=0, audio=0, projectors=0, decoder=Full())
    full = with_trainable(make_config(tmp_path, tied=False), towers)
    same(run(full, (1, 2, 4)), run(full, (1, 1, 1)))
    before, after = runs.state_before_and_after(full, meshes.make((1, 1, 1)))
    assert "vision" not in before.trainable
    old, new = (state.trainable["head"]["kernel"] for state in (before, after))
    assert np.any(old != new)


@pytest.mark.parametrize(
    "trainable",
    [
        Towers(vision=0, projectors=1, decoder=None),
        Towers(vision=1, projectors=0, decoder=Lora(rank=4)),
    ],
    ids=["projectors", "tower and factors"],
)
def test_what_is_frozen_stays_as_it_is(config, trainable):
    before, after = runs.state_before_and_after(
        with_trainable(config, trainable), meshes.make((1, 1, 1))
    )
    for old, new in zip(jax.tree.leaves(before.frozen), jax.tree.leaves(after.frozen), strict=True):
        np.testing.assert_array_equal(old, new)
    for old, new in trained_leaves(before, after):
        assert np.any(old != new)
    trained = sum(old.size for old, _ in trained_leaves(before, after))
    moments = sum(x.size for x in jax.tree.leaves(before.opt_state) if x.ndim)
    assert moments == 2 * trained  # none of what is frozen


def trained_leaves(before, after):
    leaves = (jax.tree.leaves(state.trainable) for state in (before, after))
    return list(zip(*leaves, strict=True))


def test_parts_learn_at_their_own_rates(config):
    """The first update of AdamW is the learning rate, whatever the gradient: it shows the rate."""
    before, after = runs.state_before_and_after(config, meshes.make((1, 1, 1)), count=1)
    rate = config.optimizer.peak_lr / (config.optimizer.warmup_steps + 1)
    moved = jax.tree.map(
        lambda old, new: np.abs(new - old).max(), before.trainable, after.trainable
    )
    merger = moved["vision"].pop("merger")
    for part, factor in ((merger, 2.0), (moved["vision"], 0.5), (moved["layers"], 1.0)):
        for change in jax.tree.leaves(part):
            assert change == pytest.approx(factor * rate, rel=1e-2)
