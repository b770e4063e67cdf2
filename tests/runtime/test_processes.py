"""Several processes: one dies, one is preempted, a checkpoint is damaged, their number changes."""

import shutil
import signal
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from lco_jax.config import CheckpointConfig, Lora, Memory, MeshConfig, ModelRef
from lco_jax.models.build import build, on_mesh
from lco_jax.models.config import read_config
from lco_jax.runtime import mesh as meshes
from lco_jax.train.checkpoint import Checkpoints
from lco_jax.train.loop import train
from lco_jax.train.metrics import read_metrics
from lco_jax.train.optimizer import make_optimizer, make_schedule
from lco_jax.train.update import TrainState
from tests import processes, runs, tiny

TIMEOUT_S = 240


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    tiny.write(folder, num_layers=1)
    few = Lora(rank=4, alpha=8, targets=("query",))  # compilation is most of the time
    return runs.make_config(
        folder,
        runs.write_triplets(folder / "triplets.jsonl"),
        model=ModelRef(str(folder), trainable=few, dtype="float32"),
        checkpoint=CheckpointConfig(every_steps=2, keep_last=4),
        memory=Memory(row_tokens=(128,)),
        mesh=MeshConfig(-1, 1, 1),
        num_steps=8,
    )


@pytest.fixture(scope="module")
def alone():
    """This process has the four devices that a run's processes have among them."""
    original = meshes.make_mesh
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(meshes, "make_mesh", lambda config: original(config, jax.devices()[:4]))
        yield


@pytest.fixture(scope="module")
def uninterrupted(config, alone, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("uninterrupted")
    train(config, str(workdir))
    return workdir


@pytest.fixture(scope="module")
def killed(config, uninterrupted, tmp_path_factory):
    """What one process left after two steps, gone on with by two: one of them dies in step 6."""
    workdir = copy(uninterrupted, tmp_path_factory)
    for step in (4, 6, 8):
        shutil.rmtree(workdir / "checkpoints" / str(step))
    return workdir, processes.start(config, workdir, 2, "kill").finish(TIMEOUT_S)


@pytest.fixture(scope="module")
def preempted(config, killed, tmp_path_factory):
    """The job of before started again; one process is asked to stop in step 6."""
    workdir = copy(killed[0], tmp_path_factory)
    return workdir, processes.start(config, workdir, 2, "terminate").finish(TIMEOUT_S)


def copy(workdir, tmp_path_factory):
    return shutil.copytree(workdir, tmp_path_factory.mktemp("copies") / "run")


def losses(workdir):
    lines = read_metrics(workdir / "metrics.jsonl")
    return {line["step"]: line["loss"] for line in lines if line["kind"] == "train"}


def checkpoints(workdir):
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())


def same(workdir, uninterrupted, last):
    """The losses of all steps up to `last`, and of whatever was computed beyond."""
    found = losses(workdir)
    assert list(found) == list(range(1, max(last, *found) + 1))
    expected = {step: loss for step, loss in losses(uninterrupted).items() if step in found}
    assert found == pytest.approx(expected, rel=1e-5)


def test_a_killed_process_stops_the_others(killed, uninterrupted):
    workdir, ((code, said), (last_code, _)) = killed
    assert last_code == -signal.SIGKILL
    processes.check_lost([(code, said)])
    assert "resumed after step 2" in said
    # Ours, or that of JAX if the process waited for the next batch of the lost one.
    assert ("starts again from the last checkpoint" if code == 1 else "another task died") in said
    assert checkpoints(workdir)[-1] == 4
    # The loss of step 5 may have been on its way.
    same(workdir, uninterrupted, last=4)


def test_the_job_goes_on_and_a_preempted_process_makes_all_save(preempted, uninterrupted):
    workdir, ends = preempted
    assert [code for code, _ in ends] == [143, 143], ends[0][1][-3000:]
    assert all("resumed after step 4" in said for _, said in ends)
    stopped = max(losses(workdir))
    assert checkpoints(workdir)[-1] == stopped
    assert stopped >= 6  # the step on which all have agreed after the signal
    same(workdir, uninterrupted, last=stopped)


def test_one_process_goes_on(config, alone, preempted, uninterrupted, tmp_path):
    workdir = shutil.copytree(preempted[0], tmp_path / "run")
    train(config, str(workdir))
    same(workdir, uninterrupted, last=8)


def test_a_checkpoint_with_a_whole_optimizer_state_goes_on(config, alone, uninterrupted, tmp_path):
    """As runs saved it before its parts were spread over the data shards."""
    folder = Path(config.model.path)
    with jax.set_mesh(meshes.make_mesh(config.mesh)):
        _, trainable, _ = build(read_config(folder), config.model.trainable, config.model.dtype)
        optimizer = make_optimizer(
            config.optimizer, make_schedule(config.optimizer, 8), config.model.trainable
        )
        opt_state = on_mesh(jax.eval_shape(optimizer.init, trainable))
        step = on_mesh(jax.eval_shape(lambda: jnp.int32(0)))
        source = Checkpoints(str(uninterrupted), config.checkpoint)
        whole, position = source.restore(TrainState(step, trainable, {}, opt_state), 4)
        source.close()
        moments = [x for x in jax.tree.leaves(whole.opt_state) if x.ndim]
        assert moments
        assert all(x.is_fully_replicated for x in moments)
        target = Checkpoints(str(tmp_path), config.checkpoint)
        target.save(whole, data=position)
        target.close()
    for name in ("config.json", "metrics.jsonl"):
        shutil.copy(uninterrupted / name, tmp_path)
    train(config, str(tmp_path))
    same(tmp_path, uninterrupted, last=8)


@pytest.mark.slow
def test_four_processes_go_back_when_one_of_them_cannot_read_a_checkpoint(
    config, preempted, uninterrupted, tmp_path
):
    workdir = shutil.copytree(preempted[0], tmp_path / "run")
    earlier, newest = (workdir / "checkpoints" / str(n) for n in checkpoints(workdir)[-2:])
    run = processes.start(config, workdir, 4, "unreadable")
    for code, said in run.finish(TIMEOUT_S):
        assert code == 0, said[-3000:]
        assert f"{newest} is not readable" in said
        assert f"going back to {earlier}" in said
        assert f"resumed after step {earlier.name}" in said
    same(workdir, uninterrupted, last=8)
