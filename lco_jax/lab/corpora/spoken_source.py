"""Spoken English prompts with their transcripts, for `data/spoken`.

Clips and transcripts are those that Debian packages for the Asterisk telephone exchange.
"""

import gzip
import io
import random
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import soundfile

from lco_jax.lab.corpora.committed import Described, write_described

NUM_TEST = 60
MIN_TEST_WORDS = 4
"""Held-out clips say at least so much; shorter ones are for training only."""
MAX_SECONDS = 30.0
ARCHIVE = "clips.zip"

PACKAGES = ("asterisk-core-sounds-en=1.6.1-1", "asterisk-core-sounds-en-wav=1.6.1-1")
"""Transcripts, and clips."""
_CLIPS = Path("usr/share/asterisk/sounds/en_US_f_Allison")
_TRANSCRIPTS = Path("usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz")
_LICENCE = Path("usr/share/doc/asterisk-core-sounds-en-wav/copyright")
_NOISE = ("(", "[", "<")
"""How transcripts begin that describe a sound in place of words."""
_REMARK = re.compile(r"\[.*?\]|\(.*?\)|\.{3}")
_ALIKE = 0.7
"""Share of common words from which two transcripts count as variants of one."""
_COMPRESSION = 0.94
"""Of libsndfile, 0 to 1: about 25 kbit/s for these clips."""


@dataclass(frozen=True)
class Spoken:
    """A clip and what is said in it."""

    id: str
    """Name of the file in Asterisk, e.g. `"vm-goodbye"` or `"digits/7"`."""
    transcript: str
    audio: bytes
    """Ogg Opus, mono."""

    @property
    def words(self) -> tuple[str, ...]:
        """Of the transcript, without punctuation."""
        return words_of(self.transcript)


def words_of(text: str) -> tuple[str, ...]:
    """The words of an English text in lower case, without punctuation."""
    return tuple(re.findall(r"[a-z0-9']+", text.lower()))


def write_spoken(packages: Path, output: Path, seed: int = 0) -> None:
    """Write `spoken_train.jsonl`, `spoken_test.jsonl`, `clips.zip` and the licence.

    Args:
        packages: where `PACKAGES` are unpacked.
        output: folder of the files.
        seed: of the choice of the held-out clips.

    Raises:
        FileNotFoundError: `packages` lacks a file.
    """
    train, test = split_spoken(read_spoken(packages), random.Random(seed))
    splits = {"train": [_describe(one) for one in train], "test": [_describe(one) for one in test]}
    write_described(output, "spoken", splits, ARCHIVE, ".ogg")
    shutil.copyfile(packages / _LICENCE, output / "LICENSE.asterisk-sounds")


def _describe(spoken: Spoken) -> Described:
    return {"id": spoken.id, "transcript": spoken.transcript}, spoken.audio


def read_spoken(packages: Path) -> list[Spoken]:
    """All clips of up to 30 s in which something is said, by name.

    Remarks in brackets and dots of omission are taken out of the transcripts.
    """
    with gzip.open(packages / _TRANSCRIPTS, "rt", encoding="utf-8") as lines:
        entries = [line.partition(": ") for line in lines if not line.startswith(";")]
    spoken = []
    for name, colon, text in sorted(entries):
        file = packages / _CLIPS / f"{name}.wav"
        transcript = " ".join(_REMARK.sub(" ", text).split())
        # One transcript has no clip.
        if not colon or text.startswith(_NOISE) or not transcript or not file.exists():
            continue
        if soundfile.info(file).duration <= MAX_SECONDS:
            spoken.append(Spoken(name, transcript, encode(file)))
    return spoken


def encode(file: Path) -> bytes:
    """A sound file as Ogg Opus, whose headers are far smaller than those of Vorbis."""
    samples, rate_hz = soundfile.read(file, dtype="float32")
    buffer = io.BytesIO()
    options = {"format": "OGG", "subtype": "OPUS", "compression_level": _COMPRESSION}
    soundfile.write(buffer, samples, rate_hz, **options)
    return buffer.getvalue()


def split_spoken(spoken: list[Spoken], rng: random.Random) -> tuple[list[Spoken], list[Spoken]]:
    """Clips to train on and held-out ones, with all variants of a transcript on one side.

    Of each held-out transcript the first clip is kept, so that every one has a single match.
    """
    held_out: set[str] = set()
    kept: dict[tuple[str, ...], str] = {}
    groups = group_variants(spoken)
    rng.shuffle(groups)
    for group in groups:
        words = {one.words: one.id for one in reversed(group)}
        if min(map(len, words)) >= MIN_TEST_WORDS and len(kept) + len(words) <= NUM_TEST:
            held_out.update(one.id for one in group)
            kept |= words
    train = [one for one in spoken if one.id not in held_out]
    return train, [one for one in spoken if one.id in kept.values()]


def group_variants(spoken: list[Spoken]) -> list[list[Spoken]]:
    """Clips that say nearly the same, directly or through others."""
    groups: list[list[Spoken]] = []
    for one in spoken:
        alike = [
            group
            for group in groups
            if any(are_variants(one.words, other.words) for other in group)
        ]
        groups = [group for group in groups if group not in alike]
        groups.append([*(other for group in alike for other in group), one])
    return groups


def are_variants(first: Sequence[str], second: Sequence[str]) -> bool:
    """Whether two texts, as `words_of` gives them, share most of their words."""
    words, others = set(first), set(second)
    return len(words & others) >= _ALIKE * len(words | others)
