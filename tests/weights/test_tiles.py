"""A tower that reads images in tiles in hub folders: bit for bit in and out, in every spelling."""

import jax
import jax.numpy as jnp
import pytest
import torch
from flax import nnx

from lco_jax.models.build import on_mesh
from lco_jax.models.config import read_config
from lco_jax.models.tiles import TileTower
from lco_jax.weights.hub import load_params, save_folder
from lco_jax.weights.tables import TABLES
from tests import meshes, tiny
from tests.weights import folders

SPELLINGS = [name for name, (family, _) in folders.SPELLINGS.items() if family == "llava_next"]
PARTS = ("vision_tower.", "multi_modal_projector.", "image_newline")
UNUSED = ("post_layernorm", "encoder.layers.2.", "position_ids")


@pytest.fixture(scope="module", params=SPELLINGS)
def checkpoint(request, tmp_path_factory):
    folder = folders.write(tmp_path_factory.mktemp("checkpoint"), request.param)
    if request.param == "llava hub":  # as older files have them
        ids = {"vision_tower.vision_model.embeddings.position_ids": torch.arange(17)[None]}
        folders.store(folder, folders.read(folder) | ids)
    return folder


def load(folder):
    config = read_config(folder)
    tower = jax.eval_shape(
        lambda: TileTower(config.vision, dtype=jnp.dtype("bfloat16"), rngs=nnx.Rngs(0))
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
    used = [
        name
        for name in tensors
        if name.removeprefix("model.").startswith(PARTS) and not any(x in name for x in UNUSED)
    ]
    assert len(used) == 5 + 2 * 16 + 5
    expected = tensors | {name: -tensors[name] for name in used}
    folders.assert_same_bits(folders.read(tmp_path), expected)


def test_what_no_feature_depends_on_is_left_out(checkpoint, caplog):
    with caplog.at_level("INFO"):
        load(checkpoint)
    has_ids = any("position_ids" in name for name in folders.read(checkpoint))
    assert f"{18 + has_ids} tensors that no feature depends on" in caplog.text


def test_every_row_round_trips():
    table = TABLES["llava_next"].tower("vision")
    names = {key: table.name(key) for row in table.rows for key in row.keys(23)}
    # The number of tensors of the public towers, without their last layers and norms.
    assert len(set(names.values())) == 5 + 23 * 16 + 5
    assert TABLES["llava_next"].assign(names.values()).towers == list(names.values())
    assert table.assign(names.values()).names == names


def test_shards_hold_what_one_device_holds(tmp_path):
    folder = folders.write(tmp_path, "llava hub", vision=tiny.TILES | {"num_attention_heads": 4})
    _, whole = load(folder)
    with jax.set_mesh(meshes.make((2, 2, 2))):
        _, params = load(folder)
        kernel = params["vision"]["blocks"]["attention"]["qkv"]["kernel"]
        assert kernel.sharding.spec == jax.P(None, None, "fsdp", "tensor", None)
        folders.assert_same_trees(params, whole)


def test_bad_tensors_by_name(tmp_path):
    folder = folders.write(tmp_path, "llava hub")
    tensors = folders.read(folder)
    inner = "vision_tower.vision_model."
    del tensors["image_newline"]
    tensors[f"{inner}encoder.layers.3.layer_norm1.bias"] = torch.zeros(24)
    tensors[f"{inner}embeddings.position_embedding.weight"] = torch.zeros(50, 24)
    folders.store(folder, tensors)
    with pytest.raises(ValueError, match="does not fit a llava_next model") as caught:
        load(folder)
    message = str(caught.value)
    assert "1 missing tensors: image_newline" in message
    assert (
        "1 tensors that no parameter takes: vision_tower.vision_model.encoder.layers.3" in message
    )
    assert "position_embedding.weight (expected (17, 24), found (50, 24)" in message
