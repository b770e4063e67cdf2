"""Training on four processes that hold no neighbouring data shards, as hosts of a torus do."""

import collections
import dataclasses
import itertools
import shutil
import signal

import jax
import pytest

from lco_jax.config import (
    CheckpointConfig,
    DataConfig,
    JsonlSource,
    Lora,
    MediaConfig,
    Memory,
    MeshConfig,
    ModelRef,
)
from lco_jax.runtime import mesh as meshes
from lco_jax.runtime import processes as shares
from lco_jax.train.loop import train
from lco_jax.train.metrics import read_metrics
from tests import processes, runs, tiny

TIMEOUT_S = 500
FEW = Lora(rank=4, alpha=8, targets=("query",))  # compilation is most of the time
SHARDED, CROSSED = MeshConfig(1, 8, 1), MeshConfig(1, 4, 2)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    tiny.write(folder, num_layers=1)
    return runs.make_config(
        folder,
        runs.write_triplets(folder / "triplets.jsonl"),
        model=ModelRef(str(folder), trainable=FEW, dtype="float32"),
        checkpoint=CheckpointConfig(every_steps=2, keep_last=4),
        memory=Memory(row_tokens=(128,)),
        mesh=SHARDED,
        num_steps=6,
    )


@pytest.fixture(scope="module")
def alone(config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("alone")
    train(config, str(workdir))
    return workdir


def start(config, workdir, fault="none"):
    run = processes.start(config, workdir, 4, fault, devices=8, order=processes.TORUS)
    return run.finish(TIMEOUT_S)


@pytest.fixture(scope="module")
def undisturbed(config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("undisturbed")
    return workdir, start(config, workdir)


@pytest.fixture(scope="module")
def killed(config, tmp_path_factory):
    """One of the processes dies in step 6, when step 4 is saved."""
    workdir = tmp_path_factory.mktemp("killed")
    return workdir, start(config, workdir, "kill")


def losses(workdir):
    lines = read_metrics(workdir / "metrics.jsonl")
    return {line["step"]: line["loss"] for line in lines if line["kind"] == "train"}


def check_ends(ends, code=0):
    for found, text in ends:
        assert found == code, text[-3000:]


@pytest.mark.parametrize(
    ("config", "expected"),
    [(SHARDED, [(0, 4), (1, 5), (2, 6), (3, 7)]), (CROSSED, [(0, 2), (0, 2), (1, 3), (1, 3)])],
)
def test_what_the_processes_hold(config, expected, monkeypatch):
    """The order of devices is that of the runs below; devices of this process stand for them."""
    devices = [jax.devices()[place] for place in processes.TORUS]
    mesh = meshes.make_mesh(config, devices)
    by_shard = [
        {device.id // 2 for device in own}
        for own in mesh.devices.reshape(meshes.num_shards(mesh), -1)
    ]
    monkeypatch.setattr(shares, "_holders", lambda mesh: by_shard)
    for process in range(4):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        shares.partners.cache_clear()
        assert shares.common_shards(mesh) == expected[process]
        partners = {0, 1} if process < 2 else {2, 3}
        assert shares.partners(mesh) == ((process,) if config == SHARDED else (*partners,))
    shares.partners.cache_clear()


def test_losses_are_those_of_one_process(undisturbed, alone):
    workdir, ends = undisturbed
    check_ends(ends)
    assert losses(workdir) == pytest.approx(losses(alone), rel=1e-5)
    assert list(losses(workdir)) == list(range(1, 7))


@pytest.mark.slow
def test_killed_and_started_again(config, killed, undisturbed, tmp_path):
    before, (*others, (last_code, _)) = killed
    assert last_code == -signal.SIGKILL
    processes.check_lost(others)
    workdir = shutil.copytree(before, tmp_path / "run")
    ends = start(config, workdir)
    check_ends(ends)
    assert "resumed after step 4" in ends[0][1]
    assert losses(workdir) == losses(undisturbed[0])


@pytest.mark.slow
def test_goes_on_where_processes_hold_the_same_shards(config, killed, alone, tmp_path):
    workdir = shutil.copytree(killed[0], tmp_path / "run")
    ends = start(dataclasses.replace(config, mesh=CROSSED), workdir)
    check_ends(ends)
    assert "resumed after step 4" in ends[0][1]
    assert losses(workdir) == pytest.approx(losses(alone), rel=1e-5)


@pytest.fixture(scope="module")
def with_media(tmp_path_factory):
    folder = tmp_path_factory.mktemp("omni")
    tiny.write(folder, "qwen2_5_omni_thinker", num_kv_heads=4, num_layers=1)
    triplets = runs.write_media_triplets(folder / "triplets.jsonl", with_sounds=True)
    media = MediaConfig(image_min_pixels=28 * 28, image_max_pixels=16 * 28 * 28)
    return runs.make_config(
        folder,
        triplets,
        model=ModelRef(str(folder), trainable=FEW, dtype="float32"),
        data=DataConfig(sources=(JsonlSource(str(triplets)),), batch_size=16, media=media),
        memory=Memory(row_tokens=(128,), frame_rows=(256,)),
        mesh=SHARDED,
        num_steps=2,
    )


def with_cache(config, folder, mesh=SHARDED):
    memory = dataclasses.replace(config.memory, feature_cache=str(folder))
    return dataclasses.replace(config, memory=memory, mesh=mesh)


@pytest.mark.slow
def test_a_feature_cache_is_filled_in_shares(with_media, tmp_path):
    train(with_media, str(tmp_path / "alone"))
    expected = pytest.approx(losses(tmp_path / "alone"), rel=1e-5)
    for number, mesh in enumerate((SHARDED, CROSSED)):
        cached, workdir = (
            with_cache(with_media, tmp_path / f"{number}", mesh),
            tmp_path / f"run{number}",
        )
        ends = start(cached, workdir, "say")
        check_ends(ends)
        assert losses(workdir) == expected
        read = [
            [line for line in text.splitlines() if line.startswith("READ ")] for _, text in ends
        ]
        if mesh == CROSSED:
            assert read[0] == read[1] and read[2] == read[3]
            read = read[::2]
        assert all(read)
        times = collections.Counter(itertools.chain(*read))
        assert set(times.values()) == {1}
        files = sorted((tmp_path / f"{number}").rglob("*.npz"))
        assert len(files) == len(times) > 10
    ends = start(cached, tmp_path / "again", "say")  # nothing is missing
    check_ends(ends)
    assert not any("READ" in text for _, text in ends)
    assert losses(tmp_path / "again") == expected


@pytest.mark.slow
def test_a_cache_that_is_not_shared(with_media, tmp_path):
    cached = with_cache(with_media, tmp_path / "cache")
    ends = start(cached, tmp_path / "run", "own cache")
    check_ends(ends, 2)
    assert all("choose a folder on a disk that all hosts share" in text for _, text in ends)
