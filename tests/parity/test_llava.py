"""Models that read images in tiles against transformers: items, gradients, independence."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from lco_jax.data.records import Item
from lco_jax.embed.embedder import Embedder
from tests import hf_items, meshes, tiny
from tests.data.media_files import encode, random_image
from tests.parity import gradients

SIZES = [(80, 61), (210, 33), (57, 300), (28, 28), (9, 12), (500, 90)]
ASK = "\nSummarize the above {} in one word:"
ASK_OF_MIXTURE = "\nSummarize the above in one word:"


def png(index):
    return encode(random_image(index, SIZES[index]), "PNG")


ITEMS = [
    Item(images=(png(0),)),
    Item("a small red fox", images=(png(1),)),
    Item("which of them", images=(png(2), png(3), png(4))),
    Item("only words"),
    Item(images=(png(5),)),
    Item("a rather long text about a quick brown fox that jumps over a lazy dog"),
]


@pytest.fixture(scope="module", params=["llama", pytest.param("mistral", marks=pytest.mark.slow)])
def checkpoint(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    vision = tiny.TILES | {"num_attention_heads": 4, "hidden_size": 32}
    changes = {"decoder": request.param}
    return tiny.write(
        folder, "llava_next", vision=vision, tied=False, num_layers=2, changes=changes
    )


@pytest.fixture(scope="module")
def embedder(checkpoint):
    return make_embedder(checkpoint.folder)


def make_embedder(folder, sizes=(1, 1, 1), **options):
    return Embedder(folder, mesh=meshes.make(sizes), dtype="float32", **options)


@pytest.fixture(scope="module")
def vectors(embedder):
    return embedder.encode(ITEMS)


def their_inputs(checkpoint, item):
    images = [Image.open(io.BytesIO(content)) for content in item.images]
    kinds = ["image"] * bool(images) + ["text"] * bool(item.text)
    prompt = ASK.format(kinds[0]) if len(kinds) == 1 else ASK_OF_MIXTURE
    return hf_items.make_inputs(checkpoint, text=item.text, images=images, prompt=prompt)


@pytest.mark.parametrize("index", range(len(ITEMS)))
def test_equals_transformers(checkpoint, vectors, index):
    inputs = their_inputs(checkpoint, ITEMS[index])
    expected = hf_items.run(checkpoint, inputs.pop("input_ids"), **inputs)
    np.testing.assert_allclose(vectors[index], expected, atol=1e-4)


def test_alone_and_beside_any_neighbours(embedder, vectors):
    for item, vector in zip(ITEMS, vectors, strict=True):
        np.testing.assert_allclose(embedder.encode(item), vector, atol=1e-5)
    order = np.random.default_rng(0).permutation(len(ITEMS))
    shuffled = embedder.encode([ITEMS[index] for index in order])
    np.testing.assert_allclose(shuffled, vectors[order], atol=1e-5)


@pytest.mark.parametrize(
    "sizes", [pytest.param((8, 1, 1), marks=pytest.mark.slow), (2, 2, 2)], ids=str
)
def test_on_any_mesh_in_any_budget(checkpoint, vectors, sizes):
    other = make_embedder(checkpoint.folder, sizes, tokens_per_batch=64, patches_per_batch=96)
    np.testing.assert_allclose(other.encode(ITEMS), vectors, atol=1e-5)


# ---------------------------------------------------------------------------------- gradients

TRIPLETS = [
    (Item(images=(png(0),)), Item("a fox"), Item("women at a market")),
    (Item("a market"), Item("the dog", images=(png(1),)), Item(images=(png(3),))),
]


def theirs_by_path(model, read):
    """What `read` gives of the parameters of torch, under the paths of our tree."""
    inner = model.base_model.model.model
    tower, projector = inner.vision_tower, inner.multi_modal_projector
    return {
        **gradients.factors_of_torch(model, read),
        "vision/newline": read(inner.image_newline),
        "vision/projector/hidden/kernel": read(projector.linear_1.weight).T,
        "vision/projector/output/bias": read(projector.linear_2.bias),
        "vision/embed/first": read(tower.embeddings.class_embedding),
        "vision/blocks/mlp/output/kernel": torch.stack(
            [read(layer.mlp.fc2.weight).T for layer in tower.encoder.layers[:2]]
        ),
    }


def test_gradients_equal_those_of_torch(tmp_path):
    checkpoint = tiny.write(tmp_path, "llava_next", tied=False, num_layers=2)
    expected_loss, model = gradients.of_torch(
        checkpoint, TRIPLETS, lambda item: their_inputs(checkpoint, item)
    )
    factors = gradients.factors_of_torch(model, torch.detach)
    loss, found = gradients.ours(tmp_path, factors, TRIPLETS)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    gradients.check(found, theirs_by_path(model, lambda x: x.grad))
