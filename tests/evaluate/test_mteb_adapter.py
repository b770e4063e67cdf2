"""Our models in mteb: its mock tasks run, and its scores are ours."""

import dataclasses

import av
import mteb
import numpy as np
import pytest
import scipy.io.wavfile
from mteb.mocks import ALL_MOCK_TASK_TEST_GRID as MOCK_TASKS
from mteb.models.models_protocols import EncoderProtocol
from PIL import Image

from lco_jax.config import MediaConfig
from lco_jax.data.records import Item
from lco_jax.embed.embedder import Embedder
from lco_jax.evaluate.mteb_adapter import MtebEncoder, batch_items, find_tasks
from lco_jax.evaluate.published import mieb_lite
from lco_jax.evaluate.run_offline import score
from lco_jax.evaluate.tasks import StsTask
from lco_jax.lab.offline_tasks import offline_tasks
from tests import meshes, tiny
from tests.evaluate.mteb_tasks import as_mteb_task


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny.write(tmp_path_factory.mktemp("models") / "tiny", num_layers=2).folder


@pytest.fixture(scope="module")
def embedder(checkpoint):
    return Embedder(checkpoint, profile="mteb", mesh=meshes.make((1, 1, 1)))


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    return offline_tasks(tmp_path_factory.mktemp("media"))


class Spread(Embedder):
    """Removes the mean of some texts: without it the cosines of random weights differ by little
    more than float32 resolves, and each evaluator would order them by its own rounding."""

    mean = 0.0

    def encode(self, inputs, **options):
        vectors = super().encode(inputs, **options) - self.mean
        return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def spread(checkpoint, tasks):
    model = Spread(checkpoint, mesh=meshes.make((1, 1, 1)))
    model.mean = model.encode(tasks["EmojiNames-ms"].items).mean(axis=0)
    return model


@pytest.mark.parametrize("share", [pytest.param(1, marks=pytest.mark.slow), 4], ids="1/{}".format)
def test_the_mock_tasks_of_texts_and_pictures_run(tmp_path, share):
    folder = tiny.write(tmp_path / "tiny", "qwen2_5_vl", num_layers=1).folder
    # One row at a time and the smallest pictures, so that tasks of a few items do not each
    # compile another shape.
    embedder = Embedder(
        folder,
        tokens_per_batch=64,
        patches_per_batch=256,
        media=MediaConfig(image_min_pixels=56 * 56, image_max_pixels=56 * 56),
        mesh=meshes.make((1, 1, 1)),
    )
    encoder = MtebEncoder(embedder)
    assert isinstance(encoder, EncoderProtocol)
    assert encoder.mteb_model_meta.modalities == ["text", "image", "video"]
    tasks = [t for t in MOCK_TASKS if set(t.metadata.modalities) <= {"text", "image"}]
    assert len(tasks) >= 43
    tasks = tasks[::share]
    found = mteb.evaluate(
        encoder, tasks, cache=None, raise_error=False, show_progress_bar=False, co2_tracker=False
    )
    assert {error.task_name: error.exception for error in found.exceptions or ()} == {}
    assert len(found.task_results) == len(tasks)


@pytest.mark.parametrize("name", ["EmojiNames-ms", "EmojiSimilarity"])
def test_mteb_and_our_own_evaluator_agree(spread, tasks, name):
    task = tasks[name]
    if isinstance(task, StsTask):
        sides = {"first": task.first[::8], "second": task.second[::8], "gold": task.gold[::8]}
        task = dataclasses.replace(task, **sides)
    ours = score(spread, task)
    theirs = mteb.evaluate(MtebEncoder(spread), as_mteb_task(task), cache=None, co2_tracker=False)
    (scores,) = theirs.task_results[0].scores["test"]
    names = {"ndcg@10": "ndcg_at_10", "recall@1": "recall_at_1", "recall@10": "recall_at_10"}
    for mine, its in names.items() if "ndcg@10" in ours else ():
        assert 0.01 < scores[its] < 1
        assert round(ours[mine], 5) == pytest.approx(scores[its], abs=1e-6)  # as mteb rounds
    for mine in {"cosine_spearman", "cosine_pearson"} & ours.keys():
        assert abs(scores[mine]) > 0.01
        assert ours[mine] == pytest.approx(scores[mine], abs=1e-6)


