"""What was computed of other weights, settings, files or code is computed again, or refused."""

import itertools
import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from lco_jax.data.records import Item
from lco_jax.embed import embed_file
from lco_jax.embed import identity as identity_module
from lco_jax.embed.embedder import Embedder
from lco_jax.embed.parts import DamagedPartError, Parts
from lco_jax.embed.vector_cache import VectorCache
from lco_jax.weights import digests
from lco_jax.weights.digests import file_digest, tensors_digest
from lco_jax.weights.files import SafetensorsFolder
from lco_jax.weights.identity import ChangedFilesError, Contents, base_digest, model_files
from tests import meshes, tiny

TEXTS = [f"text number {number} " + "word " * (number % 5) for number in range(12)]
PIECE = 3


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Two checkpoints of one shape."""
    folder = tmp_path_factory.mktemp("models")
    for seed in (0, 1):
        tiny.write(folder / str(seed), num_layers=1, seed=seed)
    return folder


@pytest.fixture(scope="module")
def plain(written):
    return opened(written / "0")


@pytest.fixture
def model(written, tmp_path):
    return shutil.copytree(written / "0", tmp_path / "model")


@pytest.fixture(autouse=True)
def kept_digests(monkeypatch, tmp_path_factory):
    """A folder of kept digests of the test's own; small files count as large ones."""
    monkeypatch.setattr(digests, "FOLDER", str(tmp_path_factory.mktemp("digests")))
    monkeypatch.setattr(digests, "_KEPT_FROM_BYTES", 0)
    return Path(digests.FOLDER)


def opened(folder, **options):
    return Embedder(folder, mesh=meshes.make((1, 1, 1)), tokens_per_batch=128, **options)


def digest_of(folder):
    return Contents(model_files(folder)).digest


def flip(file, place):
    """Another byte, with the times that there were."""
    stat, content = file.stat(), bytearray(file.read_bytes())
    content[place] ^= 1
    with file.open("r+b") as stream:
        stream.write(content)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


# ------------------------------------------------------------------------- contents of a model


