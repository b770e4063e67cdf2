"""Mel frames against transformers' WhisperFeatureExtractor; chunks and counts of tokens."""

import numpy as np
import pytest
import torch
from transformers import WhisperFeatureExtractor
from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import Qwen2_5OmniAudioEncoder
from transformers.models.whisper import feature_extraction_whisper

from lco_jax.data.media.config import MelConfig
from lco_jax.data.media.mel import log_mel, mel_chunks, num_audio_tokens
from tests.data.audio_files import tones

BUFFER_S = 12
"""In place of the 300 s of the public checkpoints, whose frames take their time in torch."""
RECORDINGS = {
    "0.05 s": tones(0.05),
    "a frame and a sample": tones(1)[:161],
    "two frames": tones(1)[:320],
    "no multiple": tones(2.345),
    "silence": np.zeros(4000, np.float32),
    "a click at its end": np.eye(1, 1600, 1599, dtype=np.float32)[0],
    "a click before its end": np.eye(1, 1600, 1450, dtype=np.float32)[0],
    "loud": 30 * tones(0.7),
    "almost the buffer": tones(BUFFER_S)[:-77],
    "the whole buffer": tones(BUFFER_S),
}


@pytest.fixture(params=["numpy", "torch"])
def tolerance(request, monkeypatch):
    """Of transformers' two versions: torch's float32 spectrum strays by 5e-5 in faint frames."""
    if request.param == "numpy":
        monkeypatch.setattr(feature_extraction_whisper, "is_torch_available", lambda: False)
        return 1e-6
    return None


def assert_frames(samples, num_mels, tolerance, name):
    config = MelConfig(num_mels=num_mels, buffer_seconds=BUFFER_S, max_seconds=BUFFER_S)
    theirs = WhisperFeatureExtractor(feature_size=num_mels, chunk_length=BUFFER_S)
    options = {"sampling_rate": 16_000, "return_attention_mask": True, "return_tensors": "np"}
    expected = theirs(samples, **options)
    found = log_mel(samples[: config.max_samples], config)
    assert found.dtype == np.float32
    assert found.shape == (num_mels, expected["attention_mask"].sum()), name
    error = np.abs(found - expected["input_features"][0][:, : found.shape[1]]).max()
    if tolerance is None:
        # No further from torch's version than the exact one of the same class.
        padded = np.pad(samples, (0, max(BUFFER_S * 16_000 - len(samples), 0)))
        exact = theirs._np_extract_fbank_features(padded[None, : BUFFER_S * 16_000], "cpu")
        stray = np.abs(exact - expected["input_features"])[..., : found.shape[1]].max()
        tolerance = stray + 1e-6
        assert stray < 1e-4
    assert error <= tolerance, name


@pytest.mark.parametrize("num_mels", [128, 80])
def test_frames_are_those_of_transformers(num_mels, tolerance):
    for name, samples in RECORDINGS.items():
        assert_frames(samples, num_mels, tolerance, name)


def test_long_recordings_are_cut_as_in_transformers(tolerance):
    assert_frames(tones(BUFFER_S + 1), 128, tolerance, "long")


def test_what_the_buffer_cannot_hold():
    config = MelConfig(buffer_seconds=BUFFER_S, max_seconds=BUFFER_S)
    samples = tones(BUFFER_S + 1)
    with pytest.raises(ValueError, match=r"208000 samples; expected 1 to 192000 .*cut the rec"):
        log_mel(samples, config)
    with pytest.raises(ValueError, match="0 samples"):
        log_mel(samples[:0], config)


@pytest.mark.parametrize("num_frames", [1, 199, 200, 201, 403])
def test_chunks(num_frames):
    mel = np.random.default_rng(0).normal(size=(128, num_frames)).astype(np.float32)
    chunks, lengths = mel_chunks(mel, MelConfig())
    assert chunks.shape == (-(-num_frames // 200), 128, 200)
    assert lengths.dtype == np.int32 and lengths.sum() == num_frames
    assert (lengths[:-1] == 200).all() and 0 < lengths[-1] <= 200
    real = [chunk[:, :length] for chunk, length in zip(chunks, lengths, strict=True)]
    np.testing.assert_array_equal(np.concatenate(real, axis=1), mel)
    assert not chunks[-1, :, lengths[-1] :].any()


def test_number_of_tokens():
    frames = torch.arange(1, 1300)
    _, expected = Qwen2_5OmniAudioEncoder._get_feat_extract_output_lengths(None, frames)
    assert [num_audio_tokens(length) for length in frames.tolist()] == expected.tolist()
    assert [num_audio_tokens(length) for length in (2, 3, 51, 200, 201)] == [0, 1, 13, 50, 50]
    for length in range(3, 1300):
        whole, rest = divmod(length, 200)
        assert num_audio_tokens(length) == 50 * whole + num_audio_tokens(rest)
