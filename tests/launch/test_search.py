"""`launch/search.py` over a folder of strangers' files: what is encoded, and what is shown."""

import json
import re
import shutil
import sys
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lco_jax.cli import embed, search
from lco_jax.embed import embedder as embedders
from lco_jax.embed.encoder import Encoder
from lco_jax.search.corpus import open_corpus
from tests import meshes, tiny
from tests.data.audio_files import plain, tones, track
from tests.data.media_files import encode, noise, random_image, video_file

HOSTILE_NAME = "<img src=x onerror=alert(1)>\x1b[31m.txt"
HOSTILE_TEXT = "</section><script>alert(2)</script> {{ 7 * 7 }} \x1b]0;title\x07 [bold]"


def write_folder(folder):
    """Of every kind a file or two, some of them in folders, and some of no use."""
    (folder / "sub").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    frames = noise(5)
    files = {
        "a.png": encode(random_image(0), "PNG"),
        "sub/b.JPG": encode(random_image(1, (640, 480)), "JPEG"),
        "c.wav": plain(tones(1.0)),
        "d.mp4": track("mp4", "aac", tones(1.0), with_video=True),
        "e.mkv": video_file("matroska", frames, 5),
        "f.txt": b"\xef\xbb\xbfa quick brown fox",
        "broken.png": b"no image",
        "empty.txt": b"",
        "latin1.txt": "caf\xe9".encode("latin-1"),
        "other.pdf": b"%PDF",
        ".hidden/g.png": encode(random_image(2), "PNG"),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / HOSTILE_NAME).write_text(HOSTILE_TEXT)


