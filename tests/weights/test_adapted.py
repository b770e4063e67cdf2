"""Adapter folders of peft as models: the numbers that peft has, or a refusal by name."""

import json
import shutil
from pathlib import Path

import numpy as np
import peft
import pytest
import safetensors.torch
import torch
from peft import LoraConfig
from transformers import (
    AutoModel,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5OmniThinkerForConditionalGeneration,
    Qwen2ForCausalLM,
)

from lco_jax.models.config import read_config
from lco_jax.runtime import caches
from lco_jax.weights.adapted import open_weights
from lco_jax.weights.hub import load_params, save_folder
from lco_jax.weights.identity import contents_of
from lco_jax.weights.resolve import resolve_folder
from tests import tiny
from tests.weights import folders

CLASSES = {
    "qwen2": Qwen2ForCausalLM,
    "qwen2 bare": Qwen2ForCausalLM,
    "vl hub": Qwen2_5_VLForConditionalGeneration,
    "thinker": Qwen2_5OmniThinkerForConditionalGeneration,
}


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
    return caches.cache_folder()


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    root = tmp_path_factory.mktemp("bases")
    for spelling in CLASSES:
        folders.write(root / spelling, spelling, dtype=torch.float32)
    return root


def adapted(base: Path, out: Path, cls=Qwen2ForCausalLM, **settings):
    """An adapter with random factors, as peft writes it; its model, merged by peft."""
    torch.manual_seed(1)
    model = cls.from_pretrained(base, dtype=torch.float32)
    options = {"r": 4, "lora_alpha": 12, "target_modules": ["q_proj", "down_proj"], **settings}
    model = peft.get_peft_model(model, LoraConfig(init_lora_weights=False, **options))
    model.peft_config["default"].base_model_name_or_path = str(base)
    with torch.no_grad():
        for name, values in model.named_parameters():
            if "modules_to_save" in name:
                values.add_(0.3 * torch.randn_like(values))
    model.save_pretrained(out)
    return model.merge_and_unload()


def edit(folder: Path, **fields) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(folder / "adapter_model.safetensors")


