"""Which process feeds what of a batch, on slices of TPUs as their compiler describes them and as
plain data."""

import importlib.util
import itertools
from collections import Counter

import jax
import numpy as np
import pytest

from lco_jax.config import MeshConfig
from lco_jax.data.pack.level import spread
from lco_jax.data.pack.shares import IDLE
from lco_jax.plan.topologies import find_topology
from lco_jax.plan.torus import slice_devices, torus_devices
from lco_jax.runtime import mesh as meshes
from lco_jax.runtime.axes import BATCH_AXES
from lco_jax.runtime.processes import data_share, shares_of

SLICES = [
    ("v5p:2x2x4", 1),
    ("v5p:4x4x4", 1),
    ("v5e:4x4", 1),
    ("v5e:16x16", 1),
    ("v6e:8x8", 1),
    ("v5e:4x4", 2),
]
AXES = ("data", "fsdp")
needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="needs libtpu: pip install -e '.[tpu]'"
)
every_slice = pytest.mark.parametrize(("name", "num_slices"), SLICES, ids=str)
every_layout = [
    pytest.mark.parametrize("tensor", (1, 2, 4)),
    pytest.mark.parametrize("axis", AXES),
]


def on_layouts(test):
    for mark in (*every_layout, every_slice):
        test = mark(test)
    return test


def make_mesh(devices, num_slices, axis, tensor):
    sizes = MeshConfig(-1, 1, tensor) if axis == "data" else MeshConfig(num_slices, -1, tensor)
    return meshes.make_mesh(sizes, devices)


def place(device):
    """What tells a device from the others, and where it is."""
    return device.id, device.process_index, tuple(device.coords), getattr(device, "slice_index", 0)


def check_shares(mesh, batch_size, chunks):
    """Every example is fed by all processes that hold its shard, and by no other."""
    shares = shares_of(mesh)
    shards = meshes.num_shards(mesh)
    sharding = jax.NamedSharding(mesh, jax.P(BATCH_AXES))
    holders = {shard: set() for shard in range(shards)}
    for device, (part,) in sharding.devices_indices_map((shards,)).items():
        holders[part.start or 0].add(device.process_index)
    assert set(shares) == {device.process_index for device in mesh.devices.flat}
    assert all(share.num_shards == shards for share in shares.values())
    for process, share in shares.items():
        assert set(share.shards) == {s for s, found in holders.items() if process in found}

    table = spread(np.zeros((batch_size, 3), np.int64), chunks * shards)
    table = table.reshape(chunks, shards, -1)
    shard_of = {
        example: shard for shard in range(shards) for example in table[:, shard].ravel().tolist()
    }
    feeders = {example: set() for example in range(batch_size)}
    for process, share in shares.items():
        numbers = table[:, list(share.shards)]
        fed = numbers[numbers != IDLE].tolist()
        assert max(Counter(fed).values()) == 1
        for example in fed:
            feeders[example].add(process)
        fellows = {frozenset(holders[shard]) for group in share.groups for shard in group[:1]}
        assert len(fellows) == len(share.groups)  # others feed other groups
        assert sorted(itertools.chain(*share.groups)) == list(share.shards)
    for example, found in feeders.items():
        assert found == holders[shard_of[example]]


@needs_libtpu
@on_layouts
def test_every_host_gets_its_share(name, num_slices, axis, tensor):
    devices = find_topology(name, num_slices).devices
    mesh = make_mesh(devices, num_slices, axis, tensor)
    check_shares(mesh, batch_size=768, chunks=1)
    check_shares(mesh, batch_size=1056, chunks=4)


@on_layouts
def test_every_host_of_a_plain_torus_gets_its_share(name, num_slices, axis, tensor):
    mesh = make_mesh(torus_devices(name, num_slices), num_slices, axis, tensor)
    check_shares(mesh, batch_size=1056, chunks=2)


@needs_libtpu
@every_slice
def test_a_plain_torus_is_what_the_compiler_describes(name, num_slices):
    plain, described = (
        devices(name, num_slices)
        for devices in (torus_devices, lambda *slices: find_topology(*slices).devices)
    )
    for left, right in zip(plain, described, strict=True):
        assert place(left) == (*place(right)[:3], place(right)[3] or 0)
        assert left.device_kind == right.device_kind
    grids = [make_mesh(devices, num_slices, "data", 2).devices for devices in (plain, described)]
    assert [device.id for device in grids[0].flat] == [device.id for device in grids[1].flat]


def test_hosts_of_a_torus_hold_shards_that_are_no_neighbours():
    shares = shares_of(make_mesh(torus_devices("v5p:4x4x4"), 1, "data", 1))
    assert len(shares) == 16
    assert any(np.ptp(share.shards) >= len(share.shards) for share in shares.values())


def test_a_tensor_axis_may_cross_hosts():
    shares = shares_of(make_mesh(torus_devices("v5e:16x16"), 1, "data", 4))
    holders = Counter(shard for share in shares.values() for shard in share.shards)
    assert len(holders) == 64
    assert max(holders.values()) > 1


def test_this_process_has_the_share_of_its_index(single_device_mesh):
    assert data_share(single_device_mesh) == shares_of(single_device_mesh)[jax.process_index()]


def test_slices_without_the_compiler(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    devices = slice_devices("v5p:2x2x4")
    assert [device.process_index for device in devices] == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4
    assert len(slice_devices("v6e:1x1")) == 1
    assert len(slice_devices("v4:2x2x4")) == 16
    with pytest.raises(ValueError, match="no slice v5e:3x4: hosts have 2 x 2 chips"):
        slice_devices("v5e:3x4")
