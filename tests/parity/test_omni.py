"""Items with sounds, and with everything at once, against transformers."""

import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from lco_jax.analysis.states import LayerEncoder
from lco_jax.data.encode.encoded import Visual
from lco_jax.data.media.audio import load_audio
from lco_jax.data.media.config import MelConfig
from lco_jax.data.records import Item
from lco_jax.embed.embedder import Embedder
from tests import hf_items, meshes, tiny
from tests.data.audio_files import plain, tones, track
from tests.parity.test_multimodal import ASK, ASK_OF_MIXTURE, MEDIA, clip, png


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    return tiny.write(
        folder, "qwen2_5_omni_thinker", vision=tiny.DEEP_TOWER, tied=False, num_kv_heads=4
    )


def make_embedder(folder, sizes=(1, 1, 1), media=MEDIA, **options):
    return Embedder(folder, mesh=meshes.make(sizes), media=media, dtype="float32", **options)


@pytest.fixture(scope="module")
def embedder(checkpoint):
    return make_embedder(checkpoint.folder)


def wav(seconds, seed=0):
    rng = np.random.default_rng(seed)
    return plain((0.3 * rng.normal(size=round(16_000 * seconds))).astype(np.float32))


ITEMS = [
    Item(audios=(wav(0.05),)),
    Item("who speaks", audios=(wav(3.27),)),
    Item(audios=(wav(12.0), wav(1.999), wav(0.31))),
    Item("only words"),
    Item("a bell", images=(png(0),), audios=(wav(2.003),)),
    Item("everything", images=(png(1), png(2)), videos=(clip(7),), audios=(wav(4.1), wav(0.7))),
    Item(images=(png(3),)),
    Item(videos=(clip(9),)),
]


@pytest.fixture(scope="module")
def vectors(embedder):
    return embedder.encode(ITEMS)


@pytest.mark.parametrize("index", range(len(ITEMS)))
def test_equals_transformers(checkpoint, embedder, vectors, index):
    expected = hf_items.embed(checkpoint, **as_torch_item(embedder, ITEMS[index]))
    np.testing.assert_allclose(vectors[index], expected, atol=1e-4)


def test_states_of_every_layer_equal_those_of_transformers(checkpoint, embedder):
    encoder = embedder._encoder
    layers = LayerEncoder(
        encoder.graph,
        encoder.params,
        encoder.processor,
        encoder.mesh,
        width=32,
        memory=encoder.memory,
    )
    found = layers.encode_layers(ITEMS)
    for item, states in zip(ITEMS, found, strict=True):
        expected = hf_items.states(checkpoint, **as_torch_item(embedder, item))
        assert len(expected) == len(states) == 4
        np.testing.assert_allclose(states, expected, atol=1e-4)


def as_torch_item(embedder, item):
    """The arguments that make the same item for transformers."""
    (encoded,) = embedder.processor.encode([item])
    clips = [
        medium.content
        for medium in encoded.media
        if isinstance(medium.content, Visual) and medium.content.grid.frames > 1
    ]
    kinds = [
        kind
        for kind, given in (
            ("image", item.images),
            ("video", item.videos),
            ("audio", item.audios),
            ("text", item.text),
        )
        if given
    ]
    return {
        "text": item.text,
        "images": [Image.open(io.BytesIO(content)) for content in item.images],
        "clips": clips,
        "sounds": [load_audio(content, MelConfig()) for content in item.audios],
        "prompt": ASK.format(kinds[0]) if len(kinds) == 1 else ASK_OF_MIXTURE,
        "max_pixels": MEDIA.image_max_pixels,
    }


def test_a_film_with_its_sound_equals_transformers(checkpoint):
    film = track("mp4", "aac", tones(3.3), with_video=True)
    media = dataclasses.replace(MEDIA, audio_in_video=True)
    embedder = make_embedder(checkpoint.folder, media=media)
    silent = clip(5)
    items = [Item(videos=(film,)), Item(videos=(silent,)), Item("said", videos=(film,))]
    vectors = embedder.encode(items)
    encoded = embedder.processor.encode(items)
    head = embedder.processor.head
    for index in (0, 2):
        found = hf_items.embed_film(
            checkpoint,
            np.concatenate([head, encoded[index].tokens]),
            encoded[index].visuals[0].content,
            load_audio(film, MelConfig()),
        )
        np.testing.assert_allclose(vectors[index], found, atol=1e-4)
    assert len(encoded[0].audios) == 1 and not encoded[1].audios
    without = make_embedder(checkpoint.folder).encode(items)
    np.testing.assert_allclose(vectors[1], without[1], atol=1e-5)
    assert np.abs(vectors[0] - without[0]).max() > 1e-3


def test_alone_and_beside_any_neighbours(embedder, vectors):
    for item, vector in zip(ITEMS, vectors, strict=True):
        np.testing.assert_allclose(embedder.encode(item), vector, atol=1e-5)


@pytest.mark.parametrize(
    "sizes", [pytest.param((8, 1, 1), marks=pytest.mark.slow), (2, 2, 2)], ids=str
)
def test_on_any_mesh(checkpoint, vectors, sizes):
    found = make_embedder(checkpoint.folder, sizes).encode(ITEMS)
    np.testing.assert_allclose(found, vectors, atol=1e-5)
