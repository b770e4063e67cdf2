"""Locks in a bucket, where nothing is made exclusively: looked at twice, touched, taken over."""

import dataclasses
import json
import os
import threading
import time

import pytest
from etils import epath

from lco_jax.runtime import lease as leases
from lco_jax.runtime.lease import BucketLease
from lco_jax.runtime.locks import LockedError, only_writer, only_writer_of
from tests.faults.test_locks import names
from tests.train.test_buckets import Bucket, bucket  # noqa: F401 - a fixture

BUCKET = "gs://bucket/run"


def test_a_bucket_has_locks(quick):
    with only_writer(BUCKET):
        assert names(BUCKET) == [".lock"]
        said = rf"run is being written to by process {os.getpid()} on host"
        with pytest.raises(LockedError, match=said), only_writer(BUCKET):
            raise AssertionError("two have the lock")
        with only_writer_of(f"{BUCKET}/out.npy"):
            assert names(BUCKET) == [".lock", ".out.npy.lock"]
    assert not list(Bucket.store)
    with only_writer(BUCKET):
        assert list(Bucket.store) == [f"{BUCKET}/.lock"]


def put(**changes):
    """The lock of a process that is gone, or elsewhere."""
    file = epath.Path(BUCKET) / ".lock"
    content = dataclasses.asdict(leases.me()) | {"token": "other", "beats": 1} | changes
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    return file, content


@pytest.mark.parametrize(
    ("changes", "waits"),
    [
        ({"started": "12"}, False),  # the number is another process's now
        ({"pid": 2**22 + 1}, False),
        ({"host": "elsewhere", "kernel": "another"}, True),
    ],
)
def test_a_stale_lock_in_a_bucket_is_taken_over(quick, caplog, changes, waits):
    file, _ = put(**changes)
    started = time.monotonic()
    with only_writer(BUCKET):
        assert (time.monotonic() - started >= 1) == waits
        assert json.loads(file.read_text())["token"] != "other"
    assert "which is gone, is taken over" in caplog.text


def test_a_living_holder_in_a_bucket_is_found_out(quick):
    file, content = put(host="elsewhere", kernel="another")
    timer = threading.Timer(0.3, lambda: file.write_text(json.dumps(content | {"beats": 2})))
    timer.start()
    with pytest.raises(LockedError, match="on host elsewhere"), only_writer(BUCKET):
        raise AssertionError("two have the lock")


def test_of_two_at_once_in_a_bucket_one_stays(quick, monkeypatch):
    """Both have seen none; the second writes over what the first has written."""
    file = epath.Path(BUCKET) / ".lock"
    file.parent.mkdir(parents=True, exist_ok=True)
    first, second = BucketLease(file), BucketLease(file)
    taken = []

    def meanwhile(_):
        if not taken:
            taken.append(None)
            monkeypatch.setattr(second, "_is_free", lambda: True)
            taken[0] = second.try_to_take()

    monkeypatch.setattr(leases.time, "sleep", meanwhile)
    assert not first.try_to_take() and taken == [True]
    first.release()
    assert file.exists()  # it is not the first one's
    second.release()
    assert not file.exists()


def test_a_holder_in_a_bucket_touches_it_and_ends_when_it_is_lost(quick, monkeypatch):
    ended = threading.Event()
    monkeypatch.setattr(leases, "_end", lambda file: ended.set())
    with only_writer(BUCKET):
        file = epath.Path(BUCKET) / ".lock"
        first = file.read_text()
        deadline = time.monotonic() + 20
        while file.read_text() == first and time.monotonic() < deadline:
            time.sleep(0.05)
        assert file.read_text() != first
        put(host="elsewhere")
        assert ended.wait(20)
