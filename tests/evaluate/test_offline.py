"""The offline tasks, and their scores with a model whose vectors are known."""

import dataclasses
import itertools
import json
import zlib
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from lco_jax.evaluate.run_offline import run_offline, score, unread
from lco_jax.evaluate.tasks import RetrievalTask, StsTask, needs
from lco_jax.lab.moving_emoji import NUM_EMOJI
from lco_jax.lab.offline_tasks import offline_tasks
from lco_jax.metrics.retrieval import choice_metrics


class Words:
    """Stands for an embedder: a bag of hashed letter pairs, so that like texts are near."""

    modalities = ("text",)

    def __init__(self, name="words"):
        self.revision = name
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
    assert [name for name, t in tasks.items() if "audio" in needs(t)] == [
        "SpokenPromptsA2T",
        "SpokenPromptsT2A",
    ]
    assert sum(needs(task) == {"text", "video"} for task in tasks.values()) == 3
    assert len(tasks["WordNetExamples"].queries) == 500
    for task in tasks.values():
        if isinstance(task, RetrievalTask):
            assert len(task.queries) == len(task.documents) >= 60
            contents = [(d.text.casefold(), *dataclasses.astuple(d)[1:]) for d in task.documents]
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


def test_spoken_prompts_are_files_of_their_transcripts(tasks):
    task = tasks["SpokenPromptsA2T"]
    assert len(task.queries) == 60
    assert task.queries == tasks["SpokenPromptsT2A"].documents
    (path,) = task.queries[0].audios
    assert Path(path).name == "agent-alreadyon.ogg" and Path(path).stat().st_size > 1000
    assert task.documents[0].text.startswith("That agent is already logged on")


def test_clips_and_their_mirrors_have_the_same_frames(tasks):
    task = tasks["MovingEmojiOrder"]
    assert len(task.queries) == 8 * NUM_EMOJI
    assert [item.text for item in task.right[:2]] == [item.text for item in task.wrong[1::-1]]
    assert task.right[0].text.endswith("moves from left to right")
    for number in range(0, 8, 2):
        clip, mirror = (_frames(task.queries[number + way]) for way in (0, 1))
        assert clip.shape == (8, 112, 112, 3)
        np.testing.assert_array_equal(clip, mirror[::-1])
        assert np.abs(clip.astype(int) - mirror).mean() > 2
    moved = [255 - _frames(task.queries[0])[frame].mean(axis=(0, 2)) for frame in (0, -1)]
    centres = [np.average(np.arange(112), weights=column) for column in moved]
    assert centres[0] < 40 and centres[1] > 72  # from left to right


def test_a_bag_of_frames_cannot_tell_a_clip_from_its_mirror(tasks):
    class Bag(Words):
        modalities = ("text", "video")

        def encode(self, items):
            vectors = super().encode(items)
            for row, item in zip(vectors, items, strict=True):
                for path in item.videos:  # the mirror of a clip has the same frames
                    frames = Path(path).stem.rpartition("-")[0]
                    row[:] = np.random.default_rng(zlib.crc32(frames.encode())).normal(size=512)
            return vectors

    task = tasks["MovingEmojiOrder"]
    mirrored = {item.text: other.text for item, other in zip(task.right, task.wrong, strict=True)}
    assert all(mirrored[other] == text for text, other in mirrored.items())
    assert score(Bag(), task) == {"accuracy": 0.5}


def test_choices_by_hand():
    queries = np.eye(3, dtype=np.float32)
    right, wrong = queries, np.roll(queries, 1, axis=0)
    assert choice_metrics(queries, right, wrong) == {"accuracy": 1.0}
    assert choice_metrics(queries, wrong, right) == {"accuracy": 0.0}
    right = np.stack([queries[0], wrong[1], wrong[2]])  # won, tied, tied
    assert choice_metrics(queries, right, wrong)["accuracy"] == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="choice 1 has values"):
        choice_metrics(queries, right, np.where(queries[1] > 0, np.nan, queries).T)


def test_what_a_model_does_not_read_is_said(tasks):
    chosen = [tasks[name] for name in ("EmojiKeywords", "SpokenPromptsA2T", "MovingEmojiV2T")]
    assert unread(Words(), chosen) == {"SpokenPromptsA2T": "audio", "MovingEmojiV2T": "video"}


def _frames(item):
    with av.open(item.videos[0]) as film:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)])
