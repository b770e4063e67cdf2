"""Whatever goes wrong with a record is its fault alone: it is named, and all others are used."""

import importlib
import itertools
import json
import logging
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from lco_jax.cli.embed import main
from lco_jax.config import DataConfig, JsonlSource, MediaConfig, Memory
from lco_jax.data.encode.processor import Processor
from lco_jax.data.encode.prompt import Prompter
from lco_jax.data.errors import RecordError
from lco_jax.data.records import Item, Triplet
from lco_jax.data.sources.open import all_items
from lco_jax.data.sources.table import Records
from lco_jax.embed.embedder import Embedder
from lco_jax.models.config import read_config
from lco_jax.objectives.loaders import ContrastiveLoader
from tests import meshes, tiny
from tests.data.media_files import random_image

SIZE = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.write(tmp_path_factory.mktemp("omni"), "qwen2_5_omni_thinker").folder


@pytest.fixture
def data(tmp_path):
    """Writes triplets of which the given ones take the place of others."""
    random_image(0).save(tmp_path / "a.png")

    def write(*lines: dict) -> DataConfig:
        good = [{"anchor": f"anchor {number}", "positive": "b"} for number in range(SIZE)]
        file = tmp_path / "train.jsonl"
        file.write_text("\n".join(map(json.dumps, [*lines, *good[len(lines) :]])) + "\n")
        return DataConfig((JsonlSource(str(file)),), batch_size=SIZE)

    return write


def load(config: DataConfig, folder, on_error: str, steps: int = 2) -> int:
    """How many items were left out of the first steps."""
    media = MediaConfig(on_error=on_error)
    processor = Processor(folder, read_config(folder), media=media)
    config = DataConfig(config.sources, config.batch_size, media=media)
    loader = ContrastiveLoader(config, Memory(row_tokens=(64, 128)), processor, seed=0)
    loaded = itertools.islice(loader, steps)
    return sum(stats.unreadable for _, _, stats in loaded)


BAD = {
    "too long": ({"image_path": ["a.png"] * 60}, "an item of .* tokens does not fit into rows"),
    "truncated": ({"image_path": "cut.png"}, "cut.png: the image cannot be decoded"),
    "of the web": ({"image_path": "https://example.org/a.png"}, "web addresses are not fetched"),
    "of a bucket": ({"image_path": "s4://some/a.png"}, "s4://some/a.png: addresses of this kind"),
    "no path": ({"image_path": "a\0b.png"}, r"no path \("),
    "no file": ({"audio_path": "/dev/zero"}, "/dev/zero: is a device"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_record_is_named_or_left_out(folder, data, tmp_path, caplog, case):
    anchor, message = BAD[case]
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:900])
    config = data({"anchor": "fine", "positive": "b"}, {"anchor": anchor, "positive": "b"})
    with pytest.raises(RecordError, match=rf"train\.jsonl:2: .*{message}.*on_error to skip"):
        load(config, folder, "raise")
    with caplog.at_level(logging.WARNING):
        assert load(config, folder, "skip") == 2  # once a step
    said = [record for record in caplog.messages if "left out" in record]
    assert len(said) == 1 and "train.jsonl:2: " in said[0]


def test_control_tokens_beside_an_image_stop_no_run(folder, data):
    anchor = {"image_path": "a.png", "text": "look <|IMAGE|>"}
    assert load(data({"anchor": anchor, "positive": "b"}), folder, "raise") == 0


class _Panic(BaseException):
    """As errors of libraries in Rust are."""


@pytest.mark.parametrize("error", [KeyError("x"), MemoryError(), RecursionError(), _Panic("lost")])
@pytest.mark.parametrize("where", ["media", "prompt", "record"])
def test_any_error_belongs_to_its_record(folder, data, monkeypatch, error, where):
    config = data({"anchor": {"image_path": "a.png", "text": "broken"}, "positive": "b"})
    calls = {
        "media": (Processor, "read_medium", lambda kind, source: "a.png" in source),
        "prompt": (Prompter, "encode_checked", lambda items: "broken" in [i.text for i in items]),
        "record": (ContrastiveLoader, "_take_parts", _is_broken),
    }
    cls, name, is_it = calls[where]
    original = getattr(cls, name)

    def fails(self, *arguments):
        if is_it(*arguments):
            raise error
        return original(self, *arguments)

    monkeypatch.setattr(cls, name, fails)
    assert load(config, folder, "skip", 1) == 1
    with pytest.raises(RecordError, match=rf"train\.jsonl:1: .*{type(error).__name__}.*to skip"):
        load(config, folder, "raise", 1)


def _is_broken(example: Triplet | None) -> bool:
    return example is not None and example.anchor.text == "broken"


