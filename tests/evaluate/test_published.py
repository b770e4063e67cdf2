"""The published rows obey the paper's formula, and ours are put beside them."""

import io
import json

import numpy as np
import pytest
from rich.console import Console

from lco_jax.evaluate.published import mieb_lite, strategies
from lco_jax.evaluate.published_tables import side_by_side, strategies_table

RERUN = [row for row in mieb_lite().rows if row.run == "mteb"]
CHECKPOINTS = ("LCO-Omni-7B", "LCO-Omni-3B")


def test_shape_of_the_benchmark():
    benchmark = mieb_lite()
    assert len(benchmark.columns) == 10 and sum(c.english for c in benchmark.columns) == 8
    assert sum(len(column.tasks) for column in benchmark.columns) == 51
    assert sum(len(column.tasks) for column in benchmark.columns if column.english) == 47
    assert len(RERUN) == 8


@pytest.mark.parametrize("row", RERUN, ids=lambda row: row.model)
def test_means_of_the_rerun_rows(row):
    assert mieb_lite().means(row.columns) == pytest.approx((row.mean_en, row.mean_all), abs=0.02)


@pytest.mark.parametrize("model", CHECKPOINTS)
def test_categories_of_the_released_checkpoints(model):
    benchmark = mieb_lite()
    (published,) = (row for row in RERUN if row.model == model)
    row = benchmark.row(model, benchmark.task_scores[model])
    assert row.columns == pytest.approx(published.columns, abs=0.1)
    assert (row.mean_en, row.mean_all) == pytest.approx(
        (published.mean_en, published.mean_all), abs=0.1
    )


def test_the_paper_and_the_reruns_agree_on_baselines():
    paper = {row.model: row for row in mieb_lite().rows if row.run == "paper"}
    for ours, theirs in (("CLIP ViT-bigG (2B)", "CLIP ViT-bigG"), ("E5-V (8B)", "E5-V")):
        (rerun,) = (row for row in RERUN if row.model == theirs)
        assert paper[ours].mean_en == pytest.approx(rerun.mean_en, abs=0.05)
        assert paper[ours].mean_all == pytest.approx(rerun.mean_all, abs=0.05)


def test_incomplete_categories_have_no_mean():
    benchmark = mieb_lite()
    scores = dict(benchmark.task_scores["LCO-Omni-7B"])
    del scores["XM3600T2IRetrieval"]
    row = benchmark.row("m", scores)
    assert "Rtr-m" not in row.columns and row.mean_all is None
    assert row.mean_en == pytest.approx(67.86, abs=0.1)


def _result(folder, name, scores):
    record = {"task_name": name, "mteb_version": "2.26.24", "scores": scores}
    (folder / f"{name}.json").write_text(json.dumps(record))


def test_results_of_mteb_are_read(tmp_path):
    folder = tmp_path / "model" / "revision"
    folder.mkdir(parents=True)
    one = [{"hf_subset": "default", "main_score": 0.25, "languages": ["eng-Latn"]}]
    _result(folder, "DTD", {"test": one})
    subsets = [
        {"hf_subset": name, "main_score": score}
        for name, score in (("en", 0.99), ("de", 0.5), ("fr", 0.7))
    ]
    _result(folder, "VisualSTS-b-Multilingual", {"dev": one, "test": subsets})
    (folder / "model_meta.json").write_text('{"name": "m"}')
    (folder / "run_settings.jsonl").write_text("{}")
    found = mieb_lite().read_results(tmp_path)
    assert found == pytest.approx({"DTD": 25, "VisualSTS-b-Multilingual": 60})
    _result(folder, "STS17MultilingualVisualSTS", {"test": one})  # stands for its aggregate
    assert mieb_lite().read_results(tmp_path)["VisualSTS17Multilingual"] == pytest.approx(25)
    _result(folder, "VisualSTS-b-Multilingual", {"test": subsets[:1]})
    with pytest.raises(ValueError, match="has no score"):
        mieb_lite().read_results(tmp_path)


def test_side_by_side():
    benchmark = mieb_lite()
    ours = benchmark.row("mine", benchmark.task_scores["LCO-Omni-3B"])
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(side_by_side([ours]))
    lines = console.export_text().splitlines()
    (line,) = (line for line in lines if "mine" in line)
    assert f"{ours.mean_en:.2f}" in line and f"{ours.columns['Doc']:.2f}" in line
    assert sum("│ mteb " in line for line in lines) == 8
    assert sum("│ paper " in line for line in lines) == 10
    text = " ".join(" ".join(lines).split())
    assert "63.10*†" in text and "59.20†" in text and "57.70‡" in text
    for note in benchmark.notes.values():
        assert f"{note.mark} {note.text}" in text
    # Of rows without such cells no notes are needed.
    console.print(side_by_side([ours], RERUN))
    assert "†" not in console.export_text()


def test_solved_cells_follow_from_the_english_mean():
    benchmark = mieb_lite()
    names = [column.name for column in benchmark.columns if column.english]
    solved = [
        (row, name)
        for row in benchmark.rows
        for name, notes in row.noted.items()
        if "solved" in notes
    ]
    assert len(solved) == 4
    for row, name in solved:
        others = sum(row.columns[other] for other in names if other != name)
        rounding = 0.05 * (len(names) + len(names) - 1)
        assert rounding < 0.8  # what the note says
        assert row.columns[name] == pytest.approx(len(names) * row.mean_en - others, abs=rounding)


def test_notes_of_the_paper_rows():
    benchmark = mieb_lite()
    for row in benchmark.rows:
        assert set(row.noted) <= {*row.columns, "mean_en", "mean_all"}
        old = "VC-QA" in row.columns and row.run == "paper"
        assert ("old_evaluator" in row.noted.get("VC-QA", ())) == old, row.model


def test_notes_of_the_strategies():
    """Copied cells are those of the other size, and the average that is none is the paper's."""
    found = strategies()
    rows = {(row.size, row.strategy): row for row in found.rows if row.columns}
    assert len(rows) == 10
    for (size, strategy), row in rows.items():
        wrong = abs(np.mean(list(row.columns.values())) - row.average) > 0.011
        assert wrong == ("not_its_mean" in row.noted.get("average", ())), (size, strategy)
        if size == "7B":
            other = rows["3B", strategy].columns
            same = {name for name in found.columns if abs(row.columns[name] - other[name]) < 0.011}
            assert same == {name for name, notes in row.noted.items() if "copied" in notes}
    lora = rows["7B", "LoRA, text-only"].average
    others = {row.strategy: row.average for row in found.rows if not row.columns}
    assert others == pytest.approx({"E5-V": lora - 21.69, "Voyage Multimodal 3": lora - 13.0})


def test_the_table_of_strategies():
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(strategies_table())
    text = " ".join(console.export_text().split())
    assert "59.03*" in text and "50.02†" in text and "50.29‡" in text and "does not name" in text