@pytest.mark.parametrize(
    "name",
    [
        *("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"),
        *("special_tokens_map.json", "added_tokens.json", "chat_template.jinja"),
        *("preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json"),
    ],
)
def test_every_file_that_matters_counts(model, name):
    file, before = model / name, digest_of(model)
    if not file.exists():
        file.write_text("{}")
        assert digest_of(model) != before
    changed = digest_of(model)
    flip(file, file.stat().st_size // 2 if name.endswith(".safetensors") else -1)
    assert digest_of(model) != changed


def test_any_value_of_the_weights_counts(model):
    """Also far from the ends and the middle of a tensor, where earlier revisions looked."""
    source = SafetensorsFolder(model)
    name = max(source.specs, key=lambda name: source.specs[name].num_bytes)
    place = (model / "model.safetensors").read_bytes().index(source.view(name)[100].tobytes())
    before, sampled = digest_of(model), base_digest(model, "0123")
    flip(model / "model.safetensors", place)
    assert digest_of(model) != before and base_digest(model, "0123") == sampled
    assert base_digest(model, before) == base_digest(model) == digest_of(model)


def test_other_files_and_places_do_not_count(model, plain, tmp_path):
    before = digest_of(model)
    for name in ("README.md", "generation_config.json", "notes.json"):
        (model / name).write_text("{}")
    assert digest_of(model) == before
    assert digest_of(shutil.copytree(model, tmp_path / "copy")) == before
    assert opened(tmp_path / "copy").identity == plain.identity
    (tmp_path / "link").symlink_to(model)
    assert digest_of(tmp_path / "link") == before
    assert digest_of(model.rename(tmp_path / "moved")) == before


def test_tensors_count_whatever_their_files(model, tmp_path):
    source = SafetensorsFolder(model)
    names = list(source.specs)[:3]
    first = tensors_digest(source, names)
    copied = SafetensorsFolder(shutil.copytree(model, tmp_path / "copy"))
    assert tensors_digest(copied, reversed(names)) == first
    assert tensors_digest(copied, names[:2]) != first


def test_the_second_time_costs_nothing(model, monkeypatch, kept_digests):
    file = model / "model.safetensors"
    wait_until_settled(file)
    first, many = file_digest(file), tensors_digest(SafetensorsFolder(model), ["final_norm"][:0])
    assert len(list(kept_digests.iterdir())) == 2

    def refuse(*_):
        raise AssertionError("the file was read again")

    with monkeypatch.context() as patch:
        patch.setattr(digests, "_hash_file", refuse)
        patch.setattr(digests, "_hash_tensors", refuse)
        assert file_digest(file) == first
        assert tensors_digest(SafetensorsFolder(model), []) == many
    flip(file, 500)  # the same size and time
    changed = file_digest(file)
    assert changed != first
    flip(file, 500)
    assert file_digest(file) == first


def wait_until_settled(file):
    time.sleep(max(0.0, file.stat().st_ctime + digests._SETTLED_S - time.time()) + 0.05)


def test_what_was_written_just_now_is_not_kept(model, kept_digests):
    file = model / "model.safetensors"
    file.touch()
    assert file_digest(file) == file_digest(file)
    assert not list(kept_digests.iterdir())


@pytest.mark.parametrize("note", [b"", b"\xff\xfe", b"() 12\n"])
def test_a_damaged_note_is_none(model, kept_digests, note):
    file = model / "model.safetensors"
    wait_until_settled(file)
    first = file_digest(file)
    (kept,) = kept_digests.iterdir()
    kept.write_bytes(note)
    assert file_digest(file) == first


def test_without_a_home_nothing_is_kept(model, monkeypatch, tmp_path):
    file = model / "model.safetensors"
    wait_until_settled(file)
    first = file_digest(file)
    (tmp_path / "file").write_text("no folder")
    for folder in (tmp_path / "file" / "digests", Path("~nobody-of-this-name/digests")):
        monkeypatch.setattr(digests, "FOLDER", str(folder))
        monkeypatch.chdir(tmp_path)
        assert file_digest(file) == first
    assert not (tmp_path / "~nobody-of-this-name").exists()


def test_files_that_change_under_an_open_model_are_named(model):
    embedder = opened(model)
    flip(model / "model.safetensors", -1)
    (model / "model.safetensors").touch()
    with pytest.raises(ChangedFilesError, match=r"model\.safetensors has changed since the model"):
        _ = embedder.revision
    assert opened(model).revision
    embedder = opened(model)
    (model / "tokenizer.json").unlink()
    with pytest.raises(ChangedFilesError, match=r"tokenizer\.json has changed .* or is gone"):
        _ = embedder.identity


@pytest.mark.parametrize(
    "options",
    [
        {"dtype": "bfloat16"},
        {"max_text_tokens": 5},
        {"truncate_dim": 8},
        {"prompts": {"find": "find: "}, "default_prompt_name": "find"},
        {"profile": "mteb"},
    ],
)
def test_settings_count(written, plain, options):
    assert opened(written / "0", **options).revision != plain.revision


def test_the_code_counts(plain, monkeypatch):
    before = plain.revision
    monkeypatch.setattr(identity_module, "code_digest", lambda: "other code")
    assert plain.revision != before


# --------------------------------------------------------------------------- a stopped job


IDENTITY = ("weights", "float32", None, {}, "code")


class Counting:
    """Stands for an embedder whose vectors are lengths of texts; notes what it is asked for."""

    source, revision = "model", "1"

    def __init__(self, identity=IDENTITY, stops_after=None):
        self.identity, self.count, self._stops_after = identity, 0, stops_after

    def encode_pieces(self, pieces):
        for number, piece in enumerate(pieces):
            if number == self._stops_after:
                raise KeyboardInterrupt
            self.count += len(piece)
            yield self.vectors([item.text for item in piece]), {}

    @staticmethod
    def vectors(texts):
        return np.array([[len(text), 1.0, len(text) % 3] for text in texts], np.float32)


@pytest.fixture
def job(tmp_path, monkeypatch):
    """Input and output of a job of four parts, of which two are done."""
    monkeypatch.setattr(embed_file, "_PIECE", PIECE)
    source, output = tmp_path / "items.jsonl", tmp_path / "out.npy"
    source.write_text("\n".join(map(json.dumps, TEXTS)))
    with pytest.raises(KeyboardInterrupt):
        embed_file.embed_file(Counting(stops_after=2), str(source), str(output))
    assert not output.exists()
    return source, output


def go_on(job, identity=IDENTITY):
    """How many items were embedded for vectors that are right."""
    source, output = job
    embedder = Counting(identity)
    embed_file.embed_file(embedder, str(source), str(output))
    assert {path.name for path in output.parent.glob("out*")} == {"out.npy"}
    np.testing.assert_array_equal(np.load(output), Counting.vectors(TEXTS))
    return embedder.count


def test_a_job_goes_on_where_it_was(job):
    assert go_on(job) == 6


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (0, "other", "weights or files of the model"),
        (1, "bfloat16", "settings"),
        (2, 2, "settings"),
        (3, {"profile": "mteb"}, "settings"),
        (4, "other", "code or libraries"),
    ],
)
def test_another_model_makes_all_rows(job, place, value, said, caplog):
    identity = list(IDENTITY)
    identity[place] = value
    assert go_on(job, tuple(identity)) == 12
    assert f"out.npy.partial are of other {said}: all are computed again" in caplog.text