def test_errors_of_the_program_itself_are_none_of_a_record(folder, monkeypatch):
    processor = Processor(folder, read_config(folder))
    monkeypatch.setattr(Prompter, "encode_checked", _interrupt)
    with pytest.raises(KeyboardInterrupt):
        processor.try_encode([Item("a")])


def _interrupt(*_):
    raise KeyboardInterrupt


def test_replacements_run_out(folder, data):
    config = data(*[{"anchor": {"image_path": "absent.png"}, "positive": "b"}] * SIZE)
    with pytest.raises(RecordError, match="and 8 others in its place are unreadable"):
        load(config, folder, "skip")


def test_items_of_a_file_that_changes_are_left_out(data, monkeypatch):
    config = data()
    skipping = DataConfig(config.sources, SIZE, media=MediaConfig(on_error="skip"))
    original = Records.__getitem__

    def read(self, index):
        if index == 2:
            raise RecordError("train.jsonl:3: gone")
        return original(self, index)

    monkeypatch.setattr(Records, "__getitem__", read)
    assert len(list(all_items(skipping))) == 2 * (SIZE - 1)
    with pytest.raises(RecordError, match="gone"):
        list(all_items(config))


# ------------------------------------------------------------------------------------ embedding

LINES = [
    '"first"',
    '{"image_path":"https://example.org/a.png","id":"u"}',
    '{"image_path":"gs://some-bucket/a.png","id":"u"}',
    '{"text":"b","id":"cut \\ud83d"}',
    '{"text":["\\ud83d"]}',
    "[" * 100_000 + "]" * 100_000,
    '{"image_path":"a\\u0000b.png"}',
    '{"text":"<|IMAGE|> is a text"}',
    '{"audio_path":"pipe.wav"}',
    '{"image_path":"absent.png","text":"x"}',
    '{"text": "last", "id": 7}',
]
GOOD = (0, 7, 10)
SAID = {
    2: "web addresses are not fetched",
    3: "gcsfs",
    4: "half a surrogate pair",
    5: "expected a string",
    6: "values are nested too deeply",
    7: "no path (",
    9: "is a device, and only regular files are read",
    10: "no such file",
}
"""Of each bad line."""


def test_a_file_of_bad_lines(folder, tmp_path, monkeypatch, caplog):
    file, output = tmp_path / "items.jsonl", tmp_path / "out.parquet"
    file.write_text("\n".join(LINES) + "\n")
    (tmp_path / "pipe.wav").symlink_to("/dev/zero")
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    registry = importlib.import_module("fsspec.registry")
    for name in ("gs", "gcs"):  # other tests have buckets of their own
        monkeypatch.delitem(registry._registry, name, raising=False)
    options = ["--model", str(folder), "--input", str(file), "--output", str(output)]
    monkeypatch.setattr(sys, "argv", ["launch/embed.py", *options])
    assert main() == 1
    table = pq.read_table(output)
    missing = [vector is None for vector in table["vector"].to_pylist()]
    assert [index for index in range(len(LINES)) if not missing[index]] == list(GOOD)
    noted = [json.loads(line) for line in (tmp_path / "out.parquet.errors.jsonl").open()]
    assert len(noted) == len(SAID)
    for (line, message), note in zip(SAID.items(), noted, strict=True):
        text = next(value for value in note.values() if isinstance(value, str))
        assert f"items.jsonl:{line}: " in text and message in text, note


@pytest.mark.parametrize("width", ["-5", "0"])
def test_a_width_that_is_none_is_refused_first(tmp_path, monkeypatch, capsys, width):
    (tmp_path / "a.jsonl").write_text('"a"\n')
    options = ["--input", str(tmp_path / "a.jsonl"), "--output", str(tmp_path / "a.npy")]
    options += ["--model", "./no-such-model", "--truncate-dim", width]
    monkeypatch.setattr(sys, "argv", ["launch/embed.py", *options])
    assert main() == 2
    assert f"truncate_dim={width} must be a positive whole number" in capsys.readouterr().err


def test_errors_of_inputs_are_noted(folder):
    embedder = Embedder(folder, mesh=meshes.make((1, 1, 1)))
    inputs = ["a", None, {"image": object()}, "", {"text": "b"}, {"imag": "a.png"}, b"no medium"]
    found: dict = {}
    vectors = embedder.encode(inputs, errors=found, batch_size=2)
    assert sorted(found) == [1, 2, 3, 5, 6]
    assert all(f"input {index}" in str(error) for index, error in found.items())
    assert np.flatnonzero(vectors.any(axis=1)).tolist() == [0, 4]
    np.testing.assert_allclose(vectors[4], embedder.encode("b"), atol=1e-5)
    with pytest.raises(RecordError, match="input 1 is of type NoneType"):
        embedder.encode(inputs)
