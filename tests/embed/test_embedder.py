"""A vector depends on its text alone, and equals that of transformers."""

import itertools
import json

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from lco_jax.config import Memory
from lco_jax.data.records import Item
from lco_jax.embed.embed_file import embed_file
from lco_jax.embed.embedder import Embedder
from lco_jax.embed.encoder import encode_in_blocks
from tests import meshes, tiny

TEXTS = [
    "a quick brown fox",
    "two women watch\na busy market",
    "  leading space",
    "\n\nleading lines",
    "日本語 and ไทย 😀",
    "word " * 90,
    "x",
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny.write(tmp_path_factory.mktemp("checkpoint"), "qwen2_5_vl", num_kv_heads=4)


@pytest.fixture(scope="module")
def embedder(checkpoint):
    return Embedder(checkpoint.folder, mesh=meshes.make((1, 1, 1)))


@pytest.fixture(scope="module")
def vectors(embedder):
    return embedder.encode(TEXTS)


def test_equals_transformers(checkpoint, vectors):
    tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder)
    for text, vector in zip(TEXTS, vectors, strict=True):
        prompt = f"{text}\nSummarize the above text in one word:"
        rendered = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, tokenize=False
        )
        ids = tokenizer(rendered, add_special_tokens=False, return_tensors="pt").input_ids
        with torch.no_grad():
            state = checkpoint.decoder(input_ids=ids).last_hidden_state[0, -1]
        expected = torch.nn.functional.normalize(state, dim=0).numpy()
        np.testing.assert_allclose(vector, expected, atol=1e-4)


def test_alone_in_any_order_and_beside_any_neighbours(embedder, vectors):
    for text, vector in zip(TEXTS, vectors, strict=True):
        np.testing.assert_allclose(embedder.encode(text), vector, atol=1e-5)
    order = np.random.default_rng(0).permutation(len(TEXTS))
    shuffled = embedder.encode([TEXTS[index] for index in order])
    np.testing.assert_allclose(shuffled, vectors[order], atol=1e-5)
    crowded = embedder.encode([*TEXTS, *(f"neighbour {n}" for n in range(40))])
    np.testing.assert_allclose(crowded[: len(TEXTS)], vectors, atol=1e-5)


@pytest.mark.parametrize("row_tokens", [(256,), (512,), (150, 1024)])
def test_in_rows_of_any_length(embedder, vectors, row_tokens, monkeypatch):
    monkeypatch.setattr(embedder._encoder, "memory", Memory(row_tokens=row_tokens))
    np.testing.assert_allclose(embedder.encode(TEXTS), vectors, atol=1e-5)


@pytest.mark.parametrize("sizes", [(8, 1, 1), (2, 2, 2)], ids=str)
def test_on_any_mesh(checkpoint, vectors, sizes):
    others = Embedder(checkpoint.folder, mesh=meshes.make(sizes)).encode(TEXTS)
    np.testing.assert_allclose(others, vectors, atol=1e-5)


def test_programs_are_few(embedder):
    before = embedder._encoder.num_programs
    for size in range(45, 65):  # 14 to 22 rows, of which the grid of shapes has six
        embedder.encode([f"text {n}" for n in range(size)])
    assert embedder._encoder.num_programs - before <= 6


def test_names_of_sentence_transformers(embedder, vectors):
    np.testing.assert_array_equal(embedder.encode_query(TEXTS), embedder.encode(TEXTS))
    np.testing.assert_array_equal(embedder.encode_document(TEXTS), embedder.encode(TEXTS))
    np.testing.assert_allclose(np.diag(embedder.similarity(vectors, vectors)), 1, atol=1e-6)
    pairwise = embedder.similarity_pairwise(vectors[:3], vectors[3:6])
    np.testing.assert_allclose(pairwise, np.diag(vectors[:3] @ vectors[3:6].T), atol=1e-6)
    assert embedder.get_embedding_dimension() == 32
    assert embedder.supports("text")
    assert embedder.supports("image") and not embedder.supports("audio")
    item = {"text": TEXTS[0], "id": "first"}
    np.testing.assert_allclose(embedder.encode([item, Item(TEXTS[0])])[0], vectors[0], atol=1e-5)


def test_truncated_vectors_are_unit_vectors(embedder, vectors):
    short = embedder.encode(TEXTS, truncate_dim=8)
    expected = vectors[:, :8] / np.linalg.norm(vectors[:, :8], axis=1, keepdims=True)
    np.testing.assert_allclose(short, expected, atol=1e-5)
    with pytest.raises(ValueError, match="truncate_dim=33 is not in"):
        embedder.encode(TEXTS, truncate_dim=33)


def test_no_inputs(embedder):
    assert embedder.encode([]).shape == (0, 32)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (["fine", "  "], "input 1 is empty"),
        ([{"txt": "a"}], "did you mean 'text'"),
        ([{"image_path": "cat.png"}], "cat.png: no such file"),
        ([{"audio_path": "cat.wav"}], "has the audio cat.wav, but"),
        ([3], "input 0 is"),
    ],
)
def test_bad_inputs(embedder, inputs, message):
    with pytest.raises(ValueError, match=message):
        embedder.encode(inputs)


@pytest.mark.parametrize("name", ["tokens_per_batch", "patches_per_batch"])
def test_a_batch_of_nothing(checkpoint, name):
    with pytest.raises(ValueError, match=f"{name}=-4 must be positive"):
        Embedder(checkpoint.folder, dtype="float32", **{name: -4})


def test_what_cannot_be_embedded_is_done_too(embedder):
    """Else the bar of a job with a broken file never ends."""
    items = [Item("a"), ValueError("not read"), Item("b"), Item(images=("/no/such.png",))]
    done, errors = [], {}
    encode_in_blocks(
        embedder._encoder.encode, items, None, embedder.full_width, done.append, errors
    )
    assert sum(done) == len(items) and set(errors) == {1, 3}


def test_a_stopped_file_goes_on(checkpoint, embedder, vectors, tmp_path, monkeypatch):
    source, output = tmp_path / "items.jsonl", tmp_path / "out.npy"
    source.write_text("\n".join(json.dumps(text) for text in TEXTS))
    monkeypatch.setattr("lco_jax.embed.embed_file._PIECE", 2)
    encode = embedder.encode_pieces

    def stop_after_two(pieces):
        yield from itertools.islice(encode(pieces), 2)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(embedder, "encode_pieces", stop_after_two)
        with pytest.raises(KeyboardInterrupt):
            embed_file(embedder, str(source), str(output))
    assert not output.exists()
    seen = []

    def count(pieces):
        return encode(seen.append(len(piece)) or piece for piece in pieces)

    monkeypatch.setattr(embedder, "encode_pieces", count)
    assert embed_file(embedder, str(source), str(output)) == (len(TEXTS), {})
    assert seen == [2, 1]
    np.testing.assert_allclose(np.load(output), vectors, atol=1e-5)
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []
