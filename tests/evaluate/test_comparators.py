"""Models of mteb's registry: what is refused, and how offline tasks are put to those that run."""

import json
import re

import numpy as np
import pytest
from mteb.models.model_meta import ModelMeta
from mteb.types import PromptType

from lco_jax.data.records import Item
from lco_jax.evaluate.comparators import Comparator, check_offline, find_comparator
from lco_jax.evaluate.mteb_items import data_loader, task_metadata
from lco_jax.evaluate.results import offline_folder, read_others, read_results, side_by_side
from lco_jax.evaluate.tasks import ChoiceTask, RetrievalTask, StsTask
from lco_jax.lab.offline_tasks import offline_tasks
from tests.evaluate.comparators import load_static, register


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    return offline_tasks(tmp_path_factory.mktemp("media"))


class Recording:
    """Encodes a text by its length and a medium by its mean; keeps what it was given."""

    def __init__(self):
        self.calls = []

    def encode(self, inputs, *, task_metadata, hf_split, hf_subset, prompt_type, batch_size):
        vectors = []
        for batch in inputs:
            self.calls.append((task_metadata, prompt_type, batch))
            for index in range(len(next(iter(batch.values())))):
                row = {kind: values[index] for kind, values in batch.items()}
                image = np.mean(row["image"]) if "image" in row else 0
                audio = np.mean(np.square(row["audio"]["array"])) if "audio" in row else 0
                vectors.append([1.0, len(row.get("text", "")), image, audio])
        return np.array(vectors, np.float64)


@pytest.fixture
def recording(monkeypatch):
    model = Recording()
    everything = ["text", "image", "audio", "video"]
    # Its extras (torchvision, ...) need not be installed for it.
    monkeypatch.setattr(ModelMeta, "_check_requirements", lambda self: None)
    meta = register(monkeypatch, "tests/recording", lambda *_, **__: model, modalities=everything)
    return Comparator(meta, batch_size=4), model.calls


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gme-qwen2-vl-2b", "did you mean mteb:Alibaba-NLP/gme-Qwen2-VL-2B-Instruct or "),
        ("tests/statc", "did you mean mteb:tests/static"),
        ("qqqqqqqq", "names are written ORG/NAME"),
        ("tests/static@r2", "runs tests/static at revision r1, and not at r2; leave @r2 out"),
        ("tests/unnamed", "names no revision of tests/unnamed"),
        ("tests/listed", "no code that runs it; take another model"),
        ("mongodb/voyage-multimodal-3", "set the environment variable VOYAGE_API_KEY"),
        ("voyageai/voyage-multimodal-3", "set the environment variable VOYAGE_API_KEY"),
    ],
)
def test_what_cannot_be_had_is_refused_before_it_is_loaded(monkeypatch, name, message):
    monkeypatch.delenv("VOYAGE_API_KEY", raising=False)
    register(monkeypatch)
    register(monkeypatch, "tests/unnamed", revision=None)
    register(monkeypatch, "tests/listed", loader=None)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        find_comparator(f"mteb:{name}")
    assert "\n" not in str(caught.value)


def test_what_is_said_can_be_done(monkeypatch):
    """The near name, without the revision, with a key."""
    register(monkeypatch)
    assert find_comparator("mteb:tests/static").revision == "r1"
    assert find_comparator("mteb:tests/static@r1").name == "tests/static"
    monkeypatch.setenv("VOYAGE_API_KEY", "x")
    assert find_comparator("mteb:voyageai/voyage-multimodal-3").name.startswith("mongodb/")


def test_libraries_that_are_not_installed_are_named(monkeypatch):
    def lacks_one(*_, **__):
        import a_library_that_nobody_has  # noqa: F401

    def is_broken(*_, **__):
        raise OSError("no such\nfile")

    monkeypatch.setenv("VOYAGE_API_KEY", "x")
    for meta, kind, message in (
        (find_comparator("mteb:mongodb/voyage-3"), ValueError, "pip install 'mteb[voyageai]'"),
        (
            register(monkeypatch, loader=lacks_one),
            ValueError,
            "install it: pip install a_library_that_nobody_has",
        ),
        (register(monkeypatch, loader=is_broken), RuntimeError, "OSError: no such file"),
    ):
        with pytest.raises(kind, match=re.escape(message)) as caught:
            Comparator(meta)
        assert "\n" not in str(caught.value) and "extra ==" not in str(caught.value)


