"""The control with shuffled pairs: the same texts, which say nothing about each other."""

import json

import pytest

from lco_jax.config import DataConfig, JsonlSource
from lco_jax.data.records import Exchange
from lco_jax.data.sources.mixture import ExampleStream, is_same_sequence


def write(folder, name, count):
    lines = [
        {
            "anchor": {"text": f"{name} anchor {number}"},
            "positive": {"text": f"{name} positive {number}"},
            "negative": {"text": f"{name} negative {number}"},
        }
        for number in range(count)
    ]
    file = folder / f"{name}.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return JsonlSource(str(file))


def stream(sources, shuffled, seed=3):
    config = DataConfig(sources=sources, batch_size=10, shuffled_positives=shuffled)
    return ExampleStream(config, seed)


def numbers(triplet):
    items = (triplet.anchor, triplet.positive, *triplet.negatives)
    return [(item.text.split()[0], int(item.text.split()[-1])) for item in items]


def test_every_anchor_has_the_positive_of_another(tmp_path):
    sources = (write(tmp_path, "one", 30), write(tmp_path, "two", 20))
    plain, shuffled = (stream(sources, which) for which in (False, True))
    partners = {}
    for index in range(120):
        anchor, positive, negative = numbers(shuffled[index])
        # The same anchors in the same order, partners of their own source, negatives with them.
        assert anchor == numbers(plain[index])[0]
        assert positive == negative and positive[0] == anchor[0] and positive != anchor
        assert partners.setdefault(anchor, positive) == positive  # in every pass
    assert len(partners) == 50 and set(partners.values()) == set(partners)
    # Of positives of other records nothing is known before.
    assert plain.sizes_of(range(9))[:, 2].all() and not shuffled.sizes_of(range(9))[:, 1:].any()
    other = stream(sources, True, seed=4)
    drawn = {tuple(numbers(other[index])[:2]) for index in range(120)}
    assert drawn != set(partners.items())


def test_it_is_another_sequence(tmp_path):
    sources = (write(tmp_path, "one", 30),)
    plain, shuffled = (stream(sources, which).fingerprint for which in (False, True))
    assert not is_same_sequence(plain, shuffled)
    assert is_same_sequence(shuffled, stream(sources, True).fingerprint)


def test_what_has_no_partner_is_refused(tmp_path):
    config = DataConfig((write(tmp_path, "one", 1),), batch_size=1, shuffled_positives=True)
    with pytest.raises(ValueError, match=r"one.jsonl has 1 example, whose positive nothing can"):
        ExampleStream(config, 0)
    file = tmp_path / "said.jsonl"
    file.write_text('{"prompt": {"text": "a"}, "response": "b"}\n' * 2)
    config = DataConfig((JsonlSource(str(file)),), batch_size=1, shuffled_positives=True)
    with pytest.raises(ValueError, match="is for contrastive stages"):
        ExampleStream(config, 0, Exchange)
