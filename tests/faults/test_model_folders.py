"""Model folders of strangers: what is damaged or asks for what is not supported is refused by
name, within a second or two and a gigabyte; what is only spelled otherwise is read."""

import json
import math
import os
import re
import shutil
from pathlib import Path

import numpy as np
import peft
import pytest
import safetensors.numpy
import torch
from tokenizers import AddedToken
from transformers import AutoModelForCausalLM, AutoTokenizer

from lco_jax.data.encode.wrapper_media import image_settings
from lco_jax.embed.embedder import Embedder
from lco_jax.models.config import read_config
from lco_jax.weights.files import SafetensorsFolder
from tests import tiny
from tests.faults import folder_cases, runner
from tests.faults.folder_cases import Case

LIMIT_S, LIMIT_BYTES = 60.0, 1 << 30
LIMIT_CPU_S = 2.0
"""Until a fault is named; the clock would count what else a machine does."""
SHORT, LONG = 4, 120
MEAN = [0.5, 0.4, 0.3]
PIXELS = {"image_mean": MEAN, "image_std": [0.2, 0.3, 0.4], "patch_size": 14, "min_pixels": 3136}


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """A text model and an Omni model, with all files that are read of such folders."""
    root = tmp_path_factory.mktemp("bases")
    for family in ("qwen2", "qwen2_5_omni_thinker"):
        folder = tiny.write(root / family, family, num_layers=1).folder
        files = {
            "preprocessor_config.json": PIXELS,
            "config_sentence_transformers.json": {"prompts": {"query": "q: "}},
            "special_tokens_map.json": {"eos_token": "<|im_end|>"},
        }
        for name, content in files.items():
            (folder / name).write_text(json.dumps(content))
    return root


# --------------------------------------------------------------------------- one fault, by hand


def fields(*path: str, **values):
    """Changes fields of `config.json`."""

    def damage(folder: Path) -> None:
        file = folder / "config.json"
        content = json.loads(file.read_text())
        level = content
        for name in path:
            level = level[name]
        level |= values
        file.write_text(json.dumps(content))

    return damage


def content(name: str, text: str | bytes):
    """Writes a file."""

    def damage(folder: Path) -> None:
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())

    return damage


def edited(name: str, change):
    """Writes a file of which `change` made something else."""
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes()))


def without(*names: str):
    return lambda folder: [(folder / name).unlink() for name in names]


