"""Every config makes its real step at full size, and those of 7B lower it, without allocating
anything."""

import dataclasses
from pathlib import Path

import jax
import pytest

from lco_jax.cli.configs import load_config
from lco_jax.cli.own_data import OwnData, own_recipe
from lco_jax.config import MeshConfig
from lco_jax.data.encode.positions import Grid
from lco_jax.data.pack.patch_layout import fits
from lco_jax.plan.abstract import abstract_run, model_sizes
from lco_jax.plan.assumed_batch import assume_shape
from lco_jax.plan.useful_work import useful_work
from tests import meshes

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("lco_*.py"))

_ARMS = sorted((Path(__file__).parents[2] / "configs").glob("seadoc_*.py"))
STAGED = [path for path in _ARMS if "small" not in path.stem]
SMALL = [path for path in _ARMS if "small" in path.stem]
_FACTORS_3B = 119_734_272
_FACTORS = {
    "3b": _FACTORS_3B,
    "7b": 161_480_704,
    "8b": 167_772_160,
    "qwen3_vl_8b": 174_587_904,
    "32b": 536_870_912,
    "72b": 842_137_600,
}
_TOWER_3B = 668_684_288
"""Of Qwen2.5-VL. Source: the sizes of HF's config, by hand."""
_OMNI_7B_TEXT = Path(__file__).parents[2] / "configs" / "lco_omni_7b_text.py"


def test_there_are_configs():
    assert len(CONFIGS) >= 4


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_lowers(path):
    config = load_config(path)
    with jax.set_mesh(meshes.make((2, 2, 2))):
        run = abstract_run(config)
        if "_7b_" in path.stem:  # lowering takes seconds, and other sizes differ in numbers alone
            text = run.step.lower(run.state, run.batch, run.preamble).as_text()
            assert "sdy.sharding" in text
    trainable = sum(x.size for x in jax.tree.leaves(run.state.trainable))
    # Rank 64 on all seven linear layers. Source: the sizes of HF's configs, by hand.
    model = path.stem.removeprefix("lco_").rpartition("_")[0]
    assert trainable == (_FACTORS.get(model) or _FACTORS[model.split("_")[-1]])


def test_images_in_tiles_lower():
    base = load_config(CONFIGS[0].with_name("lco_vl_7b_multimodal.py"))
    model = dataclasses.replace(base.model, path="llava-hf/llama3-llava-next-8b-hf")
    with jax.set_mesh(meshes.make((2, 2, 2))):
        run = abstract_run(dataclasses.replace(base, model=model))
        run.step.lower(run.state, run.batch, run.preamble)
    vision = run.batch.media.vision
    assert vision.patches.shape[-1] == 3 * 14 * 14
    assert vision.frames.shape[-1] == 576 and vision.windows is None
    # Of the largest image 2,928 tokens go into the decoder, of 5 tiles.
    assert run.batch.tokens.shape[-1] >= 2928


def test_images_whose_features_have_several_parts_lower():
    path = CONFIGS[0].with_name("lco_qwen3_vl_8b_multimodal.py")
    with jax.set_mesh(meshes.make((2, 2, 2))):
        run = abstract_run(load_config(path))
        run.step.lower(run.state, run.batch, run.preamble)
    vision = run.batch.media.vision
    assert vision.patches.shape[-1] == 3 * 16 * 16 and vision.windows is None
    assert vision.coordinates.shape[-1] == 4
    # Of the public tower, the mergers of inner layers among them. Source: HF's config, by hand.
    tower = sum(x.size for x in jax.tree.leaves(run.state.frozen["vision"]))
    assert tower == 576_388_336


def test_the_template_is_the_recipe_of_own_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("train.csv", "held_out.csv"):
        (tmp_path / name).write_text("query,answer,wrong\na,b,c\n")
    given = OwnData(
        data=("train.csv",),
        columns=("query=anchor,answer=positive,wrong=negative",),
        eval_data=("held_out.csv",),
        model="Qwen/Qwen2.5-Omni-3B",
    )
    assert own_recipe(given) == load_config(CONFIGS[0].with_name("template.py"))


def test_there_are_three_arms():
    assert [path.stem for path in STAGED] == ["seadoc_high", "seadoc_high_captions", "seadoc_low"]
    assert [path.stem.replace("small_", "") for path in SMALL] == [path.stem for path in STAGED]


@pytest.mark.parametrize(
    "path",
    [STAGED[0], *(pytest.param(path, marks=pytest.mark.slow) for path in STAGED[1:])],
    ids=lambda path: path.stem,
)
def test_stages_lower(path):
    trainable = []
    for stage in load_config(path).sized():
        with jax.set_mesh(meshes.make((2, 2, 2))):
            run = abstract_run(stage.config)
            if path.stem == "seadoc_high_captions":  # whose first stage has all that others have
                run.step.lower(run.state, run.batch, run.preamble)
        trainable.append(sum(x.size for x in jax.tree.leaves(run.state.trainable)))
    assert trainable == [_FACTORS_3B + _TOWER_3B, _FACTORS_3B]


@pytest.mark.parametrize("path", STAGED, ids=lambda path: path.stem)
def test_pages_of_the_largest_size_fill_their_rows(path):
    (config, *_) = (stage.config for stage in load_config(path).sized())
    model = model_sizes(config)
    shape, work = assume_shape(config, model, 8), useful_work(config, model)  # v5p:2x2x2
    assert work.tokens / 8 >= 0.85 * shape.rows * shape.row_tokens
    assert work.patches / 8 >= 0.85 * shape.media.patch_rows * shape.media.frame_row
    # However high or wide: no page needs a longer row of patches.
    most = config.data.media.image_max_pixels // 28**2
    grids = [Grid(1, 2 * rows, 2 * (most // rows)) for rows in range(most // 40, 40)]
    assert all(fits(grid, shape.media.frame_row, model.vision) for grid in grids)


def test_small_arms_differ_in_nothing_but_what_they_compare():
    high, captions, low = (load_config(path).stages for path in SMALL)
    assert high[1] == captions[1]  # the text-only stage
    tokens = {
        name: stages[0].config.data.media.image_max_pixels // 14**2
        for name, stages in (("high", high), ("captions", captions), ("low", low))
    }
    assert tokens == {"high": 100, "captions": 100, "low": 25}
    data = low[0].config.data
    as_high = dataclasses.replace(data, media=high[0].config.data.media)
    assert dataclasses.replace(low[0].config, data=as_high) == high[0].config
    data = captions[0].config.data
    assert [source.name for source in data.sources] == ["libreoffice/id", "emoji"]
    assert data.batch_size == 2 * high[0].config.data.batch_size  # as many pages


@pytest.mark.parametrize(
    ("mesh", "message"),
    [
        (
            MeshConfig(1, 1, 8),
            r"mesh\.tensor=8 does not divide attention heads \(28\); use 1, 2, 4",
        ),
        (MeshConfig(5, 1, 1), "batch_size=4 is less than encode_chunks=1 times 5 data shards"),
    ],
)
def test_misfits_are_named(mesh, message):
    config = dataclasses.replace(load_config(_OMNI_7B_TEXT), mesh=mesh)
    if mesh.data > 1:
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, batch_size=4))
    sizes = (mesh.data, mesh.fsdp, mesh.tensor)
    with jax.set_mesh(meshes.make(sizes)), pytest.raises(ValueError, match=message):
        abstract_run(config)
