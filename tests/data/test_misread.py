"""Pairs of texts of which one is misread."""

import numpy as np
import pytest

from lco_jax.config import Columns, DataConfig, TfdsSource
from lco_jax.config.io import from_json, to_json
from lco_jax.data.sources.misread import VIEWS, Misreader
from lco_jax.data.sources.mixture import ExampleStream
from lco_jax.data.sources.open import open_source

RECORDS = [
    {"image": b"no image", "name": "Black Cat", "keywords": ["animal", "pet"]},
    {"image": b"no image", "name": "red square", "keywords": ["shape", "geometric form"]},
    {"image": b"no image", "name": "man's shoe", "keywords": ["clothing"]},
]
COLUMNS = Columns("name", image="image")
OWN = {"black", "cat", "animal", "pet"}


def pairs_of_first(kind, more=None, count=3000):
    reader = Misreader(kind, COLUMNS, len(RECORDS), more)
    return [reader(RECORDS, number * len(RECORDS)) for number in range(count)]


def test_heard_words_keep_their_order_and_some_are_missed_mistaken_or_broken_off():
    texts = [pair.anchor.text for pair in pairs_of_first("heard")]
    assert {"black cat", "black", "cat", "bl cat", "black c", "black square"} <= set(texts)
    assert not any(text.startswith("cat b") for text in texts)
    whole = np.mean([text == "black cat" for text in texts])
    # Two words, each misread with a probability p drawn from 0 to 0.9: both are kept in a share of
    # (1 - p) squared, 0.37 in the mean, or one is misread as a whole.
    assert 0.37 < whole < 0.5
    assert {"animal", "pet"}.isdisjoint(word for text in texts for word in text.split())


def test_seen_words_come_in_no_order_with_keywords_and_strange_ones():
    texts = [pair.anchor.text.split() for pair in pairs_of_first("seen", more="keywords")]
    assert {("black", "cat"), ("cat", "black"), ("pet",)} <= set(map(tuple, texts))
    words = {word for text in texts for word in text}
    assert words == OWN | {
        "red",
        "square",
        "shape",
        "geometric",
        "form",
        "man's",
        "shoe",
        "clothing",
    }
    strange = [sum(word not in OWN for word in text) for text in texts]
    assert max(strange) == 3 and min(strange) == 0
    assert all(any(word in OWN for word in text) for text in texts)


@pytest.mark.parametrize("kind", ["heard", "seen"])
def test_positives_are_whole_and_media_left_out(kind):
    for pair in pairs_of_first(kind, count=20):
        assert pair.positive.text == "Black Cat" and pair.anchor.text
        assert not (pair.anchor.has_media or pair.positive.has_media or pair.negatives)


def test_sources_have_several_pairs_of_each_record_always_the_same():
    source = TfdsSource("emoji", response="keywords", misread="seen", max_examples=40)
    opened, again = open_source(source), open_source(source)
    assert len(opened) == 40 * VIEWS
    assert [opened.records[i] for i in range(320)] == [again.records[i] for i in range(320)]
    first, second = opened.records[3], opened.records[43]
    assert first.positive == second.positive and first.anchor != second.anchor
    names = {
        open_source(TfdsSource("emoji", max_examples=40)).records[i].positive for i in range(40)
    }
    assert {opened.records[i].positive for i in range(320)} == names
    with pytest.raises(IndexError):
        opened.records[320]


def test_the_setting_is_kept_in_files_and_in_fingerprints():
    sources = [TfdsSource("spoken", misread=kind) for kind in (None, "heard", "seen")]
    assert [from_json(to_json(source)) for source in sources] == sources
    streams = [ExampleStream(DataConfig((source,), batch_size=8), seed=0) for source in sources]
    assert len({stream.fingerprint for stream in streams}) == 3
