"""Items with pictures against transformers, and the independence of their vectors."""

import io

import numpy as np
import pytest
from PIL import Image

from lco_jax.config import MediaConfig
from lco_jax.data.records import Item
from lco_jax.embed.embedder import Embedder
from tests import hf_items, meshes, tiny
from tests.data.media_files import encode, noise, random_image, video_file

SIZES = [(80, 61), (210, 33), (57, 300), (28, 28), (140, 152), (500, 90)]
MEDIA = MediaConfig(
    image_max_pixels=64 * 28 * 28,
    video_min_pixels=4 * 28 * 28,
    video_max_pixels=16 * 28 * 28,
    after_video="extent",
)
ASK = "\nSummarize the above {} in one word:"
ASK_OF_MIXTURE = "\nSummarize the above in one word:"


@pytest.fixture(scope="module", params=["qwen2_5_vl", "qwen3_vl", "qwen2_5_omni_thinker"])
def checkpoint(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    vision = tiny.EVEN_FRAMES if request.param == "qwen3_vl" else tiny.DEEP_TOWER
    return tiny.write(folder, request.param, vision=vision, tied=False)


@pytest.fixture(scope="module")
def embedder(checkpoint):
    return make_embedder(checkpoint.folder)


def make_embedder(folder, sizes=(1, 1, 1), **options):
    return Embedder(folder, mesh=meshes.make(sizes), media=MEDIA, dtype="float32", **options)


def png(index):
    return encode(random_image(index, SIZES[index]), "PNG")


def clip(frames, fps=4):
    return video_file("mp4", noise(frames, (64, 48)), fps, size=(64, 48))


ITEMS = [
    Item(images=(png(0),)),
    Item("a small red fox", images=(png(1),)),
    Item("which of them", images=(png(2), png(3), png(4))),
    Item("only words"),
    Item(videos=(clip(9),)),
    Item("what happens", videos=(clip(5, 2),)),
    Item("all of it", images=(png(5),), videos=(clip(7, 1), clip(12, 8))),
]


@pytest.fixture(scope="module")
def vectors(embedder):
    return embedder.encode(ITEMS)


@pytest.mark.parametrize("index", range(len(ITEMS)))
def test_equals_transformers(checkpoint, embedder, vectors, index):
    item = ITEMS[index]
    images = [Image.open(io.BytesIO(content)) for content in item.images]
    (encoded,) = embedder.processor.encode([item])
    clips = [medium.content for medium in encoded.visuals[len(images) :]]
    kinds = ["image"] * bool(images) + ["video"] * bool(clips) + ["text"] * bool(item.text)
    prompt = ASK.format(kinds[0]) if len(kinds) == 1 else ASK_OF_MIXTURE
    expected = hf_items.embed(
        checkpoint,
        text=item.text,
        images=images,
        clips=clips,
        prompt=prompt,
        max_pixels=MEDIA.image_max_pixels,
    )
    np.testing.assert_allclose(vectors[index], expected, atol=1e-4)


def test_alone_and_beside_any_neighbours(embedder, vectors):
    for item, vector in zip(ITEMS, vectors, strict=True):
        np.testing.assert_allclose(embedder.encode(item), vector, atol=1e-5)
    order = np.random.default_rng(0).permutation(len(ITEMS))
    shuffled = embedder.encode([ITEMS[index] for index in order])
    np.testing.assert_allclose(shuffled, vectors[order], atol=1e-5)


@pytest.mark.parametrize("tokens, patches", [(64, 256), (512, 1024)])
def test_in_any_budget(checkpoint, vectors, tokens, patches):
    other = make_embedder(checkpoint.folder, tokens_per_batch=tokens, patches_per_batch=patches)
    np.testing.assert_allclose(other.encode(ITEMS), vectors, atol=1e-5)


@pytest.mark.parametrize(
    "sizes", [pytest.param((8, 1, 1), marks=pytest.mark.slow), (2, 2, 2)], ids=str
)
def test_on_any_mesh(checkpoint, vectors, sizes):
    found = make_embedder(checkpoint.folder, sizes).encode(ITEMS)
    np.testing.assert_allclose(found, vectors, atol=1e-5)