GOOD = {"a.png", "sub/b.JPG", "c.wav", "d.mp4", "e.mkv", "f.txt", HOSTILE_NAME}
BAD = {"broken.png", "empty.txt", "latin1.txt"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    return tiny.write(folder, "qwen2_5_omni_thinker", num_layers=1).folder


@pytest.fixture
def folder(tmp_path):
    write_folder(tmp_path / "files")
    return tmp_path / "files"


@pytest.fixture
def run(checkpoint, tmp_path, monkeypatch, capsys):
    """Calls the program; gives its exit code, its output, and what it encoded."""
    for name, module in list(sys.modules.items()):  # one device, wherever meshes are made
        if name.startswith("lco_jax.embed") and hasattr(module, "make_mesh"):
            monkeypatch.setattr(module, "make_mesh", lambda *given: meshes.make((1, 1, 1)))
    encoded = []
    plain_encode = Encoder.encode

    def noting(self, items, **options):
        encoded.extend(items)
        return plain_encode(self, items, **options)

    monkeypatch.setattr(Encoder, "encode", noting)

    def call(*arguments, model=checkpoint):
        encoded.clear()
        options = ["--model", str(model)]
        if "--cache" not in arguments:
            options += ["--cache", str(tmp_path / "cache")]
        monkeypatch.setattr(sys, "argv", ["launch/search.py", *map(str, arguments), *options])
        code = search.main()
        return code, capsys.readouterr().out, list(encoded)

    return call


def test_without_a_folder_to_keep_vectors_in(run, tmp_path, caplog):
    (tmp_path / "items.jsonl").write_text('"a quick fox"\n"two women"\n')
    (tmp_path / "file").touch()
    code, out, encoded = run(
        tmp_path / "items.jsonl", "a fox", "--json", "--cache", tmp_path / "file" / "none"
    )
    assert (code, json.loads(out)["num_encoded"], len(encoded)) == (0, 2, 3)  # and the query
    assert caplog.text.count("cannot be written to: vectors are not kept") == 1


class Page(HTMLParser):
    """The elements of a page, and its texts."""

    def __init__(self, file):
        super().__init__()
        self.tags, self.sources, self.texts = [], [], []
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href", "poster")]
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_data(self, data):
        self.texts.append(data)


def test_a_second_search_encodes_the_query_only(run, folder, tmp_path):
    code, out, encoded = run(folder, "a fox", "--json")
    found = json.loads(out)
    assert code == 0 and len(encoded) == 1 + len(GOOD) + 1  # the query, and a broken image
    (ranking,) = found["rankings"]
    assert {hit["id"] for hit in ranking["hits"]} == GOOD
    scores = [hit["score"] for hit in ranking["hits"]]
    assert scores == sorted(scores, reverse=True) and found["num_encoded"] == len(GOOD)
    errors = " ".join(found["errors"].values())
    assert all(name in errors for name in BAD) and len(found["errors"]) == len(BAD)
    # Again, with another query: only that one, and the file that still cannot be read.
    (folder / "broken.png").unlink()
    code, out, encoded = run(folder, "--image", folder / "a.png", "--json")
    again = json.loads(out)
    assert len(encoded) == 1 and again["num_encoded"] == 0
    best = again["rankings"][0]["hits"][0]
    assert best["id"] == "a.png" and best["score"] == pytest.approx(1, abs=1e-5)
    # A changed file and a new one are encoded, a renamed one is not.
    (folder / "f.txt").write_text("another text")
    (folder / "new.png").write_bytes(encode(random_image(5), "PNG"))
    (folder / "c.wav").rename(folder / "renamed.wav")
    _, out, encoded = run(folder, "a fox", "--json")
    assert json.loads(out)["num_encoded"] == 2 and len(encoded) == 3
    assert {hit["id"] for hit in json.loads(out)["rankings"][0]["hits"]} == GOOD - {"c.wav"} | {
        "renamed.wav",
        "new.png",
    }
    # Another model has vectors of its own.
    other = tmp_path / "other"
    tiny.write(other, "qwen2_5_omni_thinker", num_layers=1, seed=1)
    _, out, _ = run(folder, "a fox", "--json", model=other)
    assert json.loads(out)["num_encoded"] == len(GOOD) + 1


def test_the_page_needs_nothing_else_and_escapes_everything(run, folder, tmp_path):
    file = tmp_path / "pages" / "found.html"
    code, out, _ = run(folder, "a <b>fox</b>", "fox", "--html", file, "--each-kind", "--top-k", "5")
    assert code == 0
    page, text = Page(file), file.read_text(encoding="utf-8")
    assert page.sources and all(source.startswith("data:") for source in page.sources)
    assert not re.search(r"https?:|file:|url\(|@import", text)
    assert not {"script", "b", "iframe", "object", "link"} & set(page.tags)
    assert page.tags.count("section") == 3  # two queries, and what was left out
    kinds = {source[: source.index(";")] for source in page.sources}
    assert kinds == {"data:image/webp", "data:audio/wav", "data:video/mp4"}
    said = "".join(page.texts)
    assert "a <b>fox</b>" in said and "<script>alert(2)</script>" in said and "{{ 7 * 7 }}" in said
    assert "\x1b" not in text and "\x07" not in text and "\x1b" not in out
    assert "browsers do not play this kind of file" in said  # e.mkv has a thumbnail
    assert "broken.png" in said
    assert "[bold]" in out and "onerror" in out


def test_players_end_with_their_bytes(run, folder, tmp_path):
    file = tmp_path / "found.html"
    run(folder, "fox", "--html", file, "--html-megabytes", "0.001")
    sources = Page(file).sources
    assert len(sources) == 4 and all(source.startswith("data:image/webp") for source in sources)
    assert file.read_text().count("left out: a page holds 0.001 MB") == 2


@pytest.mark.parametrize("suffix", ["parquet", "npy"])
def test_vectors_of_embed(run, checkpoint, tmp_path, monkeypatch, suffix, caplog):
    items = tmp_path / "items.jsonl"
    lines = [{"text": "a fox", "id": "fox"}, "a lazy dog", {"image_path": "absent.png"}, "a market"]
    items.write_text("\n".join(map(json.dumps, lines)))
    output = tmp_path / f"vectors.{suffix}"
    options = ["--model", str(checkpoint), "--input", str(items), "--output", str(output)]
    monkeypatch.setattr(sys, "argv", ["launch/embed.py", *options])
    assert embed.main() == 1  # the image
    code, out, encoded = run(output, "a fox", "--json")
    found = json.loads(out)
    assert code == 0 and len(encoded) == 1 and list(found["errors"]) == ["2"]
    hits = found["rankings"][0]["hits"]
    assert hits[0]["corpus_id"] == 0 and len(hits) == 3
    assert hits[0]["score"] == pytest.approx(1, abs=1e-5)
    if suffix == "parquet":
        assert hits[0]["id"] == "fox" and not found["warnings"]
        other = tmp_path / "other"
        shutil.copytree(checkpoint, other)
        _, out, _ = run(output, "a fox", "--json", model=other)
        assert not json.loads(out)["warnings"]  # a copy is the same model
        with (other / "tokenizer_config.json").open("a") as file:
            file.write("\n")
        _, out, _ = run(output, "a fox", "--json", model=other)
        assert "made by" in json.loads(out)["warnings"][0]
    else:
        assert "does not say which model" in found["warnings"][0]
    assert run(output, "a fox", "--truncate-dim", "8")[0] == 2


def test_items_of_a_file(run, tmp_path):
    (tmp_path / "a.png").write_bytes(encode(random_image(0), "PNG"))
    items = tmp_path / "items.jsonl"
    lines = ['"a fox"', '{"image_path": "a.png", "text": "noise"}', '{"texd": 1}', "no JSON"]
    items.write_text("\n".join(lines))
    code, out, _ = run(items, "a fox", "--json", "--top-k", "1")
    found = json.loads(out)
    assert code == 0 and found["num_items"] == 2 and list(found["errors"]) == ["2", "3"]
    assert "items.jsonl:3: item has an unknown key 'texd'" in found["errors"]["2"]
    (hit,) = found["rankings"][0]["hits"]
    assert hit["text"] == "a fox" and hit["score"] == pytest.approx(1, abs=1e-5)


def test_media_in_vectors_that_are_no_files(tmp_path):
    address = "data:image/png;base64,AAAA"
    table = {"image_path": [address, "a.png", "gs://b/c.png"], "vector": [[1.0], [1.0], [1.0]]}
    pq.write_table(pa.table(table), tmp_path / "vectors.parquet")
    items = open_corpus(str(tmp_path / "vectors.parquet")).items
    assert [item.images for item in items] == [
        (address,),
        (f"{tmp_path}/a.png",),
        ("gs://b/c.png",),
    ]


def test_a_model_of_texts_leaves_media_out(run, folder, tmp_path, caplog):
    model = tmp_path / "texts"
    tiny.write(model, num_layers=1)
    code, out, encoded = run(folder, "a fox", "--json", model=model)
    found = json.loads(out)
    assert code == 0 and found["num_items"] == 2 and len(encoded) == 3
    assert "left out 3 items: the model does not read image" in caplog.text.replace("\n", " ")
    assert run(folder, "--image", folder / "a.png", model=model)[0] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent", "q"], "absent: no such file"),
        (["empty", "q"], "empty: holds no items"),
        (["empty/x.pdf", "q"], "none of its 1 items can be read"),
        (["bad.npy", "q"], "not an array of numpy"),
        (["f", "q", "--image", "f/a.txt"], "queries of several kinds (a text, --image)"),
        (["f", "--audio", "f/a.txt", "--video", "f/a.txt"], "several kinds (--audio, --video)"),
        (["f"], "nothing to look for"),
        (["f", " "], "a query is empty"),
        (["f", "--image", "absent.png"], "--image absent.png: no such file"),
        (["f", "q", "--top-k", "0"], "--top-k 0 must be at least 1"),
        (["f", "q", "--html", "f"], "--html f is a folder"),
        (["bad.parquet", "q"], "not a parquet file"),
        (["nan.npy", "q"], "holds no vectors"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_usage_is_checked_before_the_model(tmp_path, monkeypatch, capsys, arguments, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "x.pdf").write_bytes(b"%PDF")
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "a.txt").write_text("a text")
    (tmp_path / "bad.parquet").write_bytes(b"PAR?")
    (tmp_path / "bad.npy").write_bytes(b"NUM?")
    np.save(tmp_path / "nan.npy", np.full((2, 32), np.nan, np.float32))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(embedders, "Embedder", None)
    monkeypatch.setattr(sys, "argv", ["launch/search.py", "--model", "org/none", *arguments])
    assert search.main() == 2
    assert message in capsys.readouterr().err
