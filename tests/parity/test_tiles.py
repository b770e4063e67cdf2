"""The tower that reads images in tiles against transformers: layers, rows, meshes, gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from einops import rearrange
from flax import nnx

from lco_jax.models import tiles
from lco_jax.models.build import on_mesh
from lco_jax.models.config import read_config
from lco_jax.runtime.axes import act_spec
from lco_jax.weights.hub import load_params
from tests import meshes, tiny

NUM_TILES = 5
EVEN = tiny.TILES | {"num_attention_heads": 4, "hidden_size": 32}
"""For meshes that divide heads and widths."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny.write(tmp_path_factory.mktemp("checkpoint"), "llava_next")


def load(folder, dtype="float32"):
    """The tower's graph and weights, on the mesh that is set."""
    config = read_config(folder)
    tower = jax.eval_shape(lambda: tiles.TileTower(config.vision, dtype=dtype, rngs=nnx.Rngs(0)))
    graph, state = nnx.split(tower)
    abstract = on_mesh(nnx.to_pure_dict(state))
    return graph, load_params(folder, config, {"vision": abstract})["vision"]


def random_tiles(groups=1, seed=0):
    shape = (groups * NUM_TILES, 3, 28, 28)
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def features(loaded, pixels, groups=1):
    graph, params = loaded
    patches = rearrange(pixels, "(g n) c (y i) (x j) -> g (n y x) (c i j)", g=groups, i=7, j=7)
    frames = np.ones((groups, NUM_TILES, 16), np.int32)
    arrays = [jax.device_put(x, act_spec("G")) for x in (patches, frames)]
    return np.asarray(jax.jit(lambda params, *x: nnx.merge(graph, params)(*x))(params, *arrays))


def torch_features(checkpoint, pixels):
    inner = checkpoint.model.model
    layer = checkpoint.model.config.vision_feature_layer
    states = inner.vision_tower(torch.tensor(pixels), output_hidden_states=True).hidden_states
    return inner.multi_modal_projector(states[layer][:, 1:]).flatten(0, 1)


def check(loaded, checkpoint, pixels, groups=1):
    found = features(loaded, pixels, groups)
    with torch.no_grad():
        expected = torch_features(checkpoint, pixels).numpy()
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(found[:, :-1].reshape(expected.shape), expected, atol=1e-5)
    newline = checkpoint.model.model.image_newline.detach().numpy()
    np.testing.assert_array_equal(found[:, -1], np.broadcast_to(newline, (groups, len(newline))))


def test_features(checkpoint):
    with jax.set_mesh(meshes.make((1, 1, 1))):
        check(load(checkpoint.folder), checkpoint, random_tiles())


@pytest.mark.parametrize("layer", [-1, 1, -4], ids=["last", "first", "none"])
def test_features_of_other_layers(tmp_path, layer):
    changes = {"vision_feature_layer": layer, "multimodal_projector_bias": False}
    checkpoint = tiny.write(tmp_path, "llava_next", changes=changes)
    if layer == -4:  # before all layers
        with pytest.raises(ValueError, match="vision_feature_layer=-4 must name the output"):
            read_config(tmp_path)
        return
    with jax.set_mesh(meshes.make((1, 1, 1))):
        check(load(checkpoint.folder), checkpoint, random_tiles())


def test_rows_of_a_length_that_kernels_take(checkpoint, monkeypatch):
    monkeypatch.setattr(tiles, "_row_length", lambda num_rows: 32)
    with jax.set_mesh(meshes.make((1, 1, 1))):
        check(load(checkpoint.folder), checkpoint, random_tiles())


@pytest.mark.parametrize("sizes", meshes.ALL_AXES, ids=str)
def test_groups_on_a_mesh(tmp_path, sizes):
    checkpoint = tiny.write(tmp_path, "llava_next", vision=EVEN)
    with jax.set_mesh(meshes.make(sizes)):
        check(load(checkpoint.folder), checkpoint, random_tiles(4), groups=4)


def test_gradients(checkpoint):
    """Of every weight that features depend on."""
    pixels = random_tiles()
    weights = np.random.default_rng(1).normal(size=(NUM_TILES * 16, 32)).astype(np.float32)
    with jax.set_mesh(meshes.make((1, 1, 1))):
        graph, params = load(checkpoint.folder)
        patches = rearrange(pixels, "n c (y i) (x j) -> 1 (n y x) (c i j)", i=7, j=7)
        frames = np.ones((1, NUM_TILES, 16), np.int32)

        def loss(params):
            return (nnx.merge(graph, params)(patches, frames)[0, :-1] * weights).sum()

        found = jax.tree.map(np.asarray, jax.jit(jax.grad(loss))(params))
    model = checkpoint.model
    model.zero_grad()
    (torch_features(checkpoint, pixels) * torch.tensor(weights)).sum().backward()
    inner = model.model.vision_tower
    layers = inner.encoder.layers
    expected = {
        ("embed", "first"): inner.embeddings.class_embedding.grad,
        ("embed", "positions"): inner.embeddings.position_embedding.weight.grad,
        ("first_norm", "scale"): inner.pre_layrnorm.weight.grad,
        ("blocks", "mlp", "hidden", "bias"): torch.stack(
            [layer.mlp.fc1.bias.grad for layer in layers[:2]]
        ),
        ("projector", "hidden", "kernel"): model.model.multi_modal_projector.linear_1.weight.grad.T,
    }
    for path, gradient in expected.items():
        own = found
        for name in path:
            own = own[name]
        scale = float(gradient.abs().max())
        assert scale > 0
        np.testing.assert_allclose(own / scale, gradient / scale, atol=1e-4)


def test_bfloat16_stays_close(checkpoint):
    with jax.set_mesh(meshes.make((1, 1, 1))):
        exact = features(load(checkpoint.folder), random_tiles())[0, :-1]
        rounded = features(load(checkpoint.folder, "bfloat16"), random_tiles())[0, :-1]
    assert rounded.dtype == jnp.bfloat16
    rounded = rounded.astype(np.float32)
    norms = np.linalg.norm(exact, axis=1) * np.linalg.norm(rounded, axis=1)
    assert ((exact * rounded).sum(1) / norms).min() > 0.999
