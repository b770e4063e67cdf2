"""`launch/embed.py` on a file that mixes every kind of medium, with bad lines among them."""

import json
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from lco_jax.cli.embed import main
from lco_jax.embed.embedder import Embedder
from tests import meshes, tiny
from tests.data.audio_files import mp3, plain, tones, track
from tests.data.media_files import cut, encode, noise, random_image, video_file

SECONDS = 1.3


def write_media(folder):
    """One file of each kind."""
    voice = tones(SECONDS)
    pictures = [random_image(index, (64, 48)) for index in range(3)]
    frames = noise(5, (64, 48))
    files = {
        "a.png": encode(pictures[0], "PNG"),
        "a.jpg": encode(pictures[1], "JPEG"),
        "a.wav": plain(voice),
        "a.flac": plain(voice, "FLAC"),
        "a.ogg": plain(voice, "OGG"),
        "a.mp3": mp3(voice),
        "a.m4a": track("mp4", "aac", voice),
        "a.mp4": video_file("mp4", frames, 5, size=(64, 48)),
        "a.webm": video_file("webm", frames, 5, "libvpx", size=(64, 48)),
        "a.gif": encode(pictures[0], "GIF", save_all=True, append_images=pictures[1:]),
        "cut.flac": cut(plain(voice, "FLAC"), 0.4),
        "empty.wav": b"",
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)


LINES = [
    "a text",
    {"image_path": "a.png", "id": "png"},
    {"image_path": "a.jpg", "text": "with words"},
    {"audio_path": "a.wav"},
    {"audio_path": "cut.flac"},
    {"audio_path": "a.flac"},
    {"audio_path": "a.ogg", "text": "a voice"},
    {"audio_path": ["a.mp3", "a.m4a"]},
    {"audio_path": "empty.wav"},
    {"video_path": "a.mp4"},
    {"video_path": "a.webm"},
    {"video_path": "a.gif"},
    {"video_path": "a.mp4", "audio_path": "a.wav", "image_path": "a.png", "text": "all of it"},
    {"text": 7},
    {"video_path": "absent.mp4"},
    {"text": "the last line"},
]
BAD = [4, 8, 13, 14]


@pytest.mark.parametrize("suffix", ["npy", "parquet"])
def test_every_kind_of_medium(tmp_path, monkeypatch, caplog, suffix):
    checkpoint = tiny.write(tmp_path / "model", "qwen2_5_omni_thinker")
    write_media(tmp_path)
    source, output = tmp_path / "items.jsonl", tmp_path / f"out.{suffix}"
    source.write_text("\n".join(map(json.dumps, LINES)))
    options = ["--model", str(checkpoint.folder), "--input", str(source), "--output", str(output)]
    monkeypatch.setattr(sys, "argv", ["launch/embed.py", *options])
    assert main() == 1
    for index in BAD:
        assert f"item {index} has no vector" in caplog.text
    if suffix == "npy":
        vectors = np.load(output)
        missing = np.isnan(vectors).all(axis=1)
    else:
        table = pq.read_table(output)
        column = table["vector"].to_pylist()
        missing = np.array([vector is None for vector in column])
        vectors = np.array([vector or [np.nan] * 32 for vector in column], np.float32)
        assert table["id"].to_pylist()[:2] == ["0", "png"]
    assert np.flatnonzero(missing).tolist() == BAD
    if suffix == "npy":
        embedder = Embedder(checkpoint.folder, mesh=meshes.make((1, 1, 1)))
        for index in (0, 3, 7, 11, 12, 15):  # each alone: the order is kept
            line = LINES[index]
            item = {"text": line} if isinstance(line, str) else dict(line)
            for key in [key for key in item if key.endswith("_path")]:
                names = item[key] if isinstance(item[key], list) else [item[key]]
                item[key] = [str(tmp_path / name) for name in names]
            np.testing.assert_allclose(embedder.encode(item), vectors[index], atol=1e-5)


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("a.csv", "body\na\n", ("--columns", "bdy=text"), "did you mean 'body'?"),
        ("a.csv", "", (), "a.csv"),
        ("a.jsonl", "\n", (), "a.jsonl: holds no items"),
        ("notes.pdf", "?", (), "holds no items; expected media or .txt files"),
        ("other", "", ("--input", "none.csv"), "none.csv: no such file"),
    ],
)
def test_inputs_are_looked_at_before_the_model(
    tmp_path, monkeypatch, capsys, name, content, options, message
):
    (tmp_path / name).write_text(content)
    source = tmp_path if name == "notes.pdf" else tmp_path / name
    arguments = ["--model", "org/no-such-model", "--input", str(source)]
    arguments += ["--output", str(tmp_path / "out.npy"), *options]
    monkeypatch.setattr(sys, "argv", ["launch/embed.py", *arguments])
    assert main() == 2
    said = capsys.readouterr().err
    assert message in said and "error: model" not in said
