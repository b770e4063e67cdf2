"""An adapter folder, ours or peft's, wherever a model is named."""

import json
import sys

import numpy as np
import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lco_jax.cli import embed as embed_program
from lco_jax.config import Lora, MeshConfig, ModelRef
from lco_jax.config.io import ScienceChangedError
from lco_jax.embed.embedder import Embedder
from lco_jax.export.folders import export_model
from lco_jax.plan.abstract import model_sizes
from lco_jax.plan.stand_in import on_hand
from lco_jax.train.loop import train
from lco_jax.train.manifest import read_manifest
from tests import meshes, runs, tiny
from tests.export import runs as written_runs
from tests.weights import folders

TEXTS = ["a cat", "\n a word", "Die Würde 東京 😀", "the quick brown fox jumps over it"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A base model, an adapter of peft and one that was exported from a run."""
    folder = tmp_path_factory.mktemp("adapters")
    base = tiny.write(folder / "base", num_layers=2).folder
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(base)
    settings = peft.LoraConfig(
        r=4, target_modules=["v_proj", "down_proj"], init_lora_weights=False, use_rslora=True
    )
    adapted = peft.get_peft_model(model, settings)
    adapted.save_pretrained(folder / "theirs")
    adapted.merge_and_unload().save_pretrained(folder / "merged")
    AutoTokenizer.from_pretrained(base).save_pretrained(folder / "merged")
    written_runs.write(folder / "run", base, profile="qwen3-embedding", max_text_tokens=7)
    export_model(str(folder / "run"), folder / "ours", "peft", verified=False)
    runs.write_triplets(folder / "triplets.jsonl")
    return folder


def vectors(model):
    return Embedder(model, dtype="float32", mesh=meshes.make((1, 1, 1))).encode(TEXTS)


def test_embeds_as_what_peft_merges(folder):
    np.testing.assert_allclose(vectors(folder / "theirs"), vectors(folder / "merged"), atol=1e-5)
    assert np.abs(vectors(folder / "theirs") - vectors(folder / "base")).max() > 0.01


def test_our_export_embeds_as_the_run(folder):
    """With its prompt and its longest text."""
    np.testing.assert_allclose(vectors(folder / "ours"), vectors(folder / "run"), atol=1e-5)


@pytest.mark.slow
def test_eight_devices(folder):
    many = Embedder(folder / "theirs", dtype="float32", mesh=meshes.make((2, 2, 2)))
    np.testing.assert_allclose(many.encode(TEXTS), vectors(folder / "theirs"), atol=1e-5)


def test_program(folder, tmp_path, monkeypatch):
    items = tmp_path / "items.jsonl"
    items.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    arguments = ["--model", str(folder / "theirs"), "--input", str(items)]
    arguments += ["--output", str(tmp_path / "out.npy"), "--dtype", "float32"]
    monkeypatch.setattr(sys, "argv", ["launch/embed.py", *arguments])
    assert not embed_program.main()
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), vectors(folder / "merged"), atol=1e-5)


def test_exports_are_merged(folder, tmp_path):
    verified = export_model(str(folder / "theirs"), tmp_path / "out", "merged", dtype="float32")
    assert verified is not None and not verified.failures
    found, expected = folders.read(tmp_path / "out"), folders.read(folder / "merged")
    assert found.keys() == expected.keys()
    for name, values in found.items():
        torch.testing.assert_close(values, expected[name], atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match=r"no low-rank factors .*--format merged"):
        export_model(str(folder / "theirs"), tmp_path / "again", "peft")


def test_training_goes_on(folder, tmp_path):
    """From the merged model; it resumes if the adapter is the same, and its model is known."""
    ref = ModelRef(str(folder / "theirs"), trainable=Lora(rank=2, alpha=4), dtype="float32")
    options = {"model": ref, "num_steps": 2, "mesh": MeshConfig(data=8)}
    config = runs.make_config(folder, folder / "triplets.jsonl", **options)
    train(config, str(tmp_path / "run"))
    assert read_manifest(str(tmp_path / "run")).config.model.path == str(folder / "theirs")
    trained, merged = vectors(tmp_path / "run"), vectors(folder / "merged")
    moved = np.abs(trained - merged).max()
    assert 1e-4 < moved < np.abs(trained - vectors(folder / "base")).max()
    train(config, str(tmp_path / "run"))
    with pytest.raises(ValueError, match=r"goes on training the adapter .*--format merged"):
        export_model(str(tmp_path / "run"), tmp_path / "out", "peft")
    file = folder / "theirs" / "adapter_config.json"
    before = file.read_text()
    file.write_text(json.dumps({**json.loads(before), "lora_alpha": 9}))
    try:
        with pytest.raises(ScienceChangedError, match=r"theirs is not the model that the run"):
            train(config, str(tmp_path / "run"))
    finally:
        file.write_text(before)


def test_plans_take_the_base(folder):
    config = runs.make_config(folder / "theirs", folder / "triplets.jsonl")
    plain = runs.make_config(folder / "base", folder / "triplets.jsonl")
    assert model_sizes(config) == model_sizes(plain)
    with on_hand(config, 2) as found:
        assert not found.assumed