def test_what_has_no_vectors_is_refused_for_offline_tasks(monkeypatch):
    check_offline(register(monkeypatch))
    with pytest.raises(ValueError, match=r"of type cross-encoder, .* name tasks of mteb"):
        check_offline(register(monkeypatch, model_type=["cross-encoder"]))


def test_texts_are_scored_as_the_model_itself_has_them(monkeypatch, tasks, tmp_path):
    comparator = Comparator(register(monkeypatch))
    assert comparator.about == (
        "tests/static of mteb, revision r1, reads text, without instructions"
    )
    chosen = [tasks[name] for name in ("EmojiNames-ms", "EmojiSimilarity", "EmojiPicturesI2T-en")]
    folder = offline_folder(tmp_path, "tests/static", "r1")
    scores = comparator.run_offline(chosen, folder)
    assert set(scores) == {"EmojiNames-ms", "EmojiSimilarity"}

    model = comparator.encoder.model
    task = tasks["EmojiNames-ms"]
    queries, documents = (
        model.encode([item.text for item in side], normalize_embeddings=True)
        for side in (task.queries, task.documents)
    )
    record = json.loads((folder / "EmojiNames-ms.json").read_text())
    (found,) = record["scores"]["test"]
    best = np.mean((queries @ documents.T).argmax(axis=1) == np.arange(len(queries)))
    assert found["recall@1"] == pytest.approx(best, abs=0.02)  # ties share ranks
    assert {"mteb", "torch"} <= record["versions"].keys()
    meta = json.loads((folder / "model_meta.json").read_text())
    kept = {"name": "tests/static", "revision": "r1", "modalities": ["text"]}
    assert (kept | {"use_instructions": False}).items() <= meta.items()

    monkeypatch.setattr(comparator, "_score", None)  # what is finished is not run again
    assert comparator.run_offline(chosen, folder) == scores


def test_another_revision_or_version_of_mteb_is_run_again(monkeypatch, tasks, tmp_path):
    task = [tasks["EmojiSimilarity"]]
    first = Comparator(register(monkeypatch))
    first.run_offline(task, tmp_path)
    same, other = Comparator(register(monkeypatch)), Comparator(register(monkeypatch, revision="2"))
    before = first.revision
    assert before == same.revision != other.revision
    runs = []
    score = Comparator._score
    monkeypatch.setattr(Comparator, "_score", lambda *args: runs.append(1) or score(*args))
    same.run_offline(task, tmp_path)
    assert runs == []
    versions = dict.fromkeys(("mteb", "torch"), "0.0.1")
    monkeypatch.setattr("lco_jax.evaluate.comparators._versions", lambda: versions)
    assert first.revision != before
    first.run_offline(task, tmp_path)
    assert runs == [1]


def test_items_have_roles_and_each_is_encoded_once(recording, tasks, tmp_path):
    comparator, calls = recording
    assert comparator.modalities == ("audio", "image", "text")  # videos are not handed over
    chosen = [tasks[name] for name in ("EmojiPicturesI2T-ms", "SpokenPromptsT2A", "MovingEmojiV2T")]
    scores = comparator.run_offline(chosen, tmp_path)
    assert set(scores) == {"EmojiPicturesI2T-ms", "SpokenPromptsT2A"}
    seen = {(meta.name, meta.category, role, *batch) for meta, role, batch in calls}
    assert seen == {
        ("EmojiPicturesI2T-ms", "i2t", PromptType.query, "image"),
        ("EmojiPicturesI2T-ms", "i2t", PromptType.document, "text"),
        ("SpokenPromptsT2A", "t2a", PromptType.query, "text"),
        ("SpokenPromptsT2A", "t2a", PromptType.document, "audio"),
    }
    assert all(len(next(iter(batch.values()))) <= 4 for _, _, batch in calls)
    images = [batch["image"][0] for _, _, batch in calls if "image" in batch]
    assert {image.mode for image in images} == {"RGB"} and images[0].size == (56, 56)
    audio = next(batch["audio"][0] for _, _, batch in calls if "audio" in batch)
    assert audio["sampling_rate"] >= 8000 and np.ndim(audio["array"]) == 1


