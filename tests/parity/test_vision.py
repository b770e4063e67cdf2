"""The vision tower against transformers: images, clips, mixtures, budgets, meshes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from lco_jax.data.encode.positions import Grid
from lco_jax.models.build import on_mesh
from lco_jax.models.config import read_config
from lco_jax.models.vision import VisionTower
from lco_jax.nn import row_attention
from lco_jax.runtime.axes import act_spec
from lco_jax.weights.hub import load_params
from tests import meshes, tiny
from tests.patches import lay_out, place

CASES = {
    "one image": [Grid(1, 18, 26)],
    "odd sizes": [Grid(1, 2, 2), Grid(1, 6, 34), Grid(1, 20, 8), Grid(1, 16, 16), Grid(1, 2, 30)],
    "a clip": [Grid(3, 10, 14)],
    "images and clips": [Grid(1, 12, 10), Grid(5, 6, 4), Grid(1, 8, 8), Grid(2, 10, 18)],
}
PATCH_WIDTH = 3 * 2 * 14 * 14


@pytest.fixture(scope="module", params=["qwen2_5_vl", "qwen2_5_omni_thinker"])
def checkpoint(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    return tiny.write(folder, request.param, vision=tiny.DEEP_TOWER)


def load(folder, dtype="float32"):
    """The sizes of the tower and its compiled call, on the mesh that is set."""
    config = read_config(folder).vision
    tower = jax.eval_shape(lambda: VisionTower(config, dtype=dtype, rngs=nnx.Rngs(0)))
    graph, state = nnx.split(tower)
    abstract = on_mesh(nnx.to_pure_dict(state))
    params = load_params(folder, read_config(folder), {"vision": abstract})["vision"]
    return config, jax.jit(lambda *arrays: nnx.merge(graph, params)(*arrays))


@pytest.fixture(scope="module")
def tower(checkpoint):
    with jax.set_mesh(meshes.make((1, 1, 1))):
        return load(checkpoint.folder)


def random_patches(grids, seed=0):
    rng = np.random.default_rng(seed)
    return [
        rng.normal(size=(grid.frames * grid.rows * grid.columns, PATCH_WIDTH)).astype(np.float32)
        for grid in grids
    ]


def torch_features(checkpoint, grids, patches):
    sizes = torch.tensor([grid[:3] for grid in grids])
    with torch.no_grad():
        out = checkpoint.model.model.visual(torch.tensor(np.concatenate(patches)), grid_thw=sizes)
    return out.pooler_output.numpy()


def features(tower, groups, patches, frame_row=512, num_rows=3):
    """The features of each group of grids, in the order of its merge units."""
    config, run = tower
    layouts = [lay_out(group, config, frame_row, num_rows) for group in groups]
    nothing = np.zeros((0, PATCH_WIDTH), np.float32)
    placed = [
        place(layout, np.concatenate([nothing, *media]), config)
        for layout, media in zip(layouts, patches, strict=True)
    ]
    arrays = (placed, *zip(*(layout[:3] for layout in layouts), strict=True))
    arrays = [jax.device_put(np.stack(array), act_spec("B")) for array in arrays]
    found = np.asarray(run(*arrays))
    assert np.isfinite(found).all()
    return [group[layout.units] for group, layout in zip(found, layouts, strict=True)]


@pytest.mark.parametrize("case", CASES)
def test_features(checkpoint, tower, case):
    grids, patches = CASES[case], random_patches(CASES[case])
    (found,) = features(tower, [grids], [patches])
    expected = torch_features(checkpoint, grids, patches)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_comparison_tells_layers_apart(checkpoint):
    """Were a layer's attention confused with the other kind, `test_features` would see it."""
    grids, patches = CASES["one image"], random_patches(CASES["one image"])
    expected = torch_features(checkpoint, grids, patches)
    visual = checkpoint.model.model.visual
    right = visual.fullatt_block_indexes
    for wrong in ([1], [3], [0, 1, 3], [1, 2, 3]):
        visual.fullatt_block_indexes = wrong
        assert np.abs(torch_features(checkpoint, grids, patches) - expected).max() > 1e-3
    visual.fullatt_block_indexes = right


def test_windows_larger_than_a_row_where_no_layer_has_windows(tmp_path):
    sizes = tiny.DEEP_TOWER | {"window_size": 224, "fullatt_block_indexes": [0, 1, 2, 3]}
    checkpoint = tiny.write(tmp_path, "qwen2_5_vl", vision=sizes)
    grids = [Grid(1, 18, 26), Grid(2, 10, 14)]
    patches = random_patches(grids)
    with jax.set_mesh(meshes.make((1, 1, 1))):
        (found,) = features(load(tmp_path), [grids], [patches])
    np.testing.assert_allclose(found, torch_features(checkpoint, grids, patches), atol=1e-5)


