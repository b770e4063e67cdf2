"""Checksums of checkpoints: the same on every mesh, of every copy, and without collectives."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lco_jax.config import CheckpointConfig
from lco_jax.runtime import pieces
from lco_jax.train import checksums
from lco_jax.train.checkpoint import Checkpoints
from lco_jax.train.checksums import DamagedError, check_values, checksums_of, sealed, unsealed
from lco_jax.train.update import TrainState
from tests import meshes


def test_checksums_of_values_do_not_depend_on_the_mesh():
    x = np.random.default_rng(0).normal(size=(16, 32)).astype(np.float32)
    found = []
    for sizes in meshes.SIZES:
        mesh = meshes.make(sizes)
        with jax.set_mesh(mesh):
            for spec in (jax.P(), jax.P("fsdp"), jax.P(("data", "fsdp"), "tensor")):
                y = jax.device_put(x, jax.NamedSharding(mesh, spec))
                found.append(checksums_of({"x": y}))
                check_values({"x": y}, found[0].by_path)
    assert all(one == found[0] for one in found)
    for change in (lambda y: y[3].__imul__(-1), lambda y: y[[1, 2]].sort(), _swap):
        y = x.copy()
        change(y)
        assert (checksums_of({"x": jnp.asarray(y)}) != found[0]) == (y != x).any()


@pytest.mark.parametrize("spec", [jax.P(), jax.P("fsdp"), jax.P(("data", "tensor"), "fsdp")])
def test_no_device_waits_for_another(spec):
    """Two programs in flight, each with collectives, may starve each other on CPUs."""
    mesh = meshes.make((2, 2, 2))
    with jax.set_mesh(mesh):
        program = pieces._compiled(checksums._checksum, (spec,), mesh)
        x = jax.device_put(np.ones((8, 8), np.float32), jax.NamedSharding(mesh, spec))
        text = program.lower(x).compile().as_text()
    assert "partition-id" in text or spec == jax.P()
    assert not re.findall(r"all-\w+|collective-\w+|reduce-scatter|send|recv", text)


@pytest.mark.parametrize("spoiled", [0, 1, None])
def test_every_copy_of_a_value_is_looked_at(spoiled, tmp_path):
    """Of copies that differ the first is saved, with its checksum; after a restore all are it."""
    mesh = meshes.make((2, 2, 2))
    with jax.set_mesh(mesh):
        copies = [np.arange(16.0, dtype=np.float32) for _ in mesh.devices.flat]
        if spoiled is not None:
            copies[spoiled][3] = -1
        x = jax.make_array_from_single_device_arrays(
            (16,),
            jax.NamedSharding(mesh, jax.P()),
            [jax.device_put(*pair) for pair in zip(copies, mesh.devices.flat, strict=True)],
        )
        weights = {"layers": {"kernel": x}}
        sums = checksums_of(weights)
        assert sums.one_copy == (spoiled is None)
        if spoiled is not None:
            with pytest.raises(DamagedError, match=r"1 of 1 arrays .*layers/kernel"):
                check_values(weights, sums.by_path)
        state = TrainState(jax.device_put(np.int32(2), jax.P()), weights, {}, {})
        checkpoints = Checkpoints(str(tmp_path), CheckpointConfig())
        checkpoints.save(state, data={"next_step": 2})
        checkpoints.wait()
        found, _ = checkpoints.restore(state)
        checkpoints.close()
    for shard in found.trainable["layers"]["kernel"].addressable_shards:
        np.testing.assert_array_equal(shard.data, copies[0])


def _swap(y):
    y[[1, 2]] = y[[2, 1]]


def test_metadata_are_sealed():
    content = sealed({"data": {"next_step": 4}})
    assert unsealed(content, frozenset({"data"})) == {"data": {"next_step": 4}}
    assert unsealed({"data": 1}, frozenset({"data"})) == {"data": 1}  # of earlier revisions
    for damaged in (None, {}, content | {"data": {"next_step": 6}}, {**content, "seal": ""}):
        with pytest.raises(DamagedError, match="metadata"):
            unsealed(damaged, frozenset({"data"}))
