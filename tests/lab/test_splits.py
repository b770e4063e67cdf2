"""Development splits and folds: what is held apart, and that nothing alike is on both sides."""

import json
from pathlib import Path

import pytest

from lco_jax.config import TfdsSource
from lco_jax.data.sources.datasets import open_dataset
from lco_jax.lab.corpora import emoji_source, spoken_source
from lco_jax.lab.corpora.synthetic_speech_source import choose_utterances
from lco_jax.lab.held_apart import for_choices, in_fold
from lco_jax.lab.recipes import lab_full, quickstart

DATA = Path(__file__).parents[2] / "data"
FOLDS = [f"spoken/fold{number}" for number in range(1, 6)]


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("tfds"))

    def records(name, split):
        found = open_dataset(name, split, folder)
        return [found[index] for index in range(len(found))]

    return records


def committed(name):
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


def words(records):
    return {spoken_source.words_of(record["transcript"]) for record in records}


def ids(records):
    return {record["id"] for record in records}


def assert_apart(train, held_out):
    assert not any(spoken_source.are_variants(a, b) for a in words(train) for b in words(held_out))


# --------------------------------------------------------------------------------------- folds


def test_every_long_transcript_is_held_out_in_exactly_one_fold(read):
    everything = committed("spoken/spoken_train.jsonl") + committed("spoken/spoken_test.jsonl")
    expected = {said for said in words(everything) if len(said) >= 4}
    assert len(expected) == 219
    found = [words(read(name, "test")) for name in FOLDS]
    assert sum(map(len, found)) == len(set().union(*found))
    assert set().union(*found) == expected
    assert sorted(map(len, found)) == [43, 44, 44, 44, 44]


@pytest.mark.parametrize("name", FOLDS)
def test_no_transcript_straddles_a_fold(read, name):
    train, test = read(name, "train"), read(name, "test")
    assert_apart(train, test)
    assert len(words(test)) == len(test)  # every query has one right answer
    # Only variants of what is held out are missing.
    everything = committed("spoken/spoken_train.jsonl") + committed("spoken/spoken_test.jsonl")
    missing = [one for one in everything if one["id"] not in ids(train) | ids(test)]
    assert len(missing) < 20
    held_out = spoken_source.group_variants(
        [spoken_source.Spoken(one["id"], one["transcript"], b"") for one in everything]
    )
    groups = [{one.id for one in group} for group in held_out]
    assert all(
        any({one["id"]} < group and group & ids(test) for group in groups) for one in missing
    )


def test_what_the_program_says_is_held_out_in_no_fold():
    """Synthetic speech is trained on in every fold."""
    prompts = [
        said
        for name in ("train", "test")
        for said in words(committed(f"spoken/spoken_{name}.jsonl"))
    ]
    said = [spoken_source.words_of(one.text) for one in choose_utterances()]
    for prompt in (one for one in prompts if len(one) >= 4):
        assert not any(spoken_source.are_variants(one, prompt) for one in said), prompt


# ------------------------------------------------------------------------------------ development


@pytest.mark.parametrize("name", ["spoken", *FOLDS])
def test_choices_are_made_on_prompts_that_no_fold_measures(read, name):
    train, fit, dev = (read(name, split) for split in ("train", "fit", "dev"))
    assert ids(fit) | ids(dev) <= ids(train)
    assert_apart(fit, dev)
    assert ids(dev) == ids(read("spoken", "dev")) and len(dev) == 60
    assert all(2 <= len(said) <= 3 for said in words(dev))
    assert not any(words(dev) & words(read(fold, "test")) for fold in FOLDS)


def test_no_motif_straddles(read):
    train, fit, dev = (read("emoji", split) for split in ("train", "fit", "dev"))
    assert (len(fit), len(dev)) == (1152, 200)
    assert ids(fit) | ids(dev) == ids(train)

    def motifs(records):
        codes = ([chr(int(code, 16)) for code in one["id"].split("-")] for one in records)
        return {emoji_source.motif("".join(symbol)) for symbol in codes}

    assert motifs(fit).isdisjoint(motifs(dev))
    assert {one["name"].lower() for one in fit}.isdisjoint(one["name"].lower() for one in dev)


def test_no_word_or_definition_straddles(read):
    train, fit, dev = (read("wordnet", split) for split in ("train", "fit", "dev"))
    assert len(dev) == 200 and 5_000 < len(fit) < 6_000 - 200
    assert ids(fit) < ids(train) and ids(dev) < ids(train) and ids(fit).isdisjoint(ids(dev))
    glosses = [one["positive"].lower().split(": ", 1) for one in dev]
    for one in fit:
        texts = {text.lower() for text in (one["positive"], *one["negatives"])}
        named = {part for text in texts for part in text.split(": ", 1)}
        named |= set(one["anchor"].lower().split(", "))
        assert not any(named & set(gloss) for gloss in glosses), one
    assert not any(one["negatives"] for one in dev)
    assert min(len(one["anchor"].split()) for one in dev) > 3  # examples, not lists of synonyms


def test_unknown_names_are_refused(read):
    with pytest.raises(ValueError, match=r"no config 'fold9'; choose one of \['fold1', 'fold2'"):
        read("spoken/fold9", "train")
    with pytest.raises(
        ValueError, match=r"no split 'valid'; use \['dev', 'fit', 'test', 'train'\]"
    ):
        read("spoken/fold2", "valid")


# ---------------------------------------------------------------------------------------- recipes


def sources(stages):
    for stage in stages.stages:
        config = stage.config
        yield from config.data.sources
        if config.evaluation is not None:
            yield from (config.evaluation.source, *config.evaluation.others)
    yield from stages.samples.sources


@pytest.mark.parametrize("recipe", [quickstart(), lab_full(decoder=None)])
def test_recipes_on_other_parts(recipe):
    before = list(sources(recipe))
    assert {one.split for one in before} == {"train", "test"}
    for old, new in zip(before, sources(for_choices(recipe)), strict=True):
        known = old.name in ("emoji", "spoken", "wordnet")
        assert new.split == ({"train": "fit", "test": "dev"}[old.split] if known else old.split)
        assert new.name == old.name and new.weight == old.weight
    for old, new in zip(before, sources(in_fold(recipe, 3)), strict=True):
        assert new.name == ("spoken/fold3" if old.name == "spoken" else old.name)
        assert isinstance(new, TfdsSource) and new.split == old.split
    both = list(sources(for_choices(in_fold(recipe, 3))))
    assert ("spoken/fold3", "fit") in [(one.name, one.split) for one in both]
