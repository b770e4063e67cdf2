"""A tower whose inner layers give features in hub folders: bit for bit, in every spelling."""

import jax
import jax.numpy as jnp
import pytest
import torch
from flax import nnx

from lco_jax.models.build import on_mesh
from lco_jax.models.config import read_config
from lco_jax.models.deep import DeepTower
from lco_jax.weights.hub import load_params, save_folder
from lco_jax.weights.tables import TABLES
from tests import meshes, tiny
from tests.weights import folders

SPELLINGS = [name for name, (family, _) in folders.SPELLINGS.items() if family == "qwen3_vl"]


def load(folder):
    config = read_config(folder)
    tower = jax.eval_shape(
        lambda: DeepTower(config.vision, dtype=jnp.dtype("bfloat16"), rngs=nnx.Rngs(0))
    )
    abstract = {"vision": on_mesh(nnx.to_pure_dict(nnx.state(tower)))}
    return config, load_params(folder, config, abstract)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_hub_to_ours_to_hub(spelling, tmp_path):
    """Negated on the way, so that no tensor can have been copied from the base."""
    base = folders.write(tmp_path / "base", spelling, num_layers=1)
    config, vision = load(base)
    _, text = folders.load(base)
    negated = jax.tree.map(lambda leaf: -leaf, text | vision)
    save_folder(tmp_path / "out", negated, config, base, max_shard_bytes=30_000)
    tensors = folders.read(base)
    assert sum("visual." in name for name in tensors) == 3 + 4 * 12 + 3 * 6
    expected = {name: -tensor for name, tensor in tensors.items()}
    folders.assert_same_bits(folders.read(tmp_path / "out"), expected)


def test_every_row_round_trips():
    table = TABLES["qwen3_vl"].tower("vision")
    counts = {"L": 27, "M": 3}
    names = {
        key: table.name(key)
        for row in table.rows
        for key in row.keys(counts[row.stack[0]] if row.stack else 0)
    }
    # The number of tensors of the tower of the public 8B.
    assert len(set(names.values())) == 3 + 27 * 12 + 4 * 6
    assert names["vision/deep_mergers/output/bias", 2] == (
        "model.visual.deepstack_merger_list.2.linear_fc2.bias"
    )
    assert TABLES["qwen3_vl"].assign(names.values()).towers == list(names.values())
    assert table.assign(names.values()).names == names


def test_shards_hold_what_one_device_holds(tmp_path):
    folder = folders.write(tmp_path, "deep hub", num_layers=1, vision=tiny.EVEN_FRAMES)
    _, whole = load(folder)
    with jax.set_mesh(meshes.make((2, 2, 2))):
        _, params = load(folder)
        norm = params["vision"]["deep_mergers"]["norm"]["scale"]
        assert norm.shape == (2, 4, 32) and norm.sharding.spec == jax.P(None, None, "fsdp")
        folders.assert_same_trees(params, whole)


def test_bad_tensors_by_name(tmp_path):
    folder = folders.write(tmp_path, "deep hub", num_layers=1)
    tensors = folders.read(folder)
    inner = "model.visual.deepstack_merger_list."
    del tensors[f"{inner}1.norm.bias"]
    tensors[f"{inner}2.norm.bias"] = torch.zeros(144)
    tensors[f"{inner}0.norm.bias"] = torch.zeros(36)
    folders.store(folder, tensors)
    with pytest.raises(ValueError, match="does not fit a qwen3_vl model") as caught:
        load(folder)
    message = str(caught.value)
    assert f"1 missing tensors: {inner}1.norm.bias" in message
    assert f"1 tensors that no parameter takes: {inner}2.norm.bias" in message
    assert f"{inner}0.norm.bias (expected (144,), found (36,)" in message
