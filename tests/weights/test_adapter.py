"""Adapters: merged as peft merges them, and written so that peft loads them."""

import json

import jax
import numpy as np
import peft
import pytest
import safetensors.numpy
import torch
from flax.traverse_util import flatten_dict, unflatten_dict
from transformers import (
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5OmniThinkerForConditionalGeneration,
    Qwen2ForCausalLM,
)

from lco_jax.config import LORA_TARGETS, Lora
from lco_jax.models.build import build, join
from lco_jax.models.config import read_config
from lco_jax.weights.adapter import merge_lora, save_peft
from lco_jax.weights.hub import save_folder
from lco_jax.weights.tables import TABLES
from tests import meshes
from tests.weights import folders

CLASSES = {
    "qwen2": Qwen2ForCausalLM,
    "vl hub": Qwen2_5_VLForConditionalGeneration,
    "thinker": Qwen2_5OmniThinkerForConditionalGeneration,
}


@pytest.fixture(scope="module", params=CLASSES, ids=str)
def spelling(request):
    return request.param


@pytest.fixture(scope="module")
def checkpoint(spelling, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    return folders.write(folder, spelling, dtype=torch.float32, num_kv_heads=4)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    return folders.write(folder, "qwen2", dtype=torch.float32, num_kv_heads=4)


def random_factors(config, lora: Lora, seed=0):
    _, shapes, _ = build(config, lora, "float32")
    rng = np.random.default_rng(seed)

    def draw(shape):
        values = 0.1 * rng.normal(size=shape.shape).astype(np.float32)
        return jax.device_put(values, shape.sharding)

    return jax.tree.map(draw, shapes)


def merged_by_peft(model, out):
    model.merge_and_unload().save_pretrained(out)
    return folders.read(out)


def assert_close(found, expected, atol=1e-6):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=atol, rtol=0, msg=name)


# ------------------------------------------------------------------------------------- merging


@pytest.mark.parametrize("sizes", meshes.SIZES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_merge(plain, sizes, dtype):
    lora = Lora(rank=4, alpha=12.0, targets=("query", "output", "down"))
    with jax.set_mesh(meshes.make(sizes)):
        config, base = folders.load(plain, dtype=dtype)
        factors = random_factors(config, lora)
        merged = merge_lora(join(base, factors), 3.0)
        shardings = jax.tree.map(lambda leaf: leaf.sharding, base)
        assert jax.tree.map(lambda leaf: leaf.sharding, merged) == shardings
    base, merged = flatten_dict(base, sep="/"), flatten_dict(merged, sep="/")
    factors = flatten_dict(factors, sep="/")
    assert merged.keys() == base.keys()
    for path, leaf in base.items():
        module = path.removesuffix("/kernel")
        if f"{module}/lora_a" not in factors:
            assert merged[path] is leaf
            continue
        a, b = (np.asarray(factors[f"{module}/lora_{x}"], np.float64) for x in "ab")
        update = np.stack([np.tensordot(a[n], b[n], (0, 0)) for n in range(len(a))])
        expected = (np.asarray(leaf, np.float64) + 3.0 * update).astype(np.float32)
        tolerance = {"atol": 1e-6} if dtype == "float32" else {"rtol": 2**-8, "atol": 1e-6}
        np.testing.assert_allclose(np.asarray(merged[path], np.float32), expected, **tolerance)
        assert merged[path].dtype == leaf.dtype


# -------------------------------------------------------------------------------- ours to peft


@pytest.mark.parametrize("targets", [LORA_TARGETS, ("query", "up")], ids=["all", "two"])
def test_peft_loads_our_adapter(checkpoint, spelling, tmp_path, targets):
    lora = Lora(rank=4, alpha=16.0, dropout=0.1, targets=targets)
    config, base = folders.load(checkpoint, dtype="float32", with_head=False)
    params = join(base, random_factors(config, lora))
    save_peft(tmp_path / "adapter", params, TABLES[config.family], lora, str(checkpoint))

    model = CLASSES[spelling].from_pretrained(checkpoint, dtype=torch.float32).eval()
    tokens = torch.randint(3, 400, (2, 9))
    before = model(input_ids=tokens).logits
    model = peft.PeftModel.from_pretrained(model, tmp_path / "adapter")
    settings = model.peft_config["default"]
    assert (settings.r, settings.lora_alpha, settings.lora_dropout) == (4, 16, 0.1)
    assert settings.task_type == "FEATURE_EXTRACTION" and settings.inference_mode
    adapted = [name for name, _ in model.named_modules() if name.endswith("lora_A.default")]
    assert len(adapted) == 3 * len(targets)
    assert not any(part in name for name in adapted for part in ("visual", "audio"))
    after = model(input_ids=tokens).logits
    assert (after - before).abs().max() > 0.1

    save_folder(tmp_path / "ours", merge_lora(params, 4.0), config, checkpoint)
    ours = CLASSES[spelling].from_pretrained(tmp_path / "ours", dtype=torch.float32).eval()
    torch.testing.assert_close(ours(input_ids=tokens).logits, after, atol=1e-4, rtol=1e-4)
    assert_close(folders.read(tmp_path / "ours"), merged_by_peft(model, tmp_path / "peft"))


def test_an_adapter_holds_the_factors_it_was_made_of(checkpoint, tmp_path):
    lora = Lora(rank=4, alpha=6.0, dropout=0.25, targets=("key", "gate"))
    config = read_config(checkpoint)
    factors = random_factors(config, lora)
    save_peft(tmp_path, factors, TABLES[config.family], lora, "org/name", "v1")
    names = TABLES[config.family].adapter()
    tensors = safetensors.numpy.load_file(tmp_path / "adapter_model.safetensors")
    found = names.assign(tensors)
    assert len(found.names) == len(tensors) == 2 * 2 * config.text.num_layers
    sizes, again = {**config.text.sizes, "R": lora.rank}, {}
    for (path, _), name in sorted(found.names.items()):
        layer = names.row(path).layout.to_ours(tensors[name], sizes)
        again.setdefault(path, []).append(layer)
    again = {path: np.stack(layers) for path, layers in again.items()}
    folders.assert_same_trees(unflatten_dict(again, sep="/"), factors)
    written = json.loads((tmp_path / "adapter_config.json").read_text())
    assert written["base_model_name_or_path"] == "org/name" and written["revision"] == "v1"
    assert (written["r"], written["lora_alpha"], written["lora_dropout"]) == (4, 6, 0.25)
