"""Checkpoints of every family in every spelling, and loading them as the programs do."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import safetensors.torch
import torch

from lco_jax.models.build import build
from lco_jax.models.config import ModelConfig, read_config
from lco_jax.weights.hub import load_params
from tests import tiny

Rename = Callable[[str], str]


def _swap(old: str, new: str) -> Rename:
    return lambda name: new + name.removeprefix(old) if name.startswith(old) else name


def _wrap(name: str) -> str:
    return f"thinker.{name}"


def _llava_in_memory(name: str) -> str:
    name = name.removeprefix("language_model.")
    if name.startswith("model."):
        return name.replace("model.", "model.language_model.", 1)
    return name if name.startswith("lm_head.") else f"model.{name}"


def _towers_inside(name: str) -> str:
    name = _swap("visual.", "model.visual.")(name)
    name = _swap("audio_tower.", "model.audio_tower.")(name)
    return _swap("model.layers.", "model.language_model.layers.")(name)


SPELLINGS: dict[str, tuple[str, Rename]] = {
    "qwen2": ("qwen2", lambda name: name),
    "qwen2 bare": ("qwen2", _swap("model.", "")),
    "llama": ("llama", lambda name: name),
    "mistral bare": ("mistral", _swap("model.", "")),
    "qwen3": ("qwen3", lambda name: name),
    "qwen3 bare": ("qwen3", _swap("model.", "")),
    "vl hub": ("qwen2_5_vl", lambda name: name),
    "vl in memory": ("qwen2_5_vl", _swap("model.", "model.language_model.")),
    "vl base class": ("qwen2_5_vl", _swap("model.", "language_model.")),
    "vl wrapped decoder": ("qwen2_5_vl", _swap("model.", "language_model.model.")),
    "deep hub": ("qwen3_vl", lambda name: name),
    "deep base class": ("qwen3_vl", _swap("model.", "")),
    "llava hub": ("llava_next", _swap("vision_tower.", "vision_tower.vision_model.")),
    "llava in memory": ("llava_next", _llava_in_memory),
    "llava as written": ("llava_next", lambda name: name),
    "thinker": ("qwen2_5_omni_thinker", lambda name: name),
    "thinker with prefix": ("qwen2_5_omni_thinker", _wrap),
    "thinker in memory": ("qwen2_5_omni_thinker", _towers_inside),
    "omni": ("qwen2_5_omni", _wrap),
    "omni without prefix": ("qwen2_5_omni", lambda name: name),
    "omni in memory": ("qwen2_5_omni", lambda name: _wrap(_towers_inside(name))),
}


def write(folder: Path, spelling: str, *, dtype=torch.bfloat16, **options) -> Path:
    """A random checkpoint (untied by default) whose tensors are named in `spelling`."""
    options = {"tied": False, **options}
    family, rename = SPELLINGS[spelling]
    is_full = family == "qwen2_5_omni"
    tiny.write(folder, "qwen2_5_omni_thinker" if is_full else family, **options)
    tensors = {rename(name): value.to(dtype) for name, value in read(folder).items()}
    if is_full:
        tensors["talker.model.norm.weight"] = torch.randn(4)
        tensors["token2wav.dit.bias"] = torch.randn(3, 5).to(torch.bfloat16)
        _write_json(
            folder / "config.json",
            {
                "model_type": "qwen2_5_omni",
                "thinker_config": _read_json(folder / "config.json"),
                "tie_word_embeddings": options["tied"],
            },
        )
    store(folder, tensors)
    tiny.update_config(folder, dtype=str(dtype).removeprefix("torch."))
    return folder


def read(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a folder, as the reference implementation reads them."""
    tensors = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors |= safetensors.torch.load_file(file)
    return tensors


def store(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Replace the tensors of a folder, with the reference implementation."""
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    tensors = {name: value.contiguous().clone() for name, value in tensors.items()}
    safetensors.torch.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def load(
    folder: Path, *, dtype: str = "bfloat16", with_head: bool = True, num_layers: int | None = None
) -> tuple[ModelConfig, dict]:
    """Config and parameters on the mesh that is set."""
    config = read_config(folder).first_layers(num_layers)
    _, _, shapes = build(config, None, dtype, with_head=with_head)
    return config, load_params(folder, config, shapes)


def shapes_of(params: dict) -> dict:
    """The shapes of arrays, to load others in their place."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), params
    )


def assert_same_bits(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """Equal names, dtypes and bytes."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype, name
        assert torch.equal(found[name].view(torch.uint8), value.view(torch.uint8)), name


def assert_same_trees(found: dict, expected: dict) -> None:
    """Equal paths and values."""
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def copy(folder: Path, target: Path) -> Path:
    """A copy of a checkpoint that a test may damage."""
    return Path(shutil.copytree(folder, target))


def _read_json(path: Path) -> dict:
    return json.loads(path.read_text())


def _write_json(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value))
