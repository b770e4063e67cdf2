"""Synthetic speech: which texts are spoken, and the dataset that a stand-in program speaks."""

import functools
import json
import pickle
import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from lco_jax.config import TfdsSource
from lco_jax.data.media.config import SoundConfig
from lco_jax.data.media.sound import load_sound
from lco_jax.data.sources.datasets import open_dataset, prepare
from lco_jax.data.sources.open import open_source
from lco_jax.data.sources.prepared import open_prepared
from lco_jax.lab.corpora import synthetic_speech
from lco_jax.lab.corpora import synthetic_speech_source as source
from lco_jax.lab.corpora.spoken_source import are_variants, words_of
from lco_jax.lab.corpora.synthetic_speech import SyntheticSpeech

_STAND_IN = """#!{python} -IS
import array, math, sys, wave
if "--version" in sys.argv:
    print("eSpeak NG text-to-speech: 9.9-test  Data at: nowhere")
    sys.exit()
text = sys.stdin.buffer.read().decode()
{before}
with open({log!r}, "a") as log:
    log.write(text + chr(10))
tone = array.array("h", (
    int({amplitude} * math.sin(at * (0.05 + len(text) / 500))) for at in range(900 * len(text))
))
with wave.open(sys.argv[sys.argv.index("-w") + 1], "wb") as file:
    file.setparams((1, 2, 22050, 0, "NONE", ""))
    file.writeframes(tone.tobytes())
"""
"""A tone for each text, whose length and pitch depend on it."""


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Installs the stand-in anew; the texts that it was given are in the file returned."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def install(before: str = "", amplitude: int = 9000) -> Path:
        log, file = tmp_path / "said.txt", folder / "espeak-ng"
        file.write_text(
            _STAND_IN.format(
                python=sys.executable, before=before, log=str(log), amplitude=amplitude
            )
        )
        file.chmod(0o755)
        return log

    return install


@pytest.fixture
def make(tmp_path):
    """The builder of a few clips."""
    return functools.partial(
        SyntheticSpeech,
        config_name="",
        data_dir=str(tmp_path / "tfds"),
        work_dir=str(tmp_path / "work"),
        max_clips=6,
    )


def read(builder):
    """What the builder has prepared."""
    return open_prepared(builder.data_path, "train", builder.columns)


# ---------------------------------------------------------------------------- choice of the texts


@pytest.fixture(scope="module")
def utterances():
    return source.choose_utterances()


