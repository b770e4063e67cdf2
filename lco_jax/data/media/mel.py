"""Log-mel frames of a recording, and the chunks in which the audio tower reads them."""

import functools
from typing import TypeVar

import numpy as np
from jaxtyping import Float32, Float64, Int, Int32
from transformers.audio_utils import mel_filter_bank

from lco_jax.data.media.config import FFT_SAMPLES, HOP_SAMPLES, SAMPLE_RATE_HZ, MelConfig

_FLOOR = 1e-10
_RANGE = 8.0
"""Powers of ten below the loudest value of a recording; what is quieter is raised to it."""
_TAIL_SAMPLES = 5 * HOP_SAMPLES
"""Silence behind a recording, so that the frames which still reach its end mirror none of it."""
_BLOCK_FRAMES = 2000
"""Frames that are transformed together; bounds the memory of long recordings."""


Frames = TypeVar("Frames", int, Int[np.ndarray, "n"])


def log_mel(samples: Float32[np.ndarray, "n"], config: MelConfig) -> Float32[np.ndarray, "M F"]:
    """The log-mel frames of a mono recording at 16 kHz, one for each begun 10 ms.

    They are those of the recording at the start of a long silence, as transformers pads it.

    Raises:
        ValueError: no samples, or more than the config's buffer holds.

    Source: transformers WhisperFeatureExtractor (its numpy and torch versions).
    """
    buffer_samples = config.buffer_seconds * SAMPLE_RATE_HZ
    if not 0 < len(samples) <= buffer_samples:
        raise ValueError(
            f"{len(samples)} samples; expected 1 to {buffer_samples} (buffer_seconds="
            f"{config.buffer_seconds}); cut the recording"
        )
    num_frames = -(-len(samples) // HOP_SAMPLES)
    # Two more frames reach the end of the recording, and one of them may be the loudest.
    num_heard = min(num_frames + 2, buffer_samples // HOP_SAMPLES)
    padded = np.pad(samples, (0, min(_TAIL_SAMPLES, buffer_samples - len(samples))))
    padded = np.pad(padded, FFT_SAMPLES // 2, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, FFT_SAMPLES)
    windows = windows[::HOP_SAMPLES][:num_heard]
    filters = _filters(config.num_mels)
    blocks = []
    for first in range(0, num_heard, _BLOCK_FRAMES):
        spectrum = np.fft.rfft(windows[first : first + _BLOCK_FRAMES] * _window())
        blocks.append((np.square(spectrum.real) + np.square(spectrum.imag)) @ filters)
    levels = np.log10(np.maximum(np.concatenate(blocks), _FLOOR)).astype(np.float32)
    levels = np.maximum(levels, levels.max() - np.float32(_RANGE))
    return np.ascontiguousarray(((levels + 4) / 4)[:num_frames].T)


@functools.cache
def _window() -> Float64[np.ndarray, "n"]:
    return np.hanning(FFT_SAMPLES + 1)[:-1]


@functools.cache
def _filters(num_mels: int) -> Float64[np.ndarray, "f M"]:
    return mel_filter_bank(
        num_frequency_bins=FFT_SAMPLES // 2 + 1,
        num_mel_filters=num_mels,
        min_frequency=0.0,
        max_frequency=SAMPLE_RATE_HZ / 2,
        sampling_rate=SAMPLE_RATE_HZ,
        norm="slaney",
        mel_scale="slaney",
    )


def mel_chunks(
    mel: Float32[np.ndarray, "M F"], config: MelConfig
) -> tuple[Float32[np.ndarray, "k M T"], Int32[np.ndarray, "k"]]:
    """The frames of a recording in chunks of equal length, and how many of each are real.

    All chunks but the last are full; behind the real frames of the last lie zeros.
    """
    num_mels, num_frames = mel.shape
    num_chunks = -(-num_frames // config.chunk_frames)
    padded = np.pad(mel, ((0, 0), (0, num_chunks * config.chunk_frames - num_frames)))
    chunks = padded.reshape(num_mels, num_chunks, config.chunk_frames).swapaxes(0, 1)
    lengths = np.full(num_chunks, config.chunk_frames, np.int32)
    lengths[-1] -= num_chunks * config.chunk_frames - num_frames
    return np.ascontiguousarray(chunks), lengths


def num_audio_tokens(num_frames: Frames) -> Frames:
    """The features that the tower makes of a recording, or of a chunk, of so many mel frames.

    Its second convolution keeps every other frame, its pooling makes one row of two and drops an
    odd last one. No pair lies in two chunks, so a recording has as many as its chunks together.

    Source: transformers Qwen2_5OmniAudioEncoder._get_feat_extract_output_lengths.
    """
    return (num_frames + 1) // 2 // 2