def test_mixed_items_come_back_in_order(recording, tasks):
    comparator, calls = recording
    picture = tasks["EmojiPicturesI2T-ms"].queries[0].images
    items = (Item("abc"), Item(images=picture), Item("de", images=picture), Item("abc"), Item(""))
    task = ChoiceTask("Mixed", "Any.", ("eng-Latn",), items, items, items[::-1], "cc0-1.0")
    found = comparator._encode(task, items, None)
    assert found.shape == (5, 4) and len(calls) == 3
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-6)
    lengths = found[:, 1] / found[:, 0]
    np.testing.assert_allclose(lengths, [3, 0, 2, 3, 0], rtol=1e-6)
    np.testing.assert_array_equal(found[0], found[3])
    assert task_metadata(task).category == "it2it"
    with pytest.raises(ValueError, match="a text, an image and an audio of each item"):
        data_loader([Item(images=picture * 2)], 4)


def test_a_model_that_fails_is_named(recording, tasks, monkeypatch, tmp_path):
    comparator, _ = recording

    def fail(*_, **__):
        raise TypeError("CUDA out of memory")

    monkeypatch.setattr(comparator.encoder, "encode", fail)
    with pytest.raises(RuntimeError, match=r"tests/recording failed at .*; give a smaller --batch"):
        comparator.run_offline([tasks["EmojiSimilarity"]], tmp_path)
    monkeypatch.setattr(comparator.encoder, "encode", lambda *_, **__: np.ones((1, 2, 3)))
    with pytest.raises(RuntimeError, match=r"shape .* leave offline tasks out"):
        comparator.run_offline([tasks["EmojiSimilarity"]], tmp_path)


def test_instructions_are_those_of_mteb_for_tasks_without_their_own(tasks):
    wrapper = load_static("tests/static", "r1")
    instruction = wrapper.get_instruction(task_metadata(tasks["EmojiNames-th"]), PromptType.query)
    assert instruction == "Retrieve text based on user query."
    instruction = wrapper.get_instruction(task_metadata(tasks["EmojiSimilarity"]), None)
    assert instruction == "Retrieve semantically similar text."


def test_results_of_several_models_are_side_by_side(tmp_path, caplog):
    caplog.set_level("INFO")

    def write(kind, name, revision, task, score, data):
        file = tmp_path / kind / name / revision / f"{task}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        scores = {"test": [{"main_score": score, "hf_subset": "default"}]}
        record = {"task_name": task, "scores": scores, "dataset_revision": data}
        file.write_text(json.dumps(record))

    write("offline", "lco_jax__mine", "r1", "A", 0.5, "1")
    write("offline", "lco_jax__mine", "r1", "Old", 0.5, "1")
    write("results", "lco_jax__mine", "r1", "B", 0.25, "1")
    write("results", "them__theirs", "1", "B", 0.75, "1")
    write("offline", "them__theirs", "1", "A", 0.125, "2")  # on other data
    write("results", "lco_jax__mine", "r0", "B", 0.1, "1")
    write("results", "them__theirs", "1/experiments/int8", "C", 0.1, "1")
    own = read_results(tmp_path, "lco_jax/mine", "r1", offline=["A"])
    assert own.scores == {"A": 50, "B": 25}
    others = read_others(tmp_path, own)
    assert [(each.label, each.scores) for each in others] == [
        ("mine (r0)", {"B": 10}),
        ("them/theirs (1)", {"B": 75}),
    ]
    assert "not shown of them/theirs (1), as it had other data: A" in caplog.text
    assert [each.row().run for each in (own, *others)] == ["ours", "ours", "comparator"]
    table = side_by_side(own, others)
    cells = [list(column.cells) for column in table.columns]
    assert cells == [["A", "B"], ["50.00", "25.00"], ["", "10.00"], ["", "75.00"]]
    assert [column.header for column in side_by_side(own, []).columns] == ["task", "main score, %"]


def test_shapes_of_tasks():
    items = (Item("a"), Item("b"))
    sts = StsTask("S", "Any.", ("eng-Latn",), items, items, np.arange(2.0), "cc0-1.0")
    assert task_metadata(sts).type == "STS"
    found = RetrievalTask("R", "Any.", ("eng-Latn",), items, items, "cc0-1.0")
    assert (task_metadata(found).type, task_metadata(found).modalities) == ("Retrieval", ["text"])
