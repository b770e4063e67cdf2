"""Compiled programs are kept between starts, unless they cannot be or are not to be."""

import logging
import tempfile

import jax

from lco_jax.cli.compilations import Compilations


def test_in_the_home_by_default(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    Compilations().keep_compilations()
    folder = tmp_path / ".cache/lco_jax/xla"
    assert folder.is_dir() and jax.config.jax_compilation_cache_dir == str(folder)


def test_none(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    Compilations(compilation_cache="none").keep_compilations()
    assert not list(tmp_path.iterdir()) and not jax.config.jax_compilation_cache_dir


def test_a_bucket_is_left_to_jax():
    Compilations(compilation_cache="gs://bucket/xla").keep_compilations()
    assert jax.config.jax_compilation_cache_dir == "gs://bucket/xla"


def test_without_a_home_they_are_temporary(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HOME", str(tmp_path / "file"))  # no folder can be made below a file
    with caplog.at_level(logging.WARNING):
        Compilations().keep_compilations()
    (record,) = caplog.records
    assert str(tmp_path / "file") in record.getMessage()
    assert jax.config.jax_compilation_cache_dir.startswith(tempfile.gettempdir())


def test_a_folder_that_cannot_be_written_to_is_a_warning(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING):
        Compilations(compilation_cache=str(tmp_path / "file/xla")).keep_compilations()
    (record,) = caplog.records
    assert "--compilation-cache" in record.getMessage()
    assert not jax.config.jax_compilation_cache_dir
