"""A run that is killed, stopped, moved to another mesh or out of disk goes on as if nothing was."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from lco_jax.config import CheckpointConfig, Evaluation, MeshConfig, OptimizerConfig
from lco_jax.config.io import ScienceChangedError, to_json
from lco_jax.train.checkpoint import CheckpointError, Checkpoints
from lco_jax.train.finite import DivergedError
from lco_jax.train.loop import train
from lco_jax.train.metrics import read_metrics
from tests import runs, tiny

ROOT = Path(__file__).parents[2]

_RUN = """
import json, os, resource, signal, sys, time
import jax
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_default_matmul_precision", "highest")
jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_compilation_cache_dir", sys.argv[4])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
from lco_jax.config.io import from_json
from lco_jax.train.loop import train

def wait_for_checkpoint():
    while not os.path.isdir(sys.argv[2] + "/checkpoints/2"):  # it is saved in the background
        time.sleep(0.05)

def kill(snapshot):
    if snapshot.step == 4:
        wait_for_checkpoint()
        os.kill(os.getpid(), signal.SIGKILL)
    return {"mrr": 0.0}

def fill_disk(snapshot):
    if snapshot.step == 4:
        wait_for_checkpoint()
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))  # metrics fit, checkpoints do not
    return {"mrr": 0.0}

def go_on(snapshot):
    return {"mrr": 0.0}

train(from_json(json.loads(sys.argv[1])), sys.argv[2], evaluate=globals()[sys.argv[3]])
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    tiny.write(folder)
    config = runs.make_config(
        folder,
        runs.write_triplets(folder / "triplets.jsonl"),
        checkpoint=CheckpointConfig(every_steps=2),
        mesh=MeshConfig(-1, 1, 1),
        num_steps=8,
    )
    evaluation = Evaluation(config.data.sources[0], every_steps=4, num_pairs=8)
    return dataclasses.replace(config, evaluation=evaluation)


@pytest.fixture(scope="module")
def uninterrupted(config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("uninterrupted")
    result = in_subprocess(config, workdir, "go_on")
    assert result.returncode == 0, result.stderr[-3000:]
    return losses(workdir)


def in_subprocess(config, workdir, evaluate):
    cache = f"{config.model.path}/compilations"
    return subprocess.run(
        [sys.executable, "-c", _RUN, json.dumps(to_json(config)), str(workdir), evaluate, cache],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": "."},
        timeout=300,
    )


def losses(workdir):
    lines = read_metrics(workdir / "metrics.jsonl")
    return {line["step"]: line["loss"] for line in lines if line["kind"] == "train"}


def test_loss_falls(uninterrupted):
    assert list(uninterrupted) == list(range(1, 9))
    assert uninterrupted[8] < uninterrupted[1] - 0.1


def test_killed_run_goes_on_with_identical_losses(config, uninterrupted, tmp_path):
    assert in_subprocess(config, tmp_path, "kill").returncode == -signal.SIGKILL
    checkpoints = Checkpoints(str(tmp_path), config.checkpoint)
    assert checkpoints.steps()[-1] == 4  # saved before the evaluation in which it was killed
    checkpoints.close()
    assert in_subprocess(config, tmp_path, "go_on").returncode == 0
    assert losses(tmp_path) == uninterrupted
    evaluated = [x["step"] for x in read_metrics(tmp_path / "metrics.jsonl") if x["kind"] == "eval"]
    assert evaluated == [0, 4, 8]


def test_resume_on_another_mesh(config, uninterrupted, tmp_path):
    assert in_subprocess(config, tmp_path, "kill").returncode == -signal.SIGKILL
    moved = dataclasses.replace(config, mesh=MeshConfig(1, 2, 2))
    assert in_subprocess(moved, tmp_path, "go_on").returncode == 0
    assert losses(tmp_path) == pytest.approx(uninterrupted, rel=1e-5)


@pytest.mark.slow
def test_full_disk_leaves_the_previous_checkpoint(config, uninterrupted, tmp_path):
    failed = in_subprocess(config, tmp_path, "fill_disk")
    assert failed.returncode == 1
    assert CheckpointError.__name__ in failed.stderr
    assert "intact" in failed.stderr
    assert in_subprocess(config, tmp_path, "go_on").returncode == 0
    assert losses(tmp_path) == uninterrupted


@pytest.mark.slow
def test_damaged_checkpoint_falls_back_to_the_one_before(config, tmp_path, caplog):
    short = dataclasses.replace(config, evaluation=None)
    train(short, str(tmp_path))
    newest = tmp_path / "checkpoints" / "8"
    for file in newest.rglob("*"):
        if file.is_file() and "state" in str(file.relative_to(newest)):
            file.write_bytes(b"damaged")
    result = train(short, str(tmp_path))
    assert result.step == 8
    assert f"{newest} is not readable" in caplog.text
    assert f"going back to {newest.with_name('6')}" in caplog.text


def test_changed_science_is_refused_by_name(config, tmp_path):
    short = dataclasses.replace(config, evaluation=None, num_steps=2)
    train(short, str(tmp_path))
    optimizer = OptimizerConfig(peak_lr=2e-2, warmup_steps=2)
    with pytest.raises(ScienceChangedError, match=r"optimizer\.peak_lr: 0\.01 in the run, 0\.02"):
        train(dataclasses.replace(short, optimizer=optimizer), str(tmp_path))
    memory = dataclasses.replace(short.memory, encode_chunks=2)
    train(dataclasses.replace(short, memory=memory), str(tmp_path))  # execution may change
    source = Path(short.data.sources[0].path)
    text = source.read_text()
    try:
        runs.write_triplets(source, seed=1)
        with pytest.raises(ScienceChangedError, match="the data of the run"):
            train(short, str(tmp_path))
    finally:
        source.write_text(text)


def test_divergence_is_an_error_that_names_the_step(config, tmp_path):
    wild = OptimizerConfig(peak_lr=1e30, warmup_steps=0, clip_norm=None)
    with pytest.raises(DivergedError, match="the loss of step 2 is nan"):
        train(dataclasses.replace(config, optimizer=wild, evaluation=None), str(tmp_path))


def test_frozen_weights_do_not_change(config):
    mesh = jax.make_mesh((1, 1, 1), ("data", "fsdp", "tensor"), devices=jax.devices()[:1])
    before, after = runs.frozen_before_and_after(config, mesh)
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(old, new)


def test_sigterm_saves_and_exits_with_143(config, tmp_path):
    endless = dataclasses.replace(
        config, num_steps=100_000, checkpoint=CheckpointConfig(every_steps=50_000), evaluation=None
    )
    file = tmp_path / "endless.py"
    file.write_text(
        "import json\nfrom lco_jax.config.io import from_json\n"
        f"get_config = lambda: from_json(json.loads({json.dumps(to_json(endless))!r}))\n"
    )
    workdir = tmp_path / "run"
    command = [sys.executable, "launch/train.py", "--config", str(file), "--workdir", str(workdir)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        metrics = workdir / "metrics.jsonl"
        deadline = time.monotonic() + 120
        while not (metrics.exists() and len(read_metrics(metrics)) > 3):
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 143, err
    last = read_metrics(metrics)[-1]["step"]
    assert f"saved after step {last} of 100000" in " ".join(err.split())
    assert (workdir / "checkpoints" / str(last)).is_dir()
