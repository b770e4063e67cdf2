"""English texts spoken by a program, eSpeak NG: which texts, in which voices, and the synthesis.

Texts are names of emoji and short texts of WordNet, from the training files of this repository.
"""

import hashlib
import io
import json
import logging
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
import soxr
from rich.console import Console
from rich.progress import track

from lco_jax.lab.corpora.committed import DATA, read_lines, require
from lco_jax.lab.corpora.spoken_source import are_variants, words_of

NUM_CLIPS = 3000
"""All names of training emoji, and as many texts of WordNet as are then missing."""
RATE_HZ = 8000
"""Of the recorded prompts of `spoken`, too: the band of a telephone."""
VOICES = ("en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-029")
VARIANTS = ("", "+m3", "+m7", "+f2", "+f3", "+f4")
WORDS_PER_MINUTE = range(130, 176)

FILES = {
    "emoji_train": DATA / "emoji" / "emoji_train.jsonl",
    "emoji_test": DATA / "emoji" / "emoji_test.jsonl",
    "wordnet_train": DATA / "quickstart" / "wordnet_train.jsonl",
    "wordnet_test": DATA / "quickstart" / "wordnet_test.jsonl",
    "spoken_test": DATA / "spoken" / "spoken_test.jsonl",
}
"""Texts to choose from, and held-out ones that are never chosen."""
_NUM_WORDS = range(2, 9)
"""Of a text of WordNet; names of emoji are short as they are."""
_SAYABLE = re.compile(r"[A-Za-z][A-Za-z' ,:;!?-]*")
"""Texts of WordNet with digits, brackets or quotation marks are read aloud in many ways."""

_PROGRAM = "espeak-ng"
_INSTALL = "install it: apt install espeak-ng (Debian, Ubuntu), brew install espeak-ng (macOS)"
_MIN_PEAK = 0.01
"""Of full scale; speech has tenths of it."""
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Utterance:
    """A text and how the program is to say it."""

    id: str
    """Where the text is from, e.g. `"emoji-1f42b"` or `"wordnet-00058897-r-anchor"`."""
    text: str

    @property
    def voice(self) -> str:
        """Accent and speaker, drawn by the id."""
        digest = _digest(self.id)
        return VOICES[digest[-1] % len(VOICES)] + VARIANTS[digest[-2] % len(VARIANTS)]

    @property
    def words_per_minute(self) -> int:
        """Drawn by the id."""
        number = int.from_bytes(_digest(self.id)[-4:-2])
        return WORDS_PER_MINUTE[number % len(WORDS_PER_MINUTE)]


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


# ---------------------------------------------------------------------------- choice of the texts


def choose_utterances() -> list[Utterance]:
    """What is said, always the same, in an order drawn by the ids.

    No two texts have the same words, and none has those of a held-out emoji or pair, or most of
    those of a held-out prompt.

    Raises:
        FileNotFoundError: the package was installed without the repository's data folder.
    """
    require(FILES.values())
    prompts = [words_of(line["transcript"]) for line in read_lines(FILES["spoken_test"])]
    taken = {words_of(one.text) for one in (*_read_emoji("test"), *_read_wordnet("test"))}
    wordnet = [one for one in _read_wordnet("train") if _is_short(one.text)]
    chosen: list[Utterance] = []
    for one in (*_read_emoji("train"), *sorted(wordnet, key=_order)):
        words = words_of(one.text)
        if len(chosen) == NUM_CLIPS or words in taken:
            continue
        if not any(are_variants(words, prompt) for prompt in prompts):
            taken.add(words)
            chosen.append(one)
    return sorted(chosen, key=_order)


def _read_emoji(split: str) -> Iterator[Utterance]:
    for line in read_lines(FILES[f"emoji_{split}"]):
        yield Utterance(f"emoji-{line['id']}", line["names"]["en"])


def _read_wordnet(split: str) -> Iterator[Utterance]:
    for line in read_lines(FILES[f"wordnet_{split}"]):
        for field in ("anchor", "positive"):
            yield Utterance(f"wordnet-{line['id']}-{field}", line[field]["text"])


def _is_short(text: str) -> bool:
    return len(text.split()) in _NUM_WORDS and _SAYABLE.fullmatch(text) is not None


def _order(utterance: Utterance) -> bytes:
    return _digest(utterance.id)


