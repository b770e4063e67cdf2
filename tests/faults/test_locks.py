"""A second process on a folder or file is told of the first; what a dead one left is taken over."""

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import jax
import pytest
from etils import epath
from filelock import LeaseCompromise

from lco_jax.cli import analyze, evaluate
from lco_jax.config import MeshConfig, Stage, Stages
from lco_jax.embed.embed_file import embed_items
from lco_jax.export.folders import export_model
from lco_jax.runtime import lease as leases
from lco_jax.runtime.lease import FileLease
from lco_jax.runtime.locks import LockedError, only_writer, only_writer_of
from lco_jax.train.loop import train
from lco_jax.train.stages import train_stages
from tests import runs
from tests.faults import runner


def hold(folder, ready, seconds):
    """In a process of its own."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # also of tests that outlive their terminal
    with only_writer(folder):
        ready.set()
        time.sleep(seconds)


@contextlib.contextmanager
def holding(folder):
    """A process that has the lock of a folder."""
    ready = runner._context.Event()
    process = runner._context.Process(target=hold, args=(folder, ready, 600))
    process.start()
    try:
        assert ready.wait(300)
        yield process
    finally:
        process.kill()
        process.join()


def names(folder):
    return sorted(path.name for path in epath.Path(folder).iterdir())


def test_a_second_process_is_told_of_the_first(tmp_path):
    with holding(tmp_path) as first:
        said = rf"process {first.pid} on host {socket.gethostname()} \(since 20\d\d-.*\+00:00\)"
        started = time.monotonic()
        with pytest.raises(LockedError, match=said), only_writer(tmp_path):
            raise AssertionError("two have the lock")
        assert time.monotonic() - started < 5
        with pytest.raises(LockedError, match=f"^{tmp_path}/sub/.. is being written to"):
            (tmp_path / "sub").mkdir()
            with only_writer(f"{tmp_path}/sub/.."):  # by any path
                pass


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_lock_ends_with_its_process(tmp_path, caplog, number):
    folder = tmp_path / "run"
    with holding(folder) as first:
        os.kill(first.pid, number)
        first.join(300)
        assert first.exitcode == (1 if number == signal.SIGINT else -number)
    killed = number == signal.SIGKILL
    assert not folder.exists() or names(folder) == [".lock", ".lock.json"] * killed
    with only_writer(folder):
        told = [line for line in caplog.messages if "is taken over" in line]
        assert len(told) == killed
        if killed:
            assert f"{folder}: the lock of process {first.pid} on host" in told[0]


def test_it_ends_with_errors_and_leaves_nothing(tmp_path):
    for path in (tmp_path / "run", tmp_path / "deep" / "run"):
        with pytest.raises(KeyError), only_writer(path):
            assert names(path) == [".lock", ".lock.json"]
            raise KeyError
        assert not path.exists()
    with only_writer(tmp_path / "run"):
        (tmp_path / "run" / "file").touch()
    assert names(tmp_path / "run") == ["file"]
    with only_writer_of(tmp_path / "out.npy"):
        assert names(tmp_path) == [".out.npy.lock", ".out.npy.lock.json", "deep", "run"]
        with only_writer_of(tmp_path / "out.parquet"):
            pass
    assert names(tmp_path) == ["deep", "run"]


def left_behind(folder, **changes):
    """What a killed process leaves, with other lines in the lease (`{pid}` is its own)."""
    with holding(folder) as process:
        process.kill()
        process.join()
    file = folder / ".lock"
    lines = dict(line.split("=", 1) for line in file.read_text().splitlines() if "=" in line)
    head = file.read_text().splitlines()[0]
    lines |= changes
    file.write_text("\n".join([head, *(f"{name}={value}" for name, value in lines.items()), ""]))
    note = json.loads((folder / ".lock.json").read_text())
    note |= {name: value for name, value in changes.items() if name in note}
    if "host" in changes:
        note["kernel"] = "another"
    (folder / ".lock.json").write_text(json.dumps(note))
    return file


def test_a_number_that_another_process_has_now_is_no_holder(tmp_path, caplog):
    """As after a restart of the machine: the number of this very process, with another start."""
    left_behind(tmp_path, pid=os.getpid())
    with only_writer(tmp_path):
        assert "is taken over" in caplog.text


def test_a_silent_holder_on_another_host_is_taken_over(tmp_path, caplog, quick):
    left_behind(tmp_path, host="elsewhere", pid=1, duration=1.0)
    started = time.monotonic()
    with only_writer(tmp_path):
        assert 1 <= time.monotonic() - started < 20
    said = f"{tmp_path} is locked by process 1 on host elsewhere (since "
    assert said in caplog.text and "looking for up to" in caplog.text
    assert f"{tmp_path}: the lock of process 1 on host elsewhere" in caplog.text


def test_a_living_holder_on_another_host_is_found_out(tmp_path, quick):
    file = left_behind(tmp_path, host="elsewhere", pid=1, duration=1.0)
    stop = threading.Event()

    def touch():
        while not stop.wait(0.2):
            file.touch()

    thread = threading.Thread(target=touch)
    thread.start()
    try:
        said = "is being written to by process 1 on host elsewhere"
        with pytest.raises(LockedError, match=said), only_writer(tmp_path):
            raise AssertionError("two have the lock")
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("reason", ["owner-changed", "marker-missing", "refresh-failed"])
def test_who_stood_still_ends_when_another_has_taken_over(monkeypatch, caplog, reason):
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    leases._on_compromise(LeaseCompromise("run/.lock", "token", reason))
    assert ended == ([1] if reason == "owner-changed" else [])
    assert "run/.lock" in caplog.text


def test_of_several_processes_the_first_has_the_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    with only_writer(tmp_path / "run"), only_writer(tmp_path / "run"):
        assert not (tmp_path / "run").exists()


# ----------------------------------------------------------------------------- who has locks


def test_what_writes_is_alone(tmp_path, monkeypatch, capsys):
    triplets = runs.write_triplets(tmp_path / "triplets.jsonl")
    config = runs.make_config(tmp_path / "absent", triplets, mesh=MeshConfig(data=-1))
    place = tmp_path / "place"
    with only_writer(place):
        for start in (
            lambda: train(config, str(place)),
            lambda: train_stages(Stages((Stage("one", config),)), str(place)),
        ):
            with pytest.raises(LockedError, match=rf"{place} is being written to by process"):
                start()
        pairs = ("--pairs", str(triplets))
        for main, more in ((analyze.main, pairs), (evaluate.main, ())):
            arguments = ["program", "--model", "org/absent", "--output", str(place), *more]
            monkeypatch.setattr(sys, "argv", [*arguments, "--compilation-cache", "none"])
            assert main() == 1
            assert f"error: {place} is being written to by process" in capsys.readouterr().err
    said = rf"{place} is being written to by process"
    with only_writer_of(place), pytest.raises(LockedError, match=said):
        export_model("absent", place, "merged")
    output = str(tmp_path / "out.npy")
    with only_writer_of(output), pytest.raises(LockedError, match=r"out\.npy is being written to"):
        embed_items(None, [], output)


def test_a_lease_says_who_has_it(tmp_path):
    lease = FileLease(Path(tmp_path / "lock"))
    assert lease.holder() is None and lease.mark() is None
    assert lease.try_to_take()
    assert lease.holder().is_here and lease.holder().is_alive
    assert lease.holder().pid == os.getpid()
    lease.release()
    assert lease.holder() is None and not list(tmp_path.iterdir())
