"""Vectors of a file in a bucket, to whose objects nothing can be appended."""

import gzip
import io
import itertools
import json
import os
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from etils import epath

from lco_jax.embed import embed_file
from lco_jax.embed.embedder import Embedder
from lco_jax.embed.parts import Parts
from tests import meshes, tiny
from tests.train.test_buckets import bucket  # noqa: F401 - a fixture

LINES = ["one", {"text": "two", "id": "second"}, {"text": 7}, "four", "five"]


@pytest.fixture(scope="module")
def embedder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    tiny.write(folder, num_layers=1)
    return Embedder(folder, mesh=meshes.make((1, 1, 1)))


@pytest.mark.parametrize("suffix", ["npy", "parquet"])
def test_a_stopped_file_in_a_bucket_goes_on(embedder, monkeypatch, suffix):
    folder = epath.Path("gs://bucket/job")
    (folder / "items.jsonl").write_text("\n".join(map(json.dumps, LINES)))
    arguments = embedder, str(folder / "items.jsonl"), str(folder / f"out.{suffix}")
    monkeypatch.setattr(embed_file, "_PIECE", 2)
    encode = embedder.encode_pieces

    def stop_after_two(pieces):
        yield from itertools.islice(encode(pieces), 2)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(embedder, "encode_pieces", stop_after_two)
        with pytest.raises(KeyboardInterrupt):
            embed_file.embed_file(*arguments)
    assert not (folder / f"out.{suffix}").exists()
    note, _ = (folder / f"out.{suffix}.partial" / "note.json").read_text().splitlines()
    assert list(json.loads(note)["parts"]) == ["0", "2"]
    found = embed_file.embed_file(*arguments)
    assert found.count == 5 and list(found.errors) == [2]
    names = {path.name for path in folder.iterdir()}
    assert names == {"items.jsonl", f"out.{suffix}", f"out.{suffix}.errors.jsonl"}
    content = io.BytesIO((folder / f"out.{suffix}").read_bytes())
    expected = embedder.encode(["one", "two", "four", "five"])
    if suffix == "npy":
        vectors = np.load(content)
        assert np.isnan(vectors[2]).all()
    else:
        table = pq.read_table(content)
        assert table["id"].to_pylist() == ["0", "second", "2", "3", "4"]
        vectors = table["vector"].to_pylist()
        assert vectors[2] is None
    np.testing.assert_allclose([vectors[i] for i in (0, 1, 3, 4)], expected, atol=1e-5)


def test_tables_and_files_in_a_bucket(embedder):
    folder = epath.Path("gs://bucket/job")
    for name, rows in (("b", "7,three\n8,\n"), ("a", "5,one\n6,two\n")):
        (folder / f"{name}.csv.gz").write_bytes(gzip.compress(f"key,body\n{rows}".encode()))
    for name, text in (("deep/two", "two"), ("one", "one"), ("three", "three")):
        (folder / "texts" / f"{name}.txt").write_text(text)
    (folder / "texts" / "notes.pdf").write_text("?")
    expected = embedder.encode(["one", "two", "three"])

    columns = (("key", "id"), ("body", "text"))
    pattern, output = str(folder / "*.csv.gz"), folder / "tables.parquet"
    found = embed_file.embed_file(embedder, pattern, str(output), columns=columns)
    assert found.count == 4 and "b.csv.gz:3: item is empty" in found.errors[3]
    table = pq.read_table(io.BytesIO(output.read_bytes()))
    assert table["id"].to_pylist() == ["5", "6", "7", "3"]
    assert table["text"].to_pylist() == ["one", "two", "three", None]
    assert json.loads(table.schema.metadata[b"lco_jax"])["revision"] == embedder.revision
    np.testing.assert_allclose(table["vector"].to_pylist()[:3], expected, atol=1e-5)

    output = folder / "texts.parquet"
    assert embed_file.embed_file(embedder, str(folder / "texts"), str(output)) == (3, {})
    table = pq.read_table(io.BytesIO(output.read_bytes()))
    assert table["id"].to_pylist() == ["deep/two.txt", "one.txt", "three.txt"]
    np.testing.assert_allclose(table["vector"].to_pylist(), expected[[1, 0, 2]], atol=1e-5)
    with pytest.raises(ValueError, match=r"no column 'bdy'; did you mean 'body'\?"):
        embed_file.embed_file(embedder, pattern, str(output), columns=(("bdy", "text"),))


def test_parts_of_something_else_are_dropped(caplog):
    output = epath.Path("gs://bucket/out.npy")
    first, second = {"model": "a", "items": "c"}, {"model": "b", "items": "c"}
    Parts(output, first).add(0, np.ones((3, 2), np.float32), {1: "bad"})
    assert Parts(output, first).done == [(0, 3)]
    assert Parts(output, first).errors == {1: "bad"}
    other = Parts(output, second)
    assert (other.done, other.errors) == ([], {})
    assert "out.npy.partial are of other model: all are computed again" in caplog.text
    other.add(0, np.zeros((1, 2), np.float32), {})
    other.finish()
    np.testing.assert_array_equal(np.load(io.BytesIO(output.read_bytes())), np.zeros((1, 2)))
    assert [path.name for path in output.parent.iterdir()] == ["out.npy"]


def test_vectors_are_read_as_the_page_says(embedder, tmp_path_factory, monkeypatch):
    """Also where a line has none."""
    tmp_path = tmp_path_factory.mktemp("page")
    page = (Path(__file__).parents[2] / "docs/search.md").read_text()
    (block,) = [text for text in re.findall(r"```python\n(.*?)```", page, re.S) if "pq." in text]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "items.jsonl").write_text("\n".join(map(json.dumps, LINES)))
    embed_file.embed_file(embedder, "items.jsonl", "vectors.parquet")
    found = {}
    exec(block, found)
    assert found["names"] == ["0", "second", "3", "4"]
    expected = embedder.encode(["one", "two", "four", "five"])
    np.testing.assert_allclose(found["vectors"], expected, atol=1e-5)


def test_what_utf8_cannot_say_stops_no_file(embedder, tmp_path_factory):
    """Half a surrogate pair in an id or in a value, and a file name of other bytes."""
    tmp_path = tmp_path_factory.mktemp("lines")
    source, output = tmp_path / "items.jsonl", tmp_path / "out.parquet"
    source.write_text('"a"\n{"text":"b","id":"cut \\ud83d"}\n{"text":["\\ud83d"]}\n{"text":"c"}\n')
    found = embed_file.embed_file(embedder, str(source), str(output))
    assert (found.count, list(found.errors)) == (4, [1, 2])
    assert "items.jsonl:2: item.id has half a surrogate pair at 4" in found.errors[1]
    assert pq.read_table(output)["vector"].is_valid().to_pylist() == [True, False, False, True]
    lines = (tmp_path / "out.parquet.errors.jsonl").read_text().splitlines()
    assert [json.loads(line)["item"] for line in lines] == [1, 2]

    (tmp_path / "texts").mkdir()
    for name, text in ((b"caf\xe9.txt", "a"), (b"b\xe9.txt", "")):
        with open(os.path.join(os.fsencode(tmp_path / "texts"), name), "w") as file:
            file.write(text)
    found = embed_file.embed_file(embedder, str(tmp_path / "texts"), str(output))
    assert list(found.errors) == [0]
    assert pq.read_table(output)["id"].to_pylist()[1] == "caf\\udce9.txt"
