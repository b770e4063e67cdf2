"""Adapters: merged as peft merges them, and exchanged with peft in both directions."""

import json

import jax
import numpy as np
import peft
import pytest
import safetensors.torch
import torch
from flax.traverse_util import flatten_dict, unflatten_dict
from transformers import (
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5OmniThinkerForConditionalGeneration,
    Qwen2ForCausalLM,
    Qwen2Model,
)

from lco_jax.config import LORA_TARGETS, Lora
from lco_jax.models.build import build, join
from lco_jax.models.config import read_config
from lco_jax.weights.adapter import load_peft, merge_lora, save_peft
from lco_jax.weights.hub import save_folder
from lco_jax.weights.tables import TABLES
from tests import meshes
from tests.weights import folders

CLASSES = {
    "qwen2": Qwen2ForCausalLM,
    "vl hub": Qwen2_5_VLForConditionalGeneration,
    "thinker": Qwen2_5OmniThinkerForConditionalGeneration,
}
MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
DECODER = r".*(?<!audio_tower\.)layers\.\d+\.(self_attn|mlp)\.(" + "|".join(MODULES) + ")"


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


def peft_model(checkpoint, spelling, **settings):
    """A torch model with a random adapter, not yet merged."""
    base = CLASSES[spelling].from_pretrained(checkpoint, dtype=torch.float32).eval()
    torch.manual_seed(0)
    model = peft.get_peft_model(base, peft.LoraConfig(**settings))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.1 * torch.randn_like(parameter))
    return model


def merged_by_us(checkpoint, adapter, out):
    """Hub tensors after our import and merge."""
    config, params = folders.load(checkpoint, dtype="float32", with_head=False)
    factors, lora = load_peft(adapter, config)
    save_folder(out, merge_lora(join(params, factors), lora.alpha / lora.rank), config, checkpoint)
    return folders.read(out)


def merged_by_peft(model, out):
    model.merge_and_unload().save_pretrained(out)
    return folders.read(out)


def assert_close(found, expected, atol=1e-6):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=atol, rtol=0, msg=name)


def as_if(adapter, rename, **settings):
    """Rename the tensors of an adapter and change its settings."""
    file = adapter / "adapter_model.safetensors"
    tensors = {rename(name): value for name, value in safetensors.torch.load_file(file).items()}
    safetensors.torch.save_file({k: v for k, v in tensors.items() if k}, file)
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


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


def test_our_adapter_comes_back(checkpoint, tmp_path):
    lora = Lora(rank=4, alpha=6.0, dropout=0.25, targets=("key", "gate"))
    config = read_config(checkpoint)
    factors = random_factors(config, lora)
    save_peft(tmp_path, factors, TABLES[config.family], lora, "org/name")
    again, settings = load_peft(tmp_path, config)
    assert settings == lora
    folders.assert_same_trees(again, factors)
    written = json.loads((tmp_path / "adapter_config.json").read_text())
    assert written["base_model_name_or_path"] == "org/name"


# -------------------------------------------------------------------------------- peft to ours

