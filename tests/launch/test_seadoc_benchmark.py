"""SeaDoc from end to end: a made copy of the benchmark's layout, the shipped stages trained on a
tiny model by the program, and the table of `evaluate.py`."""

import json
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import pytrec_eval

from lco_jax.cli import evaluate, train
from lco_jax.data.sources import datasets
from lco_jax.embed.embedder import Embedder
from tests import runs, tiny
from tests.data.media_files import random_image
from tests.evaluate.test_seadoc import write_table
from tests.meshes import one_device as one_device

NUM_PAGES, NUM_QUERIES = 7, 5
_SMALL = (
    *("model.dtype", "float32", "num-steps", "2", "data.batch-size", "4"),
    *("optimizer.warmup-steps", "1", "memory.row-tokens", "128"),
)


def _page(number: int, folder) -> bytes:
    file = folder / f"page{number}.png"
    random_image(number, (56, 84)).save(file)
    return file.read_bytes()


@pytest.fixture
def benchmark(tmp_path):
    """The hub dataset's tables: `corpus`, `query`, `qrels`, and `default` with its pages again."""
    folder, pages = tmp_path / "SeaDoc", tmp_path / "pages"
    pages.mkdir()
    corpus = [
        {"id": f"book-{i}_page_{9 - i}", "modality": "image"}
        | {"image": {"bytes": _page(i, pages), "path": f"{i}.png"}}
        for i in range(NUM_PAGES)
    ]
    write_table(folder, "corpus", corpus, parts=2)
    queries = [
        {"id": f"query-{i}", "modality": "text", "text": f"which market is {runs.WORDS[i]}"}
        for i in range(NUM_QUERIES)
    ]
    write_table(folder, "query", queries)
    qrels = [
        {"query-id": f"query-{i}", "corpus-id": corpus[(3 * i) % NUM_PAGES]["id"], "score": 1}
        for i in range(NUM_QUERIES)
    ]
    write_table(folder, "qrels", qrels)
    write_table(folder, "default", [{"image": row["image"], "id": row["id"]} for row in corpus])
    (folder / "README.md").write_text("configs: corpus, query, qrels, default\n")
    return folder, queries, corpus, qrels


@pytest.fixture
def training_data(tmp_path, monkeypatch):
    """What the config names: exchanges about other pages, and all-NLI, prepared."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets, "CACHE", tmp_path / "cache")
    own = tmp_path / "data" / "seadoc"
    own.mkdir(parents=True)
    lines = []
    for i in range(8):
        _page(100 + i, own)
        prompt = {"image_path": f"page{100 + i}.png", "text": "Read the page."}
        lines.append(json.dumps({"prompt": prompt, "response": f"a lazy {runs.WORDS[i]}"}))
    (own / "ocr.jsonl").write_text("\n".join(lines))
    triplets = [json.loads(line) for line in runs.write_triplets(tmp_path / "t.jsonl", 16).open()]
    rows = [{role: triplet[role]["text"] for role in triplet} for triplet in triplets]
    (tmp_path / "nli").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "nli" / "train.parquet")
    datasets.prepare("all_nli", source_dir=str(tmp_path / "nli"))


def _run(program, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", [program.__name__, *map(str, arguments)])
    return program.main()


@pytest.mark.slow
@pytest.mark.usefixtures("one_device", "training_data")
def test_stages_then_the_benchmark(benchmark, tmp_path, monkeypatch, capsys):
    folder, queries, corpus, qrels = benchmark
    base = tiny.write(tmp_path / "base", "qwen2_5_vl", num_layers=1).folder
    options = [
        part
        for stage in ("read", "refine")
        for name, value in zip(_SMALL[::2], _SMALL[1::2], strict=True)
        for part in (f"--{stage}.{name}", value)
    ]
    options += ["--config", "seadoc_high", "--workdir", tmp_path / "runs"]
    assert _run(train, monkeypatch, *options, "--read.model.path", base) == 0
    capsys.readouterr()
    monkeypatch.setenv("COLUMNS", "120")
    options = ["--model", tmp_path / "runs" / "refine", "--tasks", "SeaDoc", "--seadoc", folder]
    assert _run(evaluate, monkeypatch, *options, "--output", tmp_path / "scores") == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "SeaDoc" in line)

    # trec_eval, from vectors of the files' items and the ids in the tables.
    embedder = Embedder(tmp_path / "runs" / "refine")
    asked = embedder.encode([query["text"] for query in queries])
    pages = [{"image": str(tmp_path / "pages" / f"page{i}.png")} for i in range(NUM_PAGES)]
    cosines = asked @ embedder.encode(pages).T
    assert np.ptp(cosines, axis=1).min() > 1e-4
    run = {
        query["id"]: {page["id"]: float(x) for page, x in zip(corpus, row, strict=True)}
        for query, row in zip(queries, cosines, strict=True)
    }
    relevant = {row["query-id"]: {row["corpus-id"]: row["score"]} for row in qrels}
    found = pytrec_eval.RelevanceEvaluator(relevant, {"ndcg_cut.10"}).evaluate(run)
    expected = np.mean([values["ndcg_cut_10"] for values in found.values()])
    assert f"{100 * expected:.2f}" in line
    (file,) = (tmp_path / "scores" / "offline").rglob("SeaDoc.json")
    (scores,) = json.loads(file.read_text())["scores"]["test"]
    assert scores["main_score"] == pytest.approx(expected, abs=1e-6)
    by_rank = np.array([1 / np.log2(1 + rank) for rank in range(1, NUM_PAGES + 1)])
    assert scores["chance"] == pytest.approx(by_rank.sum() / NUM_PAGES)