def more_tokens(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([AddedToken(f"<extra{number}>") for number in range(200)])
    tokenizer.save_pretrained(folder)


def not_a_number(folder: Path) -> None:
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"][3, 5] = math.nan
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")


def integers(folder: Path) -> None:
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    tensors[name] = tensors[name].astype(np.int32)
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")


def sharded(place: str, link: str | None = None):
    """An index that has all tensors in a file of that name."""

    def damage(folder: Path) -> None:
        names = SafetensorsFolder(folder).specs
        outside = folder.parent / f"{folder.name}.safetensors"
        shutil.move(folder / "model.safetensors", outside)
        if link is not None:
            (folder / link).symlink_to(outside)
        index = {"weight_map": dict.fromkeys(names, place.format(outside=outside))}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    return damage


def fifo(folder: Path) -> None:
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")


ADAPTER = {
    "peft_type": "LORA",
    "base_model_name_or_path": "org/base",
    "r": 2,
    "lora_alpha": 2,
    "target_modules": ["q_proj"],
}
TEXT, OMNI = "qwen2", "qwen2_5_omni_thinker"
FAULTS = {
    "byte-order mark": (
        TEXT,
        edited("config.json", b"\xef\xbb\xbf".__add__),
        "config.json: byte 0",
    ),
    "cut": (
        TEXT,
        edited("config.json", lambda x: x[:100]),
        r"config\.json is not JSON: .* line \d",
    ),
    "a list": (TEXT, edited("config.json", lambda x: b"[%s]" % x), "config.json holds a list"),
    "nested": (TEXT, content("config.json", "[" * 10**5), "config.json is not JSON: maximum rec"),
    "a FIFO": (TEXT, fifo, "config.json: is a named pipe"),
    "twice": (
        TEXT,
        edited("config.json", lambda x: b'{"vocab_size": 5,' + x[1:]),
        "'vocab_size' twice",
    ),
    "other model": (TEXT, fields(model_type="bert"), "model_type='bert' is not supported"),
    "no model": (TEXT, fields(model_type=None), "config.json: model_type=None"),
    "many layers": (
        TEXT,
        fields(num_hidden_layers=10**9),
        "num_hidden_layers=1000000000 should be",
    ),
    "no heads": (TEXT, fields(num_attention_heads=0), "num_attention_heads=0 should be"),
    "wrong kind": (TEXT, fields(hidden_size="32"), "hidden_size='32' should be a valid integer"),
    "NaN": (TEXT, fields(rms_norm_eps=math.nan), "rms_norm_eps=nan should be a finite number"),
    "infinite": (TEXT, fields(rope_parameters={"rope_theta": math.inf}), "rope_theta=inf should"),
    "heads": (TEXT, fields(num_key_value_heads=3), "must be a multiple of num_key_value_heads=3"),
    "activation": (TEXT, fields(hidden_act="gelu"), "hidden_act='gelu' is not supported"),
    "bidirectional": (TEXT, fields(is_causal=False), "is_causal=False is not supported"),
    "rope": (TEXT, fields(rope_scaling={"type": "su", "factor": 4.0}), "type='su' is not sup"),
    "theta twice": (TEXT, fields(rope_theta=5.0), r"rope_theta=5\.0 and that of the rope param"),
    "window": (
        TEXT,
        fields(use_sliding_window=True, sliding_window=8, max_window_layers=0),
        "sliding_window=8 in 1 of 1 layers: .* set sliding_window to null",
    ),
    "layer types": (TEXT, fields(layer_types=["sliding_attention"]), r"layer_types\.0='sliding_a"),
    "bias": (TEXT, fields(attention_bias=False), "attention_bias=False is not supported"),
    "experts": (TEXT, fields(num_experts=8), "num_experts=8 .* use a dense model"),
    "quantised": (
        TEXT,
        fields(quantization_config={"quant_method": "awq"}),
        "quantization_config=.*AWQ, GPTQ, bitsandbytes, FP8.* checkpoint in bfloat16",
    ),
    "misspelled": (TEXT, fields(head_dims=8), "'head_dims' is not known; rename it if 'head_dim'"),
    "no sections": (
        OMNI,
        fields("text_config", rope_parameters={"rope_theta": 1e4}),
        "config.json: lacks 'mrope_section'",
    ),
    "vision": (
        OMNI,
        fields("vision_config", hidden_act="gelu"),
        "vision_config: hidden_act='gelu'",
    ),
    "wide features": (
        OMNI,
        fields("vision_config", out_hidden_size=64),
        "64 values.* 32 .hidden_s",
    ),
    "token": (OMNI, fields(image_token_index=600), "image_token_id=600 has no embedding.* 512"),
    "adapter": (
        TEXT,
        content("adapter_config.json", json.dumps(ADAPTER)),
        "holds an adapter .* and a model",
    ),
    "more tokens": (TEXT, more_tokens, "largest id of the tokenizer is 599 .* vocab_size .* 512"),
    "no tokenizer": (TEXT, without("tokenizer.json"), "neither tokenizer.json nor vocab.json with"),
    "cut tokenizer": (TEXT, edited("tokenizer.json", lambda x: x[:999]), r"tokenizer\.json .*line"),
    "tokenizer settings": (
        TEXT,
        content("tokenizer_config.json", "[]"),
        "tokenizer_config.json hol",
    ),
    "special tokens": (
        TEXT,
        content("special_tokens_map.json", "{"),
        "special_tokens_map.json is ",
    ),
    "Jinja": (
        TEXT,
        content("chat_template.jinja", "a\n{% if"),
        "chat_template.jinja: the chat template is no Jinja: TemplateSyntaxError in line 2",
    ),
    "template list": (
        TEXT,
        content("chat_template.json", "[1]"),
        "chat_template.json holds a list",
    ),
    "template kind": (
        TEXT,
        content("chat_template.json", '{"chat_template": ["x"]}'),
        r"chat_template.json: chat_template=\['x'\] should be a valid string",
    ),
    "pixels": (
        TEXT,
        content("preprocessor_config.json", "{"),
        "preprocessor_config.json is not JSON",
    ),
    "deviation": (
        TEXT,
        content("preprocessor_config.json", '{"image_std": [0, 1, 1]}'),
        r"preprocessor_config.json: image_std\.0=0 should be greater than 0",
    ),
    "patches": (
        OMNI,
        content("preprocessor_config.json", '{"patch_size": 16}'),
        "preprocessor_config.json: patch_size=16, and the model's is 14",
    ),
    "unscaled": (
        OMNI,
        content("preprocessor_config.json", '{"do_rescale": false}'),
        "do_rescale=False is not supported",
    ),
    "NaN weights": (
        TEXT,
        not_a_number,
        "'model.layers.0.mlp.up_proj.weight': 1 of 1536 values are NaN",
    ),
    "integers": (TEXT, integers, r"integers.*model\.layers\.0\.mlp\.up_proj\.weight \(int32\)"),
    "shape": (
        TEXT,
        fields(intermediate_size=64),
        r"up_proj.weight \(expected \(64, 32\), found \(48, 32\) in model.safetensors\)",
    ),
    "upwards": (
        TEXT,
        sharded("../{outside.name}"),
        r"index.json: weight_map names the file '\.\./",
    ),
    "absolute": (TEXT, sharded("{outside}"), "index.json: weight_map names the file '/"),
    "link": (
        TEXT,
        sharded("a.safetensors", "a.safetensors"),
        "'a.safetensors', which is not in the",
    ),
    "index": (
        TEXT,
        content("model.safetensors.index.json", '{"weight_map": {"a": 1}}'),
        "index.json: weight_map.a=1 should be a valid string",
    ),
}


@pytest.fixture(scope="module")
def outcomes(bases, tmp_path_factory):
    """Of every fault, by its name; all are tried in one process, which none must end."""
    root = tmp_path_factory.mktemp("faults")
    folders = []
    for number, (name, (family, damage, _)) in enumerate(FAULTS.items()):
        folder = root / f"model-{number}"
        shutil.copytree(bases / family, folder)
        damage(folder)
        if name == "index":
            (folder / "model.safetensors").unlink()
        folders.append(folder)
    found = runner.run_many(
        folder_cases.open_folder,
        folders,
        names=["/model-"],
        limit_s=LIMIT_S,
        limit_bytes=LIMIT_BYTES,
    )
    return dict(zip(FAULTS, found, strict=True))


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named(outcomes, name):
    assert outcomes[name].kind == "refused", outcomes[name]
    assert outcomes[name].cpu_s < LIMIT_CPU_S
    assert re.search(FAULTS[name][2], outcomes[name].said, re.DOTALL), outcomes[name].said


def test_bases_open(bases):
    for folder in sorted(bases.iterdir()):
        assert runner.run(folder_cases.open_folder, folder, names=["/"]).kind == "right"


# ------------------------------------------------------------- what is no fault, and what helps


def test_statistics_of_images_in_the_joint_file(bases, tmp_path):
    nested, flat = tmp_path / "nested", tmp_path / "flat"
    for folder, said in ((nested, {"image_processor": PIXELS}), (flat, PIXELS)):
        shutil.copytree(bases / OMNI, folder)
        (folder / "preprocessor_config.json").unlink()
        (folder / "processor_config.json").write_text(json.dumps(said))
        assert image_settings(folder)["image_mean"] == MEAN
    (nested / "video_preprocessor_config.json").write_text(json.dumps({"image_mean": [0.1] * 3}))
    with pytest.raises(ValueError, match=r"image_mean=\[0\.1.* of videos and \[0\.5"):
        image_settings(nested)


@pytest.mark.parametrize(
    ("images", "videos", "message"),
    [
        ({}, {"image_mean": [0.1] * 3}, r"image_mean=\[0\.1.* of videos and \[0\.48"),
        ({"image_std": [0.2] * 3}, {"patch_size": 14}, r"image_std=\[0\.26.* of videos and \[0\.2"),
        ({"image_mean": [0.1] * 3}, {}, None),
        ({"image_mean": [0.1] * 3}, {"image_mean": [0.1] * 3}, None),
        ({}, {"patch_size": 14}, None),
    ],
)
def test_statistics_that_only_one_file_says(bases, tmp_path, images, videos, message):
    """The other has the default of its class; without a file of theirs videos are read by that of
    images.
    """
    folder = shutil.copytree(bases / OMNI, tmp_path / "model")
    for name, said in (("preprocessor", images), ("video_preprocessor", videos)):
        (folder / f"{name}_config.json").unlink(missing_ok=True)
        if said:
            (folder / f"{name}_config.json").write_text(json.dumps(said))
    if message is None:
        assert image_settings(folder) == images
    else:
        with pytest.raises(ValueError, match=message):
            image_settings(folder)


def test_windows_that_no_layer_has(bases, tmp_path):
    shutil.copytree(bases / TEXT, tmp_path / "model")
    fields(use_sliding_window=True, sliding_window=8, max_window_layers=1)(tmp_path / "model")
    assert read_config(tmp_path / "model") == read_config(bases / TEXT)


def test_shards_in_the_cache_of_the_hub(bases, tmp_path):
    snapshot, blobs = tmp_path / "models--a--b" / "snapshots" / "1", tmp_path / "models--a--b/blobs"
    shutil.copytree(bases / TEXT, snapshot)
    blobs.mkdir()
    sharded("a.safetensors")(snapshot)
    shutil.move(snapshot.parent / "1.safetensors", blobs / "0123")
    (snapshot / "a.safetensors").symlink_to("../../blobs/0123")
    assert SafetensorsFolder(snapshot).specs == SafetensorsFolder(bases / TEXT).specs


def test_an_adapter_that_is_merged_as_messages_say(bases, tmp_path):
    """It gives the same vectors as the adapter itself."""
    model = AutoModelForCausalLM.from_pretrained(bases / TEXT)
    settings = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    adapted = peft.get_peft_model(model, settings)
    adapted.save_pretrained(tmp_path / "adapter")
    adapted.merge_and_unload().save_pretrained(tmp_path / "merged")
    AutoTokenizer.from_pretrained(bases / TEXT).save_pretrained(tmp_path / "merged")
    adapter, merged, base = (
        Embedder(folder).encode(["a cat"])
        for folder in (tmp_path / "adapter", tmp_path / "merged", bases / TEXT)
    )
    np.testing.assert_allclose(adapter, merged, atol=1e-5)
    assert np.abs(merged - base).max() > 1e-3


def test_weights_beyond_the_range_of_the_dtype(bases, tmp_path):
    shutil.copytree(bases / TEXT, tmp_path / "model")
    tensors = safetensors.numpy.load_file(tmp_path / "model" / "model.safetensors")
    tensors["model.norm.weight"][0] = 1e6
    safetensors.numpy.save_file(tensors, tmp_path / "model" / "model.safetensors")
    with pytest.raises(ValueError, match="too large for float16; load the model as float32"):
        Embedder(tmp_path / "model", dtype="float16")
    Embedder(tmp_path / "model", dtype="float32")


def test_causal_means_what_transformers_means(bases, tmp_path):
    """What is refused would give other vectors; the value that is allowed gives the same."""
    shutil.copytree(bases / TEXT, tmp_path / "model")
    states = []
    for is_causal in (True, False):
        fields(is_causal=is_causal)(tmp_path / "model")
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "model").model
        with torch.no_grad():
            states.append(model(torch.arange(20)[None]).last_hidden_state[0, -2])
    assert not torch.allclose(*states)
    fields(is_causal=True)(tmp_path / "model")
    assert read_config(tmp_path / "model") == read_config(bases / TEXT)


