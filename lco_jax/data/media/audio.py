"""Audio files of any kind, and the audio tracks of videos, as mono samples at 16 kHz."""

import contextlib
import io
import re
from collections.abc import Iterator
from typing import NamedTuple

import av
import numpy as np
import soundfile
import soxr
from jaxtyping import Float32

from lco_jax.config import MediaLimits
from lco_jax.data.media.clock import Clock
from lco_jax.data.media.config import DEFAULT_LIMITS, HOP_SAMPLES, SAMPLE_RATE_HZ, MelConfig
from lco_jax.data.media.errors import MediaError, NoAudioError, TooLongError
from lco_jax.data.media.footage import CONTAINERS
from lco_jax.data.media.joined import are_joined, lacks_last_page
from lco_jax.data.media.mel import num_audio_tokens
from lco_jax.data.media.riff import UNKNOWN_BYTES
from lco_jax.data.media.sources import Waveform, name_of, open_media

AUDIO_CONTAINERS = f"{CONTAINERS},aac,ac3,aiff,amr,ape,au,caf,eac3,flac,mp3,tta,w64,wav,wv"
"""FFmpeg's names; see `footage`."""
_BLOCK_VALUES = 2**18
_EXTRA_SECONDS = 0.1
"""Read beyond the longest recording, so that resampling does not meet an end where it is cut."""
_MOST_HZ = 768_000
"""The highest rate of any recorder."""

Samples = Float32[np.ndarray, "n"]


def load_audio(
    source: str | bytes | Waveform,
    config: MelConfig,
    limits: MediaLimits = DEFAULT_LIMITS,
    *,
    start_s: float = 0.0,
    end_s: float | None = None,
) -> Samples:
    """The audio in a file, of a waveform, or the audio track of a video: mono, at 16 kHz, full
    scale at 1.

    The mean of all channels is taken. Silence is audio like any other.

    Args:
        source: an address, the content of a file, or samples in memory.
        config: how much is read.
        limits: what reading it may cost.
        start_s, end_s: the part that is read (None: to the end).

    Raises:
        NoAudioError: a video or an animation without an audio track.
        MediaError: missing, empty, no audio, truncated, damaged, not finite, too short for a
            single token, beyond a limit, or longer than a config allows that refuses instead of
            cutting.
    """
    name = name_of(source)
    length_s = config.max_seconds + _EXTRA_SECONDS
    if end_s is not None:
        length_s = min(length_s, end_s - start_s)
    part = _Part(start_s, start_s + length_s)
    if part.end_s > limits.max_decoded_seconds:
        raise MediaError(
            f"{name}: its first {part.end_s:g} seconds are to be decoded, more than "
            f"max_decoded_seconds={limits.max_decoded_seconds:g}; cut it into pieces, or raise the "
            "limit in data.media.limits"
        )
    if isinstance(source, Waveform):
        samples = source.samples[part.first(source.rate_hz) : part.stop(source.rate_hz)]
        rate_hz = source.rate_hz
    else:
        with open_media(source) as file:
            samples, rate_hz = _decode(file, name, part, Clock(name, limits))
    if start_s and not len(samples):
        raise MediaError(f"{name}: ends before start={start_s:g} seconds; correct the start")
    return _at_16_khz(samples, rate_hz, name, config)


def _check_rate(rate_hz: int, name: str) -> int:
    if not 1 <= rate_hz <= _MOST_HZ:
        raise MediaError(
            f"{name}: says that it has {rate_hz} samples a second, and at most {_MOST_HZ} are "
            "read; it is damaged, or convert it to 48000"
        )
    return rate_hz


class _Part(NamedTuple):
    """Which of the samples are read."""

    start_s: float
    end_s: float

    def first(self, rate_hz: int) -> int:
        return round(self.start_s * rate_hz)

    def stop(self, rate_hz: int) -> int:
        return int(self.end_s * rate_hz + 1e-6)


def _decode(file: io.BufferedIOBase, name: str, part: _Part, clock: Clock) -> tuple[Samples, int]:
    try:
        with _open_plain(file) as plain:
            if plain is not None and not _is_for_ffmpeg(plain, file):
                return _read_plain(plain, file, name, part, clock)
        return _read_track(file, name, part, clock)
    except MediaError:
        raise
    except Exception as error:  # decoders raise many kinds of errors on damaged data
        detail = getattr(error, "error_string", None) or error
        raise MediaError(
            f"{name}: the audio cannot be decoded ({type(error).__name__}: {detail}); it may be "
            "truncated, damaged or no audio: copy it again, or convert it to wav"
        ) from error