def digest_utterances(utterances: Sequence[Utterance]) -> str:
    """Short hash of texts, voices and rates."""
    plan = [{**asdict(one), "voice": one.voice, "rate": one.words_per_minute} for one in utterances]
    return hashlib.sha256(json.dumps(plan).encode()).hexdigest()[:8]


# -------------------------------------------------------------------------------------- synthesis


def find_synthesizer() -> str:
    """Version of the program that speaks, e.g. `"1.51"`.

    Raises:
        FileNotFoundError: it is not on this machine.
        ValueError: the program of that name is another.
    """
    if shutil.which(_PROGRAM) is None:
        raise FileNotFoundError(f"{_PROGRAM} is not on PATH, it speaks the texts; {_INSTALL}")
    run = subprocess.run((_PROGRAM, "--version"), capture_output=True, text=True, errors="replace")
    version = re.search(r"eSpeak NG text-to-speech: ([\w.-]+)", run.stdout)
    if version is None:
        shown = (run.stdout + run.stderr).strip()[:200]
        raise ValueError(
            f"{shutil.which(_PROGRAM)} --version names no version of eSpeak NG, but {shown!r}; "
            f"{_INSTALL}"
        )
    return version[1]


def synthesize(utterances: Sequence[Utterance], folder: Path) -> None:
    """Write `ID.flac` for each utterance that has none in `folder` yet; several speak at a time.

    Raises:
        ValueError: the program failed on a text, or wrote nothing that can be heard.
    """
    missing = [one for one in utterances if not clip_file(folder, one).exists()]
    if not missing:
        return
    _logger.info("speaking %d of %d texts with %s", len(missing), len(utterances), _PROGRAM)
    folder.mkdir(parents=True, exist_ok=True)
    console = Console(stderr=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        clips = pool.map(partial(_write_clip, folder=folder), missing)
        for _ in track(
            clips, "synthetic speech", total=len(missing), console=console, transient=True
        ):
            pass


def clip_file(folder: Path, utterance: Utterance) -> Path:
    """Where `synthesize` puts a clip."""
    return folder / f"{utterance.id}.flac"


def _write_clip(utterance: Utterance, folder: Path) -> None:
    clip = clip_file(folder, utterance)
    spoken, draft = clip.with_suffix(".wav"), clip.with_suffix(".partial")
    draft.write_bytes(_speak(utterance, spoken))
    spoken.unlink()
    draft.rename(clip)  # at once: a clip that is there is complete


def _speak(utterance: Utterance, file: Path) -> bytes:
    """An utterance as FLAC; `file` is what the program writes meanwhile."""
    file.unlink(missing_ok=True)  # of a synthesis that was interrupted
    options = ("-v", utterance.voice, "-s", str(utterance.words_per_minute), "-w", str(file))
    # UTF-8 whatever the locale, and without the pause that ends a sentence.
    command = (_PROGRAM, "-b", "1", "-z", *options, "--stdin")
    run = subprocess.run(command, input=utterance.text.encode(), capture_output=True)
    if run.returncode:
        raise _failure(utterance, f"failed with exit status {run.returncode}", run.stderr)
    try:
        samples, rate_hz = soundfile.read(file, dtype="float32")
    except soundfile.SoundFileError as error:
        raise _failure(utterance, "wrote no sound that can be read", run.stderr) from error
    if np.abs(samples).max(initial=0) < _MIN_PEAK:
        raise _failure(utterance, "wrote nothing but silence", run.stderr)
    buffer = io.BytesIO()
    # Unlike Ogg, whose streams have random numbers, FLAC gives one text the same bytes every time
    # (of one version of the encoder, whose name it carries).
    soundfile.write(buffer, soxr.resample(samples, rate_hz, RATE_HZ), RATE_HZ, format="FLAC")
    return buffer.getvalue()


def _failure(utterance: Utterance, what: str, stderr: bytes) -> ValueError:
    message = stderr.decode(errors="replace").strip()[-300:] or "no message"
    return ValueError(
        f"{_PROGRAM} {what} for {utterance.id} ({utterance.text!r}, voice {utterance.voice}): "
        f"{message}; check free space and that `{_PROGRAM} -v {utterance.voice} hello` is heard, "
        "or install it anew with its voices, then run again: finished clips are kept"
    )
