"""Debian packages as sources, by stand-ins of apt-get and dpkg."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

from lco_jax.lab.corpora.debian import content_digest, fetch_packages

APT = """#!/bin/sh
echo "$2" >> "{log}"
case $2 in *absent*) echo "E: Unable to locate package $2" >&2; exit 100;; esac
echo "content of $2" > "${{2%%=*}}.deb"
"""
DPKG = """#!/bin/sh
mkdir -p "$3/usr/share" && cp "$2" "$3/usr/share/${2%.deb}.txt"
"""


@pytest.fixture
def downloads(tmp_path, monkeypatch):
    """Names that were asked for, in order."""
    programs, log = tmp_path / "bin", tmp_path / "log"
    programs.mkdir()
    for name, script in (("apt-get", APT.format(log=log)), ("dpkg", DPKG)):
        (programs / name).write_text(script)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    return lambda: log.read_text().split()


def test_packages_are_unpacked_together_and_once(downloads, tmp_path):
    folder = tmp_path / "work"
    (folder / "packages.partial").mkdir(parents=True)
    (folder / "packages.partial" / "left.deb").touch()  # of a download that was cut off
    names = ("one=1.0-1", "two=2.0-*")
    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(lambda _: fetch_packages(names, folder), range(4)))
    assert found == {folder / "packages"}
    assert downloads() == list(names)
    files = {path.name: path.read_text() for path in (folder / "packages/usr/share").iterdir()}
    assert files == {"one.txt": "content of one=1.0-1\n", "two.txt": "content of two=2.0-*\n"}
    assert not list((folder / "packages").glob("*.deb"))
    assert not (folder / "packages.partial").exists()


def test_failures_leave_nothing_behind(downloads, tmp_path, monkeypatch):
    with pytest.raises(ConnectionError, match=r"absent=1: E: Unable to locate .*apt-get update"):
        fetch_packages(("one=1", "absent=1"), tmp_path / "work")
    assert not (tmp_path / "work/packages").exists()
    assert fetch_packages(("one=1",), tmp_path / "work") == tmp_path / "work/packages"
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"one=1 elsewhere .*--source-dir"):
        fetch_packages(("one=1",), tmp_path / "other")


def test_digest_is_of_content_and_paths(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x").write_text("1")
    one, other = (tmp_path / folder / "x" for folder in ("a", "b"))
    digest = content_digest([one], tmp_path / "a")
    assert content_digest([other], tmp_path / "b") == digest
    assert content_digest([one], tmp_path) != digest
    other.write_text("2")
    assert content_digest([other], tmp_path / "b") != digest
