"""The command of the tables: which recipe each run has, and what it writes of runs."""

import json
from pathlib import Path

import pytest

from benchmarks import lab
from tests.lab.test_seeds import write_job


def test_every_run_has_a_fold_and_a_seed_of_its_own():
    for fold in (1, 5):
        recipe = lab._recipe(fold, 7)
        for stage in recipe.stages:
            assert (stage.config.seed, stage.config.num_steps) == (41 + fold, 7)
        first, last = recipe.stages[0].config, recipe.stages[-1].config
        assert f"spoken/fold{fold}" in [source.name for source in first.data.sources]
        assert f"spoken/fold{fold}" in [source.name for source in last.evaluation.others]


def test_what_is_written_of_runs_that_have_ended(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = [Path("runs") / name for name in ("quick1", "quick2")]
    for fold, folder in enumerate(folders, start=1):
        recipe = lab._recipe(fold, None)
        write_job(folder, {stage.name: stage.config for stage in recipe.stages})
        (folder / "report").mkdir()
        (folder / "report" / "index.html").write_text(f"{Path.home()}/model {fold}")
        (folder / "report" / "report.json").write_text(f'"{tmp_path}/runs"')
    page = "Before.\n<!-- table: quickstart -->\nold\n<!-- end of table: quickstart -->\nAfter.\n"
    Path("README.md").write_text(page)
    lab._write(folders, Path("docs"))
    tables = Path("docs/tables.md").read_text()
    for title in ("Retrieval", "Controls", "What the text-only stage adds", "Anisotropy", "Stages"):
        assert f"\n## {title}" in tables
    numbers = json.loads(Path("docs/figures.json").read_text())
    (arm,) = numbers.values()
    assert arm["seeds"] == [42, 43]
    shown = f"{arm['directions']['text->text']['mrr']['after']:.3f}"
    readme = Path("README.md").read_text()
    assert shown in tables and shown in readme and "old" not in readme
    assert readme.startswith("Before.\n<!--") and readme.endswith("-->\nAfter.\n")
    assert Path("docs/report.html").read_text() == "~/model 1"
    assert Path("docs/report.json").read_text() == '"./runs"'
    written = {file: file.read_bytes() for file in Path().rglob("*") if file.is_file()}
    lab._write(folders, Path("docs"))  # once more changes nothing
    assert written == {file: file.read_bytes() for file in Path().rglob("*") if file.is_file()}


def test_runs_that_have_not_ended_are_no_tables(tmp_path):
    with pytest.raises(FileNotFoundError, match="no complete run"):
        lab._write([], tmp_path)
    assert not lab._is_complete(tmp_path)
