"""What kept results are only valid for: the sources that compute, wherever they lie."""

import shutil
from pathlib import Path

import pytest

import lco_jax
from lco_jax.runtime import code_digest as module
from lco_jax.runtime.code_digest import FILES, ROOMS, code_digest

PACKAGE = Path(lco_jax.__file__).parent


@pytest.fixture
def copied(tmp_path):
    """The package at another place."""
    ignored = shutil.ignore_patterns("__pycache__", "configs")
    return shutil.copytree(PACKAGE, tmp_path / "elsewhere" / "lco_jax", ignore=ignored)


def test_the_place_does_not_count(copied):
    assert code_digest(copied) == code_digest()


@pytest.mark.parametrize("room", [*ROOMS, *FILES])
def test_every_room_that_computes_counts(copied, room):
    file = copied / room if room in FILES else next((copied / room).rglob("*.py"))
    file.write_text(file.read_text() + "\n# another thing\n")
    assert code_digest(copied) != code_digest()


def test_other_rooms_do_not_count(copied):
    for room in ("report", "cli", "search"):
        next((copied / room).rglob("*.py")).write_text("")
    assert code_digest(copied) == code_digest()


def test_another_version_of_a_library_counts(monkeypatch):
    before = code_digest.__wrapped__()
    versions = module.versions() | {"tokenizers": "0.0.1"}
    monkeypatch.setattr(module, "versions", lambda: versions)
    assert code_digest.__wrapped__() != before
