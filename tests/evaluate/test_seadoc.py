"""SeaDoc's published layout on a made-up copy: against trec_eval and mteb, and what is refused."""

import io
from types import MappingProxyType, SimpleNamespace

import mteb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import pytrec_eval
from PIL import Image

from lco_jax.evaluate.mteb_adapter import MtebEncoder
from lco_jax.evaluate.run_offline import run_offline, score
from lco_jax.evaluate.seadoc import seadoc_task
from lco_jax.evaluate.tasks import needs
from tests.evaluate.mteb_tasks import as_mteb_task

NUM_PAGES, NUM_QUERIES = 40, 25


class Colours:
    """Stands for an embedder: a page is the vector in its pixels, a question that in its text."""

    modalities = ("text", "image")
    revision = "colours"
    width = 12
    prompts = MappingProxyType({"query": "", "document": ""})
    processor = SimpleNamespace(prompter=SimpleNamespace(takes_empty=True))

    def encode(self, items, prompt_name=None):
        vectors = []
        for item in items:
            if item.images:
                with Image.open(item.images[0]) as image:
                    vectors.append(np.asarray(image.convert("L")).ravel() / 255 - 0.5)
            else:
                vectors.append(np.array([float(word) for word in item.text.split()]))
        vectors = np.array(vectors)
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    def similarity(self, a, b):
        return a @ b.T


def page(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()


def write_table(folder, name: str, rows: list[dict], parts: int = 1) -> None:
    (folder / name).mkdir(parents=True, exist_ok=True)
    for part in range(parts):
        table = pa.Table.from_pylist(rows[part::parts])
        pq.write_table(table, folder / name / f"test-{part:05}-of-{parts:05}.parquet")


@pytest.fixture
def copy(tmp_path):
    """A copy of the hub's files; ids are as in no other order, and two questions share a page."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (NUM_PAGES, 3, 4), np.uint8)
    ids = [f"book/{number}" for number in rng.permutation(1000)[:NUM_PAGES]]
    corpus = [
        {"id": name, "modality": "image", "image": {"bytes": page(values), "path": None}}
        for name, values in zip(ids, pixels, strict=True)
    ]
    answers = rng.integers(1, NUM_PAGES, NUM_QUERIES)
    answers[:2] = 7
    queries, qrels = [], []
    for number, answer in enumerate(answers.tolist()):
        noisy = pixels[answer].ravel() / 255 - 0.5 + rng.normal(size=12) * 0.5
        text = " ".join(f"{value:.4f}" for value in noisy)
        queries.append({"id": f"q{number}", "modality": "text", "text": text})
        qrels.append({"query-id": f"q{number}", "corpus-id": ids[answer], "score": 1})
    qrels.append({"query-id": "q0", "corpus-id": ids[0], "score": 0})
    folder = tmp_path / "copy"
    write_table(folder, "corpus", corpus, parts=3)
    write_table(folder, "query", queries)
    write_table(folder, "qrels", qrels[::-1])
    return folder, queries, qrels


def test_equals_trec_eval_and_mteb(copy, tmp_path):
    folder, queries, qrels = copy
    task = seadoc_task(folder, tmp_path / "media")
    assert needs(task) == {"text", "image"}
    assert (len(task.queries), len(task.documents)) == (NUM_QUERIES, NUM_PAGES)
    ours = score(Colours(), task)["ndcg@10"]
    assert 0.2 < ours < 0.99

    # trec_eval gets its run from the parquet files, by the ids in them.
    corpus = [row for file in sorted((folder / "corpus").iterdir()) for row in _read(file)]
    pages = {row["id"]: _vector(row["image"]["bytes"]) for row in corpus}
    run = {}
    for query in queries:
        vector = np.array([float(word) for word in query["text"].split()])
        vector /= np.linalg.norm(vector)
        run[query["id"]] = {name: float(vector @ own) for name, own in pages.items()}
    relevant: dict[str, dict[str, int]] = {}
    for row in qrels:
        relevant.setdefault(row["query-id"], {})[row["corpus-id"]] = row["score"]
    found = pytrec_eval.RelevanceEvaluator(relevant, {"ndcg_cut.10"}).evaluate(run)
    expected = np.mean([values["ndcg_cut_10"] for values in found.values()])
    assert ours == pytest.approx(expected, abs=1e-6)

    class Encoder(MtebEncoder):
        def __init__(self):
            self.embedder = Colours()

        mteb_model_meta = mteb.models.ModelMeta.create_empty(
            {"name": "lco_jax/colours", "revision": "1", "modalities": ["text", "image"]}
        )

    theirs = mteb.evaluate(Encoder(), as_mteb_task(task), cache=None, co2_tracker=False)
    (scores,) = theirs.task_results[0].scores["test"]
    assert scores["main_score"] == scores["ndcg_at_10"]
    assert round(ours, 5) == pytest.approx(scores["ndcg_at_10"], abs=1e-6)  # as mteb rounds
    assert as_mteb_task(task).metadata.category == "t2i"


def test_results_are_kept(copy, tmp_path):
    folder, _, _ = copy
    task = seadoc_task(folder, tmp_path / "media")
    encoder = Colours()
    scores = run_offline(encoder, [task], tmp_path / "results")
    written = [path.stat().st_mtime_ns for path in (tmp_path / "media" / "seadoc").iterdir()]
    assert len(written) == NUM_PAGES
    encoder.encode = None  # a finished task is not run again, from other files of the same pages
    again = seadoc_task(folder, tmp_path / "media")
    assert run_offline(encoder, [again], tmp_path / "results") == scores
    assert [p.stat().st_mtime_ns for p in (tmp_path / "media" / "seadoc").iterdir()] == written


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query-id": "q1", "corpus-id": "nowhere", "score": 1}, "corpus has no such id"),
        ({"query-id": "q99", "corpus-id": None, "score": 1}, "query has no such id"),
        ({"query-id": "q1", "corpus-id": None, "score": 1}, "'q1' several pages"),
    ],
)
def test_bad_answers_are_named(copy, tmp_path, change, message):
    folder, _, qrels = copy
    change = change | {"corpus-id": change["corpus-id"] or qrels[-1]["corpus-id"]}
    write_table(folder, "qrels", [*qrels, change])
    with pytest.raises(ValueError, match=message):
        seadoc_task(folder, tmp_path / "media")


def test_bad_tables_are_named(copy, tmp_path):
    folder, queries, qrels = copy
    write_table(folder, "qrels", qrels[1:])
    with pytest.raises(ValueError, match=r"no page for 1 queries: \['q0'\]"):
        seadoc_task(folder, tmp_path / "media")
    write_table(folder, "query", [{"id": query["id"]} for query in queries])
    with pytest.raises(ValueError, match=r"lacks the columns \['text'\]"):
        seadoc_task(folder, tmp_path / "media")
    (folder / "corpus" / "test-00000-of-00003.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="cannot be read as parquet"):
        seadoc_task(folder, tmp_path / "media")
    with pytest.raises(FileNotFoundError, match="expected a copy of the hub dataset"):
        seadoc_task(tmp_path, tmp_path / "media")


def _read(file) -> list[dict]:
    return pq.read_table(file).to_pylist()


def _vector(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        vector = np.asarray(image).ravel() / 255 - 0.5
    return vector / np.linalg.norm(vector)
