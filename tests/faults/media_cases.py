"""Media of every kind, damaged in many ways, and what reading them gives."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lco_jax.data.media.audio import load_audio
from lco_jax.data.media.config import MelConfig, PixelConfig, VideoConfig
from lco_jax.data.media.images import image_patches, load_image
from lco_jax.data.media.mel import log_mel
from lco_jax.data.media.video import load_video
from tests.data.audio_files import mp3, plain, tones, track
from tests.data.media_files import animation, encode, noise, random_image, video_file

_VIDEOS = VideoConfig(max_frames=8, pixels=PixelConfig(56 * 56, 112 * 112))

INTACT: dict[str, tuple[str, Callable[[], bytes]]] = {
    **{
        f"a.{kind.lower()}": ("image", lambda kind=kind: encode(random_image(0), kind))
        for kind in ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "AVIF", "BMP", "PPM", "JPEG2000")
    },
    "a.wav": ("audio", lambda: plain(tones(1.5))),
    "a.aiff": ("audio", lambda: plain(tones(1.5), "AIFF")),
    "a.flac": ("audio", lambda: plain(tones(1.5), "FLAC")),
    "a.ogg": ("audio", lambda: plain(tones(1.5), "OGG")),
    "a.opus": ("audio", lambda: plain(tones(1.5), "OGG", "OPUS")),
    "a.mp3": ("audio", lambda: mp3(tones(1.5))),
    "a.m4a": ("audio", lambda: track("mp4", "aac", tones(1.5))),
    "b.webm": ("audio", lambda: track("webm", "libopus", tones(1.5), 48_000)),
    "a.mp4": ("video", lambda: video_file("mp4", noise(25))),
    "b.mp4": ("video", lambda: video_file("mp4", noise(25), movflags="faststart")),
    "a.mkv": ("video", lambda: video_file("matroska", noise(25))),
    "a.webm": ("video", lambda: video_file("webm", noise(25), codec="libvpx-vp9")),
    "a.avi": ("video", lambda: video_file("avi", noise(25), codec="mpeg4")),
    "a.ts": ("video", lambda: video_file("mpegts", noise(25))),
    "b.gif": ("video", lambda: animation("GIF", 9)),
    "b.webp": ("video", lambda: animation("WEBP", 9)),
    "b.png": ("video", lambda: animation("PNG", 9)),
}
"""What each file is, and its content."""
_WITHOUT_LENGTH = ("a.ts",)
"""Streams that say nowhere how long they are: what is left of a cut one is whole."""


class Case(NamedTuple):
    """A damaged file."""

    name: str
    damage: str
    content: bytes
    is_exact: bool
    """Whether what is read, if anything, must be what the intact file holds."""


def read(path: Path, kind: str) -> str:
    """A digest of what the model would be given."""
    if kind == "image":
        found = image_patches(load_image(str(path)), PixelConfig()).levels
    elif kind == "audio":
        config = MelConfig()
        found = log_mel(load_audio(str(path), config), config)
    else:
        found = load_video(str(path), _VIDEOS).frames
    if not found.size or not np.isfinite(found).all():
        raise AssertionError(f"nothing, or what is not finite, in an array of {found.shape}")
    return hashlib.sha256(np.ascontiguousarray(found).tobytes()).hexdigest()


def compare(path: Path, kind: str, intact: str, is_exact: bool) -> bool:
    """Whether a file that can be read holds what it should."""
    found = read(path, kind)
    return found == intact or not is_exact


def is_right(found: bool) -> bool:
    return found


def cases(name: str, content: bytes, count: int, seed: int = 0) -> Iterator[Case]:
    """So many ways in which a file can be damaged; the first are cuts."""
    rng = np.random.default_rng([seed, *name.encode()])
    makers = (_cut, _append, _overwrite, _header, _remove, _repeat)
    for number in range(count):
        damage, changed, is_exact = makers[number % len(makers)](content, rng)
        exact = is_exact and not (damage == "cut" and name in _WITHOUT_LENGTH)
        yield Case(name, f"{damage} {number}", changed, exact)


def _cut(content, rng):
    return "cut", content[: int(len(content) * rng.uniform(0.02, 0.9))], True


def _append(content, rng):
    return "append", content + rng.bytes(int(rng.integers(1, 5000))), False


def _overwrite(content, rng):
    changed = np.frombuffer(content, np.uint8).copy()
    places = rng.integers(0, len(changed), int(rng.integers(1, 40)))
    changed[places] = rng.integers(0, 256, len(places))
    return "overwrite", changed.tobytes(), False


def _header(content, rng):
    """Numbers of a header that may be anything."""
    start = int(rng.integers(4, min(len(content) - 8, 120)))
    value = rng.choice([b"\xff" * 4, b"\0" * 4, b"\x7f" + b"\xff" * 3, b"\0\0\0\1", rng.bytes(4)])
    return "header", content[:start] + bytes(value) + content[start + 4 :], False


def _remove(content, rng):
    start = int(rng.integers(8, len(content) - 8))
    return "remove", content[:start] + content[start + int(rng.integers(1, 400)) :], False


def _repeat(content, rng):
    start, stop = sorted(rng.integers(0, len(content), 2).tolist())
    return "repeat", content[:stop] + content[start:], False
