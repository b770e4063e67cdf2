"""Checkpoints: evaluated after they are saved, read past errors that pass, and read in part."""

import dataclasses
import json
import signal
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from lco_jax.config import CheckpointConfig, Evaluation, Lora, ModelRef
from lco_jax.config.io import ScienceChangedError
from lco_jax.runtime import mesh as meshes
from lco_jax.runtime.signals import StopSignals
from lco_jax.train import setup, transient
from lco_jax.train.checkpoint import Checkpoints
from lco_jax.train.loop import train
from lco_jax.train.metrics import read_metrics
from lco_jax.train.restore import open_run
from lco_jax.train.update import TrainState
from tests import runs, tiny


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tiny.write(folder, num_layers=1)
    data = runs.write_triplets(folder / "triplets.jsonl")
    few = Lora(rank=4, alpha=8, targets=("query",))  # compilation is most of the time
    config = runs.make_config(
        folder,
        data,
        model=ModelRef(str(folder), trainable=few, dtype="float32"),
        checkpoint=CheckpointConfig(every_steps=2, keep_last=1),
        num_steps=4,
    )
    evaluation = Evaluation(config.data.sources[0], every_steps=1, num_pairs=4, metric="mrr")
    return dataclasses.replace(config, evaluation=evaluation)


@pytest.fixture(scope="module", autouse=True)
def one_device():
    original = meshes.make_mesh
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(meshes, "make_mesh", lambda config: original(config, jax.devices()[:1]))
        yield


def evaluated(workdir):
    lines = read_metrics(workdir / "metrics.jsonl")
    return [line["step"] for line in lines if line["kind"] == "eval"]


def stop_after(monkeypatch, step):
    stop = lambda self, at: signal.SIGTERM if at == step else None  # noqa: E731
    monkeypatch.setattr(StopSignals, "received", stop)


def test_a_checkpoint_is_there_before_its_evaluation_and_the_best_stays(config, tmp_path):
    scores = {0: 0.1, 1: 0.2, 2: 0.9, 3: 0.3, 4: 0.4}

    def evaluate(snapshot):
        if snapshot.step:
            assert (tmp_path / "checkpoints" / str(snapshot.step)).is_dir()
        return {"mrr": scores[snapshot.step]}

    train(config, str(tmp_path), evaluate=evaluate)
    checkpoints = Checkpoints(str(tmp_path), config.checkpoint, "mrr", writes=False)
    assert checkpoints.steps() == [2, 4]
    assert checkpoints.best() == 2
    assert Checkpoints(str(tmp_path), config.checkpoint, writes=False).best() == 4


def test_an_evaluation_that_a_signal_prevented_is_made_up(config, tmp_path, monkeypatch):
    evaluate = lambda snapshot: {"mrr": 0.5}  # noqa: E731
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        assert train(config, str(tmp_path), evaluate=evaluate).step == 2
    assert evaluated(tmp_path) == [0, 1]
    train(config, str(tmp_path), evaluate=evaluate)
    assert evaluated(tmp_path) == [0, 1, 2, 3, 4]
    train(config, str(tmp_path), evaluate=evaluate)  # there is nothing left to do
    assert evaluated(tmp_path) == [0, 1, 2, 3, 4]


def test_an_evaluation_that_fails_costs_no_step(config, tmp_path):
    def evaluate(snapshot):
        if snapshot.step == 3:
            raise RuntimeError("out of memory")
        return {"mrr": 0.5}

    with pytest.raises(RuntimeError, match="out of memory"):
        train(config, str(tmp_path), evaluate=evaluate)
    assert Checkpoints(str(tmp_path), config.checkpoint, writes=False).steps()[-1] == 3
    train(config, str(tmp_path), evaluate=lambda snapshot: {"mrr": 0.5})
    assert evaluated(tmp_path) == [0, 1, 2, 3, 4]


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory):
    """A run folder whose best evaluation was kept with its checkpoint, as earlier revisions did."""
    workdir = tmp_path_factory.mktemp("trained")
    train(dataclasses.replace(config, evaluation=None), str(workdir))
    return workdir