# ------------------------------------------------------------------------------- many, by chance

FUZZED = {
    ("config.json", OMNI): folder_cases.open_config,
    ("config.json", TEXT): folder_cases.open_config,
    ("tokenizer.json", TEXT): folder_cases.open_tokenizer,
    ("tokenizer_config.json", TEXT): folder_cases.open_tokenizer,
    ("special_tokens_map.json", TEXT): folder_cases.open_tokenizer,
    ("chat_template.jinja", TEXT): folder_cases.open_tokenizer,
    ("preprocessor_config.json", OMNI): folder_cases.open_settings,
    ("config_sentence_transformers.json", TEXT): folder_cases.open_settings,
}


def check(bases, file, family, seeds):
    cases = [Case(bases / family, file, seed) for seed in seeds]
    found = runner.run_many(
        FUZZED[file, family],
        cases,
        names=[file, "does not fit", f"/{family}"],
        expected=folder_cases.is_right,
        limit_s=LIMIT_S,
        limit_bytes=LIMIT_BYTES,
    )
    print(file, family, runner.count(found))
    assert not runner.bad(zip(cases, found, strict=True))


@pytest.mark.parametrize(("file", "family"), FUZZED)
def test_damaged_files(bases, file, family):
    check(bases, file, family, range(SHORT))


@pytest.mark.slow
@pytest.mark.parametrize(("file", "family"), FUZZED)
def test_many_damaged_files(bases, file, family):
    many = 2 if file == "config.json" else 1
    check(bases, file, family, range(SHORT, SHORT + many * LONG))
