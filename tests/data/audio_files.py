"""Audio made on the spot: intact ones to compare with, and malformed ones."""

import io
import struct
from collections.abc import Callable

import av
import numpy as np
import soundfile

from tests.data.media_files import cut, encode, noise, random_image, scratched, video_file

RATE_HZ = 16_000


def tones(seconds: float, rate_hz: int = RATE_HZ, seed: int = 0) -> np.ndarray:
    """Something like a voice: gliding tones that swell and fade, and a little noise."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate_hz)) / rate_hz
    voice = 0.003 * rng.normal(size=len(time))
    for start, swing in rng.uniform((80, 0.2), (1500, 3), (5, 2)):
        pitch = start * (1 + 0.1 * np.sin(2 * np.pi * swing * time))
        loudness = 0.1 * np.sin(np.pi * swing * time) ** 2
        voice += loudness * np.sin(2 * np.pi * np.cumsum(pitch) / rate_hz)
    return voice.astype(np.float32)


def plain(
    samples: np.ndarray, kind: str = "WAV", subtype: str | None = None, rate_hz: int = RATE_HZ
) -> bytes:
    """As libsndfile writes it; stereo is of shape (n, 2)."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate_hz, format=kind, subtype=subtype)
    return buffer.getvalue()


def mp3(samples: np.ndarray, rate_hz: int = RATE_HZ, *, has_length: bool = True) -> bytes:
    """With a varying bit rate; without its first frame nothing tells the length."""
    buffer = io.BytesIO()
    options = {"format": "MP3", "bitrate_mode": "VARIABLE", "compression_level": 0.3}
    with soundfile.SoundFile(buffer, "w", rate_hz, 1, **options) as file:
        file.write(samples)
    content = buffer.getvalue()
    return content if has_length else content[content.index(content[:2], 2) :]


def track(
    container: str,
    codec: str,
    samples: np.ndarray,
    rate_hz: int = RATE_HZ,
    *,
    with_video: bool = False,
    **options: str,
) -> bytes:
    """As FFmpeg writes it, with or without a video of the same length."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container, options=options) as output:
        if with_video:
            video = output.add_stream("libvpx" if container == "webm" else "libx264", rate=10)
            video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        layout = "mono" if samples.ndim == 1 else "stereo"
        audio = output.add_stream(codec, rate=rate_hz, layout=layout)
        if with_video:
            for pixels in noise(round(10 * len(samples) / rate_hz)):
                output.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            output.mux(video.encode(None))
        planes = np.ascontiguousarray(samples.reshape(len(samples), -1).T, np.float32)
        frame = av.AudioFrame.from_ndarray(planes, format="fltp", layout=layout)
        frame.sample_rate, frame.pts = rate_hz, 0
        output.mux(audio.encode(frame))
        output.mux(audio.encode(None))
    return buffer.getvalue()


def with_size(content: bytes, size: int) -> bytes:
    """A WAV file whose header declares another size of its data."""
    start = content.index(b"data") + 4
    return content[:start] + struct.pack("<I", size) + content[start + 4 :]


def with_cover(content: bytes) -> bytes:
    """An MP3 file with an image before its audio."""
    image = b"\0image/png\0\3\0" + encode(random_image(0), "PNG") + b"Xing"
    frame = b"APIC" + struct.pack(">I", len(image)) + b"\0\0" + image
    size = len(frame)
    digits = bytes(size >> shift & 127 for shift in (21, 14, 7, 0))
    return b"ID3\3\0\0" + digits + frame + content


def _spoiled(value: float) -> bytes:
    samples = tones(0.5)
    samples[1234] = value
    return plain(samples, subtype="FLOAT")


_UNDECODABLE = "the audio cannot be decoded"
_TRUNCATED = "so it is truncated"
_SHORT = "too short"
_Make = Callable[[], bytes]

BAD_AUDIO: dict[str, tuple[_Make, str]] = {
    "empty.wav": (lambda: b"", "the file is empty"),
    "text.wav": (lambda: b"no audio at all\n", _UNDECODABLE),
    "page.mp3": (lambda: b"<!DOCTYPE html><html>404 Not Found</html>", _UNDECODABLE),
    "noise.ogg": (lambda: np.random.default_rng(0).bytes(4096), _UNDECODABLE),
    "zeros.wav": (lambda: bytes(4096), _UNDECODABLE),
    "header.wav": (lambda: plain(tones(1))[:20], _UNDECODABLE),
    "image.wav": (lambda: encode(random_image(0), "PNG"), _UNDECODABLE),
    "silent_video.mp4": (lambda: video_file("mp4", noise(5)), "has video but no audio"),
    "nan.wav": (lambda: _spoiled(np.nan), "not finite"),
    "infinity.wav": (lambda: _spoiled(-np.inf), "not finite"),
    "no_samples.wav": (lambda: plain(np.zeros(0, np.float32)), _SHORT),
    "short.wav": (lambda: plain(tones(0.02)), "20 ms of audio are too short"),
    "short.flac": (lambda: plain(tones(0.0199, 44_100), "FLAC", rate_hz=44_100), _SHORT),
    "no_data.wav": (lambda: plain(tones(1))[:44], _TRUNCATED),
    "cut.wav": (lambda: cut(plain(tones(3)), 0.7), "ends after 2.1 seconds.*so it is truncated"),
    "cut_24.wav": (lambda: cut(plain(tones(3), subtype="PCM_24"), 0.7), _TRUNCATED),
    "cut.aiff": (lambda: cut(plain(tones(3), "AIFF"), 0.7), _TRUNCATED),
    "cut.au": (lambda: cut(plain(tones(3), "AU"), 0.7), _TRUNCATED),
    "cut.w64": (lambda: cut(plain(tones(3), "W64"), 0.7), _TRUNCATED),
    "cut.flac": (lambda: cut(plain(tones(3), "FLAC"), 0.7), _UNDECODABLE),
    "cut.ogg": (lambda: cut(plain(tones(9), "OGG"), 0.7), _TRUNCATED),
    "cut.opus": (lambda: cut(plain(tones(9), "OGG", "OPUS"), 0.7), _TRUNCATED),
    "cut.mp3": (lambda: cut(mp3(tones(9)), 0.7), _TRUNCATED),
    "no_index.m4a": (lambda: cut(track("mp4", "aac", tones(9)), 0.9), _UNDECODABLE),
    "cut.webm": (lambda: cut(track("webm", "libopus", tones(9), 48_000), 0.6), _TRUNCATED),
    "cut.mkv": (
        lambda: cut(track("matroska", "aac", tones(3), with_video=True), 0.6),
        "of 3.. seconds, so it is truncated",
    ),
    "scratched.flac": (lambda: scratched(plain(tones(1), "FLAC")), _UNDECODABLE),
}
"""What each file holds, and what the error must say of it."""