def test_other_items_make_all_rows(job, caplog):
    job[0].write_text(job[0].read_text().replace("number 11", "number 99"))
    assert go_on(job) == 12
    assert "are of other items: all are computed again" in caplog.text


def test_replaced_weights_at_the_same_path_leave_no_row(model, written, tmp_path, monkeypatch):
    monkeypatch.setattr(embed_file, "_PIECE", PIECE)
    source, output = tmp_path / "items.jsonl", tmp_path / "out.npy"
    source.write_text("\n".join(map(json.dumps, TEXTS)))
    embedder = opened(model)
    encode = embedder.encode_pieces
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(embedder, "encode_pieces", lambda pieces: stop_after_two(encode(pieces)))
        embed_file.embed_file(embedder, str(source), str(output))
    first = embedder.encode(TEXTS)
    file = model / "model.safetensors"
    stat = file.stat()
    shutil.copyfile(written / "1" / file.name, file)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    embed_file.embed_file(opened(model), str(source), str(output))
    vectors = np.load(output)
    np.testing.assert_allclose(vectors, opened(written / "1").encode(TEXTS), atol=1e-5)
    assert np.abs(vectors - first).max(axis=1).min() > 1e-3


def stop_after_two(vectors):
    yield from itertools.islice(vectors, 2)
    raise KeyboardInterrupt


def cut(file):
    file.write_bytes(file.read_bytes()[:-10])


def alter(file):
    flip(file, -3)


def lengthen(file):
    file.write_bytes(file.read_bytes() + b"more")


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (cut, r"bytes\)"),
        (lengthen, r"bytes\)"),
        (alter, r"its content is not what was written"),
        (Path.unlink, r"it has 0 of \d+ bytes"),
    ],
)
def test_a_damaged_part_is_named_and_made_again(job, damage, said, number, caplog):
    first = number * PIECE
    file = job[1].with_name("out.npy.partial") / f"{first:012d}.npy"
    damage(file)
    assert go_on(job) == 9  # that part, and those that were not there
    assert f"{file} is damaged" in caplog.text
    assert f"the vectors of items {first} to {first + 2} are computed again" in caplog.text


@pytest.mark.parametrize("damage", [cut, alter, lengthen, lambda file: file.write_text("")])
def test_a_damaged_note_makes_all_rows(job, damage, caplog):
    damage(job[1].with_name("out.npy.partial") / "note.json")
    assert go_on(job) == 12
    assert "note.json is damaged: all vectors are computed again" in caplog.text


def test_a_part_that_changes_under_the_job_is_an_error_with_a_name(tmp_path):
    from etils import epath

    output = epath.Path(tmp_path / "out.npy")
    parts = Parts(output, {"model": "a"})
    parts.add(0, np.ones((3, 2), np.float32), {})
    alter(tmp_path / "out.npy.partial" / f"{0:012d}.npy")
    with pytest.raises(DamagedPartError, match=r"0\.npy was changed or cut .* start it again"):
        parts.finish()
    assert Parts(output, {"model": "a"}).done == []  # as the message says


# ------------------------------------------------------------------------------ kept vectors


@pytest.mark.parametrize("file", ["keys.bin", "vectors.bin"])
@pytest.mark.parametrize("row", [0, 1])
def test_a_damaged_row_of_kept_vectors_is_made_again(tmp_path, file, row):
    vectors = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    items = [Item(text) for text in ("one", "two", "three")]

    def encode(asked, errors=None):
        count.append(len(asked))
        return vectors[[items.index(item) for item in asked]]

    count = []
    cache = VectorCache(tmp_path, "model", 4)
    cache.encode(encode, items)
    path = cache.folder / file
    flip(path, row * (path.stat().st_size // 3) + 2)
    for _ in range(2):
        again = VectorCache(tmp_path, "model", 4)
        np.testing.assert_array_equal(again.encode(encode, items), vectors)
    assert count == [3, 1]


def test_kept_vectors_are_of_the_weights(model, written, tmp_path):
    before = opened(model, cache=tmp_path / "vectors").encode(TEXTS[:2])
    shutil.copyfile(written / "1" / "model.safetensors", model / "model.safetensors")
    after = opened(model, cache=tmp_path / "vectors").encode(TEXTS[:2])
    np.testing.assert_allclose(after, opened(written / "1").encode(TEXTS[:2]), atol=1e-5)
    assert np.abs(after - before).max() > 1e-3