def test_a_transient_error_takes_no_older_checkpoint(config, trained, monkeypatch, caplog):
    original, failures = ocp.load_checkpointables, iter(["HTTP 503", "connection reset by peer"])

    def load(*arguments):
        for text in failures:
            raise OSError(text)
        return original(*arguments)

    monkeypatch.setattr(ocp, "load_checkpointables", load)
    monkeypatch.setattr(transient, "WAITS_S", (0, 0, 0))
    result = train(dataclasses.replace(config, evaluation=None), str(trained))
    assert result.step == 4
    assert "HTTP 503; trying again" in caplog.text
    assert "is not readable" not in caplog.text


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (TimeoutError(), True),
        (OSError("Error reading gs://b/x: HTTP response code: 503"), True),
        (ValueError("UNAVAILABLE: connection refused"), True),
        (ConnectionResetError(104, "reset"), True),
        (OSError("checkpoint 503 is damaged"), False),
        (ValueError("INVALID_ARGUMENT: Expected 4, got 503 bytes"), False),
        (FileNotFoundError("state/timed_out.json"), False),
    ],
)
def test_which_errors_pass_by_themselves(error, passes):
    assert transient.is_transient(error) is passes


def test_a_resume_holds_one_state(config, trained, monkeypatch):
    def refuse(*_):
        raise AssertionError("a state was built beside the restored one")

    monkeypatch.setattr(setup, "initial_state", refuse)
    assert train(dataclasses.replace(config, evaluation=None), str(trained)).step == 4


def test_opening_a_run_reads_no_optimizer_state(config, trained, tmp_path, monkeypatch, caplog):
    """Not even its names: that of another version of the optimizer is no hindrance. Whoever opens
    it in Python sees no warning of orbax."""
    (tmp_path / "config.json").write_text((trained / "config.json").read_text())
    expected = open_run(str(trained))
    state = TrainState(
        step=jax.device_put(np.int32(4), jax.P()),
        trainable=expected.lora_params,
        frozen={},
        opt_state={"moments of another optimizer": jnp.ones(8)},
    )
    checkpoints = Checkpoints(str(tmp_path), CheckpointConfig())
    checkpoints.save(state, data={})
    checkpoints.close()
    wanted = []
    original = ocp.load_checkpointables
    monkeypatch.setattr(
        ocp, "load_checkpointables", lambda *args: wanted.append(args[1]) or original(*args)
    )
    opened = open_run(str(tmp_path))
    assert list(wanted[0]["state"]) == ["trainable"]
    assert opened.step == 4
    assert not [record for record in caplog.records if record.name == "absl"]
    for old, new in zip(*map(jax.tree.leaves, (expected.params, opened.params)), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_reader_leaves_an_unfinished_save_alone(config, trained, tmp_path):
    draft = tmp_path / "checkpoints" / "6.orbax-checkpoint-tmp"
    draft.mkdir(parents=True)
    Checkpoints(str(tmp_path), config.checkpoint, writes=False).close()
    assert draft.is_dir()
    owner = Checkpoints(str(tmp_path), config.checkpoint)
    for _ in range(100):  # orbax cleans up in the background
        if not draft.exists():
            break
        time.sleep(0.1)
    owner.close()
    assert not draft.exists()


def test_metrics_that_earlier_revisions_kept_with_checkpoints_count(config, trained, tmp_path):
    checkpointer = ocp.training.Checkpointer(tmp_path / "checkpoints")
    for step, score in ((2, 0.9), (4, 0.1)):
        checkpointer.save_checkpointables(
            step, {"state": {"step": jnp.int32(step)}}, force=True, metrics={"mrr": score}
        )
    checkpointer.close()
    checkpoints = Checkpoints(str(tmp_path), config.checkpoint, "mrr", writes=False)
    assert checkpoints.best() == 2
    assert checkpoints.is_measured(4)


def test_other_base_weights_are_refused(config, trained, tmp_path):
    content = json.loads((trained / "config.json").read_text())
    content["base_weights"] = "of another model"
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(ScienceChangedError, match="its digest was of another model"):
        train(dataclasses.replace(config, evaluation=None), str(tmp_path))
