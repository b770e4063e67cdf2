"""The frames of videos, one at a time: containers through PyAV, animated images through Pillow."""

import contextlib
import io
from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

import av
import numpy as np
from PIL import Image

from lco_jax.config import MediaLimits
from lco_jax.data.media.clock import Clock
from lco_jax.data.media.errors import MediaError
from lco_jax.data.media.images import check_size, load_image, to_rgb
from lco_jax.data.media.riff import lacks_bytes
from lco_jax.data.media.sources import Frames

_ANIMATED = ("GIF", "PNG", "WEBP")
CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg"
"""FFmpeg's names. Playlists and the like are left out: they make it open other files and hosts."""

_COVER = av.stream.Disposition.attached_pic
_DEFAULT_FRAME_MS = 100
"""How long a frame is shown that does not say it; browsers do the same."""

_MATRIX = av.sidedata.sidedata.Type.DISPLAYMATRIX
_TURNS = {
    (-1, 0, 0, 1): Image.Transpose.FLIP_LEFT_RIGHT,
    (1, 0, 0, -1): Image.Transpose.FLIP_TOP_BOTTOM,
    (-1, 0, 0, -1): Image.Transpose.ROTATE_180,
    (0, -1, 1, 0): Image.Transpose.ROTATE_90,
    (0, 1, -1, 0): Image.Transpose.ROTATE_270,
    (0, 1, 1, 0): Image.Transpose.TRANSPOSE,
    (0, -1, -1, 0): Image.Transpose.TRANSVERSE,
}
"""By where a matrix takes the horizontal axis, and the vertical one (downward)."""


class Footage(NamedTuple):
    """A video before its frames are decoded."""

    num_frames: int
    """As the file counts them; some codecs also count frames that are never shown."""
    fps: float
    """Mean over the video."""
    frames: Callable[[Collection[int]], Iterator[Image.Image | None]]
    """Decodes from the start: upright RGB for frames of these numbers, None for the others.

    Raises:
        MediaError: a frame is damaged or too large.
    """


def read_footage(file: io.BufferedIOBase, name: str, limits: MediaLimits) -> Footage:
    """The footage of a video or an animated image; `name` is what errors call it.

    Raises:
        MediaError: no video of a known format, no frames, truncated, damaged or over the limits.
    """
    with _naming(name):
        try:
            image = Image.open(file, formats=_ANIMATED)
        except Image.UnidentifiedImageError:
            return _read_container(file, name, limits)
        return _read_animation(image, name, limits)


def read_frames(source: Frames, default_fps: float, limits: MediaLimits) -> Footage:
    """The footage of frames in memory.

    Args:
        default_fps: of frames that do not say their rate.

    Raises:
        MediaError: too many frames, or (while they are decoded) of different sizes.
    """
    _check_num_frames(source.name, len(source.images), limits)

    def frames(wanted: Collection[int]) -> Iterator[Image.Image | None]:
        size = None
        for index, given in enumerate(source.images):
            if index not in wanted:
                yield None
                continue
            image = load_image(given, limits)
            size = size or image.size
            if image.size != size:
                raise MediaError(
                    f"{source.name}: frame {index} has {image.width} x {image.height} pixels, "
                    f"others have {size[0]} x {size[1]}; give all frames one size"
                )
            yield image

    return Footage(len(source.images), source.fps or default_fps, frames)


@contextlib.contextmanager
def _naming(name: str) -> Iterator[None]:
    try:
        yield
    except MediaError:
        raise
    except Exception as error:  # decoders raise many kinds of errors on damaged data
        raise MediaError(
            f"{name}: the video cannot be decoded ({type(error).__name__}: {error}); it may be "
            "truncated, damaged or no video: copy it again, convert it to mp4, or give a still "
            "image as an image"
        ) from error


def _check_num_frames(name: str, num_frames: int, limits: MediaLimits) -> None:
    if num_frames > limits.max_file_frames:
        raise MediaError(
            f"{name}: {num_frames} frames or more, and max_file_frames={limits.max_file_frames}; "
            "cut it into pieces, or raise the limit in data.media.limits"
        )


def _check_num_pixels(
    name: str, num_frames: int, width: int, height: int, limits: MediaLimits
) -> None:
    num_pixels = num_frames * width * height
    if num_pixels > limits.max_decoded_pixels:
        raise MediaError(
            f"{name}: {num_frames} frames of {width} x {height} are {num_pixels} pixels, more than "
            f"max_decoded_pixels={limits.max_decoded_pixels}; cut it into pieces or scale it down, "
            "or raise the limit in data.media.limits"
        )


