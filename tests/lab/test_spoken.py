"""Spoken prompts: the committed files, the dataset made of them, and how they are held apart."""

import gzip
import json
import pickle
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest

from lco_jax.data.media.config import SoundConfig
from lco_jax.data.media.sound import load_sound
from lco_jax.data.sources.datasets import open_dataset
from lco_jax.lab.corpora import spoken_source
from lco_jax.lab.corpora.spoken import Spoken
from tests.data.sound_files import plain, tones

FOLDER = Path(__file__).parents[2] / "data" / "spoken"


def read_lines(split: str) -> dict[str, dict]:
    with (FOLDER / f"spoken_{split}.jsonl").open(encoding="utf-8") as file:
        return {line["id"]: line for line in map(json.loads, file)}


def spoken(name: str, transcript: str) -> spoken_source.Spoken:
    return spoken_source.Spoken(name, transcript, b"")


# ---------------------------------------------------------------------------- committed files


def test_committed_files():
    train, test = read_lines("train"), read_lines("test")
    assert [len(train), len(test)] == [482, 60]
    with zipfile.ZipFile(FOLDER / "clips.zip") as clips:
        assert set(clips.namelist()) == {f"{name}.ogg" for name in [*train, *test]}
        for name in clips.namelist()[::40]:
            samples = load_sound(clips.read(name), SoundConfig())
            assert 0.4 * 16_000 < len(samples) <= 30 * 16_000
            assert 0.01 < np.abs(samples).max() <= 1.1, name
    assert "CC-BY-SA-3.0" in (FOLDER / "LICENSE.asterisk-sounds").read_text(encoding="utf-8")
    assert "Allison Smith" in (FOLDER / "README.md").read_text(encoding="utf-8")
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 6_000_000
    assert train["vm-goodbye"]["transcript"] == "Goodbye"


def test_held_out_sentences_are_not_heard_in_training():
    train, test = (
        [spoken(name=line["id"], transcript=line["transcript"]) for line in lines.values()]
        for lines in (read_lines("train"), read_lines("test"))
    )
    assert len({one.words for one in test}) == len(test)
    assert min(len(one.words) for one in test) >= spoken_source.MIN_TEST_WORDS
    assert not any(
        spoken_source.are_variants(one, other)
        for one in [one.words for one in test]
        for other in [other.words for other in train]
    )


# -------------------------------------------------------------------------------------- dataset


def test_dataset_gives_back_the_files(tmp_path):
    clips = zipfile.ZipFile(FOLDER / "clips.zip")
    for split in ("train", "test"):
        lines = read_lines(split)
        source = pickle.loads(pickle.dumps(open_dataset("spoken", split, str(tmp_path))))
        assert {record["id"] for record in source} == set(lines)
        for index in range(0, len(source), 7):
            record = dict(source[index])
            assert record.pop("audio") == clips.read(f"{record['id']}.ogg")
            assert record == lines[record["id"]]
    with pytest.raises(IndexError, match="record 60 of 60"):
        source[60]
    with pytest.raises(ValueError, match="spoken has no config 'fr'"):
        Spoken(config_name="fr", data_dir=str(tmp_path))


# --------------------------------------------------------------------------------- how it is made


def test_variants_are_grouped():
    first, second, third, other = (
        spoken("a", "Please enter your password"),
        spoken("b", "please enter your new password."),
        spoken("c", "please enter your new long password"),
        spoken("d", "That conference is full."),
    )
    assert not spoken_source.are_variants(first.words, third.words)
    groups = spoken_source.group_variants([first, third, other, second])
    assert sorted(len(group) for group in groups) == [1, 3]


def test_split(monkeypatch):
    monkeypatch.setattr(spoken_source, "NUM_TEST", 10)
    words = [f"word{index}" for index in range(400)]
    clips = [spoken(f"{at}", " ".join(words[at : at + 1 + at % 7])) for at in range(0, 392, 8)]
    clips += [spoken(f"again {one.id}", one.transcript.upper()) for one in clips[::2]]
    train, test = spoken_source.split_spoken(clips, random.Random(0))
    assert (train, test) == spoken_source.split_spoken(clips, random.Random(0))
    assert len(test) == 10
    held_out = {one.words for one in test}
    assert len(held_out) == 10 and min(map(len, held_out)) >= 4
    assert held_out.isdisjoint(one.words for one in train)
    assert len(train) == sum(one.words not in held_out for one in clips)
    assert not any(one.id.startswith("again") for one in test)


def test_what_is_left_out(tmp_path):
    """Sounds without words, long clips, entries without a clip; remarks go, the rest stays."""
    lines = {
        "beep": "[this is a simple beep tone]",
        "silence/1": "(1 second of silence)",
        "join": "<beep ascending>",
        "gone": "There is no clip.",
        "long": "This takes its time.",
        "letters/at": "at [@]",
        "intro": "...leave your message.  When done hang up. (simple tone sound plays)",
    }
    transcripts = tmp_path / spoken_source._TRANSCRIPTS
    transcripts.parent.mkdir(parents=True)
    text = "; A title\n\n" + "".join(f"{name}: {line}\n" for name, line in lines.items())
    transcripts.write_bytes(gzip.compress(text.encode()))
    for name in lines.keys() - {"gone"}:
        file = tmp_path / spoken_source._CLIPS / f"{name}.wav"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(plain(tones(31 if name == "long" else 0.5, 8_000), rate_hz=8_000))
    found = spoken_source.read_spoken(tmp_path)
    assert {one.id: one.transcript for one in found} == {
        "intro": "leave your message. When done hang up.",
        "letters/at": "at",
    }
    samples = load_sound(found[0].audio, SoundConfig())
    assert len(samples) == 8_000
    assert len(found[0].audio) < 3_000
