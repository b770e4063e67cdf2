"""Prepared datasets of anybody's: found by folder or package, decoded, and what is what in them."""

import dataclasses
import io
import json
import pickle
import random

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from lco_jax.config import Columns, DataConfig, JsonlSource, TfdsSource
from lco_jax.config.io import from_json, to_json
from lco_jax.data.records import Exchange
from lco_jax.data.sources.columns import infer_columns
from lco_jax.data.sources.datasets import open_dataset
from lco_jax.data.sources.open import open_source

TEXT = tfds.features.Text()
IMAGE = tfds.features.Image(shape=(4, 4, 3), encoding_format="png")


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    values = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()


def write(data_dir, name, features, records, *, config=None, version="1.0.0", form="array_record"):
    """Prepare a dataset as anybody could."""

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version(version)
        url_infos: dict = {}  # noqa: RUF012

        def _info(self):
            described = tfds.features.FeaturesDict(features)
            return tfds.core.DatasetInfo(builder=self, features=described)

        def _split_generators(self, dl_manager):
            return {"train": enumerate(records)}

        def _generate_examples(self):
            raise NotImplementedError

    Builder.name = name
    given = None if config is None else tfds.core.BuilderConfig(name=config)
    Builder(data_dir=str(data_dir), config=given, file_format=form).download_and_prepare()
    return str(data_dir)


@pytest.fixture
def shapes(tmp_path):
    """Features of many kinds under names of their own."""
    features = {
        "key": np.int64,
        "shown": {"file": IMAGE, "more": tfds.features.Sequence(IMAGE)},
        "said": tfds.features.Translation(languages=["en", "id"]),
        "kind": tfds.features.ClassLabel(names=["cat", "dog"]),
        "sound": np.str_,
        "remark": np.str_,
        "wrong": tfds.features.Sequence({"text": TEXT, "score": np.float32}),
        "later": tfds.features.Dataset({"text": TEXT}),
        "vector": tfds.features.Tensor(shape=(2,), dtype=np.float32),
        "good": np.bool_,
    }
    records = [
        {
            "key": number,
            "shown": {"file": png(number), "more": [png(number), png(number + 10)]},
            "said": {"en": f"réd {number}", "id": f"merah {number}"},
            "kind": number % 2,
            "sound": bytes([255, number]),
            "remark": f"ผ {number}",
            "wrong": [{"text": "no", "score": 0.5}, {"text": "never", "score": 1}],
            "later": [{"text": "then"}],
            "vector": [0.5, number],
            "good": True,
        }
        for number in range(9)
    ]
    return write(tmp_path, "shapes", features, records), records


def test_every_feature_becomes_a_plain_value(shapes):
    data_dir, records = shapes
    columns = Columns("said/id", anchor="said/en", aliases=(("name", "said/id"),))
    opened = open_dataset("shapes", "train", data_dir, columns)
    found = pickle.loads(pickle.dumps(opened))
    assert len(found) == 9 and found.columns == columns
    by_key = {record["key"]: record for record in found}
    assert set(by_key) == set(range(9))
    for number, record in by_key.items():
        expected = records[number] | {
            "kind": ("cat", "dog")[number % 2],
            "remark": f"ผ {number}".encode(),
            "wrong": {"text": ["no", "never"], "score": [0.5, 1.0]},
            "name": f"merah {number}",
        }
        assert record == expected
    json.dumps(found[0], default=bytes.hex)
    with pytest.raises(IndexError, match="record 9 of 9"):
        found[9]
    assert len(open_dataset("shapes", "train[:3]", data_dir, columns)) == 3


def test_columns_say_what_is_what(shapes):
    data_dir, _ = shapes

    def first(kind=None, **options):
        columns = Columns(**options)
        source = TfdsSource("shapes", data_dir=data_dir, columns=columns, prompt="Well?")
        return open_source(source, *([] if kind is None else [kind])).records[0]

    key = open_dataset("shapes", data_dir=data_dir, columns=Columns("kind", anchor="kind"))[0][
        "key"
    ]
    text = first(positive="said/id", anchor="said/en", negatives=("wrong/text", "kind"), id="key")
    assert (text.anchor.text, text.positive.text) == (f"réd {key}", f"merah {key}")
    assert [item.text for item in text.negatives] == ["no", "never", ("cat", "dog")[key % 2]]
    assert text.id == str(key) and text.anchor.id is None
    image = first(positive="kind", image="shown/file", audio="sound", anchor="remark", id="key")
    assert image.anchor.images == (png(key),) and image.anchor.audios == (bytes([255, key]),)
    assert image.anchor.text == f"ผ {key}" and image.anchor.id == str(key)
    both = first(Exchange, positive="wrong/text", image="shown/more", anchor="said/en")
    assert both.prompt.images == (png(key), png(key + 10)) and both.prompt.id is None
    assert both.prompt.text == f"réd {key}\nWell?" and both.response == "no, never"