def _at_16_khz(samples: Samples, rate_hz: int, name: str, config: MelConfig) -> Samples:
    if not np.isfinite(samples).all():
        raise MediaError(f"{name}: holds values that are not finite (NaN); export it again")
    if rate_hz != SAMPLE_RATE_HZ:
        samples = soxr.resample(samples, rate_hz, SAMPLE_RATE_HZ)
    if len(samples) > config.max_samples:
        if config.when_longer == "refuse":
            raise TooLongError(
                f"{name}: longer than max_seconds={config.max_seconds:g}; cut it into pieces, or "
                "raise the limit"
            )
        samples = samples[: config.max_samples]
    if not num_audio_tokens(-(-len(samples) // HOP_SAMPLES)):
        raise MediaError(
            f"{name}: {1000 * len(samples) / SAMPLE_RATE_HZ:.0f} ms of audio are too short, the "
            "shortest is just over 20 ms; drop the record, or pad it with silence"
        )
    return samples.astype(np.float32, copy=False)


# ---------------------------------------------------------------------------------- plain audio


@contextlib.contextmanager
def _open_plain(file: io.BufferedIOBase) -> Iterator[soundfile.SoundFile | None]:
    """The file as libsndfile opens it (wav, flac, ogg and their like), or None."""
    try:
        plain = soundfile.SoundFile(file)
    except soundfile.LibsndfileError:
        yield None
        return
    with plain:
        yield plain


def _is_for_ffmpeg(plain: soundfile.SoundFile, file: io.BufferedIOBase) -> bool:
    """Whether libsndfile would read less than there is: it believes a wrong length of MP3, and one
    of zero that stands for an unknown one, and reads the first of several joined recordings.
    """
    if plain.format == "MP3":
        return True
    if plain.format in ("OGG", "FLAC"):
        position = file.tell()
        joined = are_joined(file) and not (plain.format == "OGG" and _lacks_end(plain, file))
        file.seek(position)
        return joined
    return not plain.frames and not _lacks_end(plain, file)


def _read_plain(
    plain: soundfile.SoundFile, file: io.BufferedIOBase, name: str, part: _Part, clock: Clock
) -> tuple[Samples, int]:
    rate_hz = _check_rate(plain.samplerate, name)
    first, limit = part.first(rate_hz), part.stop(rate_hz)
    blocks, num_read = [], 0
    while num_read < limit:
        clock.check()
        count = min(limit - num_read, max(_BLOCK_VALUES // plain.channels, 1))
        block = plain.read(count, dtype="float32", always_2d=True)
        if not len(block):
            break
        blocks.append(block[max(first - num_read, 0) :].mean(axis=1))
        num_read += len(block)
    else:
        return np.concatenate(blocks), rate_hz
    if _lacks_end(plain, file):
        raise MediaError(
            f"{name}: ends after {num_read / rate_hz:.1f} seconds, before the end that it "
            "declares, so it is truncated; copy or download it again"
        )
    return np.concatenate([np.zeros(0, np.float32), *blocks]), rate_hz


def _lacks_end(plain: soundfile.SoundFile, file: io.BufferedIOBase) -> bool:
    if plain.format == "OGG":
        return lacks_last_page(file)
    # What libsndfile notes down when the size in a header is not that of the data.
    found = re.search(
        r"(?:data|SSND|Data Size|riff) *: (\d+) \(should be (\d+)\)", plain.extra_info
    )
    return bool(found) and int(found[2]) < int(found[1]) < UNKNOWN_BYTES


# ---------------------------------------------------------------------------------- other audio


def _read_track(
    file: io.BufferedIOBase, name: str, part: _Part, clock: Clock
) -> tuple[Samples, int]:
    """Of the first audio track of a container."""
    file.seek(0)
    options = {"format_whitelist": AUDIO_CONTAINERS}
    with av.open(file, options=options, metadata_errors="ignore") as container:
        if not container.streams.audio:
            kinds = " and ".join(sorted({stream.type for stream in container.streams}))
            raise NoAudioError(
                f"{name}: has {kinds or 'no streams'} but no audio; correct the path, or give a "
                "video without audio as a video only"
            )
        stream = container.streams.audio[0]
        rate_hz = _check_rate(stream.codec_context.sample_rate, name)
        first, limit = part.first(rate_hz), part.stop(rate_hz)
        planar = av.AudioResampler(format="fltp", rate=rate_hz)
        blocks, num_read, end_s = [], 0, 0.0
        for packet in container.demux():
            clock.check()
            if packet.pts is not None:
                end_s = max(end_s, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            if packet.stream_index != stream.index:
                continue
            for frame in packet.decode():
                if frame.is_corrupt:
                    raise MediaError(
                        f"{name}: its audio is damaged at {num_read / rate_hz:.1f} seconds; copy "
                        "the file again, or cut it out"
                    )
                for block in planar.resample(frame):
                    samples = block.to_ndarray()[:, max(first - num_read, 0) :]
                    blocks.append(samples[:, : max(limit - num_read, 0)].mean(axis=0))
                    num_read += block.samples
            if num_read >= limit:
                return np.concatenate(blocks), rate_hz
        declared_s = (container.duration or 0) / av.time_base
        is_estimate = container.format.name == "mp3" and not _has_length(file)
    # Slack for rounding and for a last packet whose duration is unknown.
    if not is_estimate and end_s + 0.2 < 0.95 * declared_s:
        raise MediaError(
            f"{name}: ends after {end_s:.1f} of {declared_s:.1f} seconds, so it is truncated; "
            "copy or download it again"
        )
    return np.concatenate([np.zeros(0, np.float32), *blocks]), rate_hz


def _has_length(file: io.BufferedIOBase) -> bool:
    """Whether an MP3 file tells its length; FFmpeg otherwise guesses it from the first bit rate."""
    file.seek(0)
    tag = file.read(10)
    start = 0
    if tag[:3] == b"ID3":  # a size of four times seven bits, without these ten bytes
        start = 10 + sum(byte << shift for byte, shift in zip(tag[6:], (21, 14, 7, 0), strict=True))
    file.seek(start)
    frame = file.read(64)
    return b"Xing" in frame or b"Info" in frame
