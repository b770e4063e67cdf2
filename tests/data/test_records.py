"""JSON Lines: what is read, and what bad lines say."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from lco_jax.data.records import Exchange, Item, Triplet, parse_exchange, parse_triplet
from lco_jax.data.sources.jsonl import ItemLines, JsonlRecords

GOOD = '{"anchor": "a", "positive": "b"}'


def write(path, *lines):
    path.write_bytes(b"\n".join(x if isinstance(x, bytes) else x.encode() for x in lines))
    return str(path)


def read_triplets(path, max_examples=None):
    return JsonlRecords(path, parse_triplet, max_examples)


def test_official_format_loads_unchanged(tmp_path):
    line = {
        "anchor": {"image_path": "", "text": "a dog"},
        "positive": {"image_path": "img/1.png", "text": ""},
        "negative": {"image_path": "/abs/2.png", "text": "a cat"},
    }
    (triplet,) = read_triplets(write(tmp_path / "a.jsonl", json.dumps(line)))
    assert triplet == Triplet(
        anchor=Item("a dog"),
        positive=Item(images=(str(tmp_path / "img/1.png"),)),
        negatives=(Item("a cat", images=("/abs/2.png",)),),
    )


def test_superset(tmp_path):
    line = {
        "id": 7,
        "anchor": "東京",
        "positive": {
            "id": "p",
            "video_path": ["v.mp4", "gs://b/w.mp4"],
            "audio_path": "a.wav",
            "text": None,
        },
        "negative": ["one", {"text": "two"}],
        "negatives": ["three"],
    }
    (triplet,) = read_triplets(write(tmp_path / "a.jsonl", json.dumps(line)))
    assert triplet.id == "7"
    assert triplet.anchor == Item("東京")
    assert triplet.positive == Item(
        audios=(str(tmp_path / "a.wav"),),
        videos=(str(tmp_path / "v.mp4"), "gs://b/w.mp4"),
        id="p",
    )
    assert [item.text for item in triplet.negatives] == ["one", "two", "three"]


def test_pair_and_null_negative(tmp_path):
    path = write(tmp_path / "a.jsonl", GOOD, '{"anchor": "a", "positive": "b", "negative": null}')
    assert [triplet.negatives for triplet in read_triplets(path)] == [(), ()]


def test_random_access_blank_lines_and_byte_order_mark(tmp_path):
    lines = [json.dumps({"anchor": f"é{i}", "positive": "b" * i + "x"}) for i in range(50)]
    path = write(tmp_path / "a.jsonl", b"\xef\xbb\xbf" + lines[0].encode(), "", *lines[1:], " ", "")
    triplets = read_triplets(path)
    assert len(triplets) == 50
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(triplets.__getitem__, reversed(range(50))))
    assert [triplet.anchor.text for triplet in read] == [f"é{i}" for i in reversed(range(50))]
    assert len(read_triplets(path, max_examples=7)) == 7


def test_windows_line_ends(tmp_path):
    path = write(tmp_path / "a.jsonl", GOOD + "\r", GOOD + "\r", "\r")
    assert len(read_triplets(path)) == 2


def test_digest_follows_the_content(tmp_path):
    first = read_triplets(write(tmp_path / "a.jsonl", GOOD, GOOD))
    same = read_triplets(write(tmp_path / "b.jsonl", GOOD, GOOD))
    other = read_triplets(write(tmp_path / "c.jsonl", GOOD, GOOD.replace("b", "c")))
    assert first.digest == same.digest != other.digest
    assert read_triplets(str(tmp_path / "c.jsonl"), 1).digest != first.digest


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{'anchor': 1}", "not JSON"),
        (b'{"anchor": "\xff"}', "not UTF-8"),
        ('["a", "b"]', "expected an object"),
        ('{"positive": "b"}', "lacks 'anchor'"),
        ('{"anchor": "a"}', "lacks 'positive'"),
        ('{"anchor": null, "positive": "b"}', "lacks 'anchor'"),
        ('{"anchor": 3, "positive": "b"}', r"anchor is of type int \(3\)"),
        ('{"anchor": {"text": 0}, "positive": "b"}', r"anchor.text is of type int \(0\)"),
        ('{"anchor": {"image_path": {}}, "positive": "b"}', "anchor.image_path is of type dict"),
        ('{"anchor": "a", "positive": {"audio_path": ["x", 4]}}', "positive.audio_path is of type"),
        ('{"anchor": "a", "positive": {"text": "", "image_path": ""}}', "positive is empty"),
        ('{"anchor": " \\n", "positive": "b"}', "anchor is empty"),
        ('{"anchor": "a", "positive": "b", "negative": ["c", ""]}', r"negative\[1\] is empty"),
        ('{"anchor": "a", "positive": "b", "negativ": "c"}', "did you mean 'negative'"),
        ('{"anchor": {"image": "a"}, "positive": "b"}', "did you mean 'image_path'"),
        ('{"anchor": "a", "positive": "b", "id": []}', "id is of type list"),
        ('{"anchor": "\\ud83d", "positive": "b"}', "anchor.text has half a surrogate pair"),
    ],
)
def test_bad_lines_are_named(tmp_path, line, message):
    path = write(tmp_path / "a.jsonl", GOOD, "", line, GOOD)
    with pytest.raises(ValueError, match=message) as caught:
        read_triplets(path)
    assert str(caught.value).startswith(f"{path}:3: ")


def test_empty_and_missing_files(tmp_path):
    with pytest.raises(ValueError, match="holds no record"):
        read_triplets(write(tmp_path / "a.jsonl", ""))
    with pytest.raises(FileNotFoundError, match=r"b\.jsonl: no such file"):
        read_triplets(str(tmp_path / "b.jsonl"))
    with pytest.raises(FileNotFoundError):
        read_items(str(tmp_path / "b.jsonl"))


def read_items(path):
    """The items of a file, or the first error."""
    for item in (items := list(ItemLines(path))):
        if isinstance(item, ValueError):
            raise item
    return items


def test_read_items(tmp_path):
    path = write(tmp_path / "a.jsonl", '"plain"', "", '{"text": "t", "id": "x"}')
    assert read_items(path) == [Item("plain"), Item("t", id="x")]
    with pytest.raises(ValueError, match=r"a.jsonl:2: item is empty"):
        read_items(write(tmp_path / "a.jsonl", '"plain"', "{}"))
    with pytest.raises(ValueError, match=r"a.jsonl:1: item has an unknown key 'txt'; did you mean"):
        read_items(write(tmp_path / "a.jsonl", '{"txt": "t"}'))


def test_exchanges(tmp_path):
    path = write(
        tmp_path / "a.jsonl",
        '{"prompt": {"image_path": "1.png", "text": "What?"}, "response": "A fox.", "id": 7}',
        '{"prompt": "Say it", "response": " it"}',
        '{"text": "Once upon a time"}',
        '"plain"',
    )
    assert list(JsonlRecords(path, parse_exchange)) == [
        Exchange(Item("What?", images=(str(tmp_path / "1.png"),)), "A fox.", "7"),
        Exchange(Item("Say it"), " it"),
        Exchange(Item(), "Once upon a time"),
        Exchange(Item(), "plain"),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": "a"}', "lacks 'response'; expected 'prompt' and 'response', or 'text'"),
        ('{"response": "a"}', "lacks 'prompt'"),
        ('{"prompt": "", "response": "a"}', "prompt is empty"),
        ('{"prompt": "a", "response": " "}', "response is empty"),
        ('{"prompt": "a", "response": 7}', "response is of type int"),
        ('{"prompt": "a", "respnse": "b"}', "did you mean 'response'"),
        ('{"text": "a", "response": "b"}', "unknown key 'response'"),
        ('""', "text is empty"),
    ],
)
def test_bad_exchanges_are_named(tmp_path, line, message):
    path = write(tmp_path / "a.jsonl", '"good"', line)
    with pytest.raises(ValueError, match=message) as caught:
        JsonlRecords(path, parse_exchange)
    assert str(caught.value).startswith(f"{path}:2: ")