SETTINGS = {
    "plain": {},
    "rank-stabilised": {"use_rslora": True},
    "patterns": {
        "rank_pattern": {"q_proj": 2, r"layers\.1\.mlp\.up_proj": 7},
        "alpha_pattern": {"o_proj": 24, r"layers\.2\.self_attn\.q_proj": 3},
    },
    "patterns, rank-stabilised": {
        "use_rslora": True,
        "rank_pattern": {"down_proj": 9},
        "alpha_pattern": {"down_proj": 1, "up_proj": 40},
    },
    "some layers": {"target_modules": DECODER.replace(r"\d+", "[02]")},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
def test_we_load_what_peft_wrote(checkpoint, spelling, tmp_path, settings):
    options = {"r": 4, "lora_alpha": 10, "target_modules": DECODER} | settings
    model = peft_model(checkpoint, spelling, **options)
    model.save_pretrained(tmp_path / "adapter")
    ours = merged_by_us(checkpoint, tmp_path / "adapter", tmp_path / "ours")
    assert_close(ours, merged_by_peft(model, tmp_path / "peft"))
    assert not torch.equal(
        ours["model.layers.2.self_attn.q_proj.weight"],
        folders.read(checkpoint)["model.layers.2.self_attn.q_proj.weight"],
    )


def test_settings_of_an_import(plain, tmp_path):
    options = {"r": 4, "lora_alpha": 10, "lora_dropout": 0.2, "target_modules": ["q_proj"]}
    options["rank_pattern"] = {"layers.1.self_attn.q_proj": 6}
    peft_model(plain, "qwen2", **options).save_pretrained(tmp_path)
    factors, lora = load_peft(tmp_path, read_config(plain))
    assert lora == Lora(rank=6, alpha=15.0, dropout=0.2, targets=("query",))
    flat = flatten_dict(factors, sep="/")
    assert flat["layers/attention/query/lora_a"].shape == (3, 6, 32)
    assert flat["layers/attention/query/lora_b"].shape == (3, 6, 4, 8)
    assert not flat["layers/attention/query/lora_a"][0, 4:].any()


def test_adapter_of_the_base_class(plain, tmp_path):
    """sentence-transformers trains on AutoModel, whose decoder has no wrapper."""
    base = Qwen2Model.from_pretrained(plain, dtype=torch.float32)
    model = peft.get_peft_model(base, peft.LoraConfig(r=2, target_modules=["v_proj"]))
    model.save_pretrained(tmp_path)
    _, lora = load_peft(tmp_path, read_config(plain))
    assert lora == Lora(rank=2, alpha=8.0, dropout=0.0, targets=("value",))


@pytest.mark.parametrize(
    ("spelling", "decoder"),
    [
        ("vl hub", "model.layers."),
        ("vl hub", "language_model.layers."),
        ("thinker", "model.layers."),
        ("thinker", "thinker.model.layers."),
        ("thinker", "thinker.model.language_model.layers."),
        ("omni", "thinker.model.layers."),
        ("omni", "model.layers."),
    ],
)
def test_spellings_of_other_versions(tmp_path, spelling, decoder):
    config = read_config(folders.write(tmp_path / "base", spelling))
    lora = Lora(rank=2, targets=("query", "down"))
    factors = random_factors(config, lora)
    save_peft(tmp_path / "adapter", factors, TABLES[config.family], lora, "org/name")
    as_if(tmp_path / "adapter", lambda name: name.replace("model.language_model.layers.", decoder))
    again, _ = load_peft(tmp_path / "adapter", config)
    folders.assert_same_trees(again, factors)


# -------------------------------------------------------------------------------------- errors


@pytest.fixture
def adapter(plain, tmp_path):
    config = read_config(plain)
    lora = Lora(rank=2, targets=("query",))
    save_peft(tmp_path, random_factors(config, lora), TABLES["qwen2"], lora, "org/name")
    return tmp_path, config


@pytest.mark.parametrize(
    "settings",
    [
        {"use_dora": True},
        {"modules_to_save": ["lm_head"]},
        {"bias": "all"},
        {"peft_type": "LOHA"},
        {"init_lora_weights": "pissa"},
        {"layer_replication": [[0, 2], [1, 3]]},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_unsupported_settings(adapter, settings):
    folder, config = adapter
    as_if(folder, str, **settings)
    with pytest.raises(ValueError, match=f"{next(iter(settings))}=.* is not supported"):
        load_peft(folder, config)


def test_unmatched_tensors(adapter):
    folder, config = adapter
    tower = "visual.blocks.1.attn.qkv"
    as_if(folder, lambda name: name.replace("layers.1.self_attn.q_proj", tower))
    with pytest.raises(ValueError, match=r"2 tensors are no low-rank factors.*visual\.blocks\.1"):
        load_peft(folder, config)


def test_half_a_pair(adapter):
    folder, config = adapter
    as_if(folder, lambda name: "" if "layers.1" in name and "lora_B" in name else name)
    with pytest.raises(ValueError, match=r"missing .*layers\.1\.self_attn\.q_proj\.lora_B"):
        load_peft(folder, config)
    as_if(folder, lambda name: "" if "layers.2" in name and "lora_A" in name else name)
    with pytest.raises(ValueError, match=r"layers\.2\..*\.lora_B\.weight has no lora_A"):
        load_peft(folder, config)


def test_too_many_layers_and_other_widths(adapter):
    folder, config = adapter
    with pytest.raises(ValueError, match=r"layers\.2\..* \(the model has 2 layers\)"):
        load_peft(folder, config.first_layers(2))
    factors = {"layers": {"attention": {"query": {"lora_a": np.ones((3, 2, 31), np.float32)}}}}
    factors = flatten_dict(factors, sep="/")
    factors["layers/attention/query/lora_b"] = np.ones((3, 2, 4, 8), np.float32)
    lora = Lora(rank=2, targets=("query",))
    save_peft(folder, unflatten_dict(factors, sep="/"), TABLES["qwen2"], lora, "org/name")
    with pytest.raises(ValueError, match=r"expected \(2, 32\), found \(2, 31\)"):
        load_peft(folder, config)


def test_no_safetensors(adapter):
    folder, config = adapter
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(FileNotFoundError, match="saved again with safetensors"):
        load_peft(folder, config)
