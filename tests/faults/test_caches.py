"""Caches without a home, and prepared datasets whose description is lost."""

import json
import os
import subprocess
import sys

import pytest

from lco_jax.data.sources.datasets import open_dataset
from lco_jax.runtime import caches


@pytest.mark.parametrize("home", ["/dev/null", "/dev/null/home", None])
def test_without_a_home_caches_are_temporary_files(tmp_path, monkeypatch, caplog, home):
    if home is None:  # of a user that nobody knows
        monkeypatch.delenv("HOME")
        monkeypatch.setattr("pwd.getpwuid", _unknown)
    else:
        monkeypatch.setenv("HOME", home)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    caches._folder_in.cache_clear()
    try:
        expected = tmp_path / f"lco_jax-{os.getuid()}"
        assert caches.cache_folder() == expected
        assert caches.expand("~/.cache/lco_jax/xla") == expected / "xla"
        assert caches.expand("other") == caches.Path("other")
        assert caplog.text.count("caches are in") == 1
    finally:
        caches._folder_in.cache_clear()


def _unknown(number):
    raise KeyError(number)


def test_the_package_starts_without_a_home(tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "HOME"} | {"HOME": "/dev/null"}
    program = "from lco_jax.data.sources.datasets import CACHE; print(CACHE)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=environment | {"TMPDIR": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(tmp_path)) and done.stderr.count("caches are in") == 1


@pytest.mark.parametrize(
    ("file", "content"), [("dataset_info.json", None), ("features.json", "[1]")]
)
def test_a_shipped_dataset_without_its_description_is_made_again(tmp_path, caplog, file, content):
    name = "wordnet"
    whole = open_dataset(name, "test", str(tmp_path))
    (lost,) = tmp_path.rglob(file)
    if content is None:
        lost.unlink()
    else:
        lost.write_text(content)
    healed = open_dataset(name, "test", str(tmp_path))
    assert len(healed) == len(whole) and healed[0] == whole[0]
    assert f"{file} is lost or damaged: wordnet is made again" in caplog.text
    assert isinstance(json.loads(lost.read_text()), dict)
