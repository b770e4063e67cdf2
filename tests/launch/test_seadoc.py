"""`launch/seadoc.py`: an arm from pages to table on a tiny model, and what is not done twice."""

import json
import sys

import jax
import pytest

from lco_jax.cli.seadoc import main
from lco_jax.data.sources import datasets
from lco_jax.lab.corpora import libreoffice
from lco_jax.lab.corpora.libreoffice_source import font_files
from lco_jax.lab.corpora.page_picture import PagePainter
from tests import tiny
from tests.lab.help_pages import LANGUAGES, write_help


@pytest.fixture
def pages(tmp_path, monkeypatch):
    """The made-up help, prepared in a cache of its own."""
    packages = write_help(tmp_path / "packages", LANGUAGES, count=20)
    try:
        PagePainter(font_files(packages))
    except OSError as error:
        pytest.skip(f"Pango is not on this machine: {error}")
    monkeypatch.setattr(datasets, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(libreoffice, "check_packages", lambda *_: None)  # it is made up
    for language in LANGUAGES:
        options = {"source_dir": str(packages), "work_dir": str(tmp_path / "work")}
        datasets.prepare(f"libreoffice/{language}", **options)


@pytest.mark.slow
def test_an_arm(pages, tmp_path, monkeypatch, capsys):
    base = tiny.write(tmp_path / "base", "qwen2_5_omni_thinker", num_layers=6).folder
    options = {
        "--workdir": tmp_path / "runs",
        "--output": tmp_path / "table.md",
        "--base": base,
        "--read-steps": 2,
        "--refine-steps": 1,
        "--max-pages": 2,
        "--arms": "low",
        "--compilation-cache": tmp_path / "xla",
    }
    arguments = [str(part) for option in options.items() for part in option]
    monkeypatch.setattr(sys, "argv", ["launch/seadoc.py", *arguments])
    one = jax.devices()[:1]  # eight would compile for longer and compute the same
    monkeypatch.setattr(jax, "devices", lambda: one)
    assert main() == 0, capsys.readouterr().err
    text = (tmp_path / "table.md").read_text()
    assert "Indonesian, held-out pages (n=2)" in text and "emoji by name (n=2" in text
    assert "| low | + text-only contrastive |" in text and "2 steps of 8 pages" in text
    results = json.loads((tmp_path / "runs" / "seadoc_small.json").read_text())
    assert len(results["low"]["after"]["LibreOfficePages-km"]) == 2

    files = sorted((tmp_path / "runs").rglob("*.safetensors")) + sorted(
        (tmp_path / "runs").rglob("scores_*.json")
    )
    times = [file.stat().st_mtime_ns for file in files]
    assert len(files) == 4
    (tmp_path / "table.md").unlink()
    assert main() == 0
    assert (tmp_path / "table.md").read_text() == text
    assert [file.stat().st_mtime_ns for file in files] == times


def test_an_absent_model_is_named(tmp_path, monkeypatch, capsys):
    arguments = ["--base", str(tmp_path / "none"), "--workdir", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["launch/seadoc.py", *arguments])
    assert main() == 2
    assert "launch/fetch.py --omni" in capsys.readouterr().err