def store(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    safetensors.torch.save_file(tensors, folder / "adapter_model.safetensors")


def assert_as_peft(adapter: Path, merged: torch.nn.Module, tmp_path: Path) -> None:
    """Every tensor is the one that peft has after merging, and some are not the base's."""
    merged.save_pretrained(tmp_path / "merged")
    expected = folders.read(tmp_path / "merged")
    source = open_weights(resolve_folder(adapter))
    changed = 0
    spelled = {name.removeprefix("model."): value for name, value in expected.items()}
    assert len(spelled) == len(source.specs)
    for name in source.specs:
        found, value = source.view(name), spelled[name.removeprefix("model.")]
        np.testing.assert_allclose(found, value.numpy(), atol=1e-5, rtol=1e-5, err_msg=name)
        changed += bool(np.abs(super(type(source), source).view(name) - value.numpy()).max() > 0.05)
    assert changed


# ------------------------------------------------------------------------------- what peft makes

SETTINGS = {
    "plain": {},
    "rslora": {"use_rslora": True},
    "patterns": {
        "rank_pattern": {"q_proj": 2, r"layers\.1\.mlp.down_proj": 3},
        "alpha_pattern": {"^model.layers.2.self_attn.q_proj": 5, "down_proj": 7.5},
        "use_rslora": True,
    },
    "layers": {"layers_to_transform": [0, 2], "layers_pattern": "layers"},
    "one layer": {"layers_to_transform": 1},
    "regex": {"target_modules": r"model\.layers\.\d+\.mlp\.(gate|up)_proj"},
    "all linear": {"target_modules": "all-linear"},
    "output head": {"target_modules": ["lm_head", "v_proj"]},
    "fan in": {"fan_in_fan_out": True},
    "whole modules": {"modules_to_save": ["lm_head", "norm", "input_layernorm"]},
    "whole blocks": {"modules_to_save": ["mlp", "embed_tokens"], "target_modules": ["q_proj"]},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_settings(bases, tmp_path, settings):
    merged = adapted(bases / "qwen2", tmp_path / "adapter", **settings)
    assert_as_peft(tmp_path / "adapter", merged, tmp_path)


@pytest.mark.parametrize("spelling", ["qwen2 bare", "vl hub", "thinker"])
def test_families(bases, tmp_path, spelling):
    """In the towers, too."""
    targets = ["q_proj", "o_proj", "qkv", "gate_proj", "fc1", "mlp.0", "q", "proj_out"]
    cls = CLASSES[spelling]
    merged = adapted(bases / spelling, tmp_path / "adapter", cls, target_modules=targets)
    assert_as_peft(tmp_path / "adapter", merged, tmp_path)


def test_an_adapter_of_the_class_without_a_head(bases, tmp_path):
    merged = adapted(bases / "qwen2", tmp_path / "adapter", AutoModel)
    head = Qwen2ForCausalLM.from_pretrained(bases / "qwen2", dtype=torch.float32)
    head.model = merged
    assert_as_peft(tmp_path / "adapter", head, tmp_path)


def test_loading_and_saving(bases, tmp_path):
    """Of weights in bfloat16 the sum is rounded once; what is not loaded is merged, too."""
    folders.write(tmp_path / "base", "qwen2")
    targets = ["q_proj", "lm_head"]
    merged = adapted(tmp_path / "base", tmp_path / "adapter", target_modules=targets)
    folder = resolve_folder(tmp_path / "adapter")
    config, params = folders.load(folder, dtype="bfloat16", with_head=False)
    assert config == read_config(tmp_path / "base")
    save_folder(tmp_path / "out", params, config, folder)
    out, expected = folders.read(tmp_path / "out"), merged.state_dict()
    assert out.keys() == expected.keys()
    for name, values in out.items():
        assert torch.equal(values, expected[name].to(torch.bfloat16)), name
    shapes = folders.shapes_of(folders.load(folder, dtype="float32")[1])
    exact = load_params(folder, config, shapes)["head"]["kernel"]
    wanted = merged.lm_head.weight.detach().numpy().T
    np.testing.assert_allclose(np.asarray(exact), wanted, atol=1e-6)


# ------------------------------------------------------------------------- where the base model is


def test_places_of_the_base(bases, tmp_path, monkeypatch):
    adapted(bases / "qwen2", tmp_path / "here" / "adapter")
    adapter = tmp_path / "here" / "adapter"
    whole = resolve_folder(adapter)
    assert resolve_folder(adapter) == whole and whole.name.startswith("adapter-")
    digest = contents_of(whole).digest
    shutil.copytree(bases / "qwen2", adapter / "base")
    for name in ("base", "./base", "../adapter/base"):
        edit(adapter, base_model_name_or_path=name)
        assert contents_of(resolve_folder(adapter)).digest == digest
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    shutil.move(adapter / "base", "base")
    edit(adapter, base_model_name_or_path="base")
    assert contents_of(resolve_folder(Path("../here/adapter"))).digest == digest
    shutil.copytree("base", adapter / "base")
    with pytest.raises(
        ValueError, match=r"'base' may be .*adapter/base or .*cwd/base; write the wh"
    ):
        resolve_folder(adapter)


def test_adapters_on_the_hub(bases, tmp_path, monkeypatch):
    adapted(bases / "qwen2", tmp_path / "adapter")
    edit(tmp_path / "adapter", base_model_name_or_path="org/base", revision="v7")
    asked = []

    def download(model, *, revision, allow_patterns):
        asked.append((model, revision))
        return str({"org/base": bases / "qwen2", "org/adapter": tmp_path / "adapter"}[model])

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    folder = resolve_folder("org/adapter", "v1")
    assert set(asked) == {("org/adapter", "v1"), ("org/base", "v7")}
    assert read_config(folder) == read_config(bases / "qwen2")


def test_what_the_digest_covers(bases, tmp_path):
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    shutil.copytree(bases / "qwen2", base)
    adapted(base, adapter)

    def digest():
        return contents_of(resolve_folder(adapter)).digest

    seen = [digest()]
    shutil.copy(base / "tokenizer.json", adapter)
    (adapter / "tokenizer.json").write_text((adapter / "tokenizer.json").read_text() + " ")
    seen.append(digest())
    edit(adapter, lora_alpha=13)
    seen.append(digest())
    store(adapter, {name: 2 * values for name, values in tensors_of(adapter).items()})
    seen.append(digest())
    folders.store(base, {name: 2 * values for name, values in folders.read(base).items()})
    seen.append(digest())
    assert len(set(seen)) == len(seen)
    edit(adapter, inference_mode=False, base_model_name_or_path="../base")
    assert digest() == seen[-1]


def test_which_files_are_whose(bases, tmp_path):
    adapter = tmp_path / "adapter"
    adapted(bases / "qwen2", adapter)
    joined = resolve_folder(adapter)
    assert (joined / "tokenizer.json").samefile(bases / "qwen2" / "tokenizer.json")
    assert not (joined / "adapter_config.json").exists()
    for name in ("tokenizer.json", "config.json", "preprocessor_config.json"):
        (adapter / name).write_text("{}")
    joined = resolve_folder(adapter)
    assert (joined / "tokenizer.json").samefile(adapter / "tokenizer.json")
    assert (joined / "preprocessor_config.json").samefile(adapter / "preprocessor_config.json")
    assert (joined / "config.json").samefile(bases / "qwen2" / "config.json")
    # Not a mixture: the base's go with the base's tokenizer.
    assert not (joined / "tokenizer_config.json").exists()


# ------------------------------------------------------------------------------- what is refused


def field(**values):
    return lambda adapter: edit(adapter, **values)


def change(function):
    def apply(adapter):
        tensors = tensors_of(adapter)
        function(tensors)
        store(adapter, tensors)

    return apply


FIRST = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
_MERGE = "merge_and_unload, then save_pretrained"


def move(old, new):
    return change(lambda tensors: tensors.update({new: tensors.pop(old)}))


def foreign(tensors):
    for letter in "AB":
        name = f"base_model.model.model.layers.0.experts.q_proj.lora_{letter}.weight"
        tensors[name] = torch.ones(4, 4)


def twice(tensors):
    for name in (FIRST, FIRST.replace("lora_A", "lora_B")):
        tensors[name.replace("model.model.model.", "model.model.")] = tensors[name].clone()


def with_base_weights(adapter):
    (adapter / "model.safetensors").write_bytes(b"")


def pickled(adapter):
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")


def adapter_as_base(adapter):
    shutil.copytree(adapter, adapter / "inner")
    edit(adapter, base_model_name_or_path="inner")


REFUSED = {
    "DoRA": (field(use_dora=True), f"json: use_dora=True .*DoRA is not read; .*{_MERGE}"),
    "kind": (field(peft_type="IA3"), f"peft_type='IA3' .*expected 'LORA'; .*{_MERGE}"),
    "bias": (field(bias="all"), "bias='all' .*trained biases are not read"),
    "factor bias": (field(lora_bias=True), "lora_bias=True .*a bias of the factors"),
    "tokens": (field(trainable_token_indices=[1]), "trainable_token_indices=.* trained tokens"),
    "replicated": (field(layer_replication=[[0, 2]]), "layer_replication=.* replicated layers"),
    "parameters": (field(target_parameters=["a.b"]), "target_parameters=.* factors of parameters"),
    "PiSSA": (field(init_lora_weights="pissa_niter_4"), "'pissa_niter_4' changes the base .*conv"),
    "OLoRA": (field(init_lora_weights="olora"), "init_lora_weights='olora' changes the base model"),
    "LoftQ": (field(init_lora_weights="loftq"), "init_lora_weights='loftq' changes the base model"),
    "no base": (
        field(base_model_name_or_path=None),
        "base_model_name_or_path=None .* give the hub",
    ),
    "rank": (field(r=0), "r=0 should be greater"),
    "evil pattern": (field(alpha_pattern={"(a+)+": 2}), "alpha_pattern.* repeats a group"),
    "broken pattern": (field(rank_pattern={"(": 2}), "rank_pattern.* is no regular expression"),
    "gone": (field(base_model_name_or_path="/gone"), "path='/gone' is not here: .* where the base"),
    "chain": (adapter_as_base, "'inner' is an adapter, too: export it as a model"),
    "not JSON": (lambda x: (x / "adapter_config.json").write_text("{"), "config.json is not JSON"),
    "two models": (with_base_weights, r"holds an adapter .* and a model \(model.safetensors\)"),
    "pickle": (pickled, "has no adapter_model.safetensors; save the adapter with save_pretrained"),
    "wrong rank": (field(r=3), r"q_proj \(rank 3, weight \(32, 32\), found B \(32, 4\) and A"),
    "targets": (field(target_modules=["q_proj"]), "3 modules that target_modules .*down_proj"),
    "layers": (field(layers_to_transform=[0]), r"4 modules that .*layers\.1\.mlp\.down_proj"),
    "lacking": (change(foreign), "1 tensors that the base model lacks: .*experts.q_proj.weight"),
    "half": (
        change(lambda x: x.pop(FIRST)),
        "1 modules with one factor of two: .*layers.0.*q_proj",
    ),
    "twice": (
        change(twice),
        "1 tensors given twice under different names: model.layers.0.self_attn.q_p",
    ),
    "unknown": (
        move(FIRST, FIRST.replace("lora_A", "lora_embedding_A")),
        "no factors, and of no module in modules_to_save: .*lora_embedding_A",
    ),
    "integers": (change(lambda x: x.update({FIRST: x[FIRST].int()})), r"integers: .*\(int32\)"),
    "shape": (change(lambda x: x.update({FIRST: x[FIRST][:, 1:].contiguous()})), r"A \(4, 31\)"),
    "empty": (change(lambda x: x.clear()), "no lora_A and lora_B of any module"),
}


@pytest.mark.parametrize(("harm", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(bases, tmp_path, harm, message):
    adapter = tmp_path / "adapter"
    adapted(bases / "qwen2", adapter)
    harm(adapter)
    with pytest.raises((ValueError, FileNotFoundError), match=f"(?s){message}") as error:
        open_weights(resolve_folder(adapter))
    assert str(adapter) in str(error.value) and "has no config.json" not in str(error.value)


@pytest.mark.parametrize(
    "settings",
    [{"target_modules": ["lm_head"]}, {"modules_to_save": ["embed_tokens"]}],
    ids=["head", "embeddings"],
)
def test_shared_embeddings_are_not_adapted(tmp_path, settings):
    base = tiny.write(tmp_path / "base", tied=True, num_layers=1).folder
    adapted(base, tmp_path / "adapter", **settings)
    with pytest.raises(ValueError, match=r"base model lacks|embeddings and output head share"):
        open_weights(resolve_folder(tmp_path / "adapter"))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_factors_that_are_no_numbers(bases, tmp_path, value):
    adapter = tmp_path / "adapter"
    adapted(bases / "qwen2", adapter)
    change(lambda tensors: tensors[FIRST].view(-1)[5:7].fill_(value))(adapter)
    with pytest.raises(ValueError, match=f"adapter_model.*{FIRST}.* 2 of 128 values are NaN"):
        folders.load(resolve_folder(adapter), dtype="float32")