def read_texts(name: str) -> list[str]:
    with source.FILES[name].open(encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    if name.startswith("emoji"):
        return [record["names"]["en"] for record in records]
    if name.startswith("spoken"):
        return [record["transcript"] for record in records]
    return [record[field]["text"] for record in records for field in ("anchor", "positive")]


def test_texts_are_those_of_training(utterances):
    texts = {kind: set() for kind in ("emoji", "wordnet")}
    for one in utterances:
        texts[one.id.partition("-")[0]].add(one.text)
    assert len(utterances) == len({one.id for one in utterances}) == 3000
    assert len({words_of(one.text) for one in utterances}) == 3000
    assert texts["emoji"] == set(read_texts("emoji_train"))
    assert len(texts["wordnet"]) == 1648
    assert texts["wordnet"] <= set(read_texts("wordnet_train"))
    assert {len(text.split()) for text in texts["wordnet"]} == set(range(2, 9))


def test_no_held_out_text_is_spoken(utterances):
    spoken = {words_of(one.text) for one in utterances}
    for name in ("emoji_test", "wordnet_test", "spoken_test"):
        assert spoken.isdisjoint(map(words_of, read_texts(name)))
    prompts = [words_of(text) for text in read_texts("spoken_test")]
    assert not any(are_variants(words, prompt) for words in spoken for prompt in prompts)


def test_held_out_texts_are_left_out(tmp_path, monkeypatch):
    """The same words in other spelling, and most words of a prompt."""
    texts = {
        "emoji_train": ("grinning face", "the line is very busy", "black cat"),
        "emoji_test": ("Black-Cat!",),
        "spoken_test": ("The line is busy.",),
        "wordnet_train": ("the LINE is busy", "a quiet place", "Grinning: face", "one", "(so) so"),
        "wordnet_test": ("a quiet  place.",),
    }
    for name, some in texts.items():
        records = [
            {"id": f"{at}", "names": {"en": text}, "transcript": text}
            | {field: {"text": text} for field in ("anchor", "positive")}
            for at, text in enumerate(some)
        ]
        file = tmp_path / f"{name}.jsonl"
        file.write_text("".join(json.dumps(record) + "\n" for record in records))
        monkeypatch.setitem(source.FILES, name, file)
    assert [one.text for one in source.choose_utterances()] == ["grinning face"]
    monkeypatch.setitem(source.FILES, "emoji_test", tmp_path / "gone.jsonl")
    with pytest.raises(FileNotFoundError, match=r"gone\.jsonl.*checkout of the repository"):
        source.choose_utterances()


def test_voices_are_drawn_evenly_and_always_the_same(utterances):
    again = source.choose_utterances()
    assert source.digest_utterances(again) == source.digest_utterances(utterances)
    assert source.digest_utterances(again[:-1]) != source.digest_utterances(utterances)
    voices = Counter(one.voice for one in utterances)
    assert len(voices) == len(source.VOICES) * len(source.VARIANTS)
    assert min(voices.values()) > 60 and max(voices.values()) < 150
    assert {one.words_per_minute for one in utterances} == set(source.WORDS_PER_MINUTE)
    pinned = source.Utterance("emoji-1f42b", "two-hump camel")
    assert (pinned.voice, pinned.words_per_minute) == ("en-gb-x-rp+f4", 155)


# ---------------------------------------------------------------------------------------- dataset


def test_dataset(program, make, utterances, tmp_path, monkeypatch):
    program()
    builder = make()
    builder.download_and_prepare()
    records = pickle.loads(pickle.dumps(read(builder)))
    expected = {one.id: one.text for one in utterances[:6]}
    assert {record["id"]: record["transcript"] for record in records} == expected
    for record in records:
        samples = load_sound(record["audio"], SoundConfig())
        seconds = 900 * len(record["transcript"]) / 22_050
        assert abs(len(samples) / 16_000 - seconds) < 0.01
        assert 0.2 < np.abs(samples).max() < 0.4
    with pytest.raises(IndexError, match="record 6 of 6"):
        records[6]

    # Opened without the program, under its name, and as a stage reads it.
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(synthetic_speech, "SyntheticSpeech", make)
    encoder = soundfile.__libsndfile_version__
    assert make().info.metadata == {"synthesizer": "eSpeak NG 9.9-test", "encoder": encoder}
    triplets = open_source(TfdsSource("synthetic_speech", data_dir=str(tmp_path / "tfds"))).records
    assert len(triplets) == 6
    assert triplets[0].anchor.audios == (records[0]["audio"],)
    assert triplets[0].positive.text == records[0]["transcript"]


def test_the_same_texts_give_the_same_bytes(program, make, tmp_path):
    program()
    found = []
    for folder in ("one", "two"):
        builder = make(data_dir=str(tmp_path / folder), work_dir=str(tmp_path / f"{folder} work"))
        builder.download_and_prepare()
        found.append({record["id"]: record for record in read(builder)})
    assert found[0] == found[1]


def test_interrupted_preparation_goes_on(program, make, utterances):
    bad = utterances[3].text
    log = program(before=f"if text == {bad!r}: sys.exit('no memory')")
    with pytest.raises(ValueError, match="no memory"):
        make().download_and_prepare()
    said = log.read_text().splitlines()
    assert set(said) >= {one.text for one in utterances[:3]} and bad not in said
    program()
    make().download_and_prepare()
    # Each was spoken once in all.
    assert sorted(log.read_text().splitlines()) == sorted(one.text for one in utterances[:6])
    builder = make()
    assert builder.is_prepared() and len(read(builder)) == 6


def test_a_text_is_never_an_option(program, tmp_path):
    log = program()
    one = source.Utterance("emoji-0", "--version; $(exit) été")
    source.synthesize([one], tmp_path / "clips")
    assert log.read_text() == one.text + "\n"
    assert [path.name for path in (tmp_path / "clips").iterdir()] == ["emoji-0.flac"]


@pytest.mark.parametrize(
    ("before", "amplitude", "message"),
    [
        ("sys.exit('no such voice')", 9000, "exit status 1 for ID .*no such voice; check"),
        ("sys.stderr.write('disk full'); sys.exit(0)", 9000, "that can be read for ID .*disk full"),
        ("text = ''", 9000, "nothing but silence for ID .*no message"),
        ("", 0, "nothing but silence for ID .*finished clips are kept"),
    ],
)
def test_failures_name_the_text(program, make, utterances, before, amplitude, message):
    program(before, amplitude)
    named = f"{utterances[0].id} .*{re.escape(utterances[0].voice)}.*"
    with pytest.raises(ValueError, match=message.replace("ID ", named)):
        make(max_clips=1).download_and_prepare()


def test_errors_say_what_to_do(program, make, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"apt install espeak-ng.*brew install espeak-ng"):
        make().download_and_prepare()
    program()
    file = tmp_path / "bin" / "espeak-ng"
    file.write_text(f"#!{sys.executable} -IS\nprint('another program 1.0')")
    with pytest.raises(ValueError, match=r"another program 1\.0.*apt install espeak-ng"):
        make().download_and_prepare()
    with pytest.raises(ValueError, match="synthetic_speech has no config 'fr'"):
        prepare("synthetic_speech/fr", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"prepare_data\.py synthetic_speech` first$"):
        open_dataset("synthetic_speech", data_dir=str(tmp_path))
