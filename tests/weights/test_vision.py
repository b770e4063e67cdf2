"""The vision tower's tensors: bit for bit in and out, in every spelling; bad ones by name."""

import jax
import jax.numpy as jnp
import pytest
import torch
from flax import nnx

from lco_jax.models.build import on_mesh
from lco_jax.models.config import read_config
from lco_jax.models.families import FAMILIES
from lco_jax.models.tower_config import read_vision
from lco_jax.models.vision import VisionTower
from lco_jax.weights.hub import load_params, save_folder
from lco_jax.weights.tables import TABLES
from tests import meshes, tiny
from tests.weights import folders

SPELLINGS = [
    name
    for name, (family, _) in folders.SPELLINGS.items()
    if read_vision in FAMILIES[family].towers.values()
]
NORM = "visual.blocks.2.norm1.weight"


@pytest.fixture(scope="module", params=SPELLINGS)
def checkpoint(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    return folders.write(folder, request.param, vision=tiny.DEEP_TOWER)


@pytest.fixture
def damaged(tmp_path):
    """A folder to damage, and its tensors."""
    folder = folders.write(tmp_path, "vl hub", vision=tiny.DEEP_TOWER)
    return folder, folders.read(folder)


def load(folder, dtype="bfloat16"):
    config = read_config(folder)
    tower = jax.eval_shape(
        lambda: VisionTower(config.vision, dtype=jnp.dtype(dtype), rngs=nnx.Rngs(0))
    )
    abstract = {"vision": on_mesh(nnx.to_pure_dict(nnx.state(tower)))}
    return config, load_params(folder, config, abstract)


def test_hub_to_ours_to_hub(checkpoint, tmp_path):
    """Negated on the way, so that no tensor can have been copied from the base."""
    config, vision = load(checkpoint)
    _, text = folders.load(checkpoint)
    negated = jax.tree.map(lambda leaf: -leaf, vision)
    save_folder(tmp_path, text | negated, config, checkpoint, max_shard_bytes=30_000)
    tensors = folders.read(checkpoint)
    in_tower = [name for name in tensors if "visual." in name]
    assert len(in_tower) == 6 + 4 * (12 if config.family == "qwen2_5_vl" else 16)
    expected = tensors | {name: -tensors[name] for name in in_tower}
    folders.assert_same_bits(folders.read(tmp_path), expected)


def test_decoder_and_tower_load_together(checkpoint, caplog):
    config, vision = load(checkpoint)
    _, text = folders.load(checkpoint)
    shapes = folders.shapes_of(text | vision)
    with caplog.at_level("INFO"):
        folders.assert_same_trees(load_params(checkpoint, config, shapes), text | vision)
    num_audio = sum("audio_tower." in name for name in folders.read(checkpoint))
    assert (f"{num_audio} tensors of the vision and audio towers" in caplog.text) == bool(num_audio)


@pytest.mark.parametrize("spelling", ["vl hub", "omni"])
def test_both_families_hold_the_same_arrays(spelling, tmp_path):
    """Query, key and value are one array, whether stored fused or apart."""
    folder = folders.write(tmp_path, spelling, vision=tiny.DEEP_TOWER)
    _, params = load(folder)
    qkv = params["vision"]["blocks"]["attention"]["qkv"]
    assert qkv["kernel"].shape == (4, 3, 32, 4, 8) and qkv["bias"].shape == (4, 3, 4, 8)
    tensors = folders.read(folder)
    prefix = "thinker.visual.blocks.3.attn." if spelling == "omni" else "visual.blocks.3.attn."
    for part, name in enumerate("qkv"):
        if spelling == "omni":
            weight = tensors[f"{prefix}{name}.weight"]
        else:
            weight = tensors[f"{prefix}qkv.weight"][32 * part : 32 * (part + 1)]
        kernel = torch.tensor(jax.device_get(qkv["kernel"][3, part].astype("float32")))
        assert torch.equal(kernel.reshape(32, 32).T, weight.float())


def test_shards_hold_what_one_device_holds(tmp_path):
    folder = folders.write(tmp_path, "omni", vision=tiny.DEEP_TOWER)
    _, whole = load(folder)
    with jax.set_mesh(meshes.make((2, 2, 2))):
        _, params = load(folder)
        kernel = params["vision"]["blocks"]["attention"]["qkv"]["kernel"]
        assert kernel.sharding.spec == jax.P(None, None, "fsdp", "tensor", None)
        folders.assert_same_trees(params, whole)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen2_5_omni", "qwen2_5_omni_thinker"])
def test_every_row_round_trips(family):
    table = TABLES[family].tower("vision")
    names = {key: table.name(key) for row in table.rows for key in row.keys(32)}
    # The number of tensors of the public towers.
    assert len(set(names.values())) == {"qwen2_5_vl": 390}.get(family, 518)
    assert TABLES[family].assign(names.values()).towers == list(names.values())
    assert table.assign(names.values()).names == names


def test_missing_unknown_and_misshaped(damaged):
    folder, tensors = damaged
    del tensors[NORM]
    tensors["visual.merger.mlp.0.bias"] = torch.zeros(127)
    tensors["visual.merger.mlp.4.bias"] = torch.zeros(3)
    tensors["visual.blocks.4.norm1.weight"] = torch.zeros(32)
    folders.store(folder, tensors)
    with pytest.raises(ValueError, match="does not fit a qwen2_5_vl model") as caught:
        load(folder)
    message = str(caught.value)
    assert f"1 missing tensors: {NORM}" in message
    assert "merger.mlp.0.bias (expected (128,), found (127,) in model.safetensors)" in message
    assert "2 tensors that no parameter takes: visual.merger.mlp.4.bias" in message
    assert "visual.blocks.4.norm1.weight" in message
    folders.load(folder)  # the decoder alone is whole


def test_the_tower_of_the_other_family_is_refused(damaged):
    folder, tensors = damaged
    for name in [name for name in tensors if ".attn.qkv." in name]:
        for part, value in zip("qkv", tensors.pop(name).chunk(3), strict=True):
            tensors[name.replace("qkv", part)] = value
    folders.store(folder, tensors)
    with pytest.raises(ValueError, match=r"8 missing tensors: visual\.blocks\.0\.attn\.qkv"):
        load(folder)
