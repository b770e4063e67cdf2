"""Joining the other hosts: what says that there are some, and what happens where it fails."""

import sys

import jax
import pytest

from lco_jax.cli import evaluate
from lco_jax.cli import train as program
from lco_jax.config import DataConfig, Evaluation, JsonlSource, MediaConfig
from lco_jax.evaluate.hook import Baselines, retrieval_hook
from lco_jax.runtime import start
from tests import runs


@pytest.fixture(autouse=True)
def fails(monkeypatch):
    """Joining fails, as where a host is away; nothing in the environment speaks of hosts."""
    for name in ("TPU_WORKER_HOSTNAMES", "TPU_PROCESS_ADDRESSES", "SLURM_NTASKS", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)

    def initialize(*_):
        raise RuntimeError("no answer from the coordinator")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)


SEVERAL = [
    {"TPU_WORKER_HOSTNAMES": "host-a,host-b"},
    {"TPU_PROCESS_ADDRESSES": "host-a:1,host-b:1"},
    {"TPU_WORKER_HOSTNAMES": "host-a", "MEGASCALE_NUM_SLICES": "2"},
    {"MEGASCALE_COORDINATOR_ADDRESS": "host-a"},
    {"SLURM_NTASKS": "2", "SLURM_PROCID": "0"},
    {"JAX_COORDINATOR_ADDRESS": "host-a:1"},
]


@pytest.mark.parametrize("said", SEVERAL, ids=lambda said: "+".join(said))
def test_a_host_that_cannot_join_the_others_does_not_go_on_alone(said, monkeypatch):
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(start.JoinError, match="no answer from the coordinator"):
        start.start_tpu()


class _Pod:
    """A cluster that JAX finds by itself, such as the metadata of a TPU VM."""

    name, opt_in_only_method, size = "metadata", False, 2

    @classmethod
    def is_env_present(cls):
        return True

    @classmethod
    def get_process_count(cls):
        if cls.size is None:
            raise OSError("no answer from the metadata server")
        return cls.size


@pytest.mark.parametrize(
    ("size", "message"), [(2, "metadata speaks of"), (None, "cannot find out whether")]
)
def test_hosts_that_jax_finds_count(size, message, monkeypatch):
    monkeypatch.setattr(start.ClusterEnv, "_cluster_types", [_Pod])
    monkeypatch.setattr(_Pod, "size", size)
    with pytest.raises(start.JoinError, match=message):
        start.start_tpu()


@pytest.mark.parametrize("said", [{}, {"TPU_WORKER_HOSTNAMES": "localhost"}])
def test_a_single_host_goes_on_alone(said, monkeypatch):
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(start.NoTpuError):  # it has come as far as the devices
        start.start_tpu()


def test_one_process_in_place_of_several_is_an_error(monkeypatch):
    monkeypatch.setattr(jax.distributed, "initialize", lambda *_: None)
    coordinator = start.Coordinator("host-a:1", 2, 0)
    with pytest.raises(start.JoinError, match="speaks of 2 processes, and JAX has joined 1"):
        start.start_cluster(coordinator)


@pytest.mark.parametrize(
    ("options", "said", "message"),
    [
        (["--distributed"], {}, "say where the processes meet: --coordinator"),
        (["--coordinator", "host-a:1"], {}, "belong together; got host-a:1, None and None"),
        (["--tpu", "--distributed"], {}, "leave the other options out"),
        ([], {"SLURM_STEP_NUM_TASKS": "4"}, "this is one of 4 processes (SLURM_STEP_NUM_TASKS)"),
        (
            ["--coordinator", "host-a:1", "--num-processes", "2", "--process-id", "2"],
            {},
            "process_id=2 is not in 0..1",
        ),
    ],
)
def test_bad_usage(options, said, message, monkeypatch, capsys):
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["launch/train.py", *options])
    assert program.main() == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_failed_start_exits_with_1(monkeypatch, capsys):
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "host-a,host-b")
    monkeypatch.setattr(sys, "argv", ["launch/train.py", "--tpu"])
    assert program.main() == 1
    assert "cannot join the 2 processes that TPU_WORKER_HOSTNAMES speaks of" in " ".join(
        capsys.readouterr().err.split()
    )


def test_several_processes_are_refused_where_one_works_alone(monkeypatch, capsys):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(sys, "argv", ["launch/evaluate.py", "--model", "org/model"])
    assert evaluate.main() == 2
    assert "evaluate.py is for one process, and 2 were joined" in " ".join(
        capsys.readouterr().err.split()
    )


def test_samples_are_refused_before_training(monkeypatch, capsys):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(sys, "argv", ["launch/train.py"])  # the quickstart
    assert program.main() == 2
    assert "and this run has 2: add --no-samples" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("media", "others", "message"),
    [
        (MediaConfig(), True, "leave evaluation.others out"),
        (MediaConfig(audio_features="tokens"), False, "set data.media.audio_features to all"),
        (MediaConfig(image_features="tokens"), False, "set data.media.image_features to all"),
    ],
)
def test_evaluations_of_one_process_are_refused_before_training(
    media, others, message, monkeypatch, tmp_path
):
    pairs = JsonlSource(str(runs.write_triplets(tmp_path / "pairs.jsonl")))
    config = runs.make_config(
        tmp_path,
        tmp_path / "pairs.jsonl",
        data=DataConfig(sources=(pairs,), batch_size=16, media=media),
        evaluation=Evaluation(pairs, num_pairs=4, others=(pairs,) if others else ()),
    )
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(ValueError, match=message):
        retrieval_hook(config, str(tmp_path), baselines=Baselines(("lexical",), None))