def test_meta_says_what_the_vectors_depend_on(checkpoint, embedder):
    meta = MtebEncoder(embedder).mteb_model_meta
    assert (meta.name, meta.modalities, meta.embed_dim) == ("lco_jax/tiny", ["text"], 32)
    assert meta.max_tokens == 300  # of the profile
    assert meta.revision == MtebEncoder(embedder).mteb_model_meta.revision
    other = Embedder(checkpoint, profile="lco", mesh=meshes.make((1, 1, 1)))
    assert MtebEncoder(other).mteb_model_meta.revision != meta.revision
    named = MtebEncoder(embedder, name="us/ours", revision="1").mteb_model_meta
    assert (named.name, named.revision) == ("us/ours", "1")


def test_many_inputs_in_order_and_an_empty_one(embedder, tmp_path, monkeypatch):
    texts = [f"text {i}" for i in range(10)] + [" "]
    monkeypatch.setattr("lco_jax.evaluate.mteb_adapter._TEXTS", 4)
    loader = [{"text": texts[i : i + 3]} for i in range(0, 11, 3)]
    found = MtebEncoder(embedder).encode(loader)
    # As the wrapper does; the profile `lco` has no vector of an empty text.
    np.testing.assert_allclose(found, embedder.encode([*map(Item, texts)]), atol=1e-5)
    empty = {"text": [" "]}
    assert batch_items(empty, tmp_path)[0].text == "." and batch_items(empty, tmp_path, "")


def test_media_become_lossless_files(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (2, 30, 40, 3), np.uint8)
    samples = rng.uniform(-1, 1, (2, 800)).astype(np.float32)
    frames = rng.integers(0, 256, (2, 5, 3, 32, 48), np.uint8)
    batch = {
        "text": ["a", ""],
        "image": [Image.fromarray(pixels[0]), None],
        "audio": [{"array": s, "sampling_rate": 16_000} for s in samples],
        "video": list(frames),
    }
    first, second = batch_items(batch, tmp_path / "batch")
    assert first.text == "a" and second.text == "" and second.images == ()
    with Image.open(first.images[0]) as image:
        np.testing.assert_array_equal(np.asarray(image), pixels[0])
    for item, sound, film in zip((first, second), samples, frames, strict=True):
        rate, read = scipy.io.wavfile.read(item.audios[0])
        assert rate == 16_000
        np.testing.assert_array_equal(read, sound)
        with av.open(item.videos[0]) as container:
            assert container.streams.video[0].average_rate == 2
            decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        np.testing.assert_array_equal(np.stack(decoded), film.transpose(0, 2, 3, 1))
    with pytest.raises(ValueError, match="expected text or a medium"):
        batch_items({"label": [1]}, tmp_path)


def test_tasks_by_name():
    lite = find_tasks(["MIEB(lite)", "STS12"])
    names = {task.metadata.name for task in lite}
    assert len(lite) == 52 and "STS12" in names
    assert {task for column in mieb_lite().columns for task in column.tasks} <= names
    with pytest.raises(ValueError, match="no task or benchmark"):
        find_tasks(["STS12345"])


def test_what_is_mapped_to_mteb(tasks):
    pictures = as_mteb_task(tasks["EmojiPicturesI2T-en"])
    assert (pictures.metadata.category, pictures.metadata.modalities) == ("i2t", ["image", "text"])
    pictures.load_data()
    (split,) = pictures.dataset["default"].values()
    queries, corpus = split["queries"], split["corpus"]
    assert queries[0]["image"].size == (56, 56) and "text" in corpus[0]
    short = dataclasses.replace(tasks["WordNetExamples"], name="Short")
    assert as_mteb_task(short).metadata.name == "Short"
    spoken = dataclasses.replace(short, queries=(Item(audios=("a.ogg",)),))
    with pytest.raises(ValueError, match="audio and text; only texts and single pictures"):
        as_mteb_task(spoken)