def test_neighbours_budget_and_rows_do_not_matter(tower):
    grid = Grid(1, 10, 12)
    (patches,) = random_patches([grid])
    (alone,) = features(tower, [[grid]], [[patches]], 128, 1)
    for others, frame_row, num_rows in (([], 512, 3), (CASES["odd sizes"], 384, 4)):
        media = [*random_patches(others, seed=1), patches]
        (found,) = features(tower, [[*others, grid]], [media], frame_row, num_rows)
        np.testing.assert_allclose(found[-len(alone) :], alone, atol=1e-6)


@pytest.mark.parametrize("sizes", meshes.ALL_AXES, ids=str)
def test_groups_on_a_mesh(tmp_path, sizes):
    checkpoint = tiny.write(tmp_path, "qwen2_5_vl", vision=tiny.DEEP_TOWER)
    groups = [[], *CASES.values()][:4]
    patches = [random_patches(group) for group in groups]
    with jax.set_mesh(meshes.make(sizes)):
        found = features(load(tmp_path), groups, patches)
    assert found[0].shape == (0, 32)
    for ours, grids, media in zip(found[1:], groups[1:], patches[1:], strict=True):
        np.testing.assert_allclose(ours, torch_features(checkpoint, grids, media), atol=1e-5)


def test_bfloat16_stays_close(checkpoint, tower):
    grids, patches = CASES["images and clips"], random_patches(CASES["images and clips"])
    (exact,) = features(tower, [grids], [patches])
    (rounded,) = features(load(checkpoint.folder, "bfloat16"), [grids], [patches])
    assert rounded.dtype == jnp.bfloat16
    rounded = rounded.astype(np.float32)
    norms = np.linalg.norm(exact, axis=1) * np.linalg.norm(rounded, axis=1)
    assert ((exact * rounded).sum(1) / norms).min() > 0.999


@pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 2, 2)])
@pytest.mark.parametrize(
    ("most", "pieces"), [(2**15, (2, 128)), (2**14, (1, 128)), (2**12, (1, 64))]
)
def test_attention_in_pieces_equals_all_rows_at_once(monkeypatch, sizes, most, pieces):
    rng = np.random.default_rng(0)
    segments = np.sort(rng.integers(0, 4, (4, 4, 128)), axis=2).astype(np.int32)
    values = rng.normal(size=(4, 4, 512, 2, 8)).astype(np.float32)

    def loss(arrays, segments):
        context = row_attention._attend_in_pieces(*arrays[:3], segments)
        return (context * arrays[3]).sum(), context

    def run(most):
        monkeypatch.setattr(row_attention, "MAX_SCORES", most)
        with jax.set_mesh(meshes.make(sizes)):
            at = jax.NamedSharding(jax.sharding.get_mesh(), act_spec("G P N H"))
            arrays = tuple(jax.device_put(x, at) for x in values)
            own = jax.device_put(
                segments, jax.NamedSharding(jax.sharding.get_mesh(), act_spec("G K T"))
            )
            return row_attention._piece(4, 128), jax.jit(jax.grad(loss, has_aux=True))(arrays, own)

    whole, expected = run(2**22)
    assert whole == (4, 128)
    found, actual = run(most)
    assert found == pieces
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), actual, expected)


@pytest.mark.parametrize(
    ("sizes", "width"), [((1, 1, 1), 80), ((1, 2, 2), 80), ((1, 1, 1), 72)], ids=str
)
def test_the_kernel_of_tpus_equals_plain_attention(sizes, width):
    rng = np.random.default_rng(0)
    segments = np.sort(rng.integers(1, 5, (2, 2, 512)), axis=2).astype(np.int32)
    segments[:, 1] += 4
    values = rng.normal(size=(4, 2, 1024, 2, width)).astype(np.float32)

    def run(attention):
        with jax.set_mesh(meshes.make(sizes)):
            arrays = tuple(jax.device_put(x, act_spec("G P N H")) for x in values)
            own = jax.device_put(segments, act_spec("G K T"))

            def loss(arrays):
                context = attention(*arrays[:3], own)
                return (context * arrays[3]).sum(), context

            alone = jax.jit(lambda arrays: attention(*arrays[:3], own))(arrays)
            return jax.tree.map(np.asarray, (alone, jax.jit(jax.grad(loss, has_aux=True))(arrays)))

    found = run(functools.partial(row_attention._attend_by_kernel, interpret=True))
    expected = run(row_attention._attend_in_pieces)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert np.linalg.norm(one - other) < 2e-6 * np.linalg.norm(other)
