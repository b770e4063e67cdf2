"""Audio files of every kind as mono samples at 16 kHz; bad files end in an error."""

import re

import numpy as np
import pytest
import soxr

from lco_jax.data.media.audio import load_audio
from lco_jax.data.media.config import MelConfig
from lco_jax.data.media.errors import MediaError
from tests.data.audio_files import (
    BAD_AUDIO,
    RATE_HZ,
    mp3,
    plain,
    tones,
    track,
    with_cover,
    with_size,
)

CONFIG = MelConfig()


def assert_like(found: np.ndarray, expected: np.ndarray, least: float, delay: int = 0) -> None:
    """Correlated, where lossy codecs may add an encoder's delay and a last block."""
    assert found.dtype == np.float32
    assert 0 <= len(found) - len(expected) - delay < 2304
    found = found[delay : delay + len(expected)]
    assert np.corrcoef(found, expected)[0, 1] > least
    assert abs(found.std() / expected.std() - 1) < 0.05


# ------------------------------------------------------------------------------------ good files


@pytest.mark.parametrize(
    ("kind", "subtype", "error"),
    [
        ("WAV", "PCM_U8", 2**-7),
        ("WAV", "PCM_16", 2**-15),
        ("WAV", "PCM_24", 2**-23),
        ("WAV", "PCM_32", 2**-24),
        ("WAV", "FLOAT", 0),
        ("WAV", "DOUBLE", 0),
        ("FLAC", "PCM_16", 2**-15),
        ("FLAC", "PCM_24", 2**-23),
        ("AIFF", "PCM_16", 2**-15),
        ("CAF", "PCM_16", 2**-15),
    ],
)
def test_lossless(tmp_path, kind, subtype, error):
    samples = tones(1.5)
    path = tmp_path / "audio.dat"  # the content says what it is
    path.write_bytes(plain(samples, kind, subtype))
    found = load_audio(str(path), CONFIG)
    assert found.dtype == np.float32 and len(found) == len(samples)
    assert np.abs(found - samples).max() <= error


def test_float_values_beyond_full_scale_stay():
    samples = 40 * tones(1)
    np.testing.assert_array_equal(load_audio(plain(samples, subtype="FLOAT"), CONFIG), samples)


@pytest.mark.parametrize(
    ("make", "least", "delay"),
    [
        (lambda x: plain(x, "OGG"), 0.99, 0),
        (lambda x: plain(x, "OGG", "OPUS"), 0.99, 0),
        (lambda x: plain(x, "WAV", "ULAW"), 0.99, 0),
        (mp3, 0.99, 0),
        (lambda x: with_cover(mp3(x)), 0.99, 0),
        # Nothing tells how much the encoder put in front.
        (lambda x: mp3(x, has_length=False), 0.99, 1105),
        (lambda x: track("mp4", "aac", x), 0.99, 0),
        (lambda x: track("mp4", "aac", x, with_video=True), 0.99, 0),
        (lambda x: track("mov", "aac", x, with_video=True), 0.99, 0),
        (lambda x: track("matroska", "flac", x, with_video=True), 0.99, 0),
        (lambda x: track("webm", "libopus", x, with_video=True), 0.98, 0),
        (lambda x: track("ogg", "flac", x), 0.99, 0),
    ],
    ids=[
        "vorbis",
        "opus",
        "ulaw",
        "mp3",
        "cover",
        "guessed",
        "m4a",
        "mp4",
        "mov",
        "mkv",
        "webm",
        "ogg-flac",
    ],
)
def test_lossy_and_video(make, least, delay):
    samples = tones(4)
    assert_like(load_audio(make(samples), CONFIG), samples, least, delay)


@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000])
def test_any_rate(rate_hz):
    samples = tones(1, rate_hz)
    found = load_audio(plain(samples, subtype="FLOAT", rate_hz=rate_hz), CONFIG)
    np.testing.assert_array_equal(found, soxr.resample(samples, rate_hz, RATE_HZ))
    assert len(found) == RATE_HZ


def test_channels_are_averaged():
    left, right = tones(1, seed=1), tones(1, seed=2)
    stereo = np.stack([left, right], axis=1)
    for content in (plain(stereo, subtype="FLOAT"), plain(stereo, "FLAC", "PCM_24")):
        found = load_audio(content, CONFIG)
        np.testing.assert_allclose(found, (left + right) / 2, atol=1e-6)
    assert_like(load_audio(track("mp4", "aac", stereo), CONFIG), (left + right) / 2, 0.99)
    six = np.stack([left, right] * 3, axis=1)
    found = load_audio(plain(six, subtype="FLOAT"), CONFIG)
    np.testing.assert_allclose(found, (left + right) / 2, atol=1e-6)


def test_sizes_that_the_writer_could_not_know():
    samples = tones(1)
    content = plain(samples, subtype="PCM_16")
    whole = load_audio(content, CONFIG)
    for size in (0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000):
        found = load_audio(with_size(content, size), CONFIG)
        np.testing.assert_array_equal(found, whole)


def test_silence_is_audio():
    found = load_audio(plain(np.zeros(RATE_HZ, np.float32)), CONFIG)
    assert len(found) == RATE_HZ and not found.any()


def test_shortest_and_longest():
    shortest = plain(tones(1)[:321])
    assert len(load_audio(shortest, CONFIG)) == 321
    samples = tones(3, 44_100)
    whole = soxr.resample(samples, 44_100, RATE_HZ)
    cut, refuse = (MelConfig(max_seconds=1.7, when_longer=way) for way in ("cut", "refuse"))
    for content in (
        plain(samples, subtype="FLOAT", rate_hz=44_100),
        track("matroska", "pcm_f32le", samples, 44_100),
    ):
        found = load_audio(content, cut)
        assert len(found) == cut.max_samples == 27_200
        np.testing.assert_allclose(found, whole[:27_200], atol=1e-6)
        with pytest.raises(MediaError, match=r"bytes: longer than max_seconds=1\.7; cut it into"):
            load_audio(content, refuse)
    exact = plain(samples[: round(1.7 * 44_100)], rate_hz=44_100)
    assert len(load_audio(exact, refuse)) == 27_200


# ------------------------------------------------------------------------------------- bad files


@pytest.mark.parametrize("name", BAD_AUDIO)
def test_bad_files(tmp_path, name):
    make, message = BAD_AUDIO[name]
    path = tmp_path / name
    path.write_bytes(make())
    with pytest.raises(MediaError, match=message) as caught:
        load_audio(str(path), CONFIG)
    assert str(caught.value).startswith(f"{path}: ")
    assert re.search("; |: copy", str(caught.value))  # the remedy


def test_missing_file():
    with pytest.raises(MediaError, match=r"nowhere\.wav: no such file; correct the path"):
        load_audio("nowhere.wav", CONFIG)


# ---------------------------------------------------------------------------------------- config


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"num_mels": 0}, "num_mels=0 must be positive"),
        ({"chunk_frames": 202}, "chunk_frames=202 must be a positive multiple of 4"),
        ({"max_seconds": 301}, "max_seconds=301, buffer_seconds=300: expected"),
        ({"when_longer": "shrink"}, "when_longer='shrink'; expected 'cut' or 'refuse'"),
    ],
)
def test_contradictory_settings(field, message):
    with pytest.raises(ValueError, match=message):
        MelConfig(**field)
