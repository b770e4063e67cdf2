"""Recordings read as the tokens that their features are nearest to."""

import io
import itertools
import re

import jax
import numpy as np
import pytest
from PIL import Image

from lco_jax.config import MediaConfig, Memory
from lco_jax.data.records import Item
from lco_jax.embed.embedder import Embedder
from lco_jax.embed.open import open_model
from lco_jax.lab.media_texts import MediaTexts
from lco_jax.train.known_features import compiled_towers, compute_features
from tests import meshes, tiny
from tests.data.audio_files import plain as wav
from tests.data.audio_files import tones

MEDIA = MediaConfig(audio_features="tokens")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.write(tmp_path_factory.mktemp("checkpoint"), "qwen2_5_omni_thinker").folder


@pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 2, 2)])
def test_runs_of_nearest_tokens_become_a_text(folder, sizes):
    mesh = meshes.make(sizes)
    sounds = [wav(tones(seconds)) for seconds in (0.5, 3.0)]
    with jax.set_mesh(mesh):
        model = open_model(str(folder), media=MEDIA, dtype="float32")
        towers = compiled_towers(model.graph)
        table = np.asarray(model.params["embed"]["table"])
        read = [(str(i), model.processor.read_medium("audio", x)) for i, x in enumerate(sounds)]
        features = {
            key: part.features
            for key, (part,) in compute_features(
                read, model.processor, towers, model.params, mesh, Memory()
            )
        }
    reader = MediaTexts(model.graph, model.params, model.processor, mesh, Memory())
    bad, text = Item(audios=(b"no sound",)), Item("a text")
    asked = Item("and a text", audios=tuple(sounds))
    items = [text, *(Item(audios=(sound,)) for sound in sounds), bad, ValueError("bad"), asked]
    found = reader.read(items)
    assert found[0] == text and found[3:5] == items[3:5]
    expected = []
    for number in range(len(sounds)):
        distances = np.square(features[str(number)][:, None] - table).sum(axis=2)
        nearest = distances.argmin(axis=1).tolist()
        runs = [(token, len(list(run))) for token, run in itertools.groupby(nearest)]
        least = min(3, max(length for _, length in runs))
        tokens = [token for token, length in runs if length >= least]
        expected.append(model.processor.prompter.decode(tokens).strip() or "?")
    assert found[1:3] == [Item(heard) for heard in expected]
    assert found[5] == Item("\n".join((*expected, "and a text")))


def test_an_image_becomes_the_words_that_its_features_are_nearest_to(folder):
    mesh = meshes.make((1, 1, 1))
    pictures = [png(np.random.default_rng(seed).integers(0, 256, (56, 84, 3))) for seed in (0, 1)]
    with jax.set_mesh(mesh):
        model = open_model(str(folder), media=MEDIA, dtype="float32")
        towers = compiled_towers(model.graph)
        table = np.asarray(model.params["embed"]["table"])
        read = [(str(i), model.processor.read_medium("image", x)) for i, x in enumerate(pictures)]
        found = compute_features(read, model.processor, towers, model.params, mesh, Memory())
        features = {key: part.features for key, (part,) in found}
    decode = model.processor.prompter.decode
    words = [i for i in range(len(table)) if re.fullmatch(" [a-z]{3,}", decode([i]))]
    words = np.array(words if len(words) >= 5 else range(len(table)))
    reader = MediaTexts(model.graph, model.params, model.processor, mesh, Memory(), ["image"])
    texts = [item.text for item in reader.read([Item(images=(one,)) for one in pictures])]
    for number, text in enumerate(texts):
        distances = np.square(features[str(number)][:, None] - table[words]).sum(axis=2)
        chances = np.exp(distances.min(axis=1, keepdims=True) - distances)
        mean = (chances / chances.sum(axis=1, keepdims=True)).mean(axis=0)
        best = words[np.argsort(-mean, kind="stable")[:5]].tolist()
        assert text == decode(best).strip() or text == "?"
    sound = Item(audios=(wav(tones(0.5)),))
    assert reader.read([sound]) == [sound]


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def open_embedder(folder, **options):
    options = {"media": MEDIA, **options}
    return Embedder(folder, mesh=meshes.make((1, 1, 1)), dtype="float32", **options)


def test_vectors_are_those_of_a_text_of_the_tokens_and_neighbours_do_not_matter(folder):
    """With nothing but the settings, as a run of the quickstart has them."""
    embedder = open_embedder(folder)
    plain = Embedder(folder, mesh=meshes.make((1, 1, 1)), dtype="float32")
    items = [Item(audios=(wav(tones(seconds)),)) for seconds in (0.5, 3.0)]
    vectors = embedder.encode([*items, Item("a text")])
    np.testing.assert_allclose(vectors[0], embedder.encode(items[0]), atol=1e-5)
    np.testing.assert_allclose(vectors[2], plain.encode("a text"), atol=1e-5)
    assert np.abs(vectors[:2] - plain.encode(items)).max() > 1e-3
    assert embedder.revision != plain.revision


def test_training_refuses_the_setting_and_broken_sounds_stay_errors(folder):
    embedder = open_embedder(folder)
    (found,) = embedder.processor.try_encode([Item(audios=(wav(tones(0.5)),))])
    assert "audio_features=all" in str(found)
    errors = {}
    embedder.encode([Item(audios=(b"no sound",)), Item("a text")], errors=errors)
    assert list(errors) == [0]
