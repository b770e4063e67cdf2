"""The report of synthetic run folders: right numbers, self-contained, and tolerant of gaps."""

import html.parser
import json
import re
import shutil

import numpy as np
import pytest

from lco_jax.config import DataConfig, JsonlSource, ModelRef, TrainConfig
from lco_jax.metrics.anisotropy import mean_cosine
from lco_jax.metrics.comparison import EmbeddedPairs, bootstrap_interval
from lco_jax.metrics.retrieval import retrieval_metrics
from lco_jax.metrics.whitening import whiten
from lco_jax.report.run_report import write_report
from lco_jax.train.manifest import start_or_resume
from lco_jax.train.metrics import MetricsWriter

NUM_PAIRS = 50


def embed(rng, topics, noise, cone):
    """Noisy copies of the topics, all moved towards one direction."""
    vectors = topics + noise * rng.normal(size=topics.shape)
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[:, 0] += cone
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def start_run(workdir):
    source = JsonlSource("train.jsonl")
    config = TrainConfig(ModelRef("models/tiny"), DataConfig((source,), batch_size=64))
    start_or_resume(str(workdir), config, data_fingerprint="f1ngerpr1nt", prompt={"name": "lco"})


def write_metrics(workdir, num_steps, evals):
    rng = np.random.default_rng(0)
    writer = MetricsWriter(str(workdir), start_step=0, tensorboard=False)
    for step in range(num_steps + 1):
        if step in evals:
            writer.write(step, "eval", evals[step])
        progress = 1 - np.exp(-step / 15)
        scalars = {
            "loss": 4.2 - 2.9 * progress + 0.15 * rng.normal(),
            "accuracy@1": float(np.clip(0.04 + 0.6 * progress + 0.04 * rng.normal(), 0, 1)),
            "positive_cosine": 0.93 - 0.2 * progress,
            "negative_cosine": 0.92 - 0.7 * progress,
            "negatives_per_anchor": 127.0,
            "gradient_norm": float(2 + rng.gamma(2.0, 1.0)),
            "learning_rate": 4e-4 * min(step / 10, 1 - step / 200),
            "step_seconds": 30.0 if step == 1 else 3.25,
            "tokens_per_second": 1500 + 60 * rng.normal(),
            "real_tokens": 0.92,
            "input_wait_seconds": 0.0004,
            "programs": 2,
        }
        if step > 0:
            writer.write(step, "train", scalars)
    writer.close()


def write_pairs(workdir, texts):
    folder = workdir / "evaluations"
    folder.mkdir()
    lines = (json.dumps(pair, ensure_ascii=False) + "\n" for pair in texts)
    (folder / "pairs.jsonl").write_text("".join(lines), encoding="utf-8")


def write_evaluation(workdir, step, topics, noise, cone):
    rng = np.random.default_rng(step)
    anchors, positives = (embed(rng, topics, noise, cone) for _ in range(2))
    np.savez(workdir / "evaluations" / f"{step:06d}.npz", anchors=anchors, positives=positives)
    metrics = retrieval_metrics(anchors, positives, np.arange(len(anchors)))
    return metrics | {"mean_cosine": mean_cosine(positives)}


def make_run(workdir, num_pairs=NUM_PAIRS, num_steps=60, texts=None):
    """A complete run folder, and the metrics of its evaluations."""
    start_run(workdir)
    topics = np.random.default_rng(7).normal(size=(num_pairs, 48))
    topics /= np.linalg.norm(topics, axis=1, keepdims=True)
    write_pairs(
        workdir,
        texts
        or [
            # A line separator inside a text, and markup that must not become part of the page.
            {"anchor": f"query {i} <script>\u2028", "positive": f"answer & {i}"}
            for i in range(num_pairs)
        ],
    )
    evals = {
        0: write_evaluation(workdir, 0, topics, noise=0.35, cone=3.0),
        num_steps: write_evaluation(workdir, num_steps, topics, noise=0.22, cone=0.4),
    }
    # An evaluation in between is neither "before" nor "after".
    evals[num_steps // 2] = write_evaluation(workdir, num_steps // 2, topics, noise=0.3, cone=1.0)
    write_metrics(workdir, num_steps, evals)
    return evals


class _Page(html.parser.HTMLParser):
    """Rows of the tables, and whatever a browser would fetch."""

    VOID = ("meta", "br", "link", "img")

    def __init__(self, text):
        super().__init__()
        self.rows, self.fetched, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        links = ("src", "href", "xlink:href", "data", "srcset")
        self.fetched += [v for k, v in attrs if k in links and not v.startswith(("data:", "#"))]
        self.fetched += [tag] if tag in ("script", "link", "iframe", "object") else []

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] = " ".join((self.rows[-1][-1] + " " + data).split())

    def row(self, label):
        return next(row for row in self.rows if row[0] == label)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "a-run"
    workdir.mkdir()
    evals = make_run(workdir)
    text = write_report(str(workdir)).read_text()
    return workdir, evals, text


