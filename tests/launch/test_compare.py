"""`launch/compare.py`: the published tables, and figures of results with every number in a file."""

import json
import sys

import numpy as np
import pytest

from lco_jax.cli.compare import main
from lco_jax.data.records import Item
from lco_jax.evaluate.published import mieb_lite
from lco_jax.evaluate.results import offline_folder
from lco_jax.evaluate.run_offline import run_offline
from lco_jax.evaluate.tasks import ChoiceTask, RetrievalTask

COUNT = 30


class Numbers:
    """Stands for an embedder: items are numbers, whose vectors are near those of the same."""

    modalities = ("text",)

    def __init__(self, noise):
        self.revision, self._noise = f"noise{noise}", noise

    def encode(self, items):
        rng = np.random.default_rng(0)
        vectors = np.eye(COUNT)[[int(item.text.split()[0]) for item in items]]
        vectors = vectors + self._noise * rng.normal(size=vectors.shape)
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def compare(monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setenv("COLUMNS", "160")
        monkeypatch.setattr(sys, "argv", ["launch/compare.py", *map(str, arguments)])
        code = main()
        said = capsys.readouterr()
        return code, " ".join((said.out + said.err).split())

    return run


@pytest.fixture
def folder(tmp_path):
    """Results of two models of ours in offline tasks, and of one of mteb's in MIEB-Lite."""
    items = [Item(f"{i} {side}") for side in "qdw" for i in range(COUNT)]
    queries, documents, wrong = (tuple(items[i : i + COUNT]) for i in (0, COUNT, 2 * COUNT))
    about = {"description": "", "languages": ("eng-Latn",), "licence": ""}
    tasks = [
        RetrievalTask("Numbers", queries=queries, documents=documents, **about),
        ChoiceTask(
            "Choice", queries=queries, right=documents, wrong=wrong[1:] + wrong[:1], **about
        ),
    ]
    output = tmp_path / "evaluations"
    for noise in (0.3, 0.6):
        own = Numbers(noise)
        run_offline(own, tasks, offline_folder(output, f"lco_jax/{noise}", own.revision))
    other = output / "results" / "Alibaba-NLP__gme" / "abc"
    other.mkdir(parents=True)
    for task, score in mieb_lite().task_scores["LCO-Omni-3B"].items():
        scores = {"test": [{"main_score": score / 100, "hf_subset": "default"}]}
        (other / f"{task}.json").write_text(json.dumps({"task_name": task, "scores": scores}))
    return output


def test_published_tables_alone(compare, tmp_path):
    code, said = compare()
    assert code == 0
    assert "MIEB-Lite" in said and "7B │ LoRA, text-only" in said and "Clotho A2T" in said
    assert "solved from the English mean" in said and "does not name the 18 tasks" in said
    code, said = compare("--results", tmp_path)
    assert (code, "has neither offline/" in said) == (2, True)


def test_results_beside_them(compare, folder, tmp_path):
    code, said = compare("--results", folder, "--output", tmp_path / "out")
    assert code == 0 and "0.6 (noise0.6)" in said and "comparator" in said
    drawn = json.loads((tmp_path / "out" / "compare.json").read_text())
    first, second, other = drawn["tasks"]["models"]
    assert [first["kind"], other["kind"]] == ["ours", "comparator"]
    record = json.loads(next(folder.glob("offline/*/noise0.6/Numbers.json")).read_text())
    (scores,) = record["scores"]["test"]
    assert second["values"]["Numbers"] == 100 * scores["ndcg@10"] < first["values"]["Numbers"]
    low, high = second["intervals"]["Numbers"]
    assert low < second["values"]["Numbers"] < high < 100
    by_rank = np.array([1 / np.log2(1 + rank) for rank in range(1, 11)])
    assert drawn["tasks"]["chance"] == pytest.approx(
        {"Numbers": 100 * by_rank.sum() / COUNT, "Choice": 50}
    )
    rows = {model["label"]: model for model in drawn["mieb_lite"]["models"]}
    gme = rows["Alibaba-NLP/gme (abc)"]["values"]
    assert gme["Doc"] == pytest.approx(73.3, abs=0.1) and gme["mean_en"] == pytest.approx(
        66.2, abs=0.1
    )
    assert rows["GME (7B)"]["marks"] == {"VC-QA": "*†"}
    assert len(drawn["mieb_sub18"]["models"]) == 12
    for name in ("mieb_lite", "mieb_sub18", "tasks_1"):
        for kind in ("png", "svg"):
            assert (tmp_path / "out" / f"{name}.{kind}").stat().st_size > 5000


def test_scores_on_other_data_are_left_out(compare, folder, tmp_path, caplog):
    file = next(folder.glob("offline/*/noise0.6/Numbers.json"))
    file.write_text(json.dumps(json.loads(file.read_text()) | {"dataset_revision": "other"}))
    assert compare("--results", folder, "--output", tmp_path / "out")[0] == 0
    assert "left out of 0.6 (noise0.6), as it had other data: Numbers" in caplog.text
    drawn = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert "Numbers" not in drawn["tasks"]["models"][1]["values"]
