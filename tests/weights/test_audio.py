"""The audio tower in hub folders: bit for bit in and out, and errors by name."""

import jax
import jax.numpy as jnp
import pytest
import torch
from flax import nnx

from lco_jax.models.audio import AudioTower
from lco_jax.models.build import on_mesh
from lco_jax.models.config import read_config
from lco_jax.models.vision import VisionTower
from lco_jax.weights.hub import load_params, save_folder
from lco_jax.weights.tables import TABLES
from tests import meshes, tiny
from tests.weights import folders

SPELLINGS = [spelling for spelling, (family, _) in folders.SPELLINGS.items() if "omni" in family]
UNUSED = "audio_tower.audio_bos_eos_token.weight"
"""Every checkpoint holds it, no forward pass reads it."""


@pytest.fixture(scope="module", params=SPELLINGS)
def checkpoint(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    return folders.write(folder, request.param, audio=tiny.DEEP_EAR)


@pytest.fixture
def damaged(tmp_path):
    """A folder to damage, and its tensors."""
    folder = folders.write(tmp_path, "thinker", audio=tiny.DEEP_EAR)
    return folder, folders.read(folder)


def shapes(tower, config):
    module = jax.eval_shape(lambda: tower(config, dtype=jnp.bfloat16, rngs=nnx.Rngs(0)))
    return on_mesh(nnx.to_pure_dict(nnx.state(module)))


def load(folder):
    config = read_config(folder)
    return config, load_params(folder, config, {"audio": shapes(AudioTower, config.audio)})


def test_hub_to_ours_to_hub(checkpoint, tmp_path):
    """Negated on the way, so that no tensor can have been copied from the base."""
    config, audio = load(checkpoint)
    _, text = folders.load(checkpoint)
    negated = jax.tree.map(lambda leaf: -leaf, audio)
    save_folder(tmp_path, text | negated, config, checkpoint, max_shard_bytes=30_000)
    tensors = folders.read(checkpoint)
    in_tower = [name for name in tensors if "audio_tower." in name and UNUSED not in name]
    assert len(in_tower) == 8 + 3 * 15
    expected = tensors | {name: -tensors[name] for name in in_tower}
    folders.assert_same_bits(folders.read(tmp_path), expected)


def test_all_parts_load_and_save_together(checkpoint, tmp_path, caplog):
    config = read_config(checkpoint)
    _, text = folders.load(checkpoint)
    towers = {
        "vision": shapes(VisionTower, config.vision),
        "audio": shapes(AudioTower, config.audio),
    }
    with caplog.at_level("INFO"):
        params = load_params(checkpoint, config, folders.shapes_of(text) | towers)
    assert "1 tensors that no feature depends on are not loaded" in caplog.text
    assert "of the vision and audio towers" not in caplog.text
    folders.assert_same_trees(params, text | params)
    save_folder(tmp_path, params, config, checkpoint, thinker_only=True)
    tensors = folders.read(checkpoint)
    if config.family == "qwen2_5_omni":
        kept = [name for name in tensors if not name.startswith(("talker.", "token2wav."))]
        tensors = {name.removeprefix("thinker."): tensors[name] for name in kept}
    folders.assert_same_bits(folders.read(tmp_path), tensors)


def test_shards_hold_what_one_device_holds(tmp_path):
    folder = folders.write(tmp_path, "omni", audio=tiny.DEEP_EAR)
    _, whole = load(folder)
    with jax.set_mesh(meshes.make((2, 2, 2))):
        _, params = load(folder)
        kernel = params["audio"]["layers"]["attention"]["query"]["kernel"]
        assert kernel.sharding.spec == jax.P(None, "fsdp", "tensor", None)
        folders.assert_same_trees(params, whole)


@pytest.mark.parametrize("family", ["qwen2_5_omni", "qwen2_5_omni_thinker"])
def test_every_row_round_trips(family):
    table = TABLES[family].tower("audio")
    names = {key: table.name(key) for row in table.rows for key in row.keys(32)}
    unused = f"{table.prefix}{UNUSED}"
    # The number of tensors of the public towers.
    assert len({*names.values(), unused}) == 489
    assert TABLES[family].assign([*names.values(), unused]).towers == [*names.values(), unused]
    found = table.assign([*names.values(), unused])
    assert (found.names, found.unused) == (names, [unused])


def test_missing_unknown_and_misshaped(damaged):
    folder, tensors = damaged
    del tensors["audio_tower.layers.2.fc1.bias"]
    tensors["audio_tower.conv2.bias"] = torch.zeros(31)
    tensors["audio_tower.layers.0.self_attn.k_proj.bias"] = torch.zeros(32)
    tensors["audio_tower.layers.3.fc1.bias"] = torch.zeros(48)
    folders.store(folder, tensors)
    with pytest.raises(ValueError, match="does not fit a qwen2_5_omni_thinker model") as caught:
        load(folder)
    message = str(caught.value)
    assert "1 missing tensors: audio_tower.layers.2.fc1.bias" in message
    assert "conv2.bias (expected (32,), found (31,) in model.safetensors)" in message
    assert "2 tensors that no parameter takes: audio_tower.layers.0.self_attn.k_proj.b" in message
    assert "audio_tower.layers.3.fc1.bias" in message
    folders.load(folder)  # the decoder alone is whole
