"""Several processes: one dies, one is preempted, a checkpoint is damaged, their number changes."""

import dataclasses

import pytest

from lco_jax.config import CheckpointConfig, MeshConfig
from lco_jax.train.metrics import read_metrics
from tests import processes, runs, tiny

TIMEOUT_S = 240


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    tiny.write(folder, num_layers=1)
    return runs.make_config(
        folder,
        runs.write_triplets(folder / "triplets.jsonl"),
        checkpoint=CheckpointConfig(every_steps=2, keep_last=3),
        mesh=MeshConfig(-1, 1, 1),
        num_steps=8,
    )


@pytest.fixture(scope="module")
def uninterrupted(config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("uninterrupted")
    finish(processes.start(config, workdir, 1))
    return losses(workdir)


def finish(run):
    for code, said in run.finish(TIMEOUT_S):
        assert code == 0, said[-3000:]


def losses(workdir):
    lines = read_metrics(workdir / "metrics.jsonl")
    return {line["step"]: line["loss"] for line in lines if line["kind"] == "train"}


def test_a_killed_process_stops_the_others_and_the_job_goes_on(config, uninterrupted, tmp_path):
    (code, said), (killed, _) = processes.start(config, tmp_path, 2, "kill").finish(TIMEOUT_S)
    assert killed == -9
    assert code == 1, said[-3000:]
    assert "another process of this run has failed" in said
    assert "starts again from the last checkpoint" in said
    finish(processes.start(config, tmp_path, 2))
    assert losses(tmp_path) == pytest.approx(uninterrupted, rel=1e-5)


def test_a_preempted_process_makes_all_save_and_another_number_goes_on(
    config, uninterrupted, tmp_path
):
    ends = processes.start(config, tmp_path, 2, "terminate").finish(TIMEOUT_S)
    assert [code for code, _ in ends] == [143, 143], ends[0][1][-3000:]
    stopped = max(losses(tmp_path))
    assert (tmp_path / "checkpoints" / str(stopped)).is_dir()
    assert stopped < 8
    ((code, said),) = processes.start(config, tmp_path, 1).finish(TIMEOUT_S)
    assert code == 0, said[-3000:]
    assert losses(tmp_path) == pytest.approx(uninterrupted, rel=1e-5)


def test_four_processes_with_a_tensor_axis_fall_back_from_a_damaged_checkpoint(
    config, uninterrupted, tmp_path
):
    short = dataclasses.replace(config, mesh=MeshConfig(2, 1, 2))
    ends = processes.start(short, tmp_path, 4, "terminate").finish(TIMEOUT_S)
    assert {code for code, _ in ends} == {143}, ends[0][1][-3000:]
    steps = sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    newest = tmp_path / "checkpoints" / str(steps[-1])
    for file in newest.rglob("*"):
        if file.is_file() and "state" in str(file.relative_to(newest)):
            file.write_bytes(b"damaged")
    for code, said in processes.start(config, tmp_path, 2).finish(TIMEOUT_S):
        assert code == 0, said[-3000:]
        assert f"{newest} is not readable" in said
    assert losses(tmp_path) == pytest.approx(uninterrupted, rel=1e-5)
