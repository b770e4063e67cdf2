"""Vectors that are kept: found by content, resumed after a stop, of one model only."""

import numpy as np
import pytest

from lco_jax.data.records import Item
from lco_jax.embed import vector_cache
from lco_jax.embed.embedder import Embedder
from lco_jax.embed.vector_cache import VectorCache
from tests import meshes, tiny

WIDTH = 5


class Letters:
    """Stands for an encoder; notes what it is asked for, and fails at one text."""

    def __init__(self, fails_at=None):
        self.asked, self.fails_at = [], fails_at

    def __call__(self, items, errors=None):
        vectors = np.zeros((len(items), WIDTH), np.float32)
        for index, item in enumerate(items):
            if item.text == self.fails_at:
                if errors is None:
                    raise ValueError(f"{item.text} cannot be read")
                errors[index] = ValueError(f"{item.text} cannot be read")
                continue
            vectors[index] = np.arange(1, WIDTH + 1) * len(item.text + "".join(item.images))
        self.asked.append([item.text for item in items])
        return vectors


def of(*texts):
    return [Item(text) for text in texts]


def test_each_content_is_encoded_once(tmp_path):
    encode, seen = Letters(), []
    cache = VectorCache(tmp_path, "a", WIDTH)
    items = [*of("one", "two", "one"), Item("three", id="7")]
    vectors = cache.encode(encode, items, on_progress=seen.append)
    np.testing.assert_array_equal(vectors, Letters()(items))
    assert encode.asked == [["one", "two", "three"]] and sum(seen) == 4
    again = VectorCache(tmp_path, "a", WIDTH)  # as another program opens it
    assert len(again) == 3
    items = [*of("four", "three"), Item("one", id="9")]
    np.testing.assert_array_equal(again.encode(encode, items), Letters()(items))
    assert encode.asked[1:] == [["four"]]
    # The first one does not know what the second has added, and adds after it.
    np.testing.assert_array_equal(cache.encode(encode, of("five")), Letters()(of("five")))
    last = VectorCache(tmp_path, "a", WIDTH)
    everything = of("one", "two", "three", "four", "five")
    np.testing.assert_array_equal(last.encode(None, everything), Letters()(everything))


def test_another_model_has_its_own(tmp_path):
    VectorCache(tmp_path, "a", WIDTH).encode(Letters(), of("one"))
    assert len(VectorCache(tmp_path, "b", WIDTH)) == 0


def test_a_stopped_job_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(vector_cache, "_PIECE", 2)
    texts = of("a", "bb", "ccc", "dddd", "eeeee")
    with pytest.raises(ValueError, match="dddd cannot be read"):
        VectorCache(tmp_path, "a", WIDTH).encode(Letters("dddd"), texts)
    encode = Letters()
    found = VectorCache(tmp_path, "a", WIDTH).encode(encode, texts)
    np.testing.assert_array_equal(found, Letters()(texts))
    assert encode.asked == [["ccc", "dddd"], ["eeeee"]]


@pytest.mark.parametrize("file", ["keys.bin", "vectors.bin"])
def test_a_row_that_was_cut_short_is_made_again(tmp_path, file):
    cache = VectorCache(tmp_path, "a", WIDTH)
    cache.encode(Letters(), of("one", "three"))
    path = cache.folder / file
    path.write_bytes(path.read_bytes()[:-3])
    encode = Letters()
    items = of("one", "three", "seven")
    found = VectorCache(tmp_path, "a", WIDTH).encode(encode, items)
    np.testing.assert_array_equal(found, Letters()(items))
    assert encode.asked == [["three", "seven"]]
    np.testing.assert_array_equal(VectorCache(tmp_path, "a", WIDTH).encode(None, items), found)


def test_files_count_by_content(tmp_path):
    first, second = tmp_path / "a.png", tmp_path / "b.png"
    first.write_bytes(b"same")
    second.write_bytes(b"same")
    cache = VectorCache(tmp_path / "cache", "a", WIDTH)

    def key(path, field="images", text=""):
        return cache.keys([Item(text, **{field: (str(path),)})])[0]

    assert key(first) == key(second) == cache.keys([Item(images=(b"same",))])[0]
    assert len({key(first), key(first, "audios"), key(first, text="x")}) == 3
    old = key(first)
    first.write_bytes(b"other")
    assert key(first) not in (None, old)
    assert key(tmp_path / "absent.png") is None


def test_errors_are_noted_and_not_kept(tmp_path):
    cache = VectorCache(tmp_path, "a", WIDTH)
    errors = {}
    items = of("one", "bad", "bad", "two")
    found = cache.encode(Letters("bad"), items, errors=errors)
    assert sorted(errors) == [1, 2] and not found[1:3].any() and found[[0, 3]].all()
    assert len(cache) == 2


def test_an_embedder_gives_the_same_vectors_with_it(tmp_path):
    folder = tiny.write(tmp_path / "tiny", num_layers=1).folder
    options = {"mesh": meshes.make((1, 1, 1)), "tokens_per_batch": 64}
    texts = ["a word", "another", "a word", "something else"]
    plain = Embedder(folder, **options).encode(texts)
    kept = Embedder(folder, cache=tmp_path / "vectors", **options)
    np.testing.assert_allclose(kept.encode(texts), plain, atol=1e-6)
    again = Embedder(folder, cache=tmp_path / "vectors", truncate_dim=8, **options)
    again._encoder.encode = None  # everything is there, whatever the width
    short = plain[:, :8] / np.linalg.norm(plain[:, :8], axis=1, keepdims=True)
    np.testing.assert_allclose(again.encode(texts), short, atol=1e-6)
    assert again.revision != kept.revision
