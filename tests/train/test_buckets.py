"""Run folders in a bucket: what is not orbax goes through etils, and nothing is appended to."""

from pathlib import Path

import fsspec
import jax.numpy as jnp
import pytest
from etils import epath
from etils.epath import backend
from fsspec.implementations.memory import MemoryFileSystem
from orbax.checkpoint._src.path import gcs_utils

from lco_jax.config import CheckpointConfig
from lco_jax.config.io import ScienceChangedError
from lco_jax.runtime.profiling import trace_steps
from lco_jax.train.checkpoint import Checkpoints
from lco_jax.train.manifest import is_run_folder, read_manifest, start_or_resume
from lco_jax.train.metrics import MetricsWriter, read_metrics
from tests import runs

WORKDIR = "gs://bucket/run"


class Bucket(MemoryFileSystem):
    """Objects in memory, which like those of Cloud Storage can only be written as a whole."""

    protocol = ("gs", "gcs")

    def __init__(self, finalize_on_close=True, **options):
        super().__init__(**options)

    def _open(self, path, mode="rb", **options):
        if "a" in mode:
            raise NotImplementedError("objects of a bucket cannot be appended to")
        return super()._open(path, mode, **options)


@pytest.fixture(autouse=True)
def bucket(monkeypatch, tmp_path):
    """An empty bucket; whatever takes its address for a path leaves a folder behind."""
    backend._FileSystemSpecBackend._get_filesystem.cache_clear()
    for name in Bucket.protocol:
        fsspec.register_implementation(name, Bucket, clobber=True)
    monkeypatch.chdir(tmp_path)
    yield
    Bucket.store.clear()
    Bucket.pseudo_dirs[:] = [""]
    backend._FileSystemSpecBackend._get_filesystem.cache_clear()
    assert not list(tmp_path.iterdir())


def test_metrics_of_a_run_that_goes_on():
    first = MetricsWriter(WORKDIR, start_step=0, tensorboard=False)
    for step in (1, 2):
        first.write(step, "train", {"loss": 1.0 / step})
    first.flush()  # as before a checkpoint; then the process is killed
    second = MetricsWriter(WORKDIR, start_step=1, tensorboard=False)
    second.write(2, "train", {"loss": 0.25})
    second.close()
    lines = read_metrics(f"{WORKDIR}/metrics.jsonl")
    assert [(line["step"], line["loss"]) for line in lines] == [(1, 1.0), (2, 0.25)]


def test_manifest():
    config = runs.make_config(Path("model"), Path("triplets.jsonl"))
    start_or_resume(WORKDIR, config, data_fingerprint="a", prompt={})
    assert is_run_folder(WORKDIR)
    assert read_manifest(WORKDIR).config == config
    assert [path.name for path in epath.Path(WORKDIR).iterdir()] == ["config.json"]
    with pytest.raises(ScienceChangedError, match="the data of the run in gs://bucket/run"):
        start_or_resume(WORKDIR, config, data_fingerprint="b", prompt={})


def test_checkpoints_stay_in_the_bucket(monkeypatch):
    # A question to Cloud Storage itself.
    monkeypatch.setattr(gcs_utils, "is_hierarchical_namespace_enabled", lambda path: False)
    checkpoints = Checkpoints(WORKDIR, CheckpointConfig())
    assert str(checkpoints.folder) == f"{WORKDIR}/checkpoints"
    assert checkpoints.steps() == []
    checkpoints.close()


def test_traces():
    for _ in trace_steps([(step, None) for step in range(3)], (2, 2), WORKDIR):
        jnp.ones(3).block_until_ready()
    names = [name for name in Bucket.store if name.endswith(".xplane.pb")]
    assert names
    assert all("bucket/run/profile/" in name for name in names)
