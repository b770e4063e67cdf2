"""The offline tasks, and their scores with a model whose vectors are known."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lco_jax.evaluate.offline import needs, offline_tasks
from lco_jax.evaluate.run_offline import run_offline, score
from lco_jax.evaluate.tasks import RetrievalTask, StsTask


class Words:
    """Stands for an embedder: a bag of hashed letter pairs, so that like texts are near."""

    modalities = ("text",)

    def __init__(self, name="words"):
        self.identity = (name, None)
        self.num_encoded = 0

    def encode(self, items):
        self.num_encoded += len(items)
        vectors = np.full((len(items), 512), 1e-3)
        for row, item in zip(vectors, items, strict=True):
            text = item.text.casefold()
            for pair in itertools.pairwise(text):
                row[(ord(pair[0]) * 31 + ord(pair[1])) % 512] += 1
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    return offline_tasks(tmp_path_factory.mktemp("media"))


def test_what_there_is(tasks):
    assert sum(needs(task) == {"text"} for task in tasks.values()) == 7
    assert sum(needs(task) == {"text", "image"} for task in tasks.values()) == 10
    assert len(tasks["WordNetExamples"].queries) == 500
    for task in tasks.values():
        if isinstance(task, RetrievalTask):
            assert len(task.queries) == len(task.documents) > 150
            contents = [(d.text.casefold(), d.images) for d in task.documents]
            assert len(set(contents)) == len(contents), task.name
    english = tasks["EmojiPicturesT2I-en"]
    assert english.queries == tasks["EmojiPicturesI2T-en"].documents
    with Image.open(english.documents[0].images[0]) as picture:
        assert picture.size == (56, 56)
    # The same emoji in two languages.
    thai, names, picture = (
        dict(zip(tasks[name].queries, tasks[name].documents, strict=True))
        for name in ("EmojiPicturesI2T-th", "EmojiNames-th", "EmojiPicturesT2I-en")
    )
    checked = [name for name in names if name in picture and picture[name] in thai]
    assert len(checked) > 150
    assert all(names[name] == thai[picture[name]] for name in checked)


def test_similarity_of_emoji_is_graded_and_balanced(tasks):
    task = tasks["EmojiSimilarity"]
    assert isinstance(task, StsTask)
    assert np.mean(task.gold == 0) == 0.5
    assert len(np.unique(task.gold)) > 10 and task.gold.max() <= 1
    assert all(a.text != b.text for a, b in zip(task.first, task.second, strict=True))


def test_scores_by_hand(tasks):
    encoder = Words()
    task = tasks["EmojiNames-ms"]  # Malay names share words with English ones at times
    queries, documents = encoder.encode(task.queries), encoder.encode(task.documents)
    cosines = queries.astype(np.float64) @ documents.T.astype(np.float64)
    hits = np.mean(cosines.argmax(axis=1) == np.arange(len(queries)))
    found = score(encoder, task)
    assert found["recall@1"] == pytest.approx(hits, abs=0.02)  # ties share ranks
    assert 0.05 < found["recall@1"] < found["recall@10"] < 1
    assert score(encoder, tasks["EmojiSimilarity"])["cosine_spearman"] > 0.2


def test_results_are_kept_until_model_or_items_change(tasks, tmp_path):
    chosen = [tasks[name] for name in ("EmojiKeywords", "EmojiSimilarity", "EmojiPicturesI2T-en")]
    encoder = Words()
    scores = run_offline(encoder, chosen, tmp_path)
    assert set(scores) == {"EmojiKeywords", "EmojiSimilarity"}  # pictures need another model
    record = json.loads((tmp_path / "EmojiKeywords.json").read_text())
    (result,) = record["scores"]["test"]
    assert result["main_score"] == result["ndcg@10"] == scores["EmojiKeywords"]
    assert result["languages"] == ["eng-Latn"] and "jax" in record["versions"]
    count = encoder.num_encoded
    assert run_offline(encoder, chosen, tmp_path) == scores
    assert encoder.num_encoded == count
    run_offline(Words("another"), chosen[:1], tmp_path)
    assert (
        json.loads((tmp_path / "EmojiKeywords.json").read_text())["fingerprint"]
        != (record["fingerprint"])
    )


def test_absent_data_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="run from a checkout"):
        offline_tasks(tmp_path, data=Path("/nowhere"))
