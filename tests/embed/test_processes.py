"""Embedding on four processes, whose data shards are not neighbours, as on a torus."""

import collections
import json
import shutil
import signal

import numpy as np
import pytest

from lco_jax.embed import embed_file
from lco_jax.embed.embedder import Embedder
from lco_jax.runtime.axes import MESH_AXES
from tests import meshes, processes, tiny
from tests.data.audio_files import plain, tones
from tests.data.media_files import random_image

TIMEOUT_S = 400
BAD = (5, 29, 30, 69)
"""Lines of the first and the last piece, and two of the second, that have no vector."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint and 70 items: texts, of which one is long, images, audio, and bad ones."""
    folder = tmp_path_factory.mktemp("checkpoint")
    tiny.write(folder, "qwen2_5_omni_thinker", num_layers=1)
    lines = [f"text {number} " + "word " * (number % 7) for number in range(70)]
    lines[20] = "long " * 60
    for number in range(0, 48, 3):
        random_image(number, (30 + number, 60)).save(folder / f"{number}.png")
        lines[number] = {"image_path": f"{number}.png", "text": f"image {number}"}
    for number in (7, 40):
        (folder / f"{number}.wav").write_bytes(plain(tones(0.5, seed=number)))
        lines[number] = {"audio_path": f"{number}.wav"}
    lines[5], lines[29] = {"text": 7}, {"image_path": "absent.png"}
    lines[30] = {"image_path": "absent.png", "text": "with words"}
    lines[69] = {"audio_path": "absent.wav"}
    (folder / "items.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


def start(folder, output, count, sizes, fault="say"):
    mesh = [f"--mesh.{axis}={size}" for axis, size in zip(MESH_AXES, sizes, strict=True)]
    names = ["--model", str(folder), "--input", str(folder / "items.jsonl")]
    return processes.start_embedding(
        [*names, "--output", str(output), *mesh],
        folder / "compilations",
        count,
        fault,
        order=processes.TORUS,
    ).finish(TIMEOUT_S)


@pytest.fixture(scope="module")
def alone(folder):
    """The vectors of one process with one device."""
    embedder = Embedder(folder, mesh=meshes.make((1, 1, 1)))
    output = folder / "alone.npy"
    embedded = embed_file.embed_file(embedder, str(folder / "items.jsonl"), str(output))
    assert sorted(embedded.errors) == [*BAD]
    return np.load(output)


@pytest.fixture(scope="module")
def undisturbed(folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("undisturbed") / "out.npy"
    return output, start(folder, output, 4, (1, 8, 1))


@pytest.fixture(scope="module")
def killed(folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("killed") / "out.npy"
    return output, start(folder, output, 4, (1, 8, 1), "kill embedding")


def said(ends, word):
    """What follows a word in the lines of each process."""
    lines = [[line.partition(" ")[::2] for line in text.splitlines()] for _, text in ends]
    return [collections.Counter(rest for first, rest in own if first == word) for own in lines]


def check_ends(ends, code=1):
    for found, text in ends:
        assert found == code, text[-3000:]


def errors_of(output):
    file = output.with_name(output.name + ".errors.jsonl")
    return {line["item"]: line["error"] for line in map(json.loads, file.read_text().splitlines())}


def test_the_same_vectors_and_errors_as_alone(folder, alone, undisturbed):
    output, ends = undisturbed
    check_ends(ends)
    np.testing.assert_allclose(np.load(output), alone, atol=1e-5)
    assert list(errors_of(output)) == [*BAD]
    assert errors_of(output) == errors_of(folder / "alone.npy")
    for _, text in ends:
        assert all(f"item {number} has no vector" in text for number in BAD)
    names = {path.name for path in output.parent.iterdir()}
    assert names == {"out.npy", "out.npy.errors.jsonl"}


def test_each_item_is_read_by_one_process(folder, undisturbed):
    # 15 images, 2 recordings, and 3 files that are not there.
    for word, total in (("PARSED", 70), ("READ", 20)):
        each = said(undisturbed[1], word)
        assert sum(own.total() for own in each) == total
        assert all(own.total() <= total / 2 for own in each)
    assert all(said(undisturbed[1], "PARSED"))


def test_killed_and_started_again(folder, undisturbed, killed, tmp_path):
    before, (*others, (last_code, _)) = killed
    assert last_code == -signal.SIGKILL
    processes.check_lost(others)
    assert not before.exists()
    output = shutil.copytree(before.parent, tmp_path / "again") / "out.npy"
    ends = start(folder, output, 4, (1, 8, 1))
    check_ends(ends)
    assert "going on after 24 of 70 items" in ends[0][1] or "after 48 of" in ends[0][1]
    assert sum(said(ends, "PARSED"), collections.Counter()).total() <= 46
    np.testing.assert_array_equal(np.load(output), np.load(undisturbed[0]))
    assert errors_of(output) == errors_of(undisturbed[0])


@pytest.mark.slow
def test_another_layout_goes_on(folder, alone, killed, tmp_path):
    """Pairs of processes hold the same data shards, and read the same items."""
    output = shutil.copytree(killed[0].parent, tmp_path / "again") / "out.npy"
    ends = start(folder, output, 4, (1, 4, 2))
    check_ends(ends)
    np.testing.assert_allclose(np.load(output), alone, atol=1e-5)
    assert errors_of(output) == errors_of(folder / "alone.npy")
    first, second, third, fourth = said(ends, "PARSED")
    assert first == second and third == fourth
    assert first.total() + third.total() == (first + third).total() in (22, 46)