def test_folders_are_found(tmp_path):
    features = {"anchor": TEXT, "positive": TEXT}
    for config, version in (("b", "2.9.0"), ("b", "2.10.0"), ("a", "1.0.0"), (None, "0.1.0")):
        name, records = ("one", "two")[config is None], [{"anchor": version, "positive": "yes"}]
        write(tmp_path, name, features, records, config=config, version=version)
    (tmp_path / "one" / "b" / "3.0.0.incomplete").mkdir()

    def version_of(name):
        return open_dataset(name, data_dir=str(tmp_path))[0]["anchor"]

    assert version_of("one/b") == "2.10.0"
    assert version_of("one/b/2.9.0") == "2.9.0"
    assert version_of("two") == "0.1.0"
    with pytest.raises(ValueError, match=r"several configs; use one of \['one/a', 'one/b'\]"):
        version_of("one")
    (tmp_path / "one" / "a").rename(tmp_path / "gone")
    assert version_of("one") == "2.10.0"  # the only config


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("image", "name", "id", "keywords"), Columns("name", image="image", id="id")),
        (("audio", "transcript"), Columns("transcript", audio="audio")),
        (
            ("anchor", "positive", "negatives", "id"),
            Columns("positive", anchor="anchor", negatives=("negatives",), id="id"),
        ),
        (("video", "caption"), Columns("caption", video="video")),
        (("image", "label"), None),
        (("positive", "name"), None),
    ],
)
def test_columns_by_their_names(names, expected):
    shuffled = list(names)
    random.Random(0).shuffle(shuffled)
    assert infer_columns(shuffled) == expected


def test_errors_say_what_to_do(shapes, tmp_path):
    data_dir, _ = shapes

    def fail(message, name="shapes", split="train", **columns):
        with pytest.raises(ValueError, match=message):
            open_dataset(name, split, data_dir, Columns(**columns) if columns else None)

    fail(r"\['good', .*do not say what is shown.*columns=Columns\(anchor=")
    fail(
        r"has no feature 'said/xx'; columns must name some of \['good'.*'said/en', 'said/id', 'say",
        positive="said/xx",
        anchor="kind",
        aliases=(("say", "said/en"),),
    )
    fail(r"has no feature 'kind/of'", positive="kind", anchor="said/en", negatives=("kind/of",))
    fail(r"no feature 'x'", positive="said/en", anchor="said/en", aliases=(("y", "x"),))
    fail(r"'kind' .* holds ClassLabel.*tfds\.features\.Image", positive="said/en", image="kind")
    fail(r"'vector' .* holds Tensor", positive="said/en", image="vector")
    fail(r"no split 'dev'; use \['train'\]", split="dev", positive="kind", anchor="kind")
    fail(r"unknown dataset 'shape'; known are \[.*'wordnet'\].*tmp.*/shape", name="shape")
    with pytest.raises(ValueError, match="names no anchor; say which feature"):
        Columns("kind")
    source = TfdsSource("shapes", data_dir=data_dir, columns=Columns("kind", image="shown/file"))
    records = open_source(source, Exchange).records
    assert records[0].response in ("cat", "dog")
    info = tmp_path / "shapes" / "1.0.0" / "dataset_info.json"
    info.write_text(info.read_text().replace('"array_record"', '"tfrecord"'))
    fail(
        'without random access; prepare it with file_format="array_record"',
        positive="kind",
        anchor="kind",
    )


def test_a_package_makes_datasets_known(tmp_path, monkeypatch):
    """By an entry point, with nothing but its metadata and module on the path."""
    (tmp_path / "theirs-1.0.dist-info").mkdir()
    (tmp_path / "theirs-1.0.dist-info" / "METADATA").write_text("Name: theirs\nVersion: 1.0\n")
    (tmp_path / "theirs-1.0.dist-info" / "entry_points.txt").write_text(
        "[lco_jax.datasets]\ntheirs = theirs_data:Theirs\n"
    )
    (tmp_path / "theirs_data.py").write_text(
        "from lco_jax.data.sources.pairs import Pair, PairsBuilder\n"
        "class Theirs(PairsBuilder, skip_registration=True):\n"
        "    is_shipped = True\n"
        "    def __init__(self, *, config_name, data_dir):\n"
        "        super().__init__(config_name=config_name or 'plain', data_dir=data_dir)\n"
        "    def _split_generators(self, dl_manager):\n"
        "        pair = Pair(id='0', anchor='a', positive=self.builder_config.name, negatives=[])\n"
        "        return {'train': self._generate_examples([pair])}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, positive in (("theirs", "plain"), ("theirs/other", "other")):
        (pair,) = open_dataset(name, data_dir=str(tmp_path / "tfds"))
        assert pair["positive"] == positive
    own = Columns("anchor", anchor="positive")
    source = TfdsSource("theirs", data_dir=str(tmp_path / "tfds"), columns=own)
    assert open_source(source).records[0].positive.text == "a"


def test_columns_as_json():
    columns = Columns("name", image="image", id="id", aliases=(("name", "names/id"),))
    config = DataConfig((TfdsSource("mine", columns=columns), TfdsSource("wordnet")), batch_size=4)
    content = json.loads(json.dumps(to_json(config)))
    assert from_json(content) == config
    # As runs before there were columns have written it.
    assert content["sources"][1].pop("columns") is None
    assert from_json(content) == config


@pytest.mark.parametrize("max_examples", [None, 2])
def test_a_pass_through_all_examples_ends(tmp_path, max_examples):
    rows = [{"anchor": f"a {number}", "positive": f"b {number}"} for number in range(3)]
    write(tmp_path, "pairs", {"anchor": TEXT, "positive": TEXT}, rows)
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    sources = (TfdsSource("pairs", data_dir=str(tmp_path)), JsonlSource(str(file)))
    for source in sources:
        opened = open_source(dataclasses.replace(source, max_examples=max_examples))
        texts = [record.anchor.text for record in opened.records]
        assert texts == [row["anchor"] for row in rows[:max_examples]]
        with pytest.raises(IndexError):
            opened.records[len(texts)]
