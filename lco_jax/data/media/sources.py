"""What a medium may be given as: an address, the content of a file, or values in memory."""

import base64
import binascii
import contextlib
import io
import re
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace

import numpy as np
from jaxtyping import Float32
from PIL import Image, ImageFile

from lco_jax.data.media.config import PixelConfig, VideoConfig
from lco_jax.data.media.errors import MediaError
from lco_jax.runtime.regular_files import NotRegularFileError, open_regular


@dataclass(frozen=True, eq=False)
class Pixels:
    """An image in memory, of any mode and with its EXIF block, if it has one."""

    image: Image.Image
    name: str = "an image"
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    """Pillow reads an opened file when its pixels are asked for, in whatever thread that is."""


@dataclass(frozen=True, eq=False)
class Waveform:
    """Audio in memory: mono, full scale at 1."""

    samples: Float32[np.ndarray, "n"]
    rate_hz: int
    name: str = "a waveform"


@dataclass(frozen=True, eq=False)
class Frames:
    """A video in memory, as the images of its frames."""

    images: tuple["str | bytes | Pixels", ...]
    fps: float | None = None
    """At which they were taken (None: the rate at which videos are read, so that all are kept)."""
    name: str = "frames"

    def __post_init__(self):
        MediaOptions(fps=self.fps)  # refuses what is no rate


@dataclass(frozen=True)
class MediaOptions:
    """What one medium asks for in place of the settings of the model (None: those)."""

    min_pixels: int | None = None
    max_pixels: int | None = None
    """Of an image, or of each frame of a video."""
    total_pixels: int | None = None
    """Of all pairs of frames."""
    fps: float | None = None
    min_frames: int | None = None
    max_frames: int | None = None
    start: float | None = None
    """Seconds at which the part of a video or of audio begins that is read."""
    end: float | None = None

    def __post_init__(self):
        for name in (entry.name for entry in fields(self)):
            value = getattr(self, name)
            if value is None:
                continue
            fits = value >= 0 if name == "start" else value > 0
            if not (np.isfinite(value) and fits):
                least = "at least 0" if name == "start" else "positive"
                raise ValueError(f"{name}={value} must be {least}")
        if self.end is not None and self.end <= (self.start or 0):
            raise ValueError(f"start={self.start or 0}, end={self.end}: nothing lies between them")
        for low, high in (("min_pixels", "max_pixels"), ("min_frames", "max_frames")):
            least, most = getattr(self, low), getattr(self, high)
            if None not in (least, most) and least > most:
                raise ValueError(f"{low}={least} is more than {high}={most}")

    def of_pixels(self, config: PixelConfig) -> PixelConfig:
        """Bounds of an image or a frame; of two that would cross, the one asked for counts."""
        if self.min_pixels is None and self.max_pixels is None:
            return config
        least, most = self.min_pixels, self.max_pixels
        least = min(config.min_pixels, most or config.min_pixels) if least is None else least
        most = max(config.max_pixels, least) if most is None else most
        return replace(config, min_pixels=least, max_pixels=most)

    def of_video(self, config: VideoConfig) -> VideoConfig:
        """Rate, number and bounds of the frames of a video."""
        least, most = self.min_frames, self.max_frames
        least = min(config.min_frames, most or config.min_frames) if least is None else least
        most = max(config.max_frames, least) if most is None else most
        return replace(
            config,
            fps=self.fps or config.fps,
            min_frames=least,
            max_frames=most,
            pixels=self.of_pixels(config.pixels),
            max_total_pixels=self.total_pixels or config.max_total_pixels,
        )


DEFAULT_OPTIONS = MediaOptions()

PlainSource = str | bytes | Pixels | Waveform | Frames


@dataclass(frozen=True)
class Adjusted:
    """A medium with options of its own."""

    source: PlainSource
    options: MediaOptions


MediaSource = PlainSource | Adjusted
"""An address (a local path, a remote one such as `gs://`, or a `file:` or `data:` URI), the content
of a file, or values in memory; with options, if it has any."""


def split_options(source: MediaSource) -> tuple[PlainSource, MediaOptions]:
    """A medium and what it asks for."""
    if isinstance(source, Adjusted):
        return source.source, source.options
    return source, DEFAULT_OPTIONS


def name_of(source: MediaSource) -> str:
    """What errors call a medium."""
    source, _ = split_options(source)
    if isinstance(source, bytes):
        return f"a file of {len(source)} bytes"
    if not isinstance(source, str):
        return source.name
    if source.startswith("data:"):
        return f"{source[:40]}... ({len(source)} characters)" if len(source) > 40 else source
    return source


@contextlib.contextmanager
def open_media(source: str | bytes) -> Iterator[io.BufferedIOBase]:
    """A media file that exists and is not empty, or its content.

    Raises:
        MediaError: it does not, cannot be read, is empty, or its address is of a kind that is not
            read.
    """
    name = name_of(source)
    try:
        file = io.BytesIO(source) if isinstance(source, bytes) else _open_address(source, name)
    except FileNotFoundError as error:
        raise MediaError(f"{name}: no such file; correct the path in the record") from error
    except NotRegularFileError as error:
        raise MediaError(str(error)) from error
    except OSError as error:
        raise MediaError(f"{name}: cannot be opened ({error.strerror or error})") from error
    with file:
        if not file.read(1):
            raise MediaError(f"{name}: the file is empty; copy or download it again")
        file.seek(0)
        refuse_truncated_images()
        yield file


def refuse_truncated_images() -> None:
    """Libraries such as weasyprint have Pillow fill what is missing with grey, for all."""
    ImageFile.LOAD_TRUNCATED_IMAGES = False


def _open_address(address: str, name: str) -> io.BufferedIOBase:
    if address.startswith("data:"):
        return io.BytesIO(content_of_data_uri(address))
    path = path_of_uri(address)
    if re.match(r"https?://", path):
        raise MediaError(f"{name}: web addresses are not fetched; download the file first")
    try:
        return open_regular(path)
    except KeyError as error:  # of the table of file systems
        raise MediaError(f"{name}: addresses of this kind are not read; copy the file") from error
    except ImportError as error:
        raise MediaError(f"{name}: {error}; install the library of that storage") from error
    except ValueError as error:  # a zero byte in the path
        raise MediaError(f"{name!r}: no path ({error}); correct it in the record") from error


def path_of_uri(address: str) -> str:
    """The local path that a `file:` URI means; any other address stays as it is."""
    if not address.startswith("file://"):
        return address
    parts = urllib.parse.urlsplit(address)
    if parts.netloc not in ("", "localhost"):
        raise MediaError(f"{address}: is on the host {parts.netloc}; write file:///PATH")
    return urllib.request.url2pathname(parts.path)


def content_of_data_uri(address: str) -> bytes:
    """What a `data:` URI holds.

    Raises:
        MediaError: it is cut or damaged.
    """
    head, comma, body = address.partition(",")
    try:
        if not comma:
            raise ValueError("it has no comma")
        if head.endswith(";base64"):
            return base64.b64decode(urllib.parse.unquote(body), validate=True)
        return urllib.parse.unquote_to_bytes(body)
    except (ValueError, binascii.Error) as error:
        raise MediaError(f"{name_of(address)}: no data URI ({error}); encode it again") from error