def test_the_table_has_the_numbers_of_the_first_and_the_last_evaluation(run):
    _, evals, text = run
    page = _Page(text)
    names = {
        "Recall@1": "recall@1",
        "Recall@10": "recall@10",
        "MRR": "mrr",
        "nDCG@10": "ndcg@10",
        "Mean cosine of two positives": "mean_cosine",
    }
    for label, name in names.items():
        before, after = evals[0][name], evals[60][name]
        _, first, _, _, last, change, _ = page.row(label)
        assert (first, last) == (f"{before:.3f}", f"{after:.3f}")
        assert change == f"{after - before:+.3f}"
    assert page.row("Effective rank")[-1] == ""
    assert evals[0]["mean_cosine"] > 0.8 and evals[60]["recall@1"] > evals[0]["recall@1"]


def test_intervals_belong_to_the_paired_differences(run):
    workdir, _, text = run
    first, last = (
        EmbeddedPairs(step, **np.load(workdir / "evaluations" / f"{step:06d}.npz"))
        for step in (0, 60)
    )
    difference = last.scores()["recall@1"] - first.scores()["recall@1"]
    low, high = bootstrap_interval(difference)
    assert low < difference.mean() < high
    # The normal approximation of the mean of paired differences.
    spread = 1.96 * difference.std() / np.sqrt(len(difference))
    assert high - low == pytest.approx(2 * spread, rel=0.15)
    assert _Page(text).row("Recall@1")[-1] == f"{low:+.3f} to {high:+.3f}"


def test_what_trains_nothing_is_shown_as_a_control(run):
    workdir, _, text = run
    arrays = np.load(workdir / "evaluations" / "000000.npz")
    mean = np.concatenate([arrays["anchors"], arrays["positives"]]).mean(axis=0)
    anchors, positives = (
        (arrays[name] - mean) / np.linalg.norm(arrays[name] - mean, axis=1, keepdims=True)
        for name in ("anchors", "positives")
    )
    expected = retrieval_metrics(anchors, positives, np.arange(NUM_PAIRS))
    page = _Page(text)
    assert page.row("MRR")[2] == f"{expected['mrr']:.3f}"
    whitened = (
        vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        for vectors in (whiten(arrays["anchors"]), whiten(arrays["positives"]))
    )
    expected = retrieval_metrics(*whitened, np.arange(NUM_PAIRS))
    assert page.row("MRR")[3] == f"{expected['mrr']:.3f}"
    assert page.row("Effective rank")[2:4] == ["", ""]


def test_baselines_beside_the_evaluations_are_not_taken_for_steps(run, tmp_path):
    folder = shutil.copytree(run[0], tmp_path / "a-run")
    first = next((folder / "evaluations").glob("*.npz"))
    shutil.copy(first, first.with_stem("shared_words"))
    assert write_report(str(folder)).read_text() == run[2]


def test_examples_are_marked_as_the_metrics_count_them(run):
    _, evals, text = run
    page = _Page(text)
    kinds = ("gained", "lost", "right both times", "wrong both times")
    rows = [row for row in page.rows if row[0] in kinds]
    assert len(rows) == 8
    for kind, query, before, after in rows:
        number = re.match(r"query (\d+) <script>", query)[1]
        for answer, right in ((before, kind in kinds[1:3]), (after, kind in (kinds[0], kinds[2]))):
            assert answer.startswith("✓") == right
            assert (answer == f"✓ answer & {number}") == right
            assert ("the right one is at rank" in answer) == (not right)
    words = " ".join(text.split())
    gained = int(re.search(r"became right for (\d+)", words)[1])
    lost = int(re.search(r"became wrong for (\d+)", words)[1])
    change = (evals[60]["recall@1"] - evals[0]["recall@1"]) * NUM_PAIRS
    assert gained - lost == round(change)


