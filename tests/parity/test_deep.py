"""The tower whose inner layers give features against transformers: on meshes, gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from lco_jax.data.encode.positions import Grid
from lco_jax.data.pack.budgets import FrameBudget
from lco_jax.models.build import on_mesh
from lco_jax.models.config import read_config
from lco_jax.models.deep import DeepTower
from lco_jax.runtime.axes import act_spec
from lco_jax.weights.hub import load_params
from tests import meshes, tiny

PATCH_WIDTH = 3 * 2 * 16 * 16
CASES = {
    "one image": [Grid(1, 10, 14)],
    "odd sizes": [Grid(1, 2, 2), Grid(1, 6, 24), Grid(1, 20, 4), Grid(1, 6, 6), Grid(1, 2, 30)],
    "images and clips": [Grid(1, 8, 10), Grid(5, 6, 4), Grid(1, 8, 8), Grid(2, 10, 6)],
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny.write(tmp_path_factory.mktemp("checkpoint"), "qwen3_vl", num_layers=1)


def load(folder, dtype="float32"):
    """The tower's sizes, graph and weights, on the mesh that is set."""
    config = read_config(folder)
    tower = jax.eval_shape(lambda: DeepTower(config.vision, dtype=dtype, rngs=nnx.Rngs(0)))
    graph, state = nnx.split(tower)
    abstract = on_mesh(nnx.to_pure_dict(state))
    return config.vision, graph, load_params(folder, config, {"vision": abstract})["vision"]


def random_patches(grids, seed=0):
    rng = np.random.default_rng(seed)
    count = sum(grid.frames * grid.rows * grid.columns for grid in grids)
    return rng.normal(size=(count, PATCH_WIDTH)).astype(np.float32)


def torch_features(checkpoint, grids, patches):
    sizes = torch.tensor([grid[:3] for grid in grids])
    out = checkpoint.model.model.visual(torch.tensor(patches), grid_thw=sizes)
    return torch.cat([out.pooler_output, *out.deepstack_features], dim=-1)


