"""The states after every layer equal the hidden states of transformers, and lie on disk."""

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from lco_jax.analysis import states
from lco_jax.analysis.states import LayerStates, LayerWriter, open_layer_encoder, write_states
from lco_jax.config import MeshConfig
from lco_jax.data.records import Item
from lco_jax.embed.embedder import Embedder
from tests import meshes, tiny

TEXTS = ["a quick brown fox", "two women watch\na busy market", "x", "word " * 70]
ITEMS = [Item(text) for text in TEXTS]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny.write(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def encoder(checkpoint):
    return open_layer_encoder(str(checkpoint.folder), mesh=meshes.make((1, 1, 1)))


def test_equal_transformers(checkpoint, encoder):
    found = encoder.encode_layers(ITEMS)
    assert found.shape == (4, 3 + 1, 32)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder)
    for text, own in zip(TEXTS, found, strict=True):
        prompt = f"{text}\nSummarize the above text in one word:"
        rendered = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, tokenize=False
        )
        ids = tokenizer(rendered, add_special_tokens=False, return_tensors="pt").input_ids
        with torch.no_grad():
            hidden = checkpoint.decoder(input_ids=ids, output_hidden_states=True).hidden_states
        expected = torch.stack(hidden)[:, 0, -1].numpy()
        np.testing.assert_allclose(own, expected, atol=1e-4)


def test_the_last_layer_is_what_is_embedded(checkpoint, encoder):
    last = encoder.encode_layers(ITEMS)[:, -1]
    unit = last / np.linalg.norm(last, axis=1, keepdims=True)
    vectors = Embedder(checkpoint.folder, mesh=meshes.make((1, 1, 1))).encode(TEXTS)
    np.testing.assert_allclose(unit, vectors, atol=1e-5)


def test_on_another_mesh(checkpoint, encoder):
    others = open_layer_encoder(str(checkpoint.folder), mesh=MeshConfig(2, 2, 2))
    others = others.encode_layers(ITEMS)
    np.testing.assert_allclose(others, encoder.encode_layers(ITEMS), atol=1e-5)


@pytest.mark.parametrize("items_per_piece", [1, 3])
def test_states_on_disk(encoder, tmp_path, monkeypatch, items_per_piece):
    monkeypatch.setattr(states, "_PIECE_BYTES", items_per_piece * 4 * 32 * 4)
    stored = write_states(encoder, ITEMS, tmp_path)
    expected = encoder.encode_layers(ITEMS)
    assert len(stored) == 4
    for layer in range(4):
        np.testing.assert_allclose(stored[layer], expected[:, layer], atol=1e-5)


def test_missing_items_and_folders_are_named(tmp_path):
    with (
        pytest.raises(ValueError, match="got 1 of 2 items"),
        LayerWriter(tmp_path, 2) as writer,
    ):
        writer.append(np.zeros((1, 2, 3), np.float32))
    with pytest.raises(FileNotFoundError, match="holds no layer"):
        LayerStates(tmp_path / "none")