def test_the_page_is_well_formed_and_fetches_nothing(run):
    page = _Page(run[2])
    assert page.open == []
    assert page.fetched == []
    assert "@import" not in run[2] and "url(http" not in run[2]
    # 4 figures, each for wide and for narrow screens, in the colours of the page: none of the
    # drawing colours is left.
    assert run[2].count("<svg") == 8
    assert "var(--before)" in run[2].split("<svg")[1] and "#c8702a" in run[2].split("<svg")[0]
    assert "#c8702a" not in "".join(run[2].split("<svg")[1:])


def test_facts_come_from_the_files(run):
    text = " ".join(run[2].split())
    assert "60 in 3.7 minutes" in text  # 30 s for the first step, 3.25 s for each of the others
    for fact in ("LoRA, rank 64, alpha 128", "64 triplets", "92.0% of slots", "f1ngerpr1nt"):
        assert fact in text


def test_the_same_files_give_the_same_page(run):
    workdir, _, text = run
    assert write_report(str(workdir)).read_text() == text
    assert [file.name for file in (workdir / "report").iterdir()] == ["index.html"]


def _only_config(workdir):
    start_run(workdir)


def _only_steps(workdir):
    start_run(workdir)
    write_metrics(workdir, 3, {})


def _one_step(workdir):
    start_run(workdir)
    write_metrics(workdir, 1, {})


def _logged_metrics_only(workdir):
    start_run(workdir)
    first = {"recall@1": 0.125, "mrr": 0.25, "mean_cosine": 0.9}
    write_metrics(workdir, 2, {0: first, 2: first | {"recall@1": 0.5}})


def _one_evaluation(workdir):
    make_run(workdir)
    for step in (30, 60):
        (workdir / "evaluations" / f"{step:06d}.npz").unlink()


def _no_texts(workdir):
    make_run(workdir)
    (workdir / "evaluations" / "pairs.jsonl").unlink()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_only_config, ["No training step has been logged", "has not been evaluated"]),
        (_only_steps, ["has not been evaluated", "No vectors of held-out pairs"]),
        (_one_step, ["has not been evaluated"]),
        (_logged_metrics_only, ["as they were logged, without intervals", "No vectors"]),
        (_one_evaluation, ["There is one evaluation so far", "Example queries need"]),
        (_no_texts, ["Example queries need"]),
    ],
)
def test_what_is_missing_is_said(tmp_path, make, said):
    make(tmp_path)
    text = write_report(str(tmp_path)).read_text()
    page = _Page(text)
    assert page.open == [] and page.fetched == []
    for words in said:
        assert words in text
    if make is _logged_metrics_only:
        assert page.row("Recall@1") == ["Recall@1", "0.125", "0.500", "+0.375", ""]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("num_pairs", [2, 30])
def test_a_collapsed_space_is_reported_as_such(tmp_path, num_pairs):
    start_run(tmp_path)
    write_pairs(tmp_path, [{"anchor": "a", "positive": "b"}] * num_pairs)
    vector = np.full(48, 48**-0.5, np.float32) * np.float32(1 + 2e-7)
    vectors = np.tile(vector, (num_pairs, 1))
    for step in (0, 9):
        file = tmp_path / "evaluations" / f"{step:06d}.npz"
        np.savez(file, anchors=vectors, positives=vectors)
    page = _Page(write_report(str(tmp_path)).read_text())
    chance = sum(1 / rank for rank in range(1, num_pairs + 1)) / num_pairs
    assert page.row("MRR")[1:3] == [f"{chance:.3f}"] * 2
    assert page.row("Recall@1")[1:3] == [f"{1 / num_pairs:.3f}"] * 2
    assert page.row("Mean cosine of two positives")[1] == "1.000"
    assert page.row("Effective rank")[1] == "1.0"


def test_long_runs_also_get_a_running_mean(tmp_path):
    start_run(tmp_path)
    write_metrics(tmp_path, 80, {})
    assert write_report(str(tmp_path)).exists()


def test_bad_folders_are_named(tmp_path):
    with pytest.raises(ValueError, match="is no run folder"):
        write_report(str(tmp_path))
    make_run(tmp_path)
    pairs = tmp_path / "evaluations" / "pairs.jsonl"
    pairs.write_text("\n".join(pairs.read_text().split("\n")[:7]))
    with pytest.raises(ValueError, match=r"step 0 has 50 pairs, but pairs\.jsonl has 7 lines"):
        write_report(str(tmp_path))