def lay_out(config, grids, patches, frame_row, num_rows):
    budget = FrameBudget(config, frame_row)
    assert budget.add(grids) is not None
    layout = budget.layout(num_rows)
    placed = np.zeros((num_rows * frame_row // 4, 4, PATCH_WIDTH), np.float32)
    placed[layout.units] = patches.reshape(-1, 4, PATCH_WIDTH)
    return layout, placed.reshape(-1, PATCH_WIDTH)


def features(loaded, groups, patches, frame_row=160, num_rows=5):
    """The features of each group of grids, in the order of its merge units."""
    config, graph, params = loaded
    pairs = [
        lay_out(config, *group, frame_row, num_rows) for group in zip(groups, patches, strict=True)
    ]
    arrays = [
        np.stack(x)
        for x in ([p for _, p in pairs], [o.frames for o, _ in pairs], [o[2] for o, _ in pairs])
    ]
    arrays = [jax.device_put(x, act_spec("G")) for x in arrays]
    run = jax.jit(lambda params, *x: nnx.merge(graph, params)(*x))
    found = np.asarray(run(params, *arrays))
    assert np.isfinite(found.astype(np.float32)).all()
    return [group[layout.units] for group, (layout, _) in zip(found, pairs, strict=True)]


def check(loaded, checkpoint, groups, patches, **options):
    found = features(loaded, groups, patches, **options)
    for ours, *group in zip(found, groups, patches, strict=True):
        with torch.no_grad():
            expected = torch_features(checkpoint, *group).numpy()
        assert ours.shape == expected.shape and np.abs(expected).max() > 0.1
        np.testing.assert_allclose(ours, expected, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_features(checkpoint, case):
    with jax.set_mesh(meshes.make((1, 1, 1))):
        loaded = load(checkpoint.folder)
        check(loaded, checkpoint, [CASES[case]], [random_patches(CASES[case])])


def test_no_inner_layer(tmp_path):
    sizes = tiny.DEEP_FRAMES | {"deepstack_visual_indexes": [], "depth": 1}
    checkpoint = tiny.write(tmp_path, "qwen3_vl", num_layers=1, vision=sizes)
    with jax.set_mesh(meshes.make((1, 1, 1))):
        grids = CASES["odd sizes"]
        check(load(tmp_path), checkpoint, [grids], [random_patches(grids)])


@pytest.mark.parametrize("sizes", meshes.ALL_AXES, ids=str)
def test_groups_on_a_mesh(tmp_path, sizes):
    checkpoint = tiny.write(tmp_path, "qwen3_vl", num_layers=1, vision=tiny.EVEN_FRAMES)
    groups = [*CASES.values(), CASES["one image"]]
    patches = [random_patches(group) for group in groups]
    with jax.set_mesh(meshes.make(sizes)):
        check(load(tmp_path), checkpoint, groups, patches)


def test_gradients(checkpoint):
    """Of weights that features depend on in every part of the tower."""
    grids = CASES["images and clips"]
    patches = random_patches(grids)
    count = sum(grid.frames * grid.rows * grid.columns for grid in grids) // 4
    weights = np.random.default_rng(1).normal(size=(count, 96)).astype(np.float32)
    with jax.set_mesh(meshes.make((1, 1, 1))):
        config, graph, params = load(checkpoint.folder)
        layout, placed = lay_out(config, grids, patches, 160, 5)

        def loss(params):
            found = nnx.merge(graph, params)(
                placed[None], layout.frames[None], layout.coordinates[None], remat="full"
            )
            return (found[0, layout.units] * weights).sum()

        found = jax.tree.map(np.asarray, jax.jit(jax.grad(loss))(params))
    model = checkpoint.model
    model.zero_grad()
    (torch_features(checkpoint, grids, patches) * torch.tensor(weights)).sum().backward()
    visual = model.model.visual
    mergers = visual.deepstack_merger_list
    expected = {
        ("patch_embed", "bias"): visual.patch_embed.proj.bias.grad,
        ("positions",): visual.pos_embed.weight.grad,
        ("blocks", "mlp", "hidden", "kernel"): torch.stack(
            [block.mlp.linear_fc1.weight.grad.T for block in visual.blocks]
        ),
        ("merger", "norm", "scale"): visual.merger.norm.weight.grad,
        ("deep_mergers", "norm", "bias"): torch.stack(
            [merger.norm.bias.grad.reshape(4, 36) for merger in mergers]
        ),
        ("deep_mergers", "output", "kernel"): torch.stack(
            [merger.linear_fc2.weight.grad.T for merger in mergers]
        ),
    }
    for path, gradient in expected.items():
        own = found
        for name in path:
            own = own[name]
        scale = float(gradient.abs().max())
        assert scale > 0
        np.testing.assert_allclose(own / scale, gradient / scale, atol=1e-4)


def test_bfloat16_stays_close(checkpoint):
    grids = CASES["images and clips"]
    patches = random_patches(grids)
    with jax.set_mesh(meshes.make((1, 1, 1))):
        (exact,) = features(load(checkpoint.folder), [grids], [patches])
        (rounded,) = features(load(checkpoint.folder, "bfloat16"), [grids], [patches])
    assert rounded.dtype == jnp.bfloat16
    rounded = rounded.astype(np.float32)
    norms = np.linalg.norm(exact, axis=1) * np.linalg.norm(rounded, axis=1)
    assert ((exact * rounded).sum(1) / norms).min() > 0.999


def test_a_budget_takes_what_fits(checkpoint):
    config = read_config(checkpoint.folder).vision
    budget = FrameBudget(config, 64)
    first = budget.add([Grid(1, 4, 4), Grid(2, 4, 6)])
    # The larger frames come first: two of 6 units in the first row, whose rest takes the other.
    np.testing.assert_array_equal(first, [*range(12, 16), *range(12)])
    assert budget.add([Grid(1, 8, 8), Grid(1, 2, 2)], max_rows=1) is None
    assert budget.add([Grid(1, 10, 8)]) is None and budget.num_rows == 1
    np.testing.assert_array_equal(budget.add([Grid(1, 2, 2)]), [16])
    layout = budget.layout(3)
    assert (layout.frames[0] > 0).all() and layout.frames.max() == 4
    assert not layout.frames[1, 4:].any() and not layout.coordinates[64 + 4 :].any()
    np.testing.assert_array_equal(layout.coordinates[5], [0, 3, 4, 6])
    with pytest.raises(ValueError, match="4 frames need 2 rows of 64 patches and the budget has 1"):
        budget.layout(1)
    with pytest.raises(ValueError, match="frame_row=30 must be a multiple of 4"):
        FrameBudget(config, 30)
