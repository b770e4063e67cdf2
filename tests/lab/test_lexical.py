"""Baselines without a decoder, against what their definitions say."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from lco_jax.config import MediaConfig, Memory
from lco_jax.data.records import Item
from lco_jax.embed.open import open_model
from lco_jax.lab import lexical
from lco_jax.lab.media_texts import make_reader
from lco_jax.lab.shared_words import shared_words
from lco_jax.metrics.comparison import EmbeddedPairs
from tests import meshes, tiny
from tests.data.audio_files import plain as wav
from tests.data.audio_files import tones


def test_media_are_read_by_tokens():
    rng = np.random.default_rng(0)
    table = rng.normal(size=(50, 6)).astype(np.float32)
    media = [rng.normal(size=(count, 6)).astype(np.float32) for count in (1, 70, 9)]
    media[2][3:6] = media[2][3]  # a run of one token
    wanted = np.array([3, 8, 41])
    nearest, chances = lexical._read_by_tokens(media, table, wanted)
    for features, tokens, found in zip(media, nearest, chances, strict=True):
        distances = np.square(features[:, None].astype(float) - table).sum(axis=2)
        own = distances.argmin(axis=1).tolist()
        expected = [a for a, b in zip(own, [None, *own[:-1]], strict=True) if a != b]
        assert tokens.tolist() == expected
        likely = np.exp(-distances)
        likely /= likely.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(found, likely.mean(axis=0)[wanted], rtol=1e-4)
    assert len(nearest[2]) <= 7


def test_the_score_of_token_chances_is_a_mean_log_likelihood():
    rng = np.random.default_rng(1)
    chances = rng.dirichlet(np.ones(8), size=4)[:, :5].astype(np.float32)
    chances[0, 0] = 0  # underflows
    rows = [[11, 17, 11], [13], [12, 13, 15], [15, 17]]
    wanted = np.array([11, 12, 13, 15, 17])
    pairs = EmbeddedPairs(0, lexical._log_chances(chances), lexical._bags(rows, wanted))
    places = [sorted({int(np.searchsorted(wanted, token)) for token in row}) for row in rows]
    floor = np.log(np.finfo(np.float32).tiny)
    logarithms = np.log(np.maximum(chances.astype(float), np.finfo(np.float32).tiny))
    expected = [[own[place].mean() for place in places] for own in logarithms]
    np.testing.assert_allclose(pairs.cosines() * -floor, expected, rtol=1e-5)
    assert np.abs(pairs.cosines()).max() <= 1


def test_what_the_tower_says_is_found():
    """Media whose features are the embeddings of their texts' tokens, with noise."""
    rng = np.random.default_rng(2)
    table = 3 * rng.normal(size=(60, 12)).astype(np.float32)
    rows = [rng.choice(60, size=4, replace=False).tolist() for _ in range(15)]
    media = [table[row] + 0.3 * rng.normal(size=(4, 12)).astype(np.float32) for row in rows]
    wanted = np.unique(np.concatenate(rows))
    nearest, chances = lexical._read_by_tokens(media, table, wanted)
    assert [sorted(tokens.tolist()) for tokens in nearest] == [sorted(row) for row in rows]
    pairs = EmbeddedPairs(0, lexical._log_chances(chances), lexical._bags(rows, wanted))
    assert pairs.scores()["mrr"].mean() == pytest.approx(1)


def test_the_text_that_is_read_is_a_baseline_of_its_own(tmp_path):
    folder = tiny.write(tmp_path, "qwen2_5_omni_thinker").folder
    media = MediaConfig(audio_features="tokens", image_features="tokens")
    model = open_model(str(folder), media=media, dtype="float32")
    mesh = meshes.make((1, 1, 1))
    snapshot = SimpleNamespace(
        graph=model.graph, params=model.params, processor=model.processor, mesh=mesh
    )
    shown = [Item(audios=(wav(tones(seconds)),)) for seconds in (0.5, 1.0, 2.0)]
    named = [Item("a fox"), Item("the brown dog"), Item("market")]
    found = lexical.lexical_vectors(shown, named, snapshot)
    assert tuple(found) == lexical.NAMES == lexical.baselines_of(media).names
    assert "read_texts" not in lexical.baselines_of(MediaConfig()).names
    table = np.asarray(model.params["embed"]["table"])
    reader = make_reader(model.graph, model.params, model.processor, mesh, Memory())
    for item, vector in zip(reader.read(shown), found["read_texts"][0], strict=True):
        (tokens,) = model.processor.prompter.tokens_of([item.text])
        mean = table[np.array(tokens)].mean(axis=0)
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-5)
    for name in ("features", "nearest_tokens", "read_texts"):
        for side in found[name]:
            np.testing.assert_allclose(np.linalg.norm(side, axis=1), 1, atol=1e-5)
    # Of texts there are others, and they read what the media were called.
    of_texts = lexical.lexical_vectors(named, named[::-1], snapshot)
    assert tuple(of_texts) == lexical.baselines_of(media).of_texts == lexical.TEXT_NAMES
    for anchors, positives in of_texts.values():
        np.testing.assert_allclose(anchors, positives[::-1], atol=1e-6)
    np.testing.assert_allclose(of_texts["mean_tokens"][0], found["features"][1], atol=1e-6)


def test_shared_words_count_by_how_rare_they_are():
    queries = ["The cat sat", "a fox, a FOX!", "..."]
    documents = ["the fox", "the cat: it sat", "the dog"]
    texts = [["the", "cat", "sat"], ["a", "fox"], []]
    texts += [["the", "fox"], ["the", "cat", "it", "sat"], ["the", "dog"]]

    def weight(word):
        return math.log(6 / sum(word in text for text in texts))

    def cosine(one, other):
        lengths = [math.sqrt(sum(weight(word) ** 2 for word in text)) for text in (one, other)]
        return sum(weight(word) ** 2 for word in {*one} & {*other}) / math.prod(lengths)

    anchors, positives = shared_words(queries, documents)
    expected = [[cosine(one, other) for other in texts[3:]] for one in texts[:2]]
    np.testing.assert_allclose(anchors[:2] @ positives.T, expected, rtol=1e-5)
    assert not anchors[2].any()  # says nothing of any