# ------------------------------------------------------------------------------------- containers


def _read_container(file: io.BufferedIOBase, name: str, limits: MediaLimits) -> Footage:
    clock = Clock(name, limits)
    with _open_container(file) as container:
        # Audio files carry their cover as a video stream.
        videos = [s for s in container.streams.video if not s.disposition & _COVER]
        if not videos:
            kinds = " and ".join(sorted({stream.type for stream in container.streams}))
            raise MediaError(f"{name}: has {kinds or 'no streams'} but no video; correct the path")
        stream = videos[0]
        size = stream.codec_context.width, stream.codec_context.height
        check_size(name, *size, limits)
        number, promised = stream.index, stream.frames
        num_frames, end_s = _survey(container, number, name, limits, clock)
        _check_num_pixels(name, num_frames, *size, limits)
        declared_s = (container.duration or 0) / av.time_base
        fps = float(stream.average_rate or 0) or num_frames / (end_s or _DEFAULT_FRAME_MS / 1000)
    # Slack for rounding, lists of edits, and the last frame, whose duration may be unknown.
    if end_s + 1 / fps + 0.2 < 0.95 * declared_s:
        raise MediaError(
            f"{name}: ends after {end_s:.1f} of {declared_s:.1f} seconds, so it is truncated; "
            "copy or download it again"
        )
    if num_frames < promised and lacks_bytes(file):
        raise MediaError(
            f"{name}: has {num_frames} of {promised} frames and ends before its last part does, so "
            "it is truncated; copy or download it again"
        )

    def frames(wanted: Collection[int]) -> Iterator[Image.Image | None]:
        with _naming(name), _open_container(file) as container:
            for index, frame in enumerate(container.decode(container.streams[number])):
                clock.check()
                if frame.is_corrupt:
                    raise MediaError(
                        f"{name}: frame {index} is damaged; copy the file again, or cut it out"
                    )
                check_size(name, frame.width, frame.height, limits)
                yield _upright(frame) if index in wanted else None

    return Footage(num_frames, fps, frames)


def _open_container(file: io.BufferedIOBase) -> av.container.InputContainer:
    file.seek(0)
    return av.open(file, options={"format_whitelist": CONTAINERS}, metadata_errors="ignore")


def _survey(
    container: av.container.InputContainer,
    index: int,
    name: str,
    limits: MediaLimits,
    clock: Clock,
) -> tuple[int, float]:
    """The frames of stream `index`, and when the last packet of any ends; nothing is decoded."""
    num_frames, end_s = 0, 0.0
    for packet in container.demux():
        if packet.pts is not None:
            end_s = max(end_s, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        # The packets that end a stream are empty.
        num_frames += packet.stream_index == index and packet.size > 0
        _check_num_frames(name, num_frames, limits)
        clock.check()
    if not num_frames:
        raise MediaError(f"{name}: its video has no frames; export it again, or drop the record")
    return num_frames, end_s


def _upright(frame: av.VideoFrame) -> Image.Image:
    """In RGB, turned and mirrored as the container says (telephones record sideways, and some of
    them as in a mirror).

    Source: FFmpeg, `av_display_rotation_get` and what ffplay does with the matrix.
    """
    for data in frame.side_data:
        if data.type == _MATRIX:
            matrix = np.frombuffer(bytes(data), np.int32).reshape(3, 3)[:2, :2] / 2**16
            turn = _TURNS.get(tuple(matrix.round().astype(int).ravel().tolist()))
            return frame.to_image() if turn is None else frame.to_image().transpose(turn)
    return frame.to_image()


# ------------------------------------------------------------------------------- animated images


def _read_animation(image: Image.Image, name: str, limits: MediaLimits) -> Footage:
    check_size(name, *image.size, limits)
    clock = Clock(name, limits)
    num_frames = getattr(image, "n_frames", 1)
    _check_num_frames(name, num_frames, limits)
    _check_num_pixels(name, num_frames, *image.size, limits)
    duration_ms = 0.0
    for index in range(num_frames):
        clock.check()
        duration_ms += _duration_ms(image, index)

    def frames(wanted: Collection[int]) -> Iterator[Image.Image | None]:
        with _naming(name):
            for index in range(num_frames):
                clock.check()
                image.seek(index)
                yield to_rgb(image) if index in wanted else None

    return Footage(num_frames, num_frames / duration_ms * 1000, frames)


def _duration_ms(image: Image.Image, index: int) -> float:
    image.seek(index)
    image.load()  # WebP tells the duration only then
    return float(image.info.get("duration") or _DEFAULT_FRAME_MS)
