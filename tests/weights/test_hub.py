"""Hub folders: bit for bit in and out, in every spelling, on every mesh; bad ones by name."""

import json
import logging

import huggingface_hub
import jax
import numpy as np
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from transformers import AutoModelForCausalLM

from lco_jax.models.config import read_config
from lco_jax.weights.hub import load_params, save_folder
from lco_jax.weights.resolve import resolve_folder
from tests import meshes
from tests.weights import folders

QUERY = "model.layers.1.self_attn.q_proj.weight"


@pytest.fixture(scope="module", params=folders.SPELLINGS, ids=str)
def checkpoint(request, tmp_path_factory):
    return folders.write(tmp_path_factory.mktemp("checkpoint"), request.param)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """An untied qwen2 checkpoint in bfloat16."""
    return folders.write(tmp_path_factory.mktemp("plain"), "qwen2")


@pytest.fixture
def damaged(plain, tmp_path):
    """A folder to damage, and its tensors."""
    folder = folders.copy(plain, tmp_path / "damaged")
    return folder, folders.read(folder)


# ---------------------------------------------------------------------------------- both ways


def test_hub_to_ours_to_hub(checkpoint, tmp_path):
    config, params = folders.load(checkpoint)
    save_folder(tmp_path, params, config, checkpoint, max_shard_bytes=30_000)
    folders.assert_same_bits(folders.read(tmp_path), folders.read(checkpoint))
    assert (tmp_path / "model.safetensors.index.json").exists()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        assert json_or_none(tmp_path / name) == json_or_none(checkpoint / name)
    assert json_or_none(tmp_path / "config.json") is not None


def json_or_none(path):
    return json.loads(path.read_text()) if path.exists() else None


def test_without_head_it_is_copied(checkpoint, tmp_path):
    config, params = folders.load(checkpoint, with_head=False)
    assert "head" not in params
    save_folder(tmp_path, params, config, checkpoint)
    folders.assert_same_bits(folders.read(tmp_path), folders.read(checkpoint))


@pytest.mark.parametrize("sizes", meshes.SIZES[1:], ids=str)
def test_shards_hold_what_one_device_holds(tmp_path, sizes):
    base = folders.write(tmp_path / "base", "qwen2", num_kv_heads=4)
    _, whole = folders.load(base)
    with jax.set_mesh(meshes.make(sizes)):
        config, params = folders.load(base)
        query = params["layers"]["attention"]["query"]["kernel"]
        assert query.sharding.spec == jax.P(None, "fsdp", "tensor", None)
        shard = query.addressable_shards[0].data.shape
        assert shard == (3, 32 // sizes[1], 4 // sizes[2], 8)
        folders.assert_same_trees(params, whole)
        save_folder(tmp_path / "out", params, config, base)
    folders.assert_same_bits(folders.read(tmp_path / "out"), folders.read(base))


def test_values_are_those_of_torch(plain):
    tensors = {name: value.float() for name, value in folders.read(plain).items()}
    _, params = folders.load(plain, dtype="float32")
    attention = params["layers"]["attention"]
    x = np.random.default_rng(0).normal(size=32).astype(np.float32)
    prefix = "model.layers.2.self_attn"
    for ours, hub in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj")):
        weight, bias = (tensors[f"{prefix}.{hub}.{name}"] for name in ("weight", "bias"))
        expected = torch.nn.functional.linear(torch.tensor(x), weight, bias)
        kernel, bias = (np.asarray(attention[ours][name][2]) for name in ("kernel", "bias"))
        found = np.einsum("d,dnh->nh", x, kernel) + bias
        np.testing.assert_allclose(found.ravel(), expected, atol=1e-5)
    context = np.random.default_rng(1).normal(size=(4, 8)).astype(np.float32)
    found = np.einsum("nh,nhd->d", context, np.asarray(attention["output"]["kernel"][2]))
    expected = tensors[f"{prefix}.o_proj.weight"] @ torch.tensor(context.ravel())
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_casts_on_loading_and_saving(plain, tmp_path):
    config, single = folders.load(plain, dtype="float32")
    _, half = folders.load(plain)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(single)} == {"float32"}
    folders.assert_same_trees(jax.tree.map(lambda leaf: leaf.astype("float32"), half), single)
    save_folder(tmp_path / "kept", single, config, plain)
    folders.assert_same_bits(folders.read(tmp_path / "kept"), folders.read(plain))


def test_dtype_converts_every_floating_tensor(tmp_path):
    base = folders.write(tmp_path / "base", "thinker")
    tensors = folders.read(base) | {"visual.counter": torch.arange(3)}
    folders.store(base, tensors)
    config, params = folders.load(base)
    save_folder(tmp_path / "out", params, config, base, dtype="float32")
    expected = {
        name: value.float() if value.is_floating_point() else value
        for name, value in tensors.items()
    }
    folders.assert_same_bits(folders.read(tmp_path / "out"), expected)
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert written["dtype"] == "float32"


@pytest.mark.parametrize("spelling", ["qwen2", "thinker", "omni"])
def test_first_layers(spelling, tmp_path, caplog):
    base = folders.write(tmp_path / "base", spelling)
    with caplog.at_level(logging.INFO):
        config, params = folders.load(base, num_layers=2, with_head=False)
    assert "12 tensors of layers from 2 on are not loaded" in caplog.text
    assert "1 tensors of the output head" in caplog.text
    assert ("towers (not asked for)" in caplog.text) == (spelling != "qwen2")
    assert ("2 tensors of the talker" in caplog.text) == (spelling == "omni")
    save_folder(tmp_path / "out", params, config, base)
    expected = {name: v for name, v in folders.read(base).items() if "model.layers.2." not in name}
    folders.assert_same_bits(folders.read(tmp_path / "out"), expected)
    assert read_config(tmp_path / "out") == config


def test_transformers_loads_what_was_saved(plain, tmp_path):
    config, params = folders.load(plain, num_layers=2, with_head=False)
    changed = jax.tree.map(lambda leaf: leaf * 2, params)
    save_folder(tmp_path, changed, config, plain, dtype="float32", max_shard_bytes=30_000)
    model, info = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    assert model.dtype == torch.float32
    tensors = folders.read(plain)
    state = model.state_dict()
    assert torch.equal(state[QUERY], 2 * tensors[QUERY].float())
    assert torch.equal(state["lm_head.weight"], tensors["lm_head.weight"].float())


def test_tied_head_that_is_stored_follows_the_embeddings(tmp_path):
    base = folders.write(tmp_path / "base", "qwen2", tied=True)
    tensors = folders.read(base)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    folders.store(base, tensors)
    config, params = folders.load(base)
    save_folder(tmp_path / "same", params, config, base)
    folders.assert_same_bits(folders.read(tmp_path / "same"), tensors)
    params["embed"]["table"] *= 2
    save_folder(tmp_path / "changed", params, config, base)
    changed = folders.read(tmp_path / "changed")
    assert torch.equal(changed["lm_head.weight"], 2 * tensors["lm_head.weight"])


# -------------------------------------------------------------------------------------- errors


def test_unknown_missing_and_misshaped(damaged):
    folder, tensors = damaged
    for layer in range(3):
        del tensors[f"model.layers.{layer}.mlp.up_proj.weight"]
    tensors["model.norm.weight"] = torch.zeros(31)
    tensors |= {f"visual.blocks.{n}.norm1.weight": torch.zeros(2) for n in range(11)}
    folders.store(folder, tensors)
    with pytest.raises(ValueError, match="does not fit a qwen2 model") as caught:
        folders.load(folder)
    message = str(caught.value)
    assert "11 tensors that no parameter takes: visual.blocks.0.norm1.weight" in message
    assert message.count("visual.") == 10 and "…" in message
    assert "3 missing tensors: model.layers.0.mlp.up_proj.weight" in message
    shapes = "model.norm.weight (expected (32,), found (31,) in model.safetensors)"
    assert f"1 tensors of another shape: {shapes}" in message


def test_doubly_mapped(damaged):
    folder, tensors = damaged
    tensors["layers.1.self_attn.q_proj.weight"] = tensors[QUERY]
    folders.store(folder, tensors)
    with pytest.raises(ValueError, match="1 tensors given twice under different names"):
        folders.load(folder)


def test_a_tensor_that_no_parameter_takes(plain):
    config, params = folders.load(plain)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)
    del shapes["final_norm"]
    with pytest.raises(ValueError, match=r"1 tensors that no parameter takes: model\.norm\.weight"):
        load_params(plain, config, shapes)


def test_parameters_that_do_not_fit_the_base(plain, tmp_path):
    config, params = folders.load(plain)
    params["final_norm"] = {"scale": params["final_norm"]["scale"][1:], "shift": np.zeros(3)}
    with pytest.raises(ValueError, match=r"another shape: model\.norm\.weight") as caught:
        save_folder(tmp_path / "out", params, config, plain)
    assert "without a row in the weight table: final_norm/shift" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_saving_does_not_overwrite(plain, tmp_path):
    config, params = folders.load(plain)
    save_folder(tmp_path, params, config, plain)
    with pytest.raises(FileExistsError, match=r"already holds model\.safetensors"):
        save_folder(tmp_path, params, config, plain)


# -------------------------------------------------------------------------------- which folder


def test_resolve_local_folder(tmp_path):
    assert resolve_folder(str(tmp_path)) == tmp_path
    for absent in (tmp_path / "absent", "./a/b", "a/b/c", "name"):
        with pytest.raises(FileNotFoundError, match="neither a folder nor a hub id"):
            resolve_folder(absent)


def test_resolve_hub_id(tmp_path, monkeypatch):
    asked = []

    def download(name, *, revision, allow_patterns):
        if revision is None:
            raise LocalEntryNotFoundError("no connection")
        assert (name, revision) == ("org/model-1.5", "v2")
        asked.append(allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert resolve_folder("org/model-1.5", "v2") == tmp_path
    first, second = asked
    assert first == ["config.json", "adapter_config.json"]
    assert "*.safetensors" in second and "*.bin" not in second
    with pytest.raises(FileNotFoundError, match=r"'org/model-1.5' .*no connection"):
        resolve_folder("org/model-1.5")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", {"model_type": "bert"}, "'bert' is not supported; supported are .*'llama'"),
        ("config.json", {"model_type": "llama", "quantization_config": {}}, "FP8.* in bfloat16"),
        ("adapter_config.json", {"peft_type": "IA3", "r": 1}, "'IA3' .*; merge it with peft"),
    ],
)
def test_weights_that_could_not_be_used_are_not_fetched(
    tmp_path, monkeypatch, name, content, message
):
    def download(model, *, revision, allow_patterns):
        assert "*.safetensors" not in allow_patterns
        (tmp_path / name).write_text(json.dumps(content))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(ValueError, match=message):
        resolve_folder("org/model")
